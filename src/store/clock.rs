//! What is due, after the machine's clock was put back.
//!
//! Rows hold moments of the wall clock, since they outlive the process. Whatever waits for a moment that is further off than
//! anything waits was written by a clock that went ahead.

use rusqlite::{Connection, params};

use super::StoreError;
use crate::ids::Micros;

/// Between two tries to decide upon a trigger, at most; in microseconds. Tries are up to ten minutes apart.
const TRIGGERS_WAIT: i64 = 15 * 60 * SECOND;
/// Between two tries to tell somebody, at most. Receivers may ask for an hour.
const OUTBOX_WAITS: i64 = 2 * 3600 * SECOND;
/// Clocks are put right by less than this without anybody minding: a schedule then waits until its last slot has passed again.
const SLOTS_AHEAD: i64 = 3600 * SECOND;
const SECOND: i64 = 1_000_000;

/// How many rows were mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mended {
    /// Triggers that are decided upon now.
    pub triggers: usize,
    /// Messages that are told now.
    pub messages: usize,
    /// Schedules that count from now.
    pub schedules: usize,
}

/// Lets what waits for a far moment be due now, and schedules whose last slot is far ahead count from now.
///
/// # Errors
/// The database's.
pub fn put_right(tx: &Connection, now: Micros) -> Result<Mended, StoreError> {
    let far = |wait: i64| now.0.saturating_add(wait);
    let triggers = tx
        .prepare_cached("UPDATE triggers SET next_at = ?1 WHERE decision IS NULL AND next_at > ?2")?
        .execute(params![now.0, far(TRIGGERS_WAIT)])?;
    let messages = tx
        .prepare_cached(
            "UPDATE outbox INDEXED BY outbox_open SET next_at = ?1 \
             WHERE done_at IS NULL AND gave_up IS NULL AND next_at > ?2",
        )?
        .execute(params![now.0, far(OUTBOX_WAITS)])?;
    let schedules = tx
        .prepare_cached("UPDATE schedules SET last = ?1 WHERE last > ?2")?
        .execute(params![now.0, far(SLOTS_AHEAD)])?;
    Ok(Mended { triggers, messages, schedules })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::Store;
    use crate::store::heads;
    use crate::store::outbox::{self, Message};
    use crate::store::triggers::{self, Source};

    const HOUR: i64 = 3600 * SECOND;

    #[tokio::test]
    async fn what_waits_for_a_clock_that_was_ahead() {
        let dir = tempfile::tempdir().expect("dir");
        let store = Arc::new(Store::open(&dir.path().join("orchestrator.db")).expect("store"));
        let (now, ahead) = (Micros(1000 * HOUR), Micros(1024 * HOUR));
        let written = store.write(move |tx| {
            let subject = serde_json::json!({});
            triggers::create(tx, "demo", Source::Poll, &subject, ahead)?;
            let message =
                Message { build: None, channel: "a".to_owned(), topic: "t".to_owned(), body: "{}".to_owned() };
            let changed = Message { channel: "changed".to_owned(), ..message.clone() };
            outbox::spread(tx, 0, &[message, changed], ahead)?;
            heads::set_slot(tx, "demo", "p", "far", ahead)?;
            // A clock that was put right by a little.
            heads::set_slot(tx, "demo", "p", "near", Micros(now.0 + HOUR / 2))?;
            outbox::due(tx, now, 10).map(|due| due.len())
        });
        assert_eq!(written.await.expect("written"), 0);
        let mended = store.write(move |tx| put_right(tx, now)).await.expect("mended");
        assert_eq!(mended, Mended { triggers: 1, messages: 2, schedules: 1 });
        let (due, next, far, near) = store
            .read(move |db| {
                let slot = |line| heads::last_slot(db, "demo", "p", line);
                let next = triggers::next_open(db, "demo", now)?.map(|open| open.next_at);
                Ok((outbox::due(db, now, 10)?.len(), next, slot("far")?, slot("near")?))
            })
            .await
            .expect("read");
        assert_eq!((due, next, far, near), (2, Some(now), Some(now), Some(Micros(now.0 + HOUR / 2))));
        let again = store.write(move |tx| put_right(tx, now)).await.expect("again");
        assert_eq!(again, Mended::default());
    }
}
