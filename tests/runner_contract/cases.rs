//! The cases.

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::time::Duration;

use orchestrator::runner::spec::{Command, LABEL_NODE};
use orchestrator::runner::{RunnerError, Signal, Stream, UnitStatus};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::bench::{Bench, Entry, NONCE, PATIENCE, collect, plain, read_all, read_until, sh, soon, steps, tar_of};
use crate::runner_local::HELPER;

type Case = for<'a> fn(&'a Bench<'a>) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// All cases, by name.
        pub const CASES: &[(&str, Case)] = &[$((stringify!($name), |bench| Box::pin($name(bench)))),*];
    };
}

cases![
    one_never_started_is_made_anew,
    a_unit_starts_once,
    exit_codes_are_exact,
    both_streams_come_byte_by_byte,
    a_hundred_thousand_lines_come_whole,
    reattaching_gives_all_from_the_first_byte,
    steps_stop_at_the_first_failure,
    a_step_can_handle_sigterm,
    sigterm_without_a_handler_ends_it,
    sigkill_ends_it,
    a_grandchild_that_ignores_sigterm_dies_of_sigkill,
    nothing_of_a_unit_outlives_it,
    files_go_in_and_come_out,
    paths_that_lead_outside_are_refused,
    removing_works_at_any_time_and_twice,
    each_state_is_told,
    labels_come_back,
    the_environment_is_clean,
    odd_text_arrives_as_it_is,
    waiting_ends_with_the_unit,
    a_port_can_be_reached,
    a_deployment_comes_back,
    the_newest_output_can_be_had_at_any_time,
    a_command_that_is_not_there_cannot_start,
];

async fn one_never_started_is_made_anew(bench: &Bench<'_>) {
    let first = bench.spec("anew", sh("cat old new; echo first"));
    bench
        .runner
        .create(&first, Some(tar_of(&[Entry { path: "old", mode: 0o644, content: b"x" }])))
        .await
        .expect("created");
    let second = bench.spec("anew", sh("cat old new; echo second"));
    bench
        .runner
        .create(&second, Some(tar_of(&[Entry { path: "new", mode: 0o644, content: b"n\n" }])))
        .await
        .expect("made anew");
    let written = read_all(bench.runner.start(&second.name).await.expect("started")).await;
    assert_eq!(written.text(), "n\nsecond\n");
    assert!(String::from_utf8_lossy(&written.stderr).contains("old"), "the old workspace is gone");
    bench.runner.remove(&second.name).await.expect("removed");
}

async fn a_unit_starts_once(bench: &Bench<'_>) {
    let unit = bench.spec("once", sh("echo ran; exec sleep 300"));
    let mut output = bench.start(&unit).await;
    read_until(&mut output, "ran").await;
    for _ in 0..2 {
        let again = bench.runner.start(&unit.name).await;
        assert!(matches!(again, Err(RunnerError::AlreadyStarted(_))), "{again:?}");
        let again = (bench.restart)().create(&unit, None).await;
        assert!(matches!(again, Err(RunnerError::AlreadyStarted(_))), "{again:?}");
        // The second time round it has ended.
        bench.runner.signal(&unit.name, Signal::Kill).await.expect("signal");
        bench.code(&unit).await;
    }
    assert_eq!(read_all(bench.runner.reattach(&unit.name).await.expect("output")).await.text(), "ran\n");
    bench.runner.remove(&unit.name).await.expect("removed");
    let gone = bench.runner.start(&unit.name).await;
    assert!(matches!(gone, Err(RunnerError::Absent(_))), "{gone:?}");
}

async fn exit_codes_are_exact(bench: &Bench<'_>) {
    for (script, expected) in [
        ("true", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -9 $$", 137),
        ("kill -15 $$", 143),
        ("no-such-command", 127),
    ] {
        // The wrapper turns the signal of a step into its code; without it, it is the process itself that dies of it.
        for command in [sh(script), steps(&[script])] {
            let (_, code) = bench.run(&bench.spec("code", command)).await;
            assert_eq!(code, expected, "{script}");
        }
    }
}

async fn both_streams_come_byte_by_byte(bench: &Bench<'_>) {
    let script = r#"printf 'a\000b\377'; printf 'err\r\n\n' >&2; head -c 1048576 /dev/zero | tr '\000' x; printf 'no newline' >&2"#;
    let (written, code) = bench.run(&bench.spec("bytes", sh(script))).await;
    assert_eq!(code, 0);
    assert_eq!(&written.stdout[..4], b"a\0b\xff");
    assert_eq!(written.stdout.len(), 4 + 1_048_576);
    assert!(written.stdout[4..].iter().all(|&byte| byte == b'x'));
    assert_eq!(written.stderr, b"err\r\n\nno newline");
}

async fn a_hundred_thousand_lines_come_whole(bench: &Bench<'_>) {
    let (written, _) = bench.run(&bench.spec("lines", sh("seq 1 100000; seq 1 100000 >&2"))).await;
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(written.stdout == expected.as_bytes(), "stdout has {} bytes of {}", written.stdout.len(), expected.len());
    assert!(written.stderr == expected.as_bytes(), "stderr has {} bytes of {}", written.stderr.len(), expected.len());
}

async fn reattaching_gives_all_from_the_first_byte(bench: &Bench<'_>) {
    let script = "trap 'echo two; echo three >&2; exit 3' TERM; echo one; while :; do sleep 0.1; done";
    let unit = bench.spec("reattach", sh(script));
    let mut first = bench.start(&unit).await;
    read_until(&mut first, "one").await;
    let restarted = (bench.restart)();
    let mut second = restarted.reattach(&unit.name).await.expect("output");
    let mut seen = read_until(&mut second, "one").await;
    restarted.signal(&unit.name, Signal::Term).await.expect("signal");
    let rest = read_all(second).await;
    seen.extend(&rest.stdout);
    assert_eq!(seen, b"one\ntwo\n");
    // The shell may say that its `sleep` was terminated.
    assert!(rest.stderr.ends_with(b"three\n"), "{rest:?}");
    assert_eq!(read_all(first).await.stdout, b"two\n");
    let after = read_all((bench.restart)().reattach(&unit.name).await.expect("output")).await;
    assert_eq!((after.stdout, after.stderr), (seen, rest.stderr));
    assert_eq!(bench.code(&unit).await, 3);
    bench.runner.remove(&unit.name).await.expect("removed");
}

async fn steps_stop_at_the_first_failure(bench: &Bench<'_>) {
    let scripts = ["x=1; echo one", "echo ${x:-unset}; exit 9", "echo never"];
    let (written, code) = bench.run(&bench.spec("steps", steps(&scripts))).await;
    assert_eq!(code, 9);
    let mark = |what: &str| format!("\u{1e}{NONCE} {what}\u{1e}\n");
    let marks: Vec<String> = ["begin 0 0", "end 0 0", "begin 1 0", "end 1 9"].map(mark).into();
    let expected = [&marks[0], "one\n", &marks[1], &marks[2], "unset\n", &marks[3]].concat();
    assert_eq!(String::from_utf8_lossy(&written.stdout), expected);
    assert_eq!(String::from_utf8_lossy(&written.stderr), marks.concat());
}

async fn a_step_can_handle_sigterm(bench: &Bench<'_>) {
    let script = "trap 'echo saved; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let unit = bench.spec("term", steps(&[script]));
    let mut output = bench.start(&unit).await;
    read_until(&mut output, "ready").await;
    bench.runner.signal(&unit.name, Signal::Term).await.expect("signal");
    assert_eq!(read_all(output).await.text(), "saved\n", "once, and nothing after it");
    assert_eq!(bench.code(&unit).await, 5);
    bench.runner.signal(&unit.name, Signal::Term).await.expect("no error after the end");
    bench.runner.remove(&unit.name).await.expect("removed");
}

async fn sigterm_without_a_handler_ends_it(bench: &Bench<'_>) {
    let unit = bench.spec("term-plain", steps(&["echo ready; sleep 300", "echo never"]));
    let mut output = bench.start(&unit).await;
    read_until(&mut output, "ready").await;
    bench.runner.signal(&unit.name, Signal::Term).await.expect("signal");
    assert!(!read_all(output).await.text().contains("never"));
    assert_eq!(bench.code(&unit).await, 143);
    bench.runner.remove(&unit.name).await.expect("removed");
}

async fn sigkill_ends_it(bench: &Bench<'_>) {
    let unit = bench.spec("kill", steps(&["trap '' TERM; echo ready; while :; do sleep 0.05; done"]));
    let mut output = bench.start(&unit).await;
    read_until(&mut output, "ready").await;
    bench.runner.signal(&unit.name, Signal::Kill).await.expect("signal");
    read_all(output).await;
    assert_eq!(bench.code(&unit).await, 137);
    bench.runner.signal(&unit.name, Signal::Kill).await.expect("no error after the end");
    bench.runner.remove(&unit.name).await.expect("removed");
}

async fn a_grandchild_that_ignores_sigterm_dies_of_sigkill(bench: &Bench<'_>) {
    let script = "(trap '' TERM; echo ready; while :; do sleep 0.05; echo beat >> beats; done) & wait";
    let unit = bench.spec("grandchild", steps(&[script]));
    let mut output = bench.start(&unit).await;
    read_until(&mut output, "ready").await;
    bench.runner.signal(&unit.name, Signal::Kill).await.expect("signal");
    // The grandchild holds the streams open: their end is its end.
    read_all(output).await;
    assert_eq!(bench.code(&unit).await, 137);
    bench.runner.remove(&unit.name).await.expect("removed");
}

async fn nothing_of_a_unit_outlives_it(bench: &Bench<'_>) {
    let beat = "trap '' TERM HUP; while :; do sleep 0.01; echo beat >> beats; done";
    let script = format!("({beat}) & setsid sh -c \"{beat}\" & until test -s beats; do sleep 0.01; done; echo done");
    let unit = bench.spec("left-behind", steps(&[&script]));
    assert_eq!(read_all(bench.start(&unit).await).await.text(), "done\n");
    assert_eq!(bench.code(&unit).await, 0);
    let into = tempfile::tempdir().expect("folder");
    let beats = async || {
        assert!(collect(bench.runner, &unit.name, "beats", into.path()).await.expect("collected"));
        fs::metadata(into.path().join("beats")).expect("file").len()
    };
    let before = beats().await;
    // Whoever was still alive would write ten times in this time.
    sleep(Duration::from_millis(100)).await;
    assert_eq!(beats().await, before);
    bench.runner.remove(&unit.name).await.expect("removed");
}

async fn files_go_in_and_come_out(bench: &Bench<'_>) {
    let deep = format!("{}/{}", "d".repeat(40), "e".repeat(40));
    let script =
        "./run.sh && mkdir -p out/nested && cp run.sh out/nested/tool && echo model > out/model && echo flat > flat";
    let unit = bench.spec("files", sh(&format!("cat {deep}; {script}")));
    let workspace = tar_of(&[
        Entry { path: "run.sh", mode: 0o755, content: b"#!/bin/sh\necho ran in \"${PWD##*/}\" > where\n" },
        Entry { path: &deep, mode: 0o600, content: b"deep\n" },
    ]);
    bench.runner.create(&unit, Some(workspace)).await.expect("created");
    let written = read_all(bench.runner.start(&unit.name).await.expect("started")).await;
    assert_eq!((written.text().as_str(), String::from_utf8_lossy(&written.stderr).as_ref()), ("deep\n", ""));
    assert_eq!(bench.code(&unit).await, 0);
    let into = tempfile::tempdir().expect("folder");
    for path in ["out", "flat", "where"] {
        assert!(collect(bench.runner, &unit.name, path, into.path()).await.expect("collected"), "{path}");
    }
    assert!(collect(bench.runner, &unit.name, "out/nested/tool", into.path()).await.expect("collected"));
    for path in ["out/nested/tool", "tool"] {
        let mode = fs::metadata(into.path().join(path)).expect("file").permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{path}");
    }
    assert_eq!(fs::read_to_string(into.path().join("out/model")).expect("file"), "model\n");
    assert_eq!(fs::read_to_string(into.path().join("flat")).expect("file"), "flat\n");
    for path in ["missing", "out/missing", "flat/below"] {
        assert!(!collect(bench.runner, &unit.name, path, into.path()).await.expect("looked"), "{path}");
    }
    bench.runner.remove(&unit.name).await.expect("removed");
}

async fn paths_that_lead_outside_are_refused(bench: &Bench<'_>) {
    let unit = bench.spec("outside", sh("ln -s /etc door"));
    read_all(bench.start(&unit).await).await;
    let mut outside = vec!["/etc/passwd", "../../../../../../etc/passwd"];
    // A link in a container leads to the container's own files at most.
    if !bench.runner.containers() {
        outside.push("door/passwd");
    }
    for path in outside {
        let found = bench.runner.collect(&unit.name, path).await;
        assert!(!matches!(found, Ok(Some(_))), "{path}");
    }
    bench.runner.remove(&unit.name).await.expect("removed");
    if bench.runner.containers() {
        // The engine unpacks inside of the container, where there is nothing to be had.
        return;
    }
    for path in ["/tmp/escape", "../escape", "a/../../escape"] {
        let entry = Entry { path, mode: 0o644, content: b"x" };
        let refused = bench.runner.create(&unit, Some(tar_of(&[entry]))).await.expect_err(path);
        assert!(refused.to_string().contains(path), "{refused}");
        assert_eq!(bench.runner.status(&unit.name).await.expect("status"), UnitStatus::Absent);
    }
}

async fn removing_works_at_any_time_and_twice(bench: &Bench<'_>) {
    let unit = bench.spec("remove", steps(&["trap '' TERM; echo ready; (setsid sleep 300) & sleep 300"]));
    bench.runner.remove(&unit.name).await.expect("there is none");
    bench.runner.create(&unit, None).await.expect("created");
    bench.runner.remove(&unit.name).await.expect("never started");
    let mut output = bench.start(&unit).await;
    read_until(&mut output, "ready").await;
    bench.runner.remove(&unit.name).await.expect("running");
    read_all(output).await;
    bench.runner.remove(&unit.name).await.expect("gone");
    assert_eq!(bench.runner.status(&unit.name).await.expect("status"), UnitStatus::Absent);
    // Its name is free again.
    assert_eq!(bench.run(&bench.spec("remove", sh("exit 4"))).await.1, 4);
}

async fn each_state_is_told(bench: &Bench<'_>) {
    let unit = bench.spec("states", sh("echo ready; read line < gate; exit 6"));
    let status = async || (bench.restart)().status(&unit.name).await.expect("status");
    assert_eq!(status().await, UnitStatus::Absent);
    bench.runner.create(&unit, None).await.expect("created");
    assert_eq!(status().await, UnitStatus::Created);
    let waiting = bench.spec("states", sh("mkfifo gate; echo ready; read line < gate"));
    bench.runner.create(&waiting, None).await.expect("made anew");
    assert_eq!(status().await, UnitStatus::Created);
    let mut output = bench.runner.start(&unit.name).await.expect("started");
    assert_eq!(status().await, UnitStatus::Running);
    read_until(&mut output, "ready").await;
    assert_eq!(status().await, UnitStatus::Running);
    bench.runner.signal(&unit.name, Signal::Kill).await.expect("signal");
    read_all(output).await;
    soon("the end is told", async || status().await != UnitStatus::Running).await;
    let UnitStatus::Exited(exit) = status().await else { panic!("it has ended") };
    assert_eq!((exit.code, exit.out_of_memory), (137, false));
    assert!(exit.at.0 > 1_600_000_000_000_000, "a time of ours, in microseconds");
    bench.runner.remove(&unit.name).await.expect("removed");
    assert_eq!(status().await, UnitStatus::Absent);
}

async fn labels_come_back(bench: &Bench<'_>) {
    let mut unit = bench.spec("labels", sh("true"));
    unit.labels.insert(LABEL_NODE.to_owned(), "test.3.12-\"é\n".to_owned());
    bench.runner.create(&unit, None).await.expect("created");
    let found = (bench.restart)().list().await.expect("list");
    let found = found.iter().find(|found| found.name == unit.name).expect("it is listed");
    for (label, value) in &unit.labels {
        assert_eq!(found.labels.get(label), Some(value), "{label}");
    }
    assert_eq!(found.status, UnitStatus::Created);
    bench.runner.remove(&unit.name).await.expect("removed");
    assert!(!bench.own_units(bench.runner).await.contains(&unit.name.0));
}

async fn the_environment_is_clean(bench: &Bench<'_>) {
    let usual =
        ["PATH", "HOME", "HOSTNAME", "TMPDIR", "USER", "LOGNAME", "LANG", "PWD", "OLDPWD", "SHLVL", "_", "TERM"];
    let ours: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    let ours: Vec<_> = ours.iter().filter(|name| !usual.contains(&name.as_str())).collect();
    assert!(!ours.is_empty(), "cargo gives tests variables, which must not get through");
    let mut unit = bench.spec("env", sh("env"));
    unit.env = vec![
        ("GIVEN".to_owned(), "yes".to_owned()),
        ("TWICE".to_owned(), "a".to_owned()),
        ("TWICE".to_owned(), "b".to_owned()),
    ];
    let (written, _) = bench.run(&unit).await;
    let text = written.text();
    let lines: Vec<&str> = text.lines().collect();
    for name in ours {
        assert!(!lines.iter().any(|line| line.starts_with(&format!("{name}="))), "{name} leaks");
    }
    for expected in ["GIVEN=yes", "TWICE=b"] {
        assert!(lines.contains(&expected), "{expected} is not in {text}");
    }
    assert!(lines.iter().any(|line| line.starts_with("ORCHESTRATOR_WORKSPACE=/")), "{text}");
    assert!(lines.iter().any(|line| line.starts_with("PATH=/")), "{text}");
}

async fn odd_text_arrives_as_it_is(bench: &Bench<'_>) {
    let odd = "  '\"\\ $HOME `id` $(id) \n\t\u{1e} é 🦀 %s \r ; exit 1 #";
    let mut unit =
        bench.spec("odd", steps(&["printf '%s' \"$ODD\"", "printf '%s' ' \\ $1 \"${2}\" `x` é\n\t; exit 1'"]));
    unit.env = vec![("ODD".to_owned(), odd.to_owned())];
    let (written, code) = bench.run(&unit).await;
    assert_eq!(plain(&written.stdout), format!("{odd} \\ $1 \"${{2}}\" `x` é\n\t; exit 1"));
    assert_eq!(code, 0);
    let argument = Command::Arguments(["printf", "%s", odd].map(str::to_owned).into());
    assert_eq!(bench.run(&bench.spec("odd", argument)).await.0.text(), odd);
}

async fn waiting_ends_with_the_unit(bench: &Bench<'_>) {
    let unit = bench.spec("wait", sh("echo ready; sleep 0.3; exit 8"));
    assert_eq!(bench.runner.wait(&unit.name).await.expect("status"), UnitStatus::Absent);
    let mut output = bench.start(&unit).await;
    read_until(&mut output, "ready").await;
    let restarted = (bench.restart)();
    let early = timeout(Duration::from_millis(20), restarted.wait(&unit.name)).await;
    assert!(early.is_err(), "it still runs: {early:?}");
    assert_eq!(bench.code(&unit).await, 8);
    assert_eq!(bench.code(&unit).await, 8, "and again after the end");
    bench.runner.remove(&unit.name).await.expect("removed");
}

async fn a_port_can_be_reached(bench: &Bench<'_>) {
    let (port, command, env) = if bench.runner.containers() {
        (8080, sh("httpd -f -p 8080"), Vec::new())
    } else {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let program = std::env::current_exe().expect("this test").to_string_lossy().into_owned();
        let helper = [&program, "--exact", "runner_local::helper", "--nocapture"].map(str::to_owned);
        (port, Command::Arguments(helper.into()), vec![(HELPER.to_owned(), format!("serve {port}"))])
    };
    let mut unit = bench.spec("port", command);
    unit.port = Some(port);
    unit.env = env;
    let output = bench.start(&unit).await;
    let address = bench.runner.address(&unit.name, port).await.expect("address");
    soon("the port accepts", async || TcpStream::connect(address).await.is_ok()).await;
    bench.runner.remove(&unit.name).await.expect("removed");
    read_all(output).await;
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed with the unit");
    let gone = bench.runner.address(&unit.name, port).await;
    assert!(matches!(gone, Err(RunnerError::Absent(_))), "{gone:?}");
}

async fn a_deployment_comes_back(bench: &Bench<'_>) {
    let mut unit = bench.spec("deployment", sh("echo up; sleep 0.1; kill -9 $$"));
    unit.restart = true;
    let mut output = bench.start(&unit).await;
    read_until(&mut output, "up\n").await;
    // Whether the output goes on after the first end is the runner's matter; that the unit does is not.
    soon("it was started again", async || {
        let mut again = bench.runner.reattach(&unit.name).await.expect("output");
        let mut seen = String::new();
        while let Ok(Some(Ok(chunk))) = timeout(Duration::from_secs(1), again.recv()).await {
            if chunk.stream == Stream::Stdout {
                seen.push_str(&String::from_utf8_lossy(&chunk.bytes));
            }
            if seen.contains("up\nup\n") {
                return true;
            }
        }
        false
    })
    .await;
    soon("it is running", async || (bench.restart)().status(&unit.name).await.expect("status") == UnitStatus::Running)
        .await;
    timeout(PATIENCE, bench.runner.remove(&unit.name)).await.expect("in time").expect("removed");
    assert_eq!(bench.runner.status(&unit.name).await.expect("status"), UnitStatus::Absent);
}

async fn the_newest_output_can_be_had_at_any_time(bench: &Bench<'_>) {
    // Each stream has its own way into the log, and what is written last on one need not be behind all of the other.
    let script =
        "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; while sleep 0.2; do echo last >&2; done";
    let mut unit = bench.spec("newest", sh(script));
    unit.restart = true;
    drop(bench.start(&unit).await);
    let most = 64 << 10;
    soon("it has printed all", async || {
        let chunks = bench.runner.last_output(&unit.name, most).await.expect("output");
        let of =
            |stream: Stream| chunks.iter().filter(move |chunk| chunk.stream == stream).flat_map(|c| c.bytes.to_vec());
        let (out, err): (Vec<u8>, Vec<u8>) = (of(Stream::Stdout).collect(), of(Stream::Stderr).collect());
        assert!(out.len() + err.len() <= most, "{} bytes", out.len());
        let out = String::from_utf8_lossy(&out).into_owned();
        err.ends_with(b"last\n") && out.ends_with("line 19998\nline 19999\n") && !out.contains("line 0\n")
    })
    .await;
    bench.runner.remove(&unit.name).await.expect("removed");
    let gone = bench.runner.last_output(&unit.name, most).await;
    assert!(matches!(gone, Err(RunnerError::Absent(_))), "{gone:?}");
}

async fn a_command_that_is_not_there_cannot_start(bench: &Bench<'_>) {
    let unit = bench.spec("no-command", Command::Arguments(vec!["no-such-program".to_owned()]));
    bench.runner.create(&unit, None).await.expect("created");
    match bench.runner.start(&unit.name).await {
        Err(RunnerError::Start { detail, .. }) => assert!(detail.contains("no-such-program"), "{detail}"),
        Err(error) => panic!("{error}"),
        // A container's init process starts, and finds out only then.
        Ok(output) => {
            let written = read_all(output).await;
            assert!(String::from_utf8_lossy(&written.stderr).contains("no-such-program"));
            assert_eq!(bench.code(&unit).await, 127);
        }
    }
    bench.runner.remove(&unit.name).await.expect("removed");
}
