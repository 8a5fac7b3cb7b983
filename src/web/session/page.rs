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
    problem: Option<&'a str>,
}

/// The page; `next` is where to go afterwards, `problem` why it is shown again.
pub fn sign_in(status: StatusCode, next: &str, problem: Option<&str>) -> Response {
    match page(&SignInPage { shell: Shell::bare("Sign in"), next, problem }) {
        Ok(mut response) => {
            *response.status_mut() = status;
            response
        }
        Err(problem) => problem.into_response(),
    }
}
