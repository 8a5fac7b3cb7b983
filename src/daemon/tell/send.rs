//! Sends one message to one receiver.

use super::spread::{Call, Told};
use crate::config::types::{Config, NotifyWay, SecretFrom};
use crate::daemon::projects::secret;
use crate::forge::Untold;
use crate::forge::github::{GitHub, Login};
use crate::forge::hook::{Hooks, Post};
use crate::forge::mail::{Letter, Mailer};
use crate::store::outbox::OutboxRow;

/// A receiver, with what is kept from one message to the next.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    /// For which address it was made.
    github: Option<(String, GitHub)>,
    hooks: Option<Hooks>,
    /// Tries in a row that found it out of order.
    outages: u32,
}

/// What came of a message.
pub(super) struct Sent {
    /// For metrics: `github-status`, `webhook`, ...
    pub kind: &'static str,
    pub came_to: Result<(), Untold>,
}

impl Receiver {
    /// Sends. Of a receiver that is out of order it says how long all that it is to be told has to wait: else each message
    /// would find that out for itself.
    pub(super) async fn send(&mut self, config: &Config, row: &OutboxRow) -> Sent {
        let mut sent = self.try_once(config, row).await;
        match &mut sent.came_to {
            Err(Untold::Later { after: after @ None, all: true, .. }) => {
                *after = Some(super::wait_after(self.outages));
                self.outages += 1;
            }
            Ok(()) | Err(Untold::Later { .. } | Untold::Never(_)) => self.outages = 0,
        }
        sent
    }

    async fn try_once(&mut self, config: &Config, row: &OutboxRow) -> Sent {
        match row.channel.strip_prefix("notify.") {
            Some(name) => self.notify(config, name, row).await,
            None => {
                let kind = match row.channel.as_str() {
                    "github-status" => "github-status",
                    "github-check" => "github-check",
                    _ => "github-comment",
                };
                Sent { kind, came_to: self.github(config, row).await }
            }
        }
    }

    async fn github(&mut self, config: &Config, row: &OutboxRow) -> Result<(), Untold> {
        let call: Call = serde_json::from_str(&row.body).map_err(unreadable)?;
        let login = login(config)?;
        let api = &config.github.api_url;
        if self.github.as_ref().is_none_or(|(made_for, _)| made_for != api) {
            self.github = Some((api.clone(), GitHub::new(api)?));
        }
        let Some((_, github)) = &mut self.github else { return Ok(()) };
        match call {
            Call::Status { repo, commit, body } => github.status(&login, &repo, &commit, &body).await,
            Call::Check { repo, commit, body } => github.check(&login, &repo, &commit, &body).await,
            Call::Comment { repo, pull, mark, text, only_change } => {
                github.comment(&login, &repo, pull, (&mark, &text), only_change).await
            }
        }
    }

    async fn notify(&mut self, config: &Config, name: &str, row: &OutboxRow) -> Sent {
        let Some(notify) = config.notify.get(name) else {
            let why = format!("`notify.{name}` is not in the configuration any more");
            return Sent { kind: "webhook", came_to: Err(Untold::Never(why)) };
        };
        let told: Told = match serde_json::from_str(&row.body) {
            Ok(told) => told,
            Err(error) => return Sent { kind: "webhook", came_to: Err(unreadable(error)) },
        };
        let (kind, came_to) = match &notify.way {
            NotifyWay::Webhook { url, secret } => {
                ("webhook", self.post((name, url), secret.as_ref(), (row.id, &told)).await)
            }
            NotifyWay::Slack { url } => ("slack", self.post((name, url), None, (row.id, &told)).await),
            NotifyWay::Email { smtp, login, from, to } => {
                ("email", mail((name, smtp, login), (from, to), row.id, &told).await)
            }
        };
        Sent { kind, came_to }
    }

    async fn post(
        &mut self,
        (name, url): (&str, &SecretFrom),
        signs: Option<&SecretFrom>,
        (id, told): (u64, &Told),
    ) -> Result<(), Untold> {
        if self.hooks.is_none() {
            self.hooks = Some(Hooks::new()?);
        }
        let Some(hooks) = &self.hooks else { return Ok(()) };
        let url = read(url, &format!("notify.{name}.url"))?;
        let signs = signs.map(|from| read(from, &format!("notify.{name}.secret"))).transpose()?;
        let body = told.body.as_ref().map(ToString::to_string).unwrap_or_default();
        hooks.post(Post { url: &url, secret: signs.as_deref().map(str::as_bytes), id, body: &body }).await
    }
}

type Account = Option<(String, SecretFrom)>;

async fn mail(
    (name, smtp, login): (&str, &str, &Account),
    (from, to): (&str, &[String]),
    id: u64,
    told: &Told,
) -> Result<(), Untold> {
    let login = match login {
        Some((user, password)) => Some((user.clone(), read(password, &format!("notify.{name}.password"))?)),
        None => None,
    };
    let letter = Letter { from, to, subject: &told.subject, text: &told.text, id };
    Mailer::new(smtp, login)?.send(&letter).await
}

fn login(config: &Config) -> Result<Login, Untold> {
    match (&config.github.app, &config.github.token) {
        (Some(app), _) => Ok(Login::App { id: app.id, key: app.key.clone(), installation: app.installation }),
        (None, Some(token)) => Ok(Login::Token(read(token, "github.token")?)),
        (None, None) => Err(Untold::Never("the configuration has no [github] credentials any more".to_owned())),
    }
}

/// A secret's text. What is missing may be put there, so it is asked for again.
fn read(from: &SecretFrom, what: &str) -> Result<String, Untold> {
    secret(from).map_err(|why| Untold::Later { why: format!("{what}: {why}"), after: None, all: false })
}

fn unreadable(error: serde_json::Error) -> Untold {
    Untold::Never(format!("the stored message cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::ids::Micros;

    fn row(id: u64) -> OutboxRow {
        OutboxRow {
            id,
            build: None,
            channel: "notify.ops".to_owned(),
            topic: String::new(),
            body: serde_json::json!({ "subject": "s", "text": "t", "body": {} }).to_string(),
            made_at: Micros(0),
            tries: 0,
            next_at: Micros(0),
            problem: String::new(),
            done_at: None,
            gave_up: None,
        }
    }

    #[tokio::test]
    async fn whoever_is_out_of_order_is_asked_less_and_less_often_by_whatever_message() {
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        let (url, file) = (folder.path().join("url"), folder.path().join("orchestrator.toml"));
        // A port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        std::fs::write(&url, format!("http://{free}/hook")).expect("written");
        let text = format!("[notify.ops]\nkind = \"webhook\"\nurl_file = {:?}\n", url.display().to_string());
        std::fs::write(&file, text).expect("written");
        let config = crate::config::load::load(Some(&file), &BTreeMap::new()).expect("valid").config;
        let mut receiver = Receiver::default();
        for seconds in [1, 2, 4, 8] {
            match receiver.send(&config, &row(seconds)).await.came_to {
                Err(Untold::Later { after, all, why }) => {
                    assert_eq!((after, all), (Some(Duration::from_secs(seconds)), true), "{why}");
                    assert!(!why.contains("/hook"), "the address is a secret: {why}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
