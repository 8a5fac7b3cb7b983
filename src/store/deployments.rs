//! Which version serves where.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::StoreError;
use crate::ids::Micros;

/// Where a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeploymentStatus {
    /// Being started and checked.
    Starting,
    /// It answers on its port.
    Live,
    /// Another took its place.
    Stopped,
    /// It did not get ready, or failed its checks.
    Failed,
}

impl DeploymentStatus {
    /// As stored and shown.
    pub fn word(self) -> &'static str {
        match self {
            DeploymentStatus::Starting => "starting",
            DeploymentStatus::Live => "live",
            DeploymentStatus::Stopped => "stopped",
            DeploymentStatus::Failed => "failed",
        }
    }

    fn read(word: &str) -> Result<Self, StoreError> {
        [Self::Starting, Self::Live, Self::Stopped, Self::Failed]
            .into_iter()
            .find(|status| status.word() == word)
            .ok_or_else(|| StoreError::Corrupt(format!("deployment status `{word}`")))
    }
}

/// One deployment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeploymentRow {
    /// Its number.
    pub id: i64,
    /// The model.
    pub model: String,
    /// The version that it serves.
    pub version: u64,
    /// Its unit.
    pub unit: String,
    /// Where it runs.
    pub runner: String,
    /// The port that users talk to.
    pub port: u16,
    /// How to start it again.
    pub spec: serde_json::Value,
    /// Where it stands.
    pub status: DeploymentStatus,
    /// Why it failed or stopped.
    pub detail: String,
    /// Since when.
    pub since: Micros,
}

/// Stores a deployment that is about to be started; gives its number.
///
/// # Errors
/// The database's.
pub fn create(tx: &Connection, row: &DeploymentRow) -> Result<i64, StoreError> {
    tx.prepare_cached(
        "INSERT INTO deployments (model, version, unit, runner, port, spec, status, detail, since) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        row.model,
        row.version,
        row.unit,
        row.runner,
        row.port,
        serde_json::to_string(&row.spec)?,
        row.status.word(),
        row.detail,
        row.since.0
    ])?;
    Ok(tx.last_insert_rowid())
}

/// Changes where a deployment stands.
///
/// # Errors
/// The database's.
pub fn set(tx: &Connection, id: i64, status: DeploymentStatus, detail: &str, at: Micros) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE deployments SET status = ?2, detail = ?3, since = ?4 WHERE id = ?1")?
        .execute(params![id, status.word(), detail, at.0])?;
    Ok(())
}

const COLUMNS: &str = "id, model, version, unit, runner, port, spec, status, detail, since";

fn row(row: &Row<'_>) -> rusqlite::Result<Result<DeploymentRow, StoreError>> {
    let [model, unit, runner, spec, status, detail]: [String; 6] =
        [row.get(1)?, row.get(3)?, row.get(4)?, row.get(6)?, row.get(7)?, row.get(8)?];
    let (id, version, port, since): (i64, u64, u16, i64) = (row.get(0)?, row.get(2)?, row.get(5)?, row.get(9)?);
    Ok((|| {
        Ok(DeploymentRow {
            id,
            model,
            version,
            unit,
            runner,
            port,
            spec: serde_json::from_str(&spec)?,
            status: DeploymentStatus::read(&status)?,
            detail,
            since: Micros(since),
        })
    })())
}

/// What serves a model now, if anything does.
///
/// # Errors
/// The database's.
pub fn live(db: &Connection, model: &str) -> Result<Option<DeploymentRow>, StoreError> {
    db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM deployments WHERE model = ?1 AND status = 'live' ORDER BY id DESC LIMIT 1"
    ))?
    .query_row([model], row)
    .optional()?
    .transpose()
}

/// The newest deployment of a version: how it can be started again.
///
/// # Errors
/// The database's.
pub fn of_version(db: &Connection, model: &str, version: u64) -> Result<Option<DeploymentRow>, StoreError> {
    db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM deployments WHERE model = ?1 AND version = ?2 AND status IN ('live', 'stopped') \
         ORDER BY id DESC LIMIT 1"
    ))?
    .query_row(params![model, version], row)
    .optional()?
    .transpose()
}

/// Where one stands.
///
/// # Errors
/// [`StoreError::Missing`] if there is none of that number.
pub fn status(db: &Connection, id: i64) -> Result<DeploymentStatus, StoreError> {
    let word: Option<String> = db
        .prepare_cached("SELECT status FROM deployments WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    let word = word.ok_or_else(|| StoreError::Missing(format!("there is no deployment {id}")))?;
    DeploymentStatus::read(&word)
}

/// Deployments that are being started or serve.
///
/// # Errors
/// The database's.
pub fn open(db: &Connection) -> Result<Vec<DeploymentRow>, StoreError> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM deployments WHERE status IN ('starting', 'live') ORDER BY id LIMIT 1000"
    ))?;
    let rows = query.query_map([], row)?;
    rows.map(|row| row?).collect()
}

/// The newest deployments, at most `limit`.
///
/// # Errors
/// The database's.
pub fn list(db: &Connection, limit: usize) -> Result<Vec<DeploymentRow>, StoreError> {
    let mut query = db.prepare_cached(&format!("SELECT {COLUMNS} FROM deployments ORDER BY id DESC LIMIT ?1"))?;
    let rows = query.query_map([limit as i64], row)?;
    rows.map(|row| row?).collect()
}
