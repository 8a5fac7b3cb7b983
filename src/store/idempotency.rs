//! Answers to requests that named a key: the same request again gets the same answer.

use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;
use crate::ids::Micros;

/// What a key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nothing yet; now it stands for this request.
    New,
    /// This request, which was answered so.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The body.
        answer: String,
    },
    /// This request, which has no answer yet, or never got one.
    Open,
    /// Another request.
    Other,
}

/// A request that has no answer yet has this status.
const OPEN: u16 = 0;

/// Claims a key for a request, given by its digest.
///
/// # Errors
/// The database's.
pub fn claim(tx: &Connection, key: &str, request: &str, at: Micros) -> Result<Claim, StoreError> {
    let made = tx
        .prepare_cached(
            "INSERT INTO idempotency (key, request, status, answer, made_at) VALUES (?1, ?2, ?3, '', ?4) \
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![key, request, OPEN, at.0])?;
    if made == 1 {
        return Ok(Claim::New);
    }
    let (known, status, answer): (String, u16, String) = tx
        .prepare_cached("SELECT request, status, answer FROM idempotency WHERE key = ?1")?
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?
        .ok_or_else(|| StoreError::Corrupt("a key that is there and is not".to_owned()))?;
    Ok(match (known == request, status) {
        (false, _) => Claim::Other,
        (true, OPEN) => Claim::Open,
        (true, status) => Claim::Answered { status, answer },
    })
}

/// Keeps the answer.
///
/// # Errors
/// The database's.
pub fn answer(tx: &Connection, key: &str, status: u16, answer: &str) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE idempotency SET status = ?2, answer = ?3 WHERE key = ?1")?
        .execute(params![key, status, answer])?;
    Ok(())
}

/// Lets go of a key whose request came to nothing.
///
/// # Errors
/// The database's.
pub fn release(tx: &Connection, key: &str) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM idempotency WHERE key = ?1")?.execute([key])?;
    Ok(())
}

/// Forgets keys that are older.
///
/// # Errors
/// The database's.
pub fn forget(tx: &Connection, before: Micros) -> Result<usize, StoreError> {
    Ok(tx.execute("DELETE FROM idempotency WHERE made_at < ?1", [before.0])?)
}
