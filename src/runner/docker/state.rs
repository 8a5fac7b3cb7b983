//! What containers are doing, and making them end.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum};
use bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::create::LABEL_GIVEN;
use super::{DockerRunner, fault};
use crate::ids::Micros;
use crate::runner::spec::{LABEL_INSTANCE, UnitName};
use crate::runner::{Exit, FoundUnit, RunnerError, Signal, UnitStatus};

/// How long a removal that someone else began may take.
const REMOVAL: Duration = Duration::from_secs(60);

/// Between two looks at it.
const REMOVAL_LOOK: Duration = Duration::from_millis(50);

/// The engine's rule for names, which keeps them out of the rest of the API's paths.
pub(super) fn check_name(name: &UnitName) -> Result<(), RunnerError> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let good = name.0.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && name.0.bytes().all(inner);
    if good { Ok(()) } else { Err(fault::other(format!("`{name}` is not a valid name of a container"))) }
}

/// All that the engine knows of a container.
pub(super) async fn inspect(runner: &DockerRunner, name: &UnitName) -> Result<ContainerInspectResponse, RunnerError> {
    check_name(name)?;
    runner.docker.inspect_container(&name.0, None).await.map_err(|error| {
        if fault::is_absent(&error) {
            RunnerError::Absent(name.clone())
        } else {
            runner.fault(&format!("look at `{name}`"), &error)
        }
    })
}

/// See [`crate::runner::Runner::status`].
pub(super) async fn status(runner: &DockerRunner, name: &UnitName) -> Result<UnitStatus, RunnerError> {
    match inspect(runner, name).await {
        Ok(found) => Ok(of(&found)),
        Err(RunnerError::Absent(_)) => Ok(UnitStatus::Absent),
        Err(error) => Err(error),
    }
}

/// The status that the engine's words mean.
pub(super) fn of(found: &ContainerInspectResponse) -> UnitStatus {
    found.state.as_ref().map_or(UnitStatus::Lost, of_state)
}

fn of_state(state: &ContainerState) -> UnitStatus {
    use ContainerStateStatusEnum as Word;
    let started = state.started_at.as_deref().and_then(moment).is_some();
    match state.status {
        // A start that failed leaves it as made; one that is past its start cannot be `created` again.
        Some(Word::CREATED) if started => UnitStatus::Lost,
        Some(Word::CREATED) => UnitStatus::Created,
        Some(Word::RUNNING | Word::PAUSED | Word::RESTARTING | Word::STOPPING) => UnitStatus::Running,
        Some(Word::EXITED) => UnitStatus::Exited(exit(state)),
        Some(Word::DEAD | Word::REMOVING | Word::EMPTY) | None => UnitStatus::Lost,
    }
}

fn exit(state: &ContainerState) -> Exit {
    Exit {
        code: state.exit_code.unwrap_or(-1),
        out_of_memory: state.oom_killed.unwrap_or(false),
        at: state.finished_at.as_deref().and_then(moment).unwrap_or_else(now),
    }
}

/// The engine's time; its zero (year 1) means never.
pub(super) fn moment(text: &str) -> Option<Micros> {
    let stamp: jiff::Timestamp = text.parse().ok()?;
    (stamp.as_second() > 0).then(|| Micros(stamp.as_microsecond()))
}

/// This machine's time.
pub(super) fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Returns when the container is not running any more (at once if it never was).
pub(super) async fn ended(runner: &DockerRunner, name: &UnitName) -> Result<(), RunnerError> {
    let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
    let mut answers = Box::pin(runner.patient().wait_container(&name.0, Some(options)));
    match answers.next().await {
        // bollard makes an error of each exit code but 0.
        Some(Ok(_) | Err(bollard::errors::Error::DockerContainerWaitError { .. })) => Ok(()),
        Some(Err(error)) if fault::is_absent(&error) => Err(RunnerError::Absent(name.clone())),
        Some(Err(error)) => Err(runner.fault(&format!("wait for `{name}`"), &error)),
        None => Err(fault::unreachable_engine(format!("the engine at {} broke off while `{name}` ran", runner.host))),
    }
}

/// See [`crate::runner::Runner::wait`].
pub(super) async fn wait(runner: &DockerRunner, name: &UnitName) -> Result<UnitStatus, RunnerError> {
    // Nearly always it has ended, since its output has: then there is nothing to wait for.
    match status(runner, name).await? {
        UnitStatus::Running | UnitStatus::Created => {}
        ended @ (UnitStatus::Absent | UnitStatus::Exited(_) | UnitStatus::Lost) => return Ok(ended),
    }
    match ended(runner, name).await {
        Ok(()) => status(runner, name).await,
        Err(RunnerError::Absent(_)) => Ok(UnitStatus::Absent),
        Err(error) => Err(error),
    }
}

/// See [`crate::runner::Runner::signal`].
pub(super) async fn signal(runner: &DockerRunner, name: &UnitName, signal: Signal) -> Result<(), RunnerError> {
    check_name(name)?;
    let word = match signal {
        Signal::Term => "SIGTERM",
        Signal::Kill => "SIGKILL",
    };
    let options = KillContainerOptionsBuilder::new().signal(word).build();
    match runner.docker.kill_container(&name.0, Some(options)).await {
        Ok(()) => Ok(()),
        Err(error) if fault::is_absent(&error) => Err(RunnerError::Absent(name.clone())),
        // 409: it is not running. Engines differ in the number, so the text is looked at as well.
        Err(error) => match fault::answer(&error) {
            Some((409, _)) => Ok(()),
            Some((_, text)) if text.contains("is not running") => Ok(()),
            Some(_) | None => Err(runner.fault(&format!("send {word} to `{name}`"), &error)),
        },
    }
}

/// See [`crate::runner::Runner::remove`].
pub(super) async fn remove(runner: &DockerRunner, name: &UnitName) -> Result<(), RunnerError> {
    check_name(name)?;
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    let Err(error) = runner.docker.remove_container(&name.0, Some(options)).await else { return Ok(()) };
    match fault::answer(&error) {
        Some((404, _)) => Ok(()),
        Some((409, text)) if text.contains("already in progress") => removed_by_other(runner, name).await,
        Some(_) | None => Err(runner.fault(&format!("remove `{name}`"), &error)),
    }
}

/// Waits for a removal that someone else began: the engine has no call that would wait for it.
async fn removed_by_other(runner: &DockerRunner, name: &UnitName) -> Result<(), RunnerError> {
    let gone = async {
        loop {
            match inspect(runner, name).await {
                Err(RunnerError::Absent(_)) => return Ok(()),
                Err(error) => return Err(error),
                Ok(_) => tokio::time::sleep(REMOVAL_LOOK).await,
            }
        }
    };
    let late = || fault::other(format!("`{name}` is being removed for {} s and is still there", REMOVAL.as_secs()));
    tokio::time::timeout(REMOVAL, gone).await.unwrap_or_else(|_| Err(late()))
}

/// See [`crate::runner::Runner::list`].
pub(super) async fn list(runner: &DockerRunner) -> Result<Vec<FoundUnit>, RunnerError> {
    let label = format!("{LABEL_INSTANCE}={}", runner.settings.instance);
    let options =
        ListContainersOptionsBuilder::new().all(true).filters(&HashMap::from([("label", vec![label])])).build();
    let found = runner.docker.list_containers(Some(options)).await;
    let found = found.map_err(|error| runner.fault("list the containers", &error))?;
    let mut units = Vec::with_capacity(found.len());
    for container in found {
        let Some(name) = container.names.iter().flatten().next() else { continue };
        let name = UnitName(name.trim_start_matches('/').to_owned());
        // The list says nothing of exit codes.
        let status = status(runner, &name).await?;
        if status != UnitStatus::Absent {
            units.push(FoundUnit { name, labels: given(container.labels.unwrap_or_default()), status });
        }
    }
    units.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(units)
}

/// The labels that the unit was given, without those that its image has.
fn given(mut all: HashMap<String, String>) -> BTreeMap<String, String> {
    let names = all.remove(LABEL_GIVEN).unwrap_or_default();
    names.split(',').filter_map(|name| all.remove_entry(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(word: ContainerStateStatusEnum, started: &str) -> ContainerState {
        ContainerState {
            status: Some(word),
            started_at: Some(started.to_owned()),
            finished_at: Some("1970-01-01T00:00:02.000003999Z".to_owned()),
            exit_code: Some(137),
            oom_killed: Some(true),
            ..ContainerState::default()
        }
    }

    #[test]
    fn statuses() {
        use ContainerStateStatusEnum as Word;
        let (never, once) = ("0001-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z");
        let exit = Exit { code: 137, out_of_memory: true, at: Micros(2_000_003) };
        let check = |word, started, expected| assert_eq!(of_state(&state(word, started)), expected, "{word:?}");
        check(Word::CREATED, never, UnitStatus::Created);
        check(Word::CREATED, once, UnitStatus::Lost);
        check(Word::RUNNING, once, UnitStatus::Running);
        check(Word::RESTARTING, once, UnitStatus::Running);
        check(Word::EXITED, once, UnitStatus::Exited(exit));
        check(Word::DEAD, once, UnitStatus::Lost);
        check(Word::REMOVING, once, UnitStatus::Lost);
    }

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        for name in ["", "../x", "a/b", "a?b", "a#", "-a", "a b"] {
            assert!(check_name(&UnitName(name.to_owned())).is_err(), "{name:?}");
        }
        assert!(check_name(&UnitName("orc-1_b.2".to_owned())).is_ok());
    }
}
