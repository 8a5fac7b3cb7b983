//! The main unit of an attempt: made, launched, followed to its end, stopped when it must be.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::attempt::{Attempt, AttemptCx, Halt};
use super::begin::runner_failure;
use super::drive::{Launch, Stop};
use super::lost::taken_away;
use super::notice::{Notice, tell};
use super::now;
use crate::build::status::{CancelReason, Failure, FailureKind, Outcome};
use crate::ids::Micros;
use crate::logs::mask::SHORTEST;
use crate::logs::{LogError, LogWriter, Pipe, Quotes, StepEvent, StepMark};
use crate::pipeline::types::Work;
use crate::runner::spec::UnitSpec;
use crate::runner::{Exit, Output, OutputChunk, Runner, RunnerError, Signal, TarStream, UnitStatus};
use crate::store::attempts::StepRow;

/// How long a lost engine is waited for before the attempt counts as interrupted.
const ENGINE_PATIENCE: Duration = Duration::from_secs(600);
/// Between two tries to reach a lost engine.
const ENGINE_RETRY: Duration = Duration::from_secs(2);

/// The log of an attempt. A write error is kept and told at the end: output goes on being read, so that the script does not
/// hang on a full disk.
pub struct Log {
    /// `None` after the first error, and after the end.
    writer: Option<LogWriter>,
    quotes: Quotes,
    error: Option<LogError>,
}

impl Log {
    /// Opens the log of an attempt, at its end if there is one already.
    ///
    /// # Errors
    /// If the file cannot be made or read.
    pub fn open(cx: &AttemptCx, nonce: &str, again: bool) -> Result<Self, LogError> {
        let path = cx.build.engine.paths.log(cx.build.id, &cx.node().key, cx.attempt);
        let open = if again { LogWriter::resume } else { LogWriter::create };
        let writer = open(&path, cx.build.mask.clone(), Some(nonce))?;
        let mut log = Self { writer: Some(writer), quotes: cx.build.quotes.clone(), error: None };
        if !again {
            let short = |value: &str| value.trim().chars().count() < SHORTEST;
            for (name, _) in cx.build.secrets.pairs().filter(|(_, value)| short(value)) {
                log.note(&format!("secret {name} is shorter than 4 characters and cannot be masked"));
            }
        }
        Ok(log)
    }

    /// Our own line.
    pub fn note(&mut self, text: &str) {
        let text = self.masked(text);
        self.with(|writer| writer.note(now(), &text));
    }

    /// A piece of output; gives the marks of steps in it.
    pub fn output(&mut self, chunk: &OutputChunk) -> Vec<StepMark> {
        self.with(|writer| writer.output(chunk.stream.into(), chunk.at, &chunk.bytes)).unwrap_or_default()
    }

    fn with<T>(&mut self, write: impl FnOnce(&mut LogWriter) -> Result<T, LogError>) -> Option<T> {
        match write(self.writer.as_mut()?) {
            Ok(done) => Some(done),
            Err(error) => {
                self.error.get_or_insert(error);
                self.writer = None;
                None
            }
        }
    }

    /// How it ended, as the log's last line.
    pub fn outcome(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Succeeded => {}
            Outcome::Failed { failure } => self.note(&format!("failed: {failure}")),
            Outcome::Cancelled { reason } => self.note(&format!("cancelled: {reason}")),
            Outcome::Interrupted { detail } => self.note(&format!("interrupted: {detail}")),
        }
    }

    /// Text with all secrets masked.
    pub fn masked(&self, text: &str) -> String {
        self.quotes.text(text)
    }

    /// A report with all secrets masked in its texts.
    pub fn masked_json(&self, value: serde_json::Value) -> serde_json::Value {
        self.quotes.json(value)
    }

    /// The source has ended: writes the last, unfinished lines. Gives the first error of its life.
    ///
    /// # Errors
    /// A write that failed, now or earlier.
    pub fn finish(&mut self) -> Result<(), LogError> {
        let finished = self.writer.take().map(|writer| writer.finish(now()));
        match (self.error.take(), finished) {
            (Some(error), _) | (None, Some(Err(error))) => Err(error),
            (None, Some(Ok(_)) | None) => Ok(()),
        }
    }
}

impl From<crate::runner::Stream> for Pipe {
    fn from(stream: crate::runner::Stream) -> Self {
        match stream {
            crate::runner::Stream::Stdout => Pipe::Stdout,
            crate::runner::Stream::Stderr => Pipe::Stderr,
        }
    }
}

/// Runs the attempt's unit to its end and gives its exit. Goes on with one that runs already.
///
/// # Errors
/// [`Halt`] if it was stopped, took too long, was lost, or could not be started.
pub async fn run(attempt: &mut Attempt, unit: UnitSpec, workspace: Option<TarStream>) -> Result<Exit, Halt> {
    let runner = runner(attempt).await?;
    let output = start(attempt, runner.as_ref(), &unit, workspace).await?;
    let halt = follow(attempt, runner.as_ref(), &unit, output).await?;
    let status = engine_call(attempt, || runner.wait(&unit.name)).await?;
    match (halt, status) {
        (Some(halt), _) => Err(halt),
        (None, UnitStatus::Exited(exit)) => match taken_away(attempt, runner.as_ref(), &unit, &exit).await? {
            Some(detail) => Err(Halt::Interrupted(detail)),
            None => Ok(exit),
        },
        (None, UnitStatus::Lost | UnitStatus::Absent | UnitStatus::Created | UnitStatus::Running) => {
            Err(Halt::Interrupted(format!("`{}` was removed by somebody else and left no exit code", unit.name)))
        }
    }
}

/// The attempt's runner.
///
/// # Errors
/// [`Halt`] if it cannot be reached.
pub async fn runner(attempt: &Attempt) -> Result<Arc<dyn Runner>, Halt> {
    let runners = &attempt.cx.build.engine.runners;
    runners.named(&attempt.runner).await.map_err(|error| Halt::Failed(runner_failure(&error)))
}

async fn start(
    attempt: &mut Attempt,
    runner: &dyn Runner,
    unit: &UnitSpec,
    workspace: Option<TarStream>,
) -> Result<Output, Halt> {
    if attempt.launched_at.is_some() {
        let status = engine_call(attempt, || runner.status(&unit.name)).await?;
        return match status {
            // Killed between the commit and the start: it has not run.
            UnitStatus::Created => started(runner.start(&unit.name).await),
            UnitStatus::Running | UnitStatus::Exited(_) => started(runner.reattach(&unit.name).await),
            UnitStatus::Lost => Err(Halt::Interrupted(format!("`{}` was killed and left no exit code", unit.name))),
            UnitStatus::Absent => Err(Halt::Interrupted(format!("`{}` is no longer there", unit.name))),
        };
    }
    started(runner.create(unit, workspace).await)?;
    launch(attempt).await?;
    started(runner.start(&unit.name).await)
}

fn started<T>(done: Result<T, RunnerError>) -> Result<T, Halt> {
    done.map_err(|error| Halt::Failed(runner_failure(&error)))
}

/// Has the driver commit that the unit is about to be started.
///
/// # Errors
/// [`Halt`] if the build does not go on.
pub async fn launch(attempt: &mut Attempt) -> Result<(), Halt> {
    let (committed, answer) = oneshot::channel();
    let reports = attempt.masked_reports();
    let launch = Launch { node: attempt.cx.node, attempt: attempt.cx.attempt, reports, committed };
    let gone = || Halt::Interrupted("the build's driver has ended".to_owned());
    attempt.cx.launches.send(launch).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?;
    attempt.launched_at = Some(now());
    Ok(())
}

/// What ends the following of a unit early.
enum Cause {
    Chunk(Option<Result<OutputChunk, RunnerError>>),
    Stop(CancelReason),
    TimeLimit,
    GraceOver,
}

async fn follow(
    attempt: &mut Attempt,
    runner: &dyn Runner,
    unit: &UnitSpec,
    mut output: Output,
) -> Result<Option<Halt>, Halt> {
    // What ended before it was looked after again ended in time, or was stopped in time.
    let ended = attempt.again && matches!(runner.status(&unit.name).await, Ok(UnitStatus::Exited(_)));
    let limit = deadline(attempt).filter(|_| !ended);
    let mut halt: Option<Halt> = None;
    let mut grace_over: Option<Instant> = None;
    let mut severity: Option<CancelReason> = None;
    loop {
        let cause = next(attempt, &mut output, severity, limit.filter(|_| halt.is_none()), grace_over).await;
        match cause {
            Cause::Chunk(Some(Ok(chunk))) => {
                let marks = attempt.log.output(&chunk);
                record(attempt, &marks, chunk.at);
            }
            Cause::Chunk(None) => return Ok(halt),
            Cause::Chunk(Some(Err(error))) => {
                tell_waiting(attempt, &error);
                output = again(attempt, runner, unit, &error).await?;
            }
            Cause::Stop(reason) => {
                severity = Some(reason);
                let hard = reason >= CancelReason::Kill;
                grace_over = Some(if hard { Instant::now() } else { Instant::now() + unit.grace });
                halt.get_or_insert(Halt::Cancelled(reason));
                if !hard {
                    signal(attempt, runner, unit, Signal::Term).await;
                }
            }
            Cause::TimeLimit => {
                let text = format!("took longer than {}", crate::words::duration(attempt.cx.node().stage.timeout));
                attempt.log.note(&format!("{text}: stopping it"));
                halt = Some(Halt::failed(FailureKind::Timeout, text));
                grace_over = Some(Instant::now() + unit.grace);
                signal(attempt, runner, unit, Signal::Term).await;
            }
            Cause::GraceOver => {
                grace_over = None;
                signal(attempt, runner, unit, Signal::Kill).await;
            }
        }
    }
}

/// Waits for whatever comes first. A stop is looked at before output, so that a chatty script can be stopped.
async fn next(
    attempt: &mut Attempt,
    output: &mut Output,
    severity: Option<CancelReason>,
    limit: Option<Instant>,
    grace_over: Option<Instant>,
) -> Cause {
    let never = Instant::now() + Duration::from_secs(86_400 * 365);
    tokio::select! {
        biased;
        stopped = stopped(&mut attempt.cx.stop, severity) => match stopped {
            Some(reason) => Cause::Stop(reason),
            // The driver is gone: nobody is left to stop it for.
            None => Cause::Chunk(output.recv().await),
        },
        () = sleep_until(grace_over.unwrap_or(never)), if grace_over.is_some() => Cause::GraceOver,
        () = sleep_until(limit.unwrap_or(never)), if limit.is_some() => Cause::TimeLimit,
        chunk = output.recv() => Cause::Chunk(chunk),
    }
}

/// A stop that is more severe than what is known; `None` if nobody can ask any more.
pub async fn stopped(stop: &mut watch::Receiver<Stop>, known: Stop) -> Stop {
    stop.wait_for(|now| *now > known).await.ok().and_then(|now| *now)
}

/// When the time limit is over; it counts from the launch, also across a restart.
fn deadline(attempt: &Attempt) -> Option<Instant> {
    let launched = attempt.launched_at?;
    let left = attempt.cx.node().stage.timeout.saturating_sub(now().since(launched));
    Instant::now().checked_add(left)
}

async fn signal(attempt: &mut Attempt, runner: &dyn Runner, unit: &UnitSpec, signal: Signal) {
    if let Err(error) = runner.signal(&unit.name, signal).await {
        attempt.log.note(&format!("cannot signal it: {error}"));
    }
}

fn tell_waiting(attempt: &Attempt, error: &RunnerError) {
    if matches!(error, RunnerError::Unreachable { .. }) {
        attempt.engine_lost.store(true, Ordering::Relaxed);
    }
    let text = attempt.log.masked(&format!("{}: {error}; waiting for it", attempt.cx.node().key));
    tell(&attempt.cx.build.notices, Notice::Waiting { text });
}

/// The engine went away under a running unit: wait for it, and read on.
async fn again(
    attempt: &mut Attempt,
    runner: &dyn Runner,
    unit: &UnitSpec,
    error: &RunnerError,
) -> Result<Output, Halt> {
    if !matches!(error, RunnerError::Unreachable { .. }) {
        return Err(Halt::Failed(runner_failure(error)));
    }
    engine_call(attempt, || runner.status(&unit.name)).await?;
    // Not finished: the source goes on, and is read again from its first byte.
    attempt.log = Log::open(&attempt.cx, &attempt.nonce, true).map_err(Halt::internal)?;
    attempt.steps.clear();
    started(runner.reattach(&unit.name).await)
}

/// A call to the runner that waits while the engine cannot be reached.
///
/// # Errors
/// [`Halt`] if it stays away, the build is killed, or the call fails otherwise.
pub(super) async fn engine_call<T, F>(attempt: &Attempt, mut call: impl FnMut() -> F) -> Result<T, Halt>
where
    F: Future<Output = Result<T, RunnerError>>,
{
    let until = Instant::now() + ENGINE_PATIENCE;
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(error @ RunnerError::Unreachable { .. }) => {
                if Instant::now() >= until {
                    return Err(Halt::Interrupted(error.to_string()));
                }
                tell_waiting(attempt, &error);
                let mut stop = attempt.cx.stop.clone();
                // A kill is not waited out.
                let killed = stop.wait_for(|now| *now >= Some(CancelReason::Kill));
                if let Ok(Ok(_)) = timeout(ENGINE_RETRY, killed).await {
                    return Err(Halt::Cancelled(CancelReason::Kill));
                }
            }
            Err(error) => return Err(Halt::Failed(runner_failure(&error))),
        }
    }
}

fn record(attempt: &mut Attempt, marks: &[StepMark], at: Micros) {
    for mark in marks {
        match mark.event {
            StepEvent::Begin => {
                let name = step_name(attempt, mark.step);
                attempt.steps.push(StepRow { name, started_at: at, ended_at: None, code: None });
            }
            StepEvent::End { code } => {
                if let Some(step) = attempt.steps.last_mut() {
                    step.ended_at = Some(at);
                    step.code = Some(code);
                }
            }
        }
    }
}

fn step_name(attempt: &Attempt, step: u32) -> String {
    match &attempt.cx.node().stage.work {
        Some(Work::Run { steps, .. }) => steps.get(step as usize).map(|step| step.name.clone()),
        Some(Work::Command(_)) | None => None,
    }
    .unwrap_or_else(|| format!("step {}", step + 1))
}

/// An exit as a failure, unless it is 0.
///
/// # Errors
/// [`Halt::Failed`] with the reason in words.
pub fn check(attempt: &Attempt, exit: &Exit) -> Result<(), Halt> {
    if exit.out_of_memory {
        let limit = attempt.cx.node().stage.resources.memory_bytes;
        let limit =
            limit.map_or("the host's memory".to_owned(), |bytes| format!("limit {}", crate::words::size(bytes)));
        return Err(Halt::Failed(Failure {
            kind: FailureKind::OutOfMemory,
            message: format!("out of memory: {limit}"),
            code: Some(exit.code),
        }));
    }
    if exit.code == 0 {
        return Ok(());
    }
    let place = failed_step(attempt).unwrap_or_default();
    let message = format!("{place}ended with exit code {}{}", exit.code, hint(exit.code));
    Err(Halt::Failed(Failure { kind: FailureKind::Exit, message, code: Some(exit.code) }))
}

/// The step that failed, as the beginning of a sentence. A script without a name of its own is called by its first line, which
/// need not be the one that failed.
fn failed_step(attempt: &Attempt) -> Option<String> {
    let at = attempt.steps.iter().position(|step| step.code.is_some_and(|code| code != 0))?;
    let name = &attempt.steps[at].name;
    let script = match &attempt.cx.node().stage.work {
        Some(Work::Run { steps, .. }) => steps.get(at).map(|step| step.script.trim()),
        Some(Work::Command(_)) | None => None,
    };
    let unnamed = script.filter(|script| script.lines().any(|line| line.trim().chars().take(80).eq(name.chars())));
    let lines = unnamed.map_or(1, |script| script.lines().filter(|line| !line.trim().is_empty()).count());
    Some(match lines {
        0 | 1 => format!("step `{name}` "),
        lines => format!("the script ({lines} lines, from `{name}`) "),
    })
}

/// What the well-known codes mean.
fn hint(code: i64) -> &'static str {
    match code {
        126 => " (found, but it cannot be executed)",
        127 => " (command not found)",
        137 => " (killed by SIGKILL)",
        139 => " (crashed: segmentation fault)",
        143 => " (ended by SIGTERM)",
        _ => "",
    }
}
