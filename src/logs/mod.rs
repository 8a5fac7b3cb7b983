//! Logs: one append-only file per attempt, written exactly once, read by anybody at any time.
//!
//! ```text
//! source bytes -> utf8 -> marks (taken out, reported) -> mask -> lines -> records -> file
//!                 \______________ one such row per stream, blind to chunks _____/
//! ```
//!
//! **The rule everything rests on:** the records of a stream are a pure function of that stream's bytes, whatever the
//! chunks they came in. So after a crash the writer counts what the file has, takes the source again from its first
//! byte, and drops as much. It knows nothing of builds; it never holds a log in memory.

pub mod codes;
pub mod compress;
mod encodings;
pub mod follow;
pub mod format;
mod index;
mod lines;
mod marks;
pub mod mask;
pub mod quotes;
pub mod reader;
mod stream;
#[cfg(test)]
mod tests;
mod utf8;
pub mod writer;

use std::io;
use std::path::{Path, PathBuf};

pub use compress::{WORTH_PACKING, compress};
pub use follow::Follow;
pub use format::{Line, Stream};
pub use marks::{StepEvent, StepMark};
pub use mask::Mask;
pub use quotes::Quotes;
pub use reader::{Hit, LogReader, Search};
pub use writer::{LogWriter, Pipe};

/// What can go wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is no such log, neither plain nor compressed.
    #[error("there is no log at {}", path.display())]
    Absent {
        /// The plain log's path.
        path: PathBuf,
    },
    /// No room is left. The state is waited out: free some, then resume the writer.
    #[error("cannot write the log {}: the disk is full; free some space and resume the build", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// A record that this program did not write, or that the disk lost.
    #[error("the log {} is damaged at byte {offset}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, in the uncompressed log.
        offset: u64,
    },
    /// Somebody writes it, so it cannot be packed yet.
    #[error("the log {} is still being written", path.display())]
    InUse {
        /// The plain log's path.
        path: PathBuf,
    },
    /// Its attempt has ended and it is packed (or just being packed), so nothing can be added to it.
    #[error("the log {} is packed: its attempt has ended, and nothing is added to it any more", path.display())]
    Packed {
        /// The plain log's path.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("cannot {action} the log {}", path.display())]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LogError {
    /// Wraps an error of the file system, telling a full disk from the rest.
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::NotFound => Self::Absent { path },
            _ => Self::Io { action, path, source },
        }
    }
}

/// The log's path with another ending in place of `.log`.
fn sibling(log: &Path, ending: &str) -> PathBuf {
    let name = log.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    log.with_file_name(format!("{}{ending}", name.strip_suffix(".log").unwrap_or(&name)))
}

/// Where the compressed form of a log lies.
fn packed_path(log: &Path) -> PathBuf {
    sibling(log, ".log.zst")
}
