//! Browsers sign in with a token, and are known by a cookie that other sites cannot use.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

use crate::api::tls_files;
use crate::harness::eventually;
use crate::served::{Served, Site};

/// A site whose daemon asks for tokens; `more` is more of its configuration.
pub fn site(more: &str) -> Site {
    let site = Site::new("stages: { a: { run: echo one } }", "poll = \"off\"\n");
    rewrite(&site, "[auth]\nmode = \"none\"\n", &format!("{more}\n[auth]\nmode = \"token\"\n"));
    site
}

pub fn rewrite(site: &Site, from: &str, to: &str) {
    let text = std::fs::read_to_string(site.config()).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(site.config(), text.replace(from, to)).unwrap();
}

/// A token that was made beside the daemon; `more` are arguments.
pub fn token(site: &Site, name: &str, more: &[&str]) -> String {
    let ended = site.place.expect(0, &[&["tokens", "create", name][..], more].concat());
    ended.out.trim().to_owned()
}

/// What was answered.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        let found = self.head.lines().filter_map(|line| line.split_once(": "));
        found.filter(move |(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The pair that a browser sends back.
    pub fn cookie(&self) -> String {
        self.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.body))
    }
}

/// A request of a browser, or of whoever sends these headers.
pub fn ask(address: SocketAddr, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
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
const JSON: (&str, &str) = ("content-type", "application/json");
const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");
const EVIL: (&str, &str) = ("origin", "http://evil.example");

pub fn sign_in(daemon: &Served, token: &str, next: &str) -> Answer {
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
        page.body.contains("value=\"/builds&#34;&#62;\"") && page.body.contains("action=\"/sign-in\""),
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

/// What the database holds beside the running daemon.
pub fn database(site: &Site) -> rusqlite::Connection {
    let db = rusqlite::Connection::open(site.place.data().join("orchestrator.db")).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    db
}

/// The CSRF token that pages would hold.
pub fn csrf(site: &Site) -> String {
    let query = "SELECT csrf FROM sessions ORDER BY made_at DESC LIMIT 1";
    database(site).query_row(query, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_cookie_alone_changes_nothing() {
    let site = site("");
    let token = token(&site, "ann", &["--scope", "admin"]);
    let daemon = site.serve();
    let cookie = sign_in(&daemon, &token, "/").cookie();
    let csrf = csrf(&site);
    let ours = format!("http://{}", daemon.address());
    let check = |headers: &[(&str, &str)], expected: u16| {
        let headers = [&[("cookie", cookie.as_str()), JSON][..], headers].concat();
        let answer = ask(daemon.address(), "POST /api/v1/queue/resume", &headers, "{}");
        assert_eq!(answer.status, expected, "{headers:?} {}", answer.body);
    };
    let sign = ("x-csrf-token", csrf.as_str());
    check(&[SAME], 403);
    check(&[SAME, ("x-csrf-token", "wrong")], 403);
    check(&[SAME, ("x-csrf-token", "")], 403);
    // Nothing says that a page of ours asks.
    check(&[sign], 403);
    check(&[sign, EVIL], 403);
    check(&[sign, ("origin", "null")], 403);
    check(&[sign, EVIL, SAME], 403);
    check(&[sign, ("sec-fetch-site", "same-site")], 403);
    check(&[sign, ("origin", &ours), ("sec-fetch-site", "cross-site")], 403);
    check(&[sign, SAME], 202);
    check(&[sign, ("origin", &ours)], 202);
    // A token needs none of it, and goes before the cookie.
    let bearer = format!("Bearer {token}");
    check(&[("authorization", &bearer)], 202);
    check(&[("authorization", "Bearer orc_wrong"), sign, SAME], 401);

    // As the password of basic authentication, which browsers send by themselves, it reads and no more.
    let basic = |password: &str| {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("reader:{password}")))
    };
    let with = |line: &str, header: &str| ask(daemon.address(), line, &[("authorization", header), JSON], "{}").status;
    assert_eq!(with("GET /api/v1/projects/demo/feed.atom", &basic(&token)), 200);
    assert_eq!(with("GET /api/v1/projects/demo/feed.atom", &basic("orc_wrong")), 401);
    assert_eq!(with("GET /api/v1/projects/demo/feed.atom", "Basic !"), 401);
    assert_eq!(with("POST /api/v1/queue/resume", &basic(&token)), 401);

    // The same for streams: other pages read nothing.
    let read = |line: &str, headers: &[(&str, &str)]| {
        let headers = [&[("cookie", cookie.as_str())][..], headers].concat();
        ask(daemon.address(), line, &headers, "").status
    };
    for line in ["GET /api/v1/events", "GET /api/v1/builds"] {
        assert_eq!(read(line, &[EVIL]), 403, "{line}");
        assert_eq!(read(line, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]), 403, "{line}");
        assert_eq!(read(line, &[SAME]), 200, "{line}");
        assert_eq!(read(line, &[("origin", &ours)]), 200, "{line}");
        assert_eq!(read(line, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]), 200, "{line}");
    }
}

#[test]
fn signing_out() {
    let site = site("");
    let token = token(&site, "ann", &[]);
    let daemon = site.serve();
    let cookie = sign_in(&daemon, &token, "/").cookie();
    let pair = ("cookie", cookie.as_str());
    let (builds, leave) = ("GET /api/v1/builds", "POST /sign-out");
    let form = format!("csrf={}", csrf(&site));
    assert_eq!(ask(daemon.address(), leave, &[pair, FORM, SAME], "").status, 403);
    assert_eq!(ask(daemon.address(), leave, &[pair, FORM, SAME], "csrf=wrong").status, 403);
    assert_eq!(ask(daemon.address(), leave, &[pair, FORM, EVIL], &form).status, 403);
    assert_eq!(ask(daemon.address(), leave, &[pair, ("content-type", "text/plain"), SAME], &form).status, 400);
    assert_eq!(ask(daemon.address(), builds, &[pair], "").status, 200);
    let left = ask(daemon.address(), leave, &[pair, FORM, SAME], &form);
    assert_eq!((left.status, left.header("location")), (303, Some("/sign-in")), "{}", left.body);
    assert!(left.header("set-cookie").unwrap().contains("=; Path=/; Max-Age=0; "));
    assert_eq!(ask(daemon.address(), builds, &[pair], "").status, 401);
    // Once more, as from another tab.
    assert_eq!(ask(daemon.address(), leave, &[pair, FORM, SAME], &form).status, 303);

    let query = "SELECT group_concat(actor || ' ' || action, ', ') FROM (SELECT * FROM audit WHERE action LIKE 'session.%' ORDER BY id)";
    let audit: String = database(&site).query_row(query, [], |row| row.get(0)).unwrap();
    assert_eq!(audit, "ann session.open, ann session.end");
}

#[test]
fn a_session_is_no_more_than_its_token() {
    let site = site("");
    let held = token(&site, "held", &["--scope", "trigger", "--project", "other"]);
    let admin = token(&site, "admin", &["--scope", "admin"]);
    let daemon = site.serve();
    let status = |cookie: &str, line: &str| {
        let answer = ask(daemon.address(), line, &[("cookie", cookie), SAME], "");
        (answer.status, answer)
    };
    let cookie = sign_in(&daemon, &held, "/").cookie();
    let (code, projects) = status(&cookie, "GET /api/v1/projects");
    assert_eq!((code, projects.json().as_array().map(Vec::len)), (200, Some(0)));
    assert_eq!(status(&cookie, "GET /api/v1/projects/demo").0, 404);
    assert_eq!(status(&cookie, "GET /api/v1/tokens").0, 403);
    let all = sign_in(&daemon, &admin, "/").cookie();
    assert_eq!(status(&all, "GET /api/v1/tokens").0, 200);

    // Revoked, by the API and beside the daemon.
    let bearer = format!("Bearer {admin}");
    let id = database(&site).query_row("SELECT id FROM tokens WHERE name = 'held'", [], |row| row.get::<_, u64>(0));
    let line = format!("DELETE /api/v1/tokens/{}", id.unwrap());
    assert_eq!(ask(daemon.address(), &line, &[("authorization", &bearer)], "").status, 204);
    assert_eq!(status(&cookie, "GET /api/v1/projects").0, 401);
    assert_eq!(sign_in(&daemon, &held, "/").status, 401);
    let set = |sql: &str| assert_eq!(database(&site).execute(sql, []).unwrap(), 1, "{sql}");
    set("UPDATE tokens SET expires_at = 1 WHERE name = 'admin'");
    assert_eq!(status(&all, "GET /api/v1/tokens").0, 401);
    set("UPDATE tokens SET expires_at = NULL WHERE name = 'admin'");
    assert_eq!(status(&all, "GET /api/v1/tokens").0, 200);
    set("UPDATE sessions SET expires_at = 1");
    assert_eq!(status(&all, "GET /api/v1/tokens").0, 401);
}

#[test]
fn sessions_end_by_themselves() {
    let site = site("");
    rewrite(&site, "mode = \"token\"\n", "mode = \"token\"\nsession = \"10h\"\nidle = \"1h\"\n");
    let token = token(&site, "ann", &[]);
    let daemon = site.serve();
    let cookie = sign_in(&daemon, &token, "/").cookie();
    let times = || -> (i64, i64) {
        let query = "SELECT made_at, expires_at FROM sessions";
        database(&site).query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    let hour = 3_600_000_000;
    let (made, ends) = times();
    assert_eq!(ends - made, hour);
    let shift = |made: i64, ends: i64| {
        database(&site).execute("UPDATE sessions SET made_at = ?1, expires_at = ?2", [made, ends]).unwrap();
        assert_eq!(ask(daemon.address(), "GET /api/v1/builds", &[("cookie", &cookie)], "").status, 200);
    };
    // Opened two hours ago, last used half an hour ago: another hour from now.
    shift(made - 2 * hour, ends - hour / 2);
    eventually("it lasts longer", || times().1 >= ends);
    // Opened nearly ten hours ago: no longer than these.
    let made = made - 10 * hour + hour / 10;
    shift(made, ends - hour + hour / 20);
    eventually("it lasts as long as it may", || times().1 == made + 10 * hour);

    // What has ended is removed.
    database(&site).execute("UPDATE sessions SET expires_at = 1", []).unwrap();
    daemon.terminate();
    let _daemon = site.serve();
    let count = || database(&site).query_row("SELECT count(*) FROM sessions", [], |row| row.get::<_, i64>(0)).unwrap();
    eventually("it is gone", || count() == 0);
}

#[test]
fn where_one_goes_afterwards() {
    let site = site("");
    let token = token(&site, "ann", &[]);
    let daemon = site.serve();
    let check = |next: &str, expected: &str| {
        let answer = sign_in(&daemon, &token, next);
        assert_eq!((answer.status, answer.header("location")), (303, Some(expected)), "{next:?}");
    };
    check("/builds?branch=main", "/builds?branch=main");
    check("/%2F%2Fevil.example", "/%2F%2Fevil.example");
    for bad in [
        "//evil.example",
        "/\\evil.example",
        "https:evil.example",
        "https://evil.example",
        "/\t/evil.example",
        "/a\r\nset-cookie: a=b",
        "%2f%2fevil.example",
        "javascript:alert(1)",
    ] {
        check(bad, "/");
    }
    // Nobody keeps more sessions than a person needs.
    for _ in 0..50 {
        check("/", "/");
    }
    let count = database(&site).query_row("SELECT count(*) FROM sessions", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count, 50);
}

#[test]
fn by_https_the_cookie_is_kept_to_it() {
    let site = site("");
    rewrite(&site, "[server]\n", "[server]\npublic_url = \"https://ci.example.org\"\n");
    let token = token(&site, "ann", &[]);
    let daemon = site.serve();
    let host = ("host", "ci.example.org");
    let body = format!("token={token}");
    let plain = [host, FORM, ("origin", "http://ci.example.org")];
    assert_eq!(ask(daemon.address(), "POST /sign-in", &plain, &body).status, 403);
    let answer = ask(daemon.address(), "POST /sign-in", &[host, FORM, ("origin", "https://ci.example.org")], &body);
    let line = answer.header("set-cookie").unwrap();
    assert!(line.starts_with("__Host-orchestrator-") && line.ends_with("; HttpOnly; SameSite=Lax; Secure"), "{line}");
    let cookie = answer.cookie();
    assert_eq!(ask(daemon.address(), "GET /api/v1/builds", &[host, ("cookie", &cookie)], "").status, 200);
    // Without the prefix anybody on the way could have set it.
    let plain = cookie.replace("__Host-", "");
    assert_eq!(ask(daemon.address(), "GET /api/v1/builds", &[host, ("cookie", &plain)], "").status, 401);
}

/// The daemon's own TLS, as a browser meets it.
#[tokio::test(flavor = "multi_thread")]
async fn by_the_daemons_own_https() {
    // Whichever test is first.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let site = site("");
    let (certificate, part) = tls_files(&site);
    let config = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), format!("{config}{part}")).unwrap();
    let token = token(&site, "ann", &["--scope", "admin"]);
    let daemon = site.serve();
    let ours = format!("https://localhost:{}", daemon.address().port());
    let root = reqwest::Certificate::from_pem(&std::fs::read(certificate).unwrap()).unwrap();
    let policy = reqwest::redirect::Policy::none();
    let browser = reqwest::Client::builder().tls_certs_only([root]).redirect(policy).build().unwrap();
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)], body: String| {
        let mut request = browser.request(method.parse().unwrap(), format!("{ours}{path}")).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    };
    let other = "https://other.example";
    let form = format!("token={token}");
    // Another site signs nobody in.
    assert_eq!(ask("POST", "/sign-in", &[FORM, ("origin", other)], form.clone()).await.status(), 403);
    let answer = ask("POST", "/sign-in", &[FORM, ("origin", &ours)], form).await;
    assert_eq!(answer.status(), 303);
    let line = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(
        line.starts_with("__Host-orchestrator-") && line.contains("; Path=/; ") && !line.contains("Domain"),
        "{line}"
    );
    assert!(line.ends_with("; HttpOnly; SameSite=Lax; Secure"), "{line}");
    let cookie = line.split(';').next().unwrap();
    let builds = "/api/v1/builds";
    assert_eq!(ask("GET", builds, &[("cookie", cookie)], String::new()).await.status(), 200);
    // Without the prefix anybody on the way could have set it.
    let bare = cookie.replace("__Host-", "");
    assert_eq!(ask("GET", builds, &[("cookie", &bare)], String::new()).await.status(), 401);
    // A script of another site, and one of ours.
    let (sign, resume) = (csrf(&site), "/api/v1/queue/resume");
    let from = [("cookie", cookie), ("x-csrf-token", sign.as_str())];
    let status = async |origin: &str| {
        ask("POST", resume, &[&from[..], &[("origin", origin)]].concat(), String::new()).await.status()
    };
    assert_eq!((status(other).await.as_u16(), status(&ours).await.as_u16()), (403, 202));
    let leave = [("cookie", cookie), FORM, ("origin", ours.as_str())];
    let left = ask("POST", "/sign-out", &leave, format!("csrf={sign}")).await;
    let line = left.headers()["set-cookie"].to_str().unwrap();
    // A browser takes back only what has the same attributes.
    assert!(
        line.starts_with("__Host-") && line.contains("=; Path=/; Max-Age=0; ") && line.ends_with("; Secure"),
        "{line}"
    );
    assert_eq!(ask("GET", builds, &[("cookie", cookie)], String::new()).await.status(), 401);
}

#[test]
fn guessing_at_the_page_gets_slower() {
    let site = site("");
    let token = token(&site, "ann", &[]);
    let daemon = site.serve();
    let answers: Vec<Answer> = (0..12).map(|_| sign_in(&daemon, "orc_guess", "/")).collect();
    let last = answers.last().unwrap();
    assert_eq!((last.status, answers[0].status), (429, 401));
    assert!(last.header("retry-after").is_some() && last.body.contains("try again in"), "{}", last.body);
    assert_eq!(sign_in(&daemon, &token, "/").status, 303, "a right one is let in");
}

/// A daemon without tokens answers its own pages, programs of its machine, and nobody else's pages.
#[test]
fn an_open_daemon_is_closed_to_other_sites() {
    let site = Site::new("stages: { a: { run: echo one } }", "poll = \"off\"\n");
    let daemon = site.serve();
    let resume = |headers: &[(&str, &str)]| {
        let headers = [&[JSON][..], headers].concat();
        ask(daemon.address(), "POST /api/v1/queue/resume", &headers, "{}").status
    };
    let ours = format!("http://{}", daemon.address());
    assert_eq!(resume(&[]), 202);
    assert_eq!(resume(&[("origin", &ours)]), 202);
    assert_eq!(resume(&[SAME]), 202);
    assert_eq!(resume(&[EVIL]), 403);
    assert_eq!(resume(&[("origin", "null")]), 403);
    assert_eq!(resume(&[("sec-fetch-site", "cross-site")]), 403);
    assert_eq!(resume(&[("origin", "http://127.0.0.1:1")]), 403);
    // A name of somebody else's that leads here.
    let rebound = [("host", "evil.example"), ("origin", "http://evil.example"), SAME];
    assert_eq!(resume(&rebound), 403);
    let get = |headers: &[(&str, &str)]| ask(daemon.address(), "GET /api/v1/events", headers, "").status;
    assert_eq!(get(&rebound[..1]), 403);
    assert_eq!(get(&[EVIL]), 403);
    assert_eq!(get(&[("host", "localhost")]), 200);
    let page = ask(daemon.address(), "GET /sign-in?next=/builds", &[], "");
    assert_eq!((page.status, page.header("location")), (303, Some("/builds")));
}

/// A name of somebody else's that leads here would make his pages ours. It reads nothing, not even what needs no right.
#[test]
fn without_tokens_strangers_names_lead_nowhere() {
    let site = Site::new("stages: { a: { run: echo one } }", "poll = \"off\"\n");
    let daemon = site.serve();
    let status = |path: &str, host: &str| ask(daemon.address(), &format!("GET {path}"), &[("host", host)], "").status;
    for path in ["/", "/metrics", "/api/v1/openapi.json", "/api/v1/builds", "/static/style.css", "/sign-in", "/nowhere"]
    {
        assert_eq!(status(path, "evil.example"), 403, "{path}");
        assert_ne!(status(path, "localhost:8484"), 403, "{path}");
    }
    assert_eq!(status("/metrics", "localhost"), 200);
    assert_eq!(status("/healthz", "10.1.2.3"), 200, "a probe asks by any name");
    let hook = ask(daemon.address(), "POST /hooks/github", &[("host", "tunnel.example"), JSON], "{}");
    assert_eq!(hook.status, 401, "it is for the signature to say: {}", hook.body);
    assert_eq!(daemon.terminate(), 0);

    // Where tokens are asked for, a name gives no rights.
    let site = self::site("[metrics]\nlisten = \"127.0.0.1:0\"\n");
    let daemon = site.serve();
    for path in ["/healthz", "/api/v1/openapi.json"] {
        assert_eq!(ask(daemon.address(), &format!("GET {path}"), &[("host", "ci.internal")], "").status, 200, "{path}");
    }
    assert_eq!(daemon.terminate(), 0);
}

/// A page is packed, and what proves that its forms are ours is another text each time, so that its packed size tells nothing of it.
#[test]
fn pages_are_packed_and_sign_anew_each_time() {
    let site = site("");
    let token = token(&site, "ann", &["--scope", "admin"]);
    let daemon = site.serve();
    let cookie = sign_in(&daemon, &token, "/").cookie();
    let page = |headers: &[(&str, &str)]| {
        ask(
            daemon.address(),
            "GET /settings",
            &[&[("cookie", cookie.as_str()), ("accept", "text/html")][..], headers].concat(),
            "",
        )
    };
    let sign =
        |page: &Answer| page.body.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let (one, other) = (page(&[]), page(&[]));
    assert_ne!(sign(&one), sign(&other));
    assert!(!one.body.contains(&csrf(&site)), "as it is stored it is in no page");
    for sign in [sign(&one), sign(&other)] {
        let left =
            ask(daemon.address(), "POST /queue/resume", &[("cookie", &cookie), FORM, SAME], &format!("csrf={sign}"));
        assert_eq!(left.status, 303, "{}", left.body);
    }
    let wrong = format!("csrf={}", sign(&one).replace(|c: char| c.is_ascii_digit(), "x"));
    assert_eq!(ask(daemon.address(), "POST /queue/resume", &[("cookie", &cookie), FORM, SAME], &wrong).status, 403);
    let packed = page(&[("accept-encoding", "br, gzip")]);
    assert_eq!((packed.header("content-encoding"), packed.header("vary")), (Some("gzip"), Some("accept-encoding")));
    assert!(one.header("content-encoding").is_none());
    assert_eq!(daemon.terminate(), 0);
}
