//! Registry credentials from the user's docker config, as the docker client finds them.
//!
//! `config.json` holds them itself (`auths`), or names a program `docker-credential-NAME` that is asked by its standard
//! input. What cannot be read is told and left out: most images need no credentials.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::runner::Progress;

/// How long a credential program may take. Some ask a keychain, which may ask the user.
const PATIENCE: Duration = Duration::from_secs(30);

/// The parts of `config.json` that matter. The docker client owns this file, so unknown keys are fine.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// What a credential program answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// The credentials for one registry, if the user has any.
pub(super) async fn for_registry(
    folder: Option<&Path>,
    key: &str,
    progress: Progress<'_>,
) -> Option<DockerCredentials> {
    let config = read(folder, progress).await;
    find(&config, key, progress).await
}

/// The credentials for every registry in the config: a Dockerfile may name any.
pub(super) async fn all(folder: Option<&Path>, progress: Progress<'_>) -> HashMap<String, DockerCredentials> {
    let config = read(folder, progress).await;
    let keys: BTreeSet<_> = config.auths.keys().chain(config.cred_helpers.keys()).cloned().collect();
    let mut found = HashMap::new();
    for key in keys {
        if let Some(credentials) = find(&config, &key, progress).await {
            found.insert(key, credentials);
        }
    }
    found
}

async fn read(folder: Option<&Path>, progress: Progress<'_>) -> Config {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let usual = || variable("DOCKER_CONFIG").or_else(|| variable("HOME").map(|home| home.join(".docker")));
    let Some(path) = folder.map(Path::to_path_buf).or_else(usual).map(|folder| folder.join("config.json")) else {
        return Config::default();
    };
    let text = match tokio::fs::read(&path).await {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Config::default(),
        Err(error) => {
            progress(format!("warning: cannot read {}: {error}; going on without its credentials", path.display()));
            return Config::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        progress(format!("warning: {} is not valid: {error}; going on without its credentials", path.display()));
        Config::default()
    })
}

async fn find(config: &Config, key: &str, progress: Progress<'_>) -> Option<DockerCredentials> {
    if let Some(program) = config.cred_helpers.get(key) {
        return ask(program, key, progress).await;
    }
    if let Some(auth) = config.auths.iter().find(|(name, _)| same_registry(name, key)).map(|(_, auth)| auth)
        && let Some(credentials) = stored(auth, key)
    {
        return Some(credentials);
    }
    ask(config.creds_store.as_deref()?, key, progress).await
}

/// Old configs have `https://HOST/v1/` where new ones have `HOST`.
fn same_registry(name: &str, key: &str) -> bool {
    let host = |text: &str| {
        let text = text.trim_start_matches("https://").trim_start_matches("http://");
        text.split('/').next().unwrap_or(text).to_owned()
    };
    name == key || host(name) == host(key)
}

fn stored(auth: &Auth, key: &str) -> Option<DockerCredentials> {
    let decoded = auth.auth.as_deref().filter(|text| !text.is_empty()).and_then(|text| {
        let bytes = STANDARD.decode(text.trim()).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (user, password) = text.trim_end_matches('\0').split_once(':')?;
        Some((user.to_owned(), password.to_owned()))
    });
    let plain = || auth.username.clone().zip(auth.password.clone());
    let token = auth.identitytoken.clone().filter(|token| !token.is_empty());
    let (username, password) = decoded.or_else(plain).unzip();
    (username.is_some() || token.is_some()).then(|| DockerCredentials {
        username,
        password,
        identitytoken: token,
        serveraddress: Some(key.to_owned()),
        ..DockerCredentials::default()
    })
}

/// Asks `docker-credential-NAME get`.
async fn ask(program: &str, key: &str, progress: Progress<'_>) -> Option<DockerCredentials> {
    let good = !program.is_empty() && program.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let answer = if good { run(program, key).await } else { Err("its name is not valid".to_owned()) };
    match answer {
        Ok(answer) => answer.map(|answer| credentials(answer, key)),
        Err(reason) => {
            progress(format!("warning: docker-credential-{program} gave no credentials for {key}: {reason}"));
            None
        }
    }
}

fn credentials(answer: Answer, key: &str) -> DockerCredentials {
    let mut credentials = DockerCredentials { serveraddress: Some(key.to_owned()), ..DockerCredentials::default() };
    if answer.username == "<token>" {
        credentials.identitytoken = Some(answer.secret);
    } else {
        credentials.username = Some(answer.username);
        credentials.password = Some(answer.secret);
    }
    credentials
}

async fn run(program: &str, key: &str) -> Result<Option<Answer>, String> {
    let mut child = Command::new(format!("docker-credential-{program}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let asked = async {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(key.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(output) => output.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("no answer in {} s", PATIENCE.as_secs())),
    };
    if output.status.success() {
        // The text holds a secret: it is not repeated in the error.
        return serde_json::from_slice(&output.stdout).map(Some).map_err(|_| "its answer is not valid".to_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("not found") { Ok(None) } else { Err(text.trim().chars().take(200).collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask_config(json: &str, key: &str) -> (Option<DockerCredentials>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), json).unwrap();
        let said = std::sync::Mutex::new(Vec::new());
        let found = for_registry(Some(folder.path()), key, &|line| said.lock().unwrap().push(line)).await;
        (found, said.into_inner().unwrap())
    }

    #[tokio::test]
    async fn stored_credentials() {
        let json = r#"{"auths": {"reg.example:5000": {"auth": "bWU6cGE6c3M="}, "https://old.example/v1/": {"auth": "YTpi"},
                       "token.example": {"identitytoken": "t"}, "empty.example": {}}, "other": 1}"#;
        let check = async |key: &str, user: Option<&str>, password: Option<&str>, token: Option<&str>| {
            let found = ask_config(json, key).await.0;
            let found = found.map(|found| (found.username, found.password, found.identitytoken)).unwrap_or_default();
            assert_eq!((found.0.as_deref(), found.1.as_deref(), found.2.as_deref()), (user, password, token), "{key}");
        };
        check("reg.example:5000", Some("me"), Some("pa:ss"), None).await;
        check("old.example", Some("a"), Some("b"), None).await;
        check("token.example", None, None, Some("t")).await;
        check("empty.example", None, None, None).await;
        check("none.example", None, None, None).await;
    }

    #[tokio::test]
    async fn what_is_broken_is_told() {
        let (found, said) = ask_config("{", "x").await;
        assert!(found.is_none() && said[0].contains("is not valid"), "{said:?}");
        let (found, said) = ask_config(r#"{"credsStore": "no-such-program-here"}"#, "x").await;
        assert!(found.is_none() && said[0].contains("docker-credential-no-such-program-here"), "{said:?}");
        let (found, said) = ask_config(r#"{"credHelpers": {"x": "../../sh"}}"#, "x").await;
        assert!(found.is_none() && said[0].contains("its name is not valid"), "{said:?}");
    }
}
