//! The pipeline language as a user meets it: good files are read, wrong ones get messages that help.

use std::path::{Path, PathBuf};

use orchestrator::pipeline::{self, Colour, Severity};

fn fixtures(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/language").join(folder);
    let entries = std::fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a name").to_string_lossy().into_owned()
}

#[test]
fn wrong_files_get_messages_that_help() {
    let files = fixtures("wrong");
    assert!(files.len() >= 40, "{} wrong files", files.len());
    for path in files {
        let bytes = std::fs::read(&path).expect("a fixture");
        let found = pipeline::parse(&format!("{}.yaml", stem(&path)), &bytes).err();
        let found = found.unwrap_or_else(|| panic!("{} was taken", path.display()));
        assert!(found.iter().any(|diagnostic| diagnostic.severity == Severity::Error), "{}", path.display());
        let rendered = pipeline::render(&found, &String::from_utf8_lossy(&bytes), Colour::Never);
        insta::with_settings!({
            snapshot_path => "fixtures/language/snapshots",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!(stem(&path), rendered); });
    }
}

#[test]
fn good_files_are_read() {
    for path in fixtures("good") {
        let bytes = std::fs::read(&path).expect("a fixture");
        match pipeline::parse("pipeline.yaml", &bytes) {
            Ok(parsed) => assert_eq!(parsed.warnings, [], "{}", path.display()),
            Err(found) => {
                panic!("{}\n{}", path.display(), pipeline::render(&found, &String::from_utf8_lossy(&bytes), Colour::Never))
            }
        }
    }
}
