//! The projects of the configuration, with what is needed to work on them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use crate::config::repository::Repository;
use crate::config::types::{Config, Forks, GitHub, Project as Settings, SecretFrom};
use crate::pipeline::condition::any_glob;
use crate::source::mirror::{Credentials, Head, Limits, Mirror, MirrorError, Network, Remote, Token};
use crate::trigger::decide::{DraftPolicy, ForkPolicy, ProjectPolicy};

/// One project.
#[derive(Debug)]
pub struct Project {
    /// Its name.
    pub name: String,
    /// What the configuration says of it.
    pub settings: Settings,
    /// What its deliveries are held against; the default branch is asked of the repository.
    pub policy: ProjectPolicy,
    /// By which webhooks are signed; none if it has none.
    pub webhook_secret: Option<Vec<u8>>,
    /// Why it cannot be worked on, for people: a secret that is not there, an address that is not taken.
    pub problem: Option<String>,
    /// How GitHub's API names its repository: `repos/OWNER/NAME` or `repositories/NUMBER`; none if it is not there.
    pub forge: Option<String>,
    /// Others are told of its builds.
    pub reports: bool,
    /// Its repository; none if there is a problem.
    pub mirror: Option<Mirror>,
    /// The repository's refs when they were looked at last.
    heads: Mutex<Option<Arc<Vec<Head>>>>,
}

impl Project {
    /// A project as it is configured now. What is wrong with it is kept in it, so that the others go on.
    fn new(name: &str, settings: &Settings, config: &Config, mirrors: &Path) -> Self {
        let mut problems = Vec::new();
        let mut read = |from: &Option<SecretFrom>, what: &str| {
            let read = from.as_ref().map(|from| secret(from).map_err(|error| format!("{what}: {error}")));
            read.and_then(|read| read.map_err(|problem| problems.push(problem)).ok())
        };
        let webhook_secret = read(&settings.webhook_secret, "the webhook's secret");
        let opened = remote(settings).and_then(|remote| {
            Mirror::open_in_place(mirrors, remote, Limits::default()).map_err(|error| error.to_string())
        });
        let mirror = opened.map_err(|problem| problems.push(problem)).ok();
        let problem = (!problems.is_empty()).then(|| problems.join("; "));
        let forge = forge(&config.github, settings);
        let noted = config.notify.values().any(|notify| any_glob(&notify.projects, name));
        Self {
            name: name.to_owned(),
            reports: forge.is_some() || noted,
            forge,
            settings: settings.clone(),
            policy: policy(name, settings),
            webhook_secret: webhook_secret.map(String::into_bytes),
            problem,
            mirror,
            heads: Mutex::default(),
        }
    }

    /// The repository's refs when they were looked at last.
    pub fn heads(&self) -> Option<Arc<Vec<Head>>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the repository's refs.
    pub fn saw(&self, heads: Vec<Head>) -> Arc<Vec<Head>> {
        let heads = Arc::new(heads);
        *self.heads.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&heads));
        heads
    }

    /// The repository.
    ///
    /// # Errors
    /// [`MirrorError::Refused`] with the project's problem.
    pub fn mirror(&self) -> Result<&Mirror, MirrorError> {
        let problem = || self.problem.clone().unwrap_or_else(|| "the repository cannot be used".to_owned());
        self.mirror.as_ref().ok_or_else(|| MirrorError::Refused(problem()))
    }

    /// The folder of a repository on this machine.
    pub fn local(&self) -> Option<&Path> {
        match &self.settings.repository {
            Repository::Local(path) => Some(path),
            Repository::Remote(_) => None,
        }
    }
}

/// A secret's text, without the white space around it.
///
/// # Errors
/// What is wrong, without the text.
pub fn secret(from: &SecretFrom) -> Result<String, String> {
    let text = match from {
        SecretFrom::File(path) => {
            std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?
        }
        SecretFrom::Environment(name) => {
            std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))?
        }
    };
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// Where a project's repository is, and what lets us in.
///
/// # Errors
/// What is wrong, for people: the token's variable is not set.
pub fn remote(settings: &Settings) -> Result<Remote, String> {
    let token = match &settings.token {
        Some(SecretFrom::File(path)) => Some(Token::File(path.clone())),
        Some(from @ SecretFrom::Environment(_)) => {
            Some(Token::Text(secret(from).map_err(|error| format!("the repository's token: {error}"))?))
        }
        None => None,
    };
    let is_http = settings.repository.is_http();
    let (url, credentials) = match (&settings.repository, token.filter(|_| is_http), &settings.ssh_key) {
        (Repository::Local(path), _, _) => (path.display().to_string(), Credentials::None),
        (Repository::Remote(url), Some(token), _) => {
            (url.clone(), Credentials::Token { user: settings.token_user.clone(), token })
        }
        (Repository::Remote(url), None, Some(key)) if !is_http => {
            let beside = || key.parent().unwrap_or(Path::new("/")).join("known_hosts");
            let known_hosts = settings.known_hosts.clone().unwrap_or_else(beside);
            (url.clone(), Credentials::SshKey { path: key.clone(), known_hosts })
        }
        (Repository::Remote(url), None, _) => (url.clone(), Credentials::None),
    };
    let network = Network { plain_http: settings.allow_http, authorities: settings.ca_file.clone() };
    Ok(Remote { url, credentials, network })
}

fn policy(name: &str, settings: &Settings) -> ProjectPolicy {
    let full_name = match &settings.repository {
        Repository::Remote(url) => full_name(url),
        Repository::Local(_) => String::new(),
    };
    ProjectPolicy {
        name: name.to_owned(),
        repository_id: settings.repository_id,
        full_name,
        default_branch: "main".to_owned(),
        branches: settings.branches.clone(),
        fork_builds: match settings.forks {
            Forks::Approve => ForkPolicy::Approve,
            Forks::Never => ForkPolicy::Never,
            Forks::Always => ForkPolicy::Always,
        },
        draft_builds: if settings.drafts { DraftPolicy::Build } else { DraftPolicy::Skip },
    }
}

/// How GitHub's API names the repository, if anything is reported there.
fn forge(github: &GitHub, settings: &Settings) -> Option<String> {
    let wanted = github.status || github.checks || github.comment;
    if !wanted || (github.token.is_none() && github.app.is_none()) {
        return None;
    }
    let api = url::Url::parse(&github.api_url).ok()?;
    let host = match api.host_str()? {
        "api.github.com" => "github.com",
        enterprise => enterprise,
    };
    let by_name = settings.repository.on_host(host).map(|name| format!("repos/{name}"));
    by_name.or_else(|| Some(format!("repositories/{}", settings.repository_id?)))
}

/// `owner/name` of an address.
fn full_name(url: &str) -> String {
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => url.split_once(':').map_or("", |(_, path)| path),
    };
    let path = path.trim_matches('/');
    path.strip_suffix(".git").unwrap_or(path).to_owned()
}

/// All projects, as of the newest good configuration.
pub type All = Arc<BTreeMap<String, Arc<Project>>>;

/// Keeps projects as the configuration says, and wakes their workers.
#[derive(Debug, Clone)]
pub struct Projects {
    all: watch::Receiver<All>,
    wakers: Arc<Mutex<BTreeMap<String, Arc<Notify>>>>,
}

impl Projects {
    /// The projects of a configuration; the sender takes newer ones.
    pub fn new(config: &Config, mirrors: &Path) -> (watch::Sender<All>, Self) {
        let (sender, all) = watch::channel(read(config, mirrors));
        (sender, Self { all, wakers: Arc::default() })
    }

    /// All of them now.
    pub fn all(&self) -> All {
        Arc::clone(&self.all.borrow())
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<Arc<Project>> {
        self.all.borrow().get(name).cloned()
    }

    /// To be told of changes.
    pub fn changes(&self) -> watch::Receiver<All> {
        self.all.clone()
    }

    /// What wakes the worker of a project.
    pub fn waker(&self, name: &str) -> Arc<Notify> {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(wakers.entry(name.to_owned()).or_default())
    }
}

/// Reads the projects of a configuration. Reads the files of their secrets.
pub fn read(config: &Config, mirrors: &Path) -> All {
    let made = config.projects.iter().map(|(name, settings)| {
        let project = Project::new(name, settings, config, mirrors);
        if let Some(problem) = &project.problem {
            tracing::error!(project = name, "the project cannot be worked on: {problem}");
        }
        (name.clone(), Arc::new(project))
    });
    Arc::new(made.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories() {
        let check = |url: &str, expected: &str| assert_eq!(full_name(url), expected, "{url}");
        check("https://github.com/acme/model.git", "acme/model");
        check("https://github.com/acme/model/", "acme/model");
        check("git@github.com:acme/model.git", "acme/model");
        check("ssh://git@github.com:22/acme/model", "acme/model");
    }
}
