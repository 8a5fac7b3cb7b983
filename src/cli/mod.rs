//! The command line: one file a command. Errors are printed here, for people, with what to do.

pub mod args;
pub mod artifacts;
pub mod backup;
pub mod builds;
pub mod config;
pub mod data;
pub mod deliveries;
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

use args::{Cli, Command};
use place::Place;

/// Runs the program with these arguments (its own name first) and gives its exit code ([`exit`]).
pub fn main(arguments: Vec<OsString>) -> i32 {
    let parsed = Cli::command().try_get_matches_from(arguments).and_then(|matches| {
        let by_flag = matches.value_source("server") == Some(clap::parser::ValueSource::CommandLine);
        Cli::from_arg_matches(&matches).map(|cli| (cli, by_flag))
    });
    let (cli, by_flag) = match parsed {
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
    let code = runtime.block_on(dispatch(cli, by_flag)).unwrap_or_else(|error| {
        text::error(&format!("{error:#}"));
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

async fn dispatch(cli: Cli, by_flag: bool) -> anyhow::Result<i32> {
    let server = cli.server.filter(|server| !server.is_empty()).map(|server| place::Named { server, by_flag });
    let data = cli.data_dir.as_deref();
    let place = || Place::choose(data, server.as_ref());
    let here = || place::here_only(server.as_ref()).map(|()| data);
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
        Command::Run(args) => run::run(here()?, args).await,
        Command::Validate(args) => validate::run(&args.files, args.json),
        Command::Plan(args) => plan::run(here()?, args).await,
        Command::Schema => schema::run(),
        Command::Init(args) => init::run(&args.folder, args.force, args.stdout),
        Command::Retry(args) => run::retry(place()?, args).await,
        Command::Artifacts(args) => artifacts::run(here()?, args).await,
        Command::Models(args) => models::list(here()?, args).await,
        Command::Promote(args) => models::promote(here()?, args).await,
        Command::Rollback(args) => models::rollback(here()?, args).await,
        Command::Deployments(args) => models::deployments(here()?, args).await,
        Command::Loadtest(args) => loadtest::run(args).await,
        Command::Gc(args) => gc::run(here()?, args).await,
        Command::Backup(args) => backup::backup(here()?, args).await,
        Command::Restore(args) => backup::restore(here()?, &args),
        Command::Doctor(args) => doctor::run(here()?, args).await,
        Command::Serve(args) => serve::run(here()?, args, cli.verbose).await,
        Command::Config(args) => config::run(&args),
        Command::Project(args) => project::run(&args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "orchestrator", &mut std::io::stdout());
            Ok(exit::PASSED)
        }
        Command::ServeModel(args) => serve_model::run(args).await,
    }
}
