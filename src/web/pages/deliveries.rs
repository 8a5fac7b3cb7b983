//! Webhook calls: what came, what was made of it, and once more.

use std::collections::BTreeMap;

use askama::Template;
use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use super::form::Posted;
use super::mark::Mark;
use super::moment::Moment;
use super::shell::{Section, Shell};
use super::visitor::Visitor;
use crate::engine::now;
use crate::ids::Micros;
use crate::store::access::Scope;
use crate::store::deliveries as store;
use crate::web::App;
use crate::web::api::deliveries::{self as api, DeliveryView, TriggerView};
use crate::web::api::page::{Asked, Listed, Named, Page};
use crate::web::pages::coded::Coded;
use crate::web::problem::Answer;
use crate::words;

/// Characters of a body that are shown; the whole of it can be fetched.
const SHOWN: usize = 60_000;

/// The routes of the deliveries' pages.
pub fn router() -> Router<App> {
    Router::new()
        .route("/deliveries", get(list))
        .route("/deliveries/{delivery}", get(show))
        .route("/deliveries/{delivery}/replay", post(replay))
}

#[derive(Template)]
#[template(path = "deliveries.html")]
struct ListPage {
    shell: Shell,
    rows: Vec<Row>,
    next: Option<u64>,
    webhook: String,
}

struct Row {
    id: u64,
    event: String,
    came: Moment,
    outcomes: Vec<Outcome>,
}

/// What a project made of it.
struct Outcome {
    project: String,
    mark: Mark,
    reason: String,
    builds: Vec<u64>,
}

impl Outcome {
    fn of(row: &TriggerView) -> Self {
        let mark = match row.decision.as_deref() {
            None => Mark { shape: "waiting", word: "being looked at" },
            Some("started") => Mark { shape: "passed", word: "started" },
            Some("awaiting") => Mark { shape: "held", word: "waits for approval" },
            Some("skipped") => Mark { shape: "skipped", word: "skipped" },
            Some("ignored") => Mark { shape: "skipped", word: "ignored" },
            Some("duplicate") => Mark { shape: "reused", word: "duplicate" },
            Some("cancelled") => Mark { shape: "cancelled", word: "ended builds" },
            Some(_) => Mark { shape: "failed", word: "not possible" },
        };
        Self { project: row.project.clone(), mark, reason: row.reason.clone(), builds: row.builds.clone() }
    }
}

fn row(view: &DeliveryView, now: Micros) -> Row {
    Row {
        id: view.id,
        event: view.event.clone(),
        came: Moment::of(Micros(view.received_at), now),
        outcomes: view.triggers.iter().map(Outcome::of).collect(),
    }
}

async fn list(visitor: Visitor, State(app): State<App>, asked: Asked<Page>) -> Answer<Response> {
    let webhook = format!("{}/hooks/github", app.public_url.trim_end_matches('/'));
    let Json(Listed { items, next }) = api::list(visitor.caller.clone(), State(app), asked).await?;
    let at = now();
    let rows = items.iter().map(|view| row(view, at)).collect();
    let shell = Shell::new(&visitor, Section::Deliveries, "Deliveries");
    super::page(&ListPage { shell, rows, next, webhook })
}

#[derive(Template)]
#[template(path = "delivery.html")]
struct ShowPage {
    shell: Shell,
    row: Row,
    sender: String,
    size: String,
    headers: BTreeMap<String, String>,
    body: String,
    cut: bool,
    may_replay: bool,
}

async fn show(visitor: Visitor, State(app): State<App>, Named(id): Named<u64>) -> Answer<Response> {
    let Json(view) = api::show(visitor.caller.clone(), State(app.clone()), Named(id)).await?;
    let read = app.engine.store.read(move |db| Ok((store::get(db, id)?.headers, store::body(db, id)?)));
    let (headers, body) = read.await?;
    let (body, cut) = readable(&body);
    let shell = Shell::new(&visitor, Section::Deliveries, format!("Delivery {id}"));
    super::page(&ShowPage {
        row: row(&view, now()),
        sender: view.delivery.clone(),
        size: words::size(view.size),
        headers: serde_json::from_str(&headers).unwrap_or_default(),
        body,
        cut,
        may_replay: view.triggers.iter().all(|trigger| visitor.may_in(Scope::Trigger, &trigger.project)),
        shell,
    })
}

/// A body as text, in lines if it is JSON; and whether there is more of it.
fn readable(body: &[u8]) -> (String, bool) {
    let json = serde_json::from_slice::<serde_json::Value>(body).and_then(|value| serde_json::to_string_pretty(&value));
    let text = json.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned());
    let clean = text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c });
    let shown: String = clean.take(SHOWN).collect();
    let cut = shown.len() < text.len() && text.chars().nth(SHOWN).is_some();
    (shown, cut)
}

/// Nothing: the form has no fields of its own.
#[derive(serde::Deserialize)]
struct Nothing {}

async fn replay(State(app): State<App>, Named(id): Named<u64>, posted: Posted<Nothing>) -> Answer<Response> {
    let _ = api::replay(posted.visitor.caller, State(app), Named(id)).await?;
    Ok(Redirect::to(&format!("/deliveries/{id}")).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_readable_and_bounded() {
        assert_eq!(readable(b"{\"a\":1}"), ("{\n  \"a\": 1\n}".to_owned(), false));
        assert_eq!(readable(b"\x00\xffx"), ("\u{fffd}\u{fffd}x".to_owned(), false));
        let (shown, cut) = readable("é".repeat(SHOWN + 1).as_bytes());
        assert!(cut && shown.chars().count() == SHOWN);
    }
}
