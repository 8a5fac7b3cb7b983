//! A commit status. Source: GitHub REST API, "Create a commit status".

use serde_json::{Value, json};

use super::{BuildReport, line};
use crate::build::status::BuildStatus;

/// Characters of a description at most; GitHub refuses longer ones.
const DESCRIPTION: usize = 140;

/// The body of the request, and the commit that it is about; none for a build without a commit.
pub fn of_build(report: &BuildReport, awaits: Option<&str>, url: &str) -> Option<(String, Value)> {
    let commit = report.build.request.commit.clone()?;
    let state = match report.build.status {
        BuildStatus::Queued | BuildStatus::Running => "pending",
        BuildStatus::Passed => "success",
        BuildStatus::Failed => "failure",
        BuildStatus::Cancelled { .. } => "error",
    };
    let description = format!("{} {}", report.build.id, report.sentence(awaits));
    Some((commit, body(state, &description, &report.context(), Some(url))))
}

/// The status of a commit whose pipelines cannot be built.
pub fn of_trouble(reason: &str) -> Value {
    body("error", reason, "orchestrator", None)
}

fn body(state: &str, description: &str, context: &str, url: Option<&str>) -> Value {
    let mut body =
        json!({ "state": state, "description": line(description, DESCRIPTION), "context": line(context, 100) });
    if let Some(url) = url {
        body["target_url"] = url.into();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::{failed, promoted};

    #[test]
    fn a_status_says_why() {
        let (commit, body) = of_build(&promoted(), None, "https://ci.example.org/builds/12").expect("a commit");
        assert_eq!(commit, "0123456789abcdef0123456789abcdef01234567");
        assert_eq!(
            body,
            json!({ "state": "success", "description": "#12 passed in 1 m 05 s · players v3 promoted",
                "context": "orchestrator/players", "target_url": "https://ci.example.org/builds/12" })
        );
        let (_, body) = of_build(&failed(), None, "https://ci.example.org/builds/13").expect("a commit");
        assert_eq!(body["state"], "failure");
        assert_eq!(body["context"], "orchestrator/players (pull request)");
        let text = body["description"].as_str().expect("text");
        assert!(text.starts_with("#13 test-api failed: 1 of 2 checks failed") && text.chars().count() == 140, "{text}");
    }
}
