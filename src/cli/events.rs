//! `orchestrator events`: what happened to a build, and live what happens.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::place::Place;
use super::{data, exit, text, view};
use crate::build::event::{Event, Stamped};
use crate::client::answers::BuildDetail;
use crate::client::{Ask, Client, ClientError};
use crate::engine::notice::Notice;
use crate::ids::{BuildId, Micros};
use crate::store::{builds, events};

/// `events`
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// The build
    pub build: BuildId,
    /// Go on until the build has ended
    #[arg(short, long)]
    pub follow: bool,
    /// Print each event as a line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Rows that are read at once.
const BATCH: usize = 200;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// A server that restarts is back within so many seconds.
const PATIENCE: u32 = 60;

/// Prints them.
///
/// # Errors
/// If there is no such build, or the server's.
pub async fn run(place: Place, args: EventsArgs) -> anyhow::Result<i32> {
    match place {
        Place::Here(data) => here(data.as_deref(), &args).await?,
        Place::There(client) => there(&client, &args).await?,
    }
    Ok(exit::PASSED)
}

async fn here(data: Option<&std::path::Path>, args: &EventsArgs) -> anyhow::Result<()> {
    let engine = data::open(data).await?;
    let (id, mut last) = (args.build, 0);
    loop {
        let read = engine.store.read(move |db| {
            let over = builds::get(db, id)?.status.is_terminal();
            Ok((over, events::after(db, id, last, BATCH)?))
        });
        let (over, rows) = read.await?;
        let more = rows.len() == BATCH;
        for (seq, body) in rows {
            last = seq;
            print(id, &body, args.json);
        }
        if !more && (over || !args.follow) {
            return Ok(());
        }
        if !more {
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn there(client: &Client, args: &EventsArgs) -> anyhow::Result<()> {
    let number = args.build.0.to_string();
    let (mut last, mut tries) = (None, 0);
    loop {
        let detail: Result<BuildDetail, _> = client.get(&Ask { path: &["builds", &number], ..Ask::default() }).await;
        let told = async {
            let over = detail?.build.over();
            // Without `--follow`, what has happened up to now: the stream has no end of its own then.
            let path = ["builds", &number, "events"];
            let mut stream = client.events(&Ask { path: &path, ..Ask::default() }, last).await?;
            loop {
                let next = match args.follow || over {
                    true => stream.next().await?,
                    false => match tokio::time::timeout(LOOK, stream.next()).await {
                        Ok(next) => next?,
                        Err(_) => return Ok(true),
                    },
                };
                let Some(told) = next else { return Ok(over || !args.follow) };
                last = told.id.or(last);
                tries = 0;
                print(args.build, &told.data, args.json);
            }
        };
        match told.await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(ClientError::Unreachable { .. }) if last.is_some() && tries < PATIENCE => tries += 1,
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn print(build: BuildId, body: &str, json: bool) {
    let Ok(value) = serde_json::from_str::<Value>(body) else { return };
    if json {
        let mut line = serde_json::json!({ "build": build.0 });
        if let (Some(line), Some(value)) = (line.as_object_mut(), value.as_object()) {
            line.extend(value.clone());
        }
        return text::line(&line.to_string());
    }
    let at = Micros(value.get("at").and_then(Value::as_i64).unwrap_or(0));
    let stamp = text::paint(text::DIM, text::moment(at));
    // What a newer server tells is shown by its name.
    let Ok(event) = serde_json::from_value::<Event>(value.clone()) else {
        let name = value.get("event").and_then(Value::as_str).unwrap_or("?");
        return text::line(&format!("{stamp} {}", text::one_line(name, 80)));
    };
    let words = match &event {
        Event::BuildStarted => Some((None, "the build began".to_owned())),
        Event::BuildEnded { result } => Some((None, format!("the build {}", text::build_word(*result)))),
        Event::AttemptLaunched { .. }
        | Event::CancelRequested { .. }
        | Event::StageSkipped { .. }
        | Event::StageReused { .. }
        | Event::StageCancelled { .. }
        | Event::AttemptStarted { .. }
        | Event::AttemptEnded { .. }
        | Event::Retried { .. } => view::in_words(&Notice::Event { build, event: Stamped { at, event } }),
    };
    if let Some((node, words)) = words {
        let node = node.map(|node| format!("{node} ")).unwrap_or_default();
        text::line(&format!("{stamp} {}{words}", text::paint(text::BOLD, node)));
    }
}
