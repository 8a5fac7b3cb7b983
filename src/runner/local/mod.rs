//! The local runner: stages as processes of this machine, each under a [`shim`] that outlives this program.
//!
//! It isolates nothing: a stage can read and write what its user can. What it gives is a fresh workspace, a clean
//! environment ([`environment`]), an own `HOME` and `TMPDIR`, an exact end (no process of a unit outlives it), and limits
//! where the machine allows ([`cgroup`]; else memory is watched ten times a second, and the rest is named by
//! [`LocalRunner::notes`]). All state is in files ([`folder`]), so that another process of this program goes on where one was
//! killed.
//!
//! Caches are folders below the root to which a link leads: `~/x` in the unit's home, `x` in its workspace. One that is read-only
//! is an empty folder of the unit: without a container there is no view on a folder that cannot be written, and a copy would
//! cost more than it saves. Absolute paths are left alone. Ports are the machine's own; `publish` means nothing here.
//!
//! Under systemd the service needs `KillMode=process`, or stopping it stops the units too.

mod archive;
mod cgroup;
mod child;
mod environment;
mod folder;
mod frame;
mod last;
mod process;
pub mod shim;
mod store;
mod tail;
mod watch;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use tokio::io::AsyncReadExt;
use tokio::process::Command as Process;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use super::ports;
use super::spec::{Command, UnitName, UnitSpec};
use super::{
    FoundUnit, Listener, Output, OutputChunk, PreparedImage, Progress, Pull, Runner, RunnerError, Signal, TarStream,
    UnitStatus,
};
use crate::pipeline::types::{ImageSource, Network, Resources};
use environment::Host;
use folder::{Description, Folder, Launch};
use store::{Created, Plan, Store};
use watch::{Watch, Watcher};

/// Longest wait for a shim's first word. Only a machine that stands still takes so long.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// Pieces of an archive under way.
const ARCHIVE_CHANNEL: usize = 8;

/// What the local runner has to know.
#[derive(Debug, Clone)]
pub struct LocalSettings {
    /// Its own folder, `<data>/local`. Made if it is not there.
    pub root: PathBuf,
    /// The instance's name; part of the names of cgroups.
    pub instance: String,
    /// This program, for the shim: `<program> shim <folder>` must call [`shim::main`].
    pub program: PathBuf,
}

/// Runs units as processes of this machine. To be used within one tokio runtime.
pub struct LocalRunner {
    settings: LocalSettings,
    store: Store,
    host: Host,
    limits: Arc<OnceLock<Option<cgroup::Place>>>,
    watcher: OnceLock<Option<Watcher>>,
    tasks: Mutex<JoinSet<()>>,
}

/// An error of the machine's, with what was being done.
fn other(what: &str, error: &io::Error) -> RunnerError {
    RunnerError::Other { runner: "local", detail: format!("{what}: {error}") }
}

impl LocalRunner {
    /// Makes its folders.
    ///
    /// # Errors
    /// [`RunnerError::Other`] if they cannot be made.
    pub fn new(settings: LocalSettings) -> Result<Self, RunnerError> {
        let what = format!("cannot use folder `{}`", settings.root.display());
        let store = Store::open(&settings.root).map_err(|error| other(&what, &error))?;
        Ok(Self {
            settings,
            store,
            host: Host::look(),
            limits: Arc::default(),
            watcher: OnceLock::new(),
            tasks: Mutex::default(),
        })
    }

    /// The folder in which a unit's scripts run.
    pub fn workspace(&self, unit: &UnitName) -> PathBuf {
        self.settings.root.join("units").join(&unit.0).join(folder::WORKSPACE)
    }

    /// Says in words which of these limits cannot be enforced on this machine; `None` if all can.
    pub fn limits_note(&self, resources: &Resources) -> Option<String> {
        limits_note(self.place(resources).as_ref(), resources)
    }

    /// Says in words all that a unit asks for and the local runner cannot give: limits, network, caches.
    pub fn notes(&self, unit: &UnitSpec) -> Vec<String> {
        let mut notes: Vec<String> = self.limits_note(&unit.resources).into_iter().collect();
        if unit.network == Network::None {
            notes.push("the local runner cannot take the network away: `network: none` has no effect".to_owned());
        }
        for cache in &unit.caches {
            if cache.path.starts_with('/') {
                let path = &cache.path;
                notes.push(format!(
                    "cache `{path}` is left out: the local runner keeps relative paths and `~/...` only"
                ));
            } else if cache.read_only {
                notes.push(format!("cache `{}` is empty: the local runner has no read-only caches", cache.path));
            }
        }
        notes
    }

    /// Where limits can be enforced; looked for once, and only if there is a limit.
    fn place(&self, resources: &Resources) -> Option<cgroup::Place> {
        let asked = resources.memory_bytes.is_some() || resources.pids.is_some() || resources.cpus.is_some();
        asked.then(|| self.limits.get_or_init(cgroup::Place::find).clone()).flatten()
    }

    fn plan(&self, unit: &UnitSpec) -> Result<Plan, RunnerError> {
        let folder = self.path(&unit.name)?;
        let arguments = match &unit.command {
            Command::Steps(steps) => steps.arguments(),
            Command::Arguments(arguments) => arguments.clone(),
            Command::ImageDefault => {
                let text = "the local runner has no images, so it needs to be told what to run: add `run` or `command`";
                return Err(RunnerError::Unsupported(text.to_owned()));
            }
        };
        if arguments.iter().any(|argument| argument.contains('\0')) {
            let detail = "a script or argument holds a NUL byte, which no process can be given".to_owned();
            return Err(RunnerError::Start { name: unit.name.clone(), detail });
        }
        let start = |detail| RunnerError::Start { name: unit.name.clone(), detail };
        let env = self.host.variables(&folder, &unit.env).map_err(start)?;
        let place = self.place(&unit.resources);
        let name = format!("orchestrator-{}-{}", self.settings.instance, unit.name);
        let cgroup = place.as_ref().and_then(|place| place.plan(&name, &unit.resources));
        Ok(Plan {
            name: unit.name.clone(),
            description: Description {
                labels: unit.labels.clone(),
                port: unit.port,
                boot: process::boot_id(),
                cgroup: cgroup.as_ref().map(|plan| plan.folder.clone()),
            },
            launch: Launch {
                folder,
                arguments,
                env,
                restart: unit.restart,
                masked: unit.masked.clone(),
                leader_forwards: matches!(unit.command, Command::Steps(_)),
                cgroup,
                memory_bytes: unit.resources.memory_bytes,
                behind: crate::clock::behind(),
            },
            caches: unit.caches.clone(),
        })
    }

    fn path(&self, name: &UnitName) -> Result<PathBuf, RunnerError> {
        self.store.path(name).map_err(|error| other("cannot name a folder", &error))
    }

    /// Does something with the files of units, on a thread that may wait.
    async fn on_disk<T: Send + 'static>(
        &self,
        what: String,
        work: impl FnOnce(&Store) -> io::Result<T> + Send + 'static,
    ) -> Result<T, RunnerError> {
        let store = self.store.clone();
        let done =
            spawn_blocking(move || work(&store)).await.map_err(|panic| other(&what, &io::Error::other(panic)))?;
        done.map_err(|error| other(&what, &error))
    }

    async fn open(&self, name: &UnitName) -> Result<Folder, RunnerError> {
        let wanted = name.clone();
        let found = self.on_disk(format!("cannot open unit `{name}`"), move |store| store.find(&wanted)).await?;
        found.ok_or_else(|| RunnerError::Absent(name.clone()))
    }

    /// Waits for changes; shared by all who wait.
    fn watch(&self, folder: &Folder) -> Watch {
        let watcher = self.watcher.get_or_init(|| {
            let watcher = Watcher::open();
            watcher
                .inspect_err(|error| tracing::warn!(%error, "no inotify: changes of local units are polled for"))
                .ok()
        });
        Watch::new(watcher.as_ref(), folder.real())
    }

    /// Starts a task that ends with the runner.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn output(&self, folder: Folder) -> Result<Output, RunnerError> {
        let watch = self.watch(&folder);
        let what = format!("cannot read the output in `{}`", folder.real().display());
        let reader = tail::Reader::open(Arc::new(folder)).map_err(|error| other(&what, &error))?;
        let (tx, rx) = mpsc::channel(tail::CHANNEL);
        self.spawn(tail::follow(reader, watch, tx));
        Ok(rx)
    }

    /// Starts a shim and hears what became of it.
    async fn launch(&self, name: &UnitName) -> Result<String, RunnerError> {
        let folder = self.path(name)?;
        let program = self.settings.program.clone();
        let what = format!("cannot start the shim `{}`", program.display());
        let spawned = spawn_blocking(move || {
            let mut shim = Process::new(program);
            shim.arg("shim").arg(folder).env_clear().current_dir("/").kill_on_drop(false);
            shim.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
        });
        // Dropped at the end of this function while it runs; the runtime takes leave of it when it ends.
        let shim = spawned.await.map_err(|panic| other(&what, &io::Error::other(panic)))?;
        let mut shim = shim.map_err(|error| other(&what, &error))?;
        let mut answer = Vec::new();
        if let Some(stdout) = shim.stdout.take() {
            let mut limited = stdout.take(64 * 1024);
            match timeout(ANSWER_PATIENCE, limited.read_to_end(&mut answer)).await {
                Ok(read) => drop(read.map_err(|error| other(&what, &error))?),
                Err(late) => return Err(other("the shim gives no answer", &io::Error::other(late))),
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

fn limits_note(place: Option<&cgroup::Place>, resources: &Resources) -> Option<String> {
    let can = |which: fn(&cgroup::Place) -> bool| place.is_some_and(which);
    let mut weak = Vec::new();
    if resources.cpus.is_some() && !can(|place| place.cpu) {
        weak.push("cpus is not enforced");
    }
    if resources.memory_bytes.is_some() && !can(|place| place.memory) {
        weak.push("memory is checked ten times a second only, so a short peak may pass it");
    }
    if resources.pids.is_some() && !can(|place| place.pids) {
        weak.push("pids is not enforced");
    }
    if resources.gpus.is_some() {
        weak.push("gpus is not enforced: the stage sees all GPUs of this machine");
    }
    let cause = "no cgroup v2 was delegated to this process";
    (!weak.is_empty()).then(|| format!("limits on the local runner: {} ({cause})", weak.join("; ")))
}

#[async_trait]
impl Runner for LocalRunner {
    fn kind(&self) -> &'static str {
        "local"
    }

    fn containers(&self) -> bool {
        false
    }

    async fn prepare_image(
        &self,
        _source: &ImageSource,
        _context: Option<TarStream>,
        _pull: Pull,
        progress: Progress<'_>,
    ) -> Result<PreparedImage, RunnerError> {
        progress("the local runner takes this machine's tools in place of the image".to_owned());
        Ok(PreparedImage { reference: "host".to_owned(), digest: "host".to_owned() })
    }

    async fn create(&self, unit: &UnitSpec, workspace: Option<TarStream>) -> Result<(), RunnerError> {
        let plan = self.plan(unit)?;
        let (tx, rx) = mpsc::channel(ARCHIVE_CHANNEL);
        let incoming = workspace.is_some().then(|| archive::Incoming::new(rx));
        let feed = async move {
            let Some(mut pieces) = workspace else { return };
            while let Some(piece) = pieces.next().await {
                let empty = piece.as_ref().is_ok_and(Bytes::is_empty);
                if !empty && tx.send(piece).await.is_err() {
                    return;
                }
            }
            // The end; an error means that the reader has had enough already.
            let _had_enough = tx.send(Ok(Bytes::new())).await;
        };
        let what = format!("cannot make unit `{}`", unit.name);
        let made = self.on_disk(what, move |store| store.create(&plan, incoming));
        let ((), made) = tokio::join!(feed, made);
        match made? {
            Created::Yes => Ok(()),
            Created::StartedBefore => Err(RunnerError::AlreadyStarted(unit.name.clone())),
        }
    }

    async fn start(&self, name: &UnitName) -> Result<Output, RunnerError> {
        let wanted = name.clone();
        let found = self.on_disk(format!("cannot look at unit `{name}`"), move |store| {
            let Some(folder) = store.find(&wanted)? else { return Ok(None) };
            let status = folder.status()?;
            Ok(Some((folder, status)))
        });
        let (folder, status) = found.await?.ok_or_else(|| RunnerError::Absent(name.clone()))?;
        match status {
            UnitStatus::Created => {}
            UnitStatus::Absent => return Err(RunnerError::Absent(name.clone())),
            UnitStatus::Running | UnitStatus::Exited(_) | UnitStatus::Lost => {
                return Err(RunnerError::AlreadyStarted(name.clone()));
            }
        }
        let answer = self.launch(name).await?;
        let (word, detail) = answer.trim_end().split_once(' ').unwrap_or((answer.trim_end(), ""));
        match word {
            shim::ANSWER_OK => self.output(folder),
            shim::ANSWER_ALREADY => Err(RunnerError::AlreadyStarted(name.clone())),
            shim::ANSWER_START => Err(RunnerError::Start { name: name.clone(), detail: detail.to_owned() }),
            shim::ANSWER_ERROR => Err(RunnerError::Other { runner: "local", detail: detail.to_owned() }),
            _ => {
                let program = self.settings.program.display();
                let detail = format!("the shim of `{name}` ended without a word; is `{program}` still this program?");
                Err(RunnerError::Other { runner: "local", detail })
            }
        }
    }

    async fn reattach(&self, name: &UnitName) -> Result<Output, RunnerError> {
        let folder = self.open(name).await?;
        let started = folder.is_started().map_err(|error| other(&format!("cannot look at unit `{name}`"), &error))?;
        if !started {
            let detail = format!("unit `{name}` has not been started, so it has no output");
            return Err(RunnerError::Other { runner: "local", detail });
        }
        self.output(folder)
    }

    async fn status(&self, name: &UnitName) -> Result<UnitStatus, RunnerError> {
        let wanted = name.clone();
        self.on_disk(format!("cannot look at unit `{name}`"), move |store| store::status(store, &wanted)).await
    }

    /// One that was not started is not waited for.
    async fn wait(&self, name: &UnitName) -> Result<UnitStatus, RunnerError> {
        let wanted = name.clone();
        let what = format!("cannot look at unit `{name}`");
        let found = self.on_disk(what.clone(), move |store| {
            let Some(folder) = store.find(&wanted)? else { return Ok(None) };
            let status = folder.status()?;
            Ok(Some((folder, status)))
        });
        let folder = match found.await? {
            None => return Ok(UnitStatus::Absent),
            Some((folder, UnitStatus::Running)) => folder,
            Some((_, ended)) => return Ok(ended),
        };
        let mut watch = self.watch(&folder);
        let folder = Arc::new(folder);
        loop {
            let same = Arc::clone(&folder);
            match self.on_disk(what.clone(), move |_| same.status()).await? {
                UnitStatus::Running => watch.changed().await,
                ended @ (UnitStatus::Created | UnitStatus::Exited(_) | UnitStatus::Lost | UnitStatus::Absent) => {
                    return Ok(ended);
                }
            }
        }
    }

    async fn signal(&self, name: &UnitName, signal: Signal) -> Result<(), RunnerError> {
        let folder = self.open(name).await?;
        let order = match signal {
            Signal::Term => shim::CONTROL_TERM,
            Signal::Kill => shim::CONTROL_KILL,
        };
        self.on_disk(format!("cannot signal unit `{name}`"), move |_| store::order(&folder, order)).await
    }

    async fn address(&self, name: &UnitName, port: u16) -> Result<SocketAddr, RunnerError> {
        // A unit that was made by another process keeps the port that was picked for it then.
        let own = self.open(name).await?.description().and_then(|description| description.port);
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, own.unwrap_or(port))))
    }

    async fn last_output(&self, name: &UnitName, most: usize) -> Result<Vec<OutputChunk>, RunnerError> {
        let folder = self.open(name).await?;
        self.on_disk(format!("cannot read the output of unit `{name}`"), move |_| last::last(&folder, most)).await
    }

    async fn listener(&self, name: &UnitName, port: u16) -> Result<Listener, RunnerError> {
        let folder = self.open(name).await?;
        self.on_disk(format!("cannot look at unit `{name}`"), move |_| {
            let shim = folder.started()?;
            let family = shim.map(|shim| process::descendants(shim.pid)).transpose()?;
            Ok(ports::listener(port, &family.unwrap_or_default()))
        })
        .await
    }

    async fn collect(&self, name: &UnitName, path: &str) -> Result<Option<TarStream>, RunnerError> {
        let workspace = self.open(name).await?.real().join(folder::WORKSPACE);
        let wanted = path.to_owned();
        let what = format!("cannot collect `{path}` of unit `{name}`");
        let found = self.on_disk(what, move |_| archive::locate(&workspace, &wanted)).await?;
        let Some((found, metadata)) = found else { return Ok(None) };
        let (tx, rx) = mpsc::channel::<io::Result<Bytes>>(ARCHIVE_CHANNEL);
        self.spawn(async move {
            let broken = tx.clone();
            let packed = spawn_blocking(move || archive::pack(&found, &metadata, archive::Outgoing::new(tx))).await;
            if let Err(error) = packed.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
                // Nobody takes the pieces any more: then nobody is told.
                let _gone = broken.send(Err(error)).await;
            }
        });
        Ok(Some(unfold(rx, |mut rx| async move { rx.recv().await.map(|piece| (piece, rx)) }).boxed()))
    }

    async fn remove(&self, name: &UnitName) -> Result<(), RunnerError> {
        let wanted = name.clone();
        self.on_disk(format!("cannot remove unit `{name}`"), move |store| store.remove(&wanted)).await
    }

    async fn list(&self) -> Result<Vec<FoundUnit>, RunnerError> {
        self.on_disk("cannot list units".to_owned(), |store| {
            store.clear()?;
            let mut units = Vec::new();
            for name in store.names()? {
                let Some(folder) = store.find(&name)? else { continue };
                // A damaged description (the machine went down) must not hide the unit from those who clear up.
                let labels = folder.description().unwrap_or_default().labels;
                match folder.status()? {
                    UnitStatus::Absent => {}
                    status @ (UnitStatus::Created | UnitStatus::Running | UnitStatus::Exited(_) | UnitStatus::Lost) => {
                        units.push(FoundUnit { name, labels, status })
                    }
                }
            }
            Ok(units)
        })
        .await
    }

    async fn create_network(&self, _name: &str) -> Result<(), RunnerError> {
        Ok(())
    }

    async fn remove_network(&self, _name: &str) -> Result<(), RunnerError> {
        Ok(())
    }

    async fn list_networks(&self) -> Result<Vec<String>, RunnerError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_do_not_work_are_named() {
        assert_eq!(limits_note(None, &Resources::default()), None);
        let all = Resources { cpus: Some(2.0), memory_bytes: Some(1), pids: Some(1), gpus: None };
        let note = limits_note(None, &all).expect("nothing works");
        for word in ["cpus is not enforced", "memory is checked", "pids is not enforced"] {
            assert!(note.contains(word), "{note}");
        }
    }
}
