//! The daemon's API from outside: HTTP only. What is asked and what is printed is the command line's.

pub mod answers;
pub mod sse;

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

/// An answer may be so large; a page of the API is far smaller.
const MOST_BYTES: usize = 32 << 20;
const CONNECT: Duration = Duration::from_secs(10);
/// Nothing came for so long. Streams are kept alive by the server every 15 s.
const SILENCE: Duration = Duration::from_secs(60);

/// Why there is no answer. The variants differ because their exit codes do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("`{0}` is no address of a server; give one like https://ci.example.org or http://127.0.0.1:8484")]
    Address(String),
    /// Nobody answers there, or the answer broke off.
    #[error("cannot reach the server {server}: {detail}")]
    Unreachable {
        /// Its address.
        server: String,
        /// The system's own words.
        detail: String,
    },
    /// The server said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// What answers is no orchestrator, or a much newer one.
    #[error("the answer of {server} is not understood: {detail}")]
    Strange {
        /// Its address.
        server: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// A refusal as the server words it (RFC 9457).
#[derive(Debug, Clone, Deserialize)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// Stable, for programs.
    pub code: String,
    /// What the code means.
    pub title: String,
    /// What happened, and what to do.
    #[serde(default)]
    pub detail: String,
    /// The server, for the advice.
    #[serde(skip)]
    pub server: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code.as_str() {
            "unauthenticated" => write!(
                f,
                "{} wants a token that is valid; sign in with `orchestrator login {}`, or set ORCHESTRATOR_TOKEN",
                self.server, self.server
            ),
            _ if self.detail.is_empty() => f.write_str(&self.title),
            _ => f.write_str(&self.detail),
        }
    }
}

/// A server with what lets us in.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<HeaderValue>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

/// An address as it is kept: scheme, host, port and path, without a slash at the end.
///
/// # Errors
/// [`ClientError::Address`].
pub fn address(text: &str) -> Result<Url, ClientError> {
    let wrong = || ClientError::Address(text.to_owned());
    let mut url = Url::parse(text.trim()).map_err(|_| wrong())?;
    let good = matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty();
    if !good || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong());
    }
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// One request.
#[derive(Debug, Default)]
pub struct Ask<'a> {
    /// Parts of the path below `/api/v1`; each is escaped.
    pub path: &'a [&'a str],
    /// The query; pairs without a value are left out.
    pub query: &'a [(&'a str, Option<String>)],
    /// The JSON body.
    pub body: Option<Value>,
    /// The same request again has this key again.
    pub key: Option<String>,
}

impl Client {
    /// A client of the server at this address.
    ///
    /// # Errors
    /// [`ClientError::Address`], and [`ClientError::Strange`] if the token holds what no header may.
    pub fn new(server: &str, token: Option<&str>) -> Result<Self, ClientError> {
        let base = address(server)?;
        let strange = |detail: String| ClientError::Strange { server: server.to_owned(), detail };
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            // A token must not follow a redirect to somebody else.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("orchestrator/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| strange(crate::words::cause(&error)))?;
        let token = token.map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| strange("the token holds characters that no token has".to_owned()))?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self { http, base, token: token.transpose()? })
    }

    /// The server's address.
    pub fn server(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Asks for something and reads it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, ask: &Ask<'_>) -> Result<T, ClientError> {
        self.json(Method::GET, ask).await
    }

    /// Changes something.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<T: DeserializeOwned>(&self, ask: &Ask<'_>) -> Result<T, ClientError> {
        self.json(Method::POST, ask).await
    }

    /// Puts something there. There is no answer beside that it was done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put(&self, ask: &Ask<'_>) -> Result<(), ClientError> {
        let answer = self.send(Method::PUT, ask, None).await?;
        self.read(answer).await.map(drop)
    }

    /// Takes something away.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(&self, ask: &Ask<'_>) -> Result<(), ClientError> {
        let answer = self.send(Method::DELETE, ask, None).await?;
        self.read(answer).await.map(drop)
    }

    /// Server-sent events, from behind `last` on.
    ///
    /// # Errors
    /// [`ClientError`] before the first event.
    pub async fn events(&self, ask: &Ask<'_>, last: Option<u64>) -> Result<sse::Events, ClientError> {
        let answer = self.send(Method::GET, ask, last).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.refusal(answer).await);
        }
        Ok(sse::Events::new(answer, self.server().to_owned()))
    }

    async fn json<T: DeserializeOwned>(&self, method: Method, ask: &Ask<'_>) -> Result<T, ClientError> {
        let answer = self.send(method, ask, None).await?;
        let bytes = self.read(answer).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.strange(error.to_string()))
    }

    async fn send(&self, method: Method, ask: &Ask<'_>, last: Option<u64>) -> Result<Response, ClientError> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1"]).extend(ask.path);
        }
        for (name, value) in ask.query {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        if let Some(body) = &ask.body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        if let Some(key) = &ask.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    /// The body of a good answer.
    async fn read(&self, answer: Response) -> Result<Vec<u8>, ClientError> {
        if !answer.status().is_success() {
            return Err(self.refusal(answer).await);
        }
        self.bytes(answer).await
    }

    async fn bytes(&self, mut answer: Response) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + chunk.len() > MOST_BYTES {
                return Err(self.strange(format!("it has more than {MOST_BYTES} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn refusal(&self, answer: Response) -> ClientError {
        let status = answer.status();
        let bytes = match self.bytes(answer).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        match serde_json::from_slice::<Refusal>(&bytes) {
            Ok(refusal) => ClientError::Refused(Box::new(Refusal { server: self.server().to_owned(), ..refusal })),
            Err(_) => {
                self.strange(format!("it has the status {status}, and is no orchestrator's; is the address right?"))
            }
        }
    }

    fn strange(&self, detail: String) -> ClientError {
        ClientError::Strange { server: self.server().to_owned(), detail }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Unreachable { server: self.server().to_owned(), detail: crate::words::cause(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(address(text).ok().as_ref().map(Url::as_str), expected, "{text}");
        };
        check("https://ci.example.org", Some("https://ci.example.org/"));
        check(" http://127.0.0.1:8484/ ", Some("http://127.0.0.1:8484/"));
        check("https://example.org/ci//", Some("https://example.org/ci/"));
        check("ci.example.org", None);
        check("ftp://example.org", None);
        check("https://me:secret@example.org", None);
        check("https://example.org/?a=b", None);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let refusal = |code: &str, detail: &str| Refusal {
            status: 401,
            code: code.to_owned(),
            title: "Title".to_owned(),
            detail: detail.to_owned(),
            server: "http://ci".to_owned(),
        };
        assert!(refusal("unauthenticated", "x").to_string().contains("orchestrator login http://ci"));
        assert_eq!(refusal("conflict", "it has ended").to_string(), "it has ended");
        assert_eq!(refusal("conflict", "").to_string(), "Title");
    }
}
