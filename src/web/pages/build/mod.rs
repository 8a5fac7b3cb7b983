//! A build: what became of it, why, and what can be done.

mod actions;
mod graph;
mod said;
mod since;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::shell::{Section, Shell};
use super::visitor::Visitor;
use crate::engine::{now, submit};
use crate::ids::BuildId;
use crate::logs::LogReader;
use crate::report::Telling;
use crate::store::access::Scope;
use crate::store::{StoreError, Tx, attempts, builds, glance, outbox, queue, results, triggers};
use crate::web::App;
use crate::web::api::builds::allowed;
use crate::web::api::page::Named;
use crate::web::problem::{Answer, Problem};
use view::{BuildPage, FAILURES, May, Rows, StageRows};

/// Lines of a failed stage's log that its build's page shows.
const TAIL: u64 = 15;
/// Their text at most.
const TAIL_BYTES: usize = 16 << 10;
/// Good builds are looked for among so many before this one.
const LOOKED_BACK: usize = 50;

/// The routes of a build's pages.
pub fn router() -> Router<App> {
    Router::new()
        .route("/builds/{build}", get(show))
        .route("/builds/{build}/cancel", get(actions::ask_cancel).post(actions::cancel))
        .route("/builds/{build}/approve", get(actions::ask_approve).post(actions::approve))
        .route("/builds/{build}/retry", get(actions::ask_retry).post(actions::retry))
}

/// A build.
async fn show(visitor: Visitor, State(app): State<App>, Named(id): Named<u64>) -> Answer<Response> {
    let id = BuildId(id);
    let build = allowed(&visitor.caller, &app, Scope::Read, id).await?;
    let slots = app.queue.slots.clone();
    let rows = app.engine.store.read(move |db| {
        let build = builds::get(db, id)?;
        let standing = queue::standing(db, id)?;
        let trigger = standing.trigger.map(|trigger| triggers::get(db, trigger)).transpose()?;
        let mut stages = Vec::new();
        for row in builds::stages(db, id)? {
            stages.push(StageRows {
                attempts: attempts::of_stage(db, id, &row.node)?,
                result: results::of_stage(db, id, &row.node)?,
                waits_for: slots.waits_for(id, &row.node),
                row,
            });
        }
        let good = good(db, &build)?;
        let good_params = good.as_ref().map(|good| builds::get(db, good.id)).transpose()?;
        let good_params = good_params.map(|row| row.request.params.into_iter().collect()).unwrap_or_default();
        let told = outbox::of_build(db, id)?.into_iter().map(Telling::of).collect();
        Ok(Rows { build, standing, stages, trigger, good, good_params, since: Vec::new(), told })
    });
    let mut rows = rows.await?;
    rows.since = since::commits(&app, &rows).await;
    let tails = tails(&app, &rows).await?;
    // A pipeline that cannot be read any more has no graph; its stages are listed all the same.
    let plan = submit::expand(&rows.build.request).ok().map(|expanded| expanded.plan);
    let waits = app.queue.waits_for(id).map(|why| why.to_string());
    let may = May {
        trigger: visitor.may_in(Scope::Trigger, &build.request.project),
        approve: visitor.may_in(Scope::Approve, &build.request.project),
    };
    let mut shell =
        Shell::new(&visitor, Section::Builds, format!("{id} {} · {}", rows.build.status.word(), build.request.project));
    if !rows.build.status.is_terminal() {
        shell = shell.live(format!("/api/v1/builds/{}/events", id.0));
        // What a build waits for changes without an event.
        shell.every = Some(5);
    }
    super::page(&BuildPage::of(shell, &rows, plan.as_ref(), waits, &tails, may, now()))
}

/// The last build before one, of the same pipeline and branch, that passed.
fn good(db: &Tx, build: &builds::BuildRow) -> Result<Option<glance::Glance>, StoreError> {
    let wanted = glance::Wanted {
        project: build.request.project.clone(),
        branch: build.request.branch.clone(),
        status: Some("passed".to_owned()),
        ..glance::Wanted::default()
    };
    let found = glance::find(db, &wanted, Some(build.id), LOOKED_BACK)?;
    Ok(found.builds.into_iter().find(|row| row.pipeline == build.request.pipeline))
}

/// The ends of the logs of the first stages that failed.
async fn tails(app: &App, rows: &Rows) -> Answer<BTreeMap<String, Vec<String>>> {
    let mut wanted: Vec<(String, PathBuf)> = Vec::new();
    for stage in &rows.stages {
        if let Some((attempt, _)) = stage.row.status.failure()
            && attempt > 0
            && wanted.len() < FAILURES
        {
            let node = &stage.row.node;
            wanted.push((node.to_string(), app.engine.paths.log(rows.build.id, node, attempt)));
        }
    }
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let read = tokio::task::spawn_blocking(move || {
        let tail = |path: PathBuf| {
            // A log that cannot be read says so on its own page.
            let lines = LogReader::open(&path).and_then(|mut log| log.tail(TAIL, TAIL_BYTES)).unwrap_or_default();
            // What this program notes at the end is the failure's own text, which stands above.
            let said = lines.into_iter().filter(|line| line.stream != crate::logs::Stream::Note);
            said.map(|line| line.text).collect()
        };
        wanted.into_iter().map(|(node, path)| (node, tail(path))).collect()
    });
    read.await.map_err(|error| Problem::internal(&error))
}
