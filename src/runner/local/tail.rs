//! Reads a unit's output file from its first byte until the unit has ended and all is read.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::folder::{self, Folder};
use super::frame::{Front, HEADER, MAX_PAYLOAD, front};
use super::other;
use super::watch::Watch;
use crate::runner::{OutputChunk, RunnerError, UnitStatus};

/// Read at once: room for any frame. With [`CHANNEL`] it bounds the memory of a slow receiver.
const BATCH: usize = 2 * (HEADER + MAX_PAYLOAD);
/// Pieces under way to the receiver.
pub const CHANNEL: usize = 16;

/// So much is read where one must not wait.
const FEW: u64 = 64 * 1024;

/// Pieces, and whether the unit has ended and these were the last.
type Step = io::Result<(Vec<OutputChunk>, bool)>;

/// Where reading stands.
pub struct Reader {
    folder: Arc<Folder>,
    file: File,
    offset: u64,
    damaged: bool,
}

impl Reader {
    /// Begins at the first byte.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(folder: Arc<Folder>) -> io::Result<Self> {
        let file = File::open(folder.file(folder::OUTPUT))?;
        Ok(Self { folder, file, offset: 0, damaged: false })
    }

    /// What has been written since, up to [`BATCH`] bytes. Nothing if the next frame is not whole.
    fn read(&mut self) -> io::Result<Vec<OutputChunk>> {
        let there = self.file.metadata()?.len().saturating_sub(self.offset);
        let mut bytes = vec![0; usize::try_from(there).unwrap_or(BATCH).min(BATCH)];
        let mut length = 0;
        while length < bytes.len() {
            match self.file.read_at(&mut bytes[length..], self.offset + length as u64) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(length);
        Ok(self.cut(&Bytes::from(bytes)))
    }

    fn cut(&mut self, bytes: &Bytes) -> Vec<OutputChunk> {
        let mut chunks = Vec::new();
        let mut from = 0;
        while !self.damaged {
            match front(&bytes[from..]) {
                Front::Frame(header, payload) => {
                    let bytes = bytes.slice(from + payload.start..from + payload.end);
                    chunks.push(OutputChunk { stream: header.stream, at: header.at, bytes });
                    from += payload.end;
                    self.offset += payload.end as u64;
                }
                Front::Incomplete => break,
                Front::Damaged => {
                    let folder = self.folder.real().display();
                    tracing::warn!(%folder, offset = self.offset, "the output file is damaged from here on; the rest is left out");
                    self.damaged = true;
                }
            }
        }
        chunks
    }

    /// The next pieces, if there are a few that were just written: those are in memory, and nobody has to wait for a disk.
    fn read_few(&mut self) -> io::Result<Vec<OutputChunk>> {
        let there = self.file.metadata()?.len().saturating_sub(self.offset);
        if there > FEW { Ok(Vec::new()) } else { self.read() }
    }

    /// The next pieces, and whether the unit had ended before they were read: then none means that this was all.
    fn step(&mut self) -> Step {
        let chunks = self.read()?;
        if !chunks.is_empty() {
            return Ok((chunks, false));
        }
        match self.folder.status()? {
            UnitStatus::Created | UnitStatus::Running => Ok((chunks, false)),
            UnitStatus::Exited(_) | UnitStatus::Lost | UnitStatus::Absent => Ok((self.read()?, true)),
        }
    }
}

/// Sends it all; ends when the unit has, or when nobody listens any more.
pub async fn follow(mut reader: Reader, mut watch: Watch, tx: mpsc::Sender<Result<OutputChunk, RunnerError>>) {
    loop {
        let Some((back, step)) = next(reader).await else { return };
        reader = back;
        let (chunks, over) = match step {
            Ok(step) => step,
            Err(error) => {
                let text = format!("cannot read the output in `{}`", reader.folder.real().display());
                // Nobody listens: then nobody is told.
                let _gone = tx.send(Err(other(&text, &error))).await;
                return;
            }
        };
        if chunks.is_empty() {
            if over {
                return;
            }
            tokio::select! {
                () = watch.changed() => {}
                () = tx.closed() => return,
            }
            continue;
        }
        watch.hurry();
        for chunk in chunks {
            if tx.send(Ok(chunk)).await.is_err() {
                return;
            }
        }
    }
}

/// The next step; `None` if a thread broke.
async fn next(mut reader: Reader) -> Option<(Reader, Step)> {
    match reader.read_few() {
        Ok(chunks) if chunks.is_empty() => {}
        few => return Some((reader, few.map(|chunks| (chunks, false)))),
    }
    let step = spawn_blocking(move || {
        let step = reader.step();
        (reader, step)
    });
    step.await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Micros;
    use crate::runner::Stream;
    use crate::runner::local::frame::Header;

    fn reader_of(content: &[u8]) -> (tempfile::TempDir, Reader) {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join(folder::OUTPUT), content).expect("output");
        let opened = Folder::open(folder.path()).expect("open").expect("there");
        (folder, Reader::open(Arc::new(opened)).expect("reader"))
    }

    fn frame(stream: Stream, text: &[u8]) -> Vec<u8> {
        [&Header { stream, at: Micros(5), length: text.len() }.encode()[..], text].concat()
    }

    fn texts(chunks: &[OutputChunk]) -> Vec<(Stream, &[u8])> {
        chunks.iter().map(|chunk| (chunk.stream, &chunk.bytes[..])).collect()
    }

    #[test]
    fn a_torn_last_frame_is_left_out_at_every_cut() {
        let first = frame(Stream::Stdout, b"one");
        let second = frame(Stream::Stderr, b"two");
        for cut in 0..second.len() {
            let (_folder, mut reader) = reader_of(&[&first[..], &second[..cut]].concat());
            assert_eq!(texts(&reader.read().expect("read")), [(Stream::Stdout, &b"one"[..])], "{cut}");
            assert!(reader.read().expect("read").is_empty());
        }
    }

    #[test]
    fn damage_ends_the_output_and_what_was_before_it_counts() {
        let content = [frame(Stream::Stdout, b"one"), vec![0; 100], frame(Stream::Stdout, b"two")].concat();
        let (_folder, mut reader) = reader_of(&content);
        assert_eq!(texts(&reader.read().expect("read")), [(Stream::Stdout, &b"one"[..])]);
        assert!(reader.read().expect("read").is_empty());
    }

    #[test]
    fn big_files_come_in_bounded_pieces() {
        let piece = vec![b'x'; MAX_PAYLOAD];
        let content: Vec<u8> = (0..10).flat_map(|_| frame(Stream::Stdout, &piece)).collect();
        let (_folder, mut reader) = reader_of(&content);
        let mut count = 0;
        loop {
            let chunks = reader.read().expect("read");
            assert!(chunks.len() <= 2);
            if chunks.is_empty() {
                break;
            }
            count += chunks.len();
        }
        assert_eq!(count, 10);
    }
}
