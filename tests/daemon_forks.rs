//! Pull requests from forks: nobody's code runs before somebody agreed, and then without rights.

use orchestrator::runner::docker::DockerRunner;
use serde_json::{Value, json};

use crate::harness::eventually;
use crate::images;
use crate::served::{Served, Site, of_fork, stranger};

fn pipeline(image: &str) -> String {
    format!(
        "name: demo\non: {{ push: {{}}, pull_request: {{}} }}\ndefaults: {{ image: \"{image}\", cache: [/kept] }}\nstages:\n  \
         look: {{ run: 'echo of the base; touch /kept/x && echo may write the cache || echo may not write the cache' }}\n"
    )
}

async fn with_image(name: &str, test: impl FnOnce(&str)) {
    let Some(runner) = images::engine(&format!("{name}-{}", std::process::id())).await else { return };
    let runner: DockerRunner = runner;
    let image = images::busybox(&runner).await;
    tokio::task::block_in_place(|| test(&image));
}

fn of_request(daemon: &Served) -> Vec<Value> {
    let builds = daemon.all("/api/v1/builds");
    builds.into_iter().filter(|build| build["pull_request"] == 7).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_waits_for_approval_of_the_very_commit_and_gets_no_rights() {
    with_image("forks", |image| {
        let site = Site::new(&pipeline(image), "poll = \"off\"");
        let daemon = site.serve();
        eventually("the project's own build", || daemon.is_idle() && !daemon.counts().is_empty());
        assert_eq!(site.place.lines(1, "look", "stdout")[1], "may write the cache");
        let base = site.git(&["rev-parse", "main"]);
        let evil = pipeline(image).replace("of the base", "of the stranger");
        let head = stranger(&site, 7, &evil);
        assert_eq!(daemon.deliver("pull_request", "f-1", &of_fork("opened", 7, &base, &head)).status, 202);
        eventually("it waits", || of_request(&daemon).len() == 1);
        let first = of_request(&daemon)[0]["id"].as_u64().unwrap();
        eventually("it says for what", || {
            daemon.get("/api/v1/queue")["waiting"].as_array().unwrap().iter().any(|one| one["build"] == first)
        });
        assert_eq!(daemon.get("/api/v1/queue")["waiting"][0]["waits_for"], "a person's approval");

        // A newer commit asks anew, and the older one waits for nothing any more.
        let newer = stranger(&site, 7, &format!("{evil}# more\n"));
        assert_eq!(daemon.deliver("pull_request", "f-2", &of_fork("synchronize", 7, &base, &newer)).status, 202);
        eventually("the older one ends", || daemon.get(&format!("/api/v1/builds/{first}"))["status"] == "cancelled");
        let second = of_request(&daemon)[0]["id"].as_u64().unwrap();
        assert_eq!(daemon.post(&format!("/api/v1/builds/{first}/approve"), &json!({})).status, 409);
        assert_eq!(daemon.post(&format!("/api/v1/builds/{second}/approve"), &json!({})).status, 202);
        eventually("it is built", || daemon.get(&format!("/api/v1/builds/{second}"))["status"] == "passed");
        // The pipeline is the base branch's; the commit is the stranger's.
        assert_eq!(site.place.lines(second, "look", "stdout"), ["of the base", "may not write the cache"]);
        assert_eq!(daemon.get(&format!("/api/v1/builds/{second}"))["commit"], newer.as_str());
        assert_eq!(daemon.terminate(), 0);
    })
    .await;
}

#[test]
fn a_stranger_never_runs_with_the_daemons_own_rights() {
    let text = "name: demo\non: { push: {}, pull_request: {} }\nstages: { look: { run: 'id' } }\n";
    let site = Site::new(text, "poll = \"off\"\nforks = \"always\"");
    let daemon = site.serve();
    eventually("the project's own build", || daemon.counts().get("passed") == Some(&1));
    let base = site.git(&["rev-parse", "main"]);
    let head = stranger(&site, 7, &text.replace("id", "whoami"));
    assert_eq!(daemon.deliver("pull_request", "f-1", &of_fork("opened", 7, &base, &head)).status, 202);
    eventually("it is decided upon", || daemon.is_idle());
    let trigger = &daemon.all("/api/v1/triggers")[0];
    assert_eq!(trigger["decision"], "failed", "{trigger:#}");
    assert!(trigger["reason"].as_str().unwrap().contains("names no image"), "{trigger:#}");
    assert_eq!(of_request(&daemon).len(), 0);
}
