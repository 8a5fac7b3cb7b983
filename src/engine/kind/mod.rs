//! What a stage does beyond running a script: one file a kind.

mod loadtest;
pub mod plain;
mod promote;
mod test_api;
mod train;

use super::attempt::{Attempt, Good, Halt};
use crate::build::status::FailureKind;
use crate::pipeline::types::Kind;

/// Runs a stage by its kind.
///
/// # Errors
/// [`Halt`] if it did not end well.
pub async fn run(attempt: &mut Attempt) -> Result<Good, Halt> {
    let kind = attempt.cx.node().stage.kind.clone();
    match kind {
        Kind::Plain => plain::run(attempt).await,
        Kind::Train(train) => train::run(attempt, &train).await,
        Kind::TestApi(spec) => test_api::run(attempt, &spec).await,
        Kind::Loadtest(spec) => loadtest::run(attempt, &spec).await,
        Kind::Promote(spec) => promote::run(attempt, &spec).await,
        Kind::Tune(_) => {
            Err(Halt::failed(FailureKind::Unsupported, "`tune` is checked and planned; this version cannot run it yet"))
        }
    }
}
