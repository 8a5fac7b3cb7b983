//! The pages for people, by plain HTTP: what a browser without scripts gets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::deployment::{clear, free_port};
use crate::harness::eventually;
use crate::run::{players, promoting};
use crate::served::{Answer, Served, Site, push, request};

/// A name that would break a page that took it for markup.
const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror=alert(2)> ' & {{ 7*7 }}";

pub fn page(daemon: &Served, path: &str) -> Answer {
    request(daemon.address(), "GET", path, &[("accept", "text/html")], b"").unwrap()
}

/// The head of an answer, in lower case.
fn head(daemon: &Served, method: &str, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(daemon.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let length =
        if method == "POST" { "content-length: 0\r\ncontent-type: application/x-www-form-urlencoded\r\n" } else { "" };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{length}{headers}\r\n",
        daemon.address()
    )
    .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).split("\r\n\r\n").next().unwrap().to_lowercase()
}

/// Nothing of a page is a script, a style, or what a stranger wrote as markup.
#[track_caller]
fn harmless(path: &str, body: &str) {
    let lower = body.to_lowercase();
    for wrong in [" style=", "<style", "javascript:", "<img src=x", "onerror=alert(2)>", "<script>", "\u{202e}"] {
        assert!(!lower.contains(wrong), "{path} holds {wrong}: {body}");
    }
    let handlers = lower.split('<').filter(|tag| {
        // Values of attributes are quoted, and no quote in them is one.
        let tag = tag.split('>').next().unwrap_or_default();
        let names: String = tag.split('"').step_by(2).collect();
        names.split_whitespace().skip(1).any(|word| word.starts_with("on") && word.contains('='))
    });
    assert_eq!(handlers.count(), 0, "{path} has handlers");
    for script in lower.split("<script").skip(1) {
        let script = script.replace(" blocking=\"render\"", "");
        assert!(script.starts_with(" type=\"module\" src=\"/static/"), "{path}: {script}");
    }
    for address in lower.split("href=\"").skip(1).chain(lower.split("src=\"").skip(1)) {
        assert!(address.starts_with(['/', '#']), "{path} leads elsewhere: {}", &address[..40.min(address.len())]);
    }
}

#[test]
fn every_page_is_there_and_harmless() {
    let pipeline = "stages: { good: { run: echo one }, bad: { needs: [good], run: 'cat title; exit 3' } }";
    let site = Site::new(pipeline, "poll = \"watch\"\n");
    site.place.write("title", &format!("{HOSTILE}\n\u{1b}[31mred\u{1b}[0m \u{1b}]0;title\u{7}\n"));
    site.commit(HOSTILE);
    site.git(&["checkout", "-q", "-b", "x\"onerror=alert(2)>\u{202e}"]);
    let daemon = site.serve();
    eventually("a build has failed", || daemon.counts().get("failed").is_some_and(|count| *count >= 1));

    let body = push("refs/heads/\"><script>alert(1)</script>", &"0".repeat(40), &"1".repeat(40));
    assert_eq!(daemon.deliver("push", "\"><script>alert(1)</script>", &body).status, 202);
    let paths = [
        "/",
        "/projects/demo",
        "/projects/demo?branch=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&text=%22%3E%3Cimg%20src=x%20onerror=alert(2)%3E",
        "/builds/1",
        "/builds/1/retry",
        "/builds/1/stages/bad/attempts/1",
        "/builds/1/stages/bad/attempts/1?q=%3Cscript%3E",
        "/builds/1/stages/bad/attempts/1/lines?from=0&limit=5",
        "/models",
        "/deployments",
        "/queue",
        "/deliveries",
        "/deliveries/1",
        "/settings",
        "/audit",
        "/search?q=%22%3E%3Cscript%3E",
        "/nothing",
    ];
    for path in paths {
        let answer = page(&daemon, path);
        assert_eq!(answer.status, if path == "/nothing" { 404 } else { 200 }, "{path}: {}", answer.body);
        assert!(path.contains("/lines") || answer.body.starts_with("<!doctype html>"), "{path}: {}", answer.body);
        harmless(path, &answer.body);
        let head = head(&daemon, "GET", path, "accept: text/html\r\n");
        assert!(
            head.contains("content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'"),
            "{head}"
        );
        assert!(head.contains("cache-control: no-store") && head.contains("referrer-policy: same-origin"), "{head}");
    }
    let build = page(&daemon, "/builds/1").body;
    assert!(build.contains("bad failed."), "{build}");
    assert!(build.contains("&#60;img src=x") || build.contains("&lt;img src=x"), "the log's end is shown: {build}");
    assert!(build.contains("<span class=\"c1 \">red</span>"), "{build}");

    let found = page(&daemon, "/builds/1/stages/bad/attempts/1?q=%3Cscript%3E").body;
    assert!(found.contains("<mark>&lt;script&gt;</mark>"), "{found}");

    assets(&daemon);
    // Programs are answered as before.
    let answer = request(daemon.address(), "GET", "/nothing", &[], b"").unwrap();
    assert_eq!(answer.json()["code"], "not-found");
    let answer = request(daemon.address(), "GET", "/api/v1/builds/99", &[("accept", "text/html")], b"").unwrap();
    assert_eq!(answer.json()["code"], "not-found");
    assert_eq!(daemon.terminate(), 0);
}

/// Names that a build makes up: of files, of metrics, of parameters, of steps.
#[test]
fn names_that_builds_make_up_are_harmless() {
    let file = "\"><img src=x onerror=alert(2)>' & \u{202e}gpj.x";
    let metric = "\"><script>alert(1)</script> {{ 7*7 }}";
    let pipeline = "params: { note: { type: string, default: '\"><script>alert(3)</script>' } }\nstages:\n  make:\n    run:\n      \
                    - { name: '<img src=x onerror=alert(2)>', run: 'touch \"$(cat name)\"' }\n    outputs: [\"*.x\"]\n  train:\n    run: \
                    'cp given.json metrics.json; echo model > model.bin'\n    train: { model: odd, artifact: model.bin, metrics: metrics.json }\n";
    let site = Site::new(pipeline, "poll = \"off\"\n");
    site.place.write("name", file);
    site.place.write("given.json", &serde_json::json!({ metric: 0.5, "accuracy": 0.9 }).to_string());
    site.commit("names");
    let daemon = site.serve();
    eventually("a build has ended", || daemon.is_idle() && !daemon.counts().is_empty());
    assert_eq!(daemon.counts().get("passed"), Some(&1), "{}", page(&daemon, "/builds/1").body);
    let asked = "metric=%22%3E%3Cscript%3Ealert(1)%3C/script%3E%20%7B%7B%207*7%20%7D%7D";
    let paths = [
        "/",
        "/projects/demo",
        "/builds/1",
        "/builds/1/stages/make/attempts/1",
        "/models",
        "/models/odd",
        &format!("/models/odd?{asked}"),
        "/models/odd/versions/1",
        "/models/odd/versions/1/promote",
        "/models/odd/compare?a=1&b=1",
    ];
    for path in paths {
        let answer = page(&daemon, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        harmless(path, &answer.body);
    }
    let escaped = |path: &str, shown: &str| {
        let body = page(&daemon, path).body;
        assert!(body.contains(shown), "{path} does not show {shown}: {body}");
    };
    let image = "&#34;&#62;&#60;img src=x onerror=alert(2)&#62;&#39; &#38; \u{fffd}gpj.x";
    escaped("/builds/1", image);
    escaped("/builds/1/stages/make/attempts/1", image);
    let script = "&#34;&#62;&#60;script&#62;alert(1)&#60;/script&#62; {{ 7*7 }}";
    for path in ["/models/odd", "/models/odd/versions/1", "/models/odd/compare?a=1&b=1"] {
        escaped(path, script);
    }
    assert_eq!(daemon.terminate(), 0);
}

/// Files are named by their content, packed for those who want it, and kept for good.
fn assets(daemon: &Served) {
    let home = page(daemon, "/").body;
    let names: Vec<&str> = home.split('"').filter(|part| part.starts_with("/static/")).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for name in names {
        let plain = head(daemon, "GET", name, "");
        assert!(plain.starts_with("http/1.1 200") && plain.contains("immutable"), "{plain}");
        assert!(!plain.contains("content-encoding"), "{plain}");
        let packed = head(daemon, "GET", name, "accept-encoding: gzip, br\r\n");
        assert!(packed.contains("content-encoding: gzip"), "{packed}");
    }
    assert!(head(daemon, "GET", "/static/app.000000000000.css", "").starts_with("http/1.1 404"));
}

/// Without JavaScript, by forms alone: a build is cancelled, retried; and nobody else's page can do it.
#[test]
fn builds_are_cancelled_and_retried_by_forms() {
    let site = Site::new(
        "stages: { a: { run: 'test -f go || sleep 600' }, b: { needs: [a], run: echo b } }",
        "poll = \"watch\"\n",
    );
    let daemon = site.serve();
    eventually("a build runs", || daemon.counts().get("running") == Some(&1));
    let running = page(&daemon, "/builds/1").body;
    assert!(
        running.contains("data-events=\"/api/v1/builds/1/events\"") && running.contains("/builds/1/cancel"),
        "{running}"
    );
    assert!(page(&daemon, "/builds/1/cancel").body.contains("Kill it at once"));

    for origin in ["origin: null\r\n", "origin: https://evil.example\r\n", "sec-fetch-site: cross-site\r\n"] {
        let head = head(&daemon, "POST", "/builds/1/cancel", &format!("{origin}accept: text/html\r\n"));
        assert!(head.starts_with("http/1.1 403"), "{head}");
    }
    assert_eq!(daemon.counts().get("running"), Some(&1));
    let ours = format!("origin: http://{}\r\naccept: text/html\r\n", daemon.address());
    let answer = head(&daemon, "POST", "/builds/1/cancel", &ours);
    assert!(answer.starts_with("http/1.1 303") && answer.contains("location: /builds/1"), "{answer}");
    eventually("it is cancelled", || daemon.counts().get("cancelled") == Some(&1));
    let cancelled = page(&daemon, "/builds/1").body;
    assert!(
        cancelled.contains("Cancelled: cancelled by the user.") && !cancelled.contains("data-events"),
        "{cancelled}"
    );

    let answer = head(&daemon, "POST", "/builds/1/retry", &ours);
    assert!(answer.starts_with("http/1.1 303"), "{answer}");
    eventually("it runs again", || daemon.counts().get("running") == Some(&1));
    // What cannot be done now says so, as a page.
    let address = daemon.address().to_string();
    let origin = format!("http://{address}");
    let headers =
        [("origin", origin.as_str()), ("accept", "text/html"), ("content-type", "application/x-www-form-urlencoded")];
    let answer = request(daemon.address(), "POST", "/builds/1/retry", &headers, b"how=all").unwrap();
    assert_eq!(answer.status, 409, "{}", answer.body);
    assert!(answer.body.starts_with("<!doctype html>"), "{}", answer.body);
    let answer = request(daemon.address(), "POST", "/builds/1/cancel", &headers, b"how=kill").unwrap();
    assert_eq!(answer.status, 303);
    eventually("it is cancelled", || daemon.counts().get("cancelled") == Some(&1));
    assert_eq!(daemon.terminate(), 0);
}

/// The filters of a project's builds, its pages, and the form that starts one.
#[test]
fn a_project_lists_finds_and_starts_builds() {
    let pipeline = "params: { trees: { type: integer, default: 3, min: 1, description: How many }, kind: { type: choice, \
                    choices: [plain, odd], default: odd } }\nstages: { a: { run: 'echo $PARAM_TREES $PARAM_KIND' } }";
    let site = Site::new(pipeline, "poll = \"watch\"\n");
    let daemon = site.serve();
    eventually("a build has passed", || daemon.counts().get("passed") == Some(&1));
    let project = page(&daemon, "/projects/demo").body;
    for shown in
        ["name=\"param.trees\" value=\"3\" step=\"1\" min=\"1\"", "<option value=\"odd\" selected>", "How many"]
    {
        assert!(project.contains(shown), "{shown}: {project}");
    }
    let origin = format!("http://{}", daemon.address());
    let form = b"branch=main&pipeline=pipeline.yaml&param.trees=7&param.kind=plain";
    let headers =
        [("origin", origin.as_str()), ("accept", "text/html"), ("content-type", "application/x-www-form-urlencoded")];
    let answer = request(daemon.address(), "POST", "/projects/demo/builds", &headers, form).unwrap();
    assert_eq!(answer.status, 303, "{}", answer.body);
    eventually("the second has passed", || daemon.counts().get("passed") == Some(&2));
    assert!(page(&daemon, "/projects/demo?trigger=2").body.contains("<b>Your build: started.</b>"));
    assert!(page(&daemon, "/builds/2").body.contains("<dt>trees</dt><dd><code>7</code></dd>"));
    let log = page(&daemon, "/builds/2/stages/a/attempts/1").body;
    assert!(log.contains("<code>7 plain</code>"), "{log}");

    // Filters: one by an index, one by looking.
    for (query, expected) in [
        ("branch=main", 2),
        ("branch=other", 0),
        ("event=manual", 1),
        ("text=FIRST", 2),
        ("text=nothing+like+it", 0),
        ("status=failed", 0),
        ("before=2", 1),
    ] {
        let body = page(&daemon, &format!("/projects/demo?{query}")).body;
        assert_eq!(body.matches("class=\"line-row\"").count(), expected, "{query}: {body}");
    }
    // A wish that cannot be met says so.
    let answer = request(daemon.address(), "POST", "/projects/demo/builds", &headers, b"branch=nowhere").unwrap();
    assert_eq!(answer.status, 303, "{}", answer.body);
    eventually("it is decided", || daemon.is_idle());
    let told = page(&daemon, "/projects/demo?trigger=3").body;
    assert!(told.contains("<b>Your build: not possible.</b>"), "{told}");
    for missing in
        ["/projects/nobody", "/builds/99", "/builds/1/stages/nobody", "/builds/1/stages/a/attempts/9", "/builds/x"]
    {
        assert_eq!(page(&daemon, missing).status, 404, "{missing}");
    }
    assert_eq!(daemon.terminate(), 0);
}

/// A long log is a window with ways to the rest; steps fold; the failing one is open.
#[test]
fn logs_are_read_by_windows_and_folded_by_steps() {
    let pipeline = "stages:\n  long: { run: 'seq 1 30000' }\n  steps:\n    run:\n      - { name: first, run: echo one }\n      \
                    - { name: second, run: 'echo two; exit 4' }\n";
    let site = Site::new(pipeline, "poll = \"watch\"\n");
    let daemon = site.serve();
    eventually("a build has failed", || daemon.counts().get("failed") == Some(&1));
    let base = "/builds/1/stages/long/attempts/1";
    let end = page(&daemon, base).body;
    assert!(
        end.contains("id=\"L30000\"") && end.contains("id=\"L29501\"") && !end.contains("id=\"L29500\""),
        "the end"
    );
    assert!(end.contains("?from=29000\" rel=\"prev\""), "a way back");
    let begin = page(&daemon, &format!("{base}?from=0")).body;
    assert!(begin.contains("id=\"L1\"") && begin.contains("?from=500\" rel=\"next\""), "the beginning");
    let lines = page(&daemon, &format!("{base}/lines?from=12344&limit=2")).body;
    assert_eq!(lines.matches("class=\"ln o\"").count(), 2, "{lines}");
    assert!(lines.contains("<code>12345</code>"), "{lines}");
    assert_eq!(
        page(&daemon, &format!("{base}/lines?from=29990&limit=999999")).body.matches("class=\"ln o\"").count(),
        10
    );
    let found = page(&daemon, &format!("{base}?q=12345")).body;
    assert!(found.contains("?from=12324#L12345"), "{found}");
    let steps = page(&daemon, "/builds/1/stages/steps/attempts/1").body;
    assert!(steps.contains("<details class=\"fold\"><summary>"), "what went well is closed: {steps}");
    assert!(steps.contains("<details class=\"fold\" open><summary>"), "what failed is open: {steps}");
    let head = head(&daemon, "GET", "/builds/1/stages/steps", "accept: text/html\r\n");
    assert!(head.contains("location: /builds/1/stages/steps/attempts/1"), "{head}");
    assert_eq!(daemon.terminate(), 0);
}

/// A model with a champion, its decision, itself beside itself; the queue is paused and resumed; a token is made and revoked.
#[test]
fn models_the_queue_and_tokens() {
    let port = free_port();
    let site = Site::new(&promoting("decision-tree", port), "poll = \"watch\"\n");
    site.place.write("players.csv", &players());
    site.commit("with data");
    let daemon = site.serve();
    eventually("a build has passed", || daemon.counts().get("passed") == Some(&1));
    let models = page(&daemon, "/models").body;
    assert!(
        models.contains("href=\"/models/players\"") && models.contains(&format!("version 1 on port {port}")),
        "{models}"
    );
    let model = page(&daemon, "/models/players?metric=accuracy").body;
    for shown in
        ["accuracy over the versions", "<svg class=\"chart\"", "promoted", "What it rests on", "<b>champion</b>"]
    {
        assert!(model.contains(shown), "{shown}: {model}");
    }
    harmless("/models/players", &model);
    let compared = page(&daemon, "/models/players/compare?a=1&b=1").body;
    assert!(compared.contains("The same source, data, image and parameters."), "{compared}");
    assert_eq!(page(&daemon, "/models/players/compare?a=1").status, 400);
    assert_eq!(page(&daemon, "/models/players/compare?a=1&b=9").status, 404);
    assert_eq!(page(&daemon, "/models/nobody").status, 404);

    let origin = format!("http://{}", daemon.address());
    let send = |path: &str, form: &str| {
        let headers = [
            ("origin", origin.as_str()),
            ("accept", "text/html"),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        request(daemon.address(), "POST", path, &headers, form.as_bytes()).unwrap()
    };
    assert_eq!(send("/queue/pause", "reason=%3Cb%3Ework%3C/b%3E").status, 303);
    assert!(page(&daemon, "/queue").body.contains("&#60;b&#62;work"), "paused, and why");
    assert!(page(&daemon, "/").body.contains("The queue is paused."));
    assert_eq!(send("/queue/resume", "").status, 303);
    assert!(!page(&daemon, "/queue").body.contains("Paused."));
    let made = send("/settings/tokens", "name=ann&scope=read&projects=demo&days=3").body;
    assert!(made.contains("<pre tabindex=\"0\">orc_"), "{made}");
    assert!(!page(&daemon, "/settings").body.contains("orc_"), "a token is shown once");
    assert_eq!(send("/settings/tokens/revoke", "token=1").status, 303);
    assert!(page(&daemon, "/settings").body.contains("revoked"));
    assert_eq!(send("/settings/tokens", "name=Not+a+name&scope=read").status, 400);
    assert!(page(&daemon, "/audit").body.contains("token.revoke"));
    secrets_by_forms(&daemon, send);
    let settings = page(&daemon, "/settings").body;
    assert!(settings.contains("projects.demo.poll") && !settings.contains("projects.demo.branches"), "{settings}");
    assert!(page(&daemon, "/settings?keys=all").body.contains("projects.demo.branches"));
    let serving = page(&daemon, "/deployments").body;
    for shown in ["healthy", "version 1</a>", "href=\"/builds/1\"", &port.to_string()] {
        assert!(serving.contains(shown), "{shown}: {serving}");
    }
    assert!(serving.contains("Its server tells no numbers"), "nobody has asked it: {serving}");
    let json = [("content-type", "application/json")];
    let asked = request(([127, 0, 0, 1], port).into(), "POST", "/predict", &json, br#"{"a": 70, "b": 2}"#).unwrap();
    assert_eq!(asked.status, 200, "{}", asked.body);
    assert!(page(&daemon, "/deployments").body.contains("<td class=\"num\">1</td>"));
    let found = head(&daemon, "GET", "/search?q=%231", "accept: text/html\r\n");
    assert!(found.contains("location: /builds/1"), "{found}");
    let commit = site.git(&["rev-parse", "--short=9", "HEAD"]);
    for query in ["WITH+data", &commit] {
        let body = page(&daemon, &format!("/search?q={query}")).body;
        assert_eq!(body.matches("href=\"/builds/1\"").count(), 1, "{query}: {body}");
    }
    daemon.terminate();
    clear(&site.place);
}

/// A value goes in and is never seen again; removing is asked for once more.
fn secrets_by_forms(daemon: &Served, send: impl Fn(&str, &str) -> Answer) {
    assert_eq!(
        send("/settings/secrets", "name=API_KEY&value=hush-hush&project=demo&stages=train%2C+promote").status,
        303
    );
    let refused = send("/settings/secrets", "name=1BAD&value=hush-hush&project=");
    assert!(refused.status == 400 && !refused.body.contains("hush"), "{}", refused.body);
    let settings = page(daemon, "/settings").body;
    assert!(settings.contains("<code>API_KEY</code>") && settings.contains("train, promote"), "{settings}");
    assert!(!settings.contains("hush"), "a value is never shown");
    let asked = page(daemon, "/settings/secrets/remove?name=API_KEY&project=demo").body;
    assert!(asked.contains("Remove the secret API_KEY?"), "{asked}");
    assert_eq!(page(daemon, "/settings/secrets/remove?name=OTHER&project=demo").status, 404);
    assert_eq!(send("/settings/secrets/remove", "name=API_KEY&project=demo").status, 303);
    assert!(!page(daemon, "/settings").body.contains("API_KEY"));
    assert!(page(daemon, "/audit").body.contains("secret.remove"));
}

/// Where a token is needed, a person is sent to sign in and back, and a program is told.
#[test]
fn strangers_are_sent_to_sign_in() {
    let site = Site::new("stages: { a: { run: echo one } }", "");
    let config = std::fs::read_to_string(site.config()).unwrap().replace("mode = \"none\"", "mode = \"token\"");
    std::fs::write(site.config(), config).unwrap();
    let daemon = site.serve();
    for (path, back) in [("/", "/"), ("/builds/1?x=%22%3E&y=a b", "/builds/1%3Fx%3D%2522%253E%26y%3Da")] {
        let head = head(&daemon, "GET", path.split(' ').next().unwrap(), "accept: text/html\r\n");
        assert!(head.starts_with("http/1.1 303"), "{head}");
        assert!(head.contains(&format!("location: /sign-in?next={}", back.to_lowercase())), "{head}");
    }
    assert!(head(&daemon, "GET", "/", "").starts_with("http/1.1 401"));
    assert_eq!(daemon.terminate(), 0);
}

/// The first start says what to do.
#[test]
fn an_empty_daemon_says_what_to_do() {
    let site = Site::new("stages: { a: { run: echo one } }", "");
    let config = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), config.split("[projects.demo]").next().unwrap()).unwrap();
    let daemon = site.serve();
    let home = page(&daemon, "/").body;
    assert!(home.contains("No projects yet") && home.contains("/hooks/github"), "{home}");
    harmless("/", &home);
    assert_eq!(daemon.terminate(), 0);
}
