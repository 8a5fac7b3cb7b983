//! Blobs on an object store.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;

use super::ArtifactError;
use super::manifest::{Digest, Manifest};

/// Files up to this size are held in memory while they are hashed; larger ones go to a spool file.
const SMALL: u64 = 1 << 20;
/// Largest manifest that is read.
const MANIFEST: u64 = 512 << 20;

/// Where artifacts are kept.
#[derive(Debug, Clone)]
pub struct ArtifactSettings {
    /// A folder, or `s3://bucket/prefix`.
    pub url: String,
    /// The endpoint of an S3 that is not Amazon's.
    pub endpoint: Option<String>,
    /// For files that are being hashed.
    pub spool: PathBuf,
}

impl ArtifactSettings {
    /// In this folder.
    pub fn folder(folder: PathBuf) -> Self {
        Self { url: folder.display().to_string(), endpoint: None, spool: folder.join("spool") }
    }
}

/// The store. Cheap to share.
#[derive(Debug)]
pub struct ArtifactStore {
    store: Arc<dyn ObjectStore>,
    /// The folder, where it is one: a spooled file is moved there and not copied.
    folder: Option<PathBuf>,
    spool: PathBuf,
}

impl ArtifactStore {
    /// Opens the store, making the folder. For S3 the credentials are those of the usual `AWS_*` variables.
    ///
    /// # Errors
    /// If the folder cannot be made, or the settings make no sense.
    pub async fn open(settings: &ArtifactSettings) -> Result<Self, ArtifactError> {
        let spool = settings.spool.clone();
        std::fs::create_dir_all(&spool).map_err(ArtifactError::io(spool.display().to_string()))?;
        if let Some(rest) = settings.url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
            if let Some(endpoint) = &settings.endpoint {
                builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
            }
            let store = PrefixStore::new(builder.build()?, prefix);
            return Ok(Self { store: Arc::new(store), folder: None, spool });
        }
        let folder = PathBuf::from(&settings.url);
        std::fs::create_dir_all(&folder).map_err(ArtifactError::io(folder.display().to_string()))?;
        let store = LocalFileSystem::new_with_prefix(&folder)?;
        Ok(Self { store: Arc::new(store), folder: Some(folder), spool })
    }

    fn key(digest: &Digest) -> Key {
        let hex = digest.to_string();
        let (head, tail) = hex.split_at(2);
        Key::from_iter(["blobs", head, tail])
    }

    /// Whether it is there.
    ///
    /// # Errors
    /// The store's.
    pub async fn has(&self, digest: &Digest) -> Result<bool, ArtifactError> {
        match self.store.head(&Self::key(digest)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Stores bytes; once, however often they come.
    ///
    /// # Errors
    /// The store's.
    pub async fn put(&self, bytes: Bytes) -> Result<Digest, ArtifactError> {
        let digest = Digest::of(&bytes);
        if !self.has(&digest).await? {
            self.store.put(&Self::key(&digest), bytes.into()).await?;
        }
        Ok(digest)
    }

    /// Stores what a reader gives, of this size or less, with bounded memory. Blocks: only where blocking is fine.
    ///
    /// # Errors
    /// The reader's or the store's; [`ArtifactError::Refused`] if more comes than was said.
    pub(crate) fn put_reader(&self, mut reader: &mut dyn Read, most: u64) -> Result<(Digest, u64), ArtifactError> {
        let runtime = Handle::current();
        let mut head = Vec::new();
        let read = |error| ArtifactError::io("cannot read a file")(error);
        Read::by_ref(&mut reader).take(SMALL).read_to_end(&mut head).map_err(read)?;
        if (head.len() as u64) < SMALL {
            let size = head.len() as u64;
            return Ok((runtime.block_on(self.put(head.into()))?, size));
        }
        let mut spooled = tempfile::NamedTempFile::new_in(&self.spool)
            .map_err(ArtifactError::io(self.spool.display().to_string()))?;
        let mut hasher = blake3::Hasher::new();
        let mut all = (&head[..]).chain(reader.take(most.saturating_sub(SMALL).saturating_add(1)));
        let mut buffer = vec![0; 256 << 10];
        let mut size = 0;
        loop {
            let count = all.read(&mut buffer).map_err(read)?;
            if count == 0 {
                break;
            }
            size += count as u64;
            hasher.update(&buffer[..count]);
            std::io::Write::write_all(&mut spooled, &buffer[..count])
                .map_err(ArtifactError::io("cannot write to the spool"))?;
        }
        if size > most {
            return Err(ArtifactError::Refused(format!("a file is larger than {most} bytes")));
        }
        let digest = Digest::finish(&hasher);
        if !runtime.block_on(self.has(&digest))? {
            self.take_spooled(&runtime, spooled, &digest)?;
        }
        Ok((digest, size))
    }

    fn take_spooled(
        &self,
        runtime: &Handle,
        spooled: tempfile::NamedTempFile,
        digest: &Digest,
    ) -> Result<(), ArtifactError> {
        let key = Self::key(digest);
        if let Some(folder) = &self.folder {
            let target = folder.join(key.as_ref());
            let io = |error| ArtifactError::io(target.display().to_string())(error);
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent).map_err(io)?;
            }
            return spooled.persist(&target).map(|_| ()).map_err(|error| io(error.error));
        }
        runtime.block_on(async {
            let mut source = tokio::fs::File::open(spooled.path()).await.map_err(ArtifactError::io("the spool"))?;
            let mut sink = BufWriter::new(Arc::clone(&self.store), key);
            tokio::io::copy(&mut source, &mut sink).await.map_err(ArtifactError::io("cannot upload"))?;
            sink.shutdown().await.map_err(ArtifactError::io("cannot upload"))
        })
    }

    /// A blob as a stream of pieces, not yet checked against its digest.
    pub(super) async fn stream(
        &self,
        digest: &Digest,
    ) -> Result<futures_util::stream::BoxStream<'static, object_store::Result<Bytes>>, ArtifactError> {
        match self.store.get(&Self::key(digest)).await {
            Ok(found) => Ok(found.into_stream()),
            Err(object_store::Error::NotFound { .. }) => Err(ArtifactError::Absent(digest.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// A whole blob of at most so many bytes.
    ///
    /// # Errors
    /// If it is not there, larger, or damaged.
    pub async fn get(&self, digest: &Digest, most: u64) -> Result<Vec<u8>, ArtifactError> {
        let mut pieces = self.stream(digest).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece?);
            if bytes.len() as u64 > most {
                return Err(ArtifactError::Refused(format!("it is larger than {most} bytes")));
            }
        }
        let found = Digest::of(&bytes);
        if found != *digest {
            let detail = format!("its content hashes to {found}");
            return Err(ArtifactError::Damaged { digest: digest.to_string(), detail });
        }
        Ok(bytes)
    }

    /// Stores a manifest.
    ///
    /// # Errors
    /// The store's.
    pub async fn put_manifest(&self, manifest: &Manifest) -> Result<Digest, ArtifactError> {
        self.put(manifest.canonical().into()).await
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// If it is not there, or is none.
    pub async fn manifest(&self, digest: &Digest) -> Result<Manifest, ArtifactError> {
        let bytes = self.get(digest, MANIFEST).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| ArtifactError::Damaged { digest: digest.to_string(), detail: error.to_string() })
    }

    /// The bytes of one file of a manifest.
    ///
    /// # Errors
    /// If there is no such file, or it is larger than `most` bytes.
    pub async fn get_file(&self, manifest: &Manifest, path: &str, most: u64) -> Result<Vec<u8>, ArtifactError> {
        let file = manifest.find(path).ok_or_else(|| ArtifactError::Absent(path.to_owned()))?;
        self.get(&file.digest, most).await
    }

    /// The folder for spool files.
    pub fn spool(&self) -> &Path {
        &self.spool
    }
}
