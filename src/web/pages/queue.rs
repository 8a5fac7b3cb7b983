//! The queue and the runners: who waits for what, and whose turn is next.

use askama::Template;
use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::form::Posted;
use super::mark::Mark;
use super::shell::{Section, Shell};
use super::visitor::Visitor;
use crate::store::access::Scope;
use crate::web::App;
use crate::web::api::builds::{self, Move, Place};
use crate::web::api::page::{Body, Named, Perhaps};
use crate::web::api::queue::{self as api, Pause, QueueView, RunnerView};
use crate::web::problem::Answer;

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
    runners: Vec<RunnerView>,
    may_pause: bool,
    may_move: bool,
}

async fn show(visitor: Visitor, State(app): State<App>) -> Answer<Response> {
    let Json(queue) = api::show(visitor.caller.clone(), State(app.clone())).await?;
    // Who is held to projects does not see the others' builds on the runners.
    let runners =
        api::runners(visitor.caller.clone(), State(app)).await.map(|Json(runners)| runners).unwrap_or_default();
    let mut shell = Shell::new(&visitor, Section::Queue, "Queue").live("/api/v1/events");
    shell.every = Some(3);
    let (may_pause, may_move) = (visitor.caller.may(Scope::Admin).is_ok(), visitor.caller.has(Scope::Trigger));
    super::page(&QueuePage { shell, queue, runners, may_pause, may_move })
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
