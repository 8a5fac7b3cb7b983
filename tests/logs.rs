//! Logs are packed once their attempt has ended; whoever reads them does not notice.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use crate::harness::{Place, eventually};

/// Lines of a log that is worth packing.
const LINES: usize = 20_000;

fn chatty(lines: usize) -> String {
    format!(
        "stages:\n  loud:\n    run: \"i=0; while [ $i -lt {lines} ]; do echo \\\"line $i of a log that is long enough\\\"; i=$((i+1)); done\"\n  quiet: {{ run: echo one }}\n"
    )
}

fn expected(lines: usize) -> Vec<String> {
    (0..lines).map(|line| format!("line {line} of a log that is long enough")).collect()
}

fn log(place: &Place, name: &str) -> PathBuf {
    place.data().join("logs/1").join(name)
}

fn marks(place: &Place) -> usize {
    fs::read_dir(place.data().join("logs/unpacked")).map_or(0, Iterator::count)
}

#[test]
fn a_long_log_is_packed_before_run_ends_and_read_as_before() {
    let place = Place::with(&chatty(LINES));
    place.expect(0, &["run"]);
    assert!(!log(&place, "loud.1.log").exists(), "it was left plain");
    assert!(log(&place, "loud.1.log.zst").exists());
    assert!(log(&place, "quiet.1.log").exists(), "a tiny log is not worth two waits for the disk");
    assert_eq!(marks(&place), 0);
    assert_eq!(place.lines(1, "loud", "stdout"), expected(LINES));
    let followed = place.expect(0, &["logs", "1", "loud", "-f"]);
    assert_eq!(followed.out.lines().count(), LINES);
}

#[test]
fn a_follower_reads_on_while_the_log_is_packed() {
    let place = Place::new();
    let gate = place.outside("gate");
    let print = "i=0; while [ $i -lt 4000 ]; do echo \"line $i\"; i=$((i+1)); done";
    place.write(
        "pipeline.yaml",
        &format!(
            "stages:\n  loud:\n    run: |\n      {print}\n      while [ ! -f {} ]; do sleep 0.02; done\n      echo last\n",
            gate.display()
        ),
    );
    let mut run = place.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the stage prints", || log(&place, "loud.1.log").exists());
    let mut follower = place.command(&["logs", "1", "loud", "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "line 0");
    fs::write(&gate, "").unwrap();
    // The reader is slow: the build ends and its log is packed long before it has read all.
    assert!(run.wait().unwrap().success());
    assert!(log(&place, "loud.1.log.zst").exists() && !log(&place, "loud.1.log").exists());
    let mut expected: Vec<String> = (1..4000).map(|line| format!("line {line}")).collect();
    expected.push("last".to_owned());
    assert_eq!(lines.collect::<Vec<_>>(), expected);
    assert!(follower.wait().unwrap().success());
}

#[test]
fn a_kill_while_packing_leaves_a_whole_log_and_gc_packs_it() {
    let place = Place::with(&chatty(300_000));
    let mut run = place.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let unfinished = log(&place, "loud.1.log.zst.tmp");
    eventually("packing has begun", || unfinished.exists() || log(&place, "loud.1.log.zst").exists());
    run.kill().unwrap();
    run.wait().unwrap();
    let readable = |what: &str| {
        let lines = place.expect(0, &["logs", "1", "loud"]).out;
        assert!(lines.lines().eq(expected(300_000)), "{what}");
    };
    readable("after the kill");
    // The build may have had a stage to end yet.
    let _ = place.run(&["run", "--resume"]);
    place.expect(0, &["gc"]);
    assert!(!log(&place, "loud.1.log").exists() && !unfinished.exists());
    assert!(log(&place, "loud.1.log.zst").exists());
    assert_eq!(marks(&place), 0);
    readable("after it was packed");
}

#[test]
fn the_next_start_packs_what_was_left_plain() {
    let place = Place::with(&chatty(LINES));
    place.expect(0, &["run"]);
    // As a process leaves it that was killed between the build's end and its packing.
    let (plain, packed) = (log(&place, "loud.1.log"), log(&place, "loud.1.log.zst"));
    let mut unpacked = Vec::new();
    let mut reader = zeekstd::Decoder::new(fs::File::open(&packed).unwrap()).unwrap();
    std::io::copy(&mut reader, &mut unpacked).unwrap();
    fs::write(&plain, &unpacked).unwrap();
    fs::remove_file(&packed).unwrap();
    fs::create_dir_all(place.data().join("logs/unpacked")).unwrap();
    fs::write(place.data().join("logs/unpacked/1"), "").unwrap();
    place.write("pipeline.yaml", "stages: { a: { run: echo one } }\n");
    place.expect(0, &["run"]);
    assert!(packed.exists() && !plain.exists());
    assert_eq!(marks(&place), 0);
    assert_eq!(place.lines(1, "loud", "stdout"), expected(LINES));
}
