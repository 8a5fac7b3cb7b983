//! Which files belong to a tree, and how they get into the store.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use ignore::WalkBuilder;

use super::SourceError;
use super::cache::StatCache;
use crate::artifact::ArtifactStore;
use crate::artifact::manifest::{Digest, FileEntry, Manifest};

/// From this size on a file is named: data of that size is better kept elsewhere.
const LARGE: u64 = 2 << 30;

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

/// Takes the files into the store. Files whose stat is known are not read again.
pub(super) fn take(
    folder: &Path,
    paths: &BTreeSet<PathBuf>,
    store: &ArtifactStore,
    cache: &Path,
    warnings: &mut Vec<String>,
) -> Result<Manifest, SourceError> {
    let mut known = StatCache::open(cache, folder);
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let Some(name) = path.to_str() else {
            return Err(SourceError::Refused(format!("the name of {} is not UTF-8; rename it", path.display())));
        };
        let full = folder.join(path);
        let meta = full.symlink_metadata().map_err(io(&full))?;
        if meta.is_symlink() {
            files.push(link(name, &full)?);
        } else if meta.is_file() {
            if meta.len() >= LARGE {
                warnings.push(format!("{name} has {} and is part of the source tree", crate::words::size(meta.len())));
            }
            let digest = known.digest(name, &meta, store, || fs::File::open(&full).map_err(io(&full)))?;
            let executable = meta.permissions().mode() & 0o111 != 0;
            files.push(FileEntry { path: name.to_owned(), executable, size: digest.1, digest: digest.0, link: None });
        }
        // Sockets, pipes and devices in a work tree are somebody's leftovers, and no source.
    }
    known.save();
    Ok(Manifest::new(files))
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
                let why =
                    format!("the link {name} leads out of the source tree, to {text}; a build gets only the tree");
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
    })
}
