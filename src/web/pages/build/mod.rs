//! A build: what became of it, why, and what can be done.

mod actions;
mod graph;
mod said;
mod since;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::shell::{Section, Shell};
use super::visitor::Visitor;
use crate::engine::{now, submit};
use crate::ids::BuildId;
use crate::logs::LogReader;
use crate::report::Telling;
use crate::store::access::Scope;
use crate::store::{StoreError, Tx, attempts, builds, glance, outbox, queue, results, triggers, verdicts};
use crate::web::App;
use crate::web::api::builds::allowed;
use crate::web::api::page::Named;
use crate::web::problem::{Answer, Problem};
use view::{BuildPage, FAILURES, Made, May, Rows, StageRows};

/// Lines of a failed stage's log that its build's page shows.
const TAIL: u64 = 15;
/// Their text at most.
const TAIL_BYTES: usize = 16 << 10;
/// Stages whose files are listed, and how many of each.
const LISTED: usize = 40;
const FILES: usize = 8;
/// The store of artifacts may take so long for them.
const PATIENCE: Duration = Duration::from_millis(300);
/// Good builds are looked for among so many before this one.
const LOOKED_BACK: usize = 200;

/// All who look at a build ask for its page at once when something happens. So many are made at a time, which bounds what all of them
/// hold together.
static TURNS: Semaphore = Semaphore::const_new(8);

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
    let _turn = TURNS.acquire().await.map_err(|error| Problem::internal(&error))?;
    let id = BuildId(id);
    let build = allowed(&visitor.caller, &app, Scope::Read, id).await?;
    let slots = app.queue.slots.clone();
    let rows = app.engine.store.read(move |db| {
        let build = builds::get(db, id)?;
        let standing = queue::standing(db, id)?;
        let trigger = standing.trigger.map(|trigger| triggers::get(db, trigger)).transpose()?;
        let mut stages = Vec::new();
        let (decided, made) = (verdicts::of_build(db, id)?, verdicts::made_in(db, id)?);
        for row in builds::stages(db, id)? {
            let node = row.node.to_string();
            let result = results::of_stage(db, id, &row.node)?;
            stages.push(StageRows {
                attempts: attempts::of_stage(db, id, &row.node)?,
                verdict: decided.iter().find(|one| one.node == node).cloned(),
                made: made.iter().rev().find(|one| one.node == node).cloned(),
                outputs: result.map(|result| result.outputs),
                waits_for: slots.waits_for(id, &row.node),
                row,
            });
        }
        let good = good(db, &build)?;
        let good_params = good.as_ref().map(|good| builds::get(db, good.id)).transpose()?;
        let good_params = good_params.map(|row| row.request.params.into_iter().collect()).unwrap_or_default();
        let told = outbox::of_build(db, id)?.into_iter().map(Telling::of).collect();
        Ok(Rows { build, standing, stages, trigger, good, good_params, since: Vec::new(), files: Vec::new(), told })
    });
    let mut rows = rows.await?;
    rows.since = since::commits(&app, &rows).await;
    rows.files = files(&app, &rows).await;
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
    let page = BuildPage::of(shell, &rows, plan.as_ref(), waits, &tails, may, now());
    let project = app.projects.get(&build.request.project);
    let url = project.zip(build.request.commit.as_deref());
    super::page(&page.shown_at(url.and_then(|(project, commit)| project.settings.repository.commit_url(commit))))
}

/// The files that stages made; nothing where the store of artifacts does not answer soon. A list that is damaged says so on its
/// stage's own page.
async fn files(app: &App, rows: &Rows) -> Vec<Made> {
    let listed = rows.stages.iter().filter_map(|stage| {
        let digest = stage.outputs.as_deref()?.parse().ok()?;
        Some(async move {
            let manifest = app.engine.artifacts.manifest(&digest).await.ok()?;
            let more = manifest.files.len().saturating_sub(FILES);
            let files = manifest.files.into_iter().take(FILES).map(|file| (file.path, file.size)).collect();
            Some(Made { node: stage.row.node.to_string(), files, more })
        })
    });
    let listed = join_all(listed.take(LISTED));
    let found = tokio::time::timeout(PATIENCE, listed).await.unwrap_or_default();
    found.into_iter().flatten().filter(|made| !made.files.is_empty()).collect()
}

/// The last build before one, of the same pipeline and branch, that passed.
fn good(db: &Tx, build: &builds::BuildRow) -> Result<Option<glance::Glance>, StoreError> {
    let request = &build.request;
    let Some(branch) = request.branch.as_deref() else { return Ok(None) };
    glance::last_passed(db, (&request.project, branch, &request.pipeline), build.id, LOOKED_BACK)
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
