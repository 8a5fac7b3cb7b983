//! Open streams end with the token or the session that they were opened with.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::harness::eventually;
use crate::served::{Served, request};
use crate::sessions::{csrf, database, sign_in, site, token};

/// A stream that somebody reads.
struct Open {
    connection: TcpStream,
    said: String,
}

impl Open {
    #[track_caller]
    fn new(address: SocketAddr, path: &str, header: (&str, &str)) -> Self {
        let mut connection = TcpStream::connect(address).unwrap();
        // Longer than the daemon takes to look again.
        connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (name, value) = header;
        let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{name}: {value}\r\n\r\n");
        connection.write_all(head.as_bytes()).unwrap();
        let mut open = Self { connection, said: String::new() };
        open.until("\r\n\r\n");
        assert!(open.said.starts_with("HTTP/1.1 200 "), "{}", open.said);
        open
    }

    /// Reads until this has come.
    #[track_caller]
    fn until(&mut self, text: &str) {
        while !self.said.contains(text) {
            assert!(self.more(), "ended before `{text}`: {}", self.said);
        }
    }

    /// Reads until the daemon ends it.
    #[track_caller]
    fn rest(mut self) -> String {
        while self.more() {}
        self.said
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = self.connection.read(&mut buffer).unwrap();
        self.said.push_str(&String::from_utf8_lossy(&buffer[..read]));
        read > 0
    }
}

fn as_bearer(address: SocketAddr, token: &str, method: &str, path: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body: &[u8] = if method == "POST" { b"{}" } else { b"" };
    request(address, method, path, &headers, body).unwrap().status
}

fn log_of_a_build(daemon: &Served, admin: &str) -> &'static str {
    assert_eq!(as_bearer(daemon.address(), admin, "POST", "/api/v1/projects/demo/builds"), 202);
    let log = "/api/v1/builds/1/stages/a/attempts/1/log";
    eventually("the stage writes", || as_bearer(daemon.address(), admin, "GET", log) == 200);
    log
}

#[test]
fn a_stream_ends_with_what_it_was_opened_by() {
    let site = site("");
    site.place.write("pipeline.yaml", "stages: { a: { run: \"echo one; sleep 300\" } }");
    site.commit("slow");
    let admin = token(&site, "admin", &["--scope", "admin"]);
    let [ann, bob, cid] = ["ann", "bob", "cid"].map(|name| token(&site, name, &[]));
    let daemon = site.serve();
    let address = daemon.address();
    let log = log_of_a_build(&daemon, &admin);
    let bearer = |token: &str| format!("Bearer {token}");
    let by_token = |path: &str, token: &str| Open::new(address, path, ("authorization", &bearer(token)));
    let follow = format!("{log}/follow");

    // By what the daemon itself is asked for: at once, everywhere.
    let cookie = sign_in(&daemon, &ann, "/").cookie();
    let form = format!("csrf={}", csrf(&site));
    let mut signed_in = Open::new(address, &follow, ("cookie", &cookie));
    signed_in.until("one");
    let mut of_build = by_token("/api/v1/builds/1/events", &bob);
    of_build.until("data:");
    let mut stays = by_token(&follow, &admin);
    stays.until("one");
    let headers = [
        ("cookie", cookie.as_str()),
        ("content-type", "application/x-www-form-urlencoded"),
        ("sec-fetch-site", "same-origin"),
    ];
    assert_eq!(request(address, "POST", "/sign-out", &headers, form.as_bytes()).unwrap().status, 303);
    assert!(!signed_in.rest().contains("event: end"), "it is not told that the log is complete");
    let id: u64 = database(&site).query_row("SELECT id FROM tokens WHERE name = 'bob'", [], |row| row.get(0)).unwrap();
    assert_eq!(as_bearer(address, &admin, "DELETE", &format!("/api/v1/tokens/{id}")), 204);
    of_build.rest();

    // By time, and beside the daemon: at its next look.
    let cookie = sign_in(&daemon, &ann, "/").cookie();
    let all = Open::new(address, "/api/v1/events", ("cookie", &cookie));
    let mut by_time = by_token(&follow, &cid);
    by_time.until("one");
    database(&site).execute("UPDATE sessions SET expires_at = 1", []).unwrap();
    database(&site).execute("UPDATE tokens SET expires_at = 1 WHERE name = 'cid'", []).unwrap();
    all.rest();
    assert!(!by_time.rest().contains("event: end"));

    // All others go on.
    assert_eq!(as_bearer(address, &admin, "POST", "/api/v1/builds/1/cancel"), 202);
    assert!(stays.rest().contains("event: end"));
}
