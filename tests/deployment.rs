//! A model's port is its own, and one server answers there whatever is killed meanwhile.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use orchestrator::runner::Runner;
use orchestrator::runner::spec::{Command, UnitSpec};
use orchestrator::store::Store;
use orchestrator::store::deployments::{self, DeploymentRow, DeploymentStatus};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::harness::{Place, ended, eventually};
use crate::run::{healthy, players, promoting};
use crate::runner_contract::{local_runner, spec};

/// Kills of one test.
const KILLS: usize = 24;

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A place in which two versions were made, and version 1 serves.
fn two_versions(port: u16) -> Place {
    let place = Place::with(&promoting("decision-tree", port));
    place.write("players.csv", &players());
    place.expect(0, &["run"]);
    place.write("pipeline.yaml", &promoting("naive-bayes", port));
    place.expect(0, &["run"]);
    place
}

pub fn live(place: &Place) -> Vec<Value> {
    let rows = place.json(&["deployments", "--json"]);
    rows.as_array().unwrap().iter().filter(|row| row["status"] == "live").cloned().collect()
}

pub fn predicts(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let body = r#"{"a": 70, "b": 3}"#;
    let head = "POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json";
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}

/// One row is live, its unit answers, and it serves the champion.
#[track_caller]
pub fn in_order(place: &Place, port: u16, when: &str) {
    let live = live(place);
    assert_eq!(live.len(), 1, "{when}: {live:#?}");
    assert_eq!(live[0]["health"], "healthy", "{when}: {live:#?}");
    assert!(predicts(port), "{when}");
    assert_eq!(place.json(&["models", "--json"])[0]["champion"], live[0]["version"], "{when}");
    let open = place.json(&["deployments", "--json"]);
    assert!(open.as_array().unwrap().iter().all(|row| row["status"] != "starting"), "{when}: {open:#}");
}

#[track_caller]
pub fn clear(place: &Place) {
    place.expect(0, &["deployments", "stop", "players"]);
    eventually("nothing is left", || place.processes().is_empty());
}

#[test]
fn promotions_by_hand_survive_kill_9() {
    let port = free_port();
    let place = two_versions(port);
    let mut random = SmallRng::seed_from_u64(5);
    let mut target = 2;
    let mut kills = 0;
    while kills < KILLS {
        let change: &[&str] = if target == 2 { &["promote", "players", "2"] } else { &["rollback", "players"] };
        let mut child = place.command(change).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Most of what can be interrupted happens in the first moments.
        std::thread::sleep(Duration::from_millis(random.gen_range(3..350)));
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            kills += 1;
        }
        child.wait().unwrap();
        place.expect(0, &["gc"]);
        in_order(&place, port, &format!("after kill {kills}"));
        target = 3 - live(&place)[0]["version"].as_u64().unwrap();
    }
    clear(&place);
}

/// Where files of a server are gone, nothing is stopped.
#[test]
fn what_could_not_be_started_again_is_not_stopped() {
    let port = free_port();
    let place = two_versions(port);
    place.expect(0, &["promote", "players", "2"]);
    std::fs::remove_dir_all(place.data().join("artifacts/blobs")).unwrap();
    let refused = place.expect(1, &["rollback", "players"]);
    assert!(refused.err.contains("version 1 cannot be started"), "{}", refused.err);
    in_order(&place, port, "after a refusal");
    assert_eq!(place.json(&["models", "--json"])[0]["champion"], 2);
    clear(&place);
}

/// Neither version can be started any more: the champion stays who it was, and it is said that nothing serves.
#[tokio::test]
async fn what_cannot_be_brought_back_is_said() {
    let port = free_port();
    let place = two_versions(port);
    place.expect(0, &["promote", "players", "2"]);
    let store = Store::open(&place.data().join("orchestrator.db")).unwrap();
    let broken = "UPDATE deployments SET spec = json_set(replace(spec, 'serve-model', 'no-such-command'), \
                  '$.ready.timeout.secs', 2)";
    store.write(move |tx| Ok(tx.execute(broken, [])?)).await.unwrap();
    let failed = place.expect(1, &["rollback", "players"]);
    assert!(failed.err.contains("NOTHING SERVES NOW: version 2 could not be brought back"), "{}", failed.err);
    assert_eq!(place.json(&["models", "--json"])[0]["champion"], 2);
    let rows = place.json(&["deployments", "--json"]);
    assert!(
        rows.as_array().unwrap().iter().all(|row| row["status"] != "live" && row["status"] != "starting"),
        "{rows:#}"
    );
    eventually("nothing is left", || place.processes().is_empty());
}

/// A deployment as an interrupted process leaves it is seen to by `gc`, and by a dry run only looked at.
#[tokio::test]
async fn a_dry_run_takes_up_nothing() {
    let place = Place::with("stages: { a: { run: 'true' } }");
    place.expect(0, &["run"]);
    let store = std::sync::Arc::new(Store::open(&place.data().join("orchestrator.db")).unwrap());
    let row = DeploymentRow {
        id: 0,
        model: "m".to_owned(),
        version: 1,
        unit: "orc-none-dep-m-v1-0".to_owned(),
        runner: "local".to_owned(),
        port: free_port(),
        spec: serde_json::json!({ "workspace": "0".repeat(64) }),
        status: DeploymentStatus::Starting,
        detail: String::new(),
        since: orchestrator::ids::Micros(0),
    };
    let id = store.write(move |tx| deployments::create(tx, &row)).await.unwrap();
    for (arguments, expected) in
        [(&["gc", "--dry-run"][..], DeploymentStatus::Starting), (&["gc"][..], DeploymentStatus::Failed)]
    {
        place.expect(0, arguments);
        let status = store.read(move |db| deployments::status(db, id)).await.unwrap();
        assert_eq!(status, expected, "{arguments:?}");
    }
}

#[test]
fn a_strangers_server_is_not_taken_for_ours() {
    let port = free_port();
    let place = Place::with("");
    let (begun, go) = (place.outside("begun"), place.outside("go"));
    let hold = format!(
        "stages:\n  hold: {{ run: 'touch {}; while ! test -e {}; do sleep 0.05; done' }}\n  train:\n",
        begun.display(),
        go.display()
    );
    let pipeline = promoting("decision-tree", port).replace("stages:\n  train:\n", &hold);
    place.write("pipeline.yaml", &pipeline.replace("needs: [train, test-api]", "needs: [train, test-api, hold]"));
    place.write("players.csv", &players());
    let child = place.command(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it has begun", || begun.exists());
    // It answers whatever it is asked, as a forgotten server would.
    let stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for stream in stranger.incoming().flatten() {
            let mut stream = stream;
            let _asked = stream.read(&mut [0; 4096]);
            let _answered = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    std::fs::write(&go, "").unwrap();
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 1, "{}{}", ended.out, ended.err);
    assert!(ended.out.contains(&format!("port {port} is used by")), "{}", ended.out);
    assert!(ended.out.trim_end().ends_with("not promoted"), "{}", ended.out);
    assert!(live(&place).is_empty());
    assert_eq!(place.json(&["models", "--json"])[0]["champion"], Value::Null);
    let shown = place.json(&["models", "show", "players", "--json"]);
    assert_eq!(shown["promotions"], serde_json::json!([]), "nothing was decided: {shown:#}");
    eventually("nothing is left", || place.processes().is_empty());

    // A port that is taken before anything is begun costs no training.
    let refused = place.expect(1, &["run"]);
    assert!(
        refused.err.contains("nothing is begun") && refused.err.contains(&format!("port {port} is used by")),
        "{}",
        refused.err
    );
    assert_eq!(place.json(&["builds", "--json"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn a_port_that_serves_another_model_is_refused() {
    let port = free_port();
    let place = Place::with(&promoting("decision-tree", port));
    place.write("players.csv", &players());
    place.expect(0, &["run"]);
    place.write("pipeline.yaml", &promoting("decision-tree", port).replace("model: players", "model: others"));
    let ended = place.expect(1, &["run"]);
    assert!(ended.err.contains(&format!("port {port} serves model `players`")), "{}", ended.err);
    in_order_of(&place, "players", port);
    clear(&place);
}

#[track_caller]
fn in_order_of(place: &Place, model: &str, port: u16) {
    let live = live(place);
    assert_eq!(live.len(), 1, "{live:#?}");
    assert_eq!(live[0]["model"], model);
    assert!(healthy(port));
}

#[test]
fn promotions_at_once_leave_one_server() {
    let port = free_port();
    let place = two_versions(port);
    for _ in 0..3 {
        let spawn = |version: &str| {
            let mut command = place.command(&["promote", "players", version]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<_> = ["2", "1", "2", "1"].map(spawn).into_iter().collect();
        for child in children {
            let ended = ended(child.wait_with_output().unwrap());
            assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
        }
        in_order(&place, port, "after four promotions at once");
    }
    clear(&place);
}

#[test]
fn a_server_that_died_is_shown_and_restored() {
    let port = free_port();
    let place = Place::with(&promoting("decision-tree", port));
    place.write("players.csv", &players());
    place.expect(0, &["run"]);
    // As after a reboot: the shim and its server are gone.
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains(&place.data().display().to_string()) && line.contains("-dep-") {
            let pid: i32 = process.file_name().to_string_lossy().parse().unwrap();
            let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
    eventually("it is seen to be gone", || live(&place)[0]["health"] == "gone");
    place.expect(0, &["deployments", "restore"]);
    let printed = place.expect(0, &["deployments", "logs", "players", "-n", "1"]).out;
    assert_eq!(printed, format!("listening on http://127.0.0.1:{port}\n"));
    in_order(&place, port, "after it was restored");
    clear(&place);
}

#[test]
fn a_fixed_port_of_serve_has_one_user_at_a_time() {
    let port = free_port();
    let pipeline = promoting("decision-tree", free_port());
    let (head, _) = pipeline.split_once("  promote:").unwrap();
    let place = Place::with(&head.replace("port: auto", &format!("port: {port}")));
    place.write("players.csv", &players());
    place.expect(0, &["builds"]);
    let mut file = std::fs::File::create(place.data().join(format!("locks/port-{port}"))).unwrap();
    file.write_all(b"stage `other` of build #77").unwrap();
    let held = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
    let mut child = place.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let log = place.data().join("logs/1/test-api.1.log");
    let waits = format!("waits for port {port}, which stage `other` of build #77 has");
    eventually("it waits", || std::fs::read_to_string(&log).is_ok_and(|text| text.contains(&waits)));
    drop(held);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    eventually("nothing is left", || place.processes().is_empty());
}

#[tokio::test]
async fn a_long_output_is_capped_and_masked() {
    let folder = tempfile::tempdir().unwrap();
    let runner = local_runner(folder.path());
    // 40 MiB, then it stays: a deployment that prints for a long time.
    let script = "i=0; line=\"$TOKEN $(head -c 4000 /dev/zero | tr '\\0' x)\"; \
                  while [ $i -lt 10000 ]; do echo \"$line\"; i=$((i+1)); done; echo done > done; exec sleep 600";
    let unit = UnitSpec {
        restart: true,
        env: vec![("TOKEN".to_owned(), "hunter22-x".to_owned())],
        masked: vec!["TOKEN".to_owned()],
        ..spec("printer", Command::Arguments(["sh", "-c", script].map(str::to_owned).to_vec()))
    };
    runner.create(&unit, None).await.unwrap();
    drop(runner.start(&unit.name).await.unwrap());
    let found = |name: &str| {
        let mut folders = vec![folder.path().to_owned()];
        while let Some(at) = folders.pop() {
            for entry in std::fs::read_dir(at).unwrap().flatten() {
                if entry.file_name() == name {
                    return Some(entry.path());
                }
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        None
    };
    eventually("it has printed all", || found("done").is_some());
    for name in ["output", "output.1"] {
        let bytes = std::fs::read(found(name).unwrap()).unwrap();
        assert!(bytes.len() <= 16 << 20, "{name} has {} bytes", bytes.len());
        assert!(!String::from_utf8_lossy(&bytes).contains("hunter22"), "the secret is in {name}");
        assert!(String::from_utf8_lossy(&bytes).contains("*** xxx"), "nothing is in {name}");
    }
    runner.remove(&unit.name).await.unwrap();
}
