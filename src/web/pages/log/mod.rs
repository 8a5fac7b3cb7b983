//! A stage of a build: the log of an attempt, and the files that it made.
//!
//! A short log is one page, folded by steps. Of a long one the page holds a window; the script shows the rest by asking for
//! lines as they come into view.

mod load;
mod read;
mod view;

use std::path::PathBuf;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use serde::Deserialize;

use super::shell::{Section, Shell};
use super::visitor::Visitor;
use crate::build::status::StageStatus;
use crate::engine::now;
use crate::ids::{BuildId, NodeKey};
use crate::store::access::Scope;
use crate::store::attempts::{self, AttemptRow};
use crate::store::builds::{self, StageRow};
use crate::web::App;
use crate::web::api::artifacts::{self, WhichFiles};
use crate::web::api::builds::allowed;
use crate::web::api::page::{Asked, Cursor, Named, Rows as Limit};
use crate::web::problem::{Answer, Problem};
use read::{Part, Read};
use view::{LinesPage, LogPage, Rows};

/// Lines of a log that is shown as a whole.
const WHOLE: u64 = 2000;
/// Lines of a window into a longer one.
const WINDOW: u64 = 500;
/// Lines that the script may ask for at once.
const MOST_LINES: u64 = 1000;
/// Hits of a search.
const HITS: usize = 200;
/// Files that are listed.
const FILES: u64 = 100;

/// The routes of a stage's pages.
pub fn router() -> Router<App> {
    Router::new()
        .route("/builds/{build}/stages/{stage}", get(last))
        .route("/builds/{build}/stages/{stage}/attempts/{attempt}", get(show))
        .route("/builds/{build}/stages/{stage}/attempts/{attempt}/lines", get(lines))
        .route("/builds/{build}/stages/{stage}/attempts/{attempt}/loadtest", get(load::show))
        .route("/builds/{build}/stages/{stage}/attempts/{attempt}/loadtest/seconds.csv", get(load::series))
        .route("/builds/{build}/stages/{stage}/attempts/{attempt}/loadtest/latencies.csv", get(load::latencies))
}

/// Which part of a log.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Wanted {
    /// The first line, counted from 0.
    from: Option<Cursor>,
    /// How many; for the script.
    limit: Option<Cursor>,
    /// The first line of a step, counted from 0.
    step: Option<Cursor>,
    /// A text to be found.
    #[serde(default)]
    q: String,
    /// `1` for the log of the model API beside the attempt.
    #[serde(default)]
    serve: String,
}

impl Wanted {
    fn is_serve(&self) -> bool {
        self.serve == "1"
    }
}

/// The attempt that a path names, with its stage.
struct Found {
    build: builds::BuildRow,
    stage: StageRow,
    attempt: AttemptRow,
    attempts: Vec<u32>,
}

/// Leads to the last attempt of a stage; one that had none, to where its result is from, or to its build.
async fn last(
    visitor: Visitor,
    State(app): State<App>,
    Named((build, stage)): Named<(u64, String)>,
) -> Answer<Response> {
    let id = BuildId(build);
    allowed(&visitor.caller, &app, Scope::Read, id).await?;
    let none = || Problem::missing(format!("build {id} has no stage `{stage}`"));
    let node: NodeKey = stage.parse().map_err(|_| none())?;
    let key = node.clone();
    let read = app.engine.store.read(move |db| {
        let row = builds::stages(db, id)?.into_iter().find(|row| row.node == key);
        Ok((row, attempts::last(db, id, &key)?))
    });
    let (row, attempt) = read.await?;
    let row = row.ok_or_else(none)?;
    let path = match (row.status, attempt) {
        (StageStatus::Reused { from }, 0) => format!("/builds/{}/stages/{node}", from.0),
        (_, 0) => format!("/builds/{build}#stage-{node}"),
        (_, attempt) => format!("/builds/{build}/stages/{node}/attempts/{attempt}"),
    };
    Ok(Redirect::to(&path).into_response())
}

async fn find(visitor: &Visitor, app: &App, (build, stage, attempt): (u64, String, u32)) -> Answer<Found> {
    let id = BuildId(build);
    let build = allowed(&visitor.caller, app, Scope::Read, id).await?;
    let none = || Problem::missing(format!("build {id} has no attempt {attempt} of `{stage}`"));
    // Parsed, so that a path is only ever made of a valid name.
    let node: NodeKey = stage.parse().map_err(|_| none())?;
    let read = app.engine.store.read(move |db| {
        let row = builds::stages(db, id)?.into_iter().find(|row| row.node == node);
        Ok((row, attempts::of_stage(db, id, &node)?))
    });
    let (stage, all) = read.await?;
    let attempts = all.iter().map(|row| row.attempt).collect();
    let row = all.into_iter().find(|row| row.attempt == attempt);
    Ok(Found { build, stage: stage.ok_or_else(none)?, attempt: row.ok_or_else(none)?, attempts })
}

fn path(app: &App, found: &Found, serve: bool) -> PathBuf {
    let (paths, node) = (&app.engine.paths, &found.stage.node);
    if serve {
        paths.serve_log(found.build.id, node, found.attempt.attempt)
    } else {
        paths.log(found.build.id, node, found.attempt.attempt)
    }
}

/// An attempt with its log.
async fn show(
    visitor: Visitor,
    State(app): State<App>,
    Named(which): Named<(u64, String, u32)>,
    Asked(wanted): Asked<Wanted>,
) -> Answer<Response> {
    let found = find(&visitor, &app, which).await?;
    if wanted.q.len() > 1000 {
        return Err(Problem::invalid("a text to be found is at most 1000 bytes"));
    }
    let part = if !wanted.q.is_empty() {
        Part::Search(wanted.q.clone())
    } else if let Some(from) = wanted.from {
        Part::Window(from.number())
    } else if let Some(step) = wanted.step {
        Part::Step(step.number())
    } else {
        Part::Usual
    };
    let serve = wanted.is_serve();
    let steps = found.attempt.steps.clone();
    let read = read::part(path(&app, &found, serve), part, steps).await?;
    let has_serve = if serve { true } else { exists(path(&app, &found, true)).await };
    let files = files(&visitor, &app, &found).await;
    let ended = found.attempt.ended_at.is_some();
    let node = found.stage.node.to_string();
    let shell = Shell::new(&visitor, Section::Builds, format!("{node} of {}", found.build.id));
    let rows = Rows {
        build: found.build,
        stage: found.stage,
        attempt: found.attempt,
        attempts: found.attempts,
        read,
        files,
        serve,
        has_serve,
        ended,
        query: wanted.q,
    };
    drawn(move || super::page(&LogPage::of(shell, rows, now()))).await
}

/// Some thousand lines take their time, and others are not to wait for that.
async fn drawn(page: impl FnOnce() -> Answer<Response> + Send + 'static) -> Answer<Response> {
    tokio::task::spawn_blocking(page).await.map_err(|error| Problem::internal(&error))?
}

/// Whether there is a log.
async fn exists(path: PathBuf) -> bool {
    let look = tokio::task::spawn_blocking(move || crate::logs::LogReader::open(&path).is_ok());
    look.await.unwrap_or(false)
}

/// The files that the stage made; none if it has no result.
async fn files(visitor: &Visitor, app: &App, found: &Found) -> Option<artifacts::Files> {
    let which = WhichFiles { after: None, limit: Limit::try_from(FILES).ok() };
    let named = Named((found.build.id.0, found.stage.node.to_string()));
    let listed = artifacts::list(visitor.caller.clone(), State(app.clone()), named, Asked(which)).await;
    listed.ok().map(|axum::Json(files)| files)
}

/// Lines of a log as they stand in its page, for the script.
async fn lines(
    visitor: Visitor,
    State(app): State<App>,
    Named(which): Named<(u64, String, u32)>,
    Asked(wanted): Asked<Wanted>,
) -> Answer<Response> {
    let found = find(&visitor, &app, which).await?;
    let from = wanted.from.map_or(0, Cursor::number);
    let count = wanted.limit.map_or(WINDOW, Cursor::number).min(MOST_LINES);
    let Read { lines, .. } =
        read::part(path(&app, &found, wanted.is_serve()), Part::Lines(from, count), Vec::new()).await?;
    drawn(move || super::page(&LinesPage::of(lines, found.attempt.started_at))).await
}
