//! Tells at once when something changes in a unit's folder: output, its exit, the end of its shim.
//!
//! One inotify instance for all units, since a user may have only 128. The end of a shim is seen too, even by SIGKILL: the
//! kernel closes its lock file, which was open for writing. Where there is no inotify, waiting becomes looking, in growing
//! intervals.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// An event that got lost costs no more than this.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(50);

struct Instance(Inotify);

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Watches folders.
pub struct Watcher {
    instance: AsyncFd<Instance>,
    folders: Mutex<HashMap<WatchDescriptor, watch::Sender<()>>>,
}

impl Watcher {
    /// Makes one; within a runtime. It works as long as [`Watcher::run`] does.
    ///
    /// # Errors
    /// If the user has too many already.
    pub fn open() -> io::Result<Self> {
        let instance = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Self { instance: AsyncFd::new(Instance(instance))?, folders: Mutex::default() })
    }

    /// Passes events on, for ever.
    pub async fn run(self: Arc<Self>) {
        loop {
            let Ok(mut ready) = self.instance.readable().await else { return };
            match self.instance.get_ref().0.read_events() {
                Ok(events) => {
                    let folders = self.folders();
                    for event in events {
                        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                            folders.values().for_each(|changed| changed.send_replace(()));
                        } else if let Some(changed) = folders.get(&event.wd) {
                            changed.send_replace(());
                        }
                    }
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

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
        let descriptor = self.instance.get_ref().0.add_watch(folder, events).ok()?;
        Some((descriptor, folders.entry(descriptor).or_default().subscribe()))
    }
}

/// One who waits for changes in one folder.
pub struct Watch {
    seen: Option<(Arc<Watcher>, WatchDescriptor, watch::Receiver<()>)>,
    look: Duration,
}

impl Watch {
    /// Waits for changes from now on.
    pub fn new(watcher: Option<&Arc<Watcher>>, folder: &Path) -> Self {
        let seen = watcher.and_then(|watcher| {
            let (descriptor, changed) = watcher.add(folder)?;
            Some((Arc::clone(watcher), descriptor, changed))
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
        let Some((watcher, descriptor, changed)) = self.seen.take() else { return };
        let mut folders = watcher.folders();
        drop(changed);
        if folders.get(&descriptor).is_some_and(|sender| sender.receiver_count() == 0) {
            folders.remove(&descriptor);
            // It is gone already where the folder is.
            let _gone = watcher.instance.get_ref().0.rm_watch(descriptor);
        }
    }
}
