//! Before an attempt: can an earlier result stand for it, and where and in which image would it run?

use std::sync::Arc;

use super::drive::Build;
use super::environment;
use super::inputs;
use super::notice::{Notice, tell};
use super::runners::name_for;
use super::workspace;
use super::{EngineError, now};
use crate::build::reuse::KeyParts;
use crate::build::status::{Failure, FailureKind};
use crate::ids::NodeKey;
use crate::pipeline::types::{ImageSource, Kind, Work};
use crate::runner::{PreparedImage, Pull, Runner, RunnerError};
use crate::store::results::{self, ResultRow};

/// What was found out.
pub enum Begun {
    /// This result stands for it.
    Reuse(Box<ResultRow>),
    /// It has to run.
    Run(Box<Start>),
}

/// Everything that an attempt starts with.
pub struct Start {
    /// Name of its runner.
    pub runner: String,
    /// Its image, where it runs something. An error becomes the attempt's failure.
    pub image: Result<Option<PreparedImage>, Failure>,
    /// What its result will be made of.
    pub parts: KeyParts,
    /// Why no earlier result stands for it.
    pub why: String,
}

/// Finds it out. Nothing is stored here; being killed in the middle loses nothing.
pub async fn begin(build: &Arc<Build>, node: usize, attempt: u32, good: &[usize]) -> Begun {
    let runner = runner_name(build, node);
    let broken = |failure: Failure, runner: String| {
        Begun::Run(Box::new(Start { runner, image: Err(failure), parts: KeyParts::default(), why: String::new() }))
    };
    let pulled = match pulled(build, node, &runner, Pull::IfMissing).await {
        Ok(pulled) => pulled,
        Err(failure) => return broken(failure, runner),
    };
    let parts = async {
        let before = workspace::digests_before(build, good).await?;
        key_parts(build, node, &image_part(build, node, pulled.as_ref()).await?, &before).await
    };
    let parts = match parts.await {
        Ok(parts) => parts,
        Err(error) => return broken(Failure::new(FailureKind::Internal, error.to_string()), runner),
    };
    let why = if attempt > 1 {
        format!("attempt {attempt}")
    } else {
        match reusable(build, node, &parts).await {
            Ok(Reusable::Yes(result)) => return Begun::Reuse(result),
            Ok(Reusable::No(why)) => why,
            Err(error) => format!("earlier results cannot be read: {error}"),
        }
    };
    let image = match (lacking_secrets(build, node), pulled) {
        (Some(failure), _) => Err(failure),
        (None, Some(image)) => Ok(Some(image)),
        (None, None) => built(build, node, &runner).await,
    };
    Begun::Run(Box::new(Start { runner, image, parts, why }))
}

/// A stage without a secret that it names would fail somewhere in the middle, in words of its own.
fn lacking_secrets(build: &Build, node: usize) -> Option<Failure> {
    let node = &build.expanded.plan.nodes[node];
    let serve = build.expanded.pipeline.serve.as_ref().filter(|_| node.stage.kind.uses_serve());
    let names = node.stage.secrets.iter().chain(serve.into_iter().flat_map(|serve| &serve.secrets));
    let message = build.secrets.lacking(node.key.stage.as_str(), names)?;
    Some(Failure::new(FailureKind::Secrets, message))
}

/// For `orchestrator plan`: as [`begin`] would find, without pulling or building anything. `before` are the outputs that the
/// node would get.
///
/// # Errors
/// The database's, or the artifact store's.
pub async fn look_up(build: &Arc<Build>, node: usize, before: &[(NodeKey, String)]) -> Result<Reusable, EngineError> {
    let image = match pulled(build, node, &runner_name(build, node), Pull::Never).await {
        Ok(image) => image,
        Err(failure) => return Ok(Reusable::No(failure.message)),
    };
    let image = image_part(build, node, image.as_ref()).await?;
    let parts = key_parts(build, node, &image, before).await?;
    reusable(build, node, &parts).await
}

/// Where a node runs.
pub fn runner_name(build: &Build, node: usize) -> String {
    let stage = &build.expanded.plan.nodes[node].stage;
    name_for(stage.runner.as_deref(), build.request.runner.as_deref(), stage.image.as_ref())
}

/// Whether an earlier result may stand for a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Reusable {
    /// This one does; its `build` is already the asking one.
    Yes(Box<ResultRow>),
    /// None does, and why.
    No(String),
}

/// Looks for a result with the same key.
///
/// # Errors
/// The database's.
pub async fn reusable(build: &Build, node: usize, parts: &KeyParts) -> Result<Reusable, EngineError> {
    let selection = &build.request.selection;
    let place = &build.expanded.plan.nodes[node];
    let before_from = selection.from.is_some() && !build.expanded.plan.is_from(node, selection);
    if selection.from.is_some() && !before_from {
        return Ok(Reusable::No("asked to run from here".to_owned()));
    }
    if matches!(place.stage.kind, Kind::Promote(_)) {
        return Ok(Reusable::No(never(&place.stage.kind).to_owned()));
    }
    if !before_from {
        if !build.request.reuse {
            return Ok(Reusable::No("reuse is switched off".to_owned()));
        }
        if !place.stage.reusable() {
            return Ok(Reusable::No(never(&place.stage.kind).to_owned()));
        }
        if build.request.event == "schedule" && place.stage.reuse != Some(true) {
            return Ok(Reusable::No("scheduled builds reuse nothing without `reuse: true`".to_owned()));
        }
    }
    let (scope, key, digest) = (build.scope(), place.key.clone(), parts.key());
    let (same, latest) = build
        .engine
        .store
        .read(move |db| Ok((results::by_key(db, &scope, &key, &digest)?, results::latest(db, &scope, &key)?)))
        .await?;
    let found = if before_from { latest.clone().filter(|earlier| same_inputs(parts, earlier)) } else { same };
    if let Some(result) = found {
        if let Some(why) = lost(build, &result).await? {
            return Ok(Reusable::No(why));
        }
        let (id, at) = (build.id, now());
        return Ok(Reusable::Yes(Box::new(ResultRow { build: id, attempt: 0, made_at: at, ..result })));
    }
    Ok(Reusable::No(match latest {
        None => "there is no earlier result".to_owned(),
        Some(earlier) => {
            let mut changed = parts.changed_since(&earlier.parts);
            if let Some(inputs) = changed.iter_mut().find(|part| *part == "inputs")
                && let Some(files) = inputs::changed(build, &place.stage, earlier.made_by).await
            {
                *inputs = format!("inputs ({files})");
            }
            format!("changed since build {}: {}", earlier.made_by, changed.join(", "))
        }
    }))
}

/// Why a result cannot stand for anything any more: its outputs are not all there.
async fn lost(build: &Build, result: &ResultRow) -> Result<Option<String>, EngineError> {
    let wrong = |error: &dyn std::fmt::Display| EngineError::Artifact(error.to_string());
    let digest = result.outputs.parse().map_err(|error| wrong(&error))?;
    let missing = build.engine.artifacts.missing(&digest).await.map_err(|error| wrong(&error))?;
    Ok(missing.map(|file| format!("outputs are no longer stored: {file} of build {}", result.made_by)))
}

/// Whether a result was made of the very outputs that stand before it now: a check that passed on another model is no check
/// of this one.
fn same_inputs(parts: &KeyParts, earlier: &ResultRow) -> bool {
    let outputs = |parts: &KeyParts| -> Vec<(String, String)> {
        let all = parts.0.iter().filter(|(part, _)| part.starts_with("outputs of "));
        all.map(|(part, digest)| (part.clone(), digest.clone())).collect()
    };
    outputs(parts) == outputs(&earlier.parts)
}

fn never(kind: &Kind) -> &'static str {
    match kind {
        Kind::Plain => "it declares no outputs, so it is run for its effect",
        Kind::TestApi(_) | Kind::Loadtest(_) => "it tests the server as it is now, so it always runs",
        Kind::Promote(_) => "a promotion is never reused",
        Kind::Train(_) | Kind::Tune(_) => "`reuse: false`",
    }
}

/// The image of a stage that names one by reference; `None` for one that is built, and where none is needed.
async fn pulled(build: &Arc<Build>, node: usize, runner: &str, pull: Pull) -> Result<Option<PreparedImage>, Failure> {
    let stage = &build.expanded.plan.nodes[node].stage;
    if !stage.runs_a_unit() || runner == "local" {
        return Ok(None);
    }
    match &stage.image {
        Some(source @ ImageSource::Image(_)) => {
            let runner = build.engine.runners.named(runner).await.map_err(|error| runner_failure(&error))?;
            prepare(build, node, runner.as_ref(), source, pull).await.map(Some)
        }
        Some(ImageSource::Build { .. }) => Ok(None),
        None => {
            let message = format!("stage `{}` runs in a container and names no `image` or `build`", stage.name);
            Err(Failure::new(FailureKind::Image, message))
        }
    }
}

async fn built(build: &Arc<Build>, node: usize, runner: &str) -> Result<Option<PreparedImage>, Failure> {
    let stage = &build.expanded.plan.nodes[node].stage;
    match &stage.image {
        Some(source @ ImageSource::Build { .. }) if stage.runs_a_unit() && runner != "local" => {
            let runner = build.engine.runners.named(runner).await.map_err(|error| runner_failure(&error))?;
            prepare(build, node, runner.as_ref(), source, Pull::IfMissing).await.map(Some)
        }
        Some(_) | None => Ok(None),
    }
}

/// What stands for the image in a result's key: its digest, or (for one that is built) the files and settings it is built
/// from, so that a result can be found without building.
async fn image_part(build: &Build, node: usize, image: Option<&PreparedImage>) -> Result<String, EngineError> {
    if let Some(image) = image {
        return Ok(image.digest.clone());
    }
    let stage = &build.expanded.plan.nodes[node].stage;
    match &stage.image {
        Some(ImageSource::Build { context, dockerfile, args }) if runner_name(build, node) != "local" => {
            let files = workspace::below(build, context).await?;
            let mut parts = KeyParts::default();
            parts.digest("build", &(context, dockerfile, args, files));
            Ok(parts.key())
        }
        Some(_) | None => Ok("host".to_owned()),
    }
}

/// Pulls or builds an image, telling how far it is.
///
/// # Errors
/// As a failure of the attempt.
pub async fn prepare(
    build: &Arc<Build>,
    node: usize,
    runner: &dyn Runner,
    source: &ImageSource,
    pull: Pull,
) -> Result<PreparedImage, Failure> {
    let key = build.expanded.plan.nodes[node].key.clone();
    let notices = build.notices.clone();
    let quotes = build.quotes.clone();
    let progress = move |text: String| tell(&notices, Notice::Progress { node: key.clone(), text: quotes.text(&text) });
    let context = match source {
        ImageSource::Image(_) => None,
        ImageSource::Build { .. } => Some(
            workspace::source_tar(build)
                .await
                .map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?,
        ),
    };
    runner.prepare_image(source, context, pull, &progress).await.map_err(|error| runner_failure(&error))
}

/// A runner's error as a failure of the attempt.
pub fn runner_failure(error: &RunnerError) -> Failure {
    let kind = match error {
        RunnerError::Unreachable { .. } => FailureKind::Engine,
        RunnerError::Image { .. } | RunnerError::Build { .. } | RunnerError::Start { .. } => FailureKind::Image,
        RunnerError::Unsupported(_) => FailureKind::Unsupported,
        RunnerError::Absent(_) | RunnerError::AlreadyStarted(_) | RunnerError::Other { .. } => FailureKind::Internal,
    };
    Failure::new(kind, error.to_string())
}

/// All that a node's result depends on.
///
/// # Errors
/// If the source tree or the outputs before it cannot be read.
pub async fn key_parts(
    build: &Build,
    node: usize,
    image: &str,
    before: &[(NodeKey, String)],
) -> Result<KeyParts, EngineError> {
    let place = &build.expanded.plan.nodes[node];
    let stage = &place.stage;
    let mut parts = KeyParts::default();
    parts.text("image", image);
    match &stage.work {
        None => {}
        Some(Work::Command(arguments)) => parts.digest("script", arguments),
        Some(Work::Run { steps, shell }) => {
            let scripts: Vec<&String> = steps.iter().map(|step| &step.script).collect();
            parts.digest("script", &(scripts, shell));
        }
    }
    for (name, value) in environment::declared(place, &build.expanded.params) {
        parts.digest(&format!("variable {name}"), &value);
    }
    let mut secrets = stage.secrets.clone();
    secrets.sort();
    parts.digest("names of secrets", &secrets);
    parts.digest("outputs", &stage.output_paths());
    if !stage.services.is_empty() {
        parts.digest("services", &format!("{:?}", stage.services));
    }
    if let Kind::Train(train) = &stage.kind {
        // Data counts whether or not `inputs` names it.
        for path in train.data.iter().chain(train.linfa.iter().map(|linfa| &linfa.data)) {
            parts.text(&format!("data {path}"), workspace::below(build, path).await?);
        }
        if train.linfa.is_some() {
            // The built-in trainer is part of this program, and may learn something.
            parts.text("trainer", env!("CARGO_PKG_VERSION"));
        }
    }
    parts.digest(&format!("{} settings", stage.kind.word()), &format!("{:?}", stage.kind));
    if let Some(digest) = inputs::digest(build, stage).await? {
        parts.text("inputs", digest);
    }
    for (key, digest) in before {
        parts.text(&format!("outputs of {key}"), digest.as_str());
    }
    Ok(parts)
}
