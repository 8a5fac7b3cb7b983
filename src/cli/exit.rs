//! Exit codes. Scripts rely on them: a code never changes its meaning.

use crate::client::ClientError;
use crate::engine::EngineError;
use crate::runner::RunnerError;

/// Everything asked for was done, and well.
pub const PASSED: i32 = 0;
/// A build, check or load test failed, or something broke.
pub const FAILED: i32 = 1;
/// The command line is wrong.
pub const USAGE: i32 = 2;
/// A pipeline is not valid.
pub const INVALID_PIPELINE: i32 = 3;
/// The container engine cannot be reached.
pub const ENGINE: i32 = 4;
/// The server cannot be reached, or failed.
pub const SERVER: i32 = 5;
/// The server does not let us: no token, a wrong one, or one that does not allow this.
pub const DENIED: i32 = 6;
/// Cancelled by SIGINT or SIGTERM.
pub const CANCELLED: i32 = 130;

/// The pipeline file was read and is not valid; what is wrong was printed already.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not a valid pipeline")]
pub struct InvalidPipeline(pub String);

/// A wrong argument that only became clear after reading the pipeline.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The code for an error.
pub fn of_error(error: &anyhow::Error) -> i32 {
    if error.downcast_ref::<InvalidPipeline>().is_some() {
        return INVALID_PIPELINE;
    }
    if error.downcast_ref::<Usage>().is_some() {
        return USAGE;
    }
    if let Some(error) = error.downcast_ref::<ClientError>() {
        return of_client(error);
    }
    let runner = error.downcast_ref::<RunnerError>().or(match error.downcast_ref::<EngineError>() {
        Some(EngineError::Runner(error)) => Some(error),
        Some(_) | None => None,
    });
    match runner {
        Some(RunnerError::Unreachable { .. }) => ENGINE,
        Some(_) | None => FAILED,
    }
}

fn of_client(error: &ClientError) -> i32 {
    match error {
        ClientError::Address(_) => USAGE,
        ClientError::Unreachable { .. } | ClientError::Strange { .. } => SERVER,
        ClientError::Refused(refusal) => match refusal.status {
            400 => USAGE,
            401 | 403 | 429 => DENIED,
            500.. => SERVER,
            _ => FAILED,
        },
    }
}
