//! What the API tells beside builds: models, deployments, artifacts, badges, the feed of all events.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::deployment::{clear, free_port};
use crate::harness::eventually;
use crate::run::{players, promoting};
use crate::served::{Served, Site, request};

fn site(project: &str, port: u16) -> Site {
    let site = Site::new(&promoting("decision-tree", port), project);
    site.place.write("players.csv", &players());
    site.commit("with data");
    site
}

/// Head and body of an answer, as they came.
fn whole(daemon: &Served, path: &str, headers: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(daemon.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    (String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase(), bytes[end + 4..].to_vec())
}

#[test]
fn models_artifacts_and_feeds() {
    let port = free_port();
    let site = site("poll = \"watch\"\npublic_badge = true\n", port);
    let daemon = site.serve();
    eventually("a build has passed", || daemon.counts().get("passed") == Some(&1));

    let models = daemon.get("/api/v1/models");
    assert_eq!(models[0]["model"], "players");
    assert_eq!(models[0]["champion"], 1);
    assert_eq!(models[0]["project"], "demo");
    assert_eq!(models[0]["serves"]["port"], port);
    assert_eq!(daemon.get("/api/v1/deployments")[0]["status"], "live");
    let versions = daemon.get("/api/v1/models/players/versions?limit=1");
    assert_eq!(versions["items"][0]["version"], 1);
    assert!(versions["items"][0]["metrics"]["accuracy"].as_f64().unwrap() > 0.5);
    assert!(versions.get("next").is_none());
    let one = daemon.get("/api/v1/models/players/versions/1");
    assert_eq!(one["build"], 1);
    assert_eq!(one["lineage"]["commit"], site.git(&["rev-parse", "HEAD"]));
    let decisions = daemon.get("/api/v1/models/players/promotions");
    assert_eq!(decisions["items"][0]["verdict"], "promoted");
    for missing in
        ["/api/v1/models/nobody/versions", "/api/v1/models/players/versions/9", "/api/v1/models/%2e%2e/promotions"]
    {
        assert_eq!(request(daemon.address(), "GET", missing, &[], b"").unwrap().status, 404, "{missing}");
    }

    artifacts(&daemon);

    let (head, badge) = whole(&daemon, "/api/v1/projects/demo/badge.svg?branch=main", "");
    assert!(head.contains("content-type: image/svg+xml") && head.contains("cache-control: no-cache"), "{head}");
    assert!(String::from_utf8(badge).unwrap().contains("build: passed"));
    assert!(head.contains("cross-origin-resource-policy: cross-origin"), "every site may show it: {head}");
    let (_, badge) = whole(&daemon, "/api/v1/projects/demo/badge.svg?branch=nowhere", "");
    assert!(String::from_utf8(badge).unwrap().contains("build: unknown"));
    let (head, feed) = whole(&daemon, "/api/v1/projects/demo/feed.atom", "");
    let feed = String::from_utf8(feed).unwrap();
    assert!(head.contains("content-type: application/atom+xml"), "{head}");
    assert!(feed.contains("<title>#1 passed: ") && feed.contains("/builds/1\"/>"), "{feed}");
    let (_, feed) = whole(&daemon, "/api/v1/cctray.xml", "");
    let feed = String::from_utf8(feed).unwrap();
    assert!(feed.contains("name=\"demo / players\" activity=\"Sleeping\" lastBuildStatus=\"Success\""), "{feed}");

    sealed(&daemon);
    daemon.terminate();
    clear(&site.place);
}

/// What is answered is nobody's to keep, to frame or to take in.
fn sealed(daemon: &Served) {
    let log = "/api/v1/builds/1/stages/train/attempts/1/log";
    let unmarked =
        ["/api/v1/builds", "/api/v1/openapi.json", "/api/v1/cctray.xml", log, "/api/v1/builds/99", "/api/v1/nothing"];
    for path in unmarked.into_iter().map(str::to_owned).chain([format!("{log}/raw")]) {
        let (head, _) = whole(daemon, &path, "");
        for header in [
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "frame-ancestors 'none'",
            "default-src 'none'",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.contains(header), "{path}: {header}: {head}");
        }
    }
    let (head, _) = whole(daemon, "/api/v1/projects/demo/feed.atom", "");
    assert!(head.contains("cache-control: no-cache") && !head.contains("no-store"), "{head}");
}

fn artifacts(daemon: &Served) {
    let path = "/api/v1/builds/1/stages/train/artifacts";
    let all = daemon.get(&format!("{path}?limit=200"));
    let files = all["items"].as_array().unwrap();
    assert_eq!(all["files"], files.len());
    // Over pages of one they are the same.
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page = daemon.get(&format!("{path}?limit=1&after={after}"));
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        next.clone_into(&mut after);
    }
    assert_eq!(&paged, files);
    let file = &files[0];
    let name = file["path"].as_str().unwrap();
    let (head, body) = whole(daemon, &format!("{path}/{name}"), "");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    for header in ["content-disposition: attachment", "x-content-type-options: nosniff", "sandbox"] {
        assert!(head.contains(header), "{head}");
    }
    assert_eq!(body.len() as u64, file["size"].as_u64().unwrap());
    assert_eq!(blake3::hash(&body).to_hex().as_str(), file["blake3"].as_str().unwrap());
    let tag = format!("if-none-match: \"{}\"\r\n", file["blake3"].as_str().unwrap());
    let (head, body) = whole(daemon, &format!("{path}/{name}"), &tag);
    assert!(head.starts_with("http/1.1 304") && body.is_empty(), "{head}");
    assert!(head.contains("cache-control: private, no-cache") && !head.contains("no-store"), "{head}");
    for nothing in ["nothing", "../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "%2Fetc%2Fpasswd"] {
        let answer = request(daemon.address(), "GET", &format!("{path}/{nothing}"), &[], b"").unwrap();
        assert_eq!(answer.status, 404, "{nothing}: {}", answer.body);
    }
    let none = request(daemon.address(), "GET", "/api/v1/builds/1/stages/nowhere/artifacts", &[], b"").unwrap();
    assert_eq!(none.status, 404, "{}", none.body);
}

/// Whoever follows all events misses none over a restart of the daemon.
#[test]
fn all_events_are_told_once() {
    let site = Site::new("stages: { a: { run: echo one } }", "poll = \"watch\"\n");
    let daemon = site.serve();
    eventually("a build has passed", || daemon.counts().get("passed") == Some(&1));
    let follow = |daemon: &Served, last: Option<u64>, until: usize| {
        let mut stream = TcpStream::connect(daemon.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let last = last.map_or_else(String::new, |last| format!("last-event-id: {last}\r\n"));
        write!(stream, "GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n{last}\r\n").unwrap();
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while text.matches("\ndata: ").count() < until {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the stream ended: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        let places: Vec<u64> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
        let events: Vec<Value> =
            text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
        (places, events)
    };
    let (places, events) = follow(&daemon, Some(0), 3);
    assert!(events.iter().all(|event| event["project"] == "demo" && event["build"] == 1), "{events:?}");
    assert!(events[0]["event"]["at"].is_i64(), "{events:?}");
    let last = *places.last().unwrap();
    assert_eq!(daemon.terminate(), 0);
    site.commit("again");
    let daemon = site.serve();
    eventually("two builds have passed", || daemon.counts().get("passed") == Some(&2));
    let (more, events) = follow(&daemon, Some(places[0]), 4);
    assert_eq!(more[..places.len() - 1], places[1..]);
    assert!(more.contains(&(last + 1)), "{more:?} behind {last}");
    assert!(events.iter().any(|event| event["build"] == 2), "{events:?}");
    assert_eq!(daemon.terminate(), 0);
}

/// A certificate for this machine, its key, and the part of the configuration that names both.
pub fn tls_files(site: &Site) -> (std::path::PathBuf, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let pem = |kind: &str, der: &[u8]| {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
    };
    let cert_file = site.place.outside("cert.pem");
    std::fs::write(&cert_file, pem("CERTIFICATE", certificate.der())).unwrap();
    let key_file = site.secret("key.pem", &pem("PRIVATE KEY", &key.serialize_der()));
    let part = format!("\n[server.tls]\ncert = {cert_file:?}\nkey = {key_file:?}\n");
    (cert_file, part)
}

/// The daemon speaks https by itself, and the command line believes what the system believes.
#[test]
fn https_from_files() {
    let site = Site::new("stages: { a: { run: echo one } }", "");
    let (certificate, tls) = tls_files(&site);
    site.configure(&tls);
    let daemon = site.serve();
    let server = format!("https://127.0.0.1:{}", daemon.address().port());
    let ask = |believed: &std::path::Path| {
        let mut command = site.place.command(&["--server", &server, "queue", "--json"]);
        command.env("SSL_CERT_FILE", believed).env_remove("ORCHESTRATOR_DATA_DIR");
        crate::harness::ended(command.output().unwrap())
    };
    let answered = ask(&certificate);
    assert_eq!(answered.code, 0, "{}{}", answered.out, answered.err);
    let nobody = site.place.outside("nobody.pem");
    std::fs::write(&nobody, "").unwrap();
    let refused = ask(&nobody);
    assert_eq!(refused.code, 5, "{}{}", refused.out, refused.err);
    // Plain http is not answered.
    assert!(request(daemon.address(), "GET", "/healthz", &[], b"").is_err());
    assert_eq!(daemon.terminate(), 0);
}
