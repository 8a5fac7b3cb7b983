//! Stages, what they share (`defaults`), and the model API.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::kinds::{Loadtest, TestApi, Train};
use super::promote::{Promote, Tune};
use super::text::{DurationText, Glob, Name, OutputPath, Script, SizeText, Template, Text, Variable};

/// A stage: source tree, inputs, image and environment in; outputs, metrics and an exit code out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stage {
    /// Stages that must have ended well before. Their outputs, and those of the stages before them, lie at the same paths;
    /// outputs of a stage with a matrix lie under `matrix/<stage>/<cell>/`.
    pub needs: Option<Vec<String>>,
    /// The container image. On the local runner the host's tools are used instead.
    pub image: Option<Template>,
    /// Makes the image from the source tree, instead of `image`.
    pub build: Option<Build>,
    /// A shell script, or a list of steps. The first step that fails ends the stage.
    pub run: Option<Run>,
    /// The shell that runs the steps. By default `[bash, -euo, pipefail, -c]` where bash exists, else `[sh, -eu, -c]`.
    #[schemars(length(min = 1))]
    pub shell: Option<Vec<String>>,
    /// Instead of `run`: arguments for the image's own entrypoint.
    pub command: Option<Vec<Template>>,
    /// Variables.
    #[schemars(extend("propertyNames" = {"x-format": "variable", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}))]
    pub env: Option<IndexMap<String, Template>>,
    /// Names of secrets that it gets as variables. A secret's value is masked in the log.
    pub secrets: Option<Vec<Variable>>,
    /// Which source files count for the reuse of results, as globs. By default all but the pipeline's own file; for a built-in training, its data.
    pub inputs: Option<Vec<Glob>>,
    /// Files or folders that are kept and handed to dependants; globs may be used. One that is missing fails the stage.
    pub outputs: Option<Vec<OutputPath>>,
    /// Folders kept between builds, like `~/.cache/pip`. Builds of pull requests only read them.
    pub cache: Option<Vec<String>>,
    /// Containers beside the stage, reached by name.
    #[schemars(extend("propertyNames" = {"x-format": "name", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$"}))]
    pub services: Option<IndexMap<String, Service>>,
    /// Conditions, all of which must hold. Otherwise the stage is skipped, which is not a failure.
    pub when: Option<When>,
    /// One cell for each combination of values: `matrix: { python: ["3.11", "3.12"] }`.
    pub matrix: Option<Matrix>,
    /// Further attempts after a failure.
    pub retry: Option<Retry>,
    /// How long one attempt may take.
    #[schemars(extend("default" = "1h"))]
    pub timeout: Option<DurationText>,
    /// How long a stage that is stopped has between SIGTERM and SIGKILL.
    #[schemars(extend("default" = "10s"))]
    pub grace: Option<DurationText>,
    /// Hard limits.
    pub resources: Option<Resources>,
    /// `none`: the container has no network.
    pub network: Option<NetworkWord>,
    /// A failure is shown, and does not fail the build.
    #[schemars(extend("default" = false))]
    pub allow_failure: Option<bool>,
    /// What happens if the machine or the engine is lost under it. By default `retry`; a `promote` stage always fails.
    pub on_interrupt: Option<OnInterruptWord>,
    /// Which configured runner. By default the daemon's.
    pub runner: Option<Name>,
    /// Whether an earlier result with the same inputs may stand for a run. By default only for stages with `outputs`, for
    /// `train` and for `tune`.
    pub reuse: Option<bool>,
    /// Makes a model, and registers it as a candidate.
    pub train: Option<Train>,
    /// Checks the model API.
    #[serde(rename = "test-api")]
    pub test_api: Option<TestApi>,
    /// Puts load on the model API.
    pub loadtest: Option<Loadtest>,
    /// Decides whether the candidate becomes the champion, and deploys it.
    pub promote: Option<Promote>,
    /// Searches for the best parameters.
    pub tune: Option<Tune>,
}

/// Keys that hold for all stages, unless a stage says otherwise.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Defaults {
    /// The container image, for the model API too.
    pub image: Option<Template>,
    /// Makes the image from the source tree, instead of `image`.
    pub build: Option<Build>,
    /// The shell that runs the steps.
    #[schemars(length(min = 1))]
    pub shell: Option<Vec<String>>,
    /// Variables. A stage's own come on top.
    #[schemars(extend("propertyNames" = {"x-format": "variable", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}))]
    pub env: Option<IndexMap<String, Template>>,
    /// Names of secrets. A stage's own come on top.
    pub secrets: Option<Vec<Variable>>,
    /// Which source files count for the reuse of results, as globs.
    pub inputs: Option<Vec<Glob>>,
    /// Folders kept between builds.
    pub cache: Option<Vec<String>>,
    /// Containers beside each stage.
    #[schemars(extend("propertyNames" = {"x-format": "name", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$"}))]
    pub services: Option<IndexMap<String, Service>>,
    /// Further attempts after a failure (never for `promote`).
    pub retry: Option<Retry>,
    /// How long one attempt may take.
    pub timeout: Option<DurationText>,
    /// How long a stage that is stopped has between SIGTERM and SIGKILL.
    pub grace: Option<DurationText>,
    /// Hard limits. A stage's own are looked at one by one.
    pub resources: Option<Resources>,
    /// `none`: the containers have no network.
    pub network: Option<NetworkWord>,
    /// What happens if the machine or the engine is lost.
    pub on_interrupt: Option<OnInterruptWord>,
    /// Which configured runner.
    pub runner: Option<Name>,
}

/// An image made from the source tree.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Build {
    /// The folder that is sent.
    #[schemars(extend("default" = "."))]
    pub context: Option<String>,
    /// The Dockerfile's path inside that folder.
    #[schemars(extend("default" = "Dockerfile"))]
    pub dockerfile: Option<OutputPath>,
    /// Build arguments.
    #[serde(default)]
    pub args: IndexMap<String, Template>,
}

/// A script, or steps.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Run {
    /// A shell script.
    Script(Script),
    /// Steps, one after the other.
    Steps(#[schemars(length(min = 1))] Vec<StepItem>),
}

/// One step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum StepItem {
    /// A shell script.
    Script(Script),
    /// A script with a name.
    Named(NamedStep),
}

/// A step with a name.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Step")]
pub(crate) struct NamedStep {
    /// Its heading in the log. By default the script's first line.
    pub name: Option<Template>,
    /// The script.
    #[schemars(required)]
    pub run: Option<Script>,
}

/// A container beside a stage.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    /// The image.
    #[schemars(required)]
    pub image: Option<Template>,
    /// Variables.
    #[schemars(extend("propertyNames" = {"x-format": "variable", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}))]
    #[serde(default)]
    pub env: IndexMap<String, Template>,
    /// When it counts as ready. By default when its port accepts.
    pub ready: Option<Ready>,
    /// The port that it listens on.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
}

/// When a server counts as ready.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ready {
    /// `GET` on this path must answer 2xx. Without it the port must accept.
    pub path: Option<String>,
    /// How long to wait.
    #[schemars(extend("default" = "60s"))]
    pub timeout: Option<DurationText>,
}

/// Conditions. A part that is absent always holds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct When {
    /// What started the build.
    #[serde(default)]
    pub event: Vec<EventWord>,
    /// Branches, as globs.
    #[serde(default)]
    pub branch: Vec<Glob>,
    /// Tags, as globs.
    #[serde(default)]
    pub tag: Vec<Glob>,
    /// One of the changed paths matches one of these globs.
    #[serde(default)]
    pub paths: Vec<Glob>,
    /// How the stages that it needs have ended. `[failure]` or `[always]` for clean-up and notices.
    #[schemars(length(min = 1))]
    pub status: Option<Vec<StatusWord>>,
}

/// What started a build.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Event")]
pub(crate) enum EventWord {
    Push,
    PullRequest,
    Tag,
    Release,
    Schedule,
    Manual,
}

impl EventWord {
    /// The word as written.
    pub(crate) fn word(self) -> &'static str {
        match self {
            EventWord::Push => "push",
            EventWord::PullRequest => "pull_request",
            EventWord::Tag => "tag",
            EventWord::Release => "release",
            EventWord::Schedule => "schedule",
            EventWord::Manual => "manual",
        }
    }
}

/// How the stages before have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Status")]
pub(crate) enum StatusWord {
    Success,
    Failure,
    Always,
}

/// Axes, each a list of values; `include` and `exclude` add and leave out cells.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Matrix(pub serde_json::Map<String, serde_json::Value>);

impl JsonSchema for Matrix {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Matrix".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let value = generator.subschema_for::<Text>();
        let cells = schemars::json_schema!({
            "type": "array",
            "maxItems": 256,
            "items": { "type": "object", "additionalProperties": value, "minProperties": 1 }
        });
        let mut include = cells.clone();
        include.insert(
            "description".into(),
            "Further cells, or further values for the cells that match in all axes that they name.".into(),
        );
        let mut exclude = cells;
        exclude.insert("description".into(), "Combinations to leave out.".into());
        schemars::json_schema!({
            "description": "One cell for each combination of values.",
            "type": "object",
            "properties": { "include": include, "exclude": exclude },
            "propertyNames": { "x-format": "variable-part", "pattern": "^[a-z][a-z0-9_-]{0,62}$" },
            "additionalProperties": { "type": "array", "items": value, "minItems": 1, "description": "The values of an axis." }
        })
    }
}

/// Further attempts after a failure.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retry {
    /// Attempts in all, the first one included.
    #[schemars(required, range(min = 1, max = 10))]
    pub attempts: Option<u32>,
    /// After what. By default all three.
    #[schemars(length(min = 1))]
    pub on: Option<Vec<RetryWord>>,
    /// Wait before the next attempt.
    #[schemars(extend("default" = "0s"))]
    pub delay: Option<DurationText>,
}

/// After what a further attempt is made.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "RetryOn")]
pub(crate) enum RetryWord {
    Failure,
    Timeout,
    Lost,
}

/// Hard limits. What is absent is the runner's default.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resources {
    /// Processors, like `2` or `0.5`.
    #[schemars(range(min = 0.01, max = 1024))]
    pub cpus: Option<f64>,
    /// Memory. Beyond it the stage fails with `out of memory`.
    pub memory: Option<SizeText>,
    /// Processes and threads.
    #[schemars(range(min = 1, max = 4194304))]
    pub pids: Option<u32>,
    /// GPUs.
    #[schemars(range(min = 0, max = 64))]
    pub gpus: Option<u32>,
}

/// Whether there is a network.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Network")]
pub(crate) enum NetworkWord {
    Default,
    None,
}

/// What happens if the machine or engine is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "OnInterrupt")]
pub(crate) enum OnInterruptWord {
    Retry,
    Fail,
}

/// The model API.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Serve {
    /// A shell script, or a list of steps, that starts the server and stays.
    pub run: Option<Run>,
    /// The shell that runs the steps.
    #[schemars(length(min = 1))]
    pub shell: Option<Vec<String>>,
    /// Instead of `run`: arguments for the image's own entrypoint.
    pub command: Option<Vec<Template>>,
    /// Instead of `run`: the built-in server with the model of this `train` stage, which must use the built-in trainer.
    pub linfa: Option<String>,
    /// The container image. By default the one of `defaults`.
    pub image: Option<Template>,
    /// Makes the image from the source tree, instead of `image`.
    pub build: Option<Build>,
    /// The port that it listens on, or `auto` for a free one (told as `$PORT`).
    pub port: Option<ServePort>,
    /// When it counts as ready.
    pub ready: Option<Ready>,
    /// Stages whose outputs it needs.
    pub inputs: Option<Vec<String>>,
    /// Variables.
    #[schemars(extend("propertyNames" = {"x-format": "variable", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}))]
    #[serde(default)]
    pub env: IndexMap<String, Template>,
    /// Names of secrets that it gets as variables.
    #[serde(default)]
    pub secrets: Vec<Variable>,
    /// Hard limits.
    pub resources: Option<Resources>,
}

/// A port, or `auto`.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Port")]
pub(crate) enum ServePort {
    /// This port.
    Fixed(#[schemars(range(min = 1, max = 65535))] u16),
    /// A free one.
    Word(AutoWord),
}

/// A free port.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum AutoWord {
    Auto,
}
