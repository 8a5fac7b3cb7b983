//! `orchestrator queue` and `approve`.

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::place::{Place, post_once};
use super::{data, exit, text};
use crate::client::{Ask, answers};
use crate::engine::now;
use crate::ids::BuildId;
use crate::store::{access, queue};

/// `queue`
#[derive(Debug, Args)]
pub struct QueueArgs {
    /// What to do [default: show]
    #[command(subcommand)]
    pub command: Option<QueueCommand>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `queue pause|resume|move`
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// Begin no more builds; what runs goes on
    #[command(after_help = "Example:\n  orchestrator queue pause --reason 'new disks'")]
    Pause {
        /// Why, for those who wait
        #[arg(long, short)]
        reason: Option<String>,
    },
    /// Begin builds again
    #[command(after_help = "Example:\n  orchestrator queue resume")]
    Resume,
    /// Move a waiting build
    #[command(after_help = "Example:\n  orchestrator queue move 12 front")]
    Move {
        /// The build
        build: BuildId,
        /// Its place in its project's line
        #[arg(value_enum, required_unless_present = "priority")]
        to: Option<To>,
        /// Its priority: greater goes first, before all lower ones of all projects
        #[arg(long, allow_hyphen_values = true)]
        priority: Option<i32>,
    },
}

/// A place in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum To {
    /// Before all others of the project
    Front,
    /// Behind all others of the project
    Back,
}

/// `approve`
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// The build
    pub build: BuildId,
}

/// Shows or changes the queue.
///
/// # Errors
/// The server's or the database's.
pub async fn run(place: Place, args: QueueArgs) -> anyhow::Result<i32> {
    match args.command {
        None => return show(place, args.json).await,
        Some(QueueCommand::Pause { reason }) => {
            pause(place, Some(reason)).await?;
            text::remark("the queue is paused: `orchestrator queue resume` begins builds again");
        }
        Some(QueueCommand::Resume) => {
            pause(place, None).await?;
            text::remark("the queue goes on");
        }
        Some(QueueCommand::Move { build, to, priority }) => {
            move_build(place, build, to, priority).await?;
            text::remark(&format!("build {build} was moved"));
        }
    }
    Ok(exit::PASSED)
}

async fn show(place: Place, json: bool) -> anyhow::Result<i32> {
    let value: Value = match place {
        Place::There(client) => client.get(&Ask { path: &["queue"], ..Ask::default() }).await?,
        Place::Here(data) => here(data.as_deref()).await?,
    };
    if json {
        data::print_json(&value)?;
        return Ok(exit::PASSED);
    }
    let queue: answers::Queue = serde_json::from_value(value)?;
    if let Some(reason) = &queue.paused {
        text::remark(&text::paint(text::WARN, format!("paused: {}", text::one_line(reason, 200))));
    }
    if queue.waiting.is_empty() {
        text::remark("nothing waits");
        return Ok(exit::PASSED);
    }
    let mut table = vec![["BUILD", "PROJECT", "WAITS FOR"].map(str::to_owned).to_vec()];
    table.extend(queue.waiting.iter().map(|waiting| {
        vec![
            BuildId(waiting.build).to_string(),
            text::one_line(&waiting.project, 40),
            text::one_line(&waiting.waits_for, 200),
        ]
    }));
    anstream::print!("{}", text::table(&table));
    if queue.count > queue.waiting.len() {
        text::remark(&format!("{} wait in all", queue.count));
    }
    Ok(exit::PASSED)
}

/// What the rows say. For what else a build waits, only the daemon knows.
async fn here(data: Option<&Path>) -> anyhow::Result<Value> {
    const SHOWN: usize = 500;
    let engine = data::open(data).await?;
    let (paused, waiting) = engine.store.read(|db| Ok((queue::paused(db)?, queue::waiting(db, SHOWN)?))).await?;
    let why = |awaits: bool| if awaits { "a person's approval" } else { "its turn (the daemon knows more: --server)" };
    let rows: Vec<Value> = waiting
        .iter()
        .map(|row| json!({ "build": row.id.0, "project": row.project, "waits_for": why(row.awaits_approval) }))
        .collect();
    Ok(json!({ "paused": paused, "count": rows.len(), "waiting": rows }))
}

async fn pause(place: Place, reason: Option<Option<String>>) -> anyhow::Result<()> {
    match place {
        Place::There(client) => {
            let body = reason.clone().flatten().map(|reason| json!({ "reason": reason }));
            let verb = if reason.is_some() { "pause" } else { "resume" };
            post_once::<Value>(&client, &["queue", verb], body).await?;
        }
        Place::Here(data) => {
            let engine = data::open(data.as_deref()).await?;
            let actor = data::actor();
            let reason = reason.map(|reason| reason.unwrap_or_else(|| format!("paused by {actor}")));
            let write = engine.store.write(move |tx| {
                queue::set_paused(tx, reason.as_deref())?;
                let action = if reason.is_some() { "queue.pause" } else { "queue.resume" };
                access::audit(tx, &actor, action, "queue", reason.as_deref().unwrap_or_default(), now())
            });
            write.await?;
        }
    }
    Ok(())
}

async fn move_build(place: Place, build: BuildId, to: Option<To>, priority: Option<i32>) -> anyhow::Result<()> {
    match place {
        Place::There(client) => {
            let to = to.map(|to| if to == To::Front { "front" } else { "back" });
            let body = json!({ "to": to, "priority": priority });
            post_once::<Value>(&client, &["builds", &build.0.to_string(), "move"], Some(body)).await?;
        }
        Place::Here(data) => {
            let engine = data::open(data.as_deref()).await?;
            let write = engine.store.write(move |tx| {
                if let Some(to) = to {
                    queue::move_to(tx, build, to == To::Front)?;
                }
                if let Some(priority) = priority {
                    queue::set_priority(tx, build, i64::from(priority))?;
                }
                access::audit(tx, &data::actor(), "build.move", &build.to_string(), "", now())
            });
            write.await?;
        }
    }
    Ok(())
}

/// Agrees that a build begins.
///
/// # Errors
/// The server's or the database's.
pub async fn approve(place: Place, args: ApproveArgs) -> anyhow::Result<i32> {
    let build = args.build;
    match place {
        Place::There(client) => {
            post_once::<Value>(&client, &["builds", &build.0.to_string(), "approve"], None).await?;
        }
        Place::Here(data) => {
            let engine = data::open(data.as_deref()).await?;
            let write = engine.store.write(move |tx| {
                queue::approve(tx, build)?;
                access::audit(tx, &data::actor(), "build.approve", &build.to_string(), "", now())
            });
            write.await?;
        }
    }
    text::remark(&format!("build {build} may begin"));
    Ok(exit::PASSED)
}
