//! Who drives a build: whoever holds its lock file. The kernel lets go of it with the process, however that ends, so a build
//! whose lock is free has no driver.

use std::fs::{File, OpenOptions};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::EngineError;
use super::paths::Paths;
use crate::ids::BuildId;

/// For how long a lock that is held is asked for again: who only looks whether a build has a driver holds it for an instant.
const PATIENCE: Duration = Duration::from_secs(2);

/// The right to drive a build, given back when dropped.
#[derive(Debug)]
pub struct BuildLock {
    _file: Flock<File>,
}

impl BuildLock {
    /// Takes the lock, and waits for those who only look.
    ///
    /// # Errors
    /// [`EngineError::Taken`] if another process keeps it.
    pub async fn take_soon(paths: &Paths, build: BuildId) -> Result<Self, EngineError> {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            match Self::take(paths, build) {
                Err(EngineError::Taken(_)) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => return other,
            }
        }
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// [`EngineError::Taken`] if another process has it.
    pub fn take(paths: &Paths, build: BuildId) -> Result<Self, EngineError> {
        let path = paths.locks().join(format!("build-{}", build.0));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| EngineError::io(format!("cannot open {}", path.display()), error))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { _file: file }),
            Err((_, Errno::EWOULDBLOCK)) => Err(EngineError::Taken(build)),
            Err((_, errno)) => Err(EngineError::io(format!("cannot lock {}", path.display()), errno.into())),
        }
    }
}
