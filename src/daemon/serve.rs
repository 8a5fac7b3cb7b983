//! The daemon from its start to its end: who has the data folder, what was left of the last one, which tasks run, how they stop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::decider::Decider;
use super::intake::Intake;
use super::keyring::{self, Keyring};
use super::projects::{self, Projects};
use super::queue::Queue;
use super::retention;
use super::secrets::Sealed;
use super::tell::Teller;
use super::traces;
use crate::artifact::Sweep;
use crate::build::queue::Limits;
use crate::config::types::{AuthMode, Config, RunnerKind};
use crate::config::watch::ConfigWatch;
use crate::config::{Loaded, load};
use crate::engine::lock::NamedLock;
use crate::engine::paths::Paths;
use crate::engine::slots::Slots;
use crate::engine::{Engine, Outside, deployments, gc, notice, now, pack};
use crate::listen;
use crate::listen::tls::Acceptor;
use crate::store::access::{self, NewToken, Scope};
use crate::store::sessions;
use crate::web::auth::{self, Guard};
use crate::web::session::Sessions;
use crate::web::{self, App};

/// What is left of requests and packing may take so long at the end; a drain is done in 5 s.
const LAST_REQUESTS: Duration = Duration::from_secs(2);
const LAST_PACKING: Duration = Duration::from_secs(1);
/// Connections at once, to all and to the address of the metrics.
const MOST_CONNECTIONS: usize = 4096;
const METRICS_CONNECTIONS: usize = 64;
/// How long the head of a request may take, and a connection may say nothing.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// For how long the lock of a data folder is asked for again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Places on a runner that is not named in the configuration.
const USUAL_SLOTS: usize = 2;

/// A daemon that runs.
pub struct Daemon {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where `/metrics` is served, if that has an address of its own.
    pub metrics_address: Option<SocketAddr>,
    /// The token of the first start, to be shown once.
    pub first_token: Option<String>,
    engine: Arc<Engine>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _config: ConfigWatch,
    _lock: NamedLock,
}

impl Daemon {
    /// Starts everything. When this returns, requests are answered.
    ///
    /// # Errors
    /// If another daemon has the data folder, the address is taken, or the store cannot be opened.
    pub async fn start(loaded: Loaded, paths: Paths) -> anyhow::Result<Self> {
        let config = loaded.config.clone();
        let docker_host = runners_of(&config)?;
        paths.create()?;
        let lock = take_folder(&paths).await?;
        let listener = TcpListener::bind(config.server.listen)
            .await
            .with_context(|| format!("cannot listen on {} (server.listen)", config.server.listen))?;
        let address = listener.local_addr()?;
        let metrics = match config.metrics.listen.filter(|_| config.metrics.enabled) {
            Some(own) => {
                let bound = TcpListener::bind(own).await;
                Some(bound.with_context(|| format!("cannot listen on {own} (metrics.listen)"))?)
            }
            None => None,
        };
        let metrics_address = metrics.as_ref().map(TcpListener::local_addr).transpose()?;
        let outside = Outside { docker_host, artifacts: config.artifacts.address() };
        let engine = Engine::open_with(paths, outside).await?;
        let sealed = recover(&engine).await?;
        let first_token = first_token(&engine, &config).await?;

        let stop = CancellationToken::new();
        let (notices, _) = broadcast::channel(notice::CAPACITY);
        let slots = Slots::new(USUAL_SLOTS, slots_of(&config));
        let mirrors = engine.paths.root().join("mirrors");
        let (all, projects) = Projects::new(&config, &mirrors);
        let (limits, limited) = watch::channel(Arc::new(limits_of(&config)));
        let (queue, handle) =
            Queue::new(Arc::clone(&engine), limited, Arc::new(sealed.clone()), notices.clone(), slots.clone());
        let watched = ConfigWatch::start(loaded, load::environment()).context("cannot watch the configuration")?;
        let mut tasks = JoinSet::new();
        tasks.spawn(queue.run(stop.clone()));
        let (room, most_waiting) = watch::channel(config.max_waiting);
        let decider =
            Decider { engine: Arc::clone(&engine), projects: projects.clone(), queue: handle.clone(), most_waiting };
        tasks.spawn(decider.run(stop.clone()));
        tasks.spawn(Intake { engine: Arc::clone(&engine), projects: projects.clone() }.run(stop.clone()));
        tasks.spawn(Clock { engine: Arc::clone(&engine), projects: projects.clone() }.run(stop.clone()));
        tasks.spawn(sweep(Arc::clone(&engine), stop.clone()));
        tasks.spawn(retention::run(Arc::clone(&engine), watched.subscribe(), stop.clone()));
        let teller = Teller {
            engine: Arc::clone(&engine),
            config: watched.subscribe(),
            projects: projects.clone(),
            notices: notices.clone(),
            public_url: config.server.public_url.as_str().into(),
        };
        tasks.spawn(teller.run(stop.clone()));
        let reload = Reload { all, limits, slots, room, mirrors };
        tasks.spawn(reload.run(watched.subscribe(), stop.clone()));

        let app = App {
            config: watched.subscribe(),
            traces: traces::start(&engine, &notices, &mut tasks, &stop).await?,
            engine: Arc::clone(&engine),
            queue: handle,
            notices,
            projects,
            guard: guard_of(&config),
            sessions: browsers(&engine, &config).await?,
            public_url: config.server.public_url.as_str().into(),
            secrets: sealed,
            stop: stop.clone(),
        };
        let numbers = app.clone();
        let routes = web::router(app, metrics.is_none() && config.metrics.enabled);
        if let Some(own) = metrics {
            tasks.spawn(own_metrics(own, numbers, stop.clone()));
        }
        let tls = config.server.tls.as_ref().map(|tls| Acceptor::new(&tls.cert, &tls.key)).transpose()?;
        if let Some(tls) = tls.clone() {
            tasks.spawn(tls.follow(stop.clone()));
        }
        tasks.spawn(listen::serve(listener, tls, routes, http_limits(), stop.clone()));
        Ok(Self { address, metrics_address, first_token, engine, stop, tasks, _config: watched, _lock: lock })
    }

    /// Ends in a few seconds. What runs on the runners goes on, and is taken up by the next start.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task broke");
            }
        }
        // What is not packed now is packed after the next start.
        let _ = tokio::time::timeout(LAST_PACKING, self.engine.packer.done()).await;
    }
}

/// `/metrics` on an address of its own. A scrape that is cut is asked for again.
async fn own_metrics(listener: TcpListener, numbers: App, stop: CancellationToken) {
    let limits = listen::Limits { connections: METRICS_CONNECTIONS, head: HEAD_TIMEOUT, last: Duration::ZERO };
    listen::serve(listener, None, web::metrics::alone(numbers), limits, stop).await;
}

/// What clients may do: many followers of logs and events, all of whom ask quickly.
fn http_limits() -> listen::Limits {
    listen::Limits { connections: listen::connections(MOST_CONNECTIONS), head: HEAD_TIMEOUT, last: LAST_REQUESTS }
}

/// The keys of secrets are made at the first start, so that there is something to keep a copy of.
fn sealed(engine: &Arc<Engine>) -> anyhow::Result<Sealed> {
    let keys = keyring::file(&engine.paths);
    Keyring::read_or_make(&keys)?;
    Ok(Sealed { store: Arc::clone(&engine.store), keys })
}

/// One daemon for a data folder. A daemon that was killed may leave a child for an instant that has not become another
/// program yet, and holds the lock as long.
async fn take_folder(paths: &Paths) -> anyhow::Result<NamedLock> {
    let path = paths.locks().join("daemon");
    let holder = format!("process {}", std::process::id());
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        match NamedLock::try_take(&path, &holder)? {
            Ok(lock) => return Ok(lock),
            Err(_) if tokio::time::Instant::now() < until => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(who) => {
                let who = if who.is_empty() { "another process".to_owned() } else { who };
                anyhow::bail!(
                    "{who} is a daemon on the data folder {} already; stop it, or use another folder (data.dir)",
                    paths.root().display()
                )
            }
        }
    }
}

/// What the last daemon left: deployments in the middle, logs that are not packed, units that nobody owns. Answers where secrets
/// come from, which servers need.
async fn recover(engine: &Arc<Engine>) -> anyhow::Result<Sealed> {
    let secrets = sealed(engine)?;
    for found in deployments::recover(engine, &secrets).await? {
        tracing::warn!("version {} of `{}` {}", found.version, found.model, found.what);
        engine.metrics.repaired("deployment", 1);
    }
    let local = gc::sweep(engine, engine.runners.local().as_ref(), Sweep::Remove, gc::Kept::Stay).await?;
    count(engine, &local);
    pack::finish_left(engine).await?;
    Ok(secrets)
}

fn count(engine: &Engine, removed: &gc::Removed) {
    engine.metrics.repaired("unit", removed.units.len());
    engine.metrics.repaired("network", removed.networks.len());
}

/// Containers that nobody owns. The engine may not be there: builds that need it wait for it, and so does this.
async fn sweep(engine: Arc<Engine>, stop: CancellationToken) {
    const AGAIN: Duration = Duration::from_secs(30);
    loop {
        let swept = async {
            let docker = engine.runners.docker().await?;
            gc::sweep(&engine, docker.as_ref(), Sweep::Remove, gc::Kept::Stay).await
        };
        match swept.await {
            Ok(removed) => return count(&engine, &removed),
            Err(error) => tracing::debug!(%error, "containers are not looked through yet"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

fn guard_of(config: &Config) -> Arc<Guard> {
    Arc::new(Guard::new(config.auth.mode == AuthMode::None, config.server.trusted_proxies.clone()))
}

/// How browsers are known. Whoever signed in elsewhere does so again: what they may do could have changed.
async fn browsers(engine: &Arc<Engine>, config: &Config) -> anyhow::Result<Arc<Sessions>> {
    engine.store.write(sessions::end_untokened).await?;
    Ok(Arc::new(Sessions::new(config, &engine.store.instance)?))
}

/// A token for the first person, if tokens are needed and there is none.
async fn first_token(engine: &Arc<Engine>, config: &Config) -> anyhow::Result<Option<String>> {
    if config.auth.mode == AuthMode::None || engine.store.read(access::any_token).await? {
        return Ok(None);
    }
    let token = auth::new_token();
    let new = NewToken {
        name: "first".to_owned(),
        hash: auth::hash(&token),
        scopes: vec![Scope::Admin],
        projects: None,
        made_by: "first start".to_owned(),
        expires_at: None,
    };
    engine.store.write(move |tx| access::create_token(tx, &new, now())).await?;
    Ok(Some(token))
}

/// What is followed while the daemon runs.
struct Reload {
    all: watch::Sender<projects::All>,
    limits: watch::Sender<Arc<Limits>>,
    slots: Slots,
    room: watch::Sender<usize>,
    mirrors: PathBuf,
}

impl Reload {
    async fn run(self, mut state: watch::Receiver<crate::config::watch::ConfigState>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = state.changed() => if changed.is_err() { return },
            }
            let now = state.borrow_and_update().clone();
            if let Some(problem) = &now.problem {
                // Said by the watch itself, with what to do.
                tracing::debug!(%problem, "the configuration stays as it was");
                continue;
            }
            let (config, mirrors) = (Arc::clone(&now.current), self.mirrors.clone());
            // It reads the files of secrets.
            let Ok(all) = tokio::task::spawn_blocking(move || projects::read(&config, &mirrors)).await else {
                continue;
            };
            self.slots.resize(USUAL_SLOTS, &slots_of(&now.current));
            self.limits.send_replace(Arc::new(limits_of(&now.current)));
            self.room.send_replace(now.current.max_waiting);
            self.all.send_replace(all);
            tracing::info!("the new configuration is in force");
        }
    }
}

/// The name by which the engine knows a runner.
fn engine_name(kind: RunnerKind) -> &'static str {
    match kind {
        RunnerKind::Docker => "docker",
        RunnerKind::Local => "local",
    }
}

/// Checks that there is one runner of a kind, and gives the address of the container engine.
fn runners_of(config: &Config) -> anyhow::Result<Option<String>> {
    let mut host = None;
    for (name, runner) in &config.runners {
        let kind = engine_name(runner.kind);
        if name != kind {
            anyhow::bail!(
                "runners.{name}: one runner of each kind is possible in this version; call it `{kind}` (runners.{kind})"
            );
        }
        if runner.kind == RunnerKind::Docker {
            host.clone_from(&runner.host);
        }
    }
    Ok(host)
}

fn slots_of(config: &Config) -> BTreeMap<String, usize> {
    config.runners.values().map(|runner| (engine_name(runner.kind).to_owned(), runner.slots)).collect()
}

fn limits_of(config: &Config) -> Limits {
    let projects = config.projects.iter().map(|(name, project)| (name.clone(), project.max_builds)).collect();
    Limits { builds: None, projects, paused: None }
}
