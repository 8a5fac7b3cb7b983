//! The machine's clock is put to another day while the daemon runs: nothing runs twice, nothing waits for ever, no time limit
//! is over. By libfaketime (Debian: `faketime`), which changes what the wall clock shows, and not the time that passes.

use std::fs;
use std::path::PathBuf;

use orchestrator::ids::Micros;
use serde_json::{Value, json};

use crate::harness::eventually;
use crate::served::{Served, Site};
use crate::sessions::database;

const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// Where the library is, in a folder named after the machine's kind.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join(LIBRARY));
    let found = folders.into_iter().find(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI has no libfaketime: apt-get install faketime");
        eprintln!("skipped: no libfaketime (Debian: faketime)");
    }
    found
}

/// What the wall clock of the daemon shows, beside the true one.
fn put(site: &Site, offset: &str) {
    let fresh = site.place.outside("offset.fresh");
    fs::write(&fresh, format!("{offset}\n")).unwrap();
    fs::rename(fresh, site.place.outside("offset")).unwrap();
}

fn serve(site: &Site, library: &std::path::Path) -> Served {
    let offset = site.place.outside("offset").display().to_string();
    site.serve_with(&[
        ("LD_PRELOAD", &library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", &offset),
        ("FAKETIME_NO_CACHE", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
    ])
}

fn trigger(daemon: &Served) {
    let answer = daemon.post("/api/v1/projects/demo/builds", &json!({ "no_reuse": true }));
    assert_eq!(answer.status, 202, "{}", answer.body);
}

/// Builds of one event, newest first.
fn of(daemon: &Served, event: &str) -> Vec<Value> {
    let builds = daemon.all("/api/v1/builds");
    builds.into_iter().filter(|build| build["event"] == event).collect()
}

fn passed(daemon: &Served, event: &str) -> usize {
    of(daemon, event).iter().filter(|build| build["status"] == "passed").count()
}

/// The true time.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}

#[test]
fn the_clock_is_put_to_another_day() {
    let Some(library) = library() else { return };
    let site = Site::new("stages: { a: { run: echo one } }", "poll = \"watch\"\nmax_builds = 4\n");
    let go = site.place.outside("go");
    // Twice a day; whenever this is run, a day ahead passes both.
    site.place.write(
        "pipeline.yaml",
        &format!(
            "on: {{ schedule: [{{ cron: \"0 3,15 * * *\" }}] }}\nstages:\n  a:\n    when: {{ event: [manual] }}\n    \
             run: while [ ! -e {go:?} ]; do sleep 0.1; done\n    timeout: 10m\n  \
             b:\n    when: {{ event: [schedule] }}\n    run: echo one\n  \
             c:\n    when: {{ event: [manual] }}\n    run: \"[ -e {tried} ] || {{ touch {tried}; exit 1; }}\"\n    \
             retry: {{ attempts: 2, on: [failure], delay: 5s }}\n",
            go = go.display().to_string(),
            tried = site.place.outside("tried").display(),
        ),
    );
    site.commit("slow");
    put(&site, "+1d");
    let daemon = serve(&site, &library);
    let slots = || database(&site).query_row("SELECT count(*) FROM schedules", [], |row| row.get::<_, i64>(0)).unwrap();
    eventually("the schedule is known", || slots() == 1);

    // Ahead, while a stage runs: two slots passed, which is one build, and no time limit is over.
    trigger(&daemon);
    eventually("a stage waits for its second try", || site.place.outside("tried").exists());
    put(&site, "+2d");
    eventually("one build for what was missed", || passed(&daemon, "schedule") == 1);
    let slow = &of(&daemon, "manual")[0];
    assert_eq!(slow["status"], "running", "{slow}");

    // Back to the true time: what runs goes on, what waits does not wait for two days.
    put(&site, "+0");
    let last = || database(&site).query_row("SELECT last FROM schedules", [], |row| row.get::<_, i64>(0)).unwrap();
    eventually("the schedule counts from now", || last() <= now());
    fs::write(&go, "").unwrap();
    eventually("the build passes", || passed(&daemon, "manual") == 1);
    trigger(&daemon);
    eventually("another one passes", || passed(&daemon, "manual") == 2);
    for build in daemon.all("/api/v1/builds") {
        let at = |name: &str| Micros(build[name].as_i64().unwrap());
        // Put back by two days, it took no time, and not minus two days.
        assert!(at("ended_at").since(at("started_at")).as_secs() < 86_400 * 3, "{build}");
    }

    // Ahead again, as if the days went by: the next slots run once more.
    put(&site, "+1d");
    eventually("the schedule runs again", || passed(&daemon, "schedule") == 2);
    // A restart looks at all of it again.
    assert_eq!(daemon.terminate(), 0);
    put(&site, "+0");
    let daemon = serve(&site, &library);
    eventually("the schedule counts from now, after a restart", || last() <= now());
    trigger(&daemon);
    eventually("a third one passes", || passed(&daemon, "manual") == 3);
    assert_eq!(of(&daemon, "schedule").len(), 2);
    assert_eq!(daemon.terminate(), 0);
}
