//! A data folder in one file, made while builds run, and a data folder made of it.
//!
//! Files come before rows (see `ARCHITECTURE.md`), so the copy of the database is made first: whatever it names is there when the
//! files are copied after it. What came later is in the copy without a row, and harmless. The key of secrets is not in it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::paths::Paths;
use super::{Engine, EngineError};
use crate::store::snapshot;

/// What is copied beside the database, below the data folder.
const FOLDERS: [&str; 2] = ["logs", "artifacts/blobs"];
const DATABASE: &str = "orchestrator.db";
/// A log is packed while it is copied: then its folder is read again, at most so often.
const AGAIN: usize = 5;

/// What was written or read.
#[derive(Debug, Default, Clone, Copy, serde::Serialize)]
pub struct Copied {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

fn failed(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> EngineError {
    let what = what.to_string();
    move |error| EngineError::io(what, error)
}

/// Writes a backup. The file appears when it is whole and on the disk; one that was there is replaced.
///
/// # Errors
/// If something cannot be read or written; then no file appears.
pub async fn backup(engine: &Arc<Engine>, file: &Path) -> Result<Copied, EngineError> {
    let file = std::path::absolute(file).map_err(failed(file.display()))?;
    let copy = engine.paths.scratch().join(format!("backup-{}.db", std::process::id()));
    let _ = fs::remove_file(&copy);
    let target = copy.clone();
    let made = engine.store.read(move |db| snapshot::into_file(db, &target)).await;
    let (root, database) = (engine.paths.root().to_owned(), copy.clone());
    let done = match made {
        Ok(()) => tokio::task::spawn_blocking(move || write(&root, &database, &file))
            .await
            .map_err(|error| EngineError::Source(error.to_string()))?,
        Err(error) => Err(error.into()),
    };
    let _ = fs::remove_file(&copy);
    done
}

fn write(root: &Path, database: &Path, file: &Path) -> Result<Copied, EngineError> {
    let draft = file.with_file_name(format!(
        ".{}.{}",
        file.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    let written = || {
        // It holds all that the data folder holds.
        let open = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        let mut tar = tar::Builder::new(io::BufWriter::new(open));
        let mut copied = Copied::default();
        for folder in FOLDERS {
            add_folder(&mut tar, root, Path::new(folder), &mut copied)?;
        }
        // Last: a file that was cut off has none, and is no backup.
        add(&mut tar, database, Path::new(DATABASE), &mut copied)?;
        let open = tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        open.sync_all()?;
        fs::rename(&draft, file)?;
        File::open(file.parent().unwrap_or(Path::new("/")))?.sync_all()?;
        Ok(copied)
    };
    written().map_err(|error| {
        let _ = fs::remove_file(&draft);
        EngineError::io(format!("cannot write the backup {}", file.display()), error)
    })
}

type Tar = tar::Builder<io::BufWriter<File>>;

fn add_folder(tar: &mut Tar, root: &Path, folder: &Path, copied: &mut Copied) -> io::Result<()> {
    let mut done = std::collections::BTreeSet::new();
    for _ in 0..AGAIN {
        let entries = match fs::read_dir(root.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut gone = false;
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            if done.contains(&path) {
                continue;
            }
            if kind.is_dir() {
                add_folder(tar, root, &path, copied)?;
            } else if kind.is_file() {
                match add(tar, &root.join(&path), &path, copied) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        gone = true;
                        continue;
                    }
                    other => other?,
                }
            }
            done.insert(path);
        }
        if !gone {
            break;
        }
    }
    Ok(())
}

/// A file as long as it is now: a log that grows meanwhile is cut there, as by a kill.
fn add(tar: &mut Tar, from: &Path, path: &Path, copied: &mut Copied) -> io::Result<()> {
    let file = File::open(from)?;
    let about = file.metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&about);
    header.set_size(about.len());
    // Shorter than it was said to be, the archive would be wrong: no file of ours is ever cut.
    tar.append_data(&mut header, path, file.take(about.len()))?;
    copied.files += 1;
    copied.bytes += about.len();
    Ok(())
}

/// Makes a data folder of a backup. It must be empty, or not there.
///
/// # Errors
/// If it is not empty, or the file is no whole backup; then what was unpacked is to be removed by hand.
pub fn restore(paths: &Paths, file: &Path) -> Result<Copied, EngineError> {
    let root = paths.root();
    if fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(EngineError::Source(format!(
            "{} is not empty; restore into a new folder (--data-dir)",
            root.display()
        )));
    }
    paths.create()?;
    let open = File::open(file).map_err(failed(format!("cannot read {}", file.display())))?;
    let mut archive = tar::Archive::new(io::BufReader::new(open));
    let draft = root.join(".restoring.db");
    let (mut copied, mut whole) = (Copied::default(), false);
    let broken = || failed(format!("cannot restore {}", file.display()));
    for entry in archive.entries().map_err(broken())? {
        let mut entry = entry.map_err(broken())?;
        let path = entry.path().map_err(broken())?.into_owned();
        let database = path == Path::new(DATABASE);
        if !(database || ours(&path)) || !entry.header().entry_type().is_file() {
            let text = format!("{} holds `{}`, which no backup of orchestrator holds", file.display(), path.display());
            return Err(EngineError::Source(text));
        }
        let target = if database { draft.clone() } else { root.join(&path) };
        let mode = entry.header().mode().unwrap_or(0o600) & 0o700;
        copied.bytes += unpack(&mut entry, &target, mode).map_err(broken())?;
        copied.files += 1;
        whole |= database;
    }
    if !whole {
        let text = format!(
            "{} was cut off: it holds no database; remove {} and take another backup",
            file.display(),
            root.display()
        );
        return Err(EngineError::Source(text));
    }
    // Last, so that a folder with a database is a whole one.
    fs::rename(&draft, paths.database()).and_then(|()| File::open(root)?.sync_all()).map_err(broken())?;
    Ok(copied)
}

fn ours(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
        && FOLDERS.iter().any(|folder| path.starts_with(folder) && path != Path::new(folder))
}

fn unpack(from: &mut impl Read, target: &PathBuf, mode: u32) -> io::Result<u64> {
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(target)?;
    let bytes = io::copy(from, &mut file)?;
    file.sync_all()?;
    Ok(bytes)
}
