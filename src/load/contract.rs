//! The contract check: one request of each kind must pass before load starts.
//!
//! A load test of a broken contract only counts error pages: thousands of failures that one request would have shown.

use std::time::Duration;

use crate::load::checks::{CheckResult, SingleRequest, try_once};
use crate::load::plan::{JsonLines, PlanError, lines_of};
use crate::load::target::{Endpoint, Target};
use crate::pipeline::types::{Expect, ScenarioItem};

/// Tries each kind once, in order, failed or not. Latency limits are left to the load test: a first request is slow.
///
/// # Errors
/// [`PlanError`] if a request takes its body from a file that was not loaded.
pub async fn check_contract(
    target: &Target,
    endpoint: &Endpoint,
    contract: Contract<'_>,
) -> Result<Vec<CheckResult>, PlanError> {
    let mut results = Vec::with_capacity(contract.scenario.len());
    for item in contract.scenario {
        let expect = Expect { latency: None, ..item.expect.clone() };
        let single = SingleRequest {
            name: &item.name,
            request: &item.request,
            body: lines_of(contract.json_lines, item)?.first(),
            expect: &expect,
            timeout: contract.timeout,
        };
        results.push(try_once(target, endpoint, single).await);
    }
    Ok(results)
}

/// What the contract is.
#[derive(Debug, Clone, Copy)]
pub struct Contract<'a> {
    /// The kinds of request.
    pub scenario: &'a [ScenarioItem],
    /// Bodies by file.
    pub json_lines: &'a JsonLines,
    /// For each answer.
    pub timeout: Duration,
}

/// Why a load test does not start, with the first failing answer; `None` if all passed.
pub fn broken_contract(results: &[CheckResult]) -> Option<String> {
    let failed: Vec<&CheckResult> = results.iter().filter(|result| !result.passed).collect();
    let first = failed.first()?;
    let others = match failed.len() {
        1 => String::new(),
        count => format!(" ({} of {} kinds fail)", count, results.len()),
    };
    Some(format!(
        "no load was started: one request of each kind must pass first, and `{}` does not{others}\n{}",
        first.name,
        first.render().trim_end()
    ))
}
