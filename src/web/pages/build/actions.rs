//! What people do with a build. What hurts is asked for once more, on a page of its own; the deed itself is the API's.

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use crate::build::status::BuildStatus;
use crate::ids::BuildId;
use crate::store::access::Scope;
use crate::store::queue;
use crate::web::App;
use crate::web::api::builds::{self as api, Again, Cancel, allowed};
use crate::web::api::page::{Named, Perhaps};
use crate::web::pages::confirm::Confirm;
use crate::web::pages::form::Posted;
use crate::web::pages::line::short;
use crate::web::pages::shell::Section;
use crate::web::pages::visitor::Visitor;
use crate::web::problem::Answer;

fn confirm(visitor: &Visitor, id: BuildId, question: String, verb: &str) -> Confirm {
    let back = format!("/builds/{}", id.0);
    Confirm::new(visitor, Section::Builds, question, (format!("{back}/{verb}"), back))
}

/// What a form says.
#[derive(Debug, Deserialize)]
pub struct How {
    #[serde(default)]
    how: String,
}

fn back(id: u64) -> Response {
    Redirect::to(&format!("/builds/{id}")).into_response()
}

/// Before a build is cancelled.
pub async fn ask_cancel(visitor: Visitor, State(app): State<App>, Named(id): Named<u64>) -> Answer<Response> {
    let row = allowed(&visitor.caller, &app, Scope::Trigger, BuildId(id)).await?;
    if row.status.is_terminal() {
        return Ok(back(id));
    }
    let question = format!("Cancel build #{id} of {}?", row.request.project);
    let facts = vec![
        "Cancel: stages that run are told to end and have their grace time; clean-up stages still run.".to_owned(),
        "Kill: nothing is waited for, and clean-up stages do not run.".to_owned(),
    ];
    let buttons = vec![("cancel", "Cancel the build", true), ("kill", "Kill it at once", true)];
    super::super::page(&Confirm { facts, buttons, ..confirm(&visitor, BuildId(id), question, "cancel") })
}

/// Cancels a build.
pub async fn cancel(State(app): State<App>, Named(id): Named<u64>, posted: Posted<How>) -> Answer<Response> {
    let wish = Cancel { kill: posted.form.how == "kill" };
    let _ = api::cancel(posted.visitor.caller, State(app), Named(id), Perhaps(Some(wish))).await?;
    Ok(back(id))
}

/// Before a build is approved: what would run.
pub async fn ask_approve(visitor: Visitor, State(app): State<App>, Named(id): Named<u64>) -> Answer<Response> {
    let row = allowed(&visitor.caller, &app, Scope::Approve, BuildId(id)).await?;
    let standing = app.engine.store.read(move |db| queue::standing(db, BuildId(id))).await?;
    let Some(awaits) = standing.awaits else { return Ok(back(id)) };
    let request = &row.request;
    let question = format!("Let build #{id} of {} begin?", request.project);
    let mut facts = vec![format!("It waits because: {awaits}.")];
    facts.push(format!(
        "It runs the code of commit {} by {}. You agree to this commit alone: a new one waits again.",
        short(request.commit.as_deref()),
        request.actor
    ));
    if request.untrusted {
        facts.push("It gets no secrets.".to_owned());
    }
    let buttons = vec![("", "Approve", false)];
    super::super::page(&Confirm { facts, buttons, ..confirm(&visitor, BuildId(id), question, "approve") })
}

/// Approves a build.
pub async fn approve(State(app): State<App>, Named(id): Named<u64>, posted: Posted<How>) -> Answer<Response> {
    let _ = api::approve(posted.visitor.caller, State(app), Named(id)).await?;
    Ok(back(id))
}

/// Before a build runs again as a whole.
pub async fn ask_retry(visitor: Visitor, State(app): State<App>, Named(id): Named<u64>) -> Answer<Response> {
    let row = allowed(&visitor.caller, &app, Scope::Trigger, BuildId(id)).await?;
    let question = format!("Run build #{id} of {} again?", row.request.project);
    let mut facts = vec!["All stages: everything runs anew; nothing is reused.".to_owned()];
    let mut buttons = vec![("all", "All stages", true)];
    if row.status != BuildStatus::Passed {
        facts.insert(0, "Failed stages: what did not end well runs again, and what stands behind it.".to_owned());
        buttons.insert(0, ("failed", "Failed stages", false));
    }
    super::super::page(&Confirm { facts, buttons, ..confirm(&visitor, BuildId(id), question, "retry") })
}

/// Runs a build again.
pub async fn retry(State(app): State<App>, Named(id): Named<u64>, posted: Posted<How>) -> Answer<Response> {
    let again = Again { all: posted.form.how == "all", stages: Vec::new() };
    let _ = api::retry_build(posted.visitor.caller, State(app), Named(id), Perhaps(Some(again))).await?;
    Ok(back(id))
}
