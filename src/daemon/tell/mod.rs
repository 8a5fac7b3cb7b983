//! Tells others what became of builds: GitHub, hooks, mail.
//!
//! ```text
//! change of a build -> row `changed`, same transaction -> spread: a row for each channel -> send -> told
//! ```
//!
//! Rows are the truth: whoever is killed between two arrows goes on there at the next start. A message may come twice, and is
//! made so that this does no harm; one receiver is told one thing after the other, in order.

mod send;
pub mod spread;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::projects::Projects;
use crate::build::event::Event;
use crate::config::watch::ConfigState;
use crate::engine::notice::{Notice, Notices};
use crate::engine::{Engine, now};
use crate::ids::Micros;
use crate::store::outbox::{self, CHANGED, OutboxRow};
use crate::store::{StoreError, settings};
use send::{Receiver, Sent};

/// How often the rows are looked at without a hint.
const LOOK: Duration = Duration::from_secs(2);
/// Rows that are looked at together.
const ROWS: usize = 500;
/// Messages that a receiver is told before others of it are looked for again.
const BATCH: usize = 20;
/// Waits between tries: doubled from the first to the last.
const FIRST_TRY: Duration = Duration::from_secs(1);
const LAST_TRY: Duration = Duration::from_secs(600);
/// Whoever cannot be told for so long is not told.
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);
/// The name of the key that marks comments, in the store's settings.
const MARK_KEY: &str = "comment-mark-key";

/// Tells others.
#[derive(Clone)]
pub struct Teller {
    /// Store, paths.
    pub engine: Arc<Engine>,
    /// The newest configuration.
    pub config: watch::Receiver<ConfigState>,
    /// The projects.
    pub projects: Projects,
    /// Hints about what happens.
    pub notices: Notices,
    /// Where people reach this daemon.
    pub public_url: Arc<str>,
}

impl Teller {
    /// Works until `stop`. What is being sent then is sent again by the next start.
    pub async fn run(self, stop: CancellationToken) {
        let mut notices = self.notices.subscribe();
        let mut receivers: BTreeMap<String, Arc<Mutex<Receiver>>> = BTreeMap::new();
        let mut busy = BTreeSet::new();
        let mut sending = JoinSet::new();
        loop {
            match self.look(&mut receivers, &mut busy, &mut sending).await {
                // There is more than was looked at.
                Ok(true) if !stop.is_cancelled() => continue,
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "what others are to be told cannot be read; trying again"),
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = hinted(&mut notices) => {}
                Some(ended) = sending.join_next() => match ended {
                    Ok(name) => drop(busy.remove(&name)),
                    Err(error) => {
                        tracing::error!(%error, "a sender broke");
                        busy.clear();
                    }
                },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        sending.shutdown().await;
    }

    /// Spreads what changed, and sets idle receivers to work. Says whether to look again at once.
    async fn look(
        &self,
        receivers: &mut BTreeMap<String, Arc<Mutex<Receiver>>>,
        busy: &mut BTreeSet<String>,
        sending: &mut JoinSet<String>,
    ) -> Result<bool, StoreError> {
        let due = self.engine.store.read(|db| outbox::due(db, now(), ROWS)).await?;
        let (changed, messages): (Vec<_>, Vec<_>) = due.into_iter().partition(|row| row.channel == CHANGED);
        if !changed.is_empty() {
            let key = self.mark_key().await?;
            for row in changed {
                self.spread_or_leave(row, &key).await?;
            }
            return Ok(true);
        }
        let mut by_receiver: BTreeMap<String, Vec<OutboxRow>> = BTreeMap::new();
        for row in messages {
            by_receiver.entry(receiver(&row.channel).to_owned()).or_default().push(row);
        }
        for (name, mut rows) in by_receiver {
            if !busy.insert(name.clone()) {
                continue;
            }
            rows.sort_by_key(|row| row.id);
            rows.truncate(BATCH);
            let receiver = Arc::clone(receivers.entry(name.clone()).or_default());
            let teller = self.clone();
            sending.spawn(async move {
                if let Err(error) = teller.send_all(&receiver, rows).await {
                    tracing::warn!(%error, "what was told cannot be noted; it is told again");
                    tokio::time::sleep(LOOK).await;
                }
                name
            });
        }
        Ok(false)
    }

    /// Spreads a change. One that cannot be read is left, so that it does not hold up all others.
    async fn spread_or_leave(&self, row: OutboxRow, key: &str) -> Result<(), StoreError> {
        let id = row.id;
        match self.spread(row, key).await {
            Err(error @ (StoreError::Missing(_) | StoreError::Conflict(_) | StoreError::Corrupt(_))) => {
                tracing::error!(message = id, %error, "nobody can be told of a change");
                let why = error.to_string();
                self.engine.store.write(move |tx| outbox::give_up(tx, id, &why, now())).await
            }
            done => done,
        }
    }

    async fn send_all(&self, receiver: &Mutex<Receiver>, rows: Vec<OutboxRow>) -> Result<(), StoreError> {
        let mut receiver = receiver.lock().await;
        for row in rows {
            // A newer message may have taken its place, or all of this receiver may have to wait.
            let id = row.id;
            let still = self.engine.store.read(move |db| outbox::is_due(db, id, now())).await?;
            if !still {
                continue;
            }
            let config = Arc::clone(&self.config.borrow().current);
            let sent = receiver.send(&config, &row).await;
            self.note(&row, sent).await?;
        }
        Ok(())
    }

    /// Writes down what came of it.
    async fn note(&self, row: &OutboxRow, sent: Sent) -> Result<(), StoreError> {
        let (id, at, kind) = (row.id, now(), sent.kind);
        let metrics = &self.engine.metrics;
        match sent.came_to {
            Ok(()) => {
                metrics.told(kind, "told");
                self.engine.store.write(move |tx| outbox::done(tx, id, at)).await
            }
            Err(crate::forge::Untold::Later { why, after, all }) if at.since(row.made_at) < GIVE_UP => {
                metrics.told(kind, "retried");
                let wait = after.unwrap_or_else(|| wait_after(row.tries));
                tracing::warn!(message = id, channel = row.channel, "{why}; trying again in {} s", wait.as_secs());
                let next = later(at, wait);
                let channel = row.channel.clone();
                self.engine
                    .store
                    .write(move |tx| {
                        outbox::later(tx, id, &why, next)?;
                        if all { outbox::hold(tx, receiver(&channel), next) } else { Ok(()) }
                    })
                    .await
            }
            Err(untold) => {
                metrics.told(kind, "given-up");
                let why = untold.to_string();
                tracing::error!(message = id, channel = row.channel, "{why}; it is given up");
                self.engine.store.write(move |tx| outbox::give_up(tx, id, &why, at)).await
            }
        }
    }

    async fn mark_key(&self) -> Result<String, StoreError> {
        mark_key(&self.engine).await
    }
}

/// By which our comments are known again, and nobody else's, and those who may see the pictures in them.
///
/// # Errors
/// The database's.
pub async fn mark_key(engine: &Arc<Engine>) -> Result<String, StoreError> {
    if let Some(key) = engine.store.read(|db| settings::get(db, MARK_KEY)).await? {
        return Ok(key);
    }
    let fresh = crate::web::auth::new_token();
    engine.store.write(move |tx| settings::get_or_make(tx, MARK_KEY, &fresh)).await
}

/// How long to wait after so many tries that failed.
fn wait_after(tries: u32) -> Duration {
    FIRST_TRY.saturating_mul(1 << tries.min(12)).min(LAST_TRY)
}

/// All of GitHub's channels are one receiver: requests of one token go one after the other.
fn receiver(channel: &str) -> &str {
    if channel.starts_with("github-") { "github" } else { channel }
}

fn later(at: Micros, wait: Duration) -> Micros {
    Micros(at.0.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)))
}

/// Ends when something happened that others may want to hear of.
async fn hinted(notices: &mut broadcast::Receiver<Notice>) {
    loop {
        match notices.recv().await {
            Ok(Notice::Event { event, .. }) => match event.event {
                Event::BuildStarted | Event::BuildEnded { .. } | Event::Retried { .. } => return,
                Event::CancelRequested { .. }
                | Event::StageSkipped { .. }
                | Event::StageReused { .. }
                | Event::StageCancelled { .. }
                | Event::AttemptStarted { .. }
                | Event::AttemptLaunched { .. }
                | Event::AttemptEnded { .. } => {}
            },
            Ok(Notice::Progress { .. } | Notice::Load { .. } | Notice::Waiting { .. }) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            // Nobody tells any more; the clock goes on.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
