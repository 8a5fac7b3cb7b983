//! What happens to a build when its container or the whole engine is taken away under it. The engine is one of our own, so that
//! nobody else's containers are touched.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Place, ended, eventually};
use crate::images;

/// A container engine with a folder, a socket and images of its own. It has no bridge: stages in it have no network.
struct OwnEngine {
    folder: tempfile::TempDir,
    child: Option<Child>,
    image: String,
}

impl OwnEngine {
    /// `None` where there is no engine at all, which is a failure in CI, or where none may be started.
    async fn start() -> Option<Self> {
        let runner = images::engine(&format!("own-{}", std::process::id())).await?;
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root starts an engine of its own");
            return None;
        }
        let image = images::busybox(&runner).await;
        let mut engine = Self { folder: tempfile::tempdir().unwrap(), child: None, image };
        engine.up();
        let archive = engine.folder.path().join("image.tar");
        let saved = Command::new("docker").args(["save", "-o"]).arg(&archive).arg(&engine.image).status().unwrap();
        assert!(saved.success(), "the engine gives its image");
        assert!(engine.docker(&["load", "-i", archive.to_str().unwrap()]).contains("Loaded"));
        Some(engine)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("engine.sock").display())
    }

    fn up(&mut self) {
        let at = |name: &str| -> PathBuf { self.folder.path().join(name) };
        // Without a network namespace of its own it would take the bridge of the machine's engine away.
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "dockerd", "-H"]);
        command.arg(self.host()).arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec"));
        command.arg("--pidfile").arg(at("pid")).args(["--bridge", "none", "--iptables=false", "--ip-masq=false"]);
        // A second for containers to end on their own.
        command.args(["--storage-driver", "vfs", "--shutdown-timeout", "1"]);
        let log = File::options().create(true).append(true).open(at("log")).unwrap();
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        eventually("our engine answers", || {
            let asked = Command::new("docker").args(["-H", &self.host(), "version"]).output().unwrap();
            asked.status.success()
        });
    }

    fn down(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > until {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn docker(&self, arguments: &[&str]) -> String {
        let done = Command::new("docker").args(["-H", &self.host()]).args(arguments).output().unwrap();
        assert!(done.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// The ids of all containers, also of those that have ended.
    fn containers(&self) -> Vec<String> {
        self.docker(&["ps", "-aq", "--no-trunc"]).split_whitespace().map(str::to_owned).collect()
    }

    fn command(&self, place: &Place, arguments: &[&str]) -> Command {
        let mut command = place.command(arguments);
        command.env("DOCKER_HOST", self.host());
        command
    }

    /// Starts a build and waits until its stage has printed `begun`.
    fn begin(&self, place: &Place) -> Child {
        let mut command = self.command(place, &["run"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut over = false;
        eventually("the stage prints", || {
            over = child.try_wait().unwrap().is_some();
            let logs = ended(self.command(place, &["logs", "1", "work"]).output().unwrap());
            over || logs.out.contains("begun")
        });
        if over {
            let told = ended(child.wait_with_output().unwrap());
            let engine = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            panic!("the build ended before anybody could disturb it: {}{}\n{engine}", told.out, told.err);
        }
        child
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        self.down();
        // What the engine mounted would keep its folder.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = self.folder.path().display().to_string();
        for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| path.starts_with(&ours)) {
            let _ = Command::new("umount").args(["-l", mount]).status();
        }
    }
}

fn place(engine: &OwnEngine, script: &str, more: &str) -> Place {
    Place::with(&format!(
        "stages:\n  work:\n    image: \"{}\"\n    network: none\n    {more}\n    run:\n      - {{ name: work, run: '{script}' }}\n",
        engine.image
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_somebody_kills_or_removes_fails_its_stage_with_that_reason() {
    let Some(engine) = OwnEngine::start().await else { return };
    tokio::task::block_in_place(|| {
        for (order, expected) in [(&["kill", "-s", "KILL"][..], "kill"), (&["rm", "-f"][..], "removed")] {
            let place = place(&engine, "echo begun; sleep 60; echo through", "on_interrupt: fail");
            let child = engine.begin(&place);
            let containers = engine.containers();
            assert_eq!(containers.len(), 1, "{containers:?}");
            let mut command = order.to_vec();
            command.push(&containers[0]);
            engine.docker(&command);
            let told = ended(child.wait_with_output().unwrap());
            assert_eq!(told.code, 1, "{}{}", told.out, told.err);
            let stage = place.stage(1, "work");
            assert_eq!(stage["status"], "failed", "{stage:#}");
            let message = stage["failure"]["message"].as_str().unwrap().to_lowercase();
            assert!(message.contains(expected), "{order:?}: {message}");
            assert_eq!(place.lines(1, "work", "stdout"), ["begun"]);
            assert_eq!(engine.containers(), Vec::<String>::new());
        }
    });
}

/// Stopping an engine stops its containers. The stage's work is lost with them, not the build.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_stopped_and_started_again_costs_an_attempt() {
    let Some(mut engine) = OwnEngine::start().await else { return };
    tokio::task::block_in_place(|| {
        let place = place(&engine, "echo begun; sleep 6; echo through", "on_interrupt: retry");
        let child = engine.begin(&place);
        engine.down();
        engine.up();
        let told = ended(child.wait_with_output().unwrap());
        assert_eq!(told.code, 0, "{}{}", told.out, told.err);
        let stage = place.stage(1, "work");
        assert_eq!(stage["attempts"].as_array().unwrap().len(), 2, "{stage:#}");
        assert_eq!(place.lines(1, "work", "stdout"), ["begun", "through"], "of the last attempt");
        assert_eq!(engine.containers(), Vec::<String>::new());
    });
}
