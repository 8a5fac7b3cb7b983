//! `orchestrator config`: what is in force, what is wrong, a file to begin with.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{data, exit, text};
use crate::config::describe::{Shown, in_force, starting_file};
use crate::config::load::{FILE_NAME, LoadError, Loaded, environment};
use crate::config::{self, Values};
use crate::pipeline::{Colour, Diagnostic, render};
use crate::words;

/// `config`
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The configuration file [default: $ORCHESTRATOR_CONFIG, ./orchestrator.toml, the user's, /etc/orchestrator's]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// `config show|check|init`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every key: its meaning, the value in force, and where that comes from
    #[command(after_help = "Examples:\n  orchestrator config show\n  orchestrator config show --default")]
    Show {
        /// The defaults, whatever file there is
        #[arg(long)]
        default: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell everything that is wrong with the file
    #[command(after_help = "Example:\n  orchestrator config check orchestrator.toml")]
    Check {
        /// The file
        file: Option<PathBuf>,
        /// Print findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a commented file to begin with
    #[command(
        after_help = "Examples:\n  orchestrator config init\n  orchestrator config init /etc/orchestrator/orchestrator.toml"
    )]
    Init {
        /// Where to
        #[arg(default_value = FILE_NAME)]
        file: PathBuf,
        /// Print it, write nothing
        #[arg(long)]
        stdout: bool,
    },
}

/// Does what was asked.
///
/// # Errors
/// If a file cannot be read or written. An invalid file is told here and gives an exit code.
pub fn run(args: &ConfigArgs) -> anyhow::Result<i32> {
    match &args.command {
        ConfigCommand::Show { default: true, json } => show(&Values::default(), None, *json),
        ConfigCommand::Show { default: false, json } => match load(args.config.as_deref())? {
            Some(loaded) => show(&loaded.values, loaded.file.as_deref(), *json),
            None => Ok(exit::FAILED),
        },
        ConfigCommand::Check { file, json } => check(file.as_deref().or(args.config.as_deref()), *json),
        ConfigCommand::Init { stdout: true, .. } => {
            text::line(starting_file().trim_end());
            Ok(exit::PASSED)
        }
        ConfigCommand::Init { file, stdout: false } => init(file),
    }
}

/// Reads the configuration and prints warnings, or what is wrong with it and gives `None`.
///
/// # Errors
/// If the file cannot be read.
pub fn load(given: Option<&Path>) -> anyhow::Result<Option<Loaded>> {
    match config::load(config::find(given).as_deref(), &environment()) {
        Ok(loaded) => {
            anstream::eprint!("{}", render(&loaded.warnings, &loaded.shown, Colour::Always));
            Ok(Some(loaded))
        }
        Err(error @ LoadError::Unreadable { .. }) => Err(error.into()),
        Err(error @ LoadError::Invalid { .. }) => {
            anstream::eprint!("{}", error.render(Colour::Always));
            Ok(None)
        }
    }
}

fn show(values: &Values, file: Option<&Path>, json: bool) -> anyhow::Result<i32> {
    #[derive(Serialize)]
    struct All<'a> {
        file: Option<&'a Path>,
        keys: Vec<Shown>,
    }
    let keys = in_force(values);
    if json {
        data::print_json(&All { file, keys })?;
        return Ok(exit::PASSED);
    }
    text::line(&match file {
        Some(file) => format!("file: {}", file.display()),
        None => "file: none, all is default".to_owned(),
    });
    let mut table = "";
    for key in &keys {
        let (head, word) = split(&key.key);
        if head != table {
            text::line(&format!("\n{}", text::paint(text::BOLD, format!("[{head}]"))));
            table = head;
        }
        let value = key.value.as_deref().unwrap_or("-");
        text::line(&format!("{word} = {value}  {}", text::paint(text::DIM, format!("({})", key.origin))));
        text::line(&format!("    {}", text::paint(text::DIM, key.doc)));
    }
    Ok(exit::PASSED)
}

fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

fn check(given: Option<&Path>, json: bool) -> anyhow::Result<i32> {
    let Some(file) = config::find(given) else {
        text::line("there is no configuration file, so all is default; write one by `orchestrator config init`");
        return Ok(exit::PASSED);
    };
    let outcome = config::load(Some(&file), &environment());
    let (good, found, shown): (bool, Vec<Diagnostic>, String) = match outcome {
        Ok(loaded) => (true, loaded.warnings, loaded.shown),
        Err(LoadError::Invalid { found, shown, .. }) => (false, found, shown),
        Err(error @ LoadError::Unreadable { .. }) => return Err(error.into()),
    };
    if json {
        data::print_json(&found)?;
    } else {
        anstream::eprint!("{}", render(&found, &shown, Colour::Always));
        let word = if good { "valid" } else { "invalid" };
        text::line(&format!("{}: {word}, {}", file.display(), words::count(found.len(), "finding")));
    }
    Ok(if good { exit::PASSED } else { exit::FAILED })
}

fn init(file: &Path) -> anyhow::Result<i32> {
    use std::io::Write;
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(file);
    let mut made =
        made.with_context(|| format!("cannot make `{}` (a file that is there stays as it is)", file.display()))?;
    made.write_all(starting_file().as_bytes()).with_context(|| format!("cannot write `{}`", file.display()))?;
    text::line(&format!("wrote {}; next: orchestrator project add NAME --repository …", file.display()));
    Ok(exit::PASSED)
}
