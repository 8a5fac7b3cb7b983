//! Where a repository is, and who asks. PURE.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use url::Url;

use super::MirrorError;

/// A repository's address and credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// `https://`, `http://`, `ssh://`, `user@host:path`, or an absolute local path.
    pub url: String,
    /// Sent to this host only.
    pub credentials: Credentials,
    /// What is believed and allowed on the way to it.
    pub network: Network,
}

/// What is believed and allowed on the way to a repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// `http://` to other machines too, where everybody on the way reads and changes what is sent.
    pub plain_http: bool,
    /// A PEM file with certificates that are believed beside the system's: an authority's, or a host's own.
    pub authorities: Option<PathBuf>,
}

/// How to be let in. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// Public, or local.
    #[default]
    None,
    /// For https.
    Token {
        /// A user's name; for GitHub `x-access-token`.
        user: String,
        /// The token or password.
        token: Token,
    },
    /// For ssh.
    SshKey {
        /// The private key, without a passphrase.
        path: PathBuf,
        /// Keys of hosts that are trusted, as OpenSSH writes them.
        known_hosts: PathBuf,
    },
}

/// Where a token is.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// Here.
    Text(String),
    /// In a file, which is read anew for each connection: tokens that do not last are written again and again.
    File(PathBuf),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Token { user, .. } => write!(f, "Token({user})"),
            Self::SshKey { path, .. } => write!(f, "SshKey({})", path.display()),
        }
    }
}

/// The parts of an address that matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// `http://` if it is not secure.
    Http {
        secure: bool,
        host: String,
        port: u16,
    },
    Ssh {
        host: String,
        port: u16,
    },
    Local(PathBuf),
}

impl Remote {
    /// Refuses an address that is none of the kinds that are taken, or credentials that do not fit it.
    pub(super) fn check(&self) -> Result<Address, MirrorError> {
        let address = address(&self.url)?;
        let fits = match (&address, &self.credentials) {
            (_, Credentials::None)
            | (Address::Http { .. }, Credentials::Token { .. })
            | (Address::Ssh { .. }, Credentials::SshKey { .. }) => true,
            (Address::Http { .. } | Address::Local(_), Credentials::SshKey { .. })
            | (Address::Ssh { .. } | Address::Local(_), Credentials::Token { .. }) => false,
        };
        if !fits {
            let why = "a token goes with https://, a key with ssh://, and a local path needs neither";
            return Err(MirrorError::Refused(format!("the credentials do not fit {}: {why}", self.url)));
        }
        if let Address::Http { secure: false, host, .. } = &address
            && !self.network.plain_http
            && !is_loopback(host)
        {
            let why = "http:// is neither encrypted nor signed; use https://, or allow it with `allow_http`";
            return Err(MirrorError::Refused(format!("{} is refused: {why}", self.url)));
        }
        Ok(address)
    }

    /// The mirror's folder. Other credentials are another mirror: what one project may see is not shown to the next.
    pub(super) fn folder_name(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let who = match &self.credentials {
            Credentials::None => String::new(),
            Credentials::Token { user, .. } => format!("token\0{user}"),
            Credentials::SshKey { path, .. } => format!("key\0{}", path.display()),
        };
        hasher.update(format!("{}\0{who}", self.url).as_bytes());
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// The remote of a submodule: a relative address is resolved, and the credentials go along to the same host alone.
    ///
    /// # Errors
    /// [`MirrorError::Refused`] for an address that is not taken; a remote's submodule cannot be a path of this machine.
    pub(super) fn submodule(&self, url: &str) -> Result<Self, MirrorError> {
        let url =
            if url.starts_with("./") || url.starts_with("../") { resolve(&self.url, url)? } else { url.to_owned() };
        let (ours, theirs) = (address(&self.url)?, address(&url)?);
        if matches!(theirs, Address::Local(_)) && !matches!(ours, Address::Local(_)) {
            let why = "a remote repository's submodule cannot be a path of this machine";
            return Err(MirrorError::Refused(format!("the submodule's address {} is refused: {why}", shown(&url))));
        }
        if matches!(theirs, Address::Http { secure: false, .. }) && ours != theirs {
            // Whatever this machine serves to itself is nothing that a repository may reach for.
            let why = "http:// is taken from the repository's own host alone, and only if that is reached so";
            return Err(MirrorError::Refused(format!("the submodule's address {} is refused: {why}", shown(&url))));
        }
        let credentials = if ours == theirs { self.credentials.clone() } else { Credentials::None };
        Ok(Self { url, credentials, network: self.network.clone() })
    }
}

/// Whether a host is this machine itself, as far as its name tells.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Who is asked by ssh for what: the user and the path, as they are said to the host.
pub(super) fn user_and_path(url: &str) -> Result<(String, String), MirrorError> {
    let refuse = |why: &str| MirrorError::Refused(format!("the repository's address {} is refused: {why}", shown(url)));
    let (user, path) = match Url::parse(url).ok().filter(Url::has_host) {
        Some(parsed) => {
            let path = percent_encoding::percent_decode_str(parsed.path()).decode_utf8();
            let path = path.map_err(|_| refuse("its path is not UTF-8"))?.into_owned();
            // As git has it: `ssh://host/~user/x` is in that user's home.
            let path = if path.starts_with("/~") { path[1..].to_owned() } else { path };
            (parsed.username().to_owned(), path)
        }
        None => {
            let (user, rest) = url.split_once('@').unwrap_or(("", url));
            (user.to_owned(), rest.split_once(':').map_or("", |(_, path)| path).to_owned())
        }
    };
    if path.is_empty() || path.starts_with('-') || path.chars().any(char::is_control) {
        return Err(refuse("its path is not taken"));
    }
    Ok((if user.is_empty() { "git".to_owned() } else { user }, path))
}

/// An address as shown to people: no control characters, not too long.
pub(super) fn shown(url: &str) -> String {
    url.chars().take(200).flat_map(char::escape_debug).collect()
}

/// Takes an address apart.
pub(super) fn address(url: &str) -> Result<Address, MirrorError> {
    let refuse =
        |why: &str| Err(MirrorError::Refused(format!("the repository's address {} is refused: {why}", shown(url))));
    if url.is_empty() || url.len() > 2048 || url.chars().any(|c| c.is_control() || c == ' ' || c == '\\') {
        return refuse("it is empty, too long, or holds a space, a backslash or a control character");
    }
    if url.starts_with('/') {
        let bad = url.split('/').any(|part| part == ".." || part == ".");
        return if bad {
            refuse("write the path without `.` and `..`")
        } else {
            Ok(Address::Local(PathBuf::from(url)))
        };
    }
    if url.contains("://") {
        return match Url::parse(url) {
            Ok(parsed) => of_url(url, &parsed),
            Err(_) => refuse("it is no URL"),
        };
    }
    let kinds = "https://, ssh://, user@host:path and absolute paths are taken";
    let Some((user_host, path)) = url.split_once(':') else { return refuse(kinds) };
    let Some((user, host)) = user_host.split_once('@') else { return refuse(kinds) };
    if !is_word(user) || !is_word(host) || path.is_empty() || path.starts_with('-') || path.starts_with(':') {
        return refuse(kinds);
    }
    Ok(Address::Ssh { host: host.to_lowercase(), port: 22 })
}

fn of_url(url: &str, parsed: &Url) -> Result<Address, MirrorError> {
    let refuse = |why: &str| Err(MirrorError::Refused(format!("the repository's address {why}")));
    if parsed.password().is_some() || (parsed.scheme() != "ssh" && !parsed.username().is_empty()) {
        // Not shown: it may hold the secret.
        return refuse("holds a user or password; remove it, and set the credentials apart from the address");
    }
    let Some(host) = parsed.host_str().filter(|host| !host.starts_with('-')) else {
        return refuse(&format!("{} has no host", shown(url)));
    };
    if parsed.query().is_some() || parsed.fragment().is_some() || parsed.path().len() < 2 {
        return refuse(&format!("{} names no repository", shown(url)));
    }
    let host = host.trim_matches(['[', ']']).to_lowercase();
    match parsed.scheme() {
        "https" => Ok(Address::Http { secure: true, host, port: parsed.port().unwrap_or(443) }),
        "http" => Ok(Address::Http { secure: false, host, port: parsed.port().unwrap_or(80) }),
        "ssh" if !is_word(&host) && host.parse::<Ipv6Addr>().is_err() => {
            refuse(&format!("{} has a host that is not taken", shown(url)))
        }
        "ssh" if parsed.path().starts_with("/-") || !(parsed.username().is_empty() || is_word(parsed.username())) => {
            refuse(&format!("{} has a user or path that is not taken", shown(url)))
        }
        "ssh" => Ok(Address::Ssh { host, port: parsed.port().unwrap_or(22) }),
        _ => refuse(&format!(
            "{} is refused: only https://, ssh://, user@host:path and absolute paths are taken",
            shown(url)
        )),
    }
}

fn is_word(text: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !text.is_empty() && !text.starts_with('-') && text.chars().all(ok)
}

/// `../x` beside a repository's address, as git resolves it.
fn resolve(base: &str, relative: &str) -> Result<String, MirrorError> {
    let outside = || MirrorError::Refused(format!("the submodule's address {} leads out of its host", shown(relative)));
    // What may not be cut off: the scheme with the host, or `user@host:`, or the root.
    let fixed = if let Some(at) = base.find("://") {
        base[at + 3..].find('/').map_or(base.len(), |slash| at + 3 + slash)
    } else if base.starts_with('/') {
        0
    } else {
        base.find(':').map_or(base.len(), |colon| colon + 1)
    };
    let (head, path) = base.split_at(fixed);
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(outside)?;
            }
            name => parts.push(name),
        }
    }
    if parts.is_empty() {
        return Err(outside());
    }
    Ok(format!("{head}{}{}", if rooted { "/" } else { "" }, parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_or_refused() {
        let ssh = |host: &str, port| Address::Ssh { host: host.to_owned(), port };
        let http = |secure, host: &str, port| Address::Http { secure, host: host.to_owned(), port };
        let https = |host: &str, port| http(true, host, port);
        for (url, expected) in [
            ("https://Example.com/a/b.git", https("example.com", 443)),
            ("https://example.com:8443/a", https("example.com", 8443)),
            ("http://127.0.0.1:8000/a", http(false, "127.0.0.1", 8000)),
            ("ssh://git@example.com:2222/a", ssh("example.com", 2222)),
            ("ssh://[::1]:2222/a", ssh("::1", 2222)),
            ("git@example.com:a/b.git", ssh("example.com", 22)),
            ("/srv/git/a.git", Address::Local(PathBuf::from("/srv/git/a.git"))),
        ] {
            assert_eq!(address(url).unwrap(), expected, "{url}");
        }
        for url in [
            "",
            "-a",
            "--upload-pack=x",
            "ext::sh -c x",
            "ext::x",
            "file:///etc",
            "http://token@example.com/a",
            "ssh://a;b/c",
            "ssh://$(id)/c",
            "ssh://%2doProxyCommand=x/a",
            "git://example.com/a",
            "https://example.com",
            "https://u:p@example.com/a",
            "https://token@example.com/a",
            "https://example.com/a\n",
            "https://example.com/a?b",
            "ssh://-oProxyCommand=x/a",
            "ssh://-x@example.com/a",
            "ssh://git@example.com/-a",
            "-x@example.com:a",
            "git@-x:a",
            "git@example.com:-a",
            "git@example.com:",
            "relative/path",
            "../up",
            "/a/../b",
            "git@example.com::x",
            "a\0b",
            "https:///a",
            "example.com:a",
            "a\\b",
        ] {
            assert!(matches!(address(url), Err(MirrorError::Refused(_))), "{url:?}");
        }
    }

    #[test]
    fn a_refused_address_shows_no_password() {
        let error = address("https://me:hunter2@example.com/a").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn relative_submodules_are_resolved() {
        for (base, relative, expected) in [
            ("https://example.com/a/b.git", "../c.git", Some("https://example.com/a/c.git")),
            ("https://example.com/a/b", "./c", Some("https://example.com/a/b/c")),
            ("git@example.com:a/b", "../c", Some("git@example.com:a/c")),
            ("git@example.com:b", "../c", Some("git@example.com:c")),
            ("/srv/a", "../b", Some("/srv/b")),
            ("https://example.com/a", "../../evil.com/x", None),
            ("git@example.com:a", "../../x", None),
        ] {
            assert_eq!(resolve(base, relative).ok().as_deref(), expected, "{base} {relative}");
        }
    }

    #[test]
    fn credentials_go_to_their_host_alone() {
        let token = Credentials::Token { user: "u".to_owned(), token: Token::Text("secret".to_owned()) };
        let remote = Remote {
            url: "https://example.com/a/b".to_owned(),
            credentials: token.clone(),
            network: Network::default(),
        };
        assert_eq!(remote.submodule("../c").unwrap().credentials, token);
        assert_eq!(remote.submodule("https://example.com/x").unwrap().credentials, token);
        assert_eq!(remote.submodule("https://example.com:444/x").unwrap().credentials, Credentials::None);
        assert_eq!(remote.submodule("https://other.com/x").unwrap().credentials, Credentials::None);
        assert!(remote.submodule("/etc").is_err());
        assert!(remote.submodule("http://127.0.0.1:8080/a").is_err());
        assert!(remote.submodule("http://example.com:443/a").is_err());
        assert!(remote.submodule("ext::x").is_err());
        assert!(!format!("{remote:?}").contains("secret"));
    }

    #[test]
    fn plain_http_stays_on_this_machine_unless_it_is_allowed() {
        let check = |url: &str, plain_http: bool, taken: bool| {
            let network = Network { plain_http, authorities: None };
            let remote = Remote { url: url.to_owned(), credentials: Credentials::None, network };
            assert_eq!(remote.check().is_ok(), taken, "{url} {plain_http}");
        };
        check("http://127.0.0.1:3000/a", false, true);
        check("http://[::1]:3000/a", false, true);
        check("http://localhost/a", false, true);
        check("http://localhost.example.com/a", false, false);
        check("http://10.0.0.1/a", false, false);
        check("http://10.0.0.1/a", true, true);
    }

    #[test]
    fn users_and_paths_for_ssh() {
        for (url, user, path) in [
            ("git@example.com:a/b.git", "git", "a/b.git"),
            ("ann@example.com:/srv/a", "ann", "/srv/a"),
            ("ssh://example.com/srv/a%20b", "git", "/srv/a b"),
            ("ssh://ann@example.com:2222/~ann/a", "ann", "~ann/a"),
        ] {
            assert_eq!(user_and_path(url).unwrap(), (user.to_owned(), path.to_owned()), "{url}");
        }
        assert!(user_and_path("ssh://example.com/a%0ab").is_err());
        assert!(user_and_path("ssh://example.com/%00").is_err());
    }
}
