//! The live tree: one line a stage with its time and last output, redrawn in place.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::text;
use super::view::{Seen, clean, in_words};
use crate::build::event::Event;
use crate::build::plan::Plan;
use crate::build::status::Outcome;
use crate::engine::notice::Notice;
use crate::ids::{BuildId, NodeKey};

/// How often running lines are redrawn.
const TICK: Duration = Duration::from_millis(120);

struct Row {
    bar: ProgressBar,
    started: Option<Instant>,
}

/// Shows a build as a tree until the channel ends.
pub async fn show(plan: &Plan, build: BuildId, seen: &mut mpsc::Receiver<Seen>) {
    let screen = MultiProgress::new();
    let head = screen.add(ProgressBar::new_spinner());
    head.set_style(style("{msg}"));
    head.set_message(text::paint(text::BOLD, format!("build {build}")));
    let width = plan.nodes.iter().map(|node| node.key.to_string().chars().count()).max().unwrap_or(0);
    let mut rows: BTreeMap<NodeKey, Row> = BTreeMap::new();
    for node in &plan.nodes {
        let bar = screen.add(ProgressBar::new_spinner());
        bar.set_prefix(format!("{:<width$}", node.key.to_string()));
        rows.insert(node.key.clone(), Row { bar, started: None });
        set(&rows[&node.key], "·", text::DIM, "");
    }
    while let Some(seen) = seen.recv().await {
        match seen {
            Seen::Lines(node, lines) => {
                let last = lines.iter().rev().find(|line| !line.text.trim().is_empty());
                if let (Some(row), Some(line)) = (rows.get(&node), last)
                    && row.started.is_some()
                {
                    row.bar.set_message(text::paint(text::DIM, clean(&line.text)));
                }
            }
            Seen::Notice(notice) => notice_seen(&screen, &mut rows, &notice),
        }
    }
    head.finish();
    for row in rows.values() {
        row.bar.abandon();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}

fn set(row: &Row, sign: &str, colour: anstyle::Style, message: &str) {
    let sign = text::paint(colour, sign);
    row.bar.disable_steady_tick();
    row.bar.set_style(style(&format!("  {sign} {{prefix}} {{wide_msg}}")));
    row.bar.set_message(message.to_owned());
    row.bar.tick();
}

fn run(row: &mut Row) {
    row.started = Some(Instant::now());
    row.bar.reset_elapsed();
    row.bar.set_style(style("  {spinner} {prefix} {elapsed:>4} {wide_msg}"));
    row.bar.set_message("");
    row.bar.enable_steady_tick(TICK);
}

fn notice_seen(screen: &MultiProgress, rows: &mut BTreeMap<NodeKey, Row>, notice: &Notice) {
    let Notice::Event { event, .. } = notice else {
        match in_words(notice) {
            Some((Some(node), words)) => {
                if let Some(row) = rows.get(&node) {
                    row.bar.set_message(words);
                }
            }
            // A screen that cannot be written to is a terminal that is gone.
            Some((None, words)) => drop(screen.println(words)),
            None => {}
        }
        return;
    };
    let Some(row) = event.event.node().and_then(|node| rows.get_mut(node)) else { return };
    match &event.event {
        Event::AttemptStarted { .. } => run(row),
        Event::AttemptLaunched { .. } if row.started.is_none() => run(row),
        Event::AttemptLaunched { .. } => {}
        Event::AttemptEnded { outcome, .. } => ended(row, outcome),
        Event::StageReused { from, .. } => {
            let words = text::paint(text::DIM, format!("reused from build {from}"));
            set(row, "=", text::GOOD, &words);
        }
        Event::StageSkipped { reason, .. } => set(row, "-", text::DIM, &text::paint(text::DIM, clean(reason))),
        Event::StageCancelled { reason, .. } => set(row, "■", text::WARN, &reason.to_string()),
        Event::BuildStarted | Event::CancelRequested { .. } | Event::BuildEnded { .. } | Event::Retried { .. } => {}
    }
}

fn ended(row: &mut Row, outcome: &Outcome) {
    let took = row.started.take().map(|at| text::duration(at.elapsed())).unwrap_or_default();
    match outcome {
        Outcome::Succeeded => set(row, "✓", text::GOOD, &text::paint(text::DIM, took)),
        Outcome::Failed { failure } => set(row, "✗", text::BAD, &format!("{took}  {}", clean(&failure.message))),
        Outcome::Cancelled { reason } => set(row, "■", text::WARN, &format!("{took}  {reason}")),
        Outcome::Interrupted { detail } => set(row, "↻", text::WARN, &format!("{took}  {}", clean(detail))),
    }
}
