//! Who may do what, and who did what: tokens, browser sessions, the audit log.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::ids::Micros;

/// What a token lets its bearer do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Look at everything but secrets.
    Read,
    /// Start, cancel and retry builds.
    Trigger,
    /// Agree to builds and promotions that wait for a person, promote and roll back.
    Approve,
    /// Everything: tokens, secrets, the queue.
    Admin,
}

/// A token as listed. The token itself is known to its bearer only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenRow {
    /// Its number.
    pub id: u64,
    /// What it is called.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// For which projects; `None` for all.
    pub projects: Option<Vec<String>>,
    /// Who made it.
    pub made_by: String,
    /// When.
    pub made_at: Micros,
    /// When it ends by itself.
    pub expires_at: Option<Micros>,
    /// When it was last used, to the minute.
    pub used_at: Option<Micros>,
    /// When it was revoked.
    pub revoked_at: Option<Micros>,
}

/// A token to be stored.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What it is called.
    pub name: String,
    /// SHA-256 of it, in hex.
    pub hash: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// For which projects; `None` for all.
    pub projects: Option<Vec<String>>,
    /// Who makes it.
    pub made_by: String,
    /// When it ends by itself.
    pub expires_at: Option<Micros>,
}

const TOKEN: &str = "id, name, scopes, projects, made_by, made_at, expires_at, used_at, revoked_at";

fn token(row: &Row<'_>) -> rusqlite::Result<Result<TokenRow, StoreError>> {
    let (scopes, projects): (String, Option<String>) = (row.get(2)?, row.get(3)?);
    let moment = |column| -> rusqlite::Result<Option<Micros>> { Ok(row.get::<_, Option<i64>>(column)?.map(Micros)) };
    let plain = TokenRow {
        id: row.get(0)?,
        name: row.get(1)?,
        scopes: Vec::new(),
        projects: None,
        made_by: row.get(4)?,
        made_at: Micros(row.get(5)?),
        expires_at: moment(6)?,
        used_at: moment(7)?,
        revoked_at: moment(8)?,
    };
    Ok((|| {
        Ok(TokenRow {
            scopes: serde_json::from_str(&scopes)?,
            projects: projects.map(|text| serde_json::from_str(&text)).transpose()?,
            ..plain
        })
    })())
}

/// Stores a token's hash.
///
/// # Errors
/// The database's.
pub fn create_token(tx: &Connection, new: &NewToken, at: Micros) -> Result<u64, StoreError> {
    tx.prepare_cached(
        "INSERT INTO tokens (name, hash, scopes, projects, made_by, made_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        new.name,
        new.hash,
        serde_json::to_string(&new.scopes)?,
        new.projects.as_ref().map(serde_json::to_string).transpose()?,
        new.made_by,
        at.0,
        new.expires_at.map(|at| at.0)
    ])?;
    u64::try_from(tx.last_insert_rowid()).map_err(|_| StoreError::Corrupt("row id".to_owned()))
}

/// The token with this hash, if it is neither revoked nor past its end.
///
/// # Errors
/// The database's.
pub fn valid_token(db: &Connection, hash: &str, now: Micros) -> Result<Option<TokenRow>, StoreError> {
    let query = format!(
        "SELECT {TOKEN} FROM tokens WHERE hash = ?1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?2)"
    );
    db.prepare_cached(&query)?.query_row(params![hash, now.0], token).optional()?.transpose()
}

/// Whether the token with this number is neither revoked nor past its end.
///
/// # Errors
/// The database's.
pub fn token_holds(db: &Connection, id: u64, now: Micros) -> Result<bool, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT 1 FROM tokens WHERE id = ?1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?2)",
    )?;
    Ok(query.exists(params![id, now.0])?)
}

/// Notes that a token was used.
///
/// # Errors
/// The database's.
pub fn token_used(tx: &Connection, id: u64, at: Micros) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE tokens SET used_at = ?2 WHERE id = ?1")?.execute(params![id, at.0])?;
    Ok(())
}

/// Tokens, newest first, at most `limit`.
///
/// # Errors
/// The database's.
pub fn tokens(db: &Connection, limit: usize) -> Result<Vec<TokenRow>, StoreError> {
    let mut query = db.prepare_cached(&format!("SELECT {TOKEN} FROM tokens ORDER BY id DESC LIMIT ?1"))?;
    let rows = query.query_map([limit as i64], token)?;
    rows.map(|row| row?).collect()
}

/// How many tokens there ever were.
///
/// # Errors
/// The database's.
pub fn any_token(db: &Connection) -> Result<bool, StoreError> {
    Ok(db.query_row("SELECT EXISTS (SELECT 1 FROM tokens)", [], |row| row.get(0))?)
}

/// Ends a token, and the browser sessions that were opened with it.
///
/// # Errors
/// [`StoreError::Missing`] if there is no such token.
pub fn revoke_token(tx: &Connection, id: u64, at: Micros) -> Result<(), StoreError> {
    let changed =
        tx.execute("UPDATE tokens SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1", params![id, at.0])?;
    if changed == 0 {
        return Err(StoreError::Missing(format!("there is no token {id}")));
    }
    tx.execute("DELETE FROM sessions WHERE token = ?1", [id])?;
    Ok(())
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditRow {
    /// Its number.
    pub id: u64,
    /// When.
    pub at: Micros,
    /// Who.
    pub actor: String,
    /// What was done: `build.cancel`, `secret.set`, ...
    pub action: String,
    /// To what.
    pub target: String,
    /// More, for people; never a secret.
    pub detail: String,
}

/// Writes a line of the audit log.
///
/// # Errors
/// The database's.
pub fn audit(
    tx: &Connection,
    actor: &str,
    action: &str,
    target: &str,
    detail: &str,
    at: Micros,
) -> Result<(), StoreError> {
    tx.prepare_cached("INSERT INTO audit (at, actor, action, target, detail) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![at.0, actor, action, target, detail])?;
    Ok(())
}

/// The newest lines before `before`, at most `limit`.
///
/// # Errors
/// The database's.
pub fn audit_log(db: &Connection, before: Option<u64>, limit: usize) -> Result<Vec<AuditRow>, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT id, at, actor, action, target, detail FROM audit WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
    )?;
    let before = before.and_then(|id| i64::try_from(id).ok()).unwrap_or(i64::MAX);
    let rows = query.query_map(params![before, limit as i64], |row| {
        Ok(AuditRow {
            id: row.get(0)?,
            at: Micros(row.get(1)?),
            actor: row.get(2)?,
            action: row.get(3)?,
            target: row.get(4)?,
            detail: row.get(5)?,
        })
    })?;
    rows.map(|row| Ok(row?)).collect()
}
