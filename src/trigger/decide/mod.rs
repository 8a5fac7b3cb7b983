//! Whether a delivery starts a build, in two steps.
//!
//! ```text
//! first:  what GitHub says and the project's settings      -> Ignore | Candidate | CancelPullRequest | CheckSetup | Rebuild
//! second: the candidate, its pipeline and changed paths    -> Skip | AwaitApproval | Start
//! ```
//!
//! Between both lies the way to the repository: the second step needs the pipeline as it is at
//! [`Candidate::pipeline_commit`], and the paths that the commits change, from git.

mod first;
mod reason;
mod second;
mod skip_mark;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use first::{RepositoryMatch, first, repository_match};
pub use reason::Reason;
pub use second::{Against, second};
pub use skip_mark::skip_mark;

use super::git::{CommitId, GitRef};
use super::github::Actor;
use crate::pipeline::condition::Facts;

/// What the settings of a project say about what starts its builds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProjectPolicy {
    /// The project's name, for messages.
    pub name: String,
    /// GitHub's number of its repository; none until it is known. Once it is, it decides, whatever the repository is called.
    pub repository_id: Option<u64>,
    /// `owner/name`, in any case of letters.
    pub full_name: String,
    /// The branch that is built if the pipeline names none.
    pub default_branch: String,
    /// Globs of branches, outside of which nothing starts; empty for all. A pull request is one of the branch that it goes into.
    pub branches: Vec<String>,
    /// Pull requests from forks.
    pub fork_builds: ForkPolicy,
    /// Pull requests that are drafts.
    pub draft_builds: DraftPolicy,
}

/// `fork_builds`: what becomes of a pull request from a fork. Whatever it says, such a build is [`Trust::Untrusted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForkPolicy {
    /// It waits until someone of the project approves this very commit. The default.
    #[default]
    Approve,
    /// It is not built.
    Never,
    /// It is built at once: anybody's code runs on the runners.
    Always,
}

/// `draft_builds`: what becomes of a pull request that is a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DraftPolicy {
    /// It is built like any other: a draft asks for early answers. The default.
    #[default]
    Build,
    /// It is built once it is ready for review.
    Skip,
}

/// What the first step finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum First {
    /// Nothing starts.
    Ignore(Reason),
    /// A build, if the pipeline wants it.
    Candidate(Box<Candidate>),
    /// The pull request was closed: its builds that wait or run are of no use any more.
    CancelPullRequest {
        /// Its number.
        number: u64,
        /// Whether it went in.
        merged: bool,
    },
    /// A webhook was set up: what is wrong with it.
    CheckSetup(PingReport),
    /// The build that made this check is to run again.
    Rebuild(Rebuild),
}

/// What may become a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// By what kind of event.
    pub event: Event,
    /// What is built. None where GitHub names a ref alone: then it is the commit that [`Candidate::git_ref`] points to.
    pub commit: Option<CommitId>,
    /// Where the commit is found.
    pub git_ref: GitRef,
    /// The branch; of a pull request the one that it goes into.
    pub branch: Option<String>,
    /// The tag.
    pub tag: Option<String>,
    /// Where a pull request goes.
    pub base: Option<Base>,
    /// The pull request.
    pub pull_request: Option<PullRequest>,
    /// Who did it, by GitHub's word.
    pub actor: Option<Actor>,
    /// First line of the commit's message, or the pull request's or release's title.
    pub title: Option<String>,
    /// Where the ref stood before, for the paths that changed. After a forced push it may be gone.
    pub before: Option<CommitId>,
    /// Parameters that were filled in.
    pub inputs: BTreeMap<String, String>,
    /// Something that an operator should know, like that the repository has another name now.
    pub note: Option<String>,
}

/// What kind of event starts a build, as in `when.event`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A push to a branch.
    Push,
    /// A push of a tag.
    Tag,
    /// A pull request.
    PullRequest,
    /// A release was published.
    Release,
    /// Someone asked for it.
    Manual,
}

impl Event {
    /// The word of `when.event`.
    pub fn word(self) -> &'static str {
        match self {
            Event::Push => "push",
            Event::Tag => "tag",
            Event::PullRequest => "pull_request",
            Event::Release => "release",
            Event::Manual => "manual",
        }
    }
}

/// Where a pull request goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Base {
    /// The branch.
    pub branch: String,
    /// The commit at its end.
    pub commit: CommitId,
}

/// The pull request of a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PullRequest {
    /// Its number.
    pub number: u64,
    /// The branch that it is on, where it comes from.
    pub head_ref: String,
    /// It comes from another repository, or from one that is gone.
    pub from_fork: bool,
    /// It is a draft.
    pub draft: bool,
}

/// Two candidates of one project with the same key, shortly after each other, are one build: hooks may be set up twice, and
/// GitHub sends one event under two delivery ids at times.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct DuplicateKey {
    /// The event.
    pub event: Event,
    /// The ref.
    pub git_ref: GitRef,
    /// The commit.
    pub commit: Option<CommitId>,
}

impl Candidate {
    /// The key by which it is known again. None for what someone asked for by hand, who may ask twice.
    pub fn duplicate_key(&self) -> Option<DuplicateKey> {
        let key = || DuplicateKey { event: self.event, git_ref: self.git_ref.clone(), commit: self.commit.clone() };
        (self.event != Event::Manual).then(key)
    }

    /// Whether what it builds was written by anybody, or by those of the project.
    pub fn trust(&self) -> Trust {
        if self.pull_request.as_ref().is_some_and(|pull_request| pull_request.from_fork) {
            Trust::Untrusted
        } else {
            Trust::Trusted
        }
    }

    /// The commit whose pipeline file counts: of a pull request from a fork the base's, so that it cannot change what is
    /// checked. None: the commit that [`Candidate::git_ref`] points to.
    pub fn pipeline_commit(&self) -> Option<&CommitId> {
        match (self.trust(), &self.base) {
            (Trust::Untrusted, Some(base)) => Some(&base.commit),
            (Trust::Untrusted, None) | (Trust::Trusted, _) => self.commit.as_ref(),
        }
    }

    /// What the conditions of stages may ask for.
    pub fn facts(&self, changed_paths: Option<Vec<String>>, default_branch: &str) -> Facts {
        Facts {
            event: self.event.word().to_owned(),
            branch: self.branch.clone(),
            tag: self.tag.clone(),
            changed_paths,
            default_branch: default_branch.to_owned(),
        }
    }
}

/// Whether a build may do what only the project's own people may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Everything that the pipeline says.
    Trusted,
    /// No secrets, no writing of caches, no promotion and no deployment; the pipeline is the base branch's.
    Untrusted,
}

/// What the second step finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// A build starts.
    Start {
        /// What it may do.
        trust: Trust,
    },
    /// Nothing starts.
    Skip(Reason),
    /// A build starts once someone approves it.
    AwaitApproval {
        /// Why.
        reason: Reason,
        /// The commit that may be approved. A newer commit of the same pull request asks anew.
        bound_to: CommitId,
        /// What it may do once it is approved.
        trust: Trust,
    },
}

/// What is wrong with a webhook's set-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PingReport {
    /// GitHub's number of the hook.
    pub hook: u64,
    /// One sentence each; none if all is well.
    pub problems: Vec<String>,
}

/// A check of ours that is to be run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rebuild {
    /// The commit.
    pub commit: CommitId,
    /// GitHub's number of the check.
    pub check_run: u64,
    /// What we called it when we made it.
    pub external_id: String,
    /// The app that made it. If that is not ours, the check is none of ours.
    pub app: Option<u64>,
    /// Who asked for it.
    pub actor: Option<Actor>,
}
