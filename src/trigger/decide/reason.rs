//! Why nothing starts, or not yet: texts for people, and codes that stay.

use serde::{Serialize, Serializer};

/// Why a delivery starts no build. As text it is a sentence without its full stop; [`Reason::code`] is for programs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Another repository than the project's.
    #[error("the repository `{full_name}` is not that of project `{project}`")]
    OtherRepository {
        /// The repository's name.
        full_name: String,
        /// The project.
        project: String,
    },
    /// The project's name, but another number.
    #[error(
        "another repository is called `{full_name}` now: project `{project}` was set up for number {expected}, this is \
         {found}. If that is meant, remove `repository_id` from the project's settings"
    )]
    ReplacedRepository {
        /// The repository's name.
        full_name: String,
        /// The project.
        project: String,
        /// The number that the project knows.
        expected: u64,
        /// The number that was sent.
        found: u64,
    },
    /// The repository was renamed or transferred.
    #[error("the repository is called `{full_name}` now: write this into the settings of project `{project}`")]
    RepositoryMoved {
        /// Its new name.
        full_name: String,
        /// The project.
        project: String,
    },
    /// An event that starts nothing here.
    #[error("`{0}` starts no build")]
    NotBuilt(String),
    /// A `create` or `delete`, which comes together with a push.
    #[error("a push tells of the same")]
    PushTellsIt,
    /// A ref was deleted.
    #[error("`{0}` was deleted")]
    Deleted(String),
    /// A push to some other ref.
    #[error("`{0}` is neither a branch nor a tag")]
    NeitherBranchNorTag(String),
    /// The message asks for no build.
    #[error("{place} says `{mark}`")]
    SkipMark {
        /// `the commit's message` or `the pull request's title`.
        place: &'static str,
        /// What it says.
        mark: &'static str,
    },
    /// The project builds other branches.
    #[error("branch `{branch}` is not one of the project's: {}", list(.globs))]
    ProjectBranch {
        /// The branch.
        branch: String,
        /// The project's branches.
        globs: Vec<String>,
    },
    /// An action on a pull request that changes nothing that is built.
    #[error("`{0}` changes nothing that is built")]
    PullRequestAction(String),
    /// An action on a release other than publishing it.
    #[error("a release is built once, when it is published, not when it is `{0}`")]
    ReleaseAction(String),
    /// The project builds no drafts.
    #[error("the pull request is a draft, and the project has `draft_builds = \"skip\"`")]
    Draft,
    /// The project builds no forks.
    #[error("the pull request comes from a fork, and the project has `fork_builds = \"never\"`")]
    ForkNever,
    /// Someone must approve it first.
    #[error("pull request {number} comes from a fork: someone of the project must look at it and approve this commit")]
    ForkApproval {
        /// Its number.
        number: u64,
    },
    /// The pipeline does not name the event.
    #[error("the pipeline has no `{0}`")]
    NoTrigger(&'static str),
    /// The pipeline names no branches, so only the default one is built.
    #[error("branch `{branch}` is not the default branch `{default}`, and the pipeline has no `on.push.branches`")]
    NotDefaultBranch {
        /// The branch.
        branch: String,
        /// The default branch.
        default: String,
    },
    /// The branch or tag matches none of a filter's globs.
    #[error("{what} `{name}` matches none of `{filter}`: {}", list(.globs))]
    NoMatch {
        /// `branch` or `tag`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The filter, like `on.push.branches`.
        filter: &'static str,
        /// Its globs.
        globs: Vec<String>,
    },
    /// No changed path matches.
    #[error("no changed path matches `{filter}`: {}", list(.globs))]
    NoPath {
        /// The filter.
        filter: &'static str,
        /// Its globs.
        globs: Vec<String>,
    },
    /// All changed paths are ignored.
    #[error("every changed path matches `{filter}`: {}", list(.globs))]
    PathsIgnored {
        /// The filter.
        filter: &'static str,
        /// Its globs.
        globs: Vec<String>,
    },
    /// No stage asks for releases.
    #[error("no stage asks for releases (`when: {{ event: [release] }}`)")]
    ReleaseNotAsked,
}

impl Reason {
    /// A short name that stays the same: for metrics, the API and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Reason::OtherRepository { .. } => "other-repository",
            Reason::ReplacedRepository { .. } => "replaced-repository",
            Reason::RepositoryMoved { .. } => "repository-moved",
            Reason::NotBuilt(_) => "not-built",
            Reason::PushTellsIt => "push-tells-it",
            Reason::Deleted(_) => "deleted",
            Reason::NeitherBranchNorTag(_) => "no-branch-no-tag",
            Reason::SkipMark { .. } => "skip-mark",
            Reason::ProjectBranch { .. } => "project-branches",
            Reason::PullRequestAction(_) => "pull-request-action",
            Reason::ReleaseAction(_) => "release-action",
            Reason::Draft => "draft",
            Reason::ForkNever => "fork-never",
            Reason::ForkApproval { .. } => "fork-approval",
            Reason::NoTrigger(_) => "no-trigger",
            Reason::NotDefaultBranch { .. } => "not-default-branch",
            Reason::NoMatch { .. } => "no-match",
            Reason::NoPath { .. } => "no-path",
            Reason::PathsIgnored { .. } => "paths-ignored",
            Reason::ReleaseNotAsked => "release-not-asked",
        }
    }
}

impl Serialize for Reason {
    /// As `{ code, text }`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            code: &'a str,
            text: String,
        }

        Shown { code: self.code(), text: self.to_string() }.serialize(serializer)
    }
}

/// The first globs of a filter, quoted; a filter may have thousands.
fn list(globs: &[String]) -> String {
    let mut quoted: Vec<String> = globs.iter().take(5).map(|glob| format!("`{glob}`")).collect();
    if let Some(more) = globs.len().checked_sub(5).filter(|more| *more > 0) {
        quoted.push(format!("and {more} more"));
    }
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_filters_are_cut() {
        let globs = |count: u32| (0..count).map(|number| format!("b{number}")).collect::<Vec<_>>();
        assert_eq!(list(&globs(1)), "`b0`");
        assert_eq!(list(&globs(5)), "`b0`, `b1`, `b2`, `b3`, `b4`");
        assert_eq!(list(&globs(7)), "`b0`, `b1`, `b2`, `b3`, `b4`, and 2 more");
    }

    #[test]
    fn as_json() {
        let reason = Reason::Deleted("refs/heads/x".into());
        let expected = r#"{"code":"deleted","text":"`refs/heads/x` was deleted"}"#;
        assert_eq!(serde_json::to_string(&reason).unwrap(), expected);
    }
}
