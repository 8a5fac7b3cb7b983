//! Browsers sign in with a token, and are known by a cookie that other sites cannot use.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::served::{Served, Site};

/// A site whose daemon asks for tokens; `more` is more of its configuration.
fn site(more: &str) -> Site {
    let site = Site::new("stages: { a: { run: echo one } }", "poll = \"off\"\n");
    rewrite(&site, "[auth]\nmode = \"none\"\n", &format!("{more}\n[auth]\nmode = \"token\"\n"));
    site
}

fn rewrite(site: &Site, from: &str, to: &str) {
    let text = std::fs::read_to_string(site.config()).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(site.config(), text.replace(from, to)).unwrap();
}

/// A token that was made beside the daemon; `more` are arguments.
fn token(site: &Site, name: &str, more: &[&str]) -> String {
    let ended = site.place.expect(0, &[&["tokens", "create", name][..], more].concat());
    ended.out.trim().to_owned()
}

/// What was answered.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.head.lines().filter_map(|line| line.split_once(": "));
        found.filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    /// The pair that a browser sends back.
    fn cookie(&self) -> String {
        self.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    }
}

/// A request of a browser, or of whoever sends these headers.
fn ask(address: SocketAddr, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut head = format!("{line} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "host") {
        head.push_str(&format!("host: {address}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
    let (mut whole, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        let read = stream.read(&mut buffer).unwrap();
        whole.extend_from_slice(&buffer[..read]);
        let end = whole.windows(4).position(|four| four == b"\r\n\r\n");
        // A stream never ends by itself: its head is enough.
        let streams = String::from_utf8_lossy(&whole).contains("text/event-stream");
        if let Some(end) = end.filter(|_| read == 0 || streams) {
            break end;
        }
        assert!(read > 0, "cut: {}", String::from_utf8_lossy(&whole));
    };
    let head = String::from_utf8(whole[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: String::from_utf8_lossy(&whole[end + 4..]).into_owned() }
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");

fn sign_in(daemon: &Served, token: &str, next: &str) -> Answer {
    let next: String = url_encode(next);
    ask(daemon.address(), "POST /sign-in", &[FORM, SAME], &format!("token={token}&next={next}"))
}

fn url_encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[test]
fn right_and_wrong_tokens() {
    let site = site("");
    let token = token(&site, "ann", &[]);
    let daemon = site.serve();
    let page = ask(daemon.address(), "GET /sign-in?next=/builds%22%3E", &[], "");
    assert_eq!(page.status, 200);
    assert!(
        page.body.contains("value=\"/builds&quot;&gt;\"") && page.body.contains("action=\"/sign-in\""),
        "{}",
        page.body
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("referrer-policy"), Some("same-origin"));
    assert!(!page.body.contains("<script") && !page.body.contains("style="));

    for wrong in ["", "orc_wrong", &token[..token.len() - 1]] {
        let answer = sign_in(&daemon, wrong, "/");
        assert_eq!((answer.status, answer.header("set-cookie")), (401, None), "{wrong}");
        assert!(answer.body.contains("not valid"), "{}", answer.body);
    }
    let answer = sign_in(&daemon, &token, "/builds/1");
    assert_eq!((answer.status, answer.header("location")), (303, Some("/builds/1")), "{}", answer.body);
    let line = answer.header("set-cookie").unwrap();
    assert!(line.starts_with("orchestrator-") && line.contains("; Path=/; "), "{line}");
    assert!(line.contains("; HttpOnly; SameSite=Lax") && !line.contains("Secure"), "{line}");
    let cookie = answer.cookie();
    assert_eq!(ask(daemon.address(), "GET /api/v1/builds", &[("cookie", &cookie)], "").status, 200);
    assert_eq!(ask(daemon.address(), "GET /api/v1/builds", &[], "").status, 401);
    let other = format!("{}x", cookie);
    assert_eq!(ask(daemon.address(), "GET /api/v1/builds", &[("cookie", &other)], "").status, 401);

    // Neither the cookie nor the token is in the database or the log.
    let secret = cookie.split_once('=').unwrap().1;
    for file in [site.place.data().join("orchestrator.db"), site.place.data().join("orchestrator.db-wal")] {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!holds(secret) && !holds(&token), "{}", file.display());
    }
}
