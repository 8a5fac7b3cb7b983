//! Removes what nobody owns: units and networks of attempts that have ended, and of builds that are not there; artifacts that
//! no row names.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::attempt::unit_name;
use super::drive::Build;
use super::lock::BuildLock;
use super::{Engine, EngineError};
use crate::artifact::manifest::Digest;
use crate::artifact::{Sweep, Swept};
use crate::build::status::{BuildState, StageStatus};
use crate::ids::{BuildId, NodeKey};
use crate::pipeline::types::{Kind, Stage};
use crate::runner::spec::{LABEL_ATTEMPT, LABEL_BUILD, LABEL_NODE, LABEL_ROLE};
use crate::runner::{FoundUnit, Runner};
use crate::store::{StoreError, attempts, builds, deployments, roots};

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Removed {
    /// Names of units.
    pub units: Vec<String>,
    /// Names of networks.
    pub networks: Vec<String>,
}

/// Removes every unit of an attempt, and its network. Failures are logged: the next start or `gc` tries again.
pub async fn remove_attempt(build: &Arc<Build>, node: usize, attempt: u32) {
    super::scratch::remove(&super::scratch::path(build, node, attempt));
    let key = &build.expanded.plan.nodes[node].key;
    let stage = &build.expanded.plan.nodes[node].stage;
    let traces = Traces::of(stage);
    for runner in reachable(&build.engine, &super::begin::runner_name(build, node), traces.only_its_runner).await {
        for role in &traces.roles {
            let name = unit_name(build, node, attempt, role);
            if let Err(error) = runner.remove(&name).await {
                tracing::warn!(build = build.id.0, %key, unit = %name, %error, "cannot remove a unit");
            }
        }
        if !traces.network {
            continue;
        }
        let network = unit_name(build, node, attempt, "net").0;
        if let Err(error) = runner.remove_network(&network).await {
            tracing::warn!(build = build.id.0, %key, %network, %error, "cannot remove a network");
        }
    }
}

/// What an attempt of a stage may have left behind: each thing looked for is a question to the engine.
struct Traces {
    roles: Vec<String>,
    network: bool,
    /// Nothing of it can be on another runner than its own.
    only_its_runner: bool,
}

impl Traces {
    fn of(stage: &Stage) -> Self {
        let mut roles = vec!["stage".to_owned()];
        roles.extend(stage.services.keys().map(|service| format!("svc-{service}")));
        // Kinds that start the model API may have it on this host, with their own work in a container.
        let alone = match stage.kind {
            Kind::Plain | Kind::Train(_) | Kind::Tune(_) => true,
            Kind::TestApi(_) | Kind::Loadtest(_) | Kind::Promote(_) => false,
        };
        if !alone {
            roles.extend(["serve", "score", "trial"].map(str::to_owned));
        }
        Self { roles, network: !alone || !stage.services.is_empty(), only_its_runner: alone }
    }
}

/// The local runner, and Docker where the build uses it; or only the one of that name.
async fn reachable(engine: &Engine, name: &str, only: bool) -> Vec<Arc<dyn Runner>> {
    let mut runners = Vec::new();
    if !only || name != "docker" {
        runners.push(engine.runners.local());
    }
    if name == "docker"
        && let Ok(docker) = engine.runners.docker().await
    {
        runners.push(docker);
    }
    runners
}

/// Before a build is driven on: what its ended attempts left behind goes.
pub async fn remove_ended_units(build: &Arc<Build>, state: &BuildState) {
    for (node, status) in state.stages.iter().enumerate() {
        let (StageStatus::Succeeded { attempt }
        | StageStatus::Failed { attempt, .. }
        | StageStatus::Delayed { attempt, .. }) = status
        else {
            continue;
        };
        // What cannot be looked up is not removed: the next start or `gc` tries again.
        let Ok(kept) = super::kept::of_stage(build, node).await else { continue };
        for attempt in (1..=*attempt).filter(|attempt| !kept.contains(attempt)) {
            remove_attempt(build, node, attempt).await;
        }
    }
}

/// Removes artifacts that no build, model version or deployment names, and that are older than `age`. Why that is safe while
/// builds run is said in `artifact::gc`.
///
/// # Errors
/// The database's or the artifact store's; what had been removed stays removed.
pub async fn artifacts(engine: &Arc<Engine>, age: Duration, how: Sweep) -> Result<Cleared, EngineError> {
    let wrong = |error: &dyn std::fmt::Display| EngineError::Artifact(error.to_string());
    let roots = engine.store.read(|db| {
        let mut found: HashSet<Digest> = HashSet::new();
        roots::for_each(db, |text| {
            let digest = text.parse().map_err(|_| StoreError::Corrupt(format!("digest `{text}`")))?;
            found.insert(digest);
            Ok(())
        })?;
        Ok(found)
    });
    let marked = engine.artifacts.mark(roots.await?).await.map_err(|error| wrong(&error))?;
    let lost = marked.lost.len();
    let swept = engine.artifacts.sweep(marked, age, how).await.map_err(|error| wrong(&error))?;
    Ok(Cleared { swept, lost })
}

/// What a clean-up of artifacts did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Cleared {
    /// Files removed and kept.
    #[serde(flatten)]
    pub swept: Swept,
    /// Lists of files that a build names and that are gone or damaged: what such a build made cannot be had any more.
    pub lost: usize,
}

/// What a sweep does with failed units that are left for a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// They stay.
    Stay,
    /// They go.
    Go,
}

/// Removes everything of this data folder that no open attempt and no deployment owns. Builds that another process drives
/// are left alone. With [`Sweep::Tell`] it only tells what it would remove.
///
/// # Errors
/// The database's, or the local runner's.
pub async fn sweep(engine: &Arc<Engine>, runner: &dyn Runner, how: Sweep, kept: Kept) -> Result<Removed, EngineError> {
    let mut removed = Removed::default();
    // In this order: a deployment that is started in between has its row before its unit.
    let units = runner.list().await?;
    let live = engine.store.read(deployments::open).await?;
    let mut driven: BTreeMap<u64, bool> = BTreeMap::new();
    // A kept container cannot be started again without its network.
    let mut kept_networks: BTreeSet<String> = BTreeSet::new();
    for unit in units {
        if live.iter().any(|deployment| deployment.unit == unit.name.0) {
            continue;
        }
        if owned(engine, &unit, &mut driven).await? {
            continue;
        }
        if kept == Kept::Stay && is_kept(engine, &unit).await? {
            kept_networks.extend(network_of(&unit));
            continue;
        }
        if how == Sweep::Remove {
            runner.remove(&unit.name).await?;
        }
        removed.units.push(unit.name.0);
    }
    for network in runner.list_networks().await? {
        let prefix = format!("orc-{}-b", engine.store.instance);
        let rest = network.strip_prefix(&prefix);
        let owner = rest.and_then(|rest| rest.split('-').next()).and_then(|id| id.parse().ok());
        if let Some(id) = owner
            && (is_driven(engine, id, &mut driven) || is_open(engine, BuildId(id)).await?)
        {
            continue;
        }
        if kept_networks.contains(&network) {
            continue;
        }
        if how == Sweep::Remove {
            runner.remove_network(&network).await?;
        }
        removed.networks.push(network);
    }
    Ok(removed)
}

/// Whether another process drives the build now.
fn is_driven(engine: &Engine, id: u64, known: &mut BTreeMap<u64, bool>) -> bool {
    *known.entry(id).or_insert_with(|| BuildLock::take(&engine.paths, BuildId(id)).is_err())
}

async fn is_open(engine: &Arc<Engine>, id: BuildId) -> Result<bool, EngineError> {
    match engine.store.read(move |db| builds::get(db, id)).await {
        Ok(row) => Ok(!row.status.is_terminal()),
        Err(StoreError::Missing(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The attempt that a unit's labels name; none for a deployment.
fn attempt_of(unit: &FoundUnit) -> Option<(u64, NodeKey, u32)> {
    let label = |name: &str| unit.labels.get(name).map(String::as_str);
    if label(LABEL_ROLE) == Some("deployment") {
        return None;
    }
    Some((label(LABEL_BUILD)?.parse().ok()?, label(LABEL_NODE)?.parse().ok()?, label(LABEL_ATTEMPT)?.parse().ok()?))
}

async fn is_kept(engine: &Arc<Engine>, unit: &FoundUnit) -> Result<bool, EngineError> {
    let Some((build, node, attempt)) = attempt_of(unit) else { return Ok(false) };
    Ok(engine.store.read(move |db| super::kept::find(db, BuildId(build), &node, attempt)).await?)
}

/// The private network of the attempt that a unit is of.
fn network_of(unit: &FoundUnit) -> Option<String> {
    let role = unit.labels.get(LABEL_ROLE)?;
    Some(format!("{}net", unit.name.0.strip_suffix(role.as_str())?))
}

async fn owned(engine: &Arc<Engine>, unit: &FoundUnit, driven: &mut BTreeMap<u64, bool>) -> Result<bool, EngineError> {
    let Some((build, node, attempt)) = attempt_of(unit) else { return Ok(false) };
    if is_driven(engine, build, driven) {
        return Ok(true);
    }
    let row = engine.store.read(move |db| attempts::find(db, BuildId(build), &node, attempt)).await?;
    let open = row.is_some_and(|row| row.ended_at.is_none());
    Ok(open && is_open(engine, BuildId(build)).await?)
}
