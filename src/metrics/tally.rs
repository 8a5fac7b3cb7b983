//! What is counted of one build while it is driven.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::IntGauge;

use super::Metrics;
use crate::build::event::{Event, Stamped};
use crate::build::plan::Plan;
use crate::build::status::{BuildState, Outcome};
use crate::ids::{Micros, NodeKey};
use crate::pipeline::types::Kind;

/// The account of one build. What is under way counts as running until it is dropped.
#[derive(Debug)]
pub struct Tally {
    metrics: Arc<Metrics>,
    project: String,
    pipeline: String,
    created_at: Micros,
    started_at: Option<Micros>,
    running: IntGauge,
    /// Since when, by stage.
    attempts: HashMap<NodeKey, (Micros, IntGauge)>,
}

impl Tally {
    /// A build is driven. `history` is what had happened before: it is remembered, not counted again.
    pub fn new(
        metrics: Arc<Metrics>,
        (project, pipeline): (&str, &str),
        plan: &Plan,
        created_at: Micros,
        history: &[Stamped],
    ) -> Self {
        let running = metrics.builds_running.with_label_values(&[project]);
        running.inc();
        let (bounded, _) = metrics.bounded(project, pipeline, "");
        // The 0 before the first, without which there is no rate.
        for result in ["passed", "failed", "cancelled"] {
            metrics.builds.with_label_values(&[project, &bounded, result]);
        }
        for node in &plan.nodes {
            if let Kind::Promote(promote) = &node.stage.kind {
                for verdict in ["promoted", "rejected", "inconclusive", "unchanged", "error"] {
                    metrics.promotions.with_label_values(&[project, &promote.model, verdict]);
                }
            }
        }
        let (project, pipeline) = (project.to_owned(), pipeline.to_owned());
        let mut tally =
            Self { metrics, project, pipeline, created_at, started_at: None, running, attempts: HashMap::new() };
        for event in history {
            tally.recall(plan, event);
        }
        tally
    }

    /// Notes when something began or that it ended.
    fn recall(&mut self, plan: &Plan, stamped: &Stamped) {
        match &stamped.event {
            Event::BuildStarted => self.started_at = Some(stamped.at),
            // It waits anew.
            Event::Retried { .. } => self.created_at = stamped.at,
            Event::AttemptStarted { node, .. } => {
                let running = self.metrics.stages_running.with_label_values(&[&self.project, kind(plan, node)]);
                running.inc();
                self.attempts.insert(node.clone(), (stamped.at, running));
            }
            Event::AttemptEnded { node, .. } => {
                if let Some((_, running)) = self.attempts.remove(node) {
                    running.dec();
                }
            }
            Event::CancelRequested { .. }
            | Event::StageSkipped { .. }
            | Event::StageReused { .. }
            | Event::StageCancelled { .. }
            | Event::AttemptLaunched { .. }
            | Event::BuildEnded { .. } => {}
        }
    }

    /// Events are on the disk, with the state before and after them.
    pub fn committed(&mut self, plan: &Plan, before: &BuildState, after: &BuildState, events: &[Stamped]) {
        for stamped in events {
            self.count(plan, stamped);
            self.recall(plan, stamped);
        }
        for (node, (before, after)) in plan.nodes.iter().zip(before.stages.iter().zip(&after.stages)) {
            if !before.is_terminal() && after.is_terminal() {
                let (pipeline, stage) = self.labels(&node.key);
                let labels = [&self.project, &*pipeline, &*stage, node.stage.kind.word(), after.word()];
                self.metrics.stages.with_label_values(&labels).inc();
            }
        }
    }

    fn count(&self, plan: &Plan, stamped: &Stamped) {
        let since = |at: Micros| stamped.at.since(at).as_secs_f64();
        match &stamped.event {
            Event::BuildStarted => {
                self.metrics.queue_wait.with_label_values(&[&self.project]).observe(since(self.created_at));
            }
            Event::AttemptEnded { node, outcome, .. } => {
                let (pipeline, stage) = self.labels(node);
                let kind = kind(plan, node);
                let labels = [&self.project, &*pipeline, &*stage, kind, word(outcome)];
                self.metrics.attempts.with_label_values(&labels).inc();
                if let Some((at, _)) = self.attempts.get(node) {
                    let labels = [&self.project, &*pipeline, &*stage, kind];
                    self.metrics.attempt_seconds.with_label_values(&labels).observe(since(*at));
                }
            }
            Event::BuildEnded { result } => {
                let (pipeline, _) = self.metrics.bounded(&self.project, &self.pipeline, "");
                self.metrics.builds.with_label_values(&[&self.project, &*pipeline, result.word()]).inc();
                if let Some(at) = self.started_at {
                    let labels = [&self.project, &*pipeline];
                    self.metrics.build_seconds.with_label_values(&labels).observe(since(at));
                }
            }
            Event::CancelRequested { .. }
            | Event::StageSkipped { .. }
            | Event::StageReused { .. }
            | Event::StageCancelled { .. }
            | Event::AttemptStarted { .. }
            | Event::AttemptLaunched { .. }
            | Event::Retried { .. } => {}
        }
    }

    /// The log of an attempt that ended, in bytes.
    pub fn log(&self, bytes: u64) {
        self.metrics.log_bytes.with_label_values(&[&self.project]).inc_by(bytes);
    }

    /// A cell of a matrix counts for its stage: cells are as many as someone likes.
    fn labels(&self, node: &NodeKey) -> (String, String) {
        self.metrics.bounded(&self.project, &self.pipeline, node.stage.as_str())
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.running.dec();
        for (_, running) in self.attempts.values() {
            running.dec();
        }
    }
}

fn kind<'a>(plan: &'a Plan, key: &NodeKey) -> &'a str {
    plan.nodes.iter().find(|node| node.key == *key).map_or("plain", |node| node.stage.kind.word())
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed { .. } => "failed",
        Outcome::Cancelled { .. } => "cancelled",
        Outcome::Interrupted { .. } => "interrupted",
    }
}
