//! A deployment's server: how it is started, when it is ready, whether it is really ours that answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{DeployError, DeploySpec, Deployer};
use crate::artifact;
use crate::load::probe::probe;
use crate::runner::spec::{LABEL_INSTANCE, LABEL_MODEL, LABEL_ROLE, UnitName, UnitSpec};
use crate::runner::{Listener, Runner, TarStream, UnitStatus, ports};
use crate::store::deployments::DeploymentRow;

/// Between two looks whether a server answers, or a port is free.
const LOOK: Duration = Duration::from_millis(100);
/// How long a port may stay in use after its server was removed.
const FREE_PATIENCE: Duration = Duration::from_secs(15);

/// What one sees of a deployment from outside.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "health", content = "detail", rename_all = "kebab-case")]
pub enum Health {
    /// It answers.
    Healthy,
    /// Its server runs and does not answer as it should.
    NotAnswering(String),
    /// Its server is gone.
    Gone(String),
    /// Somebody else listens on its port.
    WrongOwner(String),
    /// That cannot be found out.
    Unknown(String),
}

impl Deployer {
    /// The old one stops, the new one takes the port. The error says what was seen. What can fail without the port (a full disk, an
    /// image that is gone) does so while the old one still serves.
    pub(super) async fn exchange(&self, old: &DeploymentRow, new: &DeploymentRow) -> Result<(), String> {
        let status = self.prepare(new).await?;
        self.remove(old).await.map_err(|error| format!("version {} cannot be stopped: {error}", old.version))?;
        let runner = self.runner(new).await.map_err(|error| error.to_string())?;
        if !runner.containers() && status != UnitStatus::Running {
            free(new.port).await?;
        }
        self.launch(new, status).await
    }

    /// Nobody but this deployment (`holder`) has the port.
    pub(super) async fn no_stranger(
        &self,
        new: &DeploymentRow,
        holder: Option<&DeploymentRow>,
    ) -> Result<(), DeployError> {
        let port = new.port;
        let runner = self.runner(new).await?;
        let holder = match holder.filter(|holder| holder.port == port) {
            Some(holder) if self.status(holder).await? == UnitStatus::Running => Some(holder),
            Some(_) | None => None,
        };
        let user = match holder {
            Some(holder) => {
                let (runner, name) = (self.runner(holder).await?, UnitName(holder.unit.clone()));
                match runner.listener(&name, port).await? {
                    Listener::Stranger(user) => Some(user),
                    Listener::Nobody | Listener::Unit => runner.stranger_on(port, Some(&name)).await?,
                }
            }
            None if runner.containers() => runner.stranger_on(port, None).await?,
            None => ports::user_of(port),
        };
        user.map_or(Ok(()), |user| Err(DeployError::PortTaken { port, user }))
    }

    /// Starts a deployment's unit if it does not run, and waits until it answers on its port. The error says what was seen.
    pub(super) async fn start(&self, row: &DeploymentRow) -> Result<(), String> {
        let status = self.prepare(row).await?;
        self.launch(row, status).await
    }

    /// Makes a deployment's unit if it does not run; what it is then: running or created.
    async fn prepare(&self, row: &DeploymentRow) -> Result<UnitStatus, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let (spec, runner) = (spec(row)?, self.runner(row).await.map_err(|error| text(&error))?);
        let name = UnitName(row.unit.clone());
        let status = runner.status(&name).await.map_err(|error| text(&error))?;
        if status == UnitStatus::Running {
            return Ok(status);
        }
        runner.remove(&name).await.map_err(|error| text(&error))?;
        let unit = self.unit(row, &spec, runner.as_ref());
        let workspace = self.workspace(&spec).await?;
        runner.create(&unit, Some(workspace)).await.map_err(|error| text(&error))?;
        Ok(UnitStatus::Created)
    }

    /// Starts what was prepared, and waits until it answers.
    async fn launch(&self, row: &DeploymentRow, prepared: UnitStatus) -> Result<(), String> {
        let (spec, runner) = (spec(row)?, self.runner(row).await.map_err(|error| error.to_string())?);
        if prepared != UnitStatus::Running {
            let output = runner.start(&UnitName(row.unit.clone())).await.map_err(|error| error.to_string())?;
            // A deployment outlives this process; its output stays with its runner.
            drop(output);
        }
        ready(runner.as_ref(), row, &spec).await
    }

    fn unit(&self, row: &DeploymentRow, spec: &DeploySpec, runner: &dyn Runner) -> UnitSpec {
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
        unit.masked.clone_from(&spec.secrets);
        unit.join = None;
        unit.publish = Some(row.port);
        if !runner.containers() {
            unit.port = Some(row.port);
            unit.env.retain(|(name, _)| name != "PORT");
            unit.env.push(("PORT".to_owned(), row.port.to_string()));
        }
        let secrets = spec.secrets.iter().filter_map(|name| Some((name.clone(), self.secrets.get(name)?.clone())));
        unit.env.extend(secrets);
        unit
    }

    async fn workspace(&self, spec: &DeploySpec) -> Result<TarStream, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("artifacts: {error}");
        let digest = spec.workspace.parse().map_err(|error| wrong(&error))?;
        let manifest = self.artifacts.manifest(&digest).await.map_err(|error| wrong(&error))?;
        Ok(artifact::tar_of(Arc::clone(&self.artifacts), manifest))
    }

    /// One look at a deployment from outside.
    pub async fn health(&self, row: &DeploymentRow) -> Health {
        let unknown = |error: &dyn std::fmt::Display| Health::Unknown(error.to_string());
        let spec: DeploySpec = match serde_json::from_value(row.spec.clone()) {
            Ok(spec) => spec,
            Err(error) => return unknown(&error),
        };
        let runner = match self.runner(row).await {
            Ok(runner) => runner,
            Err(error) => return unknown(&error),
        };
        match runner.status(&UnitName(row.unit.clone())).await {
            Ok(UnitStatus::Running) => {}
            Ok(UnitStatus::Exited(exit)) => return Health::Gone(format!("it ended with exit code {}", exit.code)),
            Ok(UnitStatus::Absent | UnitStatus::Created | UnitStatus::Lost) => {
                return Health::Gone("its process is gone; `orchestrator deployments restore` starts it".to_owned());
            }
            Err(error) => return unknown(&error),
        }
        match look(runner.as_ref(), row, &spec).await {
            Look::Ready => Health::Healthy,
            Look::NotYet(why) => Health::NotAnswering(why),
            Look::Stranger(user) => Health::WrongOwner(format!("port {} is used by {user}", row.port)),
        }
    }
}

fn spec(row: &DeploymentRow) -> Result<DeploySpec, String> {
    serde_json::from_value(row.spec.clone()).map_err(|error| error.to_string())
}

enum Look {
    Ready,
    NotYet(String),
    Stranger(String),
}

/// Whether it answers, and it is its own unit that does.
async fn look(runner: &dyn Runner, row: &DeploymentRow, spec: &DeploySpec) -> Look {
    let name = UnitName(row.unit.clone());
    // On the host a deployment listens on the users' port itself.
    let port = if runner.containers() { spec.unit.port.unwrap_or_default() } else { row.port };
    let answered = match runner.address(&name, port).await {
        Ok(address) => probe(address, spec.ready.path.as_deref()).await,
        Err(error) => Err(error.to_string()),
    };
    match runner.listener(&name, row.port).await {
        Ok(Listener::Stranger(user)) => return Look::Stranger(user),
        Ok(Listener::Nobody) => return Look::NotYet(format!("it does not listen on port {}", row.port)),
        Ok(Listener::Unit) => {}
        Err(error) => return Look::NotYet(error.to_string()),
    }
    match answered {
        Ok(()) => Look::Ready,
        Err(why) => Look::NotYet(why),
    }
}

async fn ready(runner: &dyn Runner, row: &DeploymentRow, spec: &DeploySpec) -> Result<(), String> {
    let until = Instant::now() + spec.ready.timeout;
    loop {
        let last = match look(runner, row, spec).await {
            Look::Ready => return Ok(()),
            Look::NotYet(why) => why,
            Look::Stranger(user) => return Err(format!("port {} is used by {user}", row.port)),
        };
        if let Ok(UnitStatus::Exited(exit)) = runner.status(&UnitName(row.unit.clone())).await {
            return Err(format!("it ended with exit code {}", exit.code));
        }
        if Instant::now() >= until {
            return Err(last);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until nobody listens on a port of this host.
async fn free(port: u16) -> Result<(), String> {
    let until = Instant::now() + FREE_PATIENCE;
    while let Some(user) = ports::user_of(port) {
        if Instant::now() >= until {
            return Err(format!("port {port} is used by {user}"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
