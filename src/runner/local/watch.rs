//! Tells at once when something changes in a unit's folder: output, its exit, the end of its shim.
//!
//! One inotify instance for all units, since a user may have only 128. The end of a shim is seen too, even by SIGKILL: the
//! kernel closes its lock file, which was open for writing. Where there is no inotify, waiting becomes looking, in growing
//! intervals.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// An event that got lost costs no more than this.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(50);

/// Watches folders, by a task that ends with it.
pub struct Watcher {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    inotify: Inotify,
    folders: Mutex<HashMap<WatchDescriptor, watch::Sender<()>>>,
}

impl Watcher {
    /// Makes one. To be called within a runtime.
    ///
    /// # Errors
    /// If the user has too many already.
    pub fn open() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        #[expect(deprecated, reason = "its successor is unsafe; an `OwnedFd` stays the same until it is closed")]
        let ready = AsyncFd::with_interest(inotify.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
        let shared = Arc::new(Shared { inotify, folders: Mutex::default() });
        let task = tokio::spawn(Passing(Arc::clone(&shared)).run(ready));
        Ok(Self { shared, _task: AbortOnDropHandle::new(task) })
    }
}

/// Passes events on. At its end, however it comes, whoever still waits is told, and looks for itself from then on.
struct Passing(Arc<Shared>);

impl Passing {
    async fn run(self, ready: AsyncFd<OwnedFd>) {
        while let Ok(mut guard) = ready.readable().await {
            match self.0.inotify.read_events() {
                Ok(events) => {
                    let folders = self.0.folders();
                    for event in events {
                        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                            folders.values().for_each(|changed| changed.send_replace(()));
                        } else if let Some(changed) = folders.get(&event.wd) {
                            changed.send_replace(());
                        }
                    }
                }
                Err(Errno::EAGAIN) => guard.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.0.folders().clear();
    }
}

impl Shared {
    fn folders(&self) -> MutexGuard<'_, HashMap<WatchDescriptor, watch::Sender<()>>> {
        // The map is whole after every statement, so a panic elsewhere does it no harm.
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, folder: &Path) -> Option<(WatchDescriptor, watch::Receiver<()>)> {
        let events = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let mut folders = self.folders();
        let descriptor = self.inotify.add_watch(folder, events).ok()?;
        Some((descriptor, folders.entry(descriptor).or_default().subscribe()))
    }
}

/// One who waits for changes in one folder.
pub struct Watch {
    seen: Option<(Arc<Shared>, WatchDescriptor, watch::Receiver<()>)>,
    look: Duration,
}

impl Watch {
    /// Waits for changes from now on.
    pub fn new(watcher: Option<&Watcher>, folder: &Path) -> Self {
        let seen = watcher.and_then(|watcher| {
            let (descriptor, changed) = watcher.shared.add(folder)?;
            Some((Arc::clone(&watcher.shared), descriptor, changed))
        });
        Self { seen, look: FIRST_LOOK }
    }

    /// Returns once something has changed since the last call; sometimes for nothing, so look for yourself.
    pub async fn changed(&mut self) {
        if let Some((_, _, changed)) = &mut self.seen {
            match timeout(LONGEST_WAIT, changed.changed()).await {
                Ok(Ok(())) | Err(_) => return,
                Ok(Err(_)) => self.seen = None,
            }
        }
        sleep(self.look).await;
        self.look = (self.look * 2).min(LAST_LOOK);
    }

    /// Something was found: where one has to look, look often again.
    pub fn hurry(&mut self) {
        self.look = FIRST_LOOK;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some((shared, descriptor, changed)) = self.seen.take() else { return };
        let mut folders = shared.folders();
        drop(changed);
        if folders.get(&descriptor).is_some_and(|sender| sender.receiver_count() == 0) {
            folders.remove(&descriptor);
            // It is gone already where the folder is.
            let _gone = shared.inotify.rm_watch(descriptor);
        }
    }
}
