//! The built-in model server, spoken to over a real socket, and the quickstart's numbers.

use std::net::SocketAddr;
use std::path::Path;

use indexmap::IndexMap;
use orchestrator::judge::predictions::Predictions;
use orchestrator::judge::promote::{Evidence, SideEvidence, Verdict, judge};
use orchestrator::model::server::serve;
use orchestrator::model::train::{TrainPaths, train};
use orchestrator::pipeline::types::{Algorithm, BetterIf, Deploy, Goal, Linfa, PairedTest, Promote, Task};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A column whose name would be markup if it were not escaped.
const MARKUP: &str = "<script>\"x\"";

struct Server {
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let model = train_small(folder.path());
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, addr) = oneshot::channel();
        let ended = tokio::spawn(async move {
            let ready = |addr| bound.send(addr).expect("the test waits");
            let stopped = async {
                stopped.await.expect("the test says stop");
            };
            serve(&model, "127.0.0.1:0".parse().expect("an address"), ready, stopped).await.expect("served");
        });
        Self { addr: addr.await.expect("bound"), stop, ended, _folder: folder }
    }

    /// Status, head and body of one answer.
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.addr).await.expect("connected");
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: model\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, head.to_lowercase(), body.to_owned())
    }

    async fn predict(&self, body: &Value) -> (u16, Value) {
        let (status, _, answer) = self.ask("POST", "/predict", &body.to_string()).await;
        (status, serde_json::from_str(&answer).expect("JSON"))
    }
}

/// `bought` follows from `age`; `place` is a category, one column's name is markup.
fn train_small(folder: &Path) -> std::path::PathBuf {
    let mut text = "id,age,place,\"<script>\"\"x\"\"\",always,bought\n".to_owned();
    for row in 0..80 {
        text += &format!("r{row},{row},{},{},1,{}\n", ["here", "there"][row % 2], row % 7, u8::from(row >= 60));
    }
    std::fs::write(folder.join("data.csv"), text).expect("written");
    let spec = Linfa {
        data: "data.csv".into(),
        target: "bought".into(),
        task: Task::Classification,
        algorithm: Algorithm::DecisionTree,
        params: IndexMap::new(),
        holdout: 0.25,
        seed: 1,
        drop: vec![],
    };
    let out = TrainPaths {
        model: folder.join("model.json"),
        metrics: folder.join("metrics.json"),
        predictions: folder.join("predictions.csv"),
        evaluation: None,
    };
    train(&spec, &folder.join("data.csv"), &out, &mut |_| ()).expect("trained");
    out.model
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_server_keeps_its_contract() {
    let server = Server::start().await;
    rows_are_predicted(&server).await;
    wrong_rows_are_told(&server).await;
    people_can_try_it(&server).await;

    let (status, _, text) = server.ask("GET", "/healthz", "").await;
    assert_eq!((status, text.as_str()), (200, "ok\n"));
    let (status, _, text) = server.ask("GET", "/metrics", "").await;
    assert_eq!(status, 200);
    assert!(text.contains("model_requests_total{path=\"/predict\",status=\"422\"} 4"), "{text}");
    assert!(text.contains("model_predicted_rows_total 204"), "{text}");
    assert_eq!(server.ask("GET", "/nowhere", "").await.0, 404);
    assert_eq!(server.ask("GET", "/predict", "").await.0, 405);

    server.stop.send(()).expect("the server runs");
    server.ended.await.expect("it ends well");
    assert!(TcpStream::connect(server.addr).await.is_err());
}

async fn rows_are_predicted(server: &Server) {
    let row = json!({"age": 75, "place": "here", MARKUP: 3});
    let (status, answer) = server.predict(&row).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer,
        json!({"prediction": 1, "probability": 1.0, "positive_class": 1, "probabilities": {"0": 0.0, "1": 1.0}})
    );
    // Known columns that the model does not use, the target, null and an unknown category are all taken.
    let young = json!({"id": "x", "age": 5, "place": "elsewhere", MARKUP: null, "always": 1, "bought": 0});
    let (status, answer) = server.predict(&json!([row, young])).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer[0]["prediction"], &answer[1]["prediction"]), (&json!(1), &json!(0)));
    let many: Vec<&Value> = std::iter::repeat_n(&young, 200).collect();
    let (status, answer) = server.predict(&json!(many)).await;
    assert_eq!((status, answer.as_array().map(Vec::len)), (200, Some(200)));
}

async fn wrong_rows_are_told(server: &Server) {
    let (status, answer) = server.predict(&json!({"age": "old", "colour": 1, MARKUP: [1]})).await;
    assert_eq!(status, 422);
    assert_eq!(answer["missing"], json!(["place"]));
    assert_eq!(answer["unknown"], json!(["colour"]));
    assert_eq!(answer["wrong"][0], json!({"column": "age", "expected": "a number or null", "got": "\"old\""}));
    assert_eq!(answer["wrong"].as_array().map(Vec::len), Some(2));
    let (status, answer) = server.predict(&json!([{"age": 1, "place": "here", MARKUP: 1}, {}])).await;
    assert_eq!((status, &answer["rows"][0]["row"]), (422, &json!(1)));
    assert_eq!(server.predict(&json!(7)).await.0, 422);
    let (status, head, answer) = server.ask("POST", "/predict", "{").await;
    assert_eq!(status, 400);
    assert!(head.contains("content-type: application/problem+json"), "{head}");
    assert!(answer.contains("the body must be JSON"), "{answer}");
    let nested = "[".repeat(100_000);
    assert_eq!(server.ask("POST", "/predict", &nested).await.0, 422);
    let (status, answer) = server.predict(&json!(vec![json!({"age": 1, "place": "here", MARKUP: 1}); 10_001])).await;
    assert_eq!((status, &answer["title"]), (413, &json!("too many rows")));
}

async fn people_can_try_it(server: &Server) {
    let (status, head, page) = server.ask("GET", "/", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    assert!(!page.contains("<script"), "{page}");
    assert!(page.contains("name=\"&lt;script&gt;&quot;x&quot;\""), "{page}");
    let form = "age=75&place=here&%3Cscript%3E%22x%22=";
    let (status, _, page) = server.ask("POST", "/try", form).await;
    assert_eq!(status, 200);
    assert!(page.contains("bought: 1"), "{page}");
    assert!(page.contains("value=\"75\""), "what was sent stays in the form");
    let (status, _, page) = server.ask("POST", "/try", "age=%3Cb%3E&place=here&%3Cscript%3E%22x%22=1").await;
    assert_eq!(status, 422);
    assert!(page.contains("`age` must be a number") && !page.contains("<b>\""), "{page}");
}

/// Trains the quickstart's data with the quickstart's settings.
fn quickstart(folder: &Path, version: u64, algorithm: Algorithm, params: Value) -> SideEvidence {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart/player_stats.csv");
    let Value::Object(params) = params else { panic!("an object is given") };
    let spec = Linfa {
        data: "player_stats.csv".into(),
        target: "PFA_Team".into(),
        task: Task::Classification,
        algorithm,
        params: params.into_iter().collect(),
        holdout: 0.4,
        seed: 7,
        drop: vec![],
    };
    let out = TrainPaths {
        model: folder.join("model.json"),
        metrics: folder.join("metrics.json"),
        predictions: folder.join("predictions.csv"),
        evaluation: None,
    };
    let summary = train(&spec, &data, &out, &mut |_| ()).expect("trained");
    assert_eq!((summary.rows, summary.held_out, summary.positive_class.as_deref()), (3066, 2043, Some("1")));
    let predictions = std::fs::read(&out.predictions).expect("written");
    SideEvidence {
        version,
        artifact_digest: version.to_string(),
        metrics: summary.metrics,
        predictions: Some(Predictions::parse(&predictions).expect("our own predictions are readable")),
        scored_now: false,
    }
}

#[test]
fn the_quickstart_promotes_and_rejects_as_its_readme_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let tree = quickstart(folder.path(), 1, Algorithm::DecisionTree, json!({}));
    let logistic = quickstart(folder.path(), 2, Algorithm::Logistic, json!({"threshold": 0.2}));
    let bayes = quickstart(folder.path(), 3, Algorithm::NaiveBayes, json!({}));
    let better = BetterIf {
        goal: Goal::Maximize,
        min_gain: 0.0,
        test: PairedTest::Bootstrap,
        confidence: 0.95,
        resamples: 2000,
        seed: 7,
    };
    let spec = Promote {
        model: "quickstart".into(),
        better_if: [("average_precision".to_owned(), better)].into(),
        guardrails: IndexMap::new(),
        fail_on: vec![],
        approval_manual: false,
        deploy: Deploy::None,
    };
    let judged = |candidate: &SideEvidence, champion: &SideEvidence| {
        judge(&spec, &Evidence { candidate: candidate.clone(), champion: Some(champion.clone()) })
    };
    let promoted = judged(&logistic, &tree);
    assert_eq!(promoted.verdict, Verdict::Promoted);
    assert!(promoted.reason.contains("0.3711 against 0.1445"), "{}", promoted.reason);
    assert!(promoted.reason.contains("the gain of 0.2266 is above 0.1125"), "{}", promoted.reason);
    let rejected = judged(&bayes, &logistic);
    assert_eq!(rejected.verdict, Verdict::Rejected);
    assert!(rejected.reason.contains("0.1989 against 0.3711"), "{}", rejected.reason);
    assert!(tree.metrics["accuracy"] > 0.98, "and yet accuracy looks fine");
}
