//! What a load test is to do, in full: the language's `loadtest` with a target and its files filled in.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use indexmap::IndexMap;

use crate::load::report::LoadModel;
use crate::load::schedule::Timeline;
use crate::load::target::Target;
use crate::pipeline::types::{Body, Generator, Loadtest, ScenarioItem, Threshold};

/// The scenario's bodies: for each file that `json_lines` names, its documents.
pub type JsonLines = BTreeMap<String, Vec<Bytes>>;

/// Longest JSON-lines file that is taken, in bytes.
pub const MAX_JSON_LINES_BYTES: usize = 256 * 1024 * 1024;

/// Most users, or unanswered requests.
pub const MAX_CONNECTIONS: u32 = 50_000;

/// Most kinds of request in a scenario: a histogram is kept for each.
pub const MAX_KINDS: usize = 200;

/// A whole load test for the built-in engine.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// The server.
    pub target: Target,
    /// The kinds of request.
    pub scenario: Vec<ScenarioItem>,
    /// Bodies by file.
    pub json_lines: JsonLines,
    /// How load is put on.
    pub model: LoadModel,
    /// From none to all users or the whole rate; not counted.
    pub ramp_up: Duration,
    /// Full load after it that is not counted.
    pub warmup: Duration,
    /// What counts.
    pub duration: Duration,
    /// Of one request, from sending to the last byte; connecting included.
    pub request_timeout: Duration,
    /// For all requests together.
    pub thresholds: Vec<Threshold>,
    /// By request name.
    pub request_thresholds: IndexMap<String, Vec<Threshold>>,
    /// Whether one request of each kind must pass before load starts.
    pub contract: bool,
    /// Threads of the generator; `None`: half of the processors, so that a server on this machine has room.
    pub threads: Option<NonZeroUsize>,
    /// Where in the mix of requests it starts.
    pub seed: u64,
}

/// A plan that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// For a foreign tool.
    #[error("this load test is for {0}, not for the built-in engine")]
    Foreign(&'static str),
    /// No request.
    #[error("the load test's scenario is empty: name at least one request")]
    Empty,
    /// Too many kinds.
    #[error("the load test's scenario has {0} kinds of request; at most {MAX_KINDS} are possible")]
    TooManyKinds(usize),
    /// Two of one name.
    #[error("two requests of the scenario are called `{0}`: give one of them another `name`")]
    SameName(String),
    /// A gate for nothing.
    #[error("there are thresholds for `{name}`, but the scenario's requests are {known}")]
    UnknownName {
        /// As written.
        name: String,
        /// What there is.
        known: String,
    },
    /// A file that was not read.
    #[error("the request bodies `{0}` were not loaded")]
    MissingLines(String),
    /// A file without documents.
    #[error("`{0}` holds no request body: it needs one JSON document a line")]
    NoLines(String),
    /// Not JSON.
    #[error("`{file}` line {line} is not JSON: {reason}")]
    BadLine {
        /// The file.
        file: String,
        /// From 1.
        line: usize,
        /// The parser's word.
        reason: String,
    },
    /// Too large.
    #[error("`{file}` has {bytes} bytes; request bodies may have {} MiB", MAX_JSON_LINES_BYTES / 1024 / 1024)]
    TooManyBytes {
        /// The file.
        file: String,
        /// Its size.
        bytes: usize,
    },
    /// Outside of what can be.
    #[error("{what} must be between {least} and {most}")]
    Bounds {
        /// What of.
        what: &'static str,
        /// Lowest.
        least: String,
        /// Highest.
        most: String,
    },
}

impl LoadPlan {
    /// A stage's load test against a target.
    ///
    /// # Errors
    /// [`PlanError`] if the stage is for another tool, or the parts do not fit together.
    pub fn from_stage(stage: &Loadtest, target: Target, json_lines: JsonLines) -> Result<Self, PlanError> {
        let model = match &stage.generator {
            Generator::Users(users) => LoadModel::Closed { users: *users },
            Generator::Rate { per_second, max_in_flight } => {
                LoadModel::Open { per_second: *per_second, max_in_flight: *max_in_flight }
            }
            Generator::Locust { .. } => return Err(PlanError::Foreign("Locust")),
            Generator::K6 { .. } => return Err(PlanError::Foreign("k6")),
        };
        let plan = Self {
            target,
            scenario: stage.scenario.clone(),
            json_lines,
            model,
            ramp_up: stage.ramp_up,
            warmup: stage.warmup,
            duration: stage.duration,
            request_timeout: stage.request_timeout,
            thresholds: stage.thresholds.clone(),
            request_thresholds: stage.request_thresholds.clone(),
            contract: true,
            threads: None,
            seed: 0,
        };
        plan.check()?;
        Ok(plan)
    }

    /// Whether the parts fit together.
    ///
    /// # Errors
    /// The first [`PlanError`].
    pub fn check(&self) -> Result<(), PlanError> {
        if self.scenario.is_empty() {
            return Err(PlanError::Empty);
        }
        if self.scenario.len() > MAX_KINDS {
            return Err(PlanError::TooManyKinds(self.scenario.len()));
        }
        for (index, item) in self.scenario.iter().enumerate() {
            if self.scenario[..index].iter().any(|other| other.name == item.name) {
                return Err(PlanError::SameName(item.name.clone()));
            }
            self.lines(item)?;
        }
        for name in self.request_thresholds.keys() {
            if !self.scenario.iter().any(|item| item.name == *name) {
                let known: Vec<String> = self.scenario.iter().map(|item| format!("`{}`", item.name)).collect();
                return Err(PlanError::UnknownName { name: name.clone(), known: known.join(", ") });
            }
        }
        self.check_bounds()
    }

    fn check_bounds(&self) -> Result<(), PlanError> {
        let bounds = |what, good: bool, least: &str, most: String| {
            if good { Ok(()) } else { Err(PlanError::Bounds { what, least: least.to_owned(), most }) }
        };
        let connections = 1..=MAX_CONNECTIONS;
        match self.model {
            LoadModel::Closed { users } => {
                bounds("users", connections.contains(&users), "1", MAX_CONNECTIONS.to_string())?;
            }
            LoadModel::Open { per_second, max_in_flight } => {
                let good = per_second.is_finite() && (0.001..=1e6).contains(&per_second);
                bounds("rate", good, "0.001/s", "1000000/s".to_owned())?;
                bounds("max_in_flight", connections.contains(&max_in_flight), "1", MAX_CONNECTIONS.to_string())?;
            }
        }
        let millisecond = Duration::from_millis(1);
        let day = Duration::from_secs(24 * 3600);
        bounds("duration", (millisecond..=day).contains(&self.duration), "1ms", "24h".to_owned())?;
        bounds("ramp_up", self.ramp_up <= day, "0s", "24h".to_owned())?;
        bounds("warmup", self.warmup <= day, "0s", "24h".to_owned())?;
        let hour = Duration::from_secs(3600);
        bounds("timeout", (millisecond..=hour).contains(&self.request_timeout), "1ms", "1h".to_owned())
    }

    /// The bodies of a request that takes them from a file; none for others.
    ///
    /// # Errors
    /// [`PlanError`] if its file was not loaded or is empty.
    pub fn lines(&self, item: &ScenarioItem) -> Result<&[Bytes], PlanError> {
        lines_of(&self.json_lines, item)
    }

    /// Its phases.
    pub fn timeline(&self) -> Timeline {
        Timeline::new(self.ramp_up, self.warmup, self.duration)
    }

    /// Most connections at once.
    pub fn connections(&self) -> u32 {
        match self.model {
            LoadModel::Closed { users } => users,
            LoadModel::Open { max_in_flight, .. } => max_in_flight,
        }
    }
}

/// The bodies of a request that takes them from a file; none for others.
///
/// # Errors
/// [`PlanError`] if its file was not loaded or is empty.
pub fn lines_of<'a>(json_lines: &'a JsonLines, item: &ScenarioItem) -> Result<&'a [Bytes], PlanError> {
    match &item.request.body {
        Body::JsonLines(file) => match json_lines.get(file) {
            None => Err(PlanError::MissingLines(file.clone())),
            Some(lines) if lines.is_empty() => Err(PlanError::NoLines(file.clone())),
            Some(lines) => Ok(lines),
        },
        Body::None | Body::Json(_) | Body::Text(_) | Body::Form(_) => Ok(&[]),
    }
}

/// Splits a file of one JSON document a line; empty lines are left out. The lines share the file's memory.
///
/// # Errors
/// [`PlanError`] if a line is not JSON, or nothing is there, or it is too large.
pub fn split_json_lines(file: &str, content: &Bytes) -> Result<Vec<Bytes>, PlanError> {
    if content.len() > MAX_JSON_LINES_BYTES {
        return Err(PlanError::TooManyBytes { file: file.to_owned(), bytes: content.len() });
    }
    let mut lines = Vec::new();
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(line) {
            return Err(PlanError::BadLine { file: file.to_owned(), line: index + 1, reason: error.to_string() });
        }
        lines.push(content.slice_ref(line));
    }
    if lines.is_empty() { Err(PlanError::NoLines(file.to_owned())) } else { Ok(lines) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_are_checked_before_load_starts() {
        let split = |text: &'static str| split_json_lines("r.jsonl", &Bytes::from_static(text.as_bytes()));
        assert_eq!(split("{\"a\":1}\r\n\n [2] \n").unwrap(), [&b"{\"a\":1}"[..], b"[2]"]);
        assert_eq!(split("\n \n"), Err(PlanError::NoLines("r.jsonl".to_owned())));
        let error = split("{}\n\n{oops}\n").unwrap_err();
        assert!(error.to_string().starts_with("`r.jsonl` line 3 is not JSON: "), "{error}");
    }
}
