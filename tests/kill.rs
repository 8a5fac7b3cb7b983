//! kill -9 of the program at any instant loses no line, runs nothing twice and leaves nothing behind.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::harness::{Place, eventually};

/// Kills over one runner's test.
const KILLS: usize = 60;
/// Lines that each step prints.
const LINES: usize = 400;

/// Stages that print counted lines on both streams and leave one trace a step outside their workspace.
fn pipeline(ledger: &str, image: Option<&str>) -> String {
    let image = image.map_or(String::new(), |image| format!("defaults: {{ image: {image} }}\n"));
    let script = |tag: &str| {
        format!(
            "i=0; while [ $i -lt {LINES} ]; do echo \"{tag} $i\"; echo \"{tag} err $i\" >&2; i=$((i+1)); done; {ledger}"
        )
    };
    format!(
        "name: kill\n{image}stages:\n  first:\n    run:\n      - |\n        {}\n      - |\n        {}\n    outputs: [made.txt]\n  \
         second:\n    run: |\n      {}\n  third:\n    needs: [first, second]\n    run: |\n      cat made.txt\n      {}\n",
        script("one"),
        format_args!("{}; echo made > made.txt", script("two")),
        script("three"),
        script("four"),
    )
}

/// One run of a build with kills at random instants, until it has ended.
fn kill_until_done(place: &Place, random: &mut SmallRng, kills: &mut usize) {
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
        std::thread::sleep(Duration::from_micros(random.gen_range(2_000..250_000)));
        if let Some(status) = child.try_wait().unwrap() {
            match status.code() {
                Some(0) => return,
                // Killed before there was a build.
                Some(2) if resume => {
                    resume = false;
                    continue;
                }
                other => panic!("ended with {other:?}"),
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

#[test]
fn local_builds_survive_kill_9() {
    let place = Place::new();
    let ledger = place.outside("ledger");
    let leave =
        format!("echo \"$ORCHESTRATOR_BUILD $ORCHESTRATOR_STAGE {{}}\" >> {}", ledger.display()).replace("{}", "x");
    place.write("pipeline.yaml", &pipeline(&leave, None));
    let mut random = SmallRng::seed_from_u64(7);
    let (mut kills, mut builds) = (0, 0);
    while kills < KILLS {
        kill_until_done(&place, &mut random, &mut kills);
        builds += 1;
    }
    let list = place.json(&["builds", "--json", "--limit", "1000"]);
    let ids: Vec<u64> = list.as_array().unwrap().iter().map(|row| row["id"].as_u64().unwrap()).collect();
    // A build may end just before the kill, and is not taken up again then.
    assert!(ids.len() >= builds, "{list:#}");
    let ledger = fs::read_to_string(ledger).unwrap();
    for &build in &ids {
        check(&place, build);
        for (stage, steps) in [("first", 2), ("second", 1), ("third", 1)] {
            let line = format!("{build} {stage} x");
            let count = ledger.lines().filter(|have| **have == line).count();
            assert_eq!(count, steps, "side effects of {stage} in build {build}");
        }
    }
    place.expect(0, &["gc"]);
    assert_eq!(place.units(), Vec::<String>::new());
    eventually("no process is left", || place.processes().is_empty());
}
