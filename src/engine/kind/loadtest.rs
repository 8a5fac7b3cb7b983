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
use crate::build::status::FailureKind;
use crate::load::checks::CheckResult;
use crate::load::collect::Tick;
use crate::load::contract::{Contract, broken_contract, check_contract};
use crate::load::engine::LoadError;
use crate::load::plan::{JsonLines, LoadPlan, split_json_lines};
use crate::load::report::{self, LoadReport, Verdict};
use crate::load::target::Endpoint;
use crate::load::{self, k6, locust, probe};
use crate::metrics::LoadFigures;
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
    let lines = lines(attempt, spec).await?;
    let (load, outputs) = match &spec.generator {
        Generator::Users(_) | Generator::Rate { .. } => {
            let plan = LoadPlan::from_stage(spec, probe::target(served.address), lines)
                .map_err(|error| Halt::failed(FailureKind::Load, error.to_string()))?;
            (built_in(attempt, plan, served).await?, None)
        }
        Generator::Locust { .. } | Generator::K6 { .. } => {
            if attempt.launched_at.is_none() {
                contract(attempt, spec, &lines, served).await?;
            }
            let (load, outputs) = by_tool(attempt, spec, served).await?;
            (load, Some(outputs))
        }
    };
    settle(attempt, &load, outputs, served)
}

/// The files of bodies that the scenario names.
async fn lines(attempt: &Attempt, spec: &Loadtest) -> Result<JsonLines, Halt> {
    let failed = |error: &dyn std::fmt::Display| Halt::failed(FailureKind::Load, error.to_string());
    let mut lines = JsonLines::new();
    for item in &spec.scenario {
        if let Body::JsonLines(path) = &item.request.body
            && !lines.contains_key(path)
        {
            let files = workspace::manifest(&attempt.cx.build, &attempt.cx.good).await?;
            let artifacts = &attempt.cx.build.engine.artifacts;
            let bytes = artifacts.get_file(&files, path, BODIES).await.map_err(|error| failed(&error))?;
            let split = split_json_lines(path, &Bytes::from(bytes)).map_err(|error| failed(&error))?;
            lines.insert(path.clone(), split);
        }
    }
    Ok(lines)
}

/// One request of each kind, before an outside generator is started. The built-in engine does the same by itself.
async fn contract(attempt: &mut Attempt, spec: &Loadtest, lines: &JsonLines, served: &Served) -> Result<(), Halt> {
    let target = probe::target(served.address);
    let endpoint = Endpoint::resolve(&target).await.map_err(Halt::internal)?;
    let contract = Contract { scenario: &spec.scenario, json_lines: lines, timeout: spec.request_timeout };
    let results = check_contract(&target, &endpoint, contract).await.map_err(Halt::internal)?;
    for result in &results {
        attempt.log.note(&result.render());
    }
    broken(attempt, &results, served)
}

fn broken(attempt: &mut Attempt, results: &[CheckResult], served: &Served) -> Result<(), Halt> {
    let Some(text) = broken_contract(results) else { return Ok(()) };
    let text = attempt.log.masked(&text);
    attempt.log.note(&text);
    show_end(attempt, &served.companion);
    attempt.reports.insert("contract".to_owned(), serde_json::json!({ "summary": text, "checks": results }));
    let first = text.lines().next().unwrap_or_default();
    Err(Halt::failed(FailureKind::Contract, first))
}

/// The engine in this process. Load that was interrupted proves nothing, so it is another attempt.
async fn built_in(attempt: &mut Attempt, plan: LoadPlan, served: &Served) -> Result<LoadReport, Halt> {
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
    let build = std::sync::Arc::clone(&attempt.cx.build);
    let request = &build.request;
    let series = build.engine.metrics.load_test(&request.project, &request.pipeline, node.stage.as_str());
    let shown = build.engine.live_loads.begin(build.id, node.clone());
    let run = load::engine::run(plan, cancel, move |tick| {
        series.tick(&numbers(tick));
        shown.tick(tick);
        tell(&notices, Notice::Load { node: node.clone(), text: figures(tick) });
    });
    let done = run.await;
    stopper.abort();
    let stopped = *stop.borrow();
    match (done, stopped) {
        (_, Some(reason)) => Err(Halt::Cancelled(reason)),
        (Ok(load), None) => Ok(load),
        (Err(LoadError::Contract(results)), None) => {
            broken(attempt, &results, served)?;
            Err(Halt::failed(FailureKind::Contract, "one request of each kind must pass before load starts"))
        }
        (Err(error), None) => Err(Halt::failed(FailureKind::Load, error.to_string())),
    }
}

/// The last second of a load test under way.
fn numbers(tick: &Tick) -> LoadFigures {
    let second = &tick.second;
    LoadFigures {
        good: second.good,
        failed: second.failed,
        dropped: second.dropped,
        seconds: second.seconds,
        users: second.users,
        p50_ms: second.p50_ms,
        p95_ms: second.p95_ms,
        p99_ms: second.p99_ms,
    }
}

/// One line of a load test under way.
fn figures(tick: &Tick) -> String {
    let ms = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1} ms"));
    let total = &tick.total;
    format!(
        "{} of {} s · {:.0} requests/s · {:.2} % failed · p50 {} · p95 {}",
        tick.elapsed.min(tick.length).as_secs(),
        tick.length.as_secs(),
        total.rps,
        total.failure_rate * 100.0,
        ms(total.p50_ms),
        ms(total.p95_ms)
    )
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
    let manifest = plain::run_this(attempt, Some(work), more, &[folder.to_owned()]).await?;
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
    let summary = attempt.log.masked(&summary(load));
    attempt.log.note(&summary);
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
        Verdict::Invalid => {
            Err(Halt::failed(FailureKind::LoadInvalid, format!("the load test proves nothing: {reasons}")))
        }
    }
}

/// The result as a few lines: a table of requests, errors, thresholds, verdict.
fn summary(load: &LoadReport) -> String {
    let mut text = format!("{:<24} {:>9} {:>8} {:>9} {:>9} {:>9}", "request", "sent", "failed", "p50", "p95", "p99");
    let of = |request: &report::RequestReport, quantile: f64| {
        request.latency.quantile_ms(quantile).map_or("-".to_owned(), |ms| format!("{ms:.1} ms"))
    };
    for request in load.requests.iter().chain([&load.total]) {
        text.push_str(&format!(
            "\n{:<24} {:>9} {:>7.2}% {:>9} {:>9} {:>9}",
            request.name,
            request.sent,
            request.failure_rate * 100.0,
            of(request, 0.5),
            of(request, 0.95),
            of(request, 0.99)
        ));
    }
    text.push_str(&format!("\n{:.0} good answers a second over {:.0} s", load.total.rps, load.counted_seconds));
    for error in load.errors.iter().take(10) {
        text.push_str(&format!("\n{} x {}: {}", error.count, error.name, error.message));
    }
    for threshold in &load.thresholds {
        text.push_str(&format!("\n- {}", threshold.message));
    }
    for note in &load.notes {
        text.push_str(&format!("\n({note})"));
    }
    text.push_str(&format!("\n{}", load.verdict.word()));
    if !load.reasons.is_empty() {
        text.push_str(&format!(": {}", load.reasons.join("; ")));
    }
    text
}
