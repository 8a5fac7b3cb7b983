//! What runs beside a stage: the model API and services. Started before the stage's own work, waited for until ready, gone
//! with the stage. Each has a log of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::attempt::{Attempt, Halt};
use super::begin::runner_failure;
use super::lock::NamedLock;
use super::now;
use super::unit;
use crate::build::status::{CancelReason, FailureKind};
use crate::load::probe::probe;
use crate::logs::{LogReader, LogWriter};
use crate::pipeline::types::Ready;
use crate::runner::spec::{UnitName, UnitSpec};
use crate::runner::{Listener, Output, Runner, TarStream, UnitStatus};

/// First wait between two looks whether it is ready; each further one is longer by half, up to a second.
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// Lines of its log that are shown when it fails.
const LAST_LINES: u64 = 50;
/// And bytes of them.
const LAST_BYTES: usize = 64 << 10;

/// Something that runs beside a stage.
pub struct Companion {
    /// For messages: `the model API`, ``service `db` ``.
    pub what: String,
    /// Its unit.
    pub unit: UnitName,
    /// Where it runs.
    pub runner: Arc<dyn Runner>,
    /// Where this process reaches it, if it has a port.
    pub address: Option<SocketAddr>,
    /// Its log.
    pub log: PathBuf,
    writer: JoinHandle<()>,
    _port: Option<NamedLock>,
}

/// What a companion is started from.
pub struct CompanionSpec {
    /// For messages.
    pub what: String,
    /// Its unit.
    pub unit: UnitSpec,
    /// What lies in its workspace.
    pub workspace: Option<TarStream>,
    /// When it is ready.
    pub ready: Option<Ready>,
    /// Its log.
    pub log: PathBuf,
    /// The right to its port, if that is a fixed one of this host.
    pub lock: Option<NamedLock>,
}

/// Starts it, or takes it up if it runs already, and waits until it is ready.
///
/// # Errors
/// [`Halt`] with its exit code and the end of its log if it ended or did not get ready.
pub async fn start(attempt: &mut Attempt, runner: Arc<dyn Runner>, spec: CompanionSpec) -> Result<Companion, Halt> {
    let name = spec.unit.name.clone();
    let failed = |error: crate::runner::RunnerError| Halt::Failed(runner_failure(&error));
    let (output, again) = match runner.status(&name).await.map_err(failed)? {
        UnitStatus::Absent | UnitStatus::Created => {
            runner.create(&spec.unit, spec.workspace).await.map_err(failed)?;
            (runner.start(&name).await.map_err(failed)?, false)
        }
        UnitStatus::Running => (runner.reattach(&name).await.map_err(failed)?, true),
        UnitStatus::Exited(_) | UnitStatus::Lost => {
            return Err(Halt::Interrupted(format!("{} ended while nobody looked after the build", spec.what)));
        }
    };
    let writer = write_log(attempt, &spec.what, &spec.log, output, again)?;
    let mut companion =
        Companion { what: spec.what, unit: name, runner, address: None, log: spec.log, writer, _port: spec.lock };
    if let Some(port) = spec.unit.port {
        companion.address = Some(companion.runner.address(&companion.unit, port).await.map_err(failed)?);
    }
    if let Some(ready) = spec.ready
        && let Err(halt) = wait_ready(attempt, &companion, &ready).await
    {
        companion.stop().await;
        return Err(halt);
    }
    Ok(companion)
}

fn write_log(
    attempt: &Attempt,
    what: &str,
    log: &Path,
    mut output: Output,
    again: bool,
) -> Result<JoinHandle<()>, Halt> {
    let mask = attempt.cx.build.mask.clone();
    let open = if again { LogWriter::resume } else { LogWriter::create };
    let mut writer = open(log, mask, Some(&attempt.nonce)).map_err(Halt::internal)?;
    let what = what.to_owned();
    Ok(tokio::spawn(async move {
        while let Some(chunk) = output.recv().await {
            let written = match chunk {
                Ok(chunk) => writer.output(chunk.stream.into(), chunk.at, &chunk.bytes).map(|_| ()),
                Err(error) => writer.note(now(), &error.to_string()),
            };
            if let Err(error) = written {
                tracing::warn!(%what, %error, "cannot write the log");
            }
        }
        if let Err(error) = writer.finish(now()) {
            tracing::warn!(%what, %error, "cannot write the log");
        }
    }))
}

async fn wait_ready(attempt: &mut Attempt, companion: &Companion, ready: &Ready) -> Result<(), Halt> {
    let until = Instant::now() + ready.timeout;
    let mut pause = FIRST_LOOK;
    let mut last = "it was not asked yet".to_owned();
    let mut stop = attempt.cx.stop.clone();
    loop {
        if let Some(address) = companion.address {
            let answered = probe(address, ready.path.as_deref()).await;
            // Somebody else's server may answer as well, and would be tested in its place.
            match companion.runner.listener(&companion.unit, address.port()).await {
                Ok(Listener::Stranger(user)) => {
                    let text = format!("did not get port {}, which is used by {user}", address.port());
                    return Err(died(attempt, companion, &text).await);
                }
                Ok(Listener::Nobody) => last = format!("it does not listen on port {}", address.port()),
                Ok(Listener::Unit) => match answered {
                    Ok(()) => return Ok(()),
                    Err(error) => last = error,
                },
                Err(error) => last = error.to_string(),
            }
        }
        let status = companion.runner.status(&companion.unit).await;
        if let Ok(UnitStatus::Exited(exit)) = status {
            return Err(died(attempt, companion, &format!("ended with exit code {}", exit.code)).await);
        }
        if let Ok(UnitStatus::Lost | UnitStatus::Absent) = status {
            return Err(died(attempt, companion, "was killed").await);
        }
        if Instant::now() >= until {
            let limit = crate::words::duration(ready.timeout);
            return Err(died(attempt, companion, &format!("was not ready after {limit}: {last}")).await);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 3 / 2).min(Duration::from_secs(1)),
            stopped = unit::stopped(&mut stop, None) => {
                return Err(Halt::Cancelled(stopped.unwrap_or(CancelReason::Kill)));
            }
        }
    }
}

async fn died(attempt: &mut Attempt, companion: &Companion, how: &str) -> Halt {
    // What it wrote last may still be on its way into its log.
    tokio::time::sleep(Duration::from_millis(100)).await;
    show_end(attempt, companion);
    Halt::failed(FailureKind::Serve, format!("{} {how}", companion.what))
}

/// Writes the end of a companion's log into the stage's own.
pub fn show_end(attempt: &mut Attempt, companion: &Companion) {
    let lines =
        LogReader::open(&companion.log).and_then(|mut log| log.tail(LAST_LINES, LAST_BYTES)).unwrap_or_default();
    if lines.is_empty() {
        attempt.log.note(&format!("{} wrote nothing", companion.what));
        return;
    }
    attempt.log.note(&format!("the last {} lines of {}:", lines.len(), companion.what));
    for line in lines {
        attempt.log.note(&format!("  | {}", line.text));
    }
}

impl Companion {
    /// Removes its unit and waits until its log is whole.
    pub async fn stop(mut self) {
        if let Err(error) = self.runner.remove(&self.unit).await {
            tracing::warn!(unit = %self.unit, %error, "cannot remove a unit");
        }
        // The output ends with the unit; if it does not, the log is not worth waiting for.
        if tokio::time::timeout(Duration::from_secs(5), &mut self.writer).await.is_err() {
            self.writer.abort();
        }
    }
}
