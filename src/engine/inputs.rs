//! Which source files count for a stage, and which of them changed since another build.

use std::path::Path;

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::EngineError;
use super::drive::Build;
use super::workspace::{load, source};
use crate::artifact::manifest::{Digest, FileEntry, Manifest};
use crate::ids::BuildId;
use crate::pipeline::types::{Kind, Stage};
use crate::store::builds::{self, BuildRequest};

/// Changed files that are named.
const NAMED: usize = 3;

/// Digest of the source files that count for a stage: those that match its `inputs`; without these all but the pipeline's own
/// file, of which the stage's part is in the key by itself. None for a built-in training, which reads its data alone.
///
/// # Errors
/// If the tree cannot be read, or `inputs` matches nothing of it.
pub async fn digest(build: &Build, stage: &Stage) -> Result<Option<String>, EngineError> {
    if stage.inputs.is_none() && is_builtin(stage) {
        return Ok(None);
    }
    // What is never reused need not be looked at closely.
    if stage.inputs.is_none() && !stage.reusable() {
        return Ok(Some(build.request.source.clone()));
    }
    let counted = counted(source(build).await?, stage, &build.request)?;
    if let Some(globs) = stage.inputs.as_ref().filter(|globs| counted.files.is_empty() && !globs.is_empty()) {
        // A misspelt glob would make every later result look the same.
        return Err(EngineError::Source(format!(
            "`inputs: [{}]` matches no file of the source tree",
            globs.join(", ")
        )));
    }
    Ok(Some(counted.digest().to_string()))
}

/// The files among them that differ from those of another build, for people; nothing if that cannot be told any more.
pub async fn changed(build: &Build, stage: &Stage, since: BuildId) -> Option<String> {
    let earlier = build.engine.store.read(move |db| builds::get(db, since)).await.ok()?.request;
    let before = counted(load(build, &earlier.source).await.ok()?, stage, &earlier).ok()?;
    let now = counted(source(build).await.ok()?, stage, &build.request).ok()?;
    let same = |a: &FileEntry, b: &FileEntry| (&a.digest, a.executable, &a.link) == (&b.digest, b.executable, &b.link);
    let mut told = Vec::new();
    for file in &now.files {
        match before.files.binary_search_by(|other| other.path.cmp(&file.path)) {
            Err(_) => told.push(format!("`{}` is new", file.path)),
            Ok(at) if !same(&before.files[at], file) => told.push(format!("`{}` changed", file.path)),
            Ok(_) => {}
        }
    }
    let gone = |file: &&FileEntry| now.files.binary_search_by(|other| other.path.cmp(&file.path)).is_err();
    told.extend(before.files.iter().filter(gone).map(|file| format!("`{}` is gone", file.path)));
    let more = told.len().saturating_sub(NAMED);
    told.truncate(NAMED);
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    (!told.is_empty()).then(|| told.join(", "))
}

fn is_builtin(stage: &Stage) -> bool {
    stage.work.is_none() && matches!(&stage.kind, Kind::Train(train) if train.linfa.is_some())
}

fn counted(mut tree: Manifest, stage: &Stage, request: &BuildRequest) -> Result<Manifest, EngineError> {
    match &stage.inputs {
        Some(globs) => {
            let set = set(globs).map_err(|error| EngineError::Source(error.to_string()))?;
            tree.files.retain(|file| set.is_match(&file.path));
        }
        None => {
            // By name and content: where the file was read need not be a path of the tree.
            let (name, text) = (Path::new(&request.file).file_name(), Digest::of(request.text.as_bytes()));
            tree.files.retain(|file| Path::new(&file.path).file_name() != name || file.digest != text);
        }
    }
    Ok(tree)
}

/// What matches any of these paths and globs, or lies in a folder of that name.
///
/// # Errors
/// If one is no glob.
pub fn set(globs: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let glob = glob.trim_start_matches("./");
        set.add(Glob::new(glob)?);
        // A folder's name means all that is in it.
        set.add(Glob::new(&format!("{}/**", glob.trim_end_matches('/')))?);
    }
    set.build()
}
