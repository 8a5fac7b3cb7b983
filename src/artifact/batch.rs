//! Files on their way into the store. Blocking.
//!
//! ```text
//! each file ──> hash, spool ─┐
//! each file ──> hash, spool ─┴─> keep(): contents on the disk ──> names ──> names on the disk
//! ```
//!
//! Two syncs for all of them, however many. What is stored already costs a look.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};

use bytes::Bytes;
use tempfile::{NamedTempFile, TempPath};
use tokio::runtime::Handle;

use super::ArtifactError;
use super::folder::{Folder, Found};
use super::manifest::Digest;
use super::s3::{Bucket, Uploads};
use super::store::{ArtifactStore, Place};

/// Files up to this size are held in memory while they are hashed; larger ones go to a spool file.
const SMALL: u64 = 1 << 20;
/// A piece of a file on its way.
const PIECE: usize = 256 << 10;

/// Files that are stored together. Dropped without [`Batch::keep`], nothing of it is there.
pub(crate) struct Batch<'a> {
    store: &'a ArtifactStore,
    staged: HashMap<Digest, TempPath>,
    loose: HashSet<Digest>,
    uploads: Uploads,
}

impl<'a> Batch<'a> {
    pub fn new(store: &'a ArtifactStore) -> Self {
        Self { store, staged: HashMap::new(), loose: HashSet::new(), uploads: Uploads::default() }
    }

    /// Takes bytes that are in memory.
    ///
    /// # Errors
    /// The disk's; for S3 also those of files taken before.
    pub fn put_bytes(&mut self, bytes: Vec<u8>) -> Result<Digest, ArtifactError> {
        let digest = Digest::of(&bytes);
        match &self.store.place {
            Place::Folder(folder) => {
                if self.is_wanted(folder, &digest, bytes.len() as u64)? {
                    let mut spooled = self.spool()?;
                    spooled.write_all(&bytes).map_err(ArtifactError::io("a spool file"))?;
                    self.stage(folder, digest, spooled);
                }
            }
            Place::S3(bucket) => self.uploads.put(bucket, digest, Bytes::from(bytes), &self.store.lock)?,
        }
        Ok(digest)
    }

    /// Takes what a reader gives, in bounded memory; answers with its digest and size.
    ///
    /// # Errors
    /// The reader's or the disk's; [`ArtifactError::Refused`] if it has more than `most` bytes.
    pub fn put_reader(&mut self, mut reader: &mut dyn Read, most: u64) -> Result<(Digest, u64), ArtifactError> {
        let read = |error| ArtifactError::io("cannot read a file")(error);
        let too_large = || ArtifactError::Refused(format!("a file is larger than {}", crate::words::size(most)));
        let mut head = Vec::new();
        Read::by_ref(&mut reader).take(SMALL).read_to_end(&mut head).map_err(read)?;
        let mut size = head.len() as u64;
        if size > most {
            return Err(too_large());
        }
        if size < SMALL {
            return Ok((self.put_bytes(head)?, size));
        }
        let mut spooled = self.spool()?;
        let mut hasher = blake3::Hasher::new();
        let mut piece = head;
        let mut count = piece.len();
        while count > 0 {
            hasher.update(&piece[..count]);
            spooled.write_all(&piece[..count]).map_err(ArtifactError::io("a spool file"))?;
            piece.resize(PIECE, 0);
            count = reader.read(&mut piece).map_err(read)?;
            size += count as u64;
            if size > most {
                return Err(too_large());
            }
        }
        let digest = Digest::finish(&hasher);
        self.put_spooled(digest, size, spooled)?;
        Ok((digest, size))
    }

    fn put_spooled(&mut self, digest: Digest, size: u64, spooled: NamedTempFile) -> Result<(), ArtifactError> {
        match &self.store.place {
            Place::Folder(folder) => {
                if self.is_wanted(folder, &digest, size)? {
                    self.stage(folder, digest, spooled);
                }
                Ok(())
            }
            Place::S3(bucket) => upload(bucket, digest, size, &spooled, &self.store.lock),
        }
    }

    /// Whether a file has yet to be stored.
    fn is_wanted(&mut self, folder: &Folder, digest: &Digest, size: u64) -> Result<bool, ArtifactError> {
        if self.staged.contains_key(digest) {
            return Ok(false);
        }
        Ok(match folder.find(digest, size, &self.store.lock)? {
            Found::Absent => true,
            Found::Loose => {
                self.loose.insert(*digest);
                false
            }
            Found::Sealed => false,
        })
    }

    fn spool(&self) -> Result<NamedTempFile, ArtifactError> {
        let spool = &self.store.spool;
        NamedTempFile::new_in(spool).map_err(ArtifactError::io(format!("a file in {}", spool.display())))
    }

    fn stage(&mut self, folder: &Folder, digest: Digest, spooled: NamedTempFile) {
        folder.disk.wrote(spooled.path());
        // Not held open: there may be more files than a process may have open.
        self.staged.insert(digest, spooled.into_temp_path());
    }

    /// When this returns, all of it is stored for good.
    ///
    /// # Errors
    /// The store's. What had been stored until then stays, and is of no harm.
    pub fn keep(mut self) -> Result<(), ArtifactError> {
        match &self.store.place {
            Place::Folder(folder) => {
                let staged: Vec<_> = self.staged.iter().map(|(digest, path)| (*digest, path.to_path_buf())).collect();
                let loose: Vec<Digest> = self.loose.iter().copied().collect();
                folder.place(&staged, &loose)?;
                for (_, path) in self.staged.drain() {
                    // It has its name now, and nothing is left under the old one.
                    let _ = path.keep();
                }
                Ok(())
            }
            Place::S3(_) => self.uploads.finish(),
        }
    }
}

fn upload(
    bucket: &Bucket,
    digest: Digest,
    size: u64,
    spooled: &NamedTempFile,
    lock: &std::path::Path,
) -> Result<(), ArtifactError> {
    Handle::current().block_on(bucket.put_file(digest, size, spooled.path(), lock))
}
