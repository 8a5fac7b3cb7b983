//! A load test by an outside tool through the death of this program: a stand-in for Locust writes its files slowly, and goes on
//! while nobody looks after it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::harness::{Place, ended, eventually};
use crate::run::players;

/// Kills of one build.
const KILLS: usize = 8;

/// Takes Locust's options, notes each start, asks the server at its begin and at its end, and writes recorded files: first the
/// CSV files, half of a file at a time, at last the JSON file.
const LOCUST: &str = r#"#!/bin/sh
set -eu
fixtures=FIXTURES
echo started >> TRACE
while [ $# -gt 0 ]; do
  case $1 in
    --host) host=$2; shift ;;
    --csv) prefix=$2; shift ;;
  esac
  shift
done
asks() { curl -sf -m 5 "$host/healthz" > /dev/null && echo "the server answers $1"; }
asks first
for file in failures stats stats_history; do
  head -c 200 "$fixtures/run_$file.csv" > "${prefix}_$file.csv"
  sleep 0.5
  echo "half of $file"
  cp "$fixtures/run_$file.csv" "${prefix}_$file.csv"
  sleep 0.5
done
asks last
cp "$fixtures/run.json" "$prefix.json"
"#;

fn pipeline(failure_rate: &str) -> String {
    format!(
        "serve: {{ linfa: train, port: auto, ready: {{ path: /healthz }} }}
stages:
  train:
    train:
      model: players
      linfa: {{ data: players.csv, target: good, task: classification, algorithm: decision-tree }}
  load:
    needs: [train]
    loadtest:
      scenario: [ {{ request: GET /healthz }} ]
      locust: {{ file: locustfile.py, users: 5, spawn_rate: 5 }}
      duration: 3s
      thresholds: {{ failure_rate: \"< {failure_rate}\" }}
"
    )
}

fn with_locust(pipeline: &str) -> Place {
    let place = Place::with(pipeline);
    place.write("players.csv", &players());
    place.write("locustfile.py", "# the stand-in does not read it\n");
    let bin = place.outside("bin");
    fs::create_dir(&bin).unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/locust");
    let script = LOCUST.replace("FIXTURES", fixtures.to_str().unwrap());
    fs::write(bin.join("locust"), script.replace("TRACE", place.outside("trace").to_str().unwrap())).unwrap();
    fs::set_permissions(bin.join("locust"), fs::Permissions::from_mode(0o755)).unwrap();
    place
}

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = place.command(arguments);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", place.outside("bin").display()));
    command
}

/// Runs the build, killing this program again and again while the load test is under way.
fn killed_on_the_way(place: &Place, seed: u64) -> i32 {
    let mut random = SmallRng::seed_from_u64(seed);
    let trace = place.outside("trace");
    for kill in 0..KILLS {
        let arguments: &[&str] = if kill == 0 { &["run"] } else { &["run", "--resume", "1"] };
        let mut command = command(place, arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the stand-in runs", || trace.exists());
        // Anywhere in the load test, taking up included.
        std::thread::sleep(Duration::from_millis(random.gen_range(0..300)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let ended = ended(command(place, &["run", "--resume", "1"]).output().unwrap());
    assert_eq!(fs::read_to_string(trace).unwrap(), "started\n", "it was started once");
    let printed: Vec<String> = place.lines(1, "load", "stdout");
    let halves = ["failures", "stats", "stats_history"].map(|file| format!("half of {file}"));
    let first = "the server answers first".to_owned();
    assert_eq!(printed, [&[first][..], &halves, &["the server answers last".to_owned()]].concat());
    eventually("nothing is left", || place.units().is_empty() && place.processes().is_empty());
    ended.code
}

#[test]
fn a_locust_that_was_left_alone_is_judged_by_what_it_measured() {
    let place = with_locust(&pipeline("10%"));
    assert_eq!(killed_on_the_way(&place, 11), 0);
    let stage = place.stage(1, "load");
    assert_eq!(stage["attempts"].as_array().map(Vec::len), Some(1), "{stage:#}");
    assert_eq!(stage["metrics"]["requests"], 394.0, "{stage:#}");
}

#[test]
fn a_locust_that_was_left_alone_fails_a_bad_server_too() {
    let place = with_locust(&pipeline("1%"));
    assert_eq!(killed_on_the_way(&place, 12), 1);
    let failure = place.stage(1, "load")["failure"]["message"].to_string();
    assert!(failure.contains("failure_rate < 1% does not hold: 7.36%"), "{failure}");
}
