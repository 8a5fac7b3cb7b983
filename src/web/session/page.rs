//! The page to sign in at.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use url::form_urlencoded;

use crate::words::escape;

/// No script, no style but the server's own, no other site around it or as the form's receiver.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Headers of the page.
const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// The page; `next` is where to go afterwards, `provider` where else people sign in, `problem` why it is shown again.
pub fn sign_in(status: StatusCode, next: &str, provider: Option<&str>, problem: Option<&str>) -> Response {
    let there: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
    let elsewhere = provider.map_or_else(String::new, |name| {
        format!("<p><a href=\"/sign-in/start?next={there}\">Sign in with {}</a></p>\n", escape(name))
    });
    let problem = problem.map_or_else(String::new, |text| format!("<p role=\"alert\">{}</p>\n", escape(text)));
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Sign in - orchestrator</title>\n\
         </head>\n<body>\n<main>\n<h1>Sign in</h1>\n{problem}{elsewhere}<form method=\"post\" action=\"/sign-in\">\n\
         <input type=\"hidden\" name=\"next\" value=\"{next}\">\n\
         <p><label for=\"token\">Token</label>\n\
         <input id=\"token\" name=\"token\" type=\"password\" autocomplete=\"current-password\" required autofocus></p>\n\
         <p><button>Sign in</button></p>\n</form>\n\
         <p>The daemon's first start prints a token; <code>orchestrator tokens create NAME</code> makes further ones.</p>\n\
         </main>\n</body>\n</html>\n",
        next = escape(next),
    );
    (status, HEADERS, html).into_response()
}
