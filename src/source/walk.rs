//! Which files belong to a tree, and how they get into the store.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ignore::WalkBuilder;

use super::SourceError;
use super::cache::{Stat, StatCache};
use crate::artifact::manifest::{Digest, FileEntry, Manifest};
use crate::artifact::{self, ArtifactStore, Batch, Reliance};

/// From this size on a file is named: data of that size is better kept elsewhere.
const LARGE: u64 = 2 << 30;
/// More files than this are a folder that was not meant.
const MOST_FILES: usize = 200_000;
/// A file that changes while it is read is read anew, this often.
const TRIES: usize = 3;

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> SourceError {
    let what = format!("cannot read {}", path.display());
    move |source| SourceError::Io { what, source }
}

/// Paths of all files and links, relative to the folder. `tracked` ones count even where git would ignore them.
pub(super) fn paths(folder: &Path, tracked: &BTreeSet<PathBuf>) -> Result<BTreeSet<PathBuf>, SourceError> {
    let refused = |error: ignore::Error| SourceError::Refused(error.to_string());
    let walk = WalkBuilder::new(folder)
        .hidden(false)
        .parents(true)
        .require_git(true)
        .follow_links(false)
        .ignore(false)
        .add_custom_ignore_filename(".orchestratorignore")
        .filter_entry(|entry| entry.depth() == 0 || entry.file_name() != ".git")
        .build();
    let mut found: BTreeSet<PathBuf> = tracked
        .iter()
        .filter(|path| folder.join(path).symlink_metadata().is_ok_and(|meta| !meta.is_dir()))
        .cloned()
        .collect();
    for entry in walk {
        let entry = entry.map_err(refused)?;
        if entry.file_type().is_some_and(|kind| kind.is_dir()) {
            continue;
        }
        if let Ok(path) = entry.path().strip_prefix(folder) {
            found.insert(path.to_owned());
        }
    }
    Ok(found)
}

/// A file to be taken.
struct Found {
    name: String,
    full: PathBuf,
    meta: Metadata,
    /// Its digest, if it looks as it did when it was read last.
    known: Option<Digest>,
}

/// Takes the files into the store. Files whose stat is known, and which the store still has, are not read again.
pub(super) fn take(
    folder: &Path,
    paths: &BTreeSet<PathBuf>,
    store: &Arc<ArtifactStore>,
    cache: &Path,
    warnings: &mut Vec<String>,
) -> Result<Manifest, SourceError> {
    if paths.len() > MOST_FILES {
        let text = format!(
            "it has {} files, and {MOST_FILES} are taken at most; name what is no source in .gitignore or .orchestratorignore",
            paths.len()
        );
        return Err(SourceError::Refused(text));
    }
    let mut cache = StatCache::open(cache, folder);
    let mut files = Vec::with_capacity(paths.len());
    let found = look(folder, paths, &cache, &mut files, warnings)?;
    let known: Vec<(Digest, u64)> = found.iter().filter_map(|file| Some((file.known?, file.meta.len()))).collect();
    let there: HashSet<Digest> = known
        .iter()
        .zip(store.present(&known, Reliance::New)?)
        .filter(|(_, there)| *there)
        .map(|((digest, _), _)| *digest)
        .collect();
    let mut batch = Batch::new(store);
    for file in found {
        let (digest, stat) = match file.known.filter(|digest| there.contains(digest)) {
            Some(digest) => (digest, Stat::of(&file.meta)),
            None => read(&file, &mut batch)?,
        };
        cache.remember(&file.name, stat, digest);
        let executable = file.meta.permissions().mode() & 0o111 != 0;
        files.push(FileEntry { path: file.name, executable, size: stat.size, digest, link: None, origin: None });
    }
    batch.keep()?;
    cache.save();
    Ok(Manifest::new(files))
}

/// Finds the files; links are taken at once.
fn look(
    folder: &Path,
    paths: &BTreeSet<PathBuf>,
    cache: &StatCache,
    links: &mut Vec<FileEntry>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Found>, SourceError> {
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        let Some(name) = path.to_str() else {
            return Err(SourceError::Refused(format!("the name of {} is not UTF-8; rename it", path.display())));
        };
        let name = artifact::clean_path(name)?;
        let full = folder.join(path);
        let meta = match full.symlink_metadata() {
            Ok(meta) => meta,
            // Removed since it was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io(&full)(error)),
        };
        if meta.is_symlink() {
            links.push(link(&name, &full)?);
        } else if meta.is_file() {
            if meta.len() >= LARGE {
                warnings.push(format!("{name} has {} and is part of the source tree", crate::words::size(meta.len())));
            }
            let known = cache.get(&name, &Stat::of(&meta));
            found.push(Found { name, full, meta, known });
        }
        // Sockets, pipes and devices in a work tree are somebody's leftovers, and no source.
    }
    Ok(found)
}

/// Reads a file, again if it changed meanwhile.
fn read(file: &Found, batch: &mut Batch<'_>) -> Result<(Digest, Stat), SourceError> {
    let mut before = Stat::of(&file.meta);
    for _ in 0..TRIES {
        let mut source = fs::File::open(&file.full).map_err(io(&file.full))?;
        let (digest, size) = batch.put_reader(&mut source, u64::MAX - 1)?;
        let after = Stat::of(&file.full.symlink_metadata().map_err(io(&file.full))?);
        if after == before && size == before.size {
            return Ok((digest, after));
        }
        before = after;
    }
    let text = format!("`{}` keeps changing while it is read; stop what writes to it, or have it ignored", file.name);
    Err(SourceError::Refused(text))
}

/// A link that stays inside of the tree.
fn link(name: &str, full: &Path) -> Result<FileEntry, SourceError> {
    let target = fs::read_link(full).map_err(io(full))?;
    let text = target.to_string_lossy().into_owned();
    let mut depth = Path::new(name).components().count() - 1;
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                let why = format!(
                    "the link `{name}` leads out of the source tree, to `{text}`, and a build gets only the tree; copy what it \
                     stands for, or name it in .gitignore or .orchestratorignore"
                );
                return Err(SourceError::Refused(why));
            }
        }
    }
    Ok(FileEntry {
        path: name.to_owned(),
        executable: false,
        size: 0,
        digest: Digest::of(text.as_bytes()),
        link: Some(text),
        origin: None,
    })
}
