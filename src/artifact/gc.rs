//! Removes what nobody needs any more.
//!
//! Who needs something is told by roots: manifests that rows name. What is young is kept whoever needs it: a build that runs
//! has it in hand, and its row is still to come. Safe beside other processes, because
//!
//! - whoever stores a content that is there already, or finds that it is there, makes it young first (unless it is);
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

    /// Removes what is not marked and not younger than `age` (at least [`YOUNGEST`]); with `dry` only tells.
    ///
    /// # Errors
    /// The store's. What has been removed until then stays removed.
    pub async fn sweep(self: &Arc<Self>, marked: Marked, age: Duration, how: Sweep) -> Result<Swept, ArtifactError> {
        let (store, age) = (Arc::clone(self), age.max(YOUNGEST));
        blocking(move || {
            let mut swept = Swept::default();
            match &store.place {
                Place::Folder(folder) => sweep_folder(folder, &store.lock, &marked.live, age, how, &mut swept)?,
                Place::S3(bucket) => {
                    Handle::current().block_on(sweep_bucket(
                        bucket,
                        &store.lock,
                        &marked.live,
                        age,
                        how,
                        &mut swept,
                    ))?;
                }
            }
            // What a process that died had on its way.
            sweep_flat(&store.spool, age, how, &mut swept)?;
            Ok(swept)
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

fn sweep_folder(
    folder: &Folder,
    lock: &Path,
    live: &HashSet<Digest>,
    age: Duration,
    how: Sweep,
    swept: &mut Swept,
) -> Result<(), ArtifactError> {
    for head in names(&folder.blobs())? {
        let inside = folder.blobs().join(&head);
        let mut dead = Vec::new();
        for tail in names(&inside)? {
            // What is not named by a digest is not ours, and left alone.
            let Ok(digest) = format!("{head}{tail}").parse::<Digest>() else { continue };
            if live.contains(&digest) {
                swept.kept += 1;
            } else {
                dead.push(inside.join(tail));
            }
        }
        if dead.is_empty() {
            continue;
        }
        let _lock = lock_file(lock, FlockArg::LockExclusive)?;
        for path in dead {
            remove_old(&path, age, how, swept)?;
        }
    }
    sweep_flat(&folder.root.join("damaged"), age, how, swept)
}

async fn sweep_bucket(
    bucket: &Bucket,
    lock: &Path,
    live: &HashSet<Digest>,
    age: Duration,
    how: Sweep,
    swept: &mut Swept,
) -> Result<(), ArtifactError> {
    let mut all = bucket.list();
    while let Some((digest, meta)) = all.try_next().await? {
        if live.contains(&digest) {
            swept.kept += 1;
        } else if s3::is_young(&meta, age) {
            swept.young += 1;
        } else if how == Sweep::Tell {
            swept.remove(meta.size);
        } else {
            let lock = lock.to_owned();
            let _lock = blocking(move || lock_file(&lock, FlockArg::LockExclusive)).await?;
            match bucket.head(&digest).await? {
                Some(meta) if !s3::is_young(&meta, age) => {
                    bucket.remove(&digest).await?;
                    swept.remove(meta.size);
                }
                Some(_) => swept.young += 1,
                None => {}
            }
        }
    }
    Ok(())
}

/// Old files of a folder that has no folders.
fn sweep_flat(folder: &Path, age: Duration, how: Sweep, swept: &mut Swept) -> Result<(), ArtifactError> {
    for name in names(folder)? {
        // Young ones are on their way, or there for a look: nobody needs to know.
        let mut found = Swept::default();
        remove_old(&folder.join(name), age, how, &mut found)?;
        swept.removed += found.removed;
        swept.bytes += found.bytes;
    }
    Ok(())
}

fn remove_old(path: &Path, age: Duration, how: Sweep, swept: &mut Swept) -> Result<(), ArtifactError> {
    // Gone meanwhile is what was wanted.
    let Ok(meta) = path.symlink_metadata() else { return Ok(()) };
    if is_young(&meta, age) {
        swept.young += 1;
        return Ok(());
    }
    if how == Sweep::Remove {
        std::fs::remove_file(path).map_err(ArtifactError::io(format!("cannot remove {}", path.display())))?;
    }
    swept.remove(meta.len());
    Ok(())
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
