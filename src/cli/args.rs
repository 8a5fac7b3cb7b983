//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::backup::BackupArgs;
use super::champion::{PromoteArgs, RollbackArgs};
use super::config::ConfigArgs;
use super::deliveries::{DeliveriesArgs, TriggersArgs};
use super::demo::DemoArgs;
use super::events::EventsArgs;
use super::loadtest::LoadtestArgs;
use super::login::LoginArgs;
use super::project::ProjectArgs;
use super::queue::{ApproveArgs, QueueArgs};
use super::secrets::SecretsArgs;
use super::tokens::TokensArgs;
use super::trigger::TriggerArgs;
use crate::ids::BuildId;

const EXIT_CODES: &str = "Exit codes: 0 passed, 1 failed, 2 usage, 3 invalid pipeline, 4 no container engine, 5 no server, 6 not allowed by the \
     server, 130 cancelled.";

/// CI/CD for machine-learning teams: train, test, load-test and promote a model only if it is provably better.
#[derive(Debug, Parser)]
#[command(name = "orchestrator", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    /// Where history, logs, artifacts and models are kept [default: $XDG_DATA_HOME/orchestrator]
    #[arg(long, global = true, value_name = "DIR", env = "ORCHESTRATOR_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Ask this daemon instead of the data folder (builds, show, logs, cancel, retry, trigger, queue, ...); `login` keeps a token
    #[arg(long, global = true, value_name = "URL", env = "ORCHESTRATOR_SERVER")]
    pub server: Option<String>,
    /// Tell what the program itself does (-vv: more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a pipeline on this machine
    #[command(
        after_help = "Examples:\n  orchestrator run pipeline.yaml\n  orchestrator run pipeline.yaml --param trees=200 --stage train\n  orchestrator run --resume\n\nCtrl-C once cancels (clean-up stages still run), twice kills.\nExit codes: 0 passed, 1 failed, 2 usage, 3 invalid pipeline, 4 no container engine, 130 cancelled."
    )]
    Run(RunArgs),
    /// Check pipeline files
    #[command(after_help = "Example:\n  orchestrator validate pipelines/*.yaml")]
    Validate(ValidateArgs),
    /// Show what a run would do: stages, cells, why each runs, is skipped or reused
    #[command(after_help = "Example:\n  orchestrator plan pipeline.yaml --param trees=200")]
    Plan(PlanArgs),
    /// Print the JSON Schema of the pipeline language
    #[command(after_help = "Example:\n  orchestrator schema > pipeline.schema.json")]
    Schema,
    /// Make projects, builds and models to look at: `orchestrator demo && orchestrator serve`
    #[command(
        after_help = "Examples:\n  orchestrator demo\n  orchestrator demo --folder demo --quick\n\nThe builds are real ones, made now on this machine in about two minutes; their times are of the last weeks."
    )]
    Demo(DemoArgs),
    /// Look at a folder and write a starting pipeline for it
    #[command(after_help = "Example:\n  orchestrator init .")]
    Init(InitArgs),
    /// List builds, newest first
    #[command(after_help = "Examples:\n  orchestrator builds\n  orchestrator builds --project churn --limit 50 --json")]
    Builds(BuildsArgs),
    /// Show one build: stages, attempts, metrics, verdicts
    #[command(after_help = "Example:\n  orchestrator show 12")]
    Show(ShowArgs),
    /// End a build: one that nobody drives any more, or with --server any
    #[command(
        after_help = "Examples:\n  orchestrator cancel 12\n  orchestrator --server https://ci.example.org cancel 12"
    )]
    Cancel(CancelArgs),
    /// Run a build that has ended again, in part or whole, and watch it to its end
    #[command(
        after_help = "Examples:\n  orchestrator retry 12                 what did not end well, and what stands behind it\n  \
                      orchestrator retry 12 --stage loadtest\n  orchestrator retry 12 --all\n\n\
                      It stays the same build, of the same source, with new attempts."
    )]
    Retry(RetryArgs),
    /// Keep a token for a server
    #[command(
        after_help = "Examples:\n  orchestrator login https://ci.example.org\n  orchestrator login https://ci.example.org < token\n\n\
                      ORCHESTRATOR_TOKEN goes before what is kept."
    )]
    Login(LoginArgs),
    /// Ask a daemon for a build
    #[command(
        after_help = "Examples:\n  orchestrator trigger churn --wait\n  orchestrator trigger churn --branch next --param trees=200"
    )]
    Trigger(TriggerArgs),
    /// Let a build begin that waits for a person
    #[command(after_help = "Example:\n  orchestrator approve 12")]
    Approve(ApproveArgs),
    /// Show who waits for what, pause or resume, move a waiting build
    #[command(
        after_help = "Examples:\n  orchestrator queue\n  orchestrator queue pause --reason 'new disks'\n  orchestrator queue move 12 front"
    )]
    Queue(QueueArgs),
    /// List webhook calls with what came of each, or decide upon one again
    #[command(
        after_help = "Examples:\n  orchestrator deliveries\n  orchestrator deliveries show 7\n  orchestrator deliveries replay 7"
    )]
    Deliveries(DeliveriesArgs),
    /// List all that started builds, or did not, and why
    #[command(after_help = "Example:\n  orchestrator triggers --project churn")]
    Triggers(TriggersArgs),
    /// Make, list and end tokens
    #[command(
        after_help = "Examples:\n  orchestrator tokens create laptop --scope admin\n  orchestrator tokens create ci --scope trigger --project churn \
                      --days 90\n  orchestrator tokens revoke 3\n\nWithout --server it works on the data folder: so one gets in again who has lost every token."
    )]
    Tokens(TokensArgs),
    /// Set, list and remove the secrets of the daemon's builds
    #[command(
        after_help = "Examples:\n  orchestrator secrets set REGISTRY_TOKEN --project churn\n  orchestrator secrets set REGISTRY_TOKEN --project churn \
                      --branch main --stage publish < token\n  orchestrator secrets list --project churn\n\nBuilds of `orchestrator run` take theirs from the environment."
    )]
    Secrets(SecretsArgs),
    /// Print what happened to a build
    #[command(after_help = "Example:\n  orchestrator events -f 12")]
    Events(EventsArgs),
    /// Print the log of a stage
    #[command(after_help = "Examples:\n  orchestrator logs 12 train\n  orchestrator logs -f 12 train")]
    Logs(LogsArgs),
    /// List a build's artifacts, or get them
    #[command(
        after_help = "Examples:\n  orchestrator artifacts list 12\n  orchestrator artifacts get 12 train model.json"
    )]
    Artifacts(ArtifactsArgs),
    /// List models, or show one with its versions and promotions
    #[command(after_help = "Examples:\n  orchestrator models\n  orchestrator models show player-stats")]
    Models(ModelsArgs),
    /// Make a version the champion by hand
    #[command(after_help = "Example:\n  orchestrator promote player-stats 3 --reason 'agreed with the team'")]
    Promote(PromoteArgs),
    /// Keep a version from being promoted by a pipeline
    #[command(after_help = "Example:\n  orchestrator reject player-stats 4 --reason 'trained on last season alone'")]
    Reject(PromoteArgs),
    /// Go back to the champion before
    #[command(after_help = "Example:\n  orchestrator rollback player-stats --reason 'wrong answers for keepers'")]
    Rollback(RollbackArgs),
    /// List what serves where, or stop it
    #[command(after_help = "Examples:\n  orchestrator deployments\n  orchestrator deployments stop player-stats")]
    Deployments(DeploymentsArgs),
    /// Put load on a URL and judge it
    Loadtest(Box<LoadtestArgs>),
    /// Remove what nobody owns: containers, processes, networks, unreferenced artifacts
    #[command(after_help = "Examples:\n  orchestrator gc --dry-run\n  orchestrator gc --keep-builds 100")]
    Gc(GcArgs),
    /// Write the data folder into one file, while builds and a daemon run
    #[command(
        after_help = "Example:\n  orchestrator backup /backups/orchestrator.tar\n\nIt holds rows, logs and artifacts (those in a bucket stay there), not the key of secrets."
    )]
    Backup(BackupArgs),
    /// Make a data folder of a backup
    #[command(
        after_help = "Example:\n  orchestrator --data-dir /var/lib/orchestrator restore /backups/orchestrator.tar"
    )]
    Restore(BackupArgs),
    /// Look whether this machine has what builds need, and with --deep whether the data folder is whole
    #[command(after_help = "Examples:\n  orchestrator doctor\n  orchestrator doctor --deep")]
    Doctor(DoctorArgs),
    /// Run the daemon: webhooks, polling, schedules, queue, API
    #[command(
        after_help = "Examples:\n  orchestrator serve\n  orchestrator serve --config /etc/orchestrator/orchestrator.toml\n\n\
                      SIGTERM or Ctrl-C stops it in a few seconds; builds go on with the next start."
    )]
    Serve(super::serve::ServeArgs),
    /// Show, check or begin the daemon's configuration
    #[command(
        after_help = "Examples:\n  orchestrator config init\n  orchestrator config check\n  orchestrator config show"
    )]
    Config(ConfigArgs),
    /// Add, list, remove or check the projects that the daemon builds
    #[command(
        after_help = "Examples:\n  orchestrator project add api --repository /srv/git/api\n  orchestrator project list\n  orchestrator project check api"
    )]
    Project(ProjectArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  orchestrator completions bash > /etc/bash_completion.d/orchestrator")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Serve a model of the built-in trainer
    #[command(hide = true)]
    ServeModel(ServeModelArgs),
}

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The pipeline file
    #[arg(default_value = "pipeline.yaml")]
    pub file: PathBuf,
    /// Go on with an interrupted build (the newest one, or this one)
    #[arg(long, value_name = "BUILD", num_args = 0..=1, conflicts_with_all = ["param", "stage", "from", "source"])]
    pub resume: Option<Option<BuildId>>,
    /// Set a parameter
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub param: Vec<String>,
    /// Read secrets from a file of NAME=VALUE lines; else they come from the environment
    #[arg(long, value_name = "FILE")]
    pub secret_file: Vec<PathBuf>,
    /// Run only this stage and what it needs (repeatable)
    #[arg(long, value_name = "STAGE")]
    pub stage: Vec<String>,
    /// Run anew from this stage on; what stands before it is taken from earlier builds
    #[arg(long, value_name = "STAGE", conflicts_with = "stage")]
    pub from: Option<String>,
    /// Run every stage on this runner: docker or local
    #[arg(long, value_name = "RUNNER", value_parser = ["docker", "local"])]
    pub runner: Option<String>,
    /// Reuse no earlier result
    #[arg(long)]
    pub no_reuse: bool,
    /// Leave a failed container or workspace for a look until `gc`, and say how to enter it
    #[arg(long)]
    pub keep: bool,
    /// The folder to build [default: the pipeline file's folder]
    #[arg(long, value_name = "DIR")]
    pub source: Option<PathBuf>,
    /// Print events as JSON, a line each
    #[arg(long)]
    pub json: bool,
    /// Plain lines even on a terminal
    #[arg(long)]
    pub plain: bool,
}

/// `validate`
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Pipeline files [default: pipeline.yaml, else pipelines/*.yaml]
    pub files: Vec<PathBuf>,
    /// Print findings as JSON
    #[arg(long)]
    pub json: bool,
}

/// `plan`
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The pipeline file
    #[arg(default_value = "pipeline.yaml")]
    pub file: PathBuf,
    /// Set a parameter
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub param: Vec<String>,
    /// Only this stage and what it needs
    #[arg(long, value_name = "STAGE")]
    pub stage: Vec<String>,
    /// As if run anew from this stage on
    #[arg(long, value_name = "STAGE", conflicts_with = "stage")]
    pub from: Option<String>,
    /// Every stage on this runner
    #[arg(long, value_name = "RUNNER", value_parser = ["docker", "local"])]
    pub runner: Option<String>,
    /// As if no earlier result were there
    #[arg(long)]
    pub no_reuse: bool,
    /// The folder to build [default: the pipeline file's folder]
    #[arg(long, value_name = "DIR")]
    pub source: Option<PathBuf>,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
}

/// `init`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The folder
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// Replace a pipeline that is there
    #[arg(long)]
    pub force: bool,
    /// Print it, write nothing
    #[arg(long)]
    pub stdout: bool,
}

/// `builds`
#[derive(Debug, Args)]
pub struct BuildsArgs {
    /// Only this project
    #[arg(long)]
    pub project: Option<String>,
    /// How many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// Only builds before this one
    #[arg(long, value_name = "BUILD")]
    pub before: Option<BuildId>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The build [default: the newest]
    pub build: Option<BuildId>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `cancel`
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The build
    pub build: BuildId,
    /// Wait for nothing: no grace, no clean-up stages (always so without --server)
    #[arg(long)]
    pub kill: bool,
}

/// `retry`
#[derive(Debug, Args)]
pub struct RetryArgs {
    /// The build
    pub build: BuildId,
    /// Every stage
    #[arg(long, conflicts_with = "stage")]
    pub all: bool,
    /// This stage and what stands behind it (repeatable)
    #[arg(long, value_name = "STAGE")]
    pub stage: Vec<String>,
    /// Read secrets from a file of NAME=VALUE lines; else they come from the environment
    #[arg(long, value_name = "FILE")]
    pub secret_file: Vec<PathBuf>,
    /// Print events as JSON, a line each
    #[arg(long)]
    pub json: bool,
    /// Plain lines even on a terminal
    #[arg(long)]
    pub plain: bool,
}

/// `logs`
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The build
    pub build: BuildId,
    /// The stage (`test.3.12` for a matrix cell) [default: every stage]
    pub stage: Option<String>,
    /// The attempt [default: the last]
    #[arg(long)]
    pub attempt: Option<u32>,
    /// Go on as the log grows
    #[arg(short, long)]
    pub follow: bool,
    /// Show when each line was written
    #[arg(short, long)]
    pub timestamps: bool,
    /// The log of the model API beside the stage
    #[arg(long)]
    pub serve: bool,
    /// Print lines as JSON
    #[arg(long)]
    pub json: bool,
}

/// `artifacts`
#[derive(Debug, Args)]
pub struct ArtifactsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ArtifactsCommand,
}

/// `artifacts list|get`
#[derive(Debug, Subcommand)]
pub enum ArtifactsCommand {
    /// List the files that a build made
    #[command(after_help = "Examples:\n  orchestrator artifacts list 12\n  orchestrator artifacts list 12 train")]
    List {
        /// The build
        build: BuildId,
        /// Only of this stage
        stage: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write files of a stage into a folder
    #[command(
        after_help = "Examples:\n  orchestrator artifacts get 12 train\n  orchestrator artifacts get 12 train model.json --output models"
    )]
    Get {
        /// The build
        build: BuildId,
        /// The stage
        stage: String,
        /// A file or folder [default: all]
        path: Option<String>,
        /// Where to
        #[arg(short, long, value_name = "DIR", default_value = ".")]
        output: PathBuf,
    },
}

/// `models`
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// What to do [default: list]
    #[command(subcommand)]
    pub command: Option<ModelsCommand>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `models show`
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Show one model
    #[command(after_help = "Example:\n  orchestrator models show player-stats")]
    Show {
        /// Its name
        model: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `deployments`
#[derive(Debug, Args)]
pub struct DeploymentsArgs {
    /// What to do [default: list]
    #[command(subcommand)]
    pub command: Option<DeploymentsCommand>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `deployments stop`
#[derive(Debug, Subcommand)]
pub enum DeploymentsCommand {
    /// Stop what serves a model; its champion stays the champion
    #[command(after_help = "Example:\n  orchestrator deployments stop player-stats")]
    Stop {
        /// The model
        model: String,
    },
    /// Show what a model's server printed last; its secrets are hidden
    #[command(after_help = "Example:\n  orchestrator deployments logs player-stats -n 50")]
    Logs {
        /// The model
        model: String,
        /// How many lines
        #[arg(short = 'n', long, value_name = "N", default_value_t = 200)]
        lines: usize,
    },
    /// Start again what should serve and does not, after a reboot or an accident
    #[command(
        after_help = "Examples:\n  orchestrator deployments restore\n  orchestrator deployments restore player-stats"
    )]
    Restore {
        /// Only this model [default: all]
        model: Option<String>,
    },
}

fn age(text: &str) -> Result<std::time::Duration, String> {
    crate::pipeline::units::duration(text).map_err(|error| error.to_string())
}

fn min_age(text: &str) -> Result<std::time::Duration, String> {
    let age = age(text)?;
    if age < crate::artifact::YOUNGEST { Err("at least 2h".to_owned()) } else { Ok(age) }
}

/// `gc`
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Tell what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Keep artifacts that are younger, whoever needs them; at least 2h (in a bucket 24h), since builds that run have some in hand
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = min_age)]
    pub min_age: std::time::Duration,
    /// Remove builds too: all but the newest N of each project, what serves and what it came from excepted
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub keep_builds: Option<u64>,
    /// Remove builds too that are older, with the same exceptions
    #[arg(long, value_name = "DURATION", value_parser = age)]
    pub older_than: Option<std::time::Duration>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Look through all rows, logs and artifacts too; nothing is changed, and a daemon may run meanwhile
    #[arg(long)]
    pub deep: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `serve-model`
#[derive(Debug, Args)]
pub struct ServeModelArgs {
    /// The model's file
    #[arg(long)]
    pub model: PathBuf,
    /// Where to listen; `PORT` of the environment by default
    #[arg(long, env = "PORT")]
    pub port: u16,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: std::net::IpAddr,
}
