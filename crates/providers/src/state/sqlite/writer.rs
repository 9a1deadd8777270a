//! The writer thread: takes all that waits, commits once, answers everybody.
//!
//! One request never spoils another. A refusal (say, an etag that does not match) undoes only its own steps.
//! When the transaction as a whole breaks (disk full, I/O error), each request of the batch is tried again
//! alone, so that only those that cannot be written are refused. The queue is bounded by the bytes in it;
//! who finds it full waits for a while and is then refused, which is how load is pushed back to callers.

use super::super::{closed, sum};
use super::SqliteOptions;
use super::error::{Origin, is_busy};
use super::row;
use super::statements::Statements;
use dhow_blocks::state::{Concurrency, Delete, Operation, Set, StateError};
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

/// What the queue holds at most, in units of [`UNIT_BYTES`]; a request counts as one at least.
const QUEUE_UNITS: u32 = 8192;
const UNIT_BYTES: usize = 16 * 1024;

/// Requests that one commit covers at most, so that the first of them does not wait for long.
const MAX_BATCH: usize = 512;

/// Expired rows that one transaction removes at most; requests that wait go first.
const CLEAN_UP_ROWS: usize = 256;

/// The sending half: how the store reaches its writer thread.
pub(super) struct Writer {
    queue: Sender<Message>,
    /// Closed when the store is closed.
    room: Arc<Semaphore>,
    timeout: Duration,
}

/// What a caller wants written.
pub(super) enum Work {
    One(Operation),
    Many(Vec<Operation>),
    Increment {
        key: String,
        delta: i64,
    },
    /// Nothing; the answer tells that the writer can begin and end a transaction.
    Ping,
}

enum Message {
    Write(Job),
    /// Answered when the connection is closed.
    Close(oneshot::Sender<()>),
}

struct Job {
    work: Work,
    /// The sum for an increment, otherwise 0.
    reply: oneshot::Sender<Result<i64, StateError>>,
    /// Gives its room back when the job is answered.
    _room: OwnedSemaphorePermit,
}

/// The receiving half, on its own thread.
struct Thread {
    connection: Connection,
    statements: Arc<Statements>,
    origin: Arc<Origin>,
    cleanup_interval: Option<Duration>,
}

/// Why a request was not carried out.
enum Stop {
    /// The request is at fault.
    Refused(StateError),
    /// The database is.
    Broken(rusqlite::Error),
}

// === impl Writer ===

impl Writer {
    pub(super) fn start(
        connection: Connection,
        statements: Arc<Statements>,
        origin: Arc<Origin>,
        options: &SqliteOptions,
    ) -> Result<Writer, StateError> {
        let (queue, messages) = channel();
        let thread = Thread { connection, statements, origin, cleanup_interval: options.cleanup_interval };
        // Not joined: it ends when the store is closed or dropped.
        std::thread::Builder::new()
            .name("state-writer".to_owned())
            .spawn(move || thread.run(&messages))
            .map_err(|error| StateError::Unavailable { reason: format!("cannot start a thread: {error}") })?;
        let room = Arc::new(Semaphore::new(QUEUE_UNITS as usize));
        Ok(Writer { queue, room, timeout: options.timeout })
    }

    /// Queues the work and waits until it is committed or refused.
    pub(super) async fn submit(&self, work: Work) -> Result<i64, StateError> {
        let units = work.units();
        let room = match Arc::clone(&self.room).try_acquire_many_owned(units) {
            Ok(room) => room,
            Err(TryAcquireError::Closed) => return Err(closed()),
            Err(TryAcquireError::NoPermits) => {
                let room = Arc::clone(&self.room).acquire_many_owned(units);
                match tokio::time::timeout(self.timeout, room).await {
                    Ok(room) => room.map_err(|_| closed())?,
                    Err(_) => {
                        let reason = format!(
                            "too many writes are waiting: no room in the queue for {:?}; write less at once, \
                             or use a faster disk",
                            self.timeout
                        );
                        return Err(StateError::Unavailable { reason });
                    }
                }
            }
        };
        let (reply, answer) = oneshot::channel();
        self.queue.send(Message::Write(Job { work, reply, _room: room })).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    pub(super) fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    /// From now on new work is refused.
    pub(super) fn refuse(&self) {
        self.room.close();
    }

    /// Waits until all accepted work is answered and the connection is closed.
    pub(super) async fn finish(&self) {
        let (reply, finished) = oneshot::channel();
        if self.queue.send(Message::Close(reply)).is_ok() {
            // An error says that the thread has ended already.
            finished.await.ok();
        }
    }
}

// === impl Work ===

impl Work {
    /// What the work weighs in the queue.
    fn units(&self) -> u32 {
        let bytes = |operation: &Operation| {
            operation.key().len()
                + match operation {
                    Operation::Set(set) => set.value.len(),
                    Operation::Delete(_) => 0,
                }
        };
        let bytes = match self {
            Work::One(operation) => bytes(operation),
            Work::Many(operations) => operations.iter().map(|operation| bytes(operation) + 64).sum(),
            Work::Increment { key, .. } => key.len(),
            Work::Ping => 0,
        };
        // What is larger than the whole queue may still pass, alone.
        u32::try_from(1 + bytes / UNIT_BYTES).unwrap_or(u32::MAX).min(QUEUE_UNITS)
    }
}

// === impl Thread ===

impl Thread {
    fn run(self, messages: &Receiver<Message>) {
        let mut batch = Vec::new();
        let mut next_cleanup = self.cleanup_interval.map(|interval| Instant::now() + interval);
        let close = loop {
            let first = match next_cleanup {
                Some(time) => messages.recv_timeout(time.saturating_duration_since(Instant::now())),
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let mut close = None;
            match first {
                Ok(message) => close = collect(message, messages, &mut batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break None,
            }
            if !batch.is_empty() {
                self.answer(&mut batch);
            }
            if close.is_some() {
                break close;
            }
            if let (Some(time), Some(interval)) = (next_cleanup, self.cleanup_interval)
                && time <= Instant::now()
            {
                let more = self.clean_up();
                next_cleanup = Some(Instant::now() + if more { Duration::ZERO } else { interval });
            }
        };
        drop(self.connection);
        if let Some(reply) = close {
            reply.send(()).ok();
        }
    }

    fn answer(&self, batch: &mut Vec<Job>) {
        let answers = match self.commit(batch) {
            Ok(answers) => answers,
            // Each alone would wait for the same lock again.
            Err(error) if batch.len() == 1 || is_busy(&error) => {
                let error = self.origin.explain(&error);
                batch.iter().map(|_| Err(error.clone())).collect()
            }
            Err(_) => batch.iter().map(|job| self.commit_alone(job)).collect(),
        };
        for (job, answer) in batch.drain(..).zip(answers) {
            // A caller that has gone away needs no answer.
            job.reply.send(answer).ok();
        }
    }

    fn commit_alone(&self, job: &Job) -> Result<i64, StateError> {
        match self.commit(std::slice::from_ref(job)) {
            Ok(mut answers) => answers.pop().unwrap_or_else(|| Err(closed())),
            Err(error) => Err(self.origin.explain(&error)),
        }
    }

    /// Runs all jobs in one transaction. An error means that nothing of it was written.
    fn commit(&self, batch: &[Job]) -> rusqlite::Result<Vec<Result<i64, StateError>>> {
        self.roll_back();
        self.execute("BEGIN IMMEDIATE")?;
        let now = SystemTime::now();
        let mut answers = Vec::with_capacity(batch.len());
        let mut run = || {
            for job in batch {
                answers.push(match self.work(&job.work, now) {
                    Ok(answer) => Ok(answer),
                    Err(Stop::Refused(error)) => Err(error),
                    Err(Stop::Broken(error)) => return Err(error),
                });
            }
            self.execute("COMMIT")
        };
        match run() {
            Ok(()) => Ok(answers),
            Err(error) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    /// Ends the transaction, unless SQLite has done so already, as it does after some errors.
    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.execute("ROLLBACK")
        {
            // The next transaction tries again before it begins.
            let path = self.origin.path.display();
            tracing::warn!(%path, %error, "a failed transaction could not be rolled back");
        }
    }

    fn work(&self, work: &Work, now: SystemTime) -> Result<i64, Stop> {
        match work {
            // A single statement undoes itself when it fails.
            Work::One(operation) => self.apply(operation, now)?,
            Work::Many(operations) => {
                self.execute("SAVEPOINT request")?;
                for operation in operations {
                    if let Err(stop) = self.apply(operation, now) {
                        if matches!(stop, Stop::Refused(_)) {
                            self.execute("ROLLBACK TO request")?;
                            self.execute("RELEASE request")?;
                        }
                        return Err(stop);
                    }
                }
                self.execute("RELEASE request")?;
            }
            Work::Increment { key, delta } => return self.increment(key, *delta, now),
            Work::Ping => {}
        }
        Ok(0)
    }

    fn apply(&self, operation: &Operation, now: SystemTime) -> Result<(), Stop> {
        let changed = match operation {
            Operation::Set(set) => self.set(set, now)?,
            Operation::Delete(Delete { key, etag: None }) => {
                self.connection.prepare_cached(&self.statements.delete)?.execute([key])?;
                1
            }
            Operation::Delete(Delete { key, etag: Some(etag) }) => {
                let mut statement = self.connection.prepare_cached(&self.statements.delete_etag)?;
                statement.execute((key, row::format_time(now), etag))?
            }
        };
        if changed == 0 {
            return Err(Stop::Refused(StateError::EtagMismatch { key: operation.key().to_owned() }));
        }
        Ok(())
    }

    /// Returns the number of rows written: 0 when the condition does not hold.
    fn set(&self, set: &Set, now: SystemTime) -> rusqlite::Result<usize> {
        let Set { key, value, json: _, etag, concurrency, ttl } = set;
        let (value, is_binary) = row::encode(value);
        let (new_etag, expiration) = (row::new_etag(), row::expiration(*ttl, now));
        match (etag, concurrency) {
            (Some(etag), _) => self.connection.prepare_cached(&self.statements.set_etag)?.execute((
                key,
                value,
                is_binary,
                new_etag,
                expiration,
                row::format_time(now),
                etag,
            )),
            (None, Concurrency::FirstWrite) => self
                .connection
                .prepare_cached(&self.statements.set_first)?
                .execute((key, value, is_binary, new_etag, expiration, row::format_time(now))),
            (None, Concurrency::LastWrite) => self
                .connection
                .prepare_cached(&self.statements.set)?
                .execute((key, value, is_binary, new_etag, expiration)),
        }
    }

    fn increment(&self, key: &str, delta: i64, now: SystemTime) -> Result<i64, Stop> {
        let mut statement = self.connection.prepare_cached(&self.statements.get)?;
        let mut rows = statement.query([key])?;
        let current = rows.next()?.map_or(Ok(None), |row| row::item(row, || now))?;
        drop(rows);
        let sum = sum(key, current.as_ref().map(|item| &item.value[..]), delta).map_err(Stop::Refused)?;
        if current.is_some() {
            let mut statement = self.connection.prepare_cached(&self.statements.set_number)?;
            statement.execute((key, sum.to_string(), row::new_etag()))?;
        } else {
            let set = Set { key: key.to_owned(), value: sum.to_string().into(), ..Set::default() };
            self.set(&set, now)?;
        }
        Ok(sum)
    }

    /// Removes some expired rows; `true` when there are more.
    fn clean_up(&self) -> bool {
        let now = row::format_time(SystemTime::now());
        let removed = self
            .connection
            .prepare_cached(&self.statements.clean_up)
            .and_then(|mut statement| statement.execute((now, CLEAN_UP_ROWS as i64)));
        match removed {
            Ok(removed) => removed == CLEAN_UP_ROWS,
            Err(error) => {
                let path = self.origin.path.display();
                tracing::warn!(%path, %error, "expired rows could not be removed; the next attempt is due in an interval");
                false
            }
        }
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }
}

/// Moves all that waits into the batch; returns the request to close, behind which nothing is taken.
fn collect(
    first: Message,
    messages: &Receiver<Message>,
    batch: &mut Vec<Job>,
) -> Option<oneshot::Sender<()>> {
    let mut next = Some(first);
    while let Some(message) = next {
        match message {
            Message::Write(job) => batch.push(job),
            Message::Close(reply) => return Some(reply),
        }
        next = if batch.len() < MAX_BATCH { messages.try_recv().ok() } else { None };
    }
    None
}

// === impl Stop ===

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Stop {
        Stop::Broken(error)
    }
}
