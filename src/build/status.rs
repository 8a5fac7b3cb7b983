//! The statuses of builds and stages. Data lives in the variant that needs it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{BuildId, Micros};

/// Why something was cancelled, from mild to severe. A milder reason never replaces a more severe one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CancelReason {
    /// A newer build of the same concurrency group took its place.
    Superseded,
    /// Its pull request was closed.
    Closed,
    /// A person asked for it (also SIGINT and SIGTERM of `orchestrator run`).
    User,
    /// The build's own time limit.
    Timeout,
    /// The host is being shut down for good.
    Shutdown,
    /// A person asked twice: nothing is waited for, clean-up stages do not run.
    Kill,
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CancelReason::Superseded => "superseded by a newer build",
            CancelReason::Closed => "its pull request was closed",
            CancelReason::User => "cancelled by the user",
            CancelReason::Timeout => "the build's time limit",
            CancelReason::Shutdown => "the host was shut down",
            CancelReason::Kill => "killed by the user",
        })
    }
}

/// What failed, so that callers and people can tell whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// A script or command ended with a code other than 0.
    Exit,
    /// The attempt took longer than `timeout`.
    Timeout,
    /// Killed at the memory limit.
    OutOfMemory,
    /// A declared output was not there, or was refused.
    Output,
    /// The image could not be had or built, or the command not started.
    Image,
    /// The model API did not get ready, or died.
    Serve,
    /// A check of the API failed.
    Check,
    /// The contract check before a load test failed.
    Contract,
    /// The load test failed its thresholds.
    Load,
    /// The load test proves nothing (generator saturated, too few samples).
    LoadInvalid,
    /// A training's files are missing or wrong, or the data cannot be trained on.
    Train,
    /// The verdict of a promotion, where `fail_on` names it.
    Verdict,
    /// The evidence of a promotion is contradictory, or the deployment failed.
    Promote,
    /// A secret that the stage names is not given to it.
    Secrets,
    /// The pipeline asks for what this runner does not have.
    Unsupported,
    /// The machine or engine was lost, and `on_interrupt: fail` (or promote's own rule) forbids another attempt.
    Interrupted,
    /// The engine could not be reached.
    Engine,
    /// Our own fault or the host's: disk, database, a bug.
    Internal,
}

impl FailureKind {
    /// Whether the pipeline or its code is to be mended, and not the host.
    pub fn is_users(self) -> bool {
        match self {
            FailureKind::Exit
            | FailureKind::Timeout
            | FailureKind::OutOfMemory
            | FailureKind::Output
            | FailureKind::Image
            | FailureKind::Serve
            | FailureKind::Check
            | FailureKind::Contract
            | FailureKind::Load
            | FailureKind::LoadInvalid
            | FailureKind::Secrets
            | FailureKind::Train
            | FailureKind::Verdict
            | FailureKind::Promote
            | FailureKind::Unsupported => true,
            FailureKind::Interrupted | FailureKind::Engine | FailureKind::Internal => false,
        }
    }
}

/// A failure, in a word and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What failed.
    pub kind: FailureKind,
    /// One sentence: what happened, where, what to do.
    pub message: String,
    /// The exit code where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
}

impl Failure {
    /// A failure without an exit code.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), code: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Outcome {
    /// Well.
    Succeeded,
    /// Not well.
    Failed {
        /// What failed.
        failure: Failure,
    },
    /// It was stopped on purpose.
    Cancelled {
        /// Why.
        reason: CancelReason,
    },
    /// The process that looked after it, or its engine, went away in the middle, and the attempt cannot be taken up again.
    Interrupted {
        /// What was found.
        detail: String,
    },
}

/// Where a stage stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum StageStatus {
    /// It waits for what it needs.
    Waiting,
    /// A person wants it to run again: it waits for what it needs, as at first.
    Again {
        /// The last attempt that ended; 0 if it had none.
        attempt: u32,
    },
    /// An attempt is under way.
    Running {
        /// Its number, from 1.
        attempt: u32,
        /// Its unit is about to be started or has been: from here on only the unit can tell what happened.
        launched: bool,
    },
    /// The next attempt waits for its time.
    Delayed {
        /// The attempt that ended.
        attempt: u32,
        /// When the next may start.
        until: Micros,
    },
    /// It ended well.
    Succeeded {
        /// By which attempt.
        attempt: u32,
    },
    /// An earlier good result stands for it.
    Reused {
        /// The build that made it.
        from: BuildId,
    },
    /// It failed for good.
    Failed {
        /// The last attempt.
        attempt: u32,
        /// Why.
        failure: Failure,
    },
    /// It does not run in this build; not a failure.
    Skipped {
        /// Why, for people.
        reason: String,
    },
    /// It was cancelled.
    Cancelled {
        /// Why.
        reason: CancelReason,
    },
}

impl StageStatus {
    /// Nothing more will happen to it.
    pub fn is_terminal(&self) -> bool {
        match self {
            StageStatus::Waiting
            | StageStatus::Again { .. }
            | StageStatus::Running { .. }
            | StageStatus::Delayed { .. } => false,
            StageStatus::Succeeded { .. }
            | StageStatus::Reused { .. }
            | StageStatus::Failed { .. }
            | StageStatus::Skipped { .. }
            | StageStatus::Cancelled { .. } => true,
        }
    }

    /// The last attempt of a stage that failed for good, and why.
    pub fn failure(&self) -> Option<(u32, &Failure)> {
        if let StageStatus::Failed { attempt, failure } = self { Some((*attempt, failure)) } else { None }
    }

    /// Why it was cancelled, if it was.
    pub fn cancelled(&self) -> Option<CancelReason> {
        if let StageStatus::Cancelled { reason } = self { Some(*reason) } else { None }
    }

    /// Its outputs are there for others.
    pub fn is_good(&self) -> bool {
        matches!(self, StageStatus::Succeeded { .. } | StageStatus::Reused { .. })
    }

    /// One word, as stored and shown.
    pub fn word(&self) -> &'static str {
        match self {
            StageStatus::Waiting | StageStatus::Again { .. } => "waiting",
            StageStatus::Running { .. } => "running",
            StageStatus::Delayed { .. } => "delayed",
            StageStatus::Succeeded { .. } => "succeeded",
            StageStatus::Reused { .. } => "reused",
            StageStatus::Failed { .. } => "failed",
            StageStatus::Skipped { .. } => "skipped",
            StageStatus::Cancelled { .. } => "cancelled",
        }
    }
}

/// Where a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum BuildStatus {
    /// Accepted, not begun.
    Queued,
    /// Begun.
    Running,
    /// Every stage ended well, was skipped, or was allowed to fail.
    Passed,
    /// A stage failed.
    Failed,
    /// It was cancelled.
    Cancelled {
        /// Why.
        reason: CancelReason,
    },
}

impl BuildStatus {
    /// Nothing more will happen to it.
    pub fn is_terminal(self) -> bool {
        match self {
            BuildStatus::Queued | BuildStatus::Running => false,
            BuildStatus::Passed | BuildStatus::Failed | BuildStatus::Cancelled { .. } => true,
        }
    }

    /// One word, as stored and shown.
    pub fn word(self) -> &'static str {
        match self {
            BuildStatus::Queued => "queued",
            BuildStatus::Running => "running",
            BuildStatus::Passed => "passed",
            BuildStatus::Failed => "failed",
            BuildStatus::Cancelled { .. } => "cancelled",
        }
    }
}

/// A build's whole state: all that the rules look at beside the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildState {
    /// The build's status.
    pub status: BuildStatus,
    /// The most severe cancellation asked for so far.
    pub cancel: Option<CancelReason>,
    /// One status for each node of the plan, in the plan's order.
    pub stages: Vec<StageStatus>,
}

impl BuildState {
    /// A build that was just accepted.
    pub fn new(nodes: usize) -> Self {
        Self { status: BuildStatus::Queued, cancel: None, stages: vec![StageStatus::Waiting; nodes] }
    }
}
