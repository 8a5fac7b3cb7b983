//! Where stages run. A runner starts *units* (a container, or a process under the shim), and knows nothing of builds.
//!
//! Every call is idempotent by the unit's name, so that a caller that was killed can simply do it again:
//!
//! ```text
//! create (workspace in, not started) -> [caller commits "launched"] -> start -> output until it ends -> status
//!        -> collect outputs -> [caller commits the result] -> remove
//! ```
//!
//! A unit is started at most once in its life: `start` on one that has been started is [`RunnerError::AlreadyStarted`].

pub mod docker;
pub mod local;
pub mod ports;
pub mod spec;

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

use crate::ids::Micros;
use crate::pipeline::types::ImageSource;
use spec::{UnitName, UnitSpec};

/// A tar archive as a stream of pieces.
pub type TarStream = BoxStream<'static, std::io::Result<Bytes>>;

/// Tells about slow work (pulls, image builds), a line at a time. Called from any thread.
pub type Progress<'a> = &'a (dyn Fn(String) + Send + Sync);

/// One of the two output streams of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output, cut anywhere.
#[derive(Debug, Clone)]
pub struct OutputChunk {
    /// Which stream.
    pub stream: Stream,
    /// When it was written, as well as the runner knows.
    pub at: Micros,
    /// The bytes.
    pub bytes: Bytes,
}

/// The output of a unit, from its very first byte, in order within each stream. The channel is closed when the
/// unit has ended and all was delivered; an error ends it too.
pub type Output = mpsc::Receiver<Result<OutputChunk, RunnerError>>;

/// What a unit is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitStatus {
    /// There is none of that name.
    Absent,
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited(Exit),
    /// It was started, and nobody knows how it ended (shim killed, engine's data lost).
    Lost,
}

/// How a unit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + signal if killed by one.
    pub code: i64,
    /// It was killed because it ran out of memory.
    pub out_of_memory: bool,
    /// When.
    pub at: Micros,
}

/// The signals that the engine of builds sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
}

/// Who listens on a port of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listener {
    /// Nobody.
    Nobody,
    /// The unit, and nobody else.
    Unit,
    /// Somebody else, by command and process number as far as that can be seen.
    Stranger(String),
}

/// A unit found by [`Runner::list`].
#[derive(Debug, Clone)]
pub struct FoundUnit {
    /// Its name.
    pub name: UnitName,
    /// Its labels, as given in [`UnitSpec::labels`].
    pub labels: std::collections::BTreeMap<String, String>,
    /// What it is doing.
    pub status: UnitStatus,
}

/// What can go wrong in a runner. The variants differ because callers act differently.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The engine cannot be reached. Wait and try again, or tell the user.
    #[error("cannot reach the {runner} engine: {detail}")]
    Unreachable {
        /// `docker`, `local`.
        runner: &'static str,
        /// Cause and advice.
        detail: String,
    },
    /// The image is not there and cannot be pulled: the user's to mend.
    #[error("cannot get image `{image}`: {detail}")]
    Image {
        /// As written.
        image: String,
        /// What the engine or registry said.
        detail: String,
    },
    /// The image could not be built: the user's to mend.
    #[error("cannot build the image from `{context}`: {detail}")]
    Build {
        /// Folder.
        context: String,
        /// The failing step and its last output.
        detail: String,
    },
    /// The pipeline asks for something that this runner does not have (services on the local runner, GPUs).
    #[error("{0}")]
    Unsupported(String),
    /// No such unit.
    #[error("there is no unit `{0}`")]
    Absent(UnitName),
    /// `start` was called on a unit that has been started before.
    #[error("unit `{0}` has already been started")]
    AlreadyStarted(UnitName),
    /// The image has no such command, or the script cannot be started.
    #[error("cannot start `{name}`: {detail}")]
    Start {
        /// The unit.
        name: UnitName,
        /// What the engine said.
        detail: String,
    },
    /// The host's or our own fault.
    #[error("{runner} runner: {detail}")]
    Other {
        /// `docker`, `local`.
        runner: &'static str,
        /// What failed.
        detail: String,
    },
}

/// An image made available by [`Runner::prepare_image`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedImage {
    /// What [`UnitSpec::image`] takes: an id that cannot change under a build.
    pub reference: String,
    /// Content digest, for cache keys and lineage.
    pub digest: String,
}

/// When [`Runner::prepare_image`] goes to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// Only if the image is not there.
    IfMissing,
    /// Always ask.
    Always,
    /// Never; an image that is not there is an error.
    Never,
}

/// A place where stages run. See the module's text for the order of calls.
#[async_trait]
pub trait Runner: Send + Sync {
    /// `docker`, `local`.
    fn kind(&self) -> &'static str;

    /// Whether it runs containers (images, services, caches as volumes, networks).
    fn containers(&self) -> bool;

    /// Makes an image available by pull or build. `context` gives the tar of the whole source tree where the source is
    /// a build. The local runner answers with an image that means "the host".
    async fn prepare_image(
        &self,
        source: &ImageSource,
        context: Option<TarStream>,
        pull: Pull,
        progress: Progress<'_>,
    ) -> Result<PreparedImage, RunnerError>;

    /// Makes the unit and fills its workspace from a tar (paths relative to the workspace), without starting it. A unit of
    /// that name that was never started is made anew; one that was is left alone ([`RunnerError::AlreadyStarted`]).
    async fn create(&self, unit: &UnitSpec, workspace: Option<TarStream>) -> Result<(), RunnerError>;

    /// Starts it. The output is attached before the start, so nothing is missed.
    async fn start(&self, name: &UnitName) -> Result<Output, RunnerError>;

    /// The output of a started unit again **from its first byte** (running or ended); the caller drops what it has.
    async fn reattach(&self, name: &UnitName) -> Result<Output, RunnerError>;

    /// The newest part of what it has printed until now, together at most so many bytes; works for deployments too, whose oldest
    /// output is dropped.
    async fn last_output(&self, name: &UnitName, most: usize) -> Result<Vec<OutputChunk>, RunnerError>;

    /// What it is doing now.
    async fn status(&self, name: &UnitName) -> Result<UnitStatus, RunnerError>;

    /// Waits until it has ended.
    async fn wait(&self, name: &UnitName) -> Result<UnitStatus, RunnerError>;

    /// Sends a signal to all processes of the unit; no error if it has ended.
    async fn signal(&self, name: &UnitName, signal: Signal) -> Result<(), RunnerError>;

    /// Where this process reaches a port of the unit.
    async fn address(&self, name: &UnitName, port: u16) -> Result<SocketAddr, RunnerError>;

    /// Whether it is this unit that listens on a port of the host. Runners whose engine gives a port to one unit alone need
    /// not look.
    async fn listener(&self, _name: &UnitName, _port: u16) -> Result<Listener, RunnerError> {
        Ok(Listener::Unit)
    }

    /// Who else than this unit has a port of the machine that units are published on, in words; `None` if nobody, as far as that
    /// can be seen. Runners that publish nothing need not look.
    async fn stranger_on(&self, _port: u16, _ours: Option<&UnitName>) -> Result<Option<String>, RunnerError> {
        Ok(None)
    }

    /// One file or folder of an ended (or running) unit's workspace as a tar; entries start with the path's last part.
    /// `None` if there is no such path. Entries are not to be trusted.
    async fn collect(&self, name: &UnitName, path: &str) -> Result<Option<TarStream>, RunnerError>;

    /// Removes it with its workspace, killing it first if it runs. No error if there is none.
    async fn remove(&self, name: &UnitName) -> Result<(), RunnerError>;

    /// All units of this instance, deployments too.
    async fn list(&self) -> Result<Vec<FoundUnit>, RunnerError>;

    /// A private network on which units find each other by alias. Idempotent. Nothing on the local runner.
    async fn create_network(&self, name: &str) -> Result<(), RunnerError>;

    /// Removes it; no error if there is none.
    async fn remove_network(&self, name: &str) -> Result<(), RunnerError>;

    /// Networks of this instance.
    async fn list_networks(&self) -> Result<Vec<String>, RunnerError>;
}
