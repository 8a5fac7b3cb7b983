//! A folder of an attempt's own, for work inside this process. Gone when dropped; what a killed process left is removed with
//! the attempt's units.

use std::path::{Path, PathBuf};

use super::attempt::{Attempt, Halt, unit_name};
use super::drive::Build;

/// The folder.
pub struct Scratch(PathBuf);

/// Where an attempt's scratch folder lies.
pub fn path(build: &Build, node: usize, attempt: u32) -> PathBuf {
    build.engine.paths.scratch().join(unit_name(build, node, attempt, "scratch").0)
}

impl Scratch {
    /// A new, empty folder with `in` and `out`.
    ///
    /// # Errors
    /// [`Halt`] if it cannot be made.
    pub fn new(attempt: &Attempt) -> Result<Self, Halt> {
        let scratch = Self(path(&attempt.cx.build, attempt.cx.node, attempt.cx.attempt));
        for folder in [scratch.input(), scratch.output()] {
            std::fs::create_dir_all(&folder)
                .map_err(|error| Halt::internal(format!("cannot make {}: {error}", folder.display())))?;
        }
        Ok(scratch)
    }

    /// For what is worked on.
    pub fn input(&self) -> PathBuf {
        self.0.join("in")
    }

    /// For what is made.
    pub fn output(&self) -> PathBuf {
        self.0.join("out")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes a scratch folder, if there is one.
pub fn remove(path: &Path) {
    match std::fs::remove_dir_all(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(folder = %path.display(), %error, "cannot remove a scratch folder"),
    }
}
