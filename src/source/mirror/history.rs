//! What a mirror says of commits: files, changes, who and when.

use std::collections::BTreeSet;
use std::path::Path;

use git2::{DiffOptions, ErrorCode, ObjectType, Oid, Repository, Sort};
use globset::GlobBuilder;

use super::remote::shown;
use super::{Control, Inner, Mirror, MirrorError};
use crate::ids::Micros;

/// Characters of a message that are kept.
const MESSAGE: usize = 4096;
/// Characters of a name that are kept.
const NAME: usize = 200;
/// Commits that are looked at before a list of them is given up.
const LOOKED_AT: usize = 100_000;

/// A commit. All texts are whatever its author wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its id.
    pub id: Oid,
    /// The author's name, cut short.
    pub author: String,
    /// The author's address, cut short.
    pub email: String,
    /// The message, cut short.
    pub message: String,
    /// When it was committed.
    pub time: Micros,
    /// The commits before it.
    pub parents: Vec<Oid>,
}

/// Between what changes are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changes {
    /// The commit before; for a new branch none.
    pub old: Option<Oid>,
    /// The commit now.
    pub new: Oid,
    /// Where the default branch is: a new branch is compared with where it left that.
    pub default_branch: Option<Oid>,
    /// Paths at most; more are as good as unknown.
    pub most: usize,
}

impl Mirror {
    /// A file's bytes; `None` if there is no such file (a link is none).
    ///
    /// # Errors
    /// [`MirrorError::NotFound`] for an unknown commit, [`MirrorError::TooLarge`] if it has more than `most` bytes.
    pub async fn file_at(&self, commit: Oid, path: &str, most: usize) -> Result<Option<Vec<u8>>, MirrorError> {
        let path = path.to_owned();
        self.reading(move |inner, repository| {
            let tree = inner.tree_of(repository, commit)?;
            match tree.get_path(Path::new(&path)) {
                Ok(entry) if entry.filemode() & 0o170_000 == 0o100_000 => {
                    inner.small(repository, entry.id(), most, &path).map(Some)
                }
                Ok(_) => Ok(None),
                Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
                Err(error) => Err(inner.damaged(&error)),
            }
        })
        .await
    }

    /// Paths of files that a glob matches, sorted; `*` stays within a folder, `**` does not.
    ///
    /// # Errors
    /// [`MirrorError::NotFound`] for an unknown commit, [`MirrorError::Refused`] for a broken glob,
    /// [`MirrorError::TooLarge`] for more than `most` matches.
    pub async fn list_at(&self, commit: Oid, glob: &str, most: usize) -> Result<Vec<String>, MirrorError> {
        let built = GlobBuilder::new(glob).literal_separator(true).build();
        let matcher = built.map_err(|error| MirrorError::Refused(error.to_string()))?.compile_matcher();
        let glob = glob.to_owned();
        self.reading(move |inner, repository| {
            let tree = inner.tree_of(repository, commit)?;
            let mut found = Vec::new();
            let most_depth = super::tree::DEPTH;
            // Not libgit2's own walk: it cannot take a folder whose name is not UTF-8.
            let mut folders = vec![(String::new(), tree.id(), 0)];
            while let Some((folder, id, depth)) = folders.pop() {
                for entry in &repository.find_tree(id).map_err(|error| inner.damaged(&error))? {
                    let Ok(name) = entry.name() else { continue };
                    let path = format!("{folder}{name}");
                    if entry.kind() == Some(ObjectType::Tree) && depth < most_depth {
                        folders.push((format!("{path}/"), entry.id(), depth + 1));
                    } else if entry.kind() == Some(ObjectType::Blob) && matcher.is_match(&path) {
                        found.push(path);
                    }
                }
                if found.len() > most || folders.len() > inner.limits.tree.files {
                    return Err(MirrorError::TooLarge(format!("`{glob}` matches more than {most} files")));
                }
            }
            found.sort();
            Ok(found)
        })
        .await
    }

    /// Paths that differ, both of a rename. `None` if that cannot be told: the old commit is not here, a new branch shares
    /// nothing with the default branch, or there are too many.
    ///
    /// # Errors
    /// [`MirrorError::NotFound`] if the new commit is not here.
    pub async fn changed_paths(&self, changes: Changes) -> Result<Option<Vec<String>>, MirrorError> {
        self.reading(move |inner, repository| {
            let new = inner.tree_of(repository, changes.new)?;
            let before = match (changes.old, changes.default_branch) {
                (Some(old), _) => Some(old),
                (None, Some(branch)) => inner.base(repository, branch, changes.new)?,
                (None, None) => None,
            };
            let Some(before) = before else { return Ok(None) };
            let old = match inner.tree_of(repository, before) {
                Ok(tree) => tree,
                Err(MirrorError::NotFound(_)) => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut options = DiffOptions::new();
            options.skip_binary_check(true).ignore_submodules(false);
            let diff = repository.diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options));
            let diff = diff.map_err(|error| inner.damaged(&error))?;
            let mut paths = BTreeSet::new();
            for delta in diff.deltas() {
                for path in [delta.old_file().path_bytes(), delta.new_file().path_bytes()].into_iter().flatten() {
                    paths.insert(String::from_utf8_lossy(path).into_owned());
                }
                if paths.len() > changes.most {
                    return Ok(None);
                }
            }
            Ok(Some(paths.into_iter().collect()))
        })
        .await
    }

    /// A commit's author, message and parents.
    ///
    /// # Errors
    /// [`MirrorError::NotFound`] if it is not here.
    pub async fn commit_info(&self, commit: Oid) -> Result<CommitInfo, MirrorError> {
        self.reading(move |inner, repository| Ok(info(&inner.commit(repository, commit)?))).await
    }

    /// Commits that `new` has and `old` has not, newest first, `limit` of them at most.
    ///
    /// # Errors
    /// [`MirrorError::NotFound`] if one of the two is not here.
    pub async fn commits_between(&self, old: Oid, new: Oid, limit: usize) -> Result<Vec<CommitInfo>, MirrorError> {
        self.reading(move |inner, repository| {
            inner.commit(repository, old)?;
            inner.commit(repository, new)?;
            let walked = || -> Result<Vec<Oid>, git2::Error> {
                let mut walk = repository.revwalk()?;
                walk.set_sorting(Sort::TOPOLOGICAL | Sort::TIME)?;
                walk.push(new)?;
                walk.hide(old)?;
                walk.take(limit.min(LOOKED_AT)).collect()
            };
            let ids = walked().map_err(|error| inner.damaged(&error))?;
            ids.into_iter().map(|id| Ok(info(&inner.commit(repository, id)?))).collect()
        })
        .await
    }

    /// The last commit that both have; `None` if they share none.
    ///
    /// # Errors
    /// [`MirrorError::NotFound`] if one of the two is not here.
    pub async fn merge_base(&self, one: Oid, other: Oid) -> Result<Option<Oid>, MirrorError> {
        self.reading(move |inner, repository| {
            inner.commit(repository, one)?;
            inner.commit(repository, other)?;
            inner.base(repository, one, other)
        })
        .await
    }

    async fn reading<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &Repository) -> Result<T, MirrorError> + Send + 'static,
    ) -> Result<T, MirrorError> {
        let control = Control::default();
        self.blocking(&control, move |inner, _| inner.read(|repository| work(inner, repository))).await
    }
}

impl Inner {
    fn base(&self, repository: &Repository, one: Oid, other: Oid) -> Result<Option<Oid>, MirrorError> {
        match repository.merge_base(one, other) {
            Ok(base) => Ok(Some(base)),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(self.damaged(&error)),
        }
    }
}

fn info(commit: &git2::Commit<'_>) -> CommitInfo {
    let cut = |bytes: &[u8], most: usize| -> String { String::from_utf8_lossy(bytes).chars().take(most).collect() };
    let author = commit.author();
    CommitInfo {
        id: commit.id(),
        author: shown(&cut(author.name_bytes(), NAME)),
        email: shown(&cut(author.email_bytes(), NAME)),
        message: cut(commit.message_bytes(), MESSAGE),
        time: Micros(commit.time().seconds().saturating_mul(1_000_000)),
        parents: commit.parent_ids().collect(),
    }
}
