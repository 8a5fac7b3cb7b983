//! `orchestrator deliveries` and `triggers`: what happened, and what came of it.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::exit;
use super::place::{Place, post_once};
use super::{data, text};
use crate::client::answers::{Delivery, Page, Trigger};
use crate::client::{Ask, Client};
use crate::ids::{BuildId, Micros};
use crate::store::{deliveries, triggers};
use crate::web::api::deliveries::{DeliveryView, TriggerView};

/// `deliveries`
#[derive(Debug, Args)]
pub struct DeliveriesArgs {
    /// What to do [default: list]
    #[command(subcommand)]
    pub command: Option<DeliveriesCommand>,
    /// How many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub limit: u16,
    /// Only those before this one
    #[arg(long, value_name = "DELIVERY")]
    pub before: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `deliveries show|replay`
#[derive(Debug, Subcommand)]
pub enum DeliveriesCommand {
    /// Show one webhook call and what came of it
    #[command(after_help = "Example:\n  orchestrator deliveries show 7")]
    Show {
        /// Its number
        delivery: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Decide upon a webhook call again
    #[command(after_help = "Example:\n  orchestrator deliveries replay 7")]
    Replay {
        /// Its number
        delivery: u64,
    },
}

/// `triggers`
#[derive(Debug, Args)]
pub struct TriggersArgs {
    /// Only this project
    #[arg(long)]
    pub project: Option<String>,
    /// How many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub limit: u16,
    /// Only those before this one
    #[arg(long, value_name = "TRIGGER")]
    pub before: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Lists, shows or replays webhook calls.
///
/// # Errors
/// The server's or the database's.
pub async fn run(place: Place, args: DeliveriesArgs) -> anyhow::Result<i32> {
    match args.command {
        None => list(place, &args).await,
        Some(DeliveriesCommand::Show { delivery, json }) => show(place, delivery, json || args.json).await,
        Some(DeliveriesCommand::Replay { delivery }) => replay(place.server("deliveries replay")?, delivery).await,
    }
}

async fn list(place: Place, args: &DeliveriesArgs) -> anyhow::Result<i32> {
    let (before, limit) = (args.before, usize::from(args.limit));
    let value: Value = match place {
        Place::There(client) => {
            let query = page(args.before, args.limit);
            client.get(&Ask { path: &["deliveries"], query: &query, ..Ask::default() }).await?
        }
        Place::Here(data) => {
            let engine = data::open(data.as_deref()).await?;
            let read = engine.store.read(move |db| {
                let rows = deliveries::list(db, before, limit)?;
                rows.into_iter().map(|row| DeliveryView::read(db, row)).collect::<Result<Vec<_>, _>>()
            });
            json!({ "items": read.await? })
        }
    };
    if args.json {
        data::print_json(&value)?;
        return Ok(exit::PASSED);
    }
    let page: Page<Delivery> = serde_json::from_value(value)?;
    if page.items.is_empty() {
        text::remark("no webhook has called yet");
        return Ok(exit::PASSED);
    }
    let mut table = vec![["DELIVERY", "RECEIVED", "EVENT", "CAME OF IT"].map(str::to_owned).to_vec()];
    for row in &page.items {
        let came: Vec<String> = row.triggers.iter().map(came).collect();
        table.push(vec![
            row.id.to_string(),
            text::moment(Micros(row.received_at)),
            text::one_line(&row.event, 30),
            text::one_line(&came.join("; "), 200),
        ]);
    }
    anstream::print!("{}", text::table(&table));
    Ok(exit::PASSED)
}

/// A trigger in some words.
fn came(trigger: &Trigger) -> String {
    let builds: Vec<String> = trigger.builds.iter().map(|build| format!("build {}", BuildId(*build))).collect();
    let decision = trigger.decision.as_deref().unwrap_or("open");
    let because = if builds.is_empty() { trigger.reason.clone() } else { builds.join(", ") };
    format!("{}: {decision}{}{because}", trigger.project, if because.is_empty() { "" } else { ", " })
}

fn page(before: Option<u64>, limit: u16) -> [(&'static str, Option<String>); 2] {
    [("before", before.map(|id| id.to_string())), ("limit", Some(limit.to_string()))]
}

async fn show(place: Place, id: u64, json: bool) -> anyhow::Result<i32> {
    let value: Value = match place {
        Place::There(client) => client.get(&Ask { path: &["deliveries", &id.to_string()], ..Ask::default() }).await?,
        Place::Here(data) => {
            let engine = data::open(data.as_deref()).await?;
            let read = engine.store.read(move |db| DeliveryView::read(db, deliveries::get(db, id)?));
            serde_json::to_value(read.await?)?
        }
    };
    if json {
        data::print_json(&value)?;
        return Ok(exit::PASSED);
    }
    let row: Delivery = serde_json::from_value(value)?;
    anstream::println!(
        "delivery {} {} ({}), {} at {}",
        row.id,
        text::one_line(&row.event, 40),
        text::one_line(&row.delivery, 60),
        text::size(row.size),
        text::moment(Micros(row.received_at))
    );
    for trigger in &row.triggers {
        anstream::println!("  {}", text::one_line(&came(trigger), 400));
        if !trigger.builds.is_empty() && !trigger.reason.is_empty() {
            anstream::println!("    {}", text::paint(text::DIM, text::one_line(&trigger.reason, 400)));
        }
    }
    Ok(exit::PASSED)
}

async fn replay(client: Client, id: u64) -> anyhow::Result<i32> {
    let row: Delivery = post_once(&client, &["deliveries", &id.to_string(), "replay"], None).await?;
    text::remark(&format!(
        "delivery {} is decided upon again for {} projects: `orchestrator deliveries show {}`",
        row.id,
        row.triggers.len(),
        row.id
    ));
    Ok(exit::PASSED)
}

/// Lists what happened to the projects.
///
/// # Errors
/// The server's or the database's.
pub async fn triggers(place: Place, args: TriggersArgs) -> anyhow::Result<i32> {
    let value: Value = match place {
        Place::There(client) => {
            let [before, limit] = page(args.before, args.limit);
            let query = [before, limit, ("project", args.project.clone())];
            client.get(&Ask { path: &["triggers"], query: &query, ..Ask::default() }).await?
        }
        Place::Here(data) => {
            let engine = data::open(data.as_deref()).await?;
            let (before, limit, project) = (args.before, usize::from(args.limit), args.project.clone());
            let read = engine.store.read(move |db| {
                let rows = triggers::list(db, project.as_deref(), before, limit)?;
                rows.into_iter().map(|row| TriggerView::read(db, row)).collect::<Result<Vec<_>, _>>()
            });
            json!({ "items": read.await? })
        }
    };
    if args.json {
        data::print_json(&value)?;
        return Ok(exit::PASSED);
    }
    let page: Page<Trigger> = serde_json::from_value(value)?;
    if page.items.is_empty() {
        text::remark("nothing has happened yet");
        return Ok(exit::PASSED);
    }
    let mut table = vec![["TRIGGER", "RECEIVED", "PROJECT", "SOURCE", "DECISION", "WHY"].map(str::to_owned).to_vec()];
    for row in &page.items {
        table.push(vec![
            row.id.to_string(),
            text::moment(Micros(row.received_at)),
            text::one_line(&row.project, 40),
            row.source.clone(),
            row.decision.clone().unwrap_or_else(|| "open".to_owned()),
            text::one_line(&row.reason, 160),
        ]);
    }
    anstream::print!("{}", text::table(&table));
    Ok(exit::PASSED)
}
