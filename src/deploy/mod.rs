//! Which model serves on which port: a new version takes the old one's place, or the old one is brought back.
//!
//! ```text
//!  trial (private port, ready, checks) -> [decision and `starting` row committed] -> old stops -> new takes the port
//!        |                                                                              | not ready
//!        +-- fails: nothing has changed                     old is started again <------+
//! ```
//!
//! Every step finds out by itself what is there already, so that a killed deployment is simply done again. Callers hold
//! the model's lock, and the port's: of one model, and on one port, one deployment changes at a time.

mod server;
mod settle;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::artifact::ArtifactStore;
use crate::ids::{BuildId, Micros, NodeKey};
use crate::pipeline::types::Ready;
use crate::runner::spec::{UnitName, UnitSpec};
use crate::runner::{Runner, RunnerError, UnitStatus};
use crate::store::deployments::{self, DeploymentRow, DeploymentStatus};
use crate::store::models::{self, Promotion};
use crate::store::{Store, StoreError};

pub use server::Health;
pub use settle::Recovered;

/// How a deployment is started, now or again later. Values of secrets are not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploySpec {
    /// The unit; its name, labels and published port are set when it is started.
    pub unit: UnitSpec,
    /// Digest of the workspace's manifest.
    pub workspace: String,
    /// When it is ready.
    pub ready: Ready,
    /// Names of the variables that hold secrets.
    pub secrets: Vec<String>,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The new version did not get ready on the port.
    #[error("version {version} did not get ready on port {port}: {why}; {back}")]
    NotReady {
        /// Which.
        version: u64,
        /// Where.
        port: u16,
        /// What was seen.
        why: String,
        /// What serves now.
        back: String,
    },
    /// Nothing was touched: a server could not be started without these.
    #[error("version {version} needs the secrets {names}, which have no value here; set them in the environment")]
    Secrets {
        /// Which version.
        version: u64,
        /// Their names.
        names: String,
    },
    /// Nothing was touched: files of a server are not there any more.
    #[error("version {version} cannot be started: {what} is no longer stored; run its pipeline again")]
    Files {
        /// Which version.
        version: u64,
        /// The first file that is missing.
        what: String,
    },
    /// Nothing was touched: somebody else has the port.
    #[error("port {port} is used by {user}; stop that, or deploy on another port")]
    PortTaken {
        /// Which.
        port: u16,
        /// By whom.
        user: String,
    },
    /// A runner.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where deployments run.
#[async_trait]
pub trait RunnerSource: Send + Sync {
    /// The runner of this name.
    async fn named(&self, name: &str) -> Result<Arc<dyn Runner>, RunnerError>;
}

/// What deployments work with.
pub struct Deployer {
    /// The database.
    pub store: Arc<Store>,
    /// Workspaces.
    pub artifacts: Arc<ArtifactStore>,
    /// Where they run.
    pub runners: Arc<dyn RunnerSource>,
    /// Values of secrets by name.
    pub secrets: BTreeMap<String, String>,
    /// The clock.
    pub now: fn() -> Micros,
}

/// In whose name a promotion is taken back.
#[derive(Debug, Clone)]
pub struct Author {
    /// Who.
    pub actor: String,
    /// The stage that promotes, if one does.
    pub stage: Option<(BuildId, NodeKey)>,
}

impl Deployer {
    /// Makes a decided promotion true: the deployment that was stored as `starting` takes its port, or else the champion
    /// before it is champion again (there is none if it was the first).
    ///
    /// # Errors
    /// As [`Deployer::take_port`].
    pub async fn make_true(
        &self,
        row: &DeploymentRow,
        before: Option<u64>,
        author: &Author,
    ) -> Result<(), DeployError> {
        let Err(error) = self.take_port(row).await else { return Ok(()) };
        let id = row.id;
        if self.store.read(move |db| deployments::status(db, id)).await? == DeploymentStatus::Starting {
            // It could not even be tried, and nothing else serves: the next try goes on with it.
            return Err(error);
        }
        let back = Promotion {
            model: row.model.clone(),
            candidate: before.unwrap_or(row.version),
            champion: Some(row.version),
            verdict: if before.is_some() { "rolled-back" } else { "error" }.to_owned(),
            actor: author.actor.clone(),
            stage: author.stage.clone(),
            evidence: serde_json::json!({ "reason": format!("its deployment failed: {error}"), "deployment": "failed" }),
            at: (self.now)(),
        };
        let first = before.is_none();
        self.write(move |tx| {
            models::decide(tx, &back)?;
            if first { models::clear_champion(tx, &back.model) } else { Ok(()) }
        })
        .await?;
        Err(error)
    }

    /// Lets a deployment that was stored as `starting` take its port from whatever of this model serves now. On failure what
    /// served is started again, and the rows say what came of both.
    ///
    /// # Errors
    /// [`DeployError::NotReady`] if the new one did not get ready; else what kept it from being tried.
    pub async fn take_port(&self, new: &DeploymentRow) -> Result<(), DeployError> {
        let model = new.model.clone();
        let old = self.store.read(move |db| deployments::live(db, &model)).await?.filter(|old| old.id != new.id);
        if let Err(error) = self.may_begin(new, old.as_ref()).await {
            // Where nothing serves any more (an interruption came between), the row stays open for the next try.
            if self.still_serves(old.as_ref()).await {
                self.mark(new.id, DeploymentStatus::Failed, &error.to_string()).await?;
            }
            return Err(error);
        }
        let tried = match old.as_ref().filter(|old| old.port == new.port) {
            Some(old) => self.exchange(old, new).await,
            None => self.start(new).await,
        };
        match tried {
            Ok(()) => self.settle(new, old.as_ref()).await,
            Err(why) => Err(self.go_back(new, old.as_ref(), why).await?),
        }
    }

    /// Before anything is stopped: whatever is started, now or again, must have its secrets and files, and nobody else the port.
    async fn may_begin(&self, new: &DeploymentRow, old: Option<&DeploymentRow>) -> Result<(), DeployError> {
        for row in [Some(new), old].into_iter().flatten() {
            // The new one may run already, before an interruption. The old one may have to be started again, even if it runs.
            if row.id != new.id || self.status(row).await? != UnitStatus::Running {
                self.check_secrets(row)?;
                self.check_files(row).await?;
            }
        }
        let (port, model) = (new.port, new.model.clone());
        let open = self.store.read(deployments::open).await?;
        if let Some(other) = open.iter().find(|row| row.port == port && row.model != model) {
            let user = format!("the deployment of model `{}` (version {})", other.model, other.version);
            return Err(DeployError::PortTaken { port, user });
        }
        let holder = if self.status(new).await? == UnitStatus::Running { Some(new) } else { old };
        self.no_stranger(new, holder).await
    }

    async fn still_serves(&self, old: Option<&DeploymentRow>) -> bool {
        match old {
            None => true,
            Some(old) => self.status(old).await.is_ok_and(|status| status == UnitStatus::Running),
        }
    }

    fn check_secrets(&self, row: &DeploymentRow) -> Result<(), DeployError> {
        let missing: Vec<String> =
            secret_names(row).into_iter().filter(|name| !self.secrets.contains_key(name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(DeployError::Secrets { version: row.version, names: missing.join(", ") })
    }

    async fn check_files(&self, row: &DeploymentRow) -> Result<(), DeployError> {
        let missing = match row.spec.get("workspace").and_then(|digest| digest.as_str()?.parse().ok()) {
            Some(digest) => self.artifacts.missing(&digest).await.map_err(|error| error.to_string()),
            None => Err("the list of its files".to_owned()),
        };
        match missing {
            Ok(None) => Ok(()),
            Ok(Some(what)) | Err(what) => Err(DeployError::Files { version: row.version, what }),
        }
    }

    async fn runner(&self, row: &DeploymentRow) -> Result<Arc<dyn Runner>, RunnerError> {
        self.runners.named(&row.runner).await
    }

    async fn status(&self, row: &DeploymentRow) -> Result<UnitStatus, RunnerError> {
        self.runner(row).await?.status(&UnitName(row.unit.clone())).await
    }
}

/// The secrets that a deployment's server needs.
pub fn secret_names(row: &DeploymentRow) -> Vec<String> {
    let names = row.spec.get("secrets").and_then(serde_json::Value::as_array);
    names.into_iter().flatten().filter_map(serde_json::Value::as_str).map(str::to_owned).collect()
}

/// The name of a deployment's unit.
pub fn unit_name(instance: &str, model: &str, version: u64, at: Micros) -> String {
    format!("orc-{instance}-dep-{model}-v{version}-{:x}", at.0)
}
