//! Runs the real binary in folders of its own, and looks at what it left behind.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use orchestrator::store::Store;
use serde_json::Value;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_orchestrator");

/// A project folder and a data folder, gone at the end.
pub struct Place {
    root: tempfile::TempDir,
}

/// What a command came to.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["project", "data"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        Self { root }
    }

    /// A place with this pipeline.
    pub fn with(pipeline: &str) -> Self {
        let place = Self::new();
        place.write("pipeline.yaml", pipeline);
        place
    }

    pub fn project(&self) -> PathBuf {
        self.root.path().join("project")
    }

    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// A path beside the project, for traces that stages leave.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.project().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The program with these arguments, in the project's folder, with the data folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .current_dir(self.project())
            .env("ORCHESTRATOR_DATA_DIR", self.data())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments).output().unwrap())
    }

    /// Runs it and expects this exit code.
    #[track_caller]
    pub fn expect(&self, code: i32, arguments: &[&str]) -> Ended {
        let ended = self.run(arguments);
        assert_eq!(ended.code, code, "{arguments:?}\n{}\n{}", ended.out, ended.err);
        ended
    }

    /// Runs it with `--json` output and reads that.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let ended = self.expect(0, arguments);
        serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {}", ended.out))
    }

    /// A build as `show --json` tells it.
    #[track_caller]
    pub fn show(&self, build: u64) -> Value {
        self.json(&["show", &build.to_string(), "--json"])
    }

    /// One stage of a build.
    #[track_caller]
    pub fn stage(&self, build: u64, node: &str) -> Value {
        let show = self.show(build);
        let stages = show["stages"].as_array().unwrap();
        stages.iter().find(|stage| stage["node"] == node).unwrap_or_else(|| panic!("no {node} in {show:#}")).clone()
    }

    /// What a stage printed on one stream (`stdout`, `stderr`, `note`), as lines.
    #[track_caller]
    pub fn lines(&self, build: u64, node: &str, stream: &str) -> Vec<String> {
        let ended = self.expect(0, &["logs", &build.to_string(), node, "--json"]);
        let all = ended.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|line| line["stream"] == stream).map(|line| line["text"].as_str().unwrap().to_owned()).collect()
    }

    /// Names of units of the local runner that are still there, deployments left out.
    pub fn units(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.data().join("local/units")) else { return Vec::new() };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.contains("-dep-")).collect()
    }

    /// What marks this data folder's containers.
    pub fn instance(&self) -> String {
        Store::open(&self.data().join("orchestrator.db")).unwrap().instance
    }

    /// Processes that mention the data folder in their command line.
    pub fn processes(&self) -> Vec<String> {
        let wanted = self.data().display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&wanted) {
                found.push(line);
            }
        }
        found
    }
}

pub fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until something holds, for a while; the only place where tests sleep.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("never happened: {what}");
}
