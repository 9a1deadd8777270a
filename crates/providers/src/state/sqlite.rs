//! `state.sqlite`: state in one SQLite file that survives the death of the process at any instant.
//!
//! **Writes** go through one thread that owns the only writing connection. It takes everything that waits,
//! runs it in one SQLite transaction and commits once (*group commit*): one flush to disk serves all writers
//! that came meanwhile, and `Ok` is answered only after it. Several hosts may share a file; SQLite's own
//! locks keep them apart.
//!
//! **Reads** run at once on the calling thread, on pooled read-only connections. Under write-ahead logging
//! they wait for nobody; should the file be locked all the same, the read moves to a blocking thread.
//! Files are read, not mapped into memory: a disk error under a mapping would be a signal that ends all apps
//! of the host, and with SQLite's page cache a mapping is not measurably faster for point reads.
//!
//! **The table** is Dapr's, so that an existing Dapr database works as it is, and Dapr can open ours:
//! `key`, `value`, `is_binary`, `etag` (a random UUID a write), `expiration_time`, `update_time`. A value
//! that is valid UTF-8 is stored as text with `is_binary = 0`, anything else as base64 with `is_binary = 1`;
//! both read back as the bytes that were written. `expiration_time` carries milliseconds behind Dapr's
//! format; the comparison that both sides make is one of text and comes out the same. What is ours alone is
//! a partial index over the rows that expire. Dapr keeps its schema version in a table named by
//! `metadataTableName`; the schema has had one version so far, so that table is neither needed nor written.
//!
//! | file | subject |
//! |---|---|
//! | `component` | from Dapr's metadata fields to [`SqliteOptions`] |
//! | `connection` | opening files, pragmas, schema |
//! | `error` | what SQLite's errors mean to a caller |
//! | `row` | values and times as columns |
//! | `statements` | the SQL of every operation |
//! | `reader` | the pool of reading connections |
//! | `writer` | the writer thread and its queue |

mod component;
pub(crate) mod connection;
pub(crate) mod error;
mod reader;
mod row;
mod statements;
mod writer;

pub use component::embedded;
pub(crate) use component::{Location, PROVIDER, default_file, location};

use async_trait::async_trait;
use dhow_blocks::state::{Capability, Delete, Item, KeyPage, Operation, Set, StateError, StateStore};
use error::Origin;
use reader::Readers;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use writer::{Work, Writer};

pub(crate) const CAPABILITIES: &[Capability] =
    &[Capability::Etag, Capability::Transactional, Capability::Ttl, Capability::Actor];

/// Where the database is and how it is used; [`SqliteOptions::new`] has the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// The database file. It is created when absent (mode 0600), and so is its folder (mode 0700).
    pub path: PathBuf,
    /// The table that holds the state: letters, digits and underscores.
    pub table: String,
    /// How long a write may wait for its turn before it is refused.
    pub timeout: Duration,
    /// How long to wait for another program that has locked the file.
    pub busy_timeout: Duration,
    /// How often expired rows are removed; `None` leaves them in the file, where they stay invisible.
    pub cleanup_interval: Option<Duration>,
    /// Use a rollback journal instead of write-ahead logging: for network file systems only, and slower.
    pub disable_wal: bool,
    /// The file may not grow beyond about this many bytes; writes that would are refused.
    pub max_bytes: Option<u64>,
}

/// A state store in one SQLite file.
pub struct Sqlite {
    origin: Arc<Origin>,
    readers: Arc<Readers>,
    writer: Writer,
}

// === impl SqliteOptions ===

impl SqliteOptions {
    /// The defaults, which are Dapr's except that expired rows are removed every minute.
    pub fn new(path: impl Into<PathBuf>) -> SqliteOptions {
        SqliteOptions {
            path: path.into(),
            table: "state".to_owned(),
            timeout: Duration::from_secs(20),
            busy_timeout: Duration::from_secs(2),
            cleanup_interval: Some(Duration::from_secs(60)),
            disable_wal: false,
            max_bytes: None,
        }
    }
}

// === impl Sqlite ===

impl Sqlite {
    /// Opens the database, creating file and table as needed. Blocks, as a rule for a few milliseconds.
    ///
    /// Fails with `Unavailable` when the file cannot be created, opened, locked or written, and with
    /// `Failed` when it is no database or its table is not a state table.
    pub fn open(options: SqliteOptions) -> Result<Sqlite, StateError> {
        let origin = Arc::new(Origin::new(&options));
        let connection = connection::open_writer(&options, &origin)?;
        let statements = Arc::new(statements::Statements::new(&options.table));
        let readers = Arc::new(Readers::new(Arc::clone(&statements), Arc::clone(&origin)));
        let writer = Writer::start(connection, statements, Arc::clone(&origin), &options)?;
        Ok(Sqlite { origin, readers, writer })
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl Fn(&reader::Reader<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StateError> {
        match self.readers.with(Duration::ZERO, &query) {
            Err(error) if error::is_busy(&error) => {}
            answer => return answer.map_err(|error| self.origin.explain(&error)),
        }
        let readers = Arc::clone(&self.readers);
        let patience = self.origin.busy_timeout;
        let answer = tokio::task::spawn_blocking(move || readers.with(patience, &query)).await;
        match answer {
            Ok(answer) => answer.map_err(|error| self.origin.explain(&error)),
            Err(error) => Err(StateError::Failed { reason: format!("a read did not finish: {error}") }),
        }
    }

    fn check_open(&self) -> Result<(), StateError> {
        if self.writer.is_closed() { Err(super::closed()) } else { Ok(()) }
    }
}

impl std::fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.origin.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl StateStore for Sqlite {
    fn capabilities(&self) -> &'static [Capability] {
        CAPABILITIES
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, StateError> {
        self.check_open()?;
        let key = key.to_owned();
        self.read(move |reader| reader.get(&key)).await
    }

    async fn get_many(&self, keys: &[String]) -> Vec<Result<Option<Item>, StateError>> {
        let answer = match self.check_open() {
            Ok(()) => {
                let keys = keys.to_vec();
                self.read(move |reader| reader.get_many(&keys)).await
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok(items) => items.into_iter().map(Ok).collect(),
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn set(&self, set: Set) -> Result<(), StateError> {
        self.writer.submit(Work::One(Operation::Set(set))).await.map(drop)
    }

    async fn delete(&self, delete: Delete) -> Result<(), StateError> {
        self.writer.submit(Work::One(Operation::Delete(delete))).await.map(drop)
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), StateError> {
        if operations.is_empty() {
            return self.check_open();
        }
        self.writer.submit(Work::Many(operations)).await.map(drop)
    }

    async fn list_keys(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<KeyPage, StateError> {
        self.check_open()?;
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.read(move |reader| reader.list_keys(&prefix, after.as_deref(), limit)).await
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        self.writer.submit(Work::Increment { key: key.to_owned(), delta }).await
    }

    /// Goes through the writer, so it also tells whether writes get through.
    async fn ping(&self) -> Result<(), StateError> {
        self.writer.submit(Work::Ping).await?;
        self.read(|reader| reader.ping()).await
    }

    async fn close(&self) {
        self.writer.refuse();
        self.readers.close();
        // Last, so that SQLite finds no other connection and folds its log into the database file.
        self.writer.finish().await;
    }
}
