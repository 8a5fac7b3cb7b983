//! What one transaction of a build's driver holds beside its events: rows that belong to them, and events that follow from them.

use super::EngineError;
use super::attempt::Reports;
use super::drive::Build;
use crate::build::event::{Event, Stamped};
use crate::build::next::{Action, next_actions};
use crate::build::plan::Plan;
use crate::build::status::{BuildState, Outcome};
use crate::build::transition::transition;
use crate::ids::{Micros, NodeKey};
use crate::store::attempts::{self, NewAttempt, StepRow};
use crate::store::models::NewVersion;
use crate::store::results::ResultRow;
use crate::store::{StoreError, Tx, models, results};

/// Adds what follows from events without anything being done: skipped stages, and the end of the build. So the last stage's
/// end and the build's are one commit.
pub(super) fn follow_up(
    plan: &Plan,
    mut state: BuildState,
    events: &mut Vec<Stamped>,
    at: Micros,
) -> Result<BuildState, EngineError> {
    loop {
        let mut more = Vec::new();
        for action in next_actions(plan, &state, at) {
            match action {
                Action::End(result) => more.push(Event::BuildEnded { result }),
                Action::Skip { node, reason } => {
                    more.push(Event::StageSkipped { node: plan.nodes[node].key.clone(), reason });
                }
                Action::Begin
                | Action::Start { .. }
                | Action::Cancel { .. }
                | Action::Stop { .. }
                | Action::WakeAt(_) => {}
            }
        }
        if more.is_empty() {
            return Ok(state);
        }
        for event in more {
            let event = Stamped { at, event };
            state = transition(plan, &state, &event)?;
            events.push(event);
        }
    }
}

/// What is stored together with an event.
#[derive(Debug, Clone, Default)]
pub(super) struct Also {
    /// The attempt that begins.
    pub(super) attempt: Option<NewAttempt>,
    /// The attempt whose unit is about to be started, with what was found out before.
    pub(super) launched: Option<(NodeKey, u32, Reports)>,
    /// The attempt that has ended: how, its steps, what its kind found out.
    pub(super) ended: Option<(NodeKey, u32, Outcome, Vec<StepRow>, Reports)>,
    /// The model version that it made.
    pub(super) version: Option<NewVersion>,
    /// Its result.
    pub(super) result: Option<ResultRow>,
}

impl Also {
    /// Writes it in the event's transaction.
    pub(super) fn write(self, tx: &Tx, build: &Build, at: Micros) -> Result<(), StoreError> {
        if let Some(new) = &self.attempt {
            attempts::create(tx, new)?;
        }
        if let Some((node, attempt, reports)) = &self.launched {
            attempts::launched(tx, (build.id, node, *attempt), reports, at)?;
        }
        if let Some((node, attempt, outcome, steps, reports)) = &self.ended {
            attempts::ended(tx, (build.id, node, *attempt), outcome, steps, reports, at)?;
        }
        if let Some(mut result) = self.result {
            if let Some(version) = &self.version {
                result.version = Some(models::register(tx, version, at)?);
            }
            results::create(tx, &build.scope(), &result)?;
        }
        Ok(())
    }
}
