//! What came and could not be built: what it was, who made it, when, and why not. PURE.

use serde_json::Value;

use super::line::short;
use super::moment::Moment;
use crate::daemon::subject::Subject;
use crate::ids::Micros;
use crate::store::triggers::TriggerRow;

/// Something that started no build.
#[derive(Debug)]
pub struct Refused {
    /// What came, in words.
    pub what: String,
    /// The webhook call that told of it.
    pub delivery: Option<u64>,
    /// When.
    pub at: Moment,
    /// Why not.
    pub reason: String,
}

impl Refused {
    /// A trigger that started nothing.
    pub fn of(row: &TriggerRow, now: Micros) -> Self {
        Self {
            what: what(&row.subject, row.identity.as_deref()),
            delivery: row.delivery,
            at: Moment::of(row.received_at, now),
            reason: row.reason.clone(),
        }
    }
}

/// What came, in words: `a push to main (0123456)`.
pub fn what(subject: &Value, identity: Option<&str>) -> String {
    match serde_json::from_value(subject.clone()) {
        Ok(Subject::Head { git_ref, commit, .. }) => format!("{} at {}", of_ref(&git_ref), short(Some(&commit))),
        Ok(Subject::Schedule { branch, .. }) => format!("the schedule of {branch}"),
        Ok(Subject::Manual(asked)) => format!("a start by {}", asked.actor),
        // Of a webhook call only what was acted upon is kept here; its body says the rest.
        Err(_) => identity.map_or_else(|| "a webhook call".to_owned(), of_identity),
    }
}

/// A ref as people call it.
fn of_ref(git_ref: &str) -> String {
    match git_ref.split_once("refs/").map_or(git_ref, |(_, name)| name).split_once('/') {
        Some(("heads", branch)) => format!("a push to {branch}"),
        Some(("tags", tag)) => format!("the tag {tag}"),
        Some(("pull", rest)) => format!("pull request {}", rest.split('/').next().unwrap_or_default()),
        Some(_) | None => git_ref.to_owned(),
    }
}

/// Event, ref and commit, as a trigger is identified.
fn of_identity(identity: &str) -> String {
    let words: Vec<&str> = identity.split_whitespace().collect();
    match words[..] {
        [_, git_ref, commit] => format!("{} at {}", of_ref(git_ref), short(Some(commit))),
        _ => "a webhook call".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_came_in_words() {
        let check = |subject: Value, identity, expected: &str| assert_eq!(what(&subject, identity), expected);
        let head =
            |git_ref: &str| json!({ "kind": "head", "git_ref": git_ref, "commit": "0123456789abcdef", "before": null });
        check(head("refs/heads/feature/x"), None, "a push to feature/x at 012345678");
        check(head("refs/tags/v1"), None, "the tag v1 at 012345678");
        check(Value::Null, Some("pull_request refs/pull/7/head 0123456789abcdef"), "pull request 7 at 012345678");
        check(Value::Null, None, "a webhook call");
        check(json!({ "kind": "manual", "actor": "ann" }), None, "a start by ann");
    }
}
