//! Pages for people: HTML made on the server, the same rows as the API.
//!
//! ```text
//! request -> handler: asks the store, checks the caller -> a view (PURE: plain values) -> its template in web/templates
//! ```
//!
//! A view knows no store and no clock: it is given rows and `now`. What is live is the page itself, fetched again when an
//! event comes, so that there is one template for each thing that is shown.

mod ansi;
pub mod assets;
mod build;
mod coded;
mod confirm;
mod csv;
mod deliveries;
mod deployments;
mod errors;
mod form;
mod home;
mod line;
mod log;
pub(in crate::web) mod mark;
mod models;
mod moment;
mod project;
mod queue;
mod refused;
mod search;
mod serving;
mod settings;
pub(in crate::web) mod shell;
mod visitor;

use askama::Template;
use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tower_http::CompressionLevel;
use tower_http::compression::{CompressionLayer, Predicate};

use super::App;
use super::problem::{Answer, Problem};
use crate::words::turns_or_hides;
pub use errors::for_people;

/// What a page may load and do: its own files, and forms to here. No script and no style inside the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The routes of all pages.
pub fn router() -> Router<App> {
    Router::new()
        .route("/", get(home::show))
        .route("/static/{name}", get(assets::serve))
        .merge(build::router())
        .merge(models::router())
        .merge(log::router())
        .merge(project::router())
        .merge(queue::router())
        .merge(deliveries::router())
        .merge(deployments::router())
        .merge(settings::router())
        .route("/search", get(search::show))
}

/// Packs pages for browsers that take them so. What a page keeps from others is another text each time (`session::mask`), so that
/// its packed size tells nothing of it. Streams are not packed, since they wait for nothing.
pub fn packed() -> CompressionLayer<Pages> {
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(Pages)
}

/// What is packed: HTML.
#[derive(Debug, Clone, Copy)]
pub struct Pages;

impl Predicate for Pages {
    fn should_compress<B: axum::body::HttpBody>(&self, response: &axum::http::Response<B>) -> bool {
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        kind.is_some_and(|kind| kind.starts_with("text/html"))
    }
}

/// A page as an answer, with the headers that every page has.
pub(in crate::web) fn page(template: &impl Template) -> Answer<Response> {
    let text = template.render().map_err(|error| Problem::internal(&error))?;
    // No template has such characters: they are from outside, and would make a text look like another one.
    let text = if text.contains(turns_or_hides) { text.replace(turns_or_hides, "\u{fffd}") } else { text };
    let mut response = Html(text).into_response();
    let headers: [(HeaderName, &'static str); 7] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // Pages hold what their reader may see, as of now.
        (header::CACHE_CONTROL, "no-store"),
        // With `no-referrer` browsers would send forms with `Origin: null`.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}
