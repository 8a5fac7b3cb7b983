//! What others are to be told, until they were: GitHub, and whoever the configuration names.
//!
//! A row of the channel [`CHANGED`] is written in the transaction that changes a build. The sender makes of it one row for each
//! channel that is configured, and sends those. So nothing is forgotten by a crash between a change and the telling of it.

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::ids::{BuildId, Micros};

/// The channel of what is not yet spread over the others.
pub const CHANGED: &str = "changed";

/// What happened that others are to be told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Changed {
    /// A build has this status now.
    Build {
        /// The status's word.
        status: String,
    },
    /// A trigger of a commit came to nothing because it could not be acted upon: the pipeline is not valid.
    Trigger {
        /// Its number.
        trigger: u64,
        /// The project.
        project: String,
        /// The commit.
        commit: String,
        /// Why, for people.
        reason: String,
    },
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its number. Receivers know the same message again by it.
    pub id: u64,
    /// The build that it is about.
    pub build: Option<BuildId>,
    /// [`CHANGED`], `github-status`, `github-check`, `github-comment`, or `notify.NAME`.
    pub channel: String,
    /// A newer message of a topic takes the place of an older one that was not sent.
    pub topic: String,
    /// JSON.
    pub body: String,
    /// When it was written.
    pub made_at: Micros,
    /// Tries so far that failed.
    pub tries: u32,
    /// When the next try is due.
    pub next_at: Micros,
    /// Why the last try failed.
    pub problem: String,
    /// When it was told, or a newer one took its place.
    pub done_at: Option<Micros>,
    /// When it was given up.
    pub gave_up: Option<Micros>,
}

const COLUMNS: &str = "id, build, channel, topic, body, made_at, tries, next_at, problem, done_at, gave_up";

fn row(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    Ok(OutboxRow {
        id: row.get(0)?,
        build: row.get::<_, Option<u64>>(1)?.map(BuildId),
        channel: row.get(2)?,
        topic: row.get(3)?,
        body: row.get(4)?,
        made_at: Micros(row.get(5)?),
        tries: row.get(6)?,
        next_at: Micros(row.get(7)?),
        problem: row.get(8)?,
        done_at: row.get::<_, Option<i64>>(9)?.map(Micros),
        gave_up: row.get::<_, Option<i64>>(10)?.map(Micros),
    })
}

/// A message for one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The build that it is about.
    pub build: Option<BuildId>,
    /// Where it goes.
    pub channel: String,
    /// See [`OutboxRow::topic`].
    pub topic: String,
    /// JSON.
    pub body: String,
}

/// Notes that a build has another status, to be told.
///
/// # Errors
/// The database's.
pub fn changed(tx: &Connection, build: BuildId, status: &str, at: Micros) -> Result<(), StoreError> {
    let body = serde_json::to_string(&Changed::Build { status: status.to_owned() })?;
    // Each status is told on its own: whoever wants to hear of failures hears of one that was retried at once, too.
    let topic = format!("build/{}", build.0);
    insert(tx, &Message { build: Some(build), channel: CHANGED.to_owned(), topic, body }, at)
}

/// Notes that a trigger came to nothing, to be told.
///
/// # Errors
/// The database's.
pub fn came_to_nothing(tx: &Connection, changed: &Changed, at: Micros) -> Result<(), StoreError> {
    let body = serde_json::to_string(changed)?;
    insert(tx, &Message { build: None, channel: CHANGED.to_owned(), topic: "trigger".to_owned(), body }, at)
}

fn insert(tx: &Connection, new: &Message, at: Micros) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO outbox (build, channel, topic, body, made_at, next_at) VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
    )?
    .execute(params![new.build.map(|build| build.0), new.channel, new.topic, new.body, at.0])?;
    Ok(())
}

/// Puts messages where a change was, which is done with that. Unsent older ones of the same topic are done with, too.
///
/// # Errors
/// The database's.
pub fn spread(tx: &Connection, changed: u64, messages: &[Message], at: Micros) -> Result<(), StoreError> {
    done(tx, changed, at)?;
    for message in messages {
        tx.prepare_cached(
            "UPDATE outbox SET done_at = ?3, problem = 'a newer message took its place' \
             WHERE channel = ?1 AND topic = ?2 AND done_at IS NULL AND gave_up IS NULL",
        )?
        .execute(params![message.channel, message.topic, at.0])?;
        insert(tx, message, at)?;
    }
    Ok(())
}

/// What is due, oldest first.
///
/// # Errors
/// The database's.
pub fn due(db: &Connection, at: Micros, limit: usize) -> Result<Vec<OutboxRow>, StoreError> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM outbox INDEXED BY outbox_open \
         WHERE done_at IS NULL AND gave_up IS NULL AND next_at <= ?1 ORDER BY next_at, id LIMIT ?2"
    ))?;
    let rows = query.query_map(params![at.0, limit], row)?;
    rows.map(|row| Ok(row?)).collect()
}

/// Whether a message is still to be told, and now.
///
/// # Errors
/// The database's.
pub fn is_due(db: &Connection, id: u64, at: Micros) -> Result<bool, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT 1 FROM outbox WHERE id = ?1 AND done_at IS NULL AND gave_up IS NULL AND next_at <= ?2",
    )?;
    Ok(query.exists(params![id, at.0])?)
}

/// Lets all that a receiver is to be told wait until a moment: `github` for its channels, else the channel.
///
/// # Errors
/// The database's.
pub fn hold(tx: &Connection, receiver: &str, until: Micros) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE outbox SET next_at = max(next_at, ?2) WHERE done_at IS NULL AND gave_up IS NULL \
         AND (channel = ?1 OR (?1 = 'github' AND channel LIKE 'github-%'))",
    )?
    .execute(params![receiver, until.0])?;
    Ok(())
}

/// How many messages wait.
///
/// # Errors
/// The database's.
pub fn waiting(db: &Connection) -> Result<u64, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT count(*) FROM outbox INDEXED BY outbox_open WHERE done_at IS NULL AND gave_up IS NULL",
    )?;
    Ok(query.query_row([], |row| row.get(0))?)
}

/// It was told.
///
/// # Errors
/// The database's.
pub fn done(tx: &Connection, id: u64, at: Micros) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE outbox SET done_at = ?2, problem = '' WHERE id = ?1 AND done_at IS NULL")?
        .execute(params![id, at.0])?;
    Ok(())
}

/// It could not be told, and is tried again at `next`.
///
/// # Errors
/// The database's.
pub fn later(tx: &Connection, id: u64, problem: &str, next: Micros) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE outbox SET tries = tries + 1, problem = ?2, next_at = ?3 WHERE id = ?1")?
        .execute(params![id, problem, next.0])?;
    Ok(())
}

/// It cannot be told.
///
/// # Errors
/// The database's.
pub fn give_up(tx: &Connection, id: u64, problem: &str, at: Micros) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE outbox SET tries = tries + 1, problem = ?2, gave_up = ?3 WHERE id = ?1")?
        .execute(params![id, problem, at.0])?;
    Ok(())
}

/// The newest message of each channel about a build, oldest first; what is not spread yet is not among them.
///
/// # Errors
/// The database's.
pub fn of_build(db: &Connection, build: BuildId) -> Result<Vec<OutboxRow>, StoreError> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM outbox o WHERE build = ?1 AND channel <> ?2 AND NOT EXISTS \
           (SELECT 1 FROM outbox n WHERE n.build = o.build AND n.channel = o.channel AND n.topic = o.topic AND n.id > o.id) \
         ORDER BY id LIMIT 100"
    ))?;
    let rows = query.query_map(params![build.0, CHANGED], row)?;
    rows.map(|row| Ok(row?)).collect()
}

/// Removes messages that are about no build and older than a moment: at most `limit`. Says how many went.
///
/// # Errors
/// The database's.
pub fn remove_old(tx: &Connection, before: Micros, limit: usize) -> Result<usize, StoreError> {
    Ok(tx
        .prepare_cached(
            "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox INDEXED BY outbox_by_build \
             WHERE build IS NULL AND made_at < ?1 AND (done_at IS NOT NULL OR gave_up IS NOT NULL) ORDER BY id LIMIT ?2)",
        )?
        .execute(params![before.0, limit])?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::Store;

    fn message(channel: &str, topic: &str, body: &str) -> Message {
        Message { build: None, channel: channel.to_owned(), topic: topic.to_owned(), body: body.to_owned() }
    }

    async fn bodies(store: &Arc<Store>, at: i64) -> Vec<String> {
        let due = store.read(move |db| due(db, Micros(at), 10)).await.expect("read");
        due.into_iter().map(|row| format!("{} {}", row.channel, row.body)).collect()
    }

    async fn spread_at(store: &Store, at: i64, messages: Vec<Message>) {
        let made = store.write(move |tx| {
            came_to_nothing(tx, &Changed::Build { status: "x".to_owned() }, Micros(at))?;
            let row = due(tx, Micros(at), 100)?.into_iter().find(|row| row.channel == CHANGED).expect("the change");
            spread(tx, row.id, &messages, Micros(at))
        });
        made.await.expect("written");
    }

    #[tokio::test]
    async fn a_newer_message_takes_the_place_of_an_unsent_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(&folder.path().join("s.db")).expect("opens"));
        let first = vec![message("github-status", "c1", "pending"), message("github-status", "c2", "other")];
        spread_at(&store, 1, first).await;
        spread_at(&store, 2, vec![message("github-status", "c1", "success"), message("notify.a", "c1", "note")]).await;
        assert_eq!(bodies(&store, 5).await, ["github-status other", "github-status success", "notify.a note"]);
        assert!(bodies(&store, 0).await.is_empty());

        let rows = store.read(|db| due(db, Micros(5), 10)).await.expect("read");
        let ids: Vec<u64> = rows.iter().map(|row| row.id).collect();
        let (one, two, three) = (ids[0], ids[1], ids[2]);
        let moved = store.write(move |tx| {
            done(tx, one, Micros(6))?;
            later(tx, two, "503", Micros(50))?;
            give_up(tx, three, "422", Micros(6))
        });
        moved.await.expect("written");
        assert!(bodies(&store, 49).await.is_empty());
        assert_eq!(bodies(&store, 50).await, ["github-status success"]);
        let row = store.read(|db| due(db, Micros(50), 10)).await.expect("read").remove(0);
        assert_eq!((row.tries, row.problem.as_str()), (1, "503"));
        assert_eq!(store.read(waiting).await.expect("read"), 1);
        let gone = store.write(|tx| remove_old(tx, Micros(100), 100)).await.expect("written");
        assert_eq!(gone, 5, "what is open stays");
    }
}
