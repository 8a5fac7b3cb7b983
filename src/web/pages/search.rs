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
use crate::store::find::{self, Wanted};
use crate::store::glance;
use crate::web::App;
use crate::web::api::models;
use crate::web::api::page::Asked;
use crate::web::problem::Answer;

/// Builds of a project that are found.
const OF_PROJECT: usize = 5;
/// Projects whose builds are looked at.
const PROJECTS: usize = 50;
/// Builds of a commit that are found, and digits of a commit that are enough to look for it.
const OF_COMMIT: usize = 20;
const DIGITS: usize = 6;
/// What git shows of a commit at least.
const SHORTEST_COMMIT: usize = 7;

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
    // As many digits may be the beginning of a commit.
    let is_number = query.starts_with('#') || query.len() < SHORTEST_COMMIT;
    if let Some(id) = query.parse::<BuildId>().ok().filter(|_| is_number) {
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
    if let Ok(id) = query.parse::<BuildId>() {
        let row = app.engine.store.read(move |db| glance::one(db, id)).await?;
        builds.extend(row.filter(|row| visitor.caller.sees(&row.project)));
    }
    if query.len() >= DIGITS && query.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let digits = query.clone();
        let found = app.engine.store.read(move |db| glance::of_commit(db, &digits, OF_COMMIT)).await?;
        builds.extend(found.into_iter().filter(|row| visitor.caller.sees(&row.project)));
    }
    if !query.is_empty() {
        let (projects, text) = (seen.clone(), query.clone());
        let read = app.engine.store.read(move |db| {
            let mut found = Vec::new();
            for project in projects.into_iter().take(PROJECTS) {
                let wanted = Wanted { project, text: Some(text.clone()), ..Wanted::default() };
                found.extend(find::find(db, &wanted, None, OF_PROJECT)?.builds);
            }
            Ok(found)
        });
        builds.extend(read.await?);
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
