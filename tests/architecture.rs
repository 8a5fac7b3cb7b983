//! The rooms of `ARCHITECTURE.md`, as absences: what a module must not know.

use std::fs;
use std::path::{Path, PathBuf};

/// All Rust files below a path.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
    found
}

/// The lines of a file before its tests, without comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Fails if a file of these rooms holds one of the words.
fn absent(rooms: &[&str], words: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = Vec::new();
    let mut seen = 0;
    for room in rooms {
        for file in files(&root.join(room)) {
            seen += 1;
            let code = code(&file);
            for word in words {
                if code.contains(word) {
                    broken.push(format!("{} knows {word}", file.strip_prefix(&root).unwrap().display()));
                }
            }
        }
    }
    assert!(seen > 0, "no such rooms: {rooms:?}");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

const PURE: &[&str] = &[
    "config/lower.rs",
    "config/read.rs",
    "ids.rs",
    "pipeline",
    "trigger",
    "build",
    "judge",
    "plot",
    "report",
    "runner/spec.rs",
    "logs/mask.rs",
    "logs/format.rs",
];

#[test]
fn pure_rooms_touch_nothing_outside() {
    absent(
        PURE,
        &[
            "tokio::",
            "axum::",
            "bollard::",
            "git2::",
            "rusqlite::",
            "std::fs",
            "std::env",
            "SystemTime",
            "Instant::now",
        ],
    );
}

#[test]
fn pure_rooms_know_no_room_of_io() {
    let rooms = ["store", "source", "logs", "artifact", "load", "model", "deploy", "engine", "cli"];
    let words: Vec<String> = rooms.iter().map(|room| format!("crate::{room}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    absent(&["ids.rs", "pipeline", "trigger", "build", "judge"], &words);
}

#[test]
fn rooms_of_io_know_no_glue() {
    absent(
        &["store", "source", "runner", "logs", "artifact", "load", "model", "deploy"],
        &["crate::engine", "crate::cli"],
    );
    absent(&["config"], &["crate::engine", "crate::cli", "crate::store", "crate::source", "crate::runner"]);
    absent(&["source", "runner", "logs", "artifact"], &["crate::store", "crate::build::plan"]);
}

#[test]
fn whoever_tells_others_knows_no_build() {
    let rooms = ["store", "build", "engine", "daemon", "config", "web", "report", "cli"];
    let words: Vec<String> = rooms.iter().map(|room| format!("crate::{room}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    absent(&["forge"], &words);
    absent(&["report"], &["crate::engine", "crate::daemon", "crate::web", "crate::cli", "crate::forge", "reqwest"]);
}

#[test]
fn what_is_counted_is_told_and_not_asked_for() {
    let rooms =
        ["store", "source", "runner", "logs", "artifact", "load", "model", "deploy", "engine", "daemon", "web", "cli"];
    let words: Vec<String> = rooms.iter().map(|room| format!("crate::{room}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    absent(&["metrics"], &words);
}

#[test]
fn sql_is_in_the_store_alone() {
    let others = [
        "pipeline", "trigger", "build", "judge", "source", "runner", "logs", "artifact", "load", "model", "deploy",
        "engine", "cli",
    ];
    absent(&others, &["rusqlite::", "SELECT ", "INSERT INTO"]);
}

#[test]
fn bollard_is_in_the_docker_runner_alone() {
    absent(
        &[
            "pipeline", "build", "judge", "store", "source", "logs", "artifact", "load", "model", "deploy", "engine",
            "cli",
        ],
        &["bollard"],
    );
    absent(&["runner/local", "runner/mod.rs", "runner/spec.rs"], &["bollard"]);
}

#[test]
fn yaml_is_read_in_one_place() {
    let all = [
        "pipeline", "build", "judge", "store", "source", "runner", "logs", "artifact", "load", "model", "deploy",
        "engine", "cli",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let users: Vec<PathBuf> = all
        .iter()
        .flat_map(|room| files(&root.join(room)))
        .filter(|file| code(file).contains("serde_yaml"))
        .map(|file| file.strip_prefix(&root).unwrap().to_owned())
        .collect();
    assert_eq!(users, [PathBuf::from("pipeline/parse.rs")]);
}

#[test]
fn the_compiler_is_trusted_less_in_one_place_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for file in files(&root) {
        let code = code(&file);
        let times =
            code.matches("unsafe {").count() + code.matches("unsafe fn").count() + code.matches("unsafe impl").count();
        if times > 0 {
            found.push((file.strip_prefix(&root).unwrap().display().to_string(), times));
        }
    }
    // libgit2 learns of our transports there, once.
    assert_eq!(found, [("source/mirror/network/mod.rs".to_owned(), 1)]);
}
