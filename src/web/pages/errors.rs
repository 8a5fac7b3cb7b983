//! Problems as pages, for browsers. Programs get them as they are.

use askama::Template;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::shell::{Section, Shell};
use crate::web::problem::Problem;
use crate::web::request_id::RequestId;

/// What may stand in a parameter as it is.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    shell: Shell,
    status: u16,
    detail: String,
    request: String,
    again: bool,
}

/// Turns the problem of an answer into a page, if a person asked; who has to sign in first is sent there.
pub async fn for_people(request: Request, next: Next) -> Response {
    let wanted = wants_page(request.method(), request.uri(), request.headers());
    let (uri, is_get) = (request.uri().clone(), request.method() == Method::GET);
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let response = next.run(request).await;
    let Some(problem) = response.extensions().get::<Problem>().filter(|_| wanted).cloned() else { return response };
    if problem.status == StatusCode::UNAUTHORIZED.as_u16() {
        let path = if is_get { uri.path_and_query().map_or("/", |path| path.as_str()) } else { "/" };
        return Redirect::to(&format!("/sign-in?next={}", utf8_percent_encode(path, KEPT))).into_response();
    }
    let status = response.status();
    let view = ErrorPage {
        shell: Shell::bare(problem.title),
        status: problem.status,
        again: problem.retry_after.is_some() || status.is_server_error(),
        detail: problem.detail,
        request: id,
    };
    let Ok(mut shown) = super::page(&view) else { return response };
    *shown.status_mut() = status;
    if let Some(seconds) = problem.retry_after {
        shown.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    shown
}

/// Whether a person with a browser asked for a page.
fn wants_page(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let for_programs = ["/api/", "/hooks/", "/static/", "/metrics", "/healthz"];
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    matches!(*method, Method::GET | Method::HEAD | Method::POST)
        && accepted.contains("text/html")
        && !for_programs.iter().any(|path| uri.path().starts_with(path))
}
