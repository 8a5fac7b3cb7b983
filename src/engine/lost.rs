//! Whether a container ended because its engine was stopped, or its machine restarted, and not by itself: then its work is done
//! again instead of being called a failure.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::attempt::{Attempt, Halt};
use super::unit::engine_call;
use crate::ids::Micros;
use crate::runner::spec::UnitSpec;
use crate::runner::{Exit, Runner, RunnerError};

/// The codes of containers that an engine stops (SIGTERM, then SIGKILL), or finds dead when it starts (Docker's 255).
const TAKEN: [i64; 3] = [143, 137, 255];
/// An engine that is being stopped stops its containers first, and is gone a moment later.
const MOMENT: Duration = Duration::from_secs(2);

/// Why the work counts as interrupted; `None` if the exit is the unit's own. Waits until a lost engine is back.
///
/// # Errors
/// [`Halt`] if it does not come back in time, or the build is killed meanwhile.
pub async fn taken_away(
    attempt: &Attempt,
    runner: &dyn Runner,
    unit: &UnitSpec,
    exit: &Exit,
) -> Result<Option<String>, Halt> {
    if attempt.runner != "docker" || exit.out_of_memory || !TAKEN.contains(&exit.code) {
        return Ok(None);
    }
    if attempt.launched_at.zip(booted_at()).is_some_and(|(launched, booted)| launched < booted) {
        return Ok(Some("the machine was restarted under it".to_owned()));
    }
    if !attempt.engine_lost.load(Ordering::Relaxed) {
        tokio::time::sleep(MOMENT).await;
        if !matches!(runner.status(&unit.name).await, Err(RunnerError::Unreachable { .. })) {
            return Ok(None);
        }
    }
    engine_call(attempt, || runner.status(&unit.name)).await?;
    Ok(Some("the container engine was stopped under it".to_owned()))
}

/// When this machine was started, by its own clock; `None` if it does not say.
fn booted_at() -> Option<Micros> {
    booted(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// The line `btime` of `/proc/stat` (proc_stat(5)): seconds since the epoch.
fn booted(stat: &str) -> Option<Micros> {
    let seconds: i64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    seconds.checked_mul(1_000_000).map(Micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_the_machine() {
        assert_eq!(booted("cpu 1 2 3\nbtime 1700000000\nprocesses 4\n"), Some(Micros(1_700_000_000_000_000)));
        assert_eq!(booted("cpu 1 2 3\n"), None);
        assert_eq!(booted("btime soon\n"), None);
        assert!(booted_at().is_some_and(|at| at < crate::engine::now()));
    }
}
