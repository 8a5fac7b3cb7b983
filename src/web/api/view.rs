//! Builds, stages and attempts as the API shows them.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::build::status::{BuildStatus, Outcome, StageStatus};
use crate::report::Telling;
use crate::store::attempts::AttemptRow;
use crate::store::builds::{BuildRow, StageRow};
use crate::store::outbox::OutboxRow;
use crate::store::queue::Standing;

/// A build in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct BuildView {
    /// Its number.
    pub id: u64,
    /// Whose.
    pub project: String,
    /// Its pipeline's name.
    pub pipeline: String,
    /// `queued`, `running`, `passed`, `failed` or `cancelled`.
    #[schema(example = "passed")]
    pub status: &'static str,
    /// Why it is or will be cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel: Option<String>,
    /// What it waits for, while it is queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// `push`, `pull_request`, `tag`, `release`, `schedule` or `manual`.
    pub event: String,
    /// The branch.
    pub branch: Option<String>,
    /// The tag.
    pub tag: Option<String>,
    /// The commit.
    pub commit: Option<String>,
    /// The commit's first line, or the pull request's title.
    pub title: Option<String>,
    /// The pull request's number.
    pub pull_request: Option<u64>,
    /// Who started it.
    pub actor: String,
    /// When it was accepted, in microseconds since the epoch.
    pub created_at: i64,
    /// When work began.
    pub started_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
}

impl BuildView {
    /// A row as shown.
    pub fn of(row: &BuildRow, waits_for: Option<String>) -> Self {
        let request = &row.request;
        let cancel = match row.status {
            BuildStatus::Cancelled { reason } => Some(reason.to_string()),
            BuildStatus::Queued | BuildStatus::Running => row.cancel.map(|reason| reason.to_string()),
            BuildStatus::Passed | BuildStatus::Failed => None,
        };
        Self {
            id: row.id.0,
            project: request.project.clone(),
            pipeline: request.pipeline.clone(),
            status: row.status.word(),
            cancel,
            waits_for: waits_for.filter(|_| row.status == BuildStatus::Queued),
            event: request.event.clone(),
            branch: request.branch.clone(),
            tag: request.tag.clone(),
            commit: request.commit.clone(),
            title: request.title.clone(),
            pull_request: request.pull_request,
            actor: request.actor.clone(),
            created_at: row.created_at.0,
            started_at: row.started_at.map(|at| at.0),
            ended_at: row.ended_at.map(|at| at.0),
        }
    }
}

/// A build with all below it.
#[derive(Debug, Serialize, ToSchema)]
pub struct BuildDetail {
    /// The build.
    #[serde(flatten)]
    pub build: BuildView,
    /// Parameters as given.
    pub params: BTreeMap<String, String>,
    /// What started it, if the daemon did.
    pub trigger: Option<u64>,
    /// Its place in the lines: greater goes first.
    pub priority: i64,
    /// Its concurrency group.
    pub group: Option<String>,
    /// Why a person has to agree before it begins.
    pub awaits: Option<String>,
    /// The newer build that took its place.
    pub superseded_by: Option<u64>,
    /// Its stages, each behind all that it needs.
    pub stages: Vec<StageView>,
    /// Who was told of it, and who could not be.
    pub reports: Vec<ReportView>,
}

/// How far it came to tell one receiver of a build.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReportView {
    /// `github-status`, `github-check`, `github-comment` or `notify.NAME`.
    pub channel: String,
    /// `waiting`, `told` or `given-up`.
    pub state: &'static str,
    /// Why the last try failed.
    pub problem: Option<String>,
    /// When it was told or given up, else when the next try is due; in microseconds since the epoch.
    pub at: i64,
}

impl From<Telling> for ReportView {
    fn from(telling: Telling) -> Self {
        Self { channel: telling.channel, state: telling.state, problem: telling.problem, at: telling.at.0 }
    }
}

impl BuildDetail {
    /// All of a build.
    pub fn of(
        row: &BuildRow,
        standing: Standing,
        (stages, reports): (Vec<StageView>, Vec<OutboxRow>),
        waits_for: Option<String>,
    ) -> Self {
        Self {
            build: BuildView::of(row, waits_for),
            params: row.request.params.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            trigger: standing.trigger,
            priority: standing.priority,
            group: standing.group,
            awaits: standing.awaits,
            superseded_by: standing.superseded_by.map(|id| id.0),
            stages,
            reports: reports.into_iter().map(|row| Telling::of(row).into()).collect(),
        }
    }
}

/// A stage of a build.
#[derive(Debug, Serialize, ToSchema)]
pub struct StageView {
    /// Its name, with the matrix cell behind a dot.
    #[schema(example = "train")]
    pub node: String,
    /// `plain`, `train`, `test-api`, `loadtest`, `promote` or `tune`.
    pub kind: String,
    /// `waiting`, `running`, `delayed`, `succeeded`, `reused`, `failed`, `skipped` or `cancelled`.
    pub status: &'static str,
    /// Why, in a sentence: the failure, the reason of a skip, the build that a result is from, what it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The build whose result stands for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reused_from: Option<u64>,
    /// Its tries.
    pub attempts: Vec<AttemptView>,
    /// Numbers of its result.
    pub metrics: BTreeMap<String, f64>,
    /// The model version that it registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

impl StageView {
    /// A stage as shown.
    pub fn of(
        row: StageRow,
        attempts: Vec<AttemptRow>,
        result: Option<(BTreeMap<String, f64>, Option<u64>)>,
        waits_for: Option<String>,
    ) -> Self {
        let (reason, reused_from) = match &row.status {
            StageStatus::Failed { failure, .. } => (Some(failure.message.clone()), None),
            StageStatus::Skipped { reason } => (Some(reason.clone()), None),
            StageStatus::Cancelled { reason } => (Some(reason.to_string()), None),
            StageStatus::Reused { from } => (Some(format!("the result of build {from}")), Some(from.0)),
            StageStatus::Waiting | StageStatus::Again { .. } | StageStatus::Delayed { .. } => (waits_for, None),
            StageStatus::Running { .. } | StageStatus::Succeeded { .. } => (None, None),
        };
        let (metrics, version) = result.unwrap_or_default();
        Self {
            node: row.node.to_string(),
            kind: row.kind,
            status: row.status.word(),
            reason,
            reused_from,
            attempts: attempts.into_iter().map(AttemptView::of).collect(),
            metrics,
            version,
        }
    }
}

/// One try of a stage.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttemptView {
    /// From 1.
    pub attempt: u32,
    /// Where it ran.
    pub runner: String,
    /// `running`, `succeeded`, `failed`, `cancelled` or `interrupted`.
    pub result: &'static str,
    /// What failed, in a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub failure: Option<crate::build::status::FailureKind>,
    /// In a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The exit code where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// When it began, in microseconds since the epoch.
    pub started_at: i64,
    /// When its unit was started.
    pub launched_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// Its steps.
    pub steps: Vec<StepView>,
    /// What its kind found out, by name: `checks`, `loadtest`, `judgement`.
    #[schema(value_type = Object)]
    pub reports: BTreeMap<String, serde_json::Value>,
    /// Why no earlier result stands for it.
    pub why: String,
}

impl AttemptView {
    fn of(row: AttemptRow) -> Self {
        let (result, failure, reason, code) = match row.outcome {
            None => ("running", None, None, None),
            Some(Outcome::Succeeded) => ("succeeded", None, None, None),
            Some(Outcome::Failed { failure }) => ("failed", Some(failure.kind), Some(failure.message), failure.code),
            Some(Outcome::Cancelled { reason }) => ("cancelled", None, Some(reason.to_string()), None),
            Some(Outcome::Interrupted { detail }) => ("interrupted", None, Some(detail), None),
        };
        let steps = row.steps.into_iter().map(|step| StepView {
            name: step.name,
            started_at: step.started_at.0,
            ended_at: step.ended_at.map(|at| at.0),
            code: step.code,
        });
        Self {
            attempt: row.attempt,
            runner: row.runner,
            result,
            failure,
            reason,
            code,
            started_at: row.started_at.0,
            launched_at: row.launched_at.map(|at| at.0),
            ended_at: row.ended_at.map(|at| at.0),
            steps: steps.collect(),
            reports: row.reports,
            why: row.why,
        }
    }
}

/// A step of an attempt.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepView {
    /// Its name.
    pub name: String,
    /// When it began, in microseconds since the epoch.
    pub started_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// Its exit code.
    pub code: Option<i64>,
}
