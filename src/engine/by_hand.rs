//! What people decide about models: promote, reject, roll back. It is the same walk at a terminal and in the daemon:
//!
//! ```text
//! right -> what an interrupted process left -> decide (decision, deployment, audit: one transaction) -> make_true
//! ```
//!
//! Between the last two the decision is durable: whoever dies there leaves a `starting` row, which the next one takes up.

use std::sync::Arc;

use serde_json::json;

use super::deployments::{self as of, Right, ServerSecrets};
use super::{Engine, EngineError, now, workspace};
use crate::deploy::{self, Author, DeployError, DeploySpec, Recovered};
use crate::ids::Micros;
use crate::store::deployments::{self, DeploymentRow, DeploymentStatus};
use crate::store::models::{self, Promotion, VersionRow};
use crate::store::{StoreError, Tx, access};

/// What a person wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// This version becomes champion.
    Promote(u64),
    /// This version, or one with the same files, is not promoted by a pipeline.
    Reject(u64),
    /// The champion before becomes champion again.
    RollBack,
}

/// A wish with all that is kept of it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Whose versions.
    pub model: String,
    /// What.
    pub wish: Wish,
    /// The champion that the person saw, if they said so: nothing is done if it is another one now.
    pub seen: Option<u64>,
    /// Why, for those who read the history.
    pub reason: String,
    /// Who.
    pub actor: String,
}

/// Why it is not done. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It makes no sense as things stand.
    #[error("{0}")]
    Impossible(String),
    /// The database, or a lock.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(why) => Self::Impossible(why),
            other => Self::Engine(other.into()),
        }
    }
}

/// What was decided.
#[derive(Debug, Clone)]
pub struct Decided {
    /// About which model.
    pub model: String,
    /// About which version.
    pub version: u64,
    /// As the history has it; `None` if things stand like that already.
    pub verdict: Option<&'static str>,
    /// The champion before.
    pub before: Option<u64>,
    /// What follows: this takes the port of what serves.
    pub deployment: Option<DeploymentRow>,
    actor: String,
}

/// The right to change what serves a model, with everything in order that an interrupted process left; and what was put in
/// order.
///
/// # Errors
/// The database's, or if the locks cannot be used.
pub async fn right(
    engine: &Arc<Engine>,
    model: &str,
    holder: &str,
    (secrets, waits): (&dyn ServerSecrets, impl FnMut(&str)),
) -> Result<(Right, Vec<Recovered>), EngineError> {
    let right = of::right_where_it_serves(engine, model, holder, waits).await?;
    let mut rows = engine.store.read(deployments::open).await?;
    rows.retain(|row| row.model == model);
    let values = of::values(secrets, &rows).await;
    let recovered = match of::deployer(engine, values).recover(model).await {
        Ok(recovered) => recovered,
        Err(DeployError::Store(error)) => return Err(error.into()),
        // Whatever is decided could not be made true either.
        Err(DeployError::Runner(error)) => return Err(error.into()),
        Err(error) => {
            vec![Recovered { model: model.to_owned(), version: 0, what: format!("cannot be taken up: {error}") }]
        }
    };
    Ok((right, recovered))
}

/// Stores the decision together with the deployment that follows from it. The caller has the right.
///
/// # Errors
/// [`Refused`]; a version that there is not is [`StoreError::Missing`] in it.
pub async fn decide(engine: &Arc<Engine>, asked: &Asked) -> Result<Decided, Refused> {
    let model = asked.model.clone();
    let wish = asked.wish;
    let (champion, version, live) = engine
        .store
        .read(move |db| {
            let champion = models::champion(db, &model)?;
            let version = match wish {
                Wish::Promote(version) | Wish::Reject(version) => Some(models::version(db, &model, version)?.version),
                Wish::RollBack => match champion {
                    Some(champion) => models::before(db, &model, champion)?,
                    None => None,
                },
            };
            Ok((champion, version, deployments::live(db, &model)?))
        })
        .await?;
    let version = possible(asked, champion, version)?;
    let mut decided = Decided {
        model: asked.model.clone(),
        version,
        verdict: None,
        before: champion,
        deployment: None,
        actor: asked.actor.clone(),
    };
    let (verdict, action) = match wish {
        Wish::Promote(_) if champion == Some(version) => return Ok(decided),
        Wish::Promote(_) => ("promoted", "model.promote"),
        Wish::Reject(_) => ("rejected", "model.reject"),
        Wish::RollBack => ("rolled-back", "model.rollback"),
    };
    decided.verdict = Some(verdict);
    let deployment = match live.filter(|live| verdict != "rejected" && live.version != version) {
        Some(live) => Some(row_for(engine, &live, &asked.model, version).await?),
        None => None,
    };
    let (asked, before, at) = (asked.clone(), champion, now());
    let write = move |tx: &Tx| {
        models::decide(tx, &promotion(&asked, (version, before, verdict), at))?;
        let target = format!("{}/{version}", asked.model);
        access::audit(tx, &asked.actor, action, &target, &asked.reason, at)?;
        let Some(row) = deployment else { return Ok(None) };
        let id = deployments::create(tx, &row)?;
        Ok(Some(DeploymentRow { id, ..row }))
    };
    decided.deployment = engine.store.write(write).await?;
    Ok(decided)
}

/// The version that the decision is about, unless it makes no sense as things stand.
fn possible(asked: &Asked, champion: Option<u64>, version: Option<u64>) -> Result<u64, Refused> {
    let model = &asked.model;
    let named = |version: Option<u64>| version.map_or("none".to_owned(), |version| format!("version {version}"));
    if asked.seen.is_some() && asked.seen != champion {
        return Err(Refused::Impossible(format!(
            "the champion of `{model}` is {} by now, not {}: look again",
            named(champion),
            named(asked.seen)
        )));
    }
    match (asked.wish, champion, version) {
        (Wish::RollBack, None, _) => Err(Refused::Impossible(format!("model `{model}` has no champion"))),
        (Wish::RollBack, Some(champion), None) => Err(Refused::Impossible(format!(
            "version {champion} of `{model}` is its first champion; there is none before it"
        ))),
        (Wish::Reject(rejected), Some(champion), _) if champion == rejected => Err(Refused::Impossible(format!(
            "version {rejected} of `{model}` is the champion: roll it back, or promote another one"
        ))),
        (_, _, Some(version)) | (Wish::Promote(version) | Wish::Reject(version), _, None) => Ok(version),
    }
}

fn promotion(asked: &Asked, (version, before, verdict): (u64, Option<u64>, &str), at: Micros) -> Promotion {
    Promotion {
        model: asked.model.clone(),
        candidate: version,
        champion: before,
        verdict: verdict.to_owned(),
        actor: asked.actor.clone(),
        stage: None,
        evidence: json!({ "reason": asked.reason }),
        at,
    }
}

/// Makes a decision true where something serves: the new version takes the port. Else the rows say what came of it, and the
/// champion before is champion again.
///
/// # Errors
/// As [`crate::deploy::Deployer::make_true`].
pub async fn make_true(
    engine: &Arc<Engine>,
    decided: &Decided,
    secrets: &dyn ServerSecrets,
) -> Result<(), DeployError> {
    let Some(row) = &decided.deployment else { return Ok(()) };
    let model = decided.model.clone();
    let mut rows: Vec<DeploymentRow> =
        engine.store.read(move |db| deployments::live(db, &model)).await?.into_iter().collect();
    rows.push(row.clone());
    let values = of::values(secrets, &rows).await;
    let author = Author { actor: decided.actor.clone(), stage: None };
    of::deployer(engine, values).make_true(row, decided.before, &author).await
}

/// The deployment by which a version takes the port of the one that serves now.
async fn row_for(
    engine: &Arc<Engine>,
    live: &DeploymentRow,
    model: &str,
    version: u64,
) -> Result<DeploymentRow, Refused> {
    let name = model.to_owned();
    let read = engine
        .store
        .read(move |db| Ok((deployments::of_version(db, &name, version)?, models::version(db, &name, version)?)));
    let earlier = match read.await? {
        (Some(earlier), _) => earlier,
        (None, row) => like(engine, live, &row).await?,
    };
    let at = now();
    Ok(DeploymentRow {
        id: 0,
        unit: deploy::unit_name(&engine.store.instance, model, version, at),
        version,
        port: live.port,
        status: DeploymentStatus::Starting,
        detail: String::new(),
        since: at,
        ..earlier
    })
}

/// How a version that was never deployed is started: as the one that serves, with its own source tree and outputs.
async fn like(engine: &Arc<Engine>, live: &DeploymentRow, row: &VersionRow) -> Result<DeploymentRow, Refused> {
    let mut spec: DeploySpec = serde_json::from_value(live.spec.clone()).map_err(StoreError::from)?;
    spec.workspace = workspace::of_version(engine, row).await?;
    Ok(DeploymentRow { spec: serde_json::to_value(spec).map_err(StoreError::from)?, ..live.clone() })
}
