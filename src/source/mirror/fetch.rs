//! From a remote into its mirror.

use std::collections::HashSet;

use git2::{AutotagOption, Direction, FetchOptions, Oid, Repository};

use super::heal::{self, Lock};
use super::transport::{Head, Watcher};
use super::{Control, Inner, Mirror, MirrorError};

/// What is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All branches and tags; those that are gone go here too.
    All,
    /// These refs, `refs/pull/7/head` for one.
    Refs(Vec<String>),
    /// A ref's newest commit alone, without those before it. For a short look: a mirror of such is good for nothing else.
    Tip(String),
    /// A commit by its id. Not every server gives what no ref names.
    Commit(Oid),
}

/// What a fetch did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fetched {
    /// The remote's refs, as they were before the fetch.
    pub heads: Vec<Head>,
    /// Bytes that came.
    pub bytes: usize,
    /// The mirror was damaged and is new: what to tell people.
    pub remade: Option<String>,
}

impl Mirror {
    /// The remote's refs now.
    ///
    /// # Errors
    /// By what there is to do; see [`MirrorError`].
    pub async fn heads(&self, control: &Control) -> Result<Vec<Head>, MirrorError> {
        if self.inner.in_place {
            return self.blocking(control, |inner, _| inner.own_heads()).await;
        }
        super::heads(&self.inner.remote, &self.inner.limits, control).await
    }

    /// Brings the mirror up to date. Waits while another task or process fetches the same; a killed one leaves nothing that
    /// stands in the way.
    ///
    /// # Errors
    /// By what there is to do; see [`MirrorError`].
    pub async fn fetch(&self, wanted: &Wanted, control: &Control) -> Result<Fetched, MirrorError> {
        let wanted = wanted.clone();
        self.blocking(control, move |inner, control| inner.fetch(&wanted, control)).await
    }

    /// Whether the commit is here already.
    ///
    /// # Errors
    /// If the mirror cannot be read.
    pub async fn has(&self, commit: Oid) -> Result<bool, MirrorError> {
        self.blocking(&Control::default(), move |inner, _| Ok(inner.has(commit))).await
    }
}

impl Inner {
    pub(super) fn has(&self, commit: Oid) -> bool {
        // What is not there yet is no error.
        self.folder.exists()
            && self.with_repository(|repository| Ok(repository.find_commit(commit).is_ok())).unwrap_or(false)
    }

    pub(super) fn fetch(&self, wanted: &Wanted, control: &Control) -> Result<Fetched, MirrorError> {
        if self.in_place {
            return self.look(wanted);
        }
        let _lock = Lock::take(&self.folder, control)?;
        self.close();
        let (repository, remade) = heal::open(&self.folder, &self.remote)?;
        match self.fetch_into(&repository, wanted, control) {
            Ok(fetched) => Ok(Fetched { remade, ..fetched }),
            Err(MirrorError::Damaged { detail, .. }) if remade.is_none() => {
                drop(repository);
                let (repository, remade) = heal::anew(&self.folder, &self.remote, &detail)?;
                let fetched = self.fetch_into(&repository, wanted, control)?;
                Ok(Fetched { remade, ..fetched })
            }
            Err(error) => Err(error),
        }
    }

    fn fetch_into(&self, repository: &Repository, wanted: &Wanted, control: &Control) -> Result<Fetched, MirrorError> {
        let watch = Watcher::new(&self.remote, &self.limits, control)?;
        watch.call(|| {
            // Outlive the connection, which is told of them.
            let mut options = FetchOptions::new();
            let mut remote = repository.remote_anonymous(watch.url())?;
            let mut connection = remote.connect_auth(Direction::Fetch, Some(watch.callbacks()), None)?;
            let heads = watch.heads(&connection)?;
            let refspecs = self.refspecs(repository, wanted, &heads).map_err(|why| watch.stop(why))?;
            options.remote_callbacks(watch.callbacks()).download_tags(AutotagOption::None).update_fetchhead(false);
            if matches!(wanted, Wanted::Tip(_)) {
                options.depth(1);
            }
            let remote = connection.remote();
            remote.fetch(&refspecs, Some(&mut options), None)?;
            Ok(Fetched { heads, bytes: remote.stats().received_bytes(), remade: None })
        })
    }

    /// What is asked for. Makes room for it.
    fn refspecs(&self, repository: &Repository, wanted: &Wanted, heads: &[Head]) -> Result<Vec<String>, MirrorError> {
        let same = |name: &str| format!("+{name}:{name}");
        Ok(match wanted {
            Wanted::All => {
                // Before the fetch: a branch `a` that is gone stands in the way of `a/b`.
                prune(repository, heads).map_err(|error| MirrorError::of_mirror(&self.remote.url, &error))?;
                ["refs/heads/*", "refs/tags/*"].map(same).to_vec()
            }
            Wanted::Refs(names) => {
                names.iter().try_for_each(|name| self.check_ref(name, heads))?;
                names.iter().map(|name| same(name)).collect()
            }
            Wanted::Tip(name) => {
                self.check_ref(name, heads)?;
                vec![same(name)]
            }
            Wanted::Commit(id) => vec![format!("+{id}:refs/commits/{id}")],
        })
    }

    pub(super) fn check_ref(&self, name: &str, heads: &[Head]) -> Result<(), MirrorError> {
        if !name.starts_with("refs/") || !git2::Reference::is_valid_name(name) {
            let text = format!("`{}` is no name of a ref; it starts with refs/", super::remote::shown(name));
            return Err(MirrorError::Refused(text));
        }
        if heads.iter().any(|head| head.name == name) {
            return Ok(());
        }
        Err(MirrorError::NotFound(format!("{} has no {name}; it was removed, or never was there", self.remote.url)))
    }
}

/// Removes branches and tags that the remote has no more.
fn prune(repository: &Repository, heads: &[Head]) -> Result<(), git2::Error> {
    let there: HashSet<&[u8]> = heads.iter().map(|head| head.name.as_bytes()).collect();
    for reference in repository.references()? {
        let mut reference = reference?;
        let name = reference.name_bytes();
        let ours = name.starts_with(b"refs/heads/") || name.starts_with(b"refs/tags/");
        if ours && !there.contains(name) {
            reference.delete()?;
        }
    }
    Ok(())
}
