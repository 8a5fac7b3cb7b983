//! The queue and the runners: who waits for what, and whose turn is next.

use askama::Template;
use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::form::Posted;
use super::line::Line;
use super::mark::Mark;
use super::shell::{Section, Shell};
use super::visitor::Visitor;
use crate::engine::now;
use crate::ids::BuildId;
use crate::store::access::Scope;
use crate::store::glance;
use crate::web::App;
use crate::web::api::builds::{self, Move, Place};
use crate::web::api::page::{Body, Named, Perhaps};
use crate::web::api::queue::{self as api, Pause, QueueView, RunnerView, WaitingView};
use crate::web::problem::Answer;

/// Builds that wait and are shown.
const SHOWN: usize = 200;

/// The routes of the queue's page.
pub fn router() -> Router<App> {
    Router::new()
        .route("/queue", get(show))
        .route("/queue/pause", post(pause))
        .route("/queue/resume", post(resume))
        .route("/queue/front", post(front))
}

#[derive(Template)]
#[template(path = "queue.html")]
struct QueuePage {
    shell: Shell,
    queue: QueueView,
    /// Those that wait, the next one first, as lists show builds.
    waiting: Vec<(WaitingView, Option<Line>)>,
    runners: Vec<RunnerView>,
    may_pause: bool,
    may_move: bool,
}

async fn show(visitor: Visitor, State(app): State<App>) -> Answer<Response> {
    let Json(mut queue) = api::show(visitor.caller.clone(), State(app.clone())).await?;
    let rows: Vec<WaitingView> = queue.waiting.drain(..).take(SHOWN).collect();
    let ids: Vec<BuildId> = rows.iter().map(|row| BuildId(row.build)).collect();
    let read =
        app.engine.store.read(move |db| ids.into_iter().map(|id| glance::one(db, id)).collect::<Result<Vec<_>, _>>());
    let at = now();
    let lines = read.await?.into_iter().map(|row| row.map(|row| Line::of(&row, at)));
    let waiting = rows.into_iter().zip(lines).collect();
    // Who is held to projects does not see the others' builds on the runners.
    let runners =
        api::runners(visitor.caller.clone(), State(app)).await.map(|Json(runners)| runners).unwrap_or_default();
    let mut shell = Shell::new(&visitor, Section::Queue, "Queue").live("/api/v1/events");
    shell.every = Some(3);
    let (may_pause, may_move) = (visitor.caller.may(Scope::Admin).is_ok(), visitor.caller.has(Scope::Trigger));
    super::page(&QueuePage { shell, queue, waiting, runners, may_pause, may_move })
}

/// Why, or which.
#[derive(Debug, Deserialize)]
struct Wish {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    build: u64,
}

fn back() -> Response {
    Redirect::to("/queue").into_response()
}

async fn pause(State(app): State<App>, posted: Posted<Wish>) -> Answer<Response> {
    let reason = Some(posted.form.reason.trim().to_owned()).filter(|reason| !reason.is_empty());
    let _ = api::pause(posted.visitor.caller, State(app), Perhaps(Some(Pause { reason }))).await?;
    Ok(back())
}

async fn resume(State(app): State<App>, posted: Posted<Wish>) -> Answer<Response> {
    let _ = api::resume(posted.visitor.caller, State(app)).await?;
    Ok(back())
}

async fn front(State(app): State<App>, posted: Posted<Wish>) -> Answer<Response> {
    let wish = Move { to: Some(Place::Front), priority: None };
    let _ = builds::move_build(posted.visitor.caller, State(app), Named(posted.form.build), Body(wish)).await?;
    Ok(back())
}
