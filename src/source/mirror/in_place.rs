//! A repository on this machine, read where it is.

use std::path::PathBuf;
use std::sync::PoisonError;

use git2::{ObjectType, Repository, RepositoryOpenFlags};

use super::fetch::{Fetched, Wanted};
use super::transport::Head;
use super::{Inner, MirrorError};

impl Inner {
    /// Reads in the mirror that is open already, or opens it.
    pub(super) fn with_repository<T>(
        &self,
        work: impl FnOnce(&Repository) -> Result<T, MirrorError>,
    ) -> Result<T, MirrorError> {
        let kept = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        let repository = match kept {
            Some(repository) => repository,
            None => self.repository().map_err(|error| self.damaged(&error))?,
        };
        let done = work(&repository);
        if !matches!(done, Err(MirrorError::Damaged { .. })) {
            *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(repository);
        }
        done
    }

    /// Forgets what is open: it may have been replaced.
    pub(super) fn close(&self) {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Opens the mirror, or the repository itself.
    fn repository(&self) -> Result<Repository, git2::Error> {
        if self.in_place {
            // Not a repository further up: that would be another one.
            let none: [&std::ffi::OsStr; 0] = [];
            return Repository::open_ext(&self.folder, RepositoryOpenFlags::NO_SEARCH, none);
        }
        Repository::open_bare(&self.folder)
    }

    /// Where it is kept which contents are known.
    pub(super) fn blobs(&self) -> PathBuf {
        if self.in_place {
            return self.root.join(format!("{}.blobs", self.remote.folder_name()));
        }
        self.folder.join("orchestrator-blobs")
    }

    /// The refs of the repository itself, as a remote lists them.
    pub(super) fn own_heads(&self) -> Result<Vec<Head>, MirrorError> {
        let url = &self.remote.url;
        if !self.folder.exists() {
            return Err(MirrorError::NotFound(format!("{url} was not found: there is no such folder")));
        }
        let read = |repository: &Repository| -> Result<Vec<Head>, git2::Error> {
            let mut heads = Vec::new();
            if let Ok(head) = repository.find_reference("HEAD") {
                let symref = head.symbolic_target().ok().flatten().map(str::to_owned);
                // A branch without a commit has no target yet.
                if let Ok(target) = head.resolve().and_then(|head| head.peel(ObjectType::Commit)) {
                    heads.push(Head { name: "HEAD".to_owned(), target: target.id(), symref });
                }
            }
            for reference in repository.references()? {
                let reference = reference?;
                let Ok(name) = reference.name().map(str::to_owned) else { continue };
                // A tag may name what is no commit.
                if let Ok(target) = reference.peel(ObjectType::Commit) {
                    heads.push(Head { name, target: target.id(), symref: None });
                }
                if heads.len() > self.limits.heads {
                    break;
                }
            }
            Ok(heads)
        };
        let heads =
            self.with_repository(|repository| read(repository).map_err(|error| MirrorError::of_remote(url, &error)))?;
        if heads.len() > self.limits.heads {
            return Err(MirrorError::TooLarge(format!("{url} has more than {} refs", self.limits.heads)));
        }
        Ok(heads)
    }

    /// What a fetch does where there is nothing to fetch.
    pub(super) fn look(&self, wanted: &Wanted) -> Result<Fetched, MirrorError> {
        let heads = self.own_heads()?;
        match wanted {
            Wanted::All => {}
            Wanted::Refs(names) => names.iter().try_for_each(|name| self.check_ref(name, &heads))?,
            Wanted::Tip(name) => self.check_ref(name, &heads)?,
            Wanted::Commit(id) if self.has(*id) => {}
            Wanted::Commit(id) => {
                return Err(MirrorError::NotFound(format!("{} has no commit {id}", self.remote.url)));
            }
        }
        Ok(Fetched { heads, bytes: 0, remade: None })
    }
}
