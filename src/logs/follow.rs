//! Follows a log while it is written, by whichever process.
//!
//! The file is what is read; the channel only says "look again" and "that was all". Where the writer is in another
//! process nobody says so, and the file is looked at every [`POLL`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::LogError;
use super::format::Line;
use super::reader::LogReader;

/// How often the file is looked at if nobody says that it has grown.
const POLL: Duration = Duration::from_millis(100);
/// Text of one batch, about. Each follower that is slow holds one.
const BATCH_BYTES: usize = 32 * 1024;
/// Lines of one batch.
const BATCH_LINES: usize = 256;
/// Followers that read at the same moment. Each takes a thread for it, and a thread costs more memory than a follower.
const READ_AT_ONCE: usize = 16;

static READING: Semaphore = Semaphore::const_new(READ_AT_ONCE);

/// A follower; each has its own, so one that is slow holds up nobody.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    place: Place,
    /// The file's size when nothing more was in it.
    read_to: Option<u64>,
    over: watch::Receiver<bool>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    /// The first line that is wanted.
    first: u64,
    /// The next line, and where it begins; not known before the first look.
    next: Option<(u64, u64)>,
}

impl Follow {
    /// Follows the log at `path` from line `first` on. The log need not be there yet.
    ///
    /// `over` says that the log is complete (`true`, or its sender is gone); any send on it wakes the follower.
    pub fn new(path: &Path, first: u64, over: watch::Receiver<bool>) -> Self {
        Self { path: path.to_owned(), place: Place { first, next: None }, read_to: None, over }
    }

    /// The next lines, at least one; waits for them. `None`: that was all.
    ///
    /// May be dropped and called again without losing a line.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Damaged`]. That the log is not there (any more) is no error.
    pub async fn next(&mut self) -> Result<Option<Vec<Line>>, LogError> {
        loop {
            // Asked before the file is read: what was written before the end is then seen.
            let over = *self.over.borrow_and_update() || self.over.has_changed().is_err();
            // Packing changes the size, too, and an end is always looked behind.
            let size = std::fs::metadata(&self.path).ok().map(|file| file.len());
            if over || size.is_none() || size != self.read_to {
                let lines = self.read().await?;
                if !lines.is_empty() {
                    return Ok(Some(lines));
                }
                self.read_to = size;
            }
            if over {
                return Ok(None);
            }
            // A timeout is the poll; an error is the sender's end, seen in the next round.
            let _ = timeout(POLL, self.over.changed()).await;
        }
    }

    async fn read(&mut self) -> Result<Vec<Line>, LogError> {
        let (path, place) = (self.path.clone(), self.place);
        // It is never closed.
        let turn = READING.acquire().await.ok();
        let read = tokio::task::spawn_blocking(move || {
            // Held by the thread: whoever asks may go away meanwhile.
            let _turn = turn;
            batch(&path, place)
        });
        let (lines, place) = read.await.map_err(|e| LogError::io("follow", &self.path)(std::io::Error::other(e)))??;
        self.place = place;
        Ok(lines)
    }
}

/// Reads what is there. The file is opened anew each time: it may have been packed meanwhile.
fn batch(path: &Path, mut place: Place) -> Result<(Vec<Line>, Place), LogError> {
    let mut lines = Vec::new();
    let mut reader = match LogReader::open(path) {
        Ok(reader) => reader,
        Err(LogError::Absent { .. }) => return Ok((lines, place)),
        Err(e) => return Err(e),
    };
    let mut records = match place.next {
        Some((number, offset)) => reader.records_at(offset, number)?,
        None => reader.records_from(place.first)?,
    };
    let mut bytes = 0;
    while bytes < BATCH_BYTES && lines.len() < BATCH_LINES {
        let number = records.number;
        let Some(record) = records.next()? else { break };
        bytes += record.text.len();
        lines.push(record.to_line(number));
    }
    if records.number >= place.first {
        place.next = Some((records.number, records.offset));
    }
    Ok((lines, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::ids::Micros;
    use crate::logs::{LogWriter, Mask, Pipe, compress};

    async fn texts(follow: &mut Follow) -> Option<Vec<String>> {
        let lines = follow.next().await.expect("readable")?;
        Some(lines.into_iter().map(|l| l.text).collect())
    }

    #[tokio::test]
    async fn lines_arrive_as_they_are_written_and_then_it_ends() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("a.log");
        let (over, rx) = watch::channel(false);
        let mut follow = Follow::new(&path, 1, rx);

        let wait = tokio::spawn(async move {
            let first = texts(&mut follow).await;
            (follow, first)
        });
        let mut writer = LogWriter::create(&path, Mask::default(), None).expect("create");
        writer.output(Pipe::Stdout, Micros(1), b"zero\n").expect("write");
        writer.output(Pipe::Stdout, Micros(1), b"one\ntwo\nth").expect("write");
        let (mut follow, first) = wait.await.expect("no panic");
        assert_eq!(first.expect("lines"), ["one", "two"]);

        writer.output(Pipe::Stdout, Micros(1), b"ree\n").expect("write");
        assert_eq!(texts(&mut follow).await.expect("lines"), ["three"]);
        writer.output(Pipe::Stderr, Micros(1), b"end").expect("write");
        writer.finish(Micros(2)).expect("finish");
        compress(&path).expect("compress");
        over.send_replace(true);
        assert_eq!(texts(&mut follow).await.expect("lines"), ["end"]);
        assert_eq!(texts(&mut follow).await, None);
    }

    #[tokio::test]
    async fn a_log_that_never_comes_ends_with_its_attempt() {
        let dir = tempfile::tempdir().expect("dir");
        let (over, rx) = watch::channel(false);
        let mut follow = Follow::new(&dir.path().join("a.log"), 0, rx);
        drop(over);
        assert_eq!(texts(&mut follow).await, None);
    }
}
