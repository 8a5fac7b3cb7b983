//! The one comment of a pull request: how the build stands, metrics beside the champion's, checks, load test, verdict.

use std::fmt::Write;

use super::markdown::{Side, code, table, text};
use super::{BuildReport, Judged, StageReport, line};
use crate::build::status::{BuildStatus, StageStatus};
use crate::judge::finding::{Finding, Outcome, Role};
use crate::pipeline::types::Goal;
use crate::words::{duration, number};

/// Bytes of a comment at most; GitHub takes 65,536 characters.
const MOST: usize = 60_000;
/// Rows of each table.
const ROWS: usize = 40;

/// The comment's text. `plot` is the address of a picture that GitHub can reach.
pub fn of_build(report: &BuildReport, awaits: Option<&str>, url: &str, plot: Option<&str>) -> String {
    let mut out = String::new();
    let build = &report.build;
    let sentence = text(&line(&report.sentence(awaits), 300));
    let _ =
        writeln!(out, "### {} {} · [build {}]({url})\n", sign(build.status), text(&build.request.pipeline), build.id.0);
    let commit = build.request.commit.as_deref().unwrap_or_default();
    let _ = writeln!(out, "{} {sentence}\n", code(&commit[..commit.len().min(9)]));
    for stage in &report.stages {
        if let Some(judged) = stage.judged() {
            judgement(&judged, &mut out);
        }
    }
    for stage in &report.stages {
        model(stage, report, &mut out);
        load(stage, &mut out);
        checks(stage, &mut out);
    }
    if let Some(plot) = plot {
        let _ = writeln!(out, "![latency percentiles and metrics of build {}]({plot})\n", build.id.0);
    }
    stages(report, &mut out);
    cut(out)
}

/// A shape beside the word, which says the same.
fn sign(status: BuildStatus) -> &'static str {
    match status {
        BuildStatus::Queued | BuildStatus::Running => "⏳",
        BuildStatus::Passed => "✅",
        BuildStatus::Failed => "❌",
        BuildStatus::Cancelled { .. } => "⏹",
    }
}

fn arrow(goal: Goal) -> &'static str {
    match goal {
        Goal::Maximize => "↑",
        Goal::Minimize => "↓",
    }
}

fn judgement(judged: &Judged, out: &mut String) {
    let of = &judged.judgement;
    let against = of.champion.map_or("no champion yet".to_owned(), |version| format!("champion v{version}"));
    let outcome = match judged.outcome() {
        outcome if outcome == of.verdict.word() => text(outcome),
        outcome => format!("{} ({})", text(of.verdict.word()), text(outcome)),
    };
    let _ = writeln!(out, "**Model {} v{}** beside {against}: **{outcome}**", code(&of.model), of.candidate);
    let _ = writeln!(out, "{}\n", text(&line(&of.reason, 400)));
    let rows: Vec<Vec<String>> = of.findings.iter().take(ROWS).map(finding).collect();
    if !rows.is_empty() {
        let head = [
            ("metric", Side::Left),
            ("candidate", Side::Right),
            ("champion", Side::Right),
            ("gain", Side::Right),
            ("finding", Side::Left),
        ];
        let _ = writeln!(out, "{}", table(&head, &rows));
    }
}

fn finding(finding: &Finding) -> Vec<String> {
    let value = |value: Option<f64>| value.map_or("–".to_owned(), number);
    let word = match (finding.role, finding.outcome) {
        (Role::BetterIf, Outcome::Holds) => "better",
        (Role::BetterIf, Outcome::Fails) => "not better",
        (Role::Guardrail, Outcome::Holds) => "holds",
        (Role::Guardrail, Outcome::Fails) => "**broken**",
        (_, Outcome::Inconclusive) => "inconclusive",
        (_, Outcome::Error) => "**cannot be judged**",
        (_, Outcome::NotCompared) => "not compared",
    };
    let gain =
        finding.gain.map_or("–".to_owned(), |gain| format!("{}{}", if gain > 0.0 { "+" } else { "" }, number(gain)));
    vec![
        format!("{} {}", code(&finding.metric), arrow(finding.goal)),
        value(finding.candidate),
        value(finding.champion),
        gain,
        word.to_owned(),
    ]
}

/// The metrics of a training, beside the champion's.
fn model(stage: &StageReport, report: &BuildReport, out: &mut String) {
    if stage.row.kind != "train" || stage.metrics.is_empty() {
        return;
    }
    let champion = report.champion.as_ref().filter(|champion| Some(champion.version) != stage.version);
    let mut head = vec![("metric", Side::Left), ("this build", Side::Right)];
    head.extend(champion.map(|_| ("champion", Side::Right)));
    let mut rows = Vec::new();
    for (name, value) in stage.metrics.iter().filter(|(name, _)| !name.starts_with("confusion.")).take(ROWS) {
        let mut row = vec![code(name), number(*value)];
        row.extend(champion.map(|champion| champion.metrics.get(name).map_or("–".to_owned(), |value| number(*value))));
        rows.push(row);
    }
    let version = stage.version.map_or(String::new(), |version| format!(" v{version}"));
    let name = code(&stage.row.node.to_string());
    let _ = writeln!(
        out,
        "<details><summary>Metrics of {name}{version}</summary>\n\n{}\n</details>\n",
        table(&head, &rows)
    );
}

fn load(stage: &StageReport, out: &mut String) {
    let Some(load) = stage.load() else { return };
    let name = code(&stage.row.node.to_string());
    let _ = writeln!(
        out,
        "**Load test {name}: {}** · {} good answers a second over {} s\n",
        load.verdict.word(),
        number(load.total.rps.round()),
        number(load.counted_seconds)
    );
    let head = [
        ("request", Side::Left),
        ("sent", Side::Right),
        ("failed", Side::Right),
        ("p50", Side::Right),
        ("p95", Side::Right),
        ("p99", Side::Right),
    ];
    let all = load.requests.iter().take(ROWS).chain((load.requests.len() != 1).then_some(&load.total));
    let rows: Vec<Vec<String>> = all
        .map(|request| {
            let at = |quantile: f64| {
                let found = request.latency.percentiles.iter().find(|row| (row.quantile - quantile).abs() < 1e-9);
                found.map_or("–".to_owned(), |row| format!("{:.1} ms", row.ms))
            };
            let failed = format!("{:.2} %", request.failure_rate * 100.0);
            vec![code(&request.name), request.sent.to_string(), failed, at(0.5), at(0.95), at(0.99)]
        })
        .collect();
    let _ = writeln!(out, "{}", table(&head, &rows));
    for reason in load.reasons.iter().take(10) {
        let _ = writeln!(out, "- {}", text(&line(reason, 300)));
    }
    if !load.reasons.is_empty() {
        out.push('\n');
    }
}

fn checks(stage: &StageReport, out: &mut String) {
    let Some(checks) = stage.checks() else { return };
    let good = checks.iter().filter(|check| check.passed).count();
    let name = code(&stage.row.node.to_string());
    // The checks before a load test are told of only when they failed.
    if stage.row.kind != "test-api" && good == checks.len() {
        return;
    }
    let _ = writeln!(out, "**API checks {name}: {good} of {} passed**\n", checks.len());
    for check in checks.iter().filter(|check| !check.passed).take(10) {
        let why = check.failures.first().map(String::as_str).unwrap_or_default();
        let _ = writeln!(out, "- {}: {}", text(&line(&check.name, 100)), text(&line(why, 300)));
    }
    if good < checks.len() {
        out.push('\n');
    }
}

fn stages(report: &BuildReport, out: &mut String) {
    let rows: Vec<Vec<String>> = report
        .stages
        .iter()
        .take(200)
        .map(|stage| {
            let took = stage.took().map(duration).unwrap_or_default();
            let remark = match &stage.row.status {
                StageStatus::Reused { from } => format!("from build {}", from.0),
                _ => stage.why().map(|why| text(&line(&why, 150))).unwrap_or_default(),
            };
            vec![code(&stage.row.node.to_string()), stage.row.status.word().to_owned(), took, remark]
        })
        .collect();
    let head = [("stage", Side::Left), ("status", Side::Left), ("took", Side::Right), ("", Side::Left)];
    let _ = writeln!(out, "<details><summary>Stages</summary>\n\n{}\n</details>", table(&head, &rows));
}

/// At a line's end before the limit.
fn cut(mut out: String) -> String {
    if out.len() <= MOST {
        return out;
    }
    let mut at = MOST;
    while !out.is_char_boundary(at) {
        at -= 1;
    }
    at = out[..at].rfind('\n').unwrap_or(at);
    out.truncate(at);
    out.push_str("\n\n… and more: see the build.\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::{failed, promoted};

    #[test]
    fn a_promoted_model() {
        let told =
            of_build(&promoted(), None, "https://ci.example.org/builds/12", Some("https://ci.example.org/plot.svg"));
        insta::assert_snapshot!(told);
    }

    #[test]
    fn a_failed_check_with_hostile_words() {
        let told = of_build(&failed(), None, "https://ci.example.org/builds/13", None);
        assert!(!told.contains("@everyone") && !told.contains("<script"), "{told}");
        insta::assert_snapshot!(told);
    }

    #[test]
    fn it_is_never_too_long() {
        let mut report = failed();
        let stage = |n: usize| {
            let mut stage = failed().stages.remove(0);
            stage.row.node = format!("s{n}").parse().expect("a name");
            stage
        };
        report.stages = (0..2000).map(stage).collect();
        let told = of_build(&report, None, "https://ci.example.org/builds/13", None);
        assert!(told.len() < 61_000 && told.ends_with("see the build.\n"), "{}", told.len());
    }
}
