//! Builds to tell of, for tests.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::{BuildReport, Champion, StageReport};
use crate::build::plan::Selection;
use crate::build::status::{BuildStatus, Failure, FailureKind, Outcome, StageStatus};
use crate::ids::{BuildId, Micros};
use crate::store::attempts::AttemptRow;
use crate::store::builds::{BuildRequest, BuildRow, StageRow};

fn row(id: u64, status: BuildStatus, text: &str) -> BuildRow {
    let request = BuildRequest {
        project: "demo".to_owned(),
        pipeline: "players".to_owned(),
        file: "pipeline.yaml".to_owned(),
        text: text.to_owned(),
        folder: std::path::PathBuf::new(),
        source: String::new(),
        commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
        dirty: false,
        branch: Some("main".to_owned()),
        tag: None,
        default_branch: Some("main".to_owned()),
        event: "push".to_owned(),
        changed_paths: None,
        params: IndexMap::new(),
        selection: Selection::default(),
        runner: None,
        reuse: true,
        keep: false,
        actor: "<script>mallory".to_owned(),
        title: Some("closes #1, thanks @everyone | <script>".to_owned()),
        pull_request: None,
        untrusted: false,
        reports: true,
        url: None,
        secrets: BTreeMap::new(),
    };
    let (created_at, started_at) = (Micros(0), Some(Micros(0)));
    BuildRow {
        id: BuildId(id),
        request,
        status,
        cancel: None,
        created_at,
        started_at,
        ended_at: Some(Micros(65_000_000)),
    }
}

fn stage(node: &str, kind: &str, status: StageStatus, reports: Vec<(&str, Value)>) -> StageReport {
    let attempt = AttemptRow {
        attempt: 1,
        runner: "local".to_owned(),
        nonce: String::new(),
        started_at: Micros(0),
        launched_at: Some(Micros(0)),
        ended_at: Some(Micros(12_000_000)),
        outcome: Some(Outcome::Succeeded),
        steps: Vec::new(),
        reports: reports.into_iter().map(|(name, report)| (name.to_owned(), report)).collect(),
        why: String::new(),
    };
    let row = StageRow { node: node.parse().expect("a name"), kind: kind.to_owned(), status };
    StageReport { row, attempts: vec![attempt], metrics: BTreeMap::new(), version: None }
}

fn check(name: &str, failures: &[&str]) -> Value {
    json!({ "name": name, "passed": failures.is_empty(), "failures": failures, "request": "GET / HTTP/1.1", "status": 500,
        "headers": [], "body": "{\"detail\":\"<b>no</b>\"}", "body_bytes": 22, "latency_ms": 1.5, "expected": ["status 200"] })
}

/// A model that was promoted over its champion.
pub fn promoted() -> BuildReport {
    let finding = |metric: &str, role: &str, goal: &str, values: (f64, f64, f64)| {
        json!({ "metric": metric, "role": role, "goal": goal, "candidate": values.0, "champion": values.1, "gain": values.2,
            "margin": 0.0, "test": { "kind": "none" }, "outcome": "holds", "sentence": "" })
    };
    let judgement = json!({
        "verdict": "promoted", "reason": "v3 beats v2: `f1` by 0.0500", "model": "players", "candidate": 3, "champion": 2,
        "findings": [finding("f1", "better_if", "maximize", (0.5, 0.45, 0.05)),
            finding("p95_ms", "guardrail", "minimize", (12.0, 11.0, -1.0))],
        "rows_digest": null, "rows": 2043, "same_rows": true, "positive_class": "1", "notes": [], "outcome": "promoted",
        "summary": "",
    });
    let request = |name: &str| {
        json!({ "name": name, "sent": 1200, "good": 1197, "failed": 3, "dropped": 0, "failure_rate": 0.0025, "rps": 400.2,
            "body_bytes": 1, "latency": { "count": 1197, "mean_ms": 3.0, "min_ms": 1.0, "max_ms": 30.0, "buckets": [],
            "includes_failures": false, "percentiles": [{ "quantile": 0.5, "ms": 2.51 }, { "quantile": 0.95, "ms": 9.04 }] } })
    };
    let load = json!({
        "tool": "built-in", "target": "http://127.0.0.1:1/", "model": { "kind": "closed", "users": 4 }, "started": 0, "ended": 1,
        "counted_seconds": 3.0, "verdict": "passed", "reasons": [], "notes": [], "thresholds": [], "total": request("all"),
        "requests": [request("POST /predict")], "errors": [], "series": [], "contract": [], "generator": null, "cancelled": false,
    });
    let good = StageStatus::Succeeded { attempt: 1 };
    let mut train = stage("train", "train", StageStatus::Reused { from: BuildId(11) }, Vec::new());
    train.metrics =
        BTreeMap::from([("accuracy".to_owned(), 0.98), ("f1".to_owned(), 0.5), ("confusion.0.0".to_owned(), 9.0)]);
    train.version = Some(3);
    let stages = vec![
        train,
        stage("test-api", "test-api", good.clone(), vec![("checks", json!({ "checks": [check("it is up", &[])] }))]),
        stage("loadtest", "loadtest", good.clone(), vec![("loadtest", load)]),
        stage("promote", "promote", good, vec![("judgement", judgement)]),
    ];
    let champion = Champion { version: 2, metrics: BTreeMap::from([("f1".to_owned(), 0.45)]) };
    BuildReport { build: row(12, BuildStatus::Passed, ""), stages, champion: Some(champion), reports: Vec::new() }
}

/// A pull request whose API check failed, with words that want to be more than words.
pub fn failed() -> BuildReport {
    let text = "name: players\nstages:\n  test-api:\n    checks: [{ name: 'calls @everyone' }]\n";
    let mut build = row(13, BuildStatus::Failed, text);
    build.request.pull_request = Some(7);
    let message = format!(
        "1 of 2 checks failed: calls @everyone: the status is 500, <script>alert(1)</script>{}",
        " more".repeat(40)
    );
    let failure = Failure::new(FailureKind::Check, message);
    let checks = json!({ "checks": [check("it is up", &[]), check("calls @everyone", &["the status is 500 | not 200", "<script>"])] });
    let stages =
        vec![stage("test-api", "test-api", StageStatus::Failed { attempt: 1, failure }, vec![("checks", checks)])];
    BuildReport { build, stages, champion: None, reports: Vec::new() }
}
