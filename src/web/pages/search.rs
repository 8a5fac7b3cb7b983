//! One field that finds a build, a commit, a project or a model.

use askama::Template;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::line::Line;
use super::mark::Mark;
use super::shell::{Section, Shell};
use super::visitor::Visitor;
use crate::engine::now;
use crate::ids::BuildId;
use crate::store::access::Scope;
use crate::store::glance::{self, Wanted};
use crate::web::App;
use crate::web::api::models;
use crate::web::api::page::Asked;
use crate::web::problem::Answer;

/// Builds of a project that are found.
const OF_PROJECT: usize = 5;
/// Projects whose builds are looked at, and how many of each.
const PROJECTS: usize = 20;
const LOOKED_AT: usize = 300;
/// Builds of a commit that are found, and digits of a commit that are enough to look for it.
const OF_COMMIT: usize = 20;
const DIGITS: usize = 6;

/// What is looked for.
#[derive(Debug, Default, Deserialize)]
pub struct Looked {
    #[serde(default)]
    q: String,
}

#[derive(Template)]
#[template(path = "search.html")]
struct SearchPage {
    shell: Shell,
    query: String,
    projects: Vec<String>,
    models: Vec<String>,
    builds: Vec<Line>,
}

/// Leads to the one thing of that name or number, or lists what is like it.
pub async fn show(visitor: Visitor, State(app): State<App>, Asked(looked): Asked<Looked>) -> Answer<Response> {
    visitor.caller.may(Scope::Read)?;
    let query: String = looked.q.trim().chars().take(200).collect();
    let all = app.projects.all();
    let seen: Vec<String> = all.keys().filter(|name| visitor.caller.sees(name)).cloned().collect();
    if let Ok(id) = query.parse::<BuildId>() {
        let row = app.engine.store.read(move |db| glance::one(db, id)).await?;
        if row.is_some_and(|row| visitor.caller.sees(&row.project)) {
            return Ok(Redirect::to(&format!("/builds/{}", id.0)).into_response());
        }
    }
    if seen.contains(&query) {
        return Ok(Redirect::to(&format!("/projects/{query}")).into_response());
    }
    let Json(models) = models::list(visitor.caller.clone(), State(app.clone())).await?;
    let like = |name: &String| !query.is_empty() && name.contains(&query.to_lowercase());
    let mut builds = Vec::new();
    if query.len() >= DIGITS && query.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let digits = query.clone();
        let found = app.engine.store.read(move |db| glance::of_commit(db, &digits, OF_COMMIT)).await?;
        builds.extend(found.into_iter().filter(|row| visitor.caller.sees(&row.project)));
    }
    for project in seen.iter().take(PROJECTS).filter(|_| !query.is_empty()) {
        let wanted =
            Wanted { project: project.clone(), text: Some(query.clone()), most: Some(LOOKED_AT), ..Wanted::default() };
        builds.extend(app.engine.store.read(move |db| glance::find(db, &wanted, None, OF_PROJECT)).await?.builds);
    }
    builds.sort_by_key(|row| std::cmp::Reverse(row.id));
    builds.dedup_by_key(|row| row.id);
    let at = now();
    super::page(&SearchPage {
        shell: Shell::new(&visitor, Section::Other, "Found"),
        projects: seen.into_iter().filter(like).collect(),
        models: models.into_iter().map(|model| model.model).filter(like).collect(),
        builds: builds.iter().map(|row| Line::of(row, at)).collect(),
        query,
    })
}
