//! Models: which there are, their versions and decisions, and two of them side by side.

mod compare;
mod decide;
mod matrix;
mod version;
mod view;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;

use super::csv;
use super::serving::serving;
use super::shell::{Section, Shell};
use super::visitor::Visitor;
use crate::engine::now;
use crate::store::access::Scope;
use crate::store::models;
use crate::web::App;
use crate::web::api::models as api;
use crate::web::api::page::{Asked, Cursor, Named, Page, Rows};
use crate::web::problem::Answer;
use view::{ModelPage, ModelsPage};

/// Versions that a model's page shows and its chart is of.
const VERSIONS: u64 = 50;
/// Versions of which a file has the metrics.
const FILED: u64 = 200;
/// Decisions that it shows.
const DECISIONS: u64 = 30;

/// The routes of the models' pages.
pub fn router() -> Router<App> {
    Router::new()
        .route("/models", get(list))
        .route("/models/{model}", get(show))
        .route("/models/{model}/compare", get(compare::show))
        .route("/models/{model}/metrics.csv", get(metrics))
        .route("/models/{model}/rollback", get(decide::ask_rollback).post(decide::rollback))
        .route("/models/{model}/versions/{version}", get(version::show))
        .route("/models/{model}/versions/{version}/promote", get(decide::ask_promote).post(decide::promote))
        .route("/models/{model}/versions/{version}/reject", get(decide::ask_reject).post(decide::reject))
}

/// All models.
async fn list(visitor: Visitor, State(app): State<App>) -> Answer<Response> {
    let Json(models) = api::list(visitor.caller.clone(), State(app.clone())).await?;
    let deployments = serving(&visitor, &app, None).await?;
    // Whether a server answers is no event.
    let shell = Shell::new(&visitor, Section::Models, "Models").live("/api/v1/events").every(10);
    super::page(&ModelsPage::of(shell, models, deployments))
}

/// Every metric of the newest versions, as a file.
async fn metrics(visitor: Visitor, State(app): State<App>, Named(model): Named<String>) -> Answer<Response> {
    let page = Asked(Page { before: None, limit: Rows::try_from(FILED).ok() });
    let Json(versions) = api::versions(visitor.caller, State(app), Named(model.clone()), page).await?;
    let rows = versions.items.iter().flat_map(|row| {
        row.metrics.iter().map(|(name, value)| {
            let made = jiff::Timestamp::from_microsecond(row.made_at).map(|at| at.to_string()).unwrap_or_default();
            [
                row.version.to_string(),
                row.champion.to_string(),
                row.build.to_string(),
                made,
                csv::text(name),
                csv::number(Some(*value)),
            ]
        })
    });
    csv::answer(&format!("{model}-metrics"), ["version", "champion", "build", "made", "metric", "value"], rows)
}

/// What of a model.
#[derive(Debug, Default, Deserialize)]
struct Looked {
    /// The metric that is charted.
    #[serde(default)]
    metric: String,
    /// Versions before this one.
    before: Option<Cursor>,
}

/// A model.
async fn show(
    visitor: Visitor,
    State(app): State<App>,
    Named(model): Named<String>,
    Asked(looked): Asked<Looked>,
) -> Answer<Response> {
    let page = |limit: u64, before| Asked(Page { before, limit: Rows::try_from(limit).ok() });
    let versions = page(VERSIONS, looked.before);
    let (caller, name) = (visitor.caller.clone(), || Named(model.clone()));
    let Json(versions) = api::versions(caller.clone(), State(app.clone()), name(), versions).await?;
    let decisions = api::promotions(caller, State(app.clone()), name(), page(DECISIONS, None));
    let Json(decisions) = decisions.await?;
    let serves = serving(&visitor, &app, Some(&model)).await?;
    let name = model.clone();
    let project = api::seen_as(&visitor.caller, &app, &model).await?;
    let may_decide = visitor.may_in(Scope::Approve, &project);
    let read = app.engine.store.read(move |db| match models::champion(db, &name)? {
        Some(champion) => models::before(db, &name, champion),
        None => Ok(None),
    });
    let can_go_back = may_decide && read.await?.is_some();
    // What a person decided makes no event.
    let shell = Shell::new(&visitor, Section::Models, model.clone()).live("/api/v1/events").every(5);
    let page = ModelPage::of(shell, model, versions, decisions.items, serves, &looked.metric, now());
    super::page(&page.for_who_decides(may_decide, can_go_back))
}
