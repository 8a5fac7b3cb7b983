//! What a stage found out, in a line: its checks, its load test, its judgement. PURE.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::web::pages::mark::Mark;
use crate::words;

/// Lines about checks at most; the log has all.
const LINES: usize = 12;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// How it came out.
    pub mark: Option<Mark>,
    /// In words.
    pub text: String,
}

/// The findings of an attempt.
pub fn said(reports: &BTreeMap<String, Value>, decided: Option<&str>) -> Vec<Said> {
    let report = |name: &str| reports.get(name);
    let mut all = report("checks").map(checks).unwrap_or_default();
    all.extend(report("loadtest").and_then(load_test));
    all.extend(report("judgement").and_then(|report| judgement(report, decided)));
    all
}

/// How many passed, and a line for each that did not.
fn checks(report: &Value) -> Vec<Said> {
    let summary = report.get("summary").and_then(Value::as_str).unwrap_or_default();
    summary.lines().take(LINES).map(|line| Said { mark: None, text: line.to_owned() }).collect()
}

fn load_test(report: &Value) -> Option<Said> {
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64);
    let percentile = |quantile: f64| {
        let all = report.pointer("/total/latency/percentiles")?.as_array()?;
        let found = all.iter().find(|one| one["quantile"].as_f64() == Some(quantile))?;
        found["ms"].as_f64()
    };
    let mut parts = Vec::new();
    parts.extend(number("/total/rps").map(|rps| format!("{} requests/s", words::number(rps.round()))));
    parts.extend(percentile(0.5).map(|ms| format!("p50 {ms:.1} ms")));
    parts.extend(percentile(0.95).map(|ms| format!("p95 {ms:.1} ms")));
    parts.extend(number("/total/failure_rate").map(|share| format!("{:.2} % failed", share * 100.0)));
    let verdict = report.get("verdict")?.as_str()?;
    let mark = match verdict {
        "passed" => Mark { shape: "passed", word: "within its thresholds" },
        "invalid" => Mark { shape: "held", word: "proves nothing" },
        _ => Mark { shape: "failed", word: "over its thresholds" },
    };
    Some(Said { mark: Some(mark), text: parts.join(" · ") })
}

/// What was judged; what was decided may be another thing, as where a person has to agree.
fn judgement(report: &Value, decided: Option<&str>) -> Option<Said> {
    let judged = report.get("verdict")?.as_str()?;
    let mark = Mark::verdict(decided.unwrap_or(judged));
    Some(Said { mark: Some(mark), text: report.get("reason")?.as_str()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn findings_in_words() {
        let check = |name: &str, report: Value, expected: &str| {
            let found = said(&BTreeMap::from([(name.to_owned(), report)]), None);
            let texts: Vec<String> = found
                .into_iter()
                .map(|said| format!("{}|{}", said.mark.map_or("", |mark| mark.word), said.text))
                .collect();
            assert_eq!(texts.join(";"), expected, "{name}");
        };
        check("checks", json!({ "summary": "2 of 3 checks passed" }), "|2 of 3 checks passed");
        check(
            "checks",
            json!({ "summary": "0 of 1 checks passed\n✗ up: no answer" }),
            "|0 of 1 checks passed;|✗ up: no answer",
        );
        let load = json!({ "verdict": "passed", "total": { "rps": 3521.33, "failure_rate": 0.0125,
            "latency": { "percentiles": [{ "quantile": 0.5, "ms": 0.899 }, { "quantile": 0.95, "ms": 2.04 }] } } });
        check("loadtest", load, "within its thresholds|3521 requests/s · p50 0.9 ms · p95 2.0 ms · 1.25 % failed");
        check("judgement", json!({ "verdict": "rejected", "reason": "worse" }), "rejected|worse");
        // What another version wrote is left out, not guessed.
        check("judgement", json!({ "something": 1 }), "");
        check("loadtest", json!("text"), "");
    }
}
