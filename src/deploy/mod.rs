//! Which model serves on which port: a new version takes the old one's place, or the old one is brought back.
//!
//! ```text
//!  trial (private port, ready, checks) -> [decision and `starting` row committed] -> old stops -> new takes the port
//!        |                                                                              | not ready
//!        +-- fails: nothing has changed                     old is started again <------+
//! ```
//!
//! Every step finds out by itself what is there already, so that a killed deployment is simply done again.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::artifact::{self, ArtifactStore};
use crate::ids::Micros;
use crate::load::probe::probe;
use crate::pipeline::types::Ready;
use crate::runner::spec::{LABEL_INSTANCE, LABEL_MODEL, LABEL_ROLE, UnitName, UnitSpec};
use crate::runner::{Runner, RunnerError, UnitStatus};
use crate::store::deployments::{self, DeploymentRow, DeploymentStatus};
use crate::store::{Store, StoreError};

/// Between two looks whether a server answers.
const LOOK: Duration = Duration::from_millis(100);

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
    /// The new version did not get ready on the port; the old one is back, if there was one.
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
    /// A runner.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The files that it needs.
    #[error("artifacts: {0}")]
    Artifact(String),
}

/// What deployments work with.
pub struct Deployer {
    /// The database.
    pub store: Arc<Store>,
    /// Workspaces.
    pub artifacts: Arc<ArtifactStore>,
    /// Where it runs.
    pub runner: Arc<dyn Runner>,
    /// Values of secrets by name.
    pub secrets: std::collections::BTreeMap<String, String>,
    /// The clock.
    pub now: fn() -> Micros,
}

impl Deployer {
    /// Lets a deployment that was stored as `starting` take its port from whatever has it now. On failure the old one is
    /// started again, and the row says `failed`.
    ///
    /// # Errors
    /// [`DeployError::NotReady`] if the new one did not get ready; else what kept it from being tried.
    pub async fn take_port(&self, new: &DeploymentRow) -> Result<(), DeployError> {
        let model = new.model.clone();
        let old = self.store.read(move |db| deployments::live(db, &model)).await?.filter(|old| old.id != new.id);
        // Before anything is stopped: what is started, now or again, must have its secrets.
        for row in [Some(new), old.as_ref()].into_iter().flatten() {
            if let Err(error) = self.check_secrets(row) {
                let (id, at, detail) = (new.id, (self.now)(), error.to_string());
                self.store.write(move |tx| deployments::set(tx, id, DeploymentStatus::Failed, &detail, at)).await?;
                return Err(error);
            }
        }
        if let Some(old) = &old {
            self.runner.remove(&UnitName(old.unit.clone())).await?;
        }
        let Err(why) = self.start(new).await else {
            self.settle(new, old.as_ref()).await?;
            return Ok(());
        };
        self.runner.remove(&UnitName(new.unit.clone())).await?;
        let back = match &old {
            None => "nothing served before it".to_owned(),
            Some(old) => match self.start(old).await {
                Ok(()) => format!("version {} serves again", old.version),
                Err(error) => format!("version {} could not be brought back: {error}", old.version),
            },
        };
        let (id, at, detail) = (new.id, (self.now)(), why.clone());
        self.store.write(move |tx| deployments::set(tx, id, DeploymentStatus::Failed, &detail, at)).await?;
        Err(DeployError::NotReady { version: new.version, port: new.port, why, back })
    }

    fn check_secrets(&self, row: &DeploymentRow) -> Result<(), DeployError> {
        let names = row.spec.get("secrets").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
        let missing: Vec<String> = names
            .iter()
            .filter_map(serde_json::Value::as_str)
            .filter(|name| !self.secrets.contains_key(*name))
            .map(str::to_owned)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(DeployError::Secrets { version: row.version, names: missing.join(", ") })
    }

    async fn settle(&self, new: &DeploymentRow, old: Option<&DeploymentRow>) -> Result<(), DeployError> {
        let (id, at, version) = (new.id, (self.now)(), new.version);
        let old = old.map(|old| old.id);
        self.store
            .write(move |tx| {
                deployments::set(tx, id, DeploymentStatus::Live, "", at)?;
                if let Some(old) = old {
                    let detail = format!("version {version} took its place");
                    deployments::set(tx, old, DeploymentStatus::Stopped, &detail, at)?;
                }
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// Starts a deployment's unit if it does not run, and waits until it answers on its port. The error says what was seen.
    async fn start(&self, row: &DeploymentRow) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let spec: DeploySpec = serde_json::from_value(row.spec.clone()).map_err(|error| text(&error))?;
        let name = UnitName(row.unit.clone());
        let status = self.runner.status(&name).await.map_err(|error| text(&error))?;
        if status != UnitStatus::Running {
            self.runner.remove(&name).await.map_err(|error| text(&error))?;
            let unit = self.unit(row, &spec);
            let workspace = self.workspace(&spec).await.map_err(|error| text(&error))?;
            self.runner.create(&unit, Some(workspace)).await.map_err(|error| text(&error))?;
            let output = self.runner.start(&name).await.map_err(|error| text(&error))?;
            // A deployment outlives this process; its output stays with its runner.
            drop(output);
        }
        self.ready(row, &name, &spec).await
    }

    fn unit(&self, row: &DeploymentRow, spec: &DeploySpec) -> UnitSpec {
        let mut unit = spec.unit.clone();
        unit.name = UnitName(row.unit.clone());
        unit.labels = [
            (LABEL_INSTANCE, self.store.instance.clone()),
            (LABEL_ROLE, "deployment".to_owned()),
            (LABEL_MODEL, row.model.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        unit.restart = true;
        unit.join = None;
        unit.publish = Some(row.port);
        if !self.runner.containers() {
            unit.port = Some(row.port);
            unit.env.retain(|(name, _)| name != "PORT");
            unit.env.push(("PORT".to_owned(), row.port.to_string()));
        }
        let secrets = spec.secrets.iter().filter_map(|name| Some((name.clone(), self.secrets.get(name)?.clone())));
        unit.env.extend(secrets);
        unit
    }

    async fn workspace(&self, spec: &DeploySpec) -> Result<crate::runner::TarStream, DeployError> {
        let wrong = |error: &dyn std::fmt::Display| DeployError::Artifact(error.to_string());
        let digest = spec.workspace.parse().map_err(|error| wrong(&error))?;
        let manifest = self.artifacts.manifest(&digest).await.map_err(|error| wrong(&error))?;
        Ok(artifact::tar_of(Arc::clone(&self.artifacts), manifest))
    }

    async fn ready(&self, row: &DeploymentRow, name: &UnitName, spec: &DeploySpec) -> Result<(), String> {
        let until = Instant::now() + spec.ready.timeout;
        // On the host a deployment listens on the users' port itself.
        let port = if self.runner.containers() { spec.unit.port.unwrap_or_default() } else { row.port };
        loop {
            let last = match self.runner.address(name, port).await {
                Ok(address) => match probe(address, spec.ready.path.as_deref()).await {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                },
                Err(error) => error.to_string(),
            };
            if let Ok(UnitStatus::Exited(exit)) = self.runner.status(name).await {
                return Err(format!("it ended with exit code {}", exit.code));
            }
            if Instant::now() >= until {
                return Err(last);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The name of a deployment's unit.
pub fn unit_name(instance: &str, model: &str, version: u64, at: Micros) -> String {
    format!("orc-{instance}-dep-{model}-v{version}-{:x}", at.0)
}
