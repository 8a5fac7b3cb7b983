//! From what was measured to passed, failed or invalid, with the reasons.
//!
//! PURE. The order matters: a dead server refuses in microseconds and so has the best latency of all. Failures are judged
//! first, latency over good answers only, and what too few samples or a struggling generator measured carries no verdict.

use indexmap::IndexMap;

use crate::load::report::{
    GeneratorFacts, LoadModel, LoadReport, Outcome, RequestReport, ThresholdOutcome, Tool, Verdict, quantile_name,
};
use crate::pipeline::types::{Comparison, LoadMetric, Threshold};

/// Allowed share of failures where the pipeline says nothing about failures.
pub const IMPLIED_FAILURE_RATE: f64 = 0.01;

/// The generator may be late by this, in milliseconds, whatever is measured.
const LAG_ALLOWED_MS: f64 = 20.0;

/// ... or by this share of the 99th percentile that it measures.
const LAG_ALLOWED_SHARE: f64 = 0.1;

/// Threads that run, or wait for a processor, for more than this share of the time are a bottleneck: answers lie about
/// unread, and the wait for the generator counts as the server's latency.
const BUSY: f64 = 0.95;

/// Whether so many samples carry this quantile: at least 20 must lie beyond it.
pub fn enough_samples(count: u64, quantile: f64) -> bool {
    count as f64 + 1e-6 >= 20.0 / (1.0 - quantile)
}

/// How many samples a quantile needs.
fn needed_samples(quantile: f64) -> u64 {
    (20.0 / (1.0 - quantile) - 1e-6).ceil() as u64
}

/// The gates of a test.
#[derive(Debug, Clone, Copy)]
pub struct Gates<'a> {
    /// For all requests together.
    pub total: &'a [Threshold],
    /// By request name.
    pub by_name: &'a IndexMap<String, Vec<Threshold>>,
}

/// Fills in `thresholds`, `verdict` and `reasons` of a report from everything else in it.
pub fn judge(report: &mut LoadReport, gates: Gates<'_>) {
    report.thresholds = outcomes(report, gates);
    (report.verdict, report.reasons) = decide(report);
    if let (Verdict::Passed, Some(facts)) = (report.verdict, &report.generator) {
        report.notes.extend(facts.strained.iter().map(|strain| format!("{strain} (the thresholds hold all the same)")));
    }
}

fn outcomes(report: &LoadReport, gates: Gates<'_>) -> Vec<ThresholdOutcome> {
    let mut outcomes = Vec::new();
    let says_failures = gates.total.iter().any(|gate| gate.metric == LoadMetric::FailureRate);
    if !says_failures {
        let limit = IMPLIED_FAILURE_RATE;
        let text = format!("<= {}", share(limit));
        let gate = Threshold { metric: LoadMetric::FailureRate, comparison: Comparison::Le, limit, text };
        outcomes.push(ThresholdOutcome { implied: true, ..outcome(None, Some(&report.total), &gate) });
    }
    outcomes.extend(gates.total.iter().map(|gate| outcome(None, Some(&report.total), gate)));
    for (name, thresholds) in gates.by_name {
        let request = report.requests.iter().find(|request| request.name == *name);
        outcomes.extend(thresholds.iter().map(|gate| outcome(Some(name), request, gate)));
    }
    // Failures first, wherever they stand in the pipeline.
    outcomes.sort_by_key(|outcome| outcome.metric != "failure_rate");
    outcomes
}

/// The metric's name as in the pipeline.
pub fn metric_name(metric: LoadMetric) -> String {
    match metric {
        LoadMetric::FailureRate => "failure_rate".to_owned(),
        LoadMetric::Quantile(quantile) => quantile_name(quantile),
        LoadMetric::Max => "max".to_owned(),
        LoadMetric::Rps => "rps".to_owned(),
    }
}

fn outcome(name: Option<&str>, request: Option<&RequestReport>, gate: &Threshold) -> ThresholdOutcome {
    let metric = metric_name(gate.metric);
    let measured = match request {
        None => Err("no request of this name was made".to_owned()),
        Some(request) => measure(request, gate.metric),
    };
    let limit = match gate.metric {
        LoadMetric::Quantile(_) | LoadMetric::Max => gate.limit * 1000.0,
        LoadMetric::FailureRate | LoadMetric::Rps => gate.limit,
    };
    let (outcome, message) = match &measured {
        Err(reason) => (Outcome::Unknown, reason.clone()),
        Ok(value) if holds(*value, gate.comparison, limit) => (Outcome::Held, show(gate.metric, *value)),
        Ok(value) => (Outcome::Broken, show(gate.metric, *value)),
    };
    let text = if gate.text.trim_start().starts_with(&metric) {
        gate.text.trim().to_owned()
    } else {
        format!("{metric} {}", gate.text.trim())
    };
    let subject = name.map(|name| format!("`{name}`: ")).unwrap_or_default();
    let message = match outcome {
        Outcome::Held => format!("{subject}{text} holds: {message}"),
        Outcome::Broken => format!("{subject}{text} does not hold: {message}"),
        Outcome::Unknown => format!("{subject}{text} cannot be judged: {message}"),
    };
    ThresholdOutcome {
        request: name.map(str::to_owned),
        metric,
        text,
        limit,
        measured: measured.ok(),
        outcome,
        implied: false,
        message,
    }
}

/// The metric in the report's unit, or why there is none.
fn measure(request: &RequestReport, metric: LoadMetric) -> Result<f64, String> {
    let latency = &request.latency;
    let no_answer = || "there was no good answer".to_owned();
    match metric {
        LoadMetric::FailureRate if request.due() == 0 => Err("no such request was made".to_owned()),
        LoadMetric::FailureRate => Ok(request.failure_rate),
        LoadMetric::Rps => Ok(request.rps),
        LoadMetric::Quantile(_) | LoadMetric::Max if latency.count == 0 => Err(no_answer()),
        LoadMetric::Max => Ok(latency.max_ms),
        LoadMetric::Quantile(quantile) if !enough_samples(latency.count, quantile) => Err(format!(
            "{} samples are too few for {}: it takes {}, so test longer or with more load",
            latency.count,
            quantile_name(quantile),
            needed_samples(quantile)
        )),
        LoadMetric::Quantile(quantile) => latency
            .quantile_ms(quantile)
            .ok_or_else(|| format!("the tool's summary does not tell {}", quantile_name(quantile))),
    }
}

fn holds(value: f64, comparison: Comparison, limit: f64) -> bool {
    match comparison {
        Comparison::Lt => value < limit,
        Comparison::Le => value <= limit,
        Comparison::Gt => value > limit,
        Comparison::Ge => value >= limit,
    }
}

/// A share as per cent.
pub fn share(value: f64) -> String {
    let percent = value * 100.0;
    if percent == 0.0 || percent >= 10.0 {
        format!("{}%", (percent * 10.0).round() / 10.0)
    } else {
        format!("{}%", (percent * 1000.0).round() / 1000.0)
    }
}

fn show(metric: LoadMetric, value: f64) -> String {
    match metric {
        LoadMetric::FailureRate => share(value),
        LoadMetric::Quantile(_) | LoadMetric::Max => show_ms(value),
        LoadMetric::Rps => format!("{value:.1}/s"),
    }
}

/// Milliseconds with three or so digits that count, as seconds from 10 s up.
pub fn show_ms(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{ms:.3}ms"),
        ms if ms < 10.0 => format!("{ms:.2}ms"),
        ms if ms < 100.0 => format!("{ms:.1}ms"),
        ms if ms < 10_000.0 => format!("{ms:.0}ms"),
        ms => format!("{:.1}s", ms / 1000.0),
    }
}

fn decide(report: &LoadReport) -> (Verdict, Vec<String>) {
    if report.cancelled {
        return (Verdict::Invalid, vec!["the test was stopped before its end".to_owned()]);
    }
    if report.total.due() == 0 {
        return (Verdict::Invalid, vec![no_requests(report.tool)]);
    }
    let mut failures: Vec<String> = messages(report, |gate| gate.outcome == Outcome::Broken && is_failures(gate));
    if report.total.good == 0 {
        failures.insert(0, format!("not one of {} requests got a good answer", report.total.due()));
    }
    let broken = messages(report, |gate| gate.outcome == Outcome::Broken && !is_failures(gate));
    let unknown = messages(report, |gate| gate.outcome == Outcome::Unknown);
    let (saturated, strained) = match &report.generator {
        Some(facts) => (facts.saturated.clone(), facts.strained.clone()),
        None => (Vec::new(), Vec::new()),
    };
    let struggled = !saturated.is_empty() || !strained.is_empty();
    // Where nothing but drops went wrong, a struggling generator is the one to blame and not the server.
    let only_dropped = report.total.failed == 0 && report.total.good > 0;
    let servers_fault = !(only_dropped && struggled);
    let verdict = if !failures.is_empty() && servers_fault {
        Verdict::Failed
    } else if !saturated.is_empty() || !failures.is_empty() {
        Verdict::Invalid
    } else if !broken.is_empty() {
        // A saturated generator looks like a slow server.
        if struggled { Verdict::Invalid } else { Verdict::Failed }
    } else if !unknown.is_empty() {
        Verdict::Invalid
    } else {
        Verdict::Passed
    };
    let mut reasons = failures;
    if let (false, Some(most)) = (reasons.is_empty(), report.errors.first()) {
        reasons.push(format!("most frequent: {} x `{}` {}: {}", most.count, most.name, most.kind, most.message));
    }
    reasons.extend(saturated);
    if verdict != Verdict::Passed {
        reasons.extend(strained);
    }
    reasons.extend(broken);
    // Without any good answer it goes without saying that latency cannot be judged.
    reasons.extend(unknown.into_iter().filter(|_| report.total.good > 0));
    (verdict, reasons)
}

fn messages(report: &LoadReport, choose: impl Fn(&ThresholdOutcome) -> bool) -> Vec<String> {
    report.thresholds.iter().filter(|gate| choose(gate)).map(|gate| gate.message.clone()).collect()
}

fn is_failures(gate: &ThresholdOutcome) -> bool {
    gate.metric == "failure_rate"
}

fn no_requests(tool: Tool) -> String {
    match tool {
        Tool::BuiltIn => "no request was sent in the counted time: nothing was measured".to_owned(),
        Tool::Locust => {
            "Locust made no request: do its users have tasks, and did the test last long enough?".to_owned()
        }
        Tool::K6 => "k6 made no request: does its default function send any?".to_owned(),
    }
}

/// Fills in what the generator's facts mean for its figures. `p99_ms` is what it measured.
pub fn assess(facts: &mut GeneratorFacts, model: LoadModel, p99_ms: Option<f64>) {
    let allowed = LAG_ALLOWED_MS.max(p99_ms.unwrap_or(0.0) * LAG_ALLOWED_SHARE);
    if facts.lag_p99_ms > allowed {
        let lag = show_ms(facts.lag_p99_ms);
        match model {
            LoadModel::Open { per_second, .. } => facts.saturated.push(format!(
                "the generator could not keep up with {per_second}/s: 1 % of the time it was {lag} or more late; lower the \
                 rate, or give it more threads or another machine"
            )),
            LoadModel::Closed { .. } => facts.strained.push(format!(
                "the generator did not get to run in time: 1 % of the time it was {lag} or more late, and that is in the \
                 latencies; run it on a machine with free processors"
            )),
        }
    }
    if facts.busy_share > BUSY {
        let threads =
            if facts.threads == 1 { "thread was".to_owned() } else { format!("{} threads were", facts.threads) };
        facts.strained.push(format!(
            "the generator itself was the bottleneck: its {threads} busy {} of the time; give it more threads or another \
             machine",
            share(facts.busy_share)
        ));
    }
    if facts.own_failures > 0 {
        facts.saturated.push(format!(
            "{} requests failed because this machine had no free port or file descriptor left",
            facts.own_failures
        ));
    }
}

/// What is worth saying beside the verdict.
pub fn notes(total: &RequestReport, model: LoadModel) -> Vec<String> {
    match model {
        LoadModel::Open { max_in_flight, .. } if total.dropped > 0 => vec![format!(
            "{} of {} requests were not sent, since {max_in_flight} were unanswered when they were due: the server is too \
             slow for this rate (they count as failures)",
            total.dropped,
            total.due()
        )],
        LoadModel::Open { .. } | LoadModel::Closed { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Micros;
    use crate::load::distribution::Distribution;
    use crate::load::report::{ErrorGroup, Latency, failure_rate, metrics};
    use crate::load::threshold::parse_threshold;

    fn request(name: &str, good: u64, failed: u64, dropped: u64) -> RequestReport {
        let sent = good + failed;
        // 1 .. n tenths of a millisecond.
        let latency = Latency::new(Distribution::from_counts((1..=good).map(|n| (n * 100, 1))), None);
        RequestReport {
            name: name.to_owned(),
            sent,
            good,
            failed,
            dropped,
            failure_rate: failure_rate(sent, failed, dropped),
            rps: good as f64 / 10.0,
            body_bytes: 0,
            latency,
        }
    }

    fn report(total: RequestReport) -> LoadReport {
        LoadReport {
            tool: Tool::BuiltIn,
            target: "http://h".to_owned(),
            model: LoadModel::Closed { users: 5 },
            started: Micros(0),
            ended: Micros(10_000_000),
            counted_seconds: 10.0,
            verdict: Verdict::Invalid,
            reasons: Vec::new(),
            notes: Vec::new(),
            thresholds: Vec::new(),
            requests: vec![RequestReport { name: "GET /".to_owned(), ..total.clone() }],
            total,
            errors: Vec::new(),
            series: Vec::new(),
            contract: Vec::new(),
            generator: Some(GeneratorFacts::default()),
            cancelled: false,
        }
    }

    fn judged(mut report: LoadReport, gates: &[&str]) -> LoadReport {
        let total: Vec<Threshold> = gates.iter().map(|gate| parse_threshold(gate).unwrap()).collect();
        judge(&mut report, Gates { total: &total, by_name: &IndexMap::new() });
        report
    }

    #[test]
    fn gates_are_judged_in_their_unit() {
        let check = |gate: &str, expected: Verdict| {
            let report = judged(report(request("all", 1000, 5, 0)), &[gate]);
            assert_eq!(report.verdict, expected, "{gate}: {:?}", report.reasons);
        };
        check("failure_rate < 1%", Verdict::Passed);
        check("failure_rate < 0.4%", Verdict::Failed);
        check("failure_rate <= 0.4%", Verdict::Failed);
        check("p95 <= 95ms", Verdict::Passed);
        check("p95 < 95ms", Verdict::Failed);
        check("p95 < 1s", Verdict::Passed);
        check("max <= 100ms", Verdict::Passed);
        check("max < 100ms", Verdict::Failed);
        check("rps >= 100", Verdict::Passed);
        check("rps > 100", Verdict::Failed);
        check("rps > 99.9/s", Verdict::Passed);
        check("p99 < 1s", Verdict::Invalid);
        check("p98 < 1s", Verdict::Passed);
    }

    #[test]
    fn failures_come_before_everything() {
        let mut dead = report(request("all", 0, 1000, 0));
        dead.generator = Some(GeneratorFacts { saturated: vec!["busy".to_owned()], ..GeneratorFacts::default() });
        dead.errors = vec![ErrorGroup {
            name: "GET /".to_owned(),
            kind: "connection refused".to_owned(),
            message: "nothing listens".to_owned(),
            count: 1000,
            example: None,
        }];
        let dead = judged(dead, &["p95 < 200ms"]);
        assert_eq!(dead.verdict, Verdict::Failed);
        insta::assert_snapshot!(dead.reasons.join("\n"), @r"
        not one of 1000 requests got a good answer
        failure_rate <= 1% does not hold: 100%
        most frequent: 1000 x `GET /` connection refused: nothing listens
        busy
        ");
    }

    #[test]
    fn silence_about_failures_allows_one_per_cent() {
        assert_eq!(judged(report(request("all", 1000, 10, 0)), &["p95 < 200ms"]).verdict, Verdict::Passed);
        let failed = judged(report(request("all", 1000, 11, 0)), &["p95 < 200ms"]);
        assert_eq!(failed.verdict, Verdict::Failed);
        assert!(failed.thresholds[0].implied);
        // Whoever says it, has said it.
        let allowed = judged(report(request("all", 1000, 500, 0)), &["p95 < 200ms", "failure_rate < 50%"]);
        assert_eq!(allowed.verdict, Verdict::Passed);
        assert_eq!(allowed.thresholds[0].metric, "failure_rate");
        // Even then a server that never answers well does not pass.
        let dead = judged(report(request("all", 0, 50, 0)), &["failure_rate <= 100%"]);
        assert_eq!(dead.verdict, Verdict::Failed);
    }

    #[test]
    fn dropped_requests_fail_a_test() {
        let mut overloaded = report(request("all", 1000, 0, 500));
        overloaded.model = LoadModel::Open { per_second: 150.0, max_in_flight: 10 };
        assert_eq!(judged(overloaded.clone(), &[]).verdict, Verdict::Failed);
        let saturated = vec!["busy".to_owned()];
        overloaded.generator = Some(GeneratorFacts { saturated, ..GeneratorFacts::default() });
        assert_eq!(judged(overloaded, &[]).verdict, Verdict::Invalid);
    }

    #[test]
    fn what_cannot_carry_a_verdict_is_invalid() {
        assert_eq!(judged(report(request("all", 0, 0, 0)), &[]).verdict, Verdict::Invalid);
        assert_eq!(judged(report(request("all", 399, 0, 0)), &["p95 < 1s"]).verdict, Verdict::Invalid);
        assert_eq!(judged(report(request("all", 400, 0, 0)), &["p95 < 1s"]).verdict, Verdict::Passed);
        let mut busy = report(request("all", 1000, 0, 0));
        busy.generator = Some(GeneratorFacts { saturated: vec!["busy".to_owned()], ..GeneratorFacts::default() });
        assert_eq!(judged(busy, &["p95 < 1ms"]).verdict, Verdict::Invalid);
        let mut stopped = report(request("all", 1000, 0, 0));
        stopped.cancelled = true;
        assert_eq!(judged(stopped, &[]).verdict, Verdict::Invalid);
        // A gate that surely fails is a failure, even beside one that cannot be judged.
        let both = judged(report(request("all", 100, 0, 0)), &["p99 < 1s", "max < 1ms"]);
        assert_eq!(both.verdict, Verdict::Failed);
        assert_eq!(both.reasons.len(), 2);
    }

    #[test]
    fn gates_by_name() {
        let mut report = report(request("all", 1000, 0, 0));
        report.requests.push(request("POST /predict", 500, 50, 0));
        let by_name = IndexMap::from([
            ("POST /predict".to_owned(), vec![parse_threshold("failure_rate < 1%").unwrap()]),
            ("GET /nowhere".to_owned(), vec![parse_threshold("p95 < 1s").unwrap()]),
        ]);
        judge(&mut report, Gates { total: &[], by_name: &by_name });
        assert_eq!(report.verdict, Verdict::Failed);
        insta::assert_snapshot!(report.reasons.join("\n"), @r"
        `POST /predict`: failure_rate < 1% does not hold: 9.091%
        `GET /nowhere`: p95 < 1s cannot be judged: no request of this name was made
        ");
    }

    #[test]
    fn a_generator_that_cannot_keep_up_is_seen() {
        let open = LoadModel::Open { per_second: 200.0, max_in_flight: 10 };
        let closed = LoadModel::Closed { users: 10 };
        let facts = |lag_p99_ms: f64, busy_share: f64, own_failures: u64| GeneratorFacts {
            threads: 1,
            lag_p99_ms,
            busy_share,
            own_failures,
            ..GeneratorFacts::default()
        };
        let check = |mut facts: GeneratorFacts, model: LoadModel, p99_ms: f64, expected: (usize, usize)| {
            assess(&mut facts, model, Some(p99_ms));
            assert_eq!((facts.saturated.len(), facts.strained.len()), expected, "{facts:?} {model:?} {p99_ms}");
        };
        check(facts(1.0, 0.3, 0), open, 5.0, (0, 0));
        check(facts(30.0, 0.3, 0), open, 30.0, (1, 0));
        check(facts(30.0, 0.3, 0), open, 500.0, (0, 0));
        check(facts(1.0, 0.99, 0), open, 5.0, (0, 1));
        check(facts(1.0, 0.99, 0), closed, 5.0, (0, 1));
        check(facts(30.0, 0.99, 0), closed, 30.0, (0, 2));
        check(facts(1.0, 0.3, 1), closed, 5.0, (1, 0));
    }

    #[test]
    fn a_strained_generator_spoils_only_what_does_not_hold() {
        let strained = || {
            let mut report = report(request("all", 1000, 0, 0));
            let strained = vec!["busy".to_owned()];
            report.generator = Some(GeneratorFacts { strained, ..GeneratorFacts::default() });
            report
        };
        let held = judged(strained(), &["p95 < 1s"]);
        assert_eq!((held.verdict, held.reasons.len()), (Verdict::Passed, 0));
        assert_eq!(held.notes, ["busy (the thresholds hold all the same)"]);
        let broken = judged(strained(), &["p95 < 1ms"]);
        assert_eq!((broken.verdict, broken.notes.len()), (Verdict::Invalid, 0));
        assert_eq!(broken.reasons, ["busy", "p95 < 1ms does not hold: 95.0ms"]);
    }

    #[test]
    fn metrics_rest_on_enough_samples() {
        let names = |good: u64| metrics(&report(request("all", good, 0, 0))).into_keys().collect::<Vec<_>>().join(" ");
        assert_eq!(names(0), "dropped failed requests");
        assert_eq!(names(39), "dropped failed failure_rate max_ms mean_ms requests rps");
        assert_eq!(names(400), "dropped failed failure_rate max_ms mean_ms p50_ms p75_ms p90_ms p95_ms requests rps");
        let metrics = metrics(&report(request("all", 2000, 0, 0)));
        assert_eq!(metrics["p99_ms"], 198.0);
        assert!(!metrics.contains_key("p99.9_ms"));
    }
}
