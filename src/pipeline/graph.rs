//! The graph of stages: order, ancestors, cycles.

use indexmap::IndexMap;

use super::types::Pipeline;
use crate::ids::StageName;

/// Stages in an order in which each comes after all that it needs; otherwise in the order of the file.
///
/// A pipeline that was checked has no cycle; what would be in one is left out.
pub fn order(pipeline: &Pipeline) -> Vec<StageName> {
    let graph = of(pipeline);
    let order = graph.order();
    order.into_iter().filter_map(|index| pipeline.stages.get_index(index).map(|(name, _)| name.clone())).collect()
}

/// All stages that must have ended before this one, direct or not, in the order of [`order`].
pub fn ancestors(pipeline: &Pipeline, stage: &StageName) -> Vec<StageName> {
    let Some(index) = pipeline.stages.get_index_of(stage) else { return Vec::new() };
    let graph = of(pipeline);
    let before = graph.reachable(index, |graph, at| &graph.needs[at]);
    named(pipeline, &graph, &before)
}

/// All stages that wait for this one, direct or not, in the order of [`order`].
pub fn dependants(pipeline: &Pipeline, stage: &StageName) -> Vec<StageName> {
    let Some(index) = pipeline.stages.get_index_of(stage) else { return Vec::new() };
    let graph = of(pipeline);
    let after = graph.reachable(index, |graph, at| &graph.needed_by[at]);
    named(pipeline, &graph, &after)
}

fn named(pipeline: &Pipeline, graph: &Graph, chosen: &[bool]) -> Vec<StageName> {
    let order = graph.order().into_iter().filter(|index| chosen[*index]);
    order.filter_map(|index| pipeline.stages.get_index(index).map(|(name, _)| name.clone())).collect()
}

fn of(pipeline: &Pipeline) -> Graph {
    Graph::new(
        &pipeline
            .stages
            .iter()
            .map(|(name, stage)| (name.as_str(), stage.needs.iter().map(StageName::as_str).collect()))
            .collect(),
    )
}

/// Stages by index, in the order of the file.
#[derive(Debug)]
pub(crate) struct Graph {
    needs: Vec<Vec<usize>>,
    needed_by: Vec<Vec<usize>>,
}

impl Graph {
    /// What is needed and not there is left out.
    pub(crate) fn new(stages: &IndexMap<&str, Vec<&str>>) -> Self {
        let needs: Vec<Vec<usize>> = stages
            .values()
            .map(|needs| {
                let mut found: Vec<usize> = needs.iter().filter_map(|name| stages.get_index_of(name)).collect();
                found.sort_unstable();
                found.dedup();
                found
            })
            .collect();
        let mut needed_by = vec![Vec::new(); needs.len()];
        for (stage, before) in needs.iter().enumerate() {
            for other in before {
                needed_by[*other].push(stage);
            }
        }
        Self { needs, needed_by }
    }

    /// All stages that are not in a cycle nor behind one, each after what it needs.
    pub(crate) fn order(&self) -> Vec<usize> {
        let mut waiting: Vec<usize> = self.needs.iter().map(Vec::len).collect();
        // The smallest index first keeps the order of the file where there is a choice.
        let mut ready: std::collections::BTreeSet<usize> =
            (0..waiting.len()).filter(|stage| waiting[*stage] == 0).collect();
        let mut order = Vec::with_capacity(waiting.len());
        while let Some(stage) = ready.pop_first() {
            order.push(stage);
            for after in &self.needed_by[stage] {
                waiting[*after] -= 1;
                if waiting[*after] == 0 {
                    ready.insert(*after);
                }
            }
        }
        order
    }

    /// A cycle, if there is one: each needs the next, the last needs the first.
    pub(crate) fn cycle(&self) -> Option<Vec<usize>> {
        let mut settled = vec![false; self.needs.len()];
        for stage in self.order() {
            settled[stage] = true;
        }
        let first = settled.iter().position(|done| !done)?;
        // Every stage that is not settled needs another such, so a walk along them comes round.
        let mut path: Vec<usize> = vec![first];
        loop {
            let last = *path.last()?;
            let next = *self.needs[last].iter().find(|stage| !settled[**stage])?;
            if let Some(start) = path.iter().position(|stage| *stage == next) {
                let mut cycle = path.split_off(start);
                let smallest = cycle.iter().enumerate().min_by_key(|(_, stage)| **stage).map_or(0, |(at, _)| at);
                cycle.rotate_left(smallest);
                return Some(cycle);
            }
            path.push(next);
        }
    }

    /// Which stages come before this one.
    pub(crate) fn before(&self, stage: usize) -> Vec<bool> {
        self.reachable(stage, |graph, at| &graph.needs[at])
    }

    fn reachable(&self, from: usize, next: impl Fn(&Self, usize) -> &[usize]) -> Vec<bool> {
        let mut seen = vec![false; self.needs.len()];
        let mut todo = next(self, from).to_vec();
        while let Some(at) = todo.pop() {
            if !std::mem::replace(&mut seen[at], true) {
                todo.extend(next(self, at));
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(lines: &[(&'static str, &[&'static str])]) -> Graph {
        Graph::new(&lines.iter().map(|(name, needs)| (*name, needs.to_vec())).collect())
    }

    #[test]
    fn order_keeps_the_files_order_where_it_can() {
        let found = graph(&[("c", &["a"]), ("b", &[]), ("a", &[])]);
        assert_eq!(found.order(), [1, 2, 0]);
        assert_eq!(found.cycle(), None);
        assert_eq!(found.before(0), [false, false, true]);
    }

    #[test]
    fn cycles_are_named_without_what_hangs_on_them() {
        let found = graph(&[("x", &["c"]), ("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("free", &[])]);
        assert_eq!(found.cycle(), Some(vec![1, 2, 3]));
        assert_eq!(found.order(), [4]);
        assert_eq!(graph(&[("a", &["a"])]).cycle(), Some(vec![0]));
    }
}
