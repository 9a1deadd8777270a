//! A small SQLite database that a provider keeps beside the state: opened when it is first used, and then
//! by one thread, which commits all that waits at once.
//!
//! A file can be shared by several hosts; SQLite's own locks keep them apart. An answer of `Ok` means that
//! the work is on disk. An opening that fails is reported to those who wait, and tried again later; the
//! time between attempts doubles.

use crate::state::sqlite::SqliteOptions;
use crate::state::sqlite::connection::connect;
use crate::state::sqlite::error::Origin;
use dhow_blocks::error::BlockError;
use dhow_blocks::state::StateError;
use parking_lot::Mutex;
use rusqlite::{Connection, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Requests that wait at most.
const QUEUE: usize = 4096;

/// Requests that one commit covers at most.
const MAX_BATCH: usize = 256;

/// Prepared statements that are kept: more than any provider has.
const STATEMENTS: usize = 64;

/// A request is answered within this time, or told that it was not.
const TIMEOUT: Duration = Duration::from_secs(20);

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// The database, whether it is open yet or not.
pub(crate) struct Database {
    place: Place,
    /// What errors are about; none for a database in memory.
    origin: Option<Arc<Origin>>,
    /// Creates what is missing; the same text may run again and again.
    schema: &'static str,
    /// Whether a commit waits for the disk.
    flushed: bool,
    /// How to reach the thread; none until the first request, and after the last one.
    thread: Mutex<Option<Sender<Message>>>,
    /// Closed when the database is.
    room: Arc<Semaphore>,
}

/// Where a database is.
#[derive(Clone, Debug)]
enum Place {
    Memory,
    File(Box<SqliteOptions>),
}

enum Message {
    Request {
        work: Work,
        _room: OwnedSemaphorePermit,
    },
    /// The same, outside of any transaction.
    Look {
        work: Work,
        _room: OwnedSemaphorePermit,
    },
    Close(oneshot::Sender<()>),
}

/// Does something in a transaction, or learns why there is none, and leaves behind how to answer it when the
/// transaction has ended.
type Work = Box<dyn FnOnce(Result<&Connection, BlockError>) -> Reply + Send>;
type Reply = Box<dyn FnOnce(Result<(), BlockError>)>;

/// The thread's part.
struct Thread {
    place: Place,
    schema: &'static str,
    flushed: bool,
    origin: Option<Arc<Origin>>,
    connection: Option<Connection>,
    /// Why the last opening failed, and when the next one is due.
    failure: Option<(BlockError, Instant, Duration)>,
}

// === impl Database ===

impl Database {
    /// A database in a file that nobody has to have created. Nothing happens before the first request.
    pub(crate) fn file(path: PathBuf, schema: &'static str) -> Database {
        Database::new(Place::File(Box::new(SqliteOptions::new(path))), schema)
    }

    /// The same, with options of one's own; the table that they name means nothing here.
    pub(crate) fn with_options(options: SqliteOptions, schema: &'static str) -> Database {
        Database::new(Place::File(Box::new(options)), schema)
    }

    /// The same database, of which nothing has to outlive the machine: a commit does not wait for the disk.
    pub(crate) fn unflushed(self) -> Database {
        Database { flushed: false, ..self }
    }

    /// A database that ends with this value.
    pub(crate) fn memory(schema: &'static str) -> Database {
        Database::new(Place::Memory, schema)
    }

    fn new(place: Place, schema: &'static str) -> Database {
        let origin = match &place {
            Place::Memory => None,
            Place::File(options) => Some(Arc::new(Origin::new(options))),
        };
        let room = Arc::new(Semaphore::new(QUEUE));
        Database { place, origin, schema, flushed: true, thread: Mutex::new(None), room }
    }

    /// The file, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Memory => None,
            Place::File(options) => Some(&options.path),
        }
    }

    /// Whether somebody has used it, here or in another process.
    pub(crate) fn exists(&self) -> bool {
        self.thread.lock().is_some() || self.path().is_some_and(Path::exists)
    }

    /// Runs `work` in a transaction, and answers when that is committed. An error undoes what `work` did.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, BlockError> {
        self.ask(|work, _room| Message::Request { work, _room }, |connection| in_savepoint(connection, work))
            .await
    }

    /// Runs `work`, which only reads, without taking any lock that another process could wait for.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, BlockError> {
        self.ask(|work, _room| Message::Look { work, _room }, work).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        message: fn(Work, OwnedSemaphorePermit) -> Message,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, BlockError> {
        let room = Arc::clone(&self.room).acquire_owned();
        let run = async {
            let room = room.await.map_err(|_| closed())?;
            let (reply, answer) = oneshot::channel::<Result<T, BlockError>>();
            let origin = self.origin.clone();
            let work: Work = Box::new(move |connection| {
                let done = connection.and_then(|connection| {
                    work(connection).map_err(|error| explain(origin.as_deref(), &error))
                });
                Box::new(move |committed| {
                    // Who has stopped waiting needs no answer.
                    let _ = reply.send(committed.and(done));
                })
            });
            self.send(message(work, room))?;
            answer.await.map_err(|_| closed())?
        };
        match tokio::time::timeout(TIMEOUT, run).await {
            Ok(answer) => answer,
            Err(_) => Err(BlockError::unavailable(format!(
                "{} did not answer within {TIMEOUT:?}: the disk is slow, or too much is written at once",
                self.path().map_or("the database".to_owned(), |path| path.display().to_string())
            ))),
        }
    }

    /// Finishes what was accepted and closes the file; later requests are refused.
    pub(crate) async fn close(&self) {
        self.room.close();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let (reply, finished) = oneshot::channel();
            if thread.send(Message::Close(reply)).is_ok() {
                // An error says that the thread has ended already.
                let _ = finished.await;
            }
        }
    }

    fn send(&self, message: Message) -> Result<(), BlockError> {
        let mut thread = self.thread.lock();
        let queue = match &*thread {
            Some(queue) => queue,
            None if self.room.is_closed() => return Err(closed()),
            None => {
                let (queue, messages) = channel();
                let worker = Thread {
                    place: self.place.clone(),
                    schema: self.schema,
                    flushed: self.flushed,
                    origin: self.origin.clone(),
                    connection: None,
                    failure: None,
                };
                // Not joined: it ends when the database is closed or dropped.
                std::thread::Builder::new()
                    .name("database".to_owned())
                    .spawn(move || worker.run(&messages))
                    .map_err(|error| BlockError::unavailable(format!("cannot start a thread: {error}")))?;
                thread.insert(queue)
            }
        };
        queue.send(message).map_err(|_| closed())
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("place", &self.place).finish_non_exhaustive()
    }
}

// === impl Thread ===

impl Thread {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            let mut batch = Vec::new();
            let mut close = None;
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Request { work, _room } => batch.push((work, _room)),
                    Message::Look { work, _room } => match self.open() {
                        Ok(connection) => work(Ok(connection))(Ok(())),
                        Err(error) => work(Err(error))(Ok(())),
                    },
                    Message::Close(reply) => {
                        close = Some(reply);
                        break;
                    }
                }
                next = if batch.len() < MAX_BATCH { messages.try_recv().ok() } else { None };
            }
            self.answer(batch);
            if let Some(reply) = close {
                drop(self.connection.take());
                let _ = reply.send(());
                return;
            }
        }
    }

    fn answer(&mut self, batch: Vec<(Work, OwnedSemaphorePermit)>) {
        if batch.is_empty() {
            return;
        }
        let origin = self.origin.clone();
        let connection = match self.open() {
            Ok(connection) => connection,
            Err(error) => {
                return batch.into_iter().for_each(|(work, _room)| work(Err(error.clone()))(Ok(())));
            }
        };
        // The connection is this thread's alone, and no transaction is open between two batches.
        let transaction = rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate);
        let (replies, committed): (Vec<_>, _) = match transaction {
            Ok(transaction) => {
                let work = |(work, room): (Work, _)| (work(Ok(&transaction)), room);
                let replies = batch.into_iter().map(work).collect();
                (replies, transaction.commit().map_err(|error| explain(origin.as_deref(), &error)))
            }
            Err(error) => {
                let error = explain(origin.as_deref(), &error);
                let refuse = |(work, room): (Work, _)| (work(Err(error.clone())), room);
                (batch.into_iter().map(refuse).collect(), Ok(()))
            }
        };
        for (reply, _room) in replies {
            reply(committed.clone());
        }
    }

    fn open(&mut self) -> Result<&Connection, BlockError> {
        if self.connection.is_none() {
            if let Some((error, next, _)) = &self.failure
                && Instant::now() < *next
            {
                return Err(error.clone());
            }
            match self.connect() {
                Ok(connection) => {
                    self.failure = None;
                    self.connection = Some(connection);
                }
                Err(error) => {
                    let delay = self.failure.as_ref().map_or(FIRST_DELAY, |(_, _, delay)| *delay * 2);
                    let delay = delay.min(LONGEST_DELAY);
                    self.failure = Some((error.clone(), Instant::now() + delay, delay));
                    return Err(error);
                }
            }
        }
        self.connection.as_ref().ok_or_else(closed)
    }

    fn connect(&self) -> Result<Connection, BlockError> {
        let connection = match (&self.place, &self.origin) {
            (Place::File(options), Some(origin)) => connect(options, origin).map_err(from_state)?,
            _ => Connection::open_in_memory().map_err(|error| explain(None, &error))?,
        };
        let create = || {
            if !self.flushed {
                connection.pragma_update(None, "synchronous", "OFF")?;
            }
            let transaction =
                rusqlite::Transaction::new_unchecked(&connection, TransactionBehavior::Immediate)?;
            transaction.execute_batch(self.schema)?;
            transaction.commit()
        };
        create().map_err(|error| explain(self.origin.as_deref(), &error))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(connection)
    }
}

/// One request of a batch: its error undoes its own steps and no other's.
fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let execute = |sql| connection.prepare_cached(sql)?.execute([]);
    execute("SAVEPOINT request")?;
    let done = work(connection);
    if done.is_err() {
        execute("ROLLBACK TO request")?;
    }
    execute("RELEASE request")?;
    done
}

fn explain(origin: Option<&Origin>, error: &rusqlite::Error) -> BlockError {
    match origin {
        Some(origin) => from_state(origin.explain(error)),
        None => BlockError::failed(error.to_string()),
    }
}

fn from_state(error: StateError) -> BlockError {
    match error {
        StateError::Unavailable { reason } => BlockError::Unavailable { reason },
        StateError::Failed { reason } => BlockError::Failed { reason },
        error => BlockError::failed(error.to_string()),
    }
}

fn closed() -> BlockError {
    BlockError::unavailable("the database is closed, because the host is shutting down")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS t (v INTEGER)";

    fn insert(value: i64) -> impl FnOnce(&Connection) -> rusqlite::Result<usize> + Send + 'static {
        move |connection| connection.execute("INSERT INTO t VALUES (?1)", [value])
    }

    async fn sum(database: &Database) -> i64 {
        let sum = |connection: &Connection| {
            connection.query_row("SELECT coalesce(sum(v), 0) FROM t", [], |row| row.get(0))
        };
        database.run(sum).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_error_undoes_one_request() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/t.db");
        let database = Arc::new(Database::file(path.clone(), SCHEMA));
        assert!(!database.exists() && !path.exists(), "opened before it was used");
        let tasks: Vec<_> = (1..=100)
            .map(|value| {
                let database = Arc::clone(&database);
                tokio::spawn(async move {
                    let work = move |connection: &Connection| {
                        insert(value)(connection)?;
                        if value % 2 == 0 {
                            connection.execute("INSERT INTO nowhere VALUES (1)", [])
                        } else {
                            Ok(1)
                        }
                    };
                    database.run(work).await.is_ok()
                })
            })
            .collect();
        for (index, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), index % 2 == 0);
        }
        assert_eq!(sum(&database).await, 2500);
        database.close().await;
        assert!(matches!(database.run(insert(1)).await, Err(BlockError::Unavailable { .. })));
        let again = Database::file(path, SCHEMA);
        assert!(again.exists());
        assert_eq!(sum(&again).await, 2500);
    }

    #[tokio::test]
    async fn an_opening_that_fails_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        std::fs::create_dir(&path).unwrap();
        let database = Database::file(path.clone(), SCHEMA);
        let error = database.run(insert(1)).await.unwrap_err();
        assert!(error.to_string().contains("is a folder"), "{error}");
        std::fs::remove_dir(&path).unwrap();
        // Bounded by the delay between two attempts.
        let opened = tokio::time::timeout(Duration::from_secs(10), async {
            while database.run(insert(1)).await.is_err() {}
        });
        opened.await.unwrap();
        assert_eq!(sum(&database).await, 1);
    }

    #[tokio::test]
    async fn a_look_waits_for_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let options = SqliteOptions { busy_timeout: Duration::from_millis(10), ..SqliteOptions::new(&path) };
        let database = Database::with_options(options, SCHEMA);
        database.run(insert(3)).await.unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (4)").unwrap();
        let sum = |connection: &Connection| {
            connection.query_row("SELECT sum(v) FROM t", [], |row| row.get::<_, i64>(0))
        };
        assert_eq!(database.look(sum).await, Ok(3));
        assert!(matches!(database.run(insert(1)).await, Err(BlockError::Unavailable { .. })));
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(database.look(sum).await, Ok(7));
        database.close().await;
        assert!(database.look(sum).await.is_err());
    }

    #[tokio::test]
    async fn memory() {
        let database = Database::memory(SCHEMA);
        assert!(!database.exists());
        database.run(insert(3)).await.unwrap();
        assert_eq!(sum(&database).await, 3);
        database.close().await;
        assert!(database.run(insert(3)).await.is_err());
    }
}
