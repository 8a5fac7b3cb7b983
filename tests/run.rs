//! `orchestrator run` on the local runner, as its users see it.

use std::fs;
use std::process::Stdio;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Place, ended, eventually};

#[test]
fn a_build_passes_outputs_on_and_keeps_its_log() {
    let place = Place::with(
        "stages:\n  make:\n    run: echo 42 > answer.txt; echo made it\n    outputs: [answer.txt]\n  use:\n    needs: [make]\n    run: cat answer.txt\n",
    );
    place.expect(0, &["run"]);
    assert_eq!(place.lines(1, "make", "stdout"), ["made it"]);
    assert_eq!(place.lines(1, "use", "stdout"), ["42"]);
    assert_eq!(place.units(), Vec::<String>::new());
    place.expect(0, &["artifacts", "get", "1", "make", "-o", "got"]);
    assert_eq!(fs::read_to_string(place.project().join("got/answer.txt")).unwrap(), "42\n");
}

#[test]
fn what_is_not_declared_is_gone() {
    let place = Place::with(
        "stages:\n  make:\n    run: echo 1 > kept; echo 2 > lost\n    outputs: [kept]\n  use:\n    needs: [make]\n    run: test -f kept && test ! -f lost\n",
    );
    place.expect(0, &["run"]);
}

#[test]
fn a_missing_output_fails_and_is_named() {
    let place = Place::with("stages:\n  make:\n    run: 'true'\n    outputs: [model.bin]\n");
    let ended = place.expect(1, &["run"]);
    assert!(ended.out.contains("output `model.bin` was not made"), "{}", ended.out);
    assert_eq!(place.stage(1, "make")["failure"]["kind"], "output");
}

#[test]
fn the_first_failing_step_ends_the_stage() {
    let place = Place::with(
        "stages:\n  a:\n    run:\n      - { name: fine, run: echo one }\n      - { name: broken, run: exit 7 }\n      - echo never\n",
    );
    let ended = place.expect(1, &["run"]);
    assert!(ended.out.contains("step `broken` ended with exit code 7"), "{}", ended.out);
    assert_eq!(place.lines(1, "a", "stdout"), ["one"]);
    let steps = &place.stage(1, "a")["attempts"][0]["steps"];
    assert_eq!(steps[0]["name"], "fine");
    assert_eq!(steps[1]["code"], 7);
    assert_eq!(steps.as_array().unwrap().len(), 2);
}

#[test]
fn a_script_of_several_lines_is_not_called_by_its_first() {
    let place = Place::with(
        "stages:\n  a:\n    run: |\n      echo hello\n\n      echo more\n      exit 3\n  b: { run: exit 4 }\n  c:\n    run: [ { name: mine, run: \"true\\nexit 5\" } ]\n",
    );
    let ended = place.expect(1, &["run"]);
    for expected in [
        "the script (3 lines, from `echo hello`) ended with exit code 3",
        "step `exit 4` ended with exit code 4",
        "step `mine` ended with exit code 5",
    ] {
        assert!(ended.out.contains(expected), "{expected}: {}", ended.out);
    }
}

#[test]
fn a_failure_stops_dependants_and_runs_clean_up() {
    let place = Place::with(
        "stages:\n  a: { run: exit 1 }\n  b: { needs: [a], run: echo no }\n  tell: { run: echo told, when: { status: [failure] } }\n  clean: { run: echo cleaned, when: { status: [always] } }\n",
    );
    place.expect(1, &["run"]);
    assert_eq!(place.stage(1, "b")["status"], "skipped");
    assert_eq!(place.lines(1, "tell", "stdout"), ["told"]);
    assert_eq!(place.lines(1, "clean", "stdout"), ["cleaned"]);
}

#[test]
fn an_allowed_failure_is_shown_and_does_not_fail_the_build() {
    let place = Place::with("stages:\n  a: { run: exit 1, allow_failure: true }\n  b: { needs: [a], run: echo on }\n");
    place.expect(0, &["run"]);
    assert_eq!(place.stage(1, "a")["status"], "failed");
    assert_eq!(place.lines(1, "b", "stdout"), ["on"]);
}

#[test]
fn retries_are_attempts_that_are_kept() {
    let place = Place::new();
    let marker = place.outside("tried");
    place.write(
        "pipeline.yaml",
        &format!(
            "stages:\n  a:\n    run: if [ -f {0} ]; then echo second; else touch {0}; echo first; exit 3; fi\n    retry: {{ attempts: 2 }}\n",
            marker.display()
        ),
    );
    place.expect(0, &["run"]);
    let stage = place.stage(1, "a");
    assert_eq!(stage["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(stage["attempts"][0]["outcome"]["result"], "failed");
    let first = place.expect(0, &["logs", "1", "a", "--attempt", "1"]);
    assert!(first.out.contains("first"), "{}", first.out);
}

#[test]
fn a_time_limit_ends_with_term_then_kill() {
    let place = Place::with(
        "stages:\n  a:\n    run: trap 'echo asked' TERM; while true; do sleep 0.05; done\n    timeout: 1s\n    grace: 1s\n",
    );
    place.expect(1, &["run"]);
    assert_eq!(place.stage(1, "a")["failure"]["kind"], "timeout");
    assert_eq!(place.lines(1, "a", "stdout"), ["asked"]);
    eventually("nothing is left", || place.processes().is_empty());
}

#[test]
fn ctrl_c_cancels_with_grace_and_clean_up() {
    let place = Place::with(
        "stages:\n  long:\n    run: |\n      trap 'echo bye; exit 0' TERM\n      echo ready\n      while true; do sleep 0.05; done\n  clean: { run: echo cleaned, when: { status: [always] } }\n",
    );
    let child = place
        .command(&["run"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let log = place.data().join("logs/1/long.1.log");
    eventually("the stage is ready", || fs::read_to_string(&log).is_ok_and(|text| text.contains("ready")));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 130, "{}{}", ended.out, ended.err);
    assert_eq!(place.lines(1, "long", "stdout"), ["ready", "bye"]);
    assert_eq!(place.lines(1, "clean", "stdout"), ["cleaned"]);
    assert_eq!(place.stage(1, "long")["status"], "cancelled");
    eventually("nothing is left", || place.processes().is_empty());
}

#[test]
fn a_second_ctrl_c_kills() {
    let place = Place::with(
        "stages:\n  long:\n    run: |\n      trap '' TERM\n      echo ready\n      while true; do sleep 0.05; done\n    grace: 1h\n",
    );
    let child = place
        .command(&["run"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(child.id() as i32);
    let log = place.data().join("logs/1/long.1.log");
    eventually("the stage is ready", || fs::read_to_string(&log).is_ok_and(|text| text.contains("ready")));
    kill(pid, Signal::SIGTERM).unwrap();
    eventually("the cancellation is stored", || place.show(1)["build"]["cancel"] == "user");
    kill(pid, Signal::SIGTERM).unwrap();
    let begun = Instant::now();
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 130, "{}{}", ended.out, ended.err);
    assert!(begun.elapsed().as_secs() < 600, "the grace was waited for");
    eventually("nothing is left", || place.processes().is_empty());
}

#[test]
fn a_matrix_runs_a_cell_for_each_value() {
    let place = Place::with(
        "stages:\n  test:\n    matrix: { python: [\"3.11\", \"3.12\"] }\n    run: echo \"py $MATRIX_PYTHON\" | tee out.txt\n    outputs: [out.txt]\n  join:\n    needs: [test]\n    run: cat matrix/test/3.11/out.txt matrix/test/3.12/out.txt\n",
    );
    place.expect(0, &["run"]);
    assert_eq!(place.lines(1, "join", "stdout"), ["py 3.11", "py 3.12"]);
    assert_eq!(place.lines(1, "test.3.12", "stdout"), ["py 3.12"]);
}

#[test]
fn what_no_stage_reads_costs_no_training() {
    let text = |threshold: &str| {
        format!(
            "stages:\n  train: {{ train: {{ model: m, linfa: {{ algorithm: naive-bayes, data: d.csv, target: y, task: classification }} }} }}\n  make: {{ run: cp d.csv o.csv, outputs: [o.csv] }}\n  \
             look: {{ run: 'echo {threshold}' }}\n"
        )
    };
    let place = Place::with(&text("one"));
    let rows: String = (0..60).map(|n| format!("{},{}\n", n % 7, if n % 7 > 3 { "yes" } else { "no" })).collect();
    place.write("d.csv", &format!("x,y\n{rows}"));
    place.expect(0, &["run"]);
    // Another stage of the pipeline: neither the training nor the script reads that.
    place.write("pipeline.yaml", &text("two"));
    place.expect(0, &["run"]);
    assert_eq!(
        (place.stage(2, "train")["status"].clone(), place.stage(2, "make")["status"].clone()),
        ("reused".into(), "reused".into())
    );
    // A script may read any file; a built-in training reads its data.
    place.write("notes.txt", "n");
    fs::remove_file(place.project().join("notes.txt")).unwrap();
    place.write("more.txt", "n");
    place.expect(0, &["run"]);
    assert_eq!(place.stage(3, "train")["status"], "reused");
    assert_eq!(place.stage(3, "make")["attempts"][0]["why"], "changed since build #1: inputs (`more.txt` is new)");
    place.write("d.csv", &format!("x,y\n{rows}1,no\n"));
    place.expect(0, &["run"]);
    let why = place.stage(4, "train")["attempts"][0]["why"].as_str().unwrap().to_owned();
    assert_eq!(why, "changed since build #1: data d.csv");
}

#[test]
fn a_cancelled_build_is_not_passed_by_running_another_stage_of_it() {
    let place = Place::with("stages:\n  slow: { run: 'sleep 60' }\n  quick: { run: 'echo quick' }\n");
    let mut child = place.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("both began", || {
        let shown = place.run(&["show", "1", "--json"]);
        shown.code == 0
            && place.stage(1, "quick")["status"] == "succeeded"
            && place.stage(1, "slow")["status"] == "running"
    });
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    place.expect(130, &["retry", "1", "--stage", "quick"]);
    assert_eq!(place.show(1)["build"]["status"]["status"], "cancelled");
    assert_eq!(place.stage(1, "quick")["attempts"].as_array().unwrap().len(), 2);
}

#[test]
fn unchanged_stages_are_reused_and_changes_are_named() {
    let text = |word: &str| {
        format!(
            "stages:\n  make:\n    inputs: [data.txt]\n    run: cat data.txt > out.txt; echo {word}\n    outputs: [out.txt]\n  use:\n    needs: [make]\n    run: cat out.txt\n"
        )
    };
    let place = Place::with(&text("ran"));
    place.write("data.txt", "1\n");
    place.expect(0, &["run"]);
    let second = place.expect(0, &["run"]);
    assert!(second.out.contains("reused from build #1"), "{}", second.out);
    assert_eq!(place.stage(2, "make")["status"], "reused");
    assert_eq!(place.lines(2, "use", "stdout"), ["1"]);

    place.write("data.txt", "2\n");
    place.expect(0, &["run"]);
    assert_eq!(place.stage(3, "make")["attempts"][0]["why"], "changed since build #1: inputs (`data.txt` changed)");
    place.write("pipeline.yaml", &text("again"));
    let plan = place.json(&["plan", "--json"]);
    assert_eq!(plan[0]["action"], "run");
    assert_eq!(plan[0]["why"], "changed since build #3: script");
    place.expect(0, &["run", "--no-reuse"]);
    assert_eq!(place.stage(4, "make")["attempts"][0]["why"], "reuse is switched off");
    let plan = place.json(&["plan", "--json"]);
    assert_eq!(plan[0]["action"], "reuse");
    assert_eq!(plan[1]["action"], "run");
}

#[test]
fn from_takes_what_stands_before_and_runs_the_rest() {
    let place = Place::with(
        "stages:\n  a: { run: echo a > a.txt, outputs: [a.txt] }\n  b: { needs: [a], run: cat a.txt > b.txt, outputs: [b.txt] }\n  c: { needs: [b], run: cat b.txt }\n",
    );
    place.expect(0, &["run"]);
    place.expect(0, &["run", "--from", "b"]);
    assert_eq!(place.stage(2, "a")["status"], "reused");
    assert_eq!(place.stage(2, "b")["status"], "succeeded");
    assert_eq!(place.lines(2, "c", "stdout"), ["a"]);
    place.expect(0, &["run", "--stage", "b"]);
    assert_eq!(place.stage(3, "c")["status"], "skipped");
    place.expect(2, &["run", "--stage", "nothing"]);
}

#[test]
fn secrets_reach_the_script_and_never_the_log() {
    let place = Place::with(
        "secrets: [TOKEN]\nstages:\n  a:\n    run: |\n      test \"$TOKEN\" = 'hunter22-x'\n      echo \"it is $TOKEN\"\n      printf %s \"$TOKEN\" | base64\n",
    );
    fs::write(place.outside("secrets"), "TOKEN=hunter22-x\n").unwrap();
    let file = place.outside("secrets").display().to_string();
    let ended = place.expect(0, &["run", "--secret-file", &file]);
    // Padding says nothing.
    assert_eq!(place.lines(1, "a", "stdout"), ["it is ***", "***=="]);
    assert!(!ended.out.contains("hunter22") && !ended.err.contains("hunter22"));
    let missing = place.expect(2, &["run"]);
    assert!(missing.err.contains("no value for secret TOKEN"), "{}", missing.err);
}

#[test]
fn params_are_typed() {
    let place = Place::with(
        "params:\n  trees: { type: integer, default: 100, max: 2000 }\nstages:\n  a: { run: echo $PARAM_TREES }\n",
    );
    place.expect(0, &["run", "--param", "trees=250"]);
    assert_eq!(place.lines(1, "a", "stdout"), ["250"]);
    place.expect(2, &["run", "--param", "trees=many"]);
    place.expect(2, &["run", "--param", "tree=1"]);
    place.expect(2, &["run", "--param", "trees"]);
}

#[test]
fn an_invalid_pipeline_is_exit_3_and_no_build() {
    let place = Place::with("stages:\n  a: { runs: echo }\n");
    let ended = place.expect(3, &["run"]);
    assert!(ended.err.contains("did you mean `run`"), "{}", ended.err);
    assert_eq!(place.json(&["builds", "--json"]), serde_json::json!([]));
}

#[test]
fn no_engine_is_exit_4_and_says_what_to_do() {
    let place = Place::with("stages:\n  a: { image: busybox, run: echo }\n");
    let output = place.command(&["run"]).env("DOCKER_HOST", "unix:///nowhere/docker.sock").output().unwrap();
    let ended = ended(output);
    assert_eq!(ended.code, 4, "{}{}", ended.out, ended.err);
    assert!(ended.err.contains("--runner local"), "{}", ended.err);
}

#[test]
fn the_environment_of_scripts_is_ours_alone() {
    let place = Place::with(
        "env: { ONE: \"1\" }\nstages:\n  a:\n    env: { TWO: \"2\" }\n    run: echo \"$ONE $TWO $CI $ORCHESTRATOR_STAGE $ORCHESTRATOR_BUILD ${LEAKED:-none}\"\n",
    );
    let output = place.command(&["run"]).env("LEAKED", "yes").output().unwrap();
    assert_eq!(ended(output).code, 0);
    assert_eq!(place.lines(1, "a", "stdout"), ["1 2 true a 1 none"]);
}

#[test]
fn events_as_json_end_with_the_result() {
    let place = Place::with("stages:\n  a: { run: echo }\n");
    let ended = place.expect(0, &["run", "--json"]);
    let last: serde_json::Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"]["event"], "build-ended");
    assert_eq!(last["event"]["result"]["status"], "passed");
}

/// A pipeline that trains, checks, loads and promotes, on a port of its own.
pub fn promoting(algorithm: &str, port: u16) -> String {
    format!(
        "name: players\nserve: {{ linfa: train, port: auto, ready: {{ path: /healthz }} }}\nstages:\n  train:\n    train:\n      model: players\n      linfa: {{ data: players.csv, target: good, task: classification, algorithm: {algorithm}, holdout: 0.4, seed: 3 }}\n  test-api:\n    needs: [train]\n    test-api:\n      checks: [ {{ name: up, request: GET /healthz }} ]\n  promote:\n    needs: [train, test-api]\n    promote:\n      model: players\n      better_if: {{ accuracy: {{ goal: maximize, test: mcnemar }} }}\n      deploy: {{ strategy: replace, port: {port} }}\n"
    )
}

/// Rows in which `a` decides, with some noise in `b`.
pub fn players() -> String {
    let mut rows = "a,b,good\n".to_owned();
    for row in 0..400 {
        let a = (row * 37) % 100;
        rows.push_str(&format!("{a},{},{}\n", (row * 61) % 17, u8::from(a > 60)));
    }
    rows
}

pub fn healthy(port: u16) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return false };
    use std::io::{Read, Write};
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}

#[test]
fn a_first_model_is_promoted_and_serves_and_the_same_again_is_unchanged() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let place = Place::with(&promoting("decision-tree", port));
    place.write("players.csv", &players());
    let first = place.expect(0, &["run"]);
    assert!(first.out.trim_end().ends_with("promoted"), "{}", first.out);
    assert!(healthy(port));
    let again = place.expect(0, &["run"]);
    assert!(again.out.trim_end().ends_with("unchanged"), "{}", again.out);

    place.expect(0, &["deployments", "stop", "players"]);
    eventually("nothing serves", || !healthy(port));
    place.expect(0, &["run"]);
    assert!(healthy(port), "the champion is deployed again");
    let models = place.json(&["models", "--json"]);
    assert_eq!(models[0]["champion"], 1);
    assert_eq!(models[0]["serving"]["port"], port);
    place.expect(0, &["gc"]);
    assert!(healthy(port), "clean-up leaves what serves");
    place.expect(0, &["deployments", "stop", "players"]);
    eventually("nothing is left", || place.processes().is_empty());
}

#[test]
fn a_worse_model_does_not_reach_users() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let place = Place::with(&promoting("decision-tree", port));
    place.write("players.csv", &players());
    place.expect(0, &["run"]);
    place.write("pipeline.yaml", &promoting("naive-bayes", port));
    let worse = place.expect(0, &["run"]);
    let verdict = place.stage(2, "promote")["attempts"][0]["reports"]["judgement"]["verdict"].clone();
    assert!(verdict == "rejected" || verdict == "inconclusive", "{}", worse.out);
    assert_eq!(place.json(&["models", "--json"])[0]["champion"], 1);
    place.expect(0, &["promote", "players", "2", "--reason", "a try"]);
    place.expect(0, &["rollback", "players"]);
    assert_eq!(place.json(&["models", "--json"])[0]["champion"], 1);
    place.expect(0, &["deployments", "stop", "players"]);
    eventually("nothing is left", || place.processes().is_empty());
}

/// Without a test, too, a champion is scored on the candidate's rows: its own numbers are of others.
#[test]
fn numbers_are_of_the_same_rows() {
    let pipeline = promoting("decision-tree", 1).replace("test: mcnemar", "test: none");
    let place = Place::with(&pipeline.replace("      deploy: { strategy: replace, port: 1 }\n", ""));
    place.write("players.csv", &players());
    place.expect(0, &["run"]);
    place.write("players.csv", &players().replace("a,b,good\n", "a,b,good\n3,3,0\n99,3,1\n"));
    let second = place.expect(0, &["run"]);
    assert!(second.out.contains("champion version 1 was scored on this build's rows"), "{}", second.out);
    let judgement = place.stage(2, "promote")["attempts"][0]["reports"]["judgement"].clone();
    assert_eq!(judgement["same_rows"], true, "{judgement:#}");
    assert_eq!(judgement["findings"][0]["test"]["source"], "predictions", "{judgement:#}");
}

/// A training writes what it likes into its metrics file, also what looks like a stage's numbers.
#[test]
fn what_a_stage_measured_counts() {
    let place = Place::with(
        "stages:\n  train:\n    run: cp given.json metrics.json; cp given.json model\n    train: { model: m, artifact: model, metrics: metrics.json }\n  promote:\n    needs: [train]\n    promote: { model: m, better_if: { train.q: { goal: maximize } } }\n",
    );
    place.write("given.json", "{\"q\": 1}");
    place.expect(0, &["run"]);
    place.write("given.json", "{\"q\": 1, \"train\": {\"q\": 9}}");
    let second = place.expect(0, &["run"]);
    assert!(second.out.trim_end().ends_with("rejected"), "{}", second.out);
}

#[test]
fn what_a_person_rolled_back_does_not_come_back_by_itself() {
    let place = Place::with(
        "stages:\n  train:\n    run: |\n      cp q.txt model\n      echo \"{\\\"q\\\": $(cat q.txt)}\" > metrics.json\n    train: { model: m, artifact: model, metrics: metrics.json }\n  promote:\n    needs: [train]\n    promote: { model: m, better_if: { q: { goal: maximize } } }\n",
    );
    let mut builds = 0;
    let mut judged = |q: &str, arguments: &[&str]| {
        place.write("q.txt", q);
        builds += 1;
        place.expect(0, &[&["run"], arguments].concat());
        let judgement = place.stage(builds, "promote")["attempts"][0]["reports"]["judgement"].clone();
        let champion = place.json(&["models", "--json"])[0]["champion"].as_u64();
        (judgement["outcome"].as_str().unwrap().to_owned(), champion, judgement["reason"].as_str().unwrap().to_owned())
    };
    assert_eq!(judged("1", &[]).0, "promoted");
    assert_eq!(judged("2", &[]).1, Some(2));
    place.expect(0, &["rollback", "m", "--reason", "answers in Latin"]);
    let (outcome, champion, reason) = judged("2", &[]);
    assert_eq!((outcome.as_str(), champion), ("rejected", Some(1)), "{reason}");
    assert!(reason.starts_with("v2 was rolled back by ") && reason.contains("(answers in Latin)"), "{reason}");
    assert!(reason.contains("`orchestrator promote m 2`"), "{reason}");
    let (outcome, champion, reason) = judged("2", &["--no-reuse"]);
    assert_eq!((outcome.as_str(), champion), ("rejected", Some(1)), "{reason}");
    assert!(reason.starts_with("v3 is v2, byte for byte, which was rolled back by "), "{reason}");
    // Another model is judged as ever, and a person may change their mind.
    assert_eq!(judged("3", &[]).0, "promoted");
    place.expect(0, &["rollback", "m"]);
    place.expect(0, &["promote", "m", "2"]);
    assert_eq!(judged("2", &[]).0, "unchanged");
    assert_eq!(judged("1", &[]).0, "rejected");
    place.expect(0, &["promote", "m", "1"]);
    assert_eq!(judged("2", &[]).0, "promoted", "it was made champion by hand since");
}

#[test]
fn from_takes_no_check_of_another_model() {
    let place = Place::with(
        "stages:\n  make: { run: cp src.txt made.txt, outputs: [made.txt] }\n  check: { needs: [make], run: grep good made.txt }\n  ship: { needs: [make, check], run: cat made.txt }\n",
    );
    place.write("src.txt", "good\n");
    place.expect(0, &["run"]);
    place.write("src.txt", "bad\n");
    place.expect(1, &["run"]);
    place.expect(1, &["run", "--from", "ship"]);
    assert_eq!(place.stage(3, "make")["status"], "reused");
    assert_eq!(place.stage(3, "check")["status"], "failed");
}

#[test]
fn inputs_that_match_nothing_fail_the_stage() {
    let place = Place::with("stages:\n  a: { inputs: [trian.py], run: echo > out, outputs: [out] }\n");
    let ended = place.expect(1, &["run"]);
    assert!(ended.out.contains("`inputs: [trian.py]` matches no file"), "{}", ended.out);
    place.write("pipeline.yaml", "stages:\n  a: { inputs: [./src.txt], run: cp src.txt out, outputs: [out] }\n");
    place.write("src.txt", "1");
    place.expect(0, &["run"]);
    place.write("src.txt", "2");
    place.expect(0, &["run"]);
    assert_eq!(place.stage(3, "a")["status"], "succeeded", "a change of ./src.txt is seen");
}

#[test]
fn ending_an_interrupted_build_reads_no_output_without_its_secrets() {
    let place = Place::with(
        "secrets: [TOKEN]\nstages:\n  a:\n    run: i=0; while [ $i -lt 600 ]; do echo \"$TOKEN $i\"; i=$((i+1)); sleep 0.05; done\n",
    );
    let mut child = place
        .command(&["run"])
        .env("TOKEN", "hunter22-x")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let log = place.data().join("logs/1/a.1.log");
    eventually("the stage prints", || fs::read_to_string(&log).is_ok_and(|text| text.contains("*** 3")));
    child.kill().unwrap();
    child.wait().unwrap();
    let units = place.data().join("local/units");
    let lines = || -> usize {
        let outputs = fs::read_dir(&units)
            .unwrap()
            .flatten()
            .map(|unit| fs::read(unit.path().join("output")).unwrap_or_default());
        outputs.map(|bytes| bytes.iter().filter(|byte| **byte == b'\n').count()).sum()
    };
    let before = lines();
    eventually("it goes on printing", || lines() > before + 5);
    place.expect(0, &["cancel", "1"]);
    assert!(!fs::read_to_string(&log).unwrap().contains("hunter22"), "the secret is in the log");
    eventually("nothing is left", || place.processes().is_empty());
}

#[test]
fn out_of_memory_is_called_that() {
    let place = Place::with(
        "stages:\n  hungry:\n    resources: { memory: 64MiB }\n    run: echo fine; all=$(head -c 400000000 /dev/zero | tr '\\0' x); sleep 30\n",
    );
    let ended = place.expect(1, &["run"]);
    assert!(ended.out.contains("out of memory: limit 64 MiB"), "{}", ended.out);
    assert_eq!(place.stage(1, "hungry")["failure"]["kind"], "out-of-memory");
    assert_eq!(place.lines(1, "hungry", "stdout"), ["fine"]);
}

#[test]
fn a_kept_workspace_stays_until_gc() {
    let place = Place::with(
        "stages:\n  bad: { run: 'echo clue > note.txt; exit 3', retry: { attempts: 2 } }\n  good: { run: echo fine }\n",
    );
    let ended = place.expect(1, &["run", "--keep"]);
    let kept = place.units();
    assert_eq!(kept.len(), 2, "each failed attempt's: {kept:?}");
    for unit in &kept {
        let workspace = place.data().join("local/units").join(unit).join("workspace");
        assert_eq!(fs::read_to_string(workspace.join("note.txt")).unwrap(), "clue\n");
        let log = place.expect(0, &["logs", "1", "bad", "--attempt", &unit[unit.len() - 7..unit.len() - 6]]);
        assert!(log.out.contains(&workspace.display().to_string()), "{}", log.out);
    }
    assert!(ended.out.contains("orchestrator gc"), "{}", ended.out);
    place.write("other.yaml", "stages: { a: { run: echo one } }\n");
    place.expect(0, &["run", "other.yaml"]);
    let _ = place.run(&["run", "--resume", "1"]);
    assert_eq!(place.units(), kept, "the next start leaves it");
    place.expect(0, &["gc"]);
    assert_eq!(place.units(), Vec::<String>::new());
    // Without `--keep` nothing is left, and nothing is said.
    place.write("pipeline.yaml", "stages: { bad: { run: exit 3 } }\n");
    let ended = place.expect(1, &["run"]);
    assert!(!ended.out.contains("kept for a look"), "{}", ended.out);
    assert_eq!(place.units(), Vec::<String>::new());
}

#[test]
fn many_runs_share_a_data_folder() {
    let place = Place::with("stages:\n  a: { run: echo one }\n");
    let spawn = |_| {
        place
            .command(&["run"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    for _ in 0..3 {
        let children: Vec<_> = (0..12).map(spawn).collect();
        for child in children {
            let ended = ended(child.wait_with_output().unwrap());
            assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
        }
    }
    assert_eq!(place.json(&["builds", "--json", "--limit", "1000"]).as_array().unwrap().len(), 36);
    assert_eq!(place.units(), Vec::<String>::new());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let place = Place::with("stages:\n  a: { run: 'true' }\n");
    for arguments in [
        &["completions", "bash"][..],
        &["schema"],
        &["validate"],
        &["validate", "--json"],
        &["init", "--stdout"],
        &["plan"],
        &["plan", "--json"],
        &["run"],
        &["builds"],
        &["show", "--json"],
        &["config", "show"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = ended(place.command(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap());
        assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.err);
        assert!(!ended.err.contains("panicked") && !ended.err.contains("pipe"), "{arguments:?}: {}", ended.err);
    }
}

#[test]
fn a_build_that_is_driven_is_not_to_be_resumed() {
    let place =
        Place::with("stages:\n  wait:\n    run: while ! test -e $GO; do sleep 0.05; done\n    env: { GO: GOFILE }\n");
    let go = place.outside("go");
    place.write(
        "pipeline.yaml",
        &fs::read_to_string(place.project().join("pipeline.yaml"))
            .unwrap()
            .replace("GOFILE", &go.display().to_string()),
    );
    let mut child = place.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let told = || place.run(&["show"]).out;
    eventually("it runs", || told().contains("running"));
    assert!(!told().contains("--resume"), "{}", told());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told().contains("go on with: orchestrator run --resume 1"), "{}", told());
    fs::write(&go, "").unwrap();
    place.expect(0, &["run", "--resume"]);
}
