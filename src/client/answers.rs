//! What the command line reads of the API's answers. Fields that it does not show are passed over, so that a newer server is
//! understood.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A page of a list.
#[derive(Debug, Deserialize)]
pub struct Page<T> {
    /// The rows, newest first.
    pub items: Vec<T>,
}

/// A build in a list.
#[derive(Debug, Deserialize)]
pub struct Build {
    /// Its number.
    pub id: u64,
    /// Whose.
    pub project: String,
    /// Its status in a word.
    pub status: String,
    /// What it waits for.
    pub waits_for: Option<String>,
    /// The commit.
    pub commit: Option<String>,
    /// When it was accepted, in microseconds since 1970, as every `*_at`.
    pub created_at: i64,
    /// When work began.
    pub started_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
}

impl Build {
    /// It has ended.
    pub fn over(&self) -> bool {
        matches!(self.status.as_str(), "passed" | "failed" | "cancelled")
    }
}

/// A build with its stages.
#[derive(Debug, Deserialize)]
pub struct BuildDetail {
    /// The build.
    #[serde(flatten)]
    pub build: Build,
    /// Why a person has to agree before it begins.
    pub awaits: Option<String>,
    /// Its stages in order.
    pub stages: Vec<Stage>,
    /// Who was told of it, and who could not be.
    pub reports: Vec<Telling>,
}

/// How far it came to tell one receiver.
#[derive(Debug, Deserialize)]
pub struct Telling {
    /// `github-status`, `notify.NAME`, ...
    pub channel: String,
    /// Why the last try failed.
    pub problem: Option<String>,
}

/// A stage.
#[derive(Debug, Deserialize)]
pub struct Stage {
    /// Its name.
    pub node: String,
    /// Its kind.
    pub kind: String,
    /// Its status in a word.
    pub status: String,
    /// Why, in a sentence.
    pub reason: Option<String>,
    /// The build whose result stands for it.
    pub reused_from: Option<u64>,
    /// Its tries.
    pub attempts: Vec<Attempt>,
    /// Numbers of its result.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// The model version that it registered.
    pub version: Option<u64>,
}

/// A try of a stage.
#[derive(Debug, Deserialize)]
pub struct Attempt {
    /// From 1.
    pub attempt: u32,
    /// When it began.
    pub started_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// What its kind found out.
    #[serde(default)]
    pub reports: BTreeMap<String, Value>,
}

/// A piece of a log.
#[derive(Debug, Deserialize)]
pub struct Piece {
    /// The lines.
    pub lines: Vec<Line>,
}

/// A line of a log.
#[derive(Debug, Deserialize)]
pub struct Line {
    /// Counted from 0.
    pub number: u64,
    /// When it was written.
    pub at: i64,
    /// `stdout`, `stderr` or `note`.
    pub stream: crate::logs::Stream,
    /// The step.
    pub step: Option<u32>,
    /// The text.
    pub text: String,
    /// The stream's next line goes on with it.
    #[serde(default)]
    pub continued: bool,
}

impl From<Line> for crate::logs::Line {
    fn from(line: Line) -> Self {
        let Line { number, at, stream, step, text, continued } = line;
        Self { number, at: crate::ids::Micros(at), stream, step, text, continued }
    }
}

/// What happened to a project.
#[derive(Debug, Deserialize)]
pub struct Trigger {
    /// Its number.
    pub id: u64,
    /// The project.
    pub project: String,
    /// How it came to be known.
    pub source: String,
    /// What was seen or asked for.
    #[serde(default)]
    pub subject: Value,
    /// When.
    pub received_at: i64,
    /// What came of it; none while it is open.
    pub decision: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Builds that it started.
    #[serde(default)]
    pub builds: Vec<u64>,
}

/// A webhook call.
#[derive(Debug, Deserialize)]
pub struct Delivery {
    /// Its number.
    pub id: u64,
    /// The sender's word for what happened.
    pub event: String,
    /// The sender's own id of it.
    pub delivery: String,
    /// Bytes of its body.
    pub size: u64,
    /// When.
    pub received_at: i64,
    /// What came of it.
    #[serde(default)]
    pub triggers: Vec<Trigger>,
}

/// The queue.
#[derive(Debug, Deserialize)]
pub struct Queue {
    /// Why it is paused.
    pub paused: Option<String>,
    /// Who waits.
    pub waiting: Vec<Waiting>,
    /// How many wait in all.
    pub count: usize,
}

/// A build that waits.
#[derive(Debug, Deserialize)]
pub struct Waiting {
    /// The build.
    pub build: u64,
    /// Whose.
    pub project: String,
    /// For what.
    pub waits_for: String,
}

/// A token, without itself.
#[derive(Debug, Deserialize)]
pub struct Token {
    /// Its number.
    pub id: u64,
    /// What it is called.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<String>,
    /// For which projects.
    pub projects: Option<Vec<String>>,
    /// Who made it.
    pub made_by: String,
    /// When it ends.
    pub expires_at: Option<i64>,
    /// When it was last used.
    pub used_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}
