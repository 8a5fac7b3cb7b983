//! What the page of an attempt shows. PURE.

use std::ops::Range;

use askama::Template;

use super::read::Read;
use super::{WHOLE, WINDOW};
use crate::build::status::Outcome;
use crate::ids::Micros;
use crate::logs::{Line, Stream};
use crate::store::attempts::{AttemptRow, StepRow};
use crate::store::builds::{BuildRow, StageRow};
use crate::web::api::artifacts::Files;
use crate::web::pages::ansi::Text;
use crate::web::pages::coded::Coded;
use crate::web::pages::mark::Mark;
use crate::web::pages::moment::{Moment, Span};
use crate::web::pages::shell::{Section, Shell};
use crate::words;

/// What is known.
pub struct Rows {
    /// The build.
    pub build: BuildRow,
    /// The stage.
    pub stage: StageRow,
    /// The attempt.
    pub attempt: AttemptRow,
    /// The numbers of all attempts.
    pub attempts: Vec<u32>,
    /// The part of its log.
    pub read: Read,
    /// What the stage made.
    pub files: Option<Files>,
    /// It is the log of the model API.
    pub serve: bool,
    /// There is a log of the model API.
    pub has_serve: bool,
    /// No more lines will come.
    pub ended: bool,
    /// What was looked for.
    pub query: String,
}

/// The page.
#[derive(Template)]
#[template(path = "log.html")]
pub struct LogPage {
    shell: Shell,
    build: u64,
    project: String,
    node: String,
    kind: String,
    number: u32,
    others: Vec<u32>,
    mark: Mark,
    runner: String,
    began: Moment,
    took: Span,
    reason: Option<String>,
    why: String,
    serve: bool,
    has_serve: bool,
    ended: bool,
    has_load: bool,
    query: String,
    hits: Vec<Row>,
    more_hits: bool,
    folds: Vec<Fold>,
    total: u64,
    /// The page holds a window of a longer log.
    is_window: bool,
    first: u64,
    last: u64,
    earlier: Option<u64>,
    later: Option<u64>,
    jumps: Vec<Jump>,
    /// The last line of the step that failed, counted from 1.
    failed_at: Option<u64>,
    files: Vec<(String, String)>,
    more_files: usize,
    base: String,
}

/// A step of a long log, as a way to it; the script folds the log by them.
struct Jump {
    title: String,
    mark: Mark,
    took: Span,
    /// Its first line, counted from 0.
    first: u64,
    lines: u64,
    open: bool,
}

/// The lines of a step, or those between steps.
struct Fold {
    title: Option<String>,
    took: Option<Span>,
    mark: Option<Mark>,
    open: bool,
    rows: Vec<Row>,
}

/// A line.
pub struct Row {
    /// Counted from 1.
    number: u64,
    /// The line's index, counted from 0.
    index: u64,
    /// The time of day in UTC, which the script tells in the reader's zone, and the seconds since the attempt began.
    at: Micros,
    clock: String,
    after: String,
    /// `o`, `e` or `n`: standard output, standard error, our own notes.
    stream: &'static str,
    text: Text,
}

impl Row {
    fn of(line: &Line, began: Micros) -> Self {
        Self {
            number: line.number + 1,
            index: line.number,
            at: Micros(line.at.0 / 1000),
            clock: clock(line.at),
            after: format!("{:.2}", line.at.since(began).as_secs_f64()),
            stream: match line.stream {
                Stream::Stdout => "o",
                Stream::Stderr => "e",
                Stream::Note => "n",
            },
            text: Text::of(&line.text),
        }
    }
}

fn clock(at: Micros) -> String {
    jiff::Timestamp::from_microsecond(at.0).map(|at| at.strftime("%H:%M:%S").to_string()).unwrap_or_default()
}

/// Lines alone, for the script.
#[derive(Template)]
#[template(path = "log_lines.html")]
pub struct LinesPage {
    rows: Vec<Row>,
}

impl LinesPage {
    /// These lines.
    pub fn of(lines: Vec<Line>, began: Micros) -> Self {
        Self { rows: lines.iter().map(|line| Row::of(line, began)).collect() }
    }
}

impl LogPage {
    /// The page of this.
    pub fn of(shell: Shell, rows: Rows, now: Micros) -> Self {
        let Rows { build, stage, attempt, attempts, read, files, serve, has_serve, ended, query } = rows;
        let loading = stage.kind == "loadtest" && attempt.outcome.is_none();
        let Read { lines, total, more_hits, steps } = read;
        let is_search = !query.is_empty();
        let began = attempt.started_at;
        let is_window = total > WHOLE;
        let hits = if is_search {
            lines.iter().map(|line| Row::of(line, began).marked(line, &query)).collect()
        } else {
            Vec::new()
        };
        let shown: &[Line] = if is_search { &[] } else { &lines };
        let first = shown.first().map_or(0, |line| line.number);
        let last = shown.last().map_or(0, |line| line.number);
        let folds = folds(shown, &attempt, now, is_window || serve);
        let jumps = if serve { Vec::new() } else { jumps(&steps, &attempt, now) };
        let listed = files.as_ref().map(|files| files.items.as_slice()).unwrap_or_default();
        let node = stage.node.to_string();
        Self {
            build: build.id.0,
            project: build.request.project,
            kind: stage.kind,
            number: attempt.attempt,
            others: attempts,
            mark: Mark::attempt(attempt.outcome.as_ref()),
            runner: attempt.runner.clone(),
            began: Moment::of(began, now),
            took: Span::of(began, attempt.ended_at, now),
            reason: attempt.outcome.as_ref().and_then(reason),
            why: attempt.why.clone(),
            serve,
            has_serve,
            ended,
            has_load: attempt.reports.contains_key("loadtest") || loading,
            hits,
            more_hits,
            failed_at: failed_at(&folds, &jumps),
            folds,
            total,
            is_window,
            first,
            last,
            earlier: (is_window && first > 0).then(|| first.saturating_sub(WINDOW)),
            later: (is_window && last + 1 < total).then_some(last + 1),
            jumps,
            files: listed.iter().map(|file| (file.path.clone(), words::size(file.size))).collect(),
            more_files: files.as_ref().map_or(0, |files| files.files - files.items.len()),
            base: format!("/builds/{}/stages/{node}/attempts/{}", build.id.0, attempt.attempt),
            query,
            node,
            shell,
        }
    }
}

impl Row {
    /// With what was found marked. Colours are left out: a mark may begin in the middle of one.
    fn marked(self, line: &Line, query: &str) -> Self {
        Self { text: Text::marked(&line.text, query), ..self }
    }
}

fn reason(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Succeeded => None,
        Outcome::Failed { failure } => Some(failure.message.clone()),
        Outcome::Cancelled { reason } => Some(reason.to_string()),
        Outcome::Interrupted { detail } => Some(detail.clone()),
    }
}

fn step_title(step: &StepRow) -> String {
    let name = step.name.lines().next().unwrap_or_default();
    let mut title: String = name.chars().take(100).collect();
    if title.len() < step.name.len() {
        title.push('…');
    }
    title
}

/// The steps of a long log.
fn jumps(steps: &[Range<u64>], attempt: &AttemptRow, now: Micros) -> Vec<Jump> {
    let any_failed = attempt.steps.iter().any(failed);
    let jump = |(lines, step): (&Range<u64>, &StepRow)| Jump {
        title: step_title(step),
        mark: mark(step, attempt),
        took: Span::of(step.started_at, step.ended_at.or(attempt.ended_at), now),
        first: lines.start,
        lines: lines.end - lines.start,
        open: !any_failed || failed(step),
    };
    steps.iter().zip(&attempt.steps).map(jump).collect()
}

fn failed(step: &StepRow) -> bool {
    step.ended_at.is_some() && step.code != Some(0)
}

fn mark(step: &StepRow, attempt: &AttemptRow) -> Mark {
    match step.ended_at {
        Some(_) if failed(step) => Mark { shape: "failed", word: "failed" },
        Some(_) => Mark { shape: "passed", word: "passed" },
        None if attempt.ended_at.is_none() => Mark { shape: "running", word: "running" },
        None => Mark { shape: "cancelled", word: "cut short" },
    }
}

/// Where the error is, usually: at the end of the step that failed.
fn failed_at(folds: &[Fold], jumps: &[Jump]) -> Option<u64> {
    let is_bad = |mark: &Mark| mark.shape == "failed";
    let folded = folds.iter().rev().find(|fold| fold.mark.as_ref().is_some_and(is_bad));
    let jumped = jumps.iter().rev().find(|jump| is_bad(&jump.mark) && jump.lines > 0);
    let folded = folded.and_then(|fold| fold.rows.last()).map(|row| row.number);
    folded.or_else(|| jumped.map(|jump| jump.first + jump.lines))
}

/// Lines of the same step stand together. What went well is closed if something else did not.
fn folds(lines: &[Line], attempt: &AttemptRow, now: Micros, flat: bool) -> Vec<Fold> {
    let any_failed = attempt.steps.iter().any(failed);
    let mut folds: Vec<(Option<u32>, Fold)> = Vec::new();
    for line in lines {
        let step = line.step.filter(|_| !flat);
        if folds.last().is_none_or(|(of, _)| *of != step) {
            let row = step.and_then(|step| attempt.steps.get(usize::try_from(step).ok()?));
            let fold = Fold {
                title: row.map(step_title).or_else(|| step.map(|step| format!("step {}", step + 1))),
                took: row.map(|step| Span::of(step.started_at, step.ended_at.or(attempt.ended_at), now)),
                mark: row.map(|step| mark(step, attempt)),
                open: !any_failed || row.is_none_or(failed),
                rows: Vec::new(),
            };
            folds.push((step, fold));
        }
        if let Some((_, fold)) = folds.last_mut() {
            fold.rows.push(Row::of(line, attempt.started_at));
        }
    }
    folds.into_iter().map(|(_, fold)| fold).collect()
}
