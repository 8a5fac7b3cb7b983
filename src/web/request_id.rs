//! A number for every request: in the answer's header, and on every line that is logged while it is worked on.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

/// The header that tells it.
pub const HEADER: &str = "x-request-id";

/// The number, for those who work on the request.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Makes the number, logs the request's end, and sets headers that every answer has.
pub async fn stamp(mut request: Request, next: Next) -> Response {
    let id = format!("{:016x}", rand::random::<u64>());
    let span = tracing::info_span!("request", id, method = %request.method(), path = request.uri().path());
    request.extensions_mut().insert(RequestId(id.clone()));
    let begun = std::time::Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let took = begun.elapsed();
    span.in_scope(|| {
        tracing::debug!(status = response.status().as_u16(), micros = took.as_micros() as u64, "answered")
    });
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(HEADER, value);
    }
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.entry("referrer-policy").or_insert(HeaderValue::from_static("same-origin"));
    response
}
