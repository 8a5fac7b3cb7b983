//! A project: its builds, what starts them, and a form that does.

mod stages;
mod start;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;

use super::csv;
use super::serving::{Serving, serving};
use super::shell::{Section, Shell};
use super::visitor::Visitor;
use crate::daemon::projects::Project;
use crate::engine::now;
use crate::ids::{BuildId, Micros};
use crate::pipeline;
use crate::pipeline::types::Param;
use crate::store::access::Scope;
use crate::store::find::{self, Wanted};
use crate::store::glance::{self, Glance};
use crate::store::{StoreError, Tx, builds, triggers, verdicts};
use crate::web::App;
use crate::web::api::models::ModelView;
use crate::web::api::page::{Asked, Cursor, Named};
use crate::web::problem::{Answer, Problem};
use view::{PipelineForm, ProjectPage, Rows};

/// Builds of a page.
const ROWS: usize = 30;
/// Builds that the chart and the rates are of.
const CHARTED: usize = 60;
/// Builds whose stages are looked at.
const LATELY: usize = 30;
/// Pipelines that have a form.
const FORMS: usize = 8;
/// Triggers that are shown.
const HEARD: usize = 8;

/// The routes of a project's pages.
pub fn router() -> Router<App> {
    Router::new()
        .route("/projects/{project}", get(show))
        .route("/projects/{project}/durations.csv", get(durations))
        .route("/projects/{project}/builds", axum::routing::post(start::start))
}

/// What is looked for. Empty fields of the form mean nothing.
#[derive(Debug, Default, Deserialize)]
pub struct Looked {
    #[serde(default)]
    branch: String,
    #[serde(default)]
    event: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    actor: String,
    #[serde(default)]
    text: String,
    before: Option<Cursor>,
    /// The stage whose durations are charted; that of whole builds if empty.
    #[serde(default)]
    stage: String,
    /// The trigger that the visitor has just made.
    trigger: Option<Cursor>,
}

impl Looked {
    fn wanted(&self, project: &str) -> Wanted {
        let given = |text: &String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        Wanted {
            project: project.to_owned(),
            branch: given(&self.branch),
            status: given(&self.status),
            event: given(&self.event),
            text: given(&self.text),
            actor: given(&self.actor),
        }
    }
}

/// The project, if it is there and the visitor may do this with it.
fn found(visitor: &Visitor, app: &App, scope: Scope, name: &str) -> Answer<Arc<Project>> {
    visitor.caller.may_in(scope, name)?;
    app.projects.get(name).ok_or_else(|| Problem::missing(format!("there is no project `{name}`")))
}

/// A project.
async fn show(
    visitor: Visitor,
    State(app): State<App>,
    Named(name): Named<String>,
    Asked(looked): Asked<Looked>,
) -> Answer<Response> {
    let project = found(&visitor, &app, Scope::Read, &name)?;
    let wanted = looked.wanted(&name);
    let (before, trigger) = (looked.before.map(|id| BuildId(id.number())), looked.trigger.map(Cursor::number));
    let asked = wanted.clone();
    let rows = app.engine.store.read(move |db| read(db, &asked, before, trigger));
    let rows = rows.await?;
    let can_start = visitor.may_in(Scope::Trigger, &name) && project.problem.is_none();
    let page_name = name.clone();
    let mut shell = Shell::new(&visitor, Section::Builds, name).live("/api/v1/events");
    // A decision is no event of a build.
    shell.every = rows.asked.as_ref().filter(|row| row.decision.is_none()).map(|_| 2);
    let page = ProjectPage::of(shell, &project, &wanted, &rows, can_start, &app.public_url, now());
    let (models, serving) = models(&visitor, &app, &page_name).await?;
    super::page(&page.charted(&rows, &looked.stage).with_models(models, serving))
}

/// The models that a project trains, and what of them serves.
async fn models(visitor: &Visitor, app: &App, project: &str) -> Answer<(Vec<ModelView>, Vec<Serving>)> {
    let axum::Json(models) = crate::web::api::models::list(visitor.caller.clone(), State(app.clone())).await?;
    let models: Vec<ModelView> = models.into_iter().filter(|model| model.project == project).collect();
    let serving = if models.is_empty() { Vec::new() } else { serving(visitor, app, None).await? };
    let serving = serving.into_iter().filter(|one| one.project.as_deref() == Some(project)).collect();
    Ok((models, serving))
}

fn read(db: &Tx, wanted: &Wanted, before: Option<BuildId>, trigger: Option<u64>) -> Result<Rows, StoreError> {
    let newest = glance::newest(db, &wanted.project, CHARTED)?;
    let lately = newest.iter().take(LATELY).map(|row| Ok((row.id, glance::tried(db, row.id)?)));
    let heard = triggers::list(db, Some(&wanted.project), None, HEARD)?;
    let heard = heard.into_iter().map(|row| Ok((triggers::builds(db, row.id)?, row)));
    let asked = trigger.map(|id| triggers::get(db, id)).transpose()?;
    let asked = asked.filter(|row| row.project == wanted.project);
    let found = find::find(db, wanted, before, ROWS)?;
    let verdicts = found.builds.iter().map(|row| verdicts::of_build(db, row.id)).collect::<Result<_, _>>()?;
    let order = newest.first().map(|row| builds::stages(db, row.id)).transpose()?.unwrap_or_default();
    Ok(Rows {
        found,
        verdicts,
        order: order.into_iter().map(|stage| stage.node.to_string()).collect(),
        is_first: before.is_none(),
        forms: forms(db, &newest)?,
        lately: lately.collect::<Result<_, StoreError>>()?,
        newest,
        heard: heard.collect::<Result<_, StoreError>>()?,
        started: asked.as_ref().map(|row| triggers::builds(db, row.id)).transpose()?.unwrap_or_default(),
        asked,
    })
}

/// How long the newest builds and their stages took, as a file.
async fn durations(visitor: Visitor, State(app): State<App>, Named(name): Named<String>) -> Answer<Response> {
    found(&visitor, &app, Scope::Read, &name)?;
    let project = name.clone();
    let read = app.engine.store.read(move |db| {
        let newest = glance::newest(db, &project, CHARTED)?;
        newest.into_iter().map(|row| Ok((glance::tried(db, row.id)?, row))).collect::<Result<Vec<_>, StoreError>>()
    });
    let mut rows = Vec::new();
    for (tries, build) in read.await? {
        let of = |stage: &str, attempt: &str, result: &str, from: Option<Micros>, to: Option<Micros>| {
            let seconds = from.zip(to).map(|(from, to)| to.since(from).as_secs_f64());
            [
                build.id.0.to_string(),
                csv::text(&build.pipeline),
                csv::text(build.branch.as_deref().unwrap_or_default()),
                build.commit.clone().unwrap_or_default(),
                stage.to_owned(),
                attempt.to_owned(),
                result.to_owned(),
                csv::number(seconds),
            ]
        };
        rows.push(of("", "", build.status.word(), build.started_at, build.ended_at));
        for one in &tries {
            let result = one.result.as_deref().unwrap_or_default();
            rows.push(of(&one.node, &one.attempt.to_string(), result, Some(one.started_at), one.ended_at));
        }
    }
    let head = ["build", "pipeline", "branch", "commit", "stage", "attempt", "result", "seconds"];
    csv::answer(&format!("{name}-durations"), head, rows)
}

/// The pipelines of the newest builds, with the parameters that they take.
fn forms(db: &Tx, newest: &[Glance]) -> Result<Vec<PipelineForm>, StoreError> {
    let mut forms: Vec<PipelineForm> = Vec::new();
    for row in newest {
        if forms.len() == FORMS || forms.iter().any(|form| form.pipeline == row.pipeline) {
            continue;
        }
        let request = builds::get(db, row.id)?.request;
        // What this version cannot read has no form.
        let Ok(parsed) = pipeline::parse(&request.file, request.text.as_bytes()) else { continue };
        let params: Vec<(String, Param)> = parsed.pipeline.params.into_iter().collect();
        let schedules = parsed.pipeline.on.schedule;
        let branch = request.default_branch.or(request.branch).unwrap_or_else(|| "main".to_owned());
        forms.push(PipelineForm { pipeline: row.pipeline.clone(), file: request.file, branch, schedules, params });
    }
    Ok(forms)
}
