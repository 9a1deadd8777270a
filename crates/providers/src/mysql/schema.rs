//! The database and tables of the state store, created as Dapr creates them.

use super::database::{Connector, Database};
use super::dsn::Dsn;
use super::error::Error;
use crate::pool::Limits;
use mysql_async::{OptsBuilder, Params};
use std::time::Duration;

/// What the state store works on.
pub(super) struct Schema<'a> {
    pub(super) database: &'a str,
    pub(super) table: &'a str,
    pub(super) metadata_table: &'a str,
}

/// How keys are compared, the best first: byte by byte, also in their order and in spaces at the end. Dapr
/// leaves it to the server, where upper and lower case are often the same.
const COLLATIONS: [&str; 3] = ["utf8mb4_0900_bin", "utf8mb4_nopad_bin", "utf8mb4_bin"];

/// The error of a column that is there already.
const DUPLICATE_COLUMN: u16 = 1060;
const DUPLICATE_KEY_NAME: u16 = 1061;

impl Schema<'_> {
    /// Creates what is missing, on a connection without a database. Says whether keys are compared byte by
    /// byte in all respects.
    pub(super) async fn prepare(
        &self,
        dsn: &Dsn,
        options: OptsBuilder,
        timeout: Duration,
    ) -> Result<bool, Error> {
        let connector = Connector::new(dsn, options.db_name(None::<String>), Vec::new());
        let limits = Limits { connections: 1, idle: timeout };
        let database = Database::new(connector, limits, timeout);
        let prepared = self.prepare_on(&database).await;
        database.pool.close();
        prepared
    }

    async fn prepare_on(&self, server: &Database) -> Result<bool, Error> {
        let Schema { database, table, metadata_table } = self;
        let found = server
            .query("SELECT 1 FROM information_schema.schemata WHERE schema_name = ?", (*database,))
            .await?;
        if found.is_empty() {
            server.execute(&format!("CREATE DATABASE IF NOT EXISTS `{database}`"), Params::Empty).await?;
        }
        // Looked for first: a user who may not create tables can use those that are there.
        if !self.is_table(server, table).await? {
            let collation = best_collation(server).await?;
            let create = format!(
                "CREATE TABLE IF NOT EXISTS `{database}`.`{table}` (
                    id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE {collation} NOT NULL PRIMARY KEY,
                    value JSON NOT NULL,
                    isbinary BOOLEAN NOT NULL,
                    insertDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
                    updateDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
                    eTag VARCHAR(36) NOT NULL,
                    expiredate TIMESTAMP NULL,
                    INDEX expiredate_idx(expiredate)
                )"
            );
            server.execute(&create, Params::Empty).await?;
        }
        // Tables of Dapr before 1.11 lack it.
        if !self.is_column(server, "expiredate").await? {
            for (change, there) in [
                ("ADD COLUMN expiredate TIMESTAMP NULL", DUPLICATE_COLUMN),
                ("ADD INDEX expiredate_idx(expiredate)", DUPLICATE_KEY_NAME),
            ] {
                let alter = format!("ALTER TABLE `{database}`.`{table}` {change}");
                match server.execute(&alter, Params::Empty).await {
                    Err(Error::Refused { code, .. }) if code == there => {}
                    answer => drop(answer?),
                }
            }
        }
        if !self.is_table(server, metadata_table).await? {
            let create = format!(
                "CREATE TABLE IF NOT EXISTS `{database}`.`{metadata_table}` (
                    id VARCHAR(255) NOT NULL PRIMARY KEY, value TEXT NOT NULL
                )"
            );
            server.execute(&create, Params::Empty).await?;
        }
        let collation = server
            .query(
                "SELECT collation_name FROM information_schema.columns
                 WHERE table_schema = ? AND table_name = ? AND column_name = 'id'",
                (*database, *table),
            )
            .await?;
        let collation = collation.first().and_then(|row| row.get_opt::<String, _>(0)?.ok());
        let exact = collation.as_deref().is_some_and(|collation| COLLATIONS[..2].contains(&collation));
        if !exact {
            tracing::warn!(
                table,
                "keys of this table that differ by case, accents or spaces at the end only cannot be told apart; \
                 give its column id the collation utf8mb4_0900_bin (MySQL) or utf8mb4_nopad_bin (MariaDB)"
            );
        }
        Ok(exact)
    }

    async fn is_table(&self, server: &Database, table: &str) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM information_schema.tables WHERE table_schema = ? AND table_name = ?";
        Ok(!server.query(sql, (self.database, table)).await?.is_empty())
    }

    async fn is_column(&self, server: &Database, column: &str) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM information_schema.columns
                   WHERE table_schema = ? AND table_name = ? AND column_name = ?";
        Ok(!server.query(sql, (self.database, self.table, column)).await?.is_empty())
    }
}

async fn best_collation(server: &Database) -> Result<&'static str, Error> {
    for collation in COLLATIONS {
        let sql = "SELECT 1 FROM information_schema.collations WHERE collation_name = ?";
        if !server.query(sql, (collation,)).await?.is_empty() {
            return Ok(collation);
        }
    }
    Ok("utf8mb4_bin")
}
