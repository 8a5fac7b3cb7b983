//! Changes of the file by commands: comments and order stay, one writer at a time, and only what is valid is written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use toml_edit::{DocumentMut, Item, Table, Value};

use super::load::{LoadError, Loaded, check};
use super::read::MAX_BYTES;

/// Why the file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// Reading or writing went wrong.
    #[error("{what} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It is not TOML; it must be mended first.
    #[error("`{}` cannot be changed, since it is not valid as it is; see `orchestrator config check`", .0.display())]
    NotToml(PathBuf),
    /// The file would not be valid afterwards.
    #[error("nothing was changed: with this, {0}")]
    WouldBeInvalid(LoadError),
    /// The project is there already.
    #[error("there is a project `{0}` already; remove it first, or choose another name")]
    Exists(String),
    /// There is no such project.
    #[error("there is no project `{name}`{}", .near.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    Absent {
        /// What was asked for.
        name: String,
        /// A similar name.
        near: Option<String>,
    },
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> EditError {
    let path = path.to_owned();
    move |source| EditError::Io { what, path, source }
}

/// Adds a project at the end of the file. The file is made if there is none.
///
/// # Errors
/// [`EditError`]; then nothing was changed.
pub fn add_project(
    file: &Path,
    name: &str,
    keys: &[(&str, Value)],
    variables: &BTreeMap<String, String>,
) -> Result<Loaded, EditError> {
    edit(file, variables, |document| {
        // Comments at the file's end belong to the table above them: what is new comes behind them.
        let above = document.trailing().as_str().unwrap_or_default().to_owned();
        document.set_trailing("");
        let root = document.as_table_mut();
        let projects = root.entry("projects").or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        let Some(projects) = projects.as_table_like_mut() else { return Err(EditError::NotToml(file.to_owned())) };
        if projects.contains_key(name) {
            return Err(EditError::Exists(name.to_owned()));
        }
        let mut project = Table::new();
        let gap = if above.ends_with("\n\n") { "" } else { "\n" };
        project.decor_mut().set_prefix(format!("{above}{gap}"));
        for (key, value) in keys {
            project.insert(key, Item::Value(value.clone()));
        }
        projects.insert(name, Item::Table(project));
        Ok(())
    })
}

/// Takes a project out, with the comments directly above it.
///
/// # Errors
/// [`EditError`]; then nothing was changed.
pub fn remove_project(file: &Path, name: &str, variables: &BTreeMap<String, String>) -> Result<Loaded, EditError> {
    edit(file, variables, |document| {
        let projects = document.get_mut("projects").and_then(Item::as_table_like_mut);
        let near = |names: Vec<String>| {
            let near = crate::pipeline::diagnostic::nearest(name, names.iter().map(String::as_str));
            near.map(str::to_owned)
        };
        let Some(projects) = projects else { return Err(EditError::Absent { name: name.to_owned(), near: None }) };
        if projects.remove(name).is_none() {
            let names = projects.iter().map(|(name, _)| name.to_owned()).collect();
            return Err(EditError::Absent { name: name.to_owned(), near: near(names) });
        }
        Ok(())
    })
}

/// Reads, changes, checks and writes the file while holding its lock.
fn edit(
    file: &Path,
    variables: &BTreeMap<String, String>,
    change: impl FnOnce(&mut DocumentMut) -> Result<(), EditError>,
) -> Result<Loaded, EditError> {
    let file = std::path::absolute(file).map_err(io("cannot find", file))?;
    // What a link leads to is replaced, not the link.
    let target = file.canonicalize().unwrap_or_else(|_| file.clone());
    let folder = target.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(io("cannot make", folder))?;
    // The folder is locked, since the file itself is replaced.
    let opened = File::open(folder).map_err(io("cannot open", folder))?;
    let _lock =
        Flock::lock(opened, FlockArg::LockExclusive).map_err(|(_, errno)| io("cannot lock", folder)(errno.into()))?;
    let (text, mode) = match std::fs::metadata(&target) {
        Ok(about) if about.len() > u64::try_from(MAX_BYTES).unwrap_or(u64::MAX) => {
            return Err(EditError::NotToml(file));
        }
        Ok(about) => {
            let text = std::fs::read_to_string(&target).map_err(io("cannot read", &target))?;
            (text, about.permissions().mode() & 0o7777)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (String::new(), 0o644),
        Err(error) => return Err(io("cannot read", &target)(error)),
    };
    let mut document: DocumentMut = text.parse().map_err(|_| EditError::NotToml(file.clone()))?;
    change(&mut document)?;
    let text = document.to_string();
    let loaded = check(Some(&file), &text, variables).map_err(EditError::WouldBeInvalid)?;
    replace(&target, folder, &text, mode).map_err(io("cannot write", &target))?;
    Ok(loaded)
}

/// Writes a file so that at every instant either the old or the new one is there, whole.
fn replace(target: &Path, folder: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut new = tempfile::Builder::new().prefix(".orchestrator.toml.").tempfile_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    new.as_file().sync_all()?;
    new.persist(target).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// Makes a file with 32 random bytes in hex that only its owner can read. A file that is there stays as it is.
///
/// # Errors
/// The system's, also if the file is there.
pub fn make_secret(file: &Path) -> std::io::Result<()> {
    use rand::RngCore;
    let mut bytes = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(std::io::Error::other)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    made.write_all(hex.as_bytes())?;
    made.write_all(b"\n")?;
    made.sync_all()
}
