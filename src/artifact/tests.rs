//! What the store takes, refuses and gives back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use proptest::prelude::*;
use tar::EntryType;
use tempfile::TempDir;

use super::manifest::{Digest, Manifest};
use super::{ArtifactError, ArtifactSettings, ArtifactStore, Caps, Marked, Names, Reliance, Sweep, split_glob, tar_of};
use crate::runner::TarStream;

async fn store() -> (TempDir, Arc<ArtifactStore>) {
    let folder = tempfile::tempdir().unwrap();
    let settings = ArtifactSettings::folder(folder.path().join("artifacts"));
    let store = ArtifactStore::open(&settings).unwrap();
    (folder, Arc::new(store))
}

fn pieces(bytes: Vec<u8>) -> TarStream {
    let pieces: Vec<_> = bytes.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces).boxed()
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // Not checked by the crate, so that hostile names can be made.
        let name = header.as_gnu_mut().unwrap();
        name.name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn whole() -> Names {
    Names::Within(String::new())
}

async fn take(files: &[(&str, &[u8])], caps: &Caps) -> Result<Manifest, ArtifactError> {
    let (_folder, store) = store().await;
    store.ingest_tar(pieces(archive(files)), whole(), None, caps).await
}

async fn take_into(store: &Arc<ArtifactStore>, files: &[(&str, &[u8])]) -> Manifest {
    store.ingest_tar(pieces(archive(files)), whole(), None, &Caps::default()).await.unwrap()
}

async fn refused(files: &[(&str, &[u8])], caps: &Caps, words: &str) {
    match take(files, caps).await {
        Err(ArtifactError::Refused(text)) => assert!(text.contains(words), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn paths_that_lead_outside_are_refused() {
    let caps = Caps::default();
    for path in ["../x", "/etc/passwd", "a/../../x", "a/.."] {
        refused(&[(path, b"x")], &caps, "leads outside").await;
    }
}

#[tokio::test]
async fn caps_hold() {
    refused(&[("a", b"1"), ("b", b"2")], &Caps { files: 1, ..Caps::default() }, "`b` is one file more than 1").await;
    refused(&[("a", b"12345")], &Caps { bytes: 4, ..Caps::default() }, "`a` makes it more than 4 B in all").await;
    refused(&[("a", b"123"), ("b", b"45")], &Caps { bytes: 4, ..Caps::default() }, "`b` makes it more").await;
    refused(&[("a", b"1"), ("./a", b"2")], &Caps::default(), "twice").await;
    refused(&[("a", b"1"), ("a/b", b"2")], &Caps::default(), "`a/b` lies beneath the file `a`").await;
    let taken = take(&[("a", b"123"), ("b", b"45")], &Caps::default()).await.unwrap();
    assert_eq!(Caps { files: 3, bytes: 9 }.less(&taken), Caps { files: 1, bytes: 4 });
}

/// One entry whose header says what it likes.
fn raw(name: &str, kind: EntryType, size: u64, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_link_name_literal("../../etc/passwd").unwrap();
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

#[tokio::test]
async fn hostile_archives_are_refused_by_name() {
    let (_folder, store) = store().await;
    for (archive, words) in [
        (raw("link", EntryType::Symlink, 0, b""), "`link` is a symbolic link"),
        (raw("link", EntryType::Link, 0, b""), "`link` is a hard link"),
        (raw("null", EntryType::Char, 0, b""), "`null` is a device"),
        (raw("disk", EntryType::Block, 0, b""), "`disk` is a device"),
        (raw("pipe", EntryType::Fifo, 0, b""), "`pipe` is a named pipe"),
        (raw("sparse", EntryType::GNUSparse, 0, b""), "`sparse` is a sparse file"),
        (raw("/etc/", EntryType::Directory, 0, b""), "leads outside"),
        (raw("huge", EntryType::Regular, 200 << 30, b"x"), "`huge` makes it more than"),
        (raw("cut", EntryType::Regular, 5000, b"x"), "middle of an entry"),
        (raw("absurd", EntryType::Regular, u64::MAX, b"x"), "absurd"),
        (raw("name", EntryType::GNULongName, 1 << 30, b"x"), "a long name has 1073741824 bytes"),
        (raw("pax", EntryType::XHeader, 1 << 30, b"x"), "extended header has"),
        (raw("pax", EntryType::XHeader, 9, b"9 size=x\n"), "size cannot be read"),
        (b"no archive at all".to_vec(), "middle of an entry"),
        (vec![b'x'; 2048], "checksum"),
        (Vec::new(), "middle of an entry"),
    ] {
        let error =
            store.ingest_tar(pieces(archive), whole(), None, &Caps::default()).await.expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
    let left = std::fs::read_dir(store.spool()).unwrap().count();
    assert_eq!(left, 0, "nothing of what was refused is left behind");
}

#[tokio::test]
async fn what_is_not_kept_may_be_anything() {
    let (_folder, store) = store().await;
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    for name in ["reports/a.json", "reports/b.txt"] {
        archive.append_data(&mut header, name, &b"x"[..]).unwrap();
    }
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    archive.append_link(&mut header, "reports/link", "/etc/passwd").unwrap();
    let (base, keep) = split_glob("out/reports/*.json").unwrap();
    assert_eq!(base, "out/reports");
    let archive = pieces(archive.into_inner().unwrap());
    let manifest = store.ingest_tar(archive, Names::Within("out".to_owned()), keep, &Caps::default()).await.unwrap();
    assert_eq!(manifest.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["out/reports/a.json"]);
}

#[tokio::test]
async fn the_whole_workspace_is_named_by_its_own_folder() {
    let (_folder, store) = store().await;
    let (base, keep) = split_glob("*.json").unwrap();
    assert_eq!(base, ".");
    let archive = pieces(archive(&[("workspace/a.json", b"1"), ("workspace/sub/b.json", b"2"), ("c.json", b"3")]));
    let manifest = store.ingest_tar(archive, Names::BelowOne, keep, &Caps::default()).await.unwrap();
    assert_eq!(manifest.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a.json"]);
}

#[tokio::test]
async fn a_torn_archive_is_an_error() {
    let mut bytes = archive(&[("a", &[7; 5000])]);
    bytes.truncate(3000);
    let (_folder, store) = store().await;
    assert!(store.ingest_tar(pieces(bytes), whole(), None, &Caps::default()).await.is_err());
}

fn blob(folder: &TempDir, digest: &Digest) -> PathBuf {
    let hex = digest.to_string();
    folder.path().join("artifacts/blobs").join(&hex[..2]).join(&hex[2..])
}

/// Writes over a blob, whatever its rights.
fn damage(folder: &TempDir, digest: &Digest, content: &[u8]) {
    std::fs::remove_file(blob(folder, digest)).unwrap();
    std::fs::write(blob(folder, digest), content).unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_named_set_aside_and_never_an_input() {
    let (folder, store) = store().await;
    let made = take_into(&store, &[("a", b"content"), ("b", b"other")]).await;
    let digest = made.files[0].digest;
    let list = store.put_manifest(&made).await.unwrap();
    let manifest = made.clone().from_origin("stage `train`");
    for wrong in [&b"cOntent"[..], b"cont", b"content and more", b""] {
        assert_eq!(store.missing(&list).await.unwrap(), None);
        let expected = "`a` of stage `train` is damaged";
        damage(&folder, &digest, wrong);
        let error = store.get_file(&manifest, "a", 100).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(store.missing(&list).await.unwrap().as_deref(), Some("`a`"), "it was set aside");
        let error = store.get_file(&manifest, "a", 100).await.unwrap_err();
        assert!(matches!(&error, ArtifactError::Absent(what) if what == "`a` of stage `train`"), "{error}");

        damage_anew(&folder, &digest, wrong);
        let out = folder.path().join("out");
        let error = store.materialize(&manifest, &out).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!out.join("a").exists(), "half a file is worse than none");

        damage_anew(&folder, &digest, wrong);
        let error = tar_of(Arc::clone(&store), manifest.clone()).try_collect::<Vec<_>>().await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        // What made it runs again.
        assert_eq!(take_into(&store, &[("a", b"content"), ("b", b"other")]).await, made);
        assert_eq!(store.get_file(&manifest, "a", 100).await.unwrap(), b"content");
    }
}

fn damage_anew(folder: &TempDir, digest: &Digest, content: &[u8]) {
    std::fs::write(blob(folder, digest), content).unwrap();
}

#[tokio::test]
async fn storing_again_heals_a_wrong_size() {
    let (folder, store) = store().await;
    let made = take_into(&store, &[("a", b"content")]).await;
    let list = store.put_manifest(&made).await.unwrap();
    for wrong in [&b"cont"[..], b"content and more", b""] {
        damage(&folder, &made.files[0].digest, wrong);
        assert_eq!(store.missing(&list).await.unwrap().as_deref(), Some("`a`"));
        take_into(&store, &[("a", b"content")]).await;
        assert_eq!(store.missing(&list).await.unwrap(), None);
        assert_eq!(store.get_file(&made, "a", 100).await.unwrap(), b"content");
    }
    damage(&folder, &list, b"{");
    assert!(store.missing(&list).await.unwrap().unwrap().contains("the list of files"));
    store.put_manifest(&made).await.unwrap();
    assert_eq!(store.manifest(&list).await.unwrap(), made);
}

fn age(folder: &TempDir, digest: &Digest, hours: u64) {
    let then = SystemTime::now() - Duration::from_secs(hours * 3600);
    std::fs::File::open(blob(folder, digest)).unwrap().set_modified(then).unwrap();
}

#[tokio::test]
async fn what_nobody_needs_is_swept_up_when_it_is_old() {
    let (folder, store) = store().await;
    let kept = take_into(&store, &[("a", b"kept"), ("b", b"both")]).await;
    let dead = take_into(&store, &[("a", b"dead"), ("b", b"both")]).await;
    let (live, old) = (store.put_manifest(&kept).await.unwrap(), store.put_manifest(&dead).await.unwrap());
    let young = take_into(&store, &[("c", b"young")]).await;
    for digest in kept.blobs().chain(dead.blobs()).map(|file| file.digest).chain([live, old]) {
        age(&folder, &digest, 30);
    }
    std::fs::write(blob(&folder, &live).parent().unwrap().join("not-ours"), "x").unwrap();
    let day = Duration::from_secs(24 * 3600);
    let mark = async || store.mark([live, Digest::of(b"gone")].into()).await.unwrap();

    let marked = mark().await;
    assert_eq!((marked.live.len(), marked.lost.as_slice()), (3, &[Digest::of(b"gone")][..]));
    let told = store.sweep(marked, day, Sweep::Tell).await.unwrap();
    assert_eq!((told.removed, told.kept, told.young), (2, 3, 1));
    assert_eq!(store.missing(&old).await.unwrap(), None, "telling removes nothing");
    for digest in dead.blobs().map(|file| file.digest).chain([old]) {
        age(&folder, &digest, 30);
    }
    let swept = store.sweep(mark().await, day, Sweep::Remove).await.unwrap();
    assert_eq!(swept, told);
    assert_eq!(store.missing(&live).await.unwrap(), None);
    assert!(store.manifest(&old).await.is_err());
    assert!(store.present(&[(young.files[0].digest, 5)], Reliance::New).unwrap()[0]);
    let again = store.sweep(mark().await, day, Sweep::Remove).await.unwrap();
    assert_eq!((again.removed, again.kept, again.young), (0, 3, 1));
    // Whatever age is asked for.
    let again = store.sweep(mark().await, Duration::ZERO, Sweep::Remove).await.unwrap();
    assert_eq!((again.removed, again.young), (0, 1));
}

/// A build that stores what is there already, or reuses it, has it before its row says so.
#[tokio::test]
async fn whoever_finds_an_old_file_makes_it_young() {
    let (folder, store) = store().await;
    let made = take_into(&store, &[("a", b"found"), ("b", b"stored"), ("c", b"left")]).await;
    let digests: Vec<Digest> = made.files.iter().map(|file| file.digest).collect();
    for digest in &digests {
        age(&folder, digest, 30);
    }
    assert!(store.present(&[(digests[0], 5)], Reliance::New).unwrap()[0]);
    take_into(&store, &[("x", b"stored")]).await;
    let swept = store.sweep(Marked::default(), Duration::from_secs(24 * 3600), Sweep::Remove).await.unwrap();
    assert_eq!((swept.removed, swept.young), (1, 2));
    assert!(!store.present(&[(digests[2], 4)], Reliance::New).unwrap()[0]);
}

/// Two processes, as far as the disk can tell: one finds files while the other sweeps them up. What one found is there after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_swept_from_under_its_new_user() {
    let (folder, store) = store().await;
    let names: Vec<String> = (0..300).map(|number| format!("file {number}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let made = take_into(&store, &files).await;
    for file in &made.files {
        age(&folder, &file.digest, 30);
    }
    let other = Arc::new(ArtifactStore::open(&ArtifactSettings::folder(folder.path().join("artifacts"))).unwrap());
    let wanted: Vec<(Digest, u64)> = made.files.iter().map(|file| (file.digest, file.size)).collect();
    let asked = wanted.clone();
    let finder = tokio::task::spawn_blocking(move || store.present(&asked, Reliance::New).unwrap());
    let sweep = other.sweep(Marked::default(), Duration::from_secs(24 * 3600), Sweep::Remove);
    let (found, swept) = tokio::join!(finder, sweep);
    let (found, swept) = (found.unwrap(), swept.unwrap());
    let there = found.iter().filter(|found| **found).count() as u64;
    assert_eq!(there + swept.removed, 300);
    for ((digest, _), found) in wanted.iter().zip(found) {
        assert_eq!(blob(&folder, digest).exists(), found);
    }
}

#[tokio::test]
async fn large_files_are_spooled_and_deduplicated() {
    let (folder, store) = store().await;
    let big = vec![42; 3 << 20];
    std::fs::create_dir(folder.path().join("in")).unwrap();
    std::fs::write(folder.path().join("in/one"), &big).unwrap();
    std::fs::write(folder.path().join("in/two"), &big).unwrap();
    let manifest = store.ingest_folder(&folder.path().join("in"), &Caps::default()).await.unwrap();
    assert_eq!(manifest.files[0].digest, manifest.files[1].digest);
    assert_eq!(store.get_file(&manifest, "two", 4 << 20).await.unwrap(), big);
    assert_eq!(std::fs::read_dir(store.spool()).unwrap().count(), 0);
}

#[test]
fn globs_say_what_to_fetch() {
    for (path, base, yes, no) in [
        ("reports/*.json", "reports", "reports/a.json", "reports/sub/a.json"),
        ("**/*.txt", ".", "a/b.txt", "a/b.csv"),
        ("out/{a,b}/x", "out", "out/a/x", "out/c/x"),
    ] {
        let (found, matcher) = split_glob(path).unwrap();
        let matcher = matcher.unwrap();
        assert_eq!(found, base);
        assert!(matcher.matches(yes) && !matcher.matches(no), "{path}");
    }
    assert!(split_glob("plain/file").unwrap().1.is_none());
    assert!(split_glob("../*").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// What goes in as a tar comes out as the same tar, however it is named and cut.
    #[test]
    fn tars_round_trip(files in prop::collection::btree_map("[a-z]{1,8}(/[a-z.]{1,40}x){0,3}", prop::collection::vec(any::<u8>(), 0..3000), 0..8)) {
        let plain: Vec<(&String, &Vec<u8>)> = files.iter().filter(|(path, _)| !files.keys().any(|other| other.starts_with(&format!("{path}/")))).collect();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let (folder, store) = store().await;
            let mut archive = tar::Builder::new(Vec::new());
            for (path, content) in &plain {
                let mut header = tar::Header::new_gnu();
                header.set_size(content.len() as u64);
                header.set_mode(0o755);
                archive.append_data(&mut header, path, content.as_slice()).unwrap();
            }
            let manifest = store.ingest_tar(pieces(archive.into_inner().unwrap()), whole(), None, &Caps::default()).await.unwrap();
            let tar = tar_of(Arc::clone(&store), manifest.clone());
            assert_eq!(store.ingest_tar(tar, whole(), None, &Caps::default()).await.unwrap(), manifest);
            let out = folder.path().join("out");
            store.materialize(&manifest, &out).await.unwrap();
            for (path, content) in &plain {
                assert_eq!(&std::fs::read(out.join(path)).unwrap(), *content);
            }
        });
    }
}
