//! Browsers that signed in. A session is known by the hash of its cookie, and ends with the token that it was opened with.

use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;
use super::access::Scope;
use crate::ids::Micros;

/// Sessions of one actor that are kept; the oldest goes when another one is opened.
const KEPT: i64 = 50;

/// A session that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// What a form has to send back.
    pub csrf: String,
    /// Who signed in, for the audit log.
    pub actor: String,
    /// What they may do.
    pub scopes: Vec<Scope>,
    /// For which projects; `None` for all.
    pub projects: Option<Vec<String>>,
    /// When it was opened.
    pub made_at: Micros,
    /// When it ends if it is not used again.
    pub expires_at: Micros,
}

/// A session to be stored.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// SHA-256 of the cookie, in hex.
    pub hash: String,
    /// What a form has to send back.
    pub csrf: String,
    /// Who signed in.
    pub actor: String,
    /// What they may do.
    pub scopes: Vec<Scope>,
    /// For which projects; `None` for all.
    pub projects: Option<Vec<String>>,
    /// The token that opened it: it ends with that.
    pub token: Option<u64>,
    /// When it ends if it is not used again.
    pub expires_at: Micros,
}

/// Opens a session.
///
/// # Errors
/// The database's.
pub fn open(tx: &Connection, new: &NewSession, at: Micros) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO sessions (hash, csrf, actor, scopes, projects, token, made_at, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            new.hash,
            new.csrf,
            new.actor,
            serde_json::to_string(&new.scopes)?,
            new.projects.as_ref().map(serde_json::to_string).transpose()?,
            new.token,
            at.0,
            new.expires_at.0
        ],
    )?;
    // All sessions together are few: nobody has more than these.
    tx.execute(
        "DELETE FROM sessions WHERE hash IN \
         (SELECT hash FROM sessions WHERE actor = ?1 ORDER BY made_at DESC, hash LIMIT -1 OFFSET ?2)",
        params![new.actor, KEPT],
    )?;
    Ok(())
}

/// The session with this hash, if neither it nor its token has ended.
///
/// # Errors
/// The database's.
pub fn valid(db: &Connection, hash: &str, now: Micros) -> Result<Option<SessionRow>, StoreError> {
    let found = db
        .prepare_cached(
            "SELECT s.csrf, s.actor, s.scopes, s.projects, s.made_at, s.expires_at \
             FROM sessions s LEFT JOIN tokens t ON t.id = s.token WHERE s.hash = ?1 AND s.expires_at > ?2 \
             AND (s.token IS NULL OR (t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > ?2)))",
        )?
        .query_row(params![hash, now.0], |row| {
            let (scopes, projects): (String, Option<String>) = (row.get(2)?, row.get(3)?);
            let plain = SessionRow {
                csrf: row.get(0)?,
                actor: row.get(1)?,
                scopes: Vec::new(),
                projects: None,
                made_at: Micros(row.get(4)?),
                expires_at: Micros(row.get(5)?),
            };
            Ok((plain, scopes, projects))
        })
        .optional()?;
    let Some((plain, scopes, projects)) = found else { return Ok(None) };
    let scopes = serde_json::from_str(&scopes)?;
    let projects = projects.map(|text| serde_json::from_str(&text)).transpose()?;
    Ok(Some(SessionRow { scopes, projects, ..plain }))
}

/// Lets a session that was used last longer. One that has ended in the meantime stays ended.
///
/// # Errors
/// The database's.
pub fn prolong(tx: &Connection, hash: &str, until: Micros, now: Micros) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE sessions SET expires_at = max(expires_at, ?2) WHERE hash = ?1 AND expires_at > ?3")?
        .execute(params![hash, until.0, now.0])?;
    Ok(())
}

/// Ends a session. Whether there was one.
///
/// # Errors
/// The database's.
pub fn end(tx: &Connection, hash: &str) -> Result<bool, StoreError> {
    Ok(tx.execute("DELETE FROM sessions WHERE hash = ?1", [hash])? > 0)
}

/// Ends all sessions that were opened without a token, and so by another program's word.
///
/// # Errors
/// The database's.
pub fn end_untokened(tx: &Connection) -> Result<(), StoreError> {
    tx.execute("DELETE FROM sessions WHERE token IS NULL", [])?;
    Ok(())
}

/// Forgets sessions that have ended, at most `limit`. How many went.
///
/// # Errors
/// The database's.
pub fn forget(tx: &Connection, now: Micros, limit: usize) -> Result<usize, StoreError> {
    Ok(tx.execute(
        "DELETE FROM sessions WHERE hash IN \
         (SELECT hash FROM sessions WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        params![now.0, limit as i64],
    )?)
}
