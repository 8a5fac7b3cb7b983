//! Where a bucket is, as one line: `s3://bucket/prefix?endpoint=http://host:9000&region=eu-1&style=path`. It holds no secret,
//! so it can be stored and shown; the key comes from the environment or a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use url::Url;

use super::ArtifactError;

/// A bucket's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub bucket: String,
    /// Before all keys; empty for none.
    pub prefix: String,
    /// Of an S3 that is not Amazon's.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// `http://bucket.host/key` instead of `http://host/bucket/key`.
    pub virtual_host: bool,
}

impl Address {
    /// Reads it.
    ///
    /// # Errors
    /// [`ArtifactError::Setting`] that says what is expected.
    pub fn parse(text: &str) -> Result<Self, ArtifactError> {
        let wrong = |why: &str| Err(ArtifactError::Setting(format!("the artifact store `{text}` {why}")));
        let expected = "is not `s3://bucket/prefix`, with `?endpoint=http://host:port` for an S3 that is not Amazon's";
        let Ok(url) = Url::parse(text) else { return wrong(expected) };
        let Some(bucket) = url.host_str().filter(|_| url.scheme() == "s3" && !url.cannot_be_a_base()) else {
            return wrong(expected);
        };
        if !url.username().is_empty() || url.password().is_some() || url.port().is_some() || url.fragment().is_some() {
            return wrong(expected);
        }
        let mut address = Self {
            bucket: bucket.to_owned(),
            prefix: url.path().trim_matches('/').to_owned(),
            endpoint: None,
            region: None,
            virtual_host: false,
        };
        for (name, value) in url.query_pairs() {
            match (name.as_ref(), value.as_ref()) {
                ("endpoint", value) => match Url::parse(value) {
                    Ok(end) if matches!(end.scheme(), "http" | "https") && end.host().is_some() => {
                        address.endpoint = Some(value.trim_end_matches('/').to_owned());
                    }
                    Ok(_) | Err(_) => {
                        return wrong("has an `endpoint` that is not `http://host:port` or `https://host`");
                    }
                },
                ("region", value) if !value.is_empty() => address.region = Some(value.to_owned()),
                ("style", "path") => address.virtual_host = false,
                ("style", "virtual-host") => address.virtual_host = true,
                ("style", _) => return wrong("has a `style` that is neither `path` nor `virtual-host`"),
                (name, _) => {
                    return wrong(&format!("has `{name}`, and only `endpoint`, `region` and `style` are known"));
                }
            }
        }
        Ok(address)
    }

    /// For messages.
    pub fn shown(&self) -> String {
        let at = self.endpoint.as_deref().unwrap_or("Amazon S3");
        format!("bucket `{}` at {at}", self.bucket)
    }
}

/// A key of S3. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub id: String,
    pub secret: String,
    pub token: Option<String>,
}

/// The key from the file that `AWS_SHARED_CREDENTIALS_FILE` names, or `~/.aws/credentials`, in the section of `AWS_PROFILE`.
/// `None` if the environment holds a key, which comes first, or there is no such file.
///
/// # Errors
/// [`ArtifactError::Setting`] if a file that was asked for is not there, or has no such section.
pub(super) fn from_file(env: impl Fn(&str) -> Option<String>) -> Result<Option<Credentials>, ArtifactError> {
    if env("AWS_ACCESS_KEY_ID").is_some() {
        return Ok(None);
    }
    let named = env("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
    let Some(path) = named.clone().or_else(|| env("HOME").map(|home| Path::new(&home).join(".aws/credentials"))) else {
        return Ok(None);
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(_) if named.is_none() => return Ok(None),
        Err(error) => {
            let text = format!("cannot read {}, which AWS_SHARED_CREDENTIALS_FILE names: {error}", path.display());
            return Err(ArtifactError::Setting(text));
        }
    };
    let profile = env("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
    match section(&text, &profile) {
        Some(found) => Ok(Some(found)),
        None if named.is_none() && env("AWS_PROFILE").is_none() => Ok(None),
        None => Err(ArtifactError::Setting(format!(
            "{} has no section [{profile}] with aws_access_key_id and aws_secret_access_key",
            path.display()
        ))),
    }
}

fn section(text: &str, profile: &str) -> Option<Credentials> {
    let mut inside = false;
    let mut found: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = name.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside && !line.starts_with(['#', ';'])) {
            found.insert(name.trim(), value.trim());
        }
    }
    let get = |name: &str| found.get(name).filter(|value| !value.is_empty()).map(|value| (*value).to_owned());
    Some(Credentials {
        id: get("aws_access_key_id")?,
        secret: get("aws_secret_access_key")?,
        token: get("aws_session_token"),
    })
}

#[cfg(test)]
mod tests {
    use super::{Address, from_file, section};

    #[test]
    fn addresses_are_read() {
        let check = |text: &str, expected: Result<Address, &str>| match (Address::parse(text), expected) {
            (Ok(found), Ok(address)) => assert_eq!(found, address),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (found, _) => panic!("{text}: {found:?}"),
        };
        let plain = Address {
            bucket: "models".to_owned(),
            prefix: String::new(),
            endpoint: None,
            region: None,
            virtual_host: false,
        };
        check("s3://models", Ok(plain.clone()));
        check("s3://models/team/a/", Ok(Address { prefix: "team/a".to_owned(), ..plain }));
        check(
            "s3://models/a?endpoint=http://127.0.0.1:9000/&region=eu-1&style=virtual-host",
            Ok(Address {
                bucket: "models".to_owned(),
                prefix: "a".to_owned(),
                endpoint: Some("http://127.0.0.1:9000".to_owned()),
                region: Some("eu-1".to_owned()),
                virtual_host: true,
            }),
        );
        check("s3:///a", Err("is not `s3://bucket/prefix`"));
        check("https://models/a", Err("is not `s3://bucket/prefix`"));
        check("models", Err("is not `s3://bucket/prefix`"));
        check("s3://id:secret@models/a", Err("is not `s3://bucket/prefix`"));
        check("s3://models?endpoint=minio:9000", Err("`endpoint` that is not"));
        check("s3://models?style=odd", Err("neither `path` nor"));
        check("s3://models?secret=x", Err("has `secret`, and only"));
    }

    #[test]
    fn keys_are_found_in_a_file() {
        let text = "[default]\naws_access_key_id = a\n# aws_secret_access_key = no\naws_secret_access_key=b\n\n[ci]\naws_access_key_id=c\naws_secret_access_key = d=\naws_session_token = t\n[half]\naws_access_key_id=e\n";
        let found = section(text, "default").unwrap();
        assert_eq!((found.id.as_str(), found.secret.as_str(), found.token), ("a", "b", None));
        let found = section(text, "ci").unwrap();
        assert_eq!((found.id.as_str(), found.secret.as_str(), found.token.as_deref()), ("c", "d=", Some("t")));
        assert!(section(text, "half").is_none() && section(text, "none").is_none());
    }

    #[test]
    fn the_environment_comes_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        std::fs::write(&file, "[default]\naws_access_key_id=a\naws_secret_access_key=b\n").unwrap();
        let env = |pairs: &[(&str, &str)]| {
            let pairs: Vec<(String, String)> = pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            move |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
        };
        let at = file.to_str().unwrap();
        let of_file = [("AWS_SHARED_CREDENTIALS_FILE", at)];
        assert_eq!(from_file(env(&of_file)).unwrap().map(|found| found.id), Some("a".to_owned()));
        let both = [("AWS_SHARED_CREDENTIALS_FILE", at), ("AWS_ACCESS_KEY_ID", "x")];
        assert!(from_file(env(&both)).unwrap().is_none());
        let other = [("AWS_SHARED_CREDENTIALS_FILE", at), ("AWS_PROFILE", "ci")];
        let error = from_file(env(&other)).err().unwrap().to_string();
        assert!(error.contains("no section [ci]"), "{error}");
        let none = [("AWS_SHARED_CREDENTIALS_FILE", "/does/not/exist")];
        assert!(from_file(env(&none)).err().unwrap().to_string().contains("AWS_SHARED_CREDENTIALS_FILE"));
        assert!(from_file(env(&[("HOME", "/does/not/exist")])).unwrap().is_none());
    }
}
