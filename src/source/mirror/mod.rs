//! Repositories that the daemon builds from, remote or local: one bare mirror each, read without a checkout.
//!
//! ```text
//! remote ── heads ──> what moved?     remote ── fetch ──> mirror ── tree ──> manifest in the artifact store
//!                                                           └── file_at, changed_paths, commits_between ...
//! ```
//!
//! No hook and no filter of a repository ever runs, no work tree is ever made, and no program but `ssh` is started: all is
//! libgit2, on blocking threads. What a repository says (paths, URLs of submodules, messages) is hostile until shown otherwise.

mod error;
mod fetch;
mod heal;
mod history;
mod in_place;
mod known;
mod modules;
mod network;
mod remote;
mod transport;
mod tree;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use git2::Repository;
use tokio_util::sync::CancellationToken;

pub use error::MirrorError;
pub use fetch::{Fetched, Wanted};
pub use git2::Oid;
pub use history::{Changes, CommitInfo};
pub use remote::{Credentials, Network, Remote, Token};
pub use transport::{Head, Progress, heads};
pub use tree::{MirrorTree, TreeOptions};
pub use watch::{Watch, watch};

use crate::artifact::Caps;
use remote::Address;

/// What is taken at most from a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one fetch.
    pub transfer: u64,
    /// Refs that a remote may list.
    pub heads: usize,
    /// Bytes of one file: git gives a file as a whole, in memory.
    pub file: u64,
    /// Of one tree, with its submodules.
    pub tree: Caps,
    /// Submodules within each other.
    pub submodule_depth: usize,
    /// How long a remote may be silent.
    pub stall: Duration,
    /// How long one transfer may take in all.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transfer: 20 << 30,
            heads: 500_000,
            file: 1 << 30,
            tree: Caps::default(),
            submodule_depth: 8,
            stall: Duration::from_secs(60),
            time: Duration::from_secs(3 * 3600),
        }
    }
}

/// Shows how far a fetch is. Called on a blocking thread, often.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// How an operation is watched and stopped.
#[derive(Clone, Default)]
pub struct Control {
    /// Stops the work at its next step.
    pub cancel: CancellationToken,
    /// Told of progress.
    pub progress: Option<OnProgress>,
}

/// A mirror of one remote. Cheap to clone; all work is done on blocking threads, and a dropped future stops its work.
#[derive(Debug, Clone)]
pub struct Mirror {
    inner: Arc<Inner>,
}

struct Inner {
    /// Where all mirrors are, for those of submodules.
    root: PathBuf,
    folder: PathBuf,
    remote: Remote,
    limits: Limits,
    /// The repository is on this machine, and read where it is: nothing is copied, and nothing in it is ever changed.
    in_place: bool,
    /// Opened for reading, until the next one reads: to open it takes longer than most of what is read.
    opened: Mutex<Option<Repository>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("folder", &self.folder).field("remote", &self.remote).finish_non_exhaustive()
    }
}

impl Mirror {
    /// The mirror of this remote below `root`. Nothing is read or made before the first fetch.
    ///
    /// # Errors
    /// [`MirrorError::Refused`] if the remote's address is none that is taken.
    pub fn open(root: &Path, remote: Remote, limits: Limits) -> Result<Self, MirrorError> {
        remote.check()?;
        let folder = root.join(remote.folder_name());
        Ok(Self::of(root, folder, remote, limits, false))
    }

    /// As [`Mirror::open`], but a repository on this machine is read in place.
    ///
    /// # Errors
    /// As [`Mirror::open`].
    pub fn open_in_place(root: &Path, remote: Remote, limits: Limits) -> Result<Self, MirrorError> {
        let Address::Local(folder) = remote.check()? else { return Self::open(root, remote, limits) };
        Ok(Self::of(root, folder, remote, limits, true))
    }

    fn of(root: &Path, folder: PathBuf, remote: Remote, limits: Limits, in_place: bool) -> Self {
        let root = root.to_owned();
        Self { inner: Arc::new(Inner { root, folder, remote, limits, in_place, opened: Mutex::default() }) }
    }

    /// The bare repository.
    pub fn folder(&self) -> &Path {
        &self.inner.folder
    }

    /// What it mirrors.
    pub fn remote(&self) -> &Remote {
        &self.inner.remote
    }

    /// Work on a blocking thread, stopped when the future is dropped.
    async fn blocking<T: Send + 'static>(
        &self,
        control: &Control,
        work: impl FnOnce(&Inner, &Control) -> Result<T, MirrorError> + Send + 'static,
    ) -> Result<T, MirrorError> {
        let (inner, cancel) = (Arc::clone(&self.inner), control.cancel.child_token());
        let control = Control { cancel: cancel.clone(), progress: control.progress.clone() };
        let _stop = cancel.drop_guard();
        join(tokio::task::spawn_blocking(move || work(&inner, &control))).await
    }
}

async fn join<T>(task: tokio::task::JoinHandle<Result<T, MirrorError>>) -> Result<T, MirrorError> {
    task.await.unwrap_or_else(|error| Err(MirrorError::io("a thread broke")(std::io::Error::other(error))))
}

impl Control {
    /// An error if it was cancelled.
    fn go_on(&self) -> Result<(), MirrorError> {
        if self.cancel.is_cancelled() { Err(MirrorError::Cancelled) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
