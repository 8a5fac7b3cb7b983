//! Signing in at a provider: the browser is sent there with a challenge, comes back with a code, and the code is changed for who
//! it is. Everything that ties these together is made of one random text in the browser's own cookie, so nothing is kept here.

mod github;
mod http;
mod jws;
mod oidc;
mod rights;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use url::Url;

use crate::config::types::{AuthMode, Config, OAuthClient};
use crate::daemon::projects;
use rights::Rules;
pub use rights::{Person, Rights};

/// Sign-ins that are looked at once; others wait.
const AT_ONCE: usize = 16;

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The provider is not there, or answers what makes no sense: later it may.
    #[error("{0}")]
    Provider(String),
    /// What came back does not hold. To begin again may help.
    #[error("{0}")]
    SignIn(String),
    /// It is known who it is, and they may not.
    #[error("`{0}` may not sign in here")]
    Person(String),
}

/// One sign-in, by its random text. What is sent to different places is derived from it, and none of it leads to another.
#[derive(Clone, Copy)]
pub struct Attempt<'a>(pub &'a str);

impl Attempt<'_> {
    fn derived(self, purpose: &str) -> String {
        BASE64.encode(Sha256::digest(format!("{purpose}\0{}", self.0)))
    }

    /// Comes back with the browser.
    pub fn state(self) -> String {
        self.derived("state")
    }

    /// Comes back in the ID token.
    fn nonce(self) -> String {
        self.derived("nonce")
    }

    /// Proves to the provider that the code is ours (RFC 7636).
    fn verifier(self) -> String {
        self.derived("verifier")
    }

    fn challenge(self) -> String {
        BASE64.encode(Sha256::digest(self.verifier()))
    }
}

/// Ourselves, as the provider knows us.
struct Client {
    id: String,
    secret: String,
    /// Where browsers come back to.
    redirect: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Kind {
    Oidc(oidc::Oidc),
    GitHub(github::GitHub),
}

/// A provider that says who people are.
#[derive(Debug)]
pub struct Provider {
    /// What people know it by.
    pub name: String,
    kind: Kind,
    client: Client,
    rules: Rules,
    http: http::Http,
    places: Semaphore,
}

impl Provider {
    /// As configured; `None` if people sign in with tokens alone. The provider itself is not asked yet.
    ///
    /// # Errors
    /// If the client's secret cannot be read.
    pub fn new(config: &Config) -> anyhow::Result<Option<Self>> {
        let (table, given, name, kind) = match &config.auth.mode {
            AuthMode::Token | AuthMode::None => return Ok(None),
            AuthMode::Oidc { issuer, client, groups_claim } => {
                let name = Url::parse(issuer).ok().and_then(|url| url.host_str().map(str::to_owned));
                let kind = Kind::Oidc(oidc::Oidc::new(issuer, groups_claim));
                ("auth.oidc", client, name.unwrap_or_else(|| issuer.clone()), kind)
            }
            AuthMode::GitHub { url, client } => {
                let kind = Kind::GitHub(github::GitHub::new(url, &config.github.api_url));
                ("auth.github", client, "GitHub".to_owned(), kind)
            }
        };
        let OAuthClient { id, secret, allowed } = given;
        let secret = projects::secret(secret).map_err(|error| anyhow::anyhow!("{table}.client_secret: {error}"))?;
        let redirect = format!("{}/sign-in/callback", config.server.public_url);
        Ok(Some(Self {
            name,
            kind,
            client: Client { id: id.clone(), secret, redirect },
            rules: Rules::new(allowed, &config.auth.access),
            http: http::Http::new().context("cannot make an HTTP client for signing in")?,
            places: Semaphore::new(AT_ONCE),
        }))
    }

    /// Where a browser is sent to sign in.
    ///
    /// # Errors
    /// [`Refused::Provider`].
    pub async fn begin(&self, attempt: Attempt<'_>) -> Result<Url, Refused> {
        let _place = self.place().await?;
        match &self.kind {
            Kind::Oidc(oidc) => oidc.begin(&self.http, &self.client, attempt).await,
            Kind::GitHub(github) => github.begin(&self.client, &self.rules, attempt),
        }
    }

    /// Who came back with this code, and what they may do. `issuer` is what the browser says sent it.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn finish(
        &self,
        attempt: Attempt<'_>,
        code: &str,
        issuer: Option<&str>,
    ) -> Result<(Person, Rights), Refused> {
        let _place = self.place().await?;
        let person = match &self.kind {
            Kind::Oidc(oidc) => oidc.finish(&self.http, &self.client, &self.rules, (attempt, code), issuer).await?,
            Kind::GitHub(github) => github.finish(&self.http, &self.client, &self.rules, attempt, code).await?,
        };
        let rights = self.rules.rights(&person)?;
        Ok((person, rights))
    }

    async fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Refused> {
        self.places.acquire().await.map_err(|_| Refused::Provider("the server stops".to_owned()))
    }
}

/// A few words of a provider's, for the log and for people.
fn words(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_around_leads_to_nothing_else() {
        let attempt = Attempt("random");
        let all = [attempt.state(), attempt.nonce(), attempt.verifier(), attempt.challenge()];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(one.len(), 43, "as long as RFC 7636 wants it");
            assert!(!all[..at].contains(one));
        }
        assert_ne!(Attempt("other").state(), attempt.state());
    }
}
