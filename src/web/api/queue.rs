//! The queue: who waits for what, pause and resume, the runners' places.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::builds::Accepted;
use super::page::Perhaps;
use crate::engine::now;
use crate::engine::slots::{Holder, PoolView};
use crate::store::access::{self, Scope};
use crate::store::queue;
use crate::web::App;
use crate::web::auth::Caller;
use crate::web::problem::{Answer, Problem};

/// Waiting builds that are shown.
const SHOWN: usize = 500;

/// The queue as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueueView {
    /// Why it is paused, if it is.
    pub paused: Option<String>,
    /// Builds that wait and that the caller sees, the next one first; at most 500.
    pub waiting: Vec<WaitingView>,
    /// Builds that wait in all, of those that the caller sees.
    pub count: usize,
}

/// A build that waits.
#[derive(Debug, Serialize, ToSchema)]
pub struct WaitingView {
    /// The build.
    pub build: u64,
    /// Whose.
    pub project: String,
    /// What it waits for, in words.
    pub waits_for: String,
    /// The same for programs.
    #[schema(value_type = Object)]
    pub why: crate::build::queue::WaitsFor,
}

/// The queue, the next build first, each with what it waits for.
#[utoipa::path(get, path = "/queue", responses((status = 200, body = QueueView), (status = 401, body = Problem)))]
pub async fn show(caller: Caller, State(app): State<App>) -> Answer<Json<QueueView>> {
    caller.may(Scope::Read)?;
    let waits = app.queue.waits();
    let read = app.engine.store.read(move |db| {
        let (mut waiting, mut count) = (Vec::new(), 0);
        for (id, why) in waits.iter() {
            // Who sees all needs the projects of those alone that are shown.
            if waiting.len() == SHOWN && caller.projects().is_none() {
                count = waits.len();
                break;
            }
            // One that retention or a person took meanwhile waits no more.
            let Some(project) = queue::project_of(db, *id)?.filter(|project| caller.sees(project)) else { continue };
            count += 1;
            if waiting.len() < SHOWN {
                waiting.push(WaitingView { build: id.0, project, waits_for: why.to_string(), why: why.clone() });
            }
        }
        Ok(QueueView { paused: queue::paused(db)?, waiting, count })
    });
    Ok(Json(read.await?))
}

/// Why.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// For those who wait.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Begins no more builds until the queue is resumed. What runs goes on.
#[utoipa::path(post, path = "/queue/pause", request_body = Option<Pause>,
    responses((status = 202, body = Accepted), (status = 403, body = Problem)))]
pub async fn pause(
    caller: Caller,
    State(app): State<App>,
    Perhaps(pause): Perhaps<Pause>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    let reason = pause.and_then(|pause| pause.reason).unwrap_or_else(|| format!("paused by {}", caller.name));
    set(caller, app, Some(reason)).await
}

/// Begins builds again.
#[utoipa::path(post, path = "/queue/resume",
    responses((status = 202, body = Accepted), (status = 403, body = Problem)))]
pub async fn resume(caller: Caller, State(app): State<App>) -> Answer<(StatusCode, Json<Accepted>)> {
    set(caller, app, None).await
}

async fn set(caller: Caller, app: App, reason: Option<String>) -> Answer<(StatusCode, Json<Accepted>)> {
    caller.may(Scope::Admin)?;
    app.engine
        .store
        .write(move |tx| {
            queue::set_paused(tx, reason.as_deref())?;
            let action = if reason.is_some() { "queue.pause" } else { "queue.resume" };
            access::audit(tx, &caller.name, action, "queue", reason.as_deref().unwrap_or_default(), now())
        })
        .await?;
    app.queue.nudge();
    Ok((StatusCode::ACCEPTED, Json(Accepted { accepted: true })))
}

/// A runner's places.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunnerView {
    /// Its name.
    pub name: String,
    /// Places in all.
    pub slots: usize,
    /// Stages that have one.
    pub held: Vec<HolderView>,
    /// Stages that wait for one, the next one first.
    pub waiting: Vec<HolderView>,
}

/// A stage of a build.
#[derive(Debug, Serialize, ToSchema)]
pub struct HolderView {
    /// The build.
    pub build: u64,
    /// The stage.
    pub node: String,
}

impl From<Holder> for HolderView {
    fn from(holder: Holder) -> Self {
        Self { build: holder.build.0, node: holder.node.to_string() }
    }
}

impl From<PoolView> for RunnerView {
    fn from(pool: PoolView) -> Self {
        let views = |holders: Vec<Holder>| holders.into_iter().map(HolderView::from).collect();
        Self { name: pool.runner, slots: pool.slots, held: views(pool.held), waiting: views(pool.waiting) }
    }
}

/// The runners with their places: who has them and who waits.
#[utoipa::path(get, path = "/runners", responses((status = 200, body = Vec<RunnerView>), (status = 403, body = Problem)))]
pub async fn runners(caller: Caller, State(app): State<App>) -> Answer<Json<Vec<RunnerView>>> {
    caller.may(Scope::Read)?;
    if caller.projects().is_some() {
        return Err(Problem::forbidden("this shows builds of all projects"));
    }
    Ok(Json(app.queue.slots.view().into_iter().map(RunnerView::from).collect()))
}
