//! The load engine and the API checks against servers with every fault, over real connections.
//!
//! Nothing here asserts that something is fast: this machine may be busy. What is counted is counted exactly.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod server;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use indexmap::IndexMap;
use orchestrator::cli::loadtest::{LoadtestArgs, run as run_command};
use orchestrator::load::checks::run_checks;
use orchestrator::load::contract::broken_contract;
use orchestrator::load::engine::{LoadError, run};
use orchestrator::load::plan::LoadPlan;
use orchestrator::load::report::{LoadModel, LoadReport, Verdict};
use orchestrator::load::target::Target;
use orchestrator::load::threshold::parse_threshold;
use orchestrator::load::trust::Trust;
use orchestrator::pipeline::types::{ApiCheck, Body, Expect, HttpRequest, JsonTest, ScenarioItem};
use serde_json::json;
use server::{Answer, Asked, Server, answer, raw};
use tokio_util::sync::CancellationToken;

fn request(method: &str, path: &str) -> HttpRequest {
    HttpRequest { method: method.to_owned(), path: path.to_owned(), headers: IndexMap::new(), body: Body::None }
}

fn item(method: &str, path: &str, weight: u32) -> ScenarioItem {
    ScenarioItem { name: format!("{method} {path}"), request: request(method, path), weight, expect: Expect::default() }
}

fn plan(target: Target, model: LoadModel, millis: u64) -> LoadPlan {
    LoadPlan {
        target,
        scenario: vec![item("GET", "/", 1)],
        json_lines: Default::default(),
        model,
        ramp_up: Duration::ZERO,
        warmup: Duration::ZERO,
        duration: Duration::from_millis(millis),
        request_timeout: Duration::from_secs(20),
        thresholds: Vec::new(),
        request_thresholds: IndexMap::new(),
        contract: false,
        threads: Some(2.try_into().unwrap()),
        seed: 0,
    }
}

fn users(users: u32) -> LoadModel {
    LoadModel::Closed { users }
}

fn rate(per_second: f64) -> LoadModel {
    LoadModel::Open { per_second, max_in_flight: 5000 }
}

async fn load(plan: LoadPlan) -> LoadReport {
    run(plan, CancellationToken::new(), |_| ()).await.unwrap()
}

/// What went in came out: in the total, by request, in the errors and in the histogram.
fn assert_balanced(report: &LoadReport) {
    let total = &report.total;
    assert_eq!(total.sent, total.good + total.failed);
    assert_eq!(total.latency.count, total.good);
    assert_eq!(report.requests.iter().map(|request| request.sent).sum::<u64>(), total.sent);
    assert_eq!(report.requests.iter().map(|request| request.dropped).sum::<u64>(), total.dropped);
    assert_eq!(report.errors.iter().map(|group| group.count).sum::<u64>(), total.failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_counted_once_and_connections_are_kept() {
    let server = Server::start(|_| answer("200 OK", "hello")).await;
    let report = load(plan(server.target(), users(6), 700)).await;
    assert_balanced(&report);
    assert_eq!(report.total.sent, server.requests());
    assert!(report.total.sent >= 6);
    assert_eq!((report.total.failed, report.total.body_bytes), (0, report.total.sent * 5));
    assert_eq!(server.connections(), 6);
    assert_eq!(report.series.iter().map(|step| step.good).sum::<u64>(), report.total.good);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_are_mixed_by_weight_and_bodies_taken_in_turn() {
    let server = Server::start(|_| answer("200 OK", "{}")).await;
    let mut plan = plan(server.target(), rate(400.0), 500);
    let mut predict = item("POST", "/predict", 3);
    predict.request.body = Body::JsonLines("rows.jsonl".to_owned());
    plan.scenario = vec![predict, item("GET", "/healthz", 1)];
    let rows: Vec<Bytes> = (0..10).map(|row| Bytes::from(format!("{{\"row\":{row}}}"))).collect();
    plan.json_lines.insert("rows.jsonl".to_owned(), rows.clone());
    let report = load(plan).await;
    assert_balanced(&report);
    let sent: Vec<u64> = report.requests.iter().map(|request| request.sent).collect();
    assert_eq!(sent, [150, 50]);
    let asked = server.asked();
    for row in rows {
        let count = asked.iter().filter(|asked| asked.path == "/predict" && asked.body == row).count();
        assert_eq!(count, 15, "{row:?}");
    }
    assert!(asked.iter().filter(|asked| asked.path == "/healthz").all(|asked| asked.body.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_open_model_sends_exactly_its_rate() {
    let server = Server::start(|_| answer("204 No Content", "")).await;
    let mut plan = plan(server.target(), rate(250.0), 1000);
    plan.ramp_up = Duration::from_millis(400);
    plan.warmup = Duration::from_millis(200);
    let report = load(plan).await;
    assert_balanced(&report);
    assert_eq!((report.total.sent, report.total.good, report.total.dropped), (250, 250, 0));
    // Half the rate on average while it grows, the whole of it while it warms up.
    assert_eq!(server.requests(), 50 + 50 + 250);
}

/// Coordinated omission: one stall of half a second. Requests were due all the time, and each of them waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_server_shows_in_every_request_that_was_due() {
    let until: Arc<Mutex<Option<Instant>>> = Arc::default();
    let stall = Arc::clone(&until);
    let server = Server::start(move |asked| {
        let mut until = stall.lock().unwrap();
        if asked.number == 100 {
            *until = Some(Instant::now() + Duration::from_millis(500));
        }
        let wait = until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
        Answer { wait, ..answer("200 OK", "") }
    })
    .await;
    let report = load(plan(server.target(), rate(200.0), 1500)).await;
    assert_balanced(&report);
    assert_eq!(report.total.good, 300);
    // 100 requests were due within the stall, half of them in its first half: these waited for 250 ms and more.
    let slow: u64 =
        report.total.latency.buckets.buckets().iter().filter(|(us, _)| *us >= 240_000).map(|(_, count)| count).sum();
    assert!(slow >= 50, "{slow}");
    let p99 = report.total.latency.quantile_ms(0.99).unwrap();
    assert!(p99 >= 450.0, "{p99}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_grouped_by_what_was_wrong() {
    let server = Server::start(|asked: &Asked| match asked.number % 4 {
        0 => answer("500 Internal Server Error", &format!("{{\"detail\":\"row {} is bad\"}}", asked.number)),
        1 => answer("404 Not Found", ""),
        _ => answer("200 OK", "fine"),
    })
    .await;
    let report = load(plan(server.target(), rate(200.0), 500)).await;
    assert_balanced(&report);
    assert_eq!((report.total.good, report.total.failed), (50, 50));
    assert_eq!(report.verdict, Verdict::Failed);
    let mut groups: Vec<(&str, &str, u64)> =
        report.errors.iter().map(|group| (group.kind.as_str(), group.message.as_str(), group.count)).collect();
    groups.sort_unstable();
    assert_eq!(groups, [("status 404", "(empty body)", 25), ("status 500", "{\"detail\":\"row # is bad\"}", 25)]);
    let bad = report.errors.iter().find(|group| group.kind == "status 500").unwrap();
    assert!(bad.example.as_ref().unwrap().contains(" is bad\"}"), "{bad:?}");
    assert!(report.reasons[0].starts_with("failure_rate <= 1% does not hold: 50%"), "{:?}", report.reasons);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expectations_are_judged_under_load() {
    let server = Server::start(|asked: &Asked| {
        let probability = if asked.number.is_multiple_of(2) { "0.5" } else { "1.5" };
        answer("200 OK", &format!("{{\"probability\":{probability}}}"))
    })
    .await;
    let mut plan = plan(server.target(), rate(100.0), 400);
    plan.scenario[0].expect.json.insert("$.probability".to_owned(), vec![JsonTest::Le(1.0)]);
    let report = load(plan).await;
    assert_balanced(&report);
    assert_eq!((report.total.good, report.total.failed), (20, 20));
    assert_eq!(report.errors.len(), 1);
    assert_eq!(report.errors[0].kind, "unexpected answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_ways_to_end_a_body_are_understood() {
    const ANSWERS: [&str; 6] = [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde",
        "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\ntrailer: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nabcde",
        "HTTP/1.1 200 OK\r\n\r\nabcde",
    ];
    let server = Server::start(|asked: &Asked| {
        let number = (asked.number % 6) as usize;
        Answer { close: number >= 4, ..raw(ANSWERS[number]) }
    })
    .await;
    let report = load(plan(server.target(), rate(120.0), 500)).await;
    assert_balanced(&report);
    assert_eq!(report.errors, []);
    assert_eq!((report.total.good, report.total.body_bytes), (60, 300));
    assert_eq!(server.requests(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_are_failures_and_a_new_one_is_made() {
    let server = Server::start(|asked: &Asked| match asked.number % 4 {
        0 => Answer { close: true, ..Answer::default() },
        1 => Answer { close: true, ..raw("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nabc") },
        2 => Answer { close: true, ..raw("220 smtp.example ESMTP\r\n\r\n") },
        _ => answer("200 OK", ""),
    })
    .await;
    let report = load(plan(server.target(), users(1), 300)).await;
    assert_balanced(&report);
    assert_eq!(report.total.sent, server.requests());
    let mut kinds: Vec<&str> = report.errors.iter().map(|group| group.kind.as_str()).collect();
    kinds.sort_unstable();
    // The fifth request, and each fourth from there, goes out on the connection of a good answer.
    assert_eq!(kinds, ["connection closed", "connection closed early", "invalid answer", "kept connection closed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_the_server_closed_meanwhile_is_not_used() {
    let server = Server::start(|_| Answer { close: true, ..answer("200 OK", "x") }).await;
    // Slow enough for the end of the connection to arrive before the next request is due.
    let report = load(plan(server.target(), rate(20.0), 500)).await;
    assert_eq!((report.total.good, report.total.failed), (10, 0), "{:?}", report.errors);
    assert_eq!(server.connections(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_do_not_come_are_timeouts() {
    let server = Server::start(|asked: &Asked| {
        let wait = if asked.number.is_multiple_of(2) { Duration::from_secs(60) } else { Duration::ZERO };
        Answer { wait, ..answer("200 OK", "") }
    })
    .await;
    let mut plan = plan(server.target(), rate(40.0), 500);
    plan.request_timeout = Duration::from_millis(1500);
    let report = load(plan).await;
    assert_balanced(&report);
    assert_eq!((report.total.good, report.total.failed), (10, 10));
    assert_eq!(
        (report.errors[0].kind.as_str(), report.errors[0].message.as_str()),
        ("timeout", "no answer within 1.5s")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_fails_however_fast_it_refuses() {
    let server = Server::start(|_| answer("200 OK", "")).await;
    let target = server.target();
    drop(server);
    let mut dead = plan(target.clone(), users(4), 400);
    dead.thresholds = vec![parse_threshold("p95 < 10s").unwrap()];
    let report = load(dead).await;
    assert_balanced(&report);
    assert_eq!(report.verdict, Verdict::Failed);
    assert_eq!(report.total.failure_rate, 1.0);
    assert_eq!(report.errors[0].kind, "connection refused");
    assert!(report.reasons[0].starts_with("not one of"), "{:?}", report.reasons);
    let mut checked = plan(target, users(4), 400);
    checked.contract = true;
    match run(checked, CancellationToken::new(), |_| ()).await {
        Err(LoadError::Contract(results)) => {
            assert_eq!(results[0].failures, ["connection refused: nothing listens at the address"]);
        }
        other => panic!("{other:?}"),
    }
}

/// The fault of the classic: a load test that sends the wrong body, and 97 % failures that nobody looks into.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_contract_stops_the_test_with_the_answer_in_the_message() {
    let server = Server::start(|asked: &Asked| match asked.path.as_str() {
        "/predict" => answer("422 Unprocessable Entity", "{\"detail\":\"field required: Goals\"}"),
        _ => answer("200 OK", ""),
    })
    .await;
    let mut plan = plan(server.target(), users(50), 60_000);
    plan.contract = true;
    let mut predict = item("POST", "/predict", 1);
    predict.request.body = Body::Json(json!({"goals": 20}));
    plan.scenario = vec![item("GET", "/healthz", 1), predict];
    let error = run(plan, CancellationToken::new(), |_| ()).await.unwrap_err();
    assert_eq!(server.requests(), 2);
    let LoadError::Contract(results) = error else { panic!("{error:?}") };
    let message = broken_contract(&results).unwrap();
    for part in [
        "no load was started: one request of each kind must pass first, and `POST /predict` does not\n",
        "status: expected 2xx, got 422",
        "{\"goals\":20}",
        "{\"detail\":\"field required: Goals\"}",
    ] {
        assert!(message.contains(part), "{part} in\n{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_is_dropped_and_counted() {
    let server = Server::start(|_| Answer { wait: Duration::from_millis(400), ..answer("200 OK", "") }).await;
    let mut plan = plan(server.target(), LoadModel::Open { per_second: 100.0, max_in_flight: 5 }, 1000);
    plan.thresholds = vec![parse_threshold("failure_rate < 5%").unwrap()];
    let report = load(plan).await;
    assert_balanced(&report);
    assert_eq!(report.total.sent + report.total.dropped, 100);
    assert_eq!(report.total.sent, server.requests());
    // 5 at a time, each 0.4 s: at most 15 in a second.
    assert!((5..=15).contains(&report.total.sent), "{}", report.total.sent);
    // `invalid` on a machine so busy that the generator itself may be to blame.
    assert_ne!(report.verdict, Verdict::Passed);
    assert!(report.reasons.iter().any(|reason| reason.starts_with("failure_rate < 5% does not hold")), "{report:?}");
    assert!(report.notes[0].contains("were not sent"), "{:?}", report.notes);
}

/// Answers that take the generator's one thread far longer to judge than there is time until the next is due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generator_that_cannot_keep_up_makes_the_test_invalid() {
    let rows = json!(vec![1; 20_000]).to_string();
    let server = Server::start(move |_| answer("200 OK", &rows)).await;
    let mut plan = plan(server.target(), rate(500.0), 200);
    plan.threads = Some(1.try_into().unwrap());
    plan.scenario[0].expect.json.insert("$[*]".to_owned(), vec![JsonTest::Type("integer".to_owned())]);
    plan.thresholds = vec![parse_threshold("p50 < 1us").unwrap()];
    plan.request_timeout = Duration::from_secs(120);
    let report = load(plan).await;
    assert_balanced(&report);
    assert_eq!((report.total.sent, report.total.good), (100, 100), "{:?}", report.errors);
    // Not `failed`, although p50 surely is above a microsecond.
    assert_eq!(report.verdict, Verdict::Invalid, "{:?} {:?}", report.generator, report.reasons);
    assert!(report.reasons[0].starts_with("the generator"), "{:?}", report.reasons);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ramp_up_and_warm_up_do_not_count() {
    let server = Server::start(|_| answer("200 OK", "")).await;
    let mut plan = plan(server.target(), users(4), 1000);
    plan.ramp_up = Duration::from_secs(1);
    plan.warmup = Duration::from_secs(1);
    let mut most = Vec::new();
    let report =
        run(plan, CancellationToken::new(), |tick| most.push((tick.phase.word(), tick.second.users))).await.unwrap();
    assert_balanced(&report);
    assert!(report.total.sent < server.requests());
    assert_eq!(report.counted_seconds, 1.0);
    let counted: Vec<bool> = report.series.iter().map(|step| step.counted).collect();
    assert_eq!(counted[..3], [false, false, true]);
    assert_eq!(most[..3].iter().map(|(phase, _)| *phase).collect::<Vec<_>>(), ["ramp-up", "warm-up", "counting"]);
    assert_eq!(most[1].1, 4);
    // All answers of the counted second, less those that were sent before it and plus those that came after it.
    assert!(report.total.good.abs_diff(report.series[2].good) <= 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_can_be_stopped() {
    let server = Server::start(|_| answer("200 OK", "")).await;
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let plan = plan(server.target(), users(3), 3_600_000);
    // Spawned, as the engine may do: the future can move between threads.
    let report = tokio::spawn(run(plan, cancel, move |_| stop.cancel())).await.unwrap().unwrap();
    assert!(report.cancelled);
    assert_eq!(report.verdict, Verdict::Invalid);
    assert!(report.total.good > 0 && report.counted_seconds < 3000.0);
    // At most the request that each user had out is without an end.
    assert!(report.total.sent - report.total.good - report.total.failed <= 3);
}

fn certificate() -> (tokio_rustls::TlsAcceptor, tokio_rustls::rustls::pki_types::CertificateDer<'static>) {
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = signed.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    (tokio_rustls::TlsAcceptor::from(Arc::new(config)), certificate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_asks_for_a_certificate_that_is_believed() {
    let (acceptor, certificate) = certificate();
    let server = Server::with_tls(Some(acceptor), |_| answer("200 OK", "secret")).await;
    let target = |trust: Trust| {
        let base = url::Url::parse(&format!("https://localhost:{}", server.address.port())).unwrap();
        Target { trust, address: Some(server.address), ..Target::new(base) }
    };
    for trust in [Trust::Anyone, Trust::Only(vec![certificate.clone()])] {
        let report = load(plan(target(trust), users(2), 200)).await;
        assert_balanced(&report);
        assert_eq!(report.total.failed, 0, "{:?}", report.errors);
        assert!(report.total.good > 2);
    }
    let stranger = self::certificate().1;
    let report = load(plan(target(Trust::Only(vec![stranger])), users(2), 200)).await;
    assert_eq!(report.total.good, 0);
    assert_eq!(report.errors[0].kind, "tls", "{:?}", report.errors);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_run_in_order_and_all_of_them() {
    let server = Server::start(|asked: &Asked| match asked.path.as_str() {
        "/predict" => answer("200 OK", "{\"probability\":0.75}"),
        "/old" => raw("HTTP/1.1 301 Moved\r\nlocation: /new\r\ncontent-length: 0\r\n\r\n"),
        _ => answer("500 Internal Server Error", "model not loaded"),
    })
    .await;
    let check = |name: &str, request: HttpRequest, expect: Expect| ApiCheck { name: name.to_owned(), request, expect };
    let mut probability = Expect { status: Some(200), ..Expect::default() };
    probability.json.insert("$.probability".to_owned(), vec![JsonTest::Ge(0.0), JsonTest::Le(1.0)]);
    let mut predict = request("POST", "/predict");
    predict.body = Body::Form(IndexMap::from([("Goals".to_owned(), "20".to_owned())]));
    let mut moved = Expect { status: Some(301), ..Expect::default() };
    moved.headers.insert("Location".to_owned(), "/new".to_owned());
    let checks = [
        check("one player", predict, probability.clone()),
        check("broken", request("GET", "/broken"), probability),
        check("moved", request("GET", "/old"), moved),
        check("not sendable", request("GET", "no-slash"), Expect::default()),
    ];
    let results = run_checks(&server.target(), &checks).await.unwrap();
    let passed: Vec<bool> = results.iter().map(|result| result.passed).collect();
    assert_eq!(passed, [true, false, true, false]);
    assert_eq!((server.asked()[0].method.as_str(), server.asked()[0].body.as_slice()), ("POST", &b"Goals=20"[..]));
    let text = results[1].render();
    for part in ["FAIL broken (500, ", "GET /broken HTTP/1.1", "model not loaded", "json $.probability >= 0 and <= 1"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert_eq!(results[3].failures, ["path `no-slash` is not valid: it must start with `/`"]);
    assert_eq!(results[2].status, Some(301));
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    loadtest: LoadtestArgs,
}

fn parse(arguments: &[&str]) -> Result<LoadtestArgs, clap::Error> {
    Command::try_parse_from(["loadtest"].iter().chain(arguments)).map(|command| command.loadtest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_says_by_its_exit_code_what_came_of_it() {
    let server = Server::start(|asked: &Asked| match asked.path.as_str() {
        "/slow" => Answer { wait: Duration::from_millis(50), ..answer("200 OK", "") },
        _ => answer("500 Internal Server Error", "oops"),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let url = |path: &str| format!("http://{}{path}", server.address);
    let slow = url("/slow");
    let arguments = [&slow, "-t", "max<1ms", "--duration", "300ms", "--users", "2", "--html", page.to_str().unwrap()];
    assert_eq!(run_command(Box::new(parse(&arguments).unwrap())).await.unwrap(), 1);
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("max &lt; 1ms does not hold"), "{html}");
    let before = server.requests();
    let broken = url("/broken");
    assert_eq!(run_command(Box::new(parse(&[&broken, "--json"]).unwrap())).await.unwrap(), 1);
    assert_eq!(server.requests() - before, 1);
    assert_eq!(run_command(Box::new(parse(&[&slow, "--users", "0"]).unwrap())).await.unwrap(), 2);
}

#[test]
fn the_command_line_is_checked() {
    assert!(parse(&["http://h/x?q=1", "-H", "a: b", "--rate", "200/s", "--max-in-flight", "5"]).is_ok());
    for wrong in [
        &["ftp://h"][..],
        &["h:80"],
        &["http://h", "--users", "3", "--rate", "5/s"],
        &["http://h", "-t", "p95"],
        &["http://h", "-H", "nothing"],
        &["http://h", "--duration", "10"],
        &["http://h", "--data", "x", "--data-file", "y"],
    ] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
}
