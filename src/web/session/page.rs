//! The page to sign in at.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::web::pages::mark::Mark;
use crate::web::pages::page;
use crate::web::pages::shell::{Section, Shell};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    shell: Shell,
    next: &'a str,
    /// As it stands in an address.
    there: String,
    provider: Option<&'a str>,
    problem: Option<&'a str>,
}

/// The page; `next` is where to go afterwards, `provider` where else people sign in, `problem` why it is shown again.
pub fn sign_in(status: StatusCode, next: &str, provider: Option<&str>, problem: Option<&str>) -> Response {
    let there = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
    match page(&SignInPage { shell: Shell::bare("Sign in"), next, there, provider, problem }) {
        Ok(mut response) => {
            *response.status_mut() = status;
            response
        }
        Err(problem) => problem.into_response(),
    }
}
