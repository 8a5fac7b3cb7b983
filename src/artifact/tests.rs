//! What the store takes, refuses and gives back.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use proptest::prelude::*;
use tempfile::TempDir;

use super::manifest::Manifest;
use super::{ArtifactError, ArtifactSettings, ArtifactStore, Caps, ManifestAt, split_glob, tar_of};
use crate::runner::TarStream;

async fn store() -> (TempDir, Arc<ArtifactStore>) {
    let folder = tempfile::tempdir().unwrap();
    let settings = ArtifactSettings::folder(folder.path().join("artifacts"));
    let store = ArtifactStore::open(&settings).await.unwrap();
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

async fn take(files: &[(&str, &[u8])], caps: &Caps) -> Result<Manifest, ArtifactError> {
    let (_folder, store) = store().await;
    store.ingest_tar(pieces(archive(files)), "", caps).await
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
async fn links_and_devices_are_refused() {
    for (kind, words) in [
        (tar::EntryType::Symlink, "is a link"),
        (tar::EntryType::Link, "is a link"),
        (tar::EntryType::Char, "device"),
        (tar::EntryType::Fifo, "device"),
    ] {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_path("x").unwrap();
        header.set_link_name("/etc/passwd").unwrap();
        header.set_cksum();
        archive.append(&header, std::io::empty()).unwrap();
        let (_folder, store) = store().await;
        let taken = store.ingest_tar(pieces(archive.into_inner().unwrap()), "", &Caps::default()).await;
        assert!(matches!(&taken, Err(ArtifactError::Refused(text)) if text.contains(words)), "{taken:?}");
    }
}

#[tokio::test]
async fn caps_hold() {
    refused(&[("a", b"1"), ("b", b"2")], &Caps { files: 1, ..Caps::default() }, "one file more").await;
    refused(&[("a", b"12345")], &Caps { bytes: 4, ..Caps::default() }, "more than 4 bytes").await;
    refused(&[("a/b/c", b"1")], &Caps { depth: 2, ..Caps::default() }, "deeper").await;
    refused(&[("abcd", b"1")], &Caps { path: 3, ..Caps::default() }, "longer").await;
    refused(&[("a", b"1"), ("./a", b"2")], &Caps::default(), "twice").await;
}

#[tokio::test]
async fn a_torn_archive_is_an_error() {
    let mut bytes = archive(&[("a", &[7; 5000])]);
    bytes.truncate(3000);
    let (_folder, store) = store().await;
    assert!(store.ingest_tar(pieces(bytes), "", &Caps::default()).await.is_err());
}

#[tokio::test]
async fn a_damaged_file_is_never_an_input() {
    let (folder, store) = store().await;
    let manifest = store.ingest_tar(pieces(archive(&[("a", b"content")])), "", &Caps::default()).await.unwrap();
    let hex = manifest.files[0].digest.to_string();
    let blob = folder.path().join("artifacts/blobs").join(&hex[..2]).join(&hex[2..]);
    std::fs::write(blob, b"cOntent").unwrap();
    assert!(matches!(store.get_file(&manifest, "a", 100).await, Err(ArtifactError::Damaged { .. })));
    assert!(store.materialize(&manifest, &folder.path().join("out")).await.is_err());
    let tar = tar_of(Arc::clone(&store), vec![ManifestAt { manifest, prefix: String::new() }]).unwrap();
    assert!(tar.try_collect::<Vec<_>>().await.is_err());
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
        assert!(matcher.is_match(yes) && !matcher.is_match(no), "{path}");
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
            let manifest = store.ingest_tar(pieces(archive.into_inner().unwrap()), "", &Caps::default()).await.unwrap();
            let tar = tar_of(Arc::clone(&store), vec![ManifestAt { manifest: manifest.clone(), prefix: String::new() }]).unwrap();
            assert_eq!(store.ingest_tar(tar, "", &Caps::default()).await.unwrap(), manifest);
            let out = folder.path().join("out");
            store.materialize(&manifest, &out).await.unwrap();
            for (path, content) in &plain {
                assert_eq!(&std::fs::read(out.join(path)).unwrap(), *content);
            }
        });
    }
}
