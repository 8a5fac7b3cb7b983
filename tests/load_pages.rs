//! A load test in the browser: while it runs, afterwards, beside the champion's, and as numbers.

use crate::harness::eventually;
use crate::pages::page;
use crate::run::players;
use crate::served::Site;

fn pipeline(algorithm: &str, seconds: u32) -> String {
    format!(
        "name: players\nserve: {{ linfa: train, port: auto, ready: {{ path: /healthz }} }}\nstages:\n  train:\n    train:\n      model: players\n      linfa: {{ data: players.csv, target: good, task: classification, algorithm: {algorithm}, holdout: 0.4, seed: 3 }}\n  load:\n    needs: [train]\n    loadtest:\n      users: 2\n      duration: {seconds}s\n      scenario: [ {{ name: up, request: GET /healthz }} ]\n      thresholds: {{ failure_rate: \"< 50%\" }}\n  promote:\n    needs: [load]\n    promote: {{ model: players, better_if: {{ accuracy: {{ goal: maximize, test: mcnemar }} }} }}\n"
    )
}

#[test]
fn a_load_test_is_looked_at_while_it_runs_and_beside_the_champions() {
    let site = Site::new(&pipeline("decision-tree", 6), "poll = \"watch\"\n");
    site.place.write("players.csv", &players());
    site.commit("with data");
    let daemon = site.serve();
    let path = |build: u64| format!("/builds/{build}/stages/load/attempts/1/loadtest");
    let mut seen = String::new();
    eventually("its seconds are shown", || {
        seen = page(&daemon, &path(1)).body;
        seen.contains("Answers a second")
    });
    for shown in
        ["under way", "of 6 s", "<dt>requests/s</dt>", "data-every=\"1\"", "data-events=\"/api/v1/builds/1/events\""]
    {
        assert!(seen.contains(shown), "{shown}: {seen}");
    }
    assert!(page(&daemon, "/builds/1").body.contains("live charts"));
    eventually("the first build has passed", || daemon.counts().get("passed") == Some(&1));
    let first = page(&daemon, &path(1)).body;
    assert!(!first.contains("under way") && !first.contains("Beside") && !first.contains("data-events"), "{first}");

    site.place.write("pipeline.yaml", &pipeline("naive-bayes", 1));
    site.commit("another algorithm");
    eventually("a second one has ended", || page(&daemon, &path(2)).body.contains("Beside the champion, version 1"));
    let second = page(&daemon, &path(2)).body;
    assert!(second.contains("good, the champion, version 1") && !second.contains("loaded differently"), "{second}");

    let build = page(&daemon, "/builds/2").body;
    assert!(
        build.contains("the last good build of this branch") && build.contains("</code> another algorithm "),
        "{build}"
    );

    let seconds = page(&daemon, &format!("{}/seconds.csv", path(1))).body;
    let lines: Vec<&str> = seconds.lines().collect();
    assert!(lines[0].starts_with(r#""at_s","seconds","counted","good","#) && lines.len() >= 6, "{seconds}");
    let latencies = page(&daemon, &format!("{}/latencies.csv", path(1))).body;
    assert!(latencies.lines().last().unwrap().ends_with(",1"), "the share of all: {latencies}");
    let metrics = page(&daemon, "/models/players/metrics.csv").body;
    assert!(metrics.contains(r#"1,"true",1,"#) && metrics.contains(r#","accuracy",0."#), "{metrics}");
    let durations = page(&daemon, "/projects/demo/durations.csv").body;
    assert!(
        durations.contains(r#","load",1,"succeeded","#) && durations.contains(r#"2,"players","main","#),
        "{durations}"
    );
    let project = page(&daemon, "/projects/demo?stage=load").body;
    assert!(
        project.contains("Durations of load in 2 builds") && project.contains("Stages in the last builds"),
        "{project}"
    );
    assert_eq!(daemon.terminate(), 0);
}
