//! OpenID Connect: discovery, authorization code with PKCE, ID token.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use super::http::{Http, endpoint};
use super::jws::{self, Expected, Invalid, Jwk};
use super::rights::{ALL, Person, Rules, normal};
use super::{Attempt, Client, Refused, words};
use crate::engine::now;

/// For so long what the provider says of itself holds.
const FRESH: Duration = Duration::from_secs(3600);
/// Between two looks for a key that is not known.
const LOOK: Duration = Duration::from_secs(10);
/// Keys and groups that are read.
const MOST_KEYS: usize = 64;
const MOST_GROUPS: usize = 1000;
/// Characters of a group's name, and of an address.
const LONGEST: usize = 254;

/// A provider of OpenID Connect.
#[derive(Debug)]
pub struct Oidc {
    issuer: String,
    groups_claim: String,
    known: Mutex<Option<Arc<Known>>>,
    /// When a key was looked for last that was not known.
    looked: Mutex<Option<Instant>>,
}

/// What the provider says of itself.
#[derive(Debug)]
struct Known {
    said: Said,
    authorization: Url,
    token: Url,
    userinfo: Option<Url>,
    keys: Vec<Jwk>,
    read: Instant,
}

/// The parts of a discovery document that matter.
#[derive(Debug, Deserialize)]
struct Said {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    scopes_supported: Option<Vec<String>>,
}

impl Said {
    /// Whether the client's secret goes into the form instead of a header.
    fn wants_post(&self) -> bool {
        let methods = self.token_endpoint_auth_methods_supported.as_deref().unwrap_or_default();
        let has = |wanted: &str| methods.iter().any(|method| method == wanted);
        has("client_secret_post") && !has("client_secret_basic")
    }
}

impl Oidc {
    /// The provider of this issuer.
    pub fn new(issuer: &str, groups_claim: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            groups_claim: groups_claim.to_owned(),
            known: Mutex::default(),
            looked: Mutex::default(),
        }
    }

    /// Where to send the browser.
    pub async fn begin(&self, http: &Http, client: &Client, attempt: Attempt<'_>) -> Result<Url, Refused> {
        let known = self.known(http, FRESH).await?;
        let offers = known.said.scopes_supported.as_deref().unwrap_or_default();
        let groups = if offers.iter().any(|scope| scope == "groups") { " groups" } else { "" };
        let mut url = known.authorization.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &client.id)
            .append_pair("redirect_uri", &client.redirect)
            .append_pair("scope", &format!("openid email{groups}"))
            .append_pair("state", &attempt.state())
            .append_pair("nonce", &attempt.nonce())
            .append_pair("code_challenge", &attempt.challenge())
            .append_pair("code_challenge_method", "S256");
        Ok(url)
    }

    /// Who came back.
    pub async fn finish(
        &self,
        http: &Http,
        client: &Client,
        rules: &Rules,
        (attempt, code): (Attempt<'_>, &str),
        issuer: Option<&str>,
    ) -> Result<Person, Refused> {
        let known = self.known(http, FRESH).await?;
        if issuer.is_some_and(|issuer| issuer != known.said.issuer) {
            return Err(Refused::SignIn("another provider sent the browser back".to_owned()));
        }
        let answer = exchange(http, client, &known, attempt, code).await?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        let token = text("id_token").ok_or_else(|| Refused::Provider("the provider sent no ID token".to_owned()))?;
        let mut claims = self.believed(http, client, &known, attempt, token).await?;
        claims.retain(|_, value| !value.is_null());
        let by_group = rules.entries().any(|entry| entry.starts_with("group:"));
        let lacks = !claims.contains_key("email") || (by_group && !claims.contains_key(&self.groups_claim));
        if let (true, Some(url), Some(access)) = (lacks, &known.userinfo, text("access_token")) {
            let (status, more) = http.get(url, Some(access)).await?;
            // Whether an address is verified is said beside it.
            if !claims.contains_key("email") {
                claims.remove("email_verified");
            }
            // It counts only if it is of the same person.
            if let (true, Value::Object(more)) = (status.is_success() && more.get("sub") == claims.get("sub"), more) {
                more.into_iter().for_each(|(name, value)| {
                    claims.entry(name).or_insert(value);
                });
            }
        }
        Ok(person(&claims, &self.groups_claim))
    }

    /// The claims of an ID token that holds. For a key that is not known the provider is asked again.
    async fn believed(
        &self,
        http: &Http,
        client: &Client,
        known: &Known,
        attempt: Attempt<'_>,
        token: &str,
    ) -> Result<Map<String, Value>, Refused> {
        let nonce = attempt.nonce();
        let check = |known: &Known| {
            let now = now().0 / 1_000_000;
            let expected = Expected { issuer: &known.said.issuer, client: &client.id, nonce: &nonce, now };
            jws::verify(token, &known.keys, expected)
        };
        let checked = match check(known) {
            Err(Invalid::UnknownKey) if self.may_look() => check(&*self.known(http, Duration::ZERO).await?),
            checked => checked,
        };
        checked.map_err(|error| Refused::SignIn(format!("the provider's ID token is not believed: {error}")))
    }

    /// Whether to look for a new key now. Tokens that anybody makes up do not have the provider asked at every turn.
    fn may_look(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let may = looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        if may {
            *looked = Some(Instant::now());
        }
        may
    }

    /// What the provider says of itself, no older than this.
    async fn known(&self, http: &Http, fresh: Duration) -> Result<Arc<Known>, Refused> {
        let kept = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(kept) = kept.filter(|kept| kept.read.elapsed() < fresh) {
            return Ok(kept);
        }
        let read = Arc::new(self.discover(http).await?);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&read));
        Ok(read)
    }

    async fn discover(&self, http: &Http) -> Result<Known, Refused> {
        let place = endpoint(&format!("{}/.well-known/openid-configuration", self.issuer))?;
        let (status, said) = http.get(&place, None).await?;
        if !status.is_success() {
            return Err(Refused::Provider(format!("{place} answers {status}; is `auth.oidc.issuer` right?")));
        }
        let said: Said =
            serde_json::from_value(said).map_err(|error| Refused::Provider(format!("{place}: {error}")))?;
        // A slash at the end is no part of how the configuration is kept.
        if said.issuer.trim_end_matches('/') != self.issuer {
            return Err(Refused::Provider(format!(
                "{place} is of the issuer `{}`, not of `{}` (auth.oidc.issuer)",
                words(&said.issuer),
                self.issuer
            )));
        }
        let (authorization, token) = (endpoint(&said.authorization_endpoint)?, endpoint(&said.token_endpoint)?);
        let userinfo = said.userinfo_endpoint.as_deref().map(endpoint).transpose()?;
        let keys = endpoint(&said.jwks_uri)?;
        let (status, set) = http.get(&keys, None).await?;
        let Some(set) = set.get("keys").and_then(Value::as_array).filter(|_| status.is_success()) else {
            return Err(Refused::Provider(format!("{keys} holds no keys ({status})")));
        };
        // Keys of kinds that are not known are others' business.
        let keys = set.iter().filter_map(|key| Jwk::deserialize(key).ok()).take(MOST_KEYS).collect();
        Ok(Known { said, authorization, token, userinfo, keys, read: Instant::now() })
    }
}

async fn exchange(
    http: &Http,
    client: &Client,
    known: &Known,
    attempt: Attempt<'_>,
    code: &str,
) -> Result<Value, Refused> {
    let verifier = attempt.verifier();
    let mut fields = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", &client.redirect),
        ("code_verifier", &verifier),
    ];
    let post = known.said.wants_post();
    if post {
        fields.extend([("client_id", client.id.as_str()), ("client_secret", &client.secret)]);
    }
    let login = (!post).then_some((client.id.as_str(), client.secret.as_str()));
    let (status, answer) = http.post(&known.token, login, &fields).await?;
    if status.is_success() {
        return Ok(answer);
    }
    let error = words(answer.get("error").and_then(Value::as_str).unwrap_or("no reason"));
    match error.as_str() {
        "invalid_grant" => {
            Err(Refused::SignIn("the provider does not know this code, or it was used before".to_owned()))
        }
        _ => Err(Refused::Provider(format!("the provider refused the code: {status}, {error}"))),
    }
}

/// Whom the claims are about. An address counts only if the provider has verified it.
fn person(claims: &Map<String, Value>, groups_claim: &str) -> Person {
    let sub = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    let verified = match claims.get("email_verified") {
        Some(Value::Bool(verified)) => *verified,
        Some(Value::String(verified)) => verified == "true",
        Some(_) | None => false,
    };
    let email = claims.get("email").and_then(Value::as_str).filter(|email| verified && is_address(email)).map(normal);
    let mut marks = vec![ALL.to_owned(), format!("sub:{sub}")];
    if let Some((email, (_, domain))) = email.as_ref().and_then(|email| Some((email, email.rsplit_once('@')?))) {
        marks.extend([email.clone(), format!("@{domain}")]);
    }
    let groups = match claims.get(groups_claim) {
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).take(MOST_GROUPS).collect(),
        Some(Value::String(one)) => vec![one.as_str()],
        Some(_) | None => Vec::new(),
    };
    marks.extend(groups.iter().filter(|name| name.len() <= LONGEST).map(|name| format!("group:{name}")));
    Person { name: email.unwrap_or_else(|| format!("sub:{}", words(sub))), marks }
}

/// Whether it can be taken for an address, and for nothing else that an entry may hold.
fn is_address(text: &str) -> bool {
    let plain = text.len() <= LONGEST && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != ':');
    let parts = text.split_once('@');
    plain && parts.is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_counts_of_claims() {
        let check = |claims: Value, name: &str, marks: &[&str]| {
            let person = person(claims.as_object().unwrap(), "groups");
            assert_eq!(person.name, name, "{claims}");
            assert_eq!(person.marks[2..], *marks, "{claims}");
            assert_eq!(person.marks[..2], ["*", "sub:7"], "{claims}");
        };
        let ann = ["ann@example.com", "@example.com"];
        check(json!({"sub": "7", "email": "Ann@Example.com", "email_verified": true}), ann[0], &ann);
        check(json!({"sub": "7", "email": "ann@example.com", "email_verified": "true"}), ann[0], &ann);
        check(json!({"sub": "7", "email": "ann@example.com", "email_verified": false}), "sub:7", &[]);
        check(json!({"sub": "7", "email": "ann@example.com"}), "sub:7", &[]);
        for bad in
            ["group:admin@x", "@example.com", "ann@", "ann", "a@b@example.com", "a b@example.com", "a\n@example.com"]
        {
            check(json!({"sub": "7", "email": bad, "email_verified": true}), "sub:7", &[]);
        }
        check(json!({"sub": "7", "groups": ["ML", 3, "x"]}), "sub:7", &["group:ML", "group:x"]);
        check(json!({"sub": "7", "groups": "ML"}), "sub:7", &["group:ML"]);
        check(json!({"sub": "7", "groups": {"ML": true}}), "sub:7", &[]);
    }
}
