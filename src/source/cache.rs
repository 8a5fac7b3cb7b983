//! Digests of files by their stat, so that an unchanged tree costs a stat a file. A file that changed a moment ago is not
//! remembered: its next change may have the same time (git calls such a file racy). Blocking.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::artifact::manifest::Digest;

/// Younger than this, a file is racy.
const RACY_NANOS: i128 = 2_000_000_000;

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stat {
    pub size: u64,
    modified: i128,
    changed: i128,
    inode: u64,
}

impl Stat {
    pub fn of(meta: &Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            size: meta.len(),
            modified: nanos(meta.mtime(), meta.mtime_nsec()),
            changed: nanos(meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    #[serde(flatten)]
    stat: Stat,
    digest: Digest,
}

/// Digests of one folder's files.
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

    /// The digest of a file that looks as it did.
    pub fn get(&self, name: &str, stat: &Stat) -> Option<Digest> {
        self.known.get(name).filter(|known| known.stat == *stat).map(|known| known.digest)
    }

    /// Remembers a file as it is now, and nothing but what is remembered this time.
    pub fn remember(&mut self, name: &str, stat: Stat, digest: Digest) {
        if self.now - stat.modified.max(stat.changed) > RACY_NANOS {
            self.fresh.insert(name.to_owned(), Known { stat, digest });
        }
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
