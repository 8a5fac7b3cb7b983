//! The configuration as checked values. What each means is said in [`super::keys`].
//!
//! PURE.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;

use super::repository::Repository;

/// Everything that the file says, with defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the daemon listens.
    pub server: Server,
    /// The data folder; `None` for the usual place.
    pub data_dir: Option<PathBuf>,
    /// `/metrics`.
    pub metrics: Metrics,
    /// The daemon's own log.
    pub log: Log,
    /// By name, never empty.
    pub runners: IndexMap<String, Runner>,
    /// How many builds may wait.
    pub max_waiting: usize,
    /// By name, in the order of the file.
    pub projects: IndexMap<String, Project>,
    /// GitHub's API.
    pub github: GitHub,
    /// Where artifacts are kept.
    pub artifacts: Artifacts,
    /// What is kept.
    pub retention: Retention,
    /// Who may sign in.
    pub auth: Auth,
    /// Who is told, by name.
    pub notify: IndexMap<String, Notify>,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How others reach it, without a slash at the end; made from `listen` if not given.
    pub public_url: String,
    /// Certificate and key, for https.
    pub tls: Option<Tls>,
    /// Proxies that are believed.
    pub trusted_proxies: Vec<Network>,
}

impl Server {
    /// The URL that is made from the address.
    pub fn usual_url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.listen)
    }
}

/// `[server.tls]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with the chain.
    pub cert: PathBuf,
    /// PEM file with the key.
    pub key: PathBuf,
}

/// Addresses that share their first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// One address in it.
    pub address: std::net::IpAddr,
    /// How many first bits count.
    pub bits: u8,
}

impl Network {
    /// Reads `10.0.0.0/8` or a single address.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: std::net::IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most)?,
            None => most,
        };
        Some(Self { address, bits })
    }

    /// Whether the address is in it. An IPv4 address inside IPv6 (`::ffff:10.0.0.1`) counts as IPv4.
    pub fn holds(self, address: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        let same = |a: u128, b: u128, width: u8| {
            let drop = u32::from(width.saturating_sub(self.bits));
            a.checked_shr(drop).unwrap_or(0) == b.checked_shr(drop).unwrap_or(0)
        };
        match (self.address, address.to_canonical()) {
            (V4(a), V4(b)) => same(u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
            (V6(a), V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            (V4(_), V6(_)) | (V6(_), V4(_)) => false,
        }
    }
}

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// Whether it is served.
    pub enabled: bool,
    /// Its own address, else the server's.
    pub listen: Option<SocketAddr>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// One JSON object a line.
    pub json: bool,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}

/// What a runner runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerKind {
    /// Containers.
    Docker,
    /// Processes.
    Local,
}

/// `[runners.<name>]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// What it runs.
    pub kind: RunnerKind,
    /// Stages at once, at least 1.
    pub slots: usize,
    /// The engine's endpoint.
    pub host: Option<String>,
}

/// How new commits are found, besides webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// Not at all.
    Off,
    /// By watching a local repository.
    Watch,
    /// By asking every so often.
    Every(Duration),
}

/// What is done with pull requests from forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forks {
    /// Built once a person approved the commit.
    Approve,
    /// Never built.
    Never,
    /// Built at once, still without secrets.
    Always,
}

/// What is done with scheduled builds that were missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// One run for all of them.
    Once,
    /// None.
    Skip,
}

/// Where a secret is. Its text is never in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    /// In a file, white space around it not counted.
    File(PathBuf),
    /// In an environment variable.
    Environment(String),
}

/// `[projects.<name>]`, with `[defaults]` filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// What is built.
    pub repository: Repository,
    /// GitHub's number of it.
    pub repository_id: Option<u64>,
    /// Patterns of branches.
    pub branches: Vec<String>,
    /// Patterns of pipeline files.
    pub pipeline: Vec<String>,
    /// How commits are found.
    pub poll: Poll,
    /// Secret of webhooks.
    pub webhook_secret: Option<SecretFrom>,
    /// Token for https.
    pub token: Option<SecretFrom>,
    /// The user's name that goes with the token.
    pub token_user: String,
    /// PEM file with certificates that are believed beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether `http://` to another machine is taken.
    pub allow_http: bool,
    /// Key for ssh.
    pub ssh_key: Option<PathBuf>,
    /// Keys of ssh hosts that are trusted; `None` for `known_hosts` beside the key.
    pub known_hosts: Option<PathBuf>,
    /// May use the local runner.
    pub trusted: bool,
    /// Its badge needs no token.
    pub public_badge: bool,
    /// Pull requests from forks.
    pub forks: Forks,
    /// Whether drafts are built.
    pub drafts: bool,
    /// Builds at once, at least 1.
    pub max_builds: usize,
    /// Higher starts first.
    pub priority: i64,
    /// Missed schedules.
    pub schedule_missed: Missed,
}

/// `[github]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitHub {
    /// The API's URL without a slash at the end.
    pub api_url: String,
    /// A token.
    pub token: Option<SecretFrom>,
    /// An App.
    pub app: Option<GitHubApp>,
    /// Commit statuses are written.
    pub status: bool,
    /// Checks are written.
    pub checks: bool,
    /// The pull-request comment is written.
    pub comment: bool,
}

/// `[github.app]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitHubApp {
    /// Its number.
    pub id: u64,
    /// Its private key.
    pub key: PathBuf,
    /// Its installation, if given.
    pub installation: Option<u64>,
}

/// `[artifacts]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// An absolute folder or `s3://…`; `None` for the data folder.
    pub url: Option<String>,
    /// S3's endpoint.
    pub endpoint: Option<String>,
    /// S3's region.
    pub region: Option<String>,
}

impl Artifacts {
    /// All of it in one address.
    pub fn address(&self) -> Option<String> {
        let url = self.url.clone()?;
        let mut more = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in [("endpoint", &self.endpoint), ("region", &self.region)] {
            if let Some(value) = value {
                more.append_pair(name, value);
            }
        }
        let more = more.finish();
        let joint = if url.contains('?') { '&' } else { '?' };
        Some(if more.is_empty() { url } else { format!("{url}{joint}{more}") })
    }
}

/// `[retention]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Newest builds kept for each project.
    pub builds: u64,
    /// Age of builds; `None` is for ever.
    pub age: Option<Duration>,
    /// Bytes for each project.
    pub size: Option<u64>,
    /// Age of deliveries; `None` is for ever.
    pub deliveries: Option<Duration>,
}

/// How people sign in, besides tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthMode {
    /// Tokens only.
    Token,
    /// OpenID Connect.
    Oidc {
        /// Its issuer.
        issuer: String,
        /// The client.
        client: OAuthClient,
        /// The claim that holds groups.
        groups_claim: String,
    },
    /// GitHub's OAuth.
    GitHub {
        /// Where people sign in, without a slash at the end.
        url: String,
        /// The client.
        client: OAuthClient,
    },
    /// Everybody may do everything.
    None,
}

/// A client at a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthClient {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: SecretFrom,
    /// Who may sign in.
    pub allowed: Vec<String>,
}

/// `[access.<name>]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Whom it is for.
    pub who: Vec<String>,
    /// `read`, `trigger`, `approve`, `admin`.
    pub scopes: Vec<String>,
    /// Names of projects; `None` for all.
    pub projects: Option<Vec<String>>,
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// How.
    pub mode: AuthMode,
    /// How long a sign-in lasts at most.
    pub session: Duration,
    /// How long it lasts without being used.
    pub idle: Duration,
    /// What those may do who sign in elsewhere; the first that names somebody holds.
    pub access: Vec<Access>,
}

/// `[notify.<name>]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// By what way.
    pub way: NotifyWay,
    /// Which events.
    pub events: Vec<String>,
    /// Patterns of projects.
    pub projects: Vec<String>,
}

/// How somebody is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotifyWay {
    /// Signed JSON.
    Webhook {
        /// Where to.
        url: SecretFrom,
        /// What signs it.
        secret: Option<SecretFrom>,
    },
    /// A Slack-compatible hook.
    Slack {
        /// Where to.
        url: SecretFrom,
    },
    /// A mail.
    Email {
        /// Server, `host:port`.
        smtp: String,
        /// User and password.
        login: Option<(String, SecretFrom)>,
        /// Sender.
        from: String,
        /// Receivers, at least one.
        to: Vec<String>,
    },
}
