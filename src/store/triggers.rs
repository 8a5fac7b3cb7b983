//! What happened to a project, and what came of it.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::ids::{BuildId, Micros};

/// How it came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A webhook call.
    Webhook,
    /// A look at the remote repository.
    Poll,
    /// A change in a local repository.
    Watch,
    /// The look at every repository when the daemon starts: what happened meanwhile.
    CatchUp,
    /// A time.
    Schedule,
    /// A person or a program asked for it.
    Manual,
}

impl Source {
    /// One word, as stored and shown.
    pub fn word(self) -> &'static str {
        match self {
            Source::Webhook => "webhook",
            Source::Poll => "poll",
            Source::Watch => "watch",
            Source::CatchUp => "catch-up",
            Source::Schedule => "schedule",
            Source::Manual => "manual",
        }
    }

    fn of(word: &str) -> Result<Self, StoreError> {
        [Source::Webhook, Source::Poll, Source::Watch, Source::CatchUp, Source::Schedule, Source::Manual]
            .into_iter()
            .find(|source| source.word() == word)
            .ok_or_else(|| StoreError::Corrupt(format!("trigger source `{word}`")))
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decided {
    /// Builds were started.
    Started,
    /// Builds were made that wait for a person.
    Awaiting,
    /// The pipelines do not want it.
    Skipped,
    /// Nothing is ever built for such an event.
    Ignored,
    /// The same was acted upon before.
    Duplicate,
    /// It ended builds.
    Cancelled,
    /// It could not be acted upon.
    Failed,
}

impl Decided {
    /// One word, as stored and shown.
    pub fn word(self) -> &'static str {
        match self {
            Decided::Started => "started",
            Decided::Awaiting => "awaiting",
            Decided::Skipped => "skipped",
            Decided::Ignored => "ignored",
            Decided::Duplicate => "duplicate",
            Decided::Cancelled => "cancelled",
            Decided::Failed => "failed",
        }
    }

    fn of(word: &str) -> Result<Self, StoreError> {
        use Decided::{Awaiting, Cancelled, Duplicate, Failed, Ignored, Skipped, Started};
        [Started, Awaiting, Skipped, Ignored, Duplicate, Cancelled, Failed]
            .into_iter()
            .find(|decided| decided.word() == word)
            .ok_or_else(|| StoreError::Corrupt(format!("decision `{word}`")))
    }
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TriggerRow {
    /// Its number.
    pub id: u64,
    /// The project.
    pub project: String,
    /// How it came to be known.
    pub source: Source,
    /// The webhook call.
    pub delivery: Option<u64>,
    /// What was seen or asked for; null for a webhook call, whose body says it.
    pub subject: serde_json::Value,
    /// Event, ref and commit, once known.
    pub identity: Option<String>,
    /// When.
    pub received_at: Micros,
    /// What came of it; `None` while that is open.
    pub decision: Option<Decided>,
    /// Why; while open, what keeps it from being decided.
    pub reason: String,
    /// Tries so far that failed.
    pub tries: u32,
    /// When the next try is due.
    pub next_at: Micros,
    /// When it was decided.
    pub decided_at: Option<Micros>,
}

/// Stores one.
///
/// # Errors
/// The database's.
pub fn create(
    tx: &Connection,
    project: &str,
    source: Source,
    subject: &serde_json::Value,
    at: Micros,
) -> Result<u64, StoreError> {
    tx.prepare_cached(
        "INSERT INTO triggers (project, source, subject, received_at, next_at) VALUES (?1, ?2, ?3, ?4, ?4)",
    )?
    .execute(params![project, source.word(), serde_json::to_string(subject)?, at.0])?;
    u64::try_from(tx.last_insert_rowid()).map_err(|_| StoreError::Corrupt("row id".to_owned()))
}

/// Another go at a webhook call that was decided before.
///
/// # Errors
/// [`StoreError::Missing`] if there is no such delivery.
pub fn replay(tx: &Connection, delivery: u64, at: Micros) -> Result<Vec<u64>, StoreError> {
    let of = of_delivery(tx, delivery)?;
    if of.is_empty() {
        return Err(StoreError::Missing(format!("there is no delivery {delivery} for any project")));
    }
    let mut projects: Vec<&str> = of.iter().map(|trigger| trigger.project.as_str()).collect();
    projects.sort_unstable();
    projects.dedup();
    let mut insert = tx.prepare_cached(
        "INSERT INTO triggers (project, source, delivery, subject, received_at, next_at) \
         VALUES (?1, 'webhook', ?2, '{\"replay\":true}', ?3, ?3)",
    )?;
    let mut made = Vec::new();
    for project in projects {
        insert.execute(params![project, delivery, at.0])?;
        made.push(u64::try_from(tx.last_insert_rowid()).map_err(|_| StoreError::Corrupt("row id".to_owned()))?);
    }
    Ok(made)
}

const COLUMNS: &str = "id, project, source, delivery, subject, identity, received_at, decision, reason, tries, next_at, \
                       decided_at";

fn row(row: &Row<'_>) -> rusqlite::Result<Result<TriggerRow, StoreError>> {
    let (source, subject): (String, String) = (row.get(2)?, row.get(4)?);
    let decision: Option<String> = row.get(7)?;
    let plain = TriggerRow {
        id: row.get(0)?,
        project: row.get(1)?,
        source: Source::Webhook,
        delivery: row.get(3)?,
        subject: serde_json::Value::Null,
        identity: row.get(5)?,
        received_at: Micros(row.get(6)?),
        decision: None,
        reason: row.get(8)?,
        tries: row.get(9)?,
        next_at: Micros(row.get(10)?),
        decided_at: row.get::<_, Option<i64>>(11)?.map(Micros),
    };
    Ok((|| {
        Ok(TriggerRow {
            source: Source::of(&source)?,
            subject: serde_json::from_str(&subject)?,
            decision: decision.map(|word| Decided::of(&word)).transpose()?,
            ..plain
        })
    })())
}

fn collect(db: &Connection, query: &str, values: impl rusqlite::Params) -> Result<Vec<TriggerRow>, StoreError> {
    let mut query = db.prepare_cached(query)?;
    let rows = query.query_map(values, row)?;
    rows.map(|row| row?).collect()
}

/// One.
///
/// # Errors
/// [`StoreError::Missing`] if there is none of that number.
pub fn get(db: &Connection, id: u64) -> Result<TriggerRow, StoreError> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM triggers WHERE id = ?1"))?
        .query_row([id], row)
        .optional()?
        .ok_or_else(|| StoreError::Missing(format!("there is no trigger {id}")))?
}

/// The oldest open one of a project that is due; if none is, the one that is due next. One that has to be tried again later
/// does not hold up the others.
///
/// # Errors
/// The database's.
pub fn next_open(db: &Connection, project: &str, now: Micros) -> Result<Option<TriggerRow>, StoreError> {
    let open = format!("SELECT {COLUMNS} FROM triggers WHERE project = ?1 AND decision IS NULL");
    let due = format!("{open} AND next_at <= ?2 ORDER BY id LIMIT 1");
    if let Some(row) = collect(db, &due, params![project, now.0])?.pop() {
        return Ok(Some(row));
    }
    Ok(collect(db, &format!("{open} ORDER BY next_at, id LIMIT 1"), [project])?.pop())
}

/// How many are open, for each project that has any.
///
/// # Errors
/// The database's.
pub fn open_counts(db: &Connection) -> Result<Vec<(String, u64)>, StoreError> {
    let mut query =
        db.prepare_cached("SELECT project, count(*) FROM triggers WHERE decision IS NULL GROUP BY project")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.map(|row| Ok(row?)).collect()
}

/// The triggers of a webhook call.
///
/// # Errors
/// The database's.
pub fn of_delivery(db: &Connection, delivery: u64) -> Result<Vec<TriggerRow>, StoreError> {
    let query = format!("SELECT {COLUMNS} FROM triggers WHERE delivery = ?1 ORDER BY id LIMIT 1000");
    collect(db, &query, [delivery])
}

/// The newest of a project (or of all) before `before`, at most `limit`.
///
/// # Errors
/// The database's.
pub fn list(
    db: &Connection,
    project: Option<&str>,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<TriggerRow>, StoreError> {
    let before = before.and_then(|id| i64::try_from(id).ok()).unwrap_or(i64::MAX);
    let filter = if project.is_some() { "project = ?3" } else { "?3 IS NULL" };
    let query = format!("SELECT {COLUMNS} FROM triggers WHERE id < ?1 AND {filter} ORDER BY id DESC LIMIT ?2");
    collect(db, &query, params![before, limit as i64, project])
}

/// The newest decided trigger of a project with this identity that started something.
///
/// # Errors
/// The database's.
pub fn acted_upon(db: &Connection, project: &str, identity: &str) -> Result<Option<TriggerRow>, StoreError> {
    let query = format!(
        "SELECT {COLUMNS} FROM triggers WHERE project = ?1 AND identity = ?2 \
         AND decision IN ('started', 'awaiting', 'skipped') ORDER BY id DESC LIMIT 1"
    );
    Ok(collect(db, &query, [project, identity])?.pop())
}

/// Settles one that is open.
///
/// # Errors
/// [`StoreError::Conflict`] if it is settled already.
pub fn decide(
    tx: &Connection,
    id: u64,
    decided: Decided,
    reason: &str,
    identity: Option<&str>,
    at: Micros,
) -> Result<(), StoreError> {
    let changed = tx
        .prepare_cached(
            "UPDATE triggers SET decision = ?2, reason = ?3, identity = coalesce(?4, identity), decided_at = ?5 \
             WHERE id = ?1 AND decision IS NULL",
        )?
        .execute(params![id, decided.word(), reason, identity, at.0])?;
    if changed == 1 { Ok(()) } else { Err(StoreError::Conflict(format!("trigger {id} was decided before"))) }
}

/// It could not be decided now; it is tried again at `next`.
///
/// # Errors
/// The database's.
pub fn postpone(tx: &Connection, id: u64, problem: &str, next: Micros) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE triggers SET tries = tries + 1, reason = ?2, next_at = ?3 WHERE id = ?1 AND decision IS NULL",
    )?
    .execute(params![id, problem, next.0])?;
    Ok(())
}

/// The builds that a trigger started.
///
/// # Errors
/// The database's.
pub fn builds(db: &Connection, id: u64) -> Result<Vec<BuildId>, StoreError> {
    let mut query = db.prepare_cached("SELECT id FROM builds WHERE trigger = ?1 ORDER BY id LIMIT 1000")?;
    let rows = query.query_map([id], |row| Ok(BuildId(row.get(0)?)))?;
    rows.map(|row| Ok(row?)).collect()
}

/// Whether what a trigger did still stands: it started nothing (and that was decided), or one of its builds was not cancelled.
///
/// # Errors
/// The database's.
pub fn has_use(db: &Connection, trigger: &TriggerRow) -> Result<bool, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT NOT EXISTS (SELECT 1 FROM builds WHERE trigger = ?1) \
         OR EXISTS (SELECT 1 FROM builds WHERE trigger = ?1 AND status <> 'cancelled')",
    )?;
    Ok(query.query_row([trigger.id], |row| row.get(0))?)
}

/// Whether an open trigger of the project has this very subject.
///
/// # Errors
/// The database's.
pub fn is_open(db: &Connection, project: &str, subject: &serde_json::Value) -> Result<bool, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM triggers WHERE project = ?1 AND decision IS NULL AND subject = ?2)",
    )?;
    Ok(query.query_row(params![project, serde_json::to_string(subject)?], |row| row.get(0))?)
}
