//! Glue: what was decided is committed, then done. Nothing here decides by itself what a status becomes (`build`), how SQL
//! looks (`store`) or what a container is (`runner`).
//!
//! ```text
//! Engine::submit -> build row -> Engine::drive: next_actions -> commit -> begin / attempt tasks -> commit -> ...
//! ```
//!
//! A build that was interrupted is driven again by the same function: a fresh build is a recovery with nothing to recover.

pub mod attempt;
pub mod backup;
pub mod begin;
pub mod by_hand;
pub mod companion;
pub mod deployments;
pub mod drive;
pub mod environment;
pub mod evidence;
pub mod foreseen;
pub mod gc;
pub mod inputs;
pub mod inspect;
pub mod kept;
pub mod live_load;
pub mod lock;
mod lost;
pub mod notice;
pub mod outcome;
pub mod pack;
pub mod paths;
pub mod ports;
pub mod retention;
pub mod retry;
pub mod runners;
pub mod scratch;
pub mod secrets;
pub mod serve;
pub mod slots;
pub mod storage;
pub mod submit;
pub mod unit;
pub mod workspace;

mod commit;
mod kind;

use std::sync::Arc;

use crate::artifact::ArtifactStore;
use crate::ids::Micros;
use crate::metrics::Metrics;
use crate::runner::RunnerError;
use crate::store::{Store, StoreError};
use paths::Paths;
use runners::Runners;

/// What the engine cannot go on without. Failures of stages are not errors: they are outcomes.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A runner.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// The artifact store.
    #[error("artifacts: {0}")]
    Artifact(String),
    /// The source tree.
    #[error("source: {0}")]
    Source(String),
    /// The pipeline cannot be planned (stored text that does not parse any more, an unknown stage asked for).
    #[error("{0}")]
    Pipeline(String),
    /// A secret is not the one that the build began with, and what is under way printed the old one.
    #[error("{0}")]
    Secrets(String),
    /// Another process drives this build.
    #[error("build {0} is being run by another process")]
    Taken(crate::ids::BuildId),
    /// The build was killed while nothing could be stored.
    #[error("{error}; {build} stays interrupted: `orchestrator run --resume {}` goes on with it", build.0)]
    Unstored {
        /// Which.
        build: crate::ids::BuildId,
        /// Why not.
        error: StoreError,
    },
    /// A folder or file of the data folder.
    #[error("{what}: {source}")]
    Io {
        /// Which, and what for.
        what: String,
        /// The system's own words.
        source: std::io::Error,
    },
    /// An event that the state did not allow: our own fault.
    #[error(transparent)]
    Illegal(#[from] crate::build::transition::Illegal),
}

impl EngineError {
    /// An error with the file or folder that it is about.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}

/// What is configured of the world outside the data folder.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    /// The address of the container engine: `unix:///path` or `tcp://host:port`.
    pub docker_host: Option<String>,
    /// Where artifacts are kept: an absolute folder, or `s3://bucket/prefix?endpoint=...`.
    pub artifacts: Option<String>,
}

/// All that builds share.
pub struct Engine {
    /// Where everything lies.
    pub paths: Paths,
    /// The database.
    pub store: Arc<Store>,
    /// Outputs, source trees, models.
    pub artifacts: Arc<ArtifactStore>,
    /// Where stages run.
    pub runners: Runners,
    /// Packs logs that are whole.
    pub packer: pack::Packer,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Load tests under way.
    pub live_loads: Arc<live_load::LiveLoads>,
}

impl Engine {
    /// Opens a data folder, making it if there is none.
    ///
    /// # Errors
    /// If the folder, the database or the artifact store cannot be opened.
    pub async fn open(paths: Paths) -> Result<Arc<Self>, EngineError> {
        Self::open_with(paths, Outside::default()).await
    }

    /// As [`Engine::open`], with what was configured of the world outside.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub async fn open_with(paths: Paths, outside: Outside) -> Result<Arc<Self>, EngineError> {
        paths.create()?;
        let metrics = Arc::new(Metrics::default());
        let commits = metrics.commits();
        let measure = move |took: std::time::Duration| commits.observe(took.as_secs_f64());
        let store = Arc::new(Store::open_measured(&paths.database(), measure)?);
        let artifacts = storage::open(&paths, &store, outside.artifacts).await?;
        let runners = Runners::new(&paths, &store.instance, outside.docker_host)?;
        let (packer, live_loads) = (pack::Packer::default(), Arc::default());
        Ok(Arc::new(Self { paths, store, artifacts, runners, packer, metrics, live_loads }))
    }
}

#[cfg(test)]
mod order_tests;

/// This moment.
pub fn now() -> Micros {
    crate::clock::now()
}
