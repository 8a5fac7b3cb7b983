//! The model API: where it runs, what lies in its workspace, on which port.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Attempt, Halt};
use super::begin;
use super::companion::{self, Companion, CompanionSpec};
use super::drive::Build;
use super::environment;
use super::kind::plain;
use super::lock::NamedLock;
use super::notice::{Notice, tell};
use super::ports::runner_of;
use super::{unit, workspace};
use crate::artifact::manifest::Manifest;
use crate::build::status::{CancelReason, FailureKind};
use crate::ids::StageName;
use crate::pipeline::types::{Kind, Network, Serve, ServeApp, ServePort, Service};
use crate::runner::ports;
use crate::runner::spec::{Command, Join, UnitName, UnitSpec};
use crate::runner::{Pull, Runner, UnitStatus};

/// The port of a containerised server that leaves it to us.
const CONTAINER_PORT: u16 = 8000;
/// How long a fixed port of the host is waited for.
const PORT_PATIENCE: Duration = Duration::from_secs(30);

/// The model API beside a stage.
pub struct Served {
    /// The running server.
    pub companion: Companion,
    /// Where this process reaches it.
    pub address: SocketAddr,
    /// What the stage's own scripts are told as `SERVE_URL`.
    pub url: String,
}

/// Starts the model API for this attempt.
///
/// # Errors
/// [`Halt`] if it cannot be started or does not get ready.
pub async fn start(attempt: &mut Attempt) -> Result<Served, Halt> {
    let build = Arc::clone(&attempt.cx.build);
    let Some(serve) = build.expanded.pipeline.serve.clone() else {
        return Err(Halt::failed(FailureKind::Serve, "the pipeline has no `serve`"));
    };
    let (runner, name) = runner(&build, &serve).await?;
    let join = join(attempt, runner.as_ref(), "serve").await?;
    let (port, lock) = port(attempt, runner.as_ref(), &serve).await?;
    let place = Place { unit: attempt.cx.unit("serve"), port, publish: None, restart: false, join: join.clone() };
    let unit = spec(attempt, &serve, runner.as_ref(), place).await?;
    let manifest = manifest(&build, &serve, &attempt.cx.good).await?;
    let key = &attempt.cx.node().key;
    let spec = CompanionSpec {
        what: "the model API".to_owned(),
        unit,
        workspace: Some(workspace::tar(&build, manifest)),
        ready: Some(serve.ready.clone()),
        log: build.engine.paths.serve_log(build.id, key, attempt.cx.attempt),
        lock,
    };
    attempt.log.note(&format!("starts the model API ({name})"));
    let companion = companion::start(attempt, runner, spec).await?;
    let Some(address) = companion.address else {
        return Err(Halt::internal("the model API has no address"));
    };
    let url = match (&join, attempt.runner.as_str()) {
        (Some(_), "docker") => format!("http://serve:{port}"),
        (Some(_) | None, _) => format!("http://{address}"),
    };
    attempt.log.note(&format!("the model API is ready at {address}"));
    Ok(Served { companion, address, url })
}

/// Where the model API runs. The built-in server is part of this program, so it runs on this host.
///
/// # Errors
/// [`Halt`] if the runner cannot be reached.
pub async fn runner(build: &Build, serve: &Serve) -> Result<(Arc<dyn Runner>, String), Halt> {
    let name = runner_of(serve, build.request.runner.as_deref());
    let runner =
        build.engine.runners.named(&name).await.map_err(|error| Halt::Failed(begin::runner_failure(&error)))?;
    Ok((runner, name))
}

/// The attempt's private network, made if needed, with this name on it. `None` on a runner without containers.
///
/// # Errors
/// [`Halt`] if it cannot be made.
pub async fn join(attempt: &Attempt, runner: &dyn Runner, alias: &str) -> Result<Option<Join>, Halt> {
    if !runner.containers() {
        return Ok(None);
    }
    let network = attempt.cx.network();
    runner.create_network(&network).await.map_err(|error| Halt::Failed(begin::runner_failure(&error)))?;
    Ok(Some(Join { network, aliases: vec![alias.to_owned()] }))
}

/// The port that the server will listen on. On the host a free one is picked, or the fixed one is waited for.
/// With a fixed one comes the right to it: another stage or build that uses the same would test this one's server.
async fn port(attempt: &mut Attempt, runner: &dyn Runner, serve: &Serve) -> Result<(u16, Option<NamedLock>), Halt> {
    match (serve.port, runner.containers()) {
        (ServePort::Fixed(port), true) => Ok((port, None)),
        (ServePort::Auto, true) => Ok((CONTAINER_PORT, None)),
        (ServePort::Auto, false) => Ok((free_port().map_err(Halt::internal)?, None)),
        (ServePort::Fixed(port), false) => {
            let lock = right(attempt, port).await?;
            // Taken up after a crash, it may be our own server that listens.
            if let Ok(UnitStatus::Running) = runner.status(&attempt.cx.unit("serve")).await {
                return Ok((port, Some(lock)));
            }
            let until = tokio::time::Instant::now() + PORT_PATIENCE;
            let mut told = false;
            while let Some(user) = ports::user_of(port) {
                let text = format!("port {port} is used by {user}; waiting for it (`port: auto` picks a free one)");
                if tokio::time::Instant::now() >= until {
                    return Err(Halt::failed(FailureKind::Serve, format!("port {port} is used by {user}")));
                }
                if !told {
                    attempt.log.note(&text);
                    told = true;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok((port, Some(lock)))
        }
    }
}

/// The right to a port of this host. Waiting for it ends with the build.
async fn right(attempt: &mut Attempt, port: u16) -> Result<NamedLock, Halt> {
    let build = Arc::clone(&attempt.cx.build);
    let node = attempt.cx.node().key.clone();
    let holder = format!("stage `{node}` of build {}", build.id);
    let mut stop = attempt.cx.stop.clone();
    let path = NamedLock::port(&build.engine.paths, port);
    let wait = NamedLock::take(&path, &holder, |who| {
        let text = format!("waits for port {port}, which {who} has (`port: auto` picks a free one)");
        attempt.log.note(&text);
        tell(&build.notices, Notice::Progress { node, text });
    });
    tokio::select! {
        taken = wait => taken.map_err(Halt::internal),
        stopped = unit::stopped(&mut stop, None) => Err(Halt::Cancelled(stopped.unwrap_or(CancelReason::Kill))),
    }
}

/// A port of the loopback that nobody listens on now.
///
/// # Errors
/// If there is none.
pub fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Where and how a server is put.
pub struct Place {
    /// Its unit.
    pub unit: UnitName,
    /// The port that it listens on.
    pub port: u16,
    /// The host's port that users talk to.
    pub publish: Option<u16>,
    /// It is started again whenever it ends.
    pub restart: bool,
    /// Its private network.
    pub join: Option<Join>,
}

/// The server's unit.
///
/// # Errors
/// [`Halt`] if its image cannot be had.
pub async fn spec(attempt: &Attempt, serve: &Serve, runner: &dyn Runner, place: Place) -> Result<UnitSpec, Halt> {
    let build = &attempt.cx.build;
    let image = match (&serve.image, runner.containers()) {
        (Some(source), true) => Some(
            begin::prepare(build, attempt.cx.node, runner, source, Pull::IfMissing)
                .await
                .map_err(Halt::Failed)?
                .reference,
        ),
        (None, true) => return Err(Halt::failed(FailureKind::Image, "`serve` names no `image` or `build`")),
        (Some(_) | None, false) => None,
    };
    let command = match &serve.app {
        ServeApp::Work(work) => plain::command(Some(work), &attempt.nonce),
        ServeApp::Linfa(stage) => Command::Arguments(built_in(build, stage)?),
    };
    let mut env: indexmap::IndexMap<String, String> = build.expanded.pipeline.env.clone();
    env.extend(serve.env.clone());
    for (name, value) in &build.expanded.params {
        env.insert(environment::variable_name("PARAM_", name), value.text());
    }
    for name in &serve.secrets {
        if let Some(value) = build.secrets.values.get(name) {
            env.insert(name.clone(), value.clone());
        }
    }
    env.extend(environment::identity(build.id, &build.request));
    env.insert("PORT".to_owned(), place.port.to_string());
    Ok(UnitSpec {
        name: place.unit,
        labels: plain::labels(attempt, "serve"),
        image,
        command,
        env: env.into_iter().collect(),
        resources: serve.resources.clone(),
        network: Network::Default,
        join: place.join,
        caches: Vec::new(),
        port: Some(place.port),
        publish: place.publish,
        restart: place.restart,
        grace: Duration::from_secs(10),
        workspace_variable: true,
        masked: Vec::new(),
    })
}

fn built_in(build: &Build, stage: &StageName) -> Result<Vec<String>, Halt> {
    let Some(Kind::Train(train)) = build.expanded.pipeline.stages.get(stage).map(|stage| &stage.kind) else {
        return Err(Halt::failed(FailureKind::Serve, format!("`serve.linfa: {stage}` is no training")));
    };
    let program = build.engine.runners.program.display().to_string();
    Ok(vec![program, "serve-model".to_owned(), "--model".to_owned(), train.artifact.clone()])
}

/// Source tree and outputs that the server needs.
///
/// # Errors
/// [`Halt`] if one of its `inputs` has not ended well before this stage.
pub async fn manifest(build: &Build, serve: &Serve, good: &[usize]) -> Result<Manifest, Halt> {
    let mut wanted = serve.inputs.clone();
    if let ServeApp::Linfa(stage) = &serve.app {
        wanted.push(stage.clone());
    }
    let nodes = &build.expanded.plan.nodes;
    if let Some(missing) = wanted.iter().find(|name| !good.iter().any(|&node| nodes[node].key.stage == **name)) {
        let text = format!("`serve` needs the outputs of `{missing}`: add it to this stage's `needs`");
        return Err(Halt::failed(FailureKind::Serve, text));
    }
    let inputs: Vec<usize> = good.iter().copied().filter(|&node| wanted.contains(&nodes[node].key.stage)).collect();
    workspace::manifest(build, &inputs).await
}

/// Starts the stage's services, in the order written.
///
/// # Errors
/// [`Halt`] if one cannot be started or does not get ready.
pub async fn start_services(attempt: &mut Attempt) -> Result<Vec<Companion>, Halt> {
    let services = attempt.cx.node().stage.services.clone();
    let mut started = Vec::new();
    for (name, service) in services {
        let runner = super::unit::runner(attempt).await?;
        if !runner.containers() {
            let text =
                format!("service `{name}` is a container, and this stage runs on the host: give the stage an image");
            return Err(Halt::failed(FailureKind::Unsupported, text));
        }
        let spec = service_spec(attempt, runner.as_ref(), &name, &service).await?;
        started.push(companion::start(attempt, runner, spec).await?);
        attempt.log.note(&format!("service `{name}` is ready"));
    }
    Ok(started)
}

async fn service_spec(
    attempt: &Attempt,
    runner: &dyn Runner,
    name: &str,
    service: &Service,
) -> Result<CompanionSpec, Halt> {
    let build = &attempt.cx.build;
    let source = crate::pipeline::types::ImageSource::Image(service.image.clone());
    let image = begin::prepare(build, attempt.cx.node, runner, &source, Pull::IfMissing).await.map_err(Halt::Failed)?;
    let role = format!("svc-{name}");
    let unit = UnitSpec {
        name: attempt.cx.unit(&role),
        labels: plain::labels(attempt, "service"),
        image: Some(image.reference),
        command: Command::ImageDefault,
        env: service.env.clone().into_iter().collect(),
        resources: Default::default(),
        network: Network::Default,
        join: join(attempt, runner, name).await?,
        caches: Vec::new(),
        port: service.port,
        publish: None,
        restart: false,
        grace: Duration::from_secs(10),
        workspace_variable: false,
        masked: Vec::new(),
    };
    let key = &attempt.cx.node().key;
    let default = crate::pipeline::types::Ready { path: None, timeout: Duration::from_secs(60) };
    Ok(CompanionSpec {
        what: format!("service `{name}`"),
        unit,
        workspace: None,
        ready: service.ready.clone().or(service.port.map(|_| default)),
        log: build.engine.paths.logs(build.id).join(format!("{key}.{}.{role}.log", attempt.cx.attempt)),
        lock: None,
    })
}
