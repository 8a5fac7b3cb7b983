//! Mirrors of repositories in temporary folders.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::{Changes, Control, Credentials, Limits, Mirror, MirrorError, Network, Oid, Remote, TreeOptions, Wanted};
use crate::artifact::{ArtifactSettings, ArtifactStore};

struct Place {
    root: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { root: tempfile::tempdir().unwrap() };
        place.init("source");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    fn init(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
        self.git(name, &["init", "-q"]);
    }

    fn git(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]);
        command.args(["-c", "protocol.file.allow=always"]).args(arguments);
        let output = command.current_dir(self.path(name)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(&self, name: &str, path: &str, text: &str) {
        let path = self.path(name).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn commit(&self, name: &str, message: &str) -> Oid {
        self.git(name, &["add", "-A"]);
        self.git(name, &["commit", "-qm", message]);
        self.git(name, &["rev-parse", "HEAD"]).parse().unwrap()
    }

    fn mirror(&self, name: &str) -> Mirror {
        let url = self.path(name).display().to_string();
        let remote = Remote { url, credentials: Credentials::None, network: Network::default() };
        Mirror::open(&self.path("mirrors"), remote, Limits::default()).unwrap()
    }

    async fn store(&self) -> Arc<ArtifactStore> {
        Arc::new(ArtifactStore::open(&ArtifactSettings::folder(self.path("artifacts"))).unwrap())
    }
}

async fn fetch(mirror: &Mirror) -> super::Fetched {
    mirror.fetch(&Wanted::All, &Control::default()).await.unwrap()
}

async fn tree(mirror: &Mirror, commit: Oid, store: &Arc<ArtifactStore>) -> Result<super::MirrorTree, MirrorError> {
    mirror.tree(commit, &TreeOptions::default(), store, &Control::default()).await
}

#[tokio::test]
async fn heads_are_branches_peeled_tags_and_the_default() {
    let place = Place::new();
    place.write("source", "a", "1");
    let one = place.commit("source", "one");
    place.git("source", &["tag", "-am", "text", "v1"]);
    place.git("source", &["branch", "other"]);
    let heads = place.mirror("source").heads(&Control::default()).await.unwrap();
    let shown: Vec<_> = heads.iter().map(|head| (head.name.as_str(), head.target, head.symref.as_deref())).collect();
    assert!(shown.contains(&("refs/heads/main", one, None)), "{shown:?}");
    assert!(shown.contains(&("refs/heads/other", one, None)), "{shown:?}");
    assert!(shown.contains(&("refs/tags/v1", one, None)), "{shown:?}");
    assert!(shown.contains(&("HEAD", one, Some("refs/heads/main"))), "{shown:?}");
    assert_eq!(shown.len(), 4);
}

#[tokio::test]
async fn a_tree_is_what_a_clean_checkout_is() {
    let place = Place::new();
    for (path, text) in
        [("a.txt", "1"), ("sub/b.py", "2"), ("sub/deep/c", ""), (".gitattributes", "a.txt export-ignore\n")]
    {
        place.write("source", path, text);
    }
    place.write("source", "big.bin", &"x".repeat(3 << 20));
    place.write("source", "run.sh", "#!/bin/sh\n");
    let script = place.path("source").join("run.sh");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../a.txt", place.path("source").join("sub/link")).unwrap();
    let commit = place.commit("source", "one");
    let (mirror, store) = (place.mirror("source"), place.store().await);
    fetch(&mirror).await;
    let cache = place.path("cache");
    let checkout = super::super::snapshot(&place.path("source"), &store, &cache, &place.path("none")).await.unwrap();
    for _ in 0..2 {
        let taken = tree(&mirror, commit, &store).await.unwrap();
        assert_eq!(taken.manifest, checkout.manifest);
        assert_eq!(taken.digest, checkout.digest);
        assert_eq!(taken.warnings, [""; 0]);
    }
    let folder = TreeOptions { folder: "sub/deep".to_owned() };
    let below = mirror.tree(commit, &folder, &store, &Control::default()).await.unwrap();
    assert_eq!(below.manifest.files.len(), 1);
    assert_eq!(below.manifest.files[0].path, "c");
}

#[tokio::test]
async fn what_the_store_lost_is_read_again() {
    let place = Place::new();
    place.write("source", "a.txt", "1");
    let commit = place.commit("source", "one");
    let mirror = place.mirror("source");
    fetch(&mirror).await;
    let taken = tree(&mirror, commit, &place.store().await).await.unwrap();
    fs::remove_dir_all(place.path("artifacts")).unwrap();
    let store = place.store().await;
    assert_eq!(tree(&mirror, commit, &store).await.unwrap().digest, taken.digest);
    assert_eq!(store.get_file(&taken.manifest, "a.txt", 10).await.unwrap(), b"1");
}

#[tokio::test]
async fn links_that_lead_outside_are_refused() {
    for target in ["/etc/passwd", "../x", "a/../../x"] {
        let place = Place::new();
        symlink(target, place.path("source").join("bad")).unwrap();
        let commit = place.commit("source", "one");
        let mirror = place.mirror("source");
        fetch(&mirror).await;
        let error = tree(&mirror, commit, &place.store().await).await.unwrap_err();
        assert!(error.to_string().starts_with("the link bad leads out of the source tree"), "{error}");
    }
}

/// A commit whose tree has one file of this name, which git itself would not make.
fn hostile(place: &Place, name: &[u8]) -> Oid {
    let repository = git2::Repository::open(place.path("source")).unwrap();
    let blob = repository.blob(b"x").unwrap();
    let mut bytes = b"100644 ".to_vec();
    bytes.extend_from_slice(name);
    bytes.push(0);
    bytes.extend_from_slice(blob.as_bytes());
    let tree = repository.odb().unwrap().write(git2::ObjectType::Tree, &bytes).unwrap();
    let who = git2::Signature::now("t", "t@t").unwrap();
    let tree = repository.find_tree(tree).unwrap();
    repository.commit(Some("refs/heads/hostile"), &who, &who, "bad", &tree, &[]).unwrap()
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused() {
    for (name, shown) in [
        (&b".."[..], "\"..\""),
        (b".git", "\".git\""),
        (b".GiT", "\".GiT\""),
        (b"a\xff", "\"a\\xff\""),
        (b"a/../../b", "\"a/../../b\""),
    ] {
        let place = Place::new();
        place.write("source", "a", "1");
        place.commit("source", "one");
        let commit = hostile(&place, name);
        let mirror = place.mirror("source");
        fetch(&mirror).await;
        let error = tree(&mirror, commit, &place.store().await).await.unwrap_err();
        assert!(matches!(&error, MirrorError::Refused(text) if text.contains(shown)), "{error}");
    }
}

#[tokio::test]
async fn branches_that_are_gone_make_room() {
    let place = Place::new();
    place.write("source", "a", "1");
    let one = place.commit("source", "one");
    place.git("source", &["branch", "x"]);
    let mirror = place.mirror("source");
    fetch(&mirror).await;
    place.git("source", &["branch", "-D", "x"]);
    place.git("source", &["branch", "x/y"]);
    place.git("source", &["update-ref", "refs/pull/7/head", &one.to_string()]);
    fetch(&mirror).await;
    let repository = git2::Repository::open_bare(mirror.folder()).unwrap();
    assert!(repository.find_reference("refs/heads/x").is_err());
    assert!(repository.find_reference("refs/heads/x/y").is_ok());
    let pull = Wanted::Refs(vec!["refs/pull/7/head".to_owned()]);
    mirror.fetch(&pull, &Control::default()).await.unwrap();
    assert_eq!(repository.refname_to_id("refs/pull/7/head").unwrap(), one);
    let gone = Wanted::Refs(vec!["refs/pull/8/head".to_owned()]);
    assert!(matches!(mirror.fetch(&gone, &Control::default()).await, Err(MirrorError::NotFound(_))));
}

#[tokio::test]
async fn a_mirror_is_healed_or_made_anew() {
    let place = Place::new();
    place.write("source", "a", "1");
    let one = place.commit("source", "one");
    let mirror = place.mirror("source");
    fetch(&mirror).await;
    // What a killed fetch leaves.
    for path in ["config.lock", "refs/heads/main.lock", "objects/pack/pack_x1.tmp", "objects/pack/pack-1.pack"] {
        fs::write(mirror.folder().join(path), "half").unwrap();
    }
    place.write("source", "a", "2");
    let two = place.commit("source", "two");
    let fetched = fetch(&mirror).await;
    assert_eq!(fetched.remade, None);
    assert!(mirror.has(two).await.unwrap());
    assert!(!mirror.folder().join("refs/heads/main.lock").exists());
    assert!(!mirror.folder().join("objects/pack/pack-1.pack").exists());
    // A disk that lost its objects.
    fs::remove_dir_all(mirror.folder().join("objects")).unwrap();
    fs::create_dir_all(mirror.folder().join("objects/pack")).unwrap();
    let told = fetch(&mirror).await.remade.unwrap();
    assert!(told.contains("was damaged") && told.contains("made anew"), "{told}");
    assert!(mirror.has(one).await.unwrap() && mirror.has(two).await.unwrap());
}

#[tokio::test]
async fn history_is_told() {
    let place = Place::new();
    place.write("source", "a", "1\n2\n3\n");
    place.write("source", "pipelines/x.yaml", "x");
    let one = place.commit("source", "one");
    place.git("source", &["mv", "a", "b"]);
    let two = place.commit("source", "two");
    place.git("source", &["checkout", "-q", "-b", "side", &one.to_string()]);
    place.write("source", "c", "1");
    let side = place.commit("source", "side");
    place.git("source", &["checkout", "-q", "--orphan", "alone"]);
    let alone = place.commit("source", "alone");
    let mirror = place.mirror("source");
    fetch(&mirror).await;
    let changed = |old, new, default_branch| mirror.changed_paths(Changes { old, new, default_branch, most: 10 });
    assert_eq!(changed(Some(one), two, None).await.unwrap().unwrap(), ["a", "b"]);
    assert_eq!(changed(None, side, Some(two)).await.unwrap().unwrap(), ["c"]);
    assert_eq!(changed(None, alone, Some(two)).await.unwrap(), None);
    assert_eq!(changed(Some(Oid::ZERO_SHA1), two, None).await.unwrap(), None);
    assert_eq!(mirror.merge_base(two, side).await.unwrap(), Some(one));
    assert_eq!(mirror.merge_base(two, alone).await.unwrap(), None);
    let between = mirror.commits_between(side, two, 10).await.unwrap();
    assert_eq!(between.iter().map(|commit| commit.message.trim()).collect::<Vec<_>>(), ["two"]);
    assert_eq!(between[0].parents, [one]);
    assert_eq!(mirror.file_at(one, "a", 100).await.unwrap().unwrap(), b"1\n2\n3\n");
    assert_eq!(mirror.file_at(two, "a", 100).await.unwrap(), None);
    assert!(matches!(mirror.file_at(one, "a", 2).await, Err(MirrorError::TooLarge(_))));
    assert_eq!(mirror.list_at(one, "**/*.yaml", 10).await.unwrap(), ["pipelines/x.yaml"]);
    assert_eq!(mirror.list_at(one, "*.yaml", 10).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn submodules_come_along() {
    let place = Place::new();
    place.init("library");
    place.write("library", "lib.txt", "1");
    place.commit("library", "one");
    place.write("source", "a.txt", "1");
    place.commit("source", "one");
    place.git("source", &["submodule", "--quiet", "add", "../library", "libs/library"]);
    let commit = place.commit("source", "two");
    let (mirror, store) = (place.mirror("source"), place.store().await);
    fetch(&mirror).await;
    let taken = tree(&mirror, commit, &store).await.unwrap();
    let paths: Vec<&str> = taken.manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, [".gitmodules", "a.txt", "libs/library/lib.txt"]);
    let cache = place.path("cache");
    let checkout = super::super::snapshot(&place.path("source"), &store, &cache, &place.path("none")).await.unwrap();
    assert_eq!(taken.digest, checkout.digest);
}

#[tokio::test]
async fn lfs_pointers_are_named() {
    let place = Place::new();
    let text = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 1\n", "0".repeat(64));
    place.write("source", "model.bin", &text);
    let commit = place.commit("source", "one");
    let (mirror, store) = (place.mirror("source"), place.store().await);
    fetch(&mirror).await;
    for _ in 0..2 {
        let warnings = tree(&mirror, commit, &store).await.unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].starts_with("model.bin: only the LFS pointer"), "{warnings:?}");
    }
}

#[tokio::test]
async fn an_absent_repository_is_not_found_and_a_cancelled_fetch_ends() {
    let place = Place::new();
    let error = place.mirror("nowhere").heads(&Control::default()).await.unwrap_err();
    assert!(matches!(error, MirrorError::NotFound(_)), "{error:?}");
    let control = Control::default();
    control.cancel.cancel();
    let error = place.mirror("source").fetch(&Wanted::All, &control).await.unwrap_err();
    assert!(matches!(error, MirrorError::Cancelled), "{error:?}");
}

#[tokio::test]
async fn a_commit_is_seen() {
    let place = Place::new();
    place.write("source", "a", "1");
    place.commit("source", "one");
    place.git("source", &["worktree", "add", "-q", "../second", "-b", "second"]);
    for name in ["source", "second"] {
        let mut watch = super::watch(&place.path(name)).unwrap();
        place.write(name, "b", name);
        place.commit(name, "two");
        let seen = tokio::time::timeout(std::time::Duration::from_secs(30), watch.changed()).await;
        assert!(seen.is_ok(), "{name}");
    }
}
