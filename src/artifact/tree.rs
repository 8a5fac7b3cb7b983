//! Paths of files in a workspace, and several trees laid into one. PURE.
//!
//! A tree holds each path once, nothing beneath a file, and only paths that stay inside the folder that it is put into.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::Arc;

use super::ArtifactError;
use super::manifest::{FileEntry, Manifest};

/// Bytes of the longest path.
pub const LONGEST_PATH: usize = 1024;
/// Bytes of the longest part of a path: what file systems take.
const LONGEST_NAME: usize = 255;
/// Folders within each other.
pub const DEEPEST: usize = 64;
/// Files of one workspace at most: the source tree and all outputs before a stage.
const MOST_FILES: usize = 500_000;

/// A tree that is put into a workspace.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its files.
    pub manifest: Manifest,
    /// The folder that they are put into; empty for the workspace itself.
    pub prefix: String,
    /// Who made them, for messages: ``stage `train` ``.
    pub origin: String,
}

/// A source tree with the outputs of stages over it. An output takes the place of source files: of the one with its path, of
/// those beneath it, and of one that stands where it needs a folder. Of two outputs in each other's way none is taken.
///
/// # Errors
/// [`ArtifactError::Refused`] naming the path and who both made it.
pub fn workspace(source: Manifest, parts: Vec<Part>) -> Result<Manifest, ArtifactError> {
    let mut files: BTreeMap<String, FileEntry> = BTreeMap::new();
    for part in parts {
        let origin: Arc<str> = part.origin.into();
        for mut file in part.manifest.files {
            let path =
                if part.prefix.is_empty() { file.path.clone() } else { format!("{}/{}", part.prefix, file.path) };
            check_path(&path)?;
            if let Some(first) = files.get(&path) {
                return Err(clash(&path, first, &path, &origin));
            }
            file.path.clone_from(&path);
            file.origin = Some(Arc::clone(&origin));
            files.insert(path, file);
        }
    }
    for (path, file) in &files {
        if let Some(above) = ancestors(path).find_map(|folder| files.get(folder)) {
            let origin = file.origin.as_deref().unwrap_or_default();
            return Err(clash(&above.path, above, path, origin));
        }
    }
    for file in source.files {
        let covered = files.contains_key(&file.path)
            || ancestors(&file.path).any(|folder| files.contains_key(folder))
            || has_beneath(&files, &file.path);
        if !covered {
            files.insert(file.path.clone(), file);
        }
    }
    if files.len() > MOST_FILES {
        let text =
            format!("a workspace of {} files is more than {MOST_FILES}; pack what belongs together", files.len());
        return Err(ArtifactError::Refused(text));
    }
    Ok(Manifest { files: files.into_values().collect() })
}

fn clash(path: &str, first: &FileEntry, other: &str, second: &str) -> ArtifactError {
    let first = first.origin.as_deref().unwrap_or_default();
    let text = if path == other {
        format!("{first} and {second} both made `{path}`; only one of them may")
    } else {
        format!("{first} made the file `{path}`, and {second} made `{other}` beneath it; give one of them another path")
    };
    ArtifactError::Refused(text)
}

fn has_beneath(files: &BTreeMap<String, FileEntry>, path: &str) -> bool {
    let folder = format!("{path}/");
    files.range(folder.clone()..).next().is_some_and(|(next, _)| next.starts_with(&folder))
}

/// The folders that a path lies in, the outermost first.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// A relative path without `.`; refused if it leads outside, or no file system would take it.
pub(crate) fn clean_path(path: &str) -> Result<String, ArtifactError> {
    let refuse = |why: &str| {
        let shown: String = path.escape_debug().take(LONGEST_PATH).collect();
        Err(ArtifactError::Refused(format!("`{shown}` {why}")))
    };
    if path.contains('\0') {
        return refuse("has a NUL byte in its name");
    }
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return refuse("leads outside"),
        }
    }
    if parts.is_empty() {
        return refuse("is no path of a file");
    }
    let clean = parts.join("/");
    check_path(&clean)?;
    Ok(clean)
}

/// Refuses a clean path that is too long or too deep.
fn check_path(path: &str) -> Result<(), ArtifactError> {
    let refuse = |why: String| {
        let shown: String = path.chars().take(100).collect();
        let more = if shown.len() < path.len() { "..." } else { "" };
        Err(ArtifactError::Refused(format!("`{shown}{more}` {why}")))
    };
    if path.len() > LONGEST_PATH {
        return refuse(format!("is longer than {LONGEST_PATH} bytes"));
    }
    if path.split('/').count() > DEEPEST {
        return refuse(format!("lies deeper than {DEEPEST} folders"));
    }
    if path.split('/').any(|name| name.len() > LONGEST_NAME) {
        return refuse(format!("has a name of more than {LONGEST_NAME} bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Digest;
    use super::{LONGEST_PATH, Part, clean_path, workspace};
    use crate::artifact::manifest::{FileEntry, Manifest};

    fn tree(files: &[&str]) -> Manifest {
        let entry = |path: &&str| FileEntry {
            path: (*path).to_owned(),
            executable: false,
            size: 0,
            digest: Digest::of(path.as_bytes()),
            link: None,
            origin: None,
        };
        Manifest::new(files.iter().map(entry).collect())
    }

    fn part(origin: &str, prefix: &str, files: &[&str]) -> Part {
        Part { manifest: tree(files), prefix: prefix.to_owned(), origin: format!("stage `{origin}`") }
    }

    fn check(source: &[&str], parts: Vec<Part>, expected: Result<&[&str], &str>) {
        match (workspace(tree(source), parts), expected) {
            (Ok(manifest), Ok(paths)) => {
                let found: Vec<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
                assert_eq!(found, paths);
            }
            (Err(error), Err(text)) => assert_eq!(error.to_string(), text),
            (found, expected) => panic!("{found:?} where {expected:?} was expected"),
        }
    }

    #[test]
    fn outputs_take_the_place_of_source_files() {
        check(&["a", "metrics.json"], vec![part("train", "", &["metrics.json"])], Ok(&["a", "metrics.json"]));
        // A source file where the output needs a folder, and a source folder where the output is a file.
        check(&["a", "out"], vec![part("train", "", &["out/1", "out/2"])], Ok(&["a", "out/1", "out/2"]));
        check(&["data/x", "data/y/z", "data.csv"], vec![part("train", "", &["data"])], Ok(&["data", "data.csv"]));
        check(&["matrix"], vec![part("t", "matrix/t/1", &["r"])], Ok(&["matrix/t/1/r"]));
    }

    #[test]
    fn two_outputs_in_each_others_way_are_named_with_their_stages() {
        check(
            &[],
            vec![part("train", "", &["model"]), part("tune", "", &["model"])],
            Err("stage `train` and stage `tune` both made `model`; only one of them may"),
        );
        let beneath = "stage `train` made the file `model`, and stage `tune` made `model/weights` beneath it; give one of them another path";
        check(&[], vec![part("train", "", &["model"]), part("tune", "", &["model/weights"])], Err(beneath));
        check(&[], vec![part("tune", "", &["model/weights"]), part("train", "", &["model"])], Err(beneath));
        // Between them in order lies a name that is neither.
        check(
            &[],
            vec![part("train", "", &["a", "a.txt"]), part("tune", "", &["a/b"])],
            Err(
                "stage `train` made the file `a`, and stage `tune` made `a/b` beneath it; give one of them another path",
            ),
        );
        check(&[], vec![part("a", "", &["x/1"]), part("b", "", &["x/2"])], Ok(&["x/1", "x/2"]));
    }

    #[test]
    fn files_know_who_made_them() {
        let merged = workspace(tree(&["a"]).from_origin("the source tree"), vec![part("train", "", &["b"])]).unwrap();
        let described: Vec<String> = merged.files.iter().map(FileEntry::described).collect();
        assert_eq!(described, ["`a` of the source tree", "`b` of stage `train`"]);
    }

    #[test]
    fn paths_stay_inside_and_within_bounds() {
        let check = |path: &str, expected: Result<&str, &str>| match (clean_path(path), expected) {
            (Ok(found), Ok(clean)) => assert_eq!(found, clean),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (found, _) => panic!("{found:?}"),
        };
        check("./a//b/", Ok("a/b"));
        check("/etc/passwd", Err("leads outside"));
        check("a/../../b", Err("leads outside"));
        check("", Err("no path of a file"));
        check(".", Err("no path of a file"));
        check("a\0b", Err("NUL"));
        check(&"a/".repeat(70), Err("deeper than 64"));
        check(&"a".repeat(300), Err("255 bytes"));
        check(&"a/".repeat(LONGEST_PATH), Err("longer than 1024"));
    }
}
