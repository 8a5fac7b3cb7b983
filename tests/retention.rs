//! Old builds go with all that is of them; what serves, and what it came from, stays.

use std::fs;

use rusqlite::Connection;
use serde_json::json;

use crate::deployment::{clear, free_port, predicts};
use crate::harness::{Place, eventually};
use crate::run::{players, promoting};
use crate::served::{Site, push};

const PLAIN: &str = "name: plain\nstages: { a: { reuse: false, run: 'echo made > out.txt', outputs: [out.txt] } }\n";

fn builds(place: &Place) -> Vec<u64> {
    let listed = place.json(&["builds", "--json"]);
    let mut found: Vec<u64> = listed.as_array().unwrap().iter().map(|build| build["id"].as_u64().unwrap()).collect();
    found.sort_unstable();
    found
}

fn logs(place: &Place) -> Vec<u64> {
    let folders = fs::read_dir(place.data().join("logs")).unwrap();
    let mut found: Vec<u64> = folders.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect();
    found.sort_unstable();
    found
}

#[track_caller]
fn sound(place: &Place) {
    let looked = place.run(&["doctor", "--deep"]);
    let deep: Vec<&str> = looked.out.lines().filter(|line| line.contains(" deep ")).collect();
    assert!(deep.len() > 5 && deep.iter().all(|line| line.starts_with('✓')), "{}", looked.out);
}

#[test]
fn builds_go_and_the_champion_stays() {
    let port = free_port();
    let place = Place::with(&promoting("decision-tree", port));
    place.write("players.csv", &players());
    place.expect(0, &["run"]);
    place.write("plain.yaml", PLAIN);
    for _ in 0..5 {
        place.expect(0, &["run", "plain.yaml", "--no-reuse"]);
    }
    // Logs that a killed clean-up left.
    fs::create_dir(place.data().join("logs/77")).unwrap();
    fs::write(place.data().join("logs/77/a.1.log"), "left").unwrap();

    let told = place.json(&["gc", "--keep-builds", "2", "--dry-run", "--json"]);
    assert_eq!(told["builds"]["builds"], 3, "{told:#}");
    assert_eq!(builds(&place), [1, 2, 3, 4, 5, 6]);
    let told = place.json(&["gc", "--keep-builds", "2", "--json"]);
    assert_eq!(told["builds"]["builds"], 3, "{told:#}");
    assert!(told["builds"]["log_bytes"].as_u64().unwrap() > 0, "{told:#}");

    assert_eq!(builds(&place), [1, 5, 6], "the champion's build stays, and the newest two");
    assert_eq!(logs(&place), [1, 5, 6]);
    assert_eq!(place.json(&["models", "--json"])[0]["champion"], 1);
    assert!(predicts(port));
    place.expect(1, &["show", "3"]);
    sound(&place);
    // What was made of the champion's build can still be had, and a new build takes from what is left.
    place.expect(0, &["run"]);
    let told = place.json(&["gc", "--older-than", "0s", "--json"]);
    assert_eq!(told["builds"]["builds"], 1, "the newest of each pipeline stays: {told:#}");
    assert_eq!(builds(&place), [1, 6, 7]);
    sound(&place);
    clear(&place);
}

/// A version that never served goes with its build, unless a later build's reused training names it.
#[test]
fn versions_that_never_served_go() {
    let port = free_port();
    let place = Place::with(&promoting("decision-tree", port));
    place.write("players.csv", &players());
    place.expect(0, &["run"]);
    for seed in [4, 5, 6] {
        let text = promoting("naive-bayes", port).replace("seed: 3", &format!("seed: {seed}"));
        place.write("pipeline.yaml", &text);
        place.run(&["run"]);
    }
    let versions = |place: &Place| {
        let shown = place.json(&["models", "show", "players", "--json"]);
        let mut all: Vec<u64> =
            shown["versions"].as_array().unwrap().iter().map(|row| row["version"].as_u64().unwrap()).collect();
        all.sort_unstable();
        (shown["champion"].as_u64(), all)
    };
    let (champion, all) = versions(&place);
    assert_eq!(all, [1, 2, 3, 4]);
    assert_eq!(champion, Some(1), "naive Bayes cannot be better on these rows");
    // The second version's training is reused by a later build.
    place.write("pipeline.yaml", &promoting("naive-bayes", port).replace("seed: 3", "seed: 4"));
    place.run(&["run"]);
    place.write("pipeline.yaml", &promoting("naive-bayes", port).replace("seed: 3", "seed: 6"));
    place.run(&["run"]);
    assert_eq!(place.stage(5, "train")["status"], "reused", "{:#}", place.stage(5, "train"));
    assert_eq!(builds(&place), [1, 2, 3, 4, 5, 6]);

    place.expect(0, &["gc", "--keep-builds", "2"]);
    let (champion, all) = versions(&place);
    assert_eq!(champion, Some(1));
    assert_eq!(all, [1, 2, 4], "3 never served, and nobody names it");
    assert_eq!(builds(&place), [1, 2, 4, 5, 6]);
    sound(&place);
    clear(&place);
}

#[test]
fn the_daemon_removes_what_is_old() {
    let site = Site::new(PLAIN, "");
    let daemon = site.serve();
    eventually("the first commit is built", || daemon.is_idle() && daemon.all("/api/v1/builds").len() == 1);
    let mut before = site.git(&["rev-parse", "HEAD"]);
    for number in 2..=5 {
        let after = site.commit(&format!("change {number}"));
        daemon.deliver("push", &format!("delivery-{number}"), &push("refs/heads/main", &before, &after));
        before = after;
        eventually("it is built", || daemon.is_idle() && daemon.all("/api/v1/builds").len() == number);
    }
    let made = daemon.all("/api/v1/builds").len();
    assert_eq!(daemon.terminate(), 0);

    // As if it had been half a year ago, for all but the newest.
    let half_a_year = 180 * 86_400 * 1_000_000_i64;
    let database = Connection::open(site.place.data().join("orchestrator.db")).unwrap();
    let old = "UPDATE builds SET created_at = created_at - ?1 WHERE id < (SELECT max(id) FROM builds)";
    database.execute(old, [half_a_year]).unwrap();
    database.execute("UPDATE deliveries SET received_at = received_at - ?1", [half_a_year]).unwrap();
    drop(database);

    let daemon = site.serve();
    eventually("the old builds are gone", || daemon.all("/api/v1/builds").len() == 1);
    eventually("the old deliveries are gone", || daemon.get("/api/v1/deliveries")["items"] == json!([]));
    assert!(made > 1, "{made}");
    let left = daemon.all("/api/v1/builds");
    assert_eq!(logs(&site.place), [left[0]["id"].as_u64().unwrap()]);
    let removed = format!("orchestrator_cleanup_removed_total{{kind=\"build\"}} {}", made - 1);
    // It is counted once the whole clean-up is done.
    eventually("it is counted", || {
        let metrics = crate::served::request(daemon.address(), "GET", "/metrics", &[], b"").unwrap();
        metrics.body.contains(&removed)
    });
    sound(&site.place);
    assert_eq!(daemon.terminate(), 0);
}
