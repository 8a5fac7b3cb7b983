//! `test-api`: the checks, one request each, and then the stage's own script if it has one.

use super::super::attempt::{Attempt, Good, Halt};
use super::super::companion::show_end;
use super::super::serve::{self, Served};
use super::plain;
use crate::build::status::FailureKind;
use crate::load::checks::{CheckResult, run_checks};
use crate::load::probe;
use crate::pipeline::types::TestApi;
use crate::words;

/// Runs it.
///
/// # Errors
/// [`Halt`] if the model API did not get ready, a check failed, or the script did.
pub async fn run(attempt: &mut Attempt, spec: &TestApi) -> Result<Good, Halt> {
    let served = serve::start(attempt).await?;
    let done = with_api(attempt, spec, &served).await;
    served.companion.stop().await;
    done
}

async fn with_api(attempt: &mut Attempt, spec: &TestApi, served: &Served) -> Result<Good, Halt> {
    // After the launch only the script is left to do; the checks' results were stored with it.
    if attempt.launched_at.is_none() {
        let results = check(attempt, spec, served).await?;
        let failed: Vec<&CheckResult> = results.iter().filter(|result| !result.passed).collect();
        if !failed.is_empty() {
            let names: Vec<String> = failed.iter().map(|result| format!("`{}`", result.name)).collect();
            let reason = failed[0].failures.first().map(|why| format!(": {}", crate::report::line(why, 200)));
            let others = if names.len() > 1 { format!("; also {}", names[1..].join(", ")) } else { String::new() };
            let text = format!(
                "{} of {} checks failed: {}{}{others}",
                failed.len(),
                results.len(),
                names[0],
                reason.unwrap_or_default()
            );
            let text = attempt.log.masked(&text);
            show_end(attempt, &served.companion);
            return Err(Halt::failed(FailureKind::Check, text));
        }
    }
    if attempt.cx.node().stage.work.is_none() {
        return Ok(Good::default());
    }
    let manifest = plain::run_work(attempt, vec![("SERVE_URL".to_owned(), served.url.clone())]).await?;
    Ok(Good { outputs: Some(plain::store(attempt, &manifest).await?), ..Good::default() })
}

/// Runs all checks, failed or not, and writes each into the log.
async fn check(attempt: &mut Attempt, spec: &TestApi, served: &Served) -> Result<Vec<CheckResult>, Halt> {
    let results = run_checks(&probe::target(served.address), &spec.checks).await.map_err(Halt::internal)?;
    for result in &results {
        attempt.log.note(&result.render());
    }
    let passed = results.iter().filter(|result| result.passed).count();
    let mut summary = format!("{passed} of {} passed", words::count(results.len(), "check"));
    for result in results.iter().filter(|result| !result.passed) {
        let line = format!("✗ {}: {}", result.name, result.failures.join("; "));
        // Requests and answers are long: whoever reads the end of the log reads the reasons.
        attempt.log.note(&line);
        summary.push_str(&format!("\n{line}"));
    }
    let report = serde_json::json!({ "summary": attempt.log.masked(&summary), "checks": results });
    attempt.reports.insert("checks".to_owned(), report);
    Ok(results)
}
