//! What every answer of the API tells browsers, unless its handler knows better: it is for the one who asked, now.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

/// Which pages of other sites may take an answer in (a picture, a script, a frame).
pub const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Neither kept, nor guessed at, nor shown as a page or in one, nor taken in by other sites.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
];

/// The layer. It goes by the path, so that it covers what no handler answers as well.
pub async fn seal(request: Request, next: Next) -> Response {
    let ours = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    if ours {
        for (name, value) in HEADERS {
            response.headers_mut().entry(name).or_insert(value);
        }
    }
    response
}
