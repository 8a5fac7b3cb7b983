//! What can happen to a build. Events are stored; replaying them gives the stored state.

use serde::{Deserialize, Serialize};

use super::status::{BuildStatus, CancelReason, Outcome};
use crate::ids::{BuildId, Micros, NodeKey};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Work on the build began.
    BuildStarted,
    /// Someone wants it to end.
    CancelRequested {
        /// Why.
        reason: CancelReason,
    },
    /// A stage does not run.
    StageSkipped {
        /// Which.
        node: NodeKey,
        /// Why, for people.
        reason: String,
    },
    /// An earlier good result stands for a stage.
    StageReused {
        /// Which.
        node: NodeKey,
        /// The build that made it.
        from: BuildId,
    },
    /// A stage that had no attempt under way was cancelled.
    StageCancelled {
        /// Which.
        node: NodeKey,
        /// Why.
        reason: CancelReason,
    },
    /// An attempt began: from here on its unit may exist, not yet started.
    AttemptStarted {
        /// Which stage.
        node: NodeKey,
        /// From 1.
        attempt: u32,
    },
    /// Its unit exists and is about to be started.
    AttemptLaunched {
        /// Which stage.
        node: NodeKey,
        /// From 1.
        attempt: u32,
    },
    /// It ended.
    AttemptEnded {
        /// Which stage.
        node: NodeKey,
        /// From 1.
        attempt: u32,
        /// How.
        outcome: Outcome,
    },
    /// Every stage has ended.
    BuildEnded {
        /// How.
        result: BuildStatus,
    },
    /// A person wants stages of a build that has ended to run again. The build is queued anew.
    Retried {
        /// Which, each with the last attempt that it had (0 for none).
        nodes: Vec<(NodeKey, u32)>,
        /// Who.
        actor: String,
    },
}

impl Event {
    /// The node it speaks of.
    pub fn node(&self) -> Option<&NodeKey> {
        match self {
            Event::BuildStarted | Event::CancelRequested { .. } | Event::BuildEnded { .. } | Event::Retried { .. } => {
                None
            }
            Event::StageSkipped { node, .. }
            | Event::StageReused { node, .. }
            | Event::StageCancelled { node, .. }
            | Event::AttemptStarted { node, .. }
            | Event::AttemptLaunched { node, .. }
            | Event::AttemptEnded { node, .. } => Some(node),
        }
    }
}

/// An event with its moment, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    /// When.
    pub at: Micros,
    /// What.
    pub event: Event,
}
