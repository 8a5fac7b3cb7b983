//! The pages for people, by plain HTTP: what a browser without scripts gets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::eventually;
use crate::served::{Answer, Served, Site, request};

/// A name that would break a page that took it for markup.
const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror=alert(2)> ' & {{ 7*7 }}";

fn page(daemon: &Served, path: &str) -> Answer {
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
    for wrong in [" style=", "<style", "javascript:", "<img src=x", "onerror=alert(2)>", "<script>"] {
        assert!(!lower.contains(wrong), "{path} holds {wrong}: {body}");
    }
    let handlers = lower.split('<').filter(|tag| {
        let tag = tag.split('>').next().unwrap_or_default();
        tag.split_whitespace().skip(1).any(|word| word.starts_with("on") && word.contains('='))
    });
    assert_eq!(handlers.count(), 0, "{path} has handlers");
    for script in lower.split("<script").skip(1) {
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

    let paths = ["/", "/builds/1", "/builds/1/retry", "/nothing"];
    for path in paths {
        let answer = page(&daemon, path);
        assert_eq!(answer.status, if path == "/nothing" { 404 } else { 200 }, "{path}: {}", answer.body);
        assert!(answer.body.starts_with("<!doctype html>"), "{path}: {}", answer.body);
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

    assets(&daemon);
    // Programs are answered as before.
    let answer = request(daemon.address(), "GET", "/nothing", &[], b"").unwrap();
    assert_eq!(answer.json()["code"], "not-found");
    let answer = request(daemon.address(), "GET", "/api/v1/builds/99", &[("accept", "text/html")], b"").unwrap();
    assert_eq!(answer.json()["code"], "not-found");
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

    for origin in ["", "origin: null\r\n", "origin: https://evil.example\r\n"] {
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
