//! `orchestrator project`: what is built, kept in the configuration file.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;
use toml_edit::{Array, Value};

use super::{config as config_command, data, exit, project_check, text};
use crate::config::edit::{EditError, add_project, make_secret, remove_project};
use crate::config::load::{FILE_NAME, LoadError, Loaded, environment};
use crate::config::repository::Repository;
use crate::config::types::{Poll, SecretFrom};
use crate::ids::is_name;
use crate::pipeline::Colour;

/// `project`
#[derive(Debug, Args)]
pub struct ProjectArgs {
    /// The configuration file [default: $ORCHESTRATOR_CONFIG, ./orchestrator.toml, the user's, /etc/orchestrator's]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: ProjectCommand,
}

/// `project add|list|remove|check`
#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Add a project to the configuration file
    #[command(
        after_help = "Examples:\n  orchestrator project add api --repository /srv/git/api\n  orchestrator project add api --repository https://github.com/me/api --webhook-secret generate"
    )]
    Add(Box<AddArgs>),
    /// List projects
    #[command(after_help = "Example:\n  orchestrator project list")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a project out of the configuration file; its builds stay
    #[command(after_help = "Example:\n  orchestrator project remove api")]
    Remove {
        /// Its name
        name: String,
    },
    /// Look whether a project can be built: repository, pipeline, secrets
    #[command(after_help = "Example:\n  orchestrator project check api")]
    Check {
        /// Its name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `project add`
#[derive(Debug, Args)]
pub struct AddArgs {
    /// A name for it: lower-case letters, digits and `-`
    pub name: String,
    /// `https://…`, `ssh://…`, `git@host:path`, or a local path
    #[arg(long, value_name = "REPOSITORY")]
    pub repository: String,
    /// Branches to build, with `*` (repeatable) [default: all]
    #[arg(long, value_name = "PATTERN")]
    pub branch: Vec<String>,
    /// Pipeline files in the repository (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub pipeline: Vec<String>,
    /// How often to ask for new commits, like 5m, or off, or watch
    #[arg(long, value_name = "TIME")]
    pub poll: Option<String>,
    /// The file with the webhook's secret, or `generate` to make one beside the configuration
    #[arg(long, value_name = "FILE")]
    pub webhook_secret: Option<String>,
    /// The file with a token for https
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The private key for ssh
    #[arg(long, value_name = "FILE")]
    pub ssh_key_file: Option<PathBuf>,
    /// The keys of trusted ssh hosts [default: known_hosts beside the private key]
    #[arg(long, value_name = "FILE")]
    pub known_hosts_file: Option<PathBuf>,
    /// Certificates to believe beside the system's, in PEM: of an authority, or of the host itself
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Let its pipelines use the local runner, with this program's own rights
    #[arg(long)]
    pub trusted: bool,
}

/// Does what was asked.
///
/// # Errors
/// If the file cannot be read or changed.
pub async fn run(args: &ProjectArgs) -> anyhow::Result<i32> {
    let given = args.config.as_deref();
    match &args.command {
        ProjectCommand::Add(add) => self::add(given, add),
        ProjectCommand::List { json } => list(given, *json),
        ProjectCommand::Remove { name } => {
            let file = file(given);
            match remove_project(&file, name, &environment()) {
                Ok(_) => {
                    text::line(&format!("removed `{name}` from {}; its builds stay", file.display()));
                    Ok(exit::PASSED)
                }
                Err(error) => failed(error),
            }
        }
        ProjectCommand::Check { name, json } => project_check::check(given, name, *json).await,
    }
}

fn file(given: Option<&Path>) -> PathBuf {
    crate::config::find(given).unwrap_or_else(|| PathBuf::from(FILE_NAME))
}

/// Tells an error; what is wrong with the file is shown with excerpts.
fn failed(error: EditError) -> anyhow::Result<i32> {
    match error {
        EditError::WouldBeInvalid(found @ LoadError::Invalid { .. }) => {
            anstream::eprint!("{}", found.render(Colour::Always));
            text::error("nothing was changed: the configuration would not be valid");
            Ok(exit::FAILED)
        }
        other => Err(other.into()),
    }
}

fn add(given: Option<&Path>, args: &AddArgs) -> anyhow::Result<i32> {
    let file = file(given);
    if !is_name(&args.name) {
        return Err(exit::Usage(crate::ids::InvalidName { text: args.name.clone() }.to_string()).into());
    }
    let repository = match Path::new(&args.repository) {
        // A shell's relative path means this folder; in the file it would mean the file's.
        local if !args.repository.starts_with('-') && local.is_dir() => {
            let local = local.canonicalize().with_context(|| format!("cannot find `{}`", args.repository))?;
            local.to_str().context("the path of the repository is not text in UTF-8")?.to_owned()
        }
        _ => args.repository.clone(),
    };
    let repository = match Repository::parse(&repository) {
        Ok(repository) => repository,
        Err((message, help)) => return Err(exit::Usage(format!("--repository: {message}; {help}")).into()),
    };
    let mut made = None;
    let mut keys: Vec<(&str, Value)> = vec![("repository", repository.to_string().into())];
    for (key, patterns) in [("branches", &args.branch), ("pipeline", &args.pipeline)] {
        if !patterns.is_empty() {
            keys.push((key, Value::Array(patterns.iter().map(String::as_str).collect::<Array>())));
        }
    }
    keys.extend(args.poll.as_deref().map(|poll| ("poll", poll.into())));
    match args.webhook_secret.as_deref() {
        Some("generate") => {
            let secret = secret_beside(&file, &args.name)?;
            keys.push(("webhook_secret_file", path_value(&secret)?));
            made = Some(secret);
        }
        Some(path) => keys.push(("webhook_secret_file", path_value(Path::new(path))?)),
        None => {}
    }
    for (key, path) in [
        ("token_file", &args.token_file),
        ("ssh_key_file", &args.ssh_key_file),
        ("known_hosts_file", &args.known_hosts_file),
        ("ca_file", &args.ca_file),
    ] {
        if let Some(path) = path {
            keys.push((key, path_value(path)?));
        }
    }
    if args.trusted {
        keys.push(("trusted", true.into()));
    }
    match add_project(&file, &args.name, &keys, &environment()) {
        Ok(loaded) => {
            next_steps(&file, &args.name, &repository, &loaded, made.as_deref());
            Ok(exit::PASSED)
        }
        Err(error) => {
            // Made a moment ago for what did not come to be.
            if let Some(secret) = made {
                let _ = std::fs::remove_file(secret);
            }
            failed(error)
        }
    }
}

fn path_value(path: &Path) -> anyhow::Result<Value> {
    let path = std::path::absolute(path).with_context(|| format!("cannot find `{}`", path.display()))?;
    Ok(path.to_str().with_context(|| format!("`{}` is not text in UTF-8", path.display()))?.into())
}

fn secret_beside(file: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = std::path::absolute(file)?.parent().unwrap_or(Path::new("/")).to_owned();
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let secret = folder.join(format!("{name}.webhook-secret"));
    make_secret(&secret).with_context(|| {
        format!("cannot make `{0}`; if it is there already, use it by `--webhook-secret {0}`", secret.display())
    })?;
    Ok(secret)
}

fn next_steps(file: &Path, name: &str, repository: &Repository, loaded: &Loaded, made: Option<&Path>) {
    text::line(&format!("added `{name}` to {}", file.display()));
    let Some(project) = loaded.config.projects.get(name) else { return };
    if let Some(owner) = repository.on_host("github.com") {
        text::line(&format!(
            "\nSo that a push builds at once, add a webhook at https://github.com/{owner}/settings/hooks/new :"
        ));
        text::line(&format!("  Payload URL   {}/hooks/github", loaded.config.server.public_url));
        text::line("  Content type  application/json");
        match (&project.webhook_secret, made) {
            (_, Some(secret)) => {
                text::line(&format!("  Secret        the content of {} (just made, 0600)", secret.display()))
            }
            (Some(SecretFrom::File(secret)), None) => {
                text::line(&format!("  Secret        the content of {}", secret.display()));
            }
            (Some(SecretFrom::Environment(variable)), None) => {
                text::line(&format!("  Secret        the value of ${variable}"))
            }
            (None, None) => {
                text::line("  Secret        none yet: webhooks are refused until `webhook_secret_file` is set")
            }
        }
        text::line("  Events        pushes, pull requests, releases");
        let local = url::Url::parse(&loaded.config.server.public_url).ok();
        if local.is_some_and(|url| matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"))) {
            text::line(
                "\nGitHub cannot reach this address: set `server.public_url`. Until then, commits are found by polling.",
            );
        }
    }
    text::line(&format!("\nLook whether it can be built: orchestrator project check {name}"));
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    repository: String,
    branches: &'a [String],
    pipeline: &'a [String],
    poll: String,
    webhook: bool,
    trusted: bool,
}

fn list(given: Option<&Path>, json: bool) -> anyhow::Result<i32> {
    let Some(loaded) = config_command::load(given)? else { return Ok(exit::FAILED) };
    let all: Vec<Listed<'_>> = loaded
        .config
        .projects
        .iter()
        .map(|(name, project)| Listed {
            name,
            repository: project.repository.to_string(),
            branches: &project.branches,
            pipeline: &project.pipeline,
            poll: poll_words(project.poll),
            webhook: project.webhook_secret.is_some(),
            trusted: project.trusted,
        })
        .collect();
    if json {
        data::print_json(&all)?;
        return Ok(exit::PASSED);
    }
    if all.is_empty() {
        text::line("no projects; add one by `orchestrator project add NAME --repository …`");
        return Ok(exit::PASSED);
    }
    let mut rows = vec![["NAME", "REPOSITORY", "BRANCHES", "POLL", "WEBHOOK"].map(str::to_owned).to_vec()];
    for one in &all {
        let webhook = if one.webhook { "yes" } else { "no" };
        let branches = text::one_line(&one.branches.join(", "), 40);
        rows.push(vec![one.name.to_owned(), one.repository.clone(), branches, one.poll.clone(), webhook.to_owned()]);
    }
    text::line(text::table(&rows).trim_end());
    Ok(exit::PASSED)
}

fn poll_words(poll: Poll) -> String {
    match poll {
        Poll::Off => "off".to_owned(),
        Poll::Watch => "watch".to_owned(),
        Poll::Every(time) => text::duration(time),
    }
}
