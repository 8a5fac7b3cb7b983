//! What a build came to: stages with durations, metrics beside the champion's, load test, verdict with its reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::text;
use crate::build::status::{BuildStatus, StageStatus};
use crate::client::answers::{BuildDetail, Piece, Stage};
use crate::client::{Ask, Client};
use crate::engine::lock::BuildLock;
use crate::engine::{Engine, outcome};
use crate::ids::{BuildId, Micros};
use crate::report::{Champion, StageReport};

/// Which parts are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// All.
    All,
    /// All but the table of stages, which the live tree has just shown.
    WithoutStages,
}

/// What is printed of a build, wherever it was read.
struct Shown {
    id: BuildId,
    status: String,
    took: Option<Duration>,
    champion: Option<Champion>,
    stages: Vec<ShownStage>,
    /// Who could not be told of it, each with the reason.
    untold: Vec<(String, String)>,
    /// What else to say at the end.
    hint: Option<String>,
}

/// What is printed of a stage.
struct ShownStage {
    node: String,
    kind: String,
    status: String,
    took: Option<Duration>,
    remark: String,
    /// Why it failed, and the last lines that it printed.
    failure: Option<(String, Vec<String>)>,
    metrics: BTreeMap<String, f64>,
    version: Option<u64>,
    reports: BTreeMap<String, Value>,
}

/// Lines that are shown of a failed stage's log.
const LAST_LINES: u64 = 15;

/// Prints a build of this data folder.
///
/// # Errors
/// The database's.
pub async fn print(engine: &Arc<Engine>, id: BuildId, parts: Parts) -> anyhow::Result<()> {
    let report = outcome::collect(engine, id).await?;
    let build = &report.build;
    // Whoever drives it has the lock.
    let left = build.status == BuildStatus::Running && BuildLock::take(&engine.paths, build.id).is_ok();
    let shown = Shown {
        id: build.id,
        status: build.status.word().to_owned(),
        took: build.ended_at.zip(build.started_at).map(|(to, from)| to.since(from)),
        hint: left.then(|| format!("go on with: orchestrator run --resume {}", build.id.0)),
        stages: report.stages.into_iter().map(|stage| stage_here(engine, id, stage)).collect(),
        champion: report.champion,
        untold: report.reports.into_iter().filter_map(|told| Some((told.channel, told.problem?))).collect(),
    };
    all(&shown, parts);
    Ok(())
}

fn stage_here(engine: &Engine, id: BuildId, stage: StageReport) -> ShownStage {
    let last = stage.attempts.last();
    let failure = stage.row.status.failure().map(|(attempt, failure)| {
        let log = engine.paths.log(id, &stage.row.node, attempt);
        (failure.message.clone(), super::view::last_lines(&log, LAST_LINES))
    });
    ShownStage {
        node: stage.row.node.to_string(),
        status: stage.row.status.word().to_owned(),
        took: last.and_then(|attempt| Some(attempt.ended_at?.since(attempt.started_at))),
        remark: remark(&stage.row.status),
        failure,
        reports: last.map(|attempt| attempt.reports.clone()).unwrap_or_default(),
        kind: stage.row.kind,
        metrics: stage.metrics,
        version: stage.version,
    }
}

/// Prints a build of a server in the same way.
///
/// # Errors
/// The server's.
pub async fn print_from(client: &Client, detail: &BuildDetail) -> anyhow::Result<()> {
    let mut stages = Vec::new();
    for stage in &detail.stages {
        stages.push(stage_there(client, detail.build.id, stage).await?);
    }
    let (began, ended) = (detail.build.started_at, detail.build.ended_at);
    let waits = detail
        .awaits
        .as_ref()
        .map(|why| format!("waits for a person: {why} (`orchestrator approve {}`)", detail.build.id));
    let waits = waits.filter(|_| detail.build.status == "queued");
    let shown = Shown {
        id: BuildId(detail.build.id),
        status: detail.build.status.clone(),
        took: ended.zip(began).map(|(to, from)| Micros(to).since(Micros(from))),
        champion: None,
        untold: detail.reports.iter().filter_map(|told| Some((told.channel.clone(), told.problem.clone()?))).collect(),
        stages,
        hint: waits.or_else(|| detail.build.waits_for.as_ref().map(|why| format!("waits for {why}"))),
    };
    all(&shown, Parts::All);
    Ok(())
}

async fn stage_there(client: &Client, build: u64, stage: &Stage) -> anyhow::Result<ShownStage> {
    let last = stage.attempts.last();
    let reason = stage.reason.clone().unwrap_or_default();
    let failure = match (stage.status.as_str(), last) {
        ("failed", Some(attempt)) => {
            let (build, attempt) = (build.to_string(), attempt.attempt.to_string());
            let path = ["builds", &build, "stages", &stage.node, "attempts", &attempt, "log"];
            let query = [("tail", Some("true".to_owned())), ("limit", Some(LAST_LINES.to_string()))];
            let piece: Piece = client.get(&Ask { path: &path, query: &query, ..Ask::default() }).await?;
            let lines = piece.lines.iter().map(|line| super::view::clean(&line.text)).collect();
            Some((super::view::clean(&reason), lines))
        }
        ("failed", None) => Some((super::view::clean(&reason), Vec::new())),
        _ => None,
    };
    let remark = match (stage.status.as_str(), stage.reused_from, last.map(|attempt| attempt.attempt)) {
        ("reused", Some(from), _) => format!("reused from build {}", BuildId(from)),
        ("skipped", _, _) => format!("skipped: {reason}"),
        ("succeeded", _, Some(attempt)) if attempt > 1 => format!("attempt {attempt}"),
        ("running", _, Some(attempt)) => format!("attempt {attempt} is running"),
        ("waiting" | "delayed", _, _) if !reason.is_empty() => format!("waits for {reason}"),
        _ => reason,
    };
    Ok(ShownStage {
        node: text::one_line(&stage.node, 100),
        kind: text::one_line(&stage.kind, 20),
        status: stage.status.clone(),
        took: last.and_then(|attempt| Some(Micros(attempt.ended_at?).since(Micros(attempt.started_at)))),
        remark: text::one_line(&remark, 100),
        failure,
        metrics: stage.metrics.clone(),
        version: stage.version,
        reports: last.map(|attempt| attempt.reports.clone()).unwrap_or_default(),
    })
}

fn all(shown: &Shown, parts: Parts) {
    let mut out = String::new();
    if parts == Parts::All {
        stages(shown, &mut out);
    }
    failures(shown, &mut out);
    for stage in &shown.stages {
        kind(stage, shown.champion.as_ref(), &mut out);
    }
    last_line(shown, &mut out);
    anstream::print!("{out}");
}

fn stages(shown: &Shown, out: &mut String) {
    let mut rows = Vec::new();
    for stage in &shown.stages {
        let (sign, style) = text::sign(&stage.status);
        rows.push(vec![
            format!("  {}", text::paint(style, sign)),
            stage.node.clone(),
            text::paint(text::DIM, &stage.kind),
            stage.took.map(text::duration).unwrap_or_default(),
            text::paint(text::DIM, &stage.remark),
        ]);
    }
    out.push('\n');
    out.push_str(&text::table(&rows));
}

fn remark(status: &StageStatus) -> String {
    match status {
        StageStatus::Reused { from } => format!("reused from build {from}"),
        StageStatus::Skipped { reason } => format!("skipped: {reason}"),
        StageStatus::Cancelled { reason } => reason.to_string(),
        StageStatus::Failed { failure, .. } => text::one_line(&failure.message, 100),
        StageStatus::Succeeded { attempt } if *attempt > 1 => format!("attempt {attempt}"),
        StageStatus::Succeeded { .. } | StageStatus::Waiting | StageStatus::Again { .. } => String::new(),
        StageStatus::Running { attempt, .. } => format!("attempt {attempt} is running"),
        StageStatus::Delayed { .. } => "waits for its next attempt".to_owned(),
    }
}

fn failures(shown: &Shown, out: &mut String) {
    for stage in &shown.stages {
        let Some((message, lines)) = &stage.failure else { continue };
        out.push_str(&format!("\n{} {message}\n", text::paint(text::BAD, format!("{} failed:", stage.node))));
        for line in lines {
            out.push_str(&format!("  {} {line}\n", text::paint(text::DIM, "|")));
        }
        let whole = format!("whole log: orchestrator logs {} {}", shown.id.0, stage.node);
        out.push_str(&format!("  {}\n", text::paint(text::DIM, whole)));
    }
}

fn kind(stage: &ShownStage, champion: Option<&Champion>, out: &mut String) {
    if stage.kind == "train" && !stage.metrics.is_empty() {
        metrics(stage, champion, out);
    }
    for (name, report) in &stage.reports {
        if let Some(summary) = report.get("summary").and_then(Value::as_str) {
            out.push_str(&format!("\n{} {}\n", text::paint(text::BOLD, &stage.node), text::paint(text::DIM, name)));
            for line in summary.lines() {
                out.push_str(&format!("  {line}\n"));
            }
        }
    }
}

/// The metrics of a training, beside the champion's. The cells of the confusion matrix are left to `--json`.
fn metrics(stage: &ShownStage, champion: Option<&Champion>, out: &mut String) {
    let other = champion.filter(|champion| Some(champion.version) != stage.version);
    let mut rows = vec![vec![text::paint(text::BOLD, &stage.node)]];
    rows[0].push(stage.version.map_or(String::new(), |version| text::paint(text::DIM, format!("version {version}"))));
    if let Some(other) = other {
        rows[0].push(text::paint(text::DIM, format!("champion (version {})", other.version)));
    }
    for (name, value) in stage.metrics.iter().filter(|(name, _)| !name.starts_with("confusion.")).take(40) {
        let mut row = vec![format!("  {}", text::one_line(name, 40)), text::number(*value)];
        row.extend(other.map(|other| other.metrics.get(name).map_or("-".to_owned(), |value| text::number(*value))));
        rows.push(row);
    }
    out.push('\n');
    out.push_str(&text::table(&rows));
}

fn last_line(shown: &Shown, out: &mut String) {
    let took = shown.took.map(|took| format!(" in {}", text::duration(took))).unwrap_or_default();
    let verdicts: Vec<&str> = shown
        .stages
        .iter()
        .filter_map(|stage| {
            // What came of it, where that is known: a verdict is not yet a promotion.
            let judgement = stage.reports.get("judgement")?;
            judgement.get("outcome").or_else(|| judgement.get("verdict"))?.as_str()
        })
        .collect();
    let verdict = if verdicts.is_empty() { String::new() } else { format!(" · {}", verdicts.join(", ")) };
    out.push_str(&format!("\nbuild {} {}{took}{verdict}\n", shown.id, text::coloured(&shown.status)));
    for (channel, problem) in &shown.untold {
        let (channel, problem) = (text::one_line(channel, 80), text::one_line(problem, 300));
        out.push_str(&format!("{}\n", text::paint(text::BAD, format!("not told: {channel}: {problem}"))));
    }
    if let Some(hint) = &shown.hint {
        out.push_str(&format!("{}\n", text::one_line(hint, 300)));
    }
}
