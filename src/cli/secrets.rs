//! `orchestrator secrets`: set, listed by name, removed, sealed anew.

use std::io::{IsTerminal, Read};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::exit::{self, Usage};
use super::place::Place;
use super::{data, login, text};
use crate::client::Ask;
use crate::daemon::keyring;
use crate::daemon::secrets::{LONGEST, NewSecret, Sealed};
use crate::engine::Engine;
use crate::ids::Micros;
use crate::store::secrets as stored;
use crate::web::api::secrets::SecretView;

/// `secrets`
#[derive(Debug, Args)]
pub struct SecretsArgs {
    /// What to do
    #[command(subcommand)]
    pub command: SecretsCommand,
}

/// `secrets set|list|remove|rotate`
#[derive(Debug, Subcommand)]
pub enum SecretsCommand {
    /// Set a secret; its value is typed, or read from standard input
    #[command(
        after_help = "Examples:\n  orchestrator secrets set REGISTRY_TOKEN --project churn\n  orchestrator secrets set REGISTRY_TOKEN < token"
    )]
    Set {
        /// The variable that scripts see
        name: String,
        /// For this project [default: for all]
        #[arg(long)]
        project: Option<String>,
        /// Only for builds of these branches (repeatable; patterns)
        #[arg(long)]
        branch: Vec<String>,
        /// Only for these stages (repeatable)
        #[arg(long)]
        stage: Vec<String>,
    },
    /// List names of secrets; values are never shown
    #[command(after_help = "Example:\n  orchestrator secrets list --project churn")]
    List {
        /// Of this project [default: those for all]
        #[arg(long)]
        project: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a secret
    #[command(after_help = "Example:\n  orchestrator secrets remove REGISTRY_TOKEN --project churn")]
    Remove {
        /// Its name
        name: String,
        /// Of this project [default: the one for all]
        #[arg(long)]
        project: Option<String>,
    },
    /// Make a new key, seal all secrets with it, forget the old one
    #[command(after_help = "Example:\n  orchestrator secrets rotate")]
    Rotate,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    branches: Vec<String>,
    stages: Vec<String>,
    made_by: String,
    made_at: i64,
}

/// Does what was asked.
///
/// # Errors
/// The server's, the key file's or the database's.
pub async fn run(place: Place, args: SecretsArgs) -> anyhow::Result<i32> {
    match args.command {
        SecretsCommand::Set { name, project, branch, stage } => {
            let new = NewSecret { name, project: project.unwrap_or_default(), branches: branch, stages: stage };
            set(place, new).await
        }
        SecretsCommand::List { project, json } => list(place, project, json).await,
        SecretsCommand::Remove { name, project } => remove(place, name, project).await,
        SecretsCommand::Rotate => rotate(place).await,
    }
}

fn sealed(engine: &Arc<Engine>) -> Sealed {
    Sealed { store: Arc::clone(&engine.store), keys: keyring::file(&engine.paths) }
}

/// The path of one secret, or of all of a project.
fn path<'a>(project: Option<&'a str>, name: Option<&'a str>) -> Vec<&'a str> {
    let mut path = match project {
        Some(project) => vec!["projects", project, "secrets"],
        None => vec!["secrets"],
    };
    path.extend(name);
    path
}

/// A terminal gives a line that does not show; anything else all that it holds, less one newline at its end.
fn value(name: &str) -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        anstream::eprint!("value of {name}: ");
        return login::hidden_line();
    }
    let mut text = String::new();
    std::io::stdin().lock().take(LONGEST as u64 + 2).read_to_string(&mut text).context("cannot read the value")?;
    let end = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text).len());
    text.truncate(end.unwrap_or(text.len()));
    Ok(text)
}

async fn set(place: Place, new: NewSecret) -> anyhow::Result<i32> {
    let value = value(&new.name)?;
    new.check(&value).map_err(Usage)?;
    let name = new.name.clone();
    match place {
        Place::There(client) => {
            let project = Some(new.project.as_str()).filter(|project| !project.is_empty());
            let body = json!({ "value": value, "branches": new.branches, "stages": new.stages });
            client.put(&Ask { path: &path(project, Some(&name)), body: Some(body), ..Ask::default() }).await?;
        }
        Place::Here(data) => {
            let engine = data::open(data.as_deref()).await?;
            sealed(&engine).set(new, value, data::actor()).await?;
        }
    }
    text::remark(&format!("secret {name} is set; builds that begin from now on get it"));
    Ok(exit::PASSED)
}

async fn list(place: Place, project: Option<String>, json: bool) -> anyhow::Result<i32> {
    let scope = project.clone();
    let value: Value = match place {
        Place::There(client) => client.get(&Ask { path: &path(project.as_deref(), None), ..Ask::default() }).await?,
        Place::Here(data) => {
            let engine = data::open(data.as_deref()).await?;
            let rows = engine.store.read(move |db| stored::of_project(db, project.as_deref().unwrap_or_default()));
            serde_json::to_value(rows.await?.into_iter().map(SecretView::from).collect::<Vec<_>>())?
        }
    };
    if json {
        data::print_json(&value)?;
        return Ok(exit::PASSED);
    }
    let rows: Vec<Listed> = serde_json::from_value(value)?;
    if rows.is_empty() {
        text::remark(&match scope {
            Some(project) => {
                format!("project {project} has no secrets of its own; without `--project` those of all are listed")
            }
            None => "no secrets that hold for all projects; those of one project are listed with `--project PROJECT`"
                .to_owned(),
        });
        return Ok(exit::PASSED);
    }
    let all = |list: Vec<String>| if list.is_empty() { "all".to_owned() } else { text::one_line(&list.join(", "), 60) };
    let mut table = vec![["SECRET", "BRANCHES", "STAGES", "SET", "BY"].map(str::to_owned).to_vec()];
    table.extend(rows.into_iter().map(|row| {
        let at = text::moment(Micros(row.made_at));
        vec![text::one_line(&row.name, 80), all(row.branches), all(row.stages), at, text::one_line(&row.made_by, 40)]
    }));
    anstream::print!("{}", text::table(&table));
    Ok(exit::PASSED)
}

async fn remove(place: Place, name: String, project: Option<String>) -> anyhow::Result<i32> {
    match place {
        Place::There(client) => {
            client.delete(&Ask { path: &path(project.as_deref(), Some(&name)), ..Ask::default() }).await?;
        }
        Place::Here(data) => {
            let engine = data::open(data.as_deref()).await?;
            sealed(&engine).remove(project.unwrap_or_default(), name.clone(), data::actor()).await?;
        }
    }
    text::remark(&format!("secret {name} is removed"));
    Ok(exit::PASSED)
}

async fn rotate(place: Place) -> anyhow::Result<i32> {
    #[derive(Deserialize)]
    struct Rotated {
        count: usize,
        key_id: String,
    }
    let Rotated { count, key_id } = match place {
        Place::There(client) => client.post(&Ask { path: &["secrets", "rotate"], ..Ask::default() }).await?,
        Place::Here(data) => {
            let engine = data::open(data.as_deref()).await?;
            let (count, key_id) = sealed(&engine).rotate(data::actor()).await?;
            Rotated { count, key_id }
        }
    };
    text::remark(&format!("{count} secrets are sealed with the new key {key_id}; keep a copy of the key file"));
    Ok(exit::PASSED)
}
