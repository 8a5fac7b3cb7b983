//! `orchestrator logs`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::args::LogsArgs;
use super::exit::{self, Usage};
use super::{data, text, view};
use crate::engine::Engine;
use crate::ids::{BuildId, NodeKey};
use crate::logs::{Follow, Line, Stream};
use crate::store::{attempts, builds};

/// How often a follower asks whether the attempt has ended.
const LOOK: Duration = Duration::from_millis(200);

/// Prints logs.
///
/// # Errors
/// If there is no such build, stage or attempt.
pub async fn run(data: Option<&Path>, args: LogsArgs) -> anyhow::Result<i32> {
    let engine = data::open(data).await?;
    let build = args.build;
    let stages = engine
        .store
        .read(move |db| {
            builds::get(db, build)?;
            builds::stages(db, build)
        })
        .await?;
    let nodes: Vec<NodeKey> = match &args.stage {
        None => stages.into_iter().map(|stage| stage.node).collect(),
        Some(name) => {
            let wanted: Vec<NodeKey> = stages
                .iter()
                .map(|stage| stage.node.clone())
                .filter(|node| node.to_string() == *name || node.stage.as_str() == name)
                .collect();
            if wanted.is_empty() {
                let known: Vec<String> = stages.iter().map(|stage| format!("`{}`", stage.node)).collect();
                return Err(Usage(format!("build {build} has no stage `{name}`; it has {}", known.join(", "))).into());
            }
            wanted
        }
    };
    let many = nodes.len() > 1;
    for node in nodes {
        if many && !args.json {
            text::line(&text::paint(text::BOLD, format!("── {node}")));
        }
        print(&engine, build, &node, &args).await?;
    }
    Ok(exit::PASSED)
}

async fn print(engine: &Arc<Engine>, build: BuildId, node: &NodeKey, args: &LogsArgs) -> anyhow::Result<()> {
    let attempt = match args.attempt {
        Some(attempt) => attempt,
        None => {
            let key = node.clone();
            let rows = engine.store.read(move |db| attempts::of_stage(db, build, &key)).await?;
            match rows.last() {
                Some(row) => row.attempt,
                None => {
                    text::remark(&text::paint(text::DIM, format!("`{node}` has not run in build {build}")));
                    return Ok(());
                }
            }
        }
    };
    let path: PathBuf =
        if args.serve { engine.paths.serve_log(build, node, attempt) } else { engine.paths.log(build, node, attempt) };
    let (over, ended) = watch::channel(!args.follow);
    let asker = args.follow.then(|| tokio::spawn(tell_end(Arc::clone(engine), build, node.clone(), attempt, over)));
    let mut follow = Follow::new(&path, 0, ended);
    while let Some(lines) = follow.next().await? {
        for line in lines {
            show(&line, args)?;
        }
    }
    if let Some(asker) = asker {
        asker.abort();
    }
    Ok(())
}

async fn tell_end(engine: Arc<Engine>, build: BuildId, node: NodeKey, attempt: u32, over: watch::Sender<bool>) {
    loop {
        let key = node.clone();
        let row = engine.store.read(move |db| attempts::find(db, build, &key, attempt)).await;
        if row.is_ok_and(|row| row.is_none_or(|row| row.ended_at.is_some())) {
            let _ = over.send(true);
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn show(line: &Line, args: &LogsArgs) -> anyhow::Result<()> {
    if args.json {
        text::line(&serde_json::to_string(line)?);
        return Ok(());
    }
    let stamp = if args.timestamps {
        let at = jiff::Timestamp::from_microsecond(line.at.0).map(|at| at.to_string()).unwrap_or_default();
        format!("{} ", text::paint(text::DIM, at))
    } else {
        String::new()
    };
    let shown = view::clean(&line.text);
    match line.stream {
        Stream::Note => text::line(&format!("{stamp}{}", text::paint(text::DIM, format!("· {shown}")))),
        Stream::Stdout | Stream::Stderr => text::line(&format!("{stamp}{shown}")),
    }
    Ok(())
}
