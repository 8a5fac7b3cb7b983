//! Packs the logs of attempts that have ended, beside the work and never before it.
//!
//! A big log is packed as soon as its attempt's end is on the disk, one at a time. Before a build's end is committed, a mark is
//! left if any of its logs is still plain; it goes when all are packed. So whatever a killed process left plain is found by the
//! next start without looking through the logs of all builds.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::lock::BuildLock;
use super::paths::Paths;
use super::{Engine, EngineError};
use crate::ids::BuildId;
use crate::logs::{LogError, WORTH_PACKING, compress};
use crate::store::builds;

/// Between two tries to pack a log that somebody holds: a process that was just started holds it for an instant.
const PAUSE: Duration = Duration::from_millis(20);
/// How many such tries; a log that is still held then is left to the next start.
const TRIES: u32 = 50;

/// The packing of this process.
pub struct Packer {
    tasks: Mutex<JoinSet<()>>,
    /// One at a time: packing takes a processor and the memory of a frame.
    turn: Arc<Semaphore>,
}

impl Default for Packer {
    fn default() -> Self {
        Self { tasks: Mutex::new(JoinSet::new()), turn: Arc::new(Semaphore::new(1)) }
    }
}

impl Packer {
    /// Packs the log of an attempt whose end is on the disk, if it is worth it.
    pub fn attempt_ended(&self, log: PathBuf) {
        if is_worth_packing(&log) {
            self.spawn(async move {
                pack(log).await;
            });
        }
    }

    /// Leaves the mark, if the build has logs to pack. To be called before its end is committed.
    ///
    /// # Errors
    /// If the mark cannot be written.
    pub fn build_ends(&self, paths: &Paths, build: BuildId) -> io::Result<()> {
        if plain_logs(&paths.logs(build)).is_empty() {
            return Ok(());
        }
        fs::create_dir_all(paths.unpacked())?;
        fs::write(mark(paths, build), "")
    }

    /// Packs what is left of a build that has ended. `lock` is let go of afterwards.
    pub fn build_ended(&self, paths: &Paths, build: BuildId, lock: Option<BuildLock>) {
        let (folder, mark) = (paths.logs(build), mark(paths, build));
        if !mark.exists() {
            return;
        }
        self.spawn(async move {
            let mut all = true;
            for log in plain_logs(&folder) {
                all &= pack(log).await;
            }
            // A mark that stays is looked at again by the next start.
            if all && let Err(error) = fs::remove_file(&mark) {
                tracing::debug!(mark = %mark.display(), %error, "cannot remove a mark");
            }
            drop(lock);
        });
    }

    /// Waits until all is packed.
    pub async fn done(&self) {
        loop {
            let mut tasks = std::mem::take(&mut *self.tasks());
            if tasks.is_empty() {
                return;
            }
            while tasks.join_next().await.is_some() {}
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let turn = Arc::clone(&self.turn);
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _turn = turn.acquire_owned().await;
            work.await;
        });
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Packs what earlier processes left plain, in the background.
///
/// # Errors
/// The database's.
pub async fn finish_left(engine: &Arc<Engine>) -> Result<(), EngineError> {
    let Ok(marks) = fs::read_dir(engine.paths.unpacked()) else { return Ok(()) };
    for entry in marks.flatten() {
        let Some(build) = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(BuildId) else { continue };
        // Who drives a build packs its logs.
        let Ok(lock) = BuildLock::take(&engine.paths, build) else { continue };
        let row = engine.store.read(move |db| builds::get(db, build)).await;
        if row.is_ok_and(|row| row.status.is_terminal()) {
            engine.packer.build_ended(&engine.paths, build, Some(lock));
        }
    }
    Ok(())
}

fn mark(paths: &Paths, build: BuildId) -> PathBuf {
    paths.unpacked().join(build.0.to_string())
}

fn is_worth_packing(log: &Path) -> bool {
    fs::metadata(log).is_ok_and(|about| about.len() >= WORTH_PACKING)
}

/// The logs of a build that are still to be packed.
fn plain_logs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|end| end == "log") && is_worth_packing(path)).collect()
}

/// Packs one; says whether that is done with.
async fn pack(log: PathBuf) -> bool {
    for _ in 0..TRIES {
        let path = log.clone();
        let packed = tokio::task::spawn_blocking(move || compress(&path)).await;
        match packed {
            Ok(Ok(()) | Err(LogError::Absent { .. })) => return true,
            Ok(Err(LogError::InUse { .. })) => tokio::time::sleep(PAUSE).await,
            Ok(Err(
                error @ (LogError::DiskFull { .. }
                | LogError::Damaged { .. }
                | LogError::Packed { .. }
                | LogError::Io { .. }),
            )) => {
                tracing::warn!(log = %log.display(), %error, "cannot pack a log; it stays plain");
                return false;
            }
            Err(error) => {
                tracing::warn!(log = %log.display(), %error, "cannot pack a log; it stays plain");
                return false;
            }
        }
    }
    false
}
