//! The first page: all projects, what runs, what waits, what serves.

mod view;

use std::path::PathBuf;

use axum::extract::State;
use axum::response::Response;

use super::serving::serving;
use super::shell::{Section, Shell};
use super::visitor::Visitor;
use crate::engine::now;
use crate::ids::BuildId;
use crate::store::access::Scope;
use crate::store::glance::Glance;
use crate::store::triggers::{Decided, TriggerRow};
use crate::store::{StoreError, Tx, builds, glance, queue, triggers, verdicts};
use crate::web::App;
use crate::web::problem::Answer;
use view::{Failure, HomePage, Place, ProjectRows, Rows};

/// Builds of a project in its strip.
const STRIP: usize = 20;
/// Builds under way, and waiting, that are shown.
const SHOWN: usize = 50;
/// Builds under way among which those that a visitor sees are looked for.
const LOOKED_AT: usize = 500;
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
            running: running(db, |project| caller.sees(project))?,
            waiting,
            held: verdicts::held(db)?.into_iter().filter(|one| caller.sees(&one.project)).collect(),
            paused: queue::paused(db)?,
            projects: names.iter().map(|name| of_project(db, name)).collect::<Result<_, _>>()?,
        })
    });
    let rows = rows.await?;
    let serving = serving(&visitor, &app, None).await?;
    // Where files lie on the server is for those who look after it.
    let config = visitor.caller.may(Scope::Admin).ok().and_then(|()| app.config.borrow().file.clone());
    let place = Place { public_url: &app.public_url, config: config.as_deref().map(PathBuf::as_path) };
    let mut shell = Shell::new(&visitor, Section::Builds, "Projects").live("/api/v1/events");
    // Neither a new project nor what a build waits for is an event.
    shell.every = Some(10);
    super::page(&HomePage::of(shell, &projects, &rows, serving, place, now()))
}

/// Builds under way, and whether one of their stages has failed.
fn running(db: &Tx, sees: impl Fn(&str) -> bool) -> Result<Vec<(Glance, bool)>, StoreError> {
    let seen = glance::running(db, LOOKED_AT)?.into_iter().filter(|row| sees(&row.project)).take(SHOWN);
    seen.map(|row| Ok((glance::has_failed_stage(db, row.id)?, row)))
        .map(|row| row.map(|(bad, row)| (row, bad)))
        .collect()
}

fn of_project(db: &Tx, name: &str) -> Result<ProjectRows, StoreError> {
    let builds = glance::newest(db, name, STRIP)?;
    let failed = builds.iter().find(|row| row.status.is_terminal()).filter(|row| row.status.word() == "failed");
    let failure = failed.map(|row| failure(db, row.id)).transpose()?.flatten();
    // What was pushed, and could not even begin, is news.
    let last = triggers::list(db, Some(name), None, 1)?.pop();
    let refused = last.filter(|row: &TriggerRow| row.decision == Some(Decided::Failed));
    let verdicts = builds.first().map(|row| verdicts::of_build(db, row.id)).transpose()?.unwrap_or_default();
    Ok(ProjectRows { builds, verdicts, failure, refused })
}

/// The first stage that failed.
fn failure(db: &Tx, build: BuildId) -> Result<Option<Failure>, StoreError> {
    let stages = builds::stages(db, build)?;
    Ok(stages.into_iter().find_map(|stage| {
        let (_, failure) = stage.status.failure()?;
        Some(Failure { build: build.0, stage: stage.node.to_string(), message: failure.message.clone() })
    }))
}
