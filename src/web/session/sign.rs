//! `/sign-in` and `/sign-out`.

use axum::Form;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use std::time::Duration;

use super::form::SignedForm;
use super::origin::From;
use super::{address, cookie, cookie_hash, cookie_name, foreign, from, is_https, new_session, next, page};
use crate::engine::now;
use crate::store::{access, sessions};
use crate::web::App;
use crate::web::auth::{self, Caller};
use crate::web::problem::{Answer, Problem};

/// Where to go afterwards.
#[derive(Debug, Default, Deserialize)]
pub struct Wanted {
    /// A path of ours.
    pub next: Option<String>,
}

/// The page to sign in at.
pub async fn page(State(app): State<App>, wanted: Result<Query<Wanted>, QueryRejection>) -> Response {
    let wanted = wanted.ok().and_then(|Query(wanted)| wanted.next);
    let next = next::local(wanted.as_deref());
    if app.guard.open {
        return Redirect::to(next).into_response();
    }
    shown(&app, StatusCode::OK, next, None)
}

/// The page, with why it is shown again.
pub fn shown(app: &App, status: StatusCode, next: &str, problem: Option<&str>) -> Response {
    page::sign_in(status, next, app.sessions.provider.as_ref().map(|provider| provider.name.as_str()), problem)
}

/// The page after something went wrong.
pub fn again(app: &App, problem: &Problem, next: &str) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = match status {
        StatusCode::UNAUTHORIZED => "This token is not valid: it is mistyped, has ended or was revoked.".to_owned(),
        StatusCode::TOO_MANY_REQUESTS => format!("Too many wrong tries came from here; {}.", problem.detail),
        _ => format!("{}: {}.", problem.title, problem.detail),
    };
    let mut response = shown(app, status, next, Some(&text));
    if let Some(seconds) = problem.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Lets an address try to sign in, unless it was wrong too often.
///
/// # Errors
/// [`Problem::too_many`].
pub fn may_try(app: &App, parts: &Parts) -> Answer<()> {
    let wait = address(app, parts).and_then(|address| app.guard.wait(address));
    wait.map_or(Ok(()), |wait| Err(Problem::too_many(wait.as_secs().max(1))))
}

/// Notes that a sign-in of this address came to nothing.
pub fn was_wrong(app: &App, parts: &Parts) {
    if let Some(address) = address(app, parts) {
        app.guard.was_wrong(address);
    }
}

/// Who wants in.
#[derive(Deserialize)]
pub struct Entry {
    #[serde(default)]
    token: String,
    next: Option<String>,
}

/// Gives a cookie for a token.
pub async fn sign_in(State(app): State<App>, parts: Parts, form: Result<Form<Entry>, FormRejection>) -> Response {
    let Form(entry) = match form {
        Ok(form) => form,
        Err(error) => return shown(&app, error.status(), "/", Some("The form could not be read; try again.")),
    };
    let next = next::local(entry.next.as_deref());
    if app.guard.open {
        return Redirect::to(next).into_response();
    }
    let opened = open(&app, &parts, entry.token.trim(), next).await;
    opened.unwrap_or_else(|problem| again(&app, &problem, next))
}

async fn open(app: &App, parts: &Parts, token: &str, next: &str) -> Answer<Response> {
    // Nobody is signed in by another site's page, not even under its own name.
    if from(parts, app) == From::Foreign {
        return Err(foreign());
    }
    let row = auth::token_row(app, parts, token).await?;
    let id = row.id;
    enter(app, parts, &Caller::of_token(row), Some(id), &format!("token {id}"), next).await
}

/// Opens a session for somebody; one that the browser had before ends. `by` is for the audit log.
///
/// # Errors
/// The store's.
pub async fn enter(
    app: &App,
    parts: &Parts,
    caller: &Caller,
    token: Option<u64>,
    by: &str,
    next: &str,
) -> Answer<Response> {
    let at = now();
    let (value, new) = new_session(app, caller, token, at);
    let (before, by) = (cookie_hash(parts, app), by.to_owned());
    let opened = app.engine.store.write(move |tx| {
        if let Some(before) = before {
            sessions::end(tx, &before)?;
        }
        sessions::open(tx, &new, at)?;
        access::audit(tx, &new.actor, "session.open", &by, "", at)
    });
    opened.await?;
    // One of another browser may have gone, and the one before.
    app.guard.tell_end();
    Ok(with_cookie(app, parts, &value, app.sessions.lasts, next))
}

/// Ends the session.
pub async fn sign_out(
    State(app): State<App>,
    parts: Parts,
    form: Result<SignedForm<Wanted>, Problem>,
) -> Answer<Response> {
    let next = "/sign-in";
    match form {
        Ok(SignedForm { caller, .. }) => {
            if let Some(hash) = caller.session() {
                let (hash, name, at) = (hash.to_owned(), caller.name.clone(), now());
                let ended = app.engine.store.write(move |tx| {
                    sessions::end(tx, &hash)?;
                    access::audit(tx, &name, "session.end", "", "", at)
                });
                ended.await?;
                app.guard.tell_end();
            }
        }
        // It has ended by itself.
        Err(problem) if problem.status == StatusCode::UNAUTHORIZED.as_u16() => {}
        Err(problem) => return Err(problem),
    }
    Ok(with_cookie(&app, &parts, "", Duration::ZERO, next))
}

fn with_cookie(app: &App, parts: &Parts, value: &str, lasts: Duration, next: &str) -> Response {
    let mut response = Redirect::to(next).into_response();
    let line = cookie::set(&cookie_name(parts, app), value, is_https(parts, app), lasts);
    if let Ok(line) = HeaderValue::from_str(&line) {
        response.headers_mut().insert(header::SET_COOKIE, line);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
