//! The fields of GitHub's payloads that are read, as GitHub names them.

use serde::Deserialize;

use super::bounded::{Distinct, Few, Inputs, Scalar};

#[derive(Deserialize)]
pub(super) struct Action {
    pub(super) action: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Envelope {
    pub(super) repository: Option<Repository>,
    pub(super) sender: Option<Account>,
}

#[derive(Deserialize)]
pub(super) struct Repository {
    pub(super) id: u64,
    pub(super) full_name: String,
    pub(super) clone_url: Option<String>,
    pub(super) default_branch: Option<String>,
    #[serde(default)]
    pub(super) private: bool,
    #[serde(default)]
    pub(super) fork: bool,
}

#[derive(Deserialize)]
pub(super) struct Account {
    pub(super) login: String,
    pub(super) id: u64,
}

#[derive(Deserialize)]
pub(super) struct Push {
    pub(super) r#ref: String,
    pub(super) before: String,
    pub(super) after: String,
    #[serde(default)]
    pub(super) created: bool,
    #[serde(default)]
    pub(super) deleted: bool,
    #[serde(default)]
    pub(super) forced: bool,
    pub(super) head_commit: Option<HeadCommit>,
    pub(super) commits: Option<Distinct>,
    pub(super) pusher: Option<Pusher>,
}

#[derive(Deserialize)]
pub(super) struct HeadCommit {
    pub(super) id: String,
    pub(super) message: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Pusher {
    pub(super) name: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct PullRequestEvent {
    pub(super) action: String,
    pub(super) number: u64,
    pub(super) pull_request: PullRequest,
}

#[derive(Deserialize)]
pub(super) struct PullRequest {
    pub(super) title: Option<String>,
    pub(super) draft: Option<bool>,
    pub(super) merged: Option<bool>,
    pub(super) user: Option<Account>,
    pub(super) head: End,
    pub(super) base: End,
    pub(super) labels: Option<Few<Label, 100>>,
}

/// One end of a pull request.
#[derive(Deserialize)]
pub(super) struct End {
    pub(super) r#ref: String,
    pub(super) sha: String,
    /// None once a fork was deleted.
    pub(super) repo: Option<Id>,
}

#[derive(Deserialize)]
pub(super) struct Id {
    pub(super) id: u64,
}

#[derive(Deserialize)]
pub(super) struct Label {
    pub(super) name: String,
}

#[derive(Deserialize)]
pub(super) struct ReleaseEvent {
    pub(super) action: String,
    pub(super) release: Release,
}

#[derive(Deserialize)]
pub(super) struct Release {
    pub(super) tag_name: String,
    pub(super) target_commitish: Option<String>,
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) draft: bool,
    #[serde(default)]
    pub(super) prerelease: bool,
}

#[derive(Deserialize)]
pub(super) struct PingEvent {
    pub(super) hook: Hook,
}

#[derive(Deserialize)]
pub(super) struct Hook {
    pub(super) id: u64,
    pub(super) r#type: Option<String>,
    pub(super) active: Option<bool>,
    #[serde(default)]
    pub(super) events: Few<String, 200>,
    pub(super) config: Option<HookConfig>,
}

#[derive(Deserialize)]
pub(super) struct HookConfig {
    pub(super) content_type: Option<String>,
    pub(super) insecure_ssl: Option<Scalar>,
}

#[derive(Deserialize)]
pub(super) struct NamedRef {
    pub(super) r#ref: Option<String>,
    pub(super) ref_type: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct CheckRunEvent {
    pub(super) check_run: CheckRun,
}

#[derive(Deserialize)]
pub(super) struct CheckRun {
    pub(super) id: u64,
    pub(super) head_sha: String,
    pub(super) name: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) app: Option<Id>,
}

#[derive(Deserialize)]
pub(super) struct Dispatch {
    pub(super) r#ref: String,
    pub(super) workflow: Option<String>,
    pub(super) inputs: Option<Inputs>,
}
