//! What can go wrong with a remote, by what the reader has to do.

use git2::{ErrorClass, ErrorCode};

use crate::artifact::ArtifactError;

/// What can go wrong. The variants differ because callers act differently.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// No answer, or a broken one: worth another try later.
    #[error("cannot reach {remote}: {detail}; it is tried again")]
    Unreachable {
        /// Which.
        remote: String,
        /// What was seen.
        detail: String,
    },
    /// The credentials are missing, wrong, or not enough.
    #[error("{remote} refuses access: {detail}; check the credentials of this repository")]
    Denied {
        /// Which.
        remote: String,
        /// What was seen.
        detail: String,
    },
    /// There is no such repository, ref, commit or path. Hosts say this too where credentials are missing.
    #[error("{0}")]
    NotFound(String),
    /// The host cannot show that it is who it should be.
    #[error("{remote} is not trusted: {detail}")]
    Untrusted {
        /// Which.
        remote: String,
        /// Why, and what to do.
        detail: String,
    },
    /// The mirror on this disk is broken. The next fetch makes it anew.
    #[error("the mirror of {remote} is damaged ({detail}); the next fetch makes it anew")]
    Damaged {
        /// Which.
        remote: String,
        /// What was seen.
        detail: String,
    },
    /// It is more than the limits allow.
    #[error("{0}")]
    TooLarge(String),
    /// An address, path or content that is not taken.
    #[error("{0}")]
    Refused(String),
    /// Stopped on request.
    #[error("cancelled")]
    Cancelled,
    /// The artifact store.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A file of the mirror.
    #[error("{what}: {source}")]
    Io {
        /// Which.
        what: String,
        /// The system's own words.
        source: std::io::Error,
    },
}

impl MirrorError {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Worth another try without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Damaged { .. })
    }

    /// What libgit2 said while it talked to a remote.
    pub(super) fn of_remote(remote: &str, error: &git2::Error) -> Self {
        let (remote, detail) = (remote.to_owned(), words(error));
        // libgit2 has no code for what a server says within git's own lines: its words are all there is.
        let lower = detail.to_lowercase();
        let says = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
        match (error.code(), error.class()) {
            (ErrorCode::Auth, _) => Self::Denied { remote, detail },
            (ErrorCode::Owner, _) => {
                let detail = format!("{detail} (it belongs to another user; git's `safe.directory` allows that)");
                Self::Denied { remote, detail }
            }
            _ if says(&["object format"]) => {
                Self::Refused(format!("{remote} is a repository with SHA-256 ids, which cannot be read: {detail}"))
            }
            _ if says(&["cannot fetch a specific object", "not our ref"]) => {
                Self::NotFound(format!("{remote} gives no commit that no ref names: {detail}"))
            }
            _ if says(&["authenticat", "access denied", "permission denied"]) => Self::Denied { remote, detail },
            _ if says(&["not found", "does not exist", "failed to resolve path"]) => Self::NotFound(format!(
                "{remote} was not found: {detail}; check the address, and that the credentials may see it"
            )),
            (ErrorCode::NotFound, _) => Self::NotFound(format!("{remote} was not found: {detail}")),
            (
                _,
                ErrorClass::Odb | ErrorClass::Zlib | ErrorClass::Object | ErrorClass::Tree | ErrorClass::Repository,
            ) => Self::Damaged { remote, detail },
            _ => Self::Unreachable { remote, detail },
        }
    }

    /// What libgit2 said while it read the mirror, where what was looked for must be there.
    pub(super) fn of_mirror(remote: &str, error: &git2::Error) -> Self {
        Self::Damaged { remote: remote.to_owned(), detail: words(error) }
    }
}

/// libgit2's words in one line, without control characters: a server may have chosen them.
fn words(error: &git2::Error) -> String {
    let text: String = error.message().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    text.trim().to_owned()
}
