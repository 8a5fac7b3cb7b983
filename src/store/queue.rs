//! Builds that the daemon drives: who waits, who is under way, and what people want of them.

use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;
use crate::build::queue::{Running, Waiting};
use crate::build::status::CancelReason;
use crate::ids::{BuildId, Micros};

/// How a build of the daemon stands in the queue. It is stored with the build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// What started it.
    pub trigger: u64,
    /// Greater goes first.
    pub priority: i64,
    /// Its concurrency group.
    pub group: Option<String>,
    /// Why a person has to agree before it begins.
    pub awaits: Option<String>,
}

/// Puts a build that was just stored into the queue.
///
/// # Errors
/// The database's.
pub fn enter(tx: &Connection, build: BuildId, entry: &Entry) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE builds SET trigger = ?2, priority = ?3, grp = ?4, awaits = ?5 WHERE id = ?1")?
        .execute(params![build.0, entry.trigger, entry.priority, entry.group, entry.awaits])?;
    Ok(())
}

/// Builds of the daemon that have not begun, oldest first, at most `limit`.
///
/// # Errors
/// The database's.
pub fn waiting(db: &Connection, limit: usize) -> Result<Vec<Waiting>, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT id, project, grp, priority, coalesce(place, id), awaits IS NOT NULL FROM builds INDEXED BY builds_open \
         WHERE status IN ('queued', 'running') AND status = 'queued' AND trigger IS NOT NULL ORDER BY id LIMIT ?1",
    )?;
    let rows = query.query_map([limit as i64], |row| {
        Ok(Waiting {
            id: BuildId(row.get(0)?),
            project: row.get(1)?,
            group: row.get(2)?,
            priority: row.get(3)?,
            place: row.get(4)?,
            awaits_approval: row.get(5)?,
        })
    })?;
    rows.map(|row| Ok(row?)).collect()
}

/// The project of a build, without the rest of its row. `None` if there is no such build.
///
/// # Errors
/// The database's.
pub fn project_of(db: &Connection, build: BuildId) -> Result<Option<String>, StoreError> {
    let mut query = db.prepare_cached("SELECT project FROM builds WHERE id = ?1")?;
    Ok(query.query_row([build.0], |row| row.get(0)).optional()?)
}

/// How many builds of the daemon have not begun, counted up to `most`.
///
/// # Errors
/// The database's.
pub fn count_waiting(db: &Connection, most: usize) -> Result<usize, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM builds INDEXED BY builds_open \
         WHERE status IN ('queued', 'running') AND status = 'queued' AND trigger IS NOT NULL LIMIT ?1)",
    )?;
    Ok(query.query_row([most], |row| row.get(0))?)
}

/// Builds of the daemon that have begun and not ended.
///
/// # Errors
/// The database's.
pub fn running(db: &Connection) -> Result<Vec<Running>, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT id, project, grp FROM builds INDEXED BY builds_open \
         WHERE status IN ('queued', 'running') AND status = 'running' AND trigger IS NOT NULL ORDER BY id",
    )?;
    let rows = query
        .query_map([], |row| Ok(Running { id: BuildId(row.get(0)?), project: row.get(1)?, group: row.get(2)? }))?;
    rows.map(|row| Ok(row?)).collect()
}

/// Writes down that a build is to end. A milder reason never replaces a more severe one. Answers whether it is still open.
///
/// # Errors
/// [`StoreError::Missing`] if there is no such build.
pub fn want_cancel(tx: &Connection, build: BuildId, reason: CancelReason) -> Result<bool, StoreError> {
    let found: Option<(String, Option<String>)> = tx
        .prepare_cached("SELECT status, cancel_wanted FROM builds WHERE id = ?1")?
        .query_row([build.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((status, before)) = found else {
        return Err(StoreError::Missing(format!("there is no build {build}")));
    };
    if !matches!(status.as_str(), "queued" | "running") {
        return Ok(false);
    }
    let before: Option<CancelReason> = before.map(|text| serde_json::from_str(&text)).transpose()?;
    if before < Some(reason) {
        tx.prepare_cached("UPDATE builds SET cancel_wanted = ?2 WHERE id = ?1")?
            .execute(params![build.0, serde_json::to_string(&reason)?])?;
    }
    Ok(true)
}

/// Cancellations that are wanted of open builds.
///
/// # Errors
/// The database's.
pub fn cancels_wanted(db: &Connection) -> Result<Vec<(BuildId, CancelReason)>, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT id, cancel_wanted FROM builds INDEXED BY builds_open \
         WHERE status IN ('queued', 'running') AND cancel_wanted IS NOT NULL",
    )?;
    let rows = query.query_map([], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (id, reason) = row?;
        Ok((BuildId(id), serde_json::from_str(&reason)?))
    })
    .collect()
}

/// The cancellation that is wanted of one build.
///
/// # Errors
/// The database's.
pub fn cancel_wanted(db: &Connection, build: BuildId) -> Result<Option<CancelReason>, StoreError> {
    let found: Option<Option<String>> = db
        .prepare_cached("SELECT cancel_wanted FROM builds WHERE id = ?1")?
        .query_row([build.0], |row| row.get(0))
        .optional()?;
    Ok(found.flatten().map(|text| serde_json::from_str(&text)).transpose()?)
}

/// A newer build takes the place of the older ones of its group: they are to end, and say which one came.
///
/// # Errors
/// The database's.
pub fn supersede(tx: &Connection, project: &str, group: &str, newer: BuildId) -> Result<Vec<BuildId>, StoreError> {
    let mut query = tx.prepare_cached(
        "SELECT id FROM builds WHERE project = ?1 AND grp = ?2 AND status IN ('queued', 'running') AND id < ?3",
    )?;
    let older: Vec<u64> =
        query.query_map(params![project, group, newer.0], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut ended = Vec::new();
    for id in older {
        if want_cancel(tx, BuildId(id), CancelReason::Superseded)? {
            tx.prepare_cached("UPDATE builds SET superseded_by = ?2 WHERE id = ?1")?.execute(params![id, newer.0])?;
            ended.push(BuildId(id));
        }
    }
    Ok(ended)
}

/// A person agrees that a build begins.
///
/// # Errors
/// [`StoreError::Missing`] if there is no such build, [`StoreError::Conflict`] if it does not wait for that.
pub fn approve(tx: &Connection, build: BuildId) -> Result<(), StoreError> {
    let changed = tx
        .prepare_cached("UPDATE builds SET awaits = NULL WHERE id = ?1 AND awaits IS NOT NULL AND status = 'queued'")?
        .execute([build.0])?;
    if changed == 1 {
        return Ok(());
    }
    super::builds::get(tx, build)?;
    Err(StoreError::Conflict(format!("build {build} does not wait for approval")))
}

/// Moves a waiting build within its project's line, to the front or to the back.
///
/// # Errors
/// [`StoreError::Missing`] if there is no such build, [`StoreError::Conflict`] if it has begun.
pub fn move_to(tx: &Connection, build: BuildId, front: bool) -> Result<(), StoreError> {
    let row = super::builds::get(tx, build)?;
    if row.status != crate::build::status::BuildStatus::Queued {
        return Err(StoreError::Conflict(format!("build {build} has begun")));
    }
    let (edge, step) = if front { ("min", -1) } else { ("max", 1) };
    tx.prepare_cached(&format!(
        "UPDATE builds SET place = (SELECT {edge}(coalesce(place, id)) FROM builds INDEXED BY builds_open \
         WHERE status IN ('queued', 'running') AND project = ?2) + ?3 WHERE id = ?1"
    ))?
    .execute(params![build.0, row.request.project, step])?;
    Ok(())
}

/// Changes a waiting build's priority.
///
/// # Errors
/// [`StoreError::Missing`] if there is no such build.
pub fn set_priority(tx: &Connection, build: BuildId, priority: i64) -> Result<(), StoreError> {
    let changed =
        tx.prepare_cached("UPDATE builds SET priority = ?2 WHERE id = ?1")?.execute(params![build.0, priority])?;
    if changed == 1 { Ok(()) } else { Err(StoreError::Missing(format!("there is no build {build}"))) }
}

/// Why the queue hands out nothing, if it is paused.
///
/// # Errors
/// The database's.
pub fn paused(db: &Connection) -> Result<Option<String>, StoreError> {
    Ok(db.prepare_cached("SELECT value FROM meta WHERE name = 'paused'")?.query_row([], |row| row.get(0)).optional()?)
}

/// Pauses the queue, or resumes it.
///
/// # Errors
/// The database's.
pub fn set_paused(tx: &Connection, reason: Option<&str>) -> Result<(), StoreError> {
    match reason {
        Some(reason) => tx.execute(
            "INSERT INTO meta (name, value) VALUES ('paused', ?1) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            [reason],
        )?,
        None => tx.execute("DELETE FROM meta WHERE name = 'paused'", [])?,
    };
    Ok(())
}

/// What the queue knows of one build, beside its row.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Standing {
    /// What started it, if the daemon did.
    pub trigger: Option<u64>,
    /// Greater goes first.
    pub priority: i64,
    /// Its concurrency group.
    pub group: Option<String>,
    /// Why a person has to agree before it begins.
    pub awaits: Option<String>,
    /// The newer build that took its place.
    pub superseded_by: Option<BuildId>,
    /// When it was accepted.
    pub created_at: Micros,
}

/// What the queue knows of one build.
///
/// # Errors
/// [`StoreError::Missing`] if there is no such build.
pub fn standing(db: &Connection, build: BuildId) -> Result<Standing, StoreError> {
    db.prepare_cached("SELECT trigger, priority, grp, awaits, superseded_by, created_at FROM builds WHERE id = ?1")?
        .query_row([build.0], |row| {
            Ok(Standing {
                trigger: row.get(0)?,
                priority: row.get(1)?,
                group: row.get(2)?,
                awaits: row.get(3)?,
                superseded_by: row.get::<_, Option<u64>>(4)?.map(BuildId),
                created_at: Micros(row.get(5)?),
            })
        })
        .optional()?
        .ok_or_else(|| StoreError::Missing(format!("there is no build {build}")))
}

/// Ends the builds of a pull request that was closed.
///
/// # Errors
/// The database's.
pub fn cancel_pull_request(tx: &Connection, project: &str, number: u64) -> Result<Vec<BuildId>, StoreError> {
    let open = of_pull_request(tx, project, number)?;
    let mut ended = Vec::new();
    for (id, _) in open {
        if want_cancel(tx, id, CancelReason::Closed)? {
            ended.push(id);
        }
    }
    Ok(ended)
}

/// Ends what still waits for approval of an older commit of a pull request.
///
/// # Errors
/// The database's.
pub fn supersede_awaiting(
    tx: &Connection,
    project: &str,
    number: u64,
    newer: BuildId,
) -> Result<Vec<BuildId>, StoreError> {
    let mut ended = Vec::new();
    for (id, awaits) in of_pull_request(tx, project, number)? {
        if awaits && id < newer && want_cancel(tx, id, CancelReason::Superseded)? {
            tx.prepare_cached("UPDATE builds SET superseded_by = ?2 WHERE id = ?1")?.execute([id.0, newer.0])?;
            ended.push(id);
        }
    }
    Ok(ended)
}

/// Open builds of a pull request, and whether they wait for approval.
fn of_pull_request(tx: &Connection, project: &str, number: u64) -> Result<Vec<(BuildId, bool)>, StoreError> {
    let mut query = tx.prepare_cached(
        "SELECT id, awaits IS NOT NULL FROM builds INDEXED BY builds_open WHERE status IN ('queued', 'running') \
         AND project = ?1 AND json_extract(request, '$.pull_request') = ?2 ORDER BY id",
    )?;
    let rows = query.query_map(params![project, number], |row| Ok((BuildId(row.get(0)?), row.get(1)?)))?;
    rows.map(|row| Ok(row?)).collect()
}

/// A build that had ended waits again: what ended it counts no more.
///
/// # Errors
/// The database's.
pub fn reenter(tx: &Connection, build: BuildId) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE builds SET cancel_wanted = NULL, superseded_by = NULL WHERE id = ?1")?
        .execute([build.0])?;
    Ok(())
}
