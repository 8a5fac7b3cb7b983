//! What the cases of the contract are built from.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::iter;
use orchestrator::ids::Micros;
use orchestrator::pipeline::types::{Network, Resources};
use orchestrator::runner::spec::{Command, LABEL_INSTANCE, MARK, Steps, UnitName, UnitSpec};
use orchestrator::runner::{Output, Runner, RunnerError, Stream, TarStream, UnitStatus};
use tokio::time::{sleep, timeout};

/// Nothing here takes long; whoever does hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The nonce of all step scripts.
pub const NONCE: &str = "n0nce";

/// What the cases run against.
pub struct Bench<'a> {
    pub runner: &'a dyn Runner,
    pub image: Option<String>,
    pub restart: &'a dyn Fn() -> Box<dyn Runner>,
    pub instance: String,
}

/// All that a unit has written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Written {
    /// Standard output as text, without the marks of steps.
    pub fn text(&self) -> String {
        plain(&self.stdout)
    }
}

/// Text without the marks of steps.
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::new();
    let mut rest = &*text;
    while let Some((before, after)) = rest.split_once(&format!("{MARK}{NONCE} ")) {
        plain.push_str(before);
        rest = after.split_once(&format!("{MARK}\n")).expect("a mark has an end").1;
    }
    plain + rest
}

/// A unit of this name.
pub fn spec(name: &str, command: Command) -> UnitSpec {
    UnitSpec {
        name: UnitName(name.to_owned()),
        labels: BTreeMap::new(),
        image: None,
        command,
        env: Vec::new(),
        resources: Resources::default(),
        network: Network::Default,
        join: None,
        caches: Vec::new(),
        port: None,
        publish: None,
        restart: false,
        grace: Duration::from_secs(1),
        workspace_variable: true,
        masked: Vec::new(),
    }
}

/// Steps in the usual shell.
pub fn steps(scripts: &[&str]) -> Command {
    let shell = Some(["sh", "-eu", "-c"].map(str::to_owned).to_vec());
    Command::Steps(Steps { scripts: scripts.iter().map(|s| (*s).to_owned()).collect(), shell, nonce: NONCE.to_owned() })
}

/// A script without marks.
pub fn sh(script: &str) -> Command {
    Command::Arguments(["sh", "-c", script].map(str::to_owned).to_vec())
}

/// Reads to the end.
pub async fn read_all(mut output: Output) -> Written {
    let mut all = Written::default();
    let mut last = BTreeMap::new();
    while let Some(chunk) = timeout(PATIENCE, output.recv()).await.expect("output comes or ends") {
        let chunk = chunk.expect("output");
        assert!(!chunk.bytes.is_empty(), "a piece holds something");
        let before = last.insert(format!("{:?}", chunk.stream), chunk.at).unwrap_or(Micros(0));
        assert!(before <= chunk.at, "times of a stream go on");
        match chunk.stream {
            Stream::Stdout => all.stdout.extend_from_slice(&chunk.bytes),
            Stream::Stderr => all.stderr.extend_from_slice(&chunk.bytes),
        }
    }
    all
}

/// Reads until standard output holds this text.
pub async fn read_until(output: &mut Output, text: &str) -> Vec<u8> {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let chunk = timeout(PATIENCE, output.recv()).await.expect("output comes").expect("before the end");
        let chunk = chunk.expect("output");
        if chunk.stream == Stream::Stdout {
            seen.extend_from_slice(&chunk.bytes);
        }
    }
    seen
}

impl Bench<'_> {
    /// A unit with this run's name, label and image.
    pub fn spec(&self, name: &str, command: Command) -> UnitSpec {
        let mut unit = spec(&format!("{}-{name}", self.instance), command);
        unit.labels.insert(LABEL_INSTANCE.to_owned(), self.instance.clone());
        unit.image.clone_from(&self.image);
        unit
    }

    /// Creates and starts.
    pub async fn start(&self, unit: &UnitSpec) -> Output {
        self.runner.create(unit, None).await.expect("created");
        self.runner.start(&unit.name).await.expect("started")
    }

    /// Runs to the end and removes.
    pub async fn run(&self, unit: &UnitSpec) -> (Written, i64) {
        let written = read_all(self.start(unit).await).await;
        let code = self.code(unit).await;
        self.runner.remove(&unit.name).await.expect("removed");
        (written, code)
    }

    /// The exit code of one that has ended or soon will.
    pub async fn code(&self, unit: &UnitSpec) -> i64 {
        match timeout(PATIENCE, self.runner.wait(&unit.name)).await.expect("it ends").expect("status") {
            UnitStatus::Exited(exit) => exit.code,
            other => panic!("expected an exit of {}, got {other:?}", unit.name),
        }
    }

    /// Names of this run's units.
    pub async fn own_units(&self, runner: &dyn Runner) -> Vec<String> {
        let units = runner.list().await.expect("list").into_iter();
        units.filter(|u| u.labels.get(LABEL_INSTANCE) == Some(&self.instance)).map(|u| u.name.0).collect()
    }
}

/// One entry of an archive.
pub struct Entry<'a> {
    pub path: &'a str,
    pub mode: u32,
    pub content: &'a [u8],
}

/// An archive of files, with any path, in small pieces.
pub fn tar_of(entries: &[Entry<'_>]) -> TarStream {
    let mut archive = Vec::new();
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..entry.path.len()].copy_from_slice(entry.path.as_bytes());
        header.set_mode(entry.mode);
        header.set_size(entry.content.len() as u64);
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(entry.content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    let pieces: Vec<std::io::Result<Bytes>> =
        archive.chunks(700).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    iter(pieces).boxed()
}

/// Unpacks what was collected into a folder.
pub async fn unpack(mut archive: TarStream, into: &Path) {
    let mut bytes = Vec::new();
    while let Some(piece) = archive.next().await {
        bytes.extend_from_slice(&piece.expect("a piece"));
    }
    tar::Archive::new(&bytes[..]).unpack(into).expect("an archive");
}

/// Collects a path into a folder; `false` if there is none.
pub async fn collect(runner: &dyn Runner, name: &UnitName, path: &str, into: &Path) -> Result<bool, RunnerError> {
    let Some(archive) = runner.collect(name, path).await? else { return Ok(false) };
    unpack(archive, into).await;
    Ok(true)
}

/// Tries until it is so: for effects that the contract promises soon, not at once.
pub async fn soon(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "not soon: {what}");
        // Polled, since what is waited for is outside of this process.
        sleep(Duration::from_millis(10)).await;
    }
}
