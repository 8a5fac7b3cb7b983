//! The configuration, kept fresh while the daemon runs.
//!
//! The folder is watched, not the file: editors replace files by renaming, and a mounted volume swaps a symbolic link.
//! A file that became bad or went away changes nothing but [`ConfigState::problem`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};

use super::describe::{Shown, in_force};
use super::load::{LoadError, Loaded, load};
use super::types::Config;
use crate::pipeline::diagnostic::Colour;

/// How long the file must be quiet before it is read: editors write in several steps.
const QUIET: Duration = Duration::from_millis(200);
/// The file is looked at this often even without an event: network file systems send none.
const AT_LEAST: Duration = Duration::from_secs(30);

/// What holds now.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigState {
    /// The newest good configuration. What needs a restart has the values of the start.
    pub current: Arc<Config>,
    /// Why the file as it is now is not in force.
    pub problem: Option<LoadError>,
    /// Keys that were changed since the start and wait for a restart.
    pub restart_needed: Vec<&'static str>,
    /// Every key as the newest good file has it, for people.
    pub shown: Arc<Vec<Shown>>,
    /// The file; none if all is default.
    pub file: Option<Arc<PathBuf>>,
}

/// Keeps the configuration fresh; ends when dropped.
#[derive(Debug)]
pub struct ConfigWatch {
    state: watch::Receiver<ConfigState>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for ConfigWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ConfigWatch {
    /// Begins with what was loaded at the start. Without a file nothing will change.
    ///
    /// # Errors
    /// If the folder cannot be watched.
    pub fn start(loaded: Loaded, variables: BTreeMap<String, String>) -> Result<Self, notify::Error> {
        let shown = Arc::new(in_force(&loaded.values));
        let start = Arc::new(loaded.config);
        let file = loaded.file.clone().map(Arc::new);
        let first = ConfigState { current: Arc::clone(&start), problem: None, restart_needed: Vec::new(), shown, file };
        let (sender, state) = watch::channel(first);
        let Some(file) = loaded.file else {
            return Ok(Self { state, task: tokio::spawn(std::future::pending()) });
        };
        // Room for one: that something happened is all that counts.
        let (wake, woken) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            let _ = wake.try_send(());
        })?;
        let mut folders = BTreeSet::new();
        follow(&mut watcher, &file, &mut folders)?;
        let task = tokio::spawn(Follow { file, variables, start, sender, woken, watcher, folders }.run());
        Ok(Self { state, task })
    }

    /// What holds now, and every change of it.
    pub fn subscribe(&self) -> watch::Receiver<ConfigState> {
        self.state.clone()
    }
}

/// Watches the file's folder and, if it is a link, the folders on the way to what it leads to.
fn follow(watcher: &mut RecommendedWatcher, file: &Path, folders: &mut BTreeSet<PathBuf>) -> Result<(), notify::Error> {
    let mut wanted = BTreeSet::new();
    wanted.extend(file.parent().map(Path::to_owned));
    // The last folder too: `file -> data/file`, `data -> 2026-01`.
    wanted.extend(file.canonicalize().ok().and_then(|target| target.parent().map(Path::to_owned)));
    let mut link = file.to_owned();
    for _ in 0..8 {
        let Ok(target) = link.read_link() else { break };
        link = link.parent().unwrap_or(Path::new("/")).join(target);
        wanted.extend(link.parent().map(Path::to_owned));
    }
    for gone in folders.difference(&wanted).cloned().collect::<Vec<_>>() {
        // It may be gone, and its watch with it.
        let _ = watcher.unwatch(&gone);
        folders.remove(&gone);
    }
    for folder in wanted {
        // Again each time: the same name may lead to another folder now.
        if !folders.is_empty() {
            let _ = watcher.unwatch(&folder);
        }
        match watcher.watch(&folder, RecursiveMode::NonRecursive) {
            Ok(()) => {
                folders.insert(folder);
            }
            Err(error) if Some(folder.as_path()) == file.parent() => return Err(error),
            // A folder on the way that is gone is told as an unreadable file.
            Err(_) => {}
        }
    }
    Ok(())
}

struct Follow {
    file: PathBuf,
    variables: BTreeMap<String, String>,
    start: Arc<Config>,
    sender: watch::Sender<ConfigState>,
    woken: mpsc::Receiver<()>,
    watcher: RecommendedWatcher,
    folders: BTreeSet<PathBuf>,
}

impl Follow {
    async fn run(mut self) {
        loop {
            // The time-out is the second way to learn of a change; the end of the channel cannot come before our own.
            let _ = tokio::time::timeout(AT_LEAST, self.woken.recv()).await;
            while let Ok(Some(())) = tokio::time::timeout(QUIET, self.woken.recv()).await {}
            self.look().await;
        }
    }

    async fn look(&mut self) {
        if let Err(error) = follow(&mut self.watcher, &self.file, &mut self.folders) {
            tracing::warn!(%error, "the configuration's folder cannot be watched; it is looked at every 30 s");
        }
        let (file, variables) = (self.file.clone(), self.variables.clone());
        let Ok(loaded) = tokio::task::spawn_blocking(move || load(Some(&file), &variables)).await else { return };
        let before = self.sender.borrow().clone();
        let after = next(&self.start, &before, loaded.map(|loaded| (loaded.config, in_force(&loaded.values))));
        if after == before {
            return;
        }
        match &after.problem {
            Some(problem) => tracing::error!(
                "the changed configuration is NOT in force, the old one stays:\n{}",
                problem.render(Colour::Never)
            ),
            None => tracing::info!(file = %self.file.display(), "the configuration is up to date"),
        }
        if after.restart_needed != before.restart_needed && !after.restart_needed.is_empty() {
            tracing::warn!(keys = after.restart_needed.join(", "), "these changes wait for a restart");
        }
        let _ = self.sender.send(after);
    }
}

/// The state after a look at the file.
fn next(start: &Config, before: &ConfigState, loaded: Result<(Config, Vec<Shown>), LoadError>) -> ConfigState {
    match loaded {
        Err(problem) => ConfigState { problem: Some(problem), ..before.clone() },
        Ok((mut config, shown)) => {
            let restart_needed = hold_back(start, &mut config);
            // The same pointer for the same content: receivers can compare cheaply.
            let current = if *before.current == config { Arc::clone(&before.current) } else { Arc::new(config) };
            ConfigState { current, problem: None, restart_needed, shown: Arc::new(shown), file: before.file.clone() }
        }
    }
}

/// Puts back what only a restart can change, and names it.
fn hold_back(start: &Config, config: &mut Config) -> Vec<&'static str> {
    let mut held = Vec::new();
    let mut hold = |changed: bool, key: &'static str| {
        if changed {
            held.push(key);
        }
    };
    // Made from the new address, it changes with that and need not be named beside it.
    let own = config.server.public_url != config.server.usual_url();
    hold(start.server.listen != config.server.listen, "server.listen");
    hold(own && start.server.public_url != config.server.public_url, "server.public_url");
    hold(start.server.tls != config.server.tls, "server.tls");
    hold(start.server.trusted_proxies != config.server.trusted_proxies, "server.trusted_proxies");
    hold(start.data_dir != config.data_dir, "data.dir");
    hold(start.metrics != config.metrics, "metrics");
    hold(start.log != config.log, "log");
    hold(start.artifacts != config.artifacts, "artifacts");
    hold(start.auth != config.auth, "auth");
    hold(hosts(start).ne(hosts(config)), "runners.<name>.host");
    config.server = start.server.clone();
    config.data_dir.clone_from(&start.data_dir);
    config.metrics = start.metrics.clone();
    config.log = start.log.clone();
    config.artifacts = start.artifacts.clone();
    config.auth = start.auth.clone();
    for (name, runner) in &mut config.runners {
        runner.host = start.runners.get(name).and_then(|runner| runner.host.clone());
    }
    held
}

/// Where the engines are.
fn hosts(config: &Config) -> impl Iterator<Item = (&String, &String)> {
    config.runners.iter().filter_map(|(name, runner)| Some((name, runner.host.as_ref()?)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Folder {
        root: tempfile::TempDir,
    }

    impl Folder {
        fn new(text: &str) -> Self {
            let root = tempfile::tempdir().expect("a folder");
            fs::write(root.path().join("orchestrator.toml"), text).expect("written");
            Self { root }
        }

        fn file(&self) -> PathBuf {
            self.root.path().join("orchestrator.toml")
        }

        fn start(&self) -> ConfigWatch {
            let loaded = load(Some(&self.file()), &BTreeMap::new()).expect("valid");
            ConfigWatch::start(loaded, BTreeMap::new()).expect("watched")
        }
    }

    fn waiting(number: usize) -> String {
        format!("[queue]\nmax_waiting = {number}\n")
    }

    /// Waits until it is so; the test's own limit is generous because machines are busy.
    async fn until(state: &mut watch::Receiver<ConfigState>, what: impl FnMut(&ConfigState) -> bool) {
        tokio::time::timeout(Duration::from_secs(20), state.wait_for(what)).await.expect("in time").expect("alive");
    }

    #[tokio::test]
    async fn a_change_and_a_bad_change_and_a_mended_one() {
        let folder = Folder::new(&waiting(1));
        let watch = folder.start();
        let mut state = watch.subscribe();
        fs::write(folder.file(), waiting(2)).expect("written");
        until(&mut state, |state| state.current.max_waiting == 2).await;
        fs::write(folder.file(), "[queue]\nmax_wating = 3\n").expect("written");
        until(&mut state, |state| state.problem.is_some()).await;
        assert_eq!(state.borrow().current.max_waiting, 2);
        let text = state.borrow().problem.as_ref().expect("a problem").render(Colour::Never);
        assert!(text.contains("did you mean `max_waiting`?") && text.contains(":2:1"), "{text}");
        fs::write(folder.file(), waiting(4)).expect("written");
        until(&mut state, |state| state.problem.is_none() && state.current.max_waiting == 4).await;
    }

    #[tokio::test]
    async fn renamed_over_then_removed_and_restored() {
        let folder = Folder::new(&waiting(1));
        let watch = folder.start();
        let mut state = watch.subscribe();
        for number in 2..4 {
            let new = folder.root.path().join(".new");
            fs::write(&new, waiting(number)).expect("written");
            fs::rename(&new, folder.file()).expect("renamed");
            until(&mut state, |state| state.current.max_waiting == number).await;
        }
        fs::remove_file(folder.file()).expect("removed");
        until(&mut state, |state| matches!(state.problem, Some(LoadError::Unreadable { .. }))).await;
        assert_eq!(state.borrow().current.max_waiting, 3);
        fs::write(folder.file(), waiting(5)).expect("written");
        until(&mut state, |state| state.problem.is_none() && state.current.max_waiting == 5).await;
    }

    #[tokio::test]
    async fn a_mounted_volume_swaps_its_link() {
        let folder = Folder::new("");
        let root = folder.root.path();
        let version = |name: &str, number| {
            fs::create_dir(root.join(name)).expect("made");
            fs::write(root.join(name).join("orchestrator.toml"), waiting(number)).expect("written");
            let link = root.join("..link");
            std::os::unix::fs::symlink(name, &link).expect("linked");
            fs::rename(link, root.join("..data")).expect("swapped");
        };
        fs::remove_file(folder.file()).expect("removed");
        version("..v1", 1);
        std::os::unix::fs::symlink("..data/orchestrator.toml", folder.file()).expect("linked");
        let watch = folder.start();
        let mut state = watch.subscribe();
        version("..v2", 2);
        fs::remove_dir_all(root.join("..v1")).expect("removed");
        until(&mut state, |state| state.current.max_waiting == 2).await;
        version("..v3", 3);
        until(&mut state, |state| state.current.max_waiting == 3).await;
    }

    #[tokio::test]
    async fn what_needs_a_restart_is_named_and_not_applied() {
        let folder = Folder::new("");
        let watch = folder.start();
        let mut state = watch.subscribe();
        let text = "[server]\nlisten = \"127.0.0.1:9\"\n[data]\ndir = \"x\"\n[queue]\nmax_waiting = 7\n";
        fs::write(folder.file(), text).expect("written");
        until(&mut state, |state| state.current.max_waiting == 7).await;
        {
            let state = state.borrow();
            assert_eq!(state.restart_needed, ["server.listen", "data.dir"]);
            assert_eq!(state.current.server.listen.port(), 8484);
            assert_eq!(state.current.server.public_url, "http://127.0.0.1:8484");
            assert_eq!(state.current.data_dir, None);
        }
        let text = "[server]\npublic_url = \"https://ci.example.org\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n\
                    [metrics]\nenabled = false\n[log]\nlevel = \"debug\"\n[auth]\nmode = \"none\"\n\
                    [runners.docker]\nhost = \"tcp://127.0.0.1:1\"\nslots = 3\n[queue]\nmax_waiting = 8\n";
        fs::write(folder.file(), text).expect("written");
        until(&mut state, |state| state.current.max_waiting == 8).await;
        let state = state.borrow();
        let named = ["server.public_url", "server.trusted_proxies", "metrics", "log", "auth", "runners.<name>.host"];
        assert_eq!(state.restart_needed, named);
        let current = &state.current;
        assert_eq!((&*current.server.public_url, current.metrics.enabled), ("http://127.0.0.1:8484", true));
        assert_eq!((&current.runners["docker"].host, current.runners["docker"].slots), (&None, 3));
        assert_eq!(current.auth.mode, crate::config::types::AuthMode::Token);
    }
}
