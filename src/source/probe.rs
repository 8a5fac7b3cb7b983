//! A short look into a local repository: its default branch, and files there.

use std::path::Path;

/// Most files that are returned.
const FILES: usize = 100;

/// What was seen.
#[derive(Debug)]
pub struct Probe {
    /// The branch that HEAD names.
    pub branch: String,
    /// Files at its newest commit that were asked for, at most 100, each with its text or `None` if it is too large.
    pub files: Vec<(String, Option<Vec<u8>>)>,
}

/// Looks into the repository at this path. `wanted` chooses files by their path, `most` is the largest in bytes.
///
/// # Errors
/// What git says, for people.
pub fn local(path: &Path, wanted: impl Fn(&str) -> bool, most: usize) -> Result<Probe, String> {
    let words = |error: git2::Error| error.message().to_owned();
    let repository = git2::Repository::open(path).map_err(words)?;
    let head = repository.head().map_err(|error| match error.code() {
        git2::ErrorCode::UnbornBranch | git2::ErrorCode::NotFound => "it has no commit yet".to_owned(),
        _ => words(error),
    })?;
    let branch = String::from_utf8_lossy(head.shorthand_bytes()).into_owned();
    let tree = head.peel_to_tree().map_err(words)?;
    let mut files = Vec::new();
    let walked = tree.walk(git2::TreeWalkMode::PreOrder, |folder, entry| {
        let name = format!("{folder}{}", String::from_utf8_lossy(entry.name_bytes()));
        if entry.kind() == Some(git2::ObjectType::Blob) && wanted(&name) {
            let blob = entry.to_object(&repository).and_then(|object| object.peel_to_blob());
            let text = blob.ok().filter(|blob| blob.size() <= most).map(|blob| blob.content().to_vec());
            files.push((name, text));
        }
        if files.len() < FILES { git2::TreeWalkResult::Ok } else { git2::TreeWalkResult::Abort }
    });
    // Aborting is an error to git, and none to us.
    if files.len() < FILES {
        walked.map_err(words)?;
    }
    Ok(Probe { branch, files })
}
