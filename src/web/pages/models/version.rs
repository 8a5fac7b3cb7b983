//! One version of a model: what it was made of, its numbers, what was decided about it, and what can be.

use askama::Template;
use axum::Json;
use axum::extract::State;
use axum::response::Response;

use super::matrix::Matrix;
use super::view::{Decision, decision};
use crate::engine::now;
use crate::ids::Micros;
use crate::store::access::Scope;
use crate::store::models;
use crate::web::App;
use crate::web::api::models::{self as api, VersionView, seen_as};
use crate::web::api::page::{Asked, Named, Page, Rows};
use crate::web::pages::coded::Coded;
use crate::web::pages::moment::Moment;
use crate::web::pages::shell::{Section, Shell};
use crate::web::pages::visitor::Visitor;
use crate::web::problem::Answer;
use crate::words;

/// Decisions among which those about the version are looked for.
const DECISIONS: u64 = 200;

#[derive(Template)]
#[template(path = "version.html")]
struct VersionPage {
    shell: Shell,
    model: String,
    project: String,
    row: VersionView,
    commit: Option<String>,
    made: Moment,
    metrics: Vec<(String, String)>,
    matrix: Option<Matrix>,
    params: String,
    data: Vec<(String, String)>,
    decisions: Vec<Decision>,
    /// What it is compared with: the champion, or the one before it.
    other: Option<u64>,
    /// The champion before, if this one is champion.
    before: Option<u64>,
    may_decide: bool,
}

/// A version.
pub async fn show(
    visitor: Visitor,
    State(app): State<App>,
    Named((model, version)): Named<(String, u64)>,
) -> Answer<Response> {
    let project = seen_as(&visitor.caller, &app, &model).await?;
    let caller = visitor.caller.clone();
    let Json(row) = api::version(caller.clone(), State(app.clone()), Named((model.clone(), version))).await?;
    let name = model.clone();
    let (champion, before) = app
        .engine
        .store
        .read(move |db| {
            let champion = models::champion(db, &name)?;
            Ok((champion, models::before(db, &name, version)?.filter(|_| champion == Some(version))))
        })
        .await?;
    let page = Asked(Page { before: None, limit: Rows::try_from(DECISIONS).ok() });
    let Json(decisions) = api::promotions(caller, State(app), Named(model.clone()), page).await?;
    let now = now();
    let about =
        decisions.items.into_iter().filter(|one| models::about(&one.verdict, one.candidate, one.champion) == version);
    let lineage = &row.lineage;
    let shown = |(name, value): (&String, &f64)| (name.clone(), words::number(*value));
    let params = serde_json::to_string_pretty(&lineage.params).unwrap_or_default();
    super::super::page(&VersionPage {
        shell: Shell::new(&visitor, Section::Models, format!("{model} version {version}")),
        may_decide: visitor.may_in(Scope::Approve, &project) && visitor.may_in(Scope::Approve, &lineage.project),
        metrics: row.metrics.iter().filter(|(name, _)| !name.starts_with("confusion.")).map(shown).collect(),
        matrix: Matrix::of(&row.metrics),
        commit: lineage.commit.clone(),
        made: Moment::of(Micros(row.made_at), now),
        params: if params == "null" || params == "{}" { String::new() } else { params },
        data: lineage.data.iter().map(|(path, digest)| (path.clone(), digest.clone())).collect(),
        decisions: about.map(|one| decision(one, now)).collect(),
        other: champion.filter(|champion| *champion != version).or(before),
        before,
        project,
        model,
        row,
    })
}
