//! Reads what a build came to.

use std::sync::Arc;

use super::{Engine, EngineError};
use crate::ids::BuildId;
use crate::report::{BuildReport, Champion, StageReport, Telling};
use crate::store::{StoreError, Tx, attempts, builds, models, outbox, results};

/// A build with everything below it.
///
/// # Errors
/// The database's.
pub async fn collect(engine: &Arc<Engine>, id: BuildId) -> Result<BuildReport, EngineError> {
    Ok(engine.store.read(move |db| of_build(db, id)).await?)
}

/// As [`collect`], of one moment together with whatever else is read.
///
/// # Errors
/// The database's.
pub fn of_build(db: &Tx, id: BuildId) -> Result<BuildReport, StoreError> {
    let build = builds::get(db, id)?;
    let mut stages = Vec::new();
    for row in builds::stages(db, id)? {
        let attempts = attempts::of_stage(db, id, &row.node)?;
        let result = results::of_stage(db, id, &row.node)?;
        let (metrics, version) = result.map(|result| (result.metrics, result.version)).unwrap_or_default();
        stages.push(StageReport { row, attempts, metrics, version });
    }
    let champion = champion(db, &stages)?;
    let reports = outbox::of_build(db, id)?.into_iter().map(Telling::of).collect();
    Ok(BuildReport { build, stages, champion, reports })
}

fn champion(db: &Tx, stages: &[StageReport]) -> Result<Option<Champion>, StoreError> {
    let judged = stages.iter().find_map(|stage| stage.found("judgement"));
    let model = judged.and_then(|judged| judged.get("model")?.as_str());
    let version = judged.and_then(|judged| judged.get("champion")?.as_u64());
    let (Some(model), Some(version)) = (model, version) else { return Ok(None) };
    let metrics = models::version(db, model, version)?.metrics;
    Ok(Some(Champion { version, metrics }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a run of the quickstart left.
    const ROWS: &str = include_str!("../../tests/fixtures/store/first-schema.sql");

    #[tokio::test]
    async fn what_stages_really_wrote_is_understood() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(crate::store::Store::open(&folder.path().join("s.db")).expect("opens"));
        // The rows bring the data folder's name along.
        let rows = store.write(|tx| {
            tx.execute("DELETE FROM meta WHERE name = 'instance'", [])?;
            Ok(tx.execute_batch(ROWS)?)
        });
        rows.await.expect("written");
        let report = store.read(|db| of_build(db, BuildId(2))).await.expect("read");
        let of = |kind: &str| report.stages.iter().find(|stage| stage.row.kind == kind).expect("a stage");
        assert_eq!(of("test-api").checks().map(|checks| checks.len()), Some(3));
        assert_eq!(of("loadtest").load().map(|load| load.verdict.word()), Some("passed"));
        let judged = of("promote").judged().expect("a judgement");
        assert_eq!((judged.outcome(), judged.judgement.champion), ("promoted", Some(1)));
        assert_eq!(report.champion.as_ref().map(|champion| champion.version), Some(1));

        let comment = crate::report::comment::of_build(&report, None, "https://ci.example.org/builds/2", None);
        for part in ["**Load test", "POST &#47;predict", "3 of 3 passed", "beside champion v1", "| better |"] {
            assert!(comment.contains(part), "{part}: {comment}");
        }
        let picture = crate::report::plot::of_build(&report).expect("a picture");
        assert!(picture.contains("POST /predict p95") && picture.contains(">0.1445<"), "{picture}");
    }
}
