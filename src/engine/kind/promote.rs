//! `promote`: gathers the evidence, has it judged, and makes the verdict true: decision, deployment, or nothing.

use std::sync::Arc;

use super::super::attempt::{Attempt, Good, Halt};
use super::super::companion::{self, CompanionSpec};
use super::super::deployments::{self as deployments_of, Right};
use super::super::evidence;
use super::super::notice::{Notice, tell};
use super::super::ports;
use super::super::serve::{self, Place};
use super::super::{now, unit, workspace};
use super::plain;
use crate::build::status::{CancelReason, FailureKind};
use crate::deploy::{self, Author, DeploySpec};
use crate::judge::promote::{Judgement, Verdict};
use crate::load::checks::run_checks;
use crate::load::probe;
use crate::pipeline::types::{ApiCheck, Deploy, Kind, Promote, Serve, ServePort};
use crate::runner::UnitStatus;
use crate::runner::spec::UnitName;
use crate::store::StoreError;
use crate::store::deployments::{self, DeploymentRow, DeploymentStatus};
use crate::store::models::{self, Promotion};
use crate::words;

/// How often a candidate is judged again because the champion changed meanwhile.
const JUDGE_AGAIN: u32 = 5;
/// What a candidate came to that was better, but did not get through its trial or its deployment.
const NOT_PROMOTED: &str = "not promoted";

/// Runs it.
///
/// # Errors
/// [`Halt`] for contradictory evidence, a failed deployment, or a verdict that `fail_on` names.
pub async fn run(attempt: &mut Attempt, spec: &Promote) -> Result<Good, Halt> {
    if attempt.again {
        return take_up(attempt, spec).await;
    }
    for _ in 0..JUDGE_AGAIN {
        let case = evidence::gather(attempt, spec).await?;
        let judgement = case.judge(spec);
        report(attempt, &judgement)?;
        if judgement.verdict == Verdict::Error {
            count(attempt, spec, judgement.verdict.word());
            return Err(Halt::failed(FailureKind::Promote, judgement.reason));
        }
        if !attempt.cx.build.may_register() {
            attempt.log.note("a pull request's build promotes nothing");
            if judgement.verdict == Verdict::Promoted {
                came_to(attempt, NOT_PROMOTED);
            }
            return Ok(Good::default());
        }
        match decide(attempt, spec, &case, &judgement).await {
            Ok(word) => {
                came_to(attempt, word);
                count(attempt, spec, word);
                return finding(spec, &judgement);
            }
            Err(Decided::ChampionChanged(text)) => attempt.log.note(&format!("{text}: judging again")),
            Err(Decided::Halt(halt)) => {
                if judgement.verdict == Verdict::Promoted {
                    came_to(attempt, NOT_PROMOTED);
                }
                return Err(halt);
            }
        }
    }
    Err(Halt::failed(FailureKind::Promote, "the champion kept changing while the candidate was judged"))
}

enum Decided {
    ChampionChanged(String),
    Halt(Halt),
}

impl From<Halt> for Decided {
    fn from(halt: Halt) -> Self {
        Decided::Halt(halt)
    }
}

/// An interrupted promotion is not judged again by itself. If its decision was stored, what follows from it is finished.
async fn take_up(attempt: &mut Attempt, spec: &Promote) -> Result<Good, Halt> {
    let (id, node) = (attempt.cx.build.id, attempt.cx.node().key.clone());
    let port = if let Deploy::Replace { port } = spec.deploy { Some(port) } else { None };
    // First of all: another process may just be finishing it, or taking it back.
    let _right = right(attempt, &spec.model, port).await?;
    let store = Arc::clone(&attempt.cx.build.engine.store);
    let decision = store.read(move |db| models::decision_of(db, id, &node)).await.map_err(Halt::internal)?;
    let Some(decision) = decision else {
        return Err(Halt::Interrupted(
            "the promotion was interrupted before its decision; run the pipeline again to judge".to_owned(),
        ));
    };
    attempt.log.note(&format!("the decision was made before the interruption: {}", decision.verdict));
    let mut report = decision.evidence.clone();
    if let Some(reason) = report.get("reason").cloned() {
        report["summary"] = reason;
    }
    attempt.reports.insert("judgement".to_owned(), report);
    came_to(attempt, &decision.verdict);
    if decision.verdict == "promoted" && matches!(spec.deploy, Deploy::Replace { .. }) {
        let open = store.read(deployments::open).await.map_err(Halt::internal)?;
        let wanted = |row: &DeploymentRow| {
            row.model == spec.model && row.version == decision.candidate && row.status == DeploymentStatus::Starting
        };
        if let Some(row) = open.into_iter().find(wanted) {
            let finished = finish_deployment(attempt, &row, Some(decision.champion)).await;
            finished.inspect_err(|_| came_to(attempt, NOT_PROMOTED))?;
        }
    }
    if decision.verdict == "rolled-back" || decision.verdict == "error" {
        came_to(attempt, NOT_PROMOTED);
        return Err(Halt::failed(FailureKind::Promote, "the promotion was taken back, since its deployment failed"));
    }
    let judgement: Judgement = serde_json::from_value(decision.evidence).map_err(Halt::internal)?;
    finding(spec, &judgement)
}

fn report(attempt: &mut Attempt, judgement: &Judgement) -> Result<(), Halt> {
    let mut report = serde_json::to_value(judgement).map_err(Halt::internal)?;
    let summary = summary(judgement);
    attempt.log.note(&summary);
    report["summary"] = serde_json::Value::String(summary);
    attempt.reports.insert("judgement".to_owned(), report);
    Ok(())
}

/// Counts the decision.
fn count(attempt: &Attempt, spec: &Promote, verdict: &str) {
    let build = &attempt.cx.build;
    build.engine.metrics.promotion(&build.request.project, &spec.model, verdict);
}

/// What was really decided, for the report's last line: a verdict is not yet a promotion.
fn came_to(attempt: &mut Attempt, word: &str) {
    if let Some(report) = attempt.reports.get_mut("judgement") {
        report["outcome"] = serde_json::Value::String(word.to_owned());
    }
}

/// The verdict with its reason, and a line for each condition.
fn summary(judgement: &Judgement) -> String {
    let mut text = format!("{}: {}", judgement.verdict.word(), judgement.reason);
    for finding in &judgement.findings {
        text.push_str(&format!("\n- {}", finding.sentence));
    }
    for note in &judgement.notes {
        text.push_str(&format!("\n({note})"));
    }
    text
}

fn finding(spec: &Promote, judgement: &Judgement) -> Result<Good, Halt> {
    if judgement.fails_stage(&spec.fail_on) {
        return Err(Halt::failed(FailureKind::Verdict, judgement.reason.clone()));
    }
    Ok(Good::default())
}

/// Stores the decision, and for a promotion deploys: the trial before it, the taking of the port after it.
async fn decide(
    attempt: &mut Attempt,
    spec: &Promote,
    case: &evidence::Case,
    judgement: &Judgement,
) -> Result<&'static str, Decided> {
    let promoted = judgement.verdict == Verdict::Promoted;
    let held = promoted && spec.approval_manual;
    if held {
        attempt.log.note(&format!(
            "held for a person: `orchestrator promote {} {}` makes it champion",
            spec.model, case.candidate.version
        ));
    }
    let port = match &spec.deploy {
        Deploy::Replace { port } => Some(*port),
        Deploy::None => None,
    };
    let _right = right(attempt, &spec.model, port).await?;
    if let Some(port) = port {
        put_in_order(attempt, &spec.model, port).await?;
    }
    let deployment = match &spec.deploy {
        Deploy::Replace { port }
            if (promoted && !held) || must_serve_again(attempt, judgement, case, *port).await? =>
        {
            let deploy = trial(attempt, &spec.model, *port).await?;
            let version =
                if promoted { Some(case.candidate.version) } else { case.champion.as_ref().map(|c| c.version) };
            Some(row(attempt, spec, version.unwrap_or(case.candidate.version), *port, &deploy)?)
        }
        Deploy::Replace { .. } | Deploy::None => None,
    };
    let verdict = if held { "held" } else { judgement.verdict.word() };
    let decision = Promotion {
        model: spec.model.clone(),
        candidate: case.candidate.version,
        champion: case.champion.as_ref().map(|champion| champion.version),
        verdict: verdict.to_owned(),
        actor: "pipeline".to_owned(),
        stage: Some((attempt.cx.build.id, attempt.cx.node().key.clone())),
        evidence: attempt.log.masked_json(serde_json::to_value(judgement).map_err(Halt::internal)?),
        at: now(),
    };
    let new = deployment.clone();
    let stored = attempt.cx.build.engine.store.write(move |tx| {
        models::decide(tx, &decision)?;
        new.map(|row| deployments::create(tx, &row)).transpose()
    });
    let id = match stored.await {
        Ok(id) => id,
        Err(StoreError::Conflict(text)) => return Err(Decided::ChampionChanged(text)),
        Err(error) => return Err(Halt::internal(error).into()),
    };
    if let (Some(row), Some(id)) = (deployment, id) {
        let row = DeploymentRow { id, ..row };
        let before = case.champion.as_ref().map(|champion| champion.version);
        finish_deployment(attempt, &row, promoted.then_some(before)).await?;
    }
    Ok(verdict)
}

/// The champion is the candidate, and does not serve (any more): after a reboot, a stop, or another port.
async fn must_serve_again(
    attempt: &mut Attempt,
    judgement: &Judgement,
    case: &evidence::Case,
    port: u16,
) -> Result<bool, Halt> {
    if judgement.verdict != Verdict::Unchanged {
        return Ok(false);
    }
    let engine = Arc::clone(&attempt.cx.build.engine);
    let model = judgement.model.clone();
    let champion = case.champion.as_ref().map(|champion| champion.version);
    let live = engine.store.read(move |db| deployments::live(db, &model)).await.map_err(Halt::internal)?;
    if let Some(row) = live.filter(|row| Some(row.version) == champion && row.port == port) {
        let runner = engine.runners.named(&row.runner).await.map_err(Halt::internal)?;
        let status = runner.status(&UnitName(row.unit)).await.map_err(Halt::internal)?;
        if status == UnitStatus::Running {
            return Ok(false);
        }
    }
    attempt.log.note("the champion does not serve: deploying it again");
    Ok(true)
}

/// Starts the candidate on a private port, waits until it is ready, and has it pass the checks of the stages before.
async fn trial(attempt: &mut Attempt, model: &str, port: u16) -> Result<DeploySpec, Halt> {
    let build = Arc::clone(&attempt.cx.build);
    let Some(serve) = build.expanded.pipeline.serve.clone() else {
        return Err(Halt::failed(FailureKind::Promote, "`deploy` needs the pipeline's `serve`"));
    };
    let (runner, name) = serve::runner(&build, &serve).await?;
    // Before anything is decided: it could not take the port afterwards.
    refuse_taken(attempt, model, port, !runner.containers()).await?;
    let inside = match (serve.port, runner.containers()) {
        (ServePort::Fixed(inside), true) => inside,
        (ServePort::Auto, true) => 8000,
        (ServePort::Auto, false) => serve::free_port().map_err(Halt::internal)?,
        (ServePort::Fixed(_), false) => {
            let text = "on this host the new version is tried beside the old one, so `serve` must listen on `$PORT`: \
                        set `port: auto`";
            return Err(Halt::failed(FailureKind::Promote, text));
        }
    };
    let place = Place { unit: attempt.cx.unit("trial"), port: inside, publish: None, restart: false, join: None };
    let unit = serve::spec(attempt, &serve, runner.as_ref(), place).await?;
    let manifest = serve::manifest(&build, &serve, &attempt.cx.good).await?;
    let workspace = plain::store(attempt, &manifest).await?;
    let key = &attempt.cx.node().key;
    let spec = CompanionSpec {
        what: "the candidate".to_owned(),
        unit: unit.clone(),
        workspace: Some(workspace::tar(&build, manifest)),
        ready: Some(serve.ready.clone()),
        log: build.engine.paths.serve_log(build.id, key, attempt.cx.attempt),
        lock: None,
    };
    attempt.log.note(&format!("tries the candidate beside what serves on port {port} ({name})"));
    let candidate = companion::start(attempt, runner, spec).await?;
    let checked = check(attempt, candidate.address).await;
    candidate.stop().await;
    checked?;
    Ok(deploy_spec(unit, workspace, &serve))
}

fn deploy_spec(mut unit: crate::runner::spec::UnitSpec, workspace: String, serve: &Serve) -> DeploySpec {
    unit.env.retain(|(name, _)| !serve.secrets.contains(name));
    DeploySpec { unit, workspace, ready: serve.ready.clone(), secrets: serve.secrets.clone() }
}

async fn check(attempt: &mut Attempt, address: Option<std::net::SocketAddr>) -> Result<(), Halt> {
    let Some(address) = address else { return Err(Halt::internal("the candidate has no address")) };
    let checks = checks_before(attempt);
    let results = run_checks(&probe::target(address), &checks).await.map_err(Halt::internal)?;
    let failed: Vec<&str> = results.iter().filter(|result| !result.passed).map(|result| result.name.as_str()).collect();
    for result in results.iter().filter(|result| !result.passed) {
        attempt.log.note(&result.render());
    }
    if failed.is_empty() {
        attempt.log.note(&format!("the candidate is ready and passed {}", words::count(results.len(), "check")));
        return Ok(());
    }
    Err(Halt::failed(FailureKind::Promote, format!("the candidate failed the checks {}", failed.join(", "))))
}

/// The checks of all `test-api` stages that ran before this one.
fn checks_before(attempt: &Attempt) -> Vec<ApiCheck> {
    let nodes = &attempt.cx.build.expanded.plan.nodes;
    let of = |node: &usize| match &nodes[*node].stage.kind {
        Kind::TestApi(spec) => spec.checks.clone(),
        Kind::Plain | Kind::Train(_) | Kind::Loadtest(_) | Kind::Promote(_) | Kind::Tune(_) => Vec::new(),
    };
    attempt.cx.good.iter().flat_map(of).collect()
}

fn row(attempt: &Attempt, spec: &Promote, version: u64, port: u16, deploy: &DeploySpec) -> Result<DeploymentRow, Halt> {
    let build = &attempt.cx.build;
    let runner = match &build.expanded.pipeline.serve {
        Some(serve) => super::super::runners::name_for(
            matches!(serve.app, crate::pipeline::types::ServeApp::Linfa(_)).then_some("local"),
            build.request.runner.as_deref(),
            serve.image.as_ref(),
        ),
        None => "local".to_owned(),
    };
    let at = now();
    Ok(DeploymentRow {
        id: 0,
        model: spec.model.clone(),
        version,
        unit: deploy::unit_name(&build.engine.store.instance, &spec.model, version, at),
        runner,
        port,
        spec: serde_json::to_value(deploy).map_err(Halt::internal)?,
        status: DeploymentStatus::Starting,
        detail: String::new(),
        since: at,
    })
}

/// Makes what was decided true. A promotion whose deployment fails is taken back: the champion is what serves.
async fn finish_deployment(
    attempt: &mut Attempt,
    row: &DeploymentRow,
    promoted_over: Option<Option<u64>>,
) -> Result<(), Halt> {
    let build = &attempt.cx.build;
    let author = Author { actor: "pipeline".to_owned(), stage: Some((build.id, attempt.cx.node().key.clone())) };
    let deployer = deployments_of::deployer(&build.engine, build.secrets.values.clone());
    let done = match promoted_over {
        Some(before) => deployer.make_true(row, before, &author).await,
        None => deployer.take_port(row).await,
    };
    done.map_err(|error| Halt::failed(FailureKind::Promote, error.to_string()))?;
    attempt.log.note(&format!("version {} of `{}` serves on port {}", row.version, row.model, row.port));
    Ok(())
}

/// The right to change what serves the model. Waiting for it ends with the build.
async fn right(attempt: &mut Attempt, model: &str, port: Option<u16>) -> Result<Right, Halt> {
    let engine = Arc::clone(&attempt.cx.build.engine);
    let holder = format!("build {}", attempt.cx.build.id);
    let mut stop = attempt.cx.stop.clone();
    let mut said = Vec::new();
    let taken = {
        let wait = Right::take(&engine, model, port, &holder, |text| {
            tell(
                &attempt.cx.build.notices,
                Notice::Progress { node: attempt.cx.node().key.clone(), text: text.to_owned() },
            );
            said.push(text.to_owned());
        });
        tokio::select! {
            taken = wait => taken.map_err(Halt::internal),
            stopped = unit::stopped(&mut stop, None) => {
                Err(Halt::Cancelled(stopped.unwrap_or(CancelReason::Kill)))
            }
        }
    };
    for text in said {
        attempt.log.note(&text);
    }
    taken
}

/// Finishes what an interrupted process left of this model's deployments, and refuses a port that serves another model.
async fn put_in_order(attempt: &mut Attempt, model: &str, port: u16) -> Result<(), Halt> {
    let engine = Arc::clone(&attempt.cx.build.engine);
    let deployer = deployments_of::deployer(&engine, attempt.cx.build.secrets.values.clone());
    for found in deployer.recover(model).await.map_err(Halt::internal)? {
        attempt.log.note(&format!("an earlier deployment of version {} {}", found.version, found.what));
    }
    refuse_taken(attempt, model, port, false).await
}

async fn refuse_taken(attempt: &Attempt, model: &str, port: u16, here: bool) -> Result<(), Halt> {
    match ports::taken(&attempt.cx.build.engine, model, port, here).await.map_err(Halt::internal)? {
        None => Ok(()),
        Some(why) => Err(Halt::failed(FailureKind::Promote, why)),
    }
}
