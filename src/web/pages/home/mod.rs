//! The first page: all projects, what runs, what waits, what serves.

mod view;

use axum::extract::State;
use axum::response::Response;

use super::shell::{Section, Shell};
use super::visitor::Visitor;
use crate::engine::now;
use crate::ids::BuildId;
use crate::store::access::Scope;
use crate::store::triggers::{Decided, TriggerRow};
use crate::store::{StoreError, Tx, builds, deployments, glance, queue, triggers};
use crate::web::App;
use crate::web::problem::Answer;
use view::{Failure, HomePage, ProjectRows, Rows};

/// Builds of a project in its strip.
const STRIP: usize = 20;
/// Builds under way, and waiting, that are shown.
const SHOWN: usize = 50;
/// Projects that are shown with their builds.
const PROJECTS: usize = 200;

/// The first page.
pub async fn show(visitor: Visitor, State(app): State<App>) -> Answer<Response> {
    visitor.caller.may(Scope::Read)?;
    let all = app.projects.all();
    let seen = all.values().filter(|project| visitor.caller.sees(&project.name)).take(PROJECTS);
    let projects: Vec<_> = seen.cloned().collect();
    let names: Vec<String> = projects.iter().map(|project| project.name.clone()).collect();
    let waits: Vec<_> = app.queue.waits().iter().cloned().collect();
    let caller = visitor.caller.clone();
    let rows = app.engine.store.read(move |db| {
        let mut waiting = Vec::new();
        for (id, why) in waits {
            if waiting.len() == SHOWN {
                break;
            }
            let row = glance::one(db, id)?;
            waiting.extend(row.filter(|row| caller.sees(&row.project)).map(|row| (row, why.to_string())));
        }
        Ok(Rows {
            running: glance::running(db, SHOWN)?.into_iter().filter(|row| caller.sees(&row.project)).collect(),
            waiting,
            paused: queue::paused(db)?,
            projects: names.iter().map(|name| of_project(db, name)).collect::<Result<_, _>>()?,
            serving: deployments::open(db)?,
        })
    });
    let mut rows = rows.await?;
    if visitor.caller.projects().is_some() {
        // A deployment does not say whose it is.
        rows.serving.clear();
    }
    let mut shell = Shell::new(&visitor, Section::Builds, "Projects").live("/api/v1/events");
    // Neither a new project nor what a build waits for is an event.
    shell.every = Some(10);
    super::page(&HomePage::of(shell, &projects, &rows, &app.public_url, now()))
}

fn of_project(db: &Tx, name: &str) -> Result<ProjectRows, StoreError> {
    let builds = glance::newest(db, name, STRIP)?;
    let failed = builds.iter().find(|row| row.status.is_terminal()).filter(|row| row.status.word() == "failed");
    let failure = failed.map(|row| failure(db, row.id)).transpose()?.flatten();
    // What was pushed, and could not even begin, is news.
    let last = triggers::list(db, Some(name), None, 1)?.pop();
    let refused = last.filter(|row: &TriggerRow| row.decision == Some(Decided::Failed));
    Ok(ProjectRows { builds, failure, refused: refused.map(|row| row.reason) })
}

/// The first stage that failed.
fn failure(db: &Tx, build: BuildId) -> Result<Option<Failure>, StoreError> {
    let stages = builds::stages(db, build)?;
    Ok(stages.into_iter().find_map(|stage| {
        let (_, failure) = stage.status.failure()?;
        Some(Failure { stage: stage.node.to_string(), message: failure.message.clone() })
    }))
}
