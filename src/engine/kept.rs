//! Failed units that are left for a look (`run --keep`): which they are, and how to look at them. They stay until
//! `orchestrator gc`.

use super::attempt::{Attempt, unit_name};
use super::drive::Build;
use crate::build::status::Outcome;
use crate::ids::NodeKey;
use crate::pipeline::types::Kind;
use crate::runner::docker::WORKSPACE;
use crate::runner::spec::UnitName;
use crate::store::attempts::{self, AttemptRow};
use crate::store::builds::BuildRequest;
use crate::store::{StoreError, Tx, builds};

/// Whether an attempt's unit is left for a look.
pub fn is_kept(request: &BuildRequest, attempt: &AttemptRow) -> bool {
    request.keep && matches!(attempt.outcome, Some(Outcome::Failed { .. }))
}

/// As [`is_kept`], for what may not be there any more.
///
/// # Errors
/// The database's.
pub fn find(db: &Tx, build: crate::ids::BuildId, node: &NodeKey, attempt: u32) -> Result<bool, StoreError> {
    let Some(row) = attempts::find(db, build, node, attempt)? else { return Ok(false) };
    match builds::get(db, build) {
        Ok(build) => Ok(is_kept(&build.request, &row)),
        Err(StoreError::Missing(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The numbers of a stage's attempts whose units are left for a look.
///
/// # Errors
/// The database's.
pub async fn of_stage(build: &Build, node: usize) -> Result<Vec<u32>, StoreError> {
    if !build.request.keep {
        return Ok(Vec::new());
    }
    let (id, key) = (build.id, build.expanded.plan.nodes[node].key.clone());
    let rows = build.engine.store.read(move |db| attempts::of_stage(db, id, &key)).await?;
    Ok(rows.into_iter().filter(|row| is_kept(&build.request, row)).map(|row| row.attempt).collect())
}

/// How to look at the unit of an attempt that has just failed, and how to be rid of it.
pub fn how_to_look(attempt: &Attempt) -> String {
    let cx = &attempt.cx;
    let role = if matches!(cx.node().stage.kind, Kind::Promote(_)) { "score" } else { "stage" };
    let unit = unit_name(&cx.build, cx.node, cx.attempt, role);
    if attempt.runner == "local" {
        let workspace = cx.build.engine.runners.local_workspace(&unit);
        return format!("kept for a look: the workspace {}\n  remove it: orchestrator gc", workspace.display());
    }
    container(&unit)
}

fn container(unit: &UnitName) -> String {
    format!(
        "kept for a look: the container {unit}\n  \
         enter a copy of it:   docker run --rm -it --entrypoint sh $(docker commit {unit})\n  \
         run it again:         docker start -ai {unit}\n  \
         copy its workspace:   docker cp {unit}:{WORKSPACE} .\n  \
         remove it:            docker rm -v {unit} (or all that is kept: orchestrator gc)"
    )
}
