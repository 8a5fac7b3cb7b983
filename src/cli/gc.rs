//! `orchestrator gc`.

use std::collections::BTreeMap;
use std::path::Path;

use super::args::GcArgs;
use super::{data, exit, text};
use crate::engine::{gc, pack};

/// Removes what nobody owns, on every runner that can be reached.
///
/// # Errors
/// The database's or the local runner's.
pub async fn run(data: Option<&Path>, args: GcArgs) -> anyhow::Result<i32> {
    let engine = data::open(data).await?;
    let mut all = BTreeMap::new();
    all.insert("local", gc::sweep(&engine, engine.runners.local().as_ref(), gc::Kept::Go).await?);
    match engine.runners.docker().await {
        Ok(docker) => {
            all.insert("docker", gc::sweep(&engine, docker.as_ref(), gc::Kept::Go).await?);
        }
        Err(error) => text::remark(&text::paint(text::DIM, format!("docker is not looked at: {error}"))),
    }
    pack::finish_left(&engine).await?;
    super::run::finish_packing(&engine).await?;
    if args.json {
        data::print_json(&all)?;
        return Ok(exit::PASSED);
    }
    let mut count = 0;
    for (runner, removed) in &all {
        for name in removed.units.iter().chain(&removed.networks) {
            anstream::println!("removed {name} ({runner})");
            count += 1;
        }
    }
    if count == 0 {
        anstream::println!("nothing to remove");
    }
    Ok(exit::PASSED)
}
