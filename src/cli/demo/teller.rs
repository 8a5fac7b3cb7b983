//! Makes the story happen, over the daemon's own API and webhooks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::repository::Repository;
use super::story::{Commit, Deed};
use crate::client::{Ask, Client};
use crate::trigger::signature::sign;

/// What webhooks are signed with.
pub const SECRET: &str = "a secret of the demo";
/// No build of the demo takes longer.
const LONGEST: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(150);
/// The number of the pull request.
const REQUEST: u64 = 7;

/// Tells it.
pub struct Teller<'a> {
    client: Client,
    http: reqwest::Client,
    hooks: String,
    repositories: &'a BTreeMap<&'static str, Repository>,
}

impl<'a> Teller<'a> {
    /// To the daemon at this address.
    ///
    /// # Errors
    /// If there can be no client.
    pub fn new(address: SocketAddr, repositories: &'a BTreeMap<&'static str, Repository>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build()?;
        let client = Client::new(&format!("http://{address}"), None)?;
        Ok(Self { client, http, hooks: format!("http://{address}/hooks/github"), repositories })
    }

    /// Makes it happen; what came of it, in a line.
    ///
    /// # Errors
    /// If the daemon does not do as expected.
    pub async fn tell(&self, deed: &Deed) -> anyhow::Result<String> {
        match deed {
            Deed::Build(commit) => {
                let (id, _) = self.commit(commit)?;
                let build = self.ended(&id, |_| true).await?;
                Ok(self.line(commit, &build))
            }
            Deed::Cancelled(commit) => {
                let (id, _) = self.commit(commit)?;
                let build = self.found(&id, |build| build["status"] == "running").await?;
                // Something of it has been seen.
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.post(&["builds", &number(&build), "cancel"], json!({})).await?;
                Ok(self.line(commit, &self.ended(&id, |_| true).await?))
            }
            Deed::Retried(commit) => {
                let (id, _) = self.commit(commit)?;
                let build = self.ended(&id, |build| build["status"] == "failed").await?;
                self.post(&["builds", &number(&build), "retry"], json!({})).await?;
                let again = self.ended(&id, |build| build["status"] == "passed").await?;
                Ok(format!("{}, after another try", self.line(commit, &again)))
            }
            Deed::Skipped(commit) => {
                let (id, before) = self.commit(commit)?;
                let before = before.unwrap_or_default();
                let payload = json!({ "ref": "refs/heads/main", "before": before, "after": id,
                    "head_commit": { "id": id, "message": commit.message }, "commits": [], "pusher": { "name": "docs" } });
                self.hook(commit.project, "push", payload).await?;
                Ok(format!("{}: {}: nothing to build", commit.project, commit.message))
            }
            Deed::Tag(project, name) => {
                let id = self.repository(project)?.tag(name)?.to_string();
                let build = self.ended(&id, |build| build["tag"] == *name).await?;
                Ok(format!("{project}: tag {name}: {}", build["status"].as_str().unwrap_or_default()))
            }
            Deed::ByHand(model, verb, version, reason) => {
                let mut body = json!({ "reason": reason });
                if *version > 0 {
                    body["version"] = json!(version);
                }
                self.post(&["models", model, verb], body).await?;
                self.settled(model).await?;
                Ok(format!("{model}: {verb}, by hand: {reason}"))
            }
            Deed::Secret(project, name) => {
                let body = Some(json!({ "value": "not a real one" }));
                self.client
                    .put(&Ask { path: &["projects", project, "secrets", name], query: &[], body, key: None })
                    .await?;
                Ok(format!("{project}: the secret {name} is set"))
            }
            Deed::Token(name, scope) => {
                self.post(&["tokens"], json!({ "name": name, "scopes": [scope], "days": 365 })).await?;
                Ok(format!("a token `{name}` is made"))
            }
            Deed::Hook(event) => {
                let hook = json!({ "id": 1, "type": "Repository", "active": true, "events": ["push", "pull_request"],
                    "config": { "content_type": "json", "insecure_ssl": "0" } });
                let more = json!({ "zen": "Keep it logically awesome.", "hook": hook, "action": "opened" });
                self.hook("feature-service", event, more).await?;
                Ok(format!("a webhook: {event}"))
            }
            Deed::Fork(project) => self.fork(project).await,
        }
    }

    fn repository(&self, project: &str) -> anyhow::Result<&Repository> {
        self.repositories.get(project).with_context(|| format!("no repository `{project}`"))
    }

    fn commit(&self, commit: &Commit) -> anyhow::Result<(String, Option<String>)> {
        let (id, before) = self.repository(commit.project)?.commit(commit)?;
        Ok((id.to_string(), before.map(|id| id.to_string())))
    }

    fn line(&self, commit: &Commit, build: &Value) -> String {
        let status = build["status"].as_str().unwrap_or_default();
        format!("{} #{}: {}: {status}", commit.project, number(build), commit.message)
    }

    async fn get(&self, path: &[&str], query: &[(&str, Option<String>)]) -> anyhow::Result<Value> {
        Ok(self.client.get(&Ask { path, query, body: None, key: None }).await?)
    }

    async fn post(&self, path: &[&str], body: Value) -> anyhow::Result<Value> {
        Ok(self.client.post(&Ask { path, query: &[], body: Some(body), key: None }).await?)
    }

    /// The build of a commit, once there is one like that.
    async fn found(&self, commit: &str, like: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let until = tokio::time::Instant::now() + LONGEST;
        loop {
            let page = self.get(&["builds"], &[("commit", Some(commit.to_owned()))]).await?;
            let builds = page["items"].as_array().cloned().unwrap_or_default();
            if let Some(build) = builds.into_iter().find(&like) {
                return Ok(build);
            }
            if tokio::time::Instant::now() > until {
                bail!("the build of commit {commit} did not come as far as expected in {} s", LONGEST.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn ended(&self, commit: &str, like: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let over = |build: &Value| matches!(build["status"].as_str(), Some("passed" | "failed" | "cancelled"));
        self.found(commit, |build| over(build) && like(build)).await
    }

    /// Until what serves a model is as it was decided.
    async fn settled(&self, model: &str) -> anyhow::Result<()> {
        let until = tokio::time::Instant::now() + LONGEST;
        loop {
            let rows = self.get(&["deployments"], &[]).await?;
            let rows = rows.as_array().cloned().unwrap_or_default();
            if rows.iter().all(|row| row["model"] != model || row["status"] == "live") {
                return Ok(());
            }
            if tokio::time::Instant::now() > until {
                bail!("the server of `{model}` did not get ready");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A delivery as GitHub sends them.
    async fn hook(&self, project: &str, event: &str, mut payload: Value) -> anyhow::Result<()> {
        let id = self.repository(project)?.id;
        payload["repository"] =
            json!({ "id": id, "full_name": format!("example/{project}"), "default_branch": "main" });
        payload["sender"] = json!({ "login": "a-person", "id": 7001 });
        let body = serde_json::to_vec_pretty(&payload)?;
        let answer = self
            .http
            .post(&self.hooks)
            .header("content-type", "application/json")
            .header("user-agent", "GitHub-Hookshot/demo")
            .header("x-github-event", event)
            .header("x-github-delivery", format!("demo-{event}-{:x}", crate::clock::now().0))
            .header("x-hub-signature-256", sign(SECRET.as_bytes(), &body))
            .body(body)
            .send()
            .await?;
        if !answer.status().is_success() {
            bail!("the webhook `{event}` was answered with {}", answer.status());
        }
        Ok(())
    }

    /// A pull request of somebody from outside. Stages of this demo run with the daemon's own rights, so it is not built.
    async fn fork(&self, project: &'static str) -> anyhow::Result<String> {
        let commit = Commit {
            project,
            branch: "main",
            author: ("A contributor", "contributor@example.com"),
            message: "Features of goalkeepers",
            words: vec![
                ("VALUE", "key:".to_owned()),
                ("SCHEDULE", "\non: { push: {}, pull_request: {} }\n".to_owned()),
                ("SLEEP", "0.1".to_owned()),
            ],
        };
        let repository = self.repository(project)?;
        let (head, base) = repository.propose(REQUEST, &commit)?;
        let base = base.map(|id| id.to_string()).unwrap_or_default();
        let account = json!({ "login": "a-contributor", "id": 7002 });
        let payload = json!({ "action": "opened", "number": REQUEST, "pull_request": {
            "number": REQUEST, "title": commit.message, "draft": false, "merged": false, "user": account, "labels": [],
            "head": { "ref": "goalkeepers", "sha": head.to_string(), "repo": { "id": 999_001 } },
            "base": { "ref": "main", "sha": base, "repo": { "id": repository.id } } } });
        self.hook(project, "pull_request", payload).await?;
        let until = tokio::time::Instant::now() + LONGEST;
        loop {
            let page = self.get(&["triggers"], &[("project", Some(project.to_owned()))]).await?;
            let newest = page["items"][0].clone();
            if newest["source"] == "webhook" && !newest["decision"].is_null() {
                return Ok(format!(
                    "{project}: a pull request from a fork: {}",
                    newest["decision"].as_str().unwrap_or_default()
                ));
            }
            if tokio::time::Instant::now() > until {
                bail!("nothing came of the pull request from a fork");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn number(build: &Value) -> String {
    build["id"].as_u64().unwrap_or_default().to_string()
}
