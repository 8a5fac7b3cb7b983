//! `orchestrator demo`: a folder with projects, builds and models to look at.
//!
//! ```text
//! folder -> repositories and orchestrator.toml -> a daemon in this process -> the story, commit by commit -> the daemon ends
//! ```
//!
//! Nothing is invented: each build is one that the daemon made of a commit. Only the clock of this process is put back, so that
//! they are of the last weeks.

mod repository;
mod story;
mod tables;
mod teller;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::exit::{self, Usage};
use super::text;
use crate::clock;
use crate::config::load;
use crate::daemon::serve::Daemon;
use crate::engine::paths::Paths;
use repository::Repository;
use story::Scene;
use teller::Teller;

/// Where the daemon listens, as a first one does.
const ADDRESS: &str = "127.0.0.1:8484";
/// Where the players' model serves, or on the next port that is free.
const FIRST_PORT: u16 = 8090;

/// A project of the demo: its name, its pipeline, its other files.
const PROJECTS: [(&str, &str); 3] = [
    ("player-stats", include_str!("player-stats.yaml")),
    ("churn", include_str!("churn.yaml")),
    ("feature-service", include_str!("feature-service.yaml")),
];

/// The number by which GitHub would know a repository.
fn repository_id(at: usize) -> u64 {
    700_001 + at as u64
}

/// `demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where; it must be empty, or not be there
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub folder: PathBuf,
    /// Fewer builds, in half the time
    #[arg(long)]
    pub quick: bool,
}

/// Makes it.
///
/// # Errors
/// [`Usage`] if the folder is not empty; else what cannot be written or run.
pub async fn run(data: Option<&Path>, args: &DemoArgs) -> anyhow::Result<i32> {
    if data.is_some() {
        return Err(Usage(
            "`demo` makes a data folder of its own: leave --data-dir away, unset ORCHESTRATOR_DATA_DIR, and name --folder".to_owned(),
        )
        .into());
    }
    let folder = empty(&args.folder)?;
    let port = free_port()?;
    let scenes = story::story(port, args.quick);
    let oldest = scenes.first().map_or(0.0, |scene| scene.days_ago);
    live(oldest + 0.1);
    let repositories = repositories(&folder)?;
    let file = folder.join("orchestrator.toml");
    secret(&folder.join("webhook-secret")).context("cannot write the webhook secret")?;
    std::fs::write(&file, configuration(&folder)).with_context(|| format!("cannot write `{}`", file.display()))?;
    // Nothing of this shell's environment: the demo is the same everywhere.
    let mut loaded = load::load(Some(&file), &BTreeMap::new())?;
    // Not where a daemon may be listening already.
    loaded.config.server.listen = ([127, 0, 0, 1], 0).into();
    let daemon = Daemon::start(loaded, Paths::new(Some(&folder.join("data")))?).await?;
    let told = tell(&daemon, &repositories, &scenes).await;
    daemon.stop().await;
    told.with_context(|| format!("the demo is not whole; remove `{}` before you make another", folder.display()))?;
    finish(&folder, port);
    Ok(exit::PASSED)
}

async fn tell(
    daemon: &Daemon,
    repositories: &BTreeMap<&'static str, Repository>,
    scenes: &[Scene],
) -> anyhow::Result<()> {
    let teller = Teller::new(daemon.address, repositories)?;
    for (at, scene) in scenes.iter().enumerate() {
        live(scene.days_ago);
        let came = teller.tell(&scene.deed).await?;
        text::remark(&format!("{:>2} of {}  {came}", at + 1, scenes.len()));
    }
    Ok(())
}

/// A file that nobody else may read.
fn secret(file: &Path) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(teller::SECRET.as_bytes())
}

/// This process lives so many days ago.
fn live(days_ago: f64) {
    clock::live_behind((days_ago * 86_400e6) as i64);
}

fn finish(folder: &Path, port: u16) {
    let here = std::env::current_dir().is_ok_and(|current| current == folder);
    let go = if here { String::new() } else { format!("cd {} && ", folder.display()) };
    anstream::println!("\nLook at it:   {go}orchestrator serve        then open http://{ADDRESS}");
    anstream::println!(
        "The champion of player-stats serves on port {port}, also without the daemon. When you are done:"
    );
    anstream::println!(
        "              orchestrator --data-dir {} deployments stop player-stats",
        folder.join("data").display()
    );
}

/// The folder, made if it is not there.
fn empty(folder: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let folder = folder.canonicalize().with_context(|| format!("cannot look at `{}`", folder.display()))?;
    let found = std::fs::read_dir(&folder)?.next().transpose()?;
    if let Some(found) = found {
        let name = found.file_name().to_string_lossy().into_owned();
        return Err(Usage(format!(
            "`{}` is not empty (there is `{name}`), and a demo belongs in a folder of its own: orchestrator demo --folder demo",
            folder.display()
        ))
        .into());
    }
    Ok(folder)
}

fn free_port() -> anyhow::Result<u16> {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (FIRST_PORT..FIRST_PORT + 200).find(free).context("no port from 8090 to 8289 is free")
}

fn repositories(folder: &Path) -> anyhow::Result<BTreeMap<&'static str, Repository>> {
    let mut all = BTreeMap::new();
    for (at, (name, pipeline)) in PROJECTS.into_iter().enumerate() {
        let more = match name {
            "player-stats" => Some(("players.csv", tables::players(1600))),
            "churn" => Some(("customers.csv", tables::customers(1400))),
            _ => None,
        };
        let made = Repository::new(&folder.join(name), repository_id(at), pipeline, more)
            .with_context(|| format!("cannot make the repository `{name}`"))?;
        all.insert(name, made);
    }
    Ok(all)
}

fn configuration(folder: &Path) -> String {
    let quoted = |path: PathBuf| toml_edit::value(path.display().to_string()).to_string();
    let mut text = format!(
        "# Made by `orchestrator demo`. Every key: docs/configuration.md, or `orchestrator config show`.\n\n[server]\nlisten = \
         \"{ADDRESS}\"\n\n[data]\ndir = {}\n\n# A demo on this machine alone: whoever is on it may do everything.\n[auth]\nmode = \"none\"\n",
        quoted(folder.join("data"))
    );
    for (at, (name, _)) in PROJECTS.into_iter().enumerate() {
        text.push_str(&format!(
            "\n[projects.{name}]\nrepository = {}\nrepository_id = {}\npoll = \"watch\"\n# Its stages run as processes of this \
             machine.\ntrusted = true\nwebhook_secret_file = {}\n",
            quoted(folder.join(name)),
            repository_id(at),
            quoted(folder.join("webhook-secret"))
        ));
    }
    text
}
