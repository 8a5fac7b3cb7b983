//! Blobs in a folder. Blocking.
//!
//! A blob gets its name when its content is on the disk, so what bears a name is whole. That the name itself is on the disk
//! is marked by taking the right to write away (the blob is *sealed*): one that is found without the mark, because another
//! process has only just placed it or died there, is synced again by whoever wants to rely on it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg};

use super::ArtifactError;
use super::disk::Disk;
use super::manifest::Digest;

/// What was found in use this lately need not be made young again.
pub(super) const FRESH: Duration = Duration::from_secs(3600);

/// Where blobs lie.
#[derive(Debug)]
pub(super) struct Folder {
    pub root: PathBuf,
    pub disk: Disk,
}

/// How a blob was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Not at all, or with another size: it has to be stored.
    Absent,
    /// Whole, but its name may not outlive a power cut.
    Loose,
    /// As good as it gets.
    Sealed,
}

impl Folder {
    /// Opens the folder, making it if there is none.
    pub fn open(root: &Path, disk: Disk) -> Result<Self, ArtifactError> {
        let blobs = root.join("blobs");
        if !blobs.is_dir() {
            let made = fs::create_dir_all(&blobs).and_then(|()| Ok(nix::unistd::syncfs(File::open(&blobs)?)?));
            made.map_err(ArtifactError::io(format!("cannot make {}", blobs.display())))?;
        }
        Ok(Self { root: root.to_owned(), disk })
    }

    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_string();
        let (head, tail) = hex.split_at(2);
        self.root.join("blobs").join(head).join(tail)
    }

    /// Looks for a blob that somebody is about to rely on. What has been there for long is made young again, so that no
    /// clean-up takes it before its new user has said so.
    pub fn find(&self, digest: &Digest, size: u64, lock: &Path) -> Result<Found, ArtifactError> {
        let path = self.path(digest);
        let what = || format!("cannot look at {}", path.display());
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
            Err(error) => return Err(ArtifactError::io(what())(error)),
        };
        if !meta.is_file() || meta.size() != size {
            return Ok(Found::Absent);
        }
        if !is_young(&meta, FRESH) {
            let _lock = lock_file(lock, FlockArg::LockShared)?;
            match File::open(&path).and_then(|file| file.set_modified(SystemTime::now())) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
                Err(error) => return Err(ArtifactError::io(what())(error)),
            }
        }
        Ok(if meta.permissions().mode() & 0o222 == 0 { Found::Sealed } else { Found::Loose })
    }

    pub fn read(&self, digest: &Digest) -> Result<Option<File>, ArtifactError> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ArtifactError::io(format!("cannot read {}", path.display()))(error)),
        }
    }

    /// Takes a damaged blob out of the way; it is kept for a look until a clean-up.
    pub fn set_aside(&self, digest: &Digest) -> io::Result<()> {
        let aside = self.root.join("damaged");
        fs::create_dir_all(&aside)?;
        fs::rename(self.path(digest), aside.join(digest.to_string()))
    }

    /// Gives staged files their names and brings all to the disk: contents, names, then the mark.
    pub fn place(&self, staged: &[(Digest, PathBuf)], loose: &[Digest]) -> Result<(), ArtifactError> {
        if staged.is_empty() && loose.is_empty() {
            return Ok(());
        }
        let what = || format!("cannot store a file in {}", self.root.display());
        // Contents of loose ones too: they may have been placed by a program that did not sync them first.
        let found: Vec<PathBuf> = loose.iter().map(|digest| self.path(digest)).collect();
        let contents: Vec<&Path> =
            staged.iter().map(|(_, path)| path.as_path()).chain(found.iter().map(PathBuf::as_path)).collect();
        self.disk.sync(&contents, &self.root).map_err(ArtifactError::io(what()))?;
        let blobs = self.blobs();
        let mut folders: Vec<PathBuf> = Vec::new();
        let mut targets: Vec<PathBuf> = Vec::new();
        for (digest, path) in staged {
            let target = self.path(digest);
            let folder = target.parent().unwrap_or(&blobs).to_owned();
            match fs::create_dir(&folder) {
                Ok(()) => folders.push(blobs.clone()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(ArtifactError::io(what())(error)),
            }
            self.disk.place(path, &target).map_err(ArtifactError::io(what()))?;
            folders.push(folder);
            targets.push(target);
        }
        for digest in loose {
            let target = self.path(digest);
            folders.extend(target.parent().map(Path::to_owned));
            // Whoever made its folder may not have come to sync that either.
            folders.push(blobs.clone());
            targets.push(target);
        }
        folders.sort();
        folders.dedup();
        let names: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        self.disk.sync(&names, &self.root).map_err(ArtifactError::io(what()))?;
        for target in &targets {
            self.disk.seal(target).map_err(ArtifactError::io(what()))?;
        }
        Ok(())
    }
}

/// Younger than this age, or from the future.
pub(super) fn is_young(meta: &fs::Metadata, age: Duration) -> bool {
    meta.modified().is_ok_and(|modified| modified.elapsed().map_or(true, |since| since < age))
}

/// Taken shared by whoever makes a blob young again, exclusively by a clean-up while it removes: the one sees what the other
/// did. Given back when dropped, and by the kernel if the process dies.
pub(super) fn lock_file(path: &Path, how: FlockArg) -> Result<Flock<File>, ArtifactError> {
    let what = || format!("cannot lock {}", path.display());
    let open = File::options().create(true).truncate(false).write(true).open(path);
    Flock::lock(open.map_err(ArtifactError::io(what()))?, how)
        .map_err(|(_, errno)| ArtifactError::io(what())(errno.into()))
}
