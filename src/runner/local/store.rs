//! The runner's folder on the disk: units are made aside and moved into place whole, and moved away before they are deleted.
//!
//! ```text
//! <root>/units/<name>      what exists
//! <root>/making/<name>.N   half made; locked by its maker
//! <root>/trash/<name>.N    half deleted
//! <root>/caches/<volume>   kept between builds
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Error, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::archive::{self, Incoming, inside};
use super::folder::{self, Description, Folder, Launch, Started, is_missing, read_json, write_json};
use super::process;
use super::shim::CONTROL_KILL;
use crate::runner::UnitStatus;
use crate::runner::spec::{CacheMount, UnitName};

/// How long a shim may take to clear its unit away before it is killed itself.
const SHIM_PATIENCE: Duration = Duration::from_secs(15);

/// The folders below the root.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// All that makes a unit.
#[derive(Debug)]
pub struct Plan {
    /// Its name.
    pub name: UnitName,
    /// What anyone may know.
    pub description: Description,
    /// What the shim needs.
    pub launch: Launch,
    /// Caches to link into it.
    pub caches: Vec<CacheMount>,
}

/// What became of [`Store::create`].
#[derive(Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there, not started.
    Yes,
    /// It was there, and has been started: nothing was done.
    StartedBefore,
}

impl Store {
    /// Makes the folders.
    ///
    /// # Errors
    /// If they cannot be made.
    pub fn open(root: &Path) -> io::Result<Self> {
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(root)?;
        // Processes of units find themselves by this path, whatever link or relative path it was given by.
        let store = Self { root: fs::canonicalize(root)? };
        for folder in ["units", "making", "trash", "caches"] {
            private.create(store.root.join(folder))?;
        }
        Ok(store)
    }

    /// Where a unit is, or would be.
    ///
    /// # Errors
    /// If its name is not fit for a folder.
    pub fn path(&self, name: &UnitName) -> io::Result<PathBuf> {
        let fit = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let good = (1..=200).contains(&name.0.len()) && name.0.bytes().all(fit) && !name.0.starts_with('.');
        let refused = || Error::new(ErrorKind::InvalidInput, format!("`{name}` is not a name for a unit"));
        if good { Ok(self.root.join("units").join(&name.0)) } else { Err(refused()) }
    }

    /// Opens a unit; `None` if there is none.
    ///
    /// # Errors
    /// If its folder cannot be opened.
    pub fn find(&self, name: &UnitName) -> io::Result<Option<Folder>> {
        Folder::open(&self.path(name)?)
    }

    /// Names of all units.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn names(&self) -> io::Result<Vec<UnitName>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join("units"))? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(UnitName(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Makes a unit in place of one that was never started.
    ///
    /// # Errors
    /// If it cannot be made; there is none then, or the old one.
    pub fn create(&self, plan: &Plan, workspace: Option<Incoming>) -> io::Result<Created> {
        let place = self.path(&plan.name)?;
        if let Some(old) = Folder::open(&place)?
            && old.is_started()?
        {
            return Ok(Created::StartedBefore);
        }
        let (making, lock) = self.aside(&plan.name)?;
        let made = self.fill(&making, plan, workspace).and_then(|()| self.replace(&making, &place));
        drop(lock);
        if !matches!(made, Ok(Created::Yes)) {
            // Left over at worst, and cleared by `clear`.
            let _left_over = delete(&making);
        }
        made
    }

    /// A new folder with a name of its own, and its lock, which keeps others from taking it for a leftover. Between the two it
    /// looks like one: that is why nobody clears away while the whole area is locked.
    fn aside(&self, name: &UnitName) -> io::Result<(PathBuf, File)> {
        let area = File::open(self.root.join("making"))?;
        area.lock()?;
        let path = self.free("making", name)?;
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::open(&path)?;
        lock.lock()?;
        Ok((path, lock))
    }

    fn free(&self, area: &str, name: &UnitName) -> io::Result<PathBuf> {
        for _ in 0..100 {
            let path = self.root.join(area).join(format!("{name}.{:08x}", rand::random::<u32>()));
            if !path.try_exists()? {
                return Ok(path);
            }
        }
        Err(Error::new(ErrorKind::AlreadyExists, format!("no free name in `{area}`")))
    }

    /// Fills a unit's folder.
    fn fill(&self, making: &Path, plan: &Plan, workspace: Option<Incoming>) -> io::Result<()> {
        let into = making.join(folder::WORKSPACE);
        for name in [folder::WORKSPACE, folder::HOME, folder::TMP] {
            fs::create_dir(making.join(name))?;
        }
        if let Some(archive) = workspace {
            archive::unpack(archive, &into)?;
        }
        for cache in &plan.caches {
            self.link(cache, making)?;
        }
        write_json(&making.join(folder::SPEC), &plan.description)?;
        write_json(&making.join(folder::LAUNCH), &plan.launch)?;
        for name in [folder::LOCK, folder::OUTPUT] {
            OpenOptions::new().create_new(true).write(true).mode(0o600).open(making.join(name))?;
        }
        mkfifo(&making.join(folder::CONTROL), Mode::S_IRUSR | Mode::S_IWUSR)?;
        Ok(())
    }

    /// Puts a cache into a unit: a link to the kept folder, or an empty folder where writes must not be kept.
    fn link(&self, cache: &CacheMount, making: &Path) -> io::Result<()> {
        let Some((base, path)) = cache_place(cache)? else { return Ok(()) };
        let name = path.file_name().unwrap_or_default();
        let parent = folder_without_links(&making.join(base), path.parent().unwrap_or(Path::new("")))?;
        let at = parent.join(name);
        // What the source tree has there is hidden, as a volume would hide it.
        match fs::symlink_metadata(&at) {
            Ok(metadata) if metadata.is_dir() => delete(&at)?,
            Ok(_) => fs::remove_file(&at)?,
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
        if cache.read_only {
            return fs::create_dir(at);
        }
        let kept = self.root.join("caches").join(&cache.volume);
        fs::create_dir_all(&kept)?;
        symlink(kept, at)
    }

    /// Moves a made unit into place, away with the old one.
    fn replace(&self, making: &Path, place: &Path) -> io::Result<Created> {
        if let Some(old) = Folder::open(place)? {
            // While we hold its lock, no shim that was on its way gets past it.
            let Some(lock) = old.try_lock()? else { return Ok(Created::StartedBefore) };
            if old.is_started()? {
                return Ok(Created::StartedBefore);
            }
            self.throw_away(place)?;
            drop(lock);
        }
        fs::rename(making, place)?;
        Ok(Created::Yes)
    }

    fn throw_away(&self, place: &Path) -> io::Result<()> {
        let name = UnitName(place.file_name().unwrap_or_default().to_string_lossy().into_owned());
        let trash = self.free("trash", &name)?;
        match fs::rename(place, &trash) {
            // Somebody else may be clearing away the same.
            Ok(()) => delete(&trash).or_else(|error| if is_missing(&error) { Ok(()) } else { Err(error) }),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Kills a unit and deletes it. No error if there is none.
    ///
    /// # Errors
    /// If something of it does not die, or cannot be deleted.
    pub fn remove(&self, name: &UnitName) -> io::Result<()> {
        let place = self.path(name)?;
        let Some(unit) = Folder::open(&place)? else { return Ok(()) };
        let begun = Instant::now();
        let mut pause = Duration::from_micros(100);
        let lock = loop {
            match unit.try_lock() {
                Ok(Some(lock)) => break lock,
                Ok(None) => {}
                Err(error) if is_missing(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
            order(&unit, CONTROL_KILL)?;
            if begun.elapsed() > SHIM_PATIENCE {
                kill_shim(&unit);
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        if unit.is_started()? && unit.exit()?.is_none() {
            unit.sweep()?;
        }
        self.throw_away(&place)?;
        drop(lock);
        Ok(())
    }

    /// Deletes what a killed process of ours has left half made or half deleted.
    ///
    /// # Errors
    /// If the folders cannot be read; what cannot be deleted is left for the next time.
    pub fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join("trash"))? {
            let _next_time = delete(&entry?.path());
        }
        let area = File::open(self.root.join("making"))?;
        area.lock()?;
        for entry in fs::read_dir(self.root.join("making"))? {
            let path = entry?.path();
            let Ok(folder) = File::open(&path) else { continue };
            match folder.try_lock() {
                Ok(()) => {
                    let _next_time = delete(&path);
                }
                Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
            }
        }
        Ok(())
    }
}

/// Writes an order into a unit's control pipe. No error if nobody reads it: then there is no shim.
///
/// # Errors
/// If the pipe cannot be opened for another reason.
pub fn order(unit: &Folder, order: u8) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NONBLOCK);
    match options.open(unit.file(folder::CONTROL)) {
        // A full pipe holds thousands of orders that nobody has read yet; one more says nothing new.
        Ok(pipe) => nix::unistd::write(&pipe, &[order]).map(drop).or_else(|errno| match errno {
            Errno::EAGAIN | Errno::EPIPE => Ok(()),
            other => Err(other.into()),
        }),
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) || is_missing(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A shim that does not obey (it is stopped, or hangs).
fn kill_shim(unit: &Folder) {
    let Ok(Some(started)) = read_json::<Started>(&unit.file(folder::STARTED)) else { return };
    let same = process::find(&started.pid.to_string()).is_some_and(|p| p.ticks == started.ticks);
    if same && started.boot == process::boot_id() {
        process::send(started.pid, Signal::SIGKILL);
    }
}

/// Where a cache goes: below the home or the workspace. `None` for an absolute path, which only a container can have.
fn cache_place(cache: &CacheMount) -> io::Result<Option<(&'static str, PathBuf)>> {
    let refused = |why: &str| Error::new(ErrorKind::InvalidInput, format!("cache `{}` {why}", cache.path));
    let fit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if cache.volume.is_empty() || cache.volume.starts_with('.') || !cache.volume.bytes().all(fit) {
        return Err(refused("has a volume whose name is not fit for a folder"));
    }
    let (base, path) = match cache.path.strip_prefix("~/") {
        Some(path) => (folder::HOME, path),
        None if cache.path.starts_with('/') => return Ok(None),
        None => (folder::WORKSPACE, cache.path.as_str()),
    };
    let path = inside(Path::new(path)).ok_or_else(|| refused("leads outside of the workspace"))?;
    if path.as_os_str().is_empty() {
        return Err(refused("would hide the whole workspace"));
    }
    Ok(Some((base, path)))
}

/// Makes a folder below another, each level a real folder: a link in the source tree must not lead a cache elsewhere.
fn folder_without_links(base: &Path, below: &Path) -> io::Result<PathBuf> {
    let mut at = base.to_owned();
    for component in below.components() {
        let Component::Normal(part) = component else { continue };
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                let text = format!("`{}` is in the way of a cache: it is no folder", below.display());
                return Err(Error::new(ErrorKind::NotADirectory, text));
            }
            Err(error) if is_missing(&error) => fs::create_dir(&at)?,
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

/// Deletes a folder with all that is in it, folders that may not be written too. Links are not followed.
fn delete(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if is_missing(&error) => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) => Err(error),
    }
}

/// Gives the owner all rights on every folder.
fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// What it is doing, by name.
///
/// # Errors
/// If its folder cannot be read.
pub fn status(store: &Store, name: &UnitName) -> io::Result<UnitStatus> {
    store.find(name)?.map_or(Ok(UnitStatus::Absent), |unit| unit.status())
}
