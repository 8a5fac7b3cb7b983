//! Projects, and builds that are asked for.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::page::{Body, Named};
use crate::config::types::Poll;
use crate::daemon::projects::Project;
use crate::daemon::subject::{Asked, Subject};
use crate::engine::now;
use crate::store::access::{self, Scope};
use crate::store::triggers::{self, Source};
use crate::web::App;
use crate::web::auth::Caller;
use crate::web::problem::{Answer, Problem};

/// A project.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectView {
    /// Its name.
    pub name: String,
    /// What is built, without credentials.
    pub repository: String,
    /// Patterns of its pipeline files.
    pub pipelines: Vec<String>,
    /// How commits are found besides webhooks: `off`, `watch`, or `every <seconds> s`.
    pub poll: String,
    /// Whether webhooks are taken.
    pub webhook: bool,
    /// Builds at once.
    pub max_builds: usize,
    /// Why it cannot be worked on, if so.
    pub problem: Option<String>,
}

impl ProjectView {
    fn of(project: &Project) -> Self {
        let settings = &project.settings;
        Self {
            name: project.name.clone(),
            repository: settings.repository.to_string(),
            pipelines: settings.pipeline.clone(),
            poll: match settings.poll {
                Poll::Off => "off".to_owned(),
                Poll::Watch => "watch".to_owned(),
                Poll::Every(every) => format!("every {} s", every.as_secs()),
            },
            webhook: project.webhook_secret.is_some(),
            max_builds: settings.max_builds,
            problem: project.problem.clone(),
        }
    }
}

/// All projects that the caller sees.
#[utoipa::path(get, path = "/projects", responses((status = 200, body = Vec<ProjectView>), (status = 401, body = Problem)))]
pub async fn list(caller: Caller, State(app): State<App>) -> Answer<Json<Vec<ProjectView>>> {
    caller.may(Scope::Read)?;
    let all = app.projects.all();
    let seen = all.values().filter(|project| caller.sees(&project.name));
    Ok(Json(seen.map(|project| ProjectView::of(project)).collect()))
}

/// One project.
#[utoipa::path(get, path = "/projects/{project}", params(("project" = String, Path)),
    responses((status = 200, body = ProjectView), (status = 404, body = Problem)))]
pub async fn show(caller: Caller, State(app): State<App>, Named(name): Named<String>) -> Answer<Json<ProjectView>> {
    caller.may_in(Scope::Read, &name)?;
    Ok(Json(ProjectView::of(&*get(&app, &name)?)))
}

fn get(app: &App, name: &str) -> Answer<std::sync::Arc<Project>> {
    app.projects.get(name).ok_or_else(|| Problem::missing(format!("there is no project `{name}`")))
}

/// A build that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct Triggered {
    /// The trigger; its decision names the build.
    pub trigger: u64,
}

/// Asks for a build. What it is of, and whether that is possible, is found out afterwards: see the trigger's decision.
#[utoipa::path(post, path = "/projects/{project}/builds", params(("project" = String, Path)), request_body = Asked,
    responses((status = 202, body = Triggered), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem)))]
pub async fn trigger(
    caller: Caller,
    State(app): State<App>,
    Named(name): Named<String>,
    Body(mut asked): Body<Asked>,
) -> Answer<(StatusCode, Json<Triggered>)> {
    caller.may_in(Scope::Trigger, &name)?;
    get(&app, &name)?;
    asked.actor.clone_from(&caller.name);
    let subject = serde_json::to_value(Subject::Manual(asked)).map_err(|error| Problem::internal(&error))?;
    let project = name.clone();
    let trigger = app.engine.store.write(move |tx| {
        let id = triggers::create(tx, &project, Source::Manual, &subject, now())?;
        access::audit(tx, &caller.name, "build.trigger", &project, &subject.to_string(), now())?;
        Ok(id)
    });
    let trigger = trigger.await?;
    app.projects.waker(&name).notify_one();
    Ok((StatusCode::ACCEPTED, Json(Triggered { trigger })))
}
