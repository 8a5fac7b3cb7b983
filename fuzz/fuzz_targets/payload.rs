//! Any bytes as the body of a webhook: no panic, and either a decision or a reason why there is none.
//!
//! The first byte chooses the event, the second the content type. `cargo +nightly fuzz run payload`, with the payloads of
//! `tests/fixtures/github-webhooks` as seeds: `scripts/payload-corpus.sh` makes them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use orchestrator::trigger::decide::{DraftPolicy, ForkPolicy, ProjectPolicy, first};
use orchestrator::trigger::github::{Delivery, parse};

const EVENTS: [&str; 8] =
    ["push", "pull_request", "release", "ping", "check_run", "create", "workflow_dispatch", "anything else"];

fuzz_target!(|bytes: &[u8]| {
    let [event, form, body @ ..] = bytes else { return };
    let event = EVENTS[*event as usize % EVENTS.len()];
    let content_type = if form % 2 == 0 { "application/json" } else { "application/x-www-form-urlencoded" };
    let policy = ProjectPolicy {
        name: "demo".to_owned(),
        repository_id: Some(186_853_002),
        full_name: "Codertocat/Hello-World".to_owned(),
        default_branch: "master".to_owned(),
        branches: vec!["*".to_owned()],
        fork_builds: ForkPolicy::Approve,
        draft_builds: DraftPolicy::Build,
    };
    match parse(&Delivery { event, content_type: Some(content_type), body }) {
        Ok(received) => drop(first(&received, &policy)),
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
});
