//! Hostile pipeline files by the real program, which may take 512 MiB of address space and 20 s of a processor: a clear error
//! within that, whatever the bytes are.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use crate::harness::{Ended, PROGRAM, Place, ended};

/// The program under limits that the kernel enforces.
fn limited(place: &Place, arguments: &[&str]) -> Ended {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -v 524288; ulimit -t 20; ulimit -c 0; exec \"$@\"", "sh", PROGRAM])
        .args(arguments)
        .current_dir(place.project())
        .env("ORCHESTRATOR_DATA_DIR", place.data())
        .env("NO_COLOR", "1")
        .env("RUST_BACKTRACE", "0")
        // Each thread's own arena would take 64 MiB of address space and use next to none of it.
        .env("MALLOC_ARENA_MAX", "2")
        .env("TOKIO_WORKER_THREADS", "2")
        .stdin(Stdio::null());
    ended(command.output().unwrap())
}

/// Expects `validate`, `plan` and `run` to refuse the file for this reason.
#[track_caller]
fn refused(bytes: &[u8], code: &str) {
    let place = Place::new();
    fs::write(place.project().join("pipeline.yaml"), bytes).unwrap();
    refused_in(&place, code);
}

#[track_caller]
fn refused_in(place: &Place, code: &str) {
    for arguments in [&["validate", "pipeline.yaml"][..], &["validate", "--json", "pipeline.yaml"], &["plan"], &["run"]]
    {
        let ended = limited(place, arguments);
        assert_eq!(ended.code, 3, "{arguments:?}: {}{}", head(&ended.out), head(&ended.err));
        let said = format!("{}{}", ended.out, ended.err);
        assert!(said.contains(code), "{arguments:?} does not say {code}: {}", head(&said));
        assert!(said.len() < 256 << 10, "{} bytes are said", said.len());
        assert!(!said.contains("panicked"), "{}", head(&said));
    }
}

fn head(text: &str) -> &str {
    text.get(..2000).unwrap_or(text)
}

/// A small text that says nine to the thirtieth values.
fn laughs() -> String {
    let level = |level: u32| format!("a{level}: &a{level} [{}]\n", format!("*a{},", level - 1).repeat(9));
    (1..30).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, next| text + &level(next))
}

#[test]
fn bombs_of_aliases() {
    refused(laughs().as_bytes(), "too-much-content");
    refused(b"stages: &a { a: *a }\n", "alias");
}

#[test]
fn huge_files() {
    refused(&b"# nothing but text\n".repeat((100 << 20) / 19), "file-too-large");
    let place = Place::new();
    // More than all memory that the program may take.
    File::create(place.project().join("pipeline.yaml")).unwrap().set_len(1 << 40).unwrap();
    refused_in(&place, "file-too-large");
}

#[test]
fn ten_thousand_levels() {
    refused("[".repeat(10_000).as_bytes(), "nested-too-deep");
    refused("{a: ".repeat(10_000).as_bytes(), "nested-too-deep");
    refused("- ".repeat(10_000).as_bytes(), "nested-too-deep");
    let steps: String = (0..1_000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    refused(steps.as_bytes(), "nested-too-deep");
}

#[test]
fn bytes_that_are_no_text() {
    refused(b"stages: { a: { run: \"\xff\xfe\" } }\n", "not-utf8");
    refused(b"stages: { a: { run: \"a\0b\" } }\n", "control-character");
    refused(b"\0\0\0\0", "control-character");
    refused(b"stages:\n\ta:\n\t\trun: echo\n", "tab");
    refused(b"stages:\n  a: { run: echo one }\n  a: { run: echo two }\n", "duplicate-key");
    refused(b"", "empty-file");
    refused("\u{feff}".as_bytes(), "empty-file");
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_run() {
    let place = Place::new();
    let text = "\u{feff}stages:\r\n  a:\r\n    run: |\r\n      echo one\r\n      echo two\r\n";
    fs::write(place.project().join("pipeline.yaml"), text).unwrap();
    place.expect(0, &["validate"]);
    place.expect(0, &["run"]);
    assert_eq!(place.lines(1, "a", "stdout"), ["one", "two"]);
}

#[test]
fn hostile_files_of_scripts_end_their_stage_only() {
    let deep = "[".repeat(100_000);
    let place = Place::new();
    place.write("laughs.yaml", &laughs());
    place.write("deep.json", &deep);
    let stage = |name: &str, file: &str, key: &str| {
        format!(
            "  {name}:\n    run: echo model > {name}.bin; cp {file} {name}.txt\n    train: {{ model: {name}, artifact: {name}.bin, {key}: {name}.txt }}\n"
        )
    };
    let pipeline = format!(
        "stages:\n{}{}{}{}",
        stage("laughs", "laughs.yaml", "params"),
        stage("deep", "deep.json", "params"),
        stage("deep-metrics", "deep.json", "metrics"),
        stage("deep-predictions", "deep.json", "predictions"),
    );
    place.write("pipeline.yaml", &pipeline);
    let ended = limited(&place, &["run", "--runner", "local"]);
    assert_eq!(ended.code, 1, "{}{}", head(&ended.out), head(&ended.err));
    for name in ["laughs", "deep", "deep-metrics", "deep-predictions"] {
        let failure = &place.stage(1, name)["failure"];
        assert_eq!(failure["kind"], "train", "{name}: {failure}");
        assert!(failure["message"].as_str().unwrap().len() < 4096, "{name}: {failure}");
    }
}
