//! `Idempotency-Key` on POST: a request that is sent twice counts once.
//!
//! The key is claimed on the disk before the request is acted upon, and the answer is kept with it for a day. If the server is
//! killed in between, nobody knows whether it took effect: then the same request again is refused, never done twice.

use std::sync::atomic::{AtomicI64, Ordering};

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::auth::{Caller, hash};
use super::problem::{Answer, Problem};
use crate::engine::now;
use crate::ids::Micros;
use crate::store::idempotency::{self, Claim};

/// The header.
pub const HEADER: &str = "idempotency-key";
/// Characters of a key at most.
const LONGEST_KEY: usize = 255;
/// Bytes of a request and of an answer at most.
const MOST_BYTES: usize = 2 << 20;
/// Answers are kept for so long, and looked through so often.
const KEPT: i64 = 24 * 3600 * 1_000_000;
const LOOK: i64 = 3600 * 1_000_000;

/// The layer.
pub async fn once(State(app): State<App>, request: Request, next: Next) -> Response {
    // The answer of this one holds a token, which is never stored.
    let token = request.uri().path().ends_with("/tokens");
    if request.method() != Method::POST || token || !request.headers().contains_key(HEADER) {
        return next.run(request).await;
    }
    keyed(app, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn keyed(app: App, request: Request, next: Next) -> Answer<Response> {
    let (mut parts, body) = request.into_parts();
    let given = parts.headers.get(HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if given.is_empty() || given.len() > LONGEST_KEY {
        return Err(Problem::invalid(format!("Idempotency-Key is 1 to {LONGEST_KEY} visible characters")));
    }
    let given = given.to_owned();
    // Strangers leave nothing in the store, and nobody gets another one's answers.
    let caller = Caller::from_request_parts(&mut parts, &app).await?;
    let bytes = to_bytes(body, MOST_BYTES).await.map_err(|error| Problem::too_large(error.to_string()))?;
    let key = hash(&format!("{}\0{given}", caller.identity()));
    let mut digest = blake3::Hasher::new();
    digest.update(parts.uri.to_string().as_bytes()).update(b"\0").update(&bytes);
    let digest = digest.finalize().to_hex().to_string();
    let claimed = {
        let key = key.clone();
        app.engine.store.write(move |tx| {
            let at = now();
            forget(tx, at)?;
            idempotency::claim(tx, &key, &digest, at)
        })
    };
    match claimed.await? {
        Claim::New => {}
        Claim::Answered { status, answer } => return Ok(again(status, answer)),
        Claim::Open => {
            return Err(Problem::conflict(
                "the same request with this Idempotency-Key is under way, or was cut off when the server was killed: look \
                 whether it took effect, and use another key",
            ));
        }
        Claim::Other => {
            return Err(Problem::conflict("this Idempotency-Key was used for another request: use a new one for each"));
        }
    }
    let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
    keep(&app, key, response).await
}

/// Once an hour in a process.
fn forget(tx: &crate::store::Tx, at: Micros) -> Result<(), crate::store::StoreError> {
    static LAST: AtomicI64 = AtomicI64::new(0);
    if at.0 - LAST.load(Ordering::Relaxed) >= LOOK {
        LAST.store(at.0, Ordering::Relaxed);
        idempotency::forget(tx, Micros(at.0 - KEPT))?;
    }
    Ok(())
}

/// Keeps the answer, unless the request came to nothing and may be tried again.
async fn keep(app: &App, key: String, response: Response) -> Answer<Response> {
    let status = response.status();
    let passing = status.is_server_error()
        || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS);
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, MOST_BYTES).await.map_err(|error| Problem::internal(&error))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let write = app.engine.store.write(move |tx| match passing {
        true => idempotency::release(tx, &key),
        false => idempotency::answer(tx, &key, status.as_u16(), &text),
    });
    write.await?;
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

/// The answer that was given before.
fn again(status: u16, answer: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
    let mut response = (status, answer).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    response
}
