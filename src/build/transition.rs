//! The one place where a status changes: which event is allowed in which state, and what the state is afterwards.

use super::event::{Event, Stamped};
use super::plan::Plan;
use super::status::{BuildState, BuildStatus, FailureKind, Outcome, StageStatus};
use crate::ids::{Micros, NodeKey};
use crate::pipeline::types::{OnInterrupt, RetryOn, Stage};

/// An event that the state does not allow: a bug of ours, or a store that was tampered with. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {event:?} is not possible: {why}")]
pub struct Illegal {
    /// The event.
    pub event: Box<Event>,
    /// What stands against it.
    pub why: String,
}

/// How many times an attempt lost to a crash is replaced without counting as a retry; then the stage fails. Guards
/// against a stage that takes the whole machine down with it each time.
pub const MAX_INTERRUPTS: u32 = 10;

/// The state after an event.
///
/// # Errors
/// [`Illegal`] if the event cannot happen in this state.
pub fn transition(plan: &Plan, state: &BuildState, stamped: &Stamped) -> Result<BuildState, Illegal> {
    let illegal = |why: &str| Illegal { event: Box::new(stamped.event.clone()), why: why.to_owned() };
    if state.status.is_terminal() {
        return Err(illegal("the build has ended"));
    }
    let mut next = state.clone();
    match &stamped.event {
        Event::BuildStarted => match state.status {
            BuildStatus::Queued => next.status = BuildStatus::Running,
            BuildStatus::Running | BuildStatus::Passed | BuildStatus::Failed | BuildStatus::Cancelled { .. } => {
                return Err(illegal("the build has begun"));
            }
        },
        Event::CancelRequested { reason } => next.cancel = next.cancel.max(Some(*reason)),
        Event::BuildEnded { result } => {
            if !result.is_terminal() {
                return Err(illegal("that is no end"));
            }
            if let Some(open) = state.stages.iter().position(|stage| !stage.is_terminal()) {
                return Err(illegal(&format!("stage `{}` has not ended", plan.nodes[open].key)));
            }
            next.status = *result;
        }
        Event::StageSkipped { node, .. }
        | Event::StageReused { node, .. }
        | Event::StageCancelled { node, .. }
        | Event::AttemptStarted { node, .. }
        | Event::AttemptLaunched { node, .. }
        | Event::AttemptEnded { node, .. } => {
            if state.status != BuildStatus::Running {
                return Err(illegal("the build has not begun"));
            }
            let index = index(plan, node).ok_or_else(|| illegal("the plan has no such stage"))?;
            let stage = &plan.nodes[index].stage;
            next.stages[index] =
                stage_after(stage, &state.stages[index], stamped, state.cancel.is_some()).map_err(|why| illegal(&why))?;
        }
    }
    Ok(next)
}

fn index(plan: &Plan, node: &NodeKey) -> Option<usize> {
    plan.index(node)
}

fn stage_after(stage: &Stage, now: &StageStatus, stamped: &Stamped, cancelled: bool) -> Result<StageStatus, String> {
    let impossible = || Err(format!("the stage is {}", now.word()));
    match (&stamped.event, now) {
        (Event::StageSkipped { reason, .. }, StageStatus::Waiting) => Ok(StageStatus::Skipped { reason: reason.clone() }),
        (Event::StageReused { from, .. }, StageStatus::Waiting) => Ok(StageStatus::Reused { from: *from }),
        (Event::StageCancelled { reason, .. }, StageStatus::Waiting | StageStatus::Delayed { .. }) => {
            Ok(StageStatus::Cancelled { reason: *reason })
        }
        (Event::AttemptStarted { attempt, .. }, StageStatus::Waiting) if *attempt == 1 => {
            Ok(StageStatus::Running { attempt: 1, launched: false })
        }
        (Event::AttemptStarted { attempt, .. }, StageStatus::Delayed { attempt: last, until })
            if *attempt == last + 1 && stamped.at >= *until =>
        {
            Ok(StageStatus::Running { attempt: *attempt, launched: false })
        }
        (Event::AttemptLaunched { attempt, .. }, StageStatus::Running { attempt: current, launched: false })
            if attempt == current =>
        {
            Ok(StageStatus::Running { attempt: *attempt, launched: true })
        }
        (Event::AttemptEnded { attempt, outcome, .. }, StageStatus::Running { attempt: current, .. })
            if attempt == current =>
        {
            Ok(after_attempt(stage, *attempt, outcome, stamped.at, cancelled))
        }
        (
            Event::BuildStarted
            | Event::CancelRequested { .. }
            | Event::BuildEnded { .. }
            | Event::StageSkipped { .. }
            | Event::StageReused { .. }
            | Event::StageCancelled { .. }
            | Event::AttemptStarted { .. }
            | Event::AttemptLaunched { .. }
            | Event::AttemptEnded { .. },
            _,
        ) => impossible(),
    }
}

fn after_attempt(stage: &Stage, attempt: u32, outcome: &Outcome, at: Micros, cancelled: bool) -> StageStatus {
    match outcome {
        Outcome::Succeeded => StageStatus::Succeeded { attempt },
        Outcome::Cancelled { reason } => StageStatus::Cancelled { reason: *reason },
        Outcome::Failed { failure } => {
            let again = attempt < stage.retry.attempts && retries(stage, failure.kind) && !cancelled;
            if again {
                let delay = i64::try_from(stage.retry.delay.as_micros()).unwrap_or(i64::MAX);
                StageStatus::Delayed { attempt, until: Micros(at.0.saturating_add(delay)) }
            } else {
                StageStatus::Failed { attempt, failure: failure.clone() }
            }
        }
        Outcome::Interrupted { detail } => {
            if stage.on_interrupt == OnInterrupt::Retry && attempt < stage.retry.attempts + MAX_INTERRUPTS {
                StageStatus::Delayed { attempt, until: at }
            } else {
                let failure = super::status::Failure::new(FailureKind::Interrupted, detail.clone());
                StageStatus::Failed { attempt, failure }
            }
        }
    }
}

fn retries(stage: &Stage, kind: FailureKind) -> bool {
    let cause = match kind {
        FailureKind::Timeout => RetryOn::Timeout,
        FailureKind::Engine | FailureKind::Interrupted => RetryOn::Lost,
        FailureKind::Exit
        | FailureKind::OutOfMemory
        | FailureKind::Output
        | FailureKind::Serve
        | FailureKind::Check
        | FailureKind::Contract
        | FailureKind::Load
        | FailureKind::LoadInvalid
        | FailureKind::Train
        | FailureKind::Image => RetryOn::Failure,
        // A verdict does not change by asking again, nor does a pipeline that cannot run here.
        FailureKind::Verdict | FailureKind::Promote | FailureKind::Unsupported | FailureKind::Internal => return false,
    };
    stage.retry.on.contains(&cause)
}

/// The state after a whole history.
///
/// # Errors
/// [`Illegal`] at the first event that cannot follow.
pub fn replay(plan: &Plan, events: &[Stamped]) -> Result<BuildState, Illegal> {
    events.iter().try_fold(BuildState::new(plan.nodes.len()), |state, event| transition(plan, &state, event))
}
