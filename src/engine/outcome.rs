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
