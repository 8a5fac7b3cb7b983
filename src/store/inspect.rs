//! What must hold in every database, looked for row by row. Nothing here changes anything.

use rusqlite::{Connection, params};

use super::StoreError;
use crate::ids::{BuildId, NodeKey};

/// Violations of one kind that are named.
const NAMED: usize = 20;

/// What must not be there: each query gives a text for every violation.
const RULES: &[(&str, &str)] = &[
    (
        "started triggers have builds",
        // A trigger whose builds were removed for their age went with the last of them.
        "SELECT 'trigger ' || id || ' of ' || project FROM triggers WHERE decision IN ('started', 'awaiting') \
         AND NOT EXISTS (SELECT 1 FROM builds WHERE builds.trigger = triggers.id) LIMIT ?1",
    ),
    (
        "a trigger builds a pipeline once",
        "SELECT 'trigger ' || trigger || ': ' || count(*) || ' builds of ' || json_extract(request, '$.file') FROM builds \
         WHERE trigger IS NOT NULL GROUP BY trigger, json_extract(request, '$.file') HAVING count(*) > 1 LIMIT ?1",
    ),
    (
        "ended builds have ended stages",
        "SELECT 'build ' || build || ' ' || node || ' is ' || stages.status FROM stages JOIN builds ON builds.id = build \
         WHERE builds.status IN ('passed', 'failed', 'cancelled') AND stages.status IN ('waiting', 'running', 'delayed') LIMIT ?1",
    ),
    (
        "ended builds have ended attempts",
        "SELECT 'build ' || build || ' ' || node || ' attempt ' || attempt FROM attempts JOIN builds ON builds.id = build \
         WHERE builds.status IN ('passed', 'failed', 'cancelled') AND attempts.ended_at IS NULL LIMIT ?1",
    ),
    (
        "running stages have an attempt",
        "SELECT 'build ' || build || ' ' || node FROM stages WHERE status = 'running' AND NOT EXISTS \
         (SELECT 1 FROM attempts WHERE attempts.build = stages.build AND attempts.node = stages.node \
         AND attempts.ended_at IS NULL) LIMIT ?1",
    ),
    (
        "champions are versions",
        "SELECT model || ' version ' || version FROM aliases WHERE NOT EXISTS (SELECT 1 FROM versions \
         WHERE versions.model = aliases.model AND versions.version = aliases.version) LIMIT ?1",
    ),
];

/// A rule with what breaks it, the first few of each.
#[derive(Debug)]
pub struct Broken {
    /// The rule.
    pub rule: &'static str,
    /// What breaks it.
    pub rows: Vec<String>,
}

/// Every rule with what breaks it; empty where it holds.
///
/// # Errors
/// The database's.
pub fn rules(db: &Connection) -> Result<Vec<Broken>, StoreError> {
    let one = |(rule, query): &(&'static str, &str)| {
        let mut query = db.prepare(query)?;
        let rows = query.query_map([NAMED as i64], |row| row.get(0))?;
        Ok(Broken { rule, rows: rows.collect::<Result<_, _>>()? })
    };
    RULES.iter().map(one).collect()
}

/// What SQLite itself finds wrong: pages, indexes, references.
///
/// # Errors
/// The database's.
pub fn integrity(db: &Connection) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    db.pragma(None, "integrity_check", NAMED as i64, |row| {
        found.push(row.get::<_, String>(0)?);
        Ok(())
    })?;
    found.retain(|line| line != "ok");
    let mut references = 0;
    db.pragma_query(None, "foreign_key_check", |row| {
        references += 1;
        if references <= NAMED {
            found.push(format!(
                "a row of {} names one of {} that is not there",
                row.get::<_, String>(0)?,
                row.get::<_, String>(2)?
            ));
        }
        Ok(())
    })?;
    Ok(found)
}

/// Builds that are under way, as the rows say.
///
/// # Errors
/// The database's.
pub fn running(db: &Connection) -> Result<Vec<(BuildId, bool)>, StoreError> {
    let mut query =
        db.prepare("SELECT id, trigger IS NOT NULL FROM builds WHERE status = 'running' ORDER BY id LIMIT 10000")?;
    let rows = query.query_map([], |row| Ok((BuildId(row.get(0)?), row.get(1)?)))?;
    rows.map(|row| Ok(row?)).collect()
}

/// Ended attempts that were launched, from behind a build on, so many builds at once. The last build is where to go on.
///
/// # Errors
/// The database's.
pub fn launched(db: &Connection, behind: BuildId, builds: usize) -> Result<Vec<(BuildId, NodeKey, u32)>, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT build, node, attempt FROM attempts WHERE launched_at IS NOT NULL AND ended_at IS NOT NULL AND build IN \
         (SELECT id FROM builds WHERE id > ?1 ORDER BY id LIMIT ?2) ORDER BY build, node, attempt",
    )?;
    let rows = query.query_map(params![behind.0, builds as i64], |row| {
        Ok((BuildId(row.get(0)?), row.get::<_, String>(1)?, row.get(2)?))
    })?;
    rows.map(|row| {
        let (build, node, attempt) = row?;
        let node = node.parse().map_err(|_| StoreError::Corrupt(format!("node `{node}`")))?;
        Ok((build, node, attempt))
    })
    .collect()
}

/// The last build of the next so many behind one; none if there is no other.
///
/// # Errors
/// The database's.
pub fn step(db: &Connection, behind: BuildId, builds: usize) -> Result<Option<BuildId>, StoreError> {
    let last: Option<u64> = db
        .prepare_cached("SELECT max(id) FROM (SELECT id FROM builds WHERE id > ?1 ORDER BY id LIMIT ?2)")?
        .query_row(params![behind.0, builds as i64], |row| row.get(0))?;
    Ok(last.map(BuildId))
}
