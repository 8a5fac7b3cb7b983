//! `orchestrator builds`, `show`, `cancel`.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use super::args::{BuildsArgs, CancelArgs, ShowArgs};
use super::exit::{self, Usage};
use super::place::{Place, post_once};
use super::{data, report, text};
use crate::build::status::CancelReason;
use crate::client::answers::{Build, Page};
use crate::client::{Ask, Client};
use crate::engine::drive::Drive;
use crate::engine::environment::Secrets;
use crate::engine::notice;
use crate::engine::slots::Slots;
use crate::ids::{BuildId, Micros};
use crate::store::builds::{self, BuildRow};

/// A build as it is listed.
struct Listed {
    id: BuildId,
    project: String,
    status: String,
    source: String,
    began: Micros,
    took: Option<Duration>,
}

impl Listed {
    fn here(row: &BuildRow) -> Self {
        let source = match (&row.request.commit, row.request.dirty) {
            (Some(commit), dirty) => {
                format!("{}{}", commit.get(..9).unwrap_or(commit), if dirty { "+changes" } else { "" })
            }
            (None, _) => "folder".to_owned(),
        };
        Self {
            id: row.id,
            project: row.request.project.clone(),
            status: row.status.word().to_owned(),
            source,
            began: row.started_at.unwrap_or(row.created_at),
            took: row.ended_at.zip(row.started_at).map(|(to, from)| to.since(from)),
        }
    }

    fn there(row: Build) -> Self {
        let commit = row.commit.map(|commit| commit.get(..9).unwrap_or(&commit).to_owned());
        Self {
            id: BuildId(row.id),
            project: row.project,
            status: row.status,
            source: commit.unwrap_or_else(|| "folder".to_owned()),
            began: Micros(row.started_at.unwrap_or(row.created_at)),
            took: row.ended_at.zip(row.started_at).map(|(to, from)| Micros(to).since(Micros(from))),
        }
    }
}

/// Lists builds.
///
/// # Errors
/// The database's, or the server's.
pub async fn list(place: Place, args: BuildsArgs) -> anyhow::Result<i32> {
    let builds: Vec<Listed> = match place {
        Place::Here(data) => {
            let engine = data::open(data.as_deref()).await?;
            let (project, limit) = (args.project.clone(), usize::from(args.limit));
            let rows = engine.store.read(move |db| builds::list(db, project.as_deref(), args.before, limit)).await?;
            if args.json {
                data::print_json(&rows)?;
                return Ok(exit::PASSED);
            }
            rows.iter().map(Listed::here).collect()
        }
        Place::There(client) => {
            let query = [
                ("project", args.project.clone()),
                ("before", args.before.map(|id| id.0.to_string())),
                ("limit", Some(args.limit.min(200).to_string())),
            ];
            let page: Value = client.get(&Ask { path: &["builds"], query: &query, ..Ask::default() }).await?;
            if args.json {
                data::print_json(&page)?;
                return Ok(exit::PASSED);
            }
            serde_json::from_value::<Page<Build>>(page)?.items.into_iter().map(Listed::there).collect()
        }
    };
    if builds.is_empty() {
        text::remark("no builds yet: `orchestrator run pipeline.yaml` makes the first");
    }
    let mut table = vec![["BUILD", "PROJECT", "RESULT", "SOURCE", "STARTED", "TOOK"].map(str::to_owned).to_vec()];
    for row in builds {
        table.push(vec![
            row.id.to_string(),
            text::one_line(&row.project, 40),
            text::coloured(&row.status),
            text::one_line(&row.source, 20),
            text::moment(row.began),
            row.took.map(text::duration).unwrap_or_default(),
        ]);
    }
    if table.len() > 1 {
        anstream::print!("{}", text::table(&table));
    }
    Ok(exit::PASSED)
}

/// Shows one build.
///
/// # Errors
/// The database's or the server's, or if there is no such build.
pub async fn show(place: Place, args: ShowArgs) -> anyhow::Result<i32> {
    match place {
        Place::Here(data) => show_here(data.as_deref(), args).await,
        Place::There(client) => show_there(&client, args).await,
    }
}

fn none_yet() -> Usage {
    Usage("there are no builds yet".to_owned())
}

async fn show_here(data: Option<&Path>, args: ShowArgs) -> anyhow::Result<i32> {
    let engine = data::open(data).await?;
    let id = match args.build {
        Some(id) => id,
        None => {
            let newest = engine.store.read(|db| builds::list(db, None, None, 1)).await?;
            newest.first().map(|row| row.id).ok_or_else(none_yet)?
        }
    };
    if args.json {
        data::print_json(&crate::engine::outcome::collect(&engine, id).await?)?;
    } else {
        report::print(&engine, id, report::Parts::All).await?;
    }
    Ok(exit::PASSED)
}

async fn show_there(client: &Client, args: ShowArgs) -> anyhow::Result<i32> {
    let id = match args.build {
        Some(id) => id.0,
        None => {
            let one = [("limit", Some("1".to_owned()))];
            let page: Page<Build> = client.get(&Ask { path: &["builds"], query: &one, ..Ask::default() }).await?;
            page.items.first().map(|row| row.id).ok_or_else(none_yet)?
        }
    };
    let detail: Value = client.get(&Ask { path: &["builds", &id.to_string()], ..Ask::default() }).await?;
    if args.json {
        data::print_json(&detail)?;
    } else {
        report::print_from(client, &serde_json::from_value(detail)?).await?;
    }
    Ok(exit::PASSED)
}

/// Ends a build, on a server any, here one that was interrupted: what still runs is killed, nothing new is started.
///
/// # Errors
/// The server's or the database's, or if another process drives the build.
pub async fn cancel(place: Place, args: CancelArgs) -> anyhow::Result<i32> {
    match place {
        Place::Here(data) => cancel_here(data.as_deref(), args).await,
        Place::There(client) => {
            let body = json!({ "kill": args.kill });
            let answer: Value =
                post_once(&client, &["builds", &args.build.0.to_string(), "cancel"], Some(body)).await?;
            match answer.get("accepted").and_then(Value::as_bool) {
                Some(true) => anstream::println!("build {} is being cancelled", args.build),
                Some(false) | None => anstream::println!("build {} has ended already", args.build),
            }
            Ok(exit::PASSED)
        }
    }
}

async fn cancel_here(data: Option<&Path>, args: CancelArgs) -> anyhow::Result<i32> {
    let engine = data::open(data).await?;
    let (notices, _) = broadcast::channel(notice::CAPACITY);
    let (_keep, cancel) = watch::channel(Some(CancelReason::Kill));
    let drive = Drive { secrets: Secrets::default(), cancel, notices, slots: Slots::of_this_machine(), priority: 0 };
    let status = engine.drive(args.build, drive).await?;
    anstream::println!("build {} is {}", args.build, text::build_word(status));
    super::run::finish_packing(&engine).await?;
    Ok(exit::PASSED)
}
