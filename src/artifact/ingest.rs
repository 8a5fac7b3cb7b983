//! Tars and folders into the store. A tar from a container is hostile until shown otherwise.

use std::collections::HashSet;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};
use std::sync::Arc;

use tar::EntryType;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::manifest::{FileEntry, Manifest};
use super::{ArtifactError, ArtifactStore};
use crate::runner::TarStream;

/// What is taken at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caps {
    /// Files.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of one path.
    pub path: usize,
    /// Folders within each other.
    pub depth: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self { files: 200_000, bytes: 100 << 30, path: 1024, depth: 64 }
    }
}

/// Files taken so far.
struct Taken<'a> {
    store: &'a ArtifactStore,
    caps: &'a Caps,
    files: Vec<FileEntry>,
    seen: HashSet<String>,
    bytes: u64,
}

impl ArtifactStore {
    /// Takes a tar. Paths get `prefix` before them. Folders are not kept by themselves.
    ///
    /// # Errors
    /// [`ArtifactError::Refused`] naming the entry that is a link, a device, leads outside, comes twice, or is too much.
    pub async fn ingest_tar(
        self: &Arc<Self>,
        stream: TarStream,
        prefix: &str,
        caps: &Caps,
    ) -> Result<Manifest, ArtifactError> {
        let (store, prefix, caps) = (Arc::clone(self), prefix.to_owned(), caps.clone());
        let reader = SyncIoBridge::new(StreamReader::new(stream));
        blocking(move || read_tar(&store, reader, &prefix, &caps)).await
    }

    /// Takes all files of a folder.
    ///
    /// # Errors
    /// As [`ArtifactStore::ingest_tar`].
    pub async fn ingest_folder(self: &Arc<Self>, folder: &Path, caps: &Caps) -> Result<Manifest, ArtifactError> {
        let (store, folder, caps) = (Arc::clone(self), folder.to_owned(), caps.clone());
        blocking(move || {
            let mut taken = Taken::new(&store, &caps);
            read_folder(&mut taken, &folder, "")?;
            Ok(Manifest::new(taken.files))
        })
        .await
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(ArtifactError::io("a thread broke")(std::io::Error::other(error))))
}

fn read_tar(store: &ArtifactStore, reader: impl Read, prefix: &str, caps: &Caps) -> Result<Manifest, ArtifactError> {
    let torn = |error| ArtifactError::io("the archive is torn or no archive")(error);
    let mut taken = Taken::new(store, caps);
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().map_err(torn)? {
        let mut entry = entry.map_err(torn)?;
        let name = entry.path_bytes().into_owned();
        let name = String::from_utf8(name)
            .map_err(|error| ArtifactError::Refused(format!("`{}` is not UTF-8", error.to_string().escape_debug())))?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {}
            EntryType::Symlink | EntryType::Link => {
                let text = format!("`{name}` is a link; outputs are files, so copy what it points to");
                return Err(ArtifactError::Refused(text));
            }
            _ => {
                return Err(ArtifactError::Refused(format!("`{name}` is a device or pipe, and no file")));
            }
        }
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let executable = entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0);
        let size = entry.size();
        taken.take(&path, executable, size, &mut entry)?;
    }
    Ok(Manifest::new(taken.files))
}

fn read_folder(taken: &mut Taken<'_>, folder: &Path, prefix: &str) -> Result<(), ArtifactError> {
    let io = |error| ArtifactError::io(folder.display().to_string())(error);
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let kind = entry.file_type().map_err(io)?;
        if kind.is_dir() {
            read_folder(taken, &entry.path(), &path)?;
        } else if kind.is_file() {
            let meta = entry.metadata().map_err(io)?;
            let mut file = std::fs::File::open(entry.path()).map_err(io)?;
            taken.take(&path, meta.permissions().mode() & 0o111 != 0, meta.len(), &mut file)?;
        } else {
            return Err(ArtifactError::Refused(format!("`{path}` is a link or a device, and no file")));
        }
    }
    Ok(())
}

impl<'a> Taken<'a> {
    fn new(store: &'a ArtifactStore, caps: &'a Caps) -> Self {
        Self { store, caps, files: Vec::new(), seen: HashSet::new(), bytes: 0 }
    }

    fn take(&mut self, path: &str, executable: bool, size: u64, reader: &mut dyn Read) -> Result<(), ArtifactError> {
        let path = clean_path(path)?;
        self.check(&path, size)?;
        let most = self.caps.bytes - self.bytes;
        let (digest, read) = self.store.put_reader(reader, most)?;
        if read != size {
            return Err(ArtifactError::Refused(format!("`{path}` has {read} bytes where {size} were said")));
        }
        self.bytes += read;
        self.files.push(FileEntry { path, executable, size, digest, link: None });
        Ok(())
    }

    fn check(&mut self, path: &str, size: u64) -> Result<(), ArtifactError> {
        let refuse = |why: String| Err(ArtifactError::Refused(format!("`{path}` {why}")));
        if path.len() > self.caps.path {
            return refuse(format!("is longer than {} bytes", self.caps.path));
        }
        if path.matches('/').count() >= self.caps.depth {
            return refuse(format!("lies deeper than {} folders", self.caps.depth));
        }
        if self.files.len() >= self.caps.files {
            return refuse(format!("is one file more than {}", self.caps.files));
        }
        if size > self.caps.bytes.saturating_sub(self.bytes) {
            return refuse(format!("makes it more than {} bytes in all", self.caps.bytes));
        }
        if !self.seen.insert(path.to_owned()) {
            return refuse("comes twice".to_owned());
        }
        Ok(())
    }
}

/// A relative path without `.`; refused if it leads outside.
pub(crate) fn clean_path(path: &str) -> Result<String, ArtifactError> {
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(ArtifactError::Refused(format!("`{}` leads outside", path.escape_debug())));
            }
        }
    }
    if parts.is_empty() || path.contains('\0') {
        return Err(ArtifactError::Refused(format!("`{}` is no path of a file", path.escape_debug())));
    }
    Ok(parts.join("/"))
}
