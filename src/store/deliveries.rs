//! Webhook calls, exactly as they came.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::StoreError;
use crate::ids::Micros;

/// A call that was let in: its signature is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// `github`.
    pub source: &'static str,
    /// The sender's own id of it.
    pub delivery: String,
    /// The sender's word for what happened.
    pub event: String,
    /// Headers worth keeping, as JSON.
    pub headers: String,
    /// The raw body.
    pub body: Vec<u8>,
    /// The projects that it concerns.
    pub projects: Vec<String>,
}

/// A call as listed: without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeliveryRow {
    /// Our number of it.
    pub id: u64,
    /// Who sent it.
    pub source: String,
    /// The sender's own id of it.
    pub delivery: String,
    /// The sender's word for what happened.
    pub event: String,
    /// Headers, as JSON.
    pub headers: String,
    /// Size of the body in bytes.
    pub size: u64,
    /// When it came.
    pub received_at: Micros,
}

/// What became of storing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is new, and has this number.
    New(u64),
    /// It came before.
    Again(u64),
    /// Another call came before under the same id.
    Differs(u64),
}

/// Stores a call with an open trigger for each project, once.
///
/// # Errors
/// The database's.
pub fn receive(tx: &Connection, new: &NewDelivery, at: Micros) -> Result<Stored, StoreError> {
    let inserted = tx
        .prepare_cached(
            "INSERT INTO deliveries (source, delivery, event, headers, body, received_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![new.source, new.delivery, new.event, new.headers, new.body, at.0])?;
    if inserted == 0 {
        let mut query = tx.prepare_cached(
            "SELECT id, event = ?3 AND body = ?4 FROM deliveries WHERE source = ?1 AND delivery = ?2",
        )?;
        let (id, same) = query.query_row(params![new.source, new.delivery, new.event, new.body], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, bool>(1)?))
        })?;
        return Ok(if same { Stored::Again(id) } else { Stored::Differs(id) });
    }
    let id = tx.last_insert_rowid();
    let mut insert = tx.prepare_cached(
        "INSERT INTO triggers (project, source, delivery, subject, received_at, next_at) \
         VALUES (?1, 'webhook', ?2, 'null', ?3, ?3)",
    )?;
    for project in &new.projects {
        insert.execute(params![project, id, at.0])?;
    }
    Ok(Stored::New(u64::try_from(id).map_err(|_| StoreError::Corrupt("row id".to_owned()))?))
}

const COLUMNS: &str = "id, source, delivery, event, headers, length(body), received_at";

fn row(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    Ok(DeliveryRow {
        id: row.get(0)?,
        source: row.get(1)?,
        delivery: row.get(2)?,
        event: row.get(3)?,
        headers: row.get(4)?,
        size: row.get(5)?,
        received_at: Micros(row.get(6)?),
    })
}

/// One call.
///
/// # Errors
/// [`StoreError::Missing`] if there is none of that number.
pub fn get(db: &Connection, id: u64) -> Result<DeliveryRow, StoreError> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM deliveries WHERE id = ?1"))?
        .query_row([id], row)
        .optional()?
        .ok_or_else(|| StoreError::Missing(format!("there is no delivery {id}")))
}

/// The body of a call.
///
/// # Errors
/// [`StoreError::Missing`] if there is none of that number.
pub fn body(db: &Connection, id: u64) -> Result<Vec<u8>, StoreError> {
    db.prepare_cached("SELECT body FROM deliveries WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?
        .ok_or_else(|| StoreError::Missing(format!("there is no delivery {id}")))
}

/// The newest calls before `before`, at most `limit`.
///
/// # Errors
/// The database's.
pub fn list(db: &Connection, before: Option<u64>, limit: usize) -> Result<Vec<DeliveryRow>, StoreError> {
    let mut query =
        db.prepare_cached(&format!("SELECT {COLUMNS} FROM deliveries WHERE id < ?1 ORDER BY id DESC LIMIT ?2"))?;
    let before = before.and_then(|id| i64::try_from(id).ok()).unwrap_or(i64::MAX);
    let rows = query.query_map(params![before, limit as i64], row)?;
    rows.map(|row| Ok(row?)).collect()
}
