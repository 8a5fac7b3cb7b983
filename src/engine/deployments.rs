//! Deployments from the engine's side: their locks, and what an interrupted process left of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::lock::NamedLock;
use super::{Engine, EngineError, now};
use crate::deploy::{Deployer, Recovered, RunnerSource};
use crate::runner::{Runner, RunnerError};
use crate::store::deployments::{self, DeploymentRow, DeploymentStatus};

struct EngineRunners(Arc<Engine>);

#[async_trait]
impl RunnerSource for EngineRunners {
    async fn named(&self, name: &str) -> Result<Arc<dyn Runner>, RunnerError> {
        self.0.runners.named(name).await
    }
}

/// Where the values of the secrets come from that servers need.
#[async_trait]
pub trait ServerSecrets: Send + Sync {
    /// The values for a server, as far as there are any.
    async fn values(&self, row: &DeploymentRow) -> BTreeMap<String, String>;
}

/// From our own environment.
#[derive(Debug, Clone, Copy)]
pub struct FromEnvironment;

#[async_trait]
impl ServerSecrets for FromEnvironment {
    async fn values(&self, row: &DeploymentRow) -> BTreeMap<String, String> {
        let names = crate::deploy::secret_names(row).into_iter();
        names.filter_map(|name| std::env::var(&name).ok().map(|value| (name, value))).collect()
    }
}

/// The values for all of these.
pub async fn values(secrets: &dyn ServerSecrets, rows: &[DeploymentRow]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for row in rows {
        all.extend(secrets.values(row).await);
    }
    all
}

/// What deployments work with, with these values of secrets.
pub fn deployer(engine: &Arc<Engine>, secrets: BTreeMap<String, String>) -> Deployer {
    Deployer {
        store: Arc::clone(&engine.store),
        artifacts: Arc::clone(&engine.artifacts),
        runners: Arc::new(EngineRunners(Arc::clone(engine))),
        secrets,
        now,
    }
}

/// The right to change what serves a model, and on which port.
#[derive(Debug)]
pub struct Right {
    _model: NamedLock,
    _port: Option<NamedLock>,
}

impl Right {
    /// Waits for it. The model's lock comes first everywhere, so nobody waits in a circle.
    ///
    /// # Errors
    /// If the locks cannot be used.
    pub async fn take(
        engine: &Engine,
        model: &str,
        port: Option<u16>,
        holder: &str,
        mut waits: impl FnMut(&str),
    ) -> Result<Self, EngineError> {
        let paths = &engine.paths;
        let say = |who: &str| format!("waits for {who}, which changes what serves model `{model}`");
        let locked = NamedLock::take(&NamedLock::model(paths, model), holder, |who| waits(&say(who))).await?;
        let on_port = match port {
            Some(port) => {
                let say = |who: &str| format!("waits for port {port}, which {who} has");
                Some(NamedLock::take(&NamedLock::port(paths, port), holder, |who| waits(&say(who))).await?)
            }
            None => None,
        };
        Ok(Self { _model: locked, _port: on_port })
    }
}

/// The right to change what serves a model on the port where it serves now, for someone at a terminal.
///
/// # Errors
/// The database's, or if the locks cannot be used.
pub async fn right_where_it_serves(
    engine: &Arc<Engine>,
    model: &str,
    holder: &str,
    mut waits: impl FnMut(&str),
) -> Result<Right, EngineError> {
    loop {
        let name = model.to_owned();
        let serves = engine.store.read(move |db| deployments::live(db, &name)).await?.map(|live| live.port);
        let right = Right::take(engine, model, serves, holder, &mut waits).await?;
        let name = model.to_owned();
        let still = engine.store.read(move |db| deployments::live(db, &name)).await?.map(|live| live.port);
        // It may have moved while the locks were waited for.
        if still == serves {
            return Ok(right);
        }
    }
}

/// Takes up deployments whose process is gone. Those that somebody works on are left alone.
///
/// # Errors
/// The database's.
pub async fn recover(engine: &Arc<Engine>, secrets: &dyn ServerSecrets) -> Result<Vec<Recovered>, EngineError> {
    let open = engine.store.read(deployments::open).await?;
    let mut models: Vec<String> = Vec::new();
    for row in open.iter().filter(|row| row.status == DeploymentStatus::Starting) {
        if !models.contains(&row.model) {
            models.push(row.model.clone());
        }
    }
    let mut recovered = Vec::new();
    for model in models {
        let Ok(_right) = NamedLock::try_take(&NamedLock::model(&engine.paths, &model), "a clean-up")? else { continue };
        let rows: Vec<DeploymentRow> = open.iter().filter(|row| row.model == model).cloned().collect();
        let values = values(secrets, &rows).await;
        match deployer(engine, values).recover(&model).await {
            Ok(done) => recovered.extend(done),
            Err(error) => recovered.push(Recovered { model, version: 0, what: format!("cannot be taken up: {error}") }),
        }
    }
    Ok(recovered)
}
