//! `promote`.

use indexmap::IndexMap;

/// `promote`.
#[derive(Debug, Clone, PartialEq)]
pub struct Promote {
    /// Registry name.
    pub model: String,
    /// Metrics on which the candidate must win, all of them.
    pub better_if: IndexMap<String, BetterIf>,
    /// Metrics that must not get worse.
    pub guardrails: IndexMap<String, Guardrail>,
    /// Findings that fail the build.
    pub fail_on: Vec<Finding>,
    /// Wait for a person.
    pub approval_manual: bool,
    /// How the champion is deployed.
    pub deploy: Deploy,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// More is better.
    Maximize,
    /// Less is better.
    Minimize,
}

/// One line of `better_if`.
#[derive(Debug, Clone, PartialEq)]
pub struct BetterIf {
    /// Which way is better.
    pub goal: Goal,
    /// The gain must be more than this (absolute, in the metric's unit).
    pub min_gain: f64,
    /// How it is judged.
    pub test: PairedTest,
    /// In (0.5, 1).
    pub confidence: f64,
    /// Resamples of the bootstrap (at least 2,000).
    pub resamples: u32,
    /// Seed of the bootstrap.
    pub seed: u64,
}

/// How a gain is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairedTest {
    /// The numbers as they stand.
    None,
    /// Exact McNemar on rows where the two differ.
    Mcnemar,
    /// Paired bootstrap over rows.
    Bootstrap,
}

/// One line of `guardrails`.
#[derive(Debug, Clone, PartialEq)]
pub struct Guardrail {
    /// Which way is better.
    pub goal: Goal,
    /// How much worse it may get than the champion's.
    pub max_loss: Option<Loss>,
    /// Absolute limits, also for a first version.
    pub min: Option<f64>,
    /// Absolute limits, also for a first version.
    pub max: Option<f64>,
}

/// A loss that is still borne.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// In the metric's unit.
    Absolute(f64),
    /// As a share of the champion's value: 0.1 for `10%`.
    Relative(f64),
}

/// A verdict that can be made to fail the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Not better.
    Rejected,
    /// Too little evidence.
    Inconclusive,
}

/// `deploy`.
#[derive(Debug, Clone, PartialEq)]
pub enum Deploy {
    /// Only the registry changes.
    None,
    /// Start beside the old, check, take the port.
    Replace {
        /// The port users talk to.
        port: u16,
    },
}
