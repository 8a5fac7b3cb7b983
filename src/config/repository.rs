//! Which repositories may be named: what git itself would take is far more than what is safe to hand to it.
//!
//! PURE.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A repository that git may be asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repository {
    /// On another machine: an `https://`, `http://` or `ssh://` URL, or `user@host:path`.
    Remote(String),
    /// On this machine, absolute.
    Local(PathBuf),
}

impl Repository {
    /// Where people look at a commit of it: known of GitHub alone.
    pub fn commit_url(&self, commit: &str) -> Option<String> {
        let Self::Remote(text) = self else { return None };
        let path = ["https://github.com/", "ssh://git@github.com/", "git@github.com:"];
        let path = path.into_iter().find_map(|begin| text.strip_prefix(begin))?.trim_end_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let (owner, name) = path.split_once('/').filter(|(owner, name)| plain(owner) && plain(name))?;
        plain(commit).then(|| format!("https://github.com/{owner}/{name}/commit/{commit}"))
    }

    /// Reads and checks it.
    ///
    /// # Errors
    /// What is wrong, and what to do. A password in the URL is not repeated.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let wrong = |message: &str, help: &str| Err((message.to_owned(), help.to_owned()));
        let forms = "write `https://host/path`, `ssh://git@host/path`, `git@host:path`, or an absolute path";
        if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) && !text.starts_with('/') {
            return wrong("a repository is a URL or a path, without spaces", forms);
        }
        if text.chars().any(char::is_control) {
            return wrong("the path holds control characters", forms);
        }
        if text.starts_with('-') {
            return wrong("a repository cannot begin with `-`: git would take it for an option", forms);
        }
        if text.starts_with('/') {
            return Ok(Self::Local(PathBuf::from(text)));
        }
        if let Some((scheme, _)) = text.split_once("::")
            && !scheme.contains(['/', '@', ':'])
        {
            return wrong("git's remote helpers (`helper::…`) could run any program, and are not allowed", forms);
        }
        match text.split_once("://") {
            Some((scheme, _)) => Self::url(&scheme.to_ascii_lowercase(), text),
            None => Self::scp(text),
        }
    }

    fn url(scheme: &str, text: &str) -> Result<Self, (String, String)> {
        let wrong = |message: String, help: &str| Err((message, help.to_owned()));
        match scheme {
            "https" | "http" | "ssh" => {}
            "git" => {
                return wrong(format!("`{scheme}://` is neither encrypted nor signed"), "use `https://` or `ssh://`");
            }
            "file" => {
                return wrong("`file://` is not needed".to_owned(), "write the absolute path alone, like `/srv/repo`");
            }
            _ => {
                return wrong(format!("`{scheme}://` is not allowed"), "use `https://`, `ssh://`, or an absolute path");
            }
        }
        let Ok(url) = url::Url::parse(text) else {
            return wrong("this is not a URL".to_owned(), "write it like `https://github.com/owner/name`");
        };
        if url.password().is_some() || (scheme != "ssh" && !url.username().is_empty()) {
            return wrong(
                "the URL holds a user or password, which would end up in logs".to_owned(),
                "take it out of the URL, write the token into a file of its own, and name that by `token_file`",
            );
        }
        let host = url.host_str().unwrap_or_default();
        if host.is_empty() || host.starts_with('-') || url.username().starts_with('-') {
            return wrong("the URL names no host".to_owned(), "write it like `https://github.com/owner/name`");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return wrong(
                "a repository's URL has no `?` and no `#`".to_owned(),
                "copy the address that git clones from",
            );
        }
        if url.path().trim_matches('/').is_empty() {
            return wrong("the URL names no repository".to_owned(), "write it like `https://github.com/owner/name`");
        }
        Ok(Self::Remote(text.to_owned()))
    }

    /// `user@host:path`, as git's own help calls it.
    fn scp(text: &str) -> Result<Self, (String, String)> {
        let plain =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if let Some(((user, host), path)) =
            text.split_once(':').and_then(|(head, path)| Some((head.split_once('@')?, path)))
        {
            if plain(user) && plain(host) && !user.starts_with('-') && !host.starts_with('-') {
                if path.is_empty() || path.starts_with('-') {
                    return Err((
                        "there is no path after the `:`".to_owned(),
                        "write it like `git@host:owner/name`".to_owned(),
                    ));
                }
                return Ok(Self::Remote(text.to_owned()));
            }
            if user.contains(':') || text.matches('@').count() > 1 {
                let help = "take it out, and name a key by `ssh_key_file`".to_owned();
                return Err(("the address holds a password".to_owned(), help));
            }
        }
        let help = "write `https://host/path`, `ssh://git@host/path`, `git@host:path`, or an absolute path";
        Err(("this is neither a URL nor an absolute path".to_owned(), help.to_owned()))
    }

    /// The local folder, if it is one.
    pub fn local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Remote(_) => None,
        }
    }

    /// Whether it is reached by https, or http.
    pub fn is_http(&self) -> bool {
        let begins = |url: &str, with: &str| url.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with));
        matches!(self, Self::Remote(url) if begins(url, "https://") || begins(url, "http://"))
    }

    /// Whether it is reached by http on another machine, as far as the host's name tells.
    pub fn is_plain_http_elsewhere(&self) -> bool {
        matches!(self, Self::Remote(text) if is_plain_http_elsewhere(text))
    }

    /// `owner/name`, if it is on this host, and such a name.
    pub fn on_host(&self, host: &str) -> Option<String> {
        let Self::Remote(text) = self else { return None };
        let path = match url::Url::parse(text).ok().filter(|url| url.has_host()) {
            Some(url) if url.host_str() == Some(host) => url.path().to_owned(),
            Some(_) => return None,
            None => text.split_once('@').and_then(|(_, rest)| rest.strip_prefix(host)?.strip_prefix(':'))?.to_owned(),
        };
        let path = path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        let plain = |part: &str| {
            let known = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            known && !matches!(part, "" | "." | "..")
        };
        let (owner, name) = path.split_once('/')?;
        (plain(owner) && plain(name)).then(|| path.to_owned())
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(url) => f.write_str(url),
            Self::Local(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Whether a URL is http on another machine, as far as the host's name tells.
pub fn is_plain_http_elsewhere(text: &str) -> bool {
    let url = url::Url::parse(text).ok().filter(|url| url.scheme() == "http");
    url.is_some_and(|url| match url.host() {
        Some(url::Host::Domain(name)) => name != "localhost",
        Some(url::Host::Ipv4(ip)) => !ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => !IpAddr::V6(ip).to_canonical().is_loopback(),
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_shown_where_github_shows_them() {
        let check = |text: &str, expected: Option<&str>| {
            let repository = Repository::parse(text).expect("a repository");
            assert_eq!(repository.commit_url("0123abc").as_deref(), expected, "{text}");
        };
        let shown = Some("https://github.com/a/b.c/commit/0123abc");
        for text in ["https://github.com/a/b.c.git", "git@github.com:a/b.c.git", "ssh://git@github.com/a/b.c"] {
            check(text, shown);
        }
        for text in
            ["https://github.com.evil.example/a/b", "https://github.com/a/b/c", "https://host/a/b", "/srv/github.com"]
        {
            check(text, None);
        }
    }

    #[test]
    fn what_is_taken() {
        for text in [
            "https://github.com/a/b.git",
            "ssh://git@host:22/a/b",
            "git@github.com:a/b.git",
            "ssh://host/a",
            "/srv/git/a b",
        ] {
            assert_eq!(Repository::parse(text).map(|r| r.to_string()), Ok(text.to_owned()));
        }
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Repository::parse(text).expect("valid").on_host("github.com").as_deref(), expected, "{text}");
        };
        check("https://github.com/a/b.git", Some("a/b"));
        check("git@github.com:a/b.git", Some("a/b"));
        check("ssh://git@github.com/a/b", Some("a/b"));
        check("https://github.com.evil.example/a/b", None);
        check("/srv/github.com", None);
        check("git@github.com.evil.example:a/b", None);
        check("https://github.com/a/../b", None);
        check("https://github.com/a/b/c", None);
        check("https://github.com/a", None);
    }

    #[test]
    fn plain_http_to_others_is_noticed() {
        let check = |text: &str, elsewhere: bool| {
            let repository = Repository::parse(text).expect("valid");
            assert_eq!(repository.is_plain_http_elsewhere(), elsewhere, "{text}");
        };
        check("http://host/a", true);
        check("HTTP://10.0.0.1/a", true);
        check("http://127.0.0.1:3000/a", false);
        check("http://localhost/a", false);
        check("http://[::1]/a", false);
        check("https://host/a", false);
        check("git@host:a", false);
    }

    #[test]
    fn what_is_refused() {
        let check = |text: &str, part: &str| {
            let (message, help) = Repository::parse(text).expect_err(text);
            assert!(format!("{message}; {help}").contains(part), "{text}: {message}; {help}");
            assert!(!message.contains("hunter2") && !help.contains("hunter2"), "{message}");
        };
        check("ext::sh -c id", "without spaces");
        check("ext::sh", "could run any program");
        check("fd::17/x", "could run any program");
        check("file:///srv/x", "absolute path alone");
        check("http://hunter2@host/x", "token_file");
        check("git://host/x", "neither encrypted");
        check("--upload-pack=x", "option");
        check("ssh://-oProxyCommand=x/y", "URL");
        check("git@-oProxyCommand:x", "neither a URL");
        check("git@host:-x", "no path");
        check("https://user:hunter2@host/x", "token_file");
        check("https://hunter2@host/x", "token_file");
        check("git:hunter2@host:x", "neither a URL");
        check("../repo", "neither a URL");
        check("https://host", "names no repository");
        check("https://host/x?y", "no `?`");
        check("", "URL or a path");
        check("ftp://host/x", "not allowed");
        check("/srv/a\nb", "control characters");
    }
}
