//! `orchestrator loadtest URL` by the real program against servers that do their worst: it ends, with little memory, and says
//! what was wrong in words.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::{Ended, PROGRAM, Place, ended, eventually};

/// A server whose every connection is handed to a function, in a thread of its own.
struct Server {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
}

impl Server {
    fn start(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", Arc::default(), handle)
    }

    fn at(address: &str, requests: Arc<AtomicU64>, handle: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let handle = Arc::new(handle);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_nodelay(true).unwrap();
                let handle = Arc::clone(&handle);
                std::thread::spawn(move || handle(stream));
            }
        });
        Self { address, requests }
    }

    /// Every request gets these bytes.
    fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        Self::answering_at("127.0.0.1:0", bytes)
    }

    fn answering_at(address: &str, bytes: impl Into<Vec<u8>>) -> Self {
        let (bytes, requests) = (bytes.into(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&requests);
        Self::at(address, requests, move |mut stream| {
            while read_head(&mut stream).is_some() {
                counted.fetch_add(1, Ordering::SeqCst);
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
        })
    }

    /// Every request gets the first bytes, then the second for ever.
    fn endless(first: &'static str, then: &'static str) -> Self {
        Self::start(move |mut stream| {
            if read_head(&mut stream).is_some() && stream.write_all(first.as_bytes()).is_ok() {
                let much = then.repeat(1 + 40_000 / then.len());
                while stream.write_all(much.as_bytes()).is_ok() {}
            }
        })
    }

    fn url(&self) -> String {
        format!("http://{}/a", self.address)
    }
}

/// The request's head; `None` if the client has gone.
fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The program with 512 MiB of address space; after a minute it is ended, which no test takes for an answer.
fn limited(arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -v 524288; ulimit -c 0; exec timeout -s KILL 60 \"$@\"", "sh", PROGRAM, "loadtest"])
        .args(arguments)
        .env("NO_COLOR", "1")
        .env("MALLOC_ARENA_MAX", "2")
        .env("TOKIO_WORKER_THREADS", "2")
        .stdin(Stdio::null());
    command
}

#[track_caller]
fn loadtest(code: i32, arguments: &[&str]) -> Ended {
    let ended = ended(limited(arguments).output().unwrap());
    assert_eq!(ended.code, code, "{arguments:?}\n{}\n{}", ended.out, ended.err);
    assert!(!ended.err.contains("panicked"), "{}", ended.err);
    ended
}

/// Load without the contract first: the report.
#[track_caller]
fn report(code: i32, url: &str, arguments: &[&str]) -> Value {
    let usual = [url, "--no-contract", "--json", "--users", "4", "--duration", "500ms"];
    let ended = loadtest(code, &[&usual[..], arguments].concat());
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {}", ended.out))
}

/// The one group of failures that there must be.
#[track_caller]
fn only_failure(report: &Value) -> (&str, &str) {
    let groups = report["errors"].as_array().unwrap();
    assert_eq!(groups.len(), 1, "{groups:#?}");
    assert_eq!(report["total"]["good"], 0);
    assert_eq!(groups[0]["count"], report["total"]["failed"]);
    (groups[0]["kind"].as_str().unwrap(), groups[0]["message"].as_str().unwrap())
}

/// Both the contract and the load itself must say this.
#[track_caller]
fn says(server: &Server, kind: &str, message: &str) {
    let timeout = ["--timeout", if kind == "timeout" { "1s" } else { "40s" }];
    let contract = loadtest(1, &[&[server.url().as_str()], &timeout[..]].concat());
    assert!(contract.out.contains(message), "{}", contract.out);
    assert!(contract.out.starts_with("failed\nno load was started"), "{}", contract.out);
    let report = report(1, &server.url(), &timeout);
    assert_eq!(only_failure(&report), (kind, message));
}

#[test]
fn answers_without_end() {
    let long = ("answer too long", "the answer's body is longer than 64 MiB");
    says(&Server::endless("HTTP/1.1 200 OK\r\n\r\n", "0123456789abcdef"), long.0, long.1);
    // As many bytes of framing as there may be before each byte of the body: the time is up before the body is too long.
    let chunk: &'static str = format!("1;{}\r\nx\r\n", "e".repeat(60_000)).leak();
    let server = Server::endless("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunk);
    says(&server, "timeout", "no answer within 1s");
    let interim = "more than 64 interim answers (1xx) came before the real one";
    says(&Server::endless("", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"), "invalid answer", interim);
    let head = "the answer's headers are longer than 64 KiB or 256 lines";
    says(&Server::endless("HTTP/1.1 200 OK\r\n", "x: y\r\n"), "invalid answer", head);
}

#[test]
fn a_byte_now_and_then() {
    let server = Server::start(|mut stream| {
        if read_head(&mut stream).is_some() {
            for byte in b"HTTP/1.1 200 OK\r\n".iter().chain(b"x: y\r\n".iter().cycle()) {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                // The fault that is tested: a slow server.
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    });
    says(&server, "timeout", "no answer within 1s");
    let deaf = Server::start(|_stream| std::thread::park());
    says(&deaf, "timeout", "no answer within 1s");
}

#[test]
fn what_is_no_answer_at_all() {
    says(
        &Server::answering("HTTP/9.9 huh\r\n\r\n"),
        "invalid answer",
        "the answer is not HTTP/1.1: invalid HTTP version",
    );
    says(&Server::answering("SSH-2.0-x\r\n\r\n"), "invalid answer", "the answer is not HTTP/1.1: invalid HTTP version");
    let switched = "the server switched protocols without being asked";
    says(&Server::answering("HTTP/1.1 101 Now\r\n\r\n"), "invalid answer", switched);
    let length = "the answer's content-length is not one number";
    says(&Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\nok"), "invalid answer", length);
    let server = Server::start(|mut stream| drop(read_head(&mut stream)));
    says(&server, "connection closed", "the server closed the connection before it answered");
}

#[test]
fn good_answers_in_every_clothing() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\ntrailer: 1\r\n\r\n";
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b, 4, 0, 0x43, 0xbe, 0xb7, 0xe8, 1, 0, 0, 0];
    let answers = [
        (format!("{interim}{chunked}").into_bytes(), 5),
        (answer("200 OK", "content-encoding: gzip\r\n", &gzip), gzip.len() as u64),
    ];
    for (bytes, length) in answers {
        let server = Server::answering(bytes);
        let report = report(0, &server.url(), &[]);
        assert_eq!(report["verdict"], "passed");
        assert_eq!(report["total"]["sent"], server.requests.load(Ordering::SeqCst));
        let good = report["total"]["good"].as_u64().unwrap();
        assert!(good > 4);
        assert_eq!(report["total"]["body_bytes"].as_u64().unwrap(), good * length);
    }
}

#[test]
fn addresses_of_the_newer_kind() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 here");
        return;
    }
    let server = Server::answering_at("[::1]:0", answer("200 OK", "", b"ok"));
    assert!(server.url().starts_with("http://[::1]:"));
    let report = report(0, &server.url(), &[]);
    assert_eq!(report["total"]["failed"], 0);
    assert_eq!(report["target"], format!("http://{}/", server.address));
}

/// A body that no terminal should get.
#[test]
fn error_pages_are_shown_harmlessly() {
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 0xff, 0xab, 0x56, 0x4a];
    let server = Server::answering(answer("500 Oops", "content-encoding: gzip\r\n", &gzip));
    assert_eq!(only_failure(&report(1, &server.url(), &[])), ("status 500", "(no text)"));
    let contract = loadtest(1, &[&server.url()]);
    assert!(contract.out.contains("content-encoding: gzip") && contract.out.contains("(no text)"), "{}", contract.out);
    let server = Server::answering(answer("500 Oops", "", b"out of \x1b[2J\x07chairs"));
    let contract = loadtest(1, &[&server.url()]);
    let load = loadtest(1, &[&server.url(), "--no-contract", "--duration", "300ms"]);
    for said in [contract.out, load.out] {
        assert!(said.contains("out of") && said.contains("chairs"), "{said}");
        assert!(!said.contains(['\x1b', '\x07']), "{said:?}");
    }
}

#[test]
fn redirects_are_not_followed_round_and_round() {
    let server = Server::answering(answer("302 Found", "location: /a\r\n", b""));
    let contract = loadtest(1, &[&server.url()]);
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
    for part in ["status: expected 2xx, got 302", "redirects are not followed", "location: /a"] {
        assert!(contract.out.contains(part), "{part} in {}", contract.out);
    }
    loadtest(0, &[&server.url(), "--expect-status", "302", "--duration", "200ms", "--users", "2"]);
}

/// Who closes each connection without saying so makes some requests fail: the message says whose fault that is.
#[test]
fn connections_that_are_closed_without_a_word() {
    let server = Server::start(|mut stream| {
        for _ in 0..2 {
            if read_head(&mut stream).is_none() || stream.write_all(&answer("200 OK", "", b"ok")).is_err() {
                return;
            }
        }
        // The third request on a connection is read, and never answered.
        read_head(&mut stream);
    });
    let report = report(1, &server.url(), &[]);
    let group = &report["errors"][0];
    assert_eq!(report["errors"].as_array().unwrap().len(), 1, "{report:#}");
    assert_eq!(group["kind"], "kept connection closed");
    assert!(group["message"].as_str().unwrap().contains("it should say `connection: close`"), "{group}");
    let good = report["total"]["good"].as_u64().unwrap();
    // Two answers for each failure, but for where each of the four users stopped.
    assert!(good > 0 && good.abs_diff(2 * group["count"].as_u64().unwrap()) <= 8, "{report:#}");
    let polite = Server::start(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(&answer("200 OK", "connection: close\r\n", b"ok"));
    });
    assert_eq!(self::report(0, &polite.url(), &[])["total"]["failed"], 0);
}

/// A server with a certificate that it signed itself; PEM of the certificate.
fn secure_server() -> (Server, String) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let server = Server::start(move |stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
        while read_head(&mut stream).is_some() && stream.write_all(&answer("200 OK", "", b"ok")).is_ok() {}
    });
    let text = base64::engine::general_purpose::STANDARD.encode(signed.cert.der());
    (server, format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"))
}

#[test]
fn certificates() {
    let place = Place::new();
    let (server, pem) = secure_server();
    let url = format!("https://localhost:{}/", server.address.port());
    let unknown = "TLS failed: no authority that is believed here has signed the server's certificate";
    let contract = loadtest(1, &[&url]);
    assert!(contract.out.contains(unknown) && contract.out.contains("--ca-cert"), "{}", contract.out);
    let load = report(1, &url, &[]);
    let (kind, message) = only_failure(&load);
    assert_eq!(kind, "tls");
    assert!(message.starts_with(unknown), "{message}");

    let file = |name: &str, text: &str| {
        place.write(name, text);
        place.project().join(name).to_str().unwrap().to_owned()
    };
    let (right, wrong) = (file("right.pem", &pem), file("wrong.pem", &secure_server().1));
    assert_eq!(report(0, &url, &["--ca-cert", &right])["total"]["failed"], 0);
    assert_eq!(only_failure(&report(1, &url, &["--ca-cert", &wrong])).0, "tls");
    assert_eq!(report(0, &url, &["--insecure"])["total"]["failed"], 0);
    // Its certificate is believed, but it is another's name.
    let address = format!("https://{}/", server.address);
    let other = report(1, &address, &["--ca-cert", &right]);
    assert!(only_failure(&other).1.contains("certificate not valid for name"), "{other:#}");

    let none = loadtest(1, &[&url, "--ca-cert", &file("none.pem", "hello\n")]);
    assert!(none.err.contains("holds no PEM certificate"), "{}", none.err);
    let broken = file("broken.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    let broken = loadtest(1, &[&url, "--ca-cert", &broken]);
    assert!(broken.err.contains("is not a file of PEM certificates"), "{}", broken.err);
    loadtest(2, &[&url, "--ca-cert", &right, "--insecure"]);

    let plain = loadtest(1, &[&format!("http://localhost:{}/", server.address.port())]);
    assert!(plain.out.contains("the server speaks TLS, not plain HTTP: try https://"), "{}", plain.out);
    let plain = Server::start(|mut stream| {
        let _ = stream.read(&mut [0; 1000]);
        let _ = stream.write_all(&answer("400 Bad Request", "", b""));
    });
    let plain = loadtest(1, &[&format!("https://{}/", plain.address)]);
    assert!(plain.out.contains("what the server says is not TLS: try http://"), "{}", plain.out);
}

/// A server that quotes what it was sent in its error page, as many do.
#[test]
fn secrets_of_the_command_line_are_sent_and_never_shown() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let asked = Arc::clone(&seen);
    let server = Server::start(move |mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let one_line = head.replace("\r\n", " ");
            let body = format!("not for {one_line} (hunter2 password)");
            asked.lock().unwrap().push(head);
            if stream.write_all(&answer("401 Unauthorized", "x: hunter2%20password\r\n", body.as_bytes())).is_err() {
                return;
            }
        }
    });
    let page = Place::new().outside("report.html");
    std::fs::create_dir_all(page.parent().unwrap()).unwrap();
    let page = page.to_str().unwrap();
    let url = format!("http://me:hunter2%20password@{}/a", server.address);
    let token = ["-H", "X-Api-Key: k3y-0f-the-house"];
    let short = ["--duration", "200ms", "--users", "2", "--html", page];
    let mut said = Vec::new();
    for format in [&[][..], &["--json"]] {
        let contract = loadtest(1, &[&[url.as_str()], &token[..], format].concat());
        assert!(contract.out.contains("***"), "{}", contract.out);
        let load = loadtest(1, &[&[url.as_str(), "--no-contract"], &token[..], &short, format].concat());
        assert!(load.out.contains("***"), "{}", load.out);
        said.extend([contract.out, contract.err, load.out, load.err, std::fs::read_to_string(page).unwrap()]);
    }
    for said in said {
        for secret in ["hunter2", "k3y-0f-the-house", "bWU6aHVudGVyMiBwYXNzd29yZA"] {
            assert!(!said.contains(secret), "{secret} in {said}");
        }
    }
    let seen = seen.lock().unwrap();
    assert!(seen[0].contains("authorization: Basic bWU6aHVudGVyMiBwYXNzd29yZA==\r\n"), "{}", seen[0]);
    assert!(seen[0].contains("X-Api-Key: k3y-0f-the-house\r\n"), "{}", seen[0]);
}

/// Starts a long test, stops it by a signal once requests have come, and gives what it said.
fn interrupted(server: &Server, signal: Signal, arguments: &[&str]) -> Ended {
    let mut command = Command::new(PROGRAM);
    let url = server.url();
    command.args(["loadtest", &url, "--duration", "1h"]).args(arguments).env("NO_COLOR", "1");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let before = server.requests.load(Ordering::SeqCst);
    eventually("requests come", || server.requests.load(Ordering::SeqCst) > before + 50);
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    ended(child.wait_with_output().unwrap())
}

#[test]
fn stopped_midway_it_reports_what_was_measured() {
    let server = Server::answering(answer("200 OK", "", b"ok"));
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let stopped = interrupted(&server, signal, &["--json"]);
        assert_eq!(stopped.code, 130, "{stopped:?}");
        let report: Value = serde_json::from_str(&stopped.out).unwrap();
        assert_eq!((&report["cancelled"], &report["verdict"]), (&true.into(), &"invalid".into()));
        assert!(report["total"]["good"].as_u64().unwrap() > 0, "{report:#}");
        assert_eq!(report["reasons"][0], "the test was stopped before its end");
    }
    let stopped = interrupted(&server, Signal::SIGINT, &[]);
    assert_eq!(stopped.code, 130, "{stopped:?}");
    for part in ["GET /a", "latency   p50", "invalid\n  the test was stopped before its end"] {
        assert!(stopped.out.contains(part), "{part} in {}", stopped.out);
    }
    // Within the contract, whose answer never comes.
    let (requests, counted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&counted);
    let deaf = Server::at("127.0.0.1:0", requests, move |mut stream| {
        read_head(&mut stream);
        count.fetch_add(100, Ordering::SeqCst);
        std::thread::park();
    });
    let deaf = Server { requests: counted, ..deaf };
    assert_eq!(interrupted(&deaf, Signal::SIGINT, &["--timeout", "1h"]).code, 130);
}
