//! What people decide about models, over the API, a server's command line and pages; what a pipeline makes of it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::deployment::{clear, free_port};
use crate::harness::{Place, eventually};
use crate::pages::page;
use crate::run::{healthy, players, promoting};
use crate::served::{Answer, Served, Site, request};
use crate::sessions::token;

/// A daemon with version 1 as the champion that serves, and version 2 that was kept out.
fn with_two(port: u16) -> (Site, Served) {
    let site = Site::new(&promoting("decision-tree", port), "poll = \"watch\"\n");
    site.place.write("players.csv", &players());
    site.commit("with data");
    let daemon = site.serve();
    eventually("the first model serves", || daemon.counts().get("passed") == Some(&1));
    site.place.write("pipeline.yaml", &promoting("naive-bayes", port));
    site.commit("another algorithm");
    eventually("a second model is judged", || {
        daemon.get("/api/v1/models/players/promotions")["items"].as_array().unwrap().len() == 2 && daemon.is_idle()
    });
    (site, daemon)
}

fn live(daemon: &Served) -> Vec<(u64, String)> {
    let rows = daemon.get("/api/v1/deployments");
    let row = |row: &Value| (row["version"].as_u64().unwrap(), row["status"].as_str().unwrap().to_owned());
    rows.as_array().unwrap().iter().map(row).collect()
}

/// The files that hold this.
fn holding(folder: &Path, words: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, words));
        } else if std::fs::read(&path).unwrap().windows(words.len()).any(|window| window == words) {
            found.push(path);
        }
    }
    found
}

fn serves(daemon: &Served, port: u16, version: u64) {
    eventually("the version serves", || live(daemon) == [(version, "live".to_owned())] && healthy(port));
    assert_eq!(daemon.get("/api/v1/models")[0]["champion"], version);
}

fn refused(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert!(answer.json()["detail"].as_str().unwrap().contains(words), "{}", answer.body);
}

#[test]
fn a_server_is_told_what_to_promote() {
    let port = free_port();
    let (site, daemon) = with_two(port);
    let ask = |verb: &str, body: Value| daemon.post(&format!("/api/v1/models/players/{verb}"), &body);

    let before = daemon.get("/api/v1/models/players/promotions")["items"].clone();
    refused(&ask("promote", json!({ "version": 9 })), 404, "no version 9");
    refused(&ask("promote", json!({ "version": 2, "champion": 2 })), 409, "is version 1 by now, not version 2");
    refused(&ask("reject", json!({ "version": 1 })), 409, "is the champion");
    refused(&ask("rollback", json!({})), 409, "there is none before it");
    refused(&ask("promote", json!({ "version": 2, "reason": "x".repeat(1001) })), 400, "1000");
    assert_eq!(daemon.post("/api/v1/models/nobody/rollback", &json!({})).status, 404);
    assert_eq!(daemon.get("/api/v1/models/players/promotions")["items"], before, "nothing was done");

    let done = ask("promote", json!({ "version": 2, "champion": 1, "reason": "agreed" }));
    assert_eq!(done.status, 202, "{}", done.body);
    let done = done.json();
    assert_eq!(
        (&done["verdict"], &done["before"], &done["deployment"]["port"]),
        (&json!("promoted"), &json!(1), &json!(port))
    );
    serves(&daemon, port, 2);
    assert_eq!(ask("promote", json!({ "version": 2 })).json()["verdict"], Value::Null, "it is champion already");

    let server = format!("http://{}", daemon.address());
    let back = site.place.expect(0, &["--server", &server, "rollback", "players", "--reason", "wrong for keepers"]);
    assert!(back.out.contains("version 1 of `players` is champion (rolled-back)"), "{}", back.out);
    serves(&daemon, port, 1);
    let told = site.place.expect(0, &["--server", &server, "reject", "players", "2", "--reason", "of old data"]);
    assert!(told.out.contains("no pipeline promotes it"), "{}", told.out);
    site.place.expect(1, &["--server", &server, "rollback", "players"]);

    let audit = daemon.get("/api/v1/audit")["items"].clone();
    let lines: Vec<(&str, &str, &str)> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["action"].as_str().unwrap(), row["target"].as_str().unwrap(), row["detail"].as_str().unwrap()))
        .collect();
    let expected = [
        ("model.reject", "players/2", "of old data"),
        ("model.rollback", "players/1", "wrong for keepers"),
        ("model.promote", "players/2", "agreed"),
    ];
    assert_eq!(lines[..3], expected);
    assert_eq!(daemon.terminate(), 0);
    clear(&site.place);
}

/// Servers have the secrets of the daemon's own store, whoever starts them.
#[test]
fn a_server_with_secrets_is_exchanged_by_hand() {
    let port = free_port();
    let pipeline = |algorithm: &str| {
        promoting(algorithm, port).replace("serve: { linfa: train,", "serve: { linfa: train, secrets: [API_KEY],")
    };
    let site = Site::new(&pipeline("decision-tree"), "poll = \"off\"\n");
    site.place.write("players.csv", &players());
    site.commit("with data");
    let daemon = site.serve();
    eventually("without the secret it fails", || daemon.counts().get("failed") == Some(&1));
    let json = [("content-type", "application/json")];
    let path = "/api/v1/projects/demo/secrets/API_KEY";
    let set = request(daemon.address(), "PUT", path, &json, br#"{"value":"hush"}"#).unwrap();
    assert_eq!(set.status, 204, "{}", set.body);
    let build = |passed: usize| {
        assert_eq!(daemon.post("/api/v1/projects/demo/builds", &json!({})).status, 202);
        eventually("a build has passed", || daemon.counts().get("passed") == Some(&passed));
    };
    build(1);
    serves(&daemon, port, 1);
    site.place.write("pipeline.yaml", &pipeline("naive-bayes"));
    site.commit("another algorithm");
    build(2);
    assert_eq!(daemon.post("/api/v1/models/players/promote", &json!({ "version": 2 })).status, 202);
    serves(&daemon, port, 2);
    assert_eq!(daemon.terminate(), 0);
    clear(&site.place);
}

/// One whose server cannot start does not stay champion, and the one before serves again.
#[test]
fn what_does_not_get_ready_is_taken_back() {
    let port = free_port();
    let (site, daemon) = with_two(port);
    // Its files are there; what its server reads is not what it can read.
    let models = holding(&site.place.data().join("artifacts/blobs"), b"naive-bayes");
    assert!(!models.is_empty());
    for model in models {
        std::fs::write(&model, b"broken").unwrap();
    }
    let done = daemon.post("/api/v1/models/players/promote", &json!({ "version": 2 }));
    assert_eq!(done.status, 202, "{}", done.body);
    eventually("it is taken back", || {
        daemon.get("/api/v1/models/players/promotions")["items"][0]["evidence"]["deployment"] == "failed"
    });
    serves(&daemon, port, 1);
    assert_eq!(daemon.terminate(), 0);
    clear(&site.place);
}

#[test]
fn pages_ask_before_they_decide() {
    let port = free_port();
    let (site, daemon) = with_two(port);
    let version = page(&daemon, "/models/players/versions/2").body;
    for shown in
        ["players version 2", "Confusion matrix", "said 1", "players.csv", "/versions/2/promote", "/versions/2/reject"]
    {
        assert!(version.contains(shown), "{shown}: {version}");
    }
    assert!(!page(&daemon, "/models/players/versions/1").body.contains("Roll back…"), "there is none before it");
    assert_eq!(page(&daemon, "/models/players/versions/9").status, 404);
    assert_eq!(page(&daemon, "/models/players/rollback").status, 409);
    let compared = page(&daemon, "/models/players/compare?a=1&b=2").body;
    assert!(compared.contains("Confusion matrices") && !compared.contains("confusion."), "{compared}");

    let asked = page(&daemon, "/models/players/versions/2/promote").body;
    assert!(asked.contains(&format!("Version 1 serves on port {port}: it stops")), "{asked}");
    assert!(asked.contains("name=\"champion\" value=\"1\""), "{asked}");
    let origin = format!("http://{}", daemon.address());
    let send = |path: &str, form: &str| {
        let form_of = ("content-type", "application/x-www-form-urlencoded");
        let headers = [("origin", origin.as_str()), ("accept", "text/html"), form_of];
        request(daemon.address(), "POST", path, &headers, form.as_bytes()).unwrap()
    };
    assert_eq!(send("/models/players/versions/2/promote", "champion=7").status, 409);
    assert_eq!(send("/models/players/versions/2/promote", "champion=1&reason=%3Cb%3Eso%3C%2Fb%3E").status, 303);
    serves(&daemon, port, 2);
    let model = page(&daemon, "/models/players").body;
    assert!(model.contains("&lt;b&gt;so") && model.contains("/models/players/rollback"), "{model}");
    assert!(page(&daemon, "/models/players/rollback").body.contains("Roll players back to version 1?"));
    assert_eq!(send("/models/players/rollback", "champion=2").status, 303);
    serves(&daemon, port, 1);
    // Whoever would promote it again reads that it was taken down.
    let again = page(&daemon, "/models/players/versions/2/promote").body;
    assert!(again.contains("The last decision about version 2 was “rolled-back”"), "{again}");
    let version = page(&daemon, "/models/players/versions/2").body;
    assert!(version.contains("back to version 1 from version 2"), "{version}");
    assert_eq!(send("/models/players/versions/2/reject", "reason=late").status, 303);
    assert!(page(&daemon, "/models/players/versions/2").body.contains("rejected"));
    assert_eq!(daemon.terminate(), 0);
    clear(&site.place);
}

/// Whoever may only look, or belongs to another project, changes nothing.
#[test]
fn only_those_who_may_approve_decide() {
    let pipeline = "stages:\n  train:\n    run: |\n      echo m > model\n      echo '{\"q\": 1}' > metrics.json\n    train: { model: m, artifact: model, metrics: metrics.json }\n";
    let site = Site::new(pipeline, "poll = \"watch\"\n");
    let config = std::fs::read_to_string(site.config()).unwrap().replace("mode = \"none\"", "mode = \"token\"");
    std::fs::write(site.config(), config).unwrap();
    let daemon = site.serve();
    let admin = token(&site, "admin-of-all", &["--scope", "admin"]);
    let ask = |token: &str, method: &str, path: &str, body: &[u8]| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        request(daemon.address(), method, path, &headers, body).unwrap()
    };
    eventually("there is a version", || ask(&admin, "GET", "/api/v1/models/m/versions/1", b"").status == 200);
    let check = |scope: &[&str], name: &str, status: u16| {
        let token = token(&site, name, scope);
        let answer = ask(&token, "POST", "/api/v1/models/m/promote", b"{\"version\":1}");
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
    };
    check(&["--scope", "read"], "looker", 403);
    check(&["--scope", "trigger"], "starter", 403);
    check(&["--scope", "approve", "--project", "other"], "stranger", 404);
    check(&["--scope", "approve", "--project", "demo"], "owner", 202);
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn what_a_person_rejected_is_promoted_by_a_person_alone() {
    let place = Place::with(
        "stages:\n  train:\n    run: |\n      cp q.txt model\n      echo \"{\\\"q\\\": $(cat q.txt)}\" > metrics.json\n    train: { model: m, artifact: model, metrics: metrics.json }\n  promote:\n    needs: [train]\n    promote: { model: m, better_if: { q: { goal: maximize } } }\n",
    );
    let judged = |build: u64, q: &str, arguments: &[&str]| {
        place.write("q.txt", q);
        place.expect(0, &[&["run"], arguments].concat());
        let judgement = place.stage(build, "promote")["attempts"][0]["reports"]["judgement"].clone();
        (judgement["outcome"].as_str().unwrap().to_owned(), judgement["reason"].as_str().unwrap().to_owned())
    };
    assert_eq!(judged(1, "5", &[]).0, "promoted");
    assert_eq!(judged(2, "1", &[]).0, "rejected", "it is worse");
    place.expect(2, &["reject", "m", "1"]);
    place.expect(0, &["reject", "m", "2", "--reason", "trained on the wrong season"]);
    // The champion goes, so that the rejected one would be better than what is left.
    assert_eq!(judged(3, "6", &[]).0, "promoted");
    place.expect(0, &["reject", "m", "1"]);
    place.write("q.txt", "7");
    place.expect(0, &["run", "--stage", "train"]);
    place.expect(0, &["reject", "m", "4", "--reason", "a leak"]);
    let (outcome, reason) = judged(5, "7", &["--no-reuse"]);
    assert_eq!(outcome, "rejected", "{reason}");
    assert!(reason.contains("v4, byte for byte, which was rejected by") && reason.contains("(a leak)"), "{reason}");
    place.expect(0, &["promote", "m", "4"]);
    assert_eq!(judged(6, "7", &[]).0, "unchanged");
}
