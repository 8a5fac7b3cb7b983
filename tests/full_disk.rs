//! A data folder that is full, or that somebody else keeps to himself: what serves goes on, it is said what is wrong, and whoever
//! wants to stop can.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;

use crate::deployment::{clear, free_port, in_order, live, predicts};
use crate::harness::{Ended, Place, ended, eventually};
use crate::run::{players, promoting};

/// A small file system, mounted over a place's data folder until this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where it may not be mounted.
    fn over(folder: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs"]).arg(folder).stderr(Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self(folder.to_owned()));
        }
        eprintln!("skipped: no file system can be mounted here");
        None
    }

    /// Leaves so many bytes.
    fn fill(&self, left: usize) {
        let space = nix::sys::statvfs::statvfs(&self.0).unwrap();
        let bytes = (space.blocks_available() * space.fragment_size()) as usize;
        File::create(self.0.join("filler")).unwrap().write_all(&vec![0; bytes - left]).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Best effort: lazily, since a server may still be ending.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Runs a command on the full disk; space is freed if it waits for that.
fn run_full(place: &Place, disk: &SmallDisk, left: usize, arguments: &[&str]) -> Ended {
    disk.fill(left);
    let mut command = place.command(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    // Whoever still runs then waits for space.
    while child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(20));
    }
    disk.free();
    ended(child.wait_with_output().unwrap())
}

/// How many rows this server has predicted since it began.
fn answered(port: u16) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    let rows = metrics.lines().find_map(|line| line.strip_prefix("model_predicted_rows_total ")).unwrap();
    rows.parse().unwrap()
}

#[test]
fn what_serves_goes_on_when_the_disk_is_full() {
    let port = free_port();
    let place = Place::new();
    let Some(disk) = SmallDisk::over(&place.data()) else { return };
    place.write("players.csv", &players());
    for algorithm in ["decision-tree", "naive-bayes"] {
        place.write("pipeline.yaml", &promoting(algorithm, port));
        place.expect(0, &["run"]);
    }
    let mut refused = 0;
    for left in [0, 16, 48, 64, 80, 192] {
        assert!(predicts(port));
        let answered = answered(port);
        let other = if live(&place)[0]["version"] == 1 { "2" } else { "1" };
        let ended = run_full(&place, &disk, left << 10, &["promote", "players", other]);
        if ended.code != 0 {
            refused += 1;
            let said = ended.err.to_lowercase();
            assert!(said.contains("full") || said.contains("no space"), "{left} KiB left: {}", ended.err);
            // Another process would have begun anew.
            assert!(self::answered(port) >= answered, "the old server was stopped with {left} KiB left");
        }
        in_order(&place, port, &format!("with {left} KiB left"));
        // A build that could not be stored, or could not begin, does no harm either.
        run_full(&place, &disk, left << 10, &["run"]);
        in_order(&place, port, &format!("after a build with {left} KiB left"));
    }
    assert!(refused > 0, "the disk was never too full");
    place.expect(0, &["gc"]);
    in_order(&place, port, "at last");
    clear(&place);
}

/// Nobody has the database open, and not even its shared memory has room.
#[test]
fn whoever_cannot_even_look_is_told_why() {
    let place = Place::new();
    let Some(disk) = SmallDisk::over(&place.data()) else { return };
    place.write("pipeline.yaml", "stages: { a: { run: echo x } }");
    place.expect(0, &["run"]);
    let ended = run_full(&place, &disk, 0, &["run"]);
    assert_ne!(ended.code, 0);
    assert!(ended.err.contains("the disk of the data folder is full"), "{}", ended.err);
    place.expect(0, &["run", "--no-reuse"]);
}

/// Nothing can be stored: the first signal cannot cancel in good order, the second ends the program all the same.
#[test]
fn whoever_cannot_store_can_still_be_killed() {
    let place = Place::new();
    let (began, go) = (place.outside("began"), place.outside("go"));
    let script =
        format!("echo once >> {}; while [ ! -e {} ]; do sleep 0.05; done; echo through", began.display(), go.display());
    place.write("pipeline.yaml", &format!("stages: {{ a: {{ run: '{script}' }} }}"));
    let mut command = place.command(&["run"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    eventually("the stage runs", || began.exists());
    let database = Connection::open(place.data().join("orchestrator.db")).unwrap();
    eventually("the database is ours", || database.execute_batch("BEGIN IMMEDIATE").is_ok());
    kill(pid, Signal::SIGINT).unwrap();
    // The second signal is another one only if the first was seen.
    std::thread::sleep(Duration::from_millis(300));
    kill(pid, Signal::SIGINT).unwrap();
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 1, "{}{}", ended.out, ended.err);
    let words = "the database is busy; #1 stays interrupted: `orchestrator run --resume 1` goes on with it";
    assert!(ended.err.contains(words), "{}", ended.err);
    database.execute_batch("ROLLBACK").unwrap();
    fs::write(go, "").unwrap();
    place.expect(0, &["run", "--resume", "1"]);
    assert_eq!(place.lines(1, "a", "stdout"), ["through"]);
    assert_eq!(fs::read_to_string(began).unwrap(), "once\n");
}
