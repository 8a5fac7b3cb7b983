//! `train`: a script or the built-in trainer makes a model; its files are checked, and a version is registered.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::super::attempt::{Attempt, Good, Halt};
use super::super::scratch::Scratch;
use super::super::unit;
use super::super::workspace;
use super::plain;
use crate::artifact::manifest::Manifest;
use crate::build::status::{CancelReason, FailureKind};
use crate::ids::NodeKey;
use crate::judge::{metrics_file, predictions::Predictions};
use crate::model::train::{TrainPaths, train};
use crate::pipeline::types::{Linfa, Train};
use crate::store::models::{self, Lineage, NewVersion, TrainFiles};

/// Largest metrics or parameters file that is read.
const SMALL_FILE: u64 = 16 << 20;
/// Largest predictions file that is read.
const PREDICTIONS: u64 = 1 << 30;

/// Runs it.
///
/// # Errors
/// [`Halt`] if training failed, or its files are missing or wrong.
pub async fn run(attempt: &mut Attempt, spec: &Train) -> Result<Good, Halt> {
    // An hour of training is not thrown away. Another project may still come first: the last word is the transaction's.
    ours(attempt, &spec.model).await?;
    let manifest = match &spec.linfa {
        Some(linfa) => built_in(attempt, spec, linfa).await?,
        None => plain::run_work(attempt, Vec::new()).await?,
    };
    let metrics = metrics(attempt, spec, &manifest).await?;
    check_predictions(attempt, spec, &manifest).await?;
    let outputs = plain::store(attempt, &manifest).await?;
    let version = version(attempt, spec, &manifest, &outputs, &metrics).await?;
    ours(attempt, &spec.model).await?;
    for (name, value) in metrics.iter().take(40) {
        attempt.log.note(&format!("{name} = {value}"));
    }
    Ok(Good { outputs: Some(outputs), metrics, version: Some(version) })
}

/// Refuses a model that belongs to another project, unless nothing will be registered.
async fn ours(attempt: &Attempt, model: &str) -> Result<(), Halt> {
    let build = &attempt.cx.build;
    if !build.may_register() {
        return Ok(());
    }
    let (name, project) = (model.to_owned(), build.request.project.clone());
    let read = build.engine.store.read(move |db| models::may_be_of(db, &name, &project));
    if read.await.map_err(Halt::internal)? {
        return Ok(());
    }
    Err(Halt::failed(FailureKind::Train, models::belongs_elsewhere(model)))
}

/// The built-in trainer works in this process, on files that are laid out for it. An attempt that was interrupted has left
/// nothing behind and is simply another one.
async fn built_in(attempt: &mut Attempt, spec: &Train, linfa: &Linfa) -> Result<Manifest, Halt> {
    if attempt.again {
        return Err(Halt::Interrupted("the training was interrupted".to_owned()));
    }
    let scratch = Scratch::new(attempt)?;
    let mut inputs = workspace::manifest(&attempt.cx.build, &attempt.cx.good).await?;
    inputs.files.retain(|file| file.path == linfa.data);
    if inputs.files.is_empty() {
        let text =
            format!("`train.linfa.data: {}` is neither in the source tree nor an output of a stage before", linfa.data);
        return Err(Halt::failed(FailureKind::Train, text));
    }
    let artifacts = Arc::clone(&attempt.cx.build.engine.artifacts);
    artifacts.materialize(&inputs, &scratch.input()).await.map_err(Halt::internal)?;
    let paths = TrainPaths {
        model: scratch.output().join(&spec.artifact),
        metrics: scratch.output().join(spec.metrics.as_deref().unwrap_or("metrics.json")),
        predictions: scratch.output().join(spec.predictions.as_deref().unwrap_or("predictions.csv")),
        evaluation: spec.evaluation.as_ref().map(|path| scratch.output().join(path)),
    };
    let (linfa, data) = (linfa.clone(), scratch.input().join(&linfa.data));
    let (lines, mut said) = tokio::sync::mpsc::unbounded_channel::<String>();
    let work = tokio::task::spawn_blocking(move || {
        train(&linfa, &data, &paths, &mut |line| {
            // The log is gone only when the attempt is.
            let _ = lines.send(line);
        })
        .map(|_| ())
    });
    let limit = tokio::time::sleep(attempt.cx.node().stage.timeout);
    tokio::pin!(work, limit);
    let mut stop = attempt.cx.stop.clone();
    let done = loop {
        tokio::select! {
            Some(line) = said.recv() => attempt.log.note(&line),
            done = &mut work => break done,
            stopped = unit::stopped(&mut stop, None) => {
                return Err(Halt::Cancelled(stopped.unwrap_or(CancelReason::Kill)));
            }
            () = &mut limit => {
                return Err(Halt::failed(FailureKind::Timeout, "took longer than its time limit"));
            }
        }
    };
    while let Ok(line) = said.try_recv() {
        attempt.log.note(&line);
    }
    done.map_err(Halt::internal)?.map_err(|error| Halt::failed(FailureKind::Train, error.to_string()))?;
    let caps = crate::artifact::Caps::default();
    artifacts.ingest_folder(&scratch.output(), &caps).await.map_err(Halt::internal)
}

/// The bytes of one file of a manifest.
///
/// # Errors
/// [`Halt`] if it is not there or too large.
pub async fn read(attempt: &Attempt, manifest: &Manifest, path: &str, most: u64) -> Result<Vec<u8>, Halt> {
    let artifacts = &attempt.cx.build.engine.artifacts;
    artifacts
        .get_file(manifest, path, most)
        .await
        .map_err(|error| Halt::failed(FailureKind::Train, format!("`{path}`: {error}")))
}

async fn metrics(attempt: &Attempt, spec: &Train, manifest: &Manifest) -> Result<BTreeMap<String, f64>, Halt> {
    let Some(path) = &spec.metrics else { return Ok(BTreeMap::new()) };
    let bytes = read(attempt, manifest, path, SMALL_FILE).await?;
    metrics_file::parse(&bytes).map_err(|error| Halt::failed(FailureKind::Train, format!("`{path}`: {error}")))
}

async fn check_predictions(attempt: &mut Attempt, spec: &Train, manifest: &Manifest) -> Result<(), Halt> {
    let Some(path) = &spec.predictions else { return Ok(()) };
    let bytes = read(attempt, manifest, path, PREDICTIONS).await?;
    let predictions =
        Predictions::parse(&bytes).map_err(|error| Halt::failed(FailureKind::Train, format!("`{path}`: {error}")))?;
    attempt.log.note(&format!("{} predictions on held-out rows", predictions.rows().len()));
    Ok(())
}

async fn version(
    attempt: &Attempt,
    spec: &Train,
    manifest: &Manifest,
    outputs: &str,
    metrics: &BTreeMap<String, f64>,
) -> Result<NewVersion, Halt> {
    let build = &attempt.cx.build;
    let request = &build.request;
    let mut artifact = manifest.clone();
    artifact.files.retain(|file| within(&file.path, &spec.artifact));
    let files = TrainFiles {
        artifact: spec.artifact.clone(),
        predictions: spec.predictions.clone(),
        evaluation: spec.evaluation.clone(),
        score: spec.score.clone(),
        linfa: spec.linfa.is_some(),
    };
    let lineage = Lineage {
        project: request.project.clone(),
        pipeline: request.pipeline.clone(),
        commit: request.commit.clone(),
        dirty: request.dirty,
        source: request.source.clone(),
        image: attempt.image.as_ref().map_or("host".to_owned(), |image| image.digest.clone()),
        image_id: attempt.image.as_ref().map(|image| image.reference.clone()),
        data: data(attempt, spec).await?,
        params: params(attempt, spec, manifest).await?,
        files,
    };
    Ok(NewVersion {
        model: spec.model.clone(),
        build: build.id,
        node: node(attempt),
        artifact: artifact.digest().to_string(),
        outputs: outputs.to_owned(),
        metrics: metrics.clone(),
        lineage,
    })
}

fn node(attempt: &Attempt) -> NodeKey {
    attempt.cx.node().key.clone()
}

/// Whether a file is the path or lies in it.
fn within(file: &str, path: &str) -> bool {
    Path::new(file).starts_with(path)
}

/// Digests of the data files, for lineage.
async fn data(attempt: &Attempt, spec: &Train) -> Result<BTreeMap<String, String>, Halt> {
    let mut wanted = spec.data.clone();
    wanted.extend(spec.linfa.iter().map(|linfa| linfa.data.clone()));
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let all = workspace::manifest(&attempt.cx.build, &attempt.cx.good).await?;
    let mut digests = BTreeMap::new();
    for path in wanted {
        let mut part = all.clone();
        part.files.retain(|file| within(&file.path, &path));
        match part.files.as_slice() {
            [] => {
                let text =
                    format!("`train.data: {path}` is neither in the source tree nor an output of a stage before");
                return Err(Halt::failed(FailureKind::Train, text));
            }
            [file] => digests.insert(path, file.digest.to_string()),
            _ => digests.insert(path, part.digest().to_string()),
        };
    }
    Ok(digests)
}

/// The training's parameters: from its own file, and those of the build.
async fn params(attempt: &Attempt, spec: &Train, manifest: &Manifest) -> Result<serde_json::Value, Halt> {
    let mut params = serde_json::Map::new();
    for (name, value) in &attempt.cx.build.expanded.params {
        params.insert(name.clone(), serde_json::Value::String(value.text()));
    }
    if let Some(linfa) = &spec.linfa {
        params.insert("algorithm".to_owned(), serde_json::Value::String(format!("{:?}", linfa.algorithm)));
        params.extend(linfa.params.clone());
    }
    if let Some(path) = &spec.params {
        let bytes = read(attempt, manifest, path, SMALL_FILE).await?;
        let value = crate::pipeline::document(&bytes)
            .map_err(|error| Halt::failed(FailureKind::Train, format!("`{path}`: {error}")))?;
        params.insert("file".to_owned(), value);
    }
    Ok(serde_json::Value::Object(params))
}
