//! `orchestrator trigger`: asks a daemon for a build, and waits for it if asked to.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::exit::{self, Usage};
use super::place::{Place, post_once};
use super::{data, text};
use crate::client::answers::{BuildDetail, Trigger};
use crate::client::{Ask, Client, ClientError};
use crate::ids::BuildId;

/// `trigger`
#[derive(Debug, Args)]
pub struct TriggerArgs {
    /// The project
    pub project: String,
    /// The branch [default: the repository's default branch]
    #[arg(long, conflicts_with_all = ["tag", "commit"])]
    pub branch: Option<String>,
    /// A tag
    #[arg(long, conflicts_with = "commit")]
    pub tag: Option<String>,
    /// A commit, its full id
    #[arg(long)]
    pub commit: Option<String>,
    /// The pipeline's file, where the project has several
    #[arg(long, value_name = "FILE")]
    pub pipeline: Option<String>,
    /// Set a parameter
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub param: Vec<String>,
    /// Run only this stage and what it needs (repeatable)
    #[arg(long, value_name = "STAGE")]
    pub stage: Vec<String>,
    /// Run anew from this stage on
    #[arg(long, value_name = "STAGE", conflicts_with = "stage")]
    pub from: Option<String>,
    /// Reuse no earlier result
    #[arg(long)]
    pub no_reuse: bool,
    /// Wait until the build has ended; the exit code is its result
    #[arg(long, short)]
    pub wait: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Deserialize)]
struct Triggered {
    trigger: u64,
}

/// Looks again after this, and after at most that.
const SOON: Duration = Duration::from_millis(50);
const LATE: Duration = Duration::from_secs(1);
/// A server that restarts is back within this time.
const PATIENCE: u32 = 60;

/// Asks for it.
///
/// # Errors
/// The server's.
pub async fn run(place: Place, args: TriggerArgs) -> anyhow::Result<i32> {
    let client = place.server("trigger")?;
    let mut params = serde_json::Map::new();
    for param in &args.param {
        let Some((name, value)) = param.split_once('=') else {
            return Err(Usage(format!("--param {param}: write NAME=VALUE")).into());
        };
        params.insert(name.to_owned(), json!(value));
    }
    let asked = json!({
        "branch": args.branch, "tag": args.tag, "commit": args.commit, "pipeline": args.pipeline, "params": params,
        "stages": args.stage, "from": args.from, "no_reuse": args.no_reuse,
    });
    let made: Triggered = post_once(&client, &["projects", &args.project, "builds"], Some(asked)).await?;
    let trigger = decided(&client, made.trigger).await?;
    let failed = trigger.decision.as_deref() == Some("failed");
    let code = if args.wait && !failed { ended(&client, &trigger, args.json).await? } else { exit::PASSED };
    if args.json {
        let id = made.trigger.to_string();
        data::print_json(&client.get::<serde_json::Value>(&Ask { path: &["triggers", &id], ..Ask::default() }).await?)?;
    } else if !failed && !args.wait {
        for build in &trigger.builds {
            anstream::println!("build {}", BuildId(*build));
        }
        text::remark(&trigger.reason);
    }
    if failed {
        anyhow::bail!("no build: {}", trigger.reason);
    }
    Ok(code)
}

/// The trigger once it is decided. What keeps it from that is told.
async fn decided(client: &Client, id: u64) -> anyhow::Result<Trigger> {
    let mut told = String::new();
    let number = id.to_string();
    let mut pause = SOON;
    loop {
        let trigger: Trigger = patiently(client, &["triggers", &number]).await?;
        if trigger.decision.is_some() {
            return Ok(trigger);
        }
        if !trigger.reason.is_empty() && trigger.reason != told {
            text::remark(&format!("waiting: {}", text::one_line(&trigger.reason, 300)));
            told.clone_from(&trigger.reason);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LATE);
    }
}

/// Waits for all builds of a trigger. The code of the worst.
async fn ended(client: &Client, trigger: &Trigger, json: bool) -> anyhow::Result<i32> {
    let mut worst = exit::PASSED;
    for build in &trigger.builds {
        let number = build.to_string();
        let mut told = String::new();
        let mut pause = SOON;
        let detail = loop {
            let detail: BuildDetail = patiently(client, &["builds", &number]).await?;
            if detail.build.over() {
                break detail;
            }
            let waits = detail.awaits.clone().map(|why| format!("approval: {why}")).or(detail.build.waits_for.clone());
            if let Some(waits) = waits.filter(|waits| *waits != told) {
                text::remark(&format!("build {} waits for {}", BuildId(*build), text::one_line(&waits, 300)));
                told = waits;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LATE);
        };
        worst = worst.max(match detail.build.status.as_str() {
            "passed" => exit::PASSED,
            "cancelled" => exit::CANCELLED,
            _ => exit::FAILED,
        });
        if !json {
            super::report::print_from(client, &detail).await?;
        }
    }
    Ok(worst)
}

/// Reads something, and bears with a server that restarts.
async fn patiently<T: serde::de::DeserializeOwned>(client: &Client, path: &[&str]) -> Result<T, ClientError> {
    let mut tries = 0;
    loop {
        match client.get(&Ask { path, ..Ask::default() }).await {
            Err(ClientError::Unreachable { .. }) if tries < PATIENCE => {
                tries += 1;
                tokio::time::sleep(LATE).await;
            }
            other => return other,
        }
    }
}
