//! Single settings to the one [`Config`], and the rules between them.
//!
//! PURE.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indexmap::IndexMap;

use super::keys::{self, Kind};
use super::read::{Origin, Values};
use super::setting::{Setting, setting};
use super::types::{
    Access, Artifacts, Auth, AuthMode, Config, Forks, GitHub, GitHubApp, Log, Metrics, Missed, Network, Notify,
    NotifyWay, OAuthClient, Poll, Project, Retention, Runner, RunnerKind, SecretFrom, Server, Tls,
};
use crate::pipeline::diagnostic::{Diagnostic, Sink, Span};

/// Slots of the runners that are there without being named.
const USUAL_SLOTS: usize = 2;

/// Reads settings by path, with defaults, and notes what is missing.
pub(super) struct Reader<'a> {
    values: &'a Values,
    base: &'a Path,
    sink: &'a mut Sink,
}

impl<'a> Reader<'a> {
    pub(super) fn new(values: &'a Values, base: &'a Path, sink: &'a mut Sink) -> Self {
        Self { values, base, sink }
    }

    /// What was given, else the default.
    fn get(&self, path: &str) -> Option<Setting> {
        if let Some(given) = self.values.given.get(path) {
            return Some(given.setting.clone());
        }
        let key = keys::find(&keys::pattern(path))?;
        default_of(key)
    }

    fn text(&self, path: &str) -> Option<String> {
        match self.get(path) {
            Some(Setting::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn flag(&self, path: &str) -> bool {
        matches!(self.get(path), Some(Setting::Flag(true)))
    }

    fn number(&self, path: &str) -> Option<i64> {
        match self.get(path) {
            Some(Setting::Number(number)) => Some(number),
            _ => None,
        }
    }

    /// A number that was checked to be at least 0.
    fn count(&self, path: &str) -> Option<u64> {
        self.number(path).and_then(|number| u64::try_from(number).ok())
    }

    fn few(&self, path: &str) -> usize {
        self.count(path).and_then(|count| usize::try_from(count).ok()).unwrap_or(1)
    }

    fn time(&self, path: &str) -> Option<Duration> {
        match self.get(path) {
            Some(Setting::Time(time)) => Some(time),
            _ => None,
        }
    }

    fn texts(&self, path: &str) -> Vec<String> {
        match self.get(path) {
            Some(Setting::Texts(texts)) => texts,
            _ => Vec::new(),
        }
    }

    fn path(&self, path: &str) -> Option<PathBuf> {
        self.text(path).map(|text| self.base.join(text))
    }

    fn is_given(&self, path: &str) -> bool {
        self.values.given.contains_key(path)
    }

    /// The place of a value or of the table that should hold it.
    fn span(&self, path: &str) -> Span {
        let mut path = path;
        loop {
            if let Some(Origin::File(span)) = self.values.given.get(path).map(|given| &given.origin) {
                return *span;
            }
            if let Some((_, span)) = self.values.tables.iter().find(|(table, _)| table == path) {
                return *span;
            }
            match path.rsplit_once('.') {
                Some((parent, _)) => path = parent,
                None => return Span { line: 1, col: 1, offset: 0, len: 0 },
            }
        }
    }

    fn error(&mut self, code: &'static str, path: &str, message: impl Into<String>, help: impl Into<String>) {
        let span = self.span(path);
        // Where a value of this place was wrong already, what follows from that need not be told.
        if !self.sink.has_error_in(span) {
            self.sink.push(Diagnostic::error(code, span, message).help(help));
        }
    }

    fn warning(&mut self, code: &'static str, path: &str, message: impl Into<String>, help: impl Into<String>) {
        self.sink.push(Diagnostic::warning(code, self.span(path), message).help(help));
    }

    /// A secret by file or by environment, not both.
    fn secret(&mut self, path: &str) -> Option<SecretFrom> {
        let (file, variable) = (format!("{path}_file"), format!("{path}_env"));
        match (self.path(&file), self.text(&variable)) {
            (Some(_), Some(_)) => {
                self.error(
                    "two-secrets",
                    &variable,
                    format!("`{file}` and `{variable}` are both given"),
                    "take one of them out",
                );
                None
            }
            (Some(file), None) => Some(SecretFrom::File(file)),
            (None, Some(variable)) => Some(SecretFrom::Environment(variable)),
            (None, None) => None,
        }
    }

    /// A text that must be there.
    fn required(&mut self, path: &str, help: &str) -> String {
        match self.text(path) {
            Some(text) => text,
            None => {
                self.missing(path, help);
                String::new()
            }
        }
    }

    /// A secret that must be there.
    fn required_secret(&mut self, path: &str, help: &str) -> SecretFrom {
        match self.secret(path) {
            Some(secret) => secret,
            None => {
                self.missing(&format!("{path}_file"), help);
                SecretFrom::Environment(String::new())
            }
        }
    }

    fn missing(&mut self, path: &str, help: &str) {
        if self.values.broken.contains(path) {
            return;
        }
        let name = path.rsplit('.').next().unwrap_or(path);
        let table = path.strip_suffix(name).unwrap_or(path).trim_end_matches('.');
        self.error("missing-key", path, format!("`{name}` is missing in `[{table}]`"), help);
    }
}

/// The default as a value.
pub(super) fn default_of(key: &keys::Key) -> Option<Setting> {
    let value: toml_edit::Value = key.default.parse().ok()?;
    setting(key.kind, &value).ok()
}

/// Everything, with what is wrong told to the reader's sink.
pub(super) fn config(read: &mut Reader<'_>) -> Config {
    let server = server(read);
    let auth = auth(read, &server);
    Config {
        data_dir: read.path("data.dir"),
        metrics: Metrics { enabled: read.flag("metrics.enabled"), listen: address(read, "metrics.listen") },
        log: Log {
            json: read.text("log.format").as_deref() == Some("json"),
            level: read.text("log.level").unwrap_or_default(),
        },
        runners: runners(read),
        max_waiting: read.few("queue.max_waiting"),
        projects: projects(read),
        github: github(read),
        artifacts: artifacts(read),
        retention: retention(read),
        notify: notify(read),
        server,
        auth,
    }
}

fn address(read: &Reader<'_>, path: &str) -> Option<std::net::SocketAddr> {
    match read.get(path) {
        Some(Setting::Address(address)) => Some(address),
        _ => None,
    }
}

fn server(read: &mut Reader<'_>) -> Server {
    let listen = address(read, "server.listen").unwrap_or_else(|| ([127, 0, 0, 1], 8484).into());
    let tls = match (read.path("server.tls.cert"), read.path("server.tls.key")) {
        (Some(cert), Some(key)) => Some(Tls { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            read.missing("server.tls.key", "name the PEM file with the certificate's private key");
            None
        }
        (None, Some(_)) => {
            read.missing("server.tls.cert", "name the PEM file with the certificate chain");
            None
        }
    };
    let trusted_proxies: Vec<Network> = match read.get("server.trusted_proxies") {
        Some(Setting::Networks(networks)) => networks,
        _ => Vec::new(),
    };
    if trusted_proxies.iter().any(|network| network.bits == 0) {
        let help = "name the proxy's own address";
        read.error("trusts-everybody", "server.trusted_proxies", "every address would be believed as a proxy", help);
    }
    let server = Server { listen, public_url: String::new(), tls, trusted_proxies };
    Server { public_url: read.text("server.public_url").unwrap_or_else(|| server.usual_url()), ..server }
}

fn auth(read: &mut Reader<'_>, server: &Server) -> Auth {
    let word = read.text("auth.mode").unwrap_or_default();
    let mode = match word.as_str() {
        "oidc" => AuthMode::Oidc {
            issuer: read.required("auth.oidc.issuer", "write the provider's issuer URL"),
            client: client(read, "auth.oidc"),
            groups_claim: read.text("auth.oidc.groups_claim").unwrap_or_default(),
        },
        "github" => AuthMode::GitHub {
            url: read.text("auth.github.url").unwrap_or_default(),
            client: client(read, "auth.github"),
        },
        "none" => AuthMode::None,
        _ => AuthMode::Token,
    };
    if mode == AuthMode::None && !server.listen.ip().to_canonical().is_loopback() {
        let message = format!(
            "everybody who reaches {} could run programs on this machine: `auth.mode` is `none`",
            server.listen
        );
        let help = "listen on `127.0.0.1`, or choose `auth.mode = \"token\"`";
        read.error("public-without-auth", "auth.mode", message, help);
    }
    let asked = match &mode {
        AuthMode::Oidc { issuer, .. } => vec![("auth.oidc.issuer", issuer.clone())],
        AuthMode::GitHub { url, .. } => {
            vec![("auth.github.url", url.clone()), ("github.api_url", read.text("github.api_url").unwrap_or_default())]
        }
        AuthMode::Token | AuthMode::None => Vec::new(),
    };
    for (key, url) in asked {
        if super::repository::is_plain_http_elsewhere(&url) {
            let message = "who signs in is asked over plain `http://`: whoever is on the way can be anybody";
            read.error("plain-http", key, message, "use `https://`");
        }
    }
    Auth {
        mode,
        access: access(read),
        session: read.time("auth.session").unwrap_or(Duration::from_secs(43_200)),
        idle: read.time("auth.idle").unwrap_or(Duration::from_secs(14_400)),
    }
}

fn access(read: &mut Reader<'_>) -> Vec<Access> {
    let mut found = Vec::new();
    for (name, _) in read.values.names("access") {
        let at = |key: &str| format!("access.{name}.{key}");
        let (who, scopes) = (read.texts(&at("who")), read.texts(&at("scopes")));
        if who.is_empty() {
            read.missing(&at("who"), "write whom it is for, like `who = [\"@example.com\"]` or `[\"my-org/ml-team\"]`");
        }
        let projects = read.is_given(&at("projects")).then(|| read.texts(&at("projects")));
        if projects.is_some() && scopes.iter().any(|scope| scope == "admin") {
            let help = "take `projects` out, or give `trigger` and `approve`";
            read.error("admin-of-some", &at("projects"), "`admin` is not held to projects", help);
        }
        found.push(Access { who, scopes, projects });
    }
    found
}

fn client(read: &mut Reader<'_>, table: &str) -> OAuthClient {
    let allowed = read.texts(&format!("{table}.allowed"));
    if allowed.is_empty() {
        let help = "name who may sign in, like `allowed = [\"@example.com\"]` or `[\"my-org/*\"]`";
        read.missing(&format!("{table}.allowed"), help);
    }
    OAuthClient {
        id: read.required(&format!("{table}.client_id"), "write the client's id at the provider"),
        secret: read.required_secret(&format!("{table}.client_secret"), "name a file that holds the client's secret"),
        allowed,
    }
}

fn runners(read: &mut Reader<'_>) -> IndexMap<String, Runner> {
    let mut found: IndexMap<String, Runner> = IndexMap::new();
    for (name, _) in read.values.names("runners") {
        let at = |key: &str| format!("runners.{name}.{key}");
        let kind = match read.text(&at("kind")).as_deref().unwrap_or(name) {
            "docker" => RunnerKind::Docker,
            "local" => RunnerKind::Local,
            _ => {
                read.missing(&at("kind"), "write `kind = \"docker\"` or `kind = \"local\"`");
                continue;
            }
        };
        let runner = Runner { kind, slots: read.few(&at("slots")), host: read.text(&at("host")) };
        if kind == RunnerKind::Local && runner.host.is_some() {
            read.error("not-for-local", &at("host"), "a local runner has no `host`", "take it out");
        }
        found.insert(name.to_owned(), runner);
    }
    if found.is_empty() {
        for (name, kind) in [("docker", RunnerKind::Docker), ("local", RunnerKind::Local)] {
            found.insert(name.to_owned(), Runner { kind, slots: USUAL_SLOTS, host: None });
        }
    }
    found
}

fn projects(read: &mut Reader<'_>) -> IndexMap<String, Project> {
    let mut found = IndexMap::new();
    for (name, _) in read.values.names("projects") {
        if let Some(project) = project(read, name) {
            found.insert(name.to_owned(), project);
        }
    }
    found
}

fn project(read: &mut Reader<'_>, name: &str) -> Option<Project> {
    let at = |key: &str| format!("projects.{name}.{key}");
    // The project's own word, else that of `[defaults]`.
    let or_default = |read: &Reader<'_>, key: &str| match read.is_given(&at(key)) {
        true => at(key),
        false => format!("defaults.{key}"),
    };
    let Some(Setting::Repository(repository)) = read.get(&at("repository")) else {
        let help = "write `repository = \"https://github.com/owner/name\"`, or the absolute path of a local one";
        read.missing(&at("repository"), help);
        return None;
    };
    let local = repository.local().is_some();
    let poll = match read.get(&at("poll")) {
        None if local => Poll::Watch,
        Some(setting) => poll(&setting),
        None => poll(&read.get("defaults.poll").unwrap_or(Setting::Text("off".to_owned()))),
    };
    let poll = match poll {
        Poll::Watch if !local => {
            if read.is_given(&at("poll")) {
                let help = "write an interval, like `poll = \"5m\"`";
                read.error("not-local", &at("poll"), "only a local repository can be watched", help);
            }
            Poll::Every(Duration::from_secs(300))
        }
        other => other,
    };
    let (token, ssh_key) = (read.secret(&at("token")), read.path(&at("ssh_key_file")));
    if token.is_some() && !repository.is_http() {
        let help = "use an `https://` URL, or take the token out";
        read.warning("unused-secret", &at("token_file"), "the token is not used: the repository is not on https", help);
    }
    if ssh_key.is_some() && (local || repository.is_http()) {
        let help = "use an `ssh://` URL, or take the key out";
        read.warning("unused-secret", &at("ssh_key_file"), "the key is not used: the repository is not on ssh", help);
    }
    let allow_http = read.flag(&at("allow_http"));
    if repository.is_plain_http_elsewhere() && !allow_http {
        let message = "`http://` is neither encrypted nor signed: whoever is on the way chooses what is built";
        let help = "use `https://` or `ssh://`; if it must be, allow it by `allow_http = true`";
        read.error("plain-http", &at("repository"), message, help);
    }
    let (forks, missed) = (or_default(read, "forks"), or_default(read, "schedule_missed"));
    Some(Project {
        repository_id: read.count(&at("repository_id")),
        branches: read.texts(&or_default(read, "branches")),
        pipeline: read.texts(&or_default(read, "pipeline")),
        poll,
        webhook_secret: read.secret(&at("webhook_secret")),
        token,
        token_user: read.text(&at("token_user")).unwrap_or_default(),
        ca_file: read.path(&at("ca_file")),
        allow_http,
        ssh_key,
        known_hosts: read.path(&at("known_hosts_file")),
        trusted: read.flag(&at("trusted")),
        public_badge: read.flag(&at("public_badge")),
        forks: match read.text(&forks).as_deref() {
            Some("never") => Forks::Never,
            Some("always") => Forks::Always,
            _ => Forks::Approve,
        },
        drafts: read.flag(&or_default(read, "drafts")),
        max_builds: read.few(&or_default(read, "max_builds")),
        priority: read.number(&at("priority")).unwrap_or(0),
        schedule_missed: if read.text(&missed).as_deref() == Some("skip") { Missed::Skip } else { Missed::Once },
        repository,
    })
}

fn poll(setting: &Setting) -> Poll {
    match setting {
        Setting::Time(time) => Poll::Every(*time),
        Setting::Text(word) if word == "watch" => Poll::Watch,
        _ => Poll::Off,
    }
}

fn github(read: &mut Reader<'_>) -> GitHub {
    let app = match (read.count("github.app.id"), read.path("github.app.key_file")) {
        (Some(id), Some(key)) => Some(GitHubApp { id, key, installation: read.count("github.app.installation") }),
        (Some(_), None) => {
            read.missing("github.app.key_file", "name the PEM file with the App's private key");
            None
        }
        (None, key) => {
            if key.is_some() || read.is_given("github.app.installation") {
                read.missing("github.app.id", "write the App's number, as on its settings page");
            }
            None
        }
    };
    let report = read.texts("github.report");
    let has = |word: &str| report.iter().any(|given| given == word);
    if has("checks") && app.is_none() {
        let help = "add `[github.app]`, or report by `status`";
        read.error("needs-app", "github.report", "only a GitHub App can write checks", help);
    }
    GitHub {
        api_url: read.text("github.api_url").unwrap_or_default(),
        token: read.secret("github.token"),
        app,
        status: has("status"),
        checks: has("checks"),
        comment: has("comment"),
    }
}

fn artifacts(read: &mut Reader<'_>) -> Artifacts {
    let url = match read.text("artifacts.url") {
        Some(url) if url.starts_with("s3://") => {
            if url.trim_start_matches("s3://").split('/').next().unwrap_or_default().is_empty() {
                read.error(
                    "bad-value",
                    "artifacts.url",
                    "the URL names no bucket",
                    "write it like `s3://bucket/prefix`",
                );
            }
            Some(url)
        }
        Some(url) if url.contains("://") => {
            let help = "write a folder, or `s3://bucket/prefix`";
            read.error("bad-value", "artifacts.url", "artifacts cannot be kept there", help);
            None
        }
        Some(folder) => Some(read.base.join(folder).display().to_string()),
        None => None,
    };
    let (endpoint, region) = (read.text("artifacts.endpoint"), read.text("artifacts.region"));
    let is_s3 = url.as_ref().is_some_and(|url| url.starts_with("s3://"));
    if !is_s3 && (endpoint.is_some() || region.is_some()) {
        let help = "write `url = \"s3://bucket/prefix\"`, or take it out";
        let path = if endpoint.is_some() { "artifacts.endpoint" } else { "artifacts.region" };
        read.error("not-s3", path, "this is for S3, and `artifacts.url` is not", help);
    }
    Artifacts { url, endpoint, region }
}

fn retention(read: &Reader<'_>) -> Retention {
    Retention {
        builds: read.count("retention.builds").unwrap_or(1000),
        age: read.time("retention.age"),
        size: match read.get("retention.size") {
            Some(Setting::Size(size)) => Some(size),
            _ => None,
        },
        deliveries: read.time("retention.deliveries"),
    }
}

fn notify(read: &mut Reader<'_>) -> IndexMap<String, Notify> {
    let mut found = IndexMap::new();
    for (name, _) in read.values.names("notify") {
        let at = |key: &str| format!("notify.{name}.{key}");
        let where_to = "name a file that holds the URL to post to";
        let way = match read.text(&at("kind")).as_deref() {
            Some("webhook") => NotifyWay::Webhook {
                url: read.required_secret(&at("url"), where_to),
                secret: read.secret(&at("secret")),
            },
            Some("slack") => NotifyWay::Slack { url: read.required_secret(&at("url"), where_to) },
            Some("email") => email(read, name),
            Some(_) | None => {
                read.missing(&at("kind"), "write `kind = \"webhook\"`, `\"slack\"` or `\"email\"`");
                continue;
            }
        };
        let (events, projects) = (read.texts(&at("events")), read.texts(&at("projects")));
        found.insert(name.to_owned(), Notify { way, events, projects });
    }
    found
}

fn email(read: &mut Reader<'_>, name: &str) -> NotifyWay {
    let at = |key: &str| format!("notify.{name}.{key}");
    let to = read.texts(&at("to"));
    if to.is_empty() {
        read.missing(&at("to"), "write who gets the mails, like `to = [\"team@example.com\"]`");
    }
    let login = read
        .text(&at("user"))
        .map(|user| (user, read.required_secret(&at("password"), "name a file that holds the password")));
    NotifyWay::Email {
        smtp: read.required(&at("smtp"), "write the mail server, like `smtp = \"mail.example.com:587\"`"),
        login,
        from: read.required(&at("from"), "write the sender, like `from = \"ci@example.com\"`"),
        to,
    }
}

/// All files with secrets that were given: key, path, place.
pub(super) fn secret_files(values: &Values, base: &Path) -> Vec<(String, PathBuf, Span)> {
    let mut found = Vec::new();
    for (path, given) in &values.given {
        let kind = keys::find(&keys::pattern(path)).map(|key| key.kind);
        if let (Some(Kind::SecretFile), Setting::Text(file)) = (kind, &given.setting) {
            let span = match given.origin {
                Origin::File(span) => span,
                Origin::Environment(_) => Span::default(),
            };
            found.push((path.clone(), base.join(file), span));
        }
    }
    found
}
