//! Which files a tree has.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::{SourceError, SourceTree, snapshot};
use crate::artifact::{ArtifactSettings, ArtifactStore};

struct Place {
    root: TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("tree")).unwrap();
        Self { root }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join("tree").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn git(&self, arguments: &[&str]) {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]).args(arguments);
        let output = command.current_dir(self.root.path().join("tree")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    async fn take(&self, folder: &str) -> Result<SourceTree, SourceError> {
        let settings = ArtifactSettings::folder(self.root.path().join("artifacts"));
        let store = Arc::new(ArtifactStore::open(&settings).unwrap());
        let folder = self.root.path().join("tree").join(folder).canonicalize().unwrap();
        snapshot(&folder, &store, &self.root.path().join("cache"), &folder.join("left-out")).await
    }

    async fn paths(&self, folder: &str) -> Vec<String> {
        self.take(folder).await.unwrap().manifest.files.into_iter().map(|file| file.path).collect()
    }
}

#[tokio::test]
async fn outside_of_git_it_is_the_folder_less_what_is_ignored() {
    let place = Place::new();
    place.write("a.txt", "1");
    place.write("data/big.bin", "2");
    place.write(".hidden", "3");
    place.write(".orchestratorignore", "data/\n");
    assert_eq!(place.paths("").await, [".hidden", ".orchestratorignore", "a.txt"]);
    let facts = place.take("").await.unwrap().facts;
    assert_eq!((facts.commit, facts.branch), (None, None));
}

#[tokio::test]
async fn in_git_it_is_what_git_does_not_ignore() {
    let place = Place::new();
    place.git(&["init", "-q"]);
    place.write(".gitignore", "*.log\nforced.log\n");
    place.write("a.txt", "1");
    place.write("sub/b.txt", "2");
    place.write("noise.log", "3");
    place.write("forced.log", "4");
    place.git(&["add", "-f", ".gitignore", "a.txt", "sub/b.txt", "forced.log"]);
    place.git(&["commit", "-qm", "one"]);
    let clean = place.take("").await.unwrap();
    assert!(!clean.facts.dirty);
    assert_eq!(clean.facts.branch.as_deref(), Some("main"));
    place.write("new.txt", "5");
    assert_eq!(place.paths("").await, [".gitignore", "a.txt", "forced.log", "new.txt", "sub/b.txt"]);
    assert!(place.take("").await.unwrap().facts.dirty);
    assert_eq!(place.paths("sub").await, ["b.txt"]);
    assert!(!place.take("sub").await.unwrap().facts.dirty, "the change lies outside of the folder");
}

#[tokio::test]
async fn changed_paths_are_those_of_the_last_commit_and_the_work_tree() {
    let place = Place::new();
    place.git(&["init", "-q"]);
    place.write("a.txt", "1");
    place.git(&["add", "."]);
    place.git(&["commit", "-qm", "one"]);
    place.write("b.txt", "2");
    place.git(&["add", "."]);
    place.git(&["commit", "-qm", "two"]);
    place.git(&["tag", "v1"]);
    place.write("c.txt", "3");
    let tree = place.take("").await.unwrap();
    assert_eq!(tree.changed_paths, Some(vec!["b.txt".to_owned(), "c.txt".to_owned()]));
    assert_eq!(tree.facts.tag.as_deref(), Some("v1"));
}

#[tokio::test]
async fn links_stay_inside() {
    let place = Place::new();
    place.write("sub/a.txt", "1");
    let tree = place.root.path().join("tree");
    symlink("../sub/a.txt", tree.join("sub/up")).unwrap();
    assert_eq!(place.take("").await.unwrap().manifest.find("sub/up").unwrap().link.as_deref(), Some("../sub/a.txt"));
    for target in ["/etc/passwd", "../../outside"] {
        let bad = tree.join("bad");
        symlink(target, &bad).unwrap();
        let error = place.take("").await.unwrap_err().to_string();
        assert!(error.contains("the link `bad` leads out of the source tree"), "{error}");
        fs::remove_file(bad).unwrap();
    }
}

#[tokio::test]
async fn a_changed_file_is_seen_however_fast() {
    let place = Place::new();
    place.write("a.txt", "1");
    let one = place.take("").await.unwrap().digest;
    assert_eq!(place.take("").await.unwrap().digest, one);
    place.write("a.txt", "2");
    assert_ne!(place.take("").await.unwrap().digest, one);
}

/// A file that looks as it did is not read again, but for one that the store has lost.
#[tokio::test]
async fn what_the_store_has_lost_is_taken_again() {
    let place = Place::new();
    for name in ["a.txt", "b.txt"] {
        place.write(name, name);
    }
    // Only files that have been left alone for two seconds are remembered by their stat, and its time cannot be set.
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let one = place.take("").await.unwrap();
    let cache = fs::read_dir(place.root.path().join("cache")).unwrap().next().unwrap().unwrap().path();
    assert!(fs::read_to_string(cache).unwrap().contains("b.txt"), "it would not be read again");
    for ruin in ["", "b.tx"] {
        let hex = one.manifest.find("b.txt").unwrap().digest.to_string();
        let blob = place.root.path().join("artifacts/blobs").join(&hex[..2]).join(&hex[2..]);
        fs::remove_file(&blob).unwrap();
        if !ruin.is_empty() {
            fs::write(&blob, ruin).unwrap();
        }
        assert_eq!(place.take("").await.unwrap().digest, one.digest);
        assert_eq!(fs::read(&blob).unwrap(), b"b.txt");
    }
}

#[tokio::test]
async fn names_that_no_workspace_takes_are_refused() {
    let place = Place::new();
    place.write(&format!("{}x", "d/".repeat(70)), "1");
    let error = place.take("").await.unwrap_err().to_string();
    assert!(error.contains("deeper than 64 folders"), "{error}");
}

#[tokio::test]
async fn a_tree_in_the_data_folder_is_refused_and_one_around_it_is_taken_without_it() {
    let place = Place::new();
    place.write("a.txt", "1");
    place.write("left-out/b.txt", "2");
    assert_eq!(place.paths("").await, ["a.txt"]);
    let root = place.root.path().canonicalize().unwrap();
    let store = Arc::new(ArtifactStore::open(&ArtifactSettings::folder(root.join("artifacts"))).unwrap());
    let refused = snapshot(&root.join("tree"), &store, &root.join("cache"), &root).await;
    assert!(refused.unwrap_err().to_string().contains("lies in the data folder"));
}
