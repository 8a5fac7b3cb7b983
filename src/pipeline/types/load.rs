//! `loadtest`.

use std::time::Duration;

use indexmap::IndexMap;

use super::http::{Expect, HttpRequest};

/// `loadtest`.
#[derive(Debug, Clone, PartialEq)]
pub struct Loadtest {
    /// Who makes the load.
    pub generator: Generator,
    /// The contract: one request of each kind that must pass before load starts. For the built-in engine its own
    /// scenario; for Locust and k6 what `scenario` says, if given.
    pub scenario: Vec<ScenarioItem>,
    /// How long load is counted.
    pub duration: Duration,
    /// From none to all users or the whole rate.
    pub ramp_up: Duration,
    /// Load before counting starts.
    pub warmup: Duration,
    /// Of one request.
    pub request_timeout: Duration,
    /// For all requests together.
    pub thresholds: Vec<Threshold>,
    /// By request name.
    pub request_thresholds: IndexMap<String, Vec<Threshold>>,
}

/// Who makes the load, and its model.
#[derive(Debug, Clone, PartialEq)]
pub enum Generator {
    /// Closed model: each user waits for its answer, then sends the next.
    Users(u32),
    /// Open model: requests a second, sent at their times whatever comes back.
    Rate {
        /// Requests a second.
        per_second: f64,
        /// Requests under way at once, at most.
        max_in_flight: u32,
    },
    /// Locust, headless.
    Locust {
        /// Path of the script.
        file: String,
        /// Users.
        users: u32,
        /// Users started in a second.
        spawn_rate: f64,
    },
    /// k6 with its JSON summary.
    K6 {
        /// Path of the script.
        file: String,
        /// Users.
        users: u32,
    },
}

/// One kind of request under load.
#[derive(Debug, Clone, PartialEq)]
pub struct ScenarioItem {
    /// `METHOD /path` unless named.
    pub name: String,
    /// What is sent.
    pub request: HttpRequest,
    /// Share among the kinds.
    pub weight: u32,
    /// What counts as a good answer: 2xx unless said.
    pub expect: Expect,
}

/// One gate on a load test's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// What is measured.
    pub metric: LoadMetric,
    /// Which side is good.
    pub comparison: Comparison,
    /// In the metric's unit: a share in 0..=1, seconds, or requests a second.
    pub limit: f64,
    /// As written, for messages.
    pub text: String,
}

/// What a threshold looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LoadMetric {
    /// Failed share of all requests.
    FailureRate,
    /// Latency (seconds) at this quantile in (0, 1), over good answers.
    Quantile(f64),
    /// Longest latency, in seconds.
    Max,
    /// Good answers a second.
    Rps,
}

/// `<`, `<=`, `>`, `>=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}
