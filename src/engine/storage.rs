//! Where a data folder keeps its artifacts. That is settled when it is first opened, and stored: a later command that is not
//! told again finds the same files.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use super::EngineError;
use super::paths::Paths;
use crate::artifact::{ArtifactError, ArtifactSettings, ArtifactStore, Environment};
use crate::store::{Store, StoreError, builds, settings};

/// Names a place for a new data folder: `s3://bucket/prefix?endpoint=http://host:9000`, or an absolute folder.
pub const VARIABLE: &str = "ORCHESTRATOR_ARTIFACTS";
/// Under what it is stored.
const SETTING: &str = "artifacts";
/// The setting of a data folder that keeps them itself.
const HERE: &str = "folder";

/// Opens the artifact store of a data folder.
///
/// # Errors
/// If the store cannot be used, or [`VARIABLE`] or the configuration names another one than this data folder has.
pub async fn open(
    paths: &Paths,
    store: &Arc<Store>,
    configured: Option<String>,
) -> Result<Arc<ArtifactStore>, EngineError> {
    let asked = std::env::var(VARIABLE).ok().filter(|value| !value.is_empty()).or(configured);
    let settled = settled(store, asked.as_deref()).await?;
    let now = asked.as_deref().or(settled.as_deref()).unwrap_or(HERE);
    if let Some(settled) = &settled {
        check(paths, settled, now)?;
    }
    let instance = store.instance.clone();
    // Folders are not shared either: whoever clears up in one would take the other's files.
    let elsewhere = now.starts_with('/').then(|| PathBuf::from(now).join(&instance));
    let url = (now != HERE && elsewhere.is_none()).then(|| now.to_owned());
    let folder = elsewhere.unwrap_or_else(|| paths.artifacts());
    let settings = ArtifactSettings { url, instance, folder, environment: variables() };
    let wrong = |error: ArtifactError| EngineError::Artifact(error.to_string());
    let opened = ArtifactStore::open(&settings).map_err(wrong)?;
    if settled.is_none() {
        // Only when it was seen to work: a wrong address is not remembered.
        opened.probe().await.map_err(wrong)?;
        let mine = now.to_owned();
        let settled = store.write(move |tx| settings::get_or_make(tx, SETTING, &mine)).await?;
        check(paths, &settled, now)?;
    }
    Ok(Arc::new(opened))
}

/// A variable that is not UTF-8 is none that counts.
fn variables() -> Environment {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    Environment::of(std::env::vars_os().filter_map(text))
}

fn check(paths: &Paths, settled: &str, now: &str) -> Result<(), EngineError> {
    if settled == now {
        return Ok(());
    }
    let place = if settled == HERE { "the folder itself" } else { settled };
    Err(EngineError::Artifact(format!(
        "{} keeps its artifacts in {place}, and {VARIABLE} or `artifacts.url` says {now}; take that away, or use another data folder",
        paths.root().display()
    )))
}

/// What was settled. A data folder from before there was a choice has its artifacts itself.
async fn settled(store: &Arc<Store>, asked: Option<&str>) -> Result<Option<String>, StoreError> {
    let asked = asked.is_some();
    let find = move |db: &_| match settings::get(db, SETTING)? {
        Some(settled) => Ok(Some(settled)),
        None if asked && !builds::list(db, None, None, 1)?.is_empty() => Ok(Some(HERE.to_owned())),
        None => Ok(None),
    };
    store.read(find).await
}
