//! k6: how it is called, and what its JSON summary says.
//!
//! PURE. Both forms are read: `--summary-export` (figures directly under a metric) and `handleSummary` (under `values`).
//! There is no histogram in either, so only the percentiles that it was asked for can be judged.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::ids::Micros;
use crate::load::distribution::Distribution;
use crate::load::report::{Latency, LoadReport, Percentile, Tool, failure_rate};
use crate::load::tool::{Files, ToolError, empty, line};
use crate::load::verdict::{Gates, judge};
use crate::pipeline::types::{Generator, Loadtest};

/// Where its results are, relative to the workspace.
pub const FOLDER: &str = "k6-results";

/// The summary's name.
const FILE: &str = "summary.json";

const NAME: &str = "k6";

/// k6 ends with this where thresholds of the script itself are crossed: a verdict, not a fault of the tool.
const CROSSED: u8 = 99;

/// Its command line, program first; `summary` is where its JSON goes.
pub fn arguments(file: &str, users: u32, duration: Duration, summary: &str) -> Vec<String> {
    let seconds = duration.as_secs_f64().ceil().max(1.0);
    let words = [
        "k6",
        "run",
        "--quiet",
        "--no-usage-report",
        "--vus",
        &users.to_string(),
        "--duration",
        &format!("{seconds}s"),
        "--summary-trend-stats",
        "count,avg,min,max,p(50),p(75),p(80),p(90),p(95),p(98),p(99),p(99.5),p(99.9),p(99.99)",
        "--summary-export",
        summary,
        file,
    ];
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A script for `sh` that runs it in the workspace, with its results in [`FOLDER`]. The server's address is `$SERVE_URL`,
/// which k6 scripts read as `__ENV.SERVE_URL`.
pub fn script(file: &str, users: u32, duration: Duration) -> String {
    let call = line(&arguments(file, users, duration, &format!("{FOLDER}/{FILE}")));
    format!("mkdir -p {FOLDER}\n{call} || test $? -eq {CROSSED}\n")
}

#[derive(Debug, Deserialize)]
struct Summary {
    metrics: BTreeMap<String, Value>,
}

impl Summary {
    fn number(&self, metric: &str, key: &str) -> Option<f64> {
        self.figures(metric)?.get(key)?.as_f64()
    }

    fn figures(&self, metric: &str) -> Option<&serde_json::Map<String, Value>> {
        let metric = self.metrics.get(metric)?.as_object()?;
        match metric.get("values").and_then(Value::as_object) {
            Some(values) => Some(values),
            None => Some(metric),
        }
    }

    fn count(&self, metric: &str, key: &str) -> u64 {
        self.number(metric, key).map_or(0, |count| count.max(0.0) as u64)
    }
}

/// Reads its summary (name relative to [`FOLDER`]) and judges it by the stage's thresholds. k6 does not tell when it
/// started: the report's times are 0 and the length.
///
/// # Errors
/// [`ToolError`] if there is no summary, or it is broken.
pub fn read(files: &Files<'_>, spec: &Loadtest) -> Result<LoadReport, ToolError> {
    let content = files(FILE).ok_or_else(|| ToolError::Missing { tool: NAME, file: FILE.to_owned() })?;
    let summary: Summary = serde_json::from_slice(&content).map_err(|error| ToolError::Malformed {
        tool: NAME,
        file: FILE.to_owned(),
        reason: error.to_string(),
    })?;
    let users = match &spec.generator {
        Generator::K6 { users, .. } | Generator::Locust { users, .. } | Generator::Users(users) => *users,
        Generator::Rate { .. } => 0,
    };
    let mut report = empty(Tool::K6, users);
    let sent = summary.count("http_reqs", "count");
    // A rate of "failed": `passes` counts the requests for which that is true.
    let failed = summary.count("http_req_failed", "passes").min(sent);
    let rate = summary.number("http_reqs", "rate").unwrap_or_default();
    report.counted_seconds = if rate > 0.0 { sent as f64 / rate } else { 0.0 };
    report.ended = Micros((report.counted_seconds * 1e6) as i64);
    let dropped = summary.count("dropped_iterations", "count");
    let total = &mut report.total;
    (total.sent, total.good, total.failed, total.dropped) = (sent, sent - failed, failed, dropped);
    total.failure_rate = failure_rate(sent, failed, dropped);
    total.rps = if report.counted_seconds > 0.0 { total.good as f64 / report.counted_seconds } else { 0.0 };
    total.body_bytes = summary.count("data_received", "count");
    total.latency = latency(&summary, failed);
    report.notes = notes(&summary, spec);
    judge(&mut report, Gates { total: &spec.thresholds, by_name: &spec.request_thresholds });
    Ok(report)
}

fn latency(summary: &Summary, failed: u64) -> Latency {
    const ALL: &str = "http_req_duration";
    const GOOD: &str = "http_req_duration{expected_response:true}";
    let (metric, includes_failures) =
        if summary.metrics.contains_key(GOOD) { (GOOD, false) } else { (ALL, failed > 0) };
    let Some(figures) = summary.figures(metric) else { return Latency::default() };
    let number = |key: &str| figures.get(key).and_then(Value::as_f64);
    // Without `count` among the figures: of all requests, less the failed ones where they are left out.
    let sent = summary.count("http_reqs", "count");
    let counted = if includes_failures || metric == ALL { sent } else { sent.saturating_sub(failed) };
    let mut percentiles: Vec<Percentile> = figures
        .iter()
        .filter_map(|(key, value)| Some(Percentile { quantile: quantile(key)?, ms: value.as_f64()? }))
        .collect();
    percentiles.sort_by(|one, other| one.quantile.total_cmp(&other.quantile));
    percentiles.dedup_by(|one, other| one.quantile == other.quantile);
    Latency {
        count: number("count").map_or(counted, |count| count.max(0.0) as u64),
        mean_ms: number("avg").unwrap_or_default(),
        min_ms: number("min").unwrap_or_default(),
        max_ms: number("max").unwrap_or_default(),
        percentiles,
        buckets: Distribution::default(),
        includes_failures,
    }
}

/// `p(95)` is 0.95, `med` 0.5, `max` 1.
fn quantile(key: &str) -> Option<f64> {
    match key {
        "med" => Some(0.5),
        "max" => Some(1.0),
        _ => {
            let percent: f64 = key.strip_prefix("p(")?.strip_suffix(')')?.parse().ok()?;
            Some((percent * 1e6).round() / 1e8)
        }
    }
}

fn notes(summary: &Summary, spec: &Loadtest) -> Vec<String> {
    let mut notes = Vec::new();
    let failed_checks = summary.count("checks", "fails");
    if failed_checks > 0 {
        notes.push(format!("{failed_checks} checks of the script failed; k6 does not count them as failed requests"));
    }
    if !spec.request_thresholds.is_empty() {
        notes.push("k6's summary has no figures by request: thresholds by name cannot be judged".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use serde_json::json;

    use super::*;
    use crate::load::report::Verdict;
    use crate::load::threshold::parse_threshold;

    fn spec(gates: &[&str]) -> Loadtest {
        Loadtest {
            generator: Generator::K6 { file: "script.js".to_owned(), users: 5 },
            scenario: Vec::new(),
            duration: Duration::from_secs(5),
            ramp_up: Duration::ZERO,
            warmup: Duration::ZERO,
            request_timeout: Duration::from_secs(10),
            thresholds: gates.iter().map(|gate| parse_threshold(gate).unwrap()).collect(),
            request_thresholds: IndexMap::new(),
        }
    }

    /// The summary of a real run (k6 1.1.0) against a server that answers 500 to a tenth.
    fn fixture(name: &str) -> Option<Vec<u8>> {
        std::fs::read(format!("{}/tests/fixtures/k6/{name}", env!("CARGO_MANIFEST_DIR"))).ok()
    }

    #[test]
    fn the_command_line() {
        insta::assert_snapshot!(script("load/script.js", 20, Duration::from_secs(30)), @r"
        mkdir -p k6-results
        k6 run --quiet --no-usage-report --vus 20 --duration 30s --summary-trend-stats 'count,avg,min,max,p(50),p(75),p(80),p(90),p(95),p(98),p(99),p(99.5),p(99.9),p(99.99)' --summary-export k6-results/summary.json load/script.js || test $? -eq 99
        ");
    }

    #[test]
    fn a_real_summary() {
        let report = read(&|name| fixture(name), &spec(&["p95 < 200ms", "failure_rate < 20%"])).unwrap();
        assert_eq!((report.total.sent, report.total.good, report.total.failed), (533, 480, 53));
        assert_eq!(report.verdict, Verdict::Passed, "{:?}", report.reasons);
        assert_eq!(report.total.latency.count, 480);
        assert!(report.total.latency.quantile_ms(0.95).is_some_and(|ms| (ms - 44.536).abs() < 0.001));
        assert!((report.counted_seconds - 5.15).abs() < 0.01);
        let gated = read(&|name| fixture(name), &spec(&["p95 < 200ms"])).unwrap();
        assert_eq!(gated.verdict, Verdict::Failed);
    }

    #[test]
    fn percentiles_that_it_does_not_tell_are_not_made_up() {
        let report = read(&|name| fixture(name), &spec(&["p94 < 1s", "failure_rate < 20%"])).unwrap();
        assert_eq!(report.verdict, Verdict::Invalid);
        assert_eq!(report.reasons, ["p94 < 1s cannot be judged: the tool's summary does not tell p94"]);
    }

    #[test]
    fn the_form_of_handle_summary_is_read_too() {
        let summary = json!({"metrics": {
            "http_reqs": {"type": "counter", "values": {"count": 1000, "rate": 100.0}},
            "http_req_failed": {"type": "rate", "values": {"rate": 0.0, "passes": 0, "fails": 1000}},
            "http_req_duration": {"type": "trend", "values": {"avg": 5.0, "min": 1.0, "max": 30.0, "p(95)": 20.0}},
        }});
        let files = |_: &str| Some(summary.to_string().into_bytes());
        let report = read(&files, &spec(&["p95 <= 20ms", "rps >= 100"])).unwrap();
        assert_eq!(report.verdict, Verdict::Passed, "{:?}", report.reasons);
        assert_eq!(report.total.latency.count, 1000);
    }

    #[test]
    fn nothing_measured_is_invalid_and_nothing_written_is_an_error() {
        let none = |_: &str| Some(b"{\"metrics\":{}}".to_vec());
        assert_eq!(read(&none, &spec(&[])).unwrap().verdict, Verdict::Invalid);
        assert!(matches!(read(&|_| None, &spec(&[])), Err(ToolError::Missing { .. })));
    }
}
