//! What a unit is: command, limits, labels, and every rule of security that does not depend on a build.
//!
//! PURE.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::pipeline::types::{Network, Resources};

/// A unit's name, made from (instance, build, node, attempt, role): the same after a crash as before it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnitName(pub String);

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The label that says which data folder's units these are.
pub const LABEL_INSTANCE: &str = "orchestrator.instance";
/// The label with the build's number.
pub const LABEL_BUILD: &str = "orchestrator.build";
/// The label with the node ([`crate::ids::NodeKey`]).
pub const LABEL_NODE: &str = "orchestrator.node";
/// The label with the attempt's number.
pub const LABEL_ATTEMPT: &str = "orchestrator.attempt";
/// The label with the role: `stage`, `serve`, `service`, `score`, `deployment`.
pub const LABEL_ROLE: &str = "orchestrator.role";
/// The label of a deployment: its model's name.
pub const LABEL_MODEL: &str = "orchestrator.model";

/// All that a runner needs to make a unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitSpec {
    /// Its name.
    pub name: UnitName,
    /// Its labels, [`LABEL_INSTANCE`] among them.
    pub labels: BTreeMap<String, String>,
    /// [`super::PreparedImage::reference`]; not looked at by the local runner.
    pub image: Option<String>,
    /// What it runs.
    pub command: Command,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// Limits; the runner has defaults.
    pub resources: Resources,
    /// The stage's `network`.
    pub network: Network,
    /// The private network that it joins, with the names by which others find it there.
    pub join: Option<Join>,
    /// Folders kept between builds.
    pub caches: Vec<CacheMount>,
    /// The port that [`super::Runner::address`] will be asked for.
    pub port: Option<u16>,
    /// The fixed port of the host that users talk to (deployments).
    pub publish: Option<u16>,
    /// Started again whenever it ends (deployments).
    pub restart: bool,
    /// Between SIGTERM and SIGKILL, where the runner itself has to stop it.
    pub grace: Duration,
    /// Where the local runner puts the workspace path: `ORCHESTRATOR_WORKSPACE` is set by the runner.
    pub workspace_variable: bool,
    /// Names in `env` whose values are hidden in what a deployment prints. Other output is masked by whoever reads it.
    #[serde(default)]
    pub masked: Vec<String>,
}

/// A private network to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// [`super::Runner::create_network`]'s name.
    pub network: String,
    /// Names there.
    pub aliases: Vec<String>,
}

/// A folder that is kept between builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheMount {
    /// Path in the unit: absolute, or `~/...`, or relative to the workspace.
    pub path: String,
    /// Name of the volume (containers) or folder (local); `[a-z0-9._-]+`.
    pub volume: String,
    /// Writes are not kept.
    pub read_only: bool,
}

/// What a unit runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Steps, one after the other, each in a shell of its own; the first that fails ends the unit with its exit code.
    Steps(Steps),
    /// The image's own entrypoint with these arguments (local: the program and its arguments).
    Arguments(Vec<String>),
    /// The image's own entrypoint and command.
    ImageDefault,
}

/// A script of steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// Each step's script, never changed and never pasted into another.
    pub scripts: Vec<String>,
    /// Shell to run each by (`[bash, -euo, pipefail, -c]`); `None`: bash where it exists, else sh.
    pub shell: Option<Vec<String>>,
    /// Marks where steps begin and end in the output. Random per attempt, so that output cannot forge them by accident.
    pub nonce: String,
}

/// The line that marks a step's begin or end in both streams: `\x1e<nonce> <begin|end> <step> <code>\x1e\n`, steps counted
/// from 0. It may follow text that did not end with a newline.
pub const MARK: char = '\u{1e}';

/// Runs steps: `sh -c WRAPPER orchestrator <nonce> <n-shell-words> <shell words...> <scripts...>`.
///
/// It needs nothing but a POSIX shell. Each step is a child in the background, so that a SIGTERM reaches the wrapper at
/// once; it passes it on to its whole process group and still waits for the step's own end.
pub const WRAPPER: &str = include_str!("wrapper.sh");

impl Steps {
    /// The whole argument vector, `sh` first.
    pub fn arguments(&self) -> Vec<String> {
        let shell = self.shell.as_deref().unwrap_or(&[]);
        let fixed = ["sh", "-c", WRAPPER, "orchestrator", &self.nonce].map(str::to_owned);
        fixed
            .into_iter()
            .chain([shell.len().to_string()])
            .chain(shell.iter().cloned())
            .chain(self.scripts.iter().cloned())
            .collect()
    }
}
