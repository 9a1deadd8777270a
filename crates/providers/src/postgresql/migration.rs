//! Creating tables while others, hosts of ours or Dapr's sidecars, do the same.
//!
//! How far a table has come stands in Dapr's metadata table; a row of it is the lock that Dapr takes. Hosts of
//! ours take an advisory lock before, because the metadata table itself may not be there yet.

use super::database::{Database, Transaction};
use super::error::Error;
use std::time::Duration;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// The advisory lock of all migrations of ours.
const LOCK: i64 = 0x6468_6f77_6d69_6772;

/// Dapr may come in between this often.
const ATTEMPTS: u32 = 10;

/// What a component needs.
pub(super) struct Migration {
    /// Dapr's metadata table, quoted.
    pub(super) metadata_table: String,
    /// The metadata table's key for the number of steps that were taken.
    pub(super) key: String,
    /// Statements that bring the table from one number to the next.
    pub(super) steps: Vec<String>,
}

impl Migration {
    /// Takes the steps that nobody has taken yet.
    pub(super) async fn run(&self, database: &Database) -> Result<(), Error> {
        // First without locks: a user who may not create tables can use those that are there.
        let level = database.query(&self.level_query(), &[(&self.key, Type::TEXT)]).await;
        match level.map(|rows| rows.first().and_then(|row| row.try_get::<_, String>(0).ok())) {
            Ok(level) if self.remaining(level.as_deref()).is_empty() => return Ok(()),
            Err(error) if !error.is(&SqlState::UNDEFINED_TABLE) => return Err(error),
            _ => {}
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let transaction = database.begin(database.deadline()).await?;
            let error = match self.take_steps(&transaction).await {
                Ok(()) => return transaction.commit().await,
                Err(error) => error,
            };
            transaction.roll_back().await;
            let raced = [
                SqlState::UNIQUE_VIOLATION,
                SqlState::DUPLICATE_TABLE,
                SqlState::DUPLICATE_COLUMN,
                SqlState::INTERNAL_ERROR,
            ];
            let raced = raced.iter().any(|state| error.is(state)) || error.is_conflict();
            if !raced || attempt == ATTEMPTS {
                return Err(error);
            }
            sleep(Duration::from_millis(fastrand::u64(20..100))).await;
        }
    }

    async fn take_steps(&self, transaction: &Transaction) -> Result<(), Error> {
        let Migration { metadata_table, key, .. } = self;
        transaction.query("SELECT pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)]).await?;
        let create = format!(
            "CREATE TABLE IF NOT EXISTS {metadata_table} (key text NOT NULL PRIMARY KEY, value text NOT NULL);
             INSERT INTO {metadata_table} (key, value) VALUES ('lock', 'lock') ON CONFLICT (key) DO NOTHING;
             SELECT value FROM {metadata_table} WHERE key = 'lock' FOR UPDATE;"
        );
        transaction.command(&create).await?;
        let rows = transaction.query(&self.level_query(), &[(key, Type::TEXT)]).await?;
        let level = rows.first().map(|row| row.try_get::<_, String>(0)).transpose()?;
        for step in self.remaining(level.as_deref()) {
            transaction.command(step).await?;
        }
        let set = format!(
            "INSERT INTO {metadata_table} (key, value) VALUES ($1, $2)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE {metadata_table}.value::int < $2::int"
        );
        let level = self.steps.len().to_string();
        transaction.execute(&set, &[(key, Type::TEXT), (&level, Type::TEXT)]).await?;
        Ok(())
    }

    /// A later version may have taken more steps than are known here.
    fn remaining(&self, level: Option<&str>) -> &[String] {
        let level = level.and_then(|level| level.parse().ok()).unwrap_or(0);
        self.steps.get(level..).unwrap_or_default()
    }

    fn level_query(&self) -> String {
        format!("SELECT value FROM {} WHERE key = $1", self.metadata_table)
    }
}
