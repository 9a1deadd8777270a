//! `sequencer.sqlite`: ids for all processes of a machine that share one file. An id is on disk before anybody has it.

use super::{advance, check};
use crate::database::Database;
use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use crate::state::sqlite::{Location, SqliteOptions, default_file, location};
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::sequencer::{Sequencer, exhausted};
use rusqlite::OptionalExtension;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "sequencer.sqlite",
    aliases: &[],
    versions: &["v1"],
    fields: &["connectionString", "url", "busyTimeout", "disableWAL"],
    open: Open::Sequencer(|component, context| {
        Box::pin(async move {
            let database = open(&component, &context.data_dir)?;
            let answer = database.run(|connection| connection.query_row("SELECT 1", [], |_| Ok(()))).await;
            answer.map_err(|error| component.backend(error.to_string()))?;
            Ok(Arc::new(Sqlite { database }) as Arc<_>)
        })
    }),
};

const CONNECTION_STRING: &[&str] = &["connectionString", "url"];

/// Another process may hold the file for as long as its own commits take.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS sequences (
        key TEXT NOT NULL PRIMARY KEY,
        last INTEGER NOT NULL
    ) WITHOUT ROWID;
";

/// Ids in one SQLite file.
#[derive(Debug)]
struct Sqlite {
    database: Database,
}

fn open(component: &ComponentSpec, data_dir: &Path) -> Result<Database, OpenError> {
    let path = match component.field(CONNECTION_STRING) {
        Some(text) => match location(text) {
            Ok(Location::Memory) => return Ok(Database::memory(SCHEMA)),
            Ok(Location::File(path)) => path,
            Err(expected) => return Err(component.invalid(CONNECTION_STRING, expected)),
        },
        None => default_file(&component.name, data_dir)
            .ok_or_else(|| component.invalid(CONNECTION_STRING, "given: the path of the database file"))?,
    };
    let mut options = SqliteOptions { busy_timeout: BUSY_TIMEOUT, ..SqliteOptions::new(path) };
    if let Some(timeout) = component.duration(&["busyTimeout"])? {
        options.busy_timeout = timeout;
    }
    options.disable_wal = component.truthy(&["disableWAL"]);
    Ok(Database::with_options(options, SCHEMA))
}

#[async_trait]
impl Sequencer for Sqlite {
    async fn reserve(&self, key: &str, count: u32, floor: i64) -> Result<i64, BlockError> {
        check(count)?;
        let key = key.to_owned();
        let reserved = self.database.run(move |connection| {
            let last: Option<i64> = connection
                .prepare_cached("SELECT last FROM sequences WHERE key = ?1")?
                .query_row([&key], |row| row.get(0))
                .optional()?;
            let Ok(reserved) = advance(last.unwrap_or(0), count, floor) else { return Ok(None) };
            let mut write = connection.prepare_cached(
                "INSERT INTO sequences (key, last) VALUES (?1, ?2) \
                 ON CONFLICT (key) DO UPDATE SET last = excluded.last",
            )?;
            write.execute((&key, reserved))?;
            Ok(Some(reserved))
        });
        Ok(reserved.await?.ok_or_else(exhausted)? - i64::from(count) + 1)
    }

    async fn close(&self) {
        self.database.close().await;
    }
}
