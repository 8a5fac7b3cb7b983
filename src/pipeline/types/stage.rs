//! A stage: what all kinds have.

use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::IndexMap;

use super::http::TestApi;
use super::load::{Generator, Loadtest};
use super::promote::Promote;
use super::serve::Ready;
use super::train::Train;
use super::tune::Tune;
use crate::ids::StageName;

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
    /// Whether it works with the model API.
    pub fn uses_serve(&self) -> bool {
        match self {
            Kind::TestApi(_) | Kind::Loadtest(_) | Kind::Promote(_) => true,
            Kind::Plain | Kind::Train(_) | Kind::Tune(_) => false,
        }
    }

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
