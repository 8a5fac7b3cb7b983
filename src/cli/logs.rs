//! `orchestrator logs`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::args::LogsArgs;
use super::exit::{self, Usage};
use super::place::Place;
use super::{data, text, view};
use crate::client::answers::{self, BuildDetail, Piece};
use crate::client::{Ask, Client, ClientError};
use crate::engine::Engine;
use crate::ids::{BuildId, NodeKey};
use crate::logs::{Follow, Line, Stream};
use crate::store::{attempts, builds};

/// How often a follower asks whether the attempt has ended.
const LOOK: Duration = Duration::from_millis(200);
/// A server that restarts is back within so many tries, with this between them.
const PATIENCE: u32 = 60;
const RETRY: Duration = Duration::from_secs(1);

/// Prints logs.
///
/// # Errors
/// If there is no such build, stage or attempt.
pub async fn run(place: Place, args: LogsArgs) -> anyhow::Result<i32> {
    match place {
        Place::Here(data) => here(data.as_deref(), &args).await?,
        Place::There(client) => there(&client, &args).await?,
    }
    Ok(exit::PASSED)
}

async fn here(data: Option<&Path>, args: &LogsArgs) -> anyhow::Result<()> {
    let engine = data::open(data).await?;
    let build = args.build;
    let stages = engine
        .store
        .read(move |db| {
            builds::get(db, build)?;
            builds::stages(db, build)
        })
        .await?;
    let names: Vec<String> = stages.iter().map(|stage| stage.node.to_string()).collect();
    let wanted = wanted(&names, args)?;
    let many = wanted.len() > 1;
    for at in wanted {
        heading(&names[at], many, args);
        print(&engine, build, &stages[at].node, args).await?;
    }
    Ok(())
}

/// The places of the stages that are asked for.
fn wanted(names: &[String], args: &LogsArgs) -> Result<Vec<usize>, Usage> {
    let Some(name) = &args.stage else { return Ok((0..names.len()).collect()) };
    let fits = |node: &String| node == name || node.split('.').next() == Some(name);
    let found: Vec<usize> = (0..names.len()).filter(|at| fits(&names[*at])).collect();
    if found.is_empty() {
        let known: Vec<String> = names.iter().map(|node| format!("`{node}`")).collect();
        return Err(Usage(format!("build {} has no stage `{name}`; it has {}", args.build, known.join(", "))));
    }
    Ok(found)
}

fn heading(node: &str, many: bool, args: &LogsArgs) {
    if many && !args.json {
        text::line(&text::paint(text::BOLD, format!("── {node}")));
    }
}

fn has_not_run(node: &str, build: BuildId) {
    text::remark(&text::paint(text::DIM, format!("`{node}` has not run in build {build}")));
}

async fn there(client: &Client, args: &LogsArgs) -> anyhow::Result<()> {
    let build = args.build.0.to_string();
    let detail: BuildDetail = client.get(&Ask { path: &["builds", &build], ..Ask::default() }).await?;
    let names: Vec<String> = detail.stages.iter().map(|stage| stage.node.clone()).collect();
    let wanted = wanted(&names, args)?;
    let many = wanted.len() > 1;
    for at in wanted {
        let node = &names[at];
        heading(node, many, args);
        let last = detail.stages[at].attempts.last().map(|attempt| attempt.attempt);
        match args.attempt.or(last) {
            None => has_not_run(node, args.build),
            Some(attempt) if args.follow => follow(client, (&build, node, &attempt.to_string()), args).await?,
            Some(attempt) => whole(client, (&build, node, &attempt.to_string()), args).await?,
        }
    }
    Ok(())
}

/// The log as far as it goes now, in pieces.
async fn whole(client: &Client, (build, node, attempt): (&str, &str, &str), args: &LogsArgs) -> anyhow::Result<()> {
    let path = ["builds", build, "stages", node, "attempts", attempt, "log"];
    let mut from = 0;
    loop {
        let query = [
            ("from", Some(from.to_string())),
            ("limit", Some("5000".to_owned())),
            ("serve", args.serve.then(|| "true".to_owned())),
        ];
        let piece: Piece = client.get(&Ask { path: &path, query: &query, ..Ask::default() }).await?;
        let Some(last) = piece.lines.last() else { return Ok(()) };
        from = last.number + 1;
        for line in piece.lines {
            show(&line.into(), args)?;
        }
    }
}

/// The log until its attempt has ended. Where the connection breaks, it goes on behind the last line.
async fn follow(client: &Client, (build, node, attempt): (&str, &str, &str), args: &LogsArgs) -> anyhow::Result<()> {
    let path = ["builds", build, "stages", node, "attempts", attempt, "log", "follow"];
    let query = [("serve", args.serve.then(|| "true".to_owned()))];
    let ask = Ask { path: &path, query: &query, ..Ask::default() };
    let (mut last, mut tries) = (None, 0);
    loop {
        let told = async {
            let mut stream = client.events(&ask, last).await?;
            while let Some(told) = stream.next().await? {
                tries = 0;
                if told.name == "end" {
                    return Ok(true);
                }
                last = told.id.or(last);
                if let Ok(line) = serde_json::from_str::<answers::Line>(&told.data) {
                    let _ = show(&line.into(), args);
                }
            }
            Ok(false)
        };
        match told.await {
            Ok(true) => return Ok(()),
            // The server stopped; its next start goes on with the same log.
            Ok(false) | Err(ClientError::Unreachable { .. }) if tries < PATIENCE => tries += 1,
            Ok(false) => anyhow::bail!("the server ends the log again and again; try once more later"),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(RETRY).await;
    }
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
                    has_not_run(&node.to_string(), build);
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
