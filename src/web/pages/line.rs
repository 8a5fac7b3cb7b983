//! A build as one line of a list, and the strip of a project's last builds. PURE.

use std::time::Duration;

use super::mark::Mark;
use super::moment::{Moment, Span};
use crate::build::status::BuildStatus;
use crate::ids::Micros;
use crate::store::glance::Glance;
use crate::store::verdicts::Verdict;

/// A build in a list.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its number.
    pub id: u64,
    /// Whose.
    pub project: String,
    /// Its pipeline.
    pub pipeline: String,
    /// How it stands.
    pub mark: Mark,
    /// What it is of, in words: the commit's first line, or what stands for it.
    pub title: String,
    /// Branch, tag or pull request.
    pub of: String,
    /// The commit, short.
    pub commit: String,
    /// What happened.
    pub event: String,
    /// Who.
    pub actor: String,
    /// When it was accepted.
    pub created: Moment,
    /// How long it ran, or has been running.
    pub took: Option<Span>,
    /// What it decided about models: how, and which version.
    pub verdicts: Vec<(Mark, u64)>,
    /// A stage of it has failed although it goes on.
    pub failing: bool,
}

impl Line {
    /// A row as shown.
    pub fn of(row: &Glance, now: Micros) -> Self {
        Self {
            id: row.id.0,
            project: row.project.clone(),
            pipeline: row.pipeline.clone(),
            mark: Mark::build(row.status, row.awaits),
            title: row.title.clone().unwrap_or_else(|| untitled(row)),
            of: source(row.pull_request, row.tag.as_deref(), row.branch.as_deref()),
            commit: short(row.commit.as_deref()),
            event: row.event.replace('_', " "),
            actor: row.actor.clone(),
            created: Moment::of(row.created_at, now),
            took: row.started_at.map(|from| Span::of(from, row.ended_at, now)),
            verdicts: Vec::new(),
            failing: false,
        }
    }

    /// With what it decided about models; that nothing changed is no news.
    pub fn judged(self, verdicts: &[Verdict]) -> Self {
        let news = verdicts.iter().filter(|one| one.verdict != "unchanged");
        Self { verdicts: news.map(|one| (Mark::verdict(&one.verdict), one.version)).collect(), ..self }
    }
}

fn untitled(row: &Glance) -> String {
    match row.commit.as_deref() {
        Some(commit) => format!("commit {}", short(Some(commit))),
        None => row.event.replace('_', " "),
    }
}

/// The beginning of a commit's name.
pub fn short(commit: Option<&str>) -> String {
    commit.unwrap_or_default().chars().take(9).collect()
}

/// What was built: a pull request, a tag or a branch.
pub fn source(pull_request: Option<u64>, tag: Option<&str>, branch: Option<&str>) -> String {
    match (pull_request, tag, branch) {
        (Some(number), _, _) => format!("pull request {number}"),
        (None, Some(tag), _) => format!("tag {tag}"),
        (None, None, Some(branch)) => branch.to_owned(),
        (None, None, None) => "no branch".to_owned(),
    }
}

/// A bar of the strip.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// The build.
    pub id: u64,
    /// How it stands.
    pub shape: &'static str,
    /// Everything in words.
    pub title: String,
    /// From the left.
    pub x: u32,
    /// From the top.
    pub y: u32,
    /// How high: its duration beside the others'.
    pub height: u32,
}

/// Width of a bar with the gap behind it.
const STEP: u32 = 10;
/// Height of the highest bar; above is room for the cross of one that failed.
const HIGHEST: u32 = 32;
/// The cross's room.
const ABOVE: u32 = 8;

/// The last builds of a project as bars, the oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Strip {
    /// The bars.
    pub bars: Vec<Bar>,
    /// Of the picture.
    pub width: u32,
}

impl Strip {
    /// Of rows with the newest first.
    pub fn of(rows: &[Glance], places: usize, now: Micros) -> Self {
        let took = |row: &Glance| row.started_at.map(|from| row.ended_at.unwrap_or(now).since(from).as_secs_f64());
        let longest = rows.iter().filter_map(took).fold(0.0, f64::max);
        // The newest is always at the right edge.
        let empty = places.saturating_sub(rows.len());
        let bars = rows.iter().rev().enumerate().map(|(at, row)| {
            let share = took(row).map_or(0.0, |seconds| if longest > 0.0 { seconds / longest } else { 1.0 });
            let height = 5 + (share * f64::from(HIGHEST - 5)).round() as u32;
            let mark = Mark::build(row.status, row.awaits);
            let span = row.started_at.map(|from| format!(", {}", Span::of(from, row.ended_at, now).words()));
            let of = source(row.pull_request, row.tag.as_deref(), row.branch.as_deref());
            Bar {
                id: row.id.0,
                shape: mark.shape,
                title: format!("{} {}{} · {of}", row.id, mark.word, span.unwrap_or_default()),
                x: (empty + at) as u32 * STEP,
                y: ABOVE + HIGHEST - height,
                height,
            }
        });
        Self { bars: bars.collect(), width: places as u32 * STEP }
    }
}

/// The usual time of builds that passed: the middle one.
pub fn usual(rows: &[Glance], pipeline: &str) -> Option<Duration> {
    let passed = rows.iter().filter(|row| row.pipeline == pipeline && row.status == BuildStatus::Passed);
    let mut times: Vec<Duration> = passed.filter_map(|row| Some(row.ended_at?.since(row.started_at?))).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::ids::BuildId;

    /// A build that took so many seconds.
    pub fn glance(id: u64, status: BuildStatus, seconds: i64) -> Glance {
        let began = Micros(1_790_000_000_000_000);
        Glance {
            id: BuildId(id),
            project: "demo".to_owned(),
            pipeline: "nightly".to_owned(),
            status,
            event: "push".to_owned(),
            branch: Some("main".to_owned()),
            tag: None,
            commit: Some("0123456789abcdef".to_owned()),
            title: Some("A title".to_owned()),
            pull_request: None,
            actor: "ann".to_owned(),
            awaits: false,
            created_at: began,
            started_at: (status != BuildStatus::Queued).then_some(began),
            ended_at: status.is_terminal().then_some(Micros(began.0 + seconds * 1_000_000)),
        }
    }

    #[test]
    fn the_usual_time_is_the_middle_one_of_those_that_passed() {
        let passed = |id, seconds| glance(id, BuildStatus::Passed, seconds);
        let rows = [passed(1, 10), passed(2, 1000), passed(3, 20), glance(4, BuildStatus::Failed, 1)];
        assert_eq!(usual(&rows, "nightly"), Some(Duration::from_secs(20)));
        assert_eq!(usual(&rows, "other"), None);
    }

    #[test]
    fn the_newest_bar_is_at_the_right_edge_and_the_longest_is_the_highest() {
        let rows = [glance(2, BuildStatus::Failed, 100), glance(1, BuildStatus::Passed, 50)];
        let strip = Strip::of(&rows, 4, rows[0].ended_at.unwrap());
        let placed: Vec<(u64, u32, u32)> = strip.bars.iter().map(|bar| (bar.id, bar.x, bar.height)).collect();
        assert_eq!(placed, [(1, 20, 19), (2, 30, 32)]);
        assert_eq!(strip.bars[1].title, "#2 failed, 1 m 40 s · main");
    }
}
