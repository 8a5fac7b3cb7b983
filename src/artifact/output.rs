//! Manifests out of the store: as a tar for a runner, or into a folder.

use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::manifest::{FileEntry, Manifest};
use super::tree::clean_path;
use super::{ArtifactError, ArtifactStore, blocking};
use crate::runner::TarStream;

/// Pieces of a tar that may wait for the reader.
const PIECES: usize = 16;
/// Size of a piece.
const PIECE: usize = 256 << 10;

/// All files as a tar, in order of their paths, with fixed times and owners: equal manifests give equal tars. A file that is
/// absent or damaged ends the stream with an error that says which.
pub fn tar_of(store: Arc<ArtifactStore>, manifest: Manifest) -> TarStream {
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let sink = Pieces { sender: sender.clone(), buffer: Vec::with_capacity(PIECE) };
        if let Err(error) = write_tar(&store, &manifest.files, sink) {
            // The reader may have gone away, which is the error then.
            let _ = sender.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(receiver).boxed()
}

fn write_tar(store: &Arc<ArtifactStore>, files: &[FileEntry], sink: Pieces) -> io::Result<()> {
    let mut archive = tar::Builder::new(sink);
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_mode(if file.executable { 0o755 } else { 0o644 });
        if let Some(target) = &file.link {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            archive.append_link(&mut header, &file.path, target)?;
            continue;
        }
        header.set_size(file.size);
        archive.append_data(&mut header, &file.path, store.read(file).map_err(io::Error::other)?)?;
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

impl ArtifactStore {
    /// Writes all files below a folder, replacing what is there.
    ///
    /// # Errors
    /// If a file is absent or damaged (then it is not left behind), or cannot be written.
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

fn write_file(store: &Arc<ArtifactStore>, file: &FileEntry, folder: &Path) -> Result<(), ArtifactError> {
    let target = folder.join(clean_path(&file.path)?);
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
    let mut source = store.read(file)?;
    let mut sink = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&target).map_err(io)?;
    if let Err(error) = io::copy(&mut source, &mut sink) {
        // Half a file is worse than none. That it cannot be removed either says less than why.
        let _ = std::fs::remove_file(&target);
        return Err(io(error));
    }
    Ok(())
}
