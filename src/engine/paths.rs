//! The layout of a data folder.

use std::path::{Path, PathBuf};

use super::EngineError;
use crate::ids::{BuildId, NodeKey};

/// A data folder.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// The folder given, or else `$XDG_DATA_HOME/orchestrator`, or else `~/.local/share/orchestrator`.
    ///
    /// # Errors
    /// If none is given and the environment names no home.
    pub fn new(given: Option<&Path>) -> Result<Self, EngineError> {
        let root = match given {
            Some(path) => path.to_owned(),
            None => default_root().ok_or_else(|| {
                EngineError::Pipeline("neither XDG_DATA_HOME nor HOME is set; give --data-dir".to_owned())
            })?,
        };
        let root = std::path::absolute(&root).map_err(|error| EngineError::io(root.display().to_string(), error))?;
        Ok(Self { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn create(&self) -> Result<(), EngineError> {
        use std::os::unix::fs::DirBuilderExt;
        for folder in [self.root.clone(), self.logs_root(), self.locks(), self.local(), self.scratch()] {
            // Logs and workspaces may hold what only their owner should read.
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(|error| EngineError::io(format!("cannot make {}", folder.display()), error))?;
        }
        Ok(())
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.root.join("orchestrator.db")
    }

    /// Locks that say which builds are being driven.
    pub fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// The local runner's folder.
    pub fn local(&self) -> PathBuf {
        self.root.join("local")
    }

    /// For short-lived files of this process.
    pub fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    fn logs_root(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Marks of builds whose logs are still to be packed.
    pub fn unpacked(&self) -> PathBuf {
        self.logs_root().join("unpacked")
    }

    /// All logs of a build.
    pub fn logs(&self, build: BuildId) -> PathBuf {
        self.logs_root().join(build.0.to_string())
    }

    /// The log of an attempt.
    pub fn log(&self, build: BuildId, node: &NodeKey, attempt: u32) -> PathBuf {
        self.logs(build).join(format!("{node}.{attempt}.log"))
    }

    /// The log of the model API beside an attempt.
    pub fn serve_log(&self, build: BuildId, node: &NodeKey, attempt: u32) -> PathBuf {
        self.logs(build).join(format!("{node}.{attempt}.serve.log"))
    }

    /// Artifacts, or what is on its way into a bucket.
    pub fn artifacts(&self) -> PathBuf {
        self.root.join("artifacts")
    }

    /// Digests of files by their stat, so that an unchanged tree need not be read.
    pub fn stat_cache(&self) -> PathBuf {
        self.root.join("stat-cache")
    }
}

fn default_root() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("XDG_DATA_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("orchestrator"))
}
