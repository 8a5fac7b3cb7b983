//! `orchestrator builds`, `show`, `cancel`.

use std::path::Path;

use tokio::sync::{broadcast, watch};

use super::args::{BuildsArgs, CancelArgs, ShowArgs};
use super::exit::{self, Usage};
use super::{data, report, text};
use crate::build::status::CancelReason;
use crate::engine::drive::Drive;
use crate::engine::environment::Secrets;
use crate::engine::notice;
use crate::engine::slots::Slots;
use crate::store::builds;

/// Lists builds.
///
/// # Errors
/// The database's.
pub async fn list(data: Option<&Path>, args: BuildsArgs) -> anyhow::Result<i32> {
    let engine = data::open(data).await?;
    let project = args.project.clone();
    let rows =
        engine.store.read(move |db| builds::list(db, project.as_deref(), args.before, usize::from(args.limit))).await?;
    if args.json {
        data::print_json(&rows)?;
        return Ok(exit::PASSED);
    }
    if rows.is_empty() {
        text::remark("no builds yet: `orchestrator run pipeline.yaml` makes the first");
    }
    let mut table = vec![["BUILD", "PROJECT", "RESULT", "SOURCE", "STARTED", "TOOK"].map(str::to_owned).to_vec()];
    for row in rows {
        let source = match (&row.request.commit, row.request.dirty) {
            (Some(commit), dirty) => {
                format!("{}{}", commit.get(..9).unwrap_or(commit), if dirty { "+changes" } else { "" })
            }
            (None, _) => "folder".to_owned(),
        };
        let took = match (row.started_at, row.ended_at) {
            (Some(from), Some(to)) => text::duration(to.since(from)),
            (Some(_) | None, _) => String::new(),
        };
        table.push(vec![
            row.id.to_string(),
            text::one_line(&row.request.project, 40),
            text::build_word(row.status),
            source,
            text::moment(row.started_at.unwrap_or(row.created_at)),
            took,
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
/// The database's, or if there is no such build.
pub async fn show(data: Option<&Path>, args: ShowArgs) -> anyhow::Result<i32> {
    let engine = data::open(data).await?;
    let id = match args.build {
        Some(id) => id,
        None => {
            let newest = engine.store.read(|db| builds::list(db, None, None, 1)).await?;
            newest.first().map(|row| row.id).ok_or_else(|| Usage("there are no builds yet".to_owned()))?
        }
    };
    if args.json {
        data::print_json(&report::collect(&engine, id).await?)?;
    } else {
        report::print(&engine, id, report::Parts::All).await?;
    }
    Ok(exit::PASSED)
}

/// Ends a build that was interrupted: what still runs is killed, nothing new is started.
///
/// # Errors
/// The database's, or if another process drives the build.
pub async fn cancel(data: Option<&Path>, args: CancelArgs) -> anyhow::Result<i32> {
    let engine = data::open(data).await?;
    let (notices, _) = broadcast::channel(notice::CAPACITY);
    let (_keep, cancel) = watch::channel(Some(CancelReason::Kill));
    let drive = Drive { secrets: Secrets::default(), cancel, notices, slots: Slots::of_this_machine(), priority: 0 };
    let status = engine.drive(args.build, drive).await?;
    anstream::println!("build {} is {}", args.build, text::build_word(status));
    super::run::finish_packing(&engine).await?;
    Ok(exit::PASSED)
}
