//! The model API.

use std::time::Duration;

use indexmap::IndexMap;

use super::stage::{ImageSource, Resources, Work};
use crate::ids::StageName;

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
