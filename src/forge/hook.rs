//! Hooks of others: a POST of JSON, signed where a secret is given.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, StatusCode};

use super::{Untold, client, read};
use crate::trigger::signature::sign;
use crate::words::cause;

/// Who posts.
#[derive(Debug)]
pub struct Hooks(Client);

/// One message.
#[derive(Debug, Clone, Copy)]
pub struct Post<'a> {
    /// Where to. It may be a secret: it is in no message.
    pub url: &'a str,
    /// What signs the body: HMAC-SHA-256 in hex, as GitHub does it.
    pub secret: Option<&'a [u8]>,
    /// The message's number: the same when it comes again.
    pub id: u64,
    /// JSON.
    pub body: &'a str,
}

/// The header with the signature, `sha256=HEX` over the body.
pub const SIGNATURE: &str = "x-orchestrator-signature-256";
/// The header with the message's number.
pub const DELIVERY: &str = "x-orchestrator-delivery";

impl Hooks {
    /// Someone who posts.
    ///
    /// # Errors
    /// [`Untold::Later`] if there can be no client.
    pub fn new() -> Result<Self, Untold> {
        Ok(Self(client()?))
    }

    /// Posts. Any 2xx is good.
    ///
    /// # Errors
    /// [`Untold`].
    pub async fn post(&self, post: Post<'_>) -> Result<(), Untold> {
        let mut request = self.0.post(post.url).header(CONTENT_TYPE, "application/json").header(DELIVERY, post.id);
        if let Some(secret) = post.secret {
            request = request.header(SIGNATURE, sign(secret, post.body.as_bytes()));
        }
        let answer = match request.body(post.body.to_owned()).send().await {
            Ok(response) => read(response).await?,
            Err(error) if error.is_builder() => return Err(Untold::later("the hook's URL is none that can be asked")),
            Err(error) => return Err(Untold::outage(format!("the hook cannot be reached: {}", cause(&error)))),
        };
        let status = answer.status;
        let said = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let after = said.map(|seconds: u64| Duration::from_secs(seconds.clamp(1, 3600)));
        let why = format!("the hook answers {}", status.as_u16());
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::TOO_MANY_REQUESTS => Err(Untold::Later { why, after, all: true }),
            StatusCode::REQUEST_TIMEOUT | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                Err(Untold::later(why))
            }
            status if status.is_server_error() => Err(Untold::Later { why, after, all: true }),
            _ => Err(Untold::Never(why)),
        }
    }
}
