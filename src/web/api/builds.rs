//! Builds: list, look, cancel, approve, move.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::page::{Asked, Body, Cursor, Listed, Named, Page, Perhaps, Rows};
use super::view::{BuildDetail, BuildView, StageView};
use crate::build::retry;
use crate::build::status::CancelReason;
use crate::engine::now;
use crate::ids::BuildId;
use crate::store::access::{self, Scope};
use crate::store::builds::{self, BuildRow, Filter};
use crate::store::{attempts, outbox, queue, results};
use crate::web::App;
use crate::web::auth::Caller;
use crate::web::problem::{Answer, Problem};

/// Which builds.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// Of this project.
    pub project: Option<String>,
    /// Of this branch; wants `project`.
    pub branch: Option<String>,
    /// `queued`, `running`, `passed`, `failed` or `cancelled`; wants `project`.
    pub status: Option<String>,
    /// Of this commit.
    pub commit: Option<String>,
    /// The `next` of the page before.
    #[param(value_type = Option<i64>, minimum = 0)]
    pub before: Option<Cursor>,
    /// Rows, 1 to 200; 20 if not given.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 200)]
    pub limit: Option<Rows>,
}

/// Builds, newest first.
#[utoipa::path(get, path = "/builds", params(Which), responses(
    (status = 200, body = Listed<BuildView>), (status = 400, body = Problem), (status = 401, body = Problem)
))]
pub async fn list(
    caller: Caller,
    State(app): State<App>,
    Asked(which): Asked<Which>,
) -> Answer<Json<Listed<BuildView>>> {
    caller.may(Scope::Read)?;
    let page = Page { before: which.before, limit: which.limit };
    if which.project.is_none() && (which.branch.is_some() || which.status.is_some()) {
        return Err(Problem::invalid("`branch` and `status` want `project`, too"));
    }
    if let Some(project) = &which.project {
        caller.may_in(Scope::Read, project)?;
    }
    let projects = match &which.project {
        Some(project) => Some(vec![project.clone()]),
        None => caller.projects().map(<[String]>::to_vec),
    };
    let filter = Filter { projects, branch: which.branch, status: which.status, commit: which.commit };
    let before = page.before().map(BuildId);
    let rows = app.engine.store.read(move |db| builds::find(db, &filter, before, page.limit() + 1)).await?;
    let listed = Listed::of(rows, page.limit(), |row| row.id.0);
    let waits = app.queue.waits();
    let view = |row: &BuildRow| {
        let why = waits.iter().find(|(id, _)| *id == row.id).map(|(_, why)| why.to_string());
        BuildView::of(row, why)
    };
    Ok(Json(Listed { items: listed.items.iter().map(view).collect(), next: listed.next }))
}

/// One build with its stages and attempts.
#[utoipa::path(get, path = "/builds/{build}", params(("build" = u64, Path)), responses(
    (status = 200, body = BuildDetail), (status = 401, body = Problem), (status = 404, body = Problem)
))]
pub async fn show(caller: Caller, State(app): State<App>, Named(id): Named<u64>) -> Answer<Json<BuildDetail>> {
    let id = BuildId(id);
    allowed(&caller, &app, Scope::Read, id).await?;
    let slots = app.queue.slots.clone();
    let waits = app.queue.waits_for(id).map(|why| why.to_string());
    let detail = app
        .engine
        .store
        .read(move |db| {
            let row = builds::get(db, id)?;
            let mut stages = Vec::new();
            for stage in builds::stages(db, id)? {
                let tries = attempts::of_stage(db, id, &stage.node)?;
                let result = results::of_stage(db, id, &stage.node)?.map(|result| (result.metrics, result.version));
                let waits = slots.waits_for(id, &stage.node);
                stages.push(StageView::of(stage, tries, result, waits));
            }
            Ok(BuildDetail::of(&row, queue::standing(db, id)?, (stages, outbox::of_build(db, id)?), waits))
        })
        .await?;
    Ok(Json(detail))
}

/// The build, if the caller may do this with it.
pub async fn allowed(caller: &Caller, app: &App, scope: Scope, id: BuildId) -> Answer<BuildRow> {
    let row = app.engine.store.read(move |db| builds::get(db, id)).await?;
    // A build of a project that the caller does not see is answered like one that is not there.
    if !caller.sees(&row.request.project) {
        return Err(Problem::missing(format!("there is no build {id}")));
    }
    caller.may_in(scope, &row.request.project)?;
    Ok(row)
}

/// How to cancel.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// Wait for nothing: no grace, no clean-up stages.
    #[serde(default)]
    pub kill: bool,
}

/// What became of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Accepted {
    /// It was written down and will be enforced; false if there was nothing left to do.
    pub accepted: bool,
}

/// Ends a build, waiting or running. The wish is durable when this answers.
#[utoipa::path(post, path = "/builds/{build}/cancel", params(("build" = u64, Path)), request_body = Option<Cancel>,
    responses((status = 202, body = Accepted), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub async fn cancel(
    caller: Caller,
    State(app): State<App>,
    Named(id): Named<u64>,
    Perhaps(cancel): Perhaps<Cancel>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    let id = BuildId(id);
    allowed(&caller, &app, Scope::Trigger, id).await?;
    let kill = cancel.is_some_and(|cancel| cancel.kill);
    let reason = if kill { CancelReason::Kill } else { CancelReason::User };
    let accepted = app
        .engine
        .store
        .write(move |tx| {
            let open = queue::want_cancel(tx, id, reason)?;
            access::audit(tx, &caller.name, "build.cancel", &id.to_string(), if kill { "kill" } else { "" }, now())?;
            Ok(open)
        })
        .await?;
    app.queue.nudge();
    Ok((StatusCode::ACCEPTED, Json(Accepted { accepted })))
}

/// Agrees that a build begins that waits for a person. The agreement is for this build's commit alone.
#[utoipa::path(post, path = "/builds/{build}/approve", params(("build" = u64, Path)),
    responses((status = 202, body = Accepted), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub async fn approve(
    caller: Caller,
    State(app): State<App>,
    Named(id): Named<u64>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    let id = BuildId(id);
    allowed(&caller, &app, Scope::Approve, id).await?;
    app.engine
        .store
        .write(move |tx| {
            queue::approve(tx, id)?;
            access::audit(tx, &caller.name, "build.approve", &id.to_string(), "", now())
        })
        .await?;
    app.queue.nudge();
    Ok((StatusCode::ACCEPTED, Json(Accepted { accepted: true })))
}

/// What is to run again. With nothing said: what did not end well, and what stands behind it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Again {
    /// Every stage.
    #[serde(default)]
    pub all: bool,
    /// These stages, and what stands behind them.
    #[serde(default)]
    pub stages: Vec<String>,
}

/// The stages that run again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Retried {
    /// Their keys.
    pub stages: Vec<String>,
}

/// Runs a build that has ended again, in part or whole: the same build, with new attempts.
#[utoipa::path(post, path = "/builds/{build}/retry", params(("build" = u64, Path)), request_body = Option<Again>,
    responses((status = 202, body = Retried), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub async fn retry_build(
    caller: Caller,
    State(app): State<App>,
    Named(id): Named<u64>,
    Perhaps(again): Perhaps<Again>,
) -> Answer<(StatusCode, Json<Retried>)> {
    let id = BuildId(id);
    allowed(&caller, &app, Scope::Trigger, id).await?;
    let which = match again.unwrap_or_default() {
        Again { all: true, stages } if stages.is_empty() => retry::Which::All,
        Again { all: true, .. } => return Err(Problem::invalid("say `all` or `stages`, not both")),
        Again { stages, .. } if stages.is_empty() => retry::Which::Failed,
        Again { stages, .. } => retry::Which::Stages(stages),
    };
    let nodes = app.engine.retry(id, which, &caller.name).await?;
    let stages: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    let told = stages.join(" ");
    app.engine
        .store
        .write(move |tx| access::audit(tx, &caller.name, "build.retry", &id.to_string(), &told, now()))
        .await?;
    app.queue.nudge();
    Ok((StatusCode::ACCEPTED, Json(Retried { stages })))
}

/// Where to.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Before all others of the project.
    Front,
    /// Behind all others of the project.
    Back,
}

/// A change of a waiting build's place.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// Its place in the project's line.
    pub to: Option<Place>,
    /// Its priority: greater goes first, before all lower ones of all projects.
    pub priority: Option<i32>,
}

/// Moves a waiting build.
#[utoipa::path(post, path = "/builds/{build}/move", params(("build" = u64, Path)), request_body = Move,
    responses((status = 202, body = Accepted), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub async fn move_build(
    caller: Caller,
    State(app): State<App>,
    Named(id): Named<u64>,
    Body(wish): Body<Move>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    let id = BuildId(id);
    allowed(&caller, &app, Scope::Trigger, id).await?;
    if wish.priority.is_some() {
        caller.may(Scope::Admin)?;
    }
    app.engine
        .store
        .write(move |tx| {
            if let Some(place) = wish.to {
                queue::move_to(tx, id, matches!(place, Place::Front))?;
            }
            if let Some(priority) = wish.priority {
                queue::set_priority(tx, id, i64::from(priority))?;
            }
            access::audit(tx, &caller.name, "build.move", &id.to_string(), &format!("{wish:?}"), now())
        })
        .await?;
    app.queue.nudge();
    Ok((StatusCode::ACCEPTED, Json(Accepted { accepted: true })))
}
