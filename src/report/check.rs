//! A check run, for GitHub Apps. Source: GitHub REST API, "Create a check run".

use serde_json::{Value, json};

use super::{BuildReport, comment, line};
use crate::build::status::BuildStatus;

/// Annotations in one request at most.
const ANNOTATIONS: usize = 50;

/// A check of a build.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The commit.
    pub commit: String,
    /// Its name at the commit.
    pub name: String,
    /// By which ours is known again.
    pub external_id: String,
    /// The request's body, for making and for changing it.
    pub body: Value,
}

/// The check; none for a build without a commit.
pub fn of_build(report: &BuildReport, awaits: Option<&str>, url: &str) -> Option<Check> {
    let build = &report.build;
    let commit = build.request.commit.clone()?;
    let (status, conclusion) = match build.status {
        BuildStatus::Queued => ("queued", None),
        BuildStatus::Running => ("in_progress", None),
        BuildStatus::Passed => ("completed", Some("success")),
        BuildStatus::Failed => ("completed", Some("failure")),
        BuildStatus::Cancelled { .. } => ("completed", Some("cancelled")),
    };
    let external_id = format!("orchestrator build {}", build.id.0);
    let name = line(&report.context(), 100);
    let mut body = json!({
        "name": name,
        "head_sha": commit,
        "external_id": external_id,
        "details_url": url,
        "status": status,
        "output": {
            "title": line(&report.sentence(awaits), 250),
            "summary": comment::of_build(report, awaits, url, None),
            "annotations": annotations(report),
        },
    });
    if let Some(conclusion) = conclusion {
        body["conclusion"] = conclusion.into();
    }
    Some(Check { commit, name, external_id, body })
}

/// What failed, at the line of the pipeline that asked for it.
fn annotations(report: &BuildReport) -> Vec<Value> {
    let request = &report.build.request;
    let mut found = Vec::new();
    for stage in &report.stages {
        for check in stage.checks().unwrap_or_default().iter().filter(|check| !check.passed) {
            let at =
                line_of(&request.text, &check.name).or_else(|| line_of(&request.text, &format!("{}:", stage.row.node)));
            found.push(json!({
                "path": request.file,
                "start_line": at.unwrap_or(1),
                "end_line": at.unwrap_or(1),
                "annotation_level": "failure",
                "title": line(&format!("{}: {}", stage.row.node, check.name), 250),
                "message": message(check),
            }));
        }
    }
    found.truncate(ANNOTATIONS);
    found
}

fn message(check: &crate::load::checks::CheckResult) -> String {
    let answer = line(&check.body, 500);
    let mut text = check.failures.join("\n");
    if !answer.is_empty() {
        text = format!("{text}\nthe answer: {answer}");
    }
    let text: String = text.chars().filter(|c| !c.is_control() || *c == '\n').take(4000).collect();
    if text.is_empty() { "it failed".to_owned() } else { text }
}

/// The first line that holds this, from 1.
fn line_of(text: &str, wanted: &str) -> Option<usize> {
    text.lines().position(|line| line.contains(wanted)).map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::failed;

    #[test]
    fn failed_checks_are_annotations() {
        let check = of_build(&failed(), None, "https://ci.example.org/builds/13").expect("a commit");
        assert_eq!(
            (check.body["status"].as_str(), check.body["conclusion"].as_str()),
            (Some("completed"), Some("failure"))
        );
        let annotations = &check.body["output"]["annotations"];
        assert_eq!(annotations.as_array().map(Vec::len), Some(1), "{annotations:#}");
        assert_eq!((&annotations[0]["path"], &annotations[0]["start_line"]), (&json!("pipeline.yaml"), &json!(4)));
        assert!(annotations[0]["message"].as_str().is_some_and(|text| text.contains("the status is 500")));
    }
}
