//! What a build came to: stages with durations, metrics beside the champion's, load test, verdict with its reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::text;
use crate::build::status::{BuildStatus, StageStatus};
use crate::engine::Engine;
use crate::ids::BuildId;
use crate::store::attempts::{self, AttemptRow};
use crate::store::builds::{self, BuildRow, StageRow};
use crate::store::{StoreError, Tx, models, results};

/// A build with everything below it.
#[derive(Debug, Serialize)]
pub struct BuildReport {
    /// The build.
    pub build: BuildRow,
    /// Its stages in the plan's order.
    pub stages: Vec<StageReport>,
    /// The version that its candidate was judged against.
    pub champion: Option<Champion>,
}

/// A champion at the time of a judgement.
#[derive(Debug, Serialize)]
pub struct Champion {
    /// Its version.
    pub version: u64,
    /// Its metrics.
    pub metrics: BTreeMap<String, f64>,
}

/// A stage with its attempts and numbers.
#[derive(Debug, Serialize)]
pub struct StageReport {
    /// The stage.
    #[serde(flatten)]
    pub row: StageRow,
    /// Its attempts.
    pub attempts: Vec<AttemptRow>,
    /// Numbers of its result.
    pub metrics: BTreeMap<String, f64>,
    /// The model version that it registered.
    pub version: Option<u64>,
}

/// Reads it all.
///
/// # Errors
/// The database's.
pub async fn collect(engine: &Arc<Engine>, id: BuildId) -> anyhow::Result<BuildReport> {
    let report = engine
        .store
        .read(move |db| {
            let build = builds::get(db, id)?;
            let mut stages = Vec::new();
            for row in builds::stages(db, id)? {
                let attempts = attempts::of_stage(db, id, &row.node)?;
                let result = results::of_stage(db, id, &row.node)?;
                let (metrics, version) = result.map(|result| (result.metrics, result.version)).unwrap_or_default();
                stages.push(StageReport { row, attempts, metrics, version });
            }
            let champion = champion(db, &stages)?;
            Ok(BuildReport { build, stages, champion })
        })
        .await?;
    Ok(report)
}

fn champion(db: &Tx, stages: &[StageReport]) -> Result<Option<Champion>, StoreError> {
    let judged = stages.iter().find_map(|stage| stage.attempts.last()?.reports.get("judgement"));
    let model = judged.and_then(|judged| judged.get("model")?.as_str());
    let version = judged.and_then(|judged| judged.get("champion")?.as_u64());
    let (Some(model), Some(version)) = (model, version) else { return Ok(None) };
    let metrics = models::version(db, model, version)?.metrics;
    Ok(Some(Champion { version, metrics }))
}

/// Which parts are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// All.
    All,
    /// All but the table of stages, which the live tree has just shown.
    WithoutStages,
}

/// Prints it.
///
/// # Errors
/// The database's.
pub async fn print(engine: &Arc<Engine>, id: BuildId, parts: Parts) -> anyhow::Result<()> {
    let report = collect(engine, id).await?;
    let mut out = String::new();
    if parts == Parts::All {
        stages(&report, &mut out);
    }
    failures(engine, &report, &mut out);
    for stage in &report.stages {
        kind(stage, report.champion.as_ref(), &mut out);
    }
    last_line(&report, &mut out);
    anstream::print!("{out}");
    Ok(())
}

fn stages(report: &BuildReport, out: &mut String) {
    let mut rows = Vec::new();
    for stage in &report.stages {
        let (sign, style) = text::sign(&stage.row.status);
        let took = stage.attempts.last().and_then(|attempt| Some(attempt.ended_at?.since(attempt.started_at)));
        rows.push(vec![
            format!("  {}", text::paint(style, sign)),
            stage.row.node.to_string(),
            text::paint(text::DIM, &stage.row.kind),
            took.map(text::duration).unwrap_or_default(),
            text::paint(text::DIM, remark(&stage.row.status)),
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

fn failures(engine: &Engine, report: &BuildReport, out: &mut String) {
    for stage in &report.stages {
        let StageStatus::Failed { attempt, failure } = &stage.row.status else { continue };
        out.push_str(&format!(
            "\n{} {}\n",
            text::paint(text::BAD, format!("{} failed:", stage.row.node)),
            failure.message
        ));
        let log = engine.paths.log(report.build.id, &stage.row.node, *attempt);
        for line in super::view::last_lines(&log, 15) {
            out.push_str(&format!("  {} {line}\n", text::paint(text::DIM, "|")));
        }
        out.push_str(&format!(
            "  {}\n",
            text::paint(text::DIM, format!("whole log: orchestrator logs {} {}", report.build.id.0, stage.row.node))
        ));
    }
}

fn kind(stage: &StageReport, champion: Option<&Champion>, out: &mut String) {
    if stage.row.kind == "train" && !stage.metrics.is_empty() {
        metrics(stage, champion, out);
    }
    let Some(attempt) = stage.attempts.last() else { return };
    for (name, report) in &attempt.reports {
        if let Some(summary) = report.get("summary").and_then(serde_json::Value::as_str) {
            out.push_str(&format!("\n{} {}\n", text::paint(text::BOLD, &stage.row.node), text::paint(text::DIM, name)));
            for line in summary.lines() {
                out.push_str(&format!("  {line}\n"));
            }
        }
    }
}

/// The metrics of a training, beside the champion's. The cells of the confusion matrix are left to `--json`.
fn metrics(stage: &StageReport, champion: Option<&Champion>, out: &mut String) {
    let other = champion.filter(|champion| Some(champion.version) != stage.version);
    let mut rows = vec![vec![text::paint(text::BOLD, &stage.row.node)]];
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

fn last_line(report: &BuildReport, out: &mut String) {
    let took = match (report.build.started_at, report.build.ended_at) {
        (Some(from), Some(to)) => format!(" in {}", text::duration(to.since(from))),
        (Some(_) | None, _) => String::new(),
    };
    let verdicts: Vec<&str> = report
        .stages
        .iter()
        .filter_map(|stage| {
            // What came of it, where that is known: a verdict is not yet a promotion.
            let judgement = stage.attempts.last()?.reports.get("judgement")?;
            judgement.get("outcome").or_else(|| judgement.get("verdict"))?.as_str()
        })
        .collect();
    let verdict = if verdicts.is_empty() { String::new() } else { format!(" · {}", verdicts.join(", ")) };
    let status = text::build_word(report.build.status);
    out.push_str(&format!("\nbuild {} {status}{took}{verdict}\n", report.build.id));
    if report.build.status == BuildStatus::Running {
        out.push_str(&format!("go on with: orchestrator run --resume {}\n", report.build.id.0));
    }
}
