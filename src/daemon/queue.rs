//! Drives the daemon's builds: looks who may begin, starts their drivers, and enforces cancellations until a build has ended.
//!
//! The rows are the truth. A nudge makes the look come at once; the clock makes it come anyway.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tracing::Instrument;

use super::secrets::SecretSource;
use crate::build::queue::{Limits, Running, Waiting, WaitsFor, admit};
use crate::build::status::{BuildStatus, CancelReason};
use crate::engine::drive::Drive;
use crate::engine::notice::{Notice, Notices, tell};
use crate::engine::slots::Slots;
use crate::engine::{Engine, EngineError};
use crate::ids::BuildId;
use crate::store::{StoreError, builds, queue};

/// How often the rows are looked at without a nudge.
const LOOK: Duration = Duration::from_secs(1);
/// Waiting builds that are looked at; those behind them come later.
const LOOKED_AT: usize = 2000;
/// A driver that ended with an error is started again after this; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What every waiting build waits for, the next one first.
pub type Waits = Vec<(BuildId, WaitsFor)>;

/// What the rest of the daemon has of the queue.
#[derive(Debug, Clone)]
pub struct QueueHandle {
    nudge: Arc<Notify>,
    waits: watch::Receiver<Arc<Waits>>,
    /// Places on runners.
    pub slots: Slots,
}

impl QueueHandle {
    /// Something in the rows changed.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// What every waiting build waits for, as of the last look.
    pub fn waits(&self) -> Arc<Waits> {
        Arc::clone(&self.waits.borrow())
    }

    /// What one build waits for.
    pub fn waits_for(&self, build: BuildId) -> Option<WaitsFor> {
        self.waits().iter().find(|(id, _)| *id == build).map(|(_, why)| why.clone())
    }
}

/// The queue's own task.
pub struct Queue {
    engine: Arc<Engine>,
    limits: watch::Receiver<Arc<Limits>>,
    secrets: Arc<dyn SecretSource>,
    notices: Notices,
    slots: Slots,
    nudge: Arc<Notify>,
    waits: watch::Sender<Arc<Waits>>,
    driving: HashMap<BuildId, Driving>,
    drivers: JoinSet<(BuildId, Result<BuildStatus, EngineError>)>,
    /// Builds whose driver could not go on, with the time of the next try.
    troubled: HashMap<BuildId, (tokio::time::Instant, Duration)>,
}

struct Driving {
    cancel: watch::Sender<Option<CancelReason>>,
    running: Running,
    task: AbortHandle,
}

impl Queue {
    /// A queue that drives nothing yet.
    pub fn new(
        engine: Arc<Engine>,
        limits: watch::Receiver<Arc<Limits>>,
        secrets: Arc<dyn SecretSource>,
        notices: Notices,
        slots: Slots,
    ) -> (Self, QueueHandle) {
        let (waits, seen) = watch::channel(Arc::default());
        let nudge = Arc::new(Notify::new());
        let handle = QueueHandle { nudge: Arc::clone(&nudge), waits: seen, slots: slots.clone() };
        let queue = Self {
            engine,
            limits,
            secrets,
            notices,
            slots,
            nudge,
            waits,
            driving: HashMap::new(),
            drivers: JoinSet::new(),
            troubled: HashMap::new(),
        };
        (queue, handle)
    }

    /// Works until `stop`. Then the drivers are let go of as they are: what runs goes on and is taken up at the next start.
    pub async fn run(mut self, stop: tokio_util::sync::CancellationToken) {
        let mut limits = self.limits.clone();
        loop {
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "the queue cannot be read; trying again");
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.nudge.notified() => {}
                Some(ended) = self.drivers.join_next() => self.ended(ended),
                Ok(()) = limits.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        self.drivers.shutdown().await;
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        // Drivers that ended together are settled together.
        while let Some(ended) = self.drivers.try_join_next() {
            self.ended(ended);
        }
        let (waiting, running, wanted, paused) = self
            .engine
            .store
            .read(|db| {
                let waiting = queue::waiting(db, LOOKED_AT)?;
                Ok((waiting, queue::running(db)?, queue::cancels_wanted(db)?, queue::paused(db)?))
            })
            .await?;
        let wanted: BTreeMap<BuildId, CancelReason> = wanted.into_iter().collect();
        for (&id, &reason) in &wanted {
            if let Some(driving) = self.driving.get(&id) {
                driving.cancel.send_if_modified(|now| (*now < Some(reason)).then(|| *now = Some(reason)).is_some());
            }
        }
        // Builds that were under way when the last daemon ended go on whatever the limits say.
        for build in running {
            let wish = wanted.get(&build.id).copied();
            self.drive(build, wish);
        }
        // One that waits and is to end needs no place: its driver only ends it.
        for build in waiting.iter().filter(|build| wanted.contains_key(&build.id)) {
            self.drive(under_way(build), wanted.get(&build.id).copied());
        }
        let waiting: Vec<_> = waiting.into_iter().filter(|build| !self.driving.contains_key(&build.id)).collect();
        let running: Vec<Running> = self.driving.values().map(|driving| driving.running.clone()).collect();
        let mut limits = Limits::clone(&self.limits.borrow_and_update());
        limits.paused = paused.or(limits.paused);
        let mut waits = Waits::new();
        for (id, why) in admit(&waiting, &running, &limits) {
            match why {
                Some(why) => waits.push((id, why)),
                None => {
                    let Some(build) = waiting.iter().find(|build| build.id == id) else { continue };
                    self.drive(under_way(build), None);
                }
            }
        }
        let waits_in = |id: &BuildId| waiting.iter().find(|build| build.id == *id).map(|build| build.project.as_str());
        self.engine.metrics.waiting(waits.iter().filter_map(|(id, _)| waits_in(id)));
        self.waits.send_if_modified(|before| {
            let changed = **before != waits;
            if changed {
                *before = Arc::new(waits);
            }
            changed
        });
        Ok(())
    }

    /// Starts a build's driver, unless it has one or its last one just failed.
    fn drive(&mut self, running: Running, wish: Option<CancelReason>) {
        let id = running.id;
        if self.driving.contains_key(&id) {
            return;
        }
        if self.troubled.get(&id).is_some_and(|(until, _)| tokio::time::Instant::now() < *until) {
            return;
        }
        let (cancel, cancelled) = watch::channel(wish);
        let (engine, secrets, notices) = (Arc::clone(&self.engine), Arc::clone(&self.secrets), self.notices.clone());
        let slots = self.slots.clone();
        let span = tracing::info_span!("build", build = id.0, project = running.project);
        let work = async move {
            let drive = async {
                let read = engine.store.read(move |db| Ok((builds::get(db, id)?, queue::standing(db, id)?)));
                let (row, standing) = read.await?;
                let secrets = secrets.for_build(&row.request).await?;
                let drive = Drive { secrets, cancel: cancelled, notices, slots, priority: standing.priority };
                let goes = if row.status == BuildStatus::Queued { "starts" } else { "goes on" };
                tracing::info!(pipeline = row.request.pipeline, "build {id} {goes}");
                let ended = engine.drive(id, drive).await;
                if let Ok(status) = &ended {
                    tracing::info!(pipeline = row.request.pipeline, "build {id}: {}", status.word());
                }
                ended
            };
            (id, drive.await)
        };
        let task = self.drivers.spawn(work.instrument(span));
        self.driving.insert(id, Driving { cancel, running, task });
    }

    fn ended(&mut self, ended: Result<(BuildId, Result<BuildStatus, EngineError>), JoinError>) {
        let (id, result) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                // Its row stays open, and the look after the next tick finds it without a driver.
                tracing::error!(%error, "a driver broke");
                self.driving.retain(|_, driving| !driving.task.is_finished());
                return;
            }
        };
        self.driving.remove(&id);
        match result {
            Ok(_) => {
                self.troubled.remove(&id);
            }
            Err(error) => {
                let wait = self.troubled.get(&id).map_or(FIRST_RETRY, |(_, wait)| (*wait * 2).min(LAST_RETRY));
                let text = format!("build {id} cannot go on: {error}; trying again in {} s", wait.as_secs());
                tracing::error!(build = id.0, "{text}");
                tell(&self.notices, Notice::Waiting { text });
                self.troubled.insert(id, (tokio::time::Instant::now() + wait, wait));
            }
        }
    }
}

fn under_way(build: &Waiting) -> Running {
    Running { id: build.id, project: build.project.clone(), group: build.group.clone() }
}
