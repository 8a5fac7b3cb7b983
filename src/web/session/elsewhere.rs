//! `/sign-in/start` and `/sign-in/callback`: to the provider and back.

use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::provider::{Attempt, Person, Provider, Refused, Rights};
use super::sign::{Wanted, enter};
use super::{cookie, cookie_name, is_https, next, random, sign};
use crate::web::App;
use crate::web::auth::Caller;
use crate::web::problem::Problem;

/// How long somebody may take to sign in at the provider.
const BEGUN: Duration = Duration::from_secs(600);
/// Longer paths to come back to are forgotten: browsers take 4 KiB for a cookie.
const LONGEST_NEXT: usize = 1024;
/// Bytes of a code at most.
const LONGEST_CODE: usize = 4096;

/// What a provider sends the browser back with.
#[derive(Debug, Default, Deserialize)]
pub struct Back {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// To the provider.
pub async fn start(State(app): State<App>, parts: Parts, wanted: Result<Query<Wanted>, QueryRejection>) -> Response {
    let wanted = wanted.ok().and_then(|Query(wanted)| wanted.next);
    let next = next::local(wanted.as_deref().filter(|next| next.len() <= LONGEST_NEXT));
    let Some(provider) = &app.sessions.provider else { return Redirect::to("/sign-in").into_response() };
    let random = random();
    match provider.begin(Attempt(&random)).await {
        Ok(url) => {
            let value = format!("{random}.{}", BASE64.encode(next));
            let to = Redirect::to(url.as_str()).into_response();
            with_begun(&app, &parts, to, &value, BEGUN)
        }
        Err(refused) => refusal(&app, &parts, provider, next, &refused),
    }
}

/// Back from the provider.
pub async fn callback(State(app): State<App>, parts: Parts, back: Result<Query<Back>, QueryRejection>) -> Response {
    let Some(provider) = &app.sessions.provider else { return Redirect::to("/sign-in").into_response() };
    let begun = cookie::get(&parts.headers, &begun_name(&parts, &app)).and_then(begun);
    let (random, next) = begun.unwrap_or_default();
    let next = next::local(Some(&next));
    let back = back.map(|Query(back)| back).unwrap_or_default();
    let response = match finish(&app, &parts, provider, &random, back).await {
        Ok((person, rights)) => {
            let caller = Caller::known(person.name, rights.scopes, rights.projects);
            let entered = enter(&app, &parts, &caller, None, &format!("by {}", provider.name), next).await;
            entered.unwrap_or_else(|problem| sign::again(&app, &problem, next))
        }
        Err(Ended::Wait(problem)) => sign::again(&app, &problem, next),
        Err(Ended::Refused(refused)) => {
            sign::was_wrong(&app, &parts);
            refusal(&app, &parts, provider, next, &refused)
        }
    };
    with_begun(&app, &parts, response, "", Duration::ZERO)
}

/// Why nobody is signed in.
enum Ended {
    Wait(Problem),
    Refused(Refused),
}

async fn finish(
    app: &App,
    parts: &Parts,
    provider: &Provider,
    random: &str,
    back: Back,
) -> Result<(Person, Rights), Ended> {
    let broken = |text: &str| Ended::Refused(Refused::SignIn(text.to_owned()));
    let attempt = Attempt(random);
    let given = back.state.unwrap_or_default();
    // Whoever sends somebody here with a code of his own would have them work under his name.
    if random.is_empty() || !bool::from(given.as_bytes().ct_eq(attempt.state().as_bytes())) {
        return Err(broken("it was not begun in this browser, took longer than ten minutes, or is over already"));
    }
    if let Some(error) = back.error {
        let error: String = error.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(50).collect();
        return Err(broken(&format!("the provider says `{error}`")));
    }
    let code = back.code.filter(|code| !code.is_empty() && code.len() <= LONGEST_CODE);
    let code = code.ok_or_else(|| broken("the provider sent no code"))?;
    sign::may_try(app, parts).map_err(Ended::Wait)?;
    provider.finish(attempt, &code, back.iss.as_deref()).await.map_err(Ended::Refused)
}

/// The random text, and where to go afterwards.
fn begun(value: &str) -> Option<(String, String)> {
    let (random, next) = value.split_once('.')?;
    let next = String::from_utf8(BASE64.decode(next).ok()?).ok()?;
    (random.len() == 43).then(|| (random.to_owned(), next))
}

fn begun_name(parts: &Parts, app: &App) -> String {
    format!("{}-begun", cookie_name(parts, app))
}

fn with_begun(app: &App, parts: &Parts, mut response: Response, value: &str, lasts: Duration) -> Response {
    let line = cookie::set(&begun_name(parts, app), value, is_https(parts, app), lasts);
    if let Ok(line) = HeaderValue::from_str(&line) {
        response.headers_mut().append(header::SET_COOKIE, line);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn refusal(app: &App, parts: &Parts, provider: &Provider, next: &str, refused: &Refused) -> Response {
    let peer = super::address(app, parts);
    tracing::warn!(?peer, "nobody is signed in by {}: {refused}", provider.name);
    let (status, text) = match refused {
        Refused::Provider(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "Signing in by {} does not work at the moment; the server's log says why. A token works.",
                provider.name
            ),
        ),
        Refused::SignIn(why) => (StatusCode::BAD_REQUEST, format!("This sign-in does not hold: {why}. Begin again.")),
        Refused::Person(_) => (StatusCode::FORBIDDEN, format!("{refused}. Ask whoever runs this server.")),
    };
    sign::shown(app, status, next, Some(&text))
}
