//! Which runner a stage runs on.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::EngineError;
use super::paths::Paths;
use crate::pipeline::types::ImageSource;
use crate::runner::docker::{DockerRunner, DockerSettings, EngineAbout};
use crate::runner::local::{LocalRunner, LocalSettings};
use crate::runner::spec::{UnitName, UnitSpec};
use crate::runner::{Runner, RunnerError};

/// The runners of this process. The Docker engine is connected to when it is first needed.
pub struct Runners {
    local: Arc<LocalRunner>,
    docker: OnceCell<Arc<DockerRunner>>,
    instance: String,
    docker_host: Option<String>,
    /// This program, for units that are part of it (model server).
    pub program: PathBuf,
}

impl Runners {
    /// The runners of a data folder.
    ///
    /// # Errors
    /// If the local runner's folder cannot be used.
    pub fn new(paths: &Paths, instance: &str, docker_host: Option<String>) -> Result<Self, EngineError> {
        let program = std::env::current_exe().map_err(|error| EngineError::io("cannot find this program", error))?;
        let settings = LocalSettings { root: paths.local(), instance: instance.to_owned(), program: program.clone() };
        Ok(Self {
            local: Arc::new(LocalRunner::new(settings)?),
            docker: OnceCell::new(),
            instance: instance.to_owned(),
            docker_host,
            program,
        })
    }

    /// The local runner.
    pub fn local(&self) -> Arc<dyn Runner> {
        Arc::clone(&self.local) as Arc<dyn Runner>
    }

    /// What the local runner cannot do as this unit asks, in words.
    pub fn local_notes(&self, unit: &UnitSpec) -> Vec<String> {
        self.local.notes(unit)
    }

    /// The folder in which a unit of the local runner runs.
    pub fn local_workspace(&self, unit: &UnitName) -> PathBuf {
        self.local.workspace(unit)
    }

    /// The Docker runner.
    ///
    /// # Errors
    /// [`RunnerError::Unreachable`] if no engine answers.
    pub async fn docker(&self) -> Result<Arc<dyn Runner>, RunnerError> {
        let runner = self
            .docker
            .get_or_try_init(|| async {
                let host = self.docker_host.clone();
                let settings = DockerSettings { host, ..DockerSettings::new(&self.instance) };
                DockerRunner::connect(settings).await.map(Arc::new)
            })
            .await?;
        Ok(Arc::clone(runner) as Arc<dyn Runner>)
    }

    /// What the Docker engine says of itself.
    ///
    /// # Errors
    /// [`RunnerError::Unreachable`] if none answers.
    pub async fn docker_about(&self) -> Result<EngineAbout, RunnerError> {
        self.docker().await?;
        match self.docker.get() {
            Some(docker) => docker.about().await,
            None => Err(RunnerError::Unsupported("docker is not connected".to_owned())),
        }
    }

    /// The runner by its name.
    ///
    /// # Errors
    /// If there is none of that name, or it cannot be reached.
    pub async fn named(&self, name: &str) -> Result<Arc<dyn Runner>, RunnerError> {
        match name {
            "local" => Ok(self.local()),
            "docker" => self.docker().await,
            _ => Err(RunnerError::Unsupported(format!("there is no runner `{name}`; there are `docker` and `local`"))),
        }
    }
}

/// The name of the runner for a stage or server: what it asks for, else what the caller chose, else `docker` where it names
/// an image and `local` where it does not.
pub fn name_for(wanted: Option<&str>, chosen: Option<&str>, image: Option<&ImageSource>) -> String {
    let by_image = if image.is_some() { "docker" } else { "local" };
    wanted.or(chosen).unwrap_or(by_image).to_owned()
}
