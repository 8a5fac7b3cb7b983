//! What others are told of a build: a commit status, a check, a comment, a note. Rows in, texts and JSON out.
//!
//! PURE. Everything that a pipeline, a commit or a model brought along is data here: [`markdown::text`] and
//! [`markdown::code`] stand between it and GitHub.

pub mod check;
pub mod comment;
pub mod markdown;
pub mod note;
pub mod plot;
pub mod status;

#[cfg(test)]
mod samples;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::build::status::{BuildStatus, StageStatus};
use crate::ids::Micros;
use crate::judge::promote::Judgement;
use crate::load::checks::CheckResult;
use crate::load::report::LoadReport;
use crate::store::attempts::AttemptRow;
use crate::store::builds::{BuildRow, StageRow};
use crate::store::outbox::OutboxRow;

/// A build with everything below it.
#[derive(Debug, Serialize)]
pub struct BuildReport {
    /// The build.
    pub build: BuildRow,
    /// Its stages in the plan's order.
    pub stages: Vec<StageReport>,
    /// The version that its candidate was judged against.
    pub champion: Option<Champion>,
    /// Who was told of it, and who could not be.
    pub reports: Vec<Telling>,
}

/// How far it came to tell one receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Telling {
    /// `github-status`, `github-check`, `github-comment` or `notify.NAME`.
    pub channel: String,
    /// `waiting`, `told` or `given-up`.
    pub state: &'static str,
    /// Why the last try failed.
    pub problem: Option<String>,
    /// When it was told or given up, else when the next try is due.
    pub at: Micros,
}

impl Telling {
    /// How far a message came.
    pub fn of(row: OutboxRow) -> Self {
        let (state, at) = match (row.done_at, row.gave_up) {
            (Some(at), _) => ("told", at),
            (None, Some(at)) => ("given-up", at),
            (None, None) => ("waiting", row.next_at),
        };
        let problem = Some(row.problem).filter(|problem| !problem.is_empty() && state != "told");
        Self { channel: row.channel, state, problem, at }
    }
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

/// A judgement, and what came of it.
#[derive(Debug, Deserialize)]
pub struct Judged {
    /// The judgement.
    #[serde(flatten)]
    pub judgement: Judgement,
    /// `promoted`, `not promoted`, `unchanged`, ...: a verdict is not yet a promotion.
    #[serde(default)]
    pub outcome: Option<String>,
}

impl Judged {
    /// What came of it, in a word or two.
    pub fn outcome(&self) -> &str {
        self.outcome.as_deref().unwrap_or_else(|| self.judgement.verdict.word())
    }
}

impl StageReport {
    /// What its last attempt found out under this name.
    pub fn found(&self, name: &str) -> Option<&Value> {
        self.attempts.last()?.reports.get(name)
    }

    /// The judgement of a `promote` stage.
    pub fn judged(&self) -> Option<Judged> {
        serde_json::from_value(self.found("judgement")?.clone()).ok()
    }

    /// The report of a `loadtest` stage.
    pub fn load(&self) -> Option<LoadReport> {
        serde_json::from_value(self.found("loadtest")?.clone()).ok()
    }

    /// The checks of a `test-api` stage, or those before a load test.
    pub fn checks(&self) -> Option<Vec<CheckResult>> {
        let found = self.found("checks").or_else(|| self.found("contract"))?;
        serde_json::from_value(found.get("checks")?.clone()).ok()
    }

    /// How long its last attempt took.
    pub fn took(&self) -> Option<Duration> {
        let last = self.attempts.last()?;
        Some(last.ended_at?.since(last.started_at))
    }

    /// Why it did not end well.
    pub fn why(&self) -> Option<String> {
        match &self.row.status {
            StageStatus::Failed { failure, .. } => Some(failure.message.clone()),
            StageStatus::Skipped { reason } => Some(reason.clone()),
            StageStatus::Cancelled { reason } => Some(reason.to_string()),
            StageStatus::Waiting
            | StageStatus::Again { .. }
            | StageStatus::Running { .. }
            | StageStatus::Delayed { .. }
            | StageStatus::Succeeded { .. }
            | StageStatus::Reused { .. } => None,
        }
    }
}

impl BuildReport {
    /// How long it took.
    pub fn took(&self) -> Option<Duration> {
        self.build.ended_at.zip(self.build.started_at).map(|(to, from)| to.since(from))
    }

    /// The first stage that failed.
    pub fn failed(&self) -> Option<&StageReport> {
        self.stages.iter().find(|stage| matches!(stage.row.status, StageStatus::Failed { .. }))
    }

    /// By what the reports of this pipeline are known at a commit. A pull request's build and a push's build of one commit are
    /// two things.
    pub fn context(&self) -> String {
        let of = if self.build.request.pull_request.is_some() { " (pull request)" } else { "" };
        format!("orchestrator/{}{of}", self.build.request.pipeline)
    }

    /// One line that says how it stands, and why: `failed: test-api: 2 of 3 checks failed`.
    pub fn sentence(&self, awaits: Option<&str>) -> String {
        let after = |word: &str| self.took().map_or(word.to_owned(), |took| format!("{word} in {}", duration(took)));
        match self.build.status {
            BuildStatus::Queued => awaits.map_or("waits".to_owned(), |why| format!("waits for a person: {why}")),
            BuildStatus::Running => "is running".to_owned(),
            BuildStatus::Passed => {
                let outcomes: Vec<String> = self
                    .stages
                    .iter()
                    .filter_map(StageReport::judged)
                    .map(|judged| {
                        format!("{} v{} {}", judged.judgement.model, judged.judgement.candidate, judged.outcome())
                    })
                    .collect();
                [vec![after("passed")], outcomes].concat().join(" · ")
            }
            BuildStatus::Failed => match self.failed() {
                Some(stage) => format!("{} failed: {}", stage.row.node, stage.why().unwrap_or_default()),
                None => after("failed"),
            },
            BuildStatus::Cancelled { reason } => format!("cancelled: {reason}"),
        }
    }
}

use crate::words::duration;

/// The first line of a text, cut to so many characters.
pub fn line(text: &str, most: usize) -> String {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let clean: String = first.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.chars().count() <= most {
        return clean;
    }
    let cut: String = clean.chars().take(most.saturating_sub(1)).collect();
    format!("{cut}…")
}
