//! Locust, headless: how it is called, and what its result files say.
//!
//! PURE. Its exit code is no verdict (1 for a single failure among millions), so it is told to end with 0, and another code
//! means that the tool itself broke. Counts and latencies come from the JSON file, messages from `failures.csv`, users and
//! percentiles over time from `stats_history.csv`: no file has all three. The CSV files are written some seconds before the
//! end, so their counts may be a little lower.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::ids::Micros;
use crate::load::distribution::Distribution;
use crate::load::report::{ErrorGroup, Exact, Latency, LoadReport, RequestReport, Step, Tool, failure_rate};
use crate::load::tool::{Files, ToolError, empty, line};
use crate::load::verdict::{Gates, judge};
use crate::pipeline::types::{Generator, Loadtest};

/// Where its results are, relative to the workspace.
pub const FOLDER: &str = "locust-results";

/// The beginning of its files' names.
const PREFIX: &str = "run";

const NAME: &str = "Locust";

/// Most groups of failures that are read.
const MAX_ERRORS: usize = 200;

/// What is asked of Locust.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call<'a> {
    /// The locustfile.
    pub file: &'a str,
    /// How many users.
    pub users: u32,
    /// Users that start a second.
    pub spawn_rate: f64,
    /// How long.
    pub duration: Duration,
    /// The server.
    pub host: &'a str,
}

/// Its command line, program first; `prefix` is where its files go.
pub fn arguments(call: Call<'_>, prefix: &str) -> Vec<String> {
    let seconds = call.duration.as_secs_f64().ceil().max(1.0);
    let words = [
        "locust",
        "-f",
        call.file,
        "--headless",
        "-u",
        &call.users.to_string(),
        "-r",
        &call.spawn_rate.to_string(),
        "-t",
        &format!("{seconds}s"),
        "--host",
        call.host,
        "--csv",
        prefix,
        "--csv-full-history",
        // It appends `.json` itself.
        "--json-file",
        prefix,
        "--only-summary",
        "--exit-code-on-error",
        "0",
    ];
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A script for `sh` that runs it in the workspace, with its results in [`FOLDER`].
pub fn script(file: &str, users: u32, spawn_rate: f64, duration: Duration, host: &str) -> String {
    let call = Call { file, users, spawn_rate, duration, host };
    format!("mkdir -p {FOLDER}\n{}\n", line(&arguments(call, &format!("{FOLDER}/{PREFIX}"))))
}

/// One line of the JSON file: a name and method.
#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    last_request_timestamp: Option<f64>,
    #[serde(default)]
    start_time: f64,
    num_requests: u64,
    num_failures: u64,
    #[serde(default)]
    total_response_time: f64,
    #[serde(default)]
    max_response_time: f64,
    #[serde(default)]
    min_response_time: Option<f64>,
    #[serde(default)]
    total_content_length: u64,
    /// Milliseconds (rounded to two digits that count, from 100 up) to their count.
    #[serde(default)]
    response_times: BTreeMap<String, u64>,
    #[serde(default)]
    num_reqs_per_sec: BTreeMap<String, u64>,
    #[serde(default)]
    num_fail_per_sec: BTreeMap<String, u64>,
}

/// Reads its result files (names relative to [`FOLDER`]) and judges them by the stage's thresholds.
///
/// # Errors
/// [`ToolError`] if a file that it always writes is missing or broken.
pub fn read(files: &Files<'_>, spec: &Loadtest) -> Result<LoadReport, ToolError> {
    let file = format!("{PREFIX}.json");
    let content = files(&file).ok_or_else(|| ToolError::Missing { tool: NAME, file: file.clone() })?;
    let entries: Vec<Entry> = serde_json::from_slice(&content).map_err(|error| ToolError::Malformed {
        tool: NAME,
        file,
        reason: error.to_string(),
    })?;
    let users = match &spec.generator {
        Generator::Locust { users, .. } | Generator::Users(users) | Generator::K6 { users, .. } => *users,
        Generator::Rate { .. } => 0,
    };
    let mut report = empty(Tool::Locust, users);
    let first = entries.iter().map(|entry| entry.start_time).fold(f64::INFINITY, f64::min);
    let last = entries.iter().filter_map(|entry| entry.last_request_timestamp).fold(0.0, f64::max);
    if last > first {
        report.started = seconds_to_micros(first);
        report.ended = seconds_to_micros(last);
        report.counted_seconds = last - first;
    }
    let named = |entry: &Entry| name(entry.method.as_deref(), &entry.name, spec);
    report.requests = entries.iter().map(|entry| request(named(entry), entry, report.counted_seconds)).collect();
    report.total = total(&entries, report.counted_seconds);
    report.errors = errors(files, &report, spec)?;
    report.series = series(files, &entries)?;
    if report.total.failed > 0 && report.total.good > 0 {
        report.notes.push("Locust does not tell latencies of failed requests from those of good answers".to_owned());
    }
    judge(&mut report, Gates { total: &spec.thresholds, by_name: &spec.request_thresholds });
    Ok(report)
}

fn seconds_to_micros(seconds: f64) -> Micros {
    Micros((seconds * 1e6) as i64)
}

/// `METHOD name`, unless the name says it already, or a threshold is written for the bare name.
fn name(method: Option<&str>, name: &str, spec: &Loadtest) -> String {
    match method {
        Some(method) if !method.is_empty() => {
            let says_it = name.split(' ').next() == Some(method);
            if says_it || spec.request_thresholds.contains_key(name) {
                name.to_owned()
            } else {
                format!("{method} {name}")
            }
        }
        Some(_) | None => name.to_owned(),
    }
}

fn times(entry: &Entry) -> impl Iterator<Item = (u64, u64)> + '_ {
    let micros = |text: &str| text.parse::<f64>().ok().map(|ms| (ms * 1000.0).max(0.0) as u64);
    entry.response_times.iter().filter_map(move |(ms, count)| Some((micros(ms)?, *count)))
}

fn exact(entry: &Entry) -> Option<Exact> {
    let micros = |ms: f64| (ms * 1000.0).max(0.0) as u64;
    let min = entry.min_response_time?;
    Some(Exact {
        min: micros(min),
        max: micros(entry.max_response_time),
        sum: u128::from(micros(entry.total_response_time)),
    })
}

fn request(name: String, entry: &Entry, seconds: f64) -> RequestReport {
    let good = entry.num_requests.saturating_sub(entry.num_failures);
    let mut latency = Latency::new(Distribution::from_counts(times(entry)), exact(entry));
    latency.includes_failures = entry.num_failures > 0;
    RequestReport {
        name,
        sent: entry.num_requests,
        good,
        failed: entry.num_failures,
        dropped: 0,
        failure_rate: failure_rate(entry.num_requests, entry.num_failures, 0),
        rps: if seconds > 0.0 { good as f64 / seconds } else { 0.0 },
        body_bytes: entry.total_content_length,
        latency,
    }
}

fn total(entries: &[Entry], seconds: f64) -> RequestReport {
    let sum = |field: fn(&Entry) -> u64| entries.iter().map(field).fold(0u64, u64::saturating_add);
    let extremes = entries.iter().filter_map(exact).reduce(|one, other| Exact {
        min: one.min.min(other.min),
        max: one.max.max(other.max),
        sum: one.sum + other.sum,
    });
    let (sent, failed) = (sum(|entry| entry.num_requests), sum(|entry| entry.num_failures));
    let good = sent.saturating_sub(failed);
    let mut latency = Latency::new(Distribution::from_counts(entries.iter().flat_map(times)), extremes);
    latency.includes_failures = failed > 0;
    RequestReport {
        name: "all".to_owned(),
        sent,
        good,
        failed,
        dropped: 0,
        failure_rate: failure_rate(sent, failed, 0),
        rps: if seconds > 0.0 { good as f64 / seconds } else { 0.0 },
        body_bytes: sum(|entry| entry.total_content_length),
        latency,
    }
}

#[derive(Debug, Deserialize)]
struct FailureLine {
    #[serde(rename = "Method")]
    method: String,
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Error")]
    error: String,
    #[serde(rename = "Occurrences")]
    occurrences: u64,
}

fn errors(files: &Files<'_>, report: &LoadReport, spec: &Loadtest) -> Result<Vec<ErrorGroup>, ToolError> {
    let mut groups: Vec<ErrorGroup> = Vec::new();
    for line in csv_lines::<FailureLine>(files, "failures")?.into_iter().take(MAX_ERRORS) {
        groups.push(ErrorGroup {
            name: name(Some(&line.method), &line.name, spec),
            kind: kind(&line.error),
            message: line.error,
            count: line.occurrences,
            example: None,
        });
    }
    for request in &report.requests {
        let told: u64 = groups.iter().filter(|group| group.name == request.name).map(|group| group.count).sum();
        if request.failed > told {
            groups.push(ErrorGroup {
                name: request.name.clone(),
                kind: "failure".to_owned(),
                message: "(in the last seconds: Locust wrote no message)".to_owned(),
                count: request.failed - told,
                example: None,
            });
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    Ok(groups)
}

/// `HTTPError('500 Server Error: ...')` is `status 500`; else the exception's name.
fn kind(error: &str) -> String {
    let (exception, rest) = error.split_once('(').unwrap_or((error, ""));
    let digits = rest.trim_start_matches(['\'', '"']).get(..3).unwrap_or_default();
    match digits.parse::<u16>() {
        Ok(status) if exception == "HTTPError" => format!("status {status}"),
        Ok(_) | Err(_) => match exception.trim().char_indices().nth(60) {
            Some((end, _)) => format!("{}…", &exception.trim()[..end]),
            None => exception.trim().to_owned(),
        },
    }
}

#[derive(Debug, Deserialize)]
struct HistoryLine {
    #[serde(rename = "Timestamp")]
    timestamp: u64,
    #[serde(rename = "User Count")]
    users: u32,
    #[serde(rename = "Name")]
    name: String,
    /// `N/A` in the first lines.
    #[serde(rename = "50%")]
    p50: String,
    #[serde(rename = "95%")]
    p95: String,
    #[serde(rename = "99%")]
    p99: String,
}

fn series(files: &Files<'_>, entries: &[Entry]) -> Result<Vec<Step>, ToolError> {
    let mut seconds: BTreeMap<u64, Step> = BTreeMap::new();
    for entry in entries {
        let counts = |counts: &BTreeMap<String, u64>| -> Vec<(u64, u64)> {
            counts.iter().filter_map(|(second, count)| Some((second.parse().ok()?, *count))).collect()
        };
        for (second, count) in counts(&entry.num_reqs_per_sec) {
            seconds.entry(second).or_default().good += count;
        }
        for (second, count) in counts(&entry.num_fail_per_sec) {
            let step = seconds.entry(second).or_default();
            step.failed += count;
            step.good = step.good.saturating_sub(count);
        }
    }
    for line in csv_lines::<HistoryLine>(files, "stats_history")?.into_iter().filter(|line| line.name == "Aggregated") {
        if let Some(step) = seconds.get_mut(&line.timestamp) {
            // Zeros stand for "no figures yet".
            let ms = |text: &str| text.parse::<f64>().ok().filter(|ms| *ms > 0.0);
            step.users = line.users;
            (step.p50_ms, step.p95_ms, step.p99_ms) = (ms(&line.p50), ms(&line.p95), ms(&line.p99));
        }
    }
    let start = seconds.keys().next().copied().unwrap_or_default();
    let step = |(second, step): (u64, Step)| Step { at: (second - start) as f64, seconds: 1.0, counted: true, ..step };
    Ok(seconds.into_iter().map(step).collect())
}

/// The lines of one of its CSV files; none if it was not written.
fn csv_lines<T: for<'de> Deserialize<'de>>(files: &Files<'_>, what: &str) -> Result<Vec<T>, ToolError> {
    let file = format!("{PREFIX}_{what}.csv");
    let Some(content) = files(&file) else { return Ok(Vec::new()) };
    csv::Reader::from_reader(content.as_slice())
        .deserialize()
        .collect::<Result<Vec<T>, _>>()
        .map_err(|error| ToolError::Malformed { tool: NAME, file, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;

    use super::*;
    use crate::load::report::Verdict;
    use crate::load::threshold::parse_threshold;

    fn spec(gates: &[&str]) -> Loadtest {
        Loadtest {
            generator: Generator::Locust { file: "locustfile.py".to_owned(), users: 5, spawn_rate: 5.0 },
            scenario: Vec::new(),
            duration: Duration::from_secs(6),
            ramp_up: Duration::ZERO,
            warmup: Duration::ZERO,
            request_timeout: Duration::from_secs(10),
            thresholds: gates.iter().map(|gate| parse_threshold(gate).unwrap()).collect(),
            request_thresholds: IndexMap::new(),
        }
    }

    /// Files of real runs (Locust 2.47), one against a server that answers 500 to a tenth, one against none.
    fn fixture(run: &str, name: &str) -> Option<Vec<u8>> {
        let name = name.replacen(PREFIX, run, 1);
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/locust/");
        std::fs::read(format!("{folder}{name}")).ok()
    }

    #[test]
    fn the_command_line() {
        insta::assert_snapshot!(
            script("load test/locustfile.py", 50, 12.5, Duration::from_millis(8500), "http://172.17.0.3:8000"),
            @r"
        mkdir -p locust-results
        locust -f 'load test/locustfile.py' --headless -u 50 -r 12.5 -t 9s --host http://172.17.0.3:8000 --csv locust-results/run --csv-full-history --json-file locust-results/run --only-summary --exit-code-on-error 0
        "
        );
    }

    #[test]
    fn a_real_run_with_failures() {
        let report = read(&|name| fixture("run", name), &spec(&["p95 < 200ms"])).unwrap();
        assert_eq!(report.verdict, Verdict::Failed);
        assert_eq!((report.total.sent, report.total.failed), (394, 29));
        let names: Vec<&str> = report.requests.iter().map(|request| request.name.as_str()).collect();
        assert_eq!(names, ["POST /predict", "GET /healthz"]);
        let predict = &report.requests[0];
        assert_eq!(predict.latency.count, 285);
        // Rounded up to 210 by Locust, but nothing took longer than this.
        assert_eq!(predict.latency.quantile_ms(1.0), Some(206.258));
        assert_eq!(report.errors.iter().map(|group| group.count).sum::<u64>(), 29);
        assert_eq!((report.errors[0].kind.as_str(), report.errors[0].count), ("status 500", 27));
        assert_eq!(report.series.iter().map(|step| step.good + step.failed).sum::<u64>(), 394);
        assert!(report.series.iter().any(|step| step.users == 5 && step.p95_ms.is_some()));
        insta::assert_snapshot!(report.reasons.join("\n"), @r"
        failure_rate <= 1% does not hold: 7.36%
        most frequent: 27 x `POST /predict` status 500: HTTPError('500 Server Error: Internal Server Error for url: POST /predict')
        p95 < 200ms cannot be judged: 394 samples are too few for p95: it takes 400, so test longer or with more load
        ");
    }

    #[test]
    fn a_dead_server_fails_however_fast_it_refuses() {
        let report = read(&|name| fixture("dead", name), &spec(&["p50 < 200ms"])).unwrap();
        assert_eq!(report.verdict, Verdict::Failed);
        assert_eq!(report.total.failure_rate, 1.0);
        assert_eq!(report.errors[0].kind, "ConnectionRefusedError");
    }

    #[test]
    fn a_tool_that_broke_is_not_a_server_that_failed() {
        let missing = read(&|_| None, &spec(&[])).unwrap_err();
        assert_eq!(missing.to_string(), "Locust ended without writing `run.json`: its own output says why");
        let broken = read(&|_| Some(b"oops".to_vec()), &spec(&[])).unwrap_err();
        assert!(broken.to_string().starts_with("`run.json` is not what Locust writes: "), "{broken}");
    }

    #[test]
    fn no_requests_prove_nothing() {
        let files = |name: &str| (name == "run.json").then(|| b"[]".to_vec());
        let report = read(&files, &spec(&["p95 < 200ms"])).unwrap();
        assert_eq!(report.verdict, Verdict::Invalid);
        assert!(report.reasons[0].starts_with("Locust made no request"), "{:?}", report.reasons);
    }

    #[test]
    fn thresholds_find_requests_by_either_name() {
        let mut spec = spec(&["failure_rate < 50%"]);
        spec.request_thresholds = IndexMap::from([
            ("/healthz".to_owned(), vec![parse_threshold("failure_rate < 1%").unwrap()]),
            ("POST /predict".to_owned(), vec![parse_threshold("failure_rate < 1%").unwrap()]),
        ]);
        let report = read(&|name| fixture("run", name), &spec).unwrap();
        let held: Vec<bool> =
            report.thresholds.iter().map(|gate| gate.outcome == crate::load::report::Outcome::Held).collect();
        assert_eq!(held, [true, true, false]);
    }
}
