//! Globs in output paths: what has to be fetched, and which of it counts.

use globset::{GlobBuilder, GlobMatcher};

use super::ArtifactError;
use super::tree::{ancestors, clean_path};

/// Which files of what was fetched are kept. `*` and `?` do not match `/`, `**` does; a folder that matches is kept whole.
#[derive(Debug, Clone)]
pub struct Keep(GlobMatcher);

impl Keep {
    /// Whether the file at this path of the workspace is kept.
    pub fn matches(&self, path: &str) -> bool {
        self.0.is_match(path) || ancestors(path).any(|folder| self.0.is_match(folder))
    }
}

/// The folder before the first glob character, and which files of it are kept. A path without a glob is kept whole.
///
/// # Errors
/// [`ArtifactError::Refused`] for a path that leads outside, or a glob that cannot be read.
pub fn split_glob(path: &str) -> Result<(String, Option<Keep>), ArtifactError> {
    let path = clean_path(path)?;
    let parts: Vec<&str> = path.split('/').collect();
    let Some(first) = parts.iter().position(|part| part.contains(['*', '?', '[', '{'])) else {
        return Ok((path, None));
    };
    let glob = GlobBuilder::new(&path)
        .literal_separator(true)
        .build()
        .map_err(|error| ArtifactError::Refused(format!("`{path}`: {error}")))?;
    let base = if first == 0 { ".".to_owned() } else { parts[..first].join("/") };
    Ok((base, Some(Keep(glob.compile_matcher()))))
}
