//! The validated pipeline: what the rest of the program works with.
//!
//! `parse` makes these out of YAML; `defaults` are already applied to every stage. All numbers are in the unit that the
//! name or the type says. Substitutions (`${matrix.x}`, `${params.x}`) are still in the text; `matrix` resolves them.

mod http;
mod load;
mod promote;
mod serve;
mod stage;
mod train;
mod tune;

use indexmap::IndexMap;

use crate::ids::StageName;

pub use http::{ApiCheck, Body, Expect, HttpRequest, JsonTest, TestApi};
pub use load::{Comparison, Generator, LoadMetric, Loadtest, ScenarioItem, Threshold};
pub use promote::{BetterIf, Deploy, Finding, Goal, Guardrail, Loss, PairedTest, Promote};
pub use serve::{Ready, Serve, ServeApp, ServePort};
pub use stage::{
    ImageSource, Kind, Matrix, Network, OnInterrupt, Resources, Retry, RetryOn, Service, Stage, Step, When, WhenStatus,
    Work,
};
pub use train::{Algorithm, Linfa, Task, Train};
pub use tune::{SearchSpace, Tune};

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
