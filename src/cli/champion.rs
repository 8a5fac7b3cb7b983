//! `orchestrator promote`, `reject`, `rollback`: what people decide about models, here or on a server.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::exit::{self, Usage};
use super::place::{Place, post_once};
use super::run::actor;
use super::{data, models};
use crate::engine::by_hand::{self, Asked, Refused, Wish};
use crate::engine::deployments::FromEnvironment;

/// `promote` and `reject`
#[derive(Debug, Args)]
pub struct PromoteArgs {
    /// The model
    pub model: String,
    /// The version
    pub version: u64,
    /// Why, for the history
    #[arg(long, short, default_value = "")]
    pub reason: String,
}

/// `rollback`
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The model
    pub model: String,
    /// Why, for the history
    #[arg(long, short, default_value = "")]
    pub reason: String,
}

/// Makes a version champion by hand.
///
/// # Errors
/// If there is no such version, or its deployment fails.
pub async fn promote(place: Place, args: PromoteArgs) -> anyhow::Result<i32> {
    change(place, &args.model, Wish::Promote(args.version), args.reason).await
}

/// Keeps a version from being promoted by a pipeline.
///
/// # Errors
/// If there is no such version, or it is the champion.
pub async fn reject(place: Place, args: PromoteArgs) -> anyhow::Result<i32> {
    change(place, &args.model, Wish::Reject(args.version), args.reason).await
}

/// Goes back to the champion before.
///
/// # Errors
/// If there was none, or its deployment fails.
pub async fn rollback(place: Place, args: RollbackArgs) -> anyhow::Result<i32> {
    change(place, &args.model, Wish::RollBack, args.reason).await
}

async fn change(place: Place, model: &str, wish: Wish, reason: String) -> anyhow::Result<i32> {
    match place {
        Place::Here(data) => {
            let asked = Asked { model: model.to_owned(), wish, seen: None, reason, actor: actor() };
            change_here(data.as_deref(), &asked).await
        }
        Place::There(client) => {
            let (verb, body) = match wish {
                Wish::Promote(version) => ("promote", json!({ "version": version, "reason": reason })),
                Wish::Reject(version) => ("reject", json!({ "version": version, "reason": reason })),
                Wish::RollBack => ("rollback", json!({ "reason": reason })),
            };
            let answer: Value = post_once(&client, &["models", model, verb], Some(body)).await?;
            let number = |name: &str| answer.get(name).and_then(Value::as_u64);
            let version = number("version").unwrap_or_default();
            let port = answer.get("deployment").and_then(|row| row.get("port")).and_then(Value::as_u64);
            tell(model, version, answer.get("verdict").and_then(Value::as_str));
            if let Some(port) = port {
                anstream::println!(
                    "it takes port {port} now: the model's page and `deployments` there say what came of it"
                );
            }
            Ok(exit::PASSED)
        }
    }
}

async fn change_here(data: Option<&Path>, asked: &Asked) -> anyhow::Result<i32> {
    let engine = data::open(data).await?;
    let _right = models::right(&engine, &asked.model).await?;
    let decided = match by_hand::decide(&engine, asked).await {
        Ok(decided) => decided,
        Err(Refused::Impossible(why)) => return Err(Usage(why).into()),
        Err(Refused::Engine(error)) => return Err(error.into()),
    };
    by_hand::make_true(&engine, &decided, &FromEnvironment).await?;
    if let Some(row) = &decided.deployment {
        anstream::println!("version {} serves on port {}", row.version, row.port);
    }
    tell(&asked.model, decided.version, decided.verdict);
    Ok(exit::PASSED)
}

fn tell(model: &str, version: u64, verdict: Option<&str>) {
    match verdict {
        None => anstream::println!("version {version} of `{model}` is the champion already"),
        Some("rejected") => anstream::println!("version {version} of `{model}` is rejected: no pipeline promotes it"),
        Some(verdict) => anstream::println!("version {version} of `{model}` is champion ({verdict})"),
    }
}
