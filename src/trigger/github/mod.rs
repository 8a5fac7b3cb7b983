//! A delivery of GitHub's webhooks: bytes in, one typed event out.
//!
//! Only what a decision needs is taken over. The rest of a payload is skipped while it is read, without building it up in
//! memory, however large or deep it is. Fields that GitHub adds later are of no concern; a field that we need and that is
//! missing or of another type makes the delivery malformed. The signature was checked before.

mod bounded;
mod event;
mod payload;

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use event::{CheckRunEvent, DispatchEvent, GithubEvent, PingEvent, PullRequestEvent, PushEvent, ReleaseEvent};

/// The largest body that GitHub sends, and so the largest that is read: 25 MiB.
pub const MAX_BODY_BYTES: usize = 25 << 20;

/// A delivery as it came in.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// `X-GitHub-Event`.
    pub event: &'a str,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// The body, byte for byte.
    pub body: &'a [u8],
}

/// A delivery that was understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Of which repository; none where a whole organization's hook is told something.
    pub repository: Option<RepositoryRef>,
    /// Who did it. This is GitHub's word; the authors that commits name are anybody's.
    pub sender: Option<Actor>,
    /// What happened.
    pub event: GithubEvent,
}

/// A repository as the payload shows it: to find the project by, never to change a project with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepositoryRef {
    /// GitHub's number, which stays when it is renamed or transferred.
    pub id: u64,
    /// `owner/name`.
    pub full_name: String,
    /// For messages. What is cloned is the address in the project's settings.
    pub clone_url: Option<String>,
    /// Its default branch, where the payload names one.
    pub default_branch: Option<String>,
    /// Whether it is private.
    pub private: bool,
    /// Whether it is a fork of another.
    pub fork: bool,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Actor {
    /// Its name, which may change.
    pub login: String,
    /// Its number, which does not.
    pub id: u64,
}

/// Why a delivery cannot be read. Decided anew it would fail anew, so it is kept with this text and not tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryProblem {
    /// More than [`MAX_BODY_BYTES`].
    #[error("the body has {bytes} bytes, more than the 25 MiB that GitHub sends")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Neither JSON nor a form.
    #[error("the content type `{0}` is not supported: choose application/json in the webhook's settings")]
    ContentType(String),
    /// The header `X-GitHub-Event` is not the name of an event.
    #[error("`X-GitHub-Event` is not the name of an event")]
    NoEvent,
    /// A form without the field `payload`.
    #[error("the form has no field `payload`")]
    NoPayload,
    /// The body is not JSON.
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    /// It is JSON, but something is missing or not what it must be.
    #[error("the payload of `{event}` is malformed: {what}")]
    Malformed {
        /// The event.
        event: String,
        /// What is wrong with it.
        what: String,
    },
}

/// Reads a delivery. Memory and time are in proportion to the body, whatever it holds.
///
/// # Errors
/// [`DeliveryProblem`]. An event that starts nothing here is none, whatever its payload is like, as long as that is JSON.
pub fn parse(delivery: &Delivery<'_>) -> Result<Received, DeliveryProblem> {
    if delivery.body.len() > MAX_BODY_BYTES {
        return Err(DeliveryProblem::TooLarge { bytes: delivery.body.len() });
    }
    let name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !(1..=64).contains(&delivery.event.len()) || !delivery.event.bytes().all(name) {
        return Err(DeliveryProblem::NoEvent);
    }
    let json = json(delivery)?;
    let reader = Reader { event: delivery.event, json: &json };
    reader.received()
}

/// The JSON of a body, whichever of GitHub's two content types it has.
fn json<'a>(delivery: &Delivery<'a>) -> Result<Cow<'a, [u8]>, DeliveryProblem> {
    let content_type = delivery.content_type.unwrap_or_default();
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        Ok(Cow::Borrowed(delivery.body))
    } else if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let mut fields = url::form_urlencoded::parse(delivery.body);
        let (_, payload) = fields.find(|(key, _)| key == "payload").ok_or(DeliveryProblem::NoPayload)?;
        Ok(Cow::Owned(payload.into_owned().into_bytes()))
    } else {
        Err(DeliveryProblem::ContentType(bounded::line(kind, 100)))
    }
}

/// The JSON of one event, which is read as one type after another: first what all events have, then what this one has.
struct Reader<'a> {
    event: &'a str,
    json: &'a [u8],
}

impl Reader<'_> {
    fn received(&self) -> Result<Received, DeliveryProblem> {
        let action = match self.read::<payload::Action>() {
            Ok(payload::Action { action }) => action.map(|action| bounded::line(&action, 64)),
            Err(problem @ DeliveryProblem::NotJson(_)) => return Err(problem),
            // An event whose action is no text is none that we use.
            Err(_) => None,
        };
        let event = match self.used(action.as_deref()) {
            Some(event) => event?,
            None => {
                let envelope = self.envelope().unwrap_or_default();
                let event = GithubEvent::Other { event: self.event.to_owned(), action };
                return Ok(Received { repository: envelope.0, sender: envelope.1, event });
            }
        };
        let (repository, sender) = self.envelope()?;
        if repository.is_none() && !matches!(event, GithubEvent::Ping(_)) {
            return Err(self.malformed("`repository` is missing"));
        }
        if let (GithubEvent::PullRequest(pull_request), Some(repository)) = (&event, &repository)
            && pull_request.base_repository != repository.id
        {
            return Err(self.malformed("the pull request's base is another repository"));
        }
        Ok(Received { repository, sender, event })
    }

    /// The event, if it is one that a decision looks into.
    fn used(&self, action: Option<&str>) -> Option<Result<GithubEvent, DeliveryProblem>> {
        Some(match (self.event, action) {
            ("push", _) => self.read().and_then(|raw| self.push(raw)),
            ("pull_request", _) => self.read().and_then(|raw| self.pull_request(raw)),
            ("release", _) => self.read().and_then(|raw| self.release(raw)),
            ("ping", _) => self.read().map(event::ping),
            ("create", _) => self.read().map(|raw| GithubEvent::Create { git_ref: event::named_ref(&raw) }),
            ("delete", _) => self.read().map(|raw| GithubEvent::Delete { git_ref: event::named_ref(&raw) }),
            ("check_run", Some("rerequested")) => self.read().and_then(|raw| self.check_run(raw)),
            ("workflow_dispatch", _) => self.read().and_then(|raw| self.dispatch(raw)),
            _ => return None,
        })
    }

    fn envelope(&self) -> Result<(Option<RepositoryRef>, Option<Actor>), DeliveryProblem> {
        let raw: payload::Envelope = self.read()?;
        let repository = raw.repository.map(|raw| self.repository(raw)).transpose()?;
        Ok((repository, raw.sender.map(event::actor)))
    }

    fn repository(&self, raw: payload::Repository) -> Result<RepositoryRef, DeliveryProblem> {
        let full_name = raw.full_name;
        if !is_full_name(&full_name) {
            return Err(self.malformed("`repository.full_name` is not of the form owner/name"));
        }
        Ok(RepositoryRef {
            id: raw.id,
            full_name,
            clone_url: raw.clone_url.map(|url| bounded::line(&url, 2048)),
            default_branch: raw.default_branch.filter(|branch| super::git::GitRef::of_branch(branch).is_some()),
            private: raw.private,
            fork: raw.fork,
        })
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, DeliveryProblem> {
        serde_json::from_slice(self.json).map_err(|error| {
            // The message may quote the payload at any length.
            let what = bounded::line(&error.to_string(), 300);
            if error.is_data() { self.malformed(&what) } else { DeliveryProblem::NotJson(what) }
        })
    }

    fn malformed(&self, what: &str) -> DeliveryProblem {
        DeliveryProblem::Malformed { event: self.event.to_owned(), what: what.to_owned() }
    }
}

/// `owner/name`, of the characters that GitHub allows.
fn is_full_name(text: &str) -> bool {
    let part = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !part.is_empty() && part.bytes().all(allowed) && !part.starts_with('-') && part != "." && part != ".."
    };
    text.len() <= 200 && text.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}
