//! What the page of a build shows. PURE.

use std::collections::BTreeMap;

use askama::Template;

use super::graph::{self, Drawn};
use super::said::{Said, said};
use super::since::COMMITS;
use crate::build::plan::Plan;
use crate::build::status::{BuildStatus, Outcome, StageStatus};
use crate::ids::{BuildId, Micros};
use crate::report::Telling;
use crate::store::attempts::AttemptRow;
use crate::store::builds::{BuildRow, StageRow};
use crate::store::glance::Glance;
use crate::store::queue::Standing;
use crate::store::triggers::TriggerRow;
use crate::store::verdicts::{self, Verdict};
use crate::web::pages::ansi::Text;
use crate::web::pages::coded::Coded;
use crate::web::pages::line::{short, source};
use crate::web::pages::mark::Mark;
use crate::web::pages::moment::{Moment, Span};
use crate::web::pages::shell::{Section, Shell};
use crate::words;

/// Stages whose changed inputs are told.
const INPUTS: usize = 8;
/// Stages that are drawn; of more there is the list alone.
const DRAWN: usize = 300;
/// Failures that are shown with the end of their logs.
pub const FAILURES: usize = 3;

/// What the store knows of a build.
pub struct Rows {
    /// The build.
    pub build: BuildRow,
    /// What the queue knows of it.
    pub standing: Standing,
    /// Its stages, in the plan's order.
    pub stages: Vec<StageRows>,
    /// What started it.
    pub trigger: Option<TriggerRow>,
    /// The last one of the same pipeline and branch before it that passed.
    pub good: Option<Glance>,
    /// The parameters of that.
    pub good_params: BTreeMap<String, String>,
    /// The commits between the two, newest first; one more than are shown.
    pub since: Vec<Since>,
    /// The files that its stages made.
    pub files: Vec<Made>,
    /// Who was told of it, and who could not be.
    pub told: Vec<Telling>,
}

/// A commit since the last good build.
#[derive(Debug, Clone)]
pub struct Since {
    /// The beginning of its name.
    pub id: String,
    /// Its message's first line.
    pub title: String,
    /// Who.
    pub author: String,
}

/// What is known of a stage.
pub struct StageRows {
    /// The stage.
    pub row: StageRow,
    /// Its attempts.
    pub attempts: Vec<AttemptRow>,
    /// The digest of the list of its files.
    pub outputs: Option<String>,
    /// What it waits for beside its needs.
    pub waits_for: Option<String>,
    /// What it decided about a model.
    pub verdict: Option<Verdict>,
    /// The version that it registered.
    pub made: Option<verdicts::Made>,
}

/// The first files that a stage made.
pub struct Made {
    /// The stage.
    pub node: String,
    /// Path and bytes.
    pub files: Vec<(String, u64)>,
    /// How many more there are.
    pub more: usize,
}

/// What the visitor may do with it.
#[derive(Debug, Clone, Copy)]
pub struct May {
    /// Cancel and retry.
    pub trigger: bool,
    /// Agree.
    pub approve: bool,
}

/// The page.
#[derive(Template)]
#[template(path = "build.html")]
pub struct BuildPage {
    shell: Shell,
    id: u64,
    project: String,
    pipeline: String,
    mark: Mark,
    /// What it decided about models: how, which, and which version.
    verdicts: Vec<(Mark, String, u64)>,
    title: String,
    of: String,
    commit: Option<String>,
    commit_short: String,
    /// Where the commit is shown by whom it was pushed to.
    commit_url: Option<String>,
    dirty: bool,
    started_by: String,
    created: Moment,
    took: Option<Span>,
    /// When it was accepted, began and ended: the whole moments.
    times: Vec<(&'static str, Moment)>,
    /// What it waits for, or why it ended early.
    note: Option<String>,
    awaits: Option<String>,
    superseded_by: Option<u64>,
    untrusted: bool,
    params: Vec<(String, String)>,
    changed: Option<Changed>,
    /// What stages take in that was another thing in an earlier build, in words.
    inputs: Vec<(String, String)>,
    failures: Vec<Failure>,
    graph: Option<Graph>,
    stages: Vec<Row>,
    files: Vec<Listed>,
    /// Who could not be told, and why.
    untold: Vec<(String, String)>,
    ended: bool,
    may_cancel: bool,
    may_retry: bool,
    may_retry_failed: bool,
    may_approve: bool,
}

/// Beside the last good build.
struct Changed {
    good: u64,
    commits: Option<(String, String)>,
    params: Vec<(String, String, String)>,
    since: Vec<Since>,
    /// There are more commits than these.
    more: bool,
}

/// Files of a stage, with their sizes in words, and how many more there are.
struct Listed {
    node: String,
    files: Vec<(String, String)>,
    more: usize,
}

struct Failure {
    node: String,
    attempt: u32,
    message: String,
    lines: Vec<Text>,
}

struct Graph {
    drawn: Drawn,
    nodes: Vec<Node>,
    label: String,
}

struct Node {
    name: String,
    shown: String,
    /// The build that a result is from.
    from: Option<u64>,
    took: Option<Span>,
    mark: Mark,
    x: u32,
    y: u32,
}

struct Row {
    node: String,
    kind: String,
    mark: Mark,
    reason: Option<String>,
    reused_from: Option<u64>,
    took: Option<Span>,
    attempts: Vec<Try>,
    said: Vec<Said>,
    /// The attempt that measured load.
    load: Option<u32>,
    /// The attempt that measures load just now.
    live_load: Option<u32>,
    made: Option<verdicts::Made>,
    /// Its decision: how, about which model, and which version.
    verdict: Option<(Mark, String, u64)>,
}

struct Try {
    number: u32,
    mark: Mark,
    runner: String,
    took: Span,
    began: Moment,
    reason: Option<String>,
    /// Its place in the timeline, in thousandths.
    x: u32,
    width: u32,
}

impl BuildPage {
    /// The page of these rows. `plan` is missing if this version cannot read the pipeline any more; `tails` are the ends of the
    /// logs of the first failures.
    pub fn of(
        shell: Shell,
        rows: &Rows,
        plan: Option<&Plan>,
        waits_for: Option<String>,
        tails: &BTreeMap<String, Vec<String>>,
        may: May,
        now: Micros,
    ) -> Self {
        let (build, request) = (&rows.build, &rows.build.request);
        let ended = build.status.is_terminal();
        let awaits = rows.standing.awaits.clone().filter(|_| build.status == BuildStatus::Queued);
        let has_bad = rows.stages.iter().any(|stage| stage.row.status.is_terminal() && !stage.row.status.is_good());
        let stages: Vec<Row> = rows.stages.iter().map(|stage| row(stage, build, now)).collect();
        Self {
            id: build.id.0,
            project: request.project.clone(),
            pipeline: request.pipeline.clone(),
            mark: Mark::build(build.status, awaits.is_some()),
            verdicts: decisions(&rows.stages),
            title: request.title.clone().unwrap_or_else(|| format!("Build {}", build.id)),
            of: source(request.pull_request, request.tag.as_deref(), request.branch.as_deref()),
            commit: request.commit.clone(),
            commit_short: short(request.commit.as_deref()),
            commit_url: None,
            dirty: request.dirty,
            started_by: started_by(rows),
            created: Moment::of(build.created_at, now),
            times: times(build, now),
            took: build.started_at.map(|from| Span::of(from, build.ended_at, now)),
            note: note(build, waits_for),
            superseded_by: rows.standing.superseded_by.map(|id| id.0),
            untrusted: request.untrusted,
            params: request.params.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            changed: rows.good.as_ref().map(|good| changed(rows, good)),
            inputs: inputs(rows),
            failures: failures(rows, tails),
            graph: plan.and_then(|plan| drawn(plan, rows, build.id, now)),
            stages,
            files: rows.files.iter().map(listed).collect(),
            untold: rows.told.iter().filter_map(|told| Some((told.channel.clone(), told.problem.clone()?))).collect(),
            ended,
            may_cancel: may.trigger && !ended,
            may_retry: may.trigger && ended,
            may_retry_failed: may.trigger && ended && has_bad,
            may_approve: may.approve && awaits.is_some(),
            awaits,
            shell,
        }
    }
}

impl BuildPage {
    /// With the address at which a forge shows the commit.
    pub fn shown_at(self, commit_url: Option<String>) -> Self {
        Self { commit_url, ..self }
    }
}

/// Why stages were not reused, as their first attempts noted it.
fn inputs(rows: &Rows) -> Vec<(String, String)> {
    let why = |stage: &StageRows| {
        let why = &stage.attempts.first()?.why;
        why.starts_with("changed since").then(|| (stage.row.node.to_string(), why.clone()))
    };
    rows.stages.iter().filter_map(why).take(INPUTS).collect()
}

fn listed(made: &Made) -> Listed {
    let files = made.files.iter().map(|(path, bytes)| (path.clone(), words::size(*bytes)));
    Listed { node: made.node.clone(), files: files.collect(), more: made.more }
}

/// What the build decided; that nothing changed is no news.
fn decisions(stages: &[StageRows]) -> Vec<(Mark, String, u64)> {
    let news = stages.iter().filter_map(|stage| stage.verdict.as_ref()).filter(|one| one.verdict != "unchanged");
    news.map(|one| (Mark::verdict(&one.verdict), one.model.clone(), one.version)).collect()
}

fn times(build: &BuildRow, now: Micros) -> Vec<(&'static str, Moment)> {
    let all = [("Accepted", Some(build.created_at)), ("Began", build.started_at), ("Ended", build.ended_at)];
    all.into_iter().filter_map(|(what, at)| Some((what, Moment::of(at?, now)))).collect()
}

/// What started it and who, in a few words.
fn started_by(rows: &Rows) -> String {
    let request = &rows.build.request;
    let event = request.event.replace('_', " ");
    match &rows.trigger {
        Some(trigger) if trigger.source.word() != request.event => {
            format!("{event} by {}, seen by {}", request.actor, trigger.source.word())
        }
        Some(_) | None => format!("{event} by {}", request.actor),
    }
}

fn note(build: &BuildRow, waits_for: Option<String>) -> Option<String> {
    match build.status {
        BuildStatus::Cancelled { reason } => Some(format!("Cancelled: {reason}.")),
        BuildStatus::Queued if build.cancel.is_none() => waits_for.map(|why| format!("waits for {why}")),
        BuildStatus::Queued | BuildStatus::Running => {
            build.cancel.map(|reason| format!("is being cancelled: {reason}"))
        }
        BuildStatus::Passed | BuildStatus::Failed => None,
    }
}

fn changed(rows: &Rows, good: &Glance) -> Changed {
    let (now, before) = (&rows.build.request.params, &rows.good_params);
    let value = |value: Option<&String>| value.cloned().unwrap_or_else(|| "not given".to_owned());
    let mut names: Vec<&String> = now.keys().chain(before.keys()).collect();
    names.sort();
    names.dedup();
    let params = names.into_iter().filter(|name| now.get(*name) != before.get(*name));
    let params = params.map(|name| (name.clone(), value(before.get(name)), value(now.get(name))));
    let commits = good.commit.clone().zip(rows.build.request.commit.clone()).filter(|(from, to)| from != to);
    Changed {
        good: good.id.0,
        commits: commits.map(|(from, to)| (short(Some(&from)), short(Some(&to)))),
        params: params.collect(),
        since: rows.since.iter().take(COMMITS).cloned().collect(),
        more: rows.since.len() > COMMITS,
    }
}

fn failures(rows: &Rows, tails: &BTreeMap<String, Vec<String>>) -> Vec<Failure> {
    let failed = rows.stages.iter().filter_map(|stage| {
        let (attempt, failure) = stage.row.status.failure()?;
        let node = stage.row.node.to_string();
        let lines = tails.get(&node).into_iter().flatten().map(|line| Text::of(line)).collect();
        Some(Failure { node, attempt, message: failure.message.clone(), lines })
    });
    failed.take(FAILURES).collect()
}

fn row(stage: &StageRows, build: &BuildRow, now: Micros) -> Row {
    let began = build.started_at.unwrap_or(build.created_at);
    let whole = build.ended_at.unwrap_or(now).since(began).as_secs_f64().max(0.001);
    let share = |at: Micros| (at.since(began).as_secs_f64() / whole * 1000.0).clamp(0.0, 1000.0) as u32;
    let attempts: Vec<Try> = stage
        .attempts
        .iter()
        .map(|attempt| {
            let x = share(attempt.started_at).min(994);
            let end = share(attempt.ended_at.unwrap_or(now));
            Try {
                number: attempt.attempt,
                mark: Mark::attempt(attempt.outcome.as_ref()),
                runner: attempt.runner.clone(),
                took: Span::of(attempt.started_at, attempt.ended_at, now),
                began: Moment::of(attempt.started_at, now),
                reason: attempt.outcome.as_ref().and_then(reason_of_try),
                x,
                width: end.saturating_sub(x).max(6),
            }
        })
        .collect();
    let (reason, reused_from) = reason(&stage.row.status, stage.waits_for.clone());
    let last = stage.attempts.last();
    let decided = stage.verdict.as_ref().map(|one| one.verdict.as_str());
    Row {
        node: stage.row.node.to_string(),
        kind: stage.row.kind.clone(),
        mark: Mark::stage(&stage.row.status),
        reason,
        reused_from,
        took: attempts.last().map(|attempt| attempt.took),
        load: last.filter(|attempt| attempt.reports.contains_key("loadtest")).map(|attempt| attempt.attempt),
        live_load: last.filter(|one| stage.row.kind == "loadtest" && one.outcome.is_none()).map(|one| one.attempt),
        said: last.map(|attempt| said(&attempt.reports, decided)).unwrap_or_default(),
        made: stage.made.clone(),
        verdict: stage.verdict.as_ref().map(|one| (Mark::verdict(&one.verdict), one.model.clone(), one.version)),
        attempts,
    }
}

fn reason_of_try(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Succeeded => None,
        Outcome::Failed { failure } => Some(failure.message.clone()),
        Outcome::Cancelled { reason } => Some(reason.to_string()),
        Outcome::Interrupted { detail } => Some(detail.clone()),
    }
}

fn reason(status: &StageStatus, waits_for: Option<String>) -> (Option<String>, Option<u64>) {
    match status {
        StageStatus::Failed { failure, .. } => (Some(failure.message.clone()), None),
        StageStatus::Skipped { reason } => (Some(reason.clone()), None),
        StageStatus::Cancelled { reason } => (Some(reason.to_string()), None),
        StageStatus::Reused { from } => (None, Some(from.0)),
        StageStatus::Waiting | StageStatus::Again { .. } | StageStatus::Delayed { .. } => {
            (waits_for.map(|why| format!("waits for {why}")), None)
        }
        StageStatus::Running { .. } | StageStatus::Succeeded { .. } => (None, None),
    }
}

fn drawn(plan: &Plan, rows: &Rows, id: BuildId, now: Micros) -> Option<Graph> {
    if plan.nodes.len() > DRAWN || plan.nodes.len() != rows.stages.len() || plan.nodes.len() < 2 {
        return None;
    }
    let took = |stage: &StageRows| {
        let last = stage.attempts.last();
        last.map(|attempt| Span::of(attempt.started_at, attempt.ended_at, now))
    };
    let of = |at: usize| graph::Stage {
        name: plan.nodes[at].key.to_string(),
        needs: plan.waits_for(at),
        is_cleanup: plan.is_cleanup(at),
        seconds: took(&rows.stages[at]).map_or(0.0, Span::seconds),
    };
    let stages: Vec<graph::Stage> = (0..plan.nodes.len()).map(of).collect();
    let drawn = graph::draw(&stages)?;
    let nodes = rows.stages.iter().zip(&drawn.places).map(|(stage, place)| {
        let mark = Mark::stage(&stage.row.status);
        let name = stage.row.node.to_string();
        let from = match stage.row.status {
            StageStatus::Reused { from } => Some(from.0),
            StageStatus::Waiting
            | StageStatus::Again { .. }
            | StageStatus::Running { .. }
            | StageStatus::Delayed { .. }
            | StageStatus::Succeeded { .. }
            | StageStatus::Failed { .. }
            | StageStatus::Skipped { .. }
            | StageStatus::Cancelled { .. } => None,
        };
        let took = took(stage).filter(|_| from.is_none());
        Node { shown: cut(&name, 24), from, took, mark, x: place.x, y: place.y, name }
    });
    let nodes: Vec<Node> = nodes.collect();
    let said: Vec<String> = nodes.iter().map(|node| format!("{} {}", node.name, node.mark.word)).collect();
    Some(Graph { label: format!("Stages of build {id}: {}", said.join(", ")), nodes, drawn })
}

/// The beginning of a name, if it is long.
fn cut(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars().take(most - 1).chain(['…']).collect()
}
