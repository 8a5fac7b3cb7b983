//! The one writer of an attempt's log.
//!
//! Every call ends with the records in the file, so followers see them at once and a killed process loses none; only the
//! unfinished last line of each stream is in memory, and is made again by the replay.
//!
//! After an error the writer is spent: part of a call's records may be in the file. The cure is the same as after a
//! crash: [`LogWriter::resume`], and the source again from its first byte.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memchr::memchr;

use super::LogError;
use super::format::{LONGEST_RECORD, PREFIX, Stream, parse, prefix};
use super::index::{self, Mark};
use super::lines::PIECE;
use super::marks::StepMark;
use super::mask::Mask;
use super::stream::{Out, Place, StreamState};
use crate::ids::Micros;

/// A source's bytes are taken in pieces of this size, and the records written when there are about as many.
const STRIDE: usize = 64 * 1024;
const BUFFER: usize = 256 * 1024;

/// Which of a unit's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipe {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Writes the log of one attempt. Blocking (to the page cache; only [`LogWriter::finish`] waits for the disk).
#[derive(Debug)]
pub struct LogWriter {
    mask: Mask,
    stdout: StreamState,
    stderr: StreamState,
    sink: Sink,
}

/// The file and its index.
#[derive(Debug)]
struct Sink {
    path: PathBuf,
    file: File,
    /// Made with its first entry: most logs are too short to need one.
    index: Option<File>,
    records: Vec<u8>,
    entries: Vec<u8>,
    end: Mark,
    indexed: Mark,
}

impl LogWriter {
    /// A new, empty log at `path` (`<dir>/<name>.log`; the folder is made). One that is there is overwritten.
    ///
    /// `nonce` is that of the unit's step marks; `None`: there are no steps.
    ///
    /// # Errors
    /// [`LogError::Io`] and [`LogError::DiskFull`].
    pub fn create(path: &Path, mask: Mask, nonce: Option<&str>) -> Result<Self, LogError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(LogError::io("create", folder))?;
        }
        let file = OpenOptions::new().create(true).write(true).truncate(true).open(path);
        let file = file.map_err(LogError::io("create", path))?;
        let sink = Sink::new(path, file)?;
        Ok(Self::with(sink, mask, nonce, [Place::default(); 2]))
    }

    /// Goes on with a log that was cut off anywhere; makes it if there is none.
    ///
    /// A torn last record is cut away. Then the source is to be given again **from its first byte**: as much of each
    /// stream as the file has is dropped (its marks are reported again), and the rest is written.
    ///
    /// # Errors
    /// [`LogError::Io`] and [`LogError::DiskFull`]; [`LogError::Packed`] if its attempt has ended.
    pub fn resume(path: &Path, mask: Mask, nonce: Option<&str>) -> Result<Self, LogError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && super::packed_path(path).exists() => {
                return Err(LogError::Packed { path: path.to_owned() });
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Self::create(path, mask, nonce),
            Err(e) => return Err(LogError::io("open", path)(e)),
        };
        let mut sink = Sink::new(path, file)?;
        let places = sink.recount().map_err(LogError::io("resume", path))?;
        Ok(Self::with(sink, mask, nonce, places))
    }

    fn with(sink: Sink, mask: Mask, nonce: Option<&str>, places: [Place; 2]) -> Self {
        let [stdout, stderr] = places.map(|place| StreamState::new(&mask, nonce, place));
        Self { mask, stdout, stderr, sink }
    }

    /// Takes bytes of a stream, cut anywhere. Answers with the step marks found on standard output; those on standard error only
    /// say which step its own lines belong to.
    ///
    /// # Errors
    /// [`LogError::DiskFull`] and [`LogError::Io`]; the writer is spent then.
    pub fn output(&mut self, pipe: Pipe, at: Micros, bytes: &[u8]) -> Result<Vec<StepMark>, LogError> {
        let mut marks = Vec::new();
        for piece in bytes.chunks(STRIDE) {
            let (state, stream) = match pipe {
                Pipe::Stdout => (&mut self.stdout, Stream::Stdout),
                Pipe::Stderr => (&mut self.stderr, Stream::Stderr),
            };
            let sink = &mut self.sink;
            state.push(piece, &mut marks, &mut |out| sink.record(at, stream, out));
            if sink.records.len() >= BUFFER {
                sink.write()?;
            }
        }
        self.sink.write()?;
        Ok(if pipe == Pipe::Stdout { marks } else { Vec::new() })
    }

    /// Writes lines of the orchestrator's own, masked too.
    ///
    /// # Errors
    /// As [`LogWriter::output`].
    pub fn note(&mut self, at: Micros, text: &str) -> Result<(), LogError> {
        for line in self.mask.apply_once(text).lines() {
            let mut rest = line;
            while rest.len() > PIECE {
                let cut = (PIECE - 3..=PIECE).rev().find(|i| rest.is_char_boundary(*i)).unwrap_or(PIECE);
                self.sink.record(at, Stream::Note, Out { step: None, continued: true, text: &rest.as_bytes()[..cut] });
                rest = &rest[cut..];
            }
            self.sink.record(at, Stream::Note, Out { step: None, continued: false, text: rest.as_bytes() });
            if self.sink.records.len() >= BUFFER {
                self.sink.write()?;
            }
        }
        self.sink.write()
    }

    /// How many bytes are in the file: what a follower can read.
    pub fn len(&self) -> u64 {
        self.sink.end.offset
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until the disk has all that was written. Unfinished lines stay unfinished: for a shutdown during which the
    /// source goes on, after which the log is resumed.
    ///
    /// # Errors
    /// As [`LogWriter::output`].
    pub fn flush(&mut self) -> Result<(), LogError> {
        self.sink.write()?;
        self.sink.file.sync_data().map_err(LogError::io("write", &self.sink.path))
    }

    /// **The source has ended**: writes the unfinished last lines, and waits for the disk. Not to be called while the
    /// source may still go on. Marks are answered as by [`LogWriter::output`].
    ///
    /// # Errors
    /// As [`LogWriter::output`].
    pub fn finish(mut self, at: Micros) -> Result<Vec<StepMark>, LogError> {
        let mut marks = Vec::new();
        let Self { stdout, stderr, sink, .. } = &mut self;
        stdout.finish(&mut marks, &mut |out| sink.record(at, Stream::Stdout, out));
        stderr.finish(&mut Vec::new(), &mut |out| sink.record(at, Stream::Stderr, out));
        self.flush()?;
        Ok(marks)
    }
}

impl Sink {
    fn new(path: &Path, file: File) -> Result<Self, LogError> {
        // Held as long as the writer lives: a log that is being written is not packed.
        if let Err(TryLockError::WouldBlock) = file.try_lock_shared() {
            return Err(LogError::Packed { path: path.to_owned() });
        }
        // The index is made again from the log: after a power cut the two may not agree.
        match std::fs::remove_file(index::path(path)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(LogError::io("index", path)(error)),
        }
        let (records, entries) = (Vec::new(), Vec::new());
        let (end, indexed) = (Mark::default(), Mark::default());
        Ok(Self { path: path.to_owned(), file, index: None, records, entries, end, indexed })
    }

    fn record(&mut self, at: Micros, stream: Stream, out: Out<'_>) {
        self.records.extend_from_slice(&prefix(at, stream, out.step, out.continued));
        self.records.extend_from_slice(out.text);
        self.records.push(b'\n');
        self.count(stream, PREFIX + out.text.len() + 1);
    }

    fn count(&mut self, stream: Stream, bytes: usize) {
        self.end.offset += bytes as u64;
        self.end.counts[stream.index()] += 1;
        if self.end.is_due(&self.indexed) {
            self.end.append_to(&mut self.entries);
            self.indexed = self.end;
        }
    }

    /// Records first: the index never points past the log.
    fn write(&mut self) -> Result<(), LogError> {
        if !self.records.is_empty() {
            self.file.write_all(&self.records).map_err(LogError::io("write", &self.path))?;
            self.records.clear();
            self.records.shrink_to(2 * BUFFER);
        }
        self.write_index().map_err(LogError::io("index", &self.path))
    }

    fn write_index(&mut self) -> std::io::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let index = match &mut self.index {
            Some(index) => index,
            None => self.index.insert(File::create(index::path(&self.path))?),
        };
        index.write_all(&self.entries)?;
        self.entries.clear();
        Ok(())
    }

    /// Counts what is there up to the first torn or damaged record, cuts the rest away, and makes the index again.
    fn recount(&mut self) -> std::io::Result<[Place; 2]> {
        let mut places = [Place::default(); 3];
        let mut line = Vec::new();
        let mut reader = BufReader::with_capacity(BUFFER, self.file.try_clone()?);
        reader.seek(SeekFrom::Start(0))?;
        loop {
            line.clear();
            let most = LONGEST_RECORD as u64;
            reader.by_ref().take(most).read_until(b'\n', &mut line)?;
            let Some(end) = memchr(b'\n', &line) else { break };
            let Some(record) = parse(&line[..end]) else { break };
            let (stream, continued) = (record.stream, record.continued);
            places[stream.index()].count(continued);
            self.count(stream, line.len());
            if self.entries.len() >= BUFFER {
                self.write_index()?;
            }
        }
        self.write_index()?;
        self.file.set_len(self.end.offset)?;
        self.file.seek(SeekFrom::Start(self.end.offset))?;
        let [stdout, stderr, _notes] = places;
        Ok([stdout, stderr])
    }
}
