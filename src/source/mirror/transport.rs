//! What is said to libgit2 about a connection: where it goes, limits, progress.

use std::sync::{Arc, PoisonError};

use git2::{Direction, Oid, RemoteCallbacks, RemoteConnection, Repository};

use super::network::{self, Session, Why};
use super::remote::{Address, Remote};
use super::{Control, Limits, MirrorError, join};

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Objects there.
    pub received: usize,
    /// Objects in all, as far as known.
    pub objects: usize,
    /// Bytes there.
    pub bytes: usize,
}

/// A ref of a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// `refs/heads/main`, `refs/tags/v1`, `HEAD`.
    pub name: String,
    /// The commit (or other object); of a tag with a message what it names.
    pub target: Oid,
    /// For `HEAD` the default branch.
    pub symref: Option<String>,
}

/// The refs of a remote, without a mirror.
///
/// # Errors
/// As for a fetch.
pub async fn heads(remote: &Remote, limits: &Limits, control: &Control) -> Result<Vec<Head>, MirrorError> {
    remote.check()?;
    let (remote, limits, cancel) = (remote.clone(), limits.clone(), control.cancel.child_token());
    let control = Control { cancel: cancel.clone(), progress: control.progress.clone() };
    let _stop = cancel.drop_guard();
    join(tokio::task::spawn_blocking(move || {
        // libgit2 asks nobody without a repository of its own.
        let folder = tempfile::tempdir().map_err(MirrorError::io("cannot make a temporary folder"))?;
        let repository = init(folder.path(), &remote)?;
        list(&repository, &remote, &limits, &control)
    }))
    .await
}

/// A new, empty bare repository.
pub(super) fn init(folder: &std::path::Path, remote: &Remote) -> Result<Repository, MirrorError> {
    let made = || {
        let mut options = git2::RepositoryInitOptions::new();
        // No templates: they hold hooks, and a mirror has none.
        Repository::init_opts(folder, options.bare(true).external_template(false))
    };
    made().map_err(|error| MirrorError::of_mirror(&remote.url, &error))
}

/// Lists a remote's refs.
fn list(
    repository: &Repository,
    remote: &Remote,
    limits: &Limits,
    control: &Control,
) -> Result<Vec<Head>, MirrorError> {
    let watch = Watcher::new(remote, limits, control)?;
    watch.call(|| {
        let mut found = repository.remote_anonymous(watch.url())?;
        let connection = found.connect_auth(Direction::Fetch, Some(watch.callbacks()), None)?;
        watch.heads(&connection)
    })
}

/// A tag with a message is listed twice, the second time as `name^{}` with what it names.
fn peeled(listed: Vec<Head>) -> Vec<Head> {
    let mut heads: Vec<Head> = Vec::with_capacity(listed.len());
    for head in listed {
        match head.name.strip_suffix("^{}") {
            Some(name) => {
                if let Some(tag) = heads.last_mut().filter(|tag| tag.name == name) {
                    tag.target = head.target;
                }
            }
            None => heads.push(head),
        }
    }
    heads
}

/// Calls libgit2, and keeps why a call was stopped: libgit2 gives back less than it was told.
pub(super) struct Watcher<'a> {
    remote: &'a Remote,
    address: Address,
    limits: &'a Limits,
    control: &'a Control,
    why: Why,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(remote: &'a Remote, limits: &'a Limits, control: &'a Control) -> Result<Self, MirrorError> {
        control.go_on()?;
        let address = remote.check()?;
        network::prepare();
        // libgit2 says of such a path that its protocol is not supported.
        if let Address::Local(path) = &address
            && !path.exists()
        {
            let text = format!("{} was not found: there is no such folder", remote.url);
            return Err(MirrorError::NotFound(text));
        }
        Ok(Self { remote, address, limits, control, why: Arc::default() })
    }

    /// The address for libgit2.
    pub(super) fn url(&self) -> &str {
        network::stand_in(&self.address, &self.remote.url)
    }

    /// Calls libgit2, with what its transports need to know.
    pub(super) fn call<T>(&self, work: impl FnOnce() -> Result<T, git2::Error>) -> Result<T, MirrorError> {
        let done = match self.address {
            Address::Local(_) => work(),
            Address::Http { .. } | Address::Ssh { .. } => {
                Session::new(self.remote, self.limits, self.control, &self.why).within(work)
            }
        };
        done.map_err(|error| self.error(&error))
    }

    /// The reason that was kept, or what libgit2's words mean.
    fn error(&self, error: &git2::Error) -> MirrorError {
        if self.control.cancel.is_cancelled() {
            return MirrorError::Cancelled;
        }
        let kept = self.why.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.unwrap_or_else(|| MirrorError::of_remote(&self.remote.url, error))
    }

    /// Keeps the reason for which a call ends here.
    pub(super) fn stop(&self, why: MirrorError) -> git2::Error {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        git2::Error::from_str("stopped")
    }

    /// The refs at the other end of a connection.
    pub(super) fn heads(&self, connection: &RemoteConnection<'_, '_, '_>) -> Result<Vec<Head>, git2::Error> {
        let listed = connection.list()?;
        if listed.len() > self.limits.heads {
            let text = format!("{} has more than {} refs", self.remote.url, self.limits.heads);
            return Err(self.stop(MirrorError::TooLarge(text)));
        }
        let heads = listed.iter().map(|head| Head {
            name: head.name().to_owned(),
            target: head.oid(),
            symref: head.symref_target().map(str::to_owned),
        });
        Ok(peeled(heads.collect()))
    }

    pub(super) fn callbacks(&'a self) -> RemoteCallbacks<'a> {
        let mut callbacks = RemoteCallbacks::new();
        callbacks.transfer_progress(|progress| {
            let bytes = progress.received_bytes();
            if let Some(show) = &self.control.progress {
                show(Progress { received: progress.received_objects(), objects: progress.total_objects(), bytes });
            }
            if bytes as u64 > self.limits.transfer {
                let most = crate::words::size(self.limits.transfer);
                self.stop(MirrorError::TooLarge(format!("{} sends more than {most} at once", self.remote.url)));
                return false;
            }
            !self.control.cancel.is_cancelled()
        });
        callbacks.sideband_progress(|_| !self.control.cancel.is_cancelled());
        callbacks
    }
}
