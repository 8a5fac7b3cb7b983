//! GitHub's REST API, as far as results of builds are told by it. Sources: GitHub REST API (2022-11-28): "Commit statuses",
//! "Check runs", "Issue comments", "Rate limits for the REST API".
//!
//! Each call may be made twice with the same outcome: a status is overwritten, a check is looked for by its external id, a
//! comment by a mark in it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use super::app::{self, Installed};
use super::pace::Pace;
use super::{Answer, Untold, client, read, words};
use crate::words::cause;

/// Pages of comments that are looked through, 100 on each.
const PAGES: usize = 30;
/// A secondary limit without a time.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(60);
/// No limit keeps us waiting for longer without asking again.
const LONGEST_LIMIT: Duration = Duration::from_secs(3600);

/// Who we are to GitHub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// A token.
    Token(String),
    /// An App.
    App {
        /// Its number.
        id: u64,
        /// PEM file with its key.
        key: PathBuf,
        /// Its installation; else it is asked for.
        installation: Option<u64>,
    },
}

/// GitHub's API at one address.
#[derive(Debug)]
pub struct GitHub {
    client: Client,
    api: String,
    pace: Pace,
    /// Tokens of installations, by installation or repository.
    installed: BTreeMap<String, Installed>,
}

/// One request.
struct Call<'a> {
    method: Method,
    path: String,
    body: Option<&'a Value>,
    bearer: &'a str,
}

impl GitHub {
    /// The API at this address, without a slash at its end.
    ///
    /// # Errors
    /// [`Untold::Later`] if there can be no client.
    pub fn new(api: &str) -> Result<Self, Untold> {
        Ok(Self { client: client()?, api: api.to_owned(), pace: Pace::default(), installed: BTreeMap::new() })
    }

    /// Writes a commit status. `repo` is `repos/OWNER/NAME` or `repositories/NUMBER`.
    ///
    /// # Errors
    /// [`Untold`].
    pub async fn status(&mut self, login: &Login, repo: &str, commit: &str, body: &Value) -> Result<(), Untold> {
        let bearer = self.bearer(login, repo).await?;
        let path = format!("{repo}/statuses/{commit}");
        self.call(Call { method: Method::POST, path, body: Some(body), bearer: &bearer }).await.map(|_| ())
    }

    /// Writes a check run: the one with this external id, or a new one.
    ///
    /// # Errors
    /// [`Untold`].
    pub async fn check(&mut self, login: &Login, repo: &str, commit: &str, body: &Value) -> Result<(), Untold> {
        let bearer = self.bearer(login, repo).await?;
        let name: String = url::form_urlencoded::byte_serialize(text(body, "name").as_bytes()).collect();
        let path = format!("{repo}/commits/{commit}/check-runs?check_name={name}&filter=all&per_page=100");
        let found = self.call(Call { method: Method::GET, path, body: None, bearer: &bearer }).await?;
        let ours = |run: &&Value| text(run, "external_id") == text(body, "external_id");
        let number = found["check_runs"].as_array().and_then(|runs| runs.iter().find(ours)?["id"].as_u64());
        let (method, path) = match number {
            Some(number) => (Method::PATCH, format!("{repo}/check-runs/{number}")),
            None => (Method::POST, format!("{repo}/check-runs")),
        };
        self.call(Call { method, path, body: Some(body), bearer: &bearer }).await.map(|_| ())
    }

    /// Writes the comment of a pull request that holds this mark: it is changed, or made unless `only_change`.
    ///
    /// # Errors
    /// [`Untold`].
    pub async fn comment(
        &mut self,
        login: &Login,
        repo: &str,
        pull: u64,
        (mark, words): (&str, &str),
        only_change: bool,
    ) -> Result<(), Untold> {
        let bearer = self.bearer(login, repo).await?;
        let body = json!({ "body": format!("{mark}\n{words}") });
        let before = self.find_comment(&bearer, repo, pull, mark).await?;
        let (method, path) = match before {
            Some(number) => (Method::PATCH, format!("{repo}/issues/comments/{number}")),
            None if only_change => return Ok(()),
            None => (Method::POST, format!("{repo}/issues/{pull}/comments")),
        };
        self.call(Call { method, path, body: Some(&body), bearer: &bearer }).await.map(|_| ())
    }

    async fn find_comment(&mut self, bearer: &str, repo: &str, pull: u64, mark: &str) -> Result<Option<u64>, Untold> {
        for page in 1..=PAGES {
            let path = format!("{repo}/issues/{pull}/comments?per_page=100&page={page}");
            let found = self.call(Call { method: Method::GET, path, body: None, bearer }).await?;
            let comments = found.as_array().map(Vec::as_slice).unwrap_or_default();
            // Whoever copies a mark comes after the comment that it is from.
            if let Some(ours) = comments.iter().find(|comment| text(comment, "body").starts_with(mark)) {
                return Ok(ours["id"].as_u64());
            }
            if comments.len() < 100 {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// The token for a repository.
    async fn bearer(&mut self, login: &Login, repo: &str) -> Result<String, Untold> {
        let (id, key, installation) = match login {
            Login::Token(token) => return Ok(token.clone()),
            Login::App { id, key, installation } => (*id, key, *installation),
        };
        let known = installation.map_or_else(|| repo.to_owned(), |number| number.to_string());
        if let Some(installed) = self.installed.get(&known).filter(|installed| installed.holds(SystemTime::now())) {
            return Ok(installed.token.clone());
        }
        let jwt = app::jwt(id, key, SystemTime::now())?;
        let number = match installation {
            Some(number) => number,
            None => {
                let path = format!("{repo}/installation");
                let found = self.call(Call { method: Method::GET, path, body: None, bearer: &jwt }).await?;
                found["id"].as_u64().ok_or_else(|| Untold::later("GitHub names no installation of the App"))?
            }
        };
        let path = format!("app/installations/{number}/access_tokens");
        let made = self.call(Call { method: Method::POST, path, body: Some(&json!({})), bearer: &jwt }).await?;
        let installed = Installed::read(&made).ok_or_else(|| Untold::later("GitHub gave no token for the App"))?;
        let token = installed.token.clone();
        self.installed.insert(known, installed);
        Ok(token)
    }

    /// Sends, and reads the JSON of a good answer. One redirect within the API is followed: a repository that was renamed.
    async fn call(&mut self, call: Call<'_>) -> Result<Value, Untold> {
        let mut url = format!("{}/{}", self.api, call.path);
        for _ in 0..2 {
            let answer = self.send(&call, &url).await?;
            if answer.status.is_success() {
                return Ok(serde_json::from_slice(&answer.body).unwrap_or_default());
            }
            let moved = answer.headers.get(LOCATION).and_then(|to| to.to_str().ok()).map(str::to_owned);
            match moved.filter(|to| answer.status.is_redirection() && to.starts_with(&format!("{}/", self.api))) {
                Some(to) => url = to,
                None => return Err(refusal(&call, &answer)),
            }
        }
        Err(Untold::later("GitHub redirects in a circle"))
    }

    async fn send(&mut self, call: &Call<'_>, url: &str) -> Result<Answer, Untold> {
        if call.method != Method::GET
            && let Some(wait) = self.pace.next(Instant::now())
        {
            let why = "GitHub is told of no more than 60 things a minute".to_owned();
            return Err(Untold::Later { why, after: Some(wait), all: true });
        }
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", call.bearer))
            .map_err(|_| Untold::later("the token holds characters that no token has"))?;
        bearer.set_sensitive(true);
        let mut request = self
            .client
            .request(call.method.clone(), url)
            .header(AUTHORIZATION, bearer)
            .header(ACCEPT, "application/vnd.github+json")
            .header("x-github-api-version", "2022-11-28");
        if let Some(body) = call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        match request.send().await {
            Ok(response) => read(response).await,
            Err(error) => Err(Untold::outage(format!("cannot reach {}: {}", self.api, cause(&error)))),
        }
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// What an answer that is none of the good ones means.
fn refusal(call: &Call<'_>, answer: &Answer) -> Untold {
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let message = words(text(&said, "message"));
    let what = format!("{} {}", call.method, call.path.split('?').next().unwrap_or_default());
    if let Some(after) = limited(answer, &message) {
        let why = format!("GitHub's rate limit is reached; it goes on in {} s", after.as_secs());
        return Untold::Later { why, after: Some(after), all: true };
    }
    match answer.status {
        StatusCode::UNAUTHORIZED => {
            Untold::later(format!("GitHub does not take the credentials (401: {message}); look at [github]"))
        }
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Untold::later(format!(
            "GitHub answers {} to {what} ({message}): the token or App may not write there, or the repository is another one",
            answer.status.as_u16()
        )),
        status if status.is_server_error() => Untold::outage(format!("GitHub answers {} to {what}", status.as_u16())),
        status => {
            let errors = words(&said["errors"].to_string());
            Untold::Never(format!("GitHub answers {} to {what}: {message} {errors}", status.as_u16()))
        }
    }
}

/// How long a limit holds, if it is one.
fn limited(answer: &Answer, message: &str) -> Option<Duration> {
    if !matches!(answer.status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
        return None;
    }
    let number = |name: &str| header(&answer.headers, name)?.parse::<u64>().ok();
    let said = number(RETRY_AFTER.as_str()).map(Duration::from_secs);
    let reset = || {
        let at = number("x-ratelimit-reset").filter(|_| number("x-ratelimit-remaining") == Some(0))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        Some(Duration::from_secs(at.saturating_sub(now) + 1))
    };
    let spoken = || {
        let limit =
            answer.status == StatusCode::TOO_MANY_REQUESTS || message.to_ascii_lowercase().contains("rate limit");
        limit.then_some(UNKNOWN_LIMIT)
    };
    said.or_else(reset).or_else(spoken).map(|wait| wait.clamp(Duration::from_secs(1), LONGEST_LIMIT))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
