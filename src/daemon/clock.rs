//! Starts builds at the times that pipelines name. Those of the default branch count.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::builds::Unmade;
use super::place::Place;
use super::projects::{Project, Projects};
use super::subject::Subject;
use crate::config::types::Missed;
use crate::engine::{Engine, now};
use crate::ids::Micros;
use crate::pipeline::types::Schedule;
use crate::source::mirror::Oid;
use crate::store::triggers::{self, Source};
use crate::store::{StoreError, clock, heads};
use crate::trigger::schedule::{Due, MissedPolicy, Timetable};

/// How often the clock is looked at. Slots are whole minutes.
const TICK: Duration = Duration::from_secs(1);
/// A wall clock that goes this much ahead of the time that passes, or behind it, was put to another time.
const JUMP: Duration = Duration::from_secs(60);

/// Starts builds by the clock.
pub struct Clock {
    /// Store.
    pub engine: Arc<Engine>,
    /// The projects.
    pub projects: Projects,
}

/// One schedule of a project, ready for questions.
struct Line {
    pipeline: String,
    line: String,
    branch: String,
    timetable: Timetable,
}

/// The schedules of a project as of a commit.
struct Known {
    commit: Oid,
    lines: Vec<Line>,
}

impl Clock {
    /// Works until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut known: BTreeMap<String, Known> = BTreeMap::new();
        // It may have been put back while nothing ran.
        self.put_right().await;
        let mut looked = (Instant::now(), now());
        loop {
            let before = std::mem::replace(&mut looked, (Instant::now(), now()));
            match jump(before.1, looked.1, looked.0 - before.0) {
                Jump::None => {}
                Jump::Ahead(by) => {
                    tracing::warn!(
                        seconds = by.as_secs(),
                        "the machine's clock was put ahead; what has an age is older by that"
                    );
                }
                Jump::Back(by) => {
                    tracing::warn!(seconds = by.as_secs(), "the machine's clock was put back");
                    self.put_right().await;
                }
            }
            let all = self.projects.all();
            known.retain(|name, _| all.contains_key(name));
            for (name, project) in all.iter() {
                if let Err(error) = self.refresh(project, &mut known).await {
                    tracing::debug!(project = name, "its schedules cannot be read: {error:?}");
                }
                for line in known.get(name).iter().flat_map(|known| &known.lines) {
                    if let Err(error) = self.tick(project, line).await {
                        tracing::warn!(project = name, %error, "a schedule cannot be kept; trying again");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// What waits for a moment that a clock which was ahead has named is due now.
    async fn put_right(&self) {
        let at = now();
        match self.engine.store.write(move |tx| clock::put_right(tx, at)).await {
            Ok(mended) if mended == clock::Mended::default() => {}
            Ok(clock::Mended { triggers, messages, schedules }) => {
                tracing::warn!(
                    triggers,
                    messages,
                    schedules,
                    "what waited for a time that is far ahead waits no longer"
                );
                for name in self.projects.all().keys() {
                    self.projects.waker(name).notify_one();
                }
            }
            Err(error) => tracing::warn!(%error, "what waits for a time that is far ahead cannot be put right"),
        }
    }

    /// Reads the schedules anew if the default branch moved, going by what was seen of the repository last.
    async fn refresh(&self, project: &Arc<Project>, known: &mut BTreeMap<String, Known>) -> Result<(), Unmade> {
        // The look at the repository itself belongs to the intake and the decider.
        let Some(refs) = project.heads() else { return Ok(()) };
        let (branch, commit) = super::place::default_branch(&refs);
        let Some(at) = commit else { return Ok(()) };
        if known.get(&project.name).is_some_and(|known| known.commit == at) {
            return Ok(());
        }
        Place::of_commit(project, &at.to_string(), None).await?;
        let read = super::builds::schedules(project, at).await?;
        let lines = read.into_iter().filter_map(|(pipeline, schedule)| line(project, pipeline, &schedule, &branch));
        let lines = lines.collect();
        known.insert(project.name.clone(), Known { commit: at, lines });
        Ok(())
    }

    async fn tick(&self, project: &Arc<Project>, line: &Line) -> Result<(), StoreError> {
        let (name, pipeline, text) = (project.name.clone(), line.pipeline.clone(), line.line.clone());
        let last = {
            let (name, pipeline, text) = (name.clone(), pipeline.clone(), text.clone());
            self.engine.store.read(move |db| heads::last_slot(db, &name, &pipeline, &text)).await?
        };
        let at = now();
        let Some(last) = last else {
            // It counts from when it was first seen.
            return self.engine.store.write(move |tx| heads::set_slot(tx, &name, &pipeline, &text, at)).await;
        };
        let policy = match project.settings.schedule_missed {
            Missed::Once => MissedPolicy::RunOnce,
            Missed::Skip => MissedPolicy::Skip,
        };
        match line.timetable.due(last, at, policy) {
            Due::Nothing { .. } | Due::ClockBehind { .. } => Ok(()),
            Due::Skipped { slot, missed } => {
                tracing::info!(
                    project = name,
                    schedule = text,
                    missed,
                    "times passed while nothing ran; skipped as configured"
                );
                self.engine.store.write(move |tx| heads::set_slot(tx, &name, &pipeline, &text, slot)).await
            }
            Due::Run { slot, missed } => self.start(project, line, slot, missed).await,
        }
    }

    /// The slot and its trigger in one transaction: each slot starts one build, whatever is killed.
    async fn start(&self, project: &Project, line: &Line, slot: Micros, missed: u32) -> Result<(), StoreError> {
        let subject = Subject::Schedule {
            pipeline: line.pipeline.clone(),
            line: line.line.clone(),
            branch: line.branch.clone(),
            slot: slot.0,
            missed,
        };
        let (name, pipeline, text) = (project.name.clone(), line.pipeline.clone(), line.line.clone());
        let subject = serde_json::to_value(&subject)?;
        self.engine
            .store
            .write(move |tx| {
                heads::set_slot(tx, &name, &pipeline, &text, slot)?;
                triggers::create(tx, &name, Source::Schedule, &subject, now()).map(|_| ())
            })
            .await?;
        self.projects.waker(&project.name).notify_one();
        Ok(())
    }
}

/// How a wall clock was put to another time.
#[derive(Debug, PartialEq, Eq)]
enum Jump {
    None,
    Ahead(Duration),
    Back(Duration),
}

/// What the wall clock did between two looks, while so much time passed.
fn jump(before: Micros, after: Micros, passed: Duration) -> Jump {
    let ahead = after.since(before).saturating_sub(passed);
    // It shows less than it did, or did not go on as time did.
    let back = (before.since(after) + passed).saturating_sub(after.since(before));
    if ahead >= JUMP {
        Jump::Ahead(ahead)
    } else if back >= JUMP {
        Jump::Back(back)
    } else {
        Jump::None
    }
}

fn line(project: &Project, pipeline: String, schedule: &Schedule, default: &str) -> Option<Line> {
    let branch = schedule.branch.clone().unwrap_or_else(|| default.to_owned());
    let text = format!("{} {} {branch}", schedule.cron, schedule.timezone);
    match Timetable::new(schedule, jiff::tz::db()) {
        Ok(timetable) => Some(Line { pipeline, line: text, branch, timetable }),
        Err(problem) => {
            tracing::warn!(project = project.name, pipeline, "{problem}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_of_the_clock() {
        let check = |before: i64, after: i64, passed: u64, expected: Jump| {
            let at = |seconds: i64| Micros(seconds * 1_000_000);
            assert_eq!(jump(at(before), at(after), Duration::from_secs(passed)), expected, "{before} {after} {passed}");
        };
        let seconds = Duration::from_secs;
        check(1000, 1001, 1, Jump::None);
        // A machine that is busy.
        check(1000, 1500, 500, Jump::None);
        check(1000, 1030, 1, Jump::None);
        check(1000, 1061, 1, Jump::Ahead(seconds(60)));
        check(1000, 87_401, 1, Jump::Ahead(seconds(86_400)));
        check(100_000, 13_601, 1, Jump::Back(seconds(86_400)));
        check(1000, 1010, 100, Jump::Back(seconds(90)));
        check(1000, 990, 1, Jump::None);
    }
}
