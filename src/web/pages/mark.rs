//! How something stands: a shape and a word, so that nobody needs the colour. PURE.

use std::fmt;

use askama::filters::HtmlSafe;

use crate::build::status::{BuildStatus, Outcome, StageStatus};

/// A state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// One of the symbols in `symbols.html`, and the class of its colour.
    pub shape: &'static str,
    /// As people say it.
    pub word: &'static str,
}

impl Mark {
    const fn new(shape: &'static str, word: &'static str) -> Self {
        Self { shape, word }
    }

    /// The symbol of what went wrong, where words stand beside it.
    pub const BAD: Symbol = Symbol("failed");

    /// The symbol of what waits for a person or was cut short, where words stand beside it.
    pub const HELD: Symbol = Symbol("held");

    /// The symbols of who has a place, and of who waits for one.
    pub const BUSY: Symbol = Symbol("running");
    /// See [`Mark::BUSY`].
    pub const IDLE: Symbol = Symbol("waiting");

    /// Of a build; one that waits for a person says so.
    pub fn build(status: BuildStatus, awaits: bool) -> Self {
        match status {
            BuildStatus::Queued if awaits => Self::new("held", "needs approval"),
            BuildStatus::Queued => Self::new("waiting", "queued"),
            BuildStatus::Running => Self::new("running", "running"),
            BuildStatus::Passed => Self::new("passed", "passed"),
            BuildStatus::Failed => Self::new("failed", "failed"),
            BuildStatus::Cancelled { .. } => Self::new("cancelled", "cancelled"),
        }
    }

    /// Of a stage.
    pub fn stage(status: &StageStatus) -> Self {
        match status {
            StageStatus::Waiting | StageStatus::Again { .. } => Self::new("waiting", "waiting"),
            StageStatus::Running { .. } => Self::new("running", "running"),
            StageStatus::Delayed { .. } => Self::new("held", "delayed"),
            StageStatus::Succeeded { .. } => Self::new("passed", "passed"),
            StageStatus::Reused { .. } => Self::new("reused", "reused"),
            StageStatus::Failed { .. } => Self::new("failed", "failed"),
            StageStatus::Skipped { .. } => Self::new("skipped", "skipped"),
            StageStatus::Cancelled { .. } => Self::new("cancelled", "cancelled"),
        }
    }

    /// Of one attempt.
    pub fn attempt(outcome: Option<&Outcome>) -> Self {
        match outcome {
            None => Self::new("running", "running"),
            Some(Outcome::Succeeded) => Self::new("passed", "passed"),
            Some(Outcome::Failed { .. }) => Self::new("failed", "failed"),
            Some(Outcome::Cancelled { .. }) => Self::new("cancelled", "cancelled"),
            Some(Outcome::Interrupted { .. }) => Self::new("held", "interrupted"),
        }
    }

    /// Of a verdict over a model, as it is stored.
    pub fn verdict(word: &str) -> Self {
        match word {
            "promoted" => Self::new("passed", "promoted"),
            "rejected" => Self::new("failed", "rejected"),
            "inconclusive" => Self::new("held", "inconclusive"),
            "held" => Self::new("held", "waits for a person"),
            "unchanged" => Self::new("reused", "unchanged"),
            "rolled-back" => Self::new("held", "rolled back"),
            _ => Self::new("failed", "error"),
        }
    }

    /// The class of a notice about it: what was cancelled or interrupted is no failure.
    pub fn notice(self) -> &'static str {
        match self.shape {
            "failed" => "failed",
            _ => "held",
        }
    }

    /// The symbol alone; the word stands beside it or in a title.
    pub fn symbol(self) -> Symbol {
        Symbol(self.shape)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shape, word } = self;
        write!(f, "<span class=\"mark {shape}\">{}{word}</span>", Symbol(shape))
    }
}

/// A symbol without its word.
#[derive(Debug, Clone, Copy)]
pub struct Symbol(&'static str);

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = self.0;
        write!(
            f,
            "<svg class=\"symbol {shape}\" viewBox=\"0 0 16 16\" aria-hidden=\"true\"><use href=\"#m-{shape}\"/></svg>"
        )
    }
}

/// Made of our own words.
impl HtmlSafe for Mark {}
impl HtmlSafe for Symbol {}
