//! The tree that a build works on, and what git says of it.
//!
//! `orchestrator run` builds the work tree as it is: tracked and untracked files that git does not ignore; outside of git the
//! folder, less what `.orchestratorignore` names. The tree is taken into the artifact store, so that a build that is taken up
//! again works on the very same files.

mod cache;
mod git;
pub mod mirror;
pub mod probe;
mod walk;

use std::path::Path;
use std::sync::Arc;

use crate::artifact::manifest::{Digest, Manifest};
use crate::artifact::{ArtifactError, ArtifactStore};

pub use git::GitFacts;

/// What keeps a tree from being read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file that a tree cannot hold.
    #[error("{0}")]
    Refused(String),
    /// A file that cannot be read.
    #[error("{what}: {source}")]
    Io {
        /// Which.
        what: String,
        /// The system's own words.
        source: std::io::Error,
    },
    /// The store.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

/// A tree, in the artifact store.
#[derive(Debug, Clone)]
pub struct SourceTree {
    /// Its files.
    pub manifest: Manifest,
    /// Of the manifest.
    pub digest: Digest,
    /// What git says.
    pub facts: GitFacts,
    /// Paths that differ from the commit before the checked-out one; `None` outside of git.
    pub changed_paths: Option<Vec<String>>,
    /// Remarks for people.
    pub warnings: Vec<String>,
}

/// Takes the tree below a folder.
///
/// What lies in `exclude` (the data folder, if someone put it there) is left out.
///
/// # Errors
/// If a file cannot be read, or is a link that leads outside; if the whole tree lies in `exclude`.
pub async fn snapshot(
    folder: &Path,
    store: &Arc<ArtifactStore>,
    cache: &Path,
    exclude: &Path,
) -> Result<SourceTree, SourceError> {
    let (folder, files, cache) = (folder.to_owned(), Arc::clone(store), cache.to_owned());
    if folder.starts_with(exclude) {
        let text = format!("it lies in the data folder {}, where nothing counts as source", exclude.display());
        return Err(SourceError::Refused(text));
    }
    let exclude = exclude.to_owned();
    let taken = tokio::task::spawn_blocking(move || {
        let git = git::look(&folder);
        let mut warnings = git.warnings;
        let mut paths = walk::paths(&folder, &git.tracked)?;
        paths.retain(|path| !folder.join(path).starts_with(&exclude));
        let manifest = walk::take(&folder, &paths, &files, &cache, &mut warnings)?;
        Ok::<_, SourceError>((manifest, git.facts, git.changed_paths, warnings))
    });
    let (manifest, facts, changed_paths, warnings) = taken.await.map_err(|error| SourceError::Io {
        what: "a thread broke".to_owned(),
        source: std::io::Error::other(error),
    })??;
    let digest = store.put_manifest(&manifest).await?;
    Ok(SourceTree { manifest, digest, facts, changed_paths, warnings })
}

#[cfg(test)]
mod tests;
