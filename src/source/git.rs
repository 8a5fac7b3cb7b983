//! What git says of a folder. Read only; a folder outside of git is no error.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use git2::{DiffOptions, Repository, StatusOptions};

/// Facts for lineage and conditions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitFacts {
    /// The checked-out commit.
    pub commit: Option<String>,
    /// The checked-out branch; `None` for a detached head.
    pub branch: Option<String>,
    /// A tag at the commit.
    pub tag: Option<String>,
    /// The folder differs from the commit.
    pub dirty: bool,
}

/// All that is found out.
#[derive(Debug, Default)]
pub(super) struct Git {
    pub facts: GitFacts,
    /// Tracked paths relative to the folder, also ignored ones.
    pub tracked: BTreeSet<PathBuf>,
    pub changed_paths: Option<Vec<String>>,
    pub warnings: Vec<String>,
}

/// Looks at the repository around a folder.
pub(super) fn look(folder: &Path) -> Git {
    let Ok(repository) = Repository::discover(folder) else { return Git::default() };
    let mut git = Git::default();
    if let Err(error) = read(&repository, folder, &mut git) {
        git.warnings.push(format!("git cannot be read, so lineage names no commit: {}", error.message()));
    }
    git
}

fn read(repository: &Repository, folder: &Path, git: &mut Git) -> Result<(), git2::Error> {
    let Some(root) = repository.workdir() else { return Ok(()) };
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let Ok(inside) = folder.strip_prefix(&root) else { return Ok(()) };
    for entry in repository.index()?.iter() {
        let path = PathBuf::from(String::from_utf8_lossy(&entry.path).into_owned());
        if let Ok(path) = path.strip_prefix(inside) {
            git.tracked.insert(path.to_owned());
        }
    }
    // A repository without a commit yet has none of the rest.
    let Ok(head) = repository.head() else {
        git.facts.dirty = true;
        return Ok(());
    };
    let commit = head.peel_to_commit()?;
    git.facts.commit = Some(commit.id().to_string());
    if head.is_branch() {
        git.facts.branch = head.shorthand().ok().map(str::to_owned);
    }
    git.facts.tag = tag_at(repository, commit.id());
    git.facts.dirty = dirty(repository, inside)?;
    git.changed_paths = Some(changed(repository, &commit, inside)?);
    Ok(())
}

fn tag_at(repository: &Repository, commit: git2::Oid) -> Option<String> {
    let mut found = None;
    // A tag that cannot be read is none of ours.
    let _ = repository.tag_foreach(|id, name| {
        let target = repository.find_tag(id).ok().map_or(id, |tag| tag.target_id());
        if target == commit {
            found = std::str::from_utf8(name).ok().map(|name| name.trim_start_matches("refs/tags/").to_owned());
        }
        found.is_none()
    });
    found
}

fn dirty(repository: &Repository, inside: &Path) -> Result<bool, git2::Error> {
    let mut options = StatusOptions::new();
    options.include_untracked(true).recurse_untracked_dirs(false);
    if inside != Path::new("") {
        options.pathspec(inside);
    }
    Ok(!repository.statuses(Some(&mut options))?.is_empty())
}

/// Paths that the checked-out commit and the work tree changed.
fn changed(repository: &Repository, commit: &git2::Commit<'_>, inside: &Path) -> Result<Vec<String>, git2::Error> {
    let before = commit.parent(0).ok().map(|parent| parent.tree()).transpose()?;
    let mut options = DiffOptions::new();
    options.include_untracked(true).recurse_untracked_dirs(true);
    if inside != Path::new("") {
        options.pathspec(inside);
    }
    let diff = repository.diff_tree_to_workdir_with_index(before.as_ref(), Some(&mut options))?;
    let mut paths = BTreeSet::new();
    for delta in diff.deltas() {
        for file in [delta.old_file(), delta.new_file()] {
            if let Some(path) = file.path().and_then(|path| path.strip_prefix(inside).ok()) {
                paths.insert(path.to_string_lossy().into_owned());
            }
        }
    }
    Ok(paths.into_iter().collect())
}
