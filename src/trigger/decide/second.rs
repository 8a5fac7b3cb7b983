//! The second step: what the pipeline wants.

use super::{Candidate, Decision, DraftPolicy, Event, ForkPolicy, ProjectPolicy, PullRequest, Reason};
use crate::pipeline::condition::{any_glob, glob_set};
use crate::pipeline::types::{Pipeline, PullRequestTrigger, PushTrigger};

/// What a candidate is held against.
#[derive(Debug, Clone, Copy)]
pub struct Against<'a> {
    /// The pipeline at [`Candidate::pipeline_commit`].
    pub pipeline: &'a Pipeline,
    /// Paths that the commits change; none if that is not known, and then every filter of paths lets the candidate through:
    /// to build too much is better than too little.
    pub changed: Option<&'a [String]>,
    /// The project's settings.
    pub policy: &'a ProjectPolicy,
}

/// Decides whether a candidate becomes a build.
pub fn second(candidate: &Candidate, against: &Against<'_>) -> Decision {
    let wanted = match candidate.event {
        Event::Push | Event::Tag => pushed(candidate, against),
        Event::PullRequest => requested(candidate, against),
        Event::Release => released(against.pipeline),
        // Whoever may ask for a build gets it, whatever `on` says.
        Event::Manual => Ok(()),
    };
    if let Err(reason) = wanted {
        return Decision::Skip(reason);
    }
    let trust = candidate.trust();
    let fork = candidate.pull_request.as_ref().filter(|pull_request| pull_request.from_fork);
    match (fork, against.policy.fork_builds) {
        (None, _) | (Some(_), ForkPolicy::Always) => Decision::Start { trust },
        (Some(_), ForkPolicy::Never) => Decision::Skip(Reason::ForkNever),
        (Some(PullRequest { number, .. }), ForkPolicy::Approve) => match &candidate.commit {
            Some(commit) => {
                let reason = Reason::ForkApproval { number: *number };
                Decision::AwaitApproval { reason, bound_to: commit.clone(), trust }
            }
            // Without a commit there is nothing that an approval could be bound to.
            None => Decision::Skip(Reason::ForkNever),
        },
    }
}

fn pushed(candidate: &Candidate, against: &Against<'_>) -> Result<(), Reason> {
    let push = against.pipeline.on.push.as_ref().ok_or(Reason::NoTrigger("on.push"))?;
    match (&candidate.branch, &candidate.tag) {
        // What a tag changes against another commit says nothing: filters of paths are for branches.
        (_, Some(_)) if push.tags.is_empty() => Err(Reason::NoTrigger("on.push.tags")),
        (_, Some(tag)) => matches("tag", tag, "on.push.tags", &push.tags),
        (Some(branch), None) => {
            pushed_branch(branch, push, &against.policy.default_branch)?;
            let filters = PathFilters {
                only: ("on.push.paths", &push.paths),
                ignore: ("on.push.paths_ignore", &push.paths_ignore),
            };
            filters.hold(against.changed)
        }
        (None, None) => Err(Reason::NeitherBranchNorTag(candidate.git_ref.to_string())),
    }
}

fn pushed_branch(branch: &str, push: &PushTrigger, default: &str) -> Result<(), Reason> {
    match &push.branches {
        Some(globs) if globs.is_empty() => Ok(()),
        Some(globs) => matches("branch", branch, "on.push.branches", globs),
        None if branch == default => Ok(()),
        None => Err(Reason::NotDefaultBranch { branch: branch.to_owned(), default: default.to_owned() }),
    }
}

fn requested(candidate: &Candidate, against: &Against<'_>) -> Result<(), Reason> {
    let trigger: &PullRequestTrigger =
        against.pipeline.on.pull_request.as_ref().ok_or(Reason::NoTrigger("on.pull_request"))?;
    let draft = candidate.pull_request.as_ref().is_some_and(|pull_request| pull_request.draft);
    if draft && against.policy.draft_builds == DraftPolicy::Skip {
        return Err(Reason::Draft);
    }
    if !trigger.branches.is_empty() {
        let base = candidate.branch.as_deref().unwrap_or_default();
        matches("branch", base, "on.pull_request.branches", &trigger.branches)?;
    }
    let filters = PathFilters {
        only: ("on.pull_request.paths", &trigger.paths),
        ignore: ("on.pull_request.paths_ignore", &trigger.paths_ignore),
    };
    filters.hold(against.changed)
}

/// A release is built where a stage asks for releases. Its tag was pushed too, which `on.push.tags` is for; built for both by
/// itself, each release would be built twice.
fn released(pipeline: &Pipeline) -> Result<(), Reason> {
    let asks = pipeline.stages.values().any(|stage| stage.when.event.iter().any(|event| event == "release"));
    if asks { Ok(()) } else { Err(Reason::ReleaseNotAsked) }
}

fn matches(what: &'static str, name: &str, filter: &'static str, globs: &[String]) -> Result<(), Reason> {
    if any_glob(globs, name) {
        return Ok(());
    }
    Err(Reason::NoMatch { what, name: name.to_owned(), filter, globs: globs.to_owned() })
}

/// `paths` and `paths_ignore` of a trigger, with their names.
struct PathFilters<'a> {
    only: (&'static str, &'a [String]),
    ignore: (&'static str, &'a [String]),
}

impl PathFilters<'_> {
    fn hold(&self, changed: Option<&[String]>) -> Result<(), Reason> {
        let Some(changed) = changed else { return Ok(()) };
        let (filter, globs) = self.only;
        if !globs.is_empty() {
            let set = glob_set(globs);
            if !changed.iter().any(|path| set.is_match(path)) {
                return Err(Reason::NoPath { filter, globs: globs.to_owned() });
            }
        }
        let (filter, globs) = self.ignore;
        // An empty commit changes no path: it was made to start a build.
        if !globs.is_empty() && !changed.is_empty() {
            let set = glob_set(globs);
            if changed.iter().all(|path| set.is_match(path)) {
                return Err(Reason::PathsIgnored { filter, globs: globs.to_owned() });
            }
        }
        Ok(())
    }
}
