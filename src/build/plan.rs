//! The expanded graph of one build: stages and matrix cells as nodes, with edges and reasons.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use crate::ids::{NodeKey, StageName};
use crate::pipeline::condition::{self, Facts};
use crate::pipeline::matrix::{self, Cell};
use crate::pipeline::params::Params;
use crate::pipeline::types::{Pipeline, Stage, When, WhenStatus};

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its key.
    pub key: NodeKey,
    /// The stage with everything substituted.
    pub stage: Stage,
    /// The cell's values; empty without a matrix.
    pub matrix: IndexMap<String, String>,
    /// Indices of the nodes that it needs directly, all smaller than its own.
    pub needs: Vec<usize>,
    /// Known before anything runs: it is skipped, and why.
    pub skip: Option<String>,
}

/// A build's nodes in an order in which every node stands behind all that it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// Which stages the caller wants.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Selection {
    /// `--stage`: only these and what they need; empty for all.
    #[serde(default)]
    pub only: Vec<String>,
    /// `--from`: this one and all behind it run anew; what stands before it is taken from earlier builds where it can be.
    #[serde(default)]
    pub from: Option<String>,
}

/// A selection that names no stage of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no stage `{name}`; the pipeline has {known}")]
pub struct UnknownStage {
    /// What was asked for.
    pub name: String,
    /// The pipeline's stages.
    pub known: String,
}

/// Expands a checked pipeline.
///
/// # Errors
/// [`UnknownStage`] if the selection names a stage that is not there.
pub fn plan(pipeline: &Pipeline, params: &Params, facts: &Facts, selection: &Selection) -> Result<Plan, UnknownStage> {
    let order = order(pipeline);
    let wanted = wanted(pipeline, selection)?;
    let mut nodes: Vec<Node> = Vec::new();
    for name in order {
        let stage = &pipeline.stages[&name];
        let needs: Vec<usize> =
            (0..nodes.len()).filter(|&index| stage.needs.contains(&nodes[index].key.stage)).collect();
        let skip = if wanted.contains(&name) {
            condition::holds(&stage.when, facts).err()
        } else {
            Some("not asked for".to_owned())
        };
        for cell in cells(stage) {
            let key = NodeKey { stage: name.clone(), cell: cell.as_ref().map(|cell| cell.slug.clone()) };
            nodes.push(Node {
                key,
                stage: matrix::for_cell(stage, cell.as_ref(), params),
                matrix: cell.map(|cell| cell.values).unwrap_or_default(),
                needs: needs.clone(),
                skip: skip.clone(),
            });
        }
    }
    Ok(Plan { nodes })
}

fn cells(stage: &Stage) -> Vec<Option<Cell>> {
    if stage.matrix.is_some() { matrix::cells(stage).into_iter().map(Some).collect() } else { vec![None] }
}

/// Stages behind what they need; the order written wherever that is free. Total for acyclic pipelines, which `check` grants;
/// stages in a cycle would be left out.
fn order(pipeline: &Pipeline) -> Vec<StageName> {
    let mut placed: Vec<StageName> = Vec::new();
    let mut left: Vec<&Stage> = pipeline.stages.values().collect();
    while let Some(at) = left.iter().position(|stage| stage.needs.iter().all(|need| placed.contains(need))) {
        placed.push(left.remove(at).name.clone());
    }
    placed
}

fn wanted(pipeline: &Pipeline, selection: &Selection) -> Result<BTreeSet<StageName>, UnknownStage> {
    let known = |name: &str| {
        pipeline.stages.keys().find(|stage| stage.as_str() == name).cloned().ok_or_else(|| UnknownStage {
            name: name.to_owned(),
            known: pipeline.stages.keys().map(|stage| format!("`{stage}`")).collect::<Vec<_>>().join(", "),
        })
    };
    if let Some(from) = &selection.from {
        known(from)?;
    }
    if selection.only.is_empty() {
        return Ok(pipeline.stages.keys().cloned().collect());
    }
    let mut wanted = BTreeSet::new();
    let mut open: Vec<StageName> = selection.only.iter().map(|name| known(name)).collect::<Result<_, _>>()?;
    while let Some(name) = open.pop() {
        if let Some(stage) = pipeline.stages.get(&name)
            && wanted.insert(name)
        {
            open.extend(stage.needs.iter().cloned());
        }
    }
    Ok(wanted)
}

impl Plan {
    /// The index of a node.
    pub fn index(&self, key: &NodeKey) -> Option<usize> {
        self.nodes.iter().position(|node| node.key == *key)
    }

    /// All nodes before this one, direct or not, in the plan's order.
    pub fn ancestors(&self, index: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open = self.nodes[index].needs.clone();
        while let Some(next) = open.pop() {
            if found.insert(next) {
                open.extend(&self.nodes[next].needs);
            }
        }
        found
    }

    /// Whether the node runs as a clean-up: it waits for the whole build when it names no `needs`.
    pub fn is_cleanup(&self, index: usize) -> bool {
        self.nodes[index].stage.when.status != WhenStatus::Success
    }

    /// What a node waits for: its needs; for a clean-up node without `needs` every node that neither is such a one nor stands
    /// behind one.
    pub fn waits_for(&self, index: usize) -> Vec<usize> {
        let last = |at: usize| self.is_cleanup(at) && self.nodes[at].needs.is_empty();
        if !last(index) {
            return self.nodes[index].needs.clone();
        }
        (0..self.nodes.len()).filter(|&other| !last(other) && !self.ancestors(other).into_iter().any(last)).collect()
    }

    /// Whether the node or one before it was named by `--from`, so that nothing is reused for it.
    pub fn is_from(&self, index: usize, selection: &Selection) -> bool {
        let named = |at: usize| selection.from.as_deref() == Some(self.nodes[at].key.stage.as_str());
        named(index) || self.ancestors(index).into_iter().any(named)
    }
}

/// Whether `when` has nothing in it.
pub fn is_unconditional(when: &When) -> bool {
    *when == When::default()
}

#[cfg(test)]
pub mod fixtures {
    //! Small plans for tests.

    use std::time::Duration;

    use super::*;
    use crate::pipeline::types::{Kind, Network, OnInterrupt, Resources, Retry};

    /// A stage that needs these nodes.
    pub fn stage(name: &str, needs: Vec<usize>) -> Node {
        let name = StageName::new(name).unwrap();
        let stage = Stage {
            name: name.clone(),
            needs: Vec::new(),
            image: None,
            work: None,
            kind: Kind::Plain,
            env: IndexMap::new(),
            secrets: Vec::new(),
            inputs: None,
            outputs: Vec::new(),
            cache: Vec::new(),
            services: IndexMap::new(),
            when: When::default(),
            matrix: None,
            retry: Retry::default(),
            timeout: Duration::from_secs(60),
            grace: Duration::from_secs(1),
            resources: Resources::default(),
            network: Network::Default,
            allow_failure: false,
            on_interrupt: OnInterrupt::Retry,
            runner: None,
            reuse: None,
        };
        Node { key: NodeKey { stage: name, cell: None }, stage, matrix: IndexMap::new(), needs, skip: None }
    }

    /// Stages by name, each needing others by index.
    pub fn chain(stages: &[(&str, &[usize])]) -> Plan {
        Plan { nodes: stages.iter().map(|(name, needs)| stage(name, needs.to_vec())).collect() }
    }
}
