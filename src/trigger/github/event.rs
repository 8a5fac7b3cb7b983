//! The events that decisions know, and how they are made of payloads.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Actor, DeliveryProblem, Reader, bounded, payload};
use crate::trigger::git::{CommitId, GitRef, is_null};

/// The longest one-line text that is kept, in bytes.
const MAX_LINE: usize = 1024;

/// The longest message of a commit that is kept, in bytes.
const MAX_MESSAGE: usize = 64 << 10;

/// What happened in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GithubEvent {
    /// A ref was moved, made or deleted.
    Push(PushEvent),
    /// Something about a pull request.
    PullRequest(PullRequestEvent),
    /// Something about a release.
    Release(ReleaseEvent),
    /// A webhook was set up, or its owner pressed the button for a test.
    Ping(PingEvent),
    /// A branch or tag was made.
    Create {
        /// Which; none for a whole repository.
        git_ref: Option<GitRef>,
    },
    /// A branch or tag was deleted.
    Delete {
        /// Which.
        git_ref: Option<GitRef>,
    },
    /// Someone pressed "re-run" at a check.
    CheckRunRerequested(CheckRunEvent),
    /// Someone started a workflow by hand.
    WorkflowDispatch(DispatchEvent),
    /// Any other event, and actions of the above that nothing here looks into.
    Other {
        /// `X-GitHub-Event`.
        event: String,
        /// The payload's `action`.
        action: Option<String>,
    },
}

/// A ref was moved, made or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PushEvent {
    /// Which.
    pub git_ref: GitRef,
    /// Where it stood; none if it was made by this push.
    pub before: Option<CommitId>,
    /// Where it stands; none if it was deleted. Of an annotated tag this is the tag itself and not its commit.
    pub after: Option<CommitId>,
    /// The newest commit of what it stands at.
    pub head: Option<CommitId>,
    /// It was made by this push.
    pub created: bool,
    /// It was deleted by this push.
    pub deleted: bool,
    /// It was moved to something that does not follow from where it stood.
    pub forced: bool,
    /// The whole message of the newest commit, up to 64 KiB.
    pub message: Option<String>,
    /// Commits of this push that were nowhere in the repository before. The payload lists few of a large push, so this is
    /// for show only; what a push changed is asked of git.
    pub distinct_commits: u64,
    /// Who pushed, as a name for show.
    pub pusher: Option<String>,
}

/// Something about a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PullRequestEvent {
    /// What: `opened`, `synchronize`, `closed`, ...
    pub action: String,
    /// Its number.
    pub number: u64,
    /// The commit that wants to go in.
    pub head: CommitId,
    /// The branch that it is on, in the repository that it comes from.
    pub head_ref: String,
    /// The repository that it comes from; none if that was deleted.
    pub head_repository: Option<u64>,
    /// The commit on which it wants to go.
    pub base: CommitId,
    /// The branch into which it wants to go.
    pub base_ref: String,
    /// The repository into which it wants to go.
    pub base_repository: u64,
    /// It comes from another repository, or from one that is gone: whoever wrote it need not be one of the project.
    pub from_fork: bool,
    /// It is not ready yet.
    pub draft: bool,
    /// It went in.
    pub merged: bool,
    /// Its title.
    pub title: String,
    /// Who opened it.
    pub author: Option<Actor>,
    /// The first hundred of its labels.
    pub labels: Vec<String>,
}

/// Something about a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReleaseEvent {
    /// What: `published`, `created`, `edited`, ...
    pub action: String,
    /// Its tag.
    pub tag: String,
    /// The branch or commit of which the tag is made if there is none yet.
    pub target: Option<String>,
    /// Its title.
    pub title: Option<String>,
    /// It is not published yet.
    pub draft: bool,
    /// It is not for everybody yet.
    pub prerelease: bool,
}

/// How a webhook is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PingEvent {
    /// The hook's number.
    pub hook: u64,
    /// `Repository`, `Organization` or `App`.
    pub kind: Option<String>,
    /// Whether it sends at all.
    pub active: bool,
    /// The events that it sends; `*` for all.
    pub events: Vec<String>,
    /// `json` or `form`.
    pub content_type: Option<String>,
    /// GitHub was told not to check our certificate.
    pub insecure_ssl: bool,
}

/// A check that is to be run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckRunEvent {
    /// GitHub's number of it.
    pub id: u64,
    /// The commit.
    pub commit: CommitId,
    /// Its name.
    pub name: String,
    /// What we called it when we made it; empty if we did not.
    pub external_id: String,
    /// The app that made it.
    pub app: Option<u64>,
}

/// A workflow that was started by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DispatchEvent {
    /// On what.
    pub git_ref: GitRef,
    /// The workflow's file, as GitHub names it.
    pub workflow: Option<String>,
    /// What was filled in: the build's parameters.
    pub inputs: BTreeMap<String, String>,
}

impl Reader<'_> {
    pub(super) fn push(&self, raw: payload::Push) -> Result<GithubEvent, DeliveryProblem> {
        let (before, after) = (self.end(&raw.before, "before")?, self.end(&raw.after, "after")?);
        if raw.deleted != after.is_none() {
            return Err(self.malformed("`deleted` and `after` contradict each other"));
        }
        let (head, message) = match raw.head_commit {
            Some(head) => (Some(self.commit(&head.id, "head_commit.id")?), head.message),
            None => (None, None),
        };
        Ok(GithubEvent::Push(PushEvent {
            git_ref: GitRef::new(&raw.r#ref).ok_or_else(|| self.malformed("`ref` is not a full ref"))?,
            created: raw.created || before.is_none(),
            before,
            after,
            head,
            deleted: raw.deleted,
            forced: raw.forced,
            message: message.map(|text| bounded::lines(&text, MAX_MESSAGE)),
            distinct_commits: raw.commits.unwrap_or_default().0,
            pusher: raw.pusher.and_then(|pusher| pusher.name).map(|name| bounded::line(&name, MAX_LINE)),
        }))
    }

    pub(super) fn pull_request(&self, raw: payload::PullRequestEvent) -> Result<GithubEvent, DeliveryProblem> {
        let pull_request = raw.pull_request;
        let (head, base) = (pull_request.head, pull_request.base);
        let base_repository =
            base.repo.map(|repo| repo.id).ok_or_else(|| self.malformed("`pull_request.base.repo` is missing"))?;
        let head_repository = head.repo.map(|repo| repo.id);
        let labels = pull_request.labels.unwrap_or_default().0;
        Ok(GithubEvent::PullRequest(PullRequestEvent {
            action: bounded::line(&raw.action, 64),
            number: raw.number,
            head: self.commit(&head.sha, "pull_request.head.sha")?,
            head_ref: self.branch(head.r#ref, "pull_request.head.ref")?,
            head_repository,
            base: self.commit(&base.sha, "pull_request.base.sha")?,
            base_ref: self.branch(base.r#ref, "pull_request.base.ref")?,
            base_repository,
            from_fork: head_repository != Some(base_repository),
            draft: pull_request.draft.unwrap_or(false),
            merged: pull_request.merged.unwrap_or(false),
            title: bounded::line(pull_request.title.as_deref().unwrap_or_default(), MAX_LINE),
            author: pull_request.user.map(actor),
            labels: labels.iter().map(|label| bounded::line(&label.name, MAX_LINE)).collect(),
        }))
    }

    pub(super) fn release(&self, raw: payload::ReleaseEvent) -> Result<GithubEvent, DeliveryProblem> {
        let release = raw.release;
        if GitRef::of_tag(&release.tag_name).is_none() {
            return Err(self.malformed("`release.tag_name` is not a tag's name"));
        }
        Ok(GithubEvent::Release(ReleaseEvent {
            action: bounded::line(&raw.action, 64),
            tag: release.tag_name,
            target: release.target_commitish.map(|target| bounded::line(&target, MAX_LINE)),
            title: release.name.filter(|name| !name.is_empty()).map(|name| bounded::line(&name, MAX_LINE)),
            draft: release.draft,
            prerelease: release.prerelease,
        }))
    }

    pub(super) fn check_run(&self, raw: payload::CheckRunEvent) -> Result<GithubEvent, DeliveryProblem> {
        let run = raw.check_run;
        Ok(GithubEvent::CheckRunRerequested(CheckRunEvent {
            id: run.id,
            commit: self.commit(&run.head_sha, "check_run.head_sha")?,
            name: bounded::line(run.name.as_deref().unwrap_or_default(), MAX_LINE),
            external_id: bounded::line(run.external_id.as_deref().unwrap_or_default(), MAX_LINE),
            app: run.app.map(|app| app.id),
        }))
    }

    pub(super) fn dispatch(&self, raw: payload::Dispatch) -> Result<GithubEvent, DeliveryProblem> {
        Ok(GithubEvent::WorkflowDispatch(DispatchEvent {
            git_ref: GitRef::new(&raw.r#ref).ok_or_else(|| self.malformed("`ref` is not a full ref"))?,
            workflow: raw.workflow.map(|workflow| bounded::line(&workflow, MAX_LINE)),
            inputs: raw.inputs.unwrap_or_default().0,
        }))
    }

    /// One end of a push: a commit, or the null name for none.
    fn end(&self, text: &str, field: &str) -> Result<Option<CommitId>, DeliveryProblem> {
        if is_null(text) { Ok(None) } else { self.commit(text, field).map(Some) }
    }

    fn commit(&self, text: &str, field: &str) -> Result<CommitId, DeliveryProblem> {
        CommitId::new(text).ok_or_else(|| self.malformed(&format!("`{field}` is not a commit")))
    }

    fn branch(&self, name: String, field: &str) -> Result<String, DeliveryProblem> {
        match GitRef::of_branch(&name) {
            Some(_) => Ok(name),
            None => Err(self.malformed(&format!("`{field}` is not a branch's name"))),
        }
    }
}

pub(super) fn actor(raw: payload::Account) -> Actor {
    Actor { login: bounded::line(&raw.login, 255), id: raw.id }
}

pub(super) fn ping(raw: payload::PingEvent) -> GithubEvent {
    let hook = raw.hook;
    let (content_type, insecure) =
        hook.config.map_or((None, None), |config| (config.content_type, config.insecure_ssl));
    GithubEvent::Ping(PingEvent {
        hook: hook.id,
        kind: hook.r#type.map(|kind| bounded::line(&kind, 64)),
        active: hook.active.unwrap_or(true),
        events: hook.events.0.iter().map(|event| bounded::line(event, 64)).collect(),
        content_type: content_type.map(|kind| bounded::line(&kind, 64)),
        insecure_ssl: insecure.is_some_and(|value| matches!(value.0.as_str(), "1" | "true")),
    })
}

/// The ref of `create` and `delete`.
pub(super) fn named_ref(raw: &payload::NamedRef) -> Option<GitRef> {
    match raw.ref_type.as_deref()? {
        "branch" => GitRef::of_branch(raw.r#ref.as_deref()?),
        "tag" => GitRef::of_tag(raw.r#ref.as_deref()?),
        _ => None,
    }
}
