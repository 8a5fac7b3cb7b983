//! Which waiting builds begin now, and what the others wait for.
//!
//! ```text
//! waiting, running, limits --admit--> for each waiting build: it begins, or one reason why not
//! ```
//!
//! Higher priority goes first. Among equals the project with the fewest builds under way goes first, so that one busy project
//! does not starve the others; within a project the order is the one of arrival, or the one that a person gave.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::BuildId;

/// A build that has not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its number.
    pub id: BuildId,
    /// Its project.
    pub project: String,
    /// Its concurrency group within the project: one build of it at a time.
    pub group: Option<String>,
    /// Greater goes first.
    pub priority: i64,
    /// Place within the project: smaller goes first. The build's number, unless a person moved it.
    pub place: i64,
    /// Held until a person agrees.
    pub awaits_approval: bool,
}

/// A build that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its number.
    pub id: BuildId,
    /// Its project.
    pub project: String,
    /// Its concurrency group.
    pub group: Option<String>,
}

/// What is allowed at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Builds under way in all; `None` for no limit.
    pub builds: Option<usize>,
    /// Builds under way of a project; a project that is not here has no limit.
    pub projects: BTreeMap<String, usize>,
    /// The queue hands out nothing: why, for people.
    pub paused: Option<String>,
}

/// What keeps a build from beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "waits_for", rename_all = "kebab-case")]
pub enum WaitsFor {
    /// A person's agreement.
    Approval,
    /// The queue to be resumed.
    Paused {
        /// Why it is paused.
        reason: String,
    },
    /// Another build of its concurrency group.
    Group {
        /// The group.
        group: String,
        /// The build that goes first.
        build: BuildId,
    },
    /// The project's limit.
    Project {
        /// Builds of the project at once.
        limit: usize,
        /// Those under way.
        running: Vec<BuildId>,
    },
    /// The limit of this daemon.
    Builds {
        /// Builds at once.
        limit: usize,
        /// Builds that go before this one.
        ahead: usize,
    },
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitsFor::Approval => f.write_str("a person's approval"),
            WaitsFor::Paused { reason } => write!(f, "the queue to be resumed: {reason}"),
            WaitsFor::Group { group, build } => write!(f, "build {build}, which goes first in group `{group}`"),
            WaitsFor::Project { limit, running } => {
                write!(f, "the project's limit: {} of {limit} builds under way ({})", running.len(), listed(running))
            }
            WaitsFor::Builds { limit, ahead: 0 } => write!(f, "one of {limit} builds under way to end"),
            WaitsFor::Builds { limit, ahead } => {
                write!(f, "one of {limit} builds under way to end, and {ahead} that go first")
            }
        }
    }
}

/// The first few numbers, and how many more.
fn listed(builds: &[BuildId]) -> String {
    const SHOWN: usize = 5;
    let mut text: Vec<String> = builds.iter().take(SHOWN).map(BuildId::to_string).collect();
    if builds.len() > SHOWN {
        text.push(format!("{} more", builds.len() - SHOWN));
    }
    text.join(", ")
}

/// For each waiting build, in the order in which they would begin: `None` if it begins now, else what it waits for.
pub fn admit(waiting: &[Waiting], running: &[Running], limits: &Limits) -> Vec<(BuildId, Option<WaitsFor>)> {
    let mut under_way = UnderWay::of(running);
    let mut verdicts = Vec::with_capacity(waiting.len());
    let mut ahead = 0;
    for build in in_turn(waiting, &under_way) {
        let why = under_way.why_not(build, limits, ahead);
        match &why {
            None => under_way.add(build.id, &build.project, build.group.as_deref()),
            // Who waits for the group's turn takes its place in the group, so that those behind wait for it, not for its holder.
            Some(WaitsFor::Approval) => {}
            Some(_) => {
                under_way.claim(build);
                ahead += 1;
            }
        }
        verdicts.push((build.id, why));
    }
    verdicts
}

struct UnderWay<'a> {
    count: usize,
    projects: BTreeMap<&'a str, Vec<BuildId>>,
    groups: BTreeMap<(&'a str, &'a str), BuildId>,
}

impl<'a> UnderWay<'a> {
    fn of(running: &'a [Running]) -> Self {
        let mut all = Self { count: 0, projects: BTreeMap::new(), groups: BTreeMap::new() };
        for build in running {
            all.add(build.id, &build.project, build.group.as_deref());
        }
        all
    }

    fn add(&mut self, id: BuildId, project: &'a str, group: Option<&'a str>) {
        self.count += 1;
        self.projects.entry(project).or_default().push(id);
        if let Some(group) = group {
            self.groups.insert((project, group), id);
        }
    }

    fn claim(&mut self, build: &'a Waiting) {
        if let Some(group) = &build.group {
            self.groups.entry((&build.project, group)).or_insert(build.id);
        }
    }

    fn why_not(&self, build: &Waiting, limits: &Limits, ahead: usize) -> Option<WaitsFor> {
        if build.awaits_approval {
            return Some(WaitsFor::Approval);
        }
        if let Some(reason) = &limits.paused {
            return Some(WaitsFor::Paused { reason: reason.clone() });
        }
        if let Some(group) = &build.group
            && let Some(&first) = self.groups.get(&(build.project.as_str(), group.as_str()))
        {
            return Some(WaitsFor::Group { group: group.clone(), build: first });
        }
        let running = self.projects.get(build.project.as_str());
        if let Some(&limit) = limits.projects.get(&build.project)
            && let Some(running) = running
            && running.len() >= limit
        {
            return Some(WaitsFor::Project { limit, running: running.clone() });
        }
        limits.builds.filter(|&limit| self.count >= limit).map(|limit| WaitsFor::Builds { limit, ahead })
    }
}

/// The order in which they would begin if each were let in: the fairness between projects is kept while they are counted.
fn in_turn<'a>(waiting: &'a [Waiting], under_way: &UnderWay<'_>) -> Vec<&'a Waiting> {
    // Per project a line of its own, by priority and place; the heads of the lines compete.
    let mut lines: BTreeMap<&str, Vec<&Waiting>> = BTreeMap::new();
    for build in waiting {
        lines.entry(&build.project).or_default().push(build);
    }
    let mut heads = std::collections::BinaryHeap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (project, line) in &mut lines {
        // Taken from the back.
        line.sort_by_key(|build| (build.priority, std::cmp::Reverse((build.place, build.id))));
        counts.insert(project, under_way.projects.get(project).map_or(0, Vec::len));
        if let Some(head) = line.pop() {
            heads.push(Head::new(head, counts[project]));
        }
    }
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(Head { build, .. }) = heads.pop() {
        order.push(build);
        let project = build.project.as_str();
        let count = counts.entry(project).or_default();
        *count += 1;
        if let Some(next) = lines.get_mut(project).and_then(Vec::pop) {
            heads.push(Head::new(next, *count));
        }
    }
    order
}

/// The first of a project's line. The greatest goes first.
struct Head<'a> {
    build: &'a Waiting,
    rank: (i64, std::cmp::Reverse<usize>, std::cmp::Reverse<(i64, BuildId)>),
}

impl<'a> Head<'a> {
    fn new(build: &'a Waiting, under_way: usize) -> Self {
        let rank = (build.priority, std::cmp::Reverse(under_way), std::cmp::Reverse((build.place, build.id)));
        Self { build, rank }
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Head<'_> {}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(id: u64, project: &str) -> Waiting {
        let project = project.to_owned();
        Waiting { id: BuildId(id), project, group: None, priority: 0, place: id as i64, awaits_approval: false }
    }

    fn running(id: u64, project: &str, group: Option<&str>) -> Running {
        Running { id: BuildId(id), project: project.to_owned(), group: group.map(str::to_owned) }
    }

    fn begun(waiting: &[Waiting], running: &[Running], limits: &Limits) -> Vec<u64> {
        let verdicts = admit(waiting, running, limits);
        verdicts.into_iter().filter(|(_, why)| why.is_none()).map(|(id, _)| id.0).collect()
    }

    fn at_most(builds: usize) -> Limits {
        Limits { builds: Some(builds), ..Limits::default() }
    }

    #[test]
    fn a_busy_project_does_not_starve_the_others() {
        let queue: Vec<Waiting> = (1..=10).map(|id| waiting(id, "busy")).chain([waiting(11, "calm")]).collect();
        assert_eq!(begun(&queue, &[running(0, "busy", None)], &at_most(3)), [11, 1]);
        assert_eq!(begun(&queue, &[], &at_most(4)), [1, 11, 2, 3]);
    }

    #[test]
    fn priority_then_place_then_number() {
        let mut queue: Vec<Waiting> = (1..=4).map(|id| waiting(id, "a")).collect();
        queue[3].priority = 5;
        queue[2].place = 0;
        assert_eq!(begun(&queue, &[], &Limits::default()), [4, 3, 1, 2]);
    }

    #[test]
    fn a_group_runs_one_at_a_time_in_order() {
        let mut queue: Vec<Waiting> = (1..=3).map(|id| waiting(id, "a")).collect();
        for build in &mut queue {
            build.group = Some("main".to_owned());
        }
        let verdicts = admit(&queue, &[], &Limits::default());
        let group = |build| Some(WaitsFor::Group { group: "main".to_owned(), build: BuildId(build) });
        assert_eq!(verdicts, [(BuildId(1), None), (BuildId(2), group(1)), (BuildId(3), group(1))]);
        // Nobody overtakes within a group, even where the first has to wait for something else.
        let verdicts = admit(&queue, &[running(9, "b", None)], &at_most(1));
        assert_eq!(verdicts[1], (BuildId(2), group(1)));
        // Another project's group of that name is another group.
        assert_eq!(begun(&queue, &[running(9, "b", Some("main"))], &Limits::default()), [1]);
    }

    #[test]
    fn every_build_that_waits_says_for_what() {
        let check = |build: Waiting, running: &[Running], limits: &Limits, expected: &str| {
            let verdicts = admit(&[build], running, limits);
            assert_eq!(verdicts[0].1.as_ref().map(WaitsFor::to_string).as_deref(), Some(expected));
        };
        let busy = [running(41, "a", None), running(42, "a", Some("g"))];
        let held = Waiting { awaits_approval: true, ..waiting(50, "a") };
        let grouped = Waiting { group: Some("g".to_owned()), ..waiting(50, "a") };
        let paused = Limits { paused: Some("upgrade".to_owned()), ..Limits::default() };
        let project = Limits { projects: [("a".to_owned(), 2)].into(), ..Limits::default() };
        check(held, &busy, &project, "a person's approval");
        check(waiting(50, "a"), &busy, &paused, "the queue to be resumed: upgrade");
        check(grouped, &busy, &project, "build #42, which goes first in group `g`");
        check(waiting(50, "a"), &busy, &project, "the project's limit: 2 of 2 builds under way (#41, #42)");
        check(waiting(50, "b"), &busy, &at_most(2), "one of 2 builds under way to end");
    }

    #[test]
    fn one_who_awaits_approval_holds_nobody_up() {
        let mut queue = vec![waiting(1, "a"), waiting(2, "a")];
        queue[0].awaits_approval = true;
        queue[0].group = Some("g".to_owned());
        queue[1].group = Some("g".to_owned());
        assert_eq!(begun(&queue, &[], &at_most(1)), [2]);
    }

    proptest::proptest! {
        /// No limit is ever passed, and nothing that could begin waits.
        #[test]
        fn limits_hold_and_no_place_stays_empty(
            projects in proptest::collection::vec((0u8..3, 0u8..3, -1i64..2), 0..30),
            builds in 0usize..8,
            per_project in 1usize..4,
        ) {
            let queue: Vec<Waiting> = projects.iter().enumerate().map(|(id, (project, group, priority))| Waiting {
                priority: *priority,
                group: (*group > 0).then(|| group.to_string()),
                ..waiting(id as u64 + 1, &project.to_string())
            }).collect();
            let limits = Limits {
                builds: Some(builds),
                projects: (0..3).map(|project: u8| (project.to_string(), per_project)).collect(),
                paused: None,
            };
            let verdicts = admit(&queue, &[], &limits);
            proptest::prop_assert_eq!(verdicts.len(), queue.len());
            let begun: Vec<&Waiting> = verdicts.iter().filter(|(_, why)| why.is_none())
                .map(|(id, _)| queue.iter().find(|build| build.id == *id).unwrap()).collect();
            proptest::prop_assert!(begun.len() <= builds);
            for project in 0..3u8 {
                let project = project.to_string();
                let of_project: Vec<_> = begun.iter().filter(|build| build.project == project).collect();
                proptest::prop_assert!(of_project.len() <= per_project);
                let mut groups: Vec<_> = of_project.iter().filter_map(|build| build.group.as_deref()).collect();
                let all = groups.len();
                groups.sort_unstable();
                groups.dedup();
                proptest::prop_assert_eq!(groups.len(), all);
            }
            // A build waits for the whole only when the whole is full.
            let full = begun.len() == builds;
            let held_up = verdicts.iter().any(|(_, why)| matches!(why, Some(WaitsFor::Builds { .. })));
            proptest::prop_assert!(full || !held_up);
        }
    }
}
