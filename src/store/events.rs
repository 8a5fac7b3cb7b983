//! The event log: append only.

use rusqlite::{Connection, params};

use super::StoreError;
use crate::build::event::Stamped;
use crate::ids::{BuildId, Micros};

/// Appends events of one build, in order.
///
/// # Errors
/// The database's.
pub fn append(tx: &Connection, build: BuildId, events: &[Stamped]) -> Result<(), StoreError> {
    let mut insert = tx.prepare_cached("INSERT INTO events (build, at, body) VALUES (?1, ?2, ?3)")?;
    for event in events {
        insert.execute(params![build.0, event.at.0, serde_json::to_string(&event.event)?])?;
    }
    Ok(())
}

/// All events of one build, in order. A build has a few for each attempt, so this is bounded by its plan.
///
/// # Errors
/// The database's, or an event that this version does not know.
pub fn of_build(db: &Connection, build: BuildId) -> Result<Vec<Stamped>, StoreError> {
    let mut query = db.prepare_cached("SELECT at, body FROM events WHERE build = ?1 ORDER BY seq")?;
    let rows = query.query_map([build.0], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (at, body) = row?;
        Ok(Stamped { at: Micros(at), event: serde_json::from_str(&body)? })
    })
    .collect()
}

/// The events of a build behind a place, at most `limit`: each with its place and its JSON.
///
/// # Errors
/// The database's.
pub fn after(db: &Connection, build: BuildId, seq: u64, limit: usize) -> Result<Vec<(u64, String)>, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT seq, json_insert(body, '$.at', at) FROM events WHERE build = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
    )?;
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    let rows = query.query_map(params![build.0, seq, limit as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.map(|row| Ok(row?)).collect()
}

/// An event of any build, for those who follow all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Any {
    /// Its place.
    pub seq: u64,
    /// Whose build.
    pub project: String,
    /// JSON: `build`, `project`, and `event` with its time as `at`.
    pub body: String,
}

/// The events of all builds behind a place, at most `limit`.
///
/// # Errors
/// The database's.
pub fn of_all(db: &Connection, seq: u64, limit: usize) -> Result<Vec<Any>, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT e.seq, b.project, json_object('build', e.build, 'project', b.project, 'event', json_insert(e.body, '$.at', e.at)) \
         FROM events e JOIN builds b ON b.id = e.build WHERE e.seq > ?1 ORDER BY e.seq LIMIT ?2",
    )?;
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    let rows = query.query_map(params![seq, limit as i64], |row| {
        Ok(Any { seq: row.get(0)?, project: row.get(1)?, body: row.get(2)? })
    })?;
    rows.map(|row| Ok(row?)).collect()
}

/// Ends of builds behind a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// Each with its place.
    pub ends: Vec<(u64, BuildId)>,
    /// Up to where was looked.
    pub upto: u64,
    /// There may be more at once.
    pub more: bool,
}

/// The ends of builds among the first `limit` events behind a place.
///
/// # Errors
/// The database's.
pub fn ends(db: &Connection, seq: u64, limit: usize) -> Result<Ends, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT seq, build, json_extract(body, '$.event') = 'build-ended' FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let place = i64::try_from(seq).unwrap_or(i64::MAX);
    let rows = query.query_map(params![place, limit as i64], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let rows: Vec<(u64, u64, bool)> = rows.collect::<Result<_, _>>()?;
    let (upto, more) = (rows.last().map_or(seq, |(seq, _, _)| *seq), rows.len() == limit);
    let ends = rows.into_iter().filter(|(_, _, end)| *end).map(|(seq, build, _)| (seq, BuildId(build))).collect();
    Ok(Ends { ends, upto, more })
}

/// The place of the newest event; 0 if there is none.
///
/// # Errors
/// The database's.
pub fn last(db: &Connection) -> Result<u64, StoreError> {
    Ok(db.query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| row.get(0))?)
}
