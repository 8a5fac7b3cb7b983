//! Builds and their stages.

use std::collections::BTreeMap;
use std::path::PathBuf;

use indexmap::IndexMap;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::build::plan::{Plan, Selection};
use crate::build::status::{BuildState, BuildStatus, CancelReason, StageStatus};
use crate::ids::{BuildId, Micros, NodeKey};

/// Everything about a build that is known when it is asked for, and never changes. With it, a build can be planned again at
/// any time, with the same result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildRequest {
    /// Which project's history it belongs to.
    pub project: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// Where the pipeline was read, for messages.
    pub file: String,
    /// The pipeline's text.
    pub text: String,
    /// Where the source was taken from, for people.
    pub folder: PathBuf,
    /// Digest of the source tree's manifest in the artifact store.
    pub source: String,
    /// Commit, if the source is a git work tree.
    pub commit: Option<String>,
    /// The work tree differs from the commit.
    pub dirty: bool,
    /// Checked-out branch.
    pub branch: Option<String>,
    /// Tag at the commit.
    pub tag: Option<String>,
    /// The branch that counts as default.
    pub default_branch: Option<String>,
    /// `manual`, `push`, ...
    pub event: String,
    /// Paths that changed, where known.
    pub changed_paths: Option<Vec<String>>,
    /// Parameters as given.
    pub params: IndexMap<String, String>,
    /// Which stages.
    pub selection: Selection,
    /// Which runner, if the caller chose.
    pub runner: Option<String>,
    /// Results may be reused.
    pub reuse: bool,
    /// A failed container is left for a look.
    pub keep: bool,
    /// Who asked for it.
    pub actor: String,
    /// The commit's first line, or the pull request's title.
    #[serde(default)]
    pub title: Option<String>,
    /// Number of the pull request.
    #[serde(default)]
    pub pull_request: Option<u64>,
    /// It may not have secrets: its code comes from a stranger.
    #[serde(default)]
    pub untrusted: bool,
    /// Others are told of it: see `store::outbox`.
    #[serde(default)]
    pub reports: bool,
    /// Where a person sees it.
    #[serde(default)]
    pub url: Option<String>,
    /// By which the values of its secrets are known again, by name. The one part that may change: when a build goes on with
    /// other values.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
}

/// A build as listed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BuildRow {
    /// Its number.
    pub id: BuildId,
    /// What was asked for.
    pub request: BuildRequest,
    /// Where it stands.
    pub status: BuildStatus,
    /// Cancellation asked for.
    pub cancel: Option<CancelReason>,
    /// When it was asked for.
    pub created_at: Micros,
    /// When work began.
    pub started_at: Option<Micros>,
    /// When it ended.
    pub ended_at: Option<Micros>,
}

/// A stage of a build as listed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageRow {
    /// Its key.
    pub node: NodeKey,
    /// `plain`, `train`, ...
    pub kind: String,
    /// Where it stands.
    #[serde(flatten)]
    pub status: StageStatus,
}

/// Stores a new build with its stages waiting.
///
/// # Errors
/// The database's.
pub fn create(tx: &Connection, request: &BuildRequest, plan: &Plan, at: Micros) -> Result<BuildId, StoreError> {
    let state = BuildState::new(plan.nodes.len());
    tx.prepare_cached(
        "INSERT INTO builds (project, pipeline, request, status, status_json, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        request.project,
        request.pipeline,
        serde_json::to_string(request)?,
        state.status.word(),
        serde_json::to_string(&state.status)?,
        at.0
    ])?;
    let id = BuildId(u64::try_from(tx.last_insert_rowid()).map_err(|_| StoreError::Corrupt("row id".to_owned()))?);
    let mut insert = tx.prepare_cached(
        "INSERT INTO stages (build, node, position, kind, status, status_json) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (position, (node, status)) in plan.nodes.iter().zip(&state.stages).enumerate() {
        insert.execute(params![
            id.0,
            node.key.to_string(),
            position as i64,
            node.stage.kind.word(),
            status.word(),
            serde_json::to_string(status)?
        ])?;
    }
    Ok(id)
}

/// Stores by what the values of a build's secrets are known again.
///
/// # Errors
/// The database's.
pub fn set_secrets(tx: &Connection, id: BuildId, request: &BuildRequest) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE builds SET request = ?2 WHERE id = ?1")?
        .execute(params![id.0, serde_json::to_string(request)?])?;
    Ok(())
}

/// Writes what changed between two states.
///
/// # Errors
/// The database's.
pub fn save(
    tx: &Connection,
    id: BuildId,
    plan: &Plan,
    before: &BuildState,
    after: &BuildState,
    at: Micros,
) -> Result<(), StoreError> {
    if before.status != after.status || before.cancel != after.cancel {
        let started = (after.status == BuildStatus::Running).then_some(at.0);
        let ended = after.status.is_terminal().then_some(at.0);
        tx.prepare_cached(
            "UPDATE builds SET status = ?2, status_json = ?3, cancel = ?4, \
             started_at = coalesce(started_at, ?5), ended_at = ?6 WHERE id = ?1",
        )?
        .execute(params![
            id.0,
            after.status.word(),
            serde_json::to_string(&after.status)?,
            after.cancel.map(|reason| serde_json::to_string(&reason)).transpose()?,
            started,
            ended
        ])?;
    }
    let mut update =
        tx.prepare_cached("UPDATE stages SET status = ?3, status_json = ?4 WHERE build = ?1 AND node = ?2")?;
    for (index, node) in plan.nodes.iter().enumerate() {
        let status = &after.stages[index];
        if *status != before.stages[index] {
            update.execute(params![id.0, node.key.to_string(), status.word(), serde_json::to_string(status)?])?;
        }
    }
    Ok(())
}

const COLUMNS: &str = "id, request, status_json, cancel, created_at, started_at, ended_at";

fn row(row: &Row<'_>) -> rusqlite::Result<Result<BuildRow, StoreError>> {
    let id: u64 = row.get(0)?;
    let request: String = row.get(1)?;
    let status: String = row.get(2)?;
    let cancel: Option<String> = row.get(3)?;
    let times = (row.get::<_, i64>(4)?, row.get::<_, Option<i64>>(5)?, row.get::<_, Option<i64>>(6)?);
    Ok((|| {
        Ok(BuildRow {
            id: BuildId(id),
            request: serde_json::from_str(&request)?,
            status: serde_json::from_str(&status)?,
            cancel: cancel.map(|text| serde_json::from_str(&text)).transpose()?,
            created_at: Micros(times.0),
            started_at: times.1.map(Micros),
            ended_at: times.2.map(Micros),
        })
    })())
}

/// One build.
///
/// # Errors
/// [`StoreError::Missing`] if there is none of that number.
pub fn get(db: &Connection, id: BuildId) -> Result<BuildRow, StoreError> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM builds WHERE id = ?1"))?
        .query_row([id.0], row)
        .optional()?
        .ok_or_else(|| StoreError::Missing(format!("there is no build {id}")))?
}

/// The newest builds before `before`, at most `limit`.
///
/// # Errors
/// The database's.
pub fn list(
    db: &Connection,
    project: Option<&str>,
    before: Option<BuildId>,
    limit: usize,
) -> Result<Vec<BuildRow>, StoreError> {
    let before = before.map_or(i64::MAX, |id| i64::try_from(id.0).unwrap_or(i64::MAX));
    let filter = if project.is_some() { "project = ?3" } else { "?3 IS NULL" };
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM builds WHERE id < ?1 AND {filter} ORDER BY id DESC LIMIT ?2"
    ))?;
    let rows = query.query_map(params![before, limit as i64, project], row)?;
    rows.map(|row| row?).collect()
}

/// Which builds are looked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of these projects; `None` for all.
    pub projects: Option<Vec<String>>,
    /// Of this branch. Quick only together with one project.
    pub branch: Option<String>,
    /// In this state. Quick only together with one project.
    pub status: Option<String>,
    /// Of this commit.
    pub commit: Option<String>,
}

/// The newest builds before `before` that pass a filter, at most `limit`.
///
/// # Errors
/// The database's.
pub fn find(
    db: &Connection,
    filter: &Filter,
    before: Option<BuildId>,
    limit: usize,
) -> Result<Vec<BuildRow>, StoreError> {
    let before = before.map_or(i64::MAX, |id| i64::try_from(id.0).unwrap_or(i64::MAX));
    let mut clauses = vec!["id < ?".to_owned()];
    let mut values: Vec<rusqlite::types::Value> = vec![before.into()];
    if let Some(projects) = &filter.projects {
        clauses.push(format!("project IN ({})", vec!["?"; projects.len()].join(", ")));
        values.extend(projects.iter().map(|project| project.clone().into()));
    }
    let columns = [("branch", &filter.branch), ("status", &filter.status), ("commit_sha", &filter.commit)];
    for (column, value) in columns {
        if let Some(value) = value {
            clauses.push(format!("{column} = ?"));
            values.push(value.clone().into());
        }
    }
    values.push((limit as i64).into());
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM builds WHERE {} ORDER BY id DESC LIMIT ?",
        clauses.join(" AND ")
    ))?;
    let rows = query.query_map(rusqlite::params_from_iter(values), row)?;
    rows.map(|row| row?).collect()
}

/// Builds that have not ended, oldest first.
///
/// # Errors
/// The database's.
pub fn open(db: &Connection) -> Result<Vec<BuildId>, StoreError> {
    let mut query = db.prepare_cached("SELECT id FROM builds WHERE status IN ('queued', 'running') ORDER BY id")?;
    let rows = query.query_map([], |row| Ok(BuildId(row.get(0)?)))?;
    rows.map(|row| Ok(row?)).collect()
}

/// The stages of a build, in the plan's order.
///
/// # Errors
/// The database's.
pub fn stages(db: &Connection, id: BuildId) -> Result<Vec<StageRow>, StoreError> {
    let mut query =
        db.prepare_cached("SELECT node, kind, status_json FROM stages WHERE build = ?1 ORDER BY position")?;
    let rows = query
        .query_map([id.0], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?)))?;
    rows.map(|row| {
        let (node, kind, status) = row?;
        let node = node.parse().map_err(|_| StoreError::Corrupt(format!("stage name `{node}`")))?;
        Ok(StageRow { node, kind, status: serde_json::from_str(&status)? })
    })
    .collect()
}
