//! Removes what nobody needs any more.
//!
//! Who needs something is told by roots: manifests that rows name. What is young is kept whoever needs it: a build that runs
//! has it in hand, and its row is still to come. Safe beside other processes, because
//!
//! - whoever stores a content that is there already, or finds that it is there, makes it young first (unless it is). In a bucket
//!   that is done by storing it again, and whoever only finds it must have it from a row;
//! - that happens under a shared lock, and a clean-up looks at the age once more and removes under the exclusive one: so the
//!   other either sees that the content is gone, and stores it, or has made it young in time;
//! - rows are read before the files are listed: what was stored since is young.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use nix::fcntl::FlockArg;
use tokio::runtime::Handle;

use super::folder::{Folder, is_young, lock_file};
use super::manifest::Digest;
use super::s3::{self, Bucket};
use super::store::Place;
use super::{ArtifactError, ArtifactStore, blocking};

/// The least age that a clean-up may ask for. What was in use within the last hour is not always made young again, and the
/// time between storing an output and the commit that names it comes on top.
pub const YOUNGEST: Duration = Duration::from_secs(2 * 3600);

/// What is needed.
#[derive(Debug, Clone, Default)]
pub struct Marked {
    /// Manifests and files.
    pub live: HashSet<Digest>,
    /// Manifests that rows name and that are not there, or damaged: what they named is not kept by them.
    pub lost: Vec<Digest>,
}

/// What a clean-up did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Swept {
    /// Files removed.
    pub removed: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that somebody needs.
    pub kept: u64,
    /// Files that nobody needs and that are too young to tell.
    pub young: u64,
}

impl Swept {
    fn remove(&mut self, bytes: u64) {
        self.removed += 1;
        self.bytes += bytes;
    }
}

impl ArtifactStore {
    /// All that these manifests need: they, and their files.
    ///
    /// # Errors
    /// If one cannot be read though it may be there: then nothing should be removed.
    pub async fn mark(self: &Arc<Self>, roots: HashSet<Digest>) -> Result<Marked, ArtifactError> {
        let mut marked = Marked::default();
        for root in roots {
            match self.manifest(&root).await {
                Ok(manifest) => {
                    marked.live.insert(root);
                    marked.live.extend(manifest.blobs().map(|file| file.digest));
                }
                Err(ArtifactError::Absent(_) | ArtifactError::Damaged { .. }) => marked.lost.push(root),
                Err(error) => return Err(error),
            }
        }
        Ok(marked)
    }

    /// Removes what is not marked and not younger than `age` (at least [`YOUNGEST`], in a bucket a day).
    ///
    /// # Errors
    /// The store's. What has been removed until then stays removed.
    pub async fn sweep(self: &Arc<Self>, marked: Marked, age: Duration, how: Sweep) -> Result<Swept, ArtifactError> {
        let store = Arc::clone(self);
        blocking(move || {
            let least = match &store.place {
                Place::Folder(_) => YOUNGEST,
                Place::S3(_) => s3::YOUNGEST,
            };
            let mut sweeper =
                Sweeper { lock: &store.lock, live: &marked.live, age: age.max(least), how, swept: Swept::default() };
            match &store.place {
                Place::Folder(folder) => sweeper.folder(folder)?,
                Place::S3(bucket) => Handle::current().block_on(sweeper.bucket(bucket))?,
            }
            // What a process that died had on its way.
            sweeper.leftovers(&store.spool)?;
            Ok(sweeper.swept)
        })
        .await
    }
}

/// Whether a clean-up removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// It does.
    Remove,
    /// It only tells what it would remove.
    Tell,
}

/// A clean-up that goes on.
struct Sweeper<'a> {
    lock: &'a Path,
    live: &'a HashSet<Digest>,
    age: Duration,
    how: Sweep,
    swept: Swept,
}

impl Sweeper<'_> {
    fn folder(&mut self, folder: &Folder) -> Result<(), ArtifactError> {
        for head in names(&folder.blobs())? {
            let inside = folder.blobs().join(&head);
            let mut dead = Vec::new();
            for tail in names(&inside)? {
                // What is not named by a digest is not ours, and left alone.
                let Ok(digest) = format!("{head}{tail}").parse::<Digest>() else { continue };
                if self.live.contains(&digest) {
                    self.swept.kept += 1;
                } else {
                    dead.push(inside.join(tail));
                }
            }
            if dead.is_empty() {
                continue;
            }
            let _lock = lock_file(self.lock, FlockArg::LockExclusive)?;
            for path in dead {
                match self.remove_old(&path)? {
                    Looked::Removed(bytes) => self.swept.remove(bytes),
                    Looked::Young => self.swept.young += 1,
                    Looked::Gone => {}
                }
            }
        }
        self.leftovers(&folder.root.join("damaged"))
    }

    async fn bucket(&mut self, bucket: &Bucket) -> Result<(), ArtifactError> {
        let mut all = bucket.list();
        while let Some((digest, meta)) = all.try_next().await? {
            if self.live.contains(&digest) {
                self.swept.kept += 1;
            } else if s3::is_young(&meta, self.age) {
                self.swept.young += 1;
            } else if self.how == Sweep::Tell {
                self.swept.remove(meta.size);
            } else {
                let lock = self.lock.to_owned();
                let _lock = blocking(move || lock_file(&lock, FlockArg::LockExclusive)).await?;
                match bucket.head(&digest).await? {
                    Some(meta) if !s3::is_young(&meta, self.age) => {
                        bucket.remove(&digest).await?;
                        self.swept.remove(meta.size);
                    }
                    Some(_) => self.swept.young += 1,
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Old files that nobody came back for. Young ones are on their way, or there for a look: they are not counted.
    fn leftovers(&mut self, folder: &Path) -> Result<(), ArtifactError> {
        for name in names(folder)? {
            if let Looked::Removed(bytes) = self.remove_old(&folder.join(name))? {
                self.swept.remove(bytes);
            }
        }
        Ok(())
    }

    fn remove_old(&self, path: &Path) -> Result<Looked, ArtifactError> {
        let Ok(meta) = path.symlink_metadata() else { return Ok(Looked::Gone) };
        if is_young(&meta, self.age) {
            return Ok(Looked::Young);
        }
        if self.how == Sweep::Remove {
            match std::fs::remove_file(path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Looked::Gone),
                Err(error) => return Err(ArtifactError::io(format!("cannot remove {}", path.display()))(error)),
            }
        }
        Ok(Looked::Removed(meta.len()))
    }
}

/// What became of a file.
enum Looked {
    /// It is removed, or would be. Its bytes.
    Removed(u64),
    Young,
    Gone,
}

/// The names in a folder; none if it is not there.
fn names(folder: &Path) -> Result<Vec<String>, ArtifactError> {
    let io = |error| ArtifactError::io(format!("cannot read {}", folder.display()))(error);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(io(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is not UTF-8 is none of ours.
        names.extend(entry.map_err(io)?.file_name().into_string().ok());
    }
    Ok(names)
}
