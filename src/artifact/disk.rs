//! What is asked of the disk so that a power cut leaves nothing half. Blocking.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// So many files or folders are synced one by one. Beyond, the whole file system is: its cost does not grow with their number.
const FEW: usize = 16;

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A file was written, and is in memory only.
    Written(PathBuf),
    /// A file's content, or a folder's names, are on the disk.
    Synced(PathBuf),
    /// All that was done before is on the disk.
    SyncedAll,
    /// A file has got its name.
    Placed {
        /// The name it had.
        from: PathBuf,
        /// The name it has.
        to: PathBuf,
    },
    /// A file is marked as known to be on the disk.
    Sealed(PathBuf),
}

/// Sees each step, right after it: for tests of the order.
pub type Observer = Arc<dyn Fn(Step) + Send + Sync>;

/// The disk under a store.
#[derive(Clone, Default)]
pub struct Disk {
    observer: Option<Observer>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("observed", &self.observer.is_some()).finish()
    }
}

impl Disk {
    /// One whose steps are seen.
    #[cfg(test)]
    pub fn observed(observer: Observer) -> Self {
        Self { observer: Some(observer) }
    }

    fn did(&self, step: impl FnOnce() -> Step) {
        if let Some(observer) = &self.observer {
            observer(step());
        }
    }

    /// Tells of a file that was written.
    pub fn wrote(&self, path: &Path) {
        self.did(|| Step::Written(path.to_owned()));
    }

    /// Brings these files, or the names in these folders, to the disk; all lie in the file system of `within`.
    pub fn sync(&self, paths: &[&Path], within: &Path) -> io::Result<()> {
        if paths.len() > FEW {
            nix::unistd::syncfs(File::open(within)?)?;
            self.did(|| Step::SyncedAll);
            return Ok(());
        }
        for path in paths {
            File::open(path)?.sync_all()?;
            self.did(|| Step::Synced((*path).to_owned()));
        }
        Ok(())
    }

    /// Gives a file its name, in place of what may be there.
    pub fn place(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        self.did(|| Step::Placed { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    /// Marks a file as known to be on the disk: it cannot be written any more.
    pub fn seal(&self, path: &Path) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(0o444))?;
        self.did(|| Step::Sealed(path.to_owned()));
        Ok(())
    }
}
