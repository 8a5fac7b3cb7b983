//! Manifests out of the store: as a tar for a runner, or into a folder.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::ingest::blocking;
use super::manifest::{Digest, FileEntry, Manifest};
use super::{ArtifactError, ArtifactStore};
use crate::runner::TarStream;

/// Pieces of a tar that may wait for the reader.
const PIECES: usize = 16;
/// Size of a piece.
const PIECE: usize = 256 << 10;

/// A manifest below a folder.
#[derive(Debug, Clone)]
pub struct ManifestAt {
    /// The files.
    pub manifest: Manifest,
    /// The folder; empty for none.
    pub prefix: String,
}

/// All files as a tar, in order of their paths, with fixed times and owners: equal manifests give equal tars.
///
/// # Errors
/// [`ArtifactError::Refused`] if two files have one path.
pub fn tar_of(store: Arc<ArtifactStore>, manifests: Vec<ManifestAt>) -> Result<TarStream, ArtifactError> {
    let mut files: BTreeMap<String, FileEntry> = BTreeMap::new();
    for part in manifests {
        for file in part.manifest.files {
            let path =
                if part.prefix.is_empty() { file.path.clone() } else { format!("{}/{}", part.prefix, file.path) };
            if files.insert(path.clone(), file).is_some() {
                return Err(ArtifactError::Refused(format!("`{path}` is there twice")));
            }
        }
    }
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let sink = Pieces { sender: sender.clone(), buffer: Vec::with_capacity(PIECE) };
        if let Err(error) = write_tar(&store, &files, sink) {
            // The reader may have gone away, which is the error then.
            let _ = sender.blocking_send(Err(error));
        }
    });
    Ok(ReceiverStream::new(receiver).boxed())
}

fn write_tar(store: &ArtifactStore, files: &BTreeMap<String, FileEntry>, sink: Pieces) -> io::Result<()> {
    let mut archive = tar::Builder::new(sink);
    for (path, file) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_mode(if file.executable { 0o755 } else { 0o644 });
        if let Some(target) = &file.link {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            archive.append_link(&mut header, path, target)?;
            continue;
        }
        header.set_size(file.size);
        archive.append_data(&mut header, path, Checked::open(store, file).map_err(io::Error::other)?)?;
    }
    archive.into_inner()?.flush()
}

/// Writes into the channel in pieces.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Reads a blob and fails at its end if it is not what it was.
struct Checked {
    inner: Box<dyn Read + Send>,
    hasher: blake3::Hasher,
    digest: Digest,
}

impl Checked {
    fn open(store: &ArtifactStore, file: &FileEntry) -> Result<Self, ArtifactError> {
        let runtime = Handle::current();
        let stream = runtime.block_on(store.stream(&file.digest))?;
        let reader = StreamReader::new(stream.map(|piece| piece.map_err(io::Error::other)));
        let inner = Box::new(SyncIoBridge::new_with_handle(reader, runtime));
        Ok(Self { inner, hasher: blake3::Hasher::new(), digest: file.digest })
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        if count == 0 && !buffer.is_empty() && Digest::finish(&self.hasher) != self.digest {
            let detail = "its content hashes to something else".to_owned();
            return Err(io::Error::other(ArtifactError::Damaged { digest: self.digest.to_string(), detail }));
        }
        Ok(count)
    }
}

impl ArtifactStore {
    /// Writes all files below a folder, replacing what is there.
    ///
    /// # Errors
    /// If a file is damaged, or cannot be written.
    pub async fn materialize(self: &Arc<Self>, manifest: &Manifest, folder: &Path) -> Result<(), ArtifactError> {
        let (store, manifest, folder) = (Arc::clone(self), manifest.clone(), folder.to_owned());
        blocking(move || {
            for file in &manifest.files {
                write_file(&store, file, &folder)?;
            }
            Ok(())
        })
        .await
    }
}

fn write_file(store: &ArtifactStore, file: &FileEntry, folder: &Path) -> Result<(), ArtifactError> {
    let target = folder.join(super::ingest::clean_path(&file.path)?);
    let io = |error| ArtifactError::io(format!("cannot write {}", target.display()))(error);
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).map_err(io)?;
    }
    // Not written through: a link that is there points who knows where.
    if let Err(error) = std::fs::remove_file(&target)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(io(error));
    }
    if let Some(to) = &file.link {
        return symlink(to, &target).map_err(io);
    }
    let mode = if file.executable { 0o755 } else { 0o644 };
    let mut sink = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&target).map_err(io)?;
    let mut source = Checked::open(store, file)?;
    io::copy(&mut source, &mut sink).map(|_| ()).map_err(io)
}
