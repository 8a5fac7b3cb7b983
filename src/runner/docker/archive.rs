//! Files into and out of containers, as tar streams that are never held in memory.
//!
//! What goes in is re-packed on a blocking thread: owner, names and kinds of entries are ours then, whoever made the
//! archive. What comes out is passed on as it is; it is unpacked elsewhere, under caps.

use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;

use super::create::WORKSPACE;
use super::owner::Owner;
use super::{DockerRunner, fault};
use crate::runner::spec::UnitName;
use crate::runner::{RunnerError, TarStream};

/// How long an archive may stand still before the engine counts as gone.
const STALL: Duration = Duration::from_secs(120);

/// Pieces between the tasks of a re-packing: with [`PIECE`] at most 1 MiB each way.
const PIECES: usize = 16;

/// Bytes of a piece that a re-packing gives.
const PIECE: usize = 64 << 10;

/// What becomes of an entry: where it goes, or `None` to leave it out. Names have no `.` or `..` in them.
pub(super) type Place = Box<dyn FnMut(&Path) -> Option<PathBuf> + Send>;

/// A plan for re-packing.
pub(super) struct Repack {
    /// Whose all entries become.
    pub(super) owner: Owner,
    /// Where they go.
    pub(super) place: Place,
}

/// Re-packs an archive while it streams by.
pub(super) fn repack(mut source: TarStream, plan: Repack, tasks: &TaskTracker) -> TarStream {
    let (given, taken) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let (packed, out) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let watch = packed.clone();
    tasks.spawn(async move {
        loop {
            // Nobody reads the result any more: let go of the source and so of the thread below.
            let piece = tokio::select! {
                () = watch.closed() => break,
                piece = source.next() => piece,
            };
            let Some(piece) = piece else { break };
            if given.send(piece).await.is_err() {
                break;
            }
        }
    });
    tasks.spawn_blocking(move || {
        let mut writer = PieceWriter { out: packed, held: BytesMut::with_capacity(PIECE) };
        let done = copy(PieceReader { taken, now: Bytes::new() }, &mut writer, plan).and_then(|()| writer.flush());
        if let Err(error) = done {
            // Nobody may be listening, which is fine: then nobody needs to know.
            drop(writer.out.blocking_send(Err(error)));
        }
    });
    stream::unfold(out, |mut out| async move { out.recv().await.map(|piece| (piece, out)) }).fuse().boxed()
}

fn copy(reader: PieceReader, writer: &mut PieceWriter, mut plan: Repack) -> io::Result<()> {
    let mut archive = tar::Archive::new(reader);
    let mut builder = tar::Builder::new(writer);
    for entry in archive.entries()? {
        let entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let name = clean(&entry.path()?)?;
        let Some(place) = (plan.place)(&name).filter(|place| !place.as_os_str().is_empty()) else { continue };
        append(&mut builder, entry, &place, &mut plan)?;
    }
    builder.finish()
}

fn append(
    builder: &mut tar::Builder<&mut PieceWriter>,
    entry: tar::Entry<'_, PieceReader>,
    place: &Path,
    plan: &mut Repack,
) -> io::Result<()> {
    let kind = entry.header().entry_type();
    let mut header = tar::Header::new_gnu();
    header.set_mode(entry.header().mode()? & 0o7777);
    header.set_mtime(entry.header().mtime().unwrap_or(0));
    header.set_uid(plan.owner.uid);
    header.set_gid(plan.owner.gid);
    header.set_size(0);
    if kind.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        builder.append_data(&mut header, place, io::empty())
    } else if kind.is_symlink() || kind.is_hard_link() {
        let target =
            entry.link_name()?.ok_or_else(|| invalid(format!("`{}` is a link to nothing", place.display())))?;
        header.set_entry_type(kind);
        if kind.is_symlink() {
            return builder.append_link(&mut header, place, target);
        }
        match (plan.place)(&clean(&target)?) {
            Some(target) => builder.append_link(&mut header, place, target),
            None => Ok(()),
        }
    } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(entry.size());
        builder.append_data(&mut header, place, entry)
    } else {
        Err(invalid(format!("`{}` is neither a file, a folder nor a link", place.display())))
    }
}

/// A name without `.`, or an error if it leads outside.
fn clean(name: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(invalid(format!("`{}` leads outside of the archive", name.display())));
            }
        }
    }
    Ok(clean)
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Reads a channel of pieces on a blocking thread.
struct PieceReader {
    taken: mpsc::Receiver<io::Result<Bytes>>,
    now: Bytes,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() {
            match self.taken.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.now = piece?,
            }
        }
        let length = buffer.len().min(self.now.len());
        self.now.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Writes a channel of pieces on a blocking thread.
struct PieceWriter {
    out: mpsc::Sender<io::Result<Bytes>>,
    held: BytesMut,
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let piece = self.held.split().freeze();
        self.out.blocking_send(Ok(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// Unpacks an archive in a folder of a container.
pub(super) async fn upload(
    runner: &DockerRunner,
    unit: &UnitName,
    folder: &str,
    tar: TarStream,
) -> Result<(), RunnerError> {
    let options = UploadToContainerOptionsBuilder::new().path(folder).build();
    let docker = runner.patient();
    let (tar, watch) = watched(tar);
    let sent = docker.upload_to_container(&unit.0, Some(options), bollard::body_try_stream(tar));
    let sent = tokio::select! {
        sent = sent => sent,
        () = watch.stalled() => {
            let detail = format!("the engine at {} took nothing of an upload for {} s", runner.host, STALL.as_secs());
            return Err(fault::unreachable_engine(detail));
        }
    };
    match (sent, watch.failure()) {
        (Ok(()), None) => Ok(()),
        (Ok(()) | Err(_), Some(reason)) => {
            Err(fault::other(format!("cannot fill the workspace of `{unit}`: {reason}")))
        }
        (Err(error), None) => Err(runner.fault(&format!("fill the workspace of `{unit}`"), &error)),
    }
}

/// Sees whether a stream moves and whether it failed.
pub(super) struct Watch {
    moved: Arc<Notify>,
    failed: Arc<Mutex<Option<String>>>,
}

impl Watch {
    /// Ends when nothing was taken for too long.
    pub(super) async fn stalled(&self) {
        while tokio::time::timeout(STALL, self.moved.notified()).await.is_ok() {}
    }

    /// The error that the stream itself gave.
    pub(super) fn failure(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The same stream, with someone to ask about it.
pub(super) fn watched(tar: TarStream) -> (TarStream, Watch) {
    let watch = Watch { moved: Arc::new(Notify::new()), failed: Arc::default() };
    let (moved, failed) = (Arc::clone(&watch.moved), Arc::clone(&watch.failed));
    let seen = tar.inspect(move |piece| {
        moved.notify_one();
        if let Err(error) = piece {
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        }
    });
    // HTTP asks once more after the end, which not every stream bears.
    (seen.fuse().boxed(), watch)
}

/// One path of a unit's workspace; see [`crate::runner::Runner::collect`]. `.` is the whole workspace.
pub(super) async fn collect(
    runner: &DockerRunner,
    unit: &UnitName,
    path: &str,
) -> Result<Option<TarStream>, RunnerError> {
    let wrong = || fault::other(format!("`{path}` is not a path within the workspace"));
    if path.is_empty() || path.contains('\0') {
        return Err(wrong());
    }
    let clean = clean(Path::new(path)).map_err(|_| wrong())?;
    let whole = Path::new(WORKSPACE).join(clean);
    let whole = whole.to_str().ok_or_else(wrong)?.trim_end_matches('/');
    let options = DownloadFromContainerOptionsBuilder::new().path(whole).build();
    let mut stream = runner.docker.download_from_container(&unit.0, Some(options));
    // The answer's status comes with the first piece.
    let first = match stream.next().await {
        None => return Ok(None),
        Some(Ok(first)) => first,
        Some(Err(error)) if fault::is_absent(&error) || fault::is_below_a_file(&error) => {
            // The container or the path: only the container's absence is an error.
            super::state::inspect(runner, unit).await?;
            return Ok(None);
        }
        Some(Err(error)) => return Err(runner.fault(&format!("read `{path}` of `{unit}`"), &error)),
    };
    let rest = stream::unfold(stream, |mut stream| async move {
        let piece = match tokio::time::timeout(STALL, stream.next()).await {
            Ok(None) => return None,
            Ok(Some(piece)) => piece.map_err(io::Error::other),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the engine stopped in the middle of an archive")),
        };
        Some((piece, stream))
    });
    Ok(Some(stream::iter([Ok(first)]).chain(rest).boxed()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::docker::owner::ROOT;

    fn pack(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_uid(77);
            header.set_size(0);
            if kind.is_file() {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, name, content.as_bytes()).unwrap();
            } else if kind.is_dir() || kind.is_fifo() {
                builder.append_data(&mut header, name, io::empty()).unwrap();
            } else {
                builder.append_link(&mut header, name, content).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    async fn repacked(archive: Vec<u8>, owner: Owner, place: Place) -> io::Result<Vec<u8>> {
        let pieces: Vec<_> = archive.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let tasks = TaskTracker::new();
        let mut out = repack(stream::iter(pieces).boxed(), Repack { owner, place }, &tasks);
        let mut all = Vec::new();
        while let Some(piece) = out.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn entries_get_a_new_owner_and_place() {
        use tar::EntryType::{Directory, Link, Regular, Symlink};
        let long = format!("app/{}/end", "d".repeat(150));
        let big = "x".repeat(200_000);
        let archive = pack(&[
            ("app", Directory, ""),
            ("app/run", Regular, "#!"),
            (&long, Regular, &big),
            ("app/sym", Symlink, "../outside"),
            ("app/hard", Link, "app/run"),
            ("other", Regular, "left out"),
        ]);
        let place: Place = Box::new(|name| name.strip_prefix("app").ok().map(Path::to_path_buf));
        let owner = Owner { uid: 1000, gid: 1001 };
        let packed = repacked(archive, owner, place).await.unwrap();
        let mut seen = Vec::new();
        for entry in tar::Archive::new(packed.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mode().unwrap()), (1000, 1001, 0o755));
            let name = entry.path().unwrap().display().to_string();
            let link = entry.link_name().unwrap().map(|link| link.display().to_string());
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            seen.push((name, link, content));
        }
        let text = |text: &str| text.to_owned();
        let expected = vec![
            (text("run"), None, text("#!")),
            (text(long.strip_prefix("app/").unwrap()), None, big),
            (text("sym"), Some(text("../outside")), String::new()),
            (text("hard"), Some(text("run")), String::new()),
        ];
        assert_eq!(seen, expected);
    }

    #[tokio::test]
    async fn a_broken_archive_is_an_error() {
        let mut archive = pack(&[("a", tar::EntryType::Regular, &"x".repeat(5000))]);
        archive.truncate(3000);
        assert!(repacked(archive, ROOT, Box::new(|name| Some(name.to_path_buf()))).await.is_err());
        let device = pack(&[("a", tar::EntryType::Fifo, "")]);
        let error = repacked(device, ROOT, Box::new(|name| Some(name.to_path_buf()))).await.unwrap_err();
        assert_eq!(error.to_string(), "`a` is neither a file, a folder nor a link");
    }

    #[test]
    fn names_stay_inside() {
        assert_eq!(clean(Path::new("./a//b/.")).unwrap(), Path::new("a/b"));
        for name in ["/a", "a/../b", ".."] {
            assert!(clean(Path::new(name)).is_err(), "{name}");
        }
    }
}
