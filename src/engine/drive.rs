//! Drives one build to its end: look what is next, commit it, do it, wait for something to happen, look again.
//!
//! The driver alone changes the build's state. Tasks that prepare or run an attempt ask it by message, and it answers after
//! the commit.
//!
//! ```text
//!            next_actions                     message: launch, done
//!   state ------------------> begin / attempt tasks --------------------> commit -> state
//!     ^                                                                      |
//!     +--------------------- cancel, clock ----------------------------------+
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::Instrument;

use super::attempt::{self, AttemptDone, Takeover};
use super::begin::{self, Begun};
use super::commit::{Also, follow_up};
use super::environment::Secrets;
use super::lock::BuildLock;
use super::notice::{Notice, Notices, tell};
use super::slots::{Holder, Permit, Slots};
use super::submit::{Expanded, expand};
use super::{Engine, EngineError, now, secrets};
use crate::build::event::{Event, Stamped};
use crate::build::next::{Action, next_actions};
use crate::build::status::{BuildState, BuildStatus, CancelReason, Failure, FailureKind, Outcome, StageStatus};
use crate::build::transition::{replay, transition};
use crate::ids::{BuildId, NodeKey};
use crate::logs::{Mask, Quotes};
use crate::metrics::Tally;
use crate::store::attempts::{self, NewAttempt};
use crate::store::builds::{self, BuildRequest};
use crate::store::results::Scope;
use crate::store::{StoreError, events, outbox};

/// Messages that may wait for the driver; each sender waits for its answer, so one a task is enough.
const MESSAGES: usize = 64;
/// Stages of a build that are prepared, wait for a place, or run at once; a wide matrix takes turns.
const TASKS: usize = 64;
/// How long the build's begin may wait to be stored together with what comes next.
const BEGIN_ALONE: Duration = Duration::from_millis(20);
/// Between two tries to commit when the disk is full or the database busy.
const COMMIT_RETRY: Duration = Duration::from_millis(500);

/// How a build is driven.
pub struct Drive {
    /// Values of secrets.
    pub secrets: Secrets,
    /// The most severe cancellation asked for.
    pub cancel: watch::Receiver<Option<CancelReason>>,
    /// Where notices go.
    pub notices: Notices,
    /// Places on runners, shared with whatever else this process drives.
    pub slots: Slots,
    /// In the lines for places, greater goes first.
    pub priority: i64,
}

/// What all tasks of a build share.
pub struct Build {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Its number.
    pub id: BuildId,
    /// What was asked for.
    pub request: BuildRequest,
    /// Pipeline, parameters, plan.
    pub expanded: Expanded,
    /// Values of secrets.
    pub secrets: Secrets,
    /// Hides them in logs.
    pub mask: Mask,
    /// Hides them in everything else that is stored or told.
    pub quotes: Quotes,
    /// Where notices go.
    pub notices: Notices,
}

impl Build {
    /// A build with what its secrets look like.
    pub fn new(
        engine: Arc<Engine>,
        (id, request): (BuildId, BuildRequest),
        expanded: Expanded,
        secrets: Secrets,
        notices: Notices,
    ) -> Self {
        let (mask, _) = Mask::new(secrets.pairs());
        let quotes = Quotes::new(secrets.pairs());
        Self { engine, id, request, expanded, secrets, mask, quotes, notices }
    }

    /// Where this build's results belong. Those of strangers are kept apart: a key may leave files out that a script reads, so
    /// that a stranger's result could be taken for the project's own.
    pub fn scope(&self) -> Scope {
        let pipeline = &self.request.pipeline;
        let pipeline = if self.request.untrusted { format!("{pipeline} of forks") } else { pipeline.clone() };
        Scope { project: self.request.project.clone(), pipeline }
    }

    /// Builds of pull requests register nothing and promote nothing.
    pub fn may_register(&self) -> bool {
        self.request.event != "pull_request"
    }
}

/// A task asks the driver to commit that its unit is about to be started.
pub struct Launch {
    /// Which node.
    pub node: usize,
    /// Which attempt.
    pub attempt: u32,
    /// What was found out before the launch.
    pub reports: attempt::Reports,
    /// Told after the commit; dropped if the build cannot go on.
    pub committed: oneshot::Sender<()>,
}

/// Why an attempt is to stop.
pub type Stop = Option<CancelReason>;

/// What a task of the driver came to.
enum Done {
    /// With its place on the runner, where it has to run.
    Begun(usize, u32, Box<Begun>, Option<Permit>),
    Attempt(usize, u32, Box<AttemptDone>),
}

struct Driver {
    slots: Slots,
    priority: i64,
    /// Places of the attempts under way.
    places: HashMap<usize, Permit>,
    build: Arc<Build>,
    /// As the tasks see it: what is stored, and `held` after it.
    state: BuildState,
    stored: BuildState,
    /// The build's begin, until it is stored with the next event: nothing has been done yet that rests on it.
    held: Vec<Stamped>,
    tasks: JoinSet<Done>,
    /// Removals of units whose attempts have ended well: nothing waits for them but the end of the driver.
    tidying: JoinSet<()>,
    /// Nodes with a task: it can be stopped by the channel, or (before the attempt exists) aborted.
    busy: HashMap<usize, (watch::Sender<Stop>, AbortHandle, bool)>,
    tally: Tally,
    launches: (mpsc::Sender<Launch>, mpsc::Receiver<Launch>),
    /// The most severe cancellation asked for.
    cancel: watch::Receiver<Option<CancelReason>>,
}

impl Engine {
    /// Drives a build until it has ended. The same call starts a new build and goes on with an interrupted one.
    ///
    /// # Errors
    /// If the build is driven by another process, or the database cannot go on.
    pub async fn drive(self: &Arc<Self>, id: BuildId, mut drive: Drive) -> Result<BuildStatus, EngineError> {
        let _lock = BuildLock::take_soon(&self.paths, id).await?;
        // Nobody else writes of this build while we have its lock.
        let (mut row, history) =
            self.store.read(move |db| Ok((builds::get(db, id)?, events::of_build(db, id)?))).await?;
        if row.status.is_terminal() {
            return Ok(row.status);
        }
        let expanded = expand(&row.request)?;
        let state = replay(&expanded.plan, &history)?;
        // Whoever only ends a build reads nothing that it printed, and needs no secrets.
        let ends = *drive.cancel.borrow() >= Some(CancelReason::Kill);
        if !ends && secrets::settle(&mut row.request, &expanded.plan, &state, (&self.store.instance, &drive.secrets))? {
            let request = row.request.clone();
            self.store.write(move |tx| builds::set_secrets(tx, id, &request)).await?;
        }
        let build = Build::new(Arc::clone(self), (id, row.request), expanded, drive.secrets, drive.notices);
        let build = Arc::new(build);
        let names = (build.request.project.as_str(), build.request.pipeline.as_str());
        let tally = Tally::new(Arc::clone(&self.metrics), names, &build.expanded.plan, row.created_at, &history);
        super::gc::remove_ended_units(&build, &state).await;
        let mut driver = Driver {
            slots: drive.slots,
            priority: drive.priority,
            places: HashMap::new(),
            build,
            stored: state.clone(),
            state,
            held: Vec::new(),
            tasks: JoinSet::new(),
            tidying: JoinSet::new(),
            busy: HashMap::new(),
            tally,
            launches: mpsc::channel(MESSAGES),
            cancel: drive.cancel.clone(),
        };
        // A cancellation that is there already is known before anything is taken up.
        let wish = *drive.cancel.borrow_and_update();
        if let Some(reason) = wish {
            driver.commit(vec![Event::CancelRequested { reason }], Also::default()).await?;
        }
        driver.take_over().await?;
        let ended = driver.run(&mut drive.cancel).await;
        while let Some(tidied) = driver.tidying.join_next().await {
            if let Err(error) = tidied {
                tracing::error!(build = id.0, %error, "a removal broke; the next start or `gc` tries again");
            }
        }
        let status = ended?;
        self.packer.build_ended(&self.paths, id, None);
        Ok(status)
    }
}

impl Driver {
    async fn run(&mut self, cancel: &mut watch::Receiver<Option<CancelReason>>) -> Result<BuildStatus, EngineError> {
        let mut listening = true;
        loop {
            let wanted = *cancel.borrow_and_update();
            if wanted > self.state.cancel
                && let Some(reason) = wanted
            {
                self.commit(vec![Event::CancelRequested { reason }], Also::default()).await?;
            }
            let wake = self.act().await?;
            if self.state.status.is_terminal() {
                return Ok(self.state.status);
            }
            tokio::select! {
                Some(done) = self.tasks.join_next() => self.settle(done).await?,
                Some(launch) = self.launches.1.recv() => self.launch(launch).await?,
                // An error means that nobody can cancel any more.
                changed = cancel.changed(), if listening => listening = changed.is_ok(),
                () = tokio::time::sleep(BEGIN_ALONE), if !self.held.is_empty() => {
                    self.commit(Vec::new(), Also::default()).await?;
                }
                () = tokio::time::sleep(wake) => {}
            }
        }
    }

    /// Does all that can be done now. Answers how long nothing new is due by the clock alone.
    async fn act(&mut self) -> Result<Duration, EngineError> {
        let mut wake = Duration::from_secs(3600);
        loop {
            let moment = now();
            let begun = self.held.len();
            let mut settled = Vec::new();
            for action in next_actions(&self.build.expanded.plan, &self.state, moment) {
                match action {
                    Action::Begin => self.hold(Event::BuildStarted, moment)?,
                    Action::End(result) => settled.push(Event::BuildEnded { result }),
                    Action::Skip { node, reason } => settled.push(Event::StageSkipped { node: self.key(node), reason }),
                    Action::Cancel { node, reason } => {
                        if let Some((_, task, false)) = self.busy.remove(&node) {
                            task.abort();
                        }
                        settled.push(Event::StageCancelled { node: self.key(node), reason });
                    }
                    Action::Stop { node, reason } => {
                        if let Some((stop, ..)) = self.busy.get(&node) {
                            stop.send_if_modified(|now| (*now < Some(reason)).then(|| *now = Some(reason)).is_some());
                        }
                    }
                    Action::Start { node, attempt } => self.begin(node, attempt),
                    Action::WakeAt(at) => wake = wake.min(at.since(moment)),
                }
            }
            if self.held.len() > begun {
                continue;
            }
            if settled.is_empty() {
                return Ok(wake.max(Duration::from_millis(1)));
            }
            self.commit(settled, Also::default()).await?;
            if self.state.status.is_terminal() {
                return Ok(wake);
            }
        }
    }

    /// Takes an event into the state that is stored with the next one.
    fn hold(&mut self, event: Event, at: crate::ids::Micros) -> Result<(), EngineError> {
        let event = Stamped { at, event };
        self.state = transition(&self.build.expanded.plan, &self.state, &event)?;
        self.held.push(event);
        Ok(())
    }

    fn key(&self, node: usize) -> NodeKey {
        self.build.expanded.plan.nodes[node].key.clone()
    }

    /// Looks for a reusable result and gets the image, before there is an attempt.
    fn begin(&mut self, node: usize, attempt: u32) {
        // A node that finds no room is asked for again when another has ended.
        if self.busy.contains_key(&node) || self.busy.len() >= TASKS {
            return;
        }
        let build = Arc::clone(&self.build);
        let good = self.good_before(node);
        let (slots, holder, priority) = (self.slots.clone(), self.holder(node), self.priority);
        let work = async move {
            let begun = begin::begin(&build, node, attempt, &good).await;
            // What is reused needs no place.
            let place = match &begun {
                Begun::Run(start) => {
                    let asked = std::time::Instant::now();
                    let place = slots.take(&start.runner, holder, priority).await;
                    build.engine.metrics.got_place(&start.runner, asked.elapsed());
                    Some(place)
                }
                Begun::Reuse(_) => None,
            };
            Done::Begun(node, attempt, Box::new(begun), place)
        };
        let task = self.tasks.spawn(work.in_current_span());
        self.busy.insert(node, (watch::channel(None).0, task, false));
    }

    fn holder(&self, node: usize) -> Holder {
        Holder { build: self.build.id, node: self.key(node) }
    }

    /// The nodes before this one whose outputs are there.
    fn good_before(&self, node: usize) -> Vec<usize> {
        let before = self.build.expanded.plan.ancestors(node);
        before.into_iter().filter(|&other| self.state.stages[other].is_good()).collect()
    }

    fn spawn_attempt(&mut self, node: usize, attempt: u32, takeover: Takeover) {
        let (stop, stopped) = watch::channel(self.state.cancel.filter(|reason| *reason >= CancelReason::Kill));
        let cx = attempt::AttemptCx {
            build: Arc::clone(&self.build),
            node,
            attempt,
            good: self.good_before(node),
            stop: stopped,
            launches: self.launches.0.clone(),
        };
        let work = async move { Done::Attempt(node, attempt, Box::new(attempt::run(cx, takeover).await)) };
        let task = self.tasks.spawn(work.in_current_span());
        self.busy.insert(node, (stop, task, true));
    }

    /// Takes up every attempt that was under way when the last driver ended.
    async fn take_over(&mut self) -> Result<(), EngineError> {
        for node in 0..self.state.stages.len() {
            let StageStatus::Running { attempt, launched } = self.state.stages[node] else { continue };
            let (id, key) = (self.build.id, self.key(node));
            let row = self.build.engine.store.read(move |db| attempts::find(db, id, &key, attempt)).await?;
            let row = row
                .ok_or_else(|| StoreError::Corrupt(format!("attempt {attempt} of `{}` has no row", self.key(node))))?;
            self.places.insert(node, self.slots.occupy(&row.runner, self.holder(node)));
            self.spawn_attempt(node, attempt, Takeover::again(row, launched));
        }
        Ok(())
    }

    async fn launch(&mut self, launch: Launch) -> Result<(), EngineError> {
        let key = self.key(launch.node);
        let also = Also { launched: Some((key.clone(), launch.attempt, launch.reports)), ..Also::default() };
        self.commit(vec![Event::AttemptLaunched { node: key, attempt: launch.attempt }], also).await?;
        // The task may have been stopped meanwhile; the launch is committed all the same and is settled by its unit.
        let _ = launch.committed.send(());
        Ok(())
    }

    async fn settle(&mut self, done: Result<Done, tokio::task::JoinError>) -> Result<(), EngineError> {
        match done {
            Ok(Done::Begun(node, attempt, begun, place)) => {
                self.busy.remove(&node);
                // A cancellation may have come first.
                let fresh = matches!(
                    self.state.stages[node],
                    StageStatus::Waiting | StageStatus::Again { .. } | StageStatus::Delayed { .. }
                );
                if !fresh {
                    return Ok(());
                }
                self.places.extend(place.map(|place| (node, place)));
                self.begun(node, attempt, *begun).await
            }
            Ok(Done::Attempt(node, attempt, done)) => {
                self.busy.remove(&node);
                self.attempt_ended(node, attempt, *done).await
            }
            Err(error) if error.is_cancelled() => Ok(()),
            Err(error) => self.broke(&error).await,
        }
    }

    async fn begun(&mut self, node: usize, attempt: u32, begun: Begun) -> Result<(), EngineError> {
        let key = self.key(node);
        match begun {
            Begun::Reuse(result) => {
                let from = result.made_by;
                let also = Also { result: Some(*result), ..Also::default() };
                self.commit(vec![Event::StageReused { node: key, from }], also).await
            }
            Begun::Run(start) => {
                let new = NewAttempt {
                    build: self.build.id,
                    node: key.clone(),
                    attempt,
                    runner: start.runner.clone(),
                    nonce: attempt::nonce(),
                    at: now(),
                    why: start.why.clone(),
                };
                let takeover = Takeover::fresh(&new, *start);
                let also = Also { attempt: Some(new), ..Also::default() };
                self.commit(vec![Event::AttemptStarted { node: key, attempt }], also).await?;
                self.spawn_attempt(node, attempt, takeover);
                Ok(())
            }
        }
    }

    async fn attempt_ended(&mut self, node: usize, attempt: u32, done: AttemptDone) -> Result<(), EngineError> {
        let key = self.key(node);
        let mut well = matches!(done.outcome, Outcome::Succeeded);
        let registers = done.version.is_some();
        let ended = |outcome: Outcome| vec![Event::AttemptEnded { node: key.clone(), attempt, outcome }];
        let (steps, reports) = (done.steps, done.reports);
        let also = |outcome: &Outcome| Also {
            ended: Some((key.clone(), attempt, outcome.clone(), steps.clone(), reports.clone())),
            ..Also::default()
        };
        let all = Also { result: done.result, version: done.version, ..also(&done.outcome) };
        match self.commit(ended(done.outcome), all).await {
            // Another project registered the model's first version after this training had looked.
            Err(EngineError::Store(StoreError::Conflict(why))) if registers => {
                well = false;
                let outcome = Outcome::Failed { failure: Failure::new(FailureKind::Train, why) };
                self.commit(ended(outcome.clone()), also(&outcome)).await?;
            }
            committed => committed?,
        }
        // Only now, when the result is on the disk, may the unit go.
        let tidy = attempt::clean_up(Arc::clone(&self.build), node, attempt, done.keep);
        let place = self.places.remove(&node);
        if well {
            // It has ended by itself, so what comes next need not wait for its removal; its place is free already.
            drop(place);
            self.tidying.spawn(tidy.in_current_span());
        } else {
            tidy.await;
        }
        let engine = &self.build.engine;
        let log = engine.paths.log(self.build.id, &key, attempt);
        self.tally.log(std::fs::metadata(&log).map_or(0, |log| log.len()));
        engine.packer.attempt_ended(log);
        Ok(())
    }

    /// A task panicked: our own fault, told as such, and the build goes on.
    async fn broke(&mut self, error: &tokio::task::JoinError) -> Result<(), EngineError> {
        tracing::error!(build = self.build.id.0, %error, "a task of the build broke");
        let gone: Vec<usize> =
            self.busy.iter().filter(|(_, (_, task, _))| task.is_finished()).map(|(&node, _)| node).collect();
        for node in gone {
            self.busy.remove(&node);
            let failure = Failure::new(FailureKind::Internal, format!("internal error: {error}"));
            let outcome = Outcome::Failed { failure };
            match self.state.stages[node] {
                StageStatus::Running { attempt, .. } => {
                    let done = AttemptDone::bare(outcome);
                    self.attempt_ended(node, attempt, done).await?;
                }
                StageStatus::Waiting | StageStatus::Again { .. } | StageStatus::Delayed { .. } => {
                    return Err(EngineError::Pipeline(format!("stage `{}` cannot begin: {error}", self.key(node))));
                }
                StageStatus::Succeeded { .. }
                | StageStatus::Reused { .. }
                | StageStatus::Failed { .. }
                | StageStatus::Skipped { .. }
                | StageStatus::Cancelled { .. } => {}
            }
        }
        Ok(())
    }

    /// Makes events durable with all that belongs to them and follows from them, then changes the state in memory and tells. A
    /// full disk or a busy database is waited out, unless the build is killed.
    async fn commit(&mut self, events: Vec<Event>, also: Also) -> Result<(), EngineError> {
        let at = now();
        let plan = &self.build.expanded.plan;
        let mut new: Vec<Stamped> = events.into_iter().map(|event| Stamped { at, event }).collect();
        let mut after = new.iter().try_fold(self.state.clone(), |state, event| transition(plan, &state, event))?;
        after = follow_up(plan, after, &mut new, at)?;
        let stamped: Vec<Stamped> = self.held.iter().cloned().chain(new).collect();
        if after.status.is_terminal()
            && let Err(error) = self.build.engine.packer.build_ends(&self.build.engine.paths, self.build.id)
        {
            // Its logs then stay plain, which costs space and nothing else.
            tracing::warn!(build = self.build.id.0, %error, "cannot note which logs are to be packed");
        }
        loop {
            let (build, before, after) = (Arc::clone(&self.build), self.stored.clone(), after.clone());
            let (stamped, also) = (stamped.clone(), also.clone());
            let written = self.build.engine.store.write(move |tx| {
                events::append(tx, build.id, &stamped)?;
                builds::save(tx, build.id, &build.expanded.plan, &before, &after, at)?;
                if build.request.reports && before.status != after.status {
                    outbox::changed(tx, build.id, after.status.word(), at)?;
                }
                also.write(tx, &build, at)
            });
            match written.await {
                Ok(()) => break,
                // The world then is as if this process had been killed, and is taken up in the same way.
                Err(error @ (StoreError::Full | StoreError::Busy))
                    if *self.cancel.borrow() >= Some(CancelReason::Kill) =>
                {
                    return Err(EngineError::Unstored { build: self.build.id, error });
                }
                Err(error @ (StoreError::Full | StoreError::Busy)) => {
                    let text = format!("cannot store what happened: {error}; trying again");
                    tell(&self.build.notices, Notice::Waiting { text });
                    tokio::time::sleep(COMMIT_RETRY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.held.clear();
        self.tally.committed(plan, &self.stored, &after, &stamped);
        self.stored = after.clone();
        self.state = after;
        for event in stamped {
            tell(&self.build.notices, Notice::Event { build: self.build.id, event });
        }
        Ok(())
    }
}
