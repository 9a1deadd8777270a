//! The state store: one row a key, in Dapr's table.
//!
//! Source of the table's form: components-contrib, `state/mysql/mysql.go`. As in Dapr a JSON document is stored
//! as such; any other value is a JSON string of base64, marked by `isbinary`.

use super::database::{Connector, Database, Transaction};
use super::dsn::Dsn;
use super::error::Error;
use super::schema::Schema;
use super::statements::Statements;
use crate::metadata::ComponentSpec;
use crate::pool::Limits;
use crate::registry::{Open, OpenError, Provider};
use crate::shutdown::Shutdown;
use crate::state::sql::{self, CLEANUP_DEADLINE, CLOSE_DEADLINE, microseconds};
use crate::state::{after_prefix, closed, sum};
use crate::uuid;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dhow_blocks::state::{
    Capability, Concurrency, Delete, Item, KeyPage, Operation, Set, StateError, StateStore,
};
use mysql_async::prelude::FromValue;
use mysql_async::{Params, Row, Value, params};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tokio::time::{Instant, sleep};

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "state.mysql",
    aliases: &[],
    versions: &["v1"],
    fields: &[
        "connectionString",
        "schemaName",
        "tableName",
        "metadataTableName",
        "timeoutInSeconds",
        "cleanupInterval",
        "pemPath",
        "maxOpenConns",
        "connMaxIdleTime",
    ],
    open: Open::State(|component, _| Box::pin(async move { open(&component).await })),
};

const CONNECTION_STRING: &[&str] = &["connectionString"];

/// Characters of the column `id`.
const MAX_KEY_LENGTH: usize = 255;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

/// Shorter than servers and what stands before them usually wait.
const DEFAULT_IDLE: Duration = Duration::from_secs(5 * 60);

/// Go's driver has no limit; a server has one of 151.
const DEFAULT_CONNECTIONS: usize = 16;
const MAX_CONNECTIONS: usize = 1024;

/// A transaction that others are in the way of is tried this often.
const ATTEMPTS: u32 = 20;

/// Keys of one statement.
const KEYS_AT_ONCE: usize = 1000;

/// A state store in MySQL or MariaDB.
struct Store {
    database: Arc<Database>,
    statements: Statements,
    shutdown: Shutdown,
}

/// A write that its conditions allow, or not.
type Stop = sql::Stop<Error>;

async fn open(component: &ComponentSpec) -> Result<Arc<dyn StateStore>, OpenError> {
    let failed = |reason: String| OpenError::Backend { component: component.name.clone(), reason };
    let expected = "given: user:password@tcp(host:port)/";
    let text =
        component.field(CONNECTION_STRING).ok_or_else(|| component.invalid(CONNECTION_STRING, expected))?;
    let wrong = |reason: String| failed(format!("metadata field connectionString: {reason}"));
    let dsn = Dsn::read(text).map_err(wrong)?;
    if !dsn.database.is_empty() {
        return Err(wrong("it must not name a database; name it in schemaName".to_owned()));
    }
    let options = dsn.options(component.field(&["pemPath"])).map_err(wrong)?;
    let name = |field: &'static str, default: &'static str| {
        let name = component.field(&[field]).unwrap_or(default);
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let legal = name.len() <= 64 && name.bytes().all(letter);
        if legal { Ok(name) } else { Err(component.invalid(&[field], "letters, digits and underscores")) }
    };
    let database = name("schemaName", "dapr_state_store")?;
    let (table, metadata_table) = (name("tableName", "state")?, name("metadataTableName", "dapr_metadata")?);
    let timeout = component.duration(&["timeoutInSeconds"])?.filter(|timeout| !timeout.is_zero());
    let timeout = timeout.unwrap_or(DEFAULT_TIMEOUT).max(Duration::from_secs(1));
    let cleanup = sql::cleanup_interval(component, &["cleanupInterval"])?;
    let limits = limits(component, DEFAULT_CONNECTIONS)?;
    let schema = Schema { database, table, metadata_table };
    let exact = schema.prepare(&dsn, options.clone(), timeout).await;
    let exact = exact.map_err(|error| failed(error.to_string()))?;
    let setup = vec![
        format!(
            "SET time_zone = '+00:00', sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION', \
             innodb_lock_wait_timeout = {}",
            timeout.as_secs()
        ),
        // Locks rows, not the gaps between them.
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned(),
    ];
    let connector = Connector::new(&dsn, options.db_name(Some(database)), setup);
    let store = Store {
        database: Arc::new(Database::new(connector, limits, timeout)),
        statements: Statements::new(table, metadata_table, exact),
        shutdown: Shutdown::new(),
    };
    store.database.query("SELECT 1", ()).await.map_err(|error| failed(error.to_string()))?;
    if let Some(interval) = cleanup {
        store.clean_every(interval);
    }
    Ok(Arc::new(store))
}

/// How many connections a component may have.
pub(super) fn limits(component: &ComponentSpec, default: usize) -> Result<Limits, OpenError> {
    let connections = match component.field(&["maxOpenConns"]).map(str::parse::<i64>) {
        // As in Go: no limit of the operator's.
        None | Some(Ok(..=0)) => default,
        Some(Ok(number)) => usize::try_from(number).unwrap_or(default).min(MAX_CONNECTIONS),
        Some(Err(_)) => return Err(component.invalid(&["maxOpenConns"], "a number")),
    };
    let idle = component.duration(&["connMaxIdleTime"])?.filter(|idle| !idle.is_zero());
    Ok(Limits { connections, idle: idle.unwrap_or(DEFAULT_IDLE) })
}

// === impl Store ===

impl Store {
    /// Removes expired rows now and then, unless another host or sidecar did so within the interval.
    fn clean_every(&self, interval: Duration) {
        let (database, statements) = (Arc::clone(&self.database), &self.statements);
        let (claim, clean) = (Arc::<str>::from(&*statements.claim), Arc::<str>::from(&*statements.clean));
        sql::clean_every(&self.shutdown, interval, move |patience| {
            let (database, claim, clean) = (Arc::clone(&database), Arc::clone(&claim), Arc::clone(&clean));
            async move {
                if database.execute(&claim, params! { "patience" => patience }).await? > 0 {
                    let deadline = Instant::now() + CLEANUP_DEADLINE;
                    database.execute_until(deadline, &clean, Params::Empty).await?;
                }
                Ok::<_, Error>(())
            }
        });
    }

    async fn execute(
        &self,
        transaction: Option<&mut Transaction>,
        sql: &str,
        params: Params,
    ) -> Result<u64, Stop> {
        let executed = match transaction {
            Some(transaction) => transaction.execute(sql, params).await,
            None => self.database.execute(sql, params).await,
        };
        executed.map_err(Stop::Failed)
    }

    /// One step, alone or in a transaction.
    async fn apply(&self, operation: &Operation, transaction: Option<&mut Transaction>) -> Result<(), Stop> {
        let Statements { set, set_first, set_if, delete, delete_if, .. } = &self.statements;
        let key = operation.key();
        let (rows, otherwise) = match operation {
            Operation::Set(Set { value, json, etag, concurrency, ttl, .. }) => {
                check_key(key).map_err(Stop::Refused)?;
                let (value, is_binary) = encode(value, *json);
                let mismatch = StateError::EtagMismatch { key: key.to_owned() };
                let (statement, otherwise) = match (etag, concurrency) {
                    (Some(_), _) => (set_if, mismatch),
                    (None, Concurrency::FirstWrite) => (set_first, mismatch),
                    (None, Concurrency::LastWrite) => (set, collision(key)),
                };
                let mut params = vec![
                    ("id".to_owned(), Value::from(key)),
                    ("value".to_owned(), value.into()),
                    ("isbinary".to_owned(), is_binary.into()),
                    ("etag".to_owned(), uuid::random().into()),
                    ("ttl".to_owned(), microseconds(*ttl).into()),
                ];
                params.extend(etag.as_ref().map(|etag| ("old".to_owned(), etag.into())));
                (self.execute(transaction, statement, Params::from(params)).await?, Some(otherwise))
            }
            Operation::Delete(Delete { etag: Some(etag), .. }) => {
                let params = params! { "id" => key, "old" => etag };
                let mismatch = StateError::EtagMismatch { key: key.to_owned() };
                (self.execute(transaction, delete_if, params).await?, Some(mismatch))
            }
            Operation::Delete(_) => (self.execute(transaction, delete, params! { "id" => key }).await?, None),
        };
        match otherwise {
            Some(refusal) if rows == 0 => Err(Stop::Refused(refusal)),
            _ => Ok(()),
        }
    }

    /// All steps, each key's in their order. Keys are taken in one order by all hosts, so that two
    /// transactions rarely wait for each other.
    async fn apply_all(&self, operations: &[&Operation], deadline: Instant) -> Result<(), Stop> {
        let mut transaction = self.database.begin(deadline).await.map_err(Stop::Failed)?;
        for operation in operations {
            if let Err(stop) = self.apply(operation, Some(&mut transaction)).await {
                transaction.roll_back().await;
                return Err(stop);
            }
        }
        transaction.commit().await.map_err(Stop::Failed)
    }

    /// None: the row came or went meanwhile.
    async fn increment_once(&self, key: &str, delta: i64, deadline: Instant) -> Result<Option<i64>, Stop> {
        let mut transaction = self.database.begin(deadline).await.map_err(Stop::Failed)?;
        let sum = self.increment_in(&mut transaction, key, delta).await;
        match &sum {
            Ok(Some(_)) => transaction.commit().await.map_err(Stop::Failed)?,
            _ => transaction.roll_back().await,
        }
        sum
    }

    async fn increment_in(
        &self,
        transaction: &mut Transaction,
        key: &str,
        delta: i64,
    ) -> Result<Option<i64>, Stop> {
        let Statements { set, insert, lock, keep, .. } = &self.statements;
        let rows = transaction.query(lock, params! { "id" => key }).await.map_err(Stop::Failed)?;
        let found = rows.first().map(|row| Ok::<_, Error>((item(row)?.1.value, column::<bool>(row, 5)?)));
        let found = found.transpose().map_err(Stop::Failed)?;
        let current = found.as_ref().filter(|(_, live)| *live).map(|(value, _)| &value[..]);
        let sum = sum(key, current, delta).map_err(Stop::Refused)?;
        let mut params = vec![
            ("id".to_owned(), Value::from(key)),
            // A number is a JSON document.
            ("value".to_owned(), sum.to_string().into()),
            ("isbinary".to_owned(), false.into()),
            ("etag".to_owned(), uuid::random().into()),
        ];
        let statement = match &found {
            Some((_, true)) => keep,
            Some((_, false)) => set,
            None => insert,
        };
        if !matches!(found, Some((_, true))) {
            params.push(("ttl".to_owned(), Value::NULL));
        }
        let rows = transaction.execute(statement, Params::from(params)).await.map_err(Stop::Failed)?;
        Ok((rows > 0).then_some(sum))
    }
}

#[async_trait]
impl StateStore for Store {
    fn capabilities(&self) -> &'static [Capability] {
        &[Capability::Etag, Capability::Transactional, Capability::Ttl, Capability::Actor]
    }

    fn max_key_bytes(&self) -> usize {
        MAX_KEY_LENGTH
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, StateError> {
        let rows = self.database.query(&self.statements.get, params! { "id" => key }).await?;
        Ok(rows.first().map(item).transpose()?.map(|(_, item)| item))
    }

    async fn get_many(&self, keys: &[String]) -> Vec<Result<Option<Item>, StateError>> {
        let mut answers = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_AT_ONCE) {
            let (head, tail) = &self.statements.get_many;
            let sql = format!("{head}{}{tail}", vec!["?"; keys.len()].join(","));
            let params = Params::Positional(keys.iter().map(Value::from).collect());
            let rows = self.database.query(&sql, params).await;
            let items = rows.and_then(|rows| rows.iter().map(item).collect::<Result<HashMap<_, _>, _>>());
            match items {
                Ok(items) => answers.extend(keys.iter().map(|key| Ok(items.get(key).cloned()))),
                Err(error) => answers.extend(keys.iter().map(|_| Err(error.clone().into()))),
            }
        }
        answers
    }

    async fn set(&self, set: Set) -> Result<(), StateError> {
        Ok(self.apply(&Operation::Set(set), None).await?)
    }

    async fn delete(&self, delete: Delete) -> Result<(), StateError> {
        Ok(self.apply(&Operation::Delete(delete), None).await?)
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), StateError> {
        let mut ordered: Vec<&Operation> = operations.iter().collect();
        ordered.sort_by_key(|operation| operation.key());
        let deadline = self.database.deadline();
        match ordered[..] {
            [] => return self.shutdown.check().map_err(|_| closed()),
            [one] => return Ok(self.apply(one, None).await?),
            _ => {}
        }
        let mut attempt = 1;
        loop {
            match self.apply_all(&ordered, deadline).await {
                Err(Stop::Failed(error)) if error.is_conflict() && attempt < ATTEMPTS => attempt += 1,
                answer => return Ok(answer?),
            }
            sleep(Duration::from_millis(fastrand::u64(1..50))).await;
        }
    }

    async fn list_keys(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<KeyPage, StateError> {
        // One more, to know whether there is one.
        let rows = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let high = after_prefix(prefix);
        let params = params! { "low" => prefix, "high" => high, "after" => after, "rows" => rows };
        let rows = self.database.query(&self.statements.list, params).await?;
        let mut keys = rows.iter().map(|row| column(row, 0)).collect::<Result<Vec<String>, Error>>()?;
        let more = keys.len() > limit;
        keys.truncate(limit);
        Ok(KeyPage { keys, more })
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        check_key(key)?;
        let deadline = self.database.deadline();
        for _ in 0..ATTEMPTS {
            match self.increment_once(key, delta, deadline).await {
                Ok(Some(sum)) => return Ok(sum),
                // Rivals for a row that is not there yet: each attempt, one of them succeeds.
                Ok(None) => {}
                Err(Stop::Failed(error)) if error.is_conflict() => {}
                Err(stop) => return Err(stop.into()),
            }
            sleep(Duration::from_millis(fastrand::u64(1..20))).await;
        }
        Err(collision(key))
    }

    async fn ping(&self) -> Result<(), StateError> {
        self.database.query("SELECT 1", ()).await?;
        Ok(())
    }

    async fn close(&self) {
        self.shutdown.shut_down(CLOSE_DEADLINE).await;
        self.database.pool.close();
    }
}

/// The key and the item in a row of `id, value, isbinary, eTag, expiry`, the last one in seconds of Unix time.
fn item(row: &Row) -> Result<(String, Item), Error> {
    let key: String = column(row, 0)?;
    let value: Vec<u8> = column(row, 1)?;
    let value = match column::<bool>(row, 2)? {
        false => Some(value),
        true => serde_json::from_slice::<String>(&value).ok().and_then(|text| STANDARD.decode(text).ok()),
    };
    let value = value.ok_or_else(|| {
        Error::Failed(format!("the value of key {key:?} is marked as binary, and is no base64"))
    })?;
    let expiry: Option<i64> = column(row, 4)?;
    let expires_at = expiry
        .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))));
    Ok((key, Item { value: value.into(), etag: column(row, 3)?, expires_at }))
}

fn column<T: FromValue>(row: &Row, number: usize) -> Result<T, Error> {
    let value = row.get_opt(number).and_then(Result::ok);
    value.ok_or_else(|| {
        Error::Failed(format!("column {number} of the state table has another type than Dapr's"))
    })
}

/// The columns `value` and `isbinary`.
fn encode(value: &Bytes, json: bool) -> (String, bool) {
    match serde_json::from_slice::<&RawValue>(value) {
        Ok(document) if json => (document.get().to_owned(), false),
        _ => (format!("\"{}\"", STANDARD.encode(value)), true),
    }
}

fn check_key(key: &str) -> Result<(), StateError> {
    let length = key.chars().count();
    if length > MAX_KEY_LENGTH {
        return Err(StateError::TooLarge { what: "key", actual: length, limit: MAX_KEY_LENGTH });
    }
    Ok(())
}

/// The table's collation takes this key for another one.
fn collision(key: &str) -> StateError {
    StateError::Failed {
        reason: format!(
            "the table holds a key that it takes for {key:?}; give its column id the collation \
             utf8mb4_0900_bin (MySQL) or utf8mb4_nopad_bin (MariaDB)"
        ),
    }
}
