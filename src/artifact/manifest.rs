//! Digests, and lists of files with them. PURE.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The BLAKE3 hash of a content, as 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// Text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a BLAKE3 digest of 64 hex digits")]
pub struct NotADigest(String);

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Of a hasher.
    pub fn finish(hasher: &blake3::Hasher) -> Self {
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| NotADigest(text.to_owned()))
    }
}

impl TryFrom<String> for Digest {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Self, NotADigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative, with `/`, without `.` and `..`.
    pub path: String,
    /// It may be executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
    /// Bytes.
    pub size: u64,
    /// Of its content; of the target for a link.
    pub digest: Digest,
    /// Where a symbolic link points, relative to its own folder. Source trees alone have links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Who made it, for messages: ``stage `train` ``. Not stored.
    #[serde(skip)]
    pub origin: Option<Arc<str>>,
}

impl FileEntry {
    /// A file for a message: its path, and who made it.
    pub fn described(&self) -> String {
        match &self.origin {
            Some(origin) => format!("`{}` of {origin}", self.path),
            None => format!("`{}`", self.path),
        }
    }
}

/// Files, sorted by path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// The files.
    pub files: Vec<FileEntry>,
}

impl Manifest {
    /// A manifest of these files, sorted.
    pub fn new(mut files: Vec<FileEntry>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self { files }
    }

    /// The same, its files known to come from there.
    #[must_use]
    pub fn from_origin(mut self, origin: &str) -> Self {
        let origin: Arc<str> = origin.into();
        for file in &mut self.files {
            file.origin = Some(Arc::clone(&origin));
        }
        self
    }

    /// What is stored, and hashed.
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest is text and numbers")
    }

    /// The digest of the whole: equal digests are equal trees.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.canonical())
    }

    /// The file at this path.
    pub fn find(&self, path: &str) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Files that have a content of their own in the store: all but links.
    pub fn blobs(&self) -> impl Iterator<Item = &FileEntry> {
        self.files.iter().filter(|file| file.link.is_none())
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}
