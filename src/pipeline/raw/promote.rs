//! `promote` and `tune`, as written.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::text::{DurationText, Name, PercentText, Text};

/// Decides whether the candidate becomes the champion, and deploys it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Promote {
    /// The model's name in the registry.
    #[schemars(required)]
    pub model: Option<Name>,
    /// Metrics on which the candidate must win, all of them.
    #[serde(default)]
    pub better_if: IndexMap<String, BetterIf>,
    /// Metrics that must not get worse, or beyond a limit. `<loadtest stage>.p95_ms` is one of a load test.
    #[serde(default)]
    pub guardrails: IndexMap<String, Guardrail>,
    /// Verdicts that fail the build. By default none.
    #[serde(default)]
    pub fail_on: Vec<Finding>,
    /// `manual`: waits for a person.
    pub approval: Option<Approval>,
    /// How the champion is deployed. By default only the registry changes.
    pub deploy: Option<Deploy>,
}

/// A metric on which the candidate must win.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BetterIf {
    /// Which way is better.
    #[schemars(required)]
    pub goal: Option<Goal>,
    /// The gain must be more than this, in the metric's unit.
    #[schemars(range(min = 0), extend("default" = 0.0))]
    pub min_gain: Option<f64>,
    /// How the gain is judged: by the numbers (`none`), by the exact McNemar test, or by a paired bootstrap.
    #[schemars(extend("default" = "none"))]
    pub test: Option<PairedTest>,
    /// How sure a test must be.
    #[schemars(extend("default" = 0.95, "exclusiveMinimum" = 0.5, "exclusiveMaximum" = 1))]
    pub confidence: Option<f64>,
    /// Resamples of the bootstrap.
    #[schemars(range(min = 2000, max = 1_000_000), extend("default" = 2000))]
    pub resamples: Option<u32>,
    /// Seed of the bootstrap.
    #[schemars(extend("default" = 7))]
    pub seed: Option<u64>,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Goal {
    Maximize,
    Minimize,
}

/// How a gain is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PairedTest {
    None,
    Mcnemar,
    Bootstrap,
}

/// A metric that must not get worse.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Guardrail {
    /// Which way is better.
    #[schemars(required)]
    pub goal: Option<Goal>,
    /// How much worse than the champion's it may be: a number in the metric's unit, or a share like `10%`.
    pub max_loss: Option<Loss>,
    /// It must be at least this, also for a first version.
    pub min: Option<f64>,
    /// It must be at most this, also for a first version.
    pub max: Option<f64>,
}

/// A loss that is still borne.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Loss {
    /// In the metric's unit.
    Absolute(#[schemars(range(min = 0))] f64),
    /// As a share of the champion's value.
    Relative(PercentText),
}

/// A verdict that can fail the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Finding {
    Rejected,
    Inconclusive,
}

/// Who gives leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Approval {
    Manual,
    None,
}

/// How the champion is deployed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deploy {
    /// `none` changes only the registry. `replace` starts the new one beside the old, checks it, and lets it take the port.
    /// `blue-green` and `canary` come in a later version.
    #[schemars(required)]
    pub strategy: Option<Strategy>,
    /// The port that users talk to.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The steps of a canary (later version).
    #[expect(dead_code, reason = "the language knows canaries already; deploying them comes later")]
    pub canary: Option<Canary>,
}

/// How a new version takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Strategy {
    None,
    Replace,
    BlueGreen,
    Canary,
}

/// A canary's steps.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "as for the key itself")]
pub(crate) struct Canary {
    /// Shares of the requests that the new version gets, one after the other.
    #[schemars(length(min = 1))]
    pub steps: Option<Vec<PercentText>>,
    /// How long each step lasts.
    pub every: Option<DurationText>,
    /// Beyond this failure rate the old version gets all requests back.
    pub max_failure_rate: Option<PercentText>,
    /// Beyond this 95th percentile of latency the old version gets all requests back.
    pub max_p95: Option<DurationText>,
}

/// Searches for the best parameters.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tune {
    /// What is searched. Each trial gets its values as `PARAM_<NAME>` and in `params.json`.
    #[schemars(required)]
    #[schemars(extend("minProperties" = 1, "propertyNames" = {"x-format": "variable-part", "pattern": "^[a-z][a-z0-9_-]{0,62}$"}))]
    pub parameters: Option<IndexMap<String, SearchSpace>>,
    /// What is improved.
    #[schemars(required)]
    pub objective: Option<Objective>,
    /// How the next values are chosen.
    #[schemars(extend("default" = "tpe"))]
    pub algorithm: Option<TuneAlgorithm>,
    /// How many trials, at most.
    #[schemars(required, range(min = 1, max = 100_000))]
    pub trials: Option<u32>,
    /// How many trials at once.
    #[schemars(range(min = 1, max = 1000), extend("default" = 1))]
    pub parallel: Option<u32>,
    /// Failed trials that are borne.
    #[schemars(range(max = 100_000), extend("default" = 0))]
    pub max_failed: Option<u32>,
    /// Stops trials that promise little.
    pub early_stopping: Option<EarlyStopping>,
}

/// What is improved.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Objective {
    /// The metric's name.
    #[schemars(required)]
    pub metric: Option<String>,
    /// Which way is better.
    #[schemars(required)]
    pub goal: Option<Goal>,
    /// Good enough to stop.
    pub target: Option<f64>,
}

/// One parameter's values: exactly one of these keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchSpace {
    /// Whole numbers from, to.
    #[schemars(length(min = 2, max = 2))]
    pub int: Option<Vec<i64>>,
    /// Numbers from, to.
    #[schemars(length(min = 2, max = 2))]
    pub float: Option<Vec<f64>>,
    /// Numbers from, to, on a logarithmic scale.
    #[schemars(length(min = 2, max = 2))]
    pub log: Option<Vec<f64>>,
    /// One of these.
    #[schemars(length(min = 1))]
    pub choice: Option<Vec<Text>>,
}

/// How the next values are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TuneAlgorithm {
    Tpe,
    Random,
    Grid,
    Sobol,
}

impl TuneAlgorithm {
    /// The word as written.
    pub(crate) fn word(self) -> &'static str {
        match self {
            TuneAlgorithm::Tpe => "tpe",
            TuneAlgorithm::Random => "random",
            TuneAlgorithm::Grid => "grid",
            TuneAlgorithm::Sobol => "sobol",
        }
    }
}

/// Stops trials that promise little: exactly one of these keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EarlyStopping {
    /// Stops a trial that is worse than the median of the earlier ones.
    pub median: Option<Median>,
    /// Asynchronous successive halving.
    pub asha: Option<Asha>,
}

/// The median rule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Median {
    /// Trials before the rule is used.
    #[schemars(range(min = 1, max = 100_000), extend("default" = 5))]
    pub min_trials: Option<u32>,
}

/// Asynchronous successive halving.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asha {
    /// Reported steps before a trial may be stopped.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 1))]
    pub min_steps: Option<u32>,
    /// One of so many trials goes on to the next rung.
    #[schemars(range(min = 2, max = 1000), extend("default" = 3))]
    pub reduction: Option<u32>,
}
