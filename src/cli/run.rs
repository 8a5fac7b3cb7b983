//! `orchestrator run`: one build on this machine, watched to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use indexmap::IndexMap;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{broadcast, watch};

use super::args::{RetryArgs, RunArgs};
use super::exit::{self, InvalidPipeline, Usage};
use super::place::{Place, post_once};
use super::{data, report, text, view};
use crate::artifact::Sweep;
use crate::build::plan::Selection;
use crate::build::retry::Which;
use crate::build::status::{BuildStatus, CancelReason};
use crate::engine::drive::Drive;
use crate::engine::environment::Secrets;
use crate::engine::slots::Slots;
use crate::engine::{Engine, EngineError, foreseen, gc, notice, pack, submit};
use crate::ids::BuildId;
use crate::logs::Quotes;
use crate::pipeline::types::Pipeline;
use crate::pipeline::{self, params};
use crate::source;
use crate::store::StoreError;
use crate::store::builds::{self, BuildRequest};

/// Runs it.
///
/// # Errors
/// Whatever keeps a build from being run; a build that fails is an exit code.
pub async fn run(data: Option<&Path>, args: RunArgs) -> anyhow::Result<i32> {
    let (id, engine) = match &args.resume {
        Some(build) => {
            let engine = data::open(data).await?;
            (interrupted(&engine, *build).await?, engine)
        }
        None => {
            let loaded = load(&args.file)?;
            // What cannot run is not accepted.
            let values = secrets(&loaded.pipeline, &args.secret_file)?;
            harmless(&args.param, &values)?;
            let engine = data::open(data).await?;
            sweep(&engine, &loaded.pipeline, args.runner.as_deref()).await?;
            let request = request(&engine, loaded, &args).await?;
            remind(&engine).await?;
            let reasons = foreseen::reasons(&engine, &request, &submit::expand(&request).map_err(usage)?).await?;
            if !reasons.is_empty() {
                anyhow::bail!("nothing is begun, since it could not pass: {}", reasons.join("\n  "));
            }
            (engine.submit(request).await.map_err(usage)?, engine)
        }
    };
    let row = engine.store.read(move |db| builds::get(db, id)).await?;
    let expanded = submit::expand(&row.request)?;
    let secrets = secrets(&expanded.pipeline, &args.secret_file)?;
    if args.resume.is_some() {
        sweep(&engine, &expanded.pipeline, row.request.runner.as_deref()).await?;
    }

    let (notices, watched) = broadcast::channel(notice::CAPACITY);
    let (cancel, cancelled) = watch::channel(None);
    let signals = tokio::spawn(signals(cancel)?);
    let style = view::Style::choose(args.json, args.plain);
    let watcher = tokio::spawn(view::watch(Arc::clone(&engine), id, Arc::new(expanded), watched, style));
    let slots = Slots::of_this_machine();
    let status = engine.drive(id, Drive { secrets, cancel: cancelled, notices, slots, priority: 0 }).await;
    // The driver has let go of its sender, so the watcher drains what is left and ends.
    watcher.await.context("the display broke")?;
    signals.abort();
    let status = status.map_err(usage)?;
    if !args.json {
        let parts = if style == view::Style::Tree { report::Parts::WithoutStages } else { report::Parts::All };
        report::print(&engine, id, parts).await?;
    }
    finish_packing(&engine).await?;
    Ok(match status {
        BuildStatus::Passed => exit::PASSED,
        BuildStatus::Cancelled { .. } => exit::CANCELLED,
        BuildStatus::Failed | BuildStatus::Queued | BuildStatus::Running => exit::FAILED,
    })
}

/// Runs a build that has ended again: a server's is queued, one of this machine is watched to its end.
///
/// # Errors
/// As [`run`]; [`Usage`] if there is nothing to run again.
pub async fn retry(place: Place, args: RetryArgs) -> anyhow::Result<i32> {
    match place {
        Place::Here(data) => retry_here(data.as_deref(), args).await,
        Place::There(client) => {
            let body = json!({ "all": args.all, "stages": args.stage });
            let path = ["builds", &args.build.0.to_string(), "retry"];
            let answer: Value = post_once(&client, &path, Some(body)).await?;
            let names: Vec<&str> =
                answer["stages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            text::remark(&format!("build {} runs again: {}", args.build, text::one_line(&names.join(", "), 200)));
            Ok(exit::PASSED)
        }
    }
}

async fn retry_here(data: Option<&Path>, args: RetryArgs) -> anyhow::Result<i32> {
    let which = match (args.all, args.stage.is_empty()) {
        (true, _) => Which::All,
        (false, true) => Which::Failed,
        (false, false) => Which::Stages(args.stage),
    };
    let engine = data::open(data).await?;
    let nodes = engine.retry(args.build, which, &actor()).await.map_err(|error| match error {
        EngineError::Store(StoreError::Conflict(text) | StoreError::Missing(text)) => Usage(text).into(),
        other => anyhow::Error::from(other),
    })?;
    let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    text::remark(&format!("build {} runs again: {}", args.build, names.join(", ")));
    drop(engine);
    let resume = RunArgs {
        file: PathBuf::new(),
        resume: Some(Some(args.build)),
        param: Vec::new(),
        secret_file: args.secret_file,
        stage: Vec::new(),
        from: None,
        runner: None,
        no_reuse: false,
        keep: false,
        source: None,
        json: args.json,
        plain: args.plain,
    };
    run(data, resume).await
}

/// Waits until the build's logs are packed; a signal leaves the rest to the next start.
///
/// # Errors
/// If signals cannot be listened to.
pub async fn finish_packing(engine: &Engine) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        () = engine.packer.done() => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn usage(error: crate::engine::EngineError) -> anyhow::Error {
    match error {
        crate::engine::EngineError::Pipeline(text) | crate::engine::EngineError::Secrets(text) => Usage(text).into(),
        other => other.into(),
    }
}

/// A pipeline file with its text.
pub struct Loaded {
    /// As typed.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// Checked.
    pub pipeline: Pipeline,
}

/// Reads and checks a pipeline; prints what is wrong with it.
///
/// # Errors
/// [`InvalidPipeline`], or if the file cannot be read.
pub fn load(file: &Path) -> anyhow::Result<Loaded> {
    if !file.exists() {
        let text = format!("there is no {}; `orchestrator init` writes a starting pipeline", file.display());
        return Err(Usage(text).into());
    }
    let bytes = super::validate::read(file)?;
    let name = file.display().to_string();
    match pipeline::parse(&name, &bytes) {
        Ok(parsed) => {
            super::validate::print(&parsed.warnings, &bytes);
            let text = String::from_utf8(bytes).map_err(|_| InvalidPipeline(name))?;
            Ok(Loaded { file: file.to_owned(), text, pipeline: parsed.pipeline })
        }
        Err(diagnostics) => {
            super::validate::print(&diagnostics, &bytes);
            Err(InvalidPipeline(name).into())
        }
    }
}

/// The folder whose tree is built: the one asked for, or the pipeline file's, or its parent for a folder `pipelines`.
fn root(file: &Path, asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(folder) = asked {
        return folder.canonicalize().with_context(|| format!("cannot open {}", folder.display()));
    }
    let file = file.canonicalize().with_context(|| format!("cannot open {}", file.display()))?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let folder = match (folder.file_name(), folder.parent()) {
        (Some(name), Some(parent)) if name == "pipelines" => parent,
        (Some(_) | None, _) => folder,
    };
    Ok(folder.to_owned())
}

async fn request(engine: &Arc<Engine>, loaded: Loaded, args: &RunArgs) -> anyhow::Result<BuildRequest> {
    let asked = Asked {
        params: &args.param,
        stages: &args.stage,
        from: args.from.as_deref(),
        runner: args.runner.as_deref(),
        reuse: !args.no_reuse,
        keep: args.keep,
        source: args.source.as_deref(),
    };
    make_request(engine, loaded, &asked).await
}

/// What the command line says about a build.
pub struct Asked<'a> {
    /// `NAME=VALUE`.
    pub params: &'a [String],
    /// `--stage`.
    pub stages: &'a [String],
    /// `--from`.
    pub from: Option<&'a str>,
    /// `--runner`.
    pub runner: Option<&'a str>,
    /// Not `--no-reuse`.
    pub reuse: bool,
    /// `--keep`.
    pub keep: bool,
    /// `--source`.
    pub source: Option<&'a Path>,
}

/// Takes a snapshot of the source tree and makes the request.
///
/// # Errors
/// [`Usage`] for wrong parameters; else what keeps the tree from being read.
pub async fn make_request(engine: &Arc<Engine>, loaded: Loaded, asked: &Asked<'_>) -> anyhow::Result<BuildRequest> {
    let mut given = IndexMap::new();
    for param in asked.params {
        let (name, value) =
            param.split_once('=').ok_or_else(|| Usage(format!("--param `{param}`: write it as NAME=VALUE")))?;
        given.insert(name.to_owned(), value.to_owned());
    }
    let pairs: Vec<(String, String)> = given.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    params::resolve(&loaded.pipeline, &pairs).map_err(|wrong| Usage(wrong.join("\n")))?;

    let folder = root(&loaded.file, asked.source)?;
    let tree = source::snapshot(&folder, &engine.artifacts, &engine.paths.stat_cache(), engine.paths.root())
        .await
        .with_context(|| format!("cannot read the source tree {}", folder.display()))?;
    for warning in &tree.warnings {
        text::remark(&text::paint(text::WARN, warning));
    }
    let name = match &loaded.pipeline.name {
        Some(name) => name.clone(),
        None => folder.file_name().map_or("pipeline".to_owned(), |name| name.to_string_lossy().into_owned()),
    };
    let facts = tree.facts;
    Ok(BuildRequest {
        project: name.clone(),
        pipeline: name,
        file: loaded.file.display().to_string(),
        text: loaded.text,
        folder,
        source: tree.digest.to_string(),
        commit: facts.commit,
        dirty: facts.dirty,
        branch: facts.branch.clone(),
        tag: facts.tag,
        default_branch: None,
        event: "manual".to_owned(),
        changed_paths: tree.changed_paths,
        params: given,
        selection: Selection { only: asked.stages.to_vec(), from: asked.from.map(str::to_owned) },
        runner: asked.runner.map(str::to_owned),
        reuse: asked.reuse,
        keep: asked.keep,
        actor: actor(),
        title: None,
        pull_request: None,
        untrusted: false,
        reports: false,
        url: None,
        secrets: BTreeMap::new(),
    })
}

/// Who sits at this machine, as far as it says.
pub fn actor() -> String {
    ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_else(|| "someone".to_owned())
}

/// Values of the secrets that the pipeline names: from the files, else from the environment.
fn secrets(pipeline: &Pipeline, files: &[PathBuf]) -> anyhow::Result<Secrets> {
    let mut given = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Usage(format!("--secret-file: cannot read {}: {error}", file.display())))?;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim_end_matches('\r');
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line
                .split_once('=')
                .ok_or_else(|| Usage(format!("{}:{}: write each line as NAME=VALUE", file.display(), at + 1)))?;
            given.insert(name.trim().to_owned(), value.to_owned());
        }
    }
    let mut secrets = Secrets::default();
    let mut missing = Vec::new();
    for name in wanted_secrets(pipeline) {
        match given.get(name).cloned().or_else(|| std::env::var(name).ok()) {
            Some(value) => {
                secrets.values.insert(name.clone(), value);
            }
            None => missing.push(name.as_str()),
        }
    }
    if !missing.is_empty() {
        let text =
            format!("no value for secret {}: set it in the environment, or give --secret-file", missing.join(", "));
        return Err(Usage(text).into());
    }
    Ok(secrets)
}

/// Names of all secrets that a pipeline names, each once.
fn wanted_secrets(pipeline: &Pipeline) -> BTreeSet<&String> {
    let serve = pipeline.serve.iter().flat_map(|serve| &serve.secrets);
    pipeline.stages.values().flat_map(|stage| &stage.secrets).chain(&pipeline.secrets).chain(serve).collect()
}

/// Those of them that the environment has no value for.
pub fn unset_secrets(pipeline: &Pipeline) -> Vec<String> {
    wanted_secrets(pipeline).into_iter().filter(|name| std::env::var(name).is_err()).cloned().collect()
}

/// Parameters are stored and shown as they are.
fn harmless(params: &[String], secrets: &Secrets) -> anyhow::Result<()> {
    let quotes = Quotes::new(secrets.pairs());
    match params.iter().find(|param| quotes.is_in(param)) {
        None => Ok(()),
        Some(param) => {
            let name = quotes.text(param.split('=').next().unwrap_or_default());
            let text = format!(
                "--param {name} holds the value of a secret, and parameters are stored and shown: secrets go by the \
                 environment or --secret-file only"
            );
            Err(Usage(text).into())
        }
    }
}

/// Every start removes what nobody owns, on the runners that this pipeline uses.
async fn sweep(engine: &Arc<Engine>, pipeline: &Pipeline, chosen: Option<&str>) -> anyhow::Result<()> {
    super::models::recover(engine).await?;
    gc::sweep(engine, engine.runners.local().as_ref(), Sweep::Remove, gc::Kept::Stay).await?;
    pack::finish_left(engine).await?;
    let images = pipeline.stages.values().any(|stage| stage.image.is_some() && stage.work.is_some())
        || pipeline.serve.as_ref().is_some_and(|serve| serve.image.is_some());
    if chosen == Some("docker") || (images && chosen.is_none()) {
        let docker = engine.runners.docker().await.map_err(crate::engine::EngineError::from).context(
            "this pipeline names images, which need a container engine (`--runner local` runs its scripts on this machine \
             instead)",
        )?;
        gc::sweep(engine, docker.as_ref(), Sweep::Remove, gc::Kept::Stay).await?;
    }
    Ok(())
}

/// Says if there are builds to go on with.
async fn remind(engine: &Arc<Engine>) -> anyhow::Result<()> {
    for id in engine.store.read(builds::open).await? {
        let row = engine.store.read(move |db| builds::get(db, id)).await?;
        // One that is only queued is about to be taken up by whoever asked for it.
        if row.status == BuildStatus::Running && crate::engine::lock::BuildLock::take(&engine.paths, id).is_ok() {
            text::remark(&format!(
                "build {id} was interrupted: `orchestrator run --resume {}` goes on with it, `orchestrator cancel {}` ends it",
                id.0, id.0
            ));
        }
    }
    Ok(())
}

async fn interrupted(engine: &Arc<Engine>, asked: Option<BuildId>) -> anyhow::Result<BuildId> {
    if let Some(id) = asked {
        let row = engine.store.read(move |db| builds::get(db, id)).await?;
        if row.status.is_terminal() {
            text::remark(&format!("build {id} has ended: {}", row.status.word()));
        }
        return Ok(id);
    }
    let open = engine.store.read(builds::open).await?;
    open.into_iter()
        .rev()
        .find(|id| crate::engine::lock::BuildLock::take(&engine.paths, *id).is_ok())
        .ok_or_else(|| Usage("there is no interrupted build".to_owned()).into())
}

/// The first SIGINT or SIGTERM cancels, the second kills.
fn signals(cancel: watch::Sender<Option<CancelReason>>) -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt: Signal = signal(SignalKind::interrupt())?;
    let mut terminate: Signal = signal(SignalKind::terminate())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            let mut first = false;
            cancel.send_modify(|now| {
                first = now.is_none();
                *now = Some(if first { CancelReason::User } else { CancelReason::Kill });
            });
            if first {
                text::remark("cancelling: stages get their grace, clean-up stages run (once more kills)");
            } else {
                text::remark("killing");
            }
        }
    })
}
