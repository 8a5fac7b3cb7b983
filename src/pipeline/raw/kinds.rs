//! The kinds of stages: `train`, `test-api`, `loadtest`, `promote`, `tune`.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::text::{DurationText, LimitText, Name, OutputPath, RateText, Script, Text};

/// Makes a model.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Train {
    /// The model's name in the registry.
    #[schemars(required)]
    pub model: Option<Name>,
    /// The model's file or folder. `model.json` for the built-in trainer.
    pub artifact: Option<OutputPath>,
    /// JSON of numbers; nested ones get dotted names. `metrics.json` for the built-in trainer.
    pub metrics: Option<OutputPath>,
    /// CSV with `id,label,prediction` and, if wanted, `score`: for paired tests. `predictions.csv` for the built-in trainer.
    pub predictions: Option<OutputPath>,
    /// JSON or YAML of the parameters that were used.
    pub params: Option<OutputPath>,
    /// Data files and folders, hashed for lineage.
    #[serde(default)]
    pub data: Vec<OutputPath>,
    /// The held-out rows, with `id` and label.
    pub evaluation: Option<OutputPath>,
    /// A script that reads the model at `$MODEL` and the rows at `$EVALUATION`, and writes predictions to `$PREDICTIONS`.
    pub score: Option<Script>,
    /// The built-in trainer, instead of `run`.
    pub linfa: Option<Linfa>,
}

/// The built-in trainer.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Linfa {
    /// CSV or Parquet file.
    #[schemars(required)]
    pub data: Option<OutputPath>,
    /// The column to predict.
    #[schemars(required)]
    pub target: Option<Text>,
    /// Whether classes or numbers are predicted.
    #[schemars(required)]
    pub task: Option<Task>,
    /// The algorithm.
    #[schemars(required)]
    pub algorithm: Option<LinfaAlgorithm>,
    /// The algorithm's own settings.
    #[serde(default)]
    pub params: IndexMap<String, Value>,
    /// Share of the rows that is held out, between 0 and 1.
    #[schemars(extend("default" = 0.2, "exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub holdout: Option<f64>,
    /// Seed of the split and of the algorithm.
    #[schemars(extend("default" = 7))]
    pub seed: Option<u64>,
    /// Columns to leave out.
    #[serde(default)]
    pub drop: Vec<Text>,
}

/// What is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Task {
    Classification,
    Regression,
}

/// An algorithm of the built-in trainer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LinfaAlgorithm {
    Linear,
    ElasticNet,
    Logistic,
    DecisionTree,
    RandomForest,
    NaiveBayes,
    Svm,
    Knn,
}

/// Checks the model API.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestApi {
    /// Requests with what is expected of the answers, in order. All run, failed or not.
    #[serde(default)]
    pub checks: Vec<Check>,
}

/// One request with what is expected of its answer.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Check {
    /// What is checked, in words. By default the request.
    pub name: Option<String>,
    /// Method and path: `POST /predict`.
    #[schemars(required)]
    pub request: Option<String>,
    /// Headers.
    #[serde(default)]
    pub headers: IndexMap<String, Text>,
    /// A JSON body.
    pub json: Option<Value>,
    /// A body as it stands.
    pub body: Option<String>,
    /// A form as body.
    pub form: Option<IndexMap<String, Text>>,
    /// What the answer must be. By default its status is 2xx.
    pub expect: Option<Expect>,
}

/// What an answer must be.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    /// The status. By default any 2xx.
    #[schemars(range(min = 100, max = 599))]
    pub status: Option<u16>,
    /// Headers with their values.
    #[serde(default)]
    pub headers: IndexMap<String, Text>,
    /// JSONPath (RFC 9535) to the value that it must select, or to tests of it.
    #[serde(default)]
    pub json: IndexMap<String, JsonExpectation>,
    /// Text that the body holds.
    pub body_contains: Option<Text>,
    /// Longest time to the whole answer.
    pub latency: Option<DurationText>,
}

/// A value, or tests of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum JsonExpectation {
    /// All these tests must hold.
    Tests(JsonTests),
    /// It must be equal to this value (an object is written as `{ eq: {...} }`).
    Equal(#[schemars(extend("not" = {"type": "object"}))] Value),
}

/// Tests of a JSON value.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JsonTests {
    /// Equal to.
    #[serde(default, deserialize_with = "present")]
    pub eq: Option<Value>,
    /// Not equal to.
    #[serde(default, deserialize_with = "present")]
    pub ne: Option<Value>,
    /// Less than.
    pub lt: Option<f64>,
    /// At most.
    pub le: Option<f64>,
    /// More than.
    pub gt: Option<f64>,
    /// At least.
    pub ge: Option<f64>,
    /// Text that this regular expression matches.
    pub matches: Option<String>,
    /// The value's type.
    pub r#type: Option<JsonType>,
    /// Length of a text (characters), list or object.
    pub length: Option<u64>,
}

/// Keeps `eq: null` apart from no `eq` at all.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// A type of JSON.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JsonType {
    Null,
    Boolean,
    Number,
    Integer,
    String,
    Array,
    Object,
}

impl JsonType {
    /// The word as written.
    pub(crate) fn word(self) -> &'static str {
        match self {
            JsonType::Null => "null",
            JsonType::Boolean => "boolean",
            JsonType::Number => "number",
            JsonType::Integer => "integer",
            JsonType::String => "string",
            JsonType::Array => "array",
            JsonType::Object => "object",
        }
    }
}

/// Puts load on the model API.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Loadtest {
    /// The kinds of requests. One of each must pass before the load starts.
    #[serde(default)]
    pub scenario: Vec<LoadtestItem>,
    /// Closed model: so many users, each of whom waits for its answer before the next request.
    #[schemars(range(min = 1, max = 100_000))]
    pub users: Option<u32>,
    /// Open model: requests are sent at their times, whatever comes back.
    pub rate: Option<RateText>,
    /// Open model: requests under way at once, at most. What is beyond is counted as dropped.
    #[schemars(range(min = 1, max = 100_000), extend("default" = 1000))]
    pub max_in_flight: Option<u32>,
    /// The load is made by Locust, instead of `users` or `rate`.
    pub locust: Option<Locust>,
    /// The load is made by k6, instead of `users` or `rate`.
    pub k6: Option<K6>,
    /// How long the load is counted.
    #[schemars(extend("default" = "30s"))]
    pub duration: Option<DurationText>,
    /// Time from none to all users, or to the whole rate.
    #[schemars(extend("default" = "0s"))]
    pub ramp_up: Option<DurationText>,
    /// Load before counting starts.
    #[schemars(extend("default" = "0s"))]
    pub warmup: Option<DurationText>,
    /// How long one request may take.
    #[schemars(extend("default" = "10s"))]
    pub timeout: Option<DurationText>,
    /// Limits that the result must keep: `failure_rate`, `p50` to `p99.9`, `max`, `rps`; by the name of a request too:
    /// `"POST /predict": { p95: "< 200ms" }`.
    #[serde(default)]
    pub thresholds: IndexMap<String, ThresholdLine>,
}

/// A limit, or the limits of one request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Threshold")]
pub(crate) enum ThresholdLine {
    /// A limit with its comparison: `"< 200ms"`.
    Limit(LimitText),
    /// The limits of one request.
    Request(IndexMap<String, LimitText>),
}

/// One kind of request under load.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ScenarioItem")]
pub(crate) struct LoadtestItem {
    /// Its name in the report. By default the request.
    pub name: Option<String>,
    /// Method and path: `POST /predict`.
    #[schemars(required)]
    pub request: Option<String>,
    /// Headers.
    #[serde(default)]
    pub headers: IndexMap<String, Text>,
    /// A JSON body.
    pub json: Option<Value>,
    /// Bodies from a file: one JSON document a line, taken in turn.
    pub json_lines: Option<OutputPath>,
    /// A body as it stands.
    pub body: Option<String>,
    /// A form as body.
    pub form: Option<IndexMap<String, Text>>,
    /// Its share among the kinds.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 1))]
    pub weight: Option<u32>,
    /// What counts as a good answer. By default any with status 2xx.
    pub expect: Option<Expect>,
}

/// Load made by Locust, headless.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Locust {
    /// The locustfile.
    #[schemars(required)]
    pub file: Option<OutputPath>,
    /// Users.
    #[schemars(range(min = 1, max = 100_000), extend("default" = 10))]
    pub users: Option<u32>,
    /// Users started in a second. By default all in the first one.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub spawn_rate: Option<f64>,
}

/// Load made by k6.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct K6 {
    /// The script.
    #[schemars(required)]
    pub file: Option<OutputPath>,
    /// Virtual users.
    #[schemars(range(min = 1, max = 100_000), extend("default" = 10))]
    pub users: Option<u32>,
}
