//! `configuration.postgresql`: a table of values, and notifications of their changes.
//!
//! The table and the trigger that notifies are the operator's (Dapr documentation, "PostgreSQL configuration
//! store"). A subscription has a connection of its own. When that was lost, what changed meanwhile is found by
//! comparing the table with what was last known of it.

use super::database::{Database, Params};
use super::options::{FIELDS, database, failed};
use super::table;
use crate::backoff::Backoff;
use crate::metadata::ComponentSpec;
use crate::registry::{Open, OpenError, Provider};
use crate::shutdown::{Alive, Shutdown};
use crate::task::{Stop, Task};
use async_trait::async_trait;
use dhow_blocks::configuration::{ConfigurationItem, ConfigurationStore, Items};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Running, value};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Notification, Row};

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "configuration.postgresql",
    aliases: &["configuration.postgres"],
    versions: &["v1"],
    fields: &CONFIGURATION_FIELDS,
    open: Open::Configuration(|component, _| Box::pin(async move { open(&component).await })),
};

const CONFIGURATION_FIELDS: [&str; FIELDS.len() + 1] = {
    let mut fields = ["table"; FIELDS.len() + 1];
    let mut number = 0;
    while number < FIELDS.len() {
        fields[number] = FIELDS[number];
        number += 1;
    }
    fields
};

/// The channel of the trigger in Dapr's documentation; Dapr itself wants one to be named.
const DEFAULT_CHANNEL: &str = "config";

/// A handler may still be busy when the component is closed.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// Values in a table of PostgreSQL.
struct Store {
    table: Arc<Table>,
    shutdown: Shutdown,
}

struct Table {
    database: Database,
    /// As it stands in statements.
    name: String,
    /// Reads all rows.
    select: String,
}

/// One subscription, in its task.
struct Watch {
    table: Arc<Table>,
    channel: String,
    /// Empty: all.
    keys: BTreeSet<String>,
    /// What was last known of these keys.
    known: Items,
    handler: Arc<dyn Handler<Items>>,
}

/// A connection that listens.
type Listening = (Client, mpsc::Receiver<Notification>);

async fn open(component: &ComponentSpec) -> Result<Arc<dyn ConfigurationStore>, OpenError> {
    let database = database(component)?;
    let expected = "given: the name of a table, of letters, digits and underscores";
    let name = component.field(&["table"]).and_then(table::quoted);
    let name = name.ok_or_else(|| component.invalid(&["table"], expected))?;
    let select = format!("SELECT key, value, version, metadata::text FROM {name}");
    // Fails when the table is not there, or has another form.
    let rows = database.query(&format!("{select} LIMIT 0"), &[]).await;
    rows.map_err(|error| failed(component, error))?;
    Ok(Arc::new(Store { table: Arc::new(Table { database, name, select }), shutdown: Shutdown::new() }))
}

// === impl Store ===

#[async_trait]
impl ConfigurationStore for Store {
    async fn get(&self, keys: &[String], _metadata: &Metadata) -> Result<Items, BlockError> {
        self.shutdown.check()?;
        self.table.read(keys).await
    }

    async fn subscribe(
        &self,
        keys: &[String],
        metadata: &Metadata,
        handler: Arc<dyn Handler<Items>>,
    ) -> Result<Box<dyn Running>, BlockError> {
        let alive = self.shutdown.alive()?;
        let channel = value(metadata, "pgNotifyChannel").unwrap_or(DEFAULT_CHANNEL);
        let channel = table::quoted(channel).filter(|_| !channel.contains('.')).ok_or_else(|| {
            BlockError::invalid(
                "metadata field pgNotifyChannel must be a name of letters, digits and underscores",
            )
        })?;
        let table = Arc::clone(&self.table);
        let keys = keys.iter().cloned().collect();
        let mut watch = Watch { table, channel, keys, known: Items::new(), handler };
        let listening = watch.listen().await?;
        watch.known = watch.read().await?;
        Ok(Box::new(Task::spawn(move |stop| watch.run(listening, alive, stop))))
    }

    async fn set(&self, items: Items) -> Result<(), BlockError> {
        self.shutdown.check()?;
        for (key, ConfigurationItem { value, metadata, .. }) in &items {
            self.table.write(key, value, metadata).await?;
        }
        Ok(())
    }

    async fn delete(&self, keys: &[String]) -> Result<(), BlockError> {
        self.shutdown.check()?;
        let keys: Vec<&String> = keys.iter().filter(|key| !key.contains('\0')).collect();
        let sql = format!("DELETE FROM {} WHERE key = ANY($1)", self.table.name);
        self.table.database.execute(&sql, &[(&keys, Type::TEXT_ARRAY)]).await?;
        Ok(())
    }

    async fn close(&self) {
        self.shutdown.shut_down(CLOSE_DEADLINE).await;
        self.table.database.pool.close();
    }
}

// === impl Table ===

impl Table {
    /// The values of these keys, or of all. Of several rows with one key, the one with the highest version
    /// counts, as in Dapr.
    async fn read(&self, keys: &[String]) -> Result<Items, BlockError> {
        let rows = if keys.is_empty() {
            self.database.query(&self.select, &[]).await?
        } else {
            // The server's texts hold no zero, so no row has such a key.
            let keys: Vec<&String> = keys.iter().filter(|key| !key.contains('\0')).collect();
            let sql = format!("{} WHERE key = ANY($1)", self.select);
            self.database.query(&sql, &[(&keys, Type::TEXT_ARRAY)]).await?
        };
        let mut items = Items::new();
        for row in &rows {
            let (key, item) = item(row).map_err(|error| BlockError::failed(super::error::explain(&error)))?;
            let number = |item: &ConfigurationItem| item.version.parse::<i64>().unwrap_or(-1);
            match items.get(&key) {
                Some(other) if number(other) >= number(&item) => {}
                _ => drop(items.insert(key, item)),
            }
        }
        Ok(items)
    }
}

impl Table {
    /// Writes one value; its version is the one before and one more.
    async fn write(&self, key: &str, value: &str, metadata: &Metadata) -> Result<(), BlockError> {
        if [key, value].iter().any(|text| text.contains('\0')) {
            return Err(BlockError::invalid(format!("key {key:?}: PostgreSQL's texts hold no zero byte")));
        }
        let sql = format!(
            "WITH updated AS (UPDATE {name} SET value = $2, metadata = $3::text::json, version = \
             CASE WHEN version ~ '^[0-9]{{1,17}}$' THEN (version::bigint + 1)::text ELSE '1' END \
             WHERE key = $1 RETURNING 1) \
             INSERT INTO {name} (key, value, version, metadata) SELECT $1, $2, '1', $3::text::json \
             WHERE NOT EXISTS (SELECT 1 FROM updated)",
            name = self.name
        );
        let metadata = serde_json::json!(metadata).to_string();
        let params: Params<'_> = &[(&key, Type::TEXT), (&value, Type::TEXT), (&metadata, Type::TEXT)];
        self.database.execute(&sql, params).await?;
        Ok(())
    }
}

fn item(row: &Row) -> Result<(String, ConfigurationItem), tokio_postgres::Error> {
    let metadata: Option<String> = row.try_get(3)?;
    let metadata = metadata.and_then(|text| serde_json::from_str::<Map<String, Value>>(&text).ok());
    let item = ConfigurationItem {
        value: row.try_get::<_, Option<String>>(1)?.unwrap_or_default(),
        version: row.try_get::<_, Option<String>>(2)?.unwrap_or_default(),
        metadata: texts(metadata.unwrap_or_default()),
    };
    Ok((row.try_get(0)?, item))
}

fn texts(map: Map<String, Value>) -> Metadata {
    map.into_iter().map(|(name, value)| (name, text(value))).collect()
}

fn text(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        other => other.to_string(),
    }
}

// === impl Watch ===

impl Watch {
    async fn run(mut self, listening: Listening, mut alive: Alive, mut stop: Stop) {
        let mut listening = Some(listening);
        let mut backoff = Backoff::new();
        loop {
            let change = tokio::select! {
                () = alive.ended_or_stopped(&mut stop) => return,
                change = self.next(&mut listening, &mut backoff) => change,
            };
            if !change.is_empty() {
                // Not interrupted: a stop waits for it.
                self.handler.handle(change).await;
            }
        }
    }

    /// Waits for a change, reconnecting as needed. Nothing is lost when it is given up.
    async fn next(&mut self, listening: &mut Option<Listening>, backoff: &mut Backoff) -> Items {
        loop {
            let Some((client, notifications)) = listening else {
                sleep(backoff.wait()).await;
                let Ok(anew) = self.listen().await else { continue };
                let Ok(now) = self.read().await else { continue };
                backoff.reset();
                tracing::info!(channel = self.channel, "listening to PostgreSQL again");
                *listening = Some(anew);
                let change = difference(&self.known, &now);
                self.known = now;
                if change.is_empty() {
                    continue;
                }
                return change;
            };
            let notification = tokio::select! {
                notification = notifications.recv() => notification,
                // Silence may mean that the server is gone.
                () = silent(client, self.table.database.timeout) => None,
            };
            match notification {
                None => {
                    tracing::warn!(channel = self.channel, "lost PostgreSQL; trying to listen again");
                    *listening = None;
                }
                Some(notification) => match read_notification(notification.payload()) {
                    None => {
                        tracing::warn!(channel = self.channel, "a notification has another form than Dapr's")
                    }
                    Some((key, _)) if !self.keys.is_empty() && !self.keys.contains(&key) => {}
                    // The table was read after this change, when the connection was new.
                    Some((key, item)) if self.known.get(&key) == item.as_ref() => {}
                    Some((key, item)) => {
                        match &item {
                            Some(item) => drop(self.known.insert(key.clone(), item.clone())),
                            None => drop(self.known.remove(&key)),
                        }
                        return [(key, item.unwrap_or_default())].into();
                    }
                },
            }
        }
    }

    async fn listen(&self) -> Result<Listening, BlockError> {
        let database = &self.table.database;
        let connector = database.pool.connector();
        let listening = async {
            let (client, notifications) = connector.listen().await.map_err(BlockError::unavailable)?;
            let listened = client.batch_execute(&format!("LISTEN {}", self.channel)).await;
            listened.map_err(|error| BlockError::from(super::error::Error::from(error)))?;
            Ok((client, notifications))
        };
        let late = |_| BlockError::from(super::error::Error::Late);
        timeout(database.timeout, listening).await.map_err(late)?
    }

    async fn read(&self) -> Result<Items, BlockError> {
        self.table.read(&self.keys.iter().cloned().collect::<Vec<_>>()).await
    }
}

/// Completes when the server does not answer any more; asks it now and then.
async fn silent(client: &Client, patience: Duration) {
    const INTERVAL: Duration = Duration::from_secs(30);
    loop {
        sleep(INTERVAL).await;
        if !matches!(timeout(patience, client.check_connection()).await, Ok(Ok(()))) {
            return;
        }
        if client.is_closed() {
            // The end of the notifications tells as well.
            pending::<()>().await;
        }
    }
}

/// What is new, and as empty items what is gone.
fn difference(known: &Items, now: &Items) -> Items {
    let changed = now.iter().filter(|(key, item)| known.get(*key) != Some(*item));
    let gone = known.keys().filter(|key| !now.contains_key(*key));
    let changed = changed.map(|(key, item)| (key.clone(), item.clone()));
    changed.chain(gone.map(|key| (key.clone(), ConfigurationItem::default()))).collect()
}

/// The row in a notification; none for one that was deleted. Names of columns are in any case.
fn read_notification(payload: &str) -> Option<(String, Option<ConfigurationItem>)> {
    let mut payload: Map<String, Value> = serde_json::from_str(payload).ok()?;
    let Some(Value::Object(row)) = payload.remove("data") else { return None };
    let deleted = payload.get("action").and_then(Value::as_str).is_some_and(|action| action == "DELETE");
    let (mut key, mut item) = (None, ConfigurationItem::default());
    for (column, value) in row {
        match (column.to_ascii_lowercase().as_str(), value) {
            ("key", Value::String(text)) => key = Some(text),
            ("value", value) => item.value = text(value),
            ("version", value) => item.version = text(value),
            ("metadata", Value::Object(metadata)) => item.metadata = texts(metadata),
            _ => {}
        }
    }
    Some((key?, (!deleted).then_some(item)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn item(value: &str) -> ConfigurationItem {
        ConfigurationItem { value: value.to_owned(), version: "1".to_owned(), ..ConfigurationItem::default() }
    }

    #[test]
    fn notifications() {
        let row = json!({"KEY": "a", "value": "x", "version": "1", "metadata": null});
        for (payload, expected) in [
            (json!({"table": "t", "action": "INSERT", "data": row}), Some(Some(item("x")))),
            (json!({"action": "DELETE", "data": row}), Some(None)),
            (json!({"data": row}), Some(Some(item("x")))),
            (json!({"data": {"value": "x"}}), None),
            (json!({"data": "x"}), None),
            (json!([]), None),
        ] {
            let expected = expected.map(|item| ("a".to_owned(), item));
            assert_eq!(read_notification(&payload.to_string()), expected, "{payload}");
        }
        assert_eq!(read_notification("no JSON"), None);
    }

    #[test]
    fn what_changed_meanwhile_is_found() {
        let items = |pairs: &[(&str, &str)]| -> Items {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), item(value))).collect()
        };
        let (known, now) =
            (items(&[("a", "1"), ("b", "1"), ("c", "1")]), items(&[("a", "1"), ("b", "2"), ("d", "1")]));
        let mut expected = items(&[("b", "2"), ("d", "1")]);
        expected.insert("c".to_owned(), ConfigurationItem::default());
        assert_eq!(difference(&known, &now), expected);
    }
}
