//! Gates as people write them on a command line: `p95<200ms`, `failure_rate <= 1%`, `rps > 100`. The same language as in
//! pipelines, where metric and limit are key and value.
//!
//! PURE.

use std::time::Duration;

use crate::pipeline::types::Threshold;
use crate::pipeline::units::{self, UnitError};

/// Reads one gate.
///
/// # Errors
/// What is wrong and what would be right, as a sentence.
pub fn parse_threshold(text: &str) -> Result<Threshold, String> {
    let text = text.trim();
    let at = text.find(['<', '>']).ok_or_else(|| {
        format!("`{text}` is not a threshold: write metric, comparison and limit, for example `p95<200ms`")
    })?;
    let (name, limit) = text.split_at(at);
    let name = name.trim();
    let metric = units::load_metric(name).ok_or_else(|| {
        format!("`{name}` is not a metric of a load test: there are failure_rate, p50 to p99.99, max and rps")
    })?;
    units::threshold(metric, limit).map_err(sentence)
}

/// Reads a rate: `200/s`, `600/m`, or a bare number of requests a second.
///
/// # Errors
/// A sentence.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let bare = text.trim().parse::<f64>().is_ok();
    units::rate(&if bare { format!("{}/s", text.trim()) } else { text.to_owned() }).map_err(sentence)
}

/// Reads a time: `500us`, `200ms`, `1.5s`, `2m`, `1h`, and sums of them (`1m30s`).
///
/// # Errors
/// A sentence.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(sentence)
}

fn sentence(error: UnitError) -> String {
    match error.help {
        Some(help) => format!("{}; {help}", error.message),
        None => error.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::pipeline::types::{Comparison, LoadMetric};

    #[test]
    fn gates_as_they_are_written() {
        let check = |text: &str, metric: LoadMetric, comparison: Comparison, limit: f64| {
            let gate = parse_threshold(text).unwrap();
            assert_eq!((gate.metric, gate.comparison), (metric, comparison), "{text}");
            assert!((gate.limit - limit).abs() < 1e-9, "{text}: {}", gate.limit);
        };
        check("p95<200ms", LoadMetric::Quantile(0.95), Comparison::Lt, 0.2);
        check(" p99.9 <= 1.5s ", LoadMetric::Quantile(0.999), Comparison::Le, 1.5);
        check("failure_rate < 1%", LoadMetric::FailureRate, Comparison::Lt, 0.01);
        check("rps > 100", LoadMetric::Rps, Comparison::Gt, 100.0);
        check("rps >= 100/s", LoadMetric::Rps, Comparison::Ge, 100.0);
        check("max < 1m30s", LoadMetric::Max, Comparison::Lt, 90.0);
    }

    #[test]
    fn what_is_not_a_gate_says_so() {
        for text in [
            "",
            "p95",
            "p95 = 3",
            "p0<1s",
            "p100<1s",
            "p95<200",
            "p95<-1s",
            "speed>3",
            "failure_rate<2",
            "failure_rate<0.01",
            "rps>fast",
        ] {
            let error = parse_threshold(text).unwrap_err();
            assert!(error.contains('`'), "{text}: {error}");
        }
    }

    #[test]
    fn rates_and_times() {
        assert_eq!(parse_rate("200"), Ok(200.0));
        assert_eq!(parse_rate(" 0.5/s "), Ok(0.5));
        assert_eq!(parse_rate("600/m"), Ok(10.0));
        assert!(parse_rate("fast").unwrap_err().contains("200/s"));
        assert_eq!(parse_duration("500us"), Ok(Duration::from_micros(500)));
        assert_eq!(parse_duration("10").unwrap_err(), "`10` has no unit; write `10s`, `10m` or `10h`");
    }
}
