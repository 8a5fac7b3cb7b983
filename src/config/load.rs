//! Finding the file, reading it, and looking at the files that it names.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::read::{MAX_BYTES, Values, without_secrets};
use super::types::Config;
use super::{keys, lower, parse};
use crate::pipeline::diagnostic::{Colour, Diagnostic, Severity, Span, render};

/// The file's name.
pub const FILE_NAME: &str = "orchestrator.toml";
/// Names another file.
pub const VARIABLE: &str = "ORCHESTRATOR_CONFIG";

/// A configuration that was read and is good.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The file; `None` if there is none and all is default.
    pub file: Option<PathBuf>,
    /// What it says.
    pub config: Config,
    /// The single settings that were given.
    pub values: Values,
    /// What it likely does not mean, and files with secrets that others may read.
    pub warnings: Vec<Diagnostic>,
    /// The file's text, secrets starred out: for showing warnings.
    pub shown: String,
}

/// Why there is no configuration. The first is fixed outside the file, the second in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`: {detail}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        detail: String,
    },
    /// It was read and is wrong.
    #[error("the configuration `{}` is not valid: {}", file.display(), first(found))]
    Invalid {
        /// Which; empty if only the environment is wrong.
        file: PathBuf,
        /// What is wrong, warnings included.
        found: Vec<Diagnostic>,
        /// Its text, secrets starred out.
        shown: String,
    },
}

/// The first error in a line.
fn first(found: &[Diagnostic]) -> String {
    let errors = found.iter().filter(|one| one.severity == Severity::Error);
    let more = errors.clone().count().saturating_sub(1);
    let first = errors.clone().next().map(|one| format!("line {}: {}", one.span.line, one.message)).unwrap_or_default();
    if more > 0 { format!("{first} (and {more} more)") } else { first }
}

impl LoadError {
    /// Everything that is wrong, for people, with excerpts. Holds no secrets.
    pub fn render(&self, colour: Colour) -> String {
        match self {
            Self::Unreadable { .. } => format!("{self}\n"),
            Self::Invalid { found, shown, .. } => render(found, shown, colour),
        }
    }
}

/// The environment variables that matter, as far as they are text.
pub fn environment() -> BTreeMap<String, String> {
    let names = keys::ENVIRONMENT.iter().map(|(name, _)| *name);
    names.filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))).collect()
}

/// Which file to read: the one given, else `$ORCHESTRATOR_CONFIG`, else the first that is there of `./orchestrator.toml`,
/// `$XDG_CONFIG_HOME/orchestrator/orchestrator.toml` (or below `~/.config`) and `/etc/orchestrator/orchestrator.toml`.
/// `None` if there is none.
pub fn find(given: Option<&Path>) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(named) = given.map(Path::to_owned).or_else(|| variable(VARIABLE)) {
        return Some(named);
    }
    let home = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    let places = [
        Some(PathBuf::from(FILE_NAME)),
        home.map(|home| home.join("orchestrator").join(FILE_NAME)),
        Some(Path::new("/etc/orchestrator").join(FILE_NAME)),
    ];
    places.into_iter().flatten().find(|place| place.symlink_metadata().is_ok())
}

/// Reads, checks, and looks at the files that are named. Without a file all is default.
///
/// # Errors
/// [`LoadError`].
pub fn load(file: Option<&Path>, variables: &BTreeMap<String, String>) -> Result<Loaded, LoadError> {
    let Some(file) = file else { return check(None, "", variables) };
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let unreadable = |detail: String| LoadError::Unreadable { file: file.clone(), detail };
    let opened = std::fs::File::open(&file).map_err(|error| unreadable(error.to_string()))?;
    match opened.metadata() {
        Ok(about) if about.is_file() => {}
        Ok(_) => return Err(unreadable("it is not a file".to_owned())),
        Err(error) => return Err(unreadable(error.to_string())),
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    opened.take(limit).read_to_end(&mut bytes).map_err(|error| unreadable(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable("it is not text in UTF-8".to_owned()))?;
    check(Some(&file), &text, variables)
}

/// Checks a text as if it stood in this file, and looks at the files that it names.
///
/// # Errors
/// [`LoadError::Invalid`].
pub fn check(file: Option<&Path>, text: &str, variables: &BTreeMap<String, String>) -> Result<Loaded, LoadError> {
    let base = file.and_then(Path::parent).map_or_else(|| std::env::current_dir().unwrap_or_default(), Path::to_owned);
    let name = file.map_or_else(|| "environment".to_owned(), |file| file.display().to_string());
    let shown = without_secrets(text);
    let invalid =
        |found| LoadError::Invalid { file: file.map(Path::to_owned).unwrap_or_default(), found, shown: shown.clone() };
    let parsed = parse(&name, text, &base, variables).map_err(&invalid)?;
    let mut found = parsed.warnings;
    found.extend(look_at_files(&name, &parsed.values, &base));
    found.sort_by_key(|one| one.span.offset);
    if found.iter().any(|one| one.severity == Severity::Error) {
        return Err(invalid(found));
    }
    let file = file.map(Path::to_owned);
    Ok(Loaded { file, config: parsed.config, values: parsed.values, warnings: found, shown })
}

/// Whether files with secrets can be read, and not by everybody.
fn look_at_files(name: &str, values: &Values, base: &Path) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (key, path, span) in lower::secret_files(values, base) {
        let mut finding = match look_at(&key, &path, span) {
            Some(finding) => finding,
            None => continue,
        };
        name.clone_into(&mut finding.file);
        found.push(finding);
    }
    found
}

fn look_at(key: &str, path: &Path, span: Span) -> Option<Diagnostic> {
    let shown = path.display();
    let about = match std::fs::metadata(path).and_then(|about| std::fs::File::open(path).map(|_| about)) {
        Ok(about) => about,
        Err(error) => {
            let help = match error.kind() {
                std::io::ErrorKind::NotFound => "make the file, or correct its path",
                _ => "let the user that runs orchestrator read it",
            };
            let message = format!("`{key}`: cannot read `{shown}`: {error}");
            return Some(Diagnostic::error("unreadable-file", span, message).help(help));
        }
    };
    if !about.is_file() {
        let message = format!("`{key}`: `{shown}` is not a file");
        return Some(
            Diagnostic::error("unreadable-file", span, message).help("name a file that holds the secret alone"),
        );
    }
    if about.len() == 0 {
        let message = format!("`{key}`: `{shown}` is empty");
        return Some(Diagnostic::error("empty-secret", span, message).help("write the secret into it"));
    }
    if about.permissions().mode() & 0o007 != 0 {
        let message = format!("`{key}`: everybody on this machine may read `{shown}`");
        return Some(Diagnostic::warning("open-secret", span, message).help(format!("`chmod o= {shown}`")));
    }
    None
}
