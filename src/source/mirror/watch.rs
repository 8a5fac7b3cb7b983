//! A local repository is watched, not polled: a commit gives a nudge at once, a storm of refs gives a few.

use std::path::{Path, PathBuf};
use std::time::Duration;

use git2::Repository;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch::{Receiver, channel};

use super::MirrorError;

/// After a change others are waited for so long: one command of git writes several files.
const SETTLE: Duration = Duration::from_millis(50);

/// Nudges of one repository. Dropped, it watches no more.
#[derive(Debug)]
pub struct Watch {
    changes: Receiver<u64>,
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Waits for the next change of a ref. Changes that came close together, or while nobody waited, are one.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The watcher lives as long as we do, so this is unreachable; never is better than always.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(SETTLE).await;
        self.changes.mark_unchanged();
    }
}

/// Watches the refs of a local repository: a bare one, a work tree, or one of several work trees.
///
/// # Errors
/// [`MirrorError::NotFound`] if there is no repository, [`MirrorError::Io`] if the system has no more watches.
pub fn watch(path: &Path) -> Result<Watch, MirrorError> {
    let absent = |error: git2::Error| {
        MirrorError::NotFound(format!("{} is no git repository: {}", path.display(), error.message()))
    };
    let repository = Repository::open(path).map_err(absent)?;
    // A work tree beside the first one has its own HEAD, and shares the refs.
    let (own, shared) = (repository.path().to_owned(), repository.commondir().to_owned());
    let (tx, changes) = channel(0_u64);
    let places = [own.clone(), shared.clone()];
    let told = move |event: notify::Result<Event>| {
        let nudge = match &event {
            // The kernel's queue ran over: something changed.
            Ok(event) if event.need_rescan() => true,
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => false,
            Ok(event) => event.paths.iter().any(|path| names_refs(path, &places)),
            Err(_) => true,
        };
        if nudge {
            tx.send_modify(|count| *count = count.wrapping_add(1));
        }
    };
    let failed = |error: notify::Error| {
        MirrorError::io(format!("cannot watch {}", path.display()))(std::io::Error::other(error))
    };
    let mut watcher = notify::recommended_watcher(told).map_err(failed)?;
    watcher.watch(&own, RecursiveMode::NonRecursive).map_err(failed)?;
    if shared != own {
        watcher.watch(&shared, RecursiveMode::NonRecursive).map_err(failed)?;
    }
    watcher.watch(&shared.join("refs"), RecursiveMode::Recursive).map_err(failed)?;
    Ok(Watch { changes, _watcher: watcher })
}

/// Whether a path is a ref. Lock files come and go around each change, and the index is no ref.
fn names_refs(path: &Path, places: &[PathBuf; 2]) -> bool {
    if path.extension().is_some_and(|kind| kind == "lock") {
        return false;
    }
    places.iter().any(|place| {
        path.strip_prefix(place).is_ok_and(|inside| {
            inside.starts_with("refs") || inside == Path::new("HEAD") || inside == Path::new("packed-refs")
        })
    })
}
