//! The command line: one file a command. Errors are printed here, for people, with what to do.

pub mod args;
pub mod artifacts;
pub mod backup;
pub mod builds;
mod champion;
pub mod config;
pub mod data;
pub mod deliveries;
mod demo;
pub mod deployment_logs;
pub mod doctor;
pub mod events;
pub mod exit;
pub mod gc;
pub mod init;
pub mod loadtest;
pub mod login;
pub mod logs;
pub mod models;
pub mod place;
pub mod plan;
pub mod project;
mod project_check;
pub mod queue;
pub mod report;
pub mod run;
pub mod schema;
pub mod secrets;
pub mod serve;
pub mod serve_model;
pub mod text;
pub mod tokens;
pub mod tree;
pub mod trigger;
pub mod validate;
pub mod view;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command, DeploymentsArgs, DeploymentsCommand};
use place::{Here, Place};

use crate::words;

/// Runs the program with these arguments (its own name first) and gives its exit code ([`exit`]).
pub fn main(arguments: Vec<OsString>) -> i32 {
    let parsed = Cli::command().try_get_matches_from(arguments).and_then(|matches| {
        let given = |name: &str| matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine);
        let given = Given { server: given("server"), folder: given("data_dir") };
        Cli::from_arg_matches(&matches).map(|cli| (cli, given))
    });
    let (cli, given) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Nothing can be done if the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE } else { exit::PASSED };
        }
    };
    // The daemon has a log of its own, as configured.
    if !matches!(cli.command, Command::Serve(_)) {
        start_tracing(cli.verbose);
    }
    // For every TLS client of this process; a second call in one process (tests) changes nothing.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            text::error(&format!("cannot start: {error}"));
            return exit::FAILED;
        }
    };
    let code = runtime.block_on(dispatch(cli, given)).unwrap_or_else(|error| {
        text::error(&words::chain(error.chain()));
        exit::of_error(&error)
    });
    // Blocking readers (a pipe, a terminal) must not hold the exit up.
    runtime.shutdown_background();
    code
}

fn start_tracing(verbose: u8) {
    let level = match verbose {
        0 => "error",
        1 => "orchestrator=info,warn",
        2 => "orchestrator=debug,info",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("ORCHESTRATOR_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

/// What stands on the command line, not in the environment.
#[derive(Debug, Clone, Copy)]
struct Given {
    server: bool,
    folder: bool,
}

async fn dispatch(cli: Cli, given: Given) -> anyhow::Result<i32> {
    let named = |server| place::Named { server, by_flag: given.server };
    let server = cli.server.filter(|server| !server.is_empty()).map(named);
    let data = cli.data_dir.as_deref();
    let place = || Place::choose(data, server.as_ref());
    let here =
        |command: &str, kind: Here| place::here_only(server.as_ref(), command, kind, given.folder).map(|()| data);
    match cli.command {
        Command::Builds(args) => builds::list(place()?, args).await,
        Command::Show(args) => builds::show(place()?, args).await,
        Command::Cancel(args) => builds::cancel(place()?, args).await,
        Command::Logs(args) => logs::run(place()?, args).await,
        Command::Trigger(args) => trigger::run(place()?, args).await,
        Command::Approve(args) => queue::approve(place()?, args).await,
        Command::Queue(args) => queue::run(place()?, args).await,
        Command::Deliveries(args) => deliveries::run(place()?, args).await,
        Command::Triggers(args) => deliveries::triggers(place()?, args).await,
        Command::Tokens(args) => tokens::run(place()?, args).await,
        Command::Secrets(args) => secrets::run(place()?, args).await,
        Command::Events(args) => events::run(place()?, args).await,
        Command::Login(args) => login::run(args).await,
        Command::Run(args) => run::run(here("run", Here::ByNature)?, args).await,
        Command::Validate(args) => {
            here("validate", Here::ByNature)?;
            validate::run(&args.files, args.json)
        }
        Command::Plan(args) => plan::run(here("plan", Here::ByNature)?, args).await,
        Command::Schema => {
            here("schema", Here::ByNature)?;
            schema::run()
        }
        Command::Init(args) => {
            here("init", Here::ByNature)?;
            init::run(&args.folder, args.force, args.stdout)
        }
        Command::Demo(args) => demo::run(here("demo", Here::ByNature)?, &args).await,
        Command::Retry(args) => run::retry(place()?, args).await,
        Command::Artifacts(args) => artifacts::run(here("artifacts", Here::Reads)?, args).await,
        Command::Models(args) => models::list(here("models", Here::Reads)?, args).await,
        Command::Promote(args) => champion::promote(place()?, args).await,
        Command::Reject(args) => champion::reject(place()?, args).await,
        Command::Rollback(args) => champion::rollback(place()?, args).await,
        Command::Deployments(args) => models::deployments(here("deployments", deployments(&args))?, args).await,
        Command::Loadtest(args) => {
            here("loadtest", Here::ByNature)?;
            loadtest::run(args).await
        }
        Command::Gc(args) => gc::run(here("gc", Here::Changes)?, args).await,
        Command::Backup(args) => backup::backup(here("backup", Here::Changes)?, args).await,
        Command::Restore(args) => backup::restore(here("restore", Here::Changes)?, &args),
        Command::Doctor(args) => doctor::run(here("doctor", Here::Reads)?, args).await,
        Command::Serve(args) => serve::run(here("serve", Here::ByNature)?, args, cli.verbose).await,
        Command::Config(args) => {
            here("config", Here::ByNature)?;
            config::run(&args)
        }
        Command::Project(args) => {
            here("project", Here::ByNature)?;
            project::run(&args).await
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "orchestrator", &mut script);
            text::print(&String::from_utf8_lossy(&script)).map(|()| exit::PASSED)
        }
        Command::ServeModel(args) => serve_model::run(args).await,
    }
}

fn deployments(args: &DeploymentsArgs) -> Here {
    match args.command {
        None | Some(DeploymentsCommand::Logs { .. }) => Here::Reads,
        Some(DeploymentsCommand::Stop { .. } | DeploymentsCommand::Restore { .. }) => Here::Changes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An example as a shell would hand it over: no redirection, no remark behind two blanks.
    fn words(example: &str) -> Vec<String> {
        let without = [" <", " >"]
            .iter()
            .fold(example.split("  ").next().unwrap(), |kept, redirection| kept.split(redirection).next().unwrap());
        let example = without.trim_end_matches(['\\', ' ']);
        let mut words: Vec<String> = Vec::new();
        for (at, part) in example.split('\'').enumerate() {
            if at % 2 == 1 {
                words.push(part.to_owned());
            } else {
                words.extend(part.split_whitespace().map(str::to_owned));
            }
        }
        words
    }

    fn walk(command: &clap::Command, name: &str, seen: &mut usize) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let examples: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  orchestrator ")).collect();
        if name != "orchestrator" {
            assert!(help.contains("Example") && !examples.is_empty(), "`{name} --help` has no example");
        }
        for example in examples {
            let typed = words(&format!("orchestrator {example}"));
            assert!(typed.join(" ").contains(name.trim_start_matches("orchestrator ")), "{name}: {typed:?}");
            let parsed = Cli::command().try_get_matches_from(&typed);
            assert!(parsed.is_ok(), "{name}: {typed:?}: {}", parsed.err().unwrap());
            *seen += 1;
        }
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
            walk(inner, &format!("{name} {}", inner.get_name()), seen);
        }
    }

    #[test]
    fn every_command_has_examples_that_can_be_typed() {
        let mut seen = 0;
        walk(&Cli::command(), "orchestrator", &mut seen);
        assert!(seen > 60, "{seen}");
    }

    /// The commands that a document shows: lines of code blocks, and code within sentences, where arguments may be left away.
    fn shown(document: &str) -> Vec<(String, bool)> {
        let mut found = Vec::new();
        let (mut block, mut carried) = (false, String::new());
        for line in document.lines() {
            if line.trim_start().starts_with("```") {
                block = !block;
            } else if block {
                let line = format!("{carried}{}", line.trim());
                carried.clear();
                if let Some(begun) = line.strip_suffix('\\') {
                    carried = begun.to_owned();
                } else if line.starts_with("orchestrator ") {
                    found.push((line.split(" #").next().unwrap().trim_end().to_owned(), true));
                }
            } else {
                let code = line.split('`').skip(1).step_by(2).filter(|code| code.starts_with("orchestrator "));
                found.extend(code.map(|code| (code.replace(['[', ']'], ""), false)));
            }
        }
        found
    }

    #[test]
    fn the_commands_in_the_documents_can_be_typed() {
        use clap::error::ErrorKind;
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
        files.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
        let mut seen = 0;
        for file in files {
            for (command, whole) in shown(&std::fs::read_to_string(&file).unwrap()) {
                let typed = words(&command).into_iter().map(|word| match word.as_str() {
                    "N" | "BUILD" | "VERSION" => "1".to_owned(),
                    _ => word,
                });
                let Err(error) = Cli::command().try_get_matches_from(typed) else {
                    seen += 1;
                    continue;
                };
                let short = matches!(
                    error.kind(),
                    ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                );
                assert!(short && !whole, "{}: `{command}`: {error}", file.display());
            }
        }
        assert!(seen > 50, "{seen}");
    }
}
