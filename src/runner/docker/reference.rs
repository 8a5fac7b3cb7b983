//! Image references as people write them: `python:3.12-slim`, `ghcr.example:5000/team/app@sha256:...`.
//!
//! PURE. A reference becomes part of a path of the engine's API, so nothing but this grammar gets there.

/// A reference that follows the grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// As written.
    text: String,
    /// Registry's host, if named.
    registry: Option<String>,
    /// Name without registry, tag and digest.
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Reads a reference, or an image id (`sha256:` and 64 hex digits).
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > 512 {
            return Err("an image's name has 1 to 512 characters".to_owned());
        }
        let (name, digest) = match text.split_once('@') {
            None if is_digest(text) => ("", Some(text)),
            None => (text, None),
            Some((name, digest)) if is_digest(digest) => (name, Some(digest)),
            Some(_) => return Err("after `@` there must be a digest such as `sha256:` and 64 hex digits".to_owned()),
        };
        let (path, tag) = match name.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            Some(_) | None => (name, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(format!("`{tag}` is not a valid tag"));
        }
        let (registry, repository) = match path.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
            Some(_) | None => (None, path),
        };
        if let Some(host) = registry.filter(|host| !is_host(host)) {
            return Err(format!("`{host}` is not a valid registry"));
        }
        if digest != Some(text) {
            check_repository(repository)?;
        }
        Ok(Self {
            text: text.to_owned(),
            registry: registry.map(str::to_owned),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// As written.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is an image id, which cannot be pulled.
    pub(super) fn is_id(&self) -> bool {
        self.repository.is_empty()
    }

    /// What to ask a registry for: with a tag in any case, as the engine would pull all tags otherwise.
    pub(super) fn to_pull(&self) -> String {
        if self.tag.is_none() && self.digest.is_none() { format!("{}:latest", self.text) } else { self.text.clone() }
    }

    /// The key under which the user's docker config keeps this registry's credentials.
    pub(super) fn credentials_key(&self) -> &str {
        match self.registry.as_deref() {
            None | Some("docker.io" | "index.docker.io") => "https://index.docker.io/v1/",
            Some(host) => host,
        }
    }

    /// Whether a repository digest (`repo@sha256:...`) is of this repository.
    pub(super) fn owns(&self, repo_digest: &str) -> bool {
        let strip = |name: &str| name.trim_start_matches("docker.io/").trim_start_matches("library/").to_owned();
        let mine = match &self.registry {
            Some(host) => format!("{host}/{}", self.repository),
            None => self.repository.clone(),
        };
        repo_digest.split_once('@').is_some_and(|(name, _)| strip(name) == strip(&mine))
    }
}

fn check_repository(repository: &str) -> Result<(), String> {
    let fault = |part: &str| {
        if part.bytes().any(|b| b.is_ascii_uppercase()) {
            format!("`{repository}` must be in lower case")
        } else {
            format!("`{repository}` is not a valid image name")
        }
    };
    let good = |part: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        edge(part.bytes().next()) && edge(part.bytes().last()) && part.bytes().all(inner) && !part.contains("..")
    };
    match repository.split('/').find(|part| !good(part)) {
        Some(part) => Err(fault(part)),
        None => Ok(()),
    }
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "1"));
    port.parse::<u16>().is_ok()
        && !name.is_empty()
        && !name.contains("..")
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let id = format!("sha256:{}", "a".repeat(64));
        let check = |text: &str, pull: &str, key: &str| {
            let reference = Reference::parse(text).unwrap();
            assert_eq!((reference.to_pull().as_str(), reference.credentials_key()), (pull, key), "{text}");
        };
        let hub = "https://index.docker.io/v1/";
        check("python", "python:latest", hub);
        check("python:3.12-slim", "python:3.12-slim", hub);
        check("docker.io/library/python:3", "docker.io/library/python:3", hub);
        check("localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000");
        check("reg.example/a_b/c--d:V1", "reg.example/a_b/c--d:V1", "reg.example");
        check(&format!("a@{id}"), &format!("a@{id}"), hub);
        assert!(Reference::parse(&id).unwrap().is_id());
    }

    #[test]
    fn refuses_everything_else() {
        for text in
            ["", "Python", "../x", "a/../b", "a//b", "/a", "a/", "a:", "a:-x", "a b", "a?x=1", "a#b", "a@b", "a%2f"]
        {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
        assert!(Reference::parse("Python").unwrap_err().contains("lower case"));
    }

    #[test]
    fn knows_its_digest() {
        let digest = format!("python@sha256:{}", "b".repeat(64));
        assert!(Reference::parse("docker.io/library/python:3").unwrap().owns(&digest));
        assert!(!Reference::parse("pypy").unwrap().owns(&digest));
    }
}
