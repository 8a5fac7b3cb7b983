//! The daemon: what happens becomes builds, and nothing that was accepted is lost.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::harness::eventually;
use crate::served::{Site, deliver, push};

const HELLO: &str = "name: demo\non: { push: { branches: ['**'] } }\nstages:\n  hello: { run: 'echo hello' }\n";

/// Triggers by source.
fn sources(triggers: &[Value]) -> BTreeMap<String, Vec<(String, String)>> {
    let mut found: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for trigger in triggers {
        let text = |key: &str| trigger[key].as_str().unwrap_or_default().to_owned();
        found.entry(text("source")).or_default().push((text("decision"), text("reason")));
    }
    found
}

#[test]
fn a_commit_a_webhook_a_person_and_the_clock_start_builds() {
    let site = Site::new(
        "name: demo\non: { push: {}, schedule: [{ cron: '* * * * *' }] }\nparams: { who: { type: string, default: you } }\n\
         stages:\n  hello: { run: 'echo \"hello $PARAM_WHO\"' }\n",
        "poll = \"watch\"",
    );
    let daemon = site.serve();
    eventually("the default branch is built at first sight", || daemon.counts().get("passed") == Some(&1));

    let second = site.commit("second");
    eventually("a commit is built", || daemon.counts().get("passed") == Some(&2));

    // Nobody watches the ref below `refs/pull`, so that the webhook alone tells of it.
    let before = second;
    let third = site.commit("third");
    let answer = daemon.deliver("push", "d-1", &push("refs/heads/main", &before, &third));
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(daemon.deliver("push", "d-1", &push("refs/heads/main", &before, &third)).status, 200);
    assert_eq!(daemon.deliver("push", "d-1", &push("refs/heads/main", &before, &before)).status, 409);
    eventually("the webhook is decided upon", || daemon.is_idle());
    let of_third = |builds: Vec<Value>| builds.iter().filter(|build| build["commit"] == third.as_str()).count();
    assert_eq!(of_third(daemon.all("/api/v1/builds")), 1, "a webhook and the watch tell of the same commit");

    let asked = json!({ "params": { "who": "Ann" } });
    assert_eq!(daemon.post("/api/v1/projects/demo/builds", &asked).status, 202);
    eventually("what was asked for is built", || daemon.is_idle());
    let builds = daemon.all("/api/v1/builds");
    let asked_for = builds.iter().find(|build| build["event"] == "manual");
    let asked_for =
        asked_for.unwrap_or_else(|| panic!("{:#?}", daemon.all("/api/v1/triggers")))["id"].as_u64().unwrap();
    assert_eq!(site.place.lines(asked_for, "hello", "stdout"), ["hello Ann"]);
    assert_eq!(daemon.post("/api/v1/projects/other/builds", &asked).status, 404);

    let scheduled = || sources(&daemon.all("/api/v1/triggers")).contains_key("schedule");
    // A slot is at most a minute away.
    for _ in 0..3 {
        if !scheduled() {
            std::thread::sleep(Duration::from_secs(20));
        }
    }
    eventually("a slot of the schedule came", scheduled);
    let found = sources(&daemon.all("/api/v1/triggers"));
    assert_eq!(found["schedule"][0].0, "started", "{found:?}");
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn what_happens_while_nothing_runs_is_built_at_the_next_start() {
    let site = Site::new(HELLO, "poll = \"off\"");
    let daemon = site.serve();
    eventually("the first build", || daemon.counts().get("passed") == Some(&1));
    assert_eq!(daemon.terminate(), 0);
    site.git(&["checkout", "-q", "-b", "other"]);
    site.commit("unseen");
    let daemon = site.serve();
    eventually("the unseen commit is built", || daemon.counts().get("passed") == Some(&2));
    let found = sources(&daemon.all("/api/v1/triggers"));
    assert_eq!(found["catch-up"].len(), 2, "{found:?}");
}

#[test]
fn a_polled_repository_is_built_once_a_commit() {
    let site = Site::new(HELLO, "poll = \"1s\"");
    let daemon = site.serve();
    eventually("the first build", || daemon.counts().get("passed") == Some(&1));
    site.commit("second");
    eventually("the second build", || daemon.counts().get("passed") == Some(&2));
    // Two more looks at what has not moved.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(daemon.all("/api/v1/triggers").len(), 2);
    let found = sources(&daemon.all("/api/v1/triggers"));
    assert_eq!(found["poll"][0].0, "started", "{found:?}");
}

#[test]
fn a_second_daemon_on_the_same_folder_refuses_to_start() {
    let site = Site::new(HELLO, "poll = \"off\"");
    let daemon = site.serve();
    let ended = site.place.run(&["serve", "--config", &site.config().display().to_string()]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(ended.err.contains(&format!("process {} is a daemon on the data folder", daemon.pid())), "{}", ended.err);
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn deliveries_that_nobody_signed_are_refused() {
    let site = Site::new(HELLO, "poll = \"off\"");
    let daemon = site.serve();
    let body = push("refs/heads/main", &"0".repeat(40), &"1".repeat(40));
    for headers in [
        vec![("x-github-event", "push"), ("x-github-delivery", "a"), ("content-type", "application/json")],
        vec![
            ("x-github-event", "push"),
            ("x-github-delivery", "a"),
            ("content-type", "application/json"),
            ("x-hub-signature-256", "sha256=0000000000000000000000000000000000000000000000000000000000000000"),
        ],
    ] {
        let answer = crate::served::request(daemon.address(), "POST", "/hooks/github", &headers, &body).unwrap();
        assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some("unsigned")));
    }
    assert_eq!(daemon.all("/api/v1/deliveries").len(), 0);
    // A commit that is nowhere: accepted, and decided as what it is.
    assert_eq!(daemon.deliver("push", "b", &body).status, 202);
    eventually("it has its reason", || {
        daemon.all("/api/v1/triggers").iter().any(|trigger| trigger["reason"].as_str().unwrap().contains("no commit"))
    });
}

/// The event of a payload's file, which GitHub's examples begin with.
fn event_of(name: &str) -> &str {
    name.split('.').next().unwrap()
}

#[test]
fn every_known_payload_is_taken_and_decided_upon() {
    let site = Site::new(HELLO, "poll = \"off\"");
    let daemon = site.serve();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/github-webhooks");
    let files = fs::read_dir(&folder).unwrap().chain(fs::read_dir(folder.join("own")).unwrap());
    let mut count = 0;
    for path in files.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "json")) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // As if all came from the project's repository.
        let mut body: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        if let Some(id) = body.pointer_mut("/repository/id") {
            *id = json!(crate::served::REPOSITORY);
        }
        if let Some(id) = body.pointer_mut("/pull_request/base/repo/id") {
            *id = json!(crate::served::REPOSITORY);
        }
        for bytes in [fs::read(&path).unwrap(), body.to_string().into_bytes()] {
            let answer = daemon.deliver(event_of(&name), &format!("all-{count}"), &bytes);
            assert_eq!(answer.status, 202, "{name}: {}", answer.body);
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
    eventually("all are decided upon", || daemon.is_idle());
    assert_eq!(daemon.all("/api/v1/deliveries").len(), count);
    for trigger in daemon.all("/api/v1/triggers") {
        assert_ne!(trigger["reason"], "", "{trigger:#}");
    }

    // GitHub's other content type.
    let first = site.git(&["rev-parse", "HEAD"]);
    let json = String::from_utf8(push("refs/heads/form", &"0".repeat(40), &first)).unwrap();
    let form: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &json).finish();
    let signature = orchestrator::trigger::signature::sign(crate::served::SECRET.as_bytes(), form.as_bytes());
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-github-event", "push"),
        ("x-github-delivery", "a form"),
        ("x-hub-signature-256", signature.as_str()),
    ];
    let send = |body: &[u8]| crate::served::request(daemon.address(), "POST", "/hooks/github", &headers, body).unwrap();
    assert_eq!(send(form.as_bytes()).status, 202);
    eventually("the form is built", || daemon.all("/api/v1/builds").iter().any(|build| build["branch"] == "form"));
    assert_eq!(send(&vec![b' '; (25 << 20) + 1]).status, 413);
}

#[test]
fn a_drain_is_quick_and_what_runs_goes_on() {
    let site = Site::new(
        "name: demo\non: { push: {} }\nstages:\n  slow: { run: 'echo begun; sleep 6; echo done' }\n",
        "poll = \"watch\"",
    );
    let daemon = site.serve();
    eventually("it runs", || site.place.units().len() == 1);
    let begun = std::time::Instant::now();
    assert_eq!(daemon.terminate(), 0);
    // The promise is 5 s; the stage alone takes longer than that.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(site.place.units().len(), 1, "the stage goes on");
    let daemon = site.serve();
    eventually("it has ended", || daemon.counts().get("passed") == Some(&1));
    assert_eq!(site.place.lines(1, "slow", "stdout"), ["begun", "done"]);
    let stage = site.place.stage(1, "slow");
    assert_eq!(stage["attempts"].as_array().unwrap().len(), 1, "{stage:#}");
}

#[test]
fn a_newer_build_of_its_group_takes_the_place_of_the_older() {
    let site = Site::new(
        "name: demo\non: { push: {} }\nconcurrency: { group: \"${branch}\", cancel_superseded: true }\n\
         stages:\n  slow: { run: 'sleep 30' }\n",
        "poll = \"watch\"",
    );
    let daemon = site.serve();
    eventually("it runs", || daemon.counts().get("running") == Some(&1));
    site.commit("newer");
    eventually("the older one ends", || daemon.get("/api/v1/builds/1")["status"] == "cancelled");
    let first = daemon.get("/api/v1/builds/1");
    assert_eq!(first["superseded_by"], 2, "{first:#}");
    assert_eq!(daemon.post("/api/v1/builds/2/cancel", &json!({ "kill": true })).status, 202);
    eventually("all is over", || daemon.is_idle());
}

#[test]
fn waiting_builds_say_what_they_wait_for() {
    let site = Site::new(
        "name: demo\non: { push: { branches: ['**'] } }\nstages:\n  slow: { run: 'sleep 30' }\n",
        "poll = \"watch\"\nmax_builds = 1",
    );
    let daemon = site.serve();
    eventually("it runs", || daemon.counts().get("running") == Some(&1));
    site.commit("second");
    eventually("the second waits", || !daemon.get("/api/v1/queue")["waiting"].as_array().unwrap().is_empty());
    let waits = daemon.get("/api/v1/queue")["waiting"][0]["waits_for"].as_str().unwrap().to_owned();
    assert_eq!(waits, "the project's limit: 1 of 1 builds under way (#1)");
    site.configure("poll = \"watch\"\nmax_builds = 2");
    eventually("a changed configuration lets it begin", || daemon.counts().get("running") == Some(&2));
    for build in [1, 2] {
        assert_eq!(daemon.post(&format!("/api/v1/builds/{build}/cancel"), &json!({ "kill": true })).status, 202);
    }
    eventually("all is over", || daemon.is_idle());
}

#[test]
fn a_full_queue_loses_nothing_and_says_so() {
    let site = Site::new(
        "name: demo\non: { push: { branches: ['**'] } }\nstages:\n  slow: { run: 'sleep 30' }\n",
        "poll = \"watch\"\nmax_builds = 1\n[queue]\nmax_waiting = 1",
    );
    let daemon = site.serve();
    eventually("one runs", || daemon.counts().get("running") == Some(&1));
    site.commit("second");
    eventually("one waits", || daemon.get("/api/v1/queue")["waiting"].as_array().unwrap().len() == 1);
    site.commit("third");
    let newest = || daemon.all("/api/v1/triggers")[0].clone();
    eventually("the third is told why it has to wait", || {
        let trigger = newest();
        trigger["decision"].is_null() && trigger["reason"].as_str().is_some_and(|why| why.contains("queue.max_waiting"))
    });
    assert_eq!(daemon.post("/api/v1/projects/demo/builds", &json!({})).status, 202);
    eventually("whoever asks is told at once", || {
        let trigger = newest();
        trigger["decision"] == "failed"
            && trigger["reason"].as_str().is_some_and(|why| why.contains("1 of 1 builds wait"))
    });
    for build in [1, 2] {
        assert_eq!(daemon.post(&format!("/api/v1/builds/{build}/cancel"), &json!({ "kill": true })).status, 202);
    }
    eventually("there is room, and the third begins", || {
        daemon.counts().get("running") == Some(&1) && daemon.all("/api/v1/builds")[0]["id"] == 3
    });
    assert_eq!(daemon.post("/api/v1/builds/3/cancel", &json!({ "kill": true })).status, 202);
    eventually("all is over", || daemon.is_idle());
}

#[test]
fn a_failed_build_runs_again_from_where_it_failed() {
    let gate = tempfile::tempdir().unwrap();
    let pipeline = format!(
        "name: demo\non: {{ push: {{}} }}\nstages:\n  make: {{ run: 'echo made > made.txt; echo make >> {at}/ledger', \
         outputs: [made.txt] }}\n  check: {{ needs: [make], run: 'cat made.txt; echo check >> {at}/ledger; test -e {at}/open' }}\n  \
         after: {{ needs: [check], run: 'echo after >> {at}/ledger' }}\n",
        at = gate.path().display()
    );
    let site = Site::new(&pipeline, "poll = \"off\"");
    let daemon = site.serve();
    eventually("it fails", || daemon.counts().get("failed") == Some(&1));
    fs::write(gate.path().join("open"), "").unwrap();
    let answer = daemon.post("/api/v1/builds/1/retry", &json!({}));
    assert_eq!((answer.status, &answer.json()["stages"]), (202, &json!(["check", "after"])));
    eventually("it passes", || daemon.counts().get("passed") == Some(&1));
    let attempts = |node: &str| site.place.stage(1, node)["attempts"].as_array().unwrap().len();
    assert_eq!((attempts("make"), attempts("check"), attempts("after")), (1, 2, 1));
    let ledger = || fs::read_to_string(gate.path().join("ledger")).unwrap();
    assert_eq!(ledger(), "make\ncheck\ncheck\nafter\n");
    assert_eq!(daemon.post("/api/v1/builds/1/retry", &json!({})).status, 409, "nothing failed");
    assert_eq!(daemon.post("/api/v1/builds/1/retry", &json!({ "stages": ["nowhere"] })).status, 409);
    assert_eq!(daemon.post("/api/v1/builds/1/retry", &json!({ "stages": ["after"] })).status, 202);
    eventually("one stage ran again", || attempts("after") == 2 && daemon.is_idle());
    assert_eq!(attempts("check"), 2);
    assert_eq!(daemon.terminate(), 0);

    // By hand, without a daemon.
    let ended = site.place.expect(0, &["retry", "1", "--all"]);
    assert!(ended.err.contains("runs again: make, check, after"), "{}", ended.err);
    assert_eq!((attempts("check"), attempts("after")), (3, 3));
    site.place.expect(2, &["retry", "1"]);
}

/// Kills over the test.
const KILLS: usize = 200;
/// Commits that are told of, each on a branch of its own.
const PUSHES: usize = 120;

/// Tells of pushes as GitHub does: one that was not answered is told again under the same id.
fn tell(pushes: &[(String, Vec<u8>)], address: &std::sync::Mutex<Option<std::net::SocketAddr>>, done: &AtomicBool) {
    for (index, (_, body)) in pushes.iter().enumerate() {
        let id = format!("delivery-{index}");
        loop {
            let at = *address.lock().unwrap();
            if let Some(answer) = at.and_then(|at| deliver(at, "push", &id, body).ok()) {
                assert!(matches!(answer.status, 200 | 202), "{}", answer.body);
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Spread over all of the kills.
        std::thread::sleep(Duration::from_millis(150));
    }
    done.store(true, Ordering::SeqCst);
}

#[test]
fn no_delivery_is_lost_and_none_built_twice_under_kill_9() {
    let ledger = tempfile::tempdir().unwrap();
    let path = ledger.path().join("ledger");
    let pipeline = format!(
        "name: demo\non: {{ push: {{ branches: ['**'] }} }}\nstages:\n  one:\n    run: |\n      i=0; while [ $i -lt 40 ]; do \
         echo \"line $i\"; i=$((i+1)); done; echo \"$ORCHESTRATOR_BRANCH one\" >> {path}\n  two:\n    needs: [one]\n    \
         run: 'echo \"$ORCHESTRATOR_BRANCH two\" >> {path}; echo end'\n",
        path = path.display()
    );
    let site = Site::new(&pipeline, "poll = \"off\"\nmax_builds = 8");
    let first = site.git(&["rev-parse", "HEAD"]);
    let pushes: Vec<(String, Vec<u8>)> = (0..PUSHES)
        .map(|index| {
            let commit = site.git(&["commit-tree", "-p", &first, "-m", &format!("c{index}"), "HEAD^{tree}"]);
            let name = format!("refs/heads/b{index}");
            site.git(&["update-ref", &name, &commit]);
            let body = push(&name, &"0".repeat(40), &commit);
            (commit, body)
        })
        .collect();
    // Branches that are there at the first look are only noted; the webhooks tell of each.
    let address = Arc::new(std::sync::Mutex::new(None));
    let done = Arc::new(AtomicBool::new(false));
    let mut random = SmallRng::seed_from_u64(11);
    let commits: Vec<String> = pushes.iter().map(|(commit, _)| commit.clone()).collect();
    let teller = {
        let (address, done) = (Arc::clone(&address), Arc::clone(&done));
        std::thread::spawn(move || tell(&pushes, &address, &done))
    };
    for _ in 0..KILLS {
        let daemon = site.serve();
        *address.lock().unwrap() = Some(daemon.address());
        std::thread::sleep(Duration::from_millis(random.gen_range(0..250)));
        *address.lock().unwrap() = None;
        daemon.kill();
    }
    let daemon = site.serve();
    *address.lock().unwrap() = Some(daemon.address());
    teller.join().unwrap();
    assert!(done.load(Ordering::SeqCst));
    eventually("all is decided and built", || daemon.is_idle());

    let builds = daemon.all("/api/v1/builds");
    let of_branches: Vec<&Value> = builds.iter().filter(|build| build["branch"] != "main").collect();
    for commit in &commits {
        let count = of_branches.iter().filter(|build| build["commit"] == commit.as_str()).count();
        assert_eq!(count, 1, "builds of {commit}");
    }
    assert_eq!(of_branches.len(), PUSHES, "a build that nobody asked for");
    assert_eq!(daemon.all("/api/v1/deliveries").len(), PUSHES);
    let traces = fs::read_to_string(&path).unwrap();
    let expected: Vec<String> = (0..40).map(|line| format!("line {line}")).collect();
    for build in &of_branches {
        assert_eq!(build["status"], "passed", "{build:#}");
        let branch = build["branch"].as_str().unwrap();
        for stage in ["one", "two"] {
            let line = format!("{branch} {stage}");
            assert_eq!(traces.lines().filter(|have| *have == line).count(), 1, "side effects: {line}");
        }
        let id = build["id"].as_u64().unwrap();
        assert_eq!(site.place.lines(id, "one", "stdout"), expected, "log of build {id}");
        assert_eq!(site.place.lines(id, "two", "stdout"), ["end"], "log of build {id}");
    }
    assert_eq!(daemon.terminate(), 0);
    let looked = site.place.run(&["doctor", "--deep"]);
    let broken: Vec<&str> =
        looked.out.lines().filter(|line| line.contains(" deep ") && !line.starts_with('✓')).collect();
    assert!(looked.out.contains(" deep ") && broken.is_empty(), "{}", looked.out);
    assert_eq!(site.place.units(), Vec::<String>::new());
    eventually("no process is left", || site.place.processes().is_empty());
}
