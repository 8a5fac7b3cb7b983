//! A power cut at any instant of a build: no row may name a file that it would take.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use indexmap::IndexMap;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};

use super::Engine;
use super::drive::Drive;
use super::environment::Secrets;
use super::pack::Packer;
use super::paths::Paths;
use super::runners::Runners;
use super::slots::Slots;
use crate::artifact::disk::Disk;
use crate::artifact::manifest::{Digest, Manifest};
use crate::artifact::order_tests::{Model, path};
use crate::artifact::{ArtifactSettings, ArtifactStore};
use crate::build::plan::Selection;
use crate::build::status::BuildStatus;
use crate::source;
use crate::store::builds::BuildRequest;
use crate::store::{Store, roots};

/// Trained in this process, so no unit is needed: a source tree, outputs and a version.
const PIPELINE: &str = "
stages:
  train:
    train:
      model: players
      artifact: model.json
      metrics: metrics.json
      linfa: { data: players.csv, target: good, task: classification, algorithm: decision-tree }
";

/// The manifests that rows name now, each of which must be there for good with all its files.
async fn check(store: &Arc<Store>, folder: &Path, model: &Mutex<Model>) -> usize {
    let named = store.read(|db| {
        let mut named = BTreeSet::new();
        roots::for_each(db, |text| {
            named.insert(text.to_owned());
            Ok(())
        })?;
        Ok(named)
    });
    let named = named.await.unwrap();
    let model = model.lock().unwrap();
    for text in &named {
        let digest: Digest = text.parse().unwrap();
        assert!(model.keeps(&path(folder, &digest)), "a row names {digest}, which a power cut would take");
        let manifest: Manifest = serde_json::from_slice(&std::fs::read(path(folder, &digest)).unwrap()).unwrap();
        for file in manifest.blobs() {
            assert!(
                model.keeps(&path(folder, &file.digest)),
                "a row names {}, which a power cut would take",
                file.path
            );
        }
    }
    named.len()
}

fn request(folder: &Path, source: &Digest) -> BuildRequest {
    BuildRequest {
        project: "p".to_owned(),
        pipeline: "p".to_owned(),
        file: "pipeline.yaml".to_owned(),
        text: PIPELINE.to_owned(),
        folder: folder.to_owned(),
        source: source.to_string(),
        commit: None,
        dirty: false,
        branch: None,
        tag: None,
        default_branch: None,
        event: "manual".to_owned(),
        changed_paths: None,
        params: IndexMap::new(),
        selection: Selection::default(),
        runner: None,
        reuse: true,
        keep: false,
        actor: "test".to_owned(),
        title: None,
        pull_request: None,
        untrusted: false,
        reports: false,
        url: None,
        secrets: std::collections::BTreeMap::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_names_what_a_power_cut_would_take() {
    let root = tempfile::tempdir().unwrap();
    let tree = root.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let rows: String =
        (0..200).map(|row| format!("{row},{},{}\n", row % 7, if row % 7 > 3 { "yes" } else { "no" })).collect();
    std::fs::write(tree.join("players.csv"), format!("id,goals,good\n{rows}")).unwrap();
    let paths = Paths::new(Some(&root.path().join("data"))).unwrap();
    paths.create().unwrap();
    let store = Arc::new(Store::open(&paths.database()).unwrap());
    let model = Arc::new(Mutex::new(Model::default()));
    let looks = Arc::new(Mutex::new(0));
    let folder = paths.artifacts();
    let disk = {
        let (store, model, folder, looks) =
            (Arc::clone(&store), Arc::clone(&model), folder.clone(), Arc::clone(&looks));
        Disk::observed(Arc::new(move |step| {
            model.lock().unwrap().follow(step);
            Handle::current().block_on(check(&store, &folder, &model));
            *looks.lock().unwrap() += 1;
        }))
    };
    let artifacts = Arc::new(ArtifactStore::open_on(&ArtifactSettings::folder(folder.clone()), disk).unwrap());
    let runners = Runners::new(&paths, &store.instance, None).unwrap();
    let engine = Arc::new(Engine {
        paths,
        store: Arc::clone(&store),
        artifacts,
        runners,
        packer: Packer::default(),
        metrics: Arc::default(),
        live_loads: Arc::default(),
    });

    let taken =
        source::snapshot(&tree, &engine.artifacts, &engine.paths.stat_cache(), engine.paths.root()).await.unwrap();
    let id = engine.submit(request(&tree, &taken.digest)).await.unwrap();
    let (_cancel, cancelled) = watch::channel(None);
    let (notices, _told) = broadcast::channel(1000);
    let slots = Slots::of_this_machine();
    let drive = Drive { secrets: Secrets::default(), cancel: cancelled, notices, slots, priority: 0 };
    let ended = engine.drive(id, drive).await.unwrap();
    assert!(matches!(ended, BuildStatus::Passed), "{ended:?}");
    assert_eq!(check(&store, &folder, &model).await, 2, "the source tree and the outputs");
    assert!(*looks.lock().unwrap() > 10);
}
