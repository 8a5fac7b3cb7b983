//! `orchestrator plan`: what a run would do, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::broadcast;

use super::args::PlanArgs;
use super::exit::{self, Usage};
use super::run::{Asked, load, make_request};
use super::{data, text};
use crate::engine::begin::{self, Reusable};
use crate::engine::drive::Build;
use crate::engine::environment::Secrets;
use crate::engine::{EngineError, foreseen, notice, submit};
use crate::ids::{BuildId, NodeKey};
use crate::pipeline::types::WhenStatus;

#[derive(Serialize)]
struct Planned {
    stage: NodeKey,
    kind: &'static str,
    needs: Vec<NodeKey>,
    runner: String,
    #[serde(skip_serializing_if = "indexmap::IndexMap::is_empty")]
    matrix: indexmap::IndexMap<String, String>,
    action: &'static str,
    why: String,
}

/// Plans.
///
/// # Errors
/// As `run`, without running anything.
pub async fn run(data: Option<&Path>, args: PlanArgs) -> anyhow::Result<i32> {
    let loaded = load(&args.file)?;
    let unset = super::run::unset_secrets(&loaded.pipeline);
    let engine = data::open(data).await?;
    let asked = Asked {
        params: &args.param,
        stages: &args.stage,
        from: args.from.as_deref(),
        runner: args.runner.as_deref(),
        reuse: !args.no_reuse,
        keep: false,
        source: args.source.as_deref(),
    };
    let request = make_request(&engine, loaded, &asked).await?;
    let expanded = submit::expand(&request).map_err(|error| match error {
        EngineError::Pipeline(text) => anyhow::Error::from(Usage(text)),
        other => other.into(),
    })?;
    let reasons = foreseen::reasons(&engine, &request, &expanded).await?;
    let notices = broadcast::channel(notice::CAPACITY).0;
    let build = Arc::new(Build::new(engine, (BuildId(0), request), expanded, Secrets::default(), notices));
    let planned = explain(&build).await?;
    if args.json {
        data::print_json(&planned)?;
    } else {
        print(&planned);
    }
    if !unset.is_empty() {
        let names = unset.join(", ");
        text::remark(&format!(
            "`run` wants a value for {names}: by the environment, where there is none now, or --secret-file"
        ));
    }
    for reason in &reasons {
        text::error(&format!("it could not pass: {reason}"));
    }
    Ok(if reasons.is_empty() { exit::PASSED } else { exit::FAILED })
}

fn print(planned: &[Planned]) {
    let mut table = vec![["STAGE", "KIND", "NEEDS", "RUNNER", "", ""].map(str::to_owned).to_vec()];
    for row in planned {
        let style = match row.action {
            "run" => text::BOLD,
            "reuse" => text::GOOD,
            _ => text::DIM,
        };
        let needs: Vec<String> = row.needs.iter().map(NodeKey::to_string).collect();
        table.push(vec![
            row.stage.to_string(),
            row.kind.to_owned(),
            text::one_line(&needs.join(", "), 40),
            row.runner.clone(),
            text::paint(style, row.action),
            text::paint(text::DIM, text::one_line(&row.why, 100)),
        ]);
    }
    anstream::print!("{}", text::table(&table));
}

/// What would happen to each node. A node behind one that runs is not looked up: its inputs are not known yet.
async fn explain(build: &Arc<Build>) -> anyhow::Result<Vec<Planned>> {
    let plan = &build.expanded.plan;
    let mut unknown: BTreeSet<usize> = BTreeSet::new();
    let mut skipped: BTreeSet<usize> = BTreeSet::new();
    let mut outputs: BTreeMap<usize, String> = BTreeMap::new();
    let mut planned = Vec::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let (action, why) = if let Some(reason) = &node.skip {
            skipped.insert(index);
            ("skip", reason.clone())
        } else if let Some(need) = node.needs.iter().find(|need| skipped.contains(need))
            && node.stage.when.status == WhenStatus::Success
        {
            skipped.insert(index);
            ("skip", format!("it needs `{}`, which is skipped", plan.nodes[*need].key))
        } else {
            let before = plan.ancestors(index);
            let after = before.iter().find(|other| unknown.contains(other));
            let answer = match after {
                Some(other) if node.stage.reusable() => {
                    Reusable::No(format!("depends on what `{}` makes", plan.nodes[*other].key))
                }
                _ => {
                    let known =
                        before.iter().filter_map(|at| Some((plan.nodes[*at].key.clone(), outputs.get(at)?.clone())));
                    begin::look_up(build, index, &known.collect::<Vec<_>>()).await?
                }
            };
            match answer {
                Reusable::Yes(result) => {
                    let from = result.made_by;
                    outputs.insert(index, result.outputs);
                    ("reuse", format!("result of build {from}"))
                }
                Reusable::No(why) => {
                    unknown.insert(index);
                    ("run", why)
                }
            }
        };
        planned.push(Planned {
            stage: node.key.clone(),
            kind: node.stage.kind.word(),
            needs: node.needs.iter().map(|need| plan.nodes[*need].key.clone()).collect(),
            runner: begin::runner_name(build, index),
            matrix: node.matrix.clone(),
            action,
            why,
        });
    }
    Ok(planned)
}
