//! A note for people outside GitHub: which events it is about, its words, and its form for each way.

use serde_json::{Value, json};

use super::{BuildReport, line};
use crate::build::status::BuildStatus;

/// Which events a change of a build is, in the words of `notify.<name>.events`. `before` is how the build before it of the same
/// pipeline and branch ended.
pub fn events(report: &BuildReport, changed_to: &str, before: Option<BuildStatus>) -> Vec<&'static str> {
    let mut found = Vec::new();
    match changed_to {
        "awaiting" => found.push("approval"),
        "failed" => found.push("failed"),
        "cancelled" => found.push("cancelled"),
        "passed" => {
            found.push("passed");
            if before == Some(BuildStatus::Failed) {
                found.push("fixed");
            }
        }
        _ => return found,
    }
    if matches!(changed_to, "passed" | "failed") {
        for judged in report.stages.iter().filter_map(super::StageReport::judged) {
            match judged.outcome() {
                "promoted" => found.push("promoted"),
                "rejected" | "inconclusive" | "not promoted" => found.push("refused"),
                _ => {}
            }
        }
    }
    found.dedup();
    found
}

/// A note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// One line.
    pub subject: String,
    /// A few lines.
    pub text: String,
}

/// What is said of a build.
pub fn of_build(report: &BuildReport, event: &str, awaits: Option<&str>, url: &str) -> Note {
    let request = &report.build.request;
    let at = request.branch.as_deref().or(request.tag.as_deref()).unwrap_or("a commit");
    let of = match request.pull_request {
        Some(number) => format!("pull request {number}"),
        None => at.to_owned(),
    };
    let word = match event {
        "approval" => "waits for approval",
        "promoted" => "promoted a model",
        "refused" => "did not promote the model",
        event => event,
    };
    let subject = format!("{}: {} {} {word} ({})", request.project, request.pipeline, report.build.id, line(&of, 100));
    let mut lines = vec![line(&report.sentence(awaits), 300)];
    let commit = request.commit.as_deref().unwrap_or_default();
    let title = request.title.as_deref().map(|title| line(title, 200)).unwrap_or_default();
    lines.push(format!("{} {title} ({})", &commit[..commit.len().min(9)], line(&request.actor, 80)).trim().to_owned());
    for judged in report.stages.iter().filter_map(super::StageReport::judged) {
        lines.push(line(&judged.judgement.reason, 300));
    }
    lines.push(url.to_owned());
    Note { subject: line(&subject, 200), text: lines.join("\n") }
}

/// For a webhook: everything that a program needs, without logs and without secrets.
pub fn for_program(report: &BuildReport, event: &str, note: &Note, url: &str) -> Value {
    let build = &report.build;
    let stages: Vec<Value> = report
        .stages
        .iter()
        .map(|stage| json!({ "stage": stage.row.node, "kind": stage.row.kind, "status": stage.row.status.word(), "reason": stage.why() }))
        .collect();
    let models: Vec<Value> = report
        .stages
        .iter()
        .filter_map(super::StageReport::judged)
        .map(|judged| {
            let of = &judged.judgement;
            json!({ "model": of.model, "candidate": of.candidate, "champion": of.champion, "verdict": of.verdict.word(),
                "outcome": judged.outcome(), "reason": of.reason })
        })
        .collect();
    json!({
        "event": event,
        "subject": note.subject,
        "build": {
            "id": build.id.0, "url": url, "project": build.request.project, "pipeline": build.request.pipeline,
            "status": build.status.word(), "branch": build.request.branch, "tag": build.request.tag,
            "pull_request": build.request.pull_request, "commit": build.request.commit, "actor": build.request.actor,
            "created_at": build.created_at, "started_at": build.started_at, "ended_at": build.ended_at,
        },
        "stages": stages,
        "models": models,
    })
}

/// For a Slack-compatible hook. Source: Slack, "Formatting text for app surfaces": `&`, `<` and `>` are escaped.
pub fn for_slack(note: &Note, url: &str) -> Value {
    let escape = |text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        // Others that take the same form call everybody by a bare `@all`.
        text.replace('@', "@\u{200b}")
    };
    let text: Vec<String> = note.text.lines().filter(|line| *line != url).map(escape).collect();
    json!({ "text": format!("*<{url}|{}>*\n{}", escape(&note.subject).replace('|', "¦"), text.join("\n")) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::{failed, promoted};

    #[test]
    fn which_events() {
        let check = |report: &BuildReport, to: &str, before: Option<BuildStatus>, expected: &[&str]| {
            assert_eq!(events(report, to, before), expected, "{to}");
        };
        check(&promoted(), "passed", Some(BuildStatus::Failed), &["passed", "fixed", "promoted"]);
        check(&promoted(), "passed", Some(BuildStatus::Passed), &["passed", "promoted"]);
        check(&promoted(), "running", None, &[]);
        check(&failed(), "failed", None, &["failed"]);
        check(&failed(), "awaiting", None, &["approval"]);
    }

    #[test]
    fn words() {
        let note = of_build(&failed(), "failed", None, "https://ci.example.org/builds/13");
        assert_eq!(note.subject, "demo: players #13 failed (pull request 7)");
        insta::assert_snapshot!(note.text);
        let slack = for_slack(&note, "https://ci.example.org/builds/13");
        let text = slack["text"].as_str().expect("text");
        assert!(
            text.starts_with("*<https://ci.example.org/builds/13|demo: players #13 failed")
                && !text.contains("<script"),
            "{text}"
        );
    }
}
