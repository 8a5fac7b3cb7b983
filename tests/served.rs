//! Runs the real daemon on a local repository, and talks to it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use orchestrator::trigger::signature;
use serde_json::{Value, json};

use crate::harness::{PROGRAM, Place};

/// The secret of the project's webhooks.
pub const SECRET: &str = "a secret of webhooks";
/// GitHub's number of the repository.
pub const REPOSITORY: u64 = 1_296_269;

/// A repository, a configuration with one project `demo`, a data folder.
pub struct Site {
    pub place: Place,
}

/// A daemon that runs. Killed when dropped.
pub struct Served {
    child: Child,
    address: SocketAddr,
}

/// What a request came to.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.body))
    }
}

impl Site {
    /// A site whose repository holds this pipeline; `project` is more of the project's settings.
    pub fn new(pipeline: &str, project: &str) -> Self {
        let site = Self { place: Place::with(pipeline) };
        site.git(&["init", "-q", "-b", "main", "."]);
        site.commit("first");
        site.configure(project);
        site
    }

    /// Writes the configuration. The daemon asks for no token.
    pub fn configure(&self, project: &str) {
        self.configure_for(&self.place.project().display().to_string(), project);
    }

    /// As [`Site::configure`], with the repository at another address.
    pub fn configure_for(&self, repository: &str, project: &str) {
        self.secret("webhook-secret", SECRET);
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[data]\ndir = {data:?}\n[log]\nformat = \"json\"\n[auth]\nmode = \"none\"\n\
             [projects.demo]\nrepository = {repository:?}\nrepository_id = {REPOSITORY}\ntrusted = true\n\
             webhook_secret_file = {secret:?}\n{project}\n",
            data = self.place.data().display().to_string(),
            secret = self.secret_file().display().to_string(),
        );
        // As editors do: whoever reads it sees the old or the new one.
        let fresh = self.place.outside("fresh.toml");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.config()).unwrap();
    }

    /// The demo of this folder as it stands, but on a port that is free, and with a log that tests read.
    pub fn of_demo(place: Place, folder: &Path) -> Self {
        let config = fs::read_to_string(folder.join("orchestrator.toml")).unwrap();
        let config = config.replace("127.0.0.1:8484", "127.0.0.1:0") + "\n[log]\nformat = \"json\"\n";
        let site = Self { place };
        fs::write(site.config(), config).unwrap();
        site
    }

    pub fn config(&self) -> PathBuf {
        self.place.outside("orchestrator.toml")
    }

    /// A file that its owner alone reads.
    pub fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.place.outside(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn secret_file(&self) -> PathBuf {
        self.place.outside("webhook-secret")
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        git(&self.place.project(), arguments)
    }

    /// Commits all files, and gives the commit.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--config"]).arg(self.config()).stdin(Stdio::null()).stdout(Stdio::null());
        command.env_remove("ORCHESTRATOR_DATA_DIR").env("NO_COLOR", "1");
        command
    }

    /// Starts the daemon, and waits until it answers.
    #[track_caller]
    pub fn serve(&self) -> Served {
        self.try_serve().unwrap_or_else(|said| panic!("the daemon did not start:\n{said}"))
    }

    /// As [`Site::serve`], with more in its environment.
    #[track_caller]
    pub fn serve_with(&self, variables: &[(&str, &str)]) -> Served {
        self.start(variables).unwrap_or_else(|said| panic!("the daemon did not start:\n{said}"))
    }

    /// Starts the daemon; the error is what it said when it did not.
    pub fn try_serve(&self) -> Result<Served, String> {
        self.start(&[])
    }

    fn start(&self, variables: &[(&str, &str)]) -> Result<Served, String> {
        let mut child = self.command().envs(variables.iter().copied()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else {
                child.wait().unwrap();
                return Err(said);
            };
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(address) = event["fields"]["address"].as_str() {
                break address.parse().unwrap();
            }
            said.push_str(&line);
            said.push('\n');
        };
        let log = self.place.outside("daemon.log");
        std::thread::spawn(move || {
            let mut log = fs::OpenOptions::new().create(true).append(true).open(log).ok();
            if let Some(log) = &mut log {
                let _ = log.write_all(said.as_bytes());
            }
            for line in lines.map_while(Result::ok) {
                if let Some(log) = &mut log {
                    let _ = writeln!(log, "{line}");
                }
            }
        });
        Ok(Served { child, address })
    }
}

/// Git with an identity, in a folder.
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let done = Command::new("git")
        .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// One request on a connection of its own.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut whole = Vec::new();
    stream.read_to_end(&mut whole)?;
    let text = String::from_utf8_lossy(&whole);
    let cut = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "no answer");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(cut)?;
    Ok(Answer { status, body: body.to_owned() })
}

/// A signed delivery.
pub fn deliver(address: SocketAddr, event: &str, id: &str, body: &[u8]) -> std::io::Result<Answer> {
    let signature = signature::sign(SECRET.as_bytes(), body);
    let headers = [
        ("content-type", "application/json"),
        ("x-github-event", event),
        ("x-github-delivery", id),
        (signature::HEADER, &signature),
    ];
    request(address, "POST", "/hooks/github", &headers, body)
}

/// A push as GitHub tells it, as far as it matters.
pub fn push(git_ref: &str, before: &str, after: &str) -> Vec<u8> {
    let body = json!({
        "ref": git_ref, "before": before, "after": after, "created": false, "deleted": false, "forced": false,
        "repository": { "id": REPOSITORY, "full_name": "acme/demo", "private": false, "fork": false },
        "sender": { "login": "ann", "id": 7 },
        "head_commit": { "id": after, "message": "a commit" }, "commits": []
    });
    body.to_string().into_bytes()
}

impl Served {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let answer = request(self.address, "GET", path, &[], b"").unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        request(self.address, "POST", path, &headers, body.to_string().as_bytes()).unwrap()
    }

    pub fn deliver(&self, event: &str, id: &str, body: &[u8]) -> Answer {
        deliver(self.address, event, id, body).unwrap()
    }

    /// All rows of a listing, over its pages.
    #[track_caller]
    pub fn all(&self, path: &str) -> Vec<Value> {
        let mut rows = Vec::new();
        let mut next = None::<u64>;
        loop {
            let before = next.map_or_else(String::new, |next| format!("&before={next}"));
            let page = self.get(&format!("{path}?limit=200{before}"));
            rows.extend(page["items"].as_array().unwrap().iter().cloned());
            next = page["next"].as_u64();
            if next.is_none() {
                return rows;
            }
        }
    }

    /// Builds by status.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for build in self.all("/api/v1/builds") {
            *counts.entry(build["status"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        counts
    }

    /// Whether all triggers are decided and all builds have ended.
    pub fn is_idle(&self) -> bool {
        let open = self.all("/api/v1/triggers").iter().any(|trigger| trigger["decision"].is_null());
        let counts = self.counts();
        !open && !counts.contains_key("queued") && !counts.contains_key("running")
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the exit code.
    pub fn terminate(mut self) -> i32 {
        let pid = i32::try_from(self.child.id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // A test that failed leaves no daemon behind; one that ended itself is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A delivery that tells of a pull request from a fork.
pub fn of_fork(action: &str, number: u64, base: &str, head: &str) -> Vec<u8> {
    let text = include_str!("fixtures/github-webhooks/own/pull_request.fork.json");
    let mut body: Value = serde_json::from_str(text).unwrap();
    body["action"] = json!(action);
    body["number"] = json!(number);
    body["repository"]["id"] = json!(REPOSITORY);
    let request = &mut body["pull_request"];
    request["number"] = json!(number);
    request["head"]["sha"] = json!(head);
    request["base"]["sha"] = json!(base);
    request["base"]["ref"] = json!("main");
    request["base"]["repo"]["id"] = json!(REPOSITORY);
    body.to_string().into_bytes()
}

/// A commit of a stranger, which only `refs/pull` of the repository names.
pub fn stranger(site: &Site, number: u64, pipeline: &str) -> String {
    site.git(&["checkout", "-q", "--detach", "main"]);
    site.place.write("pipeline.yaml", pipeline);
    let commit = site.commit("please take this");
    site.git(&["update-ref", &format!("refs/pull/{number}/head"), &commit]);
    site.git(&["checkout", "-q", "main"]);
    commit
}
