//! Tars and folders into the store. A tar from a container is hostile until shown otherwise.

use std::collections::HashSet;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use tokio_util::io::{StreamReader, SyncIoBridge};

use super::glob::Keep;
use super::manifest::{FileEntry, Manifest};
use super::tar_read::{Entry, Kind, TarError, TarReader};
use super::tree::{ancestors, clean_path};
use super::{ArtifactError, ArtifactStore, Batch, blocking};
use crate::runner::TarStream;
use crate::words;

/// What is taken at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caps {
    /// Files.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self { files: 200_000, bytes: 100 << 30 }
    }
}

impl Caps {
    /// What is left of them after these files.
    #[must_use]
    pub fn less(&self, taken: &Manifest) -> Self {
        Self { files: self.files.saturating_sub(taken.files.len()), bytes: self.bytes.saturating_sub(taken.size()) }
    }
}

/// Files taken so far.
struct Taken<'a> {
    batch: Batch<'a>,
    caps: Caps,
    files: Vec<FileEntry>,
    seen: HashSet<String>,
    bytes: u64,
}

/// How the entries of an archive are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// From this folder of the workspace on; empty for the workspace itself.
    Within(String),
    /// Each begins with the name of the workspace's own folder, whatever that is.
    BelowOne,
}

impl ArtifactStore {
    /// Takes a tar. Only files for which `keep` holds are taken, and what else is in it may be anything. Folders are not kept by themselves. When this returns, the files are stored for good.
    ///
    /// # Errors
    /// [`ArtifactError::Refused`] naming the entry that is a link, a device, leads outside, comes twice, or is too much.
    pub async fn ingest_tar(
        self: &Arc<Self>,
        stream: TarStream,
        names: Names,
        keep: Option<Keep>,
        caps: &Caps,
    ) -> Result<Manifest, ArtifactError> {
        let (store, caps) = (Arc::clone(self), caps.clone());
        let reader = SyncIoBridge::new(StreamReader::new(stream));
        blocking(move || {
            let mut taken = Taken::new(&store, caps);
            taken.read_tar(reader, &names, keep.as_ref())?;
            taken.finish()
        })
        .await
    }

    /// Takes all files of a folder.
    ///
    /// # Errors
    /// As [`ArtifactStore::ingest_tar`].
    pub async fn ingest_folder(self: &Arc<Self>, folder: &Path, caps: &Caps) -> Result<Manifest, ArtifactError> {
        let (store, folder, caps) = (Arc::clone(self), folder.to_owned(), caps.clone());
        blocking(move || {
            let mut taken = Taken::new(&store, caps);
            taken.read_folder(&folder, "")?;
            taken.finish()
        })
        .await
    }
}

fn refuse<T>(path: &str, why: &str) -> Result<T, ArtifactError> {
    Err(ArtifactError::Refused(format!("`{path}` {why}")))
}

impl<'a> Taken<'a> {
    fn new(store: &'a ArtifactStore, caps: Caps) -> Self {
        Self { batch: Batch::new(store), caps, files: Vec::new(), seen: HashSet::new(), bytes: 0 }
    }

    fn finish(self) -> Result<Manifest, ArtifactError> {
        for file in &self.files {
            if let Some(folder) = ancestors(&file.path).find(|folder| self.seen.contains(*folder)) {
                return refuse(&file.path, &format!("lies beneath the file `{folder}`"));
            }
        }
        self.batch.keep()?;
        Ok(Manifest::new(self.files))
    }

    fn read_tar(&mut self, reader: impl Read, names: &Names, keep: Option<&Keep>) -> Result<(), ArtifactError> {
        let mut archive = TarReader::new(reader);
        while let Some(entry) = archive.next()? {
            let Some(path) = wanted_path(&entry, names, keep)? else { continue };
            self.take(&path, entry.executable, entry.size, &mut archive.data())?;
        }
        Ok(())
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) -> Result<(), ArtifactError> {
        let io = |error| ArtifactError::io(format!("cannot read {}", folder.display()))(error);
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                return refuse(&name.to_string_lossy().escape_debug().to_string(), "is not UTF-8; rename it");
            };
            let path = clean_path(&if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") })?;
            let kind = entry.file_type().map_err(io)?;
            if kind.is_dir() {
                // As deep as paths may be: that was looked at.
                self.read_folder(&entry.path(), &path)?;
            } else if kind.is_file() {
                let meta = entry.metadata().map_err(io)?;
                let mut file = std::fs::File::open(entry.path()).map_err(io)?;
                self.take(&path, meta.permissions().mode() & 0o111 != 0, meta.len(), &mut file)?;
            } else {
                return refuse(&path, "is a link or a device, and no file");
            }
        }
        Ok(())
    }

    fn take(&mut self, path: &str, executable: bool, size: u64, reader: &mut dyn Read) -> Result<(), ArtifactError> {
        self.check(path, size)?;
        let (digest, read) = self.batch.put_reader(reader, self.caps.bytes - self.bytes)?;
        if read != size {
            return refuse(path, &format!("has {read} bytes where {size} were said"));
        }
        self.bytes += read;
        self.files.push(FileEntry { path: path.to_owned(), executable, size, digest, link: None, origin: None });
        Ok(())
    }

    /// Before a byte of it is read: what is said to be too large is refused as such.
    fn check(&mut self, path: &str, size: u64) -> Result<(), ArtifactError> {
        if self.files.len() >= self.caps.files {
            return refuse(path, &format!("is one file more than {}; keep fewer, or pack them", self.caps.files));
        }
        if size > self.caps.bytes.saturating_sub(self.bytes) {
            return refuse(path, &format!("makes it more than {} in all", words::size(self.caps.bytes)));
        }
        if !self.seen.insert(path.to_owned()) {
            return refuse(path, "comes twice");
        }
        Ok(())
    }
}

/// Where an entry lies in the workspace; `None` if it is not kept.
fn wanted_path(entry: &Entry, names: &Names, keep: Option<&Keep>) -> Result<Option<String>, ArtifactError> {
    // The folder that was asked for, by itself.
    if entry.kind == Kind::Folder && entry.path.chars().all(|c| c == '.' || c == '/') && !entry.path.contains("..") {
        return Ok(None);
    }
    // The entry alone, before anything is put before it: `/etc` and `../x` are no names within anything.
    let name = clean_path(&entry.path)?;
    let path = match names {
        Names::Within(folder) if folder.is_empty() => name,
        Names::Within(folder) => clean_path(&format!("{folder}/{name}"))?,
        Names::BelowOne => match name.split_once('/') {
            Some((_, below)) => below.to_owned(),
            None => return Ok(None),
        },
    };
    if keep.is_some_and(|keep| !keep.matches(&path)) {
        return Ok(None);
    }
    match entry.kind {
        Kind::File => Ok(Some(path)),
        Kind::Folder => Ok(None),
        Kind::Other(kind) => refuse(&path, &format!("is {kind}; outputs are files, so copy what it stands for")),
    }
}

impl From<TarError> for ArtifactError {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Malformed(what) => Self::Refused(format!("the archive is torn or no archive: {what}")),
            TarError::Io(error) => Self::io("the archive cannot be read to its end")(error),
        }
    }
}
