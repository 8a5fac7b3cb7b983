//! Tar archives in and out of a workspace. Entries are not to be trusted: nothing is written or read outside of it.

use std::fs::{self, File, Metadata};
use std::io::{self, Error, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use tar::{Archive, Builder, EntryType, Header};
use tokio::sync::mpsc;

/// Bytes of one piece of an archive.
const PIECE: usize = 128 * 1024;

/// A relative path without `..`, tidied; `None` for any other.
pub fn inside(path: &Path) -> Option<PathBuf> {
    let mut tidy = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => tidy.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(tidy)
}

/// Unpacks into a folder. Modes keep their permission bits but for set-user-id and the like.
///
/// # Errors
/// For an entry that is not a file, folder or link, or whose path leads outside; for a broken or shortened archive.
pub fn unpack(archive: impl Read, into: &Path) -> io::Result<()> {
    let mut archive = Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let refused =
            |why: &str| Error::new(ErrorKind::InvalidData, format!("archive entry `{}` {why}", path.display()));
        let tidy = inside(&path).ok_or_else(|| refused("leads outside of the workspace"))?;
        match entry.header().entry_type() {
            EntryType::Regular
            | EntryType::Continuous
            | EntryType::GNUSparse
            | EntryType::Directory
            | EntryType::Symlink => {}
            EntryType::Link => {
                let target = entry.link_name()?.ok_or_else(|| refused("is a hard link to nothing"))?;
                inside(&target).ok_or_else(|| refused("is a hard link to outside of the workspace"))?;
            }
            EntryType::XGlobalHeader => continue,
            _ => return Err(refused("is a device, pipe or socket")),
        }
        if !entry.unpack_in(into)? {
            return Err(refused("leads outside of the workspace"));
        }
        if entry.header().entry_type() == EntryType::Directory {
            keep_open(&into.join(tidy))?;
        }
    }
    Ok(())
}

/// A folder that its owner cannot write would keep the entries in it out.
fn keep_open(folder: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(folder)?;
    let mode = metadata.permissions().mode();
    if metadata.is_dir() && mode & 0o700 != 0o700 {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode | 0o700))?;
    }
    Ok(())
}

/// Finds what `path` (relative, without `..`) names in a workspace; `None` if there is nothing. Links on the way are followed
/// as long as they stay inside; a link at its end is the thing itself.
///
/// # Errors
/// If the path leads outside.
pub fn locate(workspace: &Path, path: &str) -> io::Result<Option<(PathBuf, Metadata)>> {
    let outside = || Error::new(ErrorKind::InvalidInput, format!("`{path}` leads outside of the workspace"));
    let tidy = inside(Path::new(path)).ok_or_else(outside)?;
    let found = (|| {
        let root = fs::canonicalize(workspace)?;
        let parent = fs::canonicalize(root.join(tidy.parent().unwrap_or(Path::new(""))))?;
        if !parent.starts_with(&root) {
            return Err(outside());
        }
        let full = parent.join(tidy.file_name().unwrap_or_default());
        let metadata = fs::symlink_metadata(&full)?;
        Ok((full, metadata))
    })();
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Packs a file or folder; entries start with its own name. Names are in order, so that equal content gives equal bytes (but
/// for times). Pipes, sockets and devices are left out. A file that changes meanwhile comes at the length it had at first.
///
/// # Errors
/// If something cannot be read, or nobody takes the pieces.
pub fn pack(found: &Path, metadata: &Metadata, to: impl Write) -> io::Result<()> {
    let mut builder = Builder::new(to);
    builder.follow_symlinks(false);
    let name = PathBuf::from(found.file_name().unwrap_or_default());
    add(&mut builder, found, &name, metadata)?;
    builder.into_inner()?.flush()
}

fn add(builder: &mut Builder<impl Write>, found: &Path, name: &Path, metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let mut header = Header::new_gnu();
    header.set_mode(metadata.mode() & 0o777);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_size(0);
    if kind.is_dir() {
        header.set_entry_type(EntryType::Directory);
        builder.append_data(&mut header, name, io::empty())?;
        let mut children = fs::read_dir(found)?.collect::<io::Result<Vec<_>>>()?;
        children.sort_by_key(fs::DirEntry::file_name);
        for child in children {
            let metadata = fs::symlink_metadata(child.path())?;
            add(builder, &child.path(), &name.join(child.file_name()), &metadata)?;
        }
    } else if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        builder.append_link(&mut header, name, fs::read_link(found)?)?;
    } else if kind.is_file() {
        header.set_entry_type(EntryType::Regular);
        header.set_size(metadata.len());
        let content = File::open(found)?.chain(io::repeat(0)).take(metadata.len());
        builder.append_data(&mut header, name, content)?;
    }
    Ok(())
}

/// The reading end of an archive that comes from a stream. The sender closes with an empty piece; an end without it is an
/// error, so that what was cut short never counts as whole.
pub struct Incoming {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
    ended: bool,
}

impl Incoming {
    /// Reads what the other end of the channel sends.
    pub fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { pieces, piece: Bytes::new(), ended: false }
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Err(Error::new(ErrorKind::UnexpectedEof, "the archive was cut short")),
            }
            self.ended = self.piece.is_empty();
        }
        let length = buffer.len().min(self.piece.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// The writing end of an archive that leaves as a stream, in pieces of bounded size.
pub struct Outgoing {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Outgoing {
    /// Sends into this channel.
    pub fn new(pieces: mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self { pieces, piece: Vec::new() }
    }

    fn send(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.pieces.blocking_send(Ok(piece)).map_err(|_| Error::new(ErrorKind::BrokenPipe, "nobody takes the archive"))
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..length]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// One entry with any path, which the builder itself would refuse.
    fn raw_entry(path: &str, kind: EntryType, link: Option<&str>) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_size(if kind == EntryType::Regular { 2 } else { 0 });
        if let Some(link) = link {
            header.set_link_name_literal(link).expect("short");
        }
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        if kind == EntryType::Regular {
            bytes.extend([b'h', b'i']);
            bytes.resize(1024, 0);
        }
        bytes
    }

    #[test]
    fn hostile_archives_are_refused_and_write_nothing_outside() {
        let link = |path, target| raw_entry(path, EntryType::Symlink, Some(target));
        let file = |path| raw_entry(path, EntryType::Regular, None);
        for (what, archive, message) in [
            ("absolute", file("/tmp/escape"), "leads outside"),
            ("up", file("a/../../escape"), "leads outside"),
            ("device", raw_entry("dev", EntryType::Char, None), "is a device"),
            ("pipe", raw_entry("dev", EntryType::Fifo, None), "is a device"),
            ("hard link", raw_entry("x", EntryType::Link, Some("../outside/secret")), "hard link to outside"),
            ("through a link", [link("door", "../outside"), file("door/escape")].concat(), ""),
            (
                "hard link through a link",
                [link("door", "../outside"), raw_entry("x", EntryType::Link, Some("door/secret"))].concat(),
                "",
            ),
        ] {
            let folder = tempfile::tempdir().expect("folder");
            let (outside, into) = (folder.path().join("outside"), folder.path().join("into"));
            fs::create_dir(&outside).expect("folder");
            fs::create_dir(&into).expect("folder");
            fs::write(outside.join("secret"), "s").expect("file");
            let error = unpack(&[&archive[..], &[0; 1024]].concat()[..], &into).expect_err(what);
            assert!(format!("{error}").contains(message), "{what}: {error}");
            assert!(!outside.join("escape").exists() && !folder.path().join("escape").exists(), "{what}");
        }
    }

    #[test]
    fn a_link_in_the_way_is_replaced_and_not_written_through() {
        let folder = tempfile::tempdir().expect("folder");
        let (outside, into) = (folder.path().join("secret"), folder.path().join("into"));
        fs::create_dir(&into).expect("folder");
        fs::write(&outside, "s").expect("file");
        let archive =
            [raw_entry("x", EntryType::Symlink, Some("../secret")), raw_entry("x", EntryType::Regular, None)].concat();
        unpack(&[&archive[..], &[0; 1024]].concat()[..], &into).expect("unpacked");
        assert_eq!(fs::read_to_string(&outside).expect("file"), "s");
        assert_eq!(fs::read_to_string(into.join("x")).expect("file"), "hi");
    }

    #[test]
    fn modes_survive_without_set_user_id() {
        let folder = tempfile::tempdir().expect("folder");
        let archive = raw_entry("run.sh", EntryType::Regular, None);
        unpack(&[&archive[..], &[0; 1024]].concat()[..], folder.path()).expect("unpacked");
        let mode = fs::metadata(folder.path().join("run.sh")).expect("file").permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }

    #[test]
    fn what_is_packed_unpacks_the_same() {
        let from = tempfile::tempdir().expect("folder");
        let deep = from.path().join("out").join("d".repeat(90)).join("e".repeat(90));
        fs::create_dir_all(&deep).expect("folders");
        fs::write(deep.join("model"), vec![7; PIECE * 3 + 1]).expect("file");
        fs::set_permissions(deep.join("model"), fs::Permissions::from_mode(0o755)).expect("mode");
        symlink("model", deep.join("latest")).expect("link");
        let (found, metadata) = locate(from.path(), "./out/").expect("inside").expect("there");
        let mut archive = Vec::new();
        pack(&found, &metadata, &mut archive).expect("packed");
        let into = tempfile::tempdir().expect("folder");
        unpack(&archive[..], into.path()).expect("unpacked");
        let copy = into.path().join(deep.strip_prefix(from.path()).expect("below"));
        assert_eq!(fs::read(copy.join("model")).expect("file").len(), PIECE * 3 + 1);
        assert_eq!(fs::metadata(copy.join("model")).expect("file").permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_link(copy.join("latest")).expect("link"), Path::new("model"));
    }

    #[test]
    fn only_what_is_inside_is_located() {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path().join("workspace");
        fs::create_dir_all(root.join("real")).expect("folders");
        fs::write(root.join("real/x"), "").expect("file");
        symlink("real", root.join("near")).expect("link");
        symlink("/etc", root.join("far")).expect("link");
        let check = |path: &str| locate(&root, path).map(|found| found.is_some()).map_err(|error| error.kind());
        assert_eq!(check("real/x"), Ok(true));
        assert_eq!(check("near/x"), Ok(true));
        assert_eq!(check("far"), Ok(true));
        assert_eq!(check("nothing/x"), Ok(false));
        assert_eq!(check("real/x/y"), Ok(false));
        for path in ["far/passwd", "../workspace/real", "/etc/passwd"] {
            assert_eq!(check(path), Err(ErrorKind::InvalidInput), "{path}");
        }
    }

    #[test]
    fn an_archive_cut_short_is_an_error() {
        let (tx, rx) = mpsc::channel(4);
        tx.blocking_send(Ok(Bytes::from(raw_entry("x", EntryType::Regular, None)))).expect("room");
        drop(tx);
        let folder = tempfile::tempdir().expect("folder");
        assert_eq!(unpack(Incoming::new(rx), folder.path()).expect_err("cut").kind(), ErrorKind::UnexpectedEof);
    }
}
