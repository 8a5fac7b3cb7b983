//! Which stages run again when a person asks for it.

use std::collections::BTreeSet;

use super::plan::Plan;
use super::status::{BuildState, StageStatus};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// What did not end well, and what stands behind it. The rest stays as it is.
    Failed,
    /// Every stage.
    All,
    /// These stages (all cells of a matrix) or nodes, and what stands behind them.
    Stages(Vec<String>),
}

/// The nodes that run again, in the plan's order.
///
/// # Errors
/// Why there is nothing to run, for people.
pub fn chosen(plan: &Plan, state: &BuildState, which: &Which) -> Result<Vec<usize>, String> {
    let all = 0..plan.nodes.len();
    let first: BTreeSet<usize> = match which {
        Which::All => return Ok(all.collect()),
        Which::Failed => all.filter(|&node| did_not_end_well(plan, state, node)).collect(),
        Which::Stages(names) => {
            let mut found = BTreeSet::new();
            for name in names {
                let key = |node: &usize| plan.nodes[*node].key.to_string();
                let of_name =
                    all.clone().filter(|node| plan.nodes[*node].key.stage.as_str() == name || key(node) == *name);
                let before = found.len();
                found.extend(of_name);
                if found.len() == before && !plan.nodes.iter().any(|node| node.key.to_string() == *name) {
                    return Err(format!("the build has no stage `{name}`"));
                }
            }
            found
        }
    };
    if first.is_empty() {
        return Err("every stage ended well; name the stages that are to run again, or ask for all".to_owned());
    }
    let behind = |node: usize| plan.ancestors(node).iter().any(|before| first.contains(before));
    Ok((0..plan.nodes.len()).filter(|&node| first.contains(&node) || behind(node)).collect())
}

/// Failed (allowed or not), cancelled, or not run because of another stage. One that the plan itself leaves out is no failure.
fn did_not_end_well(plan: &Plan, state: &BuildState, node: usize) -> bool {
    match &state.stages[node] {
        StageStatus::Failed { .. } | StageStatus::Cancelled { .. } => true,
        StageStatus::Skipped { .. } => {
            plan.nodes[node].skip.is_none()
                && plan.ancestors(node).into_iter().any(|before| {
                    matches!(state.stages[before], StageStatus::Failed { .. } | StageStatus::Cancelled { .. })
                })
        }
        StageStatus::Waiting
        | StageStatus::Again { .. }
        | StageStatus::Running { .. }
        | StageStatus::Delayed { .. }
        | StageStatus::Succeeded { .. }
        | StageStatus::Reused { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::plan::fixtures::chain;
    use crate::build::status::{BuildStatus, Failure, FailureKind};

    fn check(which: &Which, failed: Option<usize>, expected: Result<&[usize], &str>) {
        let plan = chain(&[("a", &[]), ("b", &[0]), ("c", &[1]), ("d", &[0])]);
        let mut state = BuildState::new(4);
        state.status = BuildStatus::Failed;
        state.stages = vec![StageStatus::Succeeded { attempt: 1 }; 4];
        if let Some(node) = failed {
            state.stages[node] =
                StageStatus::Failed { attempt: 1, failure: Failure::new(FailureKind::Exit, "exit code 1") };
        }
        let found = chosen(&plan, &state, which);
        match expected {
            Ok(nodes) => assert_eq!(found.as_deref(), Ok(nodes)),
            Err(part) => assert!(found.as_ref().is_err_and(|why| why.contains(part)), "{found:?}"),
        }
    }

    #[test]
    fn what_runs_again() {
        check(&Which::Failed, Some(1), Ok(&[1, 2]));
        check(&Which::Failed, None, Err("ended well"));
        check(&Which::All, None, Ok(&[0, 1, 2, 3]));
        check(&Which::Stages(vec!["d".to_owned()]), None, Ok(&[3]));
        check(&Which::Stages(vec!["a".to_owned()]), None, Ok(&[0, 1, 2, 3]));
        check(&Which::Stages(vec!["x".to_owned()]), None, Err("no stage `x`"));
    }
}
