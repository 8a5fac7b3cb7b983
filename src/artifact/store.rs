//! The store: what is there, and reading it back.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::disk::Disk;
use super::folder::{Folder, Found};
use super::manifest::{Digest, FileEntry, Manifest};
use super::s3::{AT_ONCE, Bucket};
use super::{ArtifactError, Batch, blocking};

/// Largest manifest that is stored or read: more files than any cap lets in.
const MANIFEST: u64 = 256 << 20;

/// Where artifacts are kept.
#[derive(Debug, Clone)]
pub struct ArtifactSettings {
    /// `s3://bucket/prefix?endpoint=...`; else they are kept in `folder`.
    pub url: Option<String>,
    /// Part of each key of a bucket: so data folders that share one never take each other's files for their own.
    pub instance: String,
    /// A folder of this machine: for blobs, or for what is on its way into a bucket.
    pub folder: PathBuf,
    /// Where a bucket's key is, and what else S3's own tools would take from the environment.
    pub environment: Environment,
}

/// Variables: `HOME`, and those that begin with `AWS_`. Never shown.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Of these variables those that count.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let counts =
            |(name, value): &(String, String)| (name == "HOME" || name.starts_with("AWS_")) && !value.is_empty();
        Self(variables.into_iter().filter(counts).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl ArtifactSettings {
    /// In this folder.
    pub fn folder(folder: PathBuf) -> Self {
        Self { url: None, instance: String::new(), folder, environment: Environment::default() }
    }
}

/// The store. Cheap to share.
#[derive(Debug)]
pub struct ArtifactStore {
    pub(super) place: Place,
    pub(super) spool: PathBuf,
    /// Held while something is made young again, and while a clean-up removes.
    pub(super) lock: PathBuf,
}

/// Who wants to rely on a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reliance {
    /// Somebody who found it by a row that names it: a clean-up sees that row too.
    Named,
    /// Somebody whose row is still to come.
    New,
}

/// Where the blobs are.
#[derive(Debug)]
pub(super) enum Place {
    Folder(Folder),
    S3(Bucket),
}

impl ArtifactStore {
    /// Opens the store, making the folder. A bucket is not asked anything yet: history can be read while it is down.
    ///
    /// # Errors
    /// If the folder cannot be made, or the settings make no sense.
    pub fn open(settings: &ArtifactSettings) -> Result<Self, ArtifactError> {
        Self::open_on(settings, Disk::default())
    }

    /// Looks whether the store can be used.
    ///
    /// # Errors
    /// [`ArtifactError::Remote`] if a bucket does not answer, is not there, or refuses the key.
    pub async fn probe(&self) -> Result<(), ArtifactError> {
        match &self.place {
            Place::Folder(_) => Ok(()),
            Place::S3(bucket) => bucket.probe().await,
        }
    }

    /// The same, on a disk whose steps a test sees.
    pub(crate) fn open_on(settings: &ArtifactSettings, disk: Disk) -> Result<Self, ArtifactError> {
        let folder = settings.folder.clone();
        let spool = folder.join("spool");
        std::fs::create_dir_all(&spool).map_err(ArtifactError::io(format!("cannot make {}", spool.display())))?;
        let place = match &settings.url {
            Some(url) => Place::S3(Bucket::open(url, &settings.instance, &settings.environment)?),
            None => Place::Folder(Folder::open(&folder, disk)?),
        };
        Ok(Self { place, spool, lock: folder.join("lock") })
    }

    /// Whether all files of a tree are there with the sizes that they should have: the first that is not, if any. A manifest
    /// that is not there or damaged stands for all its files.
    ///
    /// # Errors
    /// The store's.
    pub async fn missing(self: &Arc<Self>, manifest: &Digest) -> Result<Option<String>, ArtifactError> {
        let files = match self.manifest(manifest).await {
            Ok(manifest) => manifest.files,
            Err(ArtifactError::Absent(what) | ArtifactError::Damaged { what, .. }) => return Ok(Some(what)),
            Err(error) => return Err(error),
        };
        let blobs: Vec<FileEntry> = files.into_iter().filter(|file| file.link.is_none()).collect();
        let wanted: Vec<(Digest, u64)> = blobs.iter().map(|file| (file.digest, file.size)).collect();
        let store = Arc::clone(self);
        let present = blocking(move || store.present(&wanted, Reliance::Named)).await?;
        Ok(blobs.iter().zip(present).find(|(_, present)| !present).map(|(file, _)| file.described()))
    }

    /// Which of these are there with these sizes, and will stay. What is in a folder is made young for that; what is old in a
    /// bucket counts as absent to a [`Reliance::New`], since it can only be made young by storing it again. Blocking.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn present(&self, wanted: &[(Digest, u64)], reliance: Reliance) -> Result<Vec<bool>, ArtifactError> {
        match &self.place {
            Place::Folder(folder) => {
                let mut present = Vec::with_capacity(wanted.len());
                let mut loose = Vec::new();
                for (digest, size) in wanted {
                    let found = folder.find(digest, *size, &self.lock)?;
                    if found == Found::Loose {
                        loose.push(*digest);
                    }
                    present.push(found != Found::Absent);
                }
                folder.place(&[], &loose)?;
                Ok(present)
            }
            Place::S3(bucket) => Handle::current().block_on(async {
                let looks = stream::iter(wanted.to_vec())
                    .map(|(digest, size)| async move { bucket.has(&digest, size, reliance).await });
                looks.buffered(AT_ONCE).collect::<Vec<_>>().await.into_iter().collect()
            }),
        }
    }

    /// A file's content, checked on the way. Blocking.
    pub(super) fn read(self: &Arc<Self>, file: &FileEntry) -> Result<Checked, ArtifactError> {
        let inner: Option<Box<dyn Read + Send>> = match &self.place {
            Place::Folder(folder) => folder.read(&file.digest)?.map(|file| Box::new(file) as Box<dyn Read + Send>),
            Place::S3(bucket) => {
                let runtime = Handle::current();
                runtime.block_on(bucket.read(&file.digest))?.map(|stream| {
                    let reader = SyncIoBridge::new_with_handle(StreamReader::new(stream), runtime);
                    Box::new(reader) as Box<dyn Read + Send>
                })
            }
        };
        let inner = inner.ok_or_else(|| ArtifactError::Absent(file.described()))?;
        let store = Arc::clone(self);
        Ok(Checked { store, inner, hasher: blake3::Hasher::new(), read: 0, file: file.clone() })
    }

    /// Takes what is damaged out of the way, so that it is missed and made anew.
    fn set_aside(&self, digest: &Digest) {
        let done = match &self.place {
            Place::Folder(folder) => folder.set_aside(digest).map_err(|error| error.to_string()),
            Place::S3(bucket) => Handle::current().block_on(bucket.remove(digest)).map_err(|error| error.to_string()),
        };
        if let Err(error) = done {
            tracing::warn!(%digest, %error, "cannot set a damaged file aside");
        }
    }

    /// A whole file of at most so many bytes.
    async fn whole(self: &Arc<Self>, file: FileEntry, most: u64) -> Result<Vec<u8>, ArtifactError> {
        let store = Arc::clone(self);
        blocking(move || {
            let mut bytes = Vec::new();
            let what = file.described();
            store.read(&file)?.take(most + 1).read_to_end(&mut bytes).map_err(ArtifactError::io(&what))?;
            if bytes.len() as u64 > most {
                return Err(ArtifactError::Refused(format!("{what} is larger than {}", crate::words::size(most))));
            }
            Ok(bytes)
        })
        .await
    }

    /// Stores a manifest. Its files are to be stored before it. When this returns, its digest can be committed.
    ///
    /// # Errors
    /// The store's; [`ArtifactError::Refused`] if it has too many files.
    pub async fn put_manifest(self: &Arc<Self>, manifest: &Manifest) -> Result<Digest, ArtifactError> {
        let bytes = manifest.canonical();
        if bytes.len() as u64 > MANIFEST {
            let text = format!("a list of {} files is too long; pack what belongs together", manifest.files.len());
            return Err(ArtifactError::Refused(text));
        }
        let store = Arc::clone(self);
        blocking(move || {
            let mut batch = Batch::new(&store);
            let digest = batch.put_bytes(bytes)?;
            batch.keep()?;
            Ok(digest)
        })
        .await
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// If it is not there, or damaged.
    pub async fn manifest(self: &Arc<Self>, digest: &Digest) -> Result<Manifest, ArtifactError> {
        let short: String = digest.to_string().chars().take(12).collect();
        let what = format!("the list of files {short}");
        let list = FileEntry {
            path: what.clone(),
            executable: false,
            size: MANIFEST,
            digest: *digest,
            link: None,
            origin: None,
        };
        let bytes = self.whole(list, MANIFEST).await?;
        serde_json::from_slice(&bytes).map_err(|error| ArtifactError::Damaged { what, detail: error.to_string() })
    }

    /// The bytes of one file of a manifest.
    ///
    /// # Errors
    /// If there is no such file, or it is larger than `most` bytes.
    pub async fn get_file(
        self: &Arc<Self>,
        manifest: &Manifest,
        path: &str,
        most: u64,
    ) -> Result<Vec<u8>, ArtifactError> {
        let file = manifest.find(path).filter(|file| file.link.is_none());
        let file = file.ok_or_else(|| ArtifactError::Refused(format!("there is no file `{path}`")))?;
        self.whole(file.clone(), most).await
    }

    /// A file's content for those who read it bit by bit; what is damaged ends with an error. Blocking.
    ///
    /// # Errors
    /// If it is not there.
    pub fn open_file(self: &Arc<Self>, file: &FileEntry) -> Result<impl Read + Send + use<>, ArtifactError> {
        self.read(file)
    }

    /// The folder for spool files.
    pub fn spool(&self) -> &Path {
        &self.spool
    }
}

/// Reads a blob, and fails if it is not what it was.
pub(super) struct Checked {
    store: Arc<ArtifactStore>,
    inner: Box<dyn Read + Send>,
    hasher: blake3::Hasher,
    read: u64,
    file: FileEntry,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.read += count as u64;
        if count == 0 && Digest::finish(&self.hasher) != self.file.digest {
            return Err(self.damaged(format!("its {} bytes are not those that were stored", self.read)));
        }
        if self.read > self.file.size {
            return Err(self.damaged(format!("it has more than its {} bytes", self.file.size)));
        }
        Ok(count)
    }
}

impl Checked {
    fn damaged(&self, detail: String) -> io::Error {
        self.store.set_aside(&self.file.digest);
        io::Error::other(ArtifactError::Damaged { what: self.file.described(), detail })
    }
}
