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

fn read(db: &Connection, rest: &str, values: Vec<Value>) -> Result<Vec<Glance>, StoreError> {
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

/// Which builds of a project are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The project.
    pub project: String,
    /// Of this branch.
    pub branch: Option<String>,
    /// In this state.
    pub status: Option<String>,
    /// Started by this kind of event.
    pub event: Option<String>,
    /// In the title, the commit or the name of who started it, whatever the case.
    pub text: Option<String>,
    /// Builds that are looked at for an event or a text; at most, and usually, [`LOOKED_AT`].
    pub most: Option<usize>,
}

/// Builds that were found, and where the search went on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The newest first.
    pub builds: Vec<Glance>,
    /// All before this one were not looked at; `None` if nothing is left.
    pub looked_to: Option<BuildId>,
}

/// Builds whose commit begins with these hexadecimal digits, the newest first, at most `limit`.
///
/// # Errors
/// The database's.
pub fn of_commit(db: &Connection, digits: &str, limit: usize) -> Result<Vec<Glance>, StoreError> {
    // `g` comes behind every digit.
    let (from, to) = (digits.to_lowercase(), format!("{}g", digits.to_lowercase()));
    let rest = "INDEXED BY builds_by_commit WHERE commit_sha >= ?1 AND commit_sha < ?2 ORDER BY id DESC LIMIT ?3";
    read(db, rest, vec![from.into(), to.into(), (limit as i64).into()])
}

/// Builds that one search by what is in no index looks at, unless fewer are asked for.
pub const LOOKED_AT: usize = 5000;

/// The newest builds before `before` that are wanted, at most `limit`. By branch or state an index finds them; by event or
/// text a bounded number of builds is looked at.
///
/// # Errors
/// The database's.
pub fn find(db: &Connection, wanted: &Wanted, before: Option<BuildId>, limit: usize) -> Result<Found, StoreError> {
    let before = before.map_or(i64::MAX, |id| i64::try_from(id.0).unwrap_or(i64::MAX));
    let mut clauses = vec!["project = ?", "id < ?"];
    let mut values: Vec<Value> = vec![wanted.project.clone().into(), before.into()];
    for (clause, value) in [("branch = ?", &wanted.branch), ("status = ?", &wanted.status)] {
        if let Some(value) = value {
            clauses.push(clause);
            values.push(value.clone().into());
        }
    }
    // Every row of a page, or of the part that is looked at; one more tells whether there are others.
    let scanned = wanted.event.is_some() || wanted.text.is_some();
    let most = if scanned { wanted.most.unwrap_or(LOOKED_AT).min(LOOKED_AT) } else { limit };
    let rows = format!("WHERE {} ORDER BY id DESC LIMIT ?", clauses.join(" AND "));
    values.push((most as i64 + 1).into());
    if !scanned {
        let mut builds = read(db, &rows, values)?;
        let more = builds.len() > limit;
        builds.truncate(limit);
        let looked_to = builds.last().filter(|_| more).map(|row| row.id);
        return Ok(Found { builds, looked_to });
    }
    let ids = format!("SELECT id FROM builds {rows}");
    let last: (i64, Option<u64>) = db
        .prepare_cached(&format!("SELECT count(*), min(id) FROM ({ids})"))?
        .query_row(rusqlite::params_from_iter(values.clone()), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let end = last.1.filter(|_| last.0 > most as i64).map(BuildId);
    let mut filters = vec![format!("id IN ({ids})")];
    if let Some(event) = &wanted.event {
        filters.push("event = ?".to_owned());
        values.push(event.clone().into());
    }
    if let Some(text) = &wanted.text {
        filters.push(
            "instr(lower(coalesce(json_extract(request, '$.title'), '') || ' ' || coalesce(commit_sha, '') || ' ' || \
             json_extract(request, '$.actor')), lower(?)) > 0"
                .to_owned(),
        );
        values.push(text.clone().into());
    }
    values.push((limit as i64 + 1).into());
    let rest = format!("WHERE {} ORDER BY id DESC LIMIT ?", filters.join(" AND "));
    let mut builds = read(db, &rest, values)?;
    let more = builds.len() > limit;
    builds.truncate(limit);
    let looked_to = if more { builds.last().map(|row| row.id) } else { end };
    Ok(Found { builds, looked_to })
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
