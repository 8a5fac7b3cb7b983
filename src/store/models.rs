//! The model registry: versions, the champion, and every decision about them.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::ids::{BuildId, Micros, NodeKey};

/// Where a version comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// The project.
    pub project: String,
    /// The pipeline.
    pub pipeline: String,
    /// Commit, if the source was a git work tree.
    pub commit: Option<String>,
    /// The work tree differed from the commit.
    pub dirty: bool,
    /// Digest of the source tree.
    pub source: String,
    /// Digest of the image, or `host`.
    pub image: String,
    /// By what the engine that trained it knows the image.
    #[serde(default)]
    pub image_id: Option<String>,
    /// Digests of the data files.
    pub data: BTreeMap<String, String>,
    /// The training's parameters.
    pub params: serde_json::Value,
    /// The stage's `train` settings as far as scoring again needs them.
    pub files: TrainFiles,
}

/// Which of a version's outputs are what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct TrainFiles {
    /// The model.
    pub artifact: String,
    /// Its predictions.
    pub predictions: Option<String>,
    /// The held-out rows.
    pub evaluation: Option<String>,
    /// The script that scores it.
    pub score: Option<String>,
    /// It was made by the built-in trainer.
    #[serde(default)]
    pub linfa: bool,
}

/// One version of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionRow {
    /// The model.
    pub model: String,
    /// From 1.
    pub version: u64,
    /// The build that made it.
    pub build: BuildId,
    /// The stage that made it.
    pub node: NodeKey,
    /// Digest of the model's own files.
    pub artifact: String,
    /// Digest of the manifest of all its outputs.
    pub outputs: String,
    /// Its metrics as reported.
    pub metrics: BTreeMap<String, f64>,
    /// Where it comes from.
    pub lineage: Lineage,
    /// When.
    pub made_at: Micros,
}

/// What is known when a version is registered.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// The model.
    pub model: String,
    /// The build that made it.
    pub build: BuildId,
    /// The stage that made it.
    pub node: NodeKey,
    /// Digest of the model's own files.
    pub artifact: String,
    /// Digest of the manifest of all its outputs.
    pub outputs: String,
    /// Its metrics as reported.
    pub metrics: BTreeMap<String, f64>,
    /// Where it comes from.
    pub lineage: Lineage,
}

/// Registers the next version of a model.
///
/// # Errors
/// [`StoreError::Conflict`] if the model belongs to another project.
pub fn register(tx: &Connection, new: &NewVersion, at: Micros) -> Result<u64, StoreError> {
    if !may_be_of(tx, &new.model, &new.lineage.project)? {
        return Err(StoreError::Conflict(belongs_elsewhere(&new.model)));
    }
    let version: u64 = tx
        .prepare_cached("SELECT coalesce(max(version), 0) + 1 FROM versions WHERE model = ?1")?
        .query_row([&new.model], |row| row.get(0))?;
    tx.prepare_cached(
        "INSERT INTO versions (model, version, build, node, artifact, outputs, metrics, lineage, made_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        new.model,
        version,
        new.build.0,
        new.node.to_string(),
        new.artifact,
        new.outputs,
        serde_json::to_string(&new.metrics)?,
        serde_json::to_string(&new.lineage)?,
        at.0
    ])?;
    Ok(version)
}

/// The project that a model belongs to: that of its oldest version that there is. `None` if there is none.
///
/// # Errors
/// The database's.
pub fn owner(db: &Connection, model: &str) -> Result<Option<String>, StoreError> {
    Ok(db
        .prepare_cached(
            "SELECT json_extract(lineage, '$.project') FROM versions WHERE model = ?1 ORDER BY version LIMIT 1",
        )?
        .query_row([model], |row| row.get(0))
        .optional()?)
}

/// The project that made a version. `None` if there is no such version (any more).
///
/// # Errors
/// The database's.
pub fn made_in(db: &Connection, model: &str, version: u64) -> Result<Option<String>, StoreError> {
    Ok(db
        .prepare_cached("SELECT json_extract(lineage, '$.project') FROM versions WHERE model = ?1 AND version = ?2")?
        .query_row(params![model, version], |row| row.get(0))
        .optional()?)
}

/// Whether a project may have versions of this name: it is the owner's, or nobody's yet.
///
/// # Errors
/// The database's.
pub fn may_be_of(db: &Connection, model: &str, project: &str) -> Result<bool, StoreError> {
    Ok(owner(db, model)?.is_none_or(|owner| owner == project))
}

/// What is said to a project that asks for another one's name. Whose it is may be none of its business.
pub fn belongs_elsewhere(model: &str) -> String {
    format!("model `{model}` belongs to another project: give yours another name")
}

const COLUMNS: &str = "model, version, build, node, artifact, outputs, metrics, lineage, made_at";

fn row(row: &Row<'_>) -> rusqlite::Result<Result<VersionRow, StoreError>> {
    let [model, node, artifact, outputs, metrics, lineage]: [String; 6] =
        [row.get(0)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?];
    let (version, build, made_at): (u64, u64, i64) = (row.get(1)?, row.get(2)?, row.get(8)?);
    Ok((|| {
        Ok(VersionRow {
            model,
            version,
            build: BuildId(build),
            node: node.parse().map_err(|_| StoreError::Corrupt(format!("stage name `{node}`")))?,
            artifact,
            outputs,
            metrics: serde_json::from_str(&metrics)?,
            lineage: serde_json::from_str(&lineage)?,
            made_at: Micros(made_at),
        })
    })())
}

/// One version.
///
/// # Errors
/// [`StoreError::Missing`] if there is none.
pub fn version(db: &Connection, model: &str, version: u64) -> Result<VersionRow, StoreError> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM versions WHERE model = ?1 AND version = ?2"))?
        .query_row(params![model, version], row)
        .optional()?
        .ok_or_else(|| StoreError::Missing(no_version(model, version)))?
}

/// What is said of a version that there is not, or not for whoever asks.
pub fn no_version(model: &str, version: u64) -> String {
    format!("model `{model}` has no version {version}")
}

/// The newest versions of a model, at most `limit`.
///
/// # Errors
/// The database's.
pub fn versions(db: &Connection, model: &str, limit: usize) -> Result<Vec<VersionRow>, StoreError> {
    versions_before(db, model, None, limit)
}

/// The newest versions of a model before one, at most `limit`.
///
/// # Errors
/// The database's.
pub fn versions_before(
    db: &Connection,
    model: &str,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<VersionRow>, StoreError> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM versions WHERE model = ?1 AND version < ?2 ORDER BY version DESC LIMIT ?3"
    ))?;
    let rows = query.query_map(params![model, place(before), limit as i64], row)?;
    rows.map(|row| row?).collect()
}

/// A place in a list that goes down; without one, before all.
fn place(before: Option<u64>) -> i64 {
    before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX)
}

/// The names of all models, with their number of versions.
///
/// # Errors
/// The database's.
pub fn names(db: &Connection) -> Result<Vec<(String, u64)>, StoreError> {
    let mut query =
        db.prepare_cached("SELECT model, count(*) FROM versions GROUP BY model ORDER BY model LIMIT 1000")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.map(|row| Ok(row?)).collect()
}

/// The champion's version, if there is one.
///
/// # Errors
/// The database's.
pub fn champion(db: &Connection, model: &str) -> Result<Option<u64>, StoreError> {
    Ok(db
        .prepare_cached("SELECT version FROM aliases WHERE model = ?1 AND alias = 'champion'")?
        .query_row([model], |row| row.get(0))
        .optional()?)
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Promotion {
    /// The model.
    pub model: String,
    /// The version that was judged.
    pub candidate: u64,
    /// The champion at that time.
    pub champion: Option<u64>,
    /// `promoted`, `held`, `rejected`, `inconclusive`, `unchanged`, `error`, `rolled-back`.
    pub verdict: String,
    /// Who decided: `pipeline`, or a person.
    pub actor: String,
    /// The stage that judged.
    pub stage: Option<(BuildId, NodeKey)>,
    /// The whole judgement.
    pub evidence: serde_json::Value,
    /// When.
    pub at: Micros,
}

impl Promotion {
    /// The version that it is about.
    pub fn about(&self) -> u64 {
        about(&self.verdict, self.candidate, self.champion)
    }
}

/// The version that a decision is about: the candidate, but of a rollback the one that had to go for it.
pub fn about(verdict: &str, candidate: u64, champion: Option<u64>) -> u64 {
    champion.filter(|_| verdict == "rolled-back").unwrap_or(candidate)
}

/// Stores a decision; where the verdict is `promoted` or `rolled-back`, the candidate becomes champion. One transaction.
///
/// # Errors
/// [`StoreError::Conflict`] if the champion is no longer the one that was judged against: judge again.
pub fn decide(tx: &Connection, decision: &Promotion) -> Result<(), StoreError> {
    let now = champion(tx, &decision.model)?;
    if now != decision.champion {
        let name = |version: Option<u64>| version.map_or("none".to_owned(), |version| format!("version {version}"));
        return Err(StoreError::Conflict(format!(
            "the champion of `{}` changed from {} to {} meanwhile",
            decision.model,
            name(decision.champion),
            name(now)
        )));
    }
    let stage = decision.stage.as_ref();
    tx.prepare_cached(
        "INSERT INTO promotions (model, candidate, champion, verdict, actor, build, node, evidence, at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        decision.model,
        decision.candidate,
        decision.champion,
        decision.verdict,
        decision.actor,
        stage.map(|(build, _)| build.0),
        stage.map(|(_, node)| node.to_string()),
        serde_json::to_string(&decision.evidence)?,
        decision.at.0
    ])?;
    if decision.verdict == "promoted" || decision.verdict == "rolled-back" {
        tx.prepare_cached(
            "INSERT INTO aliases (model, alias, version, since) VALUES (?1, 'champion', ?2, ?3) \
             ON CONFLICT (model, alias) DO UPDATE SET version = excluded.version, since = excluded.since",
        )?
        .execute(params![decision.model, decision.candidate, decision.at.0])?;
    }
    Ok(())
}

const DECISION: &str = "model, candidate, champion, verdict, actor, build, node, evidence, at";

fn decision(row: &Row<'_>) -> rusqlite::Result<Result<Promotion, StoreError>> {
    let (candidate, champion): (u64, Option<u64>) = (row.get(1)?, row.get(2)?);
    let [model, verdict, actor, evidence]: [String; 4] = [row.get(0)?, row.get(3)?, row.get(4)?, row.get(7)?];
    let (build, node): (Option<u64>, Option<String>) = (row.get(5)?, row.get(6)?);
    let at: i64 = row.get(8)?;
    Ok((|| {
        let stage = match (build, node) {
            (Some(build), Some(node)) => {
                let node = node.parse().map_err(|_| StoreError::Corrupt(format!("stage name `{node}`")))?;
                Some((BuildId(build), node))
            }
            (Some(_), None) | (None, Some(_) | None) => None,
        };
        let evidence = serde_json::from_str(&evidence)?;
        Ok(Promotion { model, candidate, champion, verdict, actor, stage, evidence, at: Micros(at) })
    })())
}

/// The newest decisions about a model, at most `limit`.
///
/// # Errors
/// The database's.
pub fn history(db: &Connection, model: &str, limit: usize) -> Result<Vec<Promotion>, StoreError> {
    Ok(history_before(db, model, None, limit)?.into_iter().map(|(_, decision)| decision).collect())
}

/// The newest decisions about a model before one, at most `limit`, each with its number.
///
/// # Errors
/// The database's.
pub fn history_before(
    db: &Connection,
    model: &str,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<(u64, Promotion)>, StoreError> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {DECISION}, id FROM promotions WHERE model = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3"
    ))?;
    let rows = query.query_map(params![model, place(before), limit as i64], |row| Ok((row.get(9)?, decision(row)?)))?;
    rows.map(|row| {
        let (id, decision) = row?;
        Ok((id, decision?))
    })
    .collect()
}

/// The decision of a stage, if it made one: what tells a restarted build that its promotion has happened.
///
/// # Errors
/// The database's.
pub fn decision_of(db: &Connection, build: BuildId, node: &NodeKey) -> Result<Option<Promotion>, StoreError> {
    db.prepare_cached(&format!(
        "SELECT {DECISION} FROM promotions WHERE build = ?1 AND node = ?2 ORDER BY id DESC LIMIT 1"
    ))?
    .query_row(params![build.0, node.to_string()], decision)
    .optional()?
    .transpose()
}

/// The champion before the promotion by which this version became champion; `None` if there was none, or it never became it.
///
/// # Errors
/// The database's.
pub fn before(db: &Connection, model: &str, champion: u64) -> Result<Option<u64>, StoreError> {
    let found = db
        .prepare_cached(
            // The list of verdicts is that of the index of champions.
            "SELECT champion FROM promotions WHERE model = ?1 AND candidate = ?2 \
             AND verdict IN ('promoted', 'rolled-back') AND verdict = 'promoted' ORDER BY id DESC LIMIT 1",
        )?
        .query_row(params![model, champion], |row| row.get::<_, Option<u64>>(0))
        .optional()?;
    Ok(found.flatten())
}

/// The decision by which a person turned this very model (by its digest) down: rejected it, or rolled it back, and nobody made
/// it champion since. What took a failed deployment back is none.
///
/// # Errors
/// The database's.
pub fn turned_down(db: &Connection, model: &str, artifact: &str) -> Result<Option<Promotion>, StoreError> {
    let last = db
        .prepare_cached(&format!(
            "SELECT {DECISION} FROM promotions p WHERE model = ?1 \
             AND (verdict IN ('promoted', 'rolled-back') OR verdict = 'rejected' AND build IS NULL) AND EXISTS \
             (SELECT 1 FROM versions v WHERE v.model = ?1 AND v.artifact = ?2 AND v.version IN (p.candidate, CASE WHEN \
             p.verdict = 'rolled-back' AND p.build IS NULL AND json_extract(p.evidence, '$.deployment') IS NULL \
             THEN p.champion END)) ORDER BY id DESC LIMIT 1"
        ))?
        .query_row([model, artifact], decision)
        .optional()?
        .transpose()?;
    match last {
        Some(last) if last.verdict == "rejected" => Ok(Some(last)),
        // The one that came back is the candidate of a rollback.
        Some(last) if last.verdict == "rolled-back" => {
            Ok((version(db, model, last.candidate)?.artifact != artifact).then_some(last))
        }
        Some(_) | None => Ok(None),
    }
}

/// How many decisions were made on the same evaluation rows: judging again and again on one hold-out set is a way of
/// fooling oneself.
///
/// # Errors
/// The database's.
pub fn decisions_on_rows(db: &Connection, model: &str, rows_digest: &str) -> Result<u64, StoreError> {
    Ok(db
        .prepare_cached(
            "SELECT count(*) FROM (SELECT evidence FROM promotions WHERE model = ?1 ORDER BY id DESC LIMIT 500) \
             WHERE json_extract(evidence, '$.rows_digest') = ?2",
        )?
        .query_row([model, rows_digest], |row| row.get(0))?)
}

/// Takes the champion's place away, after the first promotion of a model could not be made true.
///
/// # Errors
/// The database's.
pub fn clear_champion(tx: &Connection, model: &str) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM aliases WHERE model = ?1 AND alias = 'champion'")?.execute([model])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::Store;

    /// What two runs of the quickstart left.
    const ROWS: &str = include_str!("../../tests/fixtures/store/first-schema.sql");

    #[tokio::test]
    async fn only_the_project_of_the_oldest_version_adds_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(&folder.path().join("s.db")).expect("opens"));
        // The rows bring the data folder's name along.
        let rows = store.write(|tx| {
            tx.execute("DELETE FROM meta WHERE name = 'instance'", [])?;
            Ok(tx.execute_batch(ROWS)?)
        });
        rows.await.expect("written");
        let row = store.read(|db| version(db, "quickstart", 2)).await.expect("read");
        let add = |model: &str, project: &str| {
            let new = NewVersion {
                model: model.to_owned(),
                build: row.build,
                node: row.node.clone(),
                artifact: row.artifact.clone(),
                outputs: row.outputs.clone(),
                metrics: row.metrics.clone(),
                lineage: Lineage { project: project.to_owned(), ..row.lineage.clone() },
            };
            store.write(move |tx| register(tx, &new, Micros(1)))
        };
        let Err(StoreError::Conflict(why)) = add("quickstart", "secret-project").await else { panic!("it is refused") };
        assert_eq!(why, "model `quickstart` belongs to another project: give yours another name");
        assert_eq!(add("quickstart", "quickstart").await.expect("its own"), 3);
        assert_eq!(add("free", "secret-project").await.expect("nobody's"), 1);
        assert_eq!(store.read(|db| owner(db, "free")).await.expect("read").as_deref(), Some("secret-project"));
    }
}
