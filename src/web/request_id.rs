//! A number for every request: in the answer's header, and on every line that is logged while it is worked on.

use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use crate::daemon::traces::{Served, Traces};

/// The header that tells it.
pub const HEADER: &str = "x-request-id";

/// The number, for those who work on the request.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Makes the number, logs the request's end, and sets headers that every answer has.
pub async fn stamp(State(traces): State<Traces>, mut request: Request, next: Next) -> Response {
    let id = format!("{:016x}", rand::random::<u64>());
    let span = tracing::info_span!("request", id, method = %request.method(), path = request.uri().path());
    request.extensions_mut().insert(RequestId(id.clone()));
    let (begun, began) = (std::time::Instant::now(), std::time::SystemTime::now());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).instrument(span.clone()).await;
    let took = begun.elapsed();
    span.in_scope(|| {
        tracing::debug!(status = response.status().as_u16(), micros = took.as_micros() as u64, "answered")
    });
    // Those who ask whether we are there, or how it goes, say nothing by asking.
    if route.as_ref().is_none_or(|route| !matches!(route.as_str(), "/healthz" | "/metrics")) {
        traces.request(|| Served {
            method: method.to_string(),
            route: route.map(|route| route.as_str().to_owned()),
            status: response.status().as_u16(),
            id: id.clone(),
            began,
            took,
        });
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(HEADER, value);
    }
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.entry("referrer-policy").or_insert(HeaderValue::from_static("same-origin"));
    response
}
