//! Tells others by HTTP: GitHub's API, and the hooks that the configuration names. It knows no build and no configuration:
//! bodies come in, and what came of sending them goes out.

pub mod app;
pub mod github;
pub mod hook;
pub mod mail;
mod pace;

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Response, StatusCode};

use crate::words::cause;

/// For connecting, and for a whole exchange.
const CONNECT: Duration = Duration::from_secs(10);
const WHOLE: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read.
const MOST_BYTES: usize = 8 << 20;
/// Characters of an answer's own words that are kept.
const MOST_WORDS: usize = 300;

/// What kept a message from being told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untold {
    /// It may go well later: at the earliest after this time, where that is known.
    #[error("{why}")]
    Later {
        /// What happened, and what to do.
        why: String,
        /// How long to wait.
        after: Option<Duration>,
        /// All other messages of the same receiver have to wait as long.
        all: bool,
    },
    /// It never will.
    #[error("{0}")]
    Never(String),
}

impl Untold {
    fn later(why: impl Into<String>) -> Self {
        Self::Later { why: why.into(), after: None, all: false }
    }

    /// The receiver itself is out of order, whatever it is told.
    fn outage(why: impl Into<String>) -> Self {
        Self::Later { why: why.into(), after: None, all: true }
    }
}

/// A client for programs that answer by JSON. Redirects are followed by the caller, or not at all: credentials must not go
/// where nobody sent them.
fn client() -> Result<Client, Untold> {
    Client::builder()
        .connect_timeout(CONNECT)
        .timeout(WHOLE)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("orchestrator/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Untold::later(format!("no HTTP client: {}", cause(&error))))
}

/// An answer as a whole.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

async fn read(mut response: Response) -> Result<Answer, Untold> {
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= MOST_BYTES => body.extend_from_slice(&chunk),
            Ok(Some(_)) => return Err(Untold::later(format!("the answer has more than {MOST_BYTES} bytes"))),
            Ok(None) => return Ok(Answer { status, headers, body }),
            Err(error) => return Err(Untold::outage(format!("the answer broke off: {}", cause(&error)))),
        }
    }
}

/// A few words of text that came from outside.
fn words(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST_WORDS).collect()
}
