//! Units as containers of a Docker engine, spoken to by its API only (no client program, no bind mounts).
//!
//! ```text
//! connect -> image (pull | build) -> create (limits, security, workspace in) -> output (attach, start, log)
//!         -> state (status, wait, signal, remove, list) -> archive (outputs out)
//! ```
//!
//! The engine keeps each container's own log without rotation, so that output can be read again from its first byte.
//! This is the only place that knows of the engine's API; it knows nothing of builds.

mod archive;
mod build;
mod connect;
mod context;
mod create;
mod credentials;
mod fault;
mod garbage;
mod ignore_file;
mod image;
mod network;
mod output;
mod owner;
mod position;
mod reference;
mod state;

use std::net::SocketAddr;

use async_trait::async_trait;

use crate::pipeline::types::ImageSource;
use crate::runner::spec::{UnitName, UnitSpec};
use crate::runner::{
    FoundUnit, Output, OutputChunk, PreparedImage, Progress, Pull, Runner, RunnerError, Signal, TarStream, UnitStatus,
};

pub use connect::{DockerRunner, DockerSettings, EngineAbout};
pub use create::WORKSPACE;
pub use garbage::BuiltImage;
pub use image::LABEL_IMAGE;

/// How this runner names itself in errors.
const RUNNER: &str = "docker";

#[async_trait]
impl Runner for DockerRunner {
    fn kind(&self) -> &'static str {
        RUNNER
    }

    fn containers(&self) -> bool {
        true
    }

    async fn prepare_image(
        &self,
        source: &ImageSource,
        context: Option<TarStream>,
        pull: Pull,
        progress: Progress<'_>,
    ) -> Result<PreparedImage, RunnerError> {
        match source {
            ImageSource::Image(reference) => image::prepare(self, reference, pull, progress).await,
            ImageSource::Build { context: folder, dockerfile, args } => {
                let recipe = build::Recipe { folder, dockerfile, args, pull };
                build::build(self, &recipe, context, progress).await
            }
        }
    }

    async fn create(&self, unit: &UnitSpec, workspace: Option<TarStream>) -> Result<(), RunnerError> {
        create::create(self, unit, workspace).await
    }

    async fn start(&self, name: &UnitName) -> Result<Output, RunnerError> {
        output::start(self, name).await
    }

    async fn reattach(&self, name: &UnitName) -> Result<Output, RunnerError> {
        output::reattach(self, name).await
    }

    async fn status(&self, name: &UnitName) -> Result<UnitStatus, RunnerError> {
        state::status(self, name).await
    }

    async fn wait(&self, name: &UnitName) -> Result<UnitStatus, RunnerError> {
        state::wait(self, name).await
    }

    async fn signal(&self, name: &UnitName, signal: Signal) -> Result<(), RunnerError> {
        state::signal(self, name, signal).await
    }

    async fn address(&self, name: &UnitName, port: u16) -> Result<SocketAddr, RunnerError> {
        network::address(self, name, port).await
    }

    async fn last_output(&self, name: &UnitName, most: usize) -> Result<Vec<OutputChunk>, RunnerError> {
        output::last(self, name, most).await
    }

    async fn stranger_on(&self, port: u16, ours: Option<&UnitName>) -> Result<Option<String>, RunnerError> {
        network::stranger_on(self, port, ours).await
    }

    async fn collect(&self, name: &UnitName, path: &str) -> Result<Option<TarStream>, RunnerError> {
        archive::collect(self, name, path).await
    }

    async fn remove(&self, name: &UnitName) -> Result<(), RunnerError> {
        state::remove(self, name).await
    }

    async fn list(&self) -> Result<Vec<FoundUnit>, RunnerError> {
        state::list(self).await
    }

    async fn create_network(&self, name: &str) -> Result<(), RunnerError> {
        network::create(self, name).await
    }

    async fn remove_network(&self, name: &str) -> Result<(), RunnerError> {
        network::remove(self, name).await
    }

    async fn list_networks(&self) -> Result<Vec<String>, RunnerError> {
        network::list(self).await
    }
}
