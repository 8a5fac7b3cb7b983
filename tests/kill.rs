//! kill -9 of the program at any instant loses no line, runs nothing twice and leaves nothing behind.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use orchestrator::runner::Runner;
use orchestrator::runner::docker::{DockerRunner, DockerSettings};

use crate::harness::{Place, eventually};
use crate::images;

/// Kills over one runner's test.
const KILLS: usize = 55;
/// Lines that each step prints: enough for a log that is packed.
const LINES: usize = 600;

/// Stages that print counted lines on both streams and leave one trace a step outside of their workspace.
fn pipeline(trace: &str, defaults: &str) -> String {
    let script = |tag: &str| {
        format!(
            "i=0; while [ $i -lt {LINES} ]; do echo \"{tag} $i\"; echo \"{tag} err $i\" >&2; i=$((i+1)); done; {trace}"
        )
    };
    format!(
        "name: kill\ndefaults: {{ {defaults} }}\nstages:\n  first:\n    run:\n      - |\n        {}\n      - |\n        {}\n    \
         outputs: [made.txt]\n  second:\n    run: |\n      {}\n  third:\n    needs: [first, second]\n    run: |\n      \
         cat made.txt\n      {}\n",
        script("one"),
        format_args!("{}; echo made > made.txt", script("two")),
        script("three"),
        script("four"),
    )
}

/// One run of a build with kills at random instants, until it has ended.
fn kill_until_done(place: &Place, random: &mut SmallRng, longest: Duration, kills: &mut usize) {
    let mut resume = false;
    loop {
        let arguments: &[&str] = if resume { &["run", "--resume"] } else { &["run", "--no-reuse"] };
        let mut child = place
            .command(arguments)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // The interesting instants lie in the first moments of each stage.
        let micros = u64::try_from(longest.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(random.gen_range(2_000..micros)));
        if let Some(status) = child.try_wait().unwrap() {
            match status.code() {
                Some(0) => return,
                // Killed before there was a build.
                Some(2) if resume => {
                    resume = false;
                    continue;
                }
                other => {
                    let newest =
                        place.json(&["builds", "--json", "--limit", "1"])[0]["id"].as_u64().unwrap_or_default();
                    let shown = place.run(&["show", &newest.to_string()]);
                    panic!("ended with {other:?} (resumed: {resume}): {}{}", shown.out, shown.err)
                }
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        *kills += 1;
        resume = true;
    }
}

fn check(place: &Place, build: u64) {
    let show = place.show(build);
    assert_eq!(show["build"]["status"]["status"], "passed", "{show:#}");
    let steps: BTreeMap<&str, Vec<&str>> =
        BTreeMap::from([("first", vec!["one", "two"]), ("second", vec!["three"]), ("third", vec!["four"])]);
    for (node, tags) in steps {
        let mut out: Vec<String> = if node == "third" { vec!["made".to_owned()] } else { Vec::new() };
        let mut err = Vec::new();
        for tag in tags {
            out.extend((0..LINES).map(|line| format!("{tag} {line}")));
            err.extend((0..LINES).map(|line| format!("{tag} err {line}")));
        }
        assert_eq!(place.lines(build, node, "stdout"), out, "stdout of {node} in build {build}");
        assert_eq!(place.lines(build, node, "stderr"), err, "stderr of {node} in build {build}");
        let stage = place.stage(build, node);
        assert_eq!(stage["attempts"].as_array().unwrap().len(), 1, "{stage:#}");
    }
}

/// Runs builds under kills, and checks each: the trace of every step is there once, every line is, and nothing is left.
fn survive(place: &Place, seed: u64, longest: Duration, traces: impl Fn() -> String) {
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut kills, mut builds) = (0, 0);
    while kills < KILLS {
        kill_until_done(place, &mut random, longest, &mut kills);
        builds += 1;
    }
    let list = place.json(&["builds", "--json", "--limit", "1000"]);
    let ids: Vec<u64> = list.as_array().unwrap().iter().map(|row| row["id"].as_u64().unwrap()).collect();
    // A build may end just before the kill, and is not taken up again then.
    assert!(ids.len() >= builds, "{list:#}");
    let traces = traces();
    for &build in &ids {
        check(place, build);
        for (stage, steps) in [("first", 2), ("second", 1), ("third", 1)] {
            let line = format!("{build} {stage} x");
            let count = traces.lines().filter(|have| **have == line).count();
            assert_eq!(count, steps, "side effects of {stage} in build {build}");
        }
    }
    place.expect(0, &["gc"]);
    for &build in &ids {
        let logs = place.data().join("logs").join(build.to_string());
        assert!(logs.join("first.1.log.zst").exists() && !logs.join("first.1.log").exists(), "build {build}");
    }
    check(place, ids[0]);
    assert_eq!(place.units(), Vec::<String>::new());
    eventually("no process is left", || place.processes().is_empty());
}

const TRACE: &str = "echo \"$ORCHESTRATOR_BUILD $ORCHESTRATOR_STAGE x\" >>";

#[test]
fn local_builds_survive_kill_9() {
    let place = Place::new();
    let ledger = place.outside("ledger");
    place.write("pipeline.yaml", &pipeline(&format!("{TRACE} {}", ledger.display()), "timeout: 5m"));
    survive(&place, 7, Duration::from_millis(250), || fs::read_to_string(&ledger).unwrap());
}

/// A container has nothing of the host, so its traces lie in a cache, which is kept between builds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_builds_survive_kill_9() {
    let Some(images) = images::engine(&format!("kill-{}", std::process::id())).await else { return };
    let image = images::busybox(&images).await;
    let place = Place::new();
    let defaults = format!("image: \"{image}\", cache: [/ledger], timeout: 5m");
    place.write("pipeline.yaml", &pipeline(&format!("{TRACE} /ledger/traces"), &defaults));
    let reader =
        format!("name: kill\nstages:\n  read: {{ image: \"{image}\", cache: [/ledger], run: cat /ledger/traces }}\n");
    place.write("read.yaml", &reader);
    tokio::task::block_in_place(|| {
        survive(&place, 11, Duration::from_millis(1500), || {
            place.expect(0, &["run", "read.yaml"]);
            let newest = place.json(&["builds", "--json", "--limit", "1"])[0]["id"].as_u64().unwrap();
            place.lines(newest, "read", "stdout").join("\n")
        });
    });
    let instance = place.instance();
    let mine = DockerRunner::connect(DockerSettings::new(&instance)).await.unwrap();
    assert!(mine.list().await.unwrap().is_empty(), "containers are left");
    assert!(mine.list_networks().await.unwrap().is_empty(), "networks are left");
    for cache in mine.caches().await.unwrap() {
        mine.remove_cache(&cache).await.unwrap();
    }
}
