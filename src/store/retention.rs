//! Which builds need not be kept, and how one goes with all that is of it. Files are removed afterwards, by whoever finds that no
//! row names them.

use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;
use crate::ids::{BuildId, Micros};

/// Up to where the builds of a project are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Builds with a smaller number go.
    pub oldest: BuildId,
    /// Builds made before this go.
    pub before: Option<Micros>,
}

/// Verdicts after which a version served, or could have.
const SERVED: &str = "('promoted', 'rolled-back')";

/// The oldest of a project's newest builds, this many; #0 if there are no more than that.
///
/// # Errors
/// The database's.
pub fn oldest_of(db: &Connection, project: &str, builds: u64) -> Result<BuildId, StoreError> {
    let skipped = i64::try_from(builds.saturating_sub(1)).unwrap_or(i64::MAX);
    let found = db
        .prepare_cached("SELECT id FROM builds WHERE project = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2")?
        .query_row(params![project, skipped], |row| row.get(0))
        .optional()?;
    Ok(BuildId(found.unwrap_or(0)))
}

/// The projects that have builds, also those that are not configured any more.
///
/// # Errors
/// The database's.
pub fn projects(db: &Connection) -> Result<Vec<String>, StoreError> {
    // One step in the index for each, however many builds there are.
    let mut next = db.prepare_cached("SELECT min(project) FROM builds WHERE project > ?1")?;
    let mut found: Vec<String> = Vec::new();
    while let Some(name) = next.query_row([found.last().map_or("", String::as_str)], |row| row.get(0))? {
        found.push(name);
    }
    Ok(found)
}

/// Builds of a project beyond the bounds that may go, oldest first, at most `limit`, all after `after`.
///
/// # Errors
/// The database's.
pub fn beyond(
    db: &Connection,
    project: &str,
    bounds: Bounds,
    after: BuildId,
    limit: usize,
) -> Result<Vec<BuildId>, StoreError> {
    let before = bounds.before.unwrap_or(Micros(i64::MIN));
    let mut found = Vec::new();
    let mut query =
        db.prepare_cached("SELECT id, created_at FROM builds WHERE project = ?1 AND id > ?2 ORDER BY id")?;
    let mut rows = query.query(params![project, after.0])?;
    while let Some(row) = rows.next()? {
        let (id, made): (u64, i64) = (row.get(0)?, row.get(1)?);
        // Numbers and times grow together: all that follow are kept as well.
        if (id >= bounds.oldest.0 && made >= before.0) || found.len() == limit {
            break;
        }
        if !is_needed(db, BuildId(id))? {
            found.push(BuildId(id));
        }
    }
    Ok(found)
}

/// Builds of a project, newest first: for those who count what they take up.
///
/// # Errors
/// The database's.
pub fn newest_first(db: &Connection, project: &str, before: BuildId, limit: usize) -> Result<Vec<BuildId>, StoreError> {
    let mut query =
        db.prepare_cached("SELECT id FROM builds WHERE project = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3")?;
    let rows =
        query.query_map(params![project, before.0.min(i64::MAX as u64), limit], |row| Ok(BuildId(row.get(0)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Digests of what a build's stages gave, and of its source.
///
/// # Errors
/// The database's.
pub fn manifests(db: &Connection, id: BuildId) -> Result<Vec<String>, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT outputs FROM results WHERE build = ?1 \
         UNION SELECT json_extract(request, '$.source') FROM builds WHERE id = ?1",
    )?;
    let rows = query.query_map([id.0], |row| row.get::<_, Option<String>>(0))?;
    Ok(rows.filter_map(Result::transpose).collect::<Result<_, _>>()?)
}

/// Whether a build has to stay: it has not ended; it is the newest of its pipeline; it made a version that is or was champion,
/// is deployed, is its model's newest, or is what a later build's reused training names; or it promoted one.
///
/// # Errors
/// The database's.
pub fn is_needed(db: &Connection, id: BuildId) -> Result<bool, StoreError> {
    let needed = db
        .prepare_cached(&format!(
            "SELECT b.status IN ('queued', 'running') \
               OR NOT EXISTS (SELECT 1 FROM builds n WHERE n.project = b.project AND n.id > b.id AND n.pipeline = b.pipeline) \
               OR EXISTS (SELECT 1 FROM promotions p WHERE p.build = b.id AND p.verdict IN {SERVED}) \
               OR EXISTS (SELECT 1 FROM versions v WHERE v.build = b.id AND ( \
                    v.version = (SELECT max(version) FROM versions WHERE model = v.model) \
                    OR EXISTS (SELECT 1 FROM aliases a WHERE a.model = v.model AND a.version = v.version) \
                    OR EXISTS (SELECT 1 FROM deployments d WHERE d.model = v.model AND d.version = v.version) \
                    OR EXISTS (SELECT 1 FROM promotions p WHERE p.model = v.model AND p.verdict IN {SERVED} \
                               AND (p.candidate = v.version OR p.champion = v.version)) \
                    OR EXISTS (SELECT 1 FROM results r WHERE r.project = b.project AND r.pipeline = b.pipeline \
                               AND r.node = v.node AND r.version = v.version AND r.build <> b.id))) \
             FROM builds b WHERE b.id = ?1"
        ))?
        .query_row([id.0], |row| row.get(0))?;
    Ok(needed)
}

/// Removes a build with all that is of it, unless it is needed meanwhile. Says whether it went. Judgements stay in their model's
/// history: how often the same rows were judged on counts for the next one.
///
/// # Errors
/// The database's.
pub fn remove(tx: &Connection, id: BuildId) -> Result<bool, StoreError> {
    if !exists(tx, id)? || is_needed(tx, id)? {
        return Ok(false);
    }
    let trigger: Option<u64> =
        tx.prepare_cached("SELECT trigger FROM builds WHERE id = ?1")?.query_row([id.0], |row| row.get(0))?;
    for table in ["events", "stages", "attempts", "results", "versions", "outbox"] {
        tx.prepare_cached(&format!("DELETE FROM {table} WHERE build = ?1"))?.execute([id.0])?;
    }
    tx.prepare_cached("DELETE FROM promotions WHERE build = ?1 AND verdict IN ('unchanged', 'error')")?
        .execute([id.0])?;
    tx.prepare_cached("DELETE FROM builds WHERE id = ?1")?.execute([id.0])?;
    // A trigger that started something has a build, or is gone too.
    if let Some(trigger) = trigger {
        tx.prepare_cached(
            "DELETE FROM triggers WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM builds WHERE builds.trigger = ?1)",
        )?
        .execute([trigger])?;
    }
    Ok(true)
}

/// Whether there is such a build.
///
/// # Errors
/// The database's.
pub fn exists(db: &Connection, id: BuildId) -> Result<bool, StoreError> {
    Ok(db.prepare_cached("SELECT 1 FROM builds WHERE id = ?1")?.exists([id.0])?)
}

/// Some rows of a table, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// Rows that went.
    pub gone: usize,
    /// The last number that was looked at; `None` if no older row is left.
    pub last: Option<u64>,
}

/// Removes webhook calls of before a moment, from number `after` on: at most `limit` are looked at.
///
/// # Errors
/// The database's.
pub fn remove_deliveries(tx: &Connection, before: Micros, after: u64, limit: usize) -> Result<Looked, StoreError> {
    let old = old_rows(tx, "deliveries", before, after, limit)?;
    let mut gone = 0;
    for id in &old {
        tx.prepare_cached("UPDATE triggers SET delivery = NULL WHERE delivery = ?1")?.execute([id])?;
        gone += tx.prepare_cached("DELETE FROM deliveries WHERE id = ?1")?.execute([id])?;
    }
    Ok(Looked { gone, last: old.last().copied() })
}

/// Removes triggers of before a moment that were decided and have no build (those with one go with it), from number `after` on:
/// at most `limit` are looked at.
///
/// # Errors
/// The database's.
pub fn remove_triggers(tx: &Connection, before: Micros, after: u64, limit: usize) -> Result<Looked, StoreError> {
    let old = old_rows(tx, "triggers", before, after, limit)?;
    let mut gone = 0;
    for id in &old {
        gone += tx
            .prepare_cached(
                "DELETE FROM triggers WHERE id = ?1 AND decision IS NOT NULL \
                 AND NOT EXISTS (SELECT 1 FROM builds b WHERE b.trigger = ?1)",
            )?
            .execute([id])?;
    }
    Ok(Looked { gone, last: old.last().copied() })
}

/// The numbers of the oldest rows behind `after`, up to the first that is not old: numbers and times grow together.
fn old_rows(db: &Connection, table: &str, before: Micros, after: u64, limit: usize) -> Result<Vec<u64>, StoreError> {
    let mut query =
        db.prepare_cached(&format!("SELECT id, received_at FROM {table} WHERE id > ?1 ORDER BY id LIMIT ?2"))?;
    let rows = query.query_map(params![after, limit], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, i64>(1)?)))?;
    let mut found = Vec::new();
    for row in rows {
        let (id, at) = row?;
        if at >= before.0 {
            break;
        }
        found.push(id);
    }
    Ok(found)
}
