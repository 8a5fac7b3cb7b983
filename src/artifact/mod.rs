//! Files by their content, on an object store: a folder, or S3. Source trees, outputs and workspaces are manifests of such
//! files; each file is stored once, whoever made it.
//!
//! ```text
//! tar, folder ── ingest (caps, no links out, no devices) ──> blobs/ab/cdef..  +  manifest ──> tar, folder
//! ```
//!
//! What is read back is hashed again: a damaged file is an error, never an input.

mod glob;
mod ingest;
pub mod manifest;
mod output;
mod store;

pub use glob::split_glob;
pub use ingest::Caps;
pub use output::{ManifestAt, tar_of};
pub use store::{ArtifactSettings, ArtifactStore};

/// What can go wrong. The variants differ because callers act differently.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// What was handed over is not taken: a link, a device, a path that leads outside, too much of it.
    #[error("{0}")]
    Refused(String),
    /// It is not in the store.
    #[error("`{0}` is not in the artifact store")]
    Absent(String),
    /// It is there, and is not what it was.
    #[error("the stored file {digest} is damaged ({detail}); remove it and run what made it again")]
    Damaged {
        /// Its digest.
        digest: String,
        /// What was seen.
        detail: String,
    },
    /// The store's own words.
    #[error("artifact store: {0}")]
    Store(#[from] object_store::Error),
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
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

#[cfg(test)]
mod tests;
