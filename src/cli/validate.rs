//! `orchestrator validate FILE...`: all errors of pipeline files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::text;
use crate::pipeline::{self, Colour, Diagnostic, MAX_BYTES, Severity};
use crate::words;

/// All files are good.
const GOOD: i32 = 0;
/// A file is wrong.
const INVALID: i32 = 3;

/// Checks files and says what is wrong with them: for people on standard error with a summary on standard output, or as
/// one JSON list of diagnostics on standard output. Without files: `pipeline.yaml`, else `pipelines/*.yaml`.
///
/// # Errors
/// If a file cannot be read, or there is none.
pub fn run(files: &[PathBuf], json: bool) -> anyhow::Result<i32> {
    let files = if files.is_empty() { usual_files(Path::new(""))? } else { files.to_vec() };
    let mut all: Vec<Diagnostic> = Vec::new();
    let mut code = GOOD;
    for file in &files {
        let bytes = read(file)?;
        let name = file.display().to_string();
        let (good, found) = match pipeline::parse(&name, &bytes) {
            Ok(parsed) => (Some(parsed.pipeline.stages.len()), parsed.warnings),
            Err(found) => (None, found),
        };
        if good.is_none() {
            code = INVALID;
        }
        if !json {
            print(&found, &bytes);
            text::print(&format!("{}\n", summary(&name, good, &found)))?;
        }
        all.extend(found);
    }
    if json {
        let json = serde_json::to_string_pretty(&all).context("cannot write the diagnostics as JSON")?;
        text::print(&format!("{json}\n"))?;
    }
    Ok(code)
}

/// The files that a repository keeps its pipelines in.
fn usual_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let one = dir.join("pipeline.yaml");
    if one.is_file() {
        return Ok(vec![one]);
    }
    let folder = dir.join("pipelines");
    let entries = std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml")).collect();
    files.sort();
    if files.is_empty() {
        bail!(
            "there is no `pipeline.yaml` here, and no `pipelines/*.yaml`; name a file, or write one by `orchestrator init`"
        );
    }
    Ok(files)
}

/// A file's bytes: no more than is needed to see that it is too large.
///
/// # Errors
/// If it cannot be read, or is a folder.
pub fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read `{}`", file.display());
    let opened = File::open(file).with_context(cannot)?;
    if opened.metadata().with_context(cannot)?.is_dir() {
        bail!("`{}` is a folder; name a pipeline file", file.display());
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    opened.take(limit).read_to_end(&mut bytes).with_context(cannot)?;
    Ok(bytes)
}

/// One line about a file.
fn summary(name: &str, stages: Option<usize>, found: &[Diagnostic]) -> String {
    let count = |severity| found.iter().filter(|diagnostic| diagnostic.severity == severity).count();
    let warnings = match count(Severity::Warning) {
        0 => String::new(),
        warnings => format!(", {}", words::count(warnings, "warning")),
    };
    match stages {
        Some(stages) => format!("{name}: valid, {}{warnings}", words::count(stages, "stage")),
        None => format!("{name}: invalid, {}{warnings}", words::count(count(Severity::Error), "error")),
    }
}

/// Prints diagnostics for people, with excerpts of the file.
pub fn print(found: &[Diagnostic], bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    anstream::eprint!("{}", pipeline::render(found, &text, Colour::Always));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, bytes) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, bytes).expect("a file");
        }
        dir
    }

    #[test]
    fn exit_codes() {
        let dir = temporary(&[("good.yaml", b"stages: { a: { run: make } }"), ("bad.yaml", b"stages: { a: {} }")]);
        let path = |name: &str| dir.path().join(name);
        assert_eq!(run(&[path("good.yaml")], true).expect("runs"), GOOD);
        assert_eq!(run(&[path("good.yaml"), path("bad.yaml")], false).expect("runs"), INVALID);
        let missing = run(&[path("none.yaml")], false).expect_err("no such file");
        assert!(missing.to_string().contains("none.yaml"), "{missing}");
        assert!(run(&[dir.path().to_owned()], false).expect_err("a folder").to_string().contains("is a folder"));
    }

    #[test]
    fn a_huge_file_is_not_read_in_full() {
        let dir = temporary(&[]);
        let path = dir.path().join("huge.yaml");
        // Sparse: 1 TiB that would never fit into memory.
        File::create(&path).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
        assert_eq!(read(&path).expect("the beginning").len(), MAX_BYTES + 1);
        assert_eq!(run(&[path], true).expect("runs"), INVALID);
    }

    #[test]
    fn usual_places() {
        let dir = temporary(&[("pipelines/b.yaml", b""), ("pipelines/a.yml", b""), ("pipelines/c.txt", b"")]);
        let names: Vec<PathBuf> = usual_files(dir.path()).expect("files");
        assert_eq!(names, [dir.path().join("pipelines/a.yml"), dir.path().join("pipelines/b.yaml")]);
        assert!(usual_files(temporary(&[]).path()).is_err());
    }
}
