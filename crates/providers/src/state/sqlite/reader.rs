//! The pool of reading connections.

use super::connection::open_reader;
use super::error::Origin;
use super::row;
use super::statements::Statements;
use dhow_blocks::state::{Item, KeyPage};
use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::types::Value;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Idle connections that are kept. There are never more in use than threads that read at the same time.
const MAX_IDLE: usize = 16;

/// Connections that come and go as reads need them.
pub(super) struct Readers {
    statements: Arc<Statements>,
    origin: Arc<Origin>,
    /// `None` once the store is closed: connections that come back are then dropped.
    idle: Mutex<Option<Vec<Connection>>>,
}

/// One connection, and the queries that it can answer.
pub(super) struct Reader<'a> {
    connection: &'a Connection,
    statements: &'a Statements,
}

// === impl Readers ===

impl Readers {
    pub(super) fn new(statements: Arc<Statements>, origin: Arc<Origin>) -> Readers {
        Readers { statements, origin, idle: Mutex::new(Some(Vec::new())) }
    }

    /// Runs a query on some connection; `patience` is how long it may wait for a lock, blocking its thread.
    pub(super) fn with<T>(
        &self,
        patience: Duration,
        query: &impl Fn(&Reader<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let idle = self.idle.lock().as_mut().and_then(Vec::pop);
        let connection = match idle {
            Some(connection) => {
                connection.busy_timeout(patience)?;
                connection
            }
            None => open_reader(&self.origin.path, patience)?,
        };
        let answer = query(&Reader { connection: &connection, statements: &self.statements })?;
        // Only a connection that has just worked is kept: after an error the next read opens a fresh one.
        if let Some(idle) = &mut *self.idle.lock()
            && idle.len() < MAX_IDLE
        {
            idle.push(connection);
        }
        Ok(answer)
    }

    /// Closes all idle connections, and the others when they come back.
    pub(super) fn close(&self) {
        drop(self.idle.lock().take());
    }
}

// === impl Reader ===

impl Reader<'_> {
    pub(super) fn get(&self, key: &str) -> rusqlite::Result<Option<Item>> {
        let mut statement = self.connection.prepare_cached(&self.statements.get)?;
        let mut rows = statement.query([key])?;
        rows.next()?.map_or(Ok(None), |row| row::item(row, SystemTime::now))
    }

    /// All from one snapshot of the database.
    pub(super) fn get_many(&self, keys: &[String]) -> rusqlite::Result<Vec<Option<Item>>> {
        let snapshot = self.connection.unchecked_transaction()?;
        let items = keys.iter().map(|key| self.get(key)).collect::<rusqlite::Result<_>>()?;
        snapshot.commit()?;
        Ok(items)
    }

    pub(super) fn list_keys(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> rusqlite::Result<KeyPage> {
        let lower = match after {
            // The next string in byte order.
            Some(after) if after >= prefix => format!("{after}\0"),
            _ => prefix.to_owned(),
        };
        // Every blob sorts after every text: no upper bound.
        let upper = upper_bound(prefix).map_or(Value::Blob(Vec::new()), Value::Text);
        let now = row::format_time(SystemTime::now());
        let mut statement = self.connection.prepare_cached(&self.statements.list)?;
        let mut rows = statement.query((now, lower, upper))?;
        let mut page = KeyPage::default();
        while let Some(row) = rows.next()? {
            if page.keys.len() == limit {
                page.more = true;
                break;
            }
            page.keys.push(row.get(0)?);
        }
        Ok(page)
    }

    pub(super) fn ping(&self) -> rusqlite::Result<()> {
        self.connection.prepare_cached(&self.statements.ping)?.query_row([], |_| Ok(()))
    }
}

/// The smallest string that sorts after every string with this prefix, if there is one.
fn upper_bound(prefix: &str) -> Option<String> {
    let mut bound = prefix.to_owned();
    while let Some(last) = bound.pop() {
        // Skips the surrogates, which are no characters; UTF-8 sorts as characters do.
        if let Some(next) = (last..=char::MAX).nth(1) {
            bound.push(next);
            return Some(bound);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_bounds() {
        for (prefix, bound) in [
            ("", None),
            ("a", Some("b")),
            ("a||", Some("a|}")),
            ("a\u{7f}", Some("a\u{80}")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("a\u{10ffff}\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
        ] {
            assert_eq!(upper_bound(prefix).as_deref(), bound, "{prefix:?}");
        }
    }
}
