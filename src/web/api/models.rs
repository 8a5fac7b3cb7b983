//! The model registry: which versions there are, which one serves, and every decision with its evidence.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use rusqlite::Connection;
use serde::Serialize;
use utoipa::ToSchema;

use super::page::{Asked, Listed, Named, Page};
use crate::store::access::Scope;
use crate::store::deployments::{self, DeploymentRow};
use crate::store::models::{self, Promotion, VersionRow};
use crate::store::{StoreError, models::Lineage};
use crate::web::App;
use crate::web::auth::Caller;
use crate::web::problem::{Answer, Problem};

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelView {
    /// Its name.
    pub model: String,
    /// The project that it belongs to: the one whose training made its oldest version that is kept.
    pub project: String,
    /// How many versions were registered and are kept.
    pub versions: u64,
    /// The newest version.
    pub newest: u64,
    /// The version that users get.
    pub champion: Option<u64>,
    /// Where it serves.
    pub serves: Option<DeploymentView>,
}

/// A version of a model.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionView {
    /// From 1.
    pub version: u64,
    /// Whether it is the champion.
    pub champion: bool,
    /// The build that trained it.
    pub build: u64,
    /// The stage that trained it.
    pub stage: String,
    /// Numbers as its training reported them.
    pub metrics: BTreeMap<String, f64>,
    /// What it was made of: commit, source, image, data, parameters.
    #[schema(value_type = Object)]
    pub lineage: Lineage,
    /// BLAKE3 digest of the model's own files.
    pub artifact: String,
    /// When, in microseconds since the epoch.
    pub made_at: i64,
}

impl VersionView {
    fn of(row: VersionRow, champion: Option<u64>) -> Self {
        Self {
            version: row.version,
            champion: champion == Some(row.version),
            build: row.build.0,
            stage: row.node.to_string(),
            metrics: row.metrics,
            lineage: row.lineage,
            artifact: row.artifact,
            made_at: row.made_at.0,
        }
    }
}

/// A decision about a model.
#[derive(Debug, Serialize, ToSchema)]
pub struct DecisionView {
    /// Its number.
    pub id: u64,
    /// The version that was judged.
    pub candidate: u64,
    /// The champion before.
    pub champion: Option<u64>,
    /// `promoted`, `held` (a person has to agree), `rejected`, `inconclusive`, `unchanged`, `error` or `rolled-back`.
    pub verdict: String,
    /// Who decided.
    pub actor: String,
    /// The build that decided, unless a person did.
    pub build: Option<u64>,
    /// The stage that decided.
    pub stage: Option<String>,
    /// The whole judgement: every number it rests on.
    #[schema(value_type = Object)]
    pub evidence: serde_json::Value,
    /// When, in microseconds since the epoch.
    pub at: i64,
}

impl From<(u64, Promotion)> for DecisionView {
    fn from((id, row): (u64, Promotion)) -> Self {
        Self {
            id,
            candidate: row.candidate,
            champion: row.champion,
            verdict: row.verdict,
            actor: row.actor,
            build: row.stage.as_ref().map(|(build, _)| build.0),
            stage: row.stage.map(|(_, node)| node.to_string()),
            evidence: row.evidence,
            at: row.at.0,
        }
    }
}

/// A server of a version.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeploymentView {
    /// Its number.
    pub id: i64,
    /// The model.
    pub model: String,
    /// The version.
    pub version: u64,
    /// The port that users talk to.
    pub port: u16,
    /// `docker` or `local`.
    pub runner: String,
    /// `starting`, `live`, `stopped` or `failed`.
    pub status: &'static str,
    /// Why, where there is something to say.
    pub detail: String,
    /// Since when, in microseconds since the epoch.
    pub since: i64,
}

impl From<DeploymentRow> for DeploymentView {
    fn from(row: DeploymentRow) -> Self {
        Self {
            id: row.id,
            model: row.model,
            version: row.version,
            port: row.port,
            runner: row.runner,
            status: row.status.word(),
            detail: row.detail,
            since: row.since.0,
        }
    }
}

/// Whether the caller may know of a version of a model that they see. It is held against its own project, too: earlier
/// programs let several projects add versions to one model. One that retention took is its model's.
fn sees_version(caller: &Caller, db: &Connection, model: &str, version: u64) -> Result<bool, StoreError> {
    Ok(models::made_in(db, model, version)?.is_none_or(|project| caller.sees(&project)))
}

/// Whether the caller may know of a decision: it holds the numbers of both versions.
fn sees_decision(caller: &Caller, db: &Connection, decision: &Promotion) -> Result<bool, StoreError> {
    for version in [Some(decision.candidate), decision.champion].into_iter().flatten() {
        if !sees_version(caller, db, &decision.model, version)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What is said of a model that there is not, or not for the caller.
pub fn no_model(model: &str) -> Problem {
    Problem::missing(format!("there is no model `{model}`"))
}

/// What serves, if the caller may know of it.
fn seen_live(caller: &Caller, db: &Connection, model: &str) -> Result<Option<DeploymentView>, StoreError> {
    let Some(live) = deployments::live(db, model)? else { return Ok(None) };
    Ok(sees_version(caller, db, model, live.version)?.then(|| live.into()))
}

/// All models that the caller sees.
#[utoipa::path(get, path = "/models", responses((status = 200, body = Vec<ModelView>), (status = 401, body = Problem)))]
pub async fn list(caller: Caller, State(app): State<App>) -> Answer<Json<Vec<ModelView>>> {
    caller.may(Scope::Read)?;
    let read = app.engine.store.read(move |db| {
        let mut found = Vec::new();
        for (model, versions) in models::names(db)? {
            let Some(project) = models::owner(db, &model)?.filter(|project| caller.sees(project)) else { continue };
            let Some(newest) = models::versions(db, &model, 1)?.into_iter().next() else { continue };
            let champion = models::champion(db, &model)?;
            let serves = seen_live(&caller, db, &model)?;
            found.push(ModelView { model, project, versions, newest: newest.version, champion, serves });
        }
        Ok(found)
    });
    Ok(Json(read.await?))
}

/// Whether the caller may know of the model; and whose it is.
pub async fn seen_as(caller: &Caller, app: &App, model: &str) -> Answer<String> {
    caller.may(Scope::Read)?;
    let name = model.to_owned();
    let owner = app.engine.store.read(move |db| models::owner(db, &name)).await?;
    owner.filter(|project| caller.sees(project)).ok_or_else(|| no_model(model))
}

/// The versions of a model, newest first.
#[utoipa::path(get, path = "/models/{model}/versions", params(("model" = String, Path), Page),
    responses((status = 200, body = Listed<VersionView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn versions(
    caller: Caller,
    State(app): State<App>,
    Named(model): Named<String>,
    Asked(page): Asked<Page>,
) -> Answer<Json<Listed<VersionView>>> {
    seen_as(&caller, &app, &model).await?;
    let read = app.engine.store.read(move |db| {
        let champion = models::champion(db, &model)?;
        Ok((champion, models::versions_before(db, &model, page.before(), page.limit() + 1)?))
    });
    let (champion, rows) = read.await?;
    let listed = Listed::of(rows, page.limit(), |row| row.version);
    let seen = listed.items.into_iter().filter(|row| caller.sees(&row.lineage.project));
    let items = seen.map(|row| VersionView::of(row, champion)).collect();
    Ok(Json(Listed { items, next: listed.next }))
}

/// One version.
#[utoipa::path(get, path = "/models/{model}/versions/{version}",
    params(("model" = String, Path), ("version" = u64, Path)),
    responses((status = 200, body = VersionView), (status = 404, body = Problem)))]
pub async fn version(
    caller: Caller,
    State(app): State<App>,
    Named((model, version)): Named<(String, u64)>,
) -> Answer<Json<VersionView>> {
    seen_as(&caller, &app, &model).await?;
    let read = app.engine.store.read(move |db| {
        let row = models::version(db, &model, version)?;
        if !caller.sees(&row.lineage.project) {
            return Err(StoreError::Missing(models::no_version(&model, version)));
        }
        Ok(VersionView::of(row, models::champion(db, &model)?))
    });
    Ok(Json(read.await?))
}

/// The decisions about a model, newest first.
#[utoipa::path(get, path = "/models/{model}/promotions", params(("model" = String, Path), Page),
    responses((status = 200, body = Listed<DecisionView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn promotions(
    caller: Caller,
    State(app): State<App>,
    Named(model): Named<String>,
    Asked(page): Asked<Page>,
) -> Answer<Json<Listed<DecisionView>>> {
    seen_as(&caller, &app, &model).await?;
    let read = app.engine.store.read(move |db| {
        let rows = models::history_before(db, &model, page.before(), page.limit() + 1)?;
        let listed = Listed::of(rows, page.limit(), |(id, _)| *id);
        let mut items = Vec::new();
        for row in listed.items {
            if sees_decision(&caller, db, &row.1)? {
                items.push(row.into());
            }
        }
        Ok(Listed { items, next: listed.next })
    });
    Ok(Json(read.await?))
}

/// What serves, and what is being started.
#[utoipa::path(get, path = "/deployments",
    responses((status = 200, body = Vec<DeploymentView>), (status = 401, body = Problem)))]
pub async fn deployments(caller: Caller, State(app): State<App>) -> Answer<Json<Vec<DeploymentView>>> {
    caller.may(Scope::Read)?;
    let read = app.engine.store.read(move |db| {
        let mut found = Vec::new();
        for row in deployments::open(db)? {
            let owner = models::owner(db, &row.model)?;
            if owner.is_some_and(|project| caller.sees(&project)) && sees_version(&caller, db, &row.model, row.version)?
            {
                found.push(row.into());
            }
        }
        Ok(found)
    });
    Ok(Json(read.await?))
}
