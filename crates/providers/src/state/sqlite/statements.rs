//! The SQL of every operation.
//!
//! Whether a row is alive is always decided by the same comparison of texts: `expiration_time` with a time
//! that the caller passes, so that all steps of one request see the same instant.

/// The statements for one table; prepared once a connection, by SQLite's statement cache.
#[derive(Debug)]
pub(super) struct Statements {
    /// `value, is_binary, etag, expiration_time` of key ?1, alive or not: most rows never expire, and then a
    /// read need not know the time.
    pub(super) get: String,
    /// Keys alive at ?1, from ?2 on and below ?3.
    pub(super) list: String,
    /// Writes key ?1: value ?2, is_binary ?3, etag ?4, expiration ?5.
    pub(super) set: String,
    /// The same, only where no row is alive at ?6.
    pub(super) set_first: String,
    /// The same, only where a row alive at ?6 has etag ?7.
    pub(super) set_etag: String,
    /// Deletes key ?1.
    pub(super) delete: String,
    /// Deletes key ?1, only where it is alive at ?2 with etag ?3.
    pub(super) delete_etag: String,
    /// Replaces the value of key ?1 by the text ?2 with etag ?3; the expiration stays.
    pub(super) set_number: String,
    /// Deletes at most ?2 rows that are expired at ?1.
    pub(super) clean_up: String,
    /// Fails when the table cannot be read.
    pub(super) ping: String,
}

const ALIVE_AT: &str = "(expiration_time IS NULL OR expiration_time >";

// === impl Statements ===

impl Statements {
    /// The table's name must be an identifier.
    pub(super) fn new(table: &str) -> Statements {
        let set = format!(
            "INSERT INTO \"{table}\" (key, value, is_binary, etag, expiration_time, update_time) \
             VALUES (?1, ?2, ?3, ?4, ?5, CURRENT_TIMESTAMP) \
             ON CONFLICT (key) DO UPDATE SET value = excluded.value, is_binary = excluded.is_binary, \
             etag = excluded.etag, expiration_time = excluded.expiration_time, \
             update_time = excluded.update_time"
        );
        Statements {
            get: format!("SELECT value, is_binary, etag, expiration_time FROM \"{table}\" WHERE key = ?1"),
            list: format!(
                "SELECT key FROM \"{table}\" WHERE {ALIVE_AT} ?1) AND key >= ?2 AND key < ?3 ORDER BY key"
            ),
            set_first: format!("{set} WHERE NOT {ALIVE_AT} ?6)"),
            set_etag: format!(
                "UPDATE \"{table}\" SET value = ?2, is_binary = ?3, etag = ?4, expiration_time = ?5, \
                 update_time = CURRENT_TIMESTAMP WHERE key = ?1 AND {ALIVE_AT} ?6) AND etag = ?7"
            ),
            delete: format!("DELETE FROM \"{table}\" WHERE key = ?1"),
            delete_etag: format!("DELETE FROM \"{table}\" WHERE key = ?1 AND {ALIVE_AT} ?2) AND etag = ?3"),
            set_number: format!(
                "UPDATE \"{table}\" SET value = ?2, is_binary = 0, etag = ?3, update_time = CURRENT_TIMESTAMP \
                 WHERE key = ?1"
            ),
            clean_up: format!(
                "DELETE FROM \"{table}\" WHERE key IN \
                 (SELECT key FROM \"{table}\" WHERE expiration_time <= ?1 LIMIT ?2)"
            ),
            ping: format!("SELECT count(*) FROM (SELECT 1 FROM \"{table}\" LIMIT 1)"),
            set,
        }
    }

    /// Creates what is missing. The columns are those of Dapr's first and only migration.
    pub(super) fn schema(table: &str) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS \"{table}\" (
                key TEXT NOT NULL PRIMARY KEY,
                value TEXT NOT NULL,
                is_binary BOOLEAN NOT NULL,
                etag TEXT NOT NULL,
                expiration_time TIMESTAMP DEFAULT NULL,
                update_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
            );
            CREATE INDEX IF NOT EXISTS \"{index}\" ON \"{table}\" (expiration_time)
                WHERE expiration_time IS NOT NULL;",
            index = Statements::index_name(table)
        )
    }

    /// The index that finds expired rows; it has no entry for a row that lasts forever.
    pub(super) fn index_name(table: &str) -> String {
        format!("dhow_{table}_expiration")
    }
}
