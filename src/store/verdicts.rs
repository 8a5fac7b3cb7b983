//! What stages decided about models, as lists of builds show it: without the evidence.

use rusqlite::{Connection, params};

use super::{StoreError, models};
use crate::ids::BuildId;

/// Decisions and versions of one build that are read at most.
const MOST: i64 = 100;

/// A decision of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The stage.
    pub node: String,
    /// The model.
    pub model: String,
    /// The version that was judged.
    pub version: u64,
    /// `promoted`, `held`, `rejected`, ...
    pub verdict: String,
}

/// The newest decision of each stage of a build.
///
/// # Errors
/// The database's.
pub fn of_build(db: &Connection, build: BuildId) -> Result<Vec<Verdict>, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT node, model, candidate, verdict FROM promotions WHERE build = ?1 AND node IS NOT NULL ORDER BY node, id LIMIT ?2",
    )?;
    let rows = query.query_map(params![build.0, MOST], |row| {
        Ok(Verdict { node: row.get(0)?, model: row.get(1)?, version: row.get(2)?, verdict: row.get(3)? })
    })?;
    let mut newest: Vec<Verdict> = Vec::new();
    for row in rows {
        let row = row?;
        match newest.last_mut() {
            Some(last) if last.node == row.node => *last = row,
            _ => newest.push(row),
        }
    }
    Ok(newest)
}

/// A version that stages of a build registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The stage.
    pub node: String,
    /// The model.
    pub model: String,
    /// Its version.
    pub version: u64,
}

/// The versions that a build registered.
///
/// # Errors
/// The database's.
pub fn made_in(db: &Connection, build: BuildId) -> Result<Vec<Made>, StoreError> {
    let mut query = db
        .prepare_cached("SELECT node, model, version FROM versions WHERE build = ?1 ORDER BY node, version LIMIT ?2")?;
    let rows = query.query_map(params![build.0, MOST], |row| {
        Ok(Made { node: row.get(0)?, model: row.get(1)?, version: row.get(2)? })
    })?;
    rows.map(|row| Ok(row?)).collect()
}

/// A version that would be champion if a person agreed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The model.
    pub model: String,
    /// The version.
    pub version: u64,
    /// The project that trained it.
    pub project: String,
    /// The build that judged it.
    pub build: Option<BuildId>,
}

/// What waits for a person: models whose newest decision is one that somebody has to agree to.
///
/// # Errors
/// The database's.
pub fn held(db: &Connection) -> Result<Vec<Held>, StoreError> {
    let mut held = Vec::new();
    for (model, _) in models::names(db)? {
        let newest = models::history(db, &model, 1)?.pop().filter(|decision| decision.verdict == "held");
        let Some(decision) = newest else { continue };
        // Retention may have taken the version.
        let Ok(version) = models::version(db, &model, decision.candidate) else { continue };
        let build = decision.stage.map(|(build, _)| build);
        held.push(Held { model, version: version.version, project: version.lineage.project, build });
    }
    Ok(held)
}
