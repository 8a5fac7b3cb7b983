//! Reads a log, plain or packed, by line numbers: any part of it, at bounded cost.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memchr::memmem::Finder;
use serde::Serialize;
use zeekstd::Decoder;

use super::format::{LONGEST_RECORD, Line, Record, parse};
use super::index::{self, Mark};
use super::{LogError, packed_path};

const BUFFER: usize = 64 * 1024;

/// A log open for reading. Blocking. It sees what is written after it was opened.
pub struct LogReader {
    path: PathBuf,
    body: Body,
}

enum Body {
    Plain(File),
    Packed(Box<Decoder<'static, File>>),
}

/// Lines found by [`LogReader::search`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Search {
    /// In order.
    pub hits: Vec<Hit>,
    /// There are more than were asked for.
    pub more: bool,
}

/// A line that holds the text, with its neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hit {
    /// Lines before it.
    pub before: Vec<Line>,
    /// The line.
    pub line: Line,
    /// Lines after it.
    pub after: Vec<Line>,
}

impl LogReader {
    /// Opens `<name>.log`, or `<name>.log.zst` if it has been packed.
    ///
    /// # Errors
    /// [`LogError::Absent`] if there is neither.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let body = match File::open(path) {
            Ok(file) => Body::Plain(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let packed = packed_path(path);
                let missing = |e: io::Error| match e.kind() {
                    io::ErrorKind::NotFound => LogError::Absent { path: path.to_owned() },
                    _ => LogError::io("read", &packed)(e),
                };
                let file = File::open(&packed).map_err(missing)?;
                let decoder = Decoder::new(file).map_err(|e| LogError::io("read", &packed)(io::Error::other(e)))?;
                Body::Packed(Box::new(decoder))
            }
            Err(e) => return Err(LogError::io("read", path)(e)),
        };
        Ok(Self { path: path.to_owned(), body })
    }

    /// How many lines there are now.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Damaged`].
    pub fn line_count(&mut self) -> Result<u64, LogError> {
        let mut records = self.records_from_mark(|_| true)?;
        while records.next()?.is_some() {}
        Ok(records.number)
    }

    /// All lines from `first` on, one after the other.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Damaged`].
    pub fn lines_from(&mut self, first: u64) -> Result<Lines<'_>, LogError> {
        Ok(Lines(self.records_from(first)?))
    }

    /// The lines of a range, as many of the first of them as have `max_bytes` of text (at least one).
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Damaged`].
    pub fn lines(&mut self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Line>, LogError> {
        let mut out = Vec::new();
        let mut bytes = 0;
        if range.is_empty() {
            return Ok(out);
        }
        for line in self.lines_from(range.start)? {
            let line = line?;
            bytes += line.text.len();
            if line.number >= range.end || (bytes > max_bytes && !out.is_empty()) {
                break;
            }
            out.push(line);
        }
        Ok(out)
    }

    /// The last `count` lines, as many of the last of them as have `max_bytes` of text (at least one).
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Damaged`].
    pub fn tail(&mut self, count: u64, max_bytes: usize) -> Result<Vec<Line>, LogError> {
        let first = self.line_count()?.saturating_sub(count);
        let mut out = VecDeque::new();
        let mut bytes = 0;
        for line in self.lines_from(first)? {
            let line = line?;
            bytes += line.text.len();
            out.push_back(line);
            while bytes > max_bytes && out.len() > 1 {
                bytes -= out.pop_front().map_or(0, |l| l.text.len());
            }
        }
        Ok(out.into())
    }

    /// The first `max` lines that hold `text` (as it is written, upper and lower case apart), each with `context` lines
    /// before and after.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Damaged`].
    pub fn search(&mut self, text: &str, max: usize, context: usize) -> Result<Search, LogError> {
        let finder = Finder::new(text);
        let mut found = Search { hits: Vec::new(), more: false };
        let mut before = VecDeque::with_capacity(context);
        let mut records = self.records_from(0)?;
        loop {
            let number = records.number;
            let Some(record) = records.next()? else { break };
            let is_near = |hit: &Hit| number - hit.line.number <= context as u64;
            let wanted = found.hits.iter().rev().take_while(|h| is_near(h)).count();
            let hit = !found.more && finder.find(record.text).is_some();
            if hit && found.hits.len() == max {
                found.more = true;
            }
            // What is still to come are the neighbours of the last hits.
            if found.more && wanted == 0 {
                break;
            }
            if !hit && context == 0 {
                continue;
            }
            let line = record.to_line(number);
            for earlier in found.hits.iter_mut().rev().take(wanted) {
                earlier.after.push(line.clone());
            }
            if hit && !found.more {
                let before: Vec<Line> = before.iter().cloned().collect();
                found.hits.push(Hit { before, line: line.clone(), after: Vec::new() });
            }
            if context > 0 {
                if before.len() == context {
                    before.pop_front();
                }
                before.push_back(line);
            }
        }
        Ok(found)
    }

    /// Records from a line on.
    pub(super) fn records_from(&mut self, first: u64) -> Result<Records<'_>, LogError> {
        let mut records = self.records_from_mark(|m| m.lines() <= first)?;
        while records.number < first && records.next()?.is_some() {}
        Ok(records)
    }

    /// Records from the last place that the index knows and `before` holds for.
    fn records_from_mark(&mut self, before: impl Fn(&Mark) -> bool) -> Result<Records<'_>, LogError> {
        let mark = index::find(&self.path, before);
        let mark = if self.follows_newline(mark.offset) { mark } else { Mark::default() };
        self.records_at(mark.offset, mark.lines())
    }

    /// Records from a byte on, which is the begin of the line of that number.
    pub(super) fn records_at(&mut self, offset: u64, number: u64) -> Result<Records<'_>, LogError> {
        self.body.seek(SeekFrom::Start(offset)).map_err(LogError::io("read", &self.path))?;
        let reader = BufReader::with_capacity(BUFFER, &mut self.body);
        Ok(Records { path: &self.path, reader, line: Vec::new(), number, offset })
    }

    fn follows_newline(&mut self, offset: u64) -> bool {
        let mut byte = [0];
        offset == 0
            || (self.body.seek(SeekFrom::Start(offset - 1)).is_ok()
                && self.body.read_exact(&mut byte).is_ok()
                && byte == *b"\n")
    }
}

/// The lines of a log, read as they are asked for.
pub struct Lines<'a>(Records<'a>);

impl Iterator for Lines<'_> {
    type Item = Result<Line, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.0.number;
        match self.0.next() {
            Ok(record) => record.map(|r| Ok(r.to_line(number))),
            Err(e) => Some(Err(e)),
        }
    }
}

/// Records without copies.
pub(super) struct Records<'a> {
    path: &'a Path,
    reader: BufReader<&'a mut Body>,
    line: Vec<u8>,
    /// Of the next record.
    pub number: u64,
    /// Of the next record, in bytes.
    pub offset: u64,
}

impl Records<'_> {
    /// The next whole record; `None` at the end, and before a record that is still being written.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, LogError> {
        self.line.clear();
        let most = LONGEST_RECORD as u64;
        let read = self.reader.by_ref().take(most).read_until(b'\n', &mut self.line);
        let read = read.map_err(LogError::io("read", self.path))?;
        let damaged = || LogError::Damaged { path: self.path.to_owned(), offset: self.offset };
        let Some(line) = self.line.strip_suffix(b"\n") else {
            return if read as u64 == most { Err(damaged()) } else { Ok(None) };
        };
        let record = parse(line).ok_or_else(damaged)?;
        self.number += 1;
        self.offset += read as u64;
        Ok(Some(record))
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buf),
            Self::Packed(decoder) => decoder.read(buf),
        }
    }
}

impl Seek for Body {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::Plain(file) => file.seek(to),
            Self::Packed(decoder) => decoder.seek(to),
        }
    }
}
