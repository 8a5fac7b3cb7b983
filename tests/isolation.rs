//! Who is held to a project learns nothing of others, and does nothing to them.

use serde_json::{Value, json};

use crate::harness::{Place, eventually};
use crate::served::{Answer, Served, Site, git, request};
use crate::sessions::{database, rewrite, token};

/// Trains and promotes; `q` is how good it is.
fn training(model: &str, before: &str, q: u32) -> String {
    format!(
        "stages:\n  train:\n    run: |\n      {before}\n      echo {q} > model\n      echo '{{\"q\": {q}}}' > metrics.json\n    \
         train: {{ model: {model}, artifact: model, metrics: metrics.json }}\n  promote:\n    needs: [train]\n    \
         promote: {{ model: {model}, better_if: {{ q: {{ goal: maximize }} }} }}\n"
    )
}

/// A daemon that asks for tokens, with the projects `demo` and `hidden`.
pub struct Two {
    pub site: Site,
    pub daemon: Served,
    pub admin: String,
    other: Place,
}

impl Two {
    /// The heads that a daemon finds at its first start are builds 1 and 2; what a test starts comes after them.
    pub fn new(demo: &str, hidden: &str) -> Self {
        let nothing = "stages: { a: { run: 'true' } }";
        let site = Site::new(nothing, "poll = \"off\"\n");
        let other = Place::with(nothing);
        let commit = |place: &Place| {
            git(&place.project(), &["add", "-A"]);
            git(&place.project(), &["commit", "-q", "--allow-empty", "-m", "a commit"]);
        };
        git(&other.project(), &["init", "-q", "-b", "main", "."]);
        commit(&other);
        let project = format!(
            "poll = \"off\"\n[projects.hidden]\nrepository = {:?}\ntrusted = true\npoll = \"off\"\n",
            other.project().display().to_string()
        );
        site.configure(&project);
        rewrite(&site, "[auth]\nmode = \"none\"\n", "[auth]\nmode = \"token\"\n");
        let daemon = site.serve();
        let admin = token(&site, "admin-of-all", &["--scope", "admin"]);
        let two = Self { site, daemon, admin, other };
        eventually("both heads are built", || [1, 2].iter().all(|&build| two.status(build) == "passed"));
        for (place, pipeline) in [(&two.site.place, demo), (&two.other, hidden)] {
            place.write("pipeline.yaml", pipeline);
            commit(place);
        }
        two
    }

    /// A token for one project.
    pub fn held_to(&self, project: &str) -> String {
        let arguments = ["--scope", "approve", "--scope", "trigger", "--project", project];
        token(&self.site, &format!("of-{project}"), &arguments)
    }

    pub fn ask(&self, token: &str, method: &str, path: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        request(self.daemon.address(), method, &format!("/api/v1{path}"), &headers, body.as_bytes()).unwrap()
    }

    #[track_caller]
    pub fn get(&self, token: &str, path: &str) -> Value {
        let answer = self.ask(token, "GET", path, &Value::Null);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    pub fn start(&self, project: &str) {
        let answer = self.ask(&self.admin, "POST", &format!("/projects/{project}/builds"), &json!({}));
        assert_eq!(answer.status, 202, "{}", answer.body);
    }

    pub fn status(&self, build: u64) -> Value {
        self.ask(&self.admin, "GET", &format!("/builds/{build}"), &Value::Null).json()["status"].clone()
    }

    /// What a stage failed with.
    fn failure(&self, build: u64, stage: usize) -> String {
        let stages = self.get(&self.admin, &format!("/builds/{build}"))["stages"].clone();
        stages[stage]["attempts"][0]["reason"].as_str().unwrap_or_default().to_owned()
    }
}

const REFUSED: &str = "model `shared` belongs to another project: give yours another name";

#[test]
fn a_models_name_is_one_projects() {
    let two = Two::new(&training("shared", ":", 9), &training("shared", ":", 5));
    two.start("hidden");
    eventually("the model is there", || two.status(3) == "passed");
    two.start("demo");
    eventually("another project may not have its name", || two.status(4) == "failed");
    assert_eq!(two.failure(4, 0), REFUSED);

    let (demo, hidden) = (two.held_to("demo"), two.held_to("hidden"));
    let nothing = |told: &Answer| {
        assert_eq!((told.status, told.json()["detail"].as_str()), (404, Some("there is no model `shared`")));
    };
    assert_eq!(two.get(&demo, "/models"), json!([]));
    for path in ["versions", "versions/1", "promotions"] {
        nothing(&two.ask(&demo, "GET", &format!("/models/shared/{path}"), &Value::Null));
    }
    for (verb, body) in
        [("promote", json!({ "version": 1 })), ("reject", json!({ "version": 1 })), ("rollback", json!({}))]
    {
        nothing(&two.ask(&demo, "POST", &format!("/models/shared/{verb}"), &body));
    }
    let seen = two.get(&hidden, "/models");
    assert_eq!(
        (&seen[0]["project"], &seen[0]["champion"], &seen[0]["versions"]),
        (&json!("hidden"), &json!(1), &json!(1))
    );
    assert_eq!(two.daemon.terminate(), 0);
}

/// The name was free when the training began, and is not any more when it ends.
#[test]
fn who_registers_first_has_the_name() {
    let gate = tempfile::tempdir().unwrap();
    let (begun, go) = (gate.path().join("begun"), gate.path().join("go"));
    let wait = format!("touch {}; until test -e {}; do sleep 0.05; done", begun.display(), go.display());
    let two = Two::new(&training("shared", &wait, 9), &training("shared", ":", 5));
    two.start("demo");
    eventually("it trains", || begun.exists());
    two.start("hidden");
    eventually("the other one is faster", || two.status(4) == "passed");
    std::fs::write(go, "").unwrap();
    eventually("it comes too late", || two.status(3) == "failed");
    assert_eq!(two.failure(3, 0), REFUSED);
    assert_eq!(two.get(&two.admin, "/models")[0]["versions"], 1);
    assert_eq!(two.daemon.terminate(), 0);
}

/// Earlier programs let any project add versions to any model, and such folders are still there.
#[test]
fn versions_of_several_projects_are_held_apart() {
    let two = Two::new(&training("own", ":", 9), &training("shared", ":", 5));
    two.start("hidden");
    eventually("the model is there", || two.status(3) == "passed");
    two.start("demo");
    eventually("so is another", || two.status(4) == "passed");
    let db = database(&two.site);
    for (version, build) in [(2, 4), (3, 3)] {
        db.execute(
            "INSERT INTO versions SELECT 'shared', ?1, build, node, artifact, outputs, metrics, lineage, made_at \
             FROM versions WHERE build = ?2 AND version = 1",
            [version, build],
        )
        .unwrap();
        db.execute(
            "INSERT INTO promotions (model, candidate, champion, verdict, actor, evidence, at) \
             VALUES ('shared', ?1, ?1 - 1, 'promoted', 'ann', '{}', 1)",
            [version],
        )
        .unwrap();
    }
    db.execute("UPDATE aliases SET version = 3 WHERE model = 'shared'", []).unwrap();
    drop(db);

    let (demo, hidden) = (two.held_to("demo"), two.held_to("hidden"));
    let models = two.get(&demo, "/models");
    assert_eq!((models.as_array().unwrap().len(), &models[0]["model"]), (1, &json!("own")));
    assert_eq!(two.ask(&demo, "GET", "/models/shared/versions/2", &Value::Null).status, 404);
    let numbers = |token: &str, what: &str, name: &str| -> Vec<u64> {
        let rows = two.get(token, &format!("/models/shared/{what}"))["items"].clone();
        rows.as_array().unwrap().iter().map(|row| row[name].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers(&hidden, "versions", "version"), [3, 1]);
    assert_eq!(numbers(&hidden, "promotions", "candidate"), [1], "those about version 2 hold its numbers");
    assert_eq!(numbers(&two.admin, "versions", "version"), [3, 2, 1]);
    assert_eq!(numbers(&two.admin, "promotions", "candidate"), [3, 2, 1]);
    let refused = |method: &str, path: &str, body: Value, words: &str| {
        let told = two.ask(&hidden, method, &format!("/models/shared/{path}"), &body);
        assert_eq!((told.status, told.json()["detail"].as_str()), (404, Some(words)), "{path}");
    };
    let none = "model `shared` has no version 2";
    refused("GET", "versions/2", Value::Null, none);
    refused("POST", "promote", json!({ "version": 2 }), none);
    refused("POST", "reject", json!({ "version": 2 }), none);
    refused("POST", "rollback", json!({}), "there is no model `shared`");
    let back = two.ask(&two.admin, "POST", "/models/shared/rollback", &json!({}));
    assert_eq!((back.status, &back.json()["version"]), (202, &json!(2)), "{}", back.body);

    // Nor is a pipeline told its numbers.
    two.start("hidden");
    eventually("it trains again or takes the result", || two.status(5) == "failed");
    assert!(two.failure(5, 1).contains("version 2, was made by another project"), "{}", two.failure(5, 1));
    assert_eq!(two.daemon.terminate(), 0);
}

/// Names of tokens are chosen freely, and so are keys of requests.
#[test]
fn answers_are_given_again_to_their_own_token_alone() {
    let nothing = "stages: { a: { run: 'true' } }";
    let two = Two::new(nothing, nothing);
    let make = |project: &str| token(&two.site, "nightly", &["--scope", "trigger", "--project", project]);
    let (demo, hidden) = (make("demo"), make("hidden"));
    let start = |token: &str| {
        let bearer = format!("Bearer {token}");
        let json = ("content-type", "application/json");
        let headers = [("authorization", bearer.as_str()), json, ("idempotency-key", "tonight")];
        request(two.daemon.address(), "POST", "/api/v1/projects/hidden/builds", &headers, b"{}").unwrap()
    };
    let first = start(&hidden);
    assert_eq!(first.status, 202, "{}", first.body);
    assert_eq!(start(&demo).status, 404, "it may not know of that project");
    let again = start(&hidden);
    assert_eq!((again.status, &again.body), (202, &first.body));
    assert_eq!(start(&two.admin).status, 202);
    eventually("both were started, once each", || two.status(4) == "passed");
    assert_eq!(two.get(&two.admin, "/builds")["items"].as_array().unwrap().len(), 4);
    assert_eq!(two.daemon.terminate(), 0);
}

#[test]
fn the_queue_of_a_project_is_its_own() {
    let nothing = "stages: { a: { run: 'true' } }";
    let two = Two::new(nothing, nothing);
    assert_eq!(two.ask(&two.admin, "POST", "/queue/pause", &json!({})).status, 202);
    two.start("hidden");
    eventually("one waits", || two.status(3) == "queued");
    two.start("demo");
    eventually("another one waits", || two.status(4) == "queued");
    // More than are shown, and all of them go first.
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 520) \
                INSERT INTO builds (project, pipeline, request, status, status_json, created_at, trigger, priority) \
                SELECT project, pipeline, request, status, status_json, created_at, trigger, 9 FROM builds, n WHERE id = 3";
    database(&two.site).execute(many, []).unwrap();
    let (demo, hidden) = (two.held_to("demo"), two.held_to("hidden"));
    let counted = |token: &str| {
        let queue = two.get(token, "/queue");
        (queue["count"].as_u64().unwrap(), queue["waiting"].as_array().unwrap().len())
    };
    eventually("the queue has looked", || {
        two.ask(&two.admin, "POST", "/queue/pause", &json!({}));
        counted(&two.admin) == (522, 500)
    });
    assert_eq!(counted(&hidden), (521, 500));
    assert_eq!(counted(&demo), (1, 1), "its own is shown, however many of others go first");
    assert_eq!(two.get(&demo, "/queue")["waiting"][0]["build"], 4);
    two.daemon.kill();
}
