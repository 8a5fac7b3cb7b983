//! Which blob of git is which blob of the artifact store, so that a known one is not read again. A cache: it may be lost,
//! or cut short, and then the next tree is slower and no different.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use git2::Oid;

use crate::artifact::manifest::Digest;

/// Blobs that are remembered at most: 64 bytes each.
const MOST: usize = 400_000;
const RECORD: usize = 64;

/// A bit of the size that says "an LFS pointer": no blob is that large.
const POINTER: u64 = 1 << 63;

/// What is known of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blob {
    pub digest: Digest,
    pub size: u64,
    /// It only says where LFS has the content.
    pub pointer: bool,
}

#[derive(Debug)]
pub(super) struct Known {
    path: PathBuf,
    blobs: HashMap<Oid, Blob>,
    fresh: HashMap<Oid, Blob>,
}

impl Known {
    /// The cache of a mirror, in this file. What cannot be read is left out.
    pub(super) fn open(path: &Path) -> Self {
        let path = path.to_owned();
        let small = fs::metadata(&path).is_ok_and(|meta| meta.len() <= (MOST * RECORD) as u64);
        let bytes = if small { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        let blobs = bytes.chunks_exact(RECORD).filter_map(decode).collect();
        Self { path, blobs, fresh: HashMap::new() }
    }

    pub(super) fn get(&self, blob: Oid) -> Option<Blob> {
        self.fresh.get(&blob).or_else(|| self.blobs.get(&blob)).copied()
    }

    pub(super) fn learn(&mut self, blob: Oid, known: Blob) {
        self.fresh.insert(blob, known);
    }

    /// Keeps what was learnt, if that is possible.
    pub(super) fn save(mut self) {
        if self.fresh.is_empty() {
            return;
        }
        if self.blobs.len() + self.fresh.len() > MOST {
            self.blobs.clear();
        }
        self.blobs.extend(self.fresh);
        let write = || -> std::io::Result<()> {
            let parent = self.path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(parent)?;
            let mut file = tempfile::NamedTempFile::new_in(parent)?;
            let mut bytes = Vec::with_capacity(self.blobs.len() * RECORD);
            for (blob, known) in self.blobs.iter().take(MOST) {
                encode(*blob, known, &mut bytes);
            }
            file.write_all(&bytes)?;
            file.persist(&self.path)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::debug!(path = %self.path.display(), %error, "cannot keep what blobs are known");
        }
    }
}

fn encode(blob: Oid, known: &Blob, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.extend_from_slice(blob.as_bytes());
    let digest = blake3::Hash::from_hex(known.digest.to_string()).expect("a digest is 64 hex digits");
    bytes.extend_from_slice(digest.as_bytes());
    let size = if known.pointer { known.size | POINTER } else { known.size };
    bytes.extend_from_slice(&size.to_le_bytes());
    let check = blake3::hash(&bytes[start..]);
    bytes.extend_from_slice(&check.as_bytes()[..4]);
}

fn decode(record: &[u8]) -> Option<(Oid, Blob)> {
    let (body, check) = record.split_at(RECORD - 4);
    if blake3::hash(body).as_bytes()[..4] != *check {
        return None;
    }
    let digest = blake3::Hash::from_slice(&body[20..52]).ok()?.to_hex().parse().ok()?;
    let size = u64::from_le_bytes(body[52..60].try_into().ok()?);
    let blob = Blob { digest, size: size & !POINTER, pointer: size & POINTER != 0 };
    Some((Oid::from_bytes(&body[..20]).ok()?, blob))
}
