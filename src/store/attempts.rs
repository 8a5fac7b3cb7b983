//! Attempts of stages, with their steps and reports.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::build::status::Outcome;
use crate::ids::{BuildId, Micros, NodeKey};

/// One step of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRow {
    /// Its name.
    pub name: String,
    /// When it began.
    pub started_at: Micros,
    /// When it ended; `None` if it was cut off.
    pub ended_at: Option<Micros>,
    /// Its exit code.
    pub code: Option<i64>,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AttemptRow {
    /// Its number, from 1.
    pub attempt: u32,
    /// Where it ran.
    pub runner: String,
    /// Marks of its steps.
    #[serde(skip)]
    pub nonce: String,
    /// When it began.
    pub started_at: Micros,
    /// When its unit was started.
    pub launched_at: Option<Micros>,
    /// When it ended.
    pub ended_at: Option<Micros>,
    /// How.
    pub outcome: Option<Outcome>,
    /// Its steps.
    pub steps: Vec<StepRow>,
    /// What its kind found out: checks, load test, judgement.
    pub reports: BTreeMap<String, serde_json::Value>,
    /// Why no earlier result was reused.
    pub why: String,
}

/// What is known when an attempt begins.
#[derive(Debug, Clone)]
pub struct NewAttempt {
    /// Which build.
    pub build: BuildId,
    /// Which stage.
    pub node: NodeKey,
    /// From 1.
    pub attempt: u32,
    /// Where it runs.
    pub runner: String,
    /// Marks of its steps.
    pub nonce: String,
    /// When.
    pub at: Micros,
    /// Why no earlier result was reused.
    pub why: String,
}

/// Stores that an attempt began.
///
/// # Errors
/// The database's.
pub fn create(tx: &Connection, new: &NewAttempt) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO attempts (build, node, attempt, runner, nonce, started_at, why) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![new.build.0, new.node.to_string(), new.attempt, new.runner, new.nonce, new.at.0, new.why])?;
    Ok(())
}

/// Stores that its unit is about to be started, with what was found out before.
///
/// # Errors
/// The database's.
pub fn launched(
    tx: &Connection,
    (build, node, attempt): (BuildId, &NodeKey, u32),
    reports: &BTreeMap<String, serde_json::Value>,
    at: Micros,
) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE attempts SET launched_at = ?4, reports = ?5 WHERE build = ?1 AND node = ?2 AND attempt = ?3",
    )?
    .execute(params![build.0, node.to_string(), attempt, at.0, serde_json::to_string(reports)?])?;
    Ok(())
}

/// Stores how it ended.
///
/// # Errors
/// The database's.
pub fn ended(
    tx: &Connection,
    (build, node, attempt): (BuildId, &NodeKey, u32),
    outcome: &Outcome,
    steps: &[StepRow],
    reports: &BTreeMap<String, serde_json::Value>,
    at: Micros,
) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE attempts SET ended_at = ?4, outcome = ?5, steps = ?6, reports = ?7 \
         WHERE build = ?1 AND node = ?2 AND attempt = ?3",
    )?
    .execute(params![
        build.0,
        node.to_string(),
        attempt,
        at.0,
        serde_json::to_string(outcome)?,
        serde_json::to_string(steps)?,
        serde_json::to_string(reports)?
    ])?;
    Ok(())
}

const COLUMNS: &str = "attempt, runner, nonce, started_at, launched_at, ended_at, outcome, steps, reports, why";

fn row(row: &Row<'_>) -> rusqlite::Result<Result<AttemptRow, StoreError>> {
    let attempt: u32 = row.get(0)?;
    let (runner, nonce, why): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(9)?);
    let (started, launched, ended): (i64, Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?, row.get(5)?);
    let json: [Option<String>; 3] = [row.get(6)?, row.get(7)?, row.get(8)?];
    Ok((|| {
        let [outcome, steps, reports] = json;
        Ok(AttemptRow {
            attempt,
            runner,
            nonce,
            started_at: Micros(started),
            launched_at: launched.map(Micros),
            ended_at: ended.map(Micros),
            outcome: outcome.map(|text| serde_json::from_str(&text)).transpose()?,
            steps: steps.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default(),
            reports: reports.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default(),
            why,
        })
    })())
}

/// One attempt, if there is such a one.
///
/// # Errors
/// The database's.
pub fn find(db: &Connection, build: BuildId, node: &NodeKey, attempt: u32) -> Result<Option<AttemptRow>, StoreError> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM attempts WHERE build = ?1 AND node = ?2 AND attempt = ?3"))?
        .query_row(params![build.0, node.to_string(), attempt], row)
        .optional()?
        .transpose()
}

/// All attempts of a stage, in order; bounded by its `retry`.
///
/// # Errors
/// The database's.
pub fn of_stage(db: &Connection, build: BuildId, node: &NodeKey) -> Result<Vec<AttemptRow>, StoreError> {
    let mut query =
        db.prepare_cached(&format!("SELECT {COLUMNS} FROM attempts WHERE build = ?1 AND node = ?2 ORDER BY attempt"))?;
    let rows = query.query_map(params![build.0, node.to_string()], row)?;
    rows.map(|row| row?).collect()
}

/// The number of a node's last attempt; 0 if it had none.
///
/// # Errors
/// The database's.
pub fn last(db: &Connection, build: BuildId, node: &NodeKey) -> Result<u32, StoreError> {
    let mut query =
        db.prepare_cached("SELECT coalesce(max(attempt), 0) FROM attempts WHERE build = ?1 AND node = ?2")?;
    Ok(query.query_row(params![build.0, node.to_string()], |row| row.get(0))?)
}
