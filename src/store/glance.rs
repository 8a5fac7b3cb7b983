//! Builds as lists show them: a few columns of each, without the pipeline's text and the rest of the request.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row};

use super::StoreError;
use crate::build::status::BuildStatus;
use crate::ids::{BuildId, Micros};

/// A build in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    /// Its number.
    pub id: BuildId,
    /// Whose.
    pub project: String,
    /// Its pipeline's name.
    pub pipeline: String,
    /// Where it stands.
    pub status: BuildStatus,
    /// `push`, `manual`, ...
    pub event: String,
    /// The branch.
    pub branch: Option<String>,
    /// The tag.
    pub tag: Option<String>,
    /// The commit.
    pub commit: Option<String>,
    /// The commit's first line, or the pull request's title.
    pub title: Option<String>,
    /// The pull request's number.
    pub pull_request: Option<u64>,
    /// Who started it.
    pub actor: String,
    /// A person has to agree before it begins.
    pub awaits: bool,
    /// When it was accepted.
    pub created_at: Micros,
    /// When work began.
    pub started_at: Option<Micros>,
    /// When it ended.
    pub ended_at: Option<Micros>,
}

const COLUMNS: &str = "id, project, pipeline, status_json, event, branch, json_extract(request, '$.tag'), commit_sha, \
                       json_extract(request, '$.title'), json_extract(request, '$.pull_request'), \
                       json_extract(request, '$.actor'), awaits IS NOT NULL, created_at, started_at, ended_at";

fn row(row: &Row<'_>) -> rusqlite::Result<Result<Glance, StoreError>> {
    let status: String = row.get(3)?;
    let read = Glance {
        id: BuildId(row.get(0)?),
        project: row.get(1)?,
        pipeline: row.get(2)?,
        status: BuildStatus::Queued,
        event: row.get(4)?,
        branch: row.get(5)?,
        tag: row.get(6)?,
        commit: row.get(7)?,
        title: row.get(8)?,
        pull_request: row.get(9)?,
        actor: row.get(10)?,
        awaits: row.get(11)?,
        created_at: Micros(row.get(12)?),
        started_at: row.get::<_, Option<i64>>(13)?.map(Micros),
        ended_at: row.get::<_, Option<i64>>(14)?.map(Micros),
    };
    Ok(serde_json::from_str(&status).map(|status| Glance { status, ..read }).map_err(StoreError::from))
}

pub(super) fn read(db: &Connection, rest: &str, values: Vec<Value>) -> Result<Vec<Glance>, StoreError> {
    let mut query = db.prepare_cached(&format!("SELECT {COLUMNS} FROM builds {rest}"))?;
    let rows = query.query_map(rusqlite::params_from_iter(values), row)?;
    rows.map(|row| row?).collect()
}

/// The newest builds of a project, at most `limit`.
///
/// # Errors
/// The database's.
pub fn newest(db: &Connection, project: &str, limit: usize) -> Result<Vec<Glance>, StoreError> {
    read(
        db,
        "INDEXED BY builds_by_project WHERE project = ?1 ORDER BY id DESC LIMIT ?2",
        vec![project.to_owned().into(), (limit as i64).into()],
    )
}

/// Builds under way, the oldest first, at most `limit`.
///
/// # Errors
/// The database's.
pub fn running(db: &Connection, limit: usize) -> Result<Vec<Glance>, StoreError> {
    read(
        db,
        "INDEXED BY builds_open WHERE status IN ('queued', 'running') AND status = 'running' ORDER BY id LIMIT ?1",
        vec![(limit as i64).into()],
    )
}

/// Whether a stage of a build has failed.
///
/// # Errors
/// The database's.
pub fn has_failed_stage(db: &Connection, id: BuildId) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM stages WHERE build = ?1 AND status = 'failed')")?
        .query_row([id.0], |row| row.get(0))?)
}

/// The last build of a pipeline and branch before one that passed, among the last `looked_at` of the branch.
///
/// # Errors
/// The database's.
pub fn last_passed(
    db: &Connection,
    (project, branch, pipeline): (&str, &str, &str),
    before: BuildId,
    looked_at: usize,
) -> Result<Option<Glance>, StoreError> {
    let rest = "WHERE id IN (SELECT id FROM builds INDEXED BY builds_by_branch WHERE project = ?1 AND branch = ?2 AND id < ?3 \
                ORDER BY id DESC LIMIT ?4) AND status = 'passed' AND pipeline = ?5 ORDER BY id DESC LIMIT 1";
    let values: Vec<Value> = vec![
        project.to_owned().into(),
        branch.to_owned().into(),
        i64::try_from(before.0).unwrap_or(i64::MAX).into(),
        (looked_at as i64).into(),
        pipeline.to_owned().into(),
    ];
    Ok(read(db, rest, values)?.pop())
}

/// One build, if there is such a one.
///
/// # Errors
/// The database's.
pub fn one(db: &Connection, id: BuildId) -> Result<Option<Glance>, StoreError> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM builds WHERE id = ?1"))?
        .query_row([id.0], row)
        .optional()?
        .transpose()
}

/// Builds whose commit begins with these hexadecimal digits, the newest first, at most `limit`.
///
/// # Errors
/// The database's.
pub fn of_commit(db: &Connection, digits: &str, limit: usize) -> Result<Vec<Glance>, StoreError> {
    // `g` comes behind every digit.
    let (from, to) = (digits.to_lowercase(), format!("{}g", digits.to_lowercase()));
    // Whatever begins like that is not sorted as a whole.
    let rest = "WHERE id IN (SELECT id FROM builds INDEXED BY builds_by_commit WHERE commit_sha >= ?1 AND commit_sha < ?2 \
                LIMIT 500) ORDER BY id DESC LIMIT ?3";
    read(db, rest, vec![from.into(), to.into(), (limit as i64).into()])
}

/// An attempt of a stage, for those who look at many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The stage.
    pub node: String,
    /// From 1.
    pub attempt: u32,
    /// `succeeded`, `failed`, `cancelled` or `interrupted`; none while it goes on.
    pub result: Option<String>,
    /// When it began.
    pub started_at: Micros,
    /// When it ended.
    pub ended_at: Option<Micros>,
}

/// The attempts of a build's stages, by stage and number.
///
/// # Errors
/// The database's.
pub fn tried(db: &Connection, build: BuildId) -> Result<Vec<Tried>, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT node, attempt, json_extract(outcome, '$.result'), started_at, ended_at FROM attempts WHERE build = ?1 \
         ORDER BY node, attempt LIMIT 2000",
    )?;
    let rows = query.query_map([build.0], |row| {
        Ok(Tried {
            node: row.get(0)?,
            attempt: row.get(1)?,
            result: row.get(2)?,
            started_at: Micros(row.get(3)?),
            ended_at: row.get::<_, Option<i64>>(4)?.map(Micros),
        })
    })?;
    rows.map(|row| Ok(row?)).collect()
}
