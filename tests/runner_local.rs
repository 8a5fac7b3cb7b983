//! What the local runner promises beyond the contract: kill -9 of anything at any instant, and the speed that is its point.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal as Unix, kill};
use nix::unistd::Pid;
use orchestrator::pipeline::types::Resources;
use orchestrator::runner::local::LocalRunner;
use orchestrator::runner::spec::{CacheMount, Command, UnitName, UnitSpec};
use orchestrator::runner::{Runner, RunnerError, Signal, UnitStatus};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::runner_contract::{local_runner, read_all, read_until, spec, steps};

/// The variable that makes [`helper`] one of the processes below, in place of a test.
pub const HELPER: &str = "ORCHESTRATOR_TEST_HELPER";

fn sh(script: &str) -> Command {
    Command::Arguments(["sh", "-c", script].map(str::to_owned).to_vec())
}

/// Not a test by itself: other processes that tests need are this test binary with [`HELPER`] set.
#[test]
fn helper() {
    let Some(order) = std::env::var(HELPER).ok() else { return };
    let words: Vec<&str> = order.split(' ').collect();
    match words[..] {
        ["serve", port] => {
            let listener = std::net::TcpListener::bind(format!("127.0.0.1:{port}")).expect("the port is free");
            for connection in listener.incoming() {
                drop(connection);
            }
        }
        ["engine", root, mode] => runtime().block_on(engine(Path::new(root), mode == "finish")),
        ["start", root] => runtime().block_on(start_and_stay(Path::new(root))),
        _ => panic!("unknown order {order}"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn spawn_helper(order: &str) -> Child {
    Process::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "runner_local::helper", "--nocapture"])
        .env(HELPER, order)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("helper")
}

/// What the small engine below knows of one unit.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Row {
    launched: bool,
    settled: Option<String>,
}

fn journal(root: &Path) -> BTreeMap<usize, Row> {
    let text = fs::read_to_string(root.join("journal")).unwrap_or_default();
    let mut rows: BTreeMap<usize, Row> = BTreeMap::new();
    for line in text.lines() {
        let (number, what) = line.split_once(' ').expect("two words");
        let row = rows.entry(number.parse().expect("a number")).or_default();
        match what {
            "launched" => row.launched = true,
            outcome => row.settled = Some(outcome.to_owned()),
        }
    }
    rows
}

/// An engine in small, which commits before it acts. It settles what the journal leaves open, then makes new units without end
/// (unless it is to finish).
async fn engine(root: &Path, finish: bool) {
    let runner = local_runner(&root.join("local"));
    let rows = journal(root);
    let mut file = OpenOptions::new().create(true).append(true).open(root.join("journal")).expect("journal");
    println!("ready");
    let open: Vec<usize> = rows.iter().filter(|(_, row)| row.settled.is_none()).map(|(number, _)| *number).collect();
    for number in open {
        settle(&runner, root, number, true, &mut file).await;
    }
    if finish {
        return;
    }
    for next in rows.keys().max().map_or(1, |last| last + 1).. {
        settle(&runner, root, next, false, &mut file).await;
    }
}

/// One write, which a kill cannot tear.
fn commit(journal: &mut fs::File, number: usize, what: &str) {
    journal.write_all(format!("{number} {what}\n").as_bytes()).expect("journal");
}

async fn settle(runner: &LocalRunner, root: &Path, number: usize, launched: bool, journal: &mut fs::File) {
    let effects = root.join("effects");
    let script = format!("echo {number} >> '{}'; echo line {number}", effects.display());
    let unit = spec(&format!("unit-{number}"), sh(&script));
    if !launched {
        runner.create(&unit, None).await.expect("created");
        commit(journal, number, "launched");
    }
    let output = loop {
        match runner.start(&unit.name).await {
            Ok(output) => break Some(output),
            Err(RunnerError::AlreadyStarted(_)) => break Some(runner.reattach(&unit.name).await.expect("output")),
            Err(RunnerError::Absent(_)) => break None,
            // Its shim was killed while it started.
            Err(RunnerError::Other { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    };
    let written = match output {
        Some(output) => read_all(output).await.text(),
        None => String::new(),
    };
    let outcome = match runner.wait(&unit.name).await.expect("status") {
        UnitStatus::Exited(exit) if written == format!("line {number}\n") => format!("exit {}", exit.code),
        UnitStatus::Lost => "lost".to_owned(),
        status => format!("wrong {status:?} {written:?}"),
    };
    commit(journal, number, &outcome);
    runner.remove(&unit.name).await.expect("removed");
}

/// Runs the small engine, killing it at random instants, and shims too if `shims`; then lets it finish.
fn kill_at_random(seed: u64, kills: usize, shims: bool) -> (tempfile::TempDir, BTreeMap<usize, Row>) {
    let root = tempfile::tempdir().expect("folder");
    let mut random = SmallRng::seed_from_u64(seed);
    let order = |mode: &str| format!("engine {} {mode}", root.path().display());
    for _ in 0..kills {
        let mut engine = spawn_helper(&order("go"));
        let stdout = engine.stdout.take().expect("piped");
        assert!(BufReader::new(stdout).lines().any(|line| line.is_ok_and(|line| line.contains("ready"))));
        // The instant of the kill is what is random here.
        std::thread::sleep(Duration::from_micros(random.gen_range(0..25_000)));
        if shims {
            for (pid, _) in processes_marked(root.path(), "shim") {
                let _ended_by_itself = kill(Pid::from_raw(pid), Unix::SIGKILL);
            }
        }
        engine.kill().expect("kill");
        let status = engine.wait().expect("wait");
        assert_eq!(status.signal(), Some(9), "the engine itself must not fail: {status}");
    }
    let finished = spawn_helper(&order("finish")).wait_with_output().expect("wait");
    assert!(finished.status.success(), "{}", String::from_utf8_lossy(&finished.stdout));
    let rows = journal(root.path());
    (root, rows)
}

/// Processes whose command line (`shim`) or environment (`unit`) names this folder.
fn processes_marked(root: &Path, which: &str) -> Vec<(i32, String)> {
    let file = if which == "shim" { "cmdline" } else { "environ" };
    let needle = root.to_str().expect("a plain path").as_bytes();
    let names = fs::read_dir("/proc").expect("proc").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found = Vec::new();
    for name in names.filter(|name| name.parse::<i32>().is_ok()) {
        let bytes = fs::read(format!("/proc/{name}/{file}")).unwrap_or_default();
        if bytes.windows(needle.len()).any(|window| window == needle) {
            let line = fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let ours = which != "shim" || line.contains(" shim ");
            if ours && !line.contains("runner_local::helper") {
                found.push((name.parse().expect("a number"), line));
            }
        }
    }
    found
}

fn effects(root: &Path) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(root.join("effects")).unwrap_or_default().lines() {
        *counts.entry(line.parse().expect("a number")).or_default() += 1;
    }
    counts
}

async fn assert_nothing_is_left(root: &Path) {
    let runner = local_runner(&root.join("local"));
    let left: Vec<UnitName> = runner.list().await.expect("list").into_iter().map(|unit| unit.name).collect();
    let settled = journal(root);
    for name in left {
        // Killed between its creation and the commit of its launch, or between its settlement and its removal.
        let number: usize = name.0.trim_start_matches("unit-").parse().expect("a number");
        let status = runner.status(&name).await.expect("status");
        let never_launched = !settled.contains_key(&number) && status == UnitStatus::Created;
        assert!(never_launched || settled.get(&number).is_some_and(|row| row.settled.is_some()), "{name} {status:?}");
        runner.remove(&name).await.expect("removed");
    }
    for area in ["units", "making", "trash"] {
        let left: Vec<_> = fs::read_dir(root.join("local").join(area)).expect("folder").collect();
        assert!(left.is_empty(), "{area}: {left:?}");
    }
    for which in ["shim", "unit"] {
        assert_eq!(processes_marked(root, which), [], "{which}");
    }
}

#[tokio::test]
async fn two_hundred_kills_of_the_engine_lose_nothing_and_do_nothing_twice() {
    let (root, rows) = kill_at_random(7, 200, false);
    let effects = effects(root.path());
    println!("{} units under 200 kills", rows.len());
    assert!(rows.len() >= 20, "the engine came forward: {}", rows.len());
    for (number, row) in &rows {
        assert_eq!(row.settled.as_deref(), Some("exit 0"), "unit {number}");
        assert_eq!(effects.get(number), Some(&1), "effect of unit {number}");
    }
    assert_eq!(effects.len(), rows.len(), "no effect without a launch");
    assert_nothing_is_left(root.path()).await;
}

#[tokio::test]
async fn kills_of_engine_and_shims_are_told_as_they_are() {
    let (root, rows) = kill_at_random(11, 40, true);
    let lost = rows.values().filter(|row| row.settled.as_deref() == Some("lost")).count();
    println!("{} units, {lost} of them lost", rows.len());
    let effects = effects(root.path());
    for (number, row) in &rows {
        let count = effects.get(number).copied().unwrap_or(0);
        match row.settled.as_deref() {
            Some("exit 0") => assert_eq!(count, 1, "unit {number}"),
            Some("lost") => assert!(count <= 1, "unit {number}: {count}"),
            other => panic!("unit {number}: {other:?}"),
        }
    }
    assert_nothing_is_left(root.path()).await;
}

/// Kills the shim of a unit, as an administrator or the kernel's memory killer would.
fn kill_shim(root: &Path) {
    let shims = processes_marked(root, "shim");
    assert_eq!(shims.len(), 1, "{shims:?}");
    kill(Pid::from_raw(shims[0].0), Unix::SIGKILL).expect("kill");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_shim_is_a_lost_unit_and_its_processes_end() {
    let root = tempfile::tempdir().expect("folder");
    let runner = local_runner(root.path());
    let unit = spec("lost", steps(&["echo one; setsid sleep 300 & (trap '' TERM HUP; env -i sleep 300) & sleep 300"]));
    runner.create(&unit, None).await.expect("created");
    let mut output = runner.start(&unit.name).await.expect("started");
    // What is still in a pipe when its shim is killed is lost with it.
    read_until(&mut output, "one\n").await;
    while processes_marked(root.path(), "unit").len() < 3 {
        // They come one after the other.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    kill_shim(root.path());
    // The runner that reads the output notices by itself.
    assert_eq!(read_all(output).await.text(), "");
    assert_eq!(processes_marked(root.path(), "unit"), []);
    assert_eq!(runner.wait(&unit.name).await.expect("status"), UnitStatus::Lost);
    assert_eq!(local_runner(root.path()).status(&unit.name).await.expect("status"), UnitStatus::Lost);
    let again = runner.start(&unit.name).await;
    assert!(matches!(again, Err(RunnerError::AlreadyStarted(_))), "{again:?}");
    assert_eq!(read_all(runner.reattach(&unit.name).await.expect("output")).await.text(), "one\n");
    runner.remove(&unit.name).await.expect("removed");
}

#[tokio::test]
async fn many_starts_at_once_start_once() {
    let root = tempfile::tempdir().expect("folder");
    let runner = local_runner(root.path());
    let unit = spec("once", sh("echo ran"));
    runner.create(&unit, None).await.expect("created");
    let others: Vec<LocalRunner> = (0..8).map(|_| local_runner(root.path())).collect();
    let started = futures_util::future::join_all(others.iter().map(|runner| runner.start(&unit.name))).await;
    let won = started.into_iter().filter_map(|start| match start {
        Ok(output) => Some(output),
        Err(RunnerError::AlreadyStarted(_)) => None,
        Err(error) => panic!("{error}"),
    });
    let mut won: Vec<_> = won.collect();
    assert_eq!(won.len(), 1);
    assert_eq!(read_all(won.remove(0)).await.text(), "ran\n");
    runner.remove(&unit.name).await.expect("removed");
}

#[tokio::test]
async fn a_second_shim_does_nothing_even_when_the_first_is_gone() {
    let root = tempfile::tempdir().expect("folder");
    let runner = local_runner(root.path());
    let effect = root.path().join("effect");
    let unit = spec("twice", sh(&format!("echo ran >> '{}'", effect.display())));
    runner.create(&unit, None).await.expect("created");
    let folder = root.path().join("units/twice");
    let launch = fs::read(folder.join("launch.json")).expect("there before the start");
    read_all(runner.start(&unit.name).await.expect("started")).await;
    fs::write(folder.join("launch.json"), launch).expect("put back");
    for _ in 0..2 {
        let second = Process::new(env!("CARGO_BIN_EXE_orchestrator")).arg("shim").arg(&folder).output().expect("shim");
        assert_eq!(String::from_utf8_lossy(&second.stdout).trim(), "already");
        // The second time round, what said how it ended is gone too.
        fs::remove_file(folder.join("exit")).ok();
    }
    assert_eq!(fs::read_to_string(&effect).expect("file"), "ran\n");
    assert_eq!(runner.status(&unit.name).await.expect("status"), UnitStatus::Lost);
    runner.remove(&unit.name).await.expect("removed");
}

#[tokio::test]
async fn secrets_do_not_stay_on_the_disk() {
    let root = tempfile::tempdir().expect("folder");
    let runner = local_runner(root.path());
    let mut unit = spec("secret", sh("test \"$TOKEN\" = hunter2hunter2"));
    unit.env = vec![("TOKEN".to_owned(), "hunter2hunter2".to_owned())];
    runner.create(&unit, None).await.expect("created");
    let folder = root.path().join("units/secret");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(folder.join("launch.json")).expect("there"));
    assert_eq!(mode & 0o777, 0o600);
    read_all(runner.start(&unit.name).await.expect("started")).await;
    assert!(matches!(runner.wait(&unit.name).await.expect("status"), UnitStatus::Exited(exit) if exit.code == 0));
    for entry in fs::read_dir(&folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.metadata().expect("metadata").is_file() {
            let bytes = fs::read(&path).expect("file");
            assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"), "{}", path.display());
        }
    }
    runner.remove(&unit.name).await.expect("removed");
}

fn cache(path: &str, read_only: bool) -> CacheMount {
    CacheMount { path: path.to_owned(), volume: "pip-1".to_owned(), read_only }
}

async fn run(runner: &LocalRunner, unit: &UnitSpec) -> String {
    runner.create(unit, None).await.expect("created");
    let written = read_all(runner.start(&unit.name).await.expect("started")).await;
    runner.remove(&unit.name).await.expect("removed");
    written.text() + &String::from_utf8_lossy(&written.stderr)
}

#[tokio::test]
async fn caches_are_kept_unless_they_are_read_only() {
    let root = tempfile::tempdir().expect("folder");
    let runner = local_runner(root.path());
    let mut unit = spec("cache", sh("cat ~/.cache/pip/x; echo kept > ~/.cache/pip/x"));
    unit.caches = vec![cache("~/.cache/pip", false)];
    assert!(run(&runner, &unit).await.contains("No such file"));
    assert_eq!(run(&runner, &unit).await, "kept\n");
    unit.caches = vec![cache("data", false)];
    unit.command = sh("cat data/x");
    assert_eq!(run(&runner, &unit).await, "kept\n");
    unit.caches = vec![cache("data", true)];
    unit.command = sh("ls data; echo poison > data/x");
    assert_eq!(run(&runner, &unit).await, "");
    unit.caches = vec![cache("data", false)];
    unit.command = sh("cat data/x");
    assert_eq!(run(&runner, &unit).await, "kept\n", "removing a unit or writing to a read-only cache changes nothing");
    for (path, volume) in [("../x", "v"), ("~/../x", "v"), (".", "v"), ("x", ".."), ("x", "a/b"), ("x", "")] {
        unit.caches = vec![CacheMount { path: path.to_owned(), volume: volume.to_owned(), read_only: false }];
        assert!(runner.create(&unit, None).await.is_err(), "{path} {volume}");
    }
}

#[tokio::test]
async fn running_out_of_memory_is_named() {
    let root = tempfile::tempdir().expect("folder");
    let runner = local_runner(root.path());
    let mut unit = spec("memory", steps(&["head -c 400000000 /dev/zero | tail; echo survived"]));
    unit.resources = Resources { memory_bytes: Some(64 << 20), ..Resources::default() };
    runner.create(&unit, None).await.expect("created");
    let written = read_all(runner.start(&unit.name).await.expect("started")).await;
    assert!(!written.text().contains("survived"));
    match runner.wait(&unit.name).await.expect("status") {
        UnitStatus::Exited(exit) => assert_eq!((exit.code, exit.out_of_memory), (137, true)),
        other => panic!("{other:?}"),
    }
    runner.remove(&unit.name).await.expect("removed");
}

#[tokio::test]
async fn names_that_are_paths_are_refused() {
    let root = tempfile::tempdir().expect("folder");
    let runner = local_runner(root.path());
    for name in ["", ".", "..", "../x", "a/b", ".hidden", "a\0b", &"x".repeat(300)] {
        assert!(runner.create(&spec(name, sh("true")), None).await.is_err(), "{name:?}");
        assert!(runner.status(&UnitName(name.to_owned())).await.is_err(), "{name:?}");
        assert!(runner.remove(&UnitName(name.to_owned())).await.is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn a_deployment_stops_for_good_on_sigterm() {
    let root = tempfile::tempdir().expect("folder");
    let runner = local_runner(root.path());
    let mut unit = spec("deployed", sh("echo up; exec sleep 300"));
    unit.restart = true;
    runner.create(&unit, None).await.expect("created");
    let output = runner.start(&unit.name).await.expect("started");
    runner.signal(&unit.name, Signal::Term).await.expect("signal");
    read_all(output).await;
    match runner.wait(&unit.name).await.expect("status") {
        UnitStatus::Exited(exit) => assert_eq!(exit.code, 143),
        other => panic!("{other:?}"),
    }
    runner.remove(&unit.name).await.expect("removed");
}

/// Prints how quick it is; it does not judge, since the machine is shared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speed_is_printed() {
    const UNITS: u32 = 50;
    let root = tempfile::tempdir().expect("folder");
    let runner = local_runner(root.path());
    let mut phases = [Duration::ZERO; 5];
    for number in 0..UNITS {
        let unit = spec(&format!("true-{number}"), steps(&["true"]));
        let mut last = Instant::now();
        let mut lap = |phase: usize| phases[phase] += std::mem::replace(&mut last, Instant::now()).elapsed();
        runner.create(&unit, None).await.expect("created");
        lap(0);
        let output = runner.start(&unit.name).await.expect("started");
        lap(1);
        read_all(output).await;
        lap(2);
        assert!(matches!(runner.status(&unit.name).await.expect("status"), UnitStatus::Exited(_)));
        lap(3);
        runner.remove(&unit.name).await.expect("removed");
        lap(4);
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(UNITS);
    let [create, start, output, status, remove] = phases.map(ms);
    let total = ms(phases.iter().sum());
    println!(
        "create {create:.2} + start {start:.2} + output {output:.2} + status {status:.2} + remove {remove:.2} = {total:.2} ms"
    );
    let unit = spec("loud", sh("yes 'a line of an ordinary log, as long as they are' | head -c 200000000"));
    runner.create(&unit, None).await.expect("created");
    let begun = Instant::now();
    let mut output = runner.start(&unit.name).await.expect("started");
    let mut bytes = 0;
    while let Some(chunk) = output.recv().await {
        bytes += chunk.expect("output").bytes.len();
    }
    assert_eq!(bytes, 200_000_000);
    println!("{:.0} MB/s of output", 200.0 / begun.elapsed().as_secs_f64());
    runner.remove(&unit.name).await.expect("removed");
}

#[tokio::test]
async fn a_unit_goes_on_when_its_runner_is_killed() {
    let root = tempfile::tempdir().expect("folder");
    let mut starter = spawn_helper(&format!("start {}", root.path().display()));
    let stdout = starter.stdout.take().expect("piped");
    assert!(BufReader::new(stdout).lines().any(|line| line.is_ok_and(|line| line.contains("ready"))));
    starter.kill().expect("kill");
    starter.wait().expect("wait");
    let runner = local_runner(&root.path().join("local"));
    let name = UnitName("long".to_owned());
    assert_eq!(runner.status(&name).await.expect("status"), UnitStatus::Running);
    let output = runner.reattach(&name).await.expect("output");
    fs::write(root.path().join("gate"), "").expect("gate");
    assert_eq!(read_all(output).await.text(), "before\nafter\n");
    match runner.wait(&name).await.expect("status") {
        UnitStatus::Exited(exit) => assert_eq!(exit.code, 4),
        other => panic!("{other:?}"),
    }
    runner.remove(&name).await.expect("removed");
    assert_eq!(processes_marked(root.path(), "unit"), []);
}

/// Starts a unit that waits for a file, and then does nothing but be there to be killed.
async fn start_and_stay(root: &Path) {
    let runner = local_runner(&root.join("local"));
    let gate = root.join("gate");
    let unit = spec(
        "long",
        sh(&format!("echo before; until test -e '{}'; do sleep 0.02; done; echo after; exit 4", gate.display())),
    );
    runner.create(&unit, None).await.expect("created");
    let _output = runner.start(&unit.name).await.expect("started");
    println!("ready");
    std::future::pending::<()>().await;
}
