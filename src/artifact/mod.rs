//! Files by their content, in a folder or on S3. Source trees, outputs and workspaces are manifests of such files; each file
//! is stored once, whoever made it.
//!
//! ```text
//! tar, folder ── ingest (caps, no links out, no devices) ──> batch ── on the disk ──> blobs/ab/cdef..  +  manifest ──> tar, folder
//! ```
//!
//! **What a call answered with is on the disk.** A digest is given back only when the content and the name that leads to it
//! would outlive a power cut, so a row that is committed after it never names what is not there. **What is read back is
//! hashed again**: a damaged file is an error, never an input; it is set aside, so that the next build makes it anew.

mod address;
mod batch;
pub(crate) mod disk;
mod folder;
mod gc;
mod glob;
mod ingest;
pub mod manifest;
mod output;
mod s3;
mod store;
mod tar_read;
mod tree;

pub use gc::{Marked, Sweep, Swept, YOUNGEST};
pub use glob::{Keep, split_glob};
pub use ingest::{Caps, Names};
pub use output::tar_of;
pub use store::{ArtifactSettings, ArtifactStore, Environment};
pub use tree::{Part, workspace};

pub(crate) use batch::Batch;
pub(crate) use store::Reliance;
pub(crate) use tree::clean_path;

/// What can go wrong. The variants differ because callers act differently.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// What was handed over is not taken: a link, a device, a path that leads outside, too much of it.
    #[error("{0}")]
    Refused(String),
    /// It is not in the store.
    #[error("{0} is not in the artifact store any more; start a new build, and what made it runs again")]
    Absent(String),
    /// It is there, and is not what it was.
    #[error(
        "{what} is damaged in the artifact store ({detail}); it was set aside: start a new build, and what made it runs again"
    )]
    Damaged {
        /// Which file of whom.
        what: String,
        /// What was seen.
        detail: String,
    },
    /// There is no room. Nothing is lost: a build can be taken up again.
    #[error("cannot write {0}: the disk is full; free some space, then resume the build")]
    Full(String),
    /// The settings make no sense: the user's to mend.
    #[error("{0}")]
    Setting(String),
    /// S3 said no, or cannot be reached.
    #[error("{what}: {why}")]
    Remote {
        /// Which store.
        what: String,
        /// What it means, and its own words.
        why: String,
    },
    /// A local file.
    #[error("{what}: {source}")]
    Io {
        /// Which, and what for.
        what: String,
        /// The system's own words.
        source: std::io::Error,
    },
}

impl ArtifactError {
    /// Says which file an error of the system is about. One of ours that came through a reader stays what it was.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| match source.downcast::<Self>() {
            Ok(ours) => ours,
            Err(source) => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full(what),
                _ => Self::Io { what, source },
            },
        }
    }
}

/// Waits for blocking work on its own thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(ArtifactError::io("a thread broke")(std::io::Error::other(error))))
}

#[cfg(test)]
pub(crate) mod order_tests;
#[cfg(test)]
mod tests;
