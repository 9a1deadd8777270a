//! `lock.sqlite`: mutual exclusion between all processes of a machine that share one file.
//!
//! A lock is a row with an owner and a time. Whoever inserts the row, or replaces one whose time is over, holds
//! the lock; SQLite's own locks see to it that this is one of them. Times are those of the machine's clock, to
//! the millisecond. A lock outlives the process that took it, until it expires.

use crate::database::Database;
use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use crate::state::sqlite::{Location, SqliteOptions, default_file, location};
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::lock::{LockStore, Renewal, Unlock};
use rusqlite::{Connection, OptionalExtension};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "lock.sqlite",
    aliases: &[],
    versions: &["v1"],
    fields: &["connectionString", "url", "busyTimeout", "disableWAL"],
    open: Open::Lock(|component, context| {
        Box::pin(async move {
            let store = open(&component, &context.data_dir)?;
            let name = component.name;
            let answer =
                store.database.run(|connection| connection.query_row("SELECT 1", [], |_| Ok(()))).await;
            answer.map_err(|error| OpenError::Backend { component: name, reason: error.to_string() })?;
            Ok(Arc::new(store) as Arc<_>)
        })
    }),
};

/// The file of the embedded locks, in the host's data folder.
const EMBEDDED_FILE: &str = "lock.db";

const CONNECTION_STRING: &[&str] = &["connectionString", "url"];

/// Another process may hold the file for as long as its own commits take.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Times are milliseconds of Unix time.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS locks (
        resource TEXT NOT NULL PRIMARY KEY,
        owner TEXT NOT NULL,
        expires INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS locks_expires ON locks (expires);
";

/// Expired locks that one attempt to lock removes at most: more than it adds, so that they do not pile up.
const SWEEP: usize = 4;

/// A lock store in one SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    database: Database,
}

/// The locks that a host has without any configuration: SQLite in the data folder, opened on first use.
pub fn embedded(data_dir: &Path) -> Arc<dyn LockStore> {
    Arc::new(Sqlite::new(file(data_dir.join(EMBEDDED_FILE))))
}

fn file(path: impl Into<PathBuf>) -> SqliteOptions {
    SqliteOptions { busy_timeout: BUSY_TIMEOUT, ..SqliteOptions::new(path) }
}

fn open(component: &ComponentSpec, data_dir: &Path) -> Result<Sqlite, OpenError> {
    let path = match component.field(CONNECTION_STRING) {
        Some(text) => match location(text) {
            Ok(Location::Memory) => return Ok(Sqlite { database: Database::memory(SCHEMA) }),
            Ok(Location::File(path)) => path,
            Err(expected) => return Err(component.invalid(CONNECTION_STRING, expected)),
        },
        None => default_file(&component.name, data_dir)
            .ok_or_else(|| component.invalid(CONNECTION_STRING, "given: the path of the database file"))?,
    };
    let mut options = file(path);
    if let Some(timeout) = component.duration(&["busyTimeout"])? {
        options.busy_timeout = timeout;
    }
    options.disable_wal = component.truthy(&["disableWAL"]);
    Ok(Sqlite::new(options))
}

// === impl Sqlite ===

impl Sqlite {
    /// Nothing is opened before the first use. The table that the options name means nothing here.
    pub fn new(options: SqliteOptions) -> Sqlite {
        Sqlite { database: Database::with_options(options, SCHEMA) }
    }
}

#[async_trait]
impl LockStore for Sqlite {
    async fn try_lock(&self, resource: &str, owner: &str, expiry: Duration) -> Result<bool, BlockError> {
        let (resource, owner) = (resource.to_owned(), owner.to_owned());
        self.database
            .run(move |connection| {
                let now = now();
                let expires = behind(now, expiry);
                sweep(connection, now)?;
                let mut lock = connection.prepare_cached(
                    "INSERT INTO locks (resource, owner, expires) VALUES (?1, ?2, ?3) \
                     ON CONFLICT (resource) DO UPDATE SET owner = excluded.owner, expires = excluded.expires \
                     WHERE expires <= ?4",
                )?;
                Ok(lock.execute((resource, owner, expires, now))? == 1)
            })
            .await
    }

    async fn unlock(&self, resource: &str, owner: &str) -> Result<Unlock, BlockError> {
        let (resource, owner) = (resource.to_owned(), owner.to_owned());
        self.database
            .run(move |connection| match holder(connection, &resource, now())? {
                None => Ok(Unlock::NotHeld),
                Some(held) if held != owner => Ok(Unlock::HeldByOther),
                Some(_) => {
                    let mut delete = connection.prepare_cached("DELETE FROM locks WHERE resource = ?1")?;
                    delete.execute([&resource])?;
                    Ok(Unlock::Released)
                }
            })
            .await
    }

    async fn renew(&self, resource: &str, owner: &str, expiry: Duration) -> Result<Renewal, BlockError> {
        let (resource, owner) = (resource.to_owned(), owner.to_owned());
        self.database
            .run(move |connection| {
                let now = now();
                match holder(connection, &resource, now)? {
                    None => Ok(Renewal::NotHeld),
                    Some(held) if held != owner => Ok(Renewal::HeldByOther),
                    Some(_) => {
                        let mut update =
                            connection.prepare_cached("UPDATE locks SET expires = ?2 WHERE resource = ?1")?;
                        update.execute((&resource, behind(now, expiry)))?;
                        Ok(Renewal::Renewed)
                    }
                }
            })
            .await
    }

    async fn close(&self) {
        self.database.close().await;
    }
}

/// Who holds the lock.
fn holder(connection: &Connection, resource: &str, now: i64) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT owner FROM locks WHERE resource = ?1 AND expires > ?2")?
        .query_row((resource, now), |row| row.get(0))
        .optional()
}

/// A time so much later.
fn behind(now: i64, expiry: Duration) -> i64 {
    now.saturating_add(i64::try_from(expiry.as_millis()).unwrap_or(i64::MAX))
}

/// Removes a few expired locks.
fn sweep(connection: &Connection, now: i64) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached(
        "DELETE FROM locks WHERE resource IN (SELECT resource FROM locks WHERE expires <= ?1 LIMIT ?2)",
    )?;
    delete.execute((now, SWEEP as i64)).map(drop)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
