//! Every key of `orchestrator.toml`: its meaning, its kind, its default. The checks, `config show` and `docs/configuration.md`
//! are all made from this one table.
//!
//! PURE.

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text that is not empty.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number between these two, both allowed.
    Number(i64, i64),
    /// A time like `30s`, `12h`, `90d`, or one of these words.
    Time(&'static [&'static str]),
    /// A size like `50GiB`.
    Size,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of texts, or a single text.
    Texts,
    /// A list of these words, or a single one.
    Words(&'static [&'static str]),
    /// A list of patterns for names, like `release/*`, or a single one.
    Globs,
    /// A list of IP addresses and networks, like `10.0.0.0/8`.
    Networks,
    /// A path; a relative one begins at the folder of the configuration file.
    Path,
    /// An IP address with a port.
    Address,
    /// An `http://` or `https://` URL.
    Url,
    /// A git repository.
    Repository,
    /// The path of a file that holds one secret.
    SecretFile,
    /// The name of an environment variable that holds one secret.
    SecretEnv,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Where it stands, with dots; `<name>` stands for a name that you choose.
    pub path: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// The default as it would be written; empty if there is none.
    pub default: &'static str,
    /// What it is for.
    pub doc: &'static str,
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, doc }
}

/// Tables whose entries have names that the user chooses.
pub const NAMED: &[&str] = &["runners", "projects", "access", "notify"];

/// Keys, and tables, whose change is taken up only by the next start.
pub const RESTART: &[&str] = &[
    "server.listen",
    "server.public_url",
    "server.tls.cert",
    "server.tls.key",
    "server.trusted_proxies",
    "data.dir",
    "metrics",
    "log",
    "runners.<name>.host",
    "artifacts",
    "auth",
];

/// Environment variables that go before the file.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("ORCHESTRATOR_LISTEN", "server.listen"),
    ("ORCHESTRATOR_PUBLIC_URL", "server.public_url"),
    ("ORCHESTRATOR_DATA_DIR", "data.dir"),
];

const MANY: i64 = 1_000_000_000;
const FORKS: Kind = Kind::Word(&["approve", "never", "always"]);
const MISSED: Kind = Kind::Word(&["once", "skip"]);
const POLL: Kind = Kind::Time(&["off", "watch"]);
const EVENTS: Kind = Kind::Words(&["passed", "failed", "cancelled", "fixed", "promoted", "refused", "approval"]);

/// The tables, each with a sentence about it, in the order in which they are shown.
pub const TABLES: &[(&str, &str)] = &[
    ("server", "Where the daemon listens."),
    ("data", "Where everything is kept."),
    ("metrics", "Numbers for Prometheus."),
    ("log", "What the daemon says of itself, on standard error."),
    ("runners.<name>", "Where stages run. Without any, there are `docker` and `local`, with 2 slots each."),
    ("queue", "Builds that wait."),
    ("defaults", "What holds for every project that does not say otherwise."),
    (
        "projects.<name>",
        "What is built. The name is lower-case letters, digits and `-`. Two projects may share a repository.",
    ),
    ("github", "How results get to GitHub: with a token, or as a GitHub App (needed for checks)."),
    ("artifacts", "Where the outputs of builds are kept."),
    ("retention", "What is kept, for each project. Champions and what they were made from are never removed."),
    ("auth", "Who may sign in."),
    (
        "access.<name>",
        "What those may do who sign in by `auth.mode` `oidc` or `github`. The first that names somebody holds; whoever is named \
         in none may look at everything but secrets.",
    ),
    ("notify.<name>", "Who is told."),
];

/// All keys, table by table.
pub const KEYS: &[Key] = &[
    key(
        "server.listen",
        Kind::Address,
        "\"127.0.0.1:8484\"",
        "The address and port to listen on. An address that others can reach needs `auth.mode` other than `none`.",
    ),
    key(
        "server.public_url",
        Kind::Url,
        "",
        "How others reach the daemon; used in links and in the webhook's URL. Without it, `http://` and the listen address.",
    ),
    key(
        "server.tls.cert",
        Kind::Path,
        "",
        "PEM file with the certificate chain. With `server.tls.key`, the daemon speaks https.",
    ),
    key("server.tls.key", Kind::SecretFile, "", "PEM file with the certificate's private key."),
    key(
        "server.trusted_proxies",
        Kind::Networks,
        "[]",
        "Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed. From all others these headers are ignored.",
    ),
    key(
        "data.dir",
        Kind::Path,
        "",
        "The data folder. Without it, `$XDG_DATA_HOME/orchestrator`, else `~/.local/share/orchestrator`.",
    ),
    key("metrics.enabled", Kind::Flag, "true", "Whether `/metrics` is served."),
    key(
        "metrics.listen",
        Kind::Address,
        "",
        "An address of its own for `/metrics`. Without it, it is served on `server.listen`.",
    ),
    key(
        "log.format",
        Kind::Word(&["human", "json"]),
        "\"human\"",
        "`human` for a terminal, `json` for a log collector: one object a line.",
    ),
    key(
        "log.level",
        Kind::Word(&["error", "warn", "info", "debug", "trace"]),
        "\"info\"",
        "The least important messages that are written.",
    ),
    key(
        "runners.<name>.kind",
        Kind::Word(&["docker", "local"]),
        "",
        "`docker` runs containers, `local` runs processes with the daemon's own rights. Not needed if the runner's name is one of these words.",
    ),
    key("runners.<name>.slots", Kind::Number(1, 1024), "2", "How many stages run at once."),
    key(
        "runners.<name>.host",
        Kind::Text,
        "",
        "The Docker engine's endpoint, `unix:///path` or `tcp://host:port`. Without it, as the docker command finds it.",
    ),
    key(
        "queue.max_waiting",
        Kind::Number(1, 1_000_000),
        "10000",
        "How many builds may wait. Beyond them a webhook, a poll or a schedule is decided when there is room; a build that someone asks for is refused.",
    ),
    key("defaults.branches", Kind::Globs, "[\"*\"]", "Branches that are looked at. `*` also stands for `/`."),
    key(
        "defaults.pipeline",
        Kind::Globs,
        "[\"pipeline.yaml\", \"pipelines/*.yaml\"]",
        "Pipeline files in the repository.",
    ),
    key(
        "defaults.poll",
        POLL,
        "\"5m\"",
        "How often a remote repository is asked for new commits, or `off`. Local ones are watched.",
    ),
    key(
        "defaults.forks",
        FORKS,
        "\"approve\"",
        "Pull requests from forks: build after somebody approved the commit, `never`, or `always`. They get no secrets in any case.",
    ),
    key("defaults.drafts", Kind::Flag, "false", "Whether draft pull requests are built."),
    key("defaults.max_builds", Kind::Number(1, 1000), "4", "How many builds of one project run at once."),
    key(
        "defaults.schedule_missed",
        MISSED,
        "\"once\"",
        "Scheduled builds that were missed while the daemon was down: run `once` after the start, or `skip` them.",
    ),
    key(
        "projects.<name>.repository",
        Kind::Repository,
        "",
        "Required. `https://…`, `ssh://…`, `git@host:path`, or the absolute path of a local repository.",
    ),
    key(
        "projects.<name>.repository_id",
        Kind::Number(1, i64::MAX),
        "",
        "GitHub's number of the repository. Webhooks are matched by it and survive a rename; without it, by the URL.",
    ),
    key("projects.<name>.branches", Kind::Globs, "", "As in `[defaults]`."),
    key("projects.<name>.pipeline", Kind::Globs, "", "As in `[defaults]`."),
    key(
        "projects.<name>.poll",
        POLL,
        "",
        "As in `[defaults]`; `watch` is for local repositories, and their default: a commit is seen at once.",
    ),
    key(
        "projects.<name>.webhook_secret_file",
        Kind::SecretFile,
        "",
        "File with the webhook's secret. Without a secret, webhooks for this project are refused.",
    ),
    key("projects.<name>.webhook_secret_env", Kind::SecretEnv, "", "Environment variable with the webhook's secret."),
    key(
        "projects.<name>.token_file",
        Kind::SecretFile,
        "",
        "File with a token (or password) for a repository by https. It is sent to the repository's own host alone.",
    ),
    key("projects.<name>.token_env", Kind::SecretEnv, "", "Environment variable with such a token."),
    key(
        "projects.<name>.token_user",
        Kind::Text,
        "\"x-access-token\"",
        "The user's name that goes with the token. GitHub and GitLab take any; some hosts want a certain one.",
    ),
    key(
        "projects.<name>.ca_file",
        Kind::Path,
        "",
        "PEM file with certificates that are believed beside the system's: of an authority of your own, or of the host itself.",
    ),
    key(
        "projects.<name>.allow_http",
        Kind::Flag,
        "false",
        "Whether the repository may be on `http://` at another machine: everybody on the way can read the token, and change what is built.",
    ),
    key(
        "projects.<name>.ssh_key_file",
        Kind::SecretFile,
        "",
        "Private key for a repository by ssh, without a passphrase. Needs the program `ssh`.",
    ),
    key(
        "projects.<name>.known_hosts_file",
        Kind::Path,
        "",
        "Keys of the hosts that are trusted by ssh, as `ssh-keyscan` writes them. Without it, `known_hosts` in the folder of the key.",
    ),
    key(
        "projects.<name>.trusted",
        Kind::Flag,
        "false",
        "Whether its pipelines may use the local runner and so act with the daemon's own rights.",
    ),
    key(
        "projects.<name>.public_badge",
        Kind::Flag,
        "false",
        "Whether its badge, and so how its newest build ended, is shown to those without a token.",
    ),
    key("projects.<name>.forks", FORKS, "", "As in `[defaults]`."),
    key("projects.<name>.drafts", Kind::Flag, "", "As in `[defaults]`."),
    key("projects.<name>.max_builds", Kind::Number(1, 1000), "", "As in `[defaults]`."),
    key(
        "projects.<name>.priority",
        Kind::Number(-100, 100),
        "0",
        "Builds of a project with a higher number start first.",
    ),
    key("projects.<name>.schedule_missed", MISSED, "", "As in `[defaults]`."),
    key(
        "github.api_url",
        Kind::Url,
        "\"https://api.github.com\"",
        "The API; for GitHub Enterprise `https://HOST/api/v3`.",
    ),
    key("github.token_file", Kind::SecretFile, "", "File with a token that may write commit statuses."),
    key("github.token_env", Kind::SecretEnv, "", "Environment variable with such a token."),
    key("github.app.id", Kind::Number(1, i64::MAX), "", "The number of a GitHub App."),
    key("github.app.key_file", Kind::SecretFile, "", "PEM file with the App's private key."),
    key(
        "github.app.installation",
        Kind::Number(1, i64::MAX),
        "",
        "The number of the App's installation. Without it, it is looked up for each repository.",
    ),
    key(
        "github.report",
        Kind::Words(&["status", "checks", "comment"]),
        "[\"status\"]",
        "What is written: a commit `status`, `checks` with annotations (App only), a `comment` in the pull request. `[]` for nothing.",
    ),
    key(
        "artifacts.url",
        Kind::Text,
        "",
        "A folder, or `s3://bucket/prefix`. Without it, `artifacts` in the data folder.",
    ),
    key(
        "artifacts.endpoint",
        Kind::Url,
        "",
        "The endpoint of an S3 that is not Amazon's. Credentials come from the usual `AWS_*` variables.",
    ),
    key("artifacts.region", Kind::Text, "", "The bucket's region."),
    key("retention.builds", Kind::Number(1, MANY), "1000", "The newest builds, this many, are kept."),
    key("retention.age", Kind::Time(&["forever"]), "\"90d\"", "Builds older than this are removed, or `forever`."),
    key(
        "retention.size",
        Kind::Size,
        "",
        "Oldest builds are removed until artifacts and logs fit. Without it, no limit.",
    ),
    key(
        "retention.deliveries",
        Kind::Time(&["forever"]),
        "\"30d\"",
        "How long webhook deliveries are kept, or `forever`.",
    ),
    key(
        "auth.mode",
        Kind::Word(&["token", "oidc", "github", "none"]),
        "\"token\"",
        "`token`: tokens made by orchestrator; `oidc` or `github`: sign-in there, besides tokens; `none`: everybody may do everything, only on a loopback address.",
    ),
    key("auth.session", Kind::Time(&[]), "\"12h\"", "How long a sign-in of a browser lasts at most."),
    key("auth.idle", Kind::Time(&[]), "\"4h\"", "How long it lasts without being used."),
    key(
        "auth.oidc.issuer",
        Kind::Url,
        "",
        "The provider's issuer URL. Give the provider the address `PUBLIC_URL/sign-in/callback` to send people back to.",
    ),
    key("auth.oidc.client_id", Kind::Text, "", "The client's id at the provider."),
    key("auth.oidc.client_secret_file", Kind::SecretFile, "", "File with the client's secret."),
    key("auth.oidc.client_secret_env", Kind::SecretEnv, "", "Environment variable with the client's secret."),
    key(
        "auth.oidc.allowed",
        Kind::Texts,
        "[]",
        "Who may sign in: e-mail addresses that the provider has verified, `@domain` for all of a domain, `group:NAME`, or `sub:ID` for a person by the provider's own id.",
    ),
    key("auth.oidc.groups_claim", Kind::Text, "\"groups\"", "The claim that holds somebody's groups."),
    key(
        "auth.github.client_id",
        Kind::Text,
        "",
        "The OAuth app's client id. Its callback URL is `PUBLIC_URL/sign-in/callback`.",
    ),
    key("auth.github.client_secret_file", Kind::SecretFile, "", "File with the OAuth app's secret."),
    key("auth.github.client_secret_env", Kind::SecretEnv, "", "Environment variable with the OAuth app's secret."),
    key(
        "auth.github.allowed",
        Kind::Texts,
        "[]",
        "Who may sign in: users, or `org/team`, or `org/*` for all of an organisation.",
    ),
    key(
        "auth.github.url",
        Kind::Url,
        "\"https://github.com\"",
        "Where people sign in; for GitHub Enterprise `https://HOST`. Who they are is asked at `github.api_url`.",
    ),
    key(
        "access.<name>.who",
        Kind::Texts,
        "[]",
        "Required. Whom it is for, written as in `allowed`; `*` is everybody who may sign in.",
    ),
    key(
        "access.<name>.scopes",
        Kind::Words(&["read", "trigger", "approve", "admin"]),
        "[\"read\"]",
        "What they may do. Each holds `read`, and `admin` holds all.",
    ),
    key(
        "access.<name>.projects",
        Kind::Texts,
        "",
        "Names of the projects that they see. All, if not given; `admin` needs all.",
    ),
    key(
        "notify.<name>.kind",
        Kind::Word(&["webhook", "slack", "email"]),
        "",
        "Required. `webhook` posts signed JSON, `slack` fits Slack-compatible hooks.",
    ),
    key("notify.<name>.url_file", Kind::SecretFile, "", "File with the URL to post to; such URLs are secrets."),
    key("notify.<name>.url_env", Kind::SecretEnv, "", "Environment variable with the URL to post to."),
    key("notify.<name>.secret_file", Kind::SecretFile, "", "File with the secret that signs webhooks."),
    key("notify.<name>.secret_env", Kind::SecretEnv, "", "Environment variable with the secret that signs webhooks."),
    key("notify.<name>.smtp", Kind::Text, "", "Mail server, `host:port`."),
    key("notify.<name>.user", Kind::Text, "", "User at the mail server."),
    key("notify.<name>.password_file", Kind::SecretFile, "", "File with the password at the mail server."),
    key(
        "notify.<name>.password_env",
        Kind::SecretEnv,
        "",
        "Environment variable with the password at the mail server.",
    ),
    key("notify.<name>.from", Kind::Text, "", "Sender of mails."),
    key("notify.<name>.to", Kind::Texts, "[]", "Receivers of mails."),
    key("notify.<name>.events", EVENTS, "[\"failed\", \"fixed\", \"promoted\"]", "What is told."),
    key("notify.<name>.projects", Kind::Globs, "[\"*\"]", "Of which projects."),
];

/// The key of this path, where names of the user's stand as `<name>`.
pub fn find(pattern: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == pattern)
}

/// What can stand directly below a table (`""` is the file itself).
pub fn below(pattern: &str) -> Vec<&'static str> {
    let mut found: Vec<&'static str> = Vec::new();
    for key in KEYS {
        let rest = match pattern {
            "" => Some(key.path),
            table => key.path.strip_prefix(table).and_then(|rest| rest.strip_prefix('.')),
        };
        let word = rest.and_then(|rest| rest.split('.').next());
        if let Some(word) = word.filter(|word| !found.contains(word)) {
            found.push(word);
        }
    }
    found
}

/// The path with `<name>` where the user's name stands: `projects.a.poll` becomes `projects.<name>.poll`.
pub fn pattern(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('.').collect();
    if parts.len() > 1 && NAMED.contains(&parts[0]) {
        parts[1] = "<name>";
    }
    parts.join(".")
}
