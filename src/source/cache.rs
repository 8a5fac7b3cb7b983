//! Digests of files by their stat, so that an unchanged tree costs a stat a file. A file that changed a moment ago is not
//! remembered: its next change may have the same time (git calls such a file racy).

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::SourceError;
use crate::artifact::ArtifactStore;
use crate::artifact::manifest::Digest;

/// Younger than this, a file is racy.
const RACY_NANOS: i128 = 2_000_000_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    size: u64,
    modified: i128,
    changed: i128,
    inode: u64,
    digest: Digest,
}

pub(super) struct StatCache {
    path: PathBuf,
    known: HashMap<String, Known>,
    fresh: HashMap<String, Known>,
    now: i128,
}

impl StatCache {
    /// The cache of one folder. One that cannot be read is empty.
    pub fn open(caches: &Path, folder: &Path) -> Self {
        let name = blake3::hash(folder.as_os_str().as_encoded_bytes()).to_hex();
        let path = caches.join(&name[..32]);
        let known = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
        Self { path, known, fresh: HashMap::new(), now }
    }

    /// The digest and size of a file that is in the store: known, or read now.
    pub fn digest(
        &mut self,
        name: &str,
        meta: &Metadata,
        store: &ArtifactStore,
        open: impl FnOnce() -> Result<File, SourceError>,
    ) -> Result<(Digest, u64), SourceError> {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let (modified, changed) = (nanos(meta.mtime(), meta.mtime_nsec()), nanos(meta.ctime(), meta.ctime_nsec()));
        let (size, inode) = (meta.len(), meta.ino());
        if let Some(known) = self.known.get(name)
            && (known.size, known.modified, known.changed, known.inode) == (size, modified, changed, inode)
            && Handle::current().block_on(store.has(&known.digest))?
        {
            self.fresh.insert(name.to_owned(), known.clone());
            return Ok((known.digest, size));
        }
        let (digest, read) = store.put_reader(&mut open()?, u64::MAX)?;
        if read == size && self.now - modified.max(changed) > RACY_NANOS {
            self.fresh.insert(name.to_owned(), Known { size, modified, changed, inode, digest });
        }
        Ok((digest, read))
    }

    /// Keeps what was learnt, if that is possible: without it the next run is slower, and no different.
    pub fn save(self) {
        if self.fresh == self.known {
            return;
        }
        let write = || -> std::io::Result<()> {
            let parent = self.path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(parent)?;
            let mut file = tempfile::NamedTempFile::new_in(parent)?;
            file.write_all(&serde_json::to_vec(&self.fresh)?)?;
            file.persist(&self.path)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::debug!(path = %self.path.display(), %error, "cannot keep the stat cache");
        }
    }
}
