//! What a killed process leaves in a mirror, and what a damaged disk does to it. Only under the mirror's lock.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use git2::Repository;

use super::remote::Remote;
use super::transport::init;
use super::{Control, MirrorError};

/// Said by a reader that found damage; the next fetch acts on it.
const DAMAGED: &str = "orchestrator-damaged";

/// One fetch at a time, in all processes. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held, not read")] File);

impl Lock {
    /// Waits for the lock, for as long as nobody cancels.
    pub(super) fn take(folder: &Path, control: &Control) -> Result<Self, MirrorError> {
        let path = folder.with_extension("lock");
        let io = || MirrorError::io(format!("cannot lock {}", path.display()));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io())?;
        }
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io())?;
        loop {
            control.go_on()?;
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                // The kernel tells nobody in a way that can be cancelled.
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
                Err(TryLockError::Error(error)) => return Err(io()(error)),
            }
        }
    }
}

/// Leaves a note that the mirror is damaged.
pub(super) fn mark(folder: &Path) {
    if let Err(error) = fs::write(folder.join(DAMAGED), b"") {
        tracing::warn!(folder = %folder.display(), %error, "cannot mark a damaged mirror");
    }
}

/// Opens the mirror for a fetch: made if absent, cleaned of leavings, moved aside and made anew if damaged. The second value
/// tells of the latter.
pub(super) fn open(folder: &Path, remote: &Remote) -> Result<(Repository, Option<String>), MirrorError> {
    if !folder.exists() {
        return Ok((make(folder, remote)?, None));
    }
    let damage = if folder.join(DAMAGED).exists() {
        "an object could not be read".to_owned()
    } else {
        clean(folder)?;
        match sound(folder) {
            Ok(repository) => return Ok((repository, None)),
            Err(damage) => damage,
        }
    };
    anew(folder, remote, &damage)
}

/// Moves a damaged mirror aside, in place of an earlier such one, and makes it anew.
pub(super) fn anew(folder: &Path, remote: &Remote, damage: &str) -> Result<(Repository, Option<String>), MirrorError> {
    let aside = folder.with_extension("damaged");
    let io = |what: &Path| MirrorError::io(format!("cannot move {} aside", what.display()));
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(io(&aside))?;
    }
    fs::rename(folder, &aside).map_err(io(folder))?;
    let text = format!(
        "the mirror of {} was damaged ({damage}); it is now {}, and was made anew",
        remote.url,
        aside.display()
    );
    tracing::warn!("{text}");
    Ok((make(folder, remote)?, Some(text)))
}

/// Made beside and moved into place: a mirror is there as a whole, or not at all.
fn make(folder: &Path, remote: &Remote) -> Result<Repository, MirrorError> {
    let fresh = folder.with_extension("new");
    let io = MirrorError::io(format!("cannot make the mirror {}", folder.display()));
    let made = (|| {
        if fresh.exists() {
            fs::remove_dir_all(&fresh)?;
        }
        fs::create_dir_all(&fresh)
    })();
    if let Err(error) = made {
        return Err(io(error));
    }
    drop(init(&fresh, remote)?);
    fs::rename(&fresh, folder).map_err(io)?;
    Repository::open_bare(folder).map_err(|error| MirrorError::of_mirror(&remote.url, &error))
}

/// The repository opens, each pack has its index, and what the refs name is there.
fn sound(folder: &Path) -> Result<Repository, String> {
    let words = |error: git2::Error| error.message().to_owned();
    let repository = Repository::open_bare(folder).map_err(words)?;
    for pack in files(&folder.join("objects/pack")) {
        if pack.extension().is_some_and(|kind| kind == "idx") {
            let mut head = [0; 4];
            let read = File::open(pack.with_extension("pack"))
                .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head));
            if read.is_err() || &head != b"PACK" {
                return Err(format!("{} has no pack", pack.display()));
            }
        }
    }
    {
        let store = repository.odb().map_err(words)?;
        for reference in repository.references().map_err(words)? {
            let reference = reference.map_err(words)?;
            if let Some(target) = reference.target()
                && store.read_header(target).is_err()
            {
                return Err(format!(
                    "{} names {target}, which cannot be read",
                    String::from_utf8_lossy(reference.name_bytes())
                ));
            }
        }
    }
    Ok(repository)
}

/// Removes what only a killed process leaves: lock files, packs and objects that were being written.
fn clean(folder: &Path) -> Result<(), MirrorError> {
    let mut stale: Vec<PathBuf> = files(folder).filter(|path| is_lock(path)).collect();
    let pack = folder.join("objects/pack");
    stale.extend(files(&pack).filter(|path| {
        // A pack without its index is not finished; libgit2 writes the index last.
        let whole = path.extension().is_some_and(|kind| kind == "idx") || path.with_extension("idx").exists();
        !whole
    }));
    stale.extend(files(&folder.join("objects")).filter(|path| name(path).starts_with("tmp_object")));
    let mut folders = vec![folder.join("refs")];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) if is_lock(&entry.path()) => stale.push(entry.path()),
                Ok(_) | Err(_) => {}
            }
        }
    }
    for path in stale {
        tracing::info!(path = %path.display(), "removed what an ended fetch left");
        fs::remove_file(&path).map_err(MirrorError::io(format!("cannot remove {}", path.display())))?;
    }
    Ok(())
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).map(|entry| entry.path())
}

fn is_lock(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "lock")
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
