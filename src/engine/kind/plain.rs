//! A stage that runs a script or command and keeps its outputs.

use super::super::attempt::{Attempt, Good, Halt};
use super::super::environment;
use super::super::serve;
use super::super::unit;
use super::super::workspace;
use crate::artifact::manifest::Manifest;
use crate::build::status::FailureKind;
use crate::pipeline::types::{ImageSource, Work};
use crate::runner::spec::{
    CacheMount, Command, Join, LABEL_ATTEMPT, LABEL_BUILD, LABEL_INSTANCE, LABEL_NODE, LABEL_ROLE, Steps, UnitSpec,
};

/// Runs it.
///
/// # Errors
/// [`Halt`] if it did not end well.
pub async fn run(attempt: &mut Attempt) -> Result<Good, Halt> {
    let manifest = run_work(attempt, Vec::new()).await?;
    let outputs = store(attempt, &manifest).await?;
    Ok(Good { outputs: Some(outputs), ..Good::default() })
}

/// Runs the stage's script or command to a good end, with its services beside it, and collects its outputs.
///
/// # Errors
/// [`Halt`] if it did not end well, or an output is missing.
pub async fn run_work(attempt: &mut Attempt, more: Vec<(String, String)>) -> Result<Manifest, Halt> {
    let stage = &attempt.cx.node().stage;
    let (work, paths) = (stage.work.clone(), stage.output_paths());
    run_this(attempt, work, more, &paths).await
}

/// Runs this work as the stage's unit, with its services beside it, and collects these paths.
///
/// # Errors
/// [`Halt`] if it did not end well, or a path is missing.
pub async fn run_this(
    attempt: &mut Attempt,
    work: Option<Work>,
    more: Vec<(String, String)>,
    paths: &[String],
) -> Result<Manifest, Halt> {
    let services = serve::start_services(attempt).await?;
    let done = run_beside(attempt, work, more, paths).await;
    for service in services {
        service.stop().await;
    }
    done
}

async fn run_beside(
    attempt: &mut Attempt,
    work: Option<Work>,
    more: Vec<(String, String)>,
    paths: &[String],
) -> Result<Manifest, Halt> {
    let runner = unit::runner(attempt).await?;
    let alone = attempt.cx.node().stage.services.is_empty() && !more.iter().any(|(name, _)| name == "SERVE_URL");
    let join = if alone { None } else { serve::join(attempt, runner.as_ref(), "stage").await? };
    let mut spec = spec(attempt, more, join);
    spec.command = command(work.as_ref(), &attempt.nonce);
    local_notes(attempt, &spec);
    let workspace = match attempt.launched_at {
        None => workspace::workspace_tar(&attempt.cx.build, &attempt.cx.good).await?,
        Some(_) => None,
    };
    let name = spec.name.clone();
    let exit = unit::run(attempt, spec, workspace).await?;
    unit::check(attempt, &exit)?;
    let manifest = workspace::collect(attempt, runner.as_ref(), &name, paths).await?;
    // Names of outputs are listed for everyone. What is in the files is the script's own affair.
    if let Some(file) = manifest.files.iter().find(|file| attempt.cx.build.quotes.is_in(&file.path)) {
        let text =
            format!("the name of the output `{}` holds the value of a secret; call it something else", file.path);
        return Err(Halt::failed(FailureKind::Output, text));
    }
    Ok(manifest)
}

/// Stores a manifest.
///
/// # Errors
/// [`Halt`] if that is not possible.
pub async fn store(attempt: &Attempt, manifest: &Manifest) -> Result<String, Halt> {
    let digest = attempt.cx.build.engine.artifacts.put_manifest(manifest).await.map_err(Halt::internal)?;
    Ok(digest.to_string())
}

fn local_notes(attempt: &mut Attempt, spec: &UnitSpec) {
    if attempt.runner != "local" || attempt.again {
        return;
    }
    let stage = &attempt.cx.node().stage;
    let mut notes = Vec::new();
    if let Some(image) = &stage.image {
        let name = match image {
            ImageSource::Image(name) => name.clone(),
            ImageSource::Build { context, .. } => format!("build of {context}"),
        };
        notes.push(format!("runs on the host: the image ({name}) is not used, the host's own tools are"));
    }
    notes.extend(attempt.cx.build.engine.runners.local_notes(spec));
    for note in notes {
        attempt.log.note(&note);
    }
}

/// The main unit of an attempt.
pub fn spec(attempt: &Attempt, more: Vec<(String, String)>, join: Option<Join>) -> UnitSpec {
    let cx = &attempt.cx;
    let (build, node) = (&cx.build, cx.node());
    let stage = &node.stage;
    let mut env =
        environment::of_attempt(build.id, &build.request, node, cx.attempt, &build.expanded.params, &build.secrets);
    env.extend(more);
    UnitSpec {
        name: cx.unit("stage"),
        labels: labels(attempt, "stage"),
        image: attempt.image.as_ref().map(|image| image.reference.clone()),
        command: command(stage.work.as_ref(), &attempt.nonce),
        env,
        resources: stage.resources.clone(),
        network: stage.network,
        join,
        caches: caches(attempt),
        port: None,
        publish: None,
        restart: false,
        grace: stage.grace,
        workspace_variable: true,
        masked: Vec::new(),
    }
}

/// The labels by which an attempt's units are found again.
pub fn labels(attempt: &Attempt, role: &str) -> std::collections::BTreeMap<String, String> {
    let cx = &attempt.cx;
    [
        (LABEL_INSTANCE, cx.build.engine.store.instance.clone()),
        (LABEL_BUILD, cx.build.id.0.to_string()),
        (LABEL_NODE, cx.node().key.to_string()),
        (LABEL_ATTEMPT, cx.attempt.to_string()),
        (LABEL_ROLE, role.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// What a unit runs for this work.
pub fn command(work: Option<&Work>, nonce: &str) -> Command {
    match work {
        None => Command::ImageDefault,
        Some(Work::Command(arguments)) => Command::Arguments(arguments.clone()),
        Some(Work::Run { steps, shell }) => Command::Steps(Steps {
            scripts: steps.iter().map(|step| step.script.clone()).collect(),
            shell: shell.clone(),
            nonce: nonce.to_owned(),
        }),
    }
}

fn caches(attempt: &Attempt) -> Vec<CacheMount> {
    let build = &attempt.cx.build;
    let read_only = !build.may_register();
    let of = |path: &String| {
        // Projects never share a cache; the digest keeps the path's odd characters out of the name.
        let digest = blake3::hash(format!("{}\n{path}", build.request.project).as_bytes()).to_hex();
        CacheMount {
            path: path.clone(),
            volume: format!("orc-{}-cache-{}", build.engine.store.instance, &digest[..16]),
            read_only,
        }
    };
    attempt.cx.node().stage.cache.iter().map(of).collect()
}
