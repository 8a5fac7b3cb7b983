//! Globs in output paths: what has to be fetched, and which of it counts.

use globset::{GlobBuilder, GlobMatcher};

use super::ArtifactError;
use super::ingest::clean_path;

/// The folder before the first glob character, and the matcher for whole paths. A path without a glob has no matcher.
///
/// # Errors
/// [`ArtifactError::Refused`] for a path that leads outside, or a glob that cannot be read.
pub fn split_glob(path: &str) -> Result<(String, Option<GlobMatcher>), ArtifactError> {
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
    Ok((base, Some(glob.compile_matcher())))
}
