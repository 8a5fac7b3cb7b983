//! From a change to messages: what each channel is told, in its final form.

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;

use super::Teller;
use crate::build::status::BuildStatus;
use crate::config::types::{Config, NotifyWay};
use crate::daemon::projects::Project;
use crate::daemon::settle::AWAITING;
use crate::engine::{now, outcome};
use crate::ids::BuildId;
use crate::pipeline::condition::any_glob;
use crate::report::{BuildReport, check, comment, note, plot, status};
use crate::store::builds::{self, Filter};
use crate::store::outbox::{self, Changed, Message, OutboxRow};
use crate::store::{StoreError, Tx, queue};

/// Builds that are looked at to find the one before of the same pipeline.
const LOOKED_AT: usize = 50;

/// What GitHub is told.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "kebab-case")]
pub(super) enum Call {
    /// A commit status.
    Status { repo: String, commit: String, body: Value },
    /// A check run.
    Check { repo: String, commit: String, body: Value },
    /// A pull request's comment.
    Comment { repo: String, pull: u64, mark: String, text: String, only_change: bool },
}

/// What somebody else is told.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Told {
    pub subject: String,
    pub text: String,
    /// For a hook: its body.
    pub body: Option<Value>,
}

/// All that messages are made from.
struct About {
    report: BuildReport,
    awaits: Option<String>,
    /// How the build before it of the same pipeline and branch ended.
    before: Option<BuildStatus>,
    url: String,
    /// The address of its picture, where GitHub can reach it.
    plot: Option<String>,
}

impl Teller {
    /// Makes messages of a change.
    pub(super) async fn spread(&self, row: OutboxRow, key: &str) -> Result<(), StoreError> {
        let changed: Changed = serde_json::from_str(&row.body)?;
        let config = std::sync::Arc::clone(&self.config.borrow().current);
        let messages = match (changed, row.build) {
            (Changed::Build { status }, Some(id)) => match self.about(id, key).await {
                Ok(about) => match self.projects.get(&about.report.build.request.project) {
                    Some(project) => of_build(&config, &project, &about, (&status, key)),
                    // It was taken out of the configuration.
                    None => Vec::new(),
                },
                // It was removed meanwhile.
                Err(StoreError::Missing(_)) => Vec::new(),
                Err(error) => return Err(error),
            },
            (Changed::Trigger { trigger, project, commit, reason }, _) => {
                let project = self.projects.get(&project);
                project.map(|project| of_trigger(&config, &project, trigger, (&commit, &reason))).unwrap_or_default()
            }
            (Changed::Build { .. }, None) => Vec::new(),
        };
        self.engine.store.write(move |tx| outbox::spread(tx, row.id, &messages, now())).await
    }

    async fn about(&self, id: BuildId, key: &str) -> Result<About, StoreError> {
        let url = format!("{}/builds/{}", self.public_url, id.0);
        let picture = format!("{}/api/v1/builds/{}/plot.svg?key={}", self.public_url, id.0, picture_key(key, id));
        let reachable = is_public(&self.public_url);
        self.engine
            .store
            .read(move |db| {
                let report = outcome::of_build(db, id)?;
                let awaits = queue::standing(db, id)?.awaits;
                let before = before(db, &report)?;
                let plot = plot::of_build(&report).filter(|_| reachable).map(|_| picture);
                Ok(About { report, awaits, before, url, plot })
            })
            .await
    }
}

fn before(db: &Tx, report: &BuildReport) -> Result<Option<BuildStatus>, StoreError> {
    let request = &report.build.request;
    let filter =
        Filter { projects: Some(vec![request.project.clone()]), branch: request.branch.clone(), ..Filter::default() };
    let rows = builds::find(db, &filter, Some(report.build.id), LOOKED_AT)?;
    let same = |row: &&builds::BuildRow| {
        let decided = matches!(row.status, BuildStatus::Passed | BuildStatus::Failed);
        decided && row.request.pipeline == request.pipeline && row.request.pull_request == request.pull_request
    };
    Ok(rows.iter().find(same).map(|row| row.status))
}

fn of_build(config: &Config, project: &Project, about: &About, (changed_to, key): (&str, &str)) -> Vec<Message> {
    let mut messages = Vec::new();
    if let Some(repo) = &project.forge {
        messages.extend(for_github(config, repo, about, (changed_to, key)));
    }
    messages.extend(notes(config, about, changed_to));
    messages
}

fn for_github(config: &Config, repo: &str, about: &About, (changed_to, key): (&str, &str)) -> Vec<Message> {
    let About { report, awaits, url, .. } = about;
    let (awaits, build) = (awaits.as_deref(), report.build.id);
    let message = |channel: &str, topic: String, call: &Call| Message {
        build: Some(build),
        channel: channel.to_owned(),
        topic,
        body: serde_json::to_string(call).expect("plain data is JSON"),
    };
    let repo = repo.to_owned();
    let mut messages = Vec::new();
    if config.github.status
        && let Some((commit, body)) = status::of_build(report, awaits, url)
    {
        let topic = format!("{repo} {commit} {}", report.context());
        messages.push(message("github-status", topic, &Call::Status { repo: repo.clone(), commit, body }));
    }
    if config.github.checks
        && let Some(check) = check::of_build(report, awaits, url)
    {
        let topic = format!("{repo} {}", check.external_id);
        let call = Call::Check { repo: repo.clone(), commit: check.commit, body: check.body };
        messages.push(message("github-check", topic, &call));
    }
    if let Some(pull) = report.build.request.pull_request.filter(|_| config.github.comment) {
        let request = &report.build.request;
        let topic = format!("{repo} {pull} {}", request.pipeline);
        let text = comment::of_build(report, awaits, url, about.plot.as_deref());
        let mark = mark(key, &[&request.project, &request.pipeline, &pull.to_string()]);
        // People are written to by mail when a comment is made: so that is done when there is something to say.
        let only_change = !(report.build.status.is_terminal() || changed_to == AWAITING);
        messages.push(message("github-comment", topic, &Call::Comment { repo, pull, mark, text, only_change }));
    }
    messages
}

fn notes(config: &Config, about: &About, changed_to: &str) -> Vec<Message> {
    let happened = note::events(&about.report, changed_to, about.before);
    let mut messages = Vec::new();
    for (name, notify) in &config.notify {
        let wanted = any_glob(&notify.projects, &about.report.build.request.project);
        // One message, though it may be several events: the most telling one names it.
        let event = happened.iter().rev().find(|event| wanted && notify.events.iter().any(|wants| wants == *event));
        let Some(event) = event else { continue };
        let said = note::of_build(&about.report, event, about.awaits.as_deref(), &about.url);
        let body = match notify.way {
            NotifyWay::Webhook { .. } => Some(note::for_program(&about.report, event, &said, &about.url)),
            NotifyWay::Slack { .. } => Some(note::for_slack(&said, &about.url)),
            NotifyWay::Email { .. } => None,
        };
        let told = Told { subject: said.subject, text: said.text, body };
        messages.push(Message {
            build: Some(about.report.build.id),
            channel: format!("notify.{name}"),
            // Each is told: a failure is not undone by the next build's success.
            topic: format!("{} {changed_to} {}", about.report.build.id, now().0),
            body: json!(told).to_string(),
        });
    }
    messages
}

/// A commit whose pipelines cannot be built has no build to tell of, so GitHub is told of the commit.
fn of_trigger(config: &Config, project: &Project, trigger: u64, (commit, reason): (&str, &str)) -> Vec<Message> {
    let Some(repo) = project.forge.clone().filter(|_| config.github.status) else { return Vec::new() };
    let topic = format!("{repo} {commit} trigger {trigger}");
    let call = Call::Status { repo, commit: commit.to_owned(), body: status::of_trouble(reason) };
    let body = serde_json::to_string(&call).expect("plain data is JSON");
    vec![Message { build: None, channel: "github-status".to_owned(), topic, body }]
}

/// A line that the reader does not see, and that nobody else can make for this comment.
fn mark(key: &str, of: &[&str]) -> String {
    format!("<!-- orchestrator {} -->", authentic(key, &of.join("\n")))
}

/// Whoever has it sees the picture of one build, without a token: GitHub shows it to those who see the pull request.
pub fn picture_key(key: &str, build: BuildId) -> String {
    authentic(key, &format!("picture of build {}", build.0))
}

fn authentic(key: &str, what: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(what.as_bytes());
    mac.finalize().into_bytes().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether somebody on another machine may reach this address.
fn is_public(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| match url.host() {
        Some(url::Host::Domain(name)) => name != "localhost",
        Some(url::Host::Ipv4(ip)) => !ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => !ip.is_loopback(),
        None => false,
    })
}
