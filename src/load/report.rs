//! What a load test found: one value for the store, the page, the terminal and the machine.
//!
//! PURE. Times in milliseconds as `_ms`, shares in 0..=1. The report holds whole distributions, so that anyone can work
//! the verdict out again from the stored JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::Micros;
use crate::load::checks::CheckResult;
use crate::load::distribution::Distribution;
use crate::load::verdict::enough_samples;

/// The percentiles of every table, as quantiles.
pub const QUANTILES: [f64; 7] = [0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0];

/// Result of one load test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Who made the load.
    pub tool: Tool,
    /// The address that was loaded.
    pub target: String,
    /// How load was put on.
    pub model: LoadModel,
    /// When load started.
    pub started: Micros,
    /// When the last answer was there.
    pub ended: Micros,
    /// Length of the part that counts, in seconds: without ramp-up and warm-up.
    pub counted_seconds: f64,
    /// Passed, failed, or not to be trusted.
    pub verdict: Verdict,
    /// Why, in words; empty if it passed.
    pub reasons: Vec<String>,
    /// What is worth knowing without being a reason.
    pub notes: Vec<String>,
    /// Each gate with what was measured.
    pub thresholds: Vec<ThresholdOutcome>,
    /// All requests together.
    pub total: RequestReport,
    /// By request name, in the scenario's order.
    pub requests: Vec<RequestReport>,
    /// Failures by name, kind and message, most frequent first.
    pub errors: Vec<ErrorGroup>,
    /// Second by second (or longer steps, for a long test), ramp-up and warm-up included.
    pub series: Vec<Step>,
    /// The contract check: one request of each kind before load started.
    pub contract: Vec<CheckResult>,
    /// How the generator itself did; `None` for foreign tools.
    pub generator: Option<GeneratorFacts>,
    /// Whether it was stopped before its end.
    pub cancelled: bool,
}

/// Who made the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// The engine of this program.
    BuiltIn,
    /// Locust.
    Locust,
    /// k6.
    K6,
}

/// How load is put on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum LoadModel {
    /// Users that wait for their answer before they send again.
    Closed {
        /// How many.
        users: u32,
    },
    /// Requests sent at their times, whatever comes back.
    Open {
        /// Requests a second.
        per_second: f64,
        /// More than this many unanswered requests are never out; what is due beyond it is dropped.
        max_in_flight: u32,
    },
}

/// A load test's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every gate held.
    Passed,
    /// The contract or a gate did not hold.
    Failed,
    /// The measurement cannot carry a verdict.
    Invalid,
}

impl Verdict {
    /// `passed`, `failed` or `invalid`.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Invalid => "invalid",
        }
    }
}

/// Counts and latencies of one kind of request, or of all.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RequestReport {
    /// The request's name; `all` for the total.
    pub name: String,
    /// Requests that were sent (a refused connection counts: somebody tried).
    pub sent: u64,
    /// Good answers.
    pub good: u64,
    /// Bad answers, broken connections, timeouts.
    pub failed: u64,
    /// Requests that were due and not sent, since too many were unanswered (open model).
    pub dropped: u64,
    /// (failed + dropped) / (sent + dropped); 0 without requests.
    pub failure_rate: f64,
    /// Good answers a second, of those that came within the counted time.
    pub rps: f64,
    /// Bytes of answers' bodies.
    pub body_bytes: u64,
    /// Latencies of good answers; in the open model from the moment a request was due.
    pub latency: Latency,
}

impl RequestReport {
    /// All that should have been sent.
    pub fn due(&self) -> u64 {
        self.sent.saturating_add(self.dropped)
    }
}

/// Failed share of all requests that were due.
pub fn failure_rate(sent: u64, failed: u64, dropped: u64) -> f64 {
    let due = sent.saturating_add(dropped);
    if due == 0 { 0.0 } else { failed.saturating_add(dropped) as f64 / due as f64 }
}

/// Latencies.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// How many samples.
    pub count: u64,
    /// Mean.
    pub mean_ms: f64,
    /// Shortest.
    pub min_ms: f64,
    /// Longest.
    pub max_ms: f64,
    /// The table: see [`QUANTILES`]; for k6 whatever its summary holds.
    pub percentiles: Vec<Percentile>,
    /// All samples as (microseconds, count); empty if the tool does not tell.
    pub buckets: Distribution,
    /// Whether failed requests are among the samples (Locust cannot tell them apart).
    pub includes_failures: bool,
}

/// One line of a percentile table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// In 0..=1.
    pub quantile: f64,
    /// The latency.
    pub ms: f64,
}

/// What the recorder knows exactly, beside the histogram: in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exact {
    /// Shortest.
    pub min: u64,
    /// Longest.
    pub max: u64,
    /// Sum of all.
    pub sum: u128,
}

impl Latency {
    /// Out of a distribution; `exact` replaces what its buckets only know roughly.
    pub fn new(buckets: Distribution, exact: Option<Exact>) -> Self {
        let count = buckets.count();
        let Some((low, high, mean)) = buckets.min().zip(buckets.max()).zip(buckets.mean()).map(|((l, h), m)| (l, h, m))
        else {
            return Self::default();
        };
        let (min, max, mean) = match exact {
            Some(exact) => (exact.min, exact.max, exact.sum as f64 / count as f64),
            None => (low, high, mean),
        };
        let mut latency = Self {
            count,
            mean_ms: mean / 1000.0,
            min_ms: millis(min),
            max_ms: millis(max),
            percentiles: Vec::new(),
            buckets,
            includes_failures: false,
        };
        latency.percentiles = QUANTILES
            .iter()
            .filter_map(|quantile| latency.quantile_ms(*quantile).map(|ms| Percentile { quantile: *quantile, ms }))
            .collect();
        latency
    }

    /// The latency at a quantile in 0..=1; `None` if there are no samples, or the tool's table lacks it.
    pub fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        match self.buckets.quantile(quantile) {
            // A bucket's upper end may lie above the longest latency that really was.
            Some(value) => Some(millis(value).min(self.max_ms)),
            None => self.percentiles.iter().find(|line| (line.quantile - quantile).abs() < 1e-9).map(|line| line.ms),
        }
    }
}

/// Microseconds as milliseconds.
pub fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// One gate with what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThresholdOutcome {
    /// The request that it is about; `None` for all.
    pub request: Option<String>,
    /// What is measured: `failure_rate`, `p95`, `max`, `rps`.
    pub metric: String,
    /// The gate as written: `p95 < 200ms`.
    pub text: String,
    /// The limit in the metric's unit (a share, milliseconds, or requests a second).
    pub limit: f64,
    /// What was measured, in the same unit; `None` if it could not be.
    pub measured: Option<f64>,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it was added by us, since nothing was said about failures.
    pub implied: bool,
    /// One sentence for people.
    pub message: String,
}

/// How a gate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It holds.
    Held,
    /// It does not.
    Broken,
    /// Too little was measured to tell.
    Unknown,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorGroup {
    /// The request's name.
    pub name: String,
    /// `status 500`, `timeout`, `connection refused`, ...
    pub kind: String,
    /// What was wrong; digits that differ from request to request are written as `#`.
    pub message: String,
    /// How many.
    pub count: u64,
    /// The first one in full: the beginning of the answer's body, or the error.
    pub example: Option<String>,
}

/// One step of the series.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Step {
    /// Where it starts, in seconds since load started.
    pub at: f64,
    /// Its length in seconds.
    pub seconds: f64,
    /// Whether all of it lies within the counted time.
    pub counted: bool,
    /// Good answers that came in it.
    pub good: u64,
    /// Failures that came in it.
    pub failed: u64,
    /// Requests dropped in it.
    pub dropped: u64,
    /// Median of the good answers that came in it.
    pub p50_ms: Option<f64>,
    /// 95th percentile.
    pub p95_ms: Option<f64>,
    /// 99th percentile.
    pub p99_ms: Option<f64>,
    /// Users (closed model) or unanswered requests (open model) at its end.
    pub users: u32,
}

/// How the generator itself did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GeneratorFacts {
    /// Its threads.
    pub threads: u32,
    /// Share of the counted time in which its threads ran on a processor; 1 = all of them always.
    pub cpu_share: f64,
    /// Share in which they ran or waited for a processor: what is left of it, they waited for answers.
    pub busy_share: f64,
    /// How late it did what was due (sends of the open model, its own timer), at the 99th percentile.
    pub lag_p99_ms: f64,
    /// The same, longest.
    pub lag_max_ms: f64,
    /// Failures that are this machine's: no free ports or file descriptors.
    pub own_failures: u64,
    /// Why the load was not what was asked for, so that no verdict stands on it; empty if it was.
    pub saturated: Vec<String>,
    /// Why latencies may be too high and rates too low by its own doing: what holds all the same, holds; what does not
    /// hold is not the server's fault for sure.
    pub strained: Vec<String>,
}

/// The figures that `promote` may use as guardrails, by name without a prefix.
///
/// A percentile is there only if enough samples carry it, so a guardrail never rests on a handful of requests.
pub fn metrics(report: &LoadReport) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::from([
        ("requests".to_owned(), report.total.sent as f64),
        ("failed".to_owned(), report.total.failed as f64),
        ("dropped".to_owned(), report.total.dropped as f64),
    ]);
    if report.total.due() == 0 {
        return metrics;
    }
    metrics.insert("failure_rate".to_owned(), report.total.failure_rate);
    metrics.insert("rps".to_owned(), report.total.rps);
    let latency = &report.total.latency;
    if latency.count > 0 {
        metrics.insert("mean_ms".to_owned(), latency.mean_ms);
        metrics.insert("max_ms".to_owned(), latency.max_ms);
    }
    for quantile in QUANTILES.into_iter().filter(|quantile| *quantile < 1.0 && enough_samples(latency.count, *quantile))
    {
        if let Some(ms) = latency.quantile_ms(quantile) {
            metrics.insert(format!("{}_ms", quantile_name(quantile)), ms);
        }
    }
    metrics
}

/// `p95`, `p99.9`; `max` for 1.
pub fn quantile_name(quantile: f64) -> String {
    if quantile >= 1.0 {
        return "max".to_owned();
    }
    // Two decimals less rounding noise: 0.999 x 100 is 99.9 only after rounding.
    let percent = (quantile * 1e8).round() / 1e6;
    format!("p{percent}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_have_the_usual_names() {
        for (quantile, expected) in [(0.5, "p50"), (0.95, "p95"), (0.999, "p99.9"), (0.9999, "p99.99"), (1.0, "max")] {
            assert_eq!(quantile_name(quantile), expected);
        }
    }

    #[test]
    fn exact_extremes_win_over_buckets() {
        let latency = Latency::new(
            Distribution::from_counts([(1001, 1), (2003, 1)]),
            Some(Exact { min: 1000, max: 2000, sum: 3000 }),
        );
        assert_eq!((latency.min_ms, latency.max_ms, latency.mean_ms), (1.0, 2.0, 1.5));
        assert_eq!(latency.quantile_ms(1.0), Some(2.0));
        assert_eq!(latency.quantile_ms(0.5), Some(1.001));
    }

    #[test]
    fn dropped_requests_are_failures_of_service() {
        assert_eq!(failure_rate(0, 0, 0), 0.0);
        assert_eq!(failure_rate(10, 1, 0), 0.1);
        assert_eq!(failure_rate(8, 0, 2), 0.2);
        assert_eq!(failure_rate(0, 0, 2), 1.0);
    }
}
