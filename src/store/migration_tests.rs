//! Every older schema becomes the newest one, with all that it held.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::{MIGRATIONS, Store, attempts, builds, deployments, events, models, results, triggers};
use crate::build::event::Event;
use crate::build::status::BuildStatus;
use crate::ids::BuildId;

/// What a run left, as the first schema held it.
const ROWS: &str = include_str!("../../tests/fixtures/store/first-schema.sql");

/// A database as a program with so many migrations left it.
fn older(path: &Path, version: usize) {
    let db = Connection::open(path).expect("a database");
    db.pragma_update(None, "journal_mode", "wal").expect("set");
    db.execute_batch(MIGRATIONS[0]).expect("the first schema");
    db.execute_batch(ROWS).expect("rows of the first schema");
    for script in &MIGRATIONS[1..version] {
        db.execute_batch(script).expect("a migration");
    }
    db.pragma_update(None, "user_version", version).expect("set");
}

/// Tables and indexes as they were made, white space aside.
fn schema(path: &Path) -> Vec<String> {
    let db = Connection::open(path).expect("a database");
    let mut query =
        db.prepare("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name").expect("asked");
    let rows = query.query_map([], |row| Ok(format!("{} {}", row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
    let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    rows.expect("rows").map(|row| words(row.expect("a row"))).collect()
}

#[tokio::test]
async fn every_older_schema_is_taken_up_with_all_that_it_held() {
    let folder = tempfile::tempdir().expect("a folder");
    let newest = folder.path().join("newest.db");
    drop(Store::open(&newest).expect("opens"));
    for version in 1..=MIGRATIONS.len() {
        let path = folder.path().join(format!("{version}.db"));
        older(&path, version);
        let store = Arc::new(Store::open(&path).unwrap_or_else(|error| panic!("schema {version}: {error}")));
        assert_eq!(store.instance, "04ef18f6", "it stays the same data folder");
        let all = store.read(|db| {
            for id in [BuildId(1), BuildId(2)] {
                assert_eq!(builds::get(db, id)?.status, BuildStatus::Passed);
                assert!(matches!(
                    events::of_build(db, id)?.last().map(|last| &last.event),
                    Some(Event::BuildEnded { .. })
                ));
                let stages = builds::stages(db, id)?;
                assert_eq!(stages.len(), 4);
                for stage in stages {
                    assert_eq!(attempts::of_stage(db, id, &stage.node)?.len(), 1, "{}", stage.node);
                    assert!(results::of_stage(db, id, &stage.node)?.is_some(), "{}", stage.node);
                }
            }
            assert_eq!(models::names(db)?, [("quickstart".to_owned(), 2)]);
            assert_eq!(models::champion(db, "quickstart")?, Some(2));
            assert!(models::version(db, "quickstart", 1)?.metrics["average_precision"] > 0.14);
            assert_eq!(deployments::list(db, 10)?.len(), 2);
            // What is new is there, too, and empty.
            triggers::next_open(db, "quickstart", crate::ids::Micros(i64::MAX))
        });
        assert_eq!(all.await.unwrap_or_else(|error| panic!("schema {version}: {error}")), None);
        drop(store);
        assert_eq!(schema(&path), schema(&newest), "schema {version}");
    }
}
