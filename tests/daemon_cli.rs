//! The command line against a daemon: the real program on both sides.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;

use serde_json::Value;

use crate::harness::{Ended, PROGRAM, Place, ended, eventually};

const PIPELINE: &str = "
params:
  word: { type: string, default: plain }
stages:
  say: { run: 'echo said $PARAM_WORD; sleep $([ \"$PARAM_WORD\" = slow ] && echo 60 || echo 0)' }
  fail: { needs: [say], when: { event: [manual] }, run: 'echo about to fail; exit $([ \"$PARAM_WORD\" = bad ] && echo 3 || echo 0)' }
";

/// A daemon with one project, `demo`, in a repository of its own.
pub struct Served {
    pub place: Place,
    daemon: Child,
    pub url: String,
    pub token: String,
    _log: mpsc::Receiver<String>,
}

impl Served {
    pub fn start(pipeline: &str) -> Self {
        let place = Place::with(pipeline);
        git(&place, &["init", "-q", "-b", "main"]);
        git(&place, &["add", "."]);
        git(&place, &["commit", "-q", "-m", "first [skip ci]"]);
        let (daemon, url, token, log) = serve(&place);
        Self { place, daemon, url, token: token.expect("the first start prints a token"), _log: log }
    }

    /// The program as someone elsewhere runs it: no data folder, no configuration of its own.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .current_dir(self.place.project())
            .env("ORCHESTRATOR_DATA_DIR", "/nonexistent/never")
            .env("ORCHESTRATOR_SERVER", &self.url)
            .env("ORCHESTRATOR_TOKEN", &self.token)
            .env("XDG_CONFIG_HOME", self.place.outside("config"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments).output().unwrap())
    }

    #[track_caller]
    pub fn expect(&self, code: i32, arguments: &[&str]) -> Ended {
        let ended = self.run(arguments);
        assert_eq!(ended.code, code, "{arguments:?}\n{}\n{}", ended.out, ended.err);
        ended
    }

    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let ended = self.expect(0, arguments);
        serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {}", ended.out))
    }

    pub fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.daemon.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

fn git(place: &Place, arguments: &[&str]) {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
    let done = Command::new("git").args(identity).args(arguments).current_dir(place.project()).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

fn config(place: &Place) -> PathBuf {
    let file = place.outside("orchestrator.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[projects.demo]\nrepository = \"{}\"\ntrusted = true\npoll = \"watch\"\n",
        place.project().display()
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// Starts the daemon and waits until it is ready: its address, and the token of a first start.
fn serve(place: &Place) -> (Child, String, Option<String>, mpsc::Receiver<String>) {
    let file = config(place);
    let mut command = place.command(&["serve", "--config", file.to_str().unwrap()]);
    let mut daemon = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let log = lines(daemon.stderr.take().unwrap());
    let ready = loop {
        let line = log.recv_timeout(std::time::Duration::from_secs(60)).expect("the daemon gets ready");
        if line.contains(" ready ") {
            break line;
        }
    };
    let address = ready.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let first = !place.outside("seen").exists();
    std::fs::write(place.outside("seen"), "").unwrap();
    let mut out = BufReader::new(daemon.stdout.take().unwrap());
    let token = first.then(|| {
        let mut line = String::new();
        while !line.trim().starts_with("orc_") {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "no token");
        }
        line.trim().to_owned()
    });
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    (daemon, format!("http://{address}"), token, log)
}

/// What it says, so that it never waits for a reader.
fn lines(from: ChildStderr) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

#[test]
fn a_build_is_asked_for_watched_and_read_from_elsewhere() {
    let served = Served::start(PIPELINE);
    let built = served.expect(0, &["trigger", "demo", "--branch", "main", "--param", "word=hello", "--wait"]);
    assert!(built.out.contains("build #1 passed"), "{}", built.out);

    // The same verbs print the same as on the data folder itself.
    for verb in
        [vec!["builds"], vec!["show", "1"], vec!["logs", "1"], vec!["logs", "1", "say", "--json"], vec!["events", "1"]]
    {
        let (there, here) = (served.expect(0, &verb), served.place.expect(0, &verb));
        assert_eq!(there.out, here.out, "{verb:?}");
    }
    assert!(served.expect(0, &["logs", "-f", "1", "say"]).out.contains("said hello"));
    assert_eq!(served.json(&["builds", "--json"])["items"][0]["status"], "passed");
    assert_eq!(served.json(&["show", "--json"])["id"], 1);
    assert_eq!(served.json(&["triggers", "--json"])["items"][0]["decision"], "started");
    let failed = served.expect(1, &["trigger", "demo", "--param", "word=bad", "--wait"]);
    assert!(failed.out.contains("| about to fail") && failed.out.contains("build #2 failed"), "{}", failed.out);
    let none = served.expect(1, &["trigger", "demo", "--branch", "nowhere"]);
    assert!(none.err.contains("nowhere"), "{}", none.err);
    assert_eq!(served.expect(1, &["show", "99"]).err, "error: there is no build #99\n");
    let strange = served.expect(2, &["logs", "1", "nope"]);
    assert!(strange.err.contains("it has `say`, `fail`"), "{}", strange.err);
}

#[test]
fn a_build_is_cancelled_and_the_queue_is_held_from_elsewhere() {
    let served = Served::start(PIPELINE);
    served.expect(0, &["trigger", "demo", "--param", "word=slow"]);
    let follower = served.command(&["logs", "-f", "1", "say"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    eventually("the stage runs", || served.json(&["show", "1", "--json"])["stages"][0]["status"] == "running");
    served.expect(0, &["cancel", "1"]);
    let waited = follower.unwrap().wait_with_output().unwrap();
    assert!(waited.status.success(), "{waited:?}");
    eventually("it is cancelled", || served.json(&["show", "1", "--json"])["status"] == "cancelled");
    assert!(served.expect(0, &["cancel", "1"]).out.contains("has ended already"));

    served.expect(0, &["queue", "pause", "--reason", "new disks"]);
    served.expect(0, &["trigger", "demo"]);
    served.expect(0, &["trigger", "demo"]);
    eventually("both wait", || served.json(&["queue", "--json"])["count"] == 2);
    served.expect(0, &["queue", "move", "3", "front"]);
    eventually("the order changed", || served.json(&["queue", "--json"])["waiting"][0]["build"] == 3);
    let shown = served.expect(0, &["queue"]);
    assert!(shown.err.contains("paused: new disks") && shown.out.contains("the queue to be resumed"), "{shown:?}");
    // The data folder itself can be worked on, too.
    served.place.expect(0, &["queue", "resume"]);
    eventually("both are done", || served.json(&["builds", "--json"])["items"][0]["status"] == "passed");
    assert_eq!(served.expect(1, &["approve", "2"]).out, "");
}

#[test]
fn who_is_let_in() {
    let mut served = Served::start(PIPELINE);
    let url = served.url.clone();
    let bare = |arguments: &[&str]| ended(served.command(arguments).env_remove("ORCHESTRATOR_TOKEN").output().unwrap());
    let login = |token: &str| {
        let mut child = served
            .command(&["login", &url])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(format!("{token}\n").as_bytes()).unwrap();
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        (child.wait().unwrap().code().unwrap(), told)
    };
    let refused = bare(&["builds"]);
    assert_eq!(refused.code, 6);
    assert!(refused.err.contains(&format!("orchestrator login {url}")), "{}", refused.err);

    // Whoever has the data folder gets in again without any token.
    let reader = served.place.expect(0, &["tokens", "create", "reader"]).out.trim().to_owned();
    assert_eq!(login("orc_wrong").0, 6);
    assert!(!served.place.outside("config/orchestrator/logins.json").exists(), "a wrong token is not kept");
    assert_eq!(login(&reader), (0, String::new()));
    let kept = std::fs::metadata(served.place.outside("config/orchestrator/logins.json")).unwrap();
    assert_eq!(kept.permissions().mode() & 0o777, 0o600);
    assert_eq!(bare(&["builds"]).code, 0);
    let denied = bare(&["trigger", "demo"]);
    assert_eq!(denied.code, 6);
    assert!(denied.err.contains("scope `trigger`"), "{}", denied.err);

    let made = served.json(&["tokens", "create", "ci", "--scope", "trigger", "--project", "demo", "--json"]);
    let listed = served.expect(0, &["tokens"]);
    assert!(listed.out.contains("ci") && !listed.out.contains(made["token"].as_str().unwrap()), "{}", listed.out);
    served.expect(0, &["tokens", "revoke", "2"]);
    assert_eq!(bare(&["builds"]).code, 6, "revoked");

    assert_eq!(
        served.expect(2, &["--server", &url, "gc"]).err,
        "error: `gc` works on this machine alone: leave --server away\n"
    );
    assert_eq!(served.run(&["--server", "nonsense", "builds"]).code, 2);
    served.stop();
    let gone = served.expect(5, &["builds"]);
    assert!(gone.err.contains("cannot reach the server"), "{}", gone.err);
}

const SECRETS: &str = "
stages:
  plain: { run: 'echo fine' }
  use: { needs: [plain], secrets: [TOKEN], run: 'test ${#TOKEN} = 15 && echo it is $TOKEN' }
  ship: { needs: [use], secrets: [SHIP], run: 'echo length ${#SHIP}' }
";

fn put(served: &Served, value: &str, arguments: &[&str]) -> Ended {
    let mut child = served.command(arguments);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    ended(child.wait_with_output().unwrap())
}

#[test]
fn secrets_are_sealed_given_and_never_shown() {
    let served = Served::start(SECRETS);
    // What is missing is said, with what to do; the build ends.
    let lacking = served.expect(1, &["trigger", "demo", "--wait"]);
    assert!(
        lacking.out.contains("TOKEN is not set: `orchestrator secrets set TOKEN --project demo` sets it"),
        "{}",
        lacking.out
    );

    assert_eq!(put(&served, "correct-horse-9\n", &["secrets", "set", "TOKEN", "--project", "demo"]).code, 0);
    assert_eq!(put(&served, "battery", &["secrets", "set", "SHIP", "--stage", "other"]).code, 0);
    let limited = served.expect(1, &["trigger", "demo", "--wait"]);
    assert!(limited.out.contains("SHIP is for the stages other and not for `ship`"), "{}", limited.out);
    let log = served.expect(0, &["logs", "2", "use"]).out;
    assert!(log.contains("it is ") && !log.contains("correct-horse"), "{log}");

    // The project's own goes before that of all projects, and a branch that does not fit gets none.
    assert_eq!(
        put(&served, "pigeon", &["secrets", "set", "SHIP", "--project", "demo", "--branch", "release/*"]).code,
        0
    );
    let limited = served.expect(1, &["trigger", "demo", "--wait"]);
    assert!(limited.out.contains("SHIP is for the branches release/* and not for `main`"), "{}", limited.out);
    assert_eq!(put(&served, "pigeon", &["secrets", "set", "SHIP", "--project", "demo", "--branch", "ma*"]).code, 0);
    let built = served.expect(0, &["trigger", "demo", "--wait"]);
    assert!(built.out.contains("passed"), "{}", built.out);
    assert!(served.expect(0, &["logs", "4", "ship"]).out.contains("length 6"));

    // Neither listed nor in any file of the data folder, before and after a rotation.
    let key = std::fs::read_to_string(served.place.data().join("keys/secrets.key")).unwrap();
    assert!(served.expect(0, &["secrets", "rotate"]).err.contains("3 secrets are sealed"));
    assert_ne!(std::fs::read_to_string(served.place.data().join("keys/secrets.key")).unwrap(), key);
    served.expect(0, &["trigger", "demo", "--no-reuse", "--wait"]);
    served.place.expect(0, &["secrets", "rotate"]);
    served.expect(0, &["trigger", "demo", "--no-reuse", "--wait"]);
    let listed = served.expect(0, &["secrets", "list", "--project", "demo"]).out;
    assert!(listed.contains("TOKEN") && listed.contains("ma*") && !listed.contains("horse"), "{listed}");
    for file in ["orchestrator.db", "orchestrator.db-wal"] {
        let bytes = std::fs::read(served.place.data().join(file)).unwrap_or_default();
        assert!(!bytes.windows(13).any(|part| part == b"correct-horse"), "{file}");
    }
    served.expect(0, &["secrets", "remove", "TOKEN", "--project", "demo"]);
    assert_eq!(
        served.expect(1, &["secrets", "remove", "TOKEN", "--project", "demo"]).err,
        "error: there is no secret TOKEN\n"
    );
    assert_eq!(put(&served, "x", &["secrets", "set", "NOT-A-NAME"]).code, 2);

    // A key that others may read is refused at the start.
    let key = served.place.data().join("keys/secrets.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(put(&served, "x", &["secrets", "set", "OTHER"]).code != 0);
}

/// A raw request, as some other program sends it: status and body.
fn raw(served: &Served, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut stream = std::net::TcpStream::connect(served.url.strip_prefix("http://").unwrap()).unwrap();
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let text = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\nauthorization: Bearer {}\r\n{more}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        served.token,
        body.len()
    );
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn a_request_that_is_sent_twice_counts_once() {
    let served = Served::start("stages: { a: { run: 'true' } }");
    let post = |key: &str, path: &str, body: &str| raw(&served, "POST", path, &[("idempotency-key", key)], body);
    let first = post("one", "/projects/demo/builds", "{}");
    assert_eq!(first.0, 202, "{}", first.1);
    assert_eq!(post("one", "/projects/demo/builds", "{}"), first);
    assert_eq!(post("one", "/projects/demo/builds", "{\"branch\":\"main\"}").0, 409);
    assert_eq!(post("one", "/queue/resume", "{}").0, 409);
    assert_ne!(post("two", "/projects/demo/builds", "{}").1, first.1);
    // Also a no is kept; a key that is none is refused.
    let none = post("three", "/projects/nope/builds", "{}");
    assert_eq!((none.0, post("three", "/projects/nope/builds", "{}")), (404, none));
    assert_eq!(post(&"x".repeat(256), "/queue/resume", "").0, 400);
    let manual = |row: &Value| row["source"] == "manual";
    let triggers = served.json(&["triggers", "--json"]);
    assert_eq!(triggers["items"].as_array().unwrap().iter().filter(|row| manual(row)).count(), 2, "{triggers:#}");
    // Whoever may not do it leaves nothing behind that stands in the way of one who may.
    let token = served.expect(0, &["tokens", "create", "reader"]).out;
    let authorization = format!("Bearer {}", token.trim());
    let mut stream = std::net::TcpStream::connect(served.url.strip_prefix("http://").unwrap()).unwrap();
    let text = format!(
        "POST /api/v1/projects/demo/builds HTTP/1.1\r\nhost: t\r\nconnection: close\r\nauthorization: {authorization}\r\n\
         idempotency-key: four\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert_eq!(post("four", "/projects/demo/builds", "{}").0, 202);
}

#[test]
fn doctor_looks_through_the_data_folder() {
    let mut served = Served::start(PIPELINE);
    served.expect(0, &["trigger", "demo", "--wait"]);
    let well = served.place.json(&["doctor", "--deep", "--json"]);
    let deep: Vec<&Value> = well.as_array().unwrap().iter().filter(|finding| finding["what"] == "deep").collect();
    assert!(deep.len() >= 10 && deep.iter().all(|finding| finding["state"] == "ok"), "{well:#}");
    served.stop();

    // Each thing that must hold is broken in turn.
    let data = served.place.data();
    let logs: Vec<PathBuf> =
        std::fs::read_dir(data.join("logs/1")).unwrap().map(|entry| entry.unwrap().path()).collect();
    logs.iter().for_each(|log| std::fs::remove_file(log).unwrap());
    std::fs::remove_dir_all(data.join("artifacts/blobs")).unwrap();
    let db = rusqlite::Connection::open(data.join("orchestrator.db")).unwrap();
    db.execute("UPDATE stages SET status = 'running' WHERE node = 'say'", []).unwrap();
    db.execute("UPDATE builds SET trigger = 999", []).unwrap();
    let ill = served.place.expect(1, &["doctor", "--deep"]);
    for what in
        ["build #1 say attempt 1: there is no log", "is not there, or damaged", "build 1 say is running", "trigger "]
    {
        assert!(ill.out.contains(what), "{what}: {}", ill.out);
    }
}

#[test]
fn a_backup_that_is_made_under_load_is_whole() {
    let mut served =
        Served::start("stages: { a: { run: 'for i in $(seq 200); do echo $i; done; echo x > out', outputs: [out] } }");
    for _ in 0..5 {
        served.expect(0, &["trigger", "demo", "--no-reuse"]);
    }
    let mut made = Vec::new();
    for at in 0..3 {
        let file = served.place.outside(&format!("backup-{at}.tar"));
        for _ in 0..5 {
            served.expect(0, &["trigger", "demo", "--no-reuse"]);
        }
        served.place.expect(0, &["backup", file.to_str().unwrap()]);
        made.push(file);
    }
    served.stop();
    for (at, file) in made.iter().enumerate() {
        let folder = served.place.outside(&format!("restored-{at}"));
        let on = |arguments: &[&str]| {
            let mut command = served.place.command(arguments);
            ended(command.env("ORCHESTRATOR_DATA_DIR", &folder).output().unwrap())
        };
        let restored = on(&["restore", file.to_str().unwrap()]);
        assert_eq!(restored.code, 0, "{restored:?}");
        let looked = on(&["doctor", "--deep"]);
        assert_eq!(looked.code, 0, "{looked:?}");
        assert!(on(&["builds", "--limit", "100"]).out.lines().count() > 5 * (at + 1), "what was accepted is in it");
        assert_eq!(on(&["restore", file.to_str().unwrap()]).code, 1, "only into an empty folder");
    }
    // One that was cut off is refused.
    let bytes = std::fs::read(&made[0]).unwrap();
    let cut = served.place.outside("cut.tar");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let mut command = served.place.command(&["restore", cut.to_str().unwrap()]);
    assert_eq!(
        command.env("ORCHESTRATOR_DATA_DIR", served.place.outside("cut")).output().unwrap().status.code(),
        Some(1)
    );
    assert!(!served.place.outside("cut/orchestrator.db").exists());
}

#[test]
fn what_works_here_alone_says_so_when_a_server_is_meant() {
    let place = Place::with("stages: { say: { run: 'echo said' } }\n");
    place.expect(0, &["run"]);
    let with_server = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        command.env("ORCHESTRATOR_SERVER", "http://127.0.0.1:9");
        ended(command.output().unwrap())
    };
    for changes in [&["deployments", "stop", "m"][..], &["deployments", "restore"], &["gc"], &["backup", "b.tar"]] {
        let refused = with_server(changes);
        assert_eq!(refused.code, 2, "{changes:?} {}", refused.err);
        assert!(refused.err.contains("changes this machine's data folder alone"), "{changes:?} {}", refused.err);
    }
    for reads in [&["models"][..], &["deployments"], &["artifacts", "list", "1"]] {
        let told = with_server(reads);
        assert_eq!(told.code, 0, "{reads:?} {}", told.err);
        assert!(told.err.contains("this is of this machine's data folder"), "{reads:?} {}", told.err);
    }
    let run = with_server(&["run"]);
    assert_eq!((run.code, run.err.contains("ORCHESTRATOR_SERVER")), (0, false), "{}", run.err);
    let data = place.data();
    let meant = with_server(&["--data-dir", data.to_str().unwrap(), "gc", "--dry-run"]);
    assert_eq!(meant.code, 0, "{}", meant.err);
    for flag in ["run", "schema", "models", "gc"] {
        let refused = place.run(&["--server", "http://127.0.0.1:9", flag]);
        assert_eq!(refused.code, 2, "{flag}");
        assert!(refused.err.contains("leave --server away"), "{flag} {}", refused.err);
    }
}
