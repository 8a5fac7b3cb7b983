//! The newest commit of each branch and tag that was acted upon, and the last slot of each schedule.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;
use crate::ids::Micros;

/// Every branch and tag of a project that is known, with its commit.
///
/// # Errors
/// The database's.
pub fn of_project(db: &Connection, project: &str) -> Result<BTreeMap<String, String>, StoreError> {
    let mut query = db.prepare_cached("SELECT ref, commit_sha FROM heads WHERE project = ?1")?;
    let rows = query.query_map([project], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.map(|row| Ok(row?)).collect()
}

/// The commit of one branch or tag.
///
/// # Errors
/// The database's.
pub fn get(db: &Connection, project: &str, name: &str) -> Result<Option<String>, StoreError> {
    Ok(db
        .prepare_cached("SELECT commit_sha FROM heads WHERE project = ?1 AND ref = ?2")?
        .query_row([project, name], |row| row.get(0))
        .optional()?)
}

/// Notes that a branch or tag is at a commit.
///
/// # Errors
/// The database's.
pub fn set(tx: &Connection, project: &str, name: &str, commit: &str, at: Micros) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO heads (project, ref, commit_sha, seen_at) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (project, ref) DO UPDATE SET commit_sha = excluded.commit_sha, seen_at = excluded.seen_at",
    )?
    .execute(params![project, name, commit, at.0])?;
    Ok(())
}

/// Notes that a branch or tag is gone.
///
/// # Errors
/// The database's.
pub fn remove(tx: &Connection, project: &str, name: &str) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM heads WHERE project = ?1 AND ref = ?2")?.execute([project, name])?;
    Ok(())
}

/// Whether anything is known of a project.
///
/// # Errors
/// The database's.
pub fn any(db: &Connection, project: &str) -> Result<bool, StoreError> {
    let mut query = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM heads WHERE project = ?1)")?;
    Ok(query.query_row([project], |row| row.get(0))?)
}

/// The last slot of a schedule that was acted upon.
///
/// # Errors
/// The database's.
pub fn last_slot(db: &Connection, project: &str, pipeline: &str, line: &str) -> Result<Option<Micros>, StoreError> {
    Ok(db
        .prepare_cached("SELECT last FROM schedules WHERE project = ?1 AND pipeline = ?2 AND line = ?3")?
        .query_row([project, pipeline, line], |row| row.get(0))
        .optional()?
        .map(Micros))
}

/// Notes a schedule's slot.
///
/// # Errors
/// The database's.
pub fn set_slot(tx: &Connection, project: &str, pipeline: &str, line: &str, slot: Micros) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO schedules (project, pipeline, line, last) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (project, pipeline, line) DO UPDATE SET last = max(last, excluded.last)",
    )?
    .execute(params![project, pipeline, line, slot.0])?;
    Ok(())
}
