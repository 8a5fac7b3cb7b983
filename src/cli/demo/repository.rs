//! The repositories of the demo, and how they change.

use std::path::{Path, PathBuf};

use git2::{Commit as GitCommit, ErrorCode, Oid, Signature, Time};

use super::story::Commit;
use crate::clock;

const PIPELINE: &str = "pipeline.yaml";

/// A repository.
pub struct Repository {
    /// The number by which GitHub would know it.
    pub id: u64,
    folder: PathBuf,
    /// Its pipeline, with words in capitals.
    pipeline: &'static str,
    /// Another file of each commit.
    more: Option<(&'static str, String)>,
}

impl Repository {
    /// An empty one.
    ///
    /// # Errors
    /// Git's.
    pub fn new(
        folder: &Path,
        id: u64,
        pipeline: &'static str,
        more: Option<(&'static str, String)>,
    ) -> Result<Self, git2::Error> {
        let mut options = git2::RepositoryInitOptions::new();
        git2::Repository::init_opts(folder, options.initial_head("main"))?;
        Ok(Self { id, folder: folder.to_owned(), pipeline, more })
    }

    /// Makes a commit at the end of its branch; gives its name and that of the one before.
    ///
    /// # Errors
    /// Git's.
    pub fn commit(&self, commit: &Commit) -> Result<(Oid, Option<Oid>), git2::Error> {
        let reference = format!("refs/heads/{}", commit.branch);
        self.commit_to(&reference, commit)
    }

    /// As [`Repository::commit`], where no branch is: what a stranger proposes.
    ///
    /// # Errors
    /// Git's.
    pub fn propose(&self, number: u64, commit: &Commit) -> Result<(Oid, Option<Oid>), git2::Error> {
        self.commit_to(&format!("refs/pull/{number}/head"), commit)
    }

    fn commit_to(&self, reference: &str, commit: &Commit) -> Result<(Oid, Option<Oid>), git2::Error> {
        let git = git2::Repository::open(&self.folder)?;
        let at = |name: &str| match git.find_reference(name) {
            Ok(found) => found.peel_to_commit().map(Some),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let parent = match at(reference)? {
            Some(own) => Some(own),
            None => at("refs/heads/main")?,
        };
        let text = commit.words.iter().fold(self.pipeline.to_owned(), |text, (word, value)| text.replace(word, value));
        let base = parent.as_ref().map(GitCommit::tree).transpose()?;
        let mut tree = git.treebuilder(base.as_ref())?;
        tree.insert(PIPELINE, git.blob(text.as_bytes())?, 0o100_644)?;
        if let Some((name, content)) = &self.more {
            tree.insert(*name, git.blob(content.as_bytes())?, 0o100_644)?;
        }
        let words = format!("{}\n", commit.message);
        tree.insert("CHANGES", git.blob(words.as_bytes())?, 0o100_644)?;
        let tree = git.find_tree(tree.write()?)?;
        let (name, address) = commit.author;
        let author = Signature::new(name, address, &Time::new(clock::now().0 / 1_000_000, 0))?;
        let parents: Vec<&GitCommit<'_>> = parent.iter().collect();
        let made = git.commit(Some(reference), &author, &author, commit.message, &tree, &parents)?;
        Ok((made, parent.as_ref().map(GitCommit::id)))
    }

    /// A tag at the newest commit of `main`.
    ///
    /// # Errors
    /// Git's.
    pub fn tag(&self, name: &str) -> Result<Oid, git2::Error> {
        let git = git2::Repository::open(&self.folder)?;
        let commit = git.find_reference("refs/heads/main")?.peel_to_commit()?;
        git.tag_lightweight(name, commit.as_object(), false)?;
        Ok(commit.id())
    }
}
