//! Questions to a provider: few bytes, little time, no redirects, https but on this machine.

use std::time::Duration;

use axum::http::StatusCode;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::Refused;
use crate::config::repository::is_plain_http_elsewhere;
use crate::words::cause;

const CONNECT: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const MOST_BYTES: usize = 1 << 20;

/// Asks providers.
#[derive(Debug, Clone)]
pub struct Http(Client);

impl Http {
    /// A client.
    ///
    /// # Errors
    /// If the system has no certificates to believe.
    pub fn new() -> Result<Self, reqwest::Error> {
        let builder = Client::builder().connect_timeout(CONNECT).timeout(WHOLE);
        let builder = builder.redirect(reqwest::redirect::Policy::none());
        builder.user_agent(concat!("orchestrator/", env!("CARGO_PKG_VERSION"))).build().map(Self)
    }

    /// Reads something, with a token if there is one.
    ///
    /// # Errors
    /// [`Refused::Provider`] if there is no answer that is JSON.
    pub async fn get(&self, url: &Url, bearer: Option<&str>) -> Result<(StatusCode, Value), Refused> {
        let mut request = self.0.get(url.clone());
        if let Some(token) = bearer {
            request = request.bearer_auth(token);
        }
        answer(url, request).await
    }

    /// Sends a form, with the client's id and secret if they are given.
    ///
    /// # Errors
    /// As [`Http::get`].
    pub async fn post(
        &self,
        url: &Url,
        login: Option<(&str, &str)>,
        fields: &[(&str, &str)],
    ) -> Result<(StatusCode, Value), Refused> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let mut request = self.0.post(url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        if let Some((id, secret)) = login {
            let escaped = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            request = request.basic_auth(escaped(id), Some(escaped(secret)));
        }
        answer(url, request).await
    }
}

async fn answer(url: &Url, request: RequestBuilder) -> Result<(StatusCode, Value), Refused> {
    // The path names what was asked for; a query could hold a code.
    let place = format!("{}{}", url.origin().ascii_serialization(), url.path());
    let failed = |what: String| Refused::Provider(format!("{place}: {what}"));
    let broken = |error: reqwest::Error| failed(cause(&error));
    let mut response = request.header(ACCEPT, "application/json").send().await.map_err(broken)?;
    let (status, mut body) = (response.status(), Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > MOST_BYTES {
            return Err(failed(format!("the answer has more than {MOST_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    match serde_json::from_slice(&body) {
        Ok(value) => Ok((status, value)),
        Err(_) if !status.is_success() => Ok((status, Value::Null)),
        Err(error) => Err(failed(format!("the answer is no JSON ({error})"))),
    }
}

/// An address that may be asked, or that a person may be sent to.
///
/// # Errors
/// [`Refused::Provider`].
pub fn endpoint(text: &str) -> Result<Url, Refused> {
    let wrong = |why: &str| Refused::Provider(format!("`{}` {why}", text.chars().take(200).collect::<String>()));
    let url = Url::parse(text).map_err(|_| wrong("is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("is no https URL"));
    }
    if is_plain_http_elsewhere(text) {
        return Err(wrong("is plain http, and whoever is on the way could be anybody"));
    }
    Ok(url)
}
