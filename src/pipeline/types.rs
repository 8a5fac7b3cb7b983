//! The validated pipeline: what the rest of the program works with.
//!
//! `parse` makes these out of YAML; `defaults` are already applied to every stage. All numbers are in the unit that the
//! name or the type says. Substitutions (`${matrix.x}`, `${params.x}`) are still in the text; `matrix` resolves them.

use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::IndexMap;

use crate::ids::StageName;

/// A whole pipeline file.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// `name`; the caller falls back to the repository's or folder's name.
    pub name: Option<String>,
    /// What starts a build.
    pub on: Triggers,
    /// Which builds exclude or replace each other.
    pub concurrency: Option<Concurrency>,
    /// Typed parameters, in the order written.
    pub params: IndexMap<String, Param>,
    /// Variables of every script.
    pub env: IndexMap<String, String>,
    /// Names of secrets that every stage gets.
    pub secrets: Vec<String>,
    /// The model API.
    pub serve: Option<Serve>,
    /// The stages, in the order written.
    pub stages: IndexMap<StageName, Stage>,
}

/// `on`: what starts a build.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Triggers {
    /// Pushes; `None` if pushes start nothing.
    pub push: Option<PushTrigger>,
    /// Pull requests; `None` if they start nothing.
    pub pull_request: Option<PullRequestTrigger>,
    /// Times.
    pub schedule: Vec<Schedule>,
}

/// `on.push`. An empty list means no restriction; `branches: None` means the default branch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PushTrigger {
    /// Branch globs.
    pub branches: Option<Vec<String>>,
    /// Tag globs.
    pub tags: Vec<String>,
    /// Only if a changed path matches one of these globs.
    pub paths: Vec<String>,
    /// Not if every changed path matches one of these globs.
    pub paths_ignore: Vec<String>,
}

/// `on.pull_request`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PullRequestTrigger {
    /// Base branch globs; empty for any.
    pub branches: Vec<String>,
    /// Only if a changed path matches one of these globs.
    pub paths: Vec<String>,
    /// Not if every changed path matches one of these globs.
    pub paths_ignore: Vec<String>,
}

/// One line of `on.schedule`.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Five-field cron expression.
    pub cron: String,
    /// IANA time zone; `UTC` by default.
    pub timezone: String,
    /// Which branch is built; the default branch if absent.
    pub branch: Option<String>,
}

/// `concurrency`.
#[derive(Debug, Clone, PartialEq)]
pub struct Concurrency {
    /// The group's name; may hold `${branch}`, `${event}`, `${params.x}`.
    pub group: String,
    /// A newer build of the group cancels the older one.
    pub cancel_superseded: bool,
}

/// One typed parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Type, bounds and default.
    pub kind: ParamKind,
    /// For the form.
    pub description: Option<String>,
}

/// A parameter's type with its default (`None`: must be given) and bounds.
#[derive(Debug, Clone, PartialEq)]
pub enum ParamKind {
    /// Text.
    String {
        /// Value if none is given.
        default: Option<String>,
    },
    /// Whole number.
    Integer {
        /// Value if none is given.
        default: Option<i64>,
        /// Smallest value.
        min: Option<i64>,
        /// Largest value.
        max: Option<i64>,
    },
    /// Number.
    Number {
        /// Value if none is given.
        default: Option<f64>,
        /// Smallest value.
        min: Option<f64>,
        /// Largest value.
        max: Option<f64>,
    },
    /// `true` or `false`.
    Boolean {
        /// Value if none is given.
        default: Option<bool>,
    },
    /// One of a list.
    Choice {
        /// Value if none is given.
        default: Option<String>,
        /// What to choose from.
        choices: Vec<String>,
    },
}

/// How the model API is started.
#[derive(Debug, Clone, PartialEq)]
pub struct Serve {
    /// Where it comes from.
    pub app: ServeApp,
    /// Image or build; `None` takes the default's, or the host's tools on the local runner.
    pub image: Option<ImageSource>,
    /// The port that it listens on.
    pub port: ServePort,
    /// When it counts as ready.
    pub ready: Ready,
    /// Stages whose outputs it needs.
    pub inputs: Vec<StageName>,
    /// Variables.
    pub env: IndexMap<String, String>,
    /// Names of secrets.
    pub secrets: Vec<String>,
    /// Limits.
    pub resources: Resources,
}

/// What runs as the model API.
#[derive(Debug, Clone, PartialEq)]
pub enum ServeApp {
    /// A script or command of the user's.
    Work(Work),
    /// The built-in server with the model of this `train` stage.
    Linfa(StageName),
}

/// The model API's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServePort {
    /// A free one, told to the script as `$PORT`.
    Auto,
    /// This one.
    Fixed(u16),
}

/// When a server or service counts as ready: `GET path` answers 2xx, or (no path) the port accepts.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Ready {
    /// HTTP path.
    pub path: Option<String>,
    /// How long to wait.
    pub timeout: Duration,
}

/// One stage, with `defaults` applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its name.
    pub name: StageName,
    /// What must have ended well before it.
    pub needs: Vec<StageName>,
    /// Image or build; `None` means the host's tools (local runner).
    pub image: Option<ImageSource>,
    /// What it runs; `None` where the kind does all the work.
    pub work: Option<Work>,
    /// What kind of stage it is.
    pub kind: Kind,
    /// Variables: the pipeline's, then the defaults', then its own; later ones win.
    pub env: IndexMap<String, String>,
    /// Names of secrets it gets (the pipeline's and its own).
    pub secrets: Vec<String>,
    /// Globs of source files that count for the cache key; `None`: the whole tree.
    pub inputs: Option<Vec<String>>,
    /// Declared outputs: relative paths of files or folders (globs allowed). The kind's files (`artifact`, `metrics`, ...) are
    /// not repeated here; see [`Stage::output_paths`].
    pub outputs: Vec<String>,
    /// Folders kept between builds.
    pub cache: Vec<String>,
    /// Containers beside it.
    pub services: IndexMap<String, Service>,
    /// Conditions; all must hold.
    pub when: When,
    /// The matrix.
    pub matrix: Option<Matrix>,
    /// Retries.
    pub retry: Retry,
    /// Time limit of one attempt.
    pub timeout: Duration,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Limits.
    pub resources: Resources,
    /// Whether the container has a network.
    pub network: Network,
    /// A failure does not fail the build.
    pub allow_failure: bool,
    /// If the machine or engine is lost under it.
    pub on_interrupt: OnInterrupt,
    /// Which configured runner.
    pub runner: Option<String>,
    /// Whether results are reused; `None`: by the kind's default.
    pub reuse: Option<bool>,
}

impl Stage {
    /// All paths that are kept: declared outputs and the kind's files, without doubles, in that order.
    pub fn output_paths(&self) -> Vec<String> {
        let mut paths = self.outputs.clone();
        if let Kind::Train(train) = &self.kind {
            paths.extend(train.files().map(str::to_owned));
        }
        let mut seen = std::collections::HashSet::new();
        paths.retain(|path| seen.insert(path.clone()));
        paths
    }

    /// Whether it runs something of its own: a script, a command, or an outside load generator.
    pub fn runs_a_unit(&self) -> bool {
        let outside = |load: &Loadtest| matches!(load.generator, Generator::Locust { .. } | Generator::K6 { .. });
        self.work.is_some() || matches!(&self.kind, Kind::Loadtest(load) if outside(load))
    }

    /// Whether a good earlier result may stand for a run, before `--no-reuse` and the event are looked at.
    pub fn reusable(&self) -> bool {
        match (&self.kind, self.reuse) {
            (Kind::Promote(_), _) => false,
            (_, Some(chosen)) => chosen,
            (Kind::Train(_) | Kind::Tune(_), None) => true,
            (Kind::TestApi(_) | Kind::Loadtest(_), None) => false,
            (Kind::Plain, None) => !self.outputs.is_empty(),
        }
    }
}

/// Where a container's image comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageSource {
    /// A reference to pull, or present already.
    Image(String),
    /// Built from the source tree.
    Build {
        /// Folder in the tree.
        context: String,
        /// Path of the Dockerfile, relative to `context`.
        dockerfile: String,
        /// Build arguments.
        args: BTreeMap<String, String>,
    },
}

/// What a container or process runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Steps, with the shell to run them by (`None`: bash where it exists, else sh).
    Run {
        /// Steps, in order.
        steps: Vec<Step>,
        /// Shell to run them by.
        shell: Option<Vec<String>>,
    },
    /// The image's own entrypoint with these arguments.
    Command(Vec<String>),
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// `name`, or the script's first line.
    pub name: String,
    /// The script.
    pub script: String,
}

/// A container beside a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Image reference.
    pub image: String,
    /// Variables.
    pub env: IndexMap<String, String>,
    /// When it is ready; the port must accept by default, if there is one.
    pub ready: Option<Ready>,
    /// Its port.
    pub port: Option<u16>,
}

/// `when`: every given part must hold. An absent part always holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct When {
    /// Events: `push`, `pull_request`, `tag`, `release`, `schedule`, `manual`.
    pub event: Vec<String>,
    /// Branch globs.
    pub branch: Vec<String>,
    /// Tag globs.
    pub tag: Vec<String>,
    /// Globs of changed paths.
    pub paths: Vec<String>,
    /// On which outcome of what it needs (or of the build, without needs) it runs.
    pub status: WhenStatus,
}

/// `when.status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenStatus {
    /// After success (the default).
    #[default]
    Success,
    /// After a failure.
    Failure,
    /// In any case, also after cancellation.
    Always,
}

/// `matrix`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matrix {
    /// Axes in the order written, each with its values as text.
    pub axes: IndexMap<String, Vec<String>>,
    /// Further cells.
    pub include: Vec<IndexMap<String, String>>,
    /// Combinations to leave out (a cell that matches all keys of one of these).
    pub exclude: Vec<IndexMap<String, String>>,
}

/// `retry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all; 1 means no retry.
    pub attempts: u32,
    /// After what.
    pub on: Vec<RetryOn>,
    /// Wait before the next.
    pub delay: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 1, on: vec![RetryOn::Failure, RetryOn::Timeout, RetryOn::Lost], delay: Duration::ZERO }
    }
}

/// What a retry answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    /// A non-zero exit, a missing output, a failed check.
    Failure,
    /// The time limit.
    Timeout,
    /// The engine or machine was lost.
    Lost,
}

/// Hard limits; `None` means the runner's default.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Resources {
    /// Processors.
    pub cpus: Option<f64>,
    /// Bytes of memory (swap included: none beyond it).
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// GPUs.
    pub gpus: Option<u32>,
}

/// `network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Network {
    /// The engine's usual one.
    #[default]
    Default,
    /// None at all.
    None,
}

/// `on_interrupt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInterrupt {
    /// A new attempt, once the machine or engine is back.
    Retry,
    /// The stage fails.
    Fail,
}

/// What a stage does beyond running a script.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// Makes a model.
    Train(Train),
    /// Checks the model API.
    TestApi(TestApi),
    /// Puts load on the model API.
    Loadtest(Loadtest),
    /// Decides whether the candidate becomes champion.
    Promote(Promote),
    /// Searches parameters.
    Tune(Tune),
}

impl Kind {
    /// The key in YAML; `plain` for none.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Train(_) => "train",
            Kind::TestApi(_) => "test-api",
            Kind::Loadtest(_) => "loadtest",
            Kind::Promote(_) => "promote",
            Kind::Tune(_) => "tune",
        }
    }
}

/// `train`. Paths are relative to the workspace.
#[derive(Debug, Clone, PartialEq)]
pub struct Train {
    /// Registry name.
    pub model: String,
    /// The model's file or folder. For the built-in trainer: `model.json`.
    pub artifact: String,
    /// JSON of numbers. For the built-in trainer: `metrics.json`.
    pub metrics: Option<String>,
    /// CSV `id,label,prediction[,score]`. For the built-in trainer: `predictions.csv`.
    pub predictions: Option<String>,
    /// JSON or YAML of parameters.
    pub params: Option<String>,
    /// Data files, hashed for lineage.
    pub data: Vec<String>,
    /// The held-out rows.
    pub evaluation: Option<String>,
    /// Scores a model (`$MODEL`) on rows (`$EVALUATION`) into `$PREDICTIONS`.
    pub score: Option<String>,
    /// The built-in trainer, instead of `run`.
    pub linfa: Option<Linfa>,
}

impl Train {
    /// The paths that count as outputs.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        [
            Some(&self.artifact),
            self.metrics.as_ref(),
            self.predictions.as_ref(),
            self.params.as_ref(),
            self.evaluation.as_ref(),
        ]
        .into_iter()
        .flatten()
        .map(String::as_str)
    }
}

/// The built-in trainer's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Linfa {
    /// CSV or Parquet file.
    pub data: String,
    /// The column to predict.
    pub target: String,
    /// Classes or numbers.
    pub task: Task,
    /// Which algorithm.
    pub algorithm: Algorithm,
    /// The algorithm's own settings, by name.
    pub params: IndexMap<String, serde_json::Value>,
    /// Share of rows held out, in (0, 1).
    pub holdout: f64,
    /// For the split and the algorithm.
    pub seed: u64,
    /// Columns to leave out.
    pub drop: Vec<String>,
}

/// What the built-in trainer predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Classes.
    Classification,
    /// Numbers.
    Regression,
}

/// The built-in trainer's algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Ordinary least squares.
    Linear,
    /// Linear with L1 and L2 penalty.
    ElasticNet,
    /// Logistic regression.
    Logistic,
    /// One tree.
    DecisionTree,
    /// Many trees.
    RandomForest,
    /// Gaussian naive Bayes.
    NaiveBayes,
    /// Support vectors.
    Svm,
    /// Nearest neighbours.
    Knn,
}

/// `test-api`.
#[derive(Debug, Clone, PartialEq)]
pub struct TestApi {
    /// In order.
    pub checks: Vec<ApiCheck>,
}

/// One request with what is expected of its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiCheck {
    /// Its name; `METHOD /path` by default.
    pub name: String,
    /// What is sent.
    pub request: HttpRequest,
    /// What must come back.
    pub expect: Expect,
}

/// A request to the model API.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRequest {
    /// `GET`, `POST`, ... in capitals.
    pub method: String,
    /// Path with query, starting with `/`.
    pub path: String,
    /// Headers.
    pub headers: IndexMap<String, String>,
    /// Body.
    pub body: Body,
}

/// A request's body.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// None.
    None,
    /// JSON, with its content type.
    Json(serde_json::Value),
    /// As it stands.
    Text(String),
    /// `application/x-www-form-urlencoded`.
    Form(IndexMap<String, String>),
    /// One JSON document a line, from a file of the workspace; taken in turn (load tests only).
    JsonLines(String),
}

/// What an answer must be. Absent parts are not looked at, but for the status: 2xx by default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Expect {
    /// Exact status.
    pub status: Option<u16>,
    /// Headers (name without case) with their exact values.
    pub headers: IndexMap<String, String>,
    /// JSONPath (RFC 9535) to what every selected value must be; at least one must be selected.
    pub json: IndexMap<String, Vec<JsonTest>>,
    /// Text that the body holds.
    pub body_contains: Option<String>,
    /// Longest time to the whole answer.
    pub latency: Option<Duration>,
}

/// One test of a JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonTest {
    /// Equal.
    Eq(serde_json::Value),
    /// Not equal.
    Ne(serde_json::Value),
    /// Less than.
    Lt(f64),
    /// At most.
    Le(f64),
    /// More than.
    Gt(f64),
    /// At least.
    Ge(f64),
    /// Text that matches this regular expression.
    Matches(String),
    /// `null`, `boolean`, `number`, `integer`, `string`, `array`, `object`.
    Type(String),
    /// Length of text (characters), array or object.
    Length(u64),
}

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

/// `tune`: parsed and checked; running it comes later and says so.
#[derive(Debug, Clone, PartialEq)]
pub struct Tune {
    /// The search space.
    pub parameters: IndexMap<String, SearchSpace>,
    /// The metric to improve.
    pub metric: String,
    /// Which way is better.
    pub goal: Goal,
    /// Good enough to stop.
    pub target: Option<f64>,
    /// `tpe`, `random`, `grid`, `sobol`.
    pub algorithm: String,
    /// How many at most.
    pub trials: u32,
    /// How many at once.
    pub parallel: u32,
    /// Failed trials that are borne.
    pub max_failed: u32,
    /// Early stopping rule as written, checked.
    pub early_stopping: Option<serde_json::Value>,
}

/// One parameter's range.
#[derive(Debug, Clone, PartialEq)]
pub enum SearchSpace {
    /// Whole numbers, both ends included.
    Int(i64, i64),
    /// Numbers.
    Float(f64, f64),
    /// Numbers on a logarithmic scale.
    Log(f64, f64),
    /// One of these.
    Choice(Vec<String>),
}
