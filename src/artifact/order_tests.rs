//! What a power cut leaves, at every step. A model of the disk follows all steps and knows what is in memory only: contents
//! that were written and not synced, names that were given and whose folder was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::disk::{Disk, Step};
use super::manifest::{Digest, Manifest};
use super::{ArtifactSettings, ArtifactStore, Batch, Caps, Reliance};

/// What is where, as far as a power cut would leave it.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Files whose content is on the disk, under whatever name they have now.
    safe: BTreeSet<PathBuf>,
    /// Names that were given, and whether they would outlive a power cut.
    names: BTreeMap<PathBuf, bool>,
    steps: Vec<Step>,
}

impl Model {
    /// Takes a step, which has to be one that loses nothing.
    pub(crate) fn follow(&mut self, step: Step) {
        match &step {
            Step::Written(path) => {
                self.safe.remove(path);
            }
            Step::Synced(path) if path.is_dir() => {
                for (name, kept) in &mut self.names {
                    *kept |= name.parent() == Some(path);
                }
            }
            Step::Synced(path) => {
                self.safe.insert(path.clone());
            }
            Step::SyncedAll => {
                let written = self.steps.iter().filter_map(|step| match step {
                    Step::Written(path) => Some(path.clone()),
                    Step::Synced(_) | Step::SyncedAll | Step::Placed { .. } | Step::Sealed(_) => None,
                });
                self.safe.extend(written);
                self.names.values_mut().for_each(|kept| *kept = true);
            }
            Step::Placed { from, to } => {
                // A name may reach the disk at any time from now on: then its content must be there.
                assert!(self.safe.remove(from), "{} got its name before its content was synced", to.display());
                self.safe.insert(to.clone());
                self.names.insert(to.clone(), false);
            }
            Step::Sealed(path) => assert!(self.names[path], "{} is sealed and not on the disk", path.display()),
        }
        self.steps.push(step);
    }

    /// Whether a blob would outlive a power cut now.
    pub(crate) fn keeps(&self, path: &Path) -> bool {
        self.names.get(path).copied().unwrap_or(false) && self.safe.contains(path)
    }

    fn syncs(&self) -> usize {
        let is_sync = |step: &&Step| matches!(step, Step::Synced(_) | Step::SyncedAll);
        self.steps.iter().filter(is_sync).count()
    }
}

type Shared = Arc<Mutex<Model>>;

async fn open(folder: &Path, model: &Shared) -> Arc<ArtifactStore> {
    let model = Arc::clone(model);
    let disk = Disk::observed(Arc::new(move |step| model.lock().unwrap().follow(step)));
    Arc::new(ArtifactStore::open_on(&ArtifactSettings::folder(folder.to_owned()), disk).unwrap())
}

/// Where a blob lies in a store's folder.
pub(crate) fn path(folder: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.to_string();
    folder.join("blobs").join(&hex[..2]).join(&hex[2..])
}

fn is_kept(folder: &Path, model: &Shared, list: &Digest, manifest: &Manifest) -> bool {
    let model = model.lock().unwrap();
    manifest.blobs().map(|file| &file.digest).chain([list]).all(|digest| model.keeps(&path(folder, digest)))
}

async fn store_files(store: &Arc<ArtifactStore>, count: usize) -> (Digest, Manifest) {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..count {
        std::fs::write(folder.path().join(number.to_string()), format!("content {number}")).unwrap();
    }
    std::fs::write(folder.path().join("large"), vec![7; 2 << 20]).unwrap();
    let manifest = store.ingest_folder(folder.path(), &Caps::default()).await.unwrap();
    (store.put_manifest(&manifest).await.unwrap(), manifest)
}

#[tokio::test]
async fn what_was_answered_outlives_a_power_cut() {
    for count in [0, 1, 5, 400] {
        let folder = tempfile::tempdir().unwrap();
        let model = Shared::default();
        let store = open(folder.path(), &model).await;
        let (list, manifest) = store_files(&store, count).await;
        assert!(is_kept(folder.path(), &model, &list, &manifest), "{count}");
        let syncs = model.lock().unwrap().syncs();
        assert!(syncs <= 40, "{count} files took {syncs} syncs");
        // The same again finds all of it, and asks nothing of the disk.
        store_files(&store, count).await;
        assert_eq!(model.lock().unwrap().syncs(), syncs, "{count}");
    }
}

/// A process that died after it gave names and before it synced them leaves what looks stored. Whoever finds it syncs it.
#[tokio::test]
async fn what_another_process_only_just_placed_is_synced_by_who_relies_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let (digest, other) = (Digest::of(b"found"), Digest::of(b"stored"));
    for (digest, content) in [(digest, "found"), (other, "stored")] {
        let path = path(folder.path(), &digest);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let model = Shared::default();
    let store = open(folder.path(), &model).await;
    for digest in [digest, other] {
        model.lock().unwrap().names.insert(path(folder.path(), &digest), false);
    }
    assert_eq!(store.present(&[(digest, 5)], Reliance::New).unwrap(), [true]);
    assert!(model.lock().unwrap().keeps(&path(folder.path(), &digest)));
    assert!(!model.lock().unwrap().keeps(&path(folder.path(), &other)));
    let mut batch = Batch::new(&store);
    batch.put_bytes(b"stored".to_vec()).unwrap();
    batch.keep().unwrap();
    assert!(model.lock().unwrap().keeps(&path(folder.path(), &other)));
}

#[tokio::test]
async fn a_batch_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = Shared::default();
    let store = open(folder.path(), &model).await;
    let mut batch = Batch::new(&store);
    let digest = batch.put_bytes(b"x".to_vec()).unwrap();
    drop(batch);
    assert_eq!(store.present(&[(digest, 1)], Reliance::New).unwrap(), [false]);
    assert_eq!(std::fs::read_dir(store.spool()).unwrap().count(), 0);
}
