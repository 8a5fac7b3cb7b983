//! The only SQL: a SQLite database in WAL mode. A write that returned is on the disk.
//!
//! One thread writes. Whatever waits when it comes round goes into one transaction, each caller's part in a savepoint of its
//! own, so that many builds share one sync of the disk. Readers have connections of their own and never wait for it.

pub mod access;
pub mod attempts;
pub mod builds;
pub mod clock;
pub mod deliveries;
pub mod deployments;
pub mod events;
pub mod find;
pub mod glance;
pub mod heads;
pub mod idempotency;
pub mod inspect;
pub mod models;
pub mod outbox;
pub mod queue;
pub mod results;
pub mod retention;
pub mod roots;
pub mod secrets;
pub mod sessions;
pub mod settings;
pub mod snapshot;
pub mod triggers;
pub mod verdicts;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tokio::sync::{Semaphore, oneshot};

/// What can go wrong. The variants differ because callers act differently.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full: wait for space and try again.
    #[error("the disk of the data folder is full")]
    Full,
    /// Another process holds the database for long: try again.
    #[error("the database is busy")]
    Busy,
    /// Something that must be there is not.
    #[error("{0}")]
    Missing(String),
    /// Another decision came first.
    #[error("{0}")]
    Conflict(String),
    /// Stored data that cannot be read: damaged, or written by a newer version.
    #[error("the database holds what this version cannot read: {0}")]
    Corrupt(String),
    /// Anything else.
    #[error("database: {0}")]
    Other(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        // SQLite's numbers end at 2^63 - 1, so nothing has a greater one.
        if let rusqlite::Error::ToSqlConversionFailure(_) = error {
            return StoreError::Missing("nothing has a number as large as that".to_owned());
        }
        // SQLite's own code for a full disk is not used where the shared memory of the log (`-shm`) cannot grow.
        let extended = error.sqlite_error().map(|error| error.extended_code);
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Full,
            _ if extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => StoreError::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt(error.to_string()),
            _ => StoreError::Other(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        StoreError::Corrupt(error.to_string())
    }
}

/// An open transaction, or a reader's connection.
pub type Tx = Connection;

/// A caller's part of a transaction. It says whether it is to be kept, and how to answer once the commit's result is known.
type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) -> (bool, Reply) + Send>;
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Jobs that may wait for the writer. A caller beyond this waits for a place.
const QUEUE: usize = 256;
/// Reads at once, each with a thread and a connection: one more than two processors, so that a slow one does not hold up all others.
const READERS: std::ops::RangeInclusive<usize> = 3..=4;
/// KiB of pages that a reader keeps, as SQLite wants it said.
const READER_CACHE: i64 = -512;
/// Waits for another process's write: so often, so long each. A commit takes about a millisecond, so SQLite's own waits (up to
/// 100 ms each) would leave builds of several processes standing idle.
const BUSY_WAITS: [(i32, Duration); 3] =
    [(40, Duration::from_micros(250)), (100, Duration::from_millis(1)), (2000, Duration::from_millis(10))];

const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001-builds-and-models.sql"),
    include_str!("migrations/0002-one-deployment.sql"),
    include_str!("migrations/0003-daemon.sql"),
    include_str!("migrations/0004-champions.sql"),
    include_str!("migrations/0005-finding-builds.sql"),
];

/// The database of a data folder.
pub struct Store {
    path: PathBuf,
    jobs: mpsc::SyncSender<Job>,
    readers: Mutex<Vec<Connection>>,
    /// Reads under way at most: each takes a thread and a connection.
    reading: Semaphore,
    /// Random, made with the database: marks this folder's containers and processes.
    pub instance: String,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database, making or migrating it.
    ///
    /// # Errors
    /// If it cannot be opened, or was written by a newer version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_measured(path, |_| {})
    }

    /// As [`Store::open`]; `measured` is told how long each commit took to be on the disk.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_measured(path: &Path, measured: impl Fn(Duration) + Send + 'static) -> Result<Self, StoreError> {
        let mut connection = connect(path, OpenFlags::default())?;
        migrate(&mut connection)?;
        let instance = instance(&connection)?;
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_loop(connection, &queue, measured))
            .map_err(|error| StoreError::Other(format!("cannot start the writer: {error}")))?;
        Ok(Self {
            path: path.to_owned(),
            jobs,
            readers: Mutex::default(),
            reading: Semaphore::new(readers()),
            instance,
        })
    }

    /// Runs `part` in a transaction. When this returns `Ok`, it is on the disk; on `Err` nothing of it happened.
    ///
    /// # Errors
    /// `part`'s own, or the commit's.
    pub async fn write<T, F>(&self, part: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let mut job: Job = Box::new(move |tx| {
            let done = tx.and_then(part);
            let keep = done.is_ok();
            let reply: Reply = Box::new(move |committed| {
                // The caller may have gone away; its part is committed all the same.
                let _ = sender.send(done.and_then(|value| committed.map(|()| value)));
            });
            (keep, reply)
        });
        // The queue is bounded. A full one means that the disk is slow; look again soon rather than block the runtime.
        loop {
            match self.jobs.try_send(job) {
                Ok(()) => break,
                Err(mpsc::TrySendError::Full(back)) => {
                    job = back;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(gone()),
            }
        }
        receiver.await.map_err(|_| gone())?
    }

    /// Runs a query on a reader connection, on a thread where it may block.
    ///
    /// # Errors
    /// `query`'s own.
    pub async fn read<T, F>(self: &std::sync::Arc<Self>, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let store = std::sync::Arc::clone(self);
        // Many pages look at once when something happens; they take turns.
        let _turn = self.reading.acquire().await.map_err(|error| StoreError::Other(error.to_string()))?;
        tokio::task::spawn_blocking(move || store.read_now(query))
            .await
            .map_err(|error| StoreError::Other(error.to_string()))?
    }

    fn read_now<T>(&self, query: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let kept = self.readers.lock().ok().and_then(|mut readers| readers.pop());
        let connection = match kept {
            Some(connection) => connection,
            None => connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?,
        };
        let answer = query(&connection);
        if let Ok(mut readers) = self.readers.lock()
            && readers.len() < *READERS.end()
        {
            readers.push(connection);
        }
        answer
    }
}

/// How many reads at once this machine is for.
fn readers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).clamp(*READERS.start(), *READERS.end())
}

fn gone() -> StoreError {
    StoreError::Other("the writer has ended".to_owned())
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|error| StoreError::Other(format!("cannot open {}: {error}", path.display())))?;
    connection.busy_handler(Some(wait_for_other))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    if !flags.contains(OpenFlags::SQLITE_OPEN_READ_ONLY) {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // In WAL mode FULL syncs at each commit: what was answered stays.
        connection.pragma_update(None, "synchronous", "FULL")?;
    } else {
        // The system keeps the pages as well; several readers' copies of them would be most of an idle daemon's own memory.
        connection.pragma_update(None, "cache_size", READER_CACHE)?;
    }
    Ok(connection)
}

/// Called again and again while another process writes, with the number of calls before; `false` gives up.
fn wait_for_other(before: i32) -> bool {
    let mut until = 0;
    let pause = BUSY_WAITS.iter().find_map(|(times, pause)| {
        until += times;
        (before < until).then_some(*pause)
    });
    pause.map(std::thread::sleep).is_some()
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    // Nearly always there is nothing to do, and then nothing is written, so that no disk is waited for.
    let known: usize = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if known == MIGRATIONS.len() {
        return Ok(());
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done: usize = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if done > MIGRATIONS.len() {
        return Err(StoreError::Corrupt(format!(
            "its schema is version {done}, this program knows {}; use a newer orchestrator",
            MIGRATIONS.len()
        )));
    }
    for script in &MIGRATIONS[done..] {
        tx.execute_batch(script)?;
    }
    tx.pragma_update(None, "user_version", MIGRATIONS.len())?;
    tx.execute(
        "INSERT INTO meta (name, value) VALUES ('instance', lower(hex(randomblob(4)))) ON CONFLICT DO NOTHING",
        [],
    )?;
    tx.commit()?;
    Ok(())
}

fn instance(connection: &Connection) -> Result<String, StoreError> {
    Ok(connection.query_row("SELECT value FROM meta WHERE name = 'instance'", [], |row| row.get(0))?)
}

fn write_loop(mut connection: Connection, queue: &mpsc::Receiver<Job>, measured: impl Fn(Duration)) {
    while let Ok(first) = queue.recv() {
        let batch: Vec<Job> = std::iter::once(first).chain(queue.try_iter().take(QUEUE)).collect();
        let mut replies: Vec<Reply> = Vec::with_capacity(batch.len());
        let begun = Instant::now();
        let committed = commit(&mut connection, batch, &mut replies);
        measured(begun.elapsed());
        for reply in replies {
            reply(committed.as_ref().map(|_| ()).map_err(again));
        }
    }
}

/// Errors cannot be cloned, and each caller of a failed commit gets its own.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full => StoreError::Full,
        StoreError::Busy => StoreError::Busy,
        StoreError::Missing(text) => StoreError::Missing(text.clone()),
        StoreError::Conflict(text) => StoreError::Conflict(text.clone()),
        StoreError::Corrupt(text) => StoreError::Corrupt(text.clone()),
        StoreError::Other(text) => StoreError::Other(text.clone()),
    }
}

fn commit(connection: &mut Connection, batch: Vec<Job>, replies: &mut Vec<Reply>) -> Result<(), StoreError> {
    let mut tx = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(tx) => tx,
        Err(error) => {
            let error = StoreError::from(error);
            replies.extend(batch.into_iter().map(|job| job(Err(again(&error))).1));
            return Err(error);
        }
    };
    for job in batch {
        match tx.savepoint() {
            Ok(savepoint) => {
                let (keep, reply) = job(Ok(&savepoint));
                replies.push(reply);
                // Dropping a savepoint rolls it back.
                if keep {
                    savepoint.commit()?;
                }
            }
            Err(error) => replies.push(job(Err(error.into())).1),
        }
    }
    tx.commit()?;
    Ok(())
}

#[cfg(test)]
mod migration_tests;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_failed_part_leaves_nothing_and_its_neighbours_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&folder.path().join("db")).unwrap());
        let put = |name: &'static str, fail: bool| {
            let store = Arc::clone(&store);
            async move {
                store
                    .write(move |tx| {
                        tx.execute("INSERT INTO meta VALUES (?1, 'x')", [name])?;
                        if fail { Err(StoreError::Conflict("no".to_owned())) } else { Ok(()) }
                    })
                    .await
            }
        };
        let (a, b, c) = tokio::join!(put("a", false), put("b", true), put("c", false));
        assert!(a.is_ok() && c.is_ok());
        assert!(matches!(b, Err(StoreError::Conflict(_))));
        let names: i64 = store
            .read(|db| Ok(db.query_row("SELECT count(*) FROM meta WHERE name IN ('a','b','c')", [], |r| r.get(0))?))
            .await
            .unwrap();
        assert_eq!(names, 2);
    }

    #[test]
    fn a_newer_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        drop(Store::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::Corrupt(_))));
    }
}
