//! Once an hour: what is older than the configuration wants to keep goes, and files that nobody needs any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::artifact::Sweep;
use crate::config::types::Retention;
use crate::config::watch::ConfigState;
use crate::engine::retention::{Keep, apply};
use crate::engine::{Engine, EngineError, gc, now};
use crate::ids::Micros;
use crate::metrics::Cleaned;
use crate::store::{outbox, retention, sessions};

/// A start has better things to do at first.
const FIRST: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(3600);
/// Files that are younger are not removed: a build may have them in hand.
const MIN_AGE: Duration = Duration::from_secs(24 * 3600);
/// Rows of webhook calls, or of sessions, in one transaction.
const ROWS: usize = 200;

/// Runs until the daemon stops.
pub async fn run(engine: Arc<Engine>, config: watch::Receiver<ConfigState>, stop: CancellationToken) {
    let mut wait = FIRST;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = AGAIN;
        let keep = config.borrow().current.retention.clone();
        let began = Instant::now();
        // A removal may be cut anywhere: the next look finds the rest.
        tokio::select! {
            () = stop.cancelled() => return,
            done = once(&engine, &keep) => {
                engine.metrics.cleaned(done.as_ref().ok().copied(), began.elapsed());
                match done {
                    Ok(done) if done == Cleaned::default() => tracing::debug!("clean-up: nothing to remove"),
                    Ok(done) => tracing::info!(
                        builds = done.builds, deliveries = done.deliveries, files = done.files, bytes = done.bytes,
                        "clean-up: {} old builds went, and {} files that nobody needs", done.builds, done.files
                    ),
                    Err(error) => tracing::warn!(%error, "the clean-up broke off; it is tried again in an hour"),
                }
            }
        }
    }
}

async fn once(engine: &Arc<Engine>, keep: &Retention) -> Result<Cleaned, EngineError> {
    let builds = Keep { builds: Some(keep.builds), age: keep.age, size: keep.size };
    let gone = apply(engine, builds, Sweep::Remove).await?;
    let deliveries = match keep.deliveries {
        Some(age) => remove_deliveries(engine, before(age)).await?,
        None => 0,
    };
    forget_sessions(engine).await?;
    let cleared = gc::artifacts(engine, MIN_AGE, Sweep::Remove).await?;
    Ok(Cleaned {
        builds: gone.builds,
        deliveries,
        files: cleared.swept.removed,
        bytes: gone.log_bytes + cleared.swept.bytes,
    })
}

async fn remove_deliveries(engine: &Arc<Engine>, before: Micros) -> Result<u64, EngineError> {
    let mut gone = 0;
    // What was told of commits without a build; the rest goes with its build.
    while engine.store.write(move |tx| outbox::remove_old(tx, before, ROWS)).await? == ROWS {}
    for remove in [retention::remove_deliveries, retention::remove_triggers] {
        let mut after = 0;
        loop {
            let looked = engine.store.write(move |tx| remove(tx, before, after, ROWS)).await?;
            gone += looked.gone as u64;
            match looked.last {
                Some(last) => after = last,
                None => break,
            }
        }
    }
    Ok(gone)
}

/// Those that have ended.
async fn forget_sessions(engine: &Arc<Engine>) -> Result<(), EngineError> {
    while engine.store.write(|tx| sessions::forget(tx, now(), ROWS)).await? == ROWS {}
    Ok(())
}

fn before(age: Duration) -> Micros {
    Micros(now().0.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)))
}
