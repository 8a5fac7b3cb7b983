//! A unit's output: live by attach, and again from the container's own log.
//!
//! ```text
//! start:    attach -> start -> pieces ... end     -> (wait says it ended) -> closed
//!                                \ reader too slow -> the log, from the place that was reached
//! reattach: log with follow ... end -> anything behind the last entry? -> the log again from there -> closed
//! ```
//!
//! Attach must never stand still: an engine whose attached reader is more than 1 MiB behind holds the container's lock
//! (even `inspect` hangs), and if the container ends then, it gives the reader 2 s and throws the rest away, in its
//! log too. So a slow reader is moved over to the log, where it can take all the time it wants.
//!
//! The log gives the same lines as attach, but bytes that are not UTF-8 come as U+FFFD; see [`super::position`].

use std::collections::VecDeque;
use std::time::Duration;

use bollard::container::{AttachContainerResults, LogOutput};
use bollard::query_parameters::{AttachContainerOptionsBuilder, LogsOptionsBuilder};
use bytes::{Buf, Bytes};
use futures_util::{Stream as FutureStream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::position::Positions;
use super::{DockerRunner, fault, state};
use crate::ids::Micros;
use crate::runner::spec::UnitName;
use crate::runner::{Output, OutputChunk, RunnerError, Stream, UnitStatus};

/// Pieces that wait for the reader. The engine cuts them at 32 KiB, so this is at most 2 MiB for each unit.
const WAITING: usize = 64;

/// How long the reader may let a full channel stand before it is moved to the log. Well below the engine's 2 s.
const SLOW: Duration = Duration::from_millis(500);

/// Entries of a log that are asked for where only the newest are wanted.
const LAST_ENTRIES: &str = "50000";

/// How the engine writes the time before each entry of a log: always UTC, always nanoseconds, then a space.
const STAMP: usize = "2006-01-02T15:04:05.000000000Z ".len();

/// See [`crate::runner::Runner::start`].
pub(super) async fn start(runner: &DockerRunner, name: &UnitName) -> Result<Output, RunnerError> {
    let found = state::inspect(runner, name).await?;
    if state::of(&found) != UnitStatus::Created {
        return Err(RunnerError::AlreadyStarted(name.clone()));
    }
    // Not `logs`: what is printed between start and the reading of the log would come twice. The engine has its pipes
    // laid before it answers, so nothing is missed without it.
    let options = AttachContainerOptionsBuilder::new().stream(true).stdout(true).stderr(true).build();
    let attached = runner.docker.attach_container(&name.0, Some(options)).await;
    let attached = attached.map_err(|error| runner.fault(&format!("attach to `{name}`"), &error))?;
    runner.docker.start_container(&name.0, None).await.map_err(|error| start_error(runner, name, &error))?;
    let (pieces, output) = mpsc::channel(WAITING);
    let pump = Pump { runner: runner.clone(), name: name.clone(), pieces, delivered: Positions::default() };
    runner.tasks.spawn(pump.live(attached));
    Ok(output)
}

/// See [`crate::runner::Runner::reattach`].
pub(super) async fn reattach(runner: &DockerRunner, name: &UnitName) -> Result<Output, RunnerError> {
    let status = state::of(&state::inspect(runner, name).await?);
    if status == UnitStatus::Created {
        return Err(fault::other(format!("`{name}` has not been started, so it has no output")));
    }
    let (pieces, output) = mpsc::channel(WAITING);
    let pump = Pump { runner: runner.clone(), name: name.clone(), pieces, delivered: Positions::default() };
    runner.tasks.spawn(pump.again());
    Ok(output)
}

/// See [`crate::runner::Runner::last_output`].
pub(super) async fn last(runner: &DockerRunner, name: &UnitName, most: usize) -> Result<Vec<OutputChunk>, RunnerError> {
    state::inspect(runner, name).await?;
    // Nobody reads these pieces: they are kept here.
    let (pieces, _unread) = mpsc::channel(1);
    let pump = Pump { runner: runner.clone(), name: name.clone(), pieces, delivered: Positions::default() };
    let mut log = Box::pin(pump.open(false, LAST_ENTRIES));
    let (mut kept, mut size) = (VecDeque::new(), 0);
    while let Some(entry) = log.next().await {
        let entry = match pump.entry(entry) {
            Ok(entry) => entry,
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Closed | Stop::Slow) => break,
        };
        size += entry.bytes.len();
        kept.push_back(OutputChunk { stream: entry.stream, at: entry.at, bytes: entry.bytes });
        while size > most
            && let Some(oldest) = kept.pop_front()
        {
            size -= oldest.bytes.len();
        }
    }
    Ok(kept.into())
}

/// Why a pump stopped early.
enum Stop {
    /// Nobody reads any more.
    Closed,
    /// The reader is too slow for attach.
    Slow,
    /// What the reader is to be told.
    Failed(RunnerError),
}

/// The last entry of a log that was read, to see whether there is one behind it.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    stream: Stream,
    at: Micros,
    bytes: Bytes,
}

/// Brings output to its reader.
struct Pump {
    runner: DockerRunner,
    name: UnitName,
    pieces: mpsc::Sender<Result<OutputChunk, RunnerError>>,
    delivered: Positions,
}

impl Pump {
    /// From the attached connection; the log if the reader is slow.
    async fn live(mut self, attached: AttachContainerResults) {
        let ended = {
            let (runner, name) = (self.runner.clone(), self.name.clone());
            // On a connection of its own: if the engine dies, this breaks, however far behind the reader is. An end of
            // the attached connection alone would not tell an ended container from a dead engine.
            AbortOnDropHandle::new(self.runner.tasks.spawn(async move { state::ended(&runner, &name).await }))
        };
        let done = match self.attached(attached).await {
            Ok(()) => match ended.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(Stop::Failed(error)),
                Err(_) => Err(Stop::Closed),
            },
            Err(Stop::Slow) => self.log().await,
            Err(stop) => Err(stop),
        };
        self.finish(done).await;
    }

    /// From the log.
    async fn again(mut self) {
        let done = self.log().await;
        self.finish(done).await;
    }

    async fn finish(self, done: Result<(), Stop>) {
        if let Err(Stop::Failed(error)) = done {
            // If nobody reads any more, nobody needs to know.
            drop(self.pieces.send(Err(error)).await);
        }
    }

    fn broken(&self) -> Stop {
        let detail = format!("the engine at {} broke off the output of `{}`", self.runner.host, self.name);
        Stop::Failed(fault::unreachable_engine(detail))
    }

    async fn attached(&mut self, mut attached: AttachContainerResults) -> Result<(), Stop> {
        loop {
            let piece = tokio::select! {
                piece = attached.output.next() => piece,
                () = self.pieces.closed() => return Err(Stop::Closed),
            };
            let Some(piece) = piece else { return Ok(()) };
            // A torn frame comes as `Console`: the connection is gone.
            let Some((stream, bytes)) = piece.ok().and_then(split) else { return Err(self.broken()) };
            if bytes.is_empty() {
                continue;
            }
            let permit = match tokio::time::timeout(SLOW, self.pieces.reserve()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) => return Err(Stop::Closed),
                Err(_) => return Err(Stop::Slow),
            };
            self.delivered.advance(stream, &bytes);
            permit.send(Ok(OutputChunk { stream, at: state::now(), bytes }));
        }
    }

    /// All that was not delivered yet, until the unit has ended.
    async fn log(&mut self) -> Result<(), Stop> {
        let status = self.status().await?;
        // A finished log is read without `follow`: its end is then certain.
        let last = self.read(status == UnitStatus::Running).await?;
        if status != UnitStatus::Running {
            return Ok(());
        }
        if self.status().await? == UnitStatus::Running {
            return Err(self.broken());
        }
        // Whether `follow` gives the very last entries of a container that ends is up to the engine.
        if self.last_entry().await? != last {
            self.read(false).await?;
        }
        Ok(())
    }

    async fn status(&self) -> Result<UnitStatus, Stop> {
        state::inspect(&self.runner, &self.name).await.map(|found| state::of(&found)).map_err(Stop::Failed)
    }

    /// Reads the log from its beginning, leaves out what was delivered, and gives the last entry.
    async fn read(&mut self, follow: bool) -> Result<Option<Entry>, Stop> {
        let mut known = self.delivered;
        let mut last = None;
        let mut entries = Box::pin(self.open(follow, "all"));
        loop {
            let entry = tokio::select! {
                entry = entries.next() => entry,
                () = self.pieces.closed() => return Err(Stop::Closed),
            };
            let Some(entry) = entry else { return Ok(last) };
            let entry = self.entry(entry)?;
            let bytes = known.skip(entry.stream, entry.bytes.clone());
            if !bytes.is_empty() {
                self.delivered.advance(entry.stream, &bytes);
                let chunk = OutputChunk { stream: entry.stream, at: entry.at, bytes };
                self.pieces.send(Ok(chunk)).await.map_err(|_| Stop::Closed)?;
            }
            last = Some(entry);
        }
    }

    async fn last_entry(&self) -> Result<Option<Entry>, Stop> {
        match Box::pin(self.open(false, "1")).next().await {
            None => Ok(None),
            Some(entry) => self.entry(entry).map(Some),
        }
    }

    fn open(
        &self,
        follow: bool,
        tail: &str,
    ) -> impl FutureStream<Item = Result<LogOutput, bollard::errors::Error>> + use<> {
        let options = LogsOptionsBuilder::new().follow(follow).stdout(true).stderr(true).timestamps(true).tail(tail);
        self.runner.patient().logs(&self.name.0, Some(options.build()))
    }

    /// Reads an entry and takes its stamp off.
    fn entry(&self, entry: Result<LogOutput, bollard::errors::Error>) -> Result<Entry, Stop> {
        let doing = || format!("read the log of `{}`", self.name);
        let entry = entry.map_err(|error| Stop::Failed(self.runner.fault(&doing(), &error)))?;
        let (stream, mut bytes) = split(entry).ok_or_else(|| self.broken())?;
        let at = bytes.get(..STAMP).and_then(|stamp| state::moment(std::str::from_utf8(stamp).ok()?.trim_end()));
        let wrong = || Stop::Failed(fault::other(format!("cannot {}: an entry begins with no time", doing())));
        let at = at.ok_or_else(wrong)?;
        bytes.advance(STAMP);
        Ok(Entry { stream, at, bytes })
    }
}

/// `None` for what is not a whole frame of an output stream.
fn split(output: LogOutput) -> Option<(Stream, Bytes)> {
    match output {
        LogOutput::StdOut { message } => Some((Stream::Stdout, message)),
        LogOutput::StdErr { message } => Some((Stream::Stderr, message)),
        LogOutput::StdIn { .. } | LogOutput::Console { .. } => None,
    }
}

fn start_error(runner: &DockerRunner, name: &UnitName, error: &bollard::errors::Error) -> RunnerError {
    match fault::answer(error) {
        Some((404, text)) if text.contains("No such container") => RunnerError::Absent(name.clone()),
        Some((_, text)) if text.contains("could not select device driver") => RunnerError::Unsupported(format!(
            "`{name}` asks for GPUs, which this engine cannot give; install the NVIDIA container toolkit on its host"
        )),
        Some((_, text)) => RunnerError::Start { name: name.clone(), detail: explain(text) },
        None => runner.fault(&format!("start `{name}`"), error),
    }
}

/// PURE: the engine's words on a failed start, in ours.
fn explain(text: &str) -> String {
    // The layers below the engine each put their own words in front.
    let core = text.rsplit("caused: ").next().unwrap_or(text).trim();
    let program = core.split("exec: \"").nth(1).and_then(|rest| rest.split('"').next());
    let shell = program == Some("sh");
    let missing = core.contains("executable file not found") || core.contains("no such file or directory");
    if missing && shell {
        return "the image has no `sh` to run the steps with; take an image with a shell, or use `command:` in place \
                of `run:`"
            .to_owned();
    }
    match program {
        Some(program) if missing => return format!("there is no program `{program}` in the image"),
        Some(program) if core.contains("permission denied") => return format!("`{program}` cannot be executed"),
        Some(_) | None => {}
    }
    if core.contains("argument list too long") {
        return "a step's script is too long (the limit is 128 KiB); put it in a file of the repository".to_owned();
    }
    if text.contains("port is already allocated") || text.contains("address already in use") {
        let port = text.split("Bind for ").nth(1).and_then(|rest| rest.split(" failed").next());
        let port = port.map_or_else(|| "its port".to_owned(), |port| format!("port {port}"));
        return format!("{port} is taken on the host; stop what uses it or choose another port");
    }
    core.trim_end_matches(": unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_starts_are_explained() {
        let check = |text: &str, expected: &str| assert!(explain(text).contains(expected), "{}", explain(text));
        let noise = "OCI runtime create failed: container_linux.go:380: starting container process caused: ";
        check(&format!("{noise}exec: \"sh\": executable file not found in $PATH: unknown"), "the image has no `sh`");
        check(&format!("{noise}exec: \"tool\": executable file not found in $PATH: unknown"), "no program `tool`");
        check(&format!("{noise}exec: \"/x\": permission denied: unknown"), "`/x` cannot be executed");
        check(
            "driver failed programming external connectivity on endpoint a (b): Bind for 127.0.0.1:80 failed: port is \
             already allocated",
            "port 127.0.0.1:80 is taken on the host",
        );
        check(&format!("{noise}something else: unknown"), "something else");
    }
}
