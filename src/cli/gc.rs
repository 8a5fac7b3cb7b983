//! `orchestrator gc`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::args::GcArgs;
use super::{data, exit, text};
use crate::artifact::Sweep;
use crate::engine::gc::{self, Cleared, Kept};
use crate::engine::pack;
use crate::engine::retention::{self, Gone, Keep};

/// Removes what nobody owns: on every runner that can be reached, and of the artifacts.
///
/// # Errors
/// The database's, the local runner's or the artifact store's.
pub async fn run(data: Option<&Path>, args: GcArgs) -> anyhow::Result<i32> {
    let how = if args.dry_run { Sweep::Tell } else { Sweep::Remove };
    let engine = data::open(data).await?;
    if how == Sweep::Remove {
        super::models::recover(&engine).await?;
    }
    let mut all = BTreeMap::new();
    all.insert("local", gc::sweep(&engine, engine.runners.local().as_ref(), how, Kept::Go).await?);
    match engine.runners.docker().await {
        Ok(docker) => {
            all.insert("docker", gc::sweep(&engine, docker.as_ref(), how, Kept::Go).await?);
        }
        Err(error) => text::remark(&text::paint(text::DIM, format!("docker is not looked at: {error}"))),
    }
    let keep = Keep { builds: args.keep_builds, age: args.older_than, size: None };
    let gone = match keep == Keep::default() {
        true => Gone::default(),
        false => retention::apply(&engine, keep, how).await?,
    };
    let artifacts = gc::artifacts(&engine, args.min_age, how).await?;
    if how == Sweep::Remove {
        pack::finish_left(&engine).await?;
        super::run::finish_packing(&engine).await?;
    }
    if args.json {
        let mut told = serde_json::to_value(&all)?;
        told["artifacts"] = serde_json::to_value(artifacts)?;
        told["builds"] = serde_json::to_value(gone)?;
        told["dry_run"] = json!(args.dry_run);
        data::print_json(&told)?;
        return Ok(exit::PASSED);
    }
    let done = if args.dry_run { "would be removed:" } else { "removed" };
    let mut count = 0;
    for (runner, removed) in &all {
        for name in removed.units.iter().chain(&removed.networks) {
            anstream::println!("{done} {name} ({runner})");
            count += 1;
        }
    }
    if gone.builds > 0 {
        let builds = if gone.builds == 1 { "build" } else { "builds" };
        anstream::println!("{done} {} {builds} with logs of {}", gone.builds, text::size(gone.log_bytes));
    }
    tell(&artifacts, done);
    if count == 0 && gone.builds == 0 && artifacts.swept.removed == 0 {
        anstream::println!("nothing to remove");
    }
    Ok(exit::PASSED)
}

fn tell(artifacts: &Cleared, done: &str) {
    let swept = artifacts.swept;
    if swept.removed > 0 {
        let files = if swept.removed == 1 { "file" } else { "files" };
        anstream::println!("{done} {} {files} of artifacts, {}", swept.removed, text::size(swept.bytes));
    }
    if artifacts.lost > 0 {
        text::remark(&text::paint(
            text::WARN,
            format!(
                "the outputs of {} earlier result{} are gone or damaged; a stage that needs them runs again",
                artifacts.lost,
                if artifacts.lost == 1 { "" } else { "s" }
            ),
        ));
    }
}
