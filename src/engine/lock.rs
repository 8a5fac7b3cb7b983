//! Locks between processes: files that the kernel lets go of with the process, however that ends. What they guard has no owner
//! when the lock is free.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::EngineError;
use super::paths::Paths;
use crate::ids::{BuildId, is_name};

/// For how long a lock that is held is asked for again: who only looks whether a build has a driver holds it for an instant.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at a lock that is held.
const LOOK: Duration = Duration::from_millis(50);
/// Longest name of a holder that is shown.
const LONGEST_NAME: u64 = 200;

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
        match lock(&path)? {
            Ok(file) => Ok(Self { _file: file }),
            Err(_) => Err(EngineError::Taken(build)),
        }
    }
}

/// The right to one thing of the data folder by name: a model's deployment, a port of this host. Given back when dropped.
#[derive(Debug)]
pub struct NamedLock {
    _file: Flock<File>,
}

impl NamedLock {
    /// The right to change what serves a model.
    pub fn model(paths: &Paths, model: &str) -> PathBuf {
        let name = if is_name(model) { model.to_owned() } else { blake3::hash(model.as_bytes()).to_hex().to_string() };
        paths.locks().join(format!("model-{name}"))
    }

    /// The right to a port of this host.
    pub fn port(paths: &Paths, port: u16) -> PathBuf {
        paths.locks().join(format!("port-{port}"))
    }

    /// Takes it if it is free, and leaves the holder's name in it for those who wait. The error is who has it.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn try_take(path: &Path, holder: &str) -> Result<Result<Self, String>, EngineError> {
        let mut file = match lock(path)? {
            Ok(file) => file,
            Err(mut file) => return Ok(Err(read_holder(&mut file))),
        };
        // The name is a help for people; a full disk must not keep the lock from being taken.
        let _unnamed = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(holder.as_bytes()));
        Ok(Ok(Self { _file: file }))
    }

    /// Waits for it. `waits` hears once who has it.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub async fn take(path: &Path, holder: &str, waits: impl FnOnce(&str)) -> Result<Self, EngineError> {
        let mut waits = Some(waits);
        loop {
            match Self::try_take(path, holder)? {
                Ok(taken) => return Ok(taken),
                Err(who) => {
                    if let Some(waits) = waits.take() {
                        waits(&who);
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn read_holder(file: &mut File) -> String {
    let mut name = Vec::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(LONGEST_NAME).read_to_end(&mut name));
    match read {
        Ok(length) if length > 0 => String::from_utf8_lossy(&name).chars().filter(|c| !c.is_control()).collect(),
        Ok(_) | Err(_) => "another process".to_owned(),
    }
}

/// The locked file, or the open one if somebody else has the lock.
fn lock(path: &Path) -> Result<Result<Flock<File>, File>, EngineError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| EngineError::io(format!("cannot open {}", path.display()), error))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => Ok(Ok(file)),
        Err((file, Errno::EWOULDBLOCK)) => Ok(Err(file)),
        Err((_, errno)) => Err(EngineError::io(format!("cannot lock {}", path.display()), errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_holds_and_the_others_hear_who() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model-m");
        let first = NamedLock::try_take(&path, "build #4").unwrap().unwrap();
        assert_eq!(NamedLock::try_take(&path, "build #5").unwrap().unwrap_err(), "build #4");
        let mut heard = String::new();
        let wait = NamedLock::take(&path, "build #5", |who| heard = who.to_owned());
        let (second, ()) = tokio::join!(wait, async { drop(first) });
        second.unwrap();
        assert_eq!(heard, "build #4");
    }
}
