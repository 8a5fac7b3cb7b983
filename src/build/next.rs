//! What is to be done now: a pure look at plan and state. Nothing is remembered between two calls, so a restart is no case
//! of its own.

use super::plan::Plan;
use super::status::{BuildState, BuildStatus, CancelReason, StageStatus};
use crate::ids::Micros;
use crate::pipeline::types::WhenStatus;

/// One thing to do. Those that are events are committed as such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Begin the build.
    Begin,
    /// Look for a result to reuse; else start this attempt.
    Start {
        /// Index in the plan.
        node: usize,
        /// From 1.
        attempt: u32,
    },
    /// Do not run it.
    Skip {
        /// Index in the plan.
        node: usize,
        /// Why, for people.
        reason: String,
    },
    /// It never started; cancel it.
    Cancel {
        /// Index in the plan.
        node: usize,
        /// Why.
        reason: CancelReason,
    },
    /// Stop the attempt under way. Given again and again until it has ended.
    Stop {
        /// Index in the plan.
        node: usize,
        /// Why.
        reason: CancelReason,
    },
    /// Look again at this time.
    WakeAt(Micros),
    /// Every stage has ended.
    End(BuildStatus),
}

/// All that can be done in this state.
pub fn next_actions(plan: &Plan, state: &BuildState, now: Micros) -> Vec<Action> {
    match state.status {
        BuildStatus::Queued => return vec![Action::Begin],
        BuildStatus::Running => {}
        BuildStatus::Passed | BuildStatus::Failed | BuildStatus::Cancelled { .. } => return Vec::new(),
    }
    if state.stages.iter().all(StageStatus::is_terminal) {
        return vec![Action::End(result(plan, state))];
    }
    (0..plan.nodes.len()).filter_map(|node| for_node(plan, state, now, node)).collect()
}

fn for_node(plan: &Plan, state: &BuildState, now: Micros, node: usize) -> Option<Action> {
    match &state.stages[node] {
        StageStatus::Waiting => for_waiting(plan, state, node, 1),
        StageStatus::Again { attempt } => for_waiting(plan, state, node, attempt + 1),
        StageStatus::Delayed { attempt, until } => Some(match state.cancel {
            Some(reason) if !survives(plan, node, reason) => Action::Cancel { node, reason },
            _ if is_over(plan, node, *until, now) => Action::Start { node, attempt: attempt + 1 },
            _ => Action::WakeAt(*until),
        }),
        StageStatus::Running { .. } => {
            let reason = state.cancel?;
            (!survives(plan, node, reason)).then_some(Action::Stop { node, reason })
        }
        StageStatus::Succeeded { .. }
        | StageStatus::Reused { .. }
        | StageStatus::Failed { .. }
        | StageStatus::Skipped { .. }
        | StageStatus::Cancelled { .. } => None,
    }
}

/// Whether the wait before a stage's next attempt is over. Before the wait began it cannot be: then the clock was put back, and
/// nobody waits for it to come there again.
fn is_over(plan: &Plan, node: usize, until: Micros, now: Micros) -> bool {
    until <= now || until.since(now) > plan.nodes[node].stage.retry.delay
}

/// Clean-up stages outlive a cancellation, but not a kill.
fn survives(plan: &Plan, node: usize, reason: CancelReason) -> bool {
    plan.nodes[node].stage.when.status == WhenStatus::Always && reason < CancelReason::Kill
}

fn for_waiting(plan: &Plan, state: &BuildState, node: usize, attempt: u32) -> Option<Action> {
    if let Some(reason) = &plan.nodes[node].skip {
        return Some(Action::Skip { node, reason: reason.clone() });
    }
    if let Some(reason) = state.cancel
        && !survives(plan, node, reason)
    {
        return Some(Action::Cancel { node, reason });
    }
    let before = plan.waits_for(node);
    if !before.iter().all(|&other| state.stages[other].is_terminal()) {
        return None;
    }
    Some(match plan.nodes[node].stage.when.status {
        WhenStatus::Always => Action::Start { node, attempt },
        WhenStatus::Failure => {
            if failed_before(plan, state, node, &before) {
                Action::Start { node, attempt }
            } else {
                Action::Skip { node, reason: "runs only after a failure, and nothing failed".to_owned() }
            }
        }
        WhenStatus::Success => match before.iter().find(|&&other| !lets_on(plan, state, other)) {
            None => Action::Start { node, attempt },
            Some(&other) => Action::Skip {
                node,
                reason: format!("it needs `{}`, which was {}", plan.nodes[other].key, past(&state.stages[other])),
            },
        },
    })
}

fn past(status: &StageStatus) -> &'static str {
    match status {
        StageStatus::Failed { .. } => "not successful",
        StageStatus::Skipped { .. } => "skipped",
        StageStatus::Cancelled { .. } => "cancelled",
        StageStatus::Waiting
        | StageStatus::Again { .. }
        | StageStatus::Running { .. }
        | StageStatus::Delayed { .. }
        | StageStatus::Succeeded { .. }
        | StageStatus::Reused { .. } => "not ended",
    }
}

/// A need that ended well, or failed and was allowed to.
fn lets_on(plan: &Plan, state: &BuildState, node: usize) -> bool {
    let allowed = matches!(state.stages[node], StageStatus::Failed { .. }) && plan.nodes[node].stage.allow_failure;
    state.stages[node].is_good() || allowed
}

fn failed_before(plan: &Plan, state: &BuildState, node: usize, before: &[usize]) -> bool {
    let mut all = plan.ancestors(node);
    all.extend(before);
    all.into_iter().any(|other| counts_as_failure(plan, state, other))
}

fn counts_as_failure(plan: &Plan, state: &BuildState, node: usize) -> bool {
    matches!(state.stages[node], StageStatus::Failed { .. }) && !plan.nodes[node].stage.allow_failure
}

fn result(plan: &Plan, state: &BuildState) -> BuildStatus {
    if let Some(reason) = state.cancel {
        return BuildStatus::Cancelled { reason };
    }
    if (0..plan.nodes.len()).any(|node| counts_as_failure(plan, state, node)) {
        return BuildStatus::Failed;
    }
    // Of an earlier go: other stages ran again, and this one did not.
    let cancelled = state.stages.iter().find_map(StageStatus::cancelled);
    cancelled.map_or(BuildStatus::Passed, |reason| BuildStatus::Cancelled { reason })
}
