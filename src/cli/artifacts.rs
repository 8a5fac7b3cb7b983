//! `orchestrator artifacts list|get`.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;

use super::args::{ArtifactsArgs, ArtifactsCommand};
use super::exit::{self, Usage};
use super::{data, text};
use crate::artifact::manifest::{Digest, Manifest};
use crate::engine::Engine;
use crate::ids::{BuildId, NodeKey};
use crate::store::{builds, results};

#[derive(Serialize)]
struct Listed {
    stage: NodeKey,
    path: String,
    bytes: u64,
    blake3: String,
}

/// Lists or gets.
///
/// # Errors
/// If there is no such build, stage or file, or it cannot be written.
pub async fn run(data: Option<&Path>, args: ArtifactsArgs) -> anyhow::Result<i32> {
    let engine = data::open(data).await?;
    match args.command {
        ArtifactsCommand::List { build, stage, json } => list(&engine, build, stage.as_deref(), json).await,
        ArtifactsCommand::Get { build, stage, path, output } => {
            get(&engine, build, &stage, path.as_deref(), &output).await
        }
    }
}

/// The node of this name.
///
/// # Errors
/// [`Usage`] if the text is no name.
pub fn node(text: &str) -> anyhow::Result<NodeKey> {
    Ok(text.parse::<NodeKey>().map_err(|error| Usage(error.to_string()))?)
}

async fn manifest(engine: &Arc<Engine>, build: BuildId, node: &NodeKey) -> anyhow::Result<Option<Manifest>> {
    let key = node.clone();
    let Some(row) = engine.store.read(move |db| results::of_stage(db, build, &key)).await? else { return Ok(None) };
    let digest: Digest = row.outputs.parse().context("stored digest")?;
    let manifest = engine.artifacts.manifest(&digest).await?;
    Ok(Some(manifest.from_origin(&format!("stage `{node}` of build {build}"))))
}

async fn list(engine: &Arc<Engine>, build: BuildId, stage: Option<&str>, json: bool) -> anyhow::Result<i32> {
    let wanted = stage.map(node).transpose()?;
    let rows = engine.store.read(move |db| {
        builds::get(db, build)?;
        builds::stages(db, build)
    });
    let mut listed = Vec::new();
    for row in rows.await? {
        if wanted.as_ref().is_some_and(|wanted| *wanted != row.node) {
            continue;
        }
        for file in manifest(engine, build, &row.node).await?.unwrap_or_default().files {
            let (path, bytes, blake3) = (file.path, file.size, file.digest.to_string());
            listed.push(Listed { stage: row.node.clone(), path, bytes, blake3 });
        }
    }
    if json {
        data::print_json(&listed)?;
        return Ok(exit::PASSED);
    }
    let mut table = vec![["STAGE", "FILE", "SIZE", "BLAKE3"].map(str::to_owned).to_vec()];
    for file in &listed {
        let short = file.blake3.get(..12).unwrap_or(&file.blake3).to_owned();
        table.push(vec![file.stage.to_string(), text::one_line(&file.path, 80), text::size(file.bytes), short]);
    }
    anstream::print!("{}", text::table(&table));
    Ok(exit::PASSED)
}

async fn get(
    engine: &Arc<Engine>,
    build: BuildId,
    stage: &str,
    path: Option<&str>,
    output: &Path,
) -> anyhow::Result<i32> {
    let node = node(stage)?;
    let mut manifest = manifest(engine, build, &node)
        .await?
        .ok_or_else(|| Usage(format!("stage `{node}` has no result in build {build}")))?;
    if let Some(path) = path {
        let path = path.trim_end_matches('/');
        manifest.files.retain(|file| file.path == path || file.path.starts_with(&format!("{path}/")));
        if manifest.files.is_empty() {
            return Err(Usage(format!("stage `{node}` of build {build} made no `{path}`")).into());
        }
    }
    let count = manifest.files.len();
    engine.artifacts.materialize(&manifest, output).await?;
    anstream::println!("{count} file{} written to {}", if count == 1 { "" } else { "s" }, output.display());
    Ok(exit::PASSED)
}
