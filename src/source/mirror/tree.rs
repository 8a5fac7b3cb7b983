//! A commit's tree into the artifact store, straight from git's objects: no checkout, so no filter, no hook, no attribute.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Component, Path};
use std::sync::Arc;

use git2::{ObjectType, Odb, Oid, Repository};

use super::known::{Blob, Known};
use super::{Control, Inner, Mirror, MirrorError, Wanted, heal, modules};
use crate::artifact::manifest::{Digest, FileEntry, Manifest};
use crate::artifact::{ArtifactStore, Batch, Reliance};

/// A `.gitmodules` of more bytes is none.
const GITMODULES: usize = 1 << 20;
/// A link's target is no longer than the system allows.
const LINK: usize = 4096;
/// LFS pointers are smaller.
const POINTER: usize = 1024;
/// Bytes of a path at most, as the system has it.
const PATH: usize = 4096;
/// Folders within each other.
pub(super) const DEPTH: usize = 128;
/// Remarks of one kind that are listed by name.
const NAMED: usize = 20;

/// Which tree is taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TreeOptions {
    /// A folder of the repository, without a slash at its ends; empty for the whole.
    pub folder: String,
}

/// A tree in the artifact store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorTree {
    /// Its files.
    pub manifest: Manifest,
    /// Of the manifest, which is in the store.
    pub digest: Digest,
    /// Remarks for people: LFS pointers, submodules that were left out.
    pub warnings: Vec<String>,
}

/// One entry of a tree, before its content is taken.
struct Found {
    path: String,
    blob: Oid,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Executable,
    Link,
    Submodule,
}

/// What is gathered over a tree and its submodules.
struct Gathered {
    files: Vec<FileEntry>,
    bytes: u64,
    pointers: Vec<String>,
    warnings: Vec<String>,
    /// Repositories and commits on the way down to here.
    above: HashSet<(String, Oid)>,
}

impl Mirror {
    /// Takes a commit's tree into the store. Equal trees give the digest that a clean checkout gives.
    ///
    /// # Errors
    /// [`MirrorError::NotFound`] for a commit that is not here, [`MirrorError::Refused`] for a path or link that a build
    /// cannot have, [`MirrorError::TooLarge`] beyond the limits, and those of a fetch for submodules.
    pub async fn tree(
        &self,
        commit: Oid,
        options: &TreeOptions,
        store: &Arc<ArtifactStore>,
        control: &Control,
    ) -> Result<MirrorTree, MirrorError> {
        let (files, folder) = (Arc::clone(store), options.folder.clone());
        let taken = self.blocking(control, move |inner, control| {
            let mut gathered = Gathered {
                files: Vec::new(),
                bytes: 0,
                pointers: Vec::new(),
                warnings: Vec::new(),
                above: HashSet::new(),
            };
            inner.gather(commit, &folder, "", &files, control, &mut gathered)?;
            Ok(gathered)
        });
        let mut taken = taken.await?;
        if let Some(first) = taken.pointers.first() {
            let count = taken.pointers.len();
            let names = if count == 1 { first.clone() } else { named(&taken.pointers) };
            let text =
                format!("{names}: only the LFS pointer is there, LFS files are not fetched; get them in the stage");
            taken.warnings.push(text);
        }
        let manifest = Manifest::new(taken.files);
        let digest = store.put_manifest(&manifest).await?;
        Ok(MirrorTree { manifest, digest, warnings: taken.warnings })
    }
}

fn named(all: &[String]) -> String {
    let more = all.len().saturating_sub(NAMED);
    let names = all[..all.len() - more].join(", ");
    if more == 0 { names } else { format!("{names} and {more} more") }
}

impl Inner {
    /// Reads the mirror; what cannot be read although it must be there marks the mirror as damaged.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Repository) -> Result<T, MirrorError>) -> Result<T, MirrorError> {
        if !self.folder.exists() {
            let text = format!("{} was not fetched yet", self.remote.url);
            return Err(MirrorError::NotFound(text));
        }
        let done = self.with_repository(work);
        if let (Err(MirrorError::Damaged { .. }), false) = (&done, self.in_place) {
            heal::mark(&self.folder);
        }
        done
    }

    pub(super) fn damaged(&self, error: &git2::Error) -> MirrorError {
        MirrorError::of_mirror(&self.remote.url, error)
    }

    /// The tree of a commit; a commit that is not here is no damage.
    pub(super) fn tree_of<'r>(&self, repository: &'r Repository, commit: Oid) -> Result<git2::Tree<'r>, MirrorError> {
        self.commit(repository, commit)?.tree().map_err(|error| self.damaged(&error))
    }

    pub(super) fn commit<'r>(&self, repository: &'r Repository, id: Oid) -> Result<git2::Commit<'r>, MirrorError> {
        repository.find_commit(id).map_err(|error| match error.code() {
            git2::ErrorCode::NotFound | git2::ErrorCode::InvalidSpec => MirrorError::NotFound(format!(
                "{} has no commit {id} here; it may have been removed by a force push",
                self.remote.url
            )),
            _ => self.damaged(&error),
        })
    }

    fn gather(
        &self,
        commit: Oid,
        folder: &str,
        prefix: &str,
        store: &Arc<ArtifactStore>,
        control: &Control,
        gathered: &mut Gathered,
    ) -> Result<(), MirrorError> {
        let submodules = self.read(|repository| {
            let root = self.tree_of(repository, commit)?;
            let tree = self.below(repository, &root, folder)?;
            let mut walk =
                Walk { inner: self, control, files: Vec::new(), modules: Vec::new(), seen: gathered.files.len() };
            walk.enter(repository, &tree, prefix, 0)?;
            let Walk { files, modules, .. } = walk;
            self.take(repository, files, store, control, gathered)?;
            let addresses = if modules.is_empty() { String::new() } else { self.gitmodules(repository, &root)? };
            Ok((modules, modules::parse(&addresses)))
        })?;
        let (found, addresses) = submodules;
        for Found { path, blob: target, .. } in found {
            control.go_on()?;
            let inside = path.strip_prefix(prefix).unwrap_or(&path).trim_start_matches('/');
            let within = if folder.is_empty() { inside.to_owned() } else { format!("{folder}/{inside}") };
            let Some(url) = addresses.get(&within) else {
                gathered.warnings.push(format!("the submodule {path} is left out: .gitmodules does not name it"));
                continue;
            };
            self.submodule(&path, url, target, (commit, store), control, gathered)?;
        }
        Ok(())
    }

    fn submodule(
        &self,
        path: &str,
        url: &str,
        target: Oid,
        (commit, store): (Oid, &Arc<ArtifactStore>),
        control: &Control,
        gathered: &mut Gathered,
    ) -> Result<(), MirrorError> {
        let here = (self.remote.url.clone(), commit);
        let remote = self.remote.submodule(url)?;
        let mirror = Mirror::open(&self.root, remote, self.limits.clone())?;
        let below = (mirror.remote().url.clone(), target);
        if below == here || gathered.above.contains(&below) {
            return Err(MirrorError::Refused(format!("the submodule {path} contains itself")));
        }
        if gathered.above.len() >= self.limits.submodule_depth {
            let most = self.limits.submodule_depth;
            return Err(MirrorError::TooLarge(format!("the submodule {path} lies deeper than {most} submodules")));
        }
        let fetched = || {
            if !mirror.inner.has(target) {
                mirror.inner.fetch(&Wanted::All, control)?;
            }
            if !mirror.inner.has(target) {
                mirror.inner.fetch(&Wanted::Commit(target), control)?;
            }
            Ok(())
        };
        fetched().map_err(|error: MirrorError| in_submodule(path, error))?;
        gathered.above.insert(here.clone());
        mirror.inner.gather(target, "", path, store, control, gathered)?;
        gathered.above.remove(&here);
        Ok(())
    }

    fn gitmodules(&self, repository: &Repository, root: &git2::Tree<'_>) -> Result<String, MirrorError> {
        let Some(entry) = root.get_name(".gitmodules").filter(|entry| entry.filemode() & 0o170_000 == 0o100_000) else {
            return Ok(String::new());
        };
        let bytes = self.small(repository, entry.id(), GITMODULES, ".gitmodules")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A whole blob of at most so many bytes.
    pub(super) fn small(
        &self,
        repository: &Repository,
        blob: Oid,
        most: usize,
        name: &str,
    ) -> Result<Vec<u8>, MirrorError> {
        let odb = repository.odb().map_err(|error| self.damaged(&error))?;
        let (size, _) = odb.read_header(blob).map_err(|error| self.damaged(&error))?;
        if size > most {
            return Err(MirrorError::TooLarge(format!("{name} has {size} bytes, and may have {most}")));
        }
        Ok(odb.read(blob).map_err(|error| self.damaged(&error))?.data().to_vec())
    }

    /// A folder of a tree.
    fn below<'r>(
        &self,
        repository: &'r Repository,
        root: &git2::Tree<'r>,
        folder: &str,
    ) -> Result<git2::Tree<'r>, MirrorError> {
        if folder.is_empty() {
            return Ok(root.clone());
        }
        let absent = || MirrorError::NotFound(format!("{} has no folder {folder} at this commit", self.remote.url));
        let entry = root.get_path(Path::new(folder)).map_err(|_| absent())?;
        if entry.kind() != Some(ObjectType::Tree) {
            return Err(absent());
        }
        repository.find_tree(entry.id()).map_err(|error| self.damaged(&error))
    }

    /// Contents into the store: those that are known and there are not read.
    fn take(
        &self,
        repository: &Repository,
        found: Vec<Found>,
        store: &Arc<ArtifactStore>,
        control: &Control,
        gathered: &mut Gathered,
    ) -> Result<(), MirrorError> {
        let mut known = Known::open(&self.blobs());
        let stored = stored(&found, &known, store)?;
        let odb = repository.odb().map_err(|error| self.damaged(&error))?;
        let mut reader = Blobs {
            inner: self,
            odb: &odb,
            batch: Batch::new(store),
            left: self.limits.tree.bytes.saturating_sub(gathered.bytes),
        };
        for Found { path, blob, kind } in found {
            control.go_on()?;
            if kind == Kind::Link {
                let target = self.small(repository, blob, LINK, &path)?;
                gathered.files.push(link(&path, target)?);
                continue;
            }
            let content = match known.get(blob).filter(|known| stored.contains(&known.digest)) {
                Some(content) => content,
                None => {
                    let content = reader.take(&path, blob)?;
                    known.learn(blob, content);
                    content
                }
            };
            if content.size > reader.left {
                return Err(reader.too_much(&path));
            }
            reader.left -= content.size;
            gathered.bytes += content.size;
            if content.pointer {
                gathered.pointers.push(path.clone());
            }
            let Blob { digest, size, .. } = content;
            gathered.files.push(FileEntry {
                path,
                executable: kind == Kind::Executable,
                size,
                digest,
                link: None,
                origin: None,
            });
        }
        reader.batch.keep()?;
        known.save();
        Ok(())
    }
}

fn in_submodule(path: &str, error: MirrorError) -> MirrorError {
    match error {
        MirrorError::Denied { remote, detail } => {
            MirrorError::Denied { remote: format!("{remote} (the submodule {path})"), detail }
        }
        MirrorError::Unreachable { remote, detail } => {
            MirrorError::Unreachable { remote: format!("{remote} (the submodule {path})"), detail }
        }
        MirrorError::NotFound(text) => MirrorError::NotFound(format!("submodule {path}: {text}")),
        other => other,
    }
}

/// Which of the known contents the store has.
fn stored(found: &[Found], known: &Known, store: &ArtifactStore) -> Result<HashSet<Digest>, MirrorError> {
    let asked: Vec<(Digest, u64)> =
        found.iter().filter_map(|file| known.get(file.blob)).map(|known| (known.digest, known.size)).collect();
    let there = store.present(&asked, Reliance::New)?;
    Ok(asked.into_iter().zip(there).filter(|(_, there)| *there).map(|((digest, _), _)| digest).collect())
}

struct Blobs<'a> {
    inner: &'a Inner,
    odb: &'a Odb<'a>,
    batch: Batch<'a>,
    left: u64,
}

impl Blobs<'_> {
    fn too_much(&self, path: &str) -> MirrorError {
        let most = crate::words::size(self.inner.limits.tree.bytes);
        MirrorError::TooLarge(format!("{path} makes the tree larger than {most}"))
    }

    fn take(&mut self, path: &str, blob: Oid) -> Result<Blob, MirrorError> {
        let (size, kind) = self.odb.read_header(blob).map_err(|error| self.inner.damaged(&error))?;
        if kind != ObjectType::Blob {
            return Err(MirrorError::Refused(format!("{path} is no file in git")));
        }
        if size as u64 > self.left {
            return Err(self.too_much(path));
        }
        if size as u64 > self.inner.limits.file {
            let (has, most) = (crate::words::size(size as u64), crate::words::size(self.inner.limits.file));
            let text = format!("{path} has {has}, and a file in git may have {most}; keep data of that size elsewhere");
            return Err(MirrorError::TooLarge(text));
        }
        let object = self.odb.read(blob).map_err(|error| self.inner.damaged(&error))?;
        let mut data: &[u8] = object.data();
        let pointer = size <= POINTER && data.starts_with(b"version https://git-lfs.github.com/spec/");
        let (digest, size) = self.batch.put_reader(&mut data as &mut dyn Read, size as u64)?;
        Ok(Blob { digest, size, pointer })
    }
}

/// Walks a tree: paths are checked, contents only named.
struct Walk<'a> {
    inner: &'a Inner,
    control: &'a Control,
    files: Vec<Found>,
    modules: Vec<Found>,
    seen: usize,
}

impl Walk<'_> {
    fn enter(
        &mut self,
        repository: &Repository,
        tree: &git2::Tree<'_>,
        prefix: &str,
        depth: usize,
    ) -> Result<(), MirrorError> {
        self.control.go_on()?;
        let caps = &self.inner.limits.tree;
        for entry in tree.iter() {
            let path = child(prefix, entry.name_bytes())?;
            if path.len() > PATH || depth >= DEPTH {
                return Err(MirrorError::TooLarge(format!("{path} is too long a path, or lies too deep")));
            }
            let blob = entry.id();
            match entry.filemode() & 0o170_000 {
                0o040_000 => {
                    let below = repository.find_tree(blob).map_err(|error| self.inner.damaged(&error))?;
                    self.enter(repository, &below, &path, depth + 1)?;
                    continue;
                }
                0o160_000 => self.modules.push(Found { path, blob, kind: Kind::Submodule }),
                0o120_000 => self.files.push(Found { path, blob, kind: Kind::Link }),
                0o100_000 if entry.filemode() & 0o111 != 0 => {
                    self.files.push(Found { path, blob, kind: Kind::Executable })
                }
                0o100_000 => self.files.push(Found { path, blob, kind: Kind::File }),
                mode => {
                    return Err(MirrorError::Refused(format!("{path} has the mode {mode:o}, which git does not have")));
                }
            }
            self.seen += 1;
            if self.seen > caps.files {
                return Err(MirrorError::TooLarge(format!("the tree has more than {} files", caps.files)));
            }
        }
        Ok(())
    }
}

/// The path of an entry; a name that could lead elsewhere is refused.
fn child(prefix: &str, name: &[u8]) -> Result<String, MirrorError> {
    let refuse = |why: &str| {
        let shown = name.escape_ascii();
        let place = if prefix.is_empty() { String::new() } else { format!(" in {prefix}") };
        Err(MirrorError::Refused(format!("the name \"{shown}\"{place} {why}")))
    };
    let Ok(text) = std::str::from_utf8(name) else { return refuse("is not UTF-8; rename it") };
    if matches!(text, "" | "." | "..") || text.contains(['/', '\0']) || text.eq_ignore_ascii_case(".git") {
        return refuse("is not taken: it could lead out of the tree");
    }
    Ok(if prefix.is_empty() { text.to_owned() } else { format!("{prefix}/{text}") })
}

/// A link that stays inside of the tree: the rule for work trees.
fn link(path: &str, target: Vec<u8>) -> Result<FileEntry, MirrorError> {
    let refuse = |why: String| Err(MirrorError::Refused(format!("the link {path} {why}")));
    let Ok(text) = String::from_utf8(target) else { return refuse("has a target that is not UTF-8".to_owned()) };
    let mut depth = path.matches('/').count();
    for part in Path::new(&text).components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                let shown = text.escape_debug();
                return refuse(format!("leads out of the source tree, to {shown}; a build gets only the tree"));
            }
        }
    }
    let digest = Digest::of(text.as_bytes());
    Ok(FileEntry { path: path.to_owned(), executable: false, size: 0, digest, link: Some(text), origin: None })
}
