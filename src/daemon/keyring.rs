//! The keys that secrets are sealed with: a file of its own, apart from the database, readable by its owner alone.
//!
//! ```text
//! # comment
//! <id> <base64 of 32 bytes>     the first line's key seals, all of them open
//! ```
//!
//! A secret is sealed by XChaCha20-Poly1305 with a random nonce, and bound to its name and project: a row that was moved to
//! another name does not open.

use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::RngCore;

use crate::engine::paths::Paths;
use crate::store::StoreError;
use crate::store::secrets::SecretRow;

/// Names another key file.
pub const VARIABLE: &str = "ORCHESTRATOR_SECRETS_KEY";
const NONCE: usize = 24;
const KEY: usize = 32;

/// Why a key file or a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no file yet.
    #[error("there is no key file {}", .0.display())]
    Absent(PathBuf),
    /// It cannot be read or written.
    #[error("key file {}: {detail}", file.display())]
    Unusable {
        /// Which.
        file: PathBuf,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// A secret does not open.
    #[error("secret {name} cannot be opened: {detail}")]
    Sealed {
        /// Its name.
        name: String,
        /// Why, and what to do.
        detail: String,
    },
}

impl From<KeyError> for StoreError {
    fn from(error: KeyError) -> Self {
        StoreError::Other(error.to_string())
    }
}

/// Where the keys of a data folder are.
pub fn file(paths: &Paths) -> PathBuf {
    let named = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    named.unwrap_or_else(|| paths.root().join("keys/secrets.key"))
}

/// The keys, the one that seals first.
pub struct Keyring {
    keys: Vec<(String, XChaCha20Poly1305)>,
    lines: Vec<String>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

/// What a value is bound to.
fn bound(name: &str, project: &str) -> Vec<u8> {
    format!("orchestrator secret\0{name}\0{project}").into_bytes()
}

impl Keyring {
    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeyError`]; a file that others may read is refused.
    pub fn read(file: &Path) -> Result<Self, KeyError> {
        let unusable = |detail: String| KeyError::Unusable { file: file.to_owned(), detail };
        let mut opened = match std::fs::File::open(file) {
            Ok(opened) => opened,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(KeyError::Absent(file.to_owned()));
            }
            Err(error) => return Err(unusable(error.to_string())),
        };
        let mode = opened.metadata().map_err(|error| unusable(error.to_string()))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(unusable(format!("others may read it (mode {:o}): run `chmod 600` on it", mode & 0o777)));
        }
        let mut text = String::new();
        Read::by_ref(&mut opened)
            .take(64 << 10)
            .read_to_string(&mut text)
            .map_err(|error| unusable(error.to_string()))?;
        let (mut keys, mut lines) = (Vec::new(), Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let wrong =
                || unusable("a line is not `<id> <key in base64>`; restore it from where it is kept".to_owned());
            let (id, key) = line.split_once(' ').ok_or_else(wrong)?;
            let bytes = STANDARD.decode(key.trim()).ok().filter(|bytes| bytes.len() == KEY).ok_or_else(wrong)?;
            let cipher = XChaCha20Poly1305::new_from_slice(&bytes).map_err(|_| wrong())?;
            keys.push((id.to_owned(), cipher));
            lines.push(line.to_owned());
        }
        if keys.is_empty() {
            return Err(unusable("it holds no key; restore it from where it is kept".to_owned()));
        }
        Ok(Self { keys, lines })
    }

    /// Reads a key file, or makes one with a new key.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read_or_make(file: &Path) -> Result<Self, KeyError> {
        match Self::read(file) {
            Err(KeyError::Absent(_)) => {
                // Two processes that make it at once end up with the one that came first.
                write(file, &[fresh()], false)?;
                Self::read(file)
            }
            other => other,
        }
    }

    /// Puts a new key before the others.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn add(&self, file: &Path) -> Result<Self, KeyError> {
        let lines: Vec<String> = std::iter::once(fresh()).chain(self.lines.iter().cloned()).collect();
        write(file, &lines, true)?;
        Self::read(file)
    }

    /// Forgets all keys but the one that seals.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn keep_newest(&self, file: &Path) -> Result<(), KeyError> {
        write(file, &self.lines[..1], true)
    }

    /// The id of the key that seals.
    pub fn newest(&self) -> &str {
        &self.keys[0].0
    }

    /// Seals a value into a row.
    ///
    /// # Errors
    /// [`KeyError::Sealed`] if the value is too large for the cipher, which no value is.
    pub fn seal(&self, value: &str, row: &mut SecretRow) -> Result<(), KeyError> {
        let (id, cipher) = &self.keys[0];
        let mut nonce = [0_u8; NONCE];
        rand::rngs::OsRng.fill_bytes(&mut nonce);
        let payload = Payload { msg: value.as_bytes(), aad: &bound(&row.name, &row.project) };
        let sealed = cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| KeyError::Sealed {
            name: row.name.clone(),
            detail: "the cipher does not take it".to_owned(),
        })?;
        (row.key_id, row.nonce, row.sealed) = (id.clone(), nonce.to_vec(), sealed);
        Ok(())
    }

    /// Opens a row.
    ///
    /// # Errors
    /// [`KeyError::Sealed`] if its key is not there, or it was changed.
    pub fn open(&self, row: &SecretRow) -> Result<String, KeyError> {
        let sealed = |detail: String| KeyError::Sealed { name: row.name.clone(), detail };
        let (_, cipher) = self.keys.iter().find(|(id, _)| *id == row.key_id).ok_or_else(|| {
            sealed(format!("its key {} is not in the key file; restore that file, or set the secret again", row.key_id))
        })?;
        let nonce: [u8; NONCE] = row.nonce.as_slice().try_into().map_err(|_| sealed("it was changed".to_owned()))?;
        let payload = Payload { msg: &row.sealed, aad: &bound(&row.name, &row.project) };
        let opened = cipher.decrypt(&XNonce::from(nonce), payload).map_err(|_| {
            sealed("it was changed, or sealed with another key of the same id; set it again".to_owned())
        })?;
        String::from_utf8(opened).map_err(|_| sealed("it is no text".to_owned()))
    }
}

/// A line with a new key.
fn fresh() -> String {
    let (mut id, mut key) = ([0_u8; 6], [0_u8; KEY]);
    rand::rngs::OsRng.fill_bytes(&mut id);
    rand::rngs::OsRng.fill_bytes(&mut key);
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{id} {}", STANDARD.encode(key))
}

/// Writes the whole file at once; it is on the disk when this returns, and from its first byte on its owner's alone.
fn write(file: &Path, lines: &[String], replace: bool) -> Result<(), KeyError> {
    let unusable = |error: std::io::Error| KeyError::Unusable { file: file.to_owned(), detail: error.to_string() };
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
    let text = format!(
        "# Keys of orchestrator's secrets. Keep a copy apart from backups of the data: without it no secret opens.\n{}\n",
        lines.join("\n")
    );
    let draft = folder.join(format!(".{}.{}", std::process::id(), rand::random::<u32>()));
    let written = || {
        let mut opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        opened.write_all(text.as_bytes())?;
        opened.sync_all()?;
        if replace {
            std::fs::rename(&draft, file)?;
        } else {
            match std::fs::hard_link(&draft, file) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
            std::fs::remove_file(&draft)?;
        }
        std::fs::File::open(folder)?.sync_all()
    };
    written().map_err(|error| {
        let _ = std::fs::remove_file(&draft);
        unusable(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Micros;

    fn row(name: &str, project: &str) -> SecretRow {
        SecretRow {
            name: name.to_owned(),
            project: project.to_owned(),
            branches: Vec::new(),
            stages: Vec::new(),
            key_id: String::new(),
            nonce: Vec::new(),
            sealed: Vec::new(),
            made_by: "t".to_owned(),
            made_at: Micros(0),
        }
    }

    #[test]
    fn a_value_opens_where_it_was_sealed_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys/k");
        let keys = Keyring::read_or_make(&file).unwrap();
        let mut sealed = row("TOKEN", "demo");
        keys.seal("hunter22", &mut sealed).unwrap();
        assert!(!sealed.sealed.windows(6).any(|part| part == b"hunter"));
        assert_eq!(Keyring::read_or_make(&file).unwrap().open(&sealed).unwrap(), "hunter22");
        let moved = |name: &str, project: &str| SecretRow {
            name: name.to_owned(),
            project: project.to_owned(),
            ..sealed.clone()
        };
        assert!(keys.open(&moved("OTHER", "demo")).is_err());
        assert!(keys.open(&moved("TOKEN", "")).is_err());
        let mut changed = sealed.clone();
        changed.sealed[0] ^= 1;
        assert!(keys.open(&changed).is_err());
        let mut again = row("TOKEN", "demo");
        keys.seal("hunter22", &mut again).unwrap();
        assert_ne!((again.nonce, again.sealed), (sealed.nonce, sealed.sealed), "a nonce is used once");
    }

    #[test]
    fn a_new_key_seals_and_the_old_one_opens_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("k");
        let keys = Keyring::read_or_make(&file).unwrap();
        let mut old = row("A", "");
        keys.seal("old", &mut old).unwrap();
        let both = keys.add(&file).unwrap();
        assert_ne!(both.newest(), keys.newest());
        assert_eq!(both.open(&old).unwrap(), "old");
        both.keep_newest(&file).unwrap();
        let error = Keyring::read(&file).unwrap().open(&old).unwrap_err().to_string();
        assert!(error.contains("is not in the key file"), "{error}");
    }

    #[test]
    fn a_key_file_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("k");
        Keyring::read_or_make(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(Keyring::read(&file).unwrap_err().to_string().contains("chmod 600"), "{mode:o}");
        }
    }
}
