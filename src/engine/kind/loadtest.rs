//! `loadtest`: one request of each kind must pass, then load, then the judgement of what was measured.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::super::attempt::{Attempt, Good, Halt};
use super::super::companion::show_end;
use super::super::notice::{Notice, tell};
use super::super::serve::{self, Served};
use super::super::workspace;
use super::plain;
use crate::build::status::{CancelReason, FailureKind};
use crate::load::http::Target;
use crate::load::report::{self, LoadReport, Verdict};
use crate::load::{LoadError, LoadPlan, contract, k6, locust};
use crate::pipeline::types::{Body, Generator, Loadtest, Step, Work};

/// Largest file of request bodies.
const BODIES: u64 = 256 << 20;

/// Runs it.
///
/// # Errors
/// [`Halt`] if the contract is broken, a threshold is, or the test proves nothing.
pub async fn run(attempt: &mut Attempt, spec: &Loadtest) -> Result<Good, Halt> {
    let served = serve::start(attempt).await?;
    let done = with_api(attempt, spec, &served).await;
    served.companion.stop().await;
    done
}

async fn with_api(attempt: &mut Attempt, spec: &Loadtest, served: &Served) -> Result<Good, Halt> {
    let plan = plan(attempt, spec, served).await?;
    if attempt.launched_at.is_none() {
        contract(attempt, &plan, served).await?;
    }
    let (load, outputs) = match &spec.generator {
        Generator::Users(_) | Generator::Rate { .. } => (built_in(attempt, plan).await?, None),
        Generator::Locust { .. } | Generator::K6 { .. } => {
            let (load, outputs) = by_tool(attempt, spec, served).await?;
            (load, Some(outputs))
        }
    };
    settle(attempt, &load, outputs, served)
}

/// What load is made from: the scenario with its bodies.
async fn plan(attempt: &Attempt, spec: &Loadtest, served: &Served) -> Result<LoadPlan, Halt> {
    let mut lines: BTreeMap<String, Vec<Bytes>> = BTreeMap::new();
    for item in &spec.scenario {
        if let Body::JsonLines(path) = &item.request.body
            && !lines.contains_key(path)
        {
            let files = workspace::manifest(&attempt.cx.build, &attempt.cx.good).await?;
            let artifacts = &attempt.cx.build.engine.artifacts;
            let bytes = artifacts.get_file(&files, path, BODIES).await.map_err(|error| {
                Halt::failed(FailureKind::Load, format!("`json_lines: {path}`: {error}"))
            })?;
            lines.insert(path.clone(), crate::load::json_lines(&bytes).map_err(|error| {
                Halt::failed(FailureKind::Load, format!("`json_lines: {path}`: {error}"))
            })?);
        }
    }
    LoadPlan::from_stage(spec, Target::plain(served.address), &lines)
        .map_err(|error| Halt::failed(FailureKind::Load, error.to_string()))
}

async fn contract(attempt: &mut Attempt, plan: &LoadPlan, served: &Served) -> Result<(), Halt> {
    let results = contract::check(plan).await;
    for result in &results {
        for line in result.text().lines() {
            attempt.log.note(line);
        }
    }
    let broken: Vec<String> = results
        .iter()
        .filter(|result| !result.passed)
        .map(|result| format!("{}: {}", result.name, result.failures.join("; ")))
        .collect();
    if broken.is_empty() {
        return Ok(());
    }
    show_end(attempt, &served.companion);
    let text = format!("no load was sent, since one request of a kind did not pass: {}", broken.join(" · "));
    let summary = attempt.log.masked(&text);
    attempt.reports.insert("contract".to_owned(), serde_json::json!({ "summary": summary, "checks": results }));
    Err(Halt::failed(FailureKind::Contract, summary))
}

/// The engine in this process. Load that was interrupted proves nothing, so it is another attempt.
async fn built_in(attempt: &mut Attempt, plan: LoadPlan) -> Result<LoadReport, Halt> {
    if attempt.again {
        return Err(Halt::Interrupted("the load test was interrupted".to_owned()));
    }
    let cancel = CancellationToken::new();
    let (notices, node) = (attempt.cx.build.notices.clone(), attempt.cx.node().key.clone());
    let stop = attempt.cx.stop.clone();
    let mut watched = stop.clone();
    let token = cancel.clone();
    let stopper = tokio::spawn(async move {
        if watched.wait_for(Option::is_some).await.is_ok() {
            token.cancel();
        }
    });
    let run = crate::load::run(plan, cancel, move |tick| {
        tell(&notices, Notice::Load { node: node.clone(), text: tick.to_string() });
    });
    let done = run.await;
    stopper.abort();
    let stopped = *stop.borrow();
    match (done, stopped) {
        (_, Some(reason)) => Err(Halt::Cancelled(reason)),
        (Ok(load), None) => Ok(load),
        (Err(LoadError::Cancelled), None) => Err(Halt::Cancelled(CancelReason::User)),
        (Err(error), None) => Err(Halt::failed(FailureKind::Load, error.to_string())),
    }
}

/// Locust or k6, run as the stage's own unit in its own image.
async fn by_tool(attempt: &mut Attempt, spec: &Loadtest, served: &Served) -> Result<(LoadReport, String), Halt> {
    let (script, folder) = match &spec.generator {
        Generator::Locust { file, users, spawn_rate } => {
            (locust::script(file, *users, *spawn_rate, spec.duration, &served.url), locust::FOLDER)
        }
        Generator::K6 { file, users } => (k6::script(file, *users, spec.duration), k6::FOLDER),
        Generator::Users(_) | Generator::Rate { .. } => {
            return Err(Halt::internal("not an outside load generator"));
        }
    };
    let work = Work::Run { steps: vec![Step { name: "load".to_owned(), script }], shell: None };
    let more = vec![("SERVE_URL".to_owned(), served.url.clone())];
    let manifest = plain::run_this(attempt, work, more, &[folder.to_owned()]).await?;
    let mut files = BTreeMap::new();
    for file in manifest.files.iter().filter(|file| file.size <= BODIES) {
        let name = file.path.strip_prefix(folder).unwrap_or(&file.path).trim_start_matches('/').to_owned();
        let artifacts = &attempt.cx.build.engine.artifacts;
        let bytes = artifacts.get_file(&manifest, &file.path, BODIES).await.map_err(Halt::internal)?;
        files.insert(name, bytes);
    }
    let get = |name: &str| files.get(name).cloned();
    let read = match &spec.generator {
        Generator::K6 { .. } => k6::read(&get, spec),
        Generator::Locust { .. } | Generator::Users(_) | Generator::Rate { .. } => locust::read(&get, spec),
    };
    let load = read.map_err(|error| Halt::failed(FailureKind::Load, error.to_string()))?;
    Ok((load, plain::store(attempt, &manifest).await?))
}

fn settle(attempt: &mut Attempt, load: &LoadReport, outputs: Option<String>, served: &Served) -> Result<Good, Halt> {
    let summary = attempt.log.masked(&load.summary());
    for line in summary.lines() {
        attempt.log.note(line);
    }
    let mut report = serde_json::to_value(load).map_err(Halt::internal)?;
    report["summary"] = serde_json::Value::String(summary);
    attempt.reports.insert("loadtest".to_owned(), report);
    let reasons = load.reasons.join("; ");
    match load.verdict {
        Verdict::Passed => Ok(Good { outputs, metrics: report::metrics(load), version: None }),
        Verdict::Failed => {
            show_end(attempt, &served.companion);
            Err(Halt::failed(FailureKind::Load, format!("the load test failed: {reasons}")))
        }
        Verdict::Invalid => Err(Halt::failed(FailureKind::LoadInvalid, format!("the load test proves nothing: {reasons}"))),
    }
}
