//! Sealed values of secrets. What is in here opens with a key only that is kept elsewhere.

use rusqlite::{Connection, Row, params};

use super::StoreError;
use crate::ids::Micros;

/// A secret as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRow {
    /// Its name: that of the variable.
    pub name: String,
    /// Whose; empty for all projects.
    pub project: String,
    /// Globs of branches that get it; empty for all.
    pub branches: Vec<String>,
    /// Names of stages that get it; empty for all.
    pub stages: Vec<String>,
    /// The key that it opens with.
    pub key_id: String,
    /// Random, new with each sealing.
    pub nonce: Vec<u8>,
    /// The value, sealed.
    pub sealed: Vec<u8>,
    /// Who set it.
    pub made_by: String,
    /// When.
    pub made_at: Micros,
}

const COLUMNS: &str = "name, project, branches, stages, key_id, nonce, sealed, made_by, made_at";
/// Secrets of a project, those for all projects included, at most.
pub const MOST: usize = 1000;

fn row(row: &Row<'_>) -> rusqlite::Result<Result<SecretRow, StoreError>> {
    let (branches, stages): (String, String) = (row.get(2)?, row.get(3)?);
    let plain = SecretRow {
        name: row.get(0)?,
        project: row.get(1)?,
        branches: Vec::new(),
        stages: Vec::new(),
        key_id: row.get(4)?,
        nonce: row.get(5)?,
        sealed: row.get(6)?,
        made_by: row.get(7)?,
        made_at: Micros(row.get(8)?),
    };
    let lists = || Ok((serde_json::from_str(&branches)?, serde_json::from_str(&stages)?));
    Ok(lists().map(|(branches, stages)| SecretRow { branches, stages, ..plain }))
}

/// Sets a secret, or replaces it.
///
/// # Errors
/// [`StoreError::Conflict`] if there are too many.
pub fn set(tx: &Connection, secret: &SecretRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO secrets (name, project, branches, stages, key_id, nonce, sealed, made_by, made_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (name, project) DO UPDATE SET \
         branches = excluded.branches, stages = excluded.stages, key_id = excluded.key_id, nonce = excluded.nonce, \
         sealed = excluded.sealed, made_by = excluded.made_by, made_at = excluded.made_at",
        params![
            secret.name,
            secret.project,
            serde_json::to_string(&secret.branches)?,
            serde_json::to_string(&secret.stages)?,
            secret.key_id,
            secret.nonce,
            secret.sealed,
            secret.made_by,
            secret.made_at.0
        ],
    )?;
    let count: usize =
        tx.query_row("SELECT count(*) FROM secrets WHERE project = ?1", [&secret.project], |row| row.get(0))?;
    if count > MOST {
        return Err(StoreError::Conflict(format!("there are {MOST} secrets already; remove some that nobody uses")));
    }
    Ok(())
}

/// Removes a secret; `project` is empty for one of all projects.
///
/// # Errors
/// [`StoreError::Missing`] if there is none.
pub fn remove(tx: &Connection, project: &str, name: &str) -> Result<(), StoreError> {
    match tx.execute("DELETE FROM secrets WHERE project = ?1 AND name = ?2", [project, name])? {
        0 => Err(StoreError::Missing(format!("there is no secret {name}"))),
        _ => Ok(()),
    }
}

/// The secrets of a project alone (of all projects if it is empty), by name.
///
/// # Errors
/// The database's.
pub fn of_project(db: &Connection, project: &str) -> Result<Vec<SecretRow>, StoreError> {
    let query = format!("SELECT {COLUMNS} FROM secrets WHERE project = ?1 ORDER BY name LIMIT {}", MOST + 1);
    let mut query = db.prepare_cached(&query)?;
    let rows = query.query_map([project], row)?;
    rows.map(|row| row?).collect()
}

/// All secrets, for sealing them again.
///
/// # Errors
/// The database's.
pub fn all(db: &Connection) -> Result<Vec<SecretRow>, StoreError> {
    let mut query = db.prepare(&format!("SELECT {COLUMNS} FROM secrets ORDER BY id"))?;
    let rows = query.query_map([], row)?;
    rows.map(|row| row?).collect()
}
