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
    if let Event::Retried { nodes, .. } = &stamped.event {
        return retried(plan, state, nodes).map_err(illegal);
    }
    if state.status.is_terminal() {
        return Err(illegal("the build has ended"));
    }
    let mut next = state.clone();
    match &stamped.event {
        Event::Retried { .. } => return Err(illegal("that is said above")),
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
            next.stages[index] = stage_after(stage, &state.stages[index], stamped, state.cancel.is_some())
                .map_err(|why| illegal(&why))?;
        }
    }
    Ok(next)
}

/// The state of a build that has ended and whose stages are wanted again.
fn retried(plan: &Plan, state: &BuildState, nodes: &[(NodeKey, u32)]) -> Result<BuildState, &'static str> {
    if !state.status.is_terminal() {
        return Err("the build has not ended");
    }
    let mut next = BuildState { status: BuildStatus::Queued, cancel: None, stages: state.stages.clone() };
    for (node, attempt) in nodes {
        let index = index(plan, node).ok_or("the plan has no such stage")?;
        next.stages[index] = StageStatus::Again { attempt: *attempt };
    }
    Ok(next)
}

fn index(plan: &Plan, node: &NodeKey) -> Option<usize> {
    plan.index(node)
}

fn stage_after(stage: &Stage, now: &StageStatus, stamped: &Stamped, cancelled: bool) -> Result<StageStatus, String> {
    let impossible = || Err(format!("the stage is {}", now.word()));
    match (&stamped.event, now) {
        (Event::StageSkipped { reason, .. }, StageStatus::Waiting | StageStatus::Again { .. }) => {
            Ok(StageStatus::Skipped { reason: reason.clone() })
        }
        (Event::StageReused { from, .. }, StageStatus::Waiting | StageStatus::Again { .. }) => {
            Ok(StageStatus::Reused { from: *from })
        }
        (
            Event::StageCancelled { reason, .. },
            StageStatus::Waiting | StageStatus::Again { .. } | StageStatus::Delayed { .. },
        ) => Ok(StageStatus::Cancelled { reason: *reason }),
        (Event::AttemptStarted { attempt, .. }, StageStatus::Again { attempt: last }) if *attempt == last + 1 => {
            Ok(StageStatus::Running { attempt: *attempt, launched: false })
        }
        (Event::AttemptStarted { attempt, .. }, StageStatus::Waiting) if *attempt == 1 => {
            Ok(StageStatus::Running { attempt: 1, launched: false })
        }
        // Whether its wait is over was for `next_actions` to say: the clock may have been put back since.
        (Event::AttemptStarted { attempt, .. }, StageStatus::Delayed { attempt: last, .. }) if *attempt == last + 1 => {
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
            | Event::AttemptEnded { .. }
            | Event::Retried { .. },
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
        FailureKind::Verdict
        | FailureKind::Promote
        | FailureKind::Secrets
        | FailureKind::Unsupported
        | FailureKind::Internal => return false,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::build::next::{Action, next_actions};
    use crate::build::plan::fixtures::{chain, stage};
    use crate::build::status::{CancelReason, Failure};
    use crate::pipeline::types::WhenStatus;

    fn at(event: Event) -> Stamped {
        Stamped { at: Micros(0), event }
    }

    fn failed(kind: FailureKind) -> Outcome {
        Outcome::Failed { failure: Failure::new(kind, "it broke") }
    }

    fn started(plan: &Plan) -> BuildState {
        transition(plan, &BuildState::new(plan.nodes.len()), &at(Event::BuildStarted)).unwrap()
    }

    #[test]
    fn an_attempt_cannot_start_twice() {
        let plan = chain(&[("a", &[])]);
        let start = at(Event::AttemptStarted { node: plan.nodes[0].key.clone(), attempt: 1 });
        let state = transition(&plan, &started(&plan), &start).unwrap();
        assert!(transition(&plan, &state, &start).is_err());
    }

    #[test]
    fn a_build_cannot_end_with_open_stages() {
        let plan = chain(&[("a", &[])]);
        let end = at(Event::BuildEnded { result: BuildStatus::Passed });
        assert!(transition(&plan, &started(&plan), &end).is_err());
    }

    #[test]
    fn retries_are_counted_and_interruptions_are_not() {
        let mut plan = chain(&[("a", &[])]);
        plan.nodes[0].stage.retry.attempts = 2;
        let key = plan.nodes[0].key.clone();
        let run = |state: &BuildState, attempt: u32, outcome: Outcome| {
            let state = transition(&plan, state, &at(Event::AttemptStarted { node: key.clone(), attempt })).unwrap();
            transition(&plan, &state, &at(Event::AttemptEnded { node: key.clone(), attempt, outcome })).unwrap()
        };
        let state = run(&started(&plan), 1, failed(FailureKind::Exit));
        assert!(matches!(state.stages[0], StageStatus::Delayed { attempt: 1, .. }));
        let state = run(&state, 2, Outcome::Interrupted { detail: "killed".to_owned() });
        assert!(matches!(state.stages[0], StageStatus::Delayed { attempt: 2, .. }));
        let state = run(&state, 3, failed(FailureKind::Exit));
        assert!(matches!(state.stages[0], StageStatus::Failed { attempt: 3, .. }));
    }

    #[test]
    fn nobody_waits_for_a_clock_that_was_put_back() {
        let mut plan = chain(&[("a", &[])]);
        plan.nodes[0].stage.retry.attempts = 2;
        plan.nodes[0].stage.retry.delay = std::time::Duration::from_secs(30);
        let key = plan.nodes[0].key.clone();
        let day = 86_400_000_000;
        let stamped = |seconds: i64, event: Event| Stamped { at: Micros(day + seconds * 1_000_000), event };
        let begin = stamped(0, Event::AttemptStarted { node: key.clone(), attempt: 1 });
        let end = stamped(9, Event::AttemptEnded { node: key.clone(), attempt: 1, outcome: failed(FailureKind::Exit) });
        let state = transition(&plan, &started(&plan), &begin).unwrap();
        let state = transition(&plan, &state, &end).unwrap();
        let until = Micros(day + 39_000_000);
        let check = |now: Micros, expected: Action| {
            assert_eq!(next_actions(&plan, &state, now), [expected], "{now:?}");
        };
        check(Micros(day + 9_000_000), Action::WakeAt(until));
        check(Micros(day + 38_000_000), Action::WakeAt(until));
        check(until, Action::Start { node: 0, attempt: 2 });
        check(Micros(2 * day), Action::Start { node: 0, attempt: 2 });
        check(Micros(9_000_000), Action::Start { node: 0, attempt: 2 });
        // And it may.
        let again = Stamped { at: Micros(9_000_000), event: Event::AttemptStarted { node: key, attempt: 2 } };
        assert!(transition(&plan, &state, &again).is_ok());
    }

    #[test]
    fn a_verdict_is_not_retried() {
        let mut plan = chain(&[("a", &[])]);
        plan.nodes[0].stage.retry.attempts = 5;
        let key = plan.nodes[0].key.clone();
        let state =
            transition(&plan, &started(&plan), &at(Event::AttemptStarted { node: key.clone(), attempt: 1 })).unwrap();
        let end = Event::AttemptEnded { node: key, attempt: 1, outcome: failed(FailureKind::Verdict) };
        let state = transition(&plan, &state, &at(end)).unwrap();
        assert!(matches!(state.stages[0], StageStatus::Failed { .. }));
    }

    #[test]
    fn a_milder_cancellation_does_not_replace_a_harder_one() {
        let plan = chain(&[("a", &[])]);
        let cancel =
            |state: &BuildState, reason| transition(&plan, state, &at(Event::CancelRequested { reason })).unwrap();
        let state = cancel(&started(&plan), CancelReason::Kill);
        assert_eq!(cancel(&state, CancelReason::Superseded).cancel, Some(CancelReason::Kill));
    }

    /// Plans of up to seven stages, each needing some of those before it.
    fn plans() -> impl Strategy<Value = Plan> {
        let stages = prop::collection::vec((any::<u8>(), 0..3u8, any::<bool>(), 1..3u32), 1..8);
        stages.prop_map(|stages| {
            let nodes = stages.into_iter().enumerate().map(|(index, (needs, when, allow_failure, attempts))| {
                let needs = (0..index).filter(|other| needs & (1 << other) != 0).collect();
                let mut node = stage(&format!("s{index}"), needs);
                node.stage.when.status =
                    [WhenStatus::Success, WhenStatus::Failure, WhenStatus::Always][usize::from(when)];
                node.stage.allow_failure = allow_failure;
                node.stage.retry.attempts = attempts;
                node
            });
            Plan { nodes: nodes.collect() }
        })
    }

    fn outcome(choice: u8) -> Outcome {
        match choice % 4 {
            0 | 1 => Outcome::Succeeded,
            2 => failed(FailureKind::Exit),
            _ => Outcome::Interrupted { detail: "killed".to_owned() },
        }
    }

    proptest! {
        /// Whatever happens, every action is legal, every build ends, and replaying its history gives its state.
        #[test]
        fn every_build_ends_and_its_history_tells_its_state(
            plan in plans(),
            choices in prop::collection::vec(any::<u8>(), 200),
            cancel_at in prop::option::of(0..40usize),
        ) {
            let mut history = Vec::new();
            let mut state = BuildState::new(plan.nodes.len());
            let mut choices = choices.into_iter();
            let mut step = 0;
            while !state.status.is_terminal() {
                step += 1;
                prop_assert!(step < 500, "it does not end: {state:?}");
                let mut events = Vec::new();
                if cancel_at == Some(step) {
                    events.push(Event::CancelRequested { reason: CancelReason::User });
                }
                for action in next_actions(&plan, &state, Micros(step as i64)) {
                    let key = |node: usize| plan.nodes[node].key.clone();
                    match action {
                        Action::Begin => events.push(Event::BuildStarted),
                        Action::End(result) => events.push(Event::BuildEnded { result }),
                        Action::Skip { node, reason } => events.push(Event::StageSkipped { node: key(node), reason }),
                        Action::Cancel { node, reason } => events.push(Event::StageCancelled { node: key(node), reason }),
                        Action::Start { node, attempt } => {
                            events.push(Event::AttemptStarted { node: key(node), attempt });
                        }
                        Action::Stop { .. } | Action::WakeAt(_) => {}
                    }
                }
                let begun = events.is_empty();
                if begun {
                    // Nothing to start: something that runs ends.
                    let running = state.stages.iter().position(|stage| matches!(stage, StageStatus::Running { .. }));
                    if let Some(node) = running {
                        let StageStatus::Running { attempt, .. } = state.stages[node] else { unreachable!() };
                        let outcome = outcome(choices.next().unwrap_or(0));
                        events.push(Event::AttemptEnded { node: plan.nodes[node].key.clone(), attempt, outcome });
                    }
                }
                for event in events {
                    let stamped = Stamped { at: Micros(step as i64), event };
                    // A cancellation may have made a start moot: the driver looks again after each commit.
                    let Ok(next) = transition(&plan, &state, &stamped) else {
                        prop_assert!(false, "illegal: {:?} in {:?}", stamped, state);
                        unreachable!()
                    };
                    state = next;
                    history.push(stamped);
                }
            }
            prop_assert!(state.stages.iter().all(StageStatus::is_terminal));
            prop_assert_eq!(&replay(&plan, &history).unwrap(), &state);
            let after = Stamped { at: Micros(0), event: Event::BuildStarted };
            prop_assert!(transition(&plan, &state, &after).is_err());
            for (index, node) in plan.nodes.iter().enumerate() {
                if state.stages[index].is_good() && node.stage.when.status == WhenStatus::Success {
                    for &need in &node.needs {
                        let allowed = plan.nodes[need].stage.allow_failure;
                        prop_assert!(state.stages[need].is_good() || allowed);
                    }
                }
            }
        }
    }
}
