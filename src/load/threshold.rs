//! Gates as people write them on a command line: `p95<200ms`, `failure_rate <= 1%`, `rps > 100`.
//!
//! PURE.

use std::time::Duration;

use crate::pipeline::types::{Comparison, LoadMetric, Threshold};

/// Reads one gate.
///
/// # Errors
/// What is wrong and what would be right, as a sentence.
pub fn parse_threshold(text: &str) -> Result<Threshold, String> {
    let text = text.trim();
    let at = text.find(['<', '>']).ok_or_else(|| {
        format!("`{text}` is not a threshold: write metric, comparison and limit, for example `p95<200ms`")
    })?;
    let (name, rest) = text.split_at(at);
    let metric = parse_metric(name.trim())?;
    let (comparison, limit) = match (rest.strip_prefix("<="), rest.strip_prefix(">=")) {
        (Some(limit), _) => (Comparison::Le, limit),
        (None, Some(limit)) => (Comparison::Ge, limit),
        (None, None) if rest.starts_with('<') => (Comparison::Lt, &rest[1..]),
        (None, None) => (Comparison::Gt, &rest[1..]),
    };
    let limit_text = limit.trim();
    let limit = match metric {
        LoadMetric::FailureRate => parse_share(limit_text)?,
        LoadMetric::Quantile(_) | LoadMetric::Max => parse_duration(limit_text)?.as_secs_f64(),
        LoadMetric::Rps => parse_rate(limit_text)?,
    };
    let sign = match comparison {
        Comparison::Lt => "<",
        Comparison::Le => "<=",
        Comparison::Gt => ">",
        Comparison::Ge => ">=",
    };
    Ok(Threshold { metric, comparison, limit, text: format!("{sign} {limit_text}") })
}

fn parse_metric(name: &str) -> Result<LoadMetric, String> {
    let unknown =
        || format!("`{name}` is not a metric of a load test: there are failure_rate, p50 to p99.99, max and rps");
    match name {
        "failure_rate" => Ok(LoadMetric::FailureRate),
        "max" => Ok(LoadMetric::Max),
        "rps" => Ok(LoadMetric::Rps),
        _ => {
            let percent: f64 = name.strip_prefix('p').and_then(|digits| digits.parse().ok()).ok_or_else(unknown)?;
            if percent > 0.0 && percent < 100.0 {
                Ok(LoadMetric::Quantile((percent * 1e6).round() / 1e8))
            } else {
                Err(unknown())
            }
        }
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
    let share = match text.strip_suffix('%') {
        Some(percent) => number(percent).map(|percent| percent / 100.0),
        None => number(text),
    };
    share
        .filter(|share| *share <= 1.0)
        .ok_or_else(|| format!("`{text}` is not a share: write `1%` or a number from 0 to 1"))
}

/// Reads a rate: `100`, `100/s`, `0.5/s`.
///
/// # Errors
/// A sentence.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.trim().strip_suffix("/s").unwrap_or(text).trim();
    let rate = number.parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate >= 0.0);
    rate.ok_or_else(|| format!("`{text}` is not a rate: write requests a second, for example `200/s`"))
}

/// Reads a time: `500us`, `200ms`, `1.5s`, `2m`, `1h`, and sums of them (`1m30s`).
///
/// # Errors
/// A sentence.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time: write a number with us, ms, s, m or h, for example `200ms`");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let factor = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        seconds += number.parse::<f64>().map_err(|_| wrong())? * factor;
        rest = tail.trim_start();
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        check("failure_rate<0.01", LoadMetric::FailureRate, Comparison::Lt, 0.01);
        check("rps > 100", LoadMetric::Rps, Comparison::Gt, 100.0);
        check("rps >= 100/s", LoadMetric::Rps, Comparison::Ge, 100.0);
        check("max < 1m30s", LoadMetric::Max, Comparison::Lt, 90.0);
    }

    #[test]
    fn what_is_not_a_gate_says_so() {
        for text in
            ["", "p95", "p95 = 3", "p0<1s", "p100<1s", "p95<200", "p95<-1s", "speed>3", "failure_rate<2", "rps>fast"]
        {
            let error = parse_threshold(text).unwrap_err();
            assert!(error.contains('`'), "{text}: {error}");
        }
    }
}
