//! The load test of an attempt: its numbers, and how they went over time; while it runs, how it goes.

use std::fmt;

use askama::Template;
use askama::filters::HtmlSafe;
use axum::extract::State;
use axum::response::Response;
use rusqlite::Connection;

use super::{Found, find};
use crate::build::status::StageStatus;
use crate::ids::{BuildId, NodeKey};
use crate::load::html;
use crate::load::html_charts::{Earlier, under_way};
use crate::load::report::LoadReport;
use crate::store::{StoreError, attempts, builds, models};
use crate::web::App;
use crate::web::api::page::Named;
use crate::web::pages::csv;
use crate::web::pages::shell::{Section, Shell};
use crate::web::pages::visitor::Visitor;
use crate::web::problem::{Answer, Problem};

/// The report as it was drawn.
struct Report(String);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// [`html`] escapes every text that it puts in.
impl HtmlSafe for Report {}

#[derive(Template)]
#[template(path = "load.html")]
struct LoadPage {
    shell: Shell,
    build: u64,
    project: String,
    node: String,
    attempt: u32,
    report: Report,
    /// It has ended, and there are tables of it.
    ended: bool,
}

type Which = (u64, String, u32);

/// A load test.
pub async fn show(visitor: Visitor, State(app): State<App>, Named(which): Named<Which>) -> Answer<Response> {
    let found = find(&visitor, &app, which).await?;
    let shell = Shell::new(&visitor, Section::Builds, format!("Load test {} of {}", found.stage.node, found.build.id));
    let ended = found.attempt.reports.contains_key("loadtest");
    let (shell, report) = if ended || found.attempt.outcome.is_some() {
        let report = report(&found)?;
        let (build, node) = (found.build.clone(), found.stage.node.clone());
        let earlier = app.engine.store.read(move |db| earlier(db, &build, &node)).await?;
        let earlier = earlier.as_ref().map(|(name, report)| Earlier { name, report });
        (shell, html::fragment(&report, earlier))
    } else {
        let live = app.engine.live_loads.of(found.build.id, &found.stage.node);
        let drawn = live.map_or_else(|| NOT_LIVE.to_owned(), |live| under_way(&live));
        // Each second is fetched; the end comes as an event.
        (shell.live(format!("/api/v1/builds/{}/events", found.build.id.0)).every(1), drawn)
    };
    super::super::page(&LoadPage {
        shell,
        build: found.build.id.0,
        node: found.stage.node.to_string(),
        attempt: found.attempt.attempt,
        project: found.build.request.project,
        report: Report(report),
        ended,
    })
}

const NOT_LIVE: &str = "<p class=\"quiet\">No figures yet: the server is being started, or an outside tool makes the load and tells \
                        its figures at its end.</p>";

fn report(found: &Found) -> Answer<LoadReport> {
    let (node, attempt) = (&found.stage.node, found.attempt.attempt);
    let report = found.attempt.reports.get("loadtest");
    let report = report.ok_or_else(|| Problem::missing(format!("attempt {attempt} of `{node}` measured no load")))?;
    serde_json::from_value(report.clone())
        .map_err(|error| Problem::missing(format!("this version cannot read the report of `{node}`: {error}")))
}

/// The same stage's test of the champion, or of the champion before if this build made it.
fn earlier(
    db: &Connection,
    build: &builds::BuildRow,
    node: &NodeKey,
) -> Result<Option<(String, LoadReport)>, StoreError> {
    let request = &build.request;
    for (model, _) in models::names(db)? {
        if models::owner(db, &model)?.as_ref() != Some(&request.project) {
            continue;
        }
        let Some(newest) = models::versions(db, &model, 1)?.into_iter().next() else { continue };
        if newest.lineage.pipeline != request.pipeline {
            continue;
        }
        let Some(champion) = models::champion(db, &model)? else { continue };
        let mut chosen = Some((champion, "the champion"));
        if models::version(db, &model, champion)?.build == build.id {
            chosen = models::before(db, &model, champion)?.map(|before| (before, "the champion before"));
        }
        let Some((version, what)) = chosen else { continue };
        let row = models::version(db, &model, version)?;
        let made_in = row.build;
        // Who sees this build may not see another project's, which earlier programs let add versions to the model.
        if row.lineage.project == request.project
            && made_in != build.id
            && let Some(report) = measured(db, made_in, node)?
        {
            return Ok(Some((format!("{what}, version {version}"), report)));
        }
    }
    Ok(None)
}

/// What a stage measured in a build, or where its result was taken from.
fn measured(db: &Connection, build: BuildId, node: &NodeKey) -> Result<Option<LoadReport>, StoreError> {
    let stage = builds::stages(db, build)?.into_iter().find(|row| row.node == *node);
    let build = match stage.map(|row| row.status) {
        Some(StageStatus::Reused { from }) => from,
        Some(_) => build,
        None => return Ok(None),
    };
    let tries = attempts::of_stage(db, build, node)?;
    let report = tries.iter().rev().find_map(|attempt| attempt.reports.get("loadtest"));
    Ok(report.and_then(|report| serde_json::from_value(report.clone()).ok()))
}

/// The seconds of a load test.
pub async fn series(visitor: Visitor, State(app): State<App>, Named(which): Named<Which>) -> Answer<Response> {
    let found = find(&visitor, &app, which).await?;
    let head = [
        "at_s",
        "seconds",
        "counted",
        "good",
        "failed",
        "dropped",
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "users_or_unanswered",
    ];
    let rows = report(&found)?.series.into_iter().map(|step| {
        let ms = csv::number;
        [
            step.at.to_string(),
            step.seconds.to_string(),
            step.counted.to_string(),
            step.good.to_string(),
            step.failed.to_string(),
            step.dropped.to_string(),
            ms(step.p50_ms),
            ms(step.p95_ms),
            ms(step.p99_ms),
            step.users.to_string(),
        ]
    });
    csv::answer(&name(&found, "seconds"), head, rows)
}

/// How many answers took how long.
pub async fn latencies(visitor: Visitor, State(app): State<App>, Named(which): Named<Which>) -> Answer<Response> {
    let found = find(&visitor, &app, which).await?;
    let report = report(&found)?;
    let latency = &report.total.latency;
    let total = latency.count.max(1) as f64;
    let mut below = 0;
    let rows = latency.buckets.buckets().iter().map(|(micros, count)| {
        below += count;
        [(*micros as f64 / 1000.0).to_string(), count.to_string(), (below as f64 / total).to_string()]
    });
    csv::answer(&name(&found, "latencies"), ["latency_ms", "answers", "share_up_to_here"], rows)
}

fn name(found: &Found, what: &str) -> String {
    let of: String =
        found.stage.node.to_string().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("build-{}-{of}-{what}", found.build.id.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::Store;

    /// What two runs of the quickstart left; the second is champion.
    const ROWS: &str = include_str!("../../../../tests/fixtures/store/first-schema.sql");

    #[tokio::test]
    async fn only_versions_of_the_same_project_stand_beside_a_test() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(&folder.path().join("s.db")).expect("opens"));
        // The rows bring the data folder's name along.
        let rows = store.write(|tx| {
            tx.execute("DELETE FROM meta WHERE name = 'instance'", [])?;
            Ok(tx.execute_batch(ROWS)?)
        });
        rows.await.expect("written");
        let node: NodeKey = "loadtest".parse().expect("a name");
        let beside = |build: u64| {
            let node = node.clone();
            let read = store.read(move |db| earlier(db, &builds::get(db, BuildId(build))?, &node));
            async { read.await.expect("read").map(|(name, _)| name) }
        };
        let give = |version: u64| {
            store.write(move |tx| {
                let other = "UPDATE versions SET lineage = json_set(lineage, '$.project', 'other') WHERE version = ?1";
                Ok(tx.execute(other, [version])?)
            })
        };
        assert_eq!(beside(1).await.as_deref(), Some("the champion, version 2"));
        assert_eq!(beside(2).await.as_deref(), Some("the champion before, version 1"));
        give(2).await.expect("written");
        assert_eq!(beside(1).await, None, "the champion is another project's");
        assert_eq!(beside(2).await.as_deref(), Some("the champion before, version 1"));
        give(1).await.expect("written");
        assert_eq!(beside(2).await, None, "the model is another project's");
    }
}
