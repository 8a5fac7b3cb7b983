//! The language as it is written: one Rust type for each mapping of the file, one field for each key.
//!
//! These types are the only list of keys. The JSON Schema is made from them, the shape of a file is checked against that
//! schema, the reference table in the docs is printed from it, and the checked file is read into them by serde. Every
//! field may be absent here, so that a file with one bad key is still checked to its end; `#[schemars(required)]` is
//! what makes a key required. Texts with a meaning of their own (a duration, a script) are types of [`text`].

mod kinds;
mod promote;
mod stage;
mod text;

pub(crate) use kinds::{Expect, JsonExpectation, Linfa, LinfaAlgorithm, Loadtest, Task, TestApi, ThresholdLine, Train};
pub(crate) use promote::{
    Approval, BetterIf, Deploy, EarlyStopping, Finding, Goal, Guardrail, Loss, PairedTest, Promote, SearchSpace,
    Strategy, Tune, TuneAlgorithm,
};
pub(crate) use stage::{
    AutoWord, Build, Defaults, Matrix, NetworkWord, OnInterruptWord, Ready, Resources, Retry, RetryWord, Run, Serve,
    ServePort, Service, Stage, StatusWord, StepItem, When,
};
pub(crate) use text::{DurationText, Glob, Name, OutputPath, Template, Text, Variable};

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

/// A pipeline of orchestrator: what happens between a push and a promoted model.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pipeline {
    /// The pipeline's name. By default the repository's or folder's name.
    pub name: Option<Name>,
    /// What starts a build. By default a push to the default branch, and every pull request. Starts by hand, by the API
    /// and by the command line are always possible.
    pub on: Option<On>,
    /// Which builds replace each other.
    pub concurrency: Option<Concurrency>,
    /// Typed parameters: a form in the web page, `--param` on the command line, `PARAM_<NAME>` in scripts.
    #[schemars(extend("propertyNames" = {"x-format": "variable-part", "pattern": "^[a-z][a-z0-9_-]{0,62}$"}))]
    #[serde(default)]
    pub params: IndexMap<String, Param>,
    /// Variables of every script.
    #[schemars(extend("propertyNames" = {"x-format": "variable", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}))]
    #[serde(default)]
    pub env: IndexMap<String, Template>,
    /// Names of secrets that every stage gets as variables. Their values are never in this file.
    #[serde(default)]
    pub secrets: Vec<Variable>,
    /// Keys that hold for all stages, unless a stage says otherwise.
    pub defaults: Option<Defaults>,
    /// The model API: `test-api` and `loadtest` start it, `promote` deploys it.
    pub serve: Option<Serve>,
    /// The stages. Those without a path of `needs` between them run in parallel.
    #[schemars(required)]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1000, "propertyNames" = {"x-format": "name", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$"}))]
    pub stages: Option<IndexMap<String, Stage>>,
}

/// What starts a build.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct On {
    /// Pushes of branches and tags.
    pub push: Option<Push>,
    /// Pull requests opened or changed.
    pub pull_request: Option<PullRequest>,
    /// Fixed times.
    #[serde(default)]
    pub schedule: Vec<Schedule>,
}

/// Which pushes start a build.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Push {
    /// Branches, as globs. By default the default branch.
    pub branches: Option<Vec<Glob>>,
    /// Tags, as globs. By default none.
    #[serde(default)]
    pub tags: Vec<Glob>,
    /// Only if a changed path matches one of these globs.
    #[serde(default)]
    pub paths: Vec<Glob>,
    /// Not if every changed path matches one of these globs.
    #[serde(default)]
    pub paths_ignore: Vec<Glob>,
}

/// Which pull requests start a build.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PullRequest {
    /// Branches that it wants to go into, as globs. By default any.
    #[serde(default)]
    pub branches: Vec<Glob>,
    /// Only if a changed path matches one of these globs.
    #[serde(default)]
    pub paths: Vec<Glob>,
    /// Not if every changed path matches one of these globs.
    #[serde(default)]
    pub paths_ignore: Vec<Glob>,
}

/// A fixed time.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Schedule {
    /// Minute, hour, day of month, month, day of week, as in cron: `"0 3 * * *"` is every night at three.
    #[schemars(required)]
    pub cron: Option<String>,
    /// IANA time zone, like `Asia/Seoul`.
    #[schemars(extend("default" = "UTC"))]
    pub timezone: Option<String>,
    /// Which branch is built. By default the default branch.
    pub branch: Option<String>,
}

/// Which builds replace each other.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Concurrency {
    /// Builds of the same group run one after the other. `${branch}`, `${event}` and `${params.x}` are put in.
    #[schemars(required)]
    pub group: Option<Template>,
    /// A newer build of the group cancels the older one.
    #[schemars(extend("default" = false))]
    #[serde(default)]
    pub cancel_superseded: bool,
}

/// A typed parameter.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Param {
    /// What it holds.
    #[schemars(required)]
    pub r#type: Option<ParamType>,
    /// Its value if none is given. Without a default it must be given.
    pub default: Option<Text>,
    /// Smallest value (`integer` and `number`).
    pub min: Option<f64>,
    /// Largest value (`integer` and `number`).
    pub max: Option<f64>,
    /// The values to choose from (`choice`).
    #[serde(default)]
    pub choices: Vec<Text>,
    /// What it is for, shown beside the form.
    pub description: Option<String>,
}

/// A parameter's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ParamType {
    String,
    Integer,
    Number,
    Boolean,
    Choice,
}
