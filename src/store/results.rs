//! Good results of stages: what dependants take, and what later builds reuse.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::StoreError;
use crate::build::reuse::KeyParts;
use crate::ids::{BuildId, Micros, NodeKey};

/// A good result.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultRow {
    /// The build that has it.
    pub build: BuildId,
    /// The build that made it: another one for a reused result.
    pub made_by: BuildId,
    /// The stage.
    pub node: NodeKey,
    /// The attempt that made it; 0 for a reused one.
    pub attempt: u32,
    /// What it was made of.
    pub parts: KeyParts,
    /// Digest of the outputs' manifest.
    pub outputs: String,
    /// Numbers that it reported.
    pub metrics: BTreeMap<String, f64>,
    /// The model version that it registered.
    pub version: Option<u64>,
    /// When it was made.
    pub made_at: Micros,
}

/// Where results are looked for: results of other projects and pipelines are never taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The project.
    pub project: String,
    /// The pipeline.
    pub pipeline: String,
}

/// Stores a result.
///
/// # Errors
/// The database's.
pub fn create(tx: &Connection, scope: &Scope, result: &ResultRow) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO results (build, node, attempt, project, pipeline, key, parts, outputs, metrics, version, made_at, made_by) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        result.build.0,
        result.node.to_string(),
        result.attempt,
        scope.project,
        scope.pipeline,
        result.parts.key(),
        serde_json::to_string(&result.parts)?,
        result.outputs,
        serde_json::to_string(&result.metrics)?,
        result.version,
        result.made_at.0,
        result.made_by.0
    ])?;
    Ok(())
}

const COLUMNS: &str = "build, node, attempt, parts, outputs, metrics, version, made_at, made_by";

fn row(row: &Row<'_>) -> rusqlite::Result<Result<ResultRow, StoreError>> {
    let (build, attempt): (u64, u32) = (row.get(0)?, row.get(2)?);
    let [node, parts, outputs, metrics]: [String; 4] = [row.get(1)?, row.get(3)?, row.get(4)?, row.get(5)?];
    let version: Option<u64> = row.get(6)?;
    let (made_at, made_by): (i64, u64) = (row.get(7)?, row.get(8)?);
    Ok((|| {
        Ok(ResultRow {
            build: BuildId(build),
            made_by: BuildId(made_by),
            node: node.parse().map_err(|_| StoreError::Corrupt(format!("stage name `{node}`")))?,
            attempt,
            parts: serde_json::from_str(&parts)?,
            outputs,
            metrics: serde_json::from_str(&metrics)?,
            version,
            made_at: Micros(made_at),
        })
    })())
}

/// The newest result of a stage with this key.
///
/// # Errors
/// The database's.
pub fn by_key(db: &Connection, scope: &Scope, node: &NodeKey, key: &str) -> Result<Option<ResultRow>, StoreError> {
    db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM results WHERE project = ?1 AND pipeline = ?2 AND node = ?3 AND key = ?4 \
         ORDER BY id DESC LIMIT 1"
    ))?
    .query_row(params![scope.project, scope.pipeline, node.to_string(), key], row)
    .optional()?
    .transpose()
}

/// The newest result of a stage, whatever its key.
///
/// # Errors
/// The database's.
pub fn latest(db: &Connection, scope: &Scope, node: &NodeKey) -> Result<Option<ResultRow>, StoreError> {
    db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM results WHERE project = ?1 AND pipeline = ?2 AND node = ?3 ORDER BY id DESC LIMIT 1"
    ))?
    .query_row(params![scope.project, scope.pipeline, node.to_string()], row)
    .optional()?
    .transpose()
}

/// The result of a stage in a build, if it ended well there.
///
/// # Errors
/// The database's.
pub fn of_stage(db: &Connection, build: BuildId, node: &NodeKey) -> Result<Option<ResultRow>, StoreError> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM results WHERE build = ?1 AND node = ?2"))?
        .query_row(params![build.0, node.to_string()], row)
        .optional()?
        .transpose()
}

/// A result counts no more: its stage runs again.
///
/// # Errors
/// The database's.
pub fn forget(tx: &Connection, build: BuildId, node: &NodeKey) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM results WHERE build = ?1 AND node = ?2")?
        .execute(params![build.0, node.to_string()])?;
    Ok(())
}
