//! How a project's stages have been of late: how often they fail, which are flaky, how long they take. PURE.

use std::time::Duration;

use crate::ids::BuildId;
use crate::plot::{Point, Row, Scale};
use crate::store::glance::Tried;
use crate::words;

/// A stage over the last builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageLately {
    /// Its key.
    pub node: String,
    /// Builds in which it ran.
    pub runs: usize,
    /// Builds in which its last attempt failed.
    pub failed: usize,
    /// Builds in which it ended well, but not at its first attempt: the same files, another result.
    pub flaky: usize,
    /// Its usual time: the median of those that ended well.
    pub usual: Option<Duration>,
}

/// The attempts of a build, in order of stage and number.
pub type OfBuild = (BuildId, Vec<Tried>);

fn took(one: &Tried) -> Option<Duration> {
    one.ended_at.map(|end| Duration::from_micros(end.0.saturating_sub(one.started_at.0).max(0).unsigned_abs()))
}

/// The attempts of one stage in each build that it ran in.
fn of_stage<'a>(builds: &'a [OfBuild], node: &'a str) -> impl Iterator<Item = (BuildId, Vec<&'a Tried>)> {
    let tries = move |(id, all): &'a OfBuild| (*id, all.iter().filter(|one| one.node == node).collect::<Vec<_>>());
    builds.iter().map(tries).filter(|(_, tries)| !tries.is_empty())
}

fn is(one: &Tried, result: &str) -> bool {
    one.result.as_deref() == Some(result)
}

/// All stages of these builds: those that are in the newest in its order, then the others by name.
pub fn lately(builds: &[OfBuild], order: &[String]) -> Vec<StageLately> {
    let mut nodes: Vec<&str> = builds.iter().flat_map(|(_, all)| all).map(|one| one.node.as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.sort_by_key(|node| order.iter().position(|other| other == node).unwrap_or(usize::MAX));
    let stage = |node: &str| {
        let runs: Vec<Vec<&Tried>> = of_stage(builds, node).map(|(_, tries)| tries).collect();
        let last =
            |result: &'static str| runs.iter().filter(move |tries| tries.last().is_some_and(|one| is(one, result)));
        let failed_before = |tries: &&Vec<&Tried>| tries.iter().any(|one| is(one, "failed"));
        let mut times: Vec<Duration> = last("succeeded").filter_map(|tries| took(tries.last()?)).collect();
        times.sort_unstable();
        StageLately {
            node: node.to_owned(),
            runs: runs.len(),
            failed: last("failed").count(),
            flaky: last("succeeded").filter(failed_before).count(),
            usual: times.get(times.len() / 2).copied(),
        }
    };
    nodes.into_iter().map(stage).collect()
}

/// How long a stage took in these builds, the oldest first.
pub fn durations(builds: &[OfBuild], node: &str) -> Option<Row> {
    let mut all: Vec<(BuildId, &Tried, Duration)> = of_stage(builds, node)
        .filter_map(|(id, tries)| tries.last().and_then(|one| Some((id, *one, took(one)?))))
        .collect();
    all.sort_by_key(|(id, _, _)| *id);
    let (first, last) = (all.first()?, all.last()?);
    let point = |(id, one, took): &(BuildId, &Tried, Duration)| {
        let (shape, word) = match one.result.as_deref() {
            Some("succeeded") => ("passed", "passed"),
            Some("failed") => ("failed", "failed"),
            Some(_) | None => ("cancelled", "cut short"),
        };
        Point {
            value: took.as_secs_f64(),
            shape,
            joined: shape == "passed",
            title: format!("{id} {word}, {}", words::duration(*took)),
            link: format!("/builds/{}/stages/{node}", id.0),
        }
    };
    Some(Row {
        label: format!("Durations of {node} in {} builds, the newest {}", all.len(), words::duration(last.2)),
        points: all.iter().map(point).collect(),
        scale: Scale::FromZero,
        number: |seconds| words::duration(Duration::from_secs_f64(seconds.max(0.0))),
        ends: (first.0.to_string(), last.0.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Micros;

    fn one(node: &str, attempt: u32, result: &str, seconds: i64) -> Tried {
        Tried {
            node: node.to_owned(),
            attempt,
            result: Some(result.to_owned()).filter(|text| !text.is_empty()),
            started_at: Micros(1_000_000),
            ended_at: (!result.is_empty()).then(|| Micros(1_000_000 + seconds * 1_000_000)),
        }
    }

    #[test]
    fn flaky_is_what_ended_well_after_a_failure() {
        let builds = [
            (BuildId(4), vec![one("test", 1, "", 0)]),
            (
                BuildId(3),
                vec![one("test", 1, "failed", 9), one("test", 2, "succeeded", 2), one("train", 1, "failed", 1)],
            ),
            (BuildId(2), vec![one("test", 1, "interrupted", 9), one("test", 2, "succeeded", 4)]),
            (BuildId(1), vec![one("test", 1, "succeeded", 3), one("train", 1, "succeeded", 5)]),
        ];
        let found = lately(&builds, &[]);
        let ordered = lately(&builds, &["train".to_owned(), "test".to_owned()]);
        assert_eq!(ordered.iter().map(|stage| stage.node.as_str()).collect::<Vec<_>>(), ["train", "test"]);
        let test =
            StageLately { node: "test".to_owned(), runs: 4, failed: 0, flaky: 1, usual: Some(Duration::from_secs(3)) };
        let train =
            StageLately { node: "train".to_owned(), runs: 2, failed: 1, flaky: 0, usual: Some(Duration::from_secs(5)) };
        assert_eq!(found, [test, train]);

        let chart = durations(&builds, "test").expect("it ran");
        let values: Vec<f64> = chart.points.iter().map(|point| point.value).collect();
        assert_eq!(values, [3.0, 4.0, 2.0], "the oldest first; what goes on is not there");
        assert!(durations(&builds, "nothing").is_none());
    }
}
