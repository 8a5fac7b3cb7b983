//! Blobs in a bucket of S3, or of what speaks its protocol. What was answered with success is durable there by contract.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use nix::fcntl::FlockArg;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::buffered::BufWriter;
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::ArtifactError;
use super::address::{Address, from_file};
use super::folder::lock_file;
use super::manifest::Digest;
use super::store::{Environment, Reliance};

/// Requests at once: most of their time is waiting.
pub(super) const AT_ONCE: usize = 16;
/// What was written this lately need not be written again to be young. Longer than in a folder: it costs an upload.
const FRESH: Duration = Duration::from_secs(12 * 3600);
/// The least age that a clean-up of a bucket may ask for, for the same reason.
pub(super) const YOUNGEST: Duration = Duration::from_secs(24 * 3600);
/// A part of a large upload, and how many at once.
const PART: usize = 8 << 20;
const PARTS: usize = 4;
/// How long a server that does not answer is tried again.
const PATIENCE: Duration = Duration::from_secs(20);
const RETRIES: usize = 4;
/// A transfer that stands still for so long is given up.
const STALL: Duration = Duration::from_secs(60);

/// A bucket.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    objects: Arc<dyn ObjectStore>,
    prefix: Key,
    /// For messages.
    shown: String,
}

impl Bucket {
    /// Sets a bucket up; nothing is sent. Keys begin with the address's prefix, and then with `instance`: what another
    /// data folder keeps in the same bucket is never taken for ours.
    ///
    /// # Errors
    /// [`ArtifactError::Setting`].
    pub fn open(url: &str, instance: &str, environment: &Environment) -> Result<Self, ArtifactError> {
        let address = Address::parse(url)?;
        // Two crates bring TLS here, so one has to be named. That it is named already is fine.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let client = ClientOptions::new()
            .with_connect_timeout(Duration::from_secs(5))
            .with_timeout_disabled()
            .with_read_timeout(STALL)
            .with_allow_http(address.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")));
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: PATIENCE, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new();
        // Where it is, is the address's to say: that is remembered, and a variable is not.
        for (name, value) in environment.all().filter(|(name, _)| !name.starts_with("AWS_ENDPOINT")) {
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        builder = builder
            .with_bucket_name(&address.bucket)
            .with_virtual_hosted_style_request(address.virtual_host)
            .with_client_options(client)
            .with_retry(retry);
        if let Some(endpoint) = &address.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &address.region {
            builder = builder.with_region(region);
        }
        if let Some(key) = from_file(|name| environment.get(name).map(str::to_owned))? {
            builder = builder.with_access_key_id(key.id).with_secret_access_key(key.secret);
            if let Some(token) = key.token {
                builder = builder.with_token(token);
            }
        }
        let wrong =
            |error: &dyn Error| ArtifactError::Setting(format!("the artifact store {}: {error}", address.shown()));
        let objects = Arc::new(builder.build().map_err(|error| wrong(&error))?);
        let prefix = Key::parse(&address.prefix).map_err(|error| wrong(&error))?.join(instance);
        Ok(Self { objects, prefix, shown: address.shown() })
    }

    /// Looks whether it is there and takes the key.
    pub async fn probe(&self) -> Result<(), ArtifactError> {
        // There is nothing of that name, and the answer says the rest.
        let nothing = self.prefix.clone().join("is-it-there");
        match self.objects.list(Some(&nothing)).next().await {
            Some(Err(error)) => Err(self.error("cannot keep artifacts", &error)),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    fn key(&self, digest: &Digest) -> Key {
        let hex = digest.to_string();
        let (head, tail) = hex.split_at(2);
        self.prefix.clone().join("blobs").join(head).join(tail)
    }

    /// Size and age of a blob, if it is there.
    pub async fn head(&self, digest: &Digest) -> Result<Option<ObjectMeta>, ArtifactError> {
        match self.objects.head(&self.key(digest)).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error("cannot look for a file", &error)),
        }
    }

    /// Whether a blob is there with this size, and can be relied on.
    pub async fn has(&self, digest: &Digest, size: u64, reliance: Reliance) -> Result<bool, ArtifactError> {
        Ok(self.head(digest).await?.is_some_and(|meta| match reliance {
            Reliance::Named => meta.size == size,
            Reliance::New => meta.size == size && is_young(&meta, FRESH),
        }))
    }

    /// Whether a blob has to be written. One that is there for long is written again, so that no clean-up takes it before its new
    /// user has said so: then under a lock, which is to be held until it is written.
    async fn wanted(&self, digest: &Digest, size: u64, lock: &Path) -> Result<Wanted, ArtifactError> {
        let Some(meta) = self.head(digest).await? else { return Ok(Wanted::Yes(None)) };
        if meta.size == size && is_young(&meta, FRESH) {
            return Ok(Wanted::No);
        }
        let lock = lock.to_owned();
        Ok(Wanted::Yes(Some(super::blocking(move || lock_file(&lock, FlockArg::LockShared)).await?)))
    }

    async fn put(&self, digest: Digest, bytes: Bytes, lock: &Path) -> Result<(), ArtifactError> {
        let Wanted::Yes(_lock) = self.wanted(&digest, bytes.len() as u64, lock).await? else { return Ok(()) };
        match self.objects.put(&self.key(&digest), bytes.into()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.error("cannot store a file", &error)),
        }
    }

    /// Stores a file of the disk.
    pub async fn put_file(&self, digest: Digest, size: u64, path: &Path, lock: &Path) -> Result<(), ArtifactError> {
        let Wanted::Yes(_lock) = self.wanted(&digest, size, lock).await? else { return Ok(()) };
        let mut source = tokio::fs::File::open(path).await.map_err(ArtifactError::io("a spool file"))?;
        let writer = BufWriter::with_capacity(Arc::clone(&self.objects), self.key(&digest), PART);
        let mut writer = writer.with_max_concurrency(PARTS);
        let copied = match tokio::io::copy(&mut source, &mut writer).await {
            Ok(_) => writer.shutdown().await,
            Err(error) => Err(error),
        };
        if let Err(error) = copied {
            // What has been uploaded of it is of no use. If it cannot be removed either, the bucket's own rules have to.
            let _ = writer.abort().await;
            return Err(self.error("cannot store a file", &error));
        }
        Ok(())
    }

    /// A blob's bytes as they come; `None` if it is not there.
    pub async fn read(
        &self,
        digest: &Digest,
    ) -> Result<Option<futures_util::stream::BoxStream<'static, std::io::Result<Bytes>>>, ArtifactError> {
        match self.objects.get(&self.key(digest)).await {
            Ok(found) => {
                let bucket = self.clone();
                let failed = move |error| std::io::Error::other(bucket.error("cannot read a file", &error));
                Ok(Some(found.into_stream().map(move |piece| piece.map_err(&failed)).boxed()))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error("cannot read a file", &error)),
        }
    }

    /// Removes a blob. No error if there is none.
    pub async fn remove(&self, digest: &Digest) -> Result<(), ArtifactError> {
        match self.objects.delete(&self.key(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error("cannot remove a file", &error)),
        }
    }

    /// The next of all blobs after another. What is not named by a digest is not ours, and passed over.
    pub fn list(&self) -> futures_util::stream::BoxStream<'static, Result<(Digest, ObjectMeta), ArtifactError>> {
        let bucket = self.clone();
        let listed = self.objects.list(Some(&self.prefix.clone().join("blobs")));
        let ours = move |found: object_store::Result<ObjectMeta>| {
            let found = match found {
                Ok(meta) => named(&meta.location).map(|digest| Ok((digest, meta))),
                Err(error) => Some(Err(bucket.error("cannot list the files", &error))),
            };
            futures_util::future::ready(found)
        };
        listed.filter_map(ours).boxed()
    }

    /// What an error means, for a person.
    fn error(&self, doing: &str, error: &dyn Error) -> ArtifactError {
        let all = chain(error);
        let has = |words: &[&str]| words.iter().any(|word| all.contains(word));
        let why = if has(&["NoSuchBucket"]) {
            "there is no such bucket; make it, or correct the address".to_owned()
        } else if has(&["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403 Forbidden", "401 Unauth"]) {
            "the key is refused; correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or let it read, write, list and delete there"
                .to_owned()
        } else if has(&["169.254.169.254"]) {
            "there is no key; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SHARED_CREDENTIALS_FILE"
                .to_owned()
        } else if has(&["HTTP error: error sending request", "error trying to connect", "Connect"]) {
            format!("it cannot be reached; is it running, and is the address right? ({})", last(error))
        } else {
            last(error)
        };
        ArtifactError::Remote { what: format!("{doing} in {}", self.shown), why }
    }
}

/// Whether a blob has to be written, and what is to be held meanwhile.
enum Wanted {
    No,
    Yes(Option<nix::fcntl::Flock<std::fs::File>>),
}

/// Younger than this age, or from the future.
pub(super) fn is_young(meta: &ObjectMeta, age: Duration) -> bool {
    SystemTime::from(meta.last_modified).elapsed().map_or(true, |since| since < age)
}

fn named(location: &Key) -> Option<Digest> {
    let (front, tail) = location.as_ref().rsplit_once('/')?;
    format!("{}{tail}", front.rsplit('/').next()?).parse().ok()
}

/// An error with all its causes, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The innermost cause, cut to a line.
fn last(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string().chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Small files on their way into a bucket, several at once.
#[derive(Default)]
pub(super) struct Uploads {
    running: JoinSet<Result<(), ArtifactError>>,
    sent: std::collections::HashSet<Digest>,
}

impl Uploads {
    /// Starts an upload, waiting for a place among those that go on. Blocking.
    pub fn put(&mut self, bucket: &Bucket, digest: Digest, bytes: Bytes, lock: &Path) -> Result<(), ArtifactError> {
        if !self.sent.insert(digest) {
            return Ok(());
        }
        while self.running.len() >= AT_ONCE {
            self.next()?;
        }
        let (bucket, lock) = (bucket.clone(), lock.to_owned());
        self.running.spawn_on(async move { bucket.put(digest, bytes, &lock).await }, &Handle::current());
        Ok(())
    }

    /// Waits for all. Blocking.
    pub fn finish(&mut self) -> Result<(), ArtifactError> {
        while !self.running.is_empty() {
            self.next()?;
        }
        Ok(())
    }

    fn next(&mut self) -> Result<(), ArtifactError> {
        match Handle::current().block_on(self.running.join_next()) {
            None => Ok(()),
            Some(Ok(done)) => done,
            Some(Err(error)) => Err(ArtifactError::io("an upload broke")(std::io::Error::other(error))),
        }
    }
}
