//! Tokens, secrets by name, and who did what.

use askama::Template;
use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::coded::Coded;
use super::confirm::Confirm;
use super::form::Posted;
use super::mark::Mark;
use super::moment::Moment;
use super::shell::{Section, Shell};
use super::visitor::Visitor;
use crate::config::describe::Shown;
use crate::engine::now;
use crate::ids::Micros;
use crate::store::access::Scope;
use crate::web::App;
use crate::web::api::page::{Asked, Body, Listed, Named, Page};
use crate::web::api::secrets::{self, SecretView, SecretWish};
use crate::web::api::tokens::{self, AuditView, TokenView, Wish};
use crate::web::problem::{Answer, Problem};

/// The routes of the settings' pages.
pub fn router() -> Router<App> {
    Router::new()
        .route("/settings", get(show))
        .route("/settings/tokens", post(create))
        .route("/settings/tokens/revoke", get(ask_revoke).post(revoke))
        .route("/settings/secrets", post(set_secret))
        .route("/settings/secrets/remove", get(ask_remove).post(remove_secret))
        .route("/audit", get(audit))
}

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    shell: Shell,
    /// A token that was just made: it is shown this once.
    made: Option<String>,
    tokens: Vec<Token>,
    secrets: Vec<Secret>,
    projects: Vec<String>,
    version: &'static str,
    public_url: String,
    /// The keys that are set, or all of them.
    keys: Vec<Shown>,
    all_keys: bool,
    /// Why the file as it is now does not hold.
    problem: Option<String>,
    restart_needed: String,
}

struct Token {
    id: u64,
    name: String,
    scopes: String,
    projects: String,
    made: Moment,
    made_by: String,
    used: Option<Moment>,
    /// The day, while that is to come.
    until: Option<String>,
    state: &'static str,
}

struct Secret {
    name: String,
    /// Whose; empty for all projects.
    project: String,
    branches: String,
    stages: String,
    made_by: String,
    made: Moment,
}

/// A day in UTC.
fn day(at: i64) -> Option<String> {
    let at = jiff::Timestamp::from_microsecond(at).ok()?;
    Some(at.to_zoned(jiff::tz::TimeZone::UTC).strftime("%-d %b %Y").to_string())
}

fn token(view: TokenView, now: Micros) -> Token {
    let moment = |at: i64| Moment::of(Micros(at), now);
    let over = view.expires_at.is_some_and(|at| at <= now.0);
    Token {
        id: view.id,
        scopes: view.scopes.iter().map(|scope| format!("{scope:?}").to_lowercase()).collect::<Vec<_>>().join(", "),
        projects: view.projects.map_or_else(|| "all".to_owned(), |projects| projects.join(", ")),
        made: moment(view.made_at),
        made_by: view.made_by,
        used: view.used_at.map(moment),
        until: view.expires_at.filter(|_| !over).and_then(day),
        state: if view.revoked_at.is_some() {
            "revoked"
        } else if over {
            "expired"
        } else {
            "valid"
        },
        name: view.name,
    }
}

fn secret(view: SecretView, now: Micros) -> Secret {
    let all = |names: Vec<String>| if names.is_empty() { "all".to_owned() } else { names.join(", ") };
    Secret {
        name: view.name,
        project: view.project.unwrap_or_default(),
        branches: all(view.branches),
        stages: all(view.stages),
        made_by: view.made_by,
        made: Moment::of(Micros(view.made_at), now),
    }
}

/// Whether somebody set it.
fn is_set(key: &Shown) -> bool {
    key.origin.starts_with("file:") || key.origin.starts_with("environment ")
}

async fn settings(visitor: &Visitor, app: App, made: Option<String>, all_keys: bool) -> Answer<Response> {
    visitor.caller.may(Scope::Admin)?;
    let caller = || visitor.caller.clone();
    let Json(tokens) = tokens::list(caller(), State(app.clone())).await?;
    let Json(mut found) = secrets::list(caller(), State(app.clone())).await?;
    for name in app.projects.all().keys() {
        let Json(own) = secrets::list_of_project(caller(), State(app.clone()), Named(name.clone())).await?;
        found.extend(own.into_iter().filter(|secret| secret.project.is_some()));
    }
    let at = now();
    let config = app.config.borrow().clone();
    super::page(&SettingsPage {
        shell: Shell::new(visitor, Section::Settings, "Settings"),
        made,
        tokens: tokens.into_iter().map(|view| token(view, at)).collect(),
        secrets: found.into_iter().map(|view| secret(view, at)).collect(),
        projects: app.projects.all().keys().cloned().collect(),
        version: env!("CARGO_PKG_VERSION"),
        public_url: app.public_url.to_string(),
        keys: config.shown.iter().filter(|key| all_keys || is_set(key)).cloned().collect(),
        all_keys,
        problem: config.problem.as_ref().map(ToString::to_string),
        restart_needed: config.restart_needed.join(", "),
    })
}

/// What of the settings.
#[derive(Debug, Default, Deserialize)]
struct Looked {
    /// `all` shows every key of the configuration.
    #[serde(default)]
    keys: String,
}

async fn show(visitor: Visitor, State(app): State<App>, Asked(looked): Asked<Looked>) -> Answer<Response> {
    settings(&visitor, app, None, looked.keys == "all").await
}

/// A new token, as the form has it.
#[derive(Debug, Deserialize)]
struct NewToken {
    name: String,
    scope: String,
    #[serde(default)]
    projects: String,
    #[serde(default)]
    days: String,
}

async fn create(State(app): State<App>, posted: Posted<NewToken>) -> Answer<Response> {
    let form = posted.form;
    let invalid = |what: &str| Problem::invalid(what.to_owned());
    let scope =
        serde_json::from_value(form.scope.clone().into()).map_err(|_| invalid("choose what the token may do"))?;
    let projects = names(&form.projects);
    let days = form.days.trim();
    let days = if days.is_empty() { None } else { Some(days.parse().map_err(|_| invalid("days are a whole number"))?) };
    let projects = (!projects.is_empty()).then_some(projects);
    let wish = Wish { name: form.name.trim().to_owned(), scopes: vec![scope], projects, days };
    let caller = posted.visitor.caller.clone();
    let (_, Json(made)) = tokens::create(caller, State(app.clone()), Body(wish)).await?;
    settings(&posted.visitor, app, Some(made.token), false).await
}

/// Which token.
#[derive(Debug, Deserialize)]
struct Which {
    token: u64,
}

/// Before a token is revoked: whoever uses it is locked out at once.
async fn ask_revoke(visitor: Visitor, State(app): State<App>, Asked(which): Asked<Which>) -> Answer<Response> {
    visitor.caller.may(Scope::Admin)?;
    let Json(all) = tokens::list(visitor.caller.clone(), State(app)).await?;
    let missing = || Problem::missing(format!("there is no token {}", which.token));
    let token = all.iter().find(|token| token.id == which.token).ok_or_else(missing)?;
    let paths = ("/settings/tokens/revoke".to_owned(), "/settings#tokens".to_owned());
    let asked = Confirm::new(&visitor, Section::Settings, format!("Revoke the token {}?", token.name), paths);
    let mut facts = vec![
        "Programs and people that use it may do nothing from then on.".to_owned(),
        "It cannot be made valid again; a new one can be made.".to_owned(),
    ];
    let others = all.iter().filter(|other| other.id != token.id && other.revoked_at.is_none());
    if !others.into_iter().any(|other| other.scopes.contains(&Scope::Admin)) {
        facts.push(
            "No other token may do everything: without it, only `orchestrator tokens create` on the server's machine makes one."
                .to_owned(),
        );
    }
    let hidden = vec![("token", which.token.to_string())];
    super::page(&Confirm { facts, hidden, buttons: vec![("", "Revoke it", true)], ..asked })
}

async fn revoke(State(app): State<App>, posted: Posted<Which>) -> Answer<Response> {
    tokens::revoke(posted.visitor.caller, State(app), Named(posted.form.token)).await?;
    Ok(Redirect::to("/settings").into_response())
}

/// A secret, as the form has it. It has no `Debug`: its value must not reach a log.
#[derive(Deserialize)]
struct NewSecret {
    name: String,
    value: String,
    #[serde(default)]
    project: String,
    #[serde(default)]
    branches: String,
    #[serde(default)]
    stages: String,
}

async fn set_secret(State(app): State<App>, posted: Posted<NewSecret>) -> Answer<Response> {
    let (form, caller) = (posted.form, posted.visitor.caller);
    let wish = SecretWish { value: form.value, branches: names(&form.branches), stages: names(&form.stages) };
    let name = form.name.trim().to_owned();
    if form.project.is_empty() {
        secrets::set_of_all(caller, State(app), Named(name), Body(wish)).await?;
    } else {
        secrets::set_of_project(caller, State(app), Named((form.project, name)), Body(wish)).await?;
    }
    Ok(Redirect::to("/settings#secrets").into_response())
}

/// A list in one field.
fn names(text: &str) -> Vec<String> {
    text.split([',', ' ']).map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Which secret.
#[derive(Debug, Deserialize)]
struct WhichSecret {
    name: String,
    #[serde(default)]
    project: String,
}

/// Before a secret is removed.
async fn ask_remove(visitor: Visitor, State(app): State<App>, Asked(which): Asked<WhichSecret>) -> Answer<Response> {
    visitor.caller.may(Scope::Admin)?;
    let (name, project) = (which.name, which.project);
    let of = project.clone();
    let known = app.engine.store.read(move |db| crate::store::secrets::of_project(db, &of)).await?;
    if !known.iter().any(|row| row.name == name) {
        return Err(Problem::missing(format!("there is no secret `{name}`")));
    }
    let whose = if project.is_empty() { "all projects".to_owned() } else { format!("project `{project}`") };
    let paths = ("/settings/secrets/remove".to_owned(), "/settings#secrets".to_owned());
    let asked = Confirm::new(&visitor, Section::Settings, format!("Remove the secret {name}?"), paths);
    let facts = vec![
        format!("It is one of {whose}. Stages that name it cannot run without it."),
        "Its value is nowhere else: whoever needs it again has to set it again.".to_owned(),
    ];
    let hidden = vec![("name", name), ("project", project)];
    super::page(&Confirm { facts, hidden, buttons: vec![("", "Remove it", true)], ..asked })
}

async fn remove_secret(State(app): State<App>, posted: Posted<WhichSecret>) -> Answer<Response> {
    let (form, caller) = (posted.form, posted.visitor.caller);
    if form.project.is_empty() {
        secrets::remove_of_all(caller, State(app), Named(form.name)).await?;
    } else {
        secrets::remove_of_project(caller, State(app), Named((form.project, form.name))).await?;
    }
    Ok(Redirect::to("/settings#secrets").into_response())
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    shell: Shell,
    rows: Vec<(Moment, AuditView)>,
    next: Option<u64>,
}

async fn audit(visitor: Visitor, State(app): State<App>, asked: Asked<Page>) -> Answer<Response> {
    let Json(Listed { items, next }) = tokens::audit(visitor.caller.clone(), State(app), asked).await?;
    let at = now();
    let rows = items.into_iter().map(|row| (Moment::of(Micros(row.at), at), row)).collect();
    super::page(&AuditPage { shell: Shell::new(&visitor, Section::Settings, "Audit"), rows, next })
}
