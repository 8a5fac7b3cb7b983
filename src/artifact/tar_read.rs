//! Reads a tar archive that nobody vouches for, as it comes in.
//!
//! Nothing is held in memory but one header; long names and extended headers are bounded. Understands ustar, GNU long
//! names and POSIX extended headers: what engines and `tar` write.

use std::io::{self, Read};

use tar::{EntryType, Header, PaxExtensions};

const BLOCK: usize = 512;
/// The most bytes of an extended header or long name.
const LONGEST_HEADER: u64 = 64 * 1024;
/// What may follow the archive's end: blocking by `tar`.
const TRAILER: u64 = 1024 * 1024;

/// An archive.
pub(super) struct TarReader<R> {
    inner: R,
    /// Bytes of the current entry that have not been read, and those that fill its last block.
    left: u64,
    padding: u64,
}

/// An entry's header.
#[derive(Debug)]
pub(super) struct Entry {
    /// As written.
    pub path: String,
    pub kind: Kind,
    pub size: u64,
    pub executable: bool,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// With its name, for messages.
    Other(&'static str),
}

/// What an archive can have wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum TarError {
    #[error("{0}")]
    Malformed(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Names and sizes given ahead of an entry.
#[derive(Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// The next entry; what has not been read of the last one is passed over. `None` at the archive's end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut ahead = Overrides::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(|_| malformed("an entry's size cannot be read"))?;
            let kind = header.entry_type();
            self.expect_data(size)?;
            if kind.is_gnu_longname() {
                ahead.path = Some(self.small("long name")?);
            } else if kind.is_gnu_longlink() || kind.is_pax_global_extensions() {
                self.small("extended header")?;
            } else if kind.is_pax_local_extensions() {
                let bytes = self.small("extended header")?;
                ahead.read_pax(&bytes)?;
            } else {
                let size = ahead.size.unwrap_or(size);
                self.expect_data(size)?;
                return entry(&header, ahead, size).map(Some);
            }
        }
    }

    /// The current entry's bytes; a short read there is a truncated archive.
    pub(super) fn data(&mut self) -> Data<'_, R> {
        Data { reader: self }
    }

    fn expect_data(&mut self, size: u64) -> Result<(), TarError> {
        let block = BLOCK as u64;
        let padding = (block - size % block) % block;
        size.checked_add(padding).ok_or_else(|| malformed("an entry's size is absurd"))?;
        (self.left, self.padding) = (size, padding);
        Ok(())
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let wanted = self.left + self.padding;
        let mut rest = Read::by_ref(&mut self.inner).take(wanted);
        let skipped = io::copy(&mut rest, &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if skipped < wanted { Err(truncated()) } else { Ok(()) }
    }

    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..])? {
                0 => return Err(truncated()),
                n => filled += n,
            }
        }
        if block.iter().all(|b| *b == 0) {
            let mut rest = Read::by_ref(&mut self.inner).take(TRAILER);
            io::copy(&mut rest, &mut io::sink())?;
            return Ok(None);
        }
        // The checksum counts its own field as blanks.
        let sum: u32 =
            block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
        match header.cksum() {
            Ok(expected) if expected == sum => Ok(Some(header)),
            Ok(_) | Err(_) => Err(malformed("a header's checksum is wrong")),
        }
    }

    fn small(&mut self, what: &str) -> Result<Vec<u8>, TarError> {
        if self.left > LONGEST_HEADER {
            return Err(malformed(&format!("a {what} has {} bytes", self.left)));
        }
        let mut bytes = Vec::new();
        let read = Read::by_ref(&mut self.inner).take(self.left).read_to_end(&mut bytes)? as u64;
        if read < self.left {
            return Err(truncated());
        }
        self.left = 0;
        Ok(bytes)
    }
}

/// The bytes of the current entry.
pub(super) struct Data<'a, R> {
    reader: &'a mut TarReader<R>,
}

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.reader.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.reader.inner.read(&mut buffer[..most])?;
        if count == 0 {
            let torn = "the archive ends in the middle of an entry";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, torn));
        }
        self.reader.left -= count as u64;
        Ok(count)
    }
}

impl Overrides {
    fn read_pax(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        for extension in PaxExtensions::new(bytes) {
            let extension = extension.map_err(|_| malformed("an extended header cannot be read"))?;
            match extension.key_bytes() {
                b"path" => self.path = Some(extension.value_bytes().to_vec()),
                b"size" => {
                    let size = extension.value().ok().and_then(|v| v.parse().ok());
                    self.size = Some(size.ok_or_else(|| malformed("an extended header's size cannot be read"))?);
                }
                key if key.starts_with(b"GNU.sparse") => self.sparse = true,
                _ => {}
            }
        }
        Ok(())
    }
}

fn entry(header: &Header, ahead: Overrides, size: u64) -> Result<Entry, TarError> {
    let mut path = ahead.path.unwrap_or_else(|| header.path_bytes().into_owned());
    while path.last() == Some(&0) {
        path.pop();
    }
    let path = String::from_utf8(path).map_err(|e| {
        malformed(&format!("the name `{}` is not UTF-8", String::from_utf8_lossy(e.as_bytes()).escape_debug()))
    })?;
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous if ahead.sparse => Kind::Other("a sparse file"),
        EntryType::Regular | EntryType::Continuous if path.ends_with('/') => Kind::Folder,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Folder,
        EntryType::Symlink => Kind::Other("a symbolic link"),
        EntryType::Link => Kind::Other("a hard link"),
        EntryType::Char | EntryType::Block => Kind::Other("a device"),
        EntryType::Fifo => Kind::Other("a named pipe"),
        EntryType::GNUSparse => Kind::Other("a sparse file"),
        _ => Kind::Other("of an unknown kind"),
    };
    let executable = header.mode().is_ok_and(|mode| mode & 0o100 != 0);
    Ok(Entry { path, kind, size, executable })
}

fn malformed(what: &str) -> TarError {
    TarError::Malformed(what.to_owned())
}

fn truncated() -> TarError {
    malformed("it ends in the middle of an entry")
}
