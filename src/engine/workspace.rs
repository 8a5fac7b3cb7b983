//! What lies in a workspace: the source tree, and the outputs of every stage before.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attempt::{Attempt, Halt};
use super::drive::Build;
use super::{Engine, EngineError};
use crate::artifact::manifest::{Digest, FileEntry, Manifest};
use crate::artifact::{self, ArtifactError, Caps, Names, Part};
use crate::build::status::FailureKind;
use crate::ids::NodeKey;
use crate::runner::spec::UnitName;
use crate::runner::{Runner, TarStream};
use crate::store::models::VersionRow;
use crate::store::{StoreError, results};

fn wrong(error: impl std::fmt::Display) -> EngineError {
    EngineError::Artifact(error.to_string())
}

pub(super) async fn load(build: &Build, digest: &str) -> Result<Manifest, EngineError> {
    let digest: Digest = digest.parse().map_err(wrong)?;
    build.engine.artifacts.manifest(&digest).await.map_err(wrong)
}

/// The source tree of a build.
///
/// # Errors
/// If it cannot be read.
pub async fn source(build: &Build) -> Result<Manifest, EngineError> {
    Ok(load(build, &build.request.source).await?.from_origin("the source tree"))
}

/// The source tree as a tar.
///
/// # Errors
/// If it cannot be read.
pub async fn source_tar(build: &Build) -> Result<TarStream, EngineError> {
    Ok(tar(build, source(build).await?))
}

/// A manifest as a tar.
pub fn tar(build: &Build, manifest: Manifest) -> TarStream {
    artifact::tar_of(Arc::clone(&build.engine.artifacts), manifest)
}

/// Digest of the source files at a path or below it.
///
/// # Errors
/// If the tree cannot be read.
pub async fn below(build: &Build, path: &str) -> Result<String, EngineError> {
    let path: std::path::PathBuf =
        std::path::Path::new(path).components().filter(|part| *part != std::path::Component::CurDir).collect();
    let mut manifest = source(build).await?;
    manifest.files.retain(|file| std::path::Path::new(&file.path).starts_with(&path));
    Ok(manifest.digest().to_string())
}

/// Digests of the outputs of the nodes before, in the plan's order.
///
/// # Errors
/// If one of them has no result.
pub async fn digests_before(build: &Build, good: &[usize]) -> Result<Vec<(NodeKey, String)>, EngineError> {
    if good.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<NodeKey> = good.iter().map(|&node| build.expanded.plan.nodes[node].key.clone()).collect();
    let id = build.id;
    let found = build.engine.store.read(move |db| {
        let find = |key: NodeKey| match results::of_stage(db, id, &key)? {
            Some(row) => Ok((key, row.outputs)),
            None => Err(StoreError::Corrupt(format!("stage `{key}` ended well and has no result"))),
        };
        keys.into_iter().map(find).collect::<Result<Vec<_>, _>>()
    });
    Ok(found.await?)
}

/// The outputs of the nodes before, in the plan's order.
///
/// # Errors
/// If one of them has no result, or it cannot be read.
async fn outputs_before(build: &Build, good: &[usize]) -> Result<Vec<(NodeKey, Manifest)>, EngineError> {
    let mut found = Vec::new();
    for (key, digest) in digests_before(build, good).await? {
        found.push((key, load(build, &digest).await?));
    }
    Ok(found)
}

/// Digest of the empty manifest, which is stored with it.
///
/// # Errors
/// If it cannot be stored.
pub async fn empty(build: &Build) -> Result<String, EngineError> {
    let digest = build.engine.artifacts.put_manifest(&Manifest::default()).await.map_err(wrong)?;
    Ok(digest.to_string())
}

/// Source tree and outputs before, at their paths. Outputs lie over source files of the same path: a committed
/// `metrics.json` is not the one that was just made.
///
/// # Errors
/// [`Halt`] if two stages wrote one path, or something cannot be read.
pub async fn manifest(build: &Build, good: &[usize]) -> Result<Manifest, Halt> {
    let source = source(build).await.map_err(Halt::internal)?;
    let mut parts = Vec::new();
    for (key, manifest) in outputs_before(build, good).await.map_err(Halt::internal)? {
        let prefix = key.cell.as_ref().map_or(String::new(), |cell| format!("matrix/{}/{cell}", key.stage));
        parts.push(Part { manifest, prefix, origin: format!("stage `{key}`") });
    }
    artifact::workspace(source, parts).map_err(|error| Halt::failed(FailureKind::Output, error.to_string()))
}

/// A version's own tree: its source with its outputs over it.
///
/// # Errors
/// If it cannot be read.
pub async fn tree_of(engine: &Engine, version: &VersionRow) -> Result<Manifest, EngineError> {
    let read = async |digest: &str| engine.artifacts.manifest(&digest.parse().map_err(wrong)?).await.map_err(wrong);
    let origin = format!("version {} of `{}`", version.version, version.model);
    let source = read(&version.lineage.source).await?.from_origin(&format!("the source tree of {origin}"));
    let part = Part { manifest: read(&version.outputs).await?, prefix: String::new(), origin };
    artifact::workspace(source, vec![part]).map_err(wrong)
}

/// Digest of a version's own tree.
///
/// # Errors
/// If it cannot be read or stored.
pub async fn of_version(engine: &Engine, version: &VersionRow) -> Result<String, EngineError> {
    let manifest = tree_of(engine, version).await?;
    Ok(engine.artifacts.put_manifest(&manifest).await.map_err(wrong)?.to_string())
}

/// The workspace of an attempt as a tar; none if nothing lies in it: an upload of nothing takes a container engine as long as
/// one of a file.
///
/// # Errors
/// As [`manifest`].
pub async fn workspace_tar(build: &Build, good: &[usize]) -> Result<Option<TarStream>, Halt> {
    let manifest = manifest(build, good).await?;
    Ok((!manifest.files.is_empty()).then(|| tar(build, manifest)))
}

/// Takes the declared outputs out of a unit that ended well.
///
/// # Errors
/// [`Halt`] naming an output that is not there, or that is refused.
pub async fn collect(
    attempt: &Attempt,
    runner: &dyn Runner,
    unit: &UnitName,
    paths: &[String],
) -> Result<Manifest, Halt> {
    let mut files: BTreeMap<String, FileEntry> = BTreeMap::new();
    // For all outputs of the stage together.
    let mut caps = Caps::default();
    for path in paths {
        let found = collect_one(attempt, runner, unit, path, &caps).await?;
        if found.files.is_empty() {
            let text = format!("output `{path}` was not made");
            return Err(Halt::failed(FailureKind::Output, text));
        }
        caps = caps.less(&found);
        files.extend(found.files.into_iter().map(|file| (file.path.clone(), file)));
    }
    let made = Manifest { files: files.into_values().collect() };
    Ok(made.from_origin(&format!("stage `{}`", attempt.cx.node().key)))
}

async fn collect_one(
    attempt: &Attempt,
    runner: &dyn Runner,
    unit: &UnitName,
    path: &str,
    caps: &Caps,
) -> Result<Manifest, Halt> {
    let (base, keep) = artifact::split_glob(path).map_err(|error| refused(path, &error))?;
    let stream =
        runner.collect(unit, &base).await.map_err(|error| Halt::Failed(super::begin::runner_failure(&error)))?;
    let Some(stream) = stream else { return Ok(Manifest::default()) };
    // Entries start with the last part of `base`; what stands before it is put back.
    let parent = base.rsplit_once('/').map_or("", |(parent, _)| parent);
    let names = if base == "." { Names::BelowOne } else { Names::Within(parent.to_owned()) };
    let artifacts = &attempt.cx.build.engine.artifacts;
    artifacts.ingest_tar(stream, names, keep, caps).await.map_err(|error| refused(path, &error))
}

/// What the stage made is its own fault; that it cannot be stored is not.
fn refused(path: &str, error: &ArtifactError) -> Halt {
    let kind = match error {
        ArtifactError::Refused(_) => FailureKind::Output,
        ArtifactError::Absent(_)
        | ArtifactError::Damaged { .. }
        | ArtifactError::Full(_)
        | ArtifactError::Setting(_)
        | ArtifactError::Remote { .. }
        | ArtifactError::Io { .. } => FailureKind::Internal,
    };
    Halt::failed(kind, format!("output `{path}`: {error}"))
}
