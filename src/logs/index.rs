//! The sparse index beside a log: where to begin reading for a line.
//!
//! An entry for about every [`EVERY_LINES`] lines or [`EVERY_BYTES`], 32 bytes each: the offset of a record, and how many
//! records of each stream lie before it. It holds nothing that the log does not, so it is only a hint: an entry that
//! does not point behind a newline of the log is not used, and a missing index makes reading slower, not wrong.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::format::Stream;
use super::sibling;

const ENTRY: u64 = 32;
/// Lines between two entries, at most.
pub(super) const EVERY_LINES: u64 = 1024;
/// Bytes between two entries, about.
pub(super) const EVERY_BYTES: u64 = 64 * 1024;

/// A place in a log: behind this many bytes and records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub offset: u64,
    /// By [`Stream::index`].
    pub counts: [u64; Stream::ALL.len()],
}

impl Mark {
    /// Records of all streams.
    pub(super) fn lines(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Whether an entry is due, `last` being the one before.
    pub(super) fn is_due(&self, last: &Self) -> bool {
        self.offset - last.offset >= EVERY_BYTES || self.lines() - last.lines() >= EVERY_LINES
    }

    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        for count in self.counts {
            out.extend_from_slice(&count.to_le_bytes());
        }
    }

    fn from_bytes(bytes: &[u8; 32]) -> Self {
        let word = |n: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 * n..8 * n + 8]);
            u64::from_le_bytes(word)
        };
        Self { offset: word(0), counts: [word(1), word(2), word(3)] }
    }
}

/// Where a log's index lies.
pub(super) fn path(log: &Path) -> PathBuf {
    sibling(log, ".idx")
}

/// The last entry for which `before` holds (entries are in order), or the log's begin.
pub(super) fn find(log: &Path, before: impl Fn(&Mark) -> bool) -> Mark {
    search(log, before).unwrap_or_default()
}

fn search(log: &Path, before: impl Fn(&Mark) -> bool) -> io::Result<Mark> {
    let mut file = File::open(path(log))?;
    let (mut low, mut high) = (0, file.metadata()?.len() / ENTRY);
    let mut best = Mark::default();
    while low < high {
        let middle = low + (high - low) / 2;
        let mut bytes = [0; 32];
        file.seek(SeekFrom::Start(middle * ENTRY))?;
        file.read_exact(&mut bytes)?;
        let entry = Mark::from_bytes(&bytes);
        if before(&entry) {
            best = entry;
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(best)
}
