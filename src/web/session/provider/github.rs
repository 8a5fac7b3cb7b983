//! GitHub's OAuth: who it is, and of the organisations and teams that the configuration names, which they are in.

use axum::http::StatusCode;
use serde_json::Value;
use url::Url;

use super::http::{Http, endpoint};
use super::rights::{Person, Rules};
use super::{Attempt, Client, Refused, words};

/// GitHub, or an Enterprise of it.
#[derive(Debug)]
pub struct GitHub {
    url: String,
    api: String,
}

impl GitHub {
    /// Where people sign in, and where the API is; both without a slash at the end.
    pub fn new(url: &str, api: &str) -> Self {
        Self { url: url.to_owned(), api: api.to_owned() }
    }

    /// Where to send the browser.
    pub fn begin(&self, client: &Client, rules: &Rules, attempt: Attempt<'_>) -> Result<Url, Refused> {
        let mut url = endpoint(&format!("{}/login/oauth/authorize", self.url))?;
        // Who somebody is needs no right; which organisations they are in may be private.
        let scope = if groups(rules).is_empty() { "" } else { "read:org" };
        url.query_pairs_mut()
            .append_pair("client_id", &client.id)
            .append_pair("redirect_uri", &client.redirect)
            .append_pair("scope", scope)
            .append_pair("state", &attempt.state())
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
        attempt: Attempt<'_>,
        code: &str,
    ) -> Result<Person, Refused> {
        let token = self.exchange(http, client, attempt, code).await?;
        let (status, user) = http.get(&endpoint(&format!("{}/user", self.api))?, Some(&token)).await?;
        let login = user.get("login").and_then(Value::as_str).filter(|login| status.is_success() && is_name(login));
        let login = login.ok_or_else(|| Refused::Provider(format!("GitHub does not say who it is ({status})")))?;
        let login = login.to_lowercase();
        let mut marks = vec![login.clone()];
        for (entry, organisation, team) in groups(rules) {
            let path = match team {
                None => format!("/user/memberships/orgs/{organisation}"),
                Some(team) => format!("/orgs/{organisation}/teams/{team}/memberships/{login}"),
            };
            let (status, member) = http.get(&endpoint(&format!("{}{path}", self.api))?, Some(&token)).await?;
            match status {
                StatusCode::OK if member.get("state").and_then(Value::as_str) == Some("active") => {
                    marks.push(entry.to_owned());
                }
                // Invited, not in it, or the organisation lets the app see nothing.
                StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => {}
                other => return Err(Refused::Provider(format!("GitHub does not say who is in `{entry}` ({other})"))),
            }
        }
        Ok(Person { name: format!("github:{login}"), marks })
    }

    async fn exchange(
        &self,
        http: &Http,
        client: &Client,
        attempt: Attempt<'_>,
        code: &str,
    ) -> Result<String, Refused> {
        let url = endpoint(&format!("{}/login/oauth/access_token", self.url))?;
        let verifier = attempt.verifier();
        let fields = [
            ("client_id", client.id.as_str()),
            ("client_secret", &client.secret),
            ("code", code),
            ("redirect_uri", &client.redirect),
            ("code_verifier", &verifier),
        ];
        let (status, answer) = http.post(&url, None, &fields).await?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        // Errors come with status 200.
        match (text("access_token"), text("error")) {
            (Some(token), None) if status.is_success() && !token.is_empty() => Ok(token.to_owned()),
            (_, Some("bad_verification_code")) => {
                Err(Refused::SignIn("GitHub does not know this code, or it was used before".to_owned()))
            }
            (_, error) => {
                let error = words(error.unwrap_or("no reason"));
                Err(Refused::Provider(format!("GitHub refused the code: {status}, {error}")))
            }
        }
    }
}

/// The entries that name an organisation or a team, each once.
fn groups(rules: &Rules) -> Vec<(&str, &str, Option<&str>)> {
    let mut found: Vec<(&str, &str, Option<&str>)> = Vec::new();
    for entry in rules.entries() {
        let Some((organisation, team)) = entry.split_once('/') else { continue };
        let team = (team != "*").then_some(team);
        let plain = is_name(organisation) && team.is_none_or(is_name);
        if plain && !found.iter().any(|(other, ..)| *other == entry) {
            found.push((entry, organisation, team));
        }
    }
    found
}

/// Whether it can be a user, an organisation or a team, and so a part of a path.
fn is_name(text: &str) -> bool {
    let known = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    known && (1..=100).contains(&text.len()) && !matches!(text, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::Access;

    #[test]
    fn entries_that_are_asked_for() {
        let owned = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let access = Access { who: owned(&["*", "Org/Ops", "org/*"]), scopes: owned(&["read"]), projects: None };
        let rules = Rules::new(&owned(&["ann", "Org/*", "org/../x", "a b/c", "org/"]), &[access]);
        assert_eq!(groups(&rules), [("org/*", "org", None), ("org/ops", "org", Some("ops"))]);
    }
}
