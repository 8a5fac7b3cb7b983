//! Old builds go: by number, age and size, for each project on its own. What serves and what it came from stays
//! (`store::retention`). Rows go first and files after them, so that what a killed process left is found by the next look.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::lock::BuildLock;
use super::{Engine, EngineError, now};
use crate::artifact::Sweep;
use crate::ids::{BuildId, Micros};
use crate::store::retention::{self, Bounds};

/// How much of each project is kept. What is not given is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// The newest builds, this many.
    pub builds: Option<u64>,
    /// Builds that are not older.
    pub age: Option<Duration>,
    /// As many of the newest as fit into so many bytes of logs and files.
    pub size: Option<u64>,
}

/// What went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Gone {
    /// Builds.
    pub builds: u64,
    /// Bytes of their logs. Their files go with the next look at the artifacts, unless somebody else needs them.
    pub log_bytes: u64,
}

/// Builds looked at in one go.
const BATCH: usize = 100;

/// Removes builds beyond what is to be kept, with their logs.
///
/// # Errors
/// The database's, or the artifact store's when sizes are to be known.
pub async fn apply(engine: &Arc<Engine>, keep: Keep, how: Sweep) -> Result<Gone, EngineError> {
    let mut gone = Gone::default();
    for project in engine.store.read(retention::projects).await? {
        let bounds = bounds(engine, &project, keep).await?;
        let mut after = BuildId(0);
        loop {
            let name = project.clone();
            let found = engine.store.read(move |db| retention::beyond(db, &name, bounds, after, BATCH)).await?;
            let Some(&last) = found.last() else { break };
            for build in found {
                remove(engine, build, how, &mut gone).await?;
            }
            after = last;
        }
    }
    if how == Sweep::Remove {
        gone.log_bytes += forgotten_logs(engine).await?;
    }
    Ok(gone)
}

async fn remove(engine: &Arc<Engine>, build: BuildId, how: Sweep, gone: &mut Gone) -> Result<(), EngineError> {
    // Whoever retries or packs it at this moment has it; it is looked at again next time.
    let Ok(_lock) = BuildLock::take(&engine.paths, build) else { return Ok(()) };
    let logs = engine.paths.logs(build);
    if how == Sweep::Tell {
        gone.builds += 1;
        gone.log_bytes += bytes_below(&logs);
        return Ok(());
    }
    if engine.store.write(move |tx| retention::remove(tx, build)).await? {
        gone.builds += 1;
        gone.log_bytes += remove_folder(&logs);
    }
    Ok(())
}

async fn bounds(engine: &Arc<Engine>, project: &str, keep: Keep) -> Result<Bounds, EngineError> {
    let mut oldest = BuildId(0);
    if let Some(builds) = keep.builds {
        let name = project.to_owned();
        oldest = engine.store.read(move |db| retention::oldest_of(db, &name, builds)).await?;
    }
    if let Some(size) = keep.size {
        oldest = oldest.max(oldest_that_fits(engine, project, size).await?);
    }
    let before = keep.age.map(|age| Micros(now().0 - i64::try_from(age.as_micros()).unwrap_or(i64::MAX)));
    Ok(Bounds { oldest, before })
}

/// The oldest build of which all newer ones fit into the size together with it. What several share counts once.
async fn oldest_that_fits(engine: &Arc<Engine>, project: &str, size: u64) -> Result<BuildId, EngineError> {
    let (mut total, mut fits, mut counted) = (0_u64, BuildId(u64::MAX), HashSet::new());
    loop {
        let name = project.to_owned();
        let batch = engine.store.read(move |db| {
            let ids = retention::newest_first(db, &name, fits, BATCH)?;
            ids.into_iter().map(|id| Ok((id, retention::manifests(db, id)?))).collect::<Result<Vec<_>, _>>()
        });
        let batch = batch.await?;
        if batch.is_empty() {
            return Ok(BuildId(0));
        }
        for (build, manifests) in batch {
            total += bytes_below(&engine.paths.logs(build));
            for digest in manifests {
                let Ok(digest) = digest.parse() else { continue };
                if counted.insert(digest) {
                    // One that is damaged or gone takes no place.
                    total += engine.artifacts.manifest(&digest).await.map_or(0, |manifest| manifest.size());
                }
            }
            if total > size {
                // The newest stays whatever its size: `fits` is no build's number then.
                return Ok(if fits.0 == u64::MAX { build } else { fits });
            }
            fits = build;
        }
    }
}

/// Removes the logs of builds that are not there.
async fn forgotten_logs(engine: &Arc<Engine>) -> Result<u64, EngineError> {
    let root = engine.paths.logs(BuildId(0));
    let Some(Ok(entries)) = root.parent().map(fs::read_dir) else { return Ok(0) };
    let mut bytes = 0;
    for entry in entries.flatten() {
        let Some(build) = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(BuildId) else { continue };
        // A build has its row before it has logs.
        if !engine.store.read(move |db| retention::exists(db, build)).await? {
            bytes += remove_folder(&entry.path());
        }
    }
    Ok(bytes)
}

/// Best effort: what stays is found again.
fn remove_folder(folder: &Path) -> u64 {
    let bytes = bytes_below(folder);
    match fs::remove_dir_all(folder) {
        Ok(()) => bytes,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(folder = %folder.display(), %error, "cannot remove the logs of a removed build");
            }
            0
        }
    }
}

/// Logs lie flat in their build's folder.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
