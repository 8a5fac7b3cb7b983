//! The first step: what can be said without the repository.

use std::collections::BTreeMap;

use super::{Base, Candidate, Event, First, PingReport, ProjectPolicy, PullRequest, Reason, Rebuild, skip_mark};
use crate::pipeline::condition::any_glob;
use crate::trigger::git::GitRef;
use crate::trigger::github::{
    Actor, DispatchEvent, GithubEvent, PingEvent, PullRequestEvent, PushEvent, Received, ReleaseEvent, RepositoryRef,
};

/// Whether a repository is a project's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepositoryMatch {
    /// It is.
    Same,
    /// It is, by its number, but has another name than in the project's settings.
    Renamed,
    /// It has the project's name, but another number than the project's: somebody made a new one in the old one's place.
    Replaced,
    /// It is another.
    Other,
}

/// Whether a repository is a project's: by its number once the project knows that, by its name before.
pub fn repository_match(repository: &RepositoryRef, policy: &ProjectPolicy) -> RepositoryMatch {
    let same_name = repository.full_name.eq_ignore_ascii_case(&policy.full_name);
    match policy.repository_id {
        // A project that names no repository on GitHub (it builds from a local one) cannot be told of another name.
        Some(id) if id == repository.id && (same_name || policy.full_name.is_empty()) => RepositoryMatch::Same,
        Some(id) if id == repository.id => RepositoryMatch::Renamed,
        Some(_) if same_name => RepositoryMatch::Replaced,
        None if same_name && !policy.full_name.is_empty() => RepositoryMatch::Same,
        Some(_) | None => RepositoryMatch::Other,
    }
}

/// Decides what a delivery means for a project, as far as the repository is not needed for it.
pub fn first(received: &Received, policy: &ProjectPolicy) -> First {
    if let GithubEvent::Ping(ping) = &received.event {
        return First::CheckSetup(check_setup(ping, received.repository.as_ref(), policy));
    }
    let Some(repository) = &received.repository else {
        return First::Ignore(Reason::NotBuilt(event_name(&received.event)));
    };
    let note = match repository_match(repository, policy) {
        RepositoryMatch::Same => None,
        RepositoryMatch::Renamed => Some(moved(repository, policy)),
        RepositoryMatch::Replaced => return First::Ignore(replaced(repository, policy)),
        RepositoryMatch::Other => return First::Ignore(other(repository, policy)),
    };
    let actor = received.sender.as_ref();
    let found = match &received.event {
        GithubEvent::Push(event) => push(event, actor, policy),
        GithubEvent::PullRequest(event) => pull_request(event, actor, policy),
        GithubEvent::Release(event) => release(event, actor),
        GithubEvent::WorkflowDispatch(event) => dispatch(event, actor),
        GithubEvent::CheckRunRerequested(event) => Ok(First::Rebuild(Rebuild {
            commit: event.commit.clone(),
            check_run: event.id,
            external_id: event.external_id.clone(),
            app: event.app,
            actor: actor.cloned(),
        })),
        GithubEvent::Create { .. } | GithubEvent::Delete { .. } => Err(Reason::PushTellsIt),
        GithubEvent::Other { event, action: Some(action) }
            if event == "repository" && matches!(action.as_str(), "renamed" | "transferred") =>
        {
            Err(note.clone().unwrap_or_else(|| Reason::NotBuilt(event_name(&received.event))))
        }
        GithubEvent::Other { .. } | GithubEvent::Ping(_) => Err(Reason::NotBuilt(event_name(&received.event))),
    };
    match found {
        Err(reason) => First::Ignore(reason),
        Ok(First::Candidate(mut candidate)) => {
            candidate.note = note.map(|note| note.to_string());
            First::Candidate(candidate)
        }
        Ok(other) => other,
    }
}

fn moved(repository: &RepositoryRef, policy: &ProjectPolicy) -> Reason {
    Reason::RepositoryMoved { full_name: repository.full_name.clone(), project: policy.name.clone() }
}

fn other(repository: &RepositoryRef, policy: &ProjectPolicy) -> Reason {
    Reason::OtherRepository { full_name: repository.full_name.clone(), project: policy.name.clone() }
}

fn replaced(repository: &RepositoryRef, policy: &ProjectPolicy) -> Reason {
    Reason::ReplacedRepository {
        full_name: repository.full_name.clone(),
        project: policy.name.clone(),
        expected: policy.repository_id.unwrap_or_default(),
        found: repository.id,
    }
}

/// `event.action`, for messages.
fn event_name(event: &GithubEvent) -> String {
    match event {
        GithubEvent::Push(_) => "push".to_owned(),
        GithubEvent::PullRequest(event) => format!("pull_request.{}", event.action),
        GithubEvent::Release(event) => format!("release.{}", event.action),
        GithubEvent::Ping(_) => "ping".to_owned(),
        GithubEvent::Create { .. } => "create".to_owned(),
        GithubEvent::Delete { .. } => "delete".to_owned(),
        GithubEvent::CheckRunRerequested(_) => "check_run.rerequested".to_owned(),
        GithubEvent::WorkflowDispatch(_) => "workflow_dispatch".to_owned(),
        GithubEvent::Other { event, action: Some(action) } => format!("{event}.{action}"),
        GithubEvent::Other { event, action: None } => event.clone(),
    }
}

/// A candidate with nothing but what each has.
fn candidate(event: Event, git_ref: GitRef, actor: Option<&Actor>) -> Candidate {
    Candidate {
        event,
        commit: None,
        branch: git_ref.branch().map(str::to_owned),
        tag: git_ref.tag().map(str::to_owned),
        git_ref,
        base: None,
        pull_request: None,
        actor: actor.cloned(),
        title: None,
        before: None,
        inputs: BTreeMap::new(),
        note: None,
    }
}

fn push(event: &PushEvent, actor: Option<&Actor>, policy: &ProjectPolicy) -> Result<First, Reason> {
    let git_ref = &event.git_ref;
    let kind = match (git_ref.branch(), git_ref.tag()) {
        (Some(_), _) => Event::Push,
        (None, Some(_)) => Event::Tag,
        (None, None) => return Err(Reason::NeitherBranchNorTag(git_ref.to_string())),
    };
    let Some(after) = event.after.as_ref() else {
        return Err(Reason::Deleted(git_ref.to_string()));
    };
    let commit = match kind {
        // An annotated tag stands at itself; its commit is the head.
        Event::Tag => event.head.as_ref().unwrap_or(after),
        Event::Push | Event::PullRequest | Event::Release | Event::Manual => after,
    };
    if let Some(branch) = git_ref.branch() {
        of_project(branch, policy)?;
    }
    if let Some(mark) = event.message.as_deref().and_then(skip_mark) {
        return Err(Reason::SkipMark { place: "the commit's message", mark });
    }
    let title = event.message.as_deref().and_then(|message| message.lines().find(|line| !line.trim().is_empty()));
    Ok(First::Candidate(Box::new(Candidate {
        commit: Some(commit.clone()),
        title: title.map(|title| title.trim().chars().take(300).collect()),
        before: event.before.clone(),
        ..candidate(kind, git_ref.clone(), actor)
    })))
}

/// Whether the project builds this branch.
fn of_project(branch: &str, policy: &ProjectPolicy) -> Result<(), Reason> {
    if policy.branches.is_empty() || any_glob(&policy.branches, branch) {
        return Ok(());
    }
    Err(Reason::ProjectBranch { branch: branch.to_owned(), globs: policy.branches.clone() })
}

fn pull_request(event: &PullRequestEvent, actor: Option<&Actor>, policy: &ProjectPolicy) -> Result<First, Reason> {
    match event.action.as_str() {
        "closed" => return Ok(First::CancelPullRequest { number: event.number, merged: event.merged }),
        "opened" | "synchronize" | "reopened" | "ready_for_review" => {}
        action => return Err(Reason::PullRequestAction(action.to_owned())),
    }
    of_project(&event.base_ref, policy)?;
    if let Some(mark) = skip_mark(&event.title) {
        return Err(Reason::SkipMark { place: "the pull request's title", mark });
    }
    Ok(First::Candidate(Box::new(Candidate {
        commit: Some(event.head.clone()),
        branch: Some(event.base_ref.clone()),
        base: Some(Base { branch: event.base_ref.clone(), commit: event.base.clone() }),
        pull_request: Some(PullRequest {
            number: event.number,
            head_ref: event.head_ref.clone(),
            from_fork: event.from_fork,
            draft: event.draft,
        }),
        title: Some(event.title.clone()),
        ..candidate(Event::PullRequest, GitRef::of_pull_request(event.number), actor)
    })))
}

fn release(event: &ReleaseEvent, actor: Option<&Actor>) -> Result<First, Reason> {
    // One release makes up to four deliveries: created, published, and one of prereleased and released.
    if event.action != "published" || event.draft {
        return Err(Reason::ReleaseAction(event.action.clone()));
    }
    let git_ref = GitRef::of_tag(&event.tag).ok_or_else(|| Reason::NeitherBranchNorTag(event.tag.clone()))?;
    let title = event.title.clone().or_else(|| Some(event.tag.clone()));
    Ok(First::Candidate(Box::new(Candidate { title, ..candidate(Event::Release, git_ref, actor) })))
}

fn dispatch(event: &DispatchEvent, actor: Option<&Actor>) -> Result<First, Reason> {
    if event.git_ref.branch().is_none() && event.git_ref.tag().is_none() {
        return Err(Reason::NeitherBranchNorTag(event.git_ref.to_string()));
    }
    let inputs = event.inputs.clone();
    Ok(First::Candidate(Box::new(Candidate { inputs, ..candidate(Event::Manual, event.git_ref.clone(), actor) })))
}

/// What is wrong with a webhook, one sentence each.
fn check_setup(ping: &PingEvent, repository: Option<&RepositoryRef>, policy: &ProjectPolicy) -> PingReport {
    let mut problems = Vec::new();
    match repository.map(|repository| (repository, repository_match(repository, policy))) {
        None | Some((_, RepositoryMatch::Same)) => {}
        Some((repository, RepositoryMatch::Renamed)) => problems.push(moved(repository, policy).to_string()),
        Some((repository, RepositoryMatch::Replaced)) => problems.push(replaced(repository, policy).to_string()),
        Some((repository, RepositoryMatch::Other)) => problems.push(other(repository, policy).to_string()),
    }
    if !ping.active {
        problems.push("the webhook is switched off: tick `Active` in its settings".to_owned());
    }
    match ping.content_type.as_deref() {
        None | Some("json") => {}
        Some("form") => problems.push(
            "the content type is application/x-www-form-urlencoded: it is understood, but application/json is smaller"
                .into(),
        ),
        Some(other) => problems.push(format!("the content type `{other}` is not supported: choose application/json")),
    }
    let missing: Vec<&str> = [("push", "pushes"), ("pull_request", "pull requests")]
        .into_iter()
        .filter(|(event, _)| !ping.events.iter().any(|sent| sent == event || sent == "*"))
        .map(|(_, what)| what)
        .collect();
    if !missing.is_empty() {
        problems.push(format!("the webhook does not tell of {}: choose these events too", missing.join(" and ")));
    }
    if ping.insecure_ssl {
        problems.push("the webhook does not check this server's certificate: switch `SSL verification` on".to_owned());
    }
    PingReport { hook: ping.hook, problems }
}
