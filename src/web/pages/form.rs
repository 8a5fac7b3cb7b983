//! Forms that were sent: taken only from a page of ours.

use axum::extract::{Form, FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;

use super::visitor::Visitor;
use crate::web::App;
use crate::web::problem::Problem;

/// A form, and who sent it.
pub struct Posted<T> {
    /// Who.
    pub visitor: Visitor,
    /// What.
    pub form: T,
}

impl<T: DeserializeOwned> FromRequest<App> for Posted<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        if !is_ours(request.headers(), &app.public_url) {
            return Err(Problem::forbidden("this form was not sent from a page of this server"));
        }
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, app).await?;
        let form = Form::<T>::from_request(Request::from_parts(parts, body), app).await;
        let Form(form) = form.map_err(|error| Problem::invalid(error.body_text()))?;
        Ok(Self { visitor, form })
    }
}

/// Whether a form comes from a page of this server: browsers say so in `Origin`. A host that is a name counts only if it is
/// our own, since a stranger's name may be made to lead here.
fn is_ours(headers: &HeaderMap, public_url: &str) -> bool {
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return false };
    if origin == public_url.trim_end_matches('/') {
        return true;
    }
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let bare = host.parse::<std::net::SocketAddr>().map(|address| address.ip());
    let is_number = bare.is_ok() || host.parse::<std::net::IpAddr>().is_ok();
    let is_local = host.split(':').next() == Some("localhost");
    matches!(scheme, "http" | "https") && text(header::HOST) == Some(host) && (is_number || is_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pages_send_forms() {
        let check = |origin: Option<&str>, host: &str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(is_ours(&headers, "https://ci.example.com"), expected, "{origin:?} {host}");
        };
        check(Some("https://ci.example.com"), "ci.example.com", true);
        // Behind a proxy the host is another.
        check(Some("https://ci.example.com"), "10.0.0.1:8484", true);
        check(Some("http://127.0.0.1:8484"), "127.0.0.1:8484", true);
        check(Some("http://[::1]:8484"), "[::1]:8484", true);
        check(Some("http://localhost:8484"), "localhost:8484", true);
        check(Some("http://127.0.0.1:9999"), "127.0.0.1:8484", false);
        check(Some("https://evil.example"), "127.0.0.1:8484", false);
        // A name of a stranger that leads here.
        check(Some("http://evil.example:8484"), "evil.example:8484", false);
        check(Some("null"), "127.0.0.1:8484", false);
        check(None, "127.0.0.1:8484", false);
    }
}
