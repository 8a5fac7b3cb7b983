//! Secrets: set, listed by name, removed. No route gives a value back.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::page::{Body, Named};
use crate::daemon::secrets::NewSecret;
use crate::store::access::Scope;
use crate::store::secrets::{self, SecretRow};
use crate::web::App;
use crate::web::auth::Caller;
use crate::web::problem::{Answer, Problem};

/// A secret, without its value.
#[derive(Debug, Serialize, ToSchema)]
pub struct SecretView {
    /// Its name.
    #[schema(example = "REGISTRY_TOKEN")]
    pub name: String,
    /// Whose; null for all projects.
    pub project: Option<String>,
    /// Globs of branches that get it; empty for all.
    pub branches: Vec<String>,
    /// Stages that get it; empty for all.
    pub stages: Vec<String>,
    /// The key that it is sealed with.
    pub key_id: String,
    /// Who set it.
    pub made_by: String,
    /// When, in microseconds since 1970.
    pub made_at: i64,
}

impl From<SecretRow> for SecretView {
    fn from(row: SecretRow) -> Self {
        Self {
            name: row.name,
            project: (!row.project.is_empty()).then_some(row.project),
            branches: row.branches,
            stages: row.stages,
            key_id: row.key_id,
            made_by: row.made_by,
            made_at: row.made_at.0,
        }
    }
}

/// A secret to be set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretWish {
    /// The value, 1 byte to 64 KiB. It is never given back.
    #[schema(write_only, min_length = 1, max_length = 65536)]
    pub value: String,
    /// Globs of branches that get it; all without it.
    #[serde(default)]
    pub branches: Vec<String>,
    /// Stages that get it; all without it.
    #[serde(default)]
    pub stages: Vec<String>,
}

async fn listed(app: &App, project: String) -> Answer<Json<Vec<SecretView>>> {
    let rows = app.engine.store.read(move |db| secrets::of_project(db, &project)).await?;
    Ok(Json(rows.into_iter().map(SecretView::from).collect()))
}

async fn set(app: &App, caller: &Caller, project: String, name: String, wish: SecretWish) -> Answer<StatusCode> {
    let new = NewSecret { name, project, branches: wish.branches, stages: wish.stages };
    new.check(&wish.value).map_err(Problem::invalid)?;
    app.secrets.set(new, wish.value, caller.name.clone()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Names of the secrets of a project alone.
#[utoipa::path(get, path = "/projects/{project}/secrets", params(("project" = String, Path)),
    responses((status = 200, body = Vec<SecretView>), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub async fn list_of_project(
    caller: Caller,
    State(app): State<App>,
    Named(project): Named<String>,
) -> Answer<Json<Vec<SecretView>>> {
    caller.may_in(Scope::Admin, &project)?;
    known(&app, &project)?;
    listed(&app, project).await
}

/// Sets a secret of a project, or replaces it.
#[utoipa::path(put, path = "/projects/{project}/secrets/{name}", request_body = SecretWish,
    params(("project" = String, Path), ("name" = String, Path)),
    responses((status = 204), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub async fn set_of_project(
    caller: Caller,
    State(app): State<App>,
    Named((project, name)): Named<(String, String)>,
    Body(wish): Body<SecretWish>,
) -> Answer<StatusCode> {
    caller.may_in(Scope::Admin, &project)?;
    known(&app, &project)?;
    set(&app, &caller, project, name, wish).await
}

/// Removes a secret of a project.
#[utoipa::path(delete, path = "/projects/{project}/secrets/{name}",
    params(("project" = String, Path), ("name" = String, Path)),
    responses((status = 204), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub async fn remove_of_project(
    caller: Caller,
    State(app): State<App>,
    Named((project, name)): Named<(String, String)>,
) -> Answer<StatusCode> {
    caller.may_in(Scope::Admin, &project)?;
    // The name of no project at all stands for all of them in the store.
    if project.is_empty() {
        return Err(Problem::missing("a project has a name"));
    }
    app.secrets.remove(project, name, caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Names of the secrets that all projects have.
#[utoipa::path(get, path = "/secrets", responses((status = 200, body = Vec<SecretView>), (status = 403, body = Problem)))]
pub async fn list(caller: Caller, State(app): State<App>) -> Answer<Json<Vec<SecretView>>> {
    caller.may(Scope::Admin)?;
    listed(&app, String::new()).await
}

/// Sets a secret of all projects, or replaces it.
#[utoipa::path(put, path = "/secrets/{name}", request_body = SecretWish, params(("name" = String, Path)),
    responses((status = 204), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 409, body = Problem)))]
pub async fn set_of_all(
    caller: Caller,
    State(app): State<App>,
    Named(name): Named<String>,
    Body(wish): Body<SecretWish>,
) -> Answer<StatusCode> {
    caller.may(Scope::Admin)?;
    set(&app, &caller, String::new(), name, wish).await
}

/// Removes a secret of all projects.
#[utoipa::path(delete, path = "/secrets/{name}", params(("name" = String, Path)),
    responses((status = 204), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub async fn remove_of_all(caller: Caller, State(app): State<App>, Named(name): Named<String>) -> Answer<StatusCode> {
    caller.may(Scope::Admin)?;
    app.secrets.remove(String::new(), name, caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a rotation came to.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rotated {
    /// Secrets that were sealed anew.
    pub count: usize,
    /// The new key's id.
    pub key_id: String,
}

/// Seals all secrets anew with a new key, and forgets the old one.
#[utoipa::path(post, path = "/secrets/rotate",
    responses((status = 200, body = Rotated), (status = 403, body = Problem)))]
pub async fn rotate(caller: Caller, State(app): State<App>) -> Answer<Json<Rotated>> {
    caller.may(Scope::Admin)?;
    let (count, key_id) = app.secrets.rotate(caller.name).await?;
    Ok(Json(Rotated { count, key_id }))
}

fn known(app: &App, project: &str) -> Answer<()> {
    match app.projects.get(project) {
        Some(_) => Ok(()),
        None => Err(Problem::missing(format!("there is no project `{project}`"))),
    }
}
