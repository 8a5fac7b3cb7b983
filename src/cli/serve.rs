//! `orchestrator serve`: the daemon, until a signal ends it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{exit, text};
use crate::config::load::{self, LoadError};
use crate::config::types::AuthMode;
use crate::daemon::serve::Daemon;
use crate::engine::paths::Paths;
use crate::pipeline::{Colour, render};

/// `serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The configuration file [default: $ORCHESTRATOR_CONFIG, ./orchestrator.toml, the user's, /etc/orchestrator's]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// If it cannot start. A configuration that is not valid is told here.
pub async fn run(data: Option<&Path>, args: ServeArgs, verbose: u8) -> anyhow::Result<i32> {
    let file = load::find(args.config.as_deref());
    let loaded = match load::load(file.as_deref(), &load::environment()) {
        Ok(loaded) => loaded,
        Err(error @ LoadError::Unreadable { .. }) => return Err(error.into()),
        Err(error @ LoadError::Invalid { .. }) => {
            anstream::eprint!("{}", error.render(Colour::Always));
            return Ok(exit::FAILED);
        }
    };
    start_log(&loaded.config.log, verbose);
    if !loaded.warnings.is_empty() {
        anstream::eprint!("{}", render(&loaded.warnings, &loaded.shown, Colour::Always));
    }
    let paths = Paths::new(data.or(loaded.config.data_dir.as_deref()))?;
    let folder = paths.root().display().to_string();
    let (url, projects) = (loaded.config.server.public_url.clone(), loaded.config.projects.len());
    let open = loaded.config.auth.mode == AuthMode::None;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let daemon = Daemon::start(loaded, paths).await?;
    let of = file.map_or_else(|| "no configuration file, all defaults".to_owned(), |file| file.display().to_string());
    tracing::info!(address = %daemon.address, url, metrics = daemon.metrics_address.map(tracing::field::display), data = folder, configuration = of, projects, "ready");
    if let Some(token) = &daemon.first_token {
        // Once, on the terminal and not in the log: it is stored as a hash only.
        anstream::println!(
            "The first token, for everything, shown this once:\n\n  {token}\n\nKeep it. Others are made on this machine: orchestrator tokens create laptop --scope admin"
        );
    }
    if open {
        tracing::warn!("auth.mode is none: whoever reaches {url} may do everything");
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    text::remark("stopping: what runs goes on, and is taken up by the next start (once more ends at once)");
    tokio::select! {
        () = daemon.stop() => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(exit::PASSED)
}

fn start_log(log: &crate::config::types::Log, verbose: u8) {
    let level = match verbose {
        0 => format!("orchestrator={},warn", log.level),
        1 => "orchestrator=debug,info".to_owned(),
        _ => "trace".to_owned(),
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("ORCHESTRATOR_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let terminal = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    // A second start in one process (tests) keeps the first.
    let _ = if log.json { subscriber.json().try_init() } else { subscriber.try_init() };
}
