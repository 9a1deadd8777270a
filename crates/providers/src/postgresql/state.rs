//! The state store: one row a key, in Dapr's tables.

use super::database::{Database, Params, Transaction};
use super::error::Error;
use super::migration::Migration;
use super::options::{FIELDS, database, failed};
use super::{query, table, version1, version2};
use crate::metadata::ComponentSpec;
use crate::registry::{Open, OpenError, Provider};
use crate::shutdown::Shutdown;
use crate::state::sql::{self, CLEANUP_DEADLINE, CLOSE_DEADLINE, microseconds};
use crate::state::{after_prefix, closed, sum};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use dhow_blocks::state::{
    Capability, Concurrency, Delete, Item, KeyPage, MAX_KEY_BYTES, Operation, Query, QueryPage, Set,
    StateError, StateStore,
};
use std::collections::HashMap;
use std::error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, sleep};
use tokio_postgres::Row;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "state.postgresql",
    aliases: &["state.postgres"],
    versions: &["v1", "v2"],
    fields: &STATE_FIELDS,
    open: Open::State(|component, _| Box::pin(async move { open(&component).await })),
};

/// YugabyteDB speaks as PostgreSQL does; its type has only the second form.
pub(crate) const YUGABYTEDB: Provider = Provider {
    component_type: "state.yugabytedb",
    aliases: &["state.yugabyte"],
    versions: &["v2"],
    fields: &STATE_FIELDS,
    open: Open::State(|mut component, _| {
        "v2".clone_into(&mut component.version);
        Box::pin(async move { open(&component).await })
    }),
};

const OWN_FIELDS: [&str; 7] = [
    "tableName",
    "tablePrefix",
    "metadataTableName",
    "cleanupInterval",
    "cleanupIntervalInSeconds",
    "useAzureAD",
    "useAWSIAM",
];

const STATE_FIELDS: [&str; FIELDS.len() + OWN_FIELDS.len()] = {
    let mut fields = [""; FIELDS.len() + OWN_FIELDS.len()];
    let mut number = 0;
    while number < fields.len() {
        fields[number] =
            if number < FIELDS.len() { FIELDS[number] } else { OWN_FIELDS[number - FIELDS.len()] };
        number += 1;
    }
    fields
};

/// A transaction that others are in the way of is tried this often.
const ATTEMPTS: u32 = 10;

/// Which of Dapr's two forms a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The statements of one table. Parameters, as far as a statement has them: `$1` the key, `$2` the value, `$3`
/// whether it is binary, `$4` its time to live in microseconds, `$5` the etag. Rows have the columns that
/// [`Store::item`] reads.
pub(super) struct Statements {
    pub(super) get: String,
    pub(super) get_many: String,
    pub(super) set: String,
    /// Writes if there is no such row, or it has expired.
    pub(super) set_first: String,
    pub(super) set_if: String,
    /// Writes if there is no such row.
    pub(super) insert: String,
    /// Reads, also what has expired, and holds the row; says also whether it is live.
    pub(super) lock: String,
    /// Writes, and keeps the time of expiry.
    pub(super) keep: String,
    pub(super) delete: String,
    /// `$2` is the etag.
    pub(super) delete_if: String,
    /// See [`version1::list`].
    pub(super) list: String,
    /// The beginning of a query.
    pub(super) search: String,
    pub(super) clean: String,
}

/// A value as a parameter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Text(String),
    Bytes(Bytes),
}

/// A state store in PostgreSQL.
struct Store {
    version: Version,
    database: Arc<Database>,
    statements: Statements,
    shutdown: Shutdown,
}

/// A write that its conditions allow, or not.
type Stop = sql::Stop<Error>;

async fn open(component: &ComponentSpec) -> Result<Arc<dyn StateStore>, OpenError> {
    let version = if component.version.eq_ignore_ascii_case("v2") { Version::Two } else { Version::One };
    let database = Arc::new(database(component)?);
    let name = |fields: &[&str], default: String| {
        let name = component.field(fields).map_or(default, str::to_owned);
        let quoted = table::quoted(&name);
        let expected = "a name of letters, digits and underscores, perhaps behind a schema and a dot";
        quoted.map(|quoted| (name, quoted)).ok_or_else(|| component.invalid(fields, expected))
    };
    let (metadata_name, metadata_table) = name(&["metadataTableName"], "dapr_metadata".to_owned())?;
    let (statements, migration, cleanup_key) = match version {
        Version::One => {
            let (_, table) = name(&["tableName"], "state".to_owned())?;
            let (key, steps) = ("migrations".to_owned(), version1::steps(&table));
            let cleanup_key = "last-cleanup".to_owned();
            (version1::statements(&table), Migration { metadata_table, key, steps }, cleanup_key)
        }
        Version::Two => {
            let prefix = component.field(&["tablePrefix"]).unwrap_or("");
            let table = table::quoted(&format!("{prefix}state"));
            let expected = "letters, digits and underscores, perhaps behind a schema and a dot";
            let table = table.ok_or_else(|| component.invalid(&["tablePrefix"], expected))?;
            let (key, steps) = (format!("migrations-state-v2-{prefix}"), version2::steps(&table));
            let cleanup_key = format!("last-cleanup-state-v2-{metadata_name}");
            (version2::statements(&table), Migration { metadata_table, key, steps }, cleanup_key)
        }
    };
    migration.run(&database).await.map_err(|error| failed(component, error))?;
    let store = Store { version, database, statements, shutdown: Shutdown::new() };
    let interval = sql::cleanup_interval(component, &["cleanupInterval", "cleanupIntervalInSeconds"])?;
    if let Some(interval) = interval {
        store.clean_every(interval, &migration.metadata_table, cleanup_key);
    }
    Ok(Arc::new(store))
}

// === impl Store ===

impl Store {
    /// Removes expired rows now and then, unless another host or sidecar did so within the interval.
    fn clean_every(&self, interval: Duration, metadata_table: &str, key: String) {
        let claim = format!(
            "INSERT INTO {metadata_table} AS t (key, value) VALUES ($1, now()::text) ON CONFLICT (key)
             DO UPDATE SET value = now()::text
             WHERE (extract(epoch FROM now() - t.value::timestamp with time zone) * 1000)::bigint > $2"
        );
        let (database, statements) =
            (Arc::clone(&self.database), Arc::new((claim, self.statements.clean.clone(), key)));
        sql::clean_every(&self.shutdown, interval, move |patience| {
            let (database, statements) = (Arc::clone(&database), Arc::clone(&statements));
            async move {
                let (claim, clean, key) = &*statements;
                if database.execute(claim, &[(key, Type::TEXT), (&patience, Type::INT8)]).await? > 0 {
                    database.execute_until(Instant::now() + CLEANUP_DEADLINE, clean, &[]).await?;
                }
                Ok::<_, Error>(())
            }
        });
    }

    /// The key and the item in a row of `key, value, isbinary, etag, expiry`, the last one in microseconds of
    /// Unix time.
    fn item(&self, row: &Row) -> Result<(String, Item), Error> {
        let key = table::read(row.try_get(0)?);
        let value = match self.version {
            Version::One => version1::decode(row.try_get(1)?, row.try_get(2)?),
            Version::Two => Some(Bytes::copy_from_slice(row.try_get(1)?)),
        };
        let value = value.ok_or_else(|| {
            Error::Failed(format!("the value of key {key:?} is marked as binary, and is no base64"))
        })?;
        let expiry: Option<i64> = row.try_get(4)?;
        let expires_at = expiry.map(|micros| {
            let since = Duration::from_micros(micros.unsigned_abs());
            let time = if micros < 0 { UNIX_EPOCH.checked_sub(since) } else { UNIX_EPOCH.checked_add(since) };
            time.unwrap_or(SystemTime::UNIX_EPOCH)
        });
        Ok((key, Item { value, etag: row.try_get(3)?, expires_at }))
    }

    fn encode(&self, value: &Bytes, json: bool) -> (Stored, bool) {
        match self.version {
            Version::One => version1::encode(value, json),
            Version::Two => (Stored::Bytes(value.clone()), true),
        }
    }

    fn check_etag(&self, etag: &str) -> Result<(), StateError> {
        let is_etag = match self.version {
            Version::One => version1::is_etag(etag),
            Version::Two => version2::is_etag(etag),
        };
        if is_etag { Ok(()) } else { Err(StateError::EtagInvalid { etag: etag.to_owned() }) }
    }

    /// One step, alone or in a transaction.
    async fn apply(&self, operation: &Operation, transaction: Option<&Transaction>) -> Result<(), Stop> {
        let Statements { set, set_first, set_if, delete, delete_if, .. } = &self.statements;
        let key = operation.key();
        let stored_key = table::stored(key);
        let key_param = || (&stored_key as &(dyn ToSql + Sync), Type::TEXT);
        let (rows, conditional) = match operation {
            Operation::Set(operation) => {
                let Set { value, json, etag, concurrency, ttl, .. } = operation;
                let (value, is_binary) = self.encode(value, *json);
                let ttl = microseconds(*ttl);
                let mut params = vec![
                    key_param(),
                    (&value, value.of_type()),
                    (&is_binary, Type::BOOL),
                    (&ttl, Type::INT8),
                ];
                match (etag, concurrency) {
                    (Some(etag), _) => {
                        self.check_etag(etag).map_err(Stop::Refused)?;
                        params.push((etag, Type::TEXT));
                        (self.execute(transaction, set_if, &params).await?, true)
                    }
                    (None, Concurrency::FirstWrite) => {
                        (self.execute(transaction, set_first, &params).await?, true)
                    }
                    (None, Concurrency::LastWrite) => (self.execute(transaction, set, &params).await?, true),
                }
            }
            Operation::Delete(Delete { etag: Some(etag), .. }) => {
                self.check_etag(etag).map_err(Stop::Refused)?;
                let params = [key_param(), (etag as &(dyn ToSql + Sync), Type::TEXT)];
                (self.execute(transaction, delete_if, &params).await?, true)
            }
            Operation::Delete(_) => (self.execute(transaction, delete, &[key_param()]).await?, false),
        };
        if conditional && rows == 0 {
            return Err(Stop::Refused(StateError::EtagMismatch { key: key.to_owned() }));
        }
        Ok(())
    }

    async fn execute(
        &self,
        transaction: Option<&Transaction>,
        sql: &str,
        params: Params<'_>,
    ) -> Result<u64, Stop> {
        let executed = match transaction {
            Some(transaction) => transaction.execute(sql, params).await,
            None => self.database.execute(sql, params).await,
        };
        executed.map_err(Stop::Failed)
    }

    /// All steps, each key's in their order. Keys are taken in one order by all hosts, so that two
    /// transactions do not wait for each other.
    async fn apply_all(&self, operations: &[&Operation], deadline: Instant) -> Result<(), Stop> {
        let transaction = self.database.begin(deadline).await.map_err(Stop::Failed)?;
        for operation in operations {
            if let Err(stop) = self.apply(operation, Some(&transaction)).await {
                transaction.roll_back().await;
                return Err(match stop {
                    Stop::Failed(error) if !error.is_conflict() => {
                        Stop::Refused(error.about(operation.key()))
                    }
                    stop => stop,
                });
            }
        }
        transaction.commit().await.map_err(Stop::Failed)
    }

    /// None: the row came or went meanwhile.
    async fn increment_once(&self, key: &str, delta: i64, deadline: Instant) -> Result<Option<i64>, Stop> {
        let transaction = self.database.begin(deadline).await.map_err(Stop::Failed)?;
        let sum = self.increment_in(&transaction, key, delta).await;
        match &sum {
            Ok(Some(_)) => transaction.commit().await.map_err(Stop::Failed)?,
            _ => transaction.roll_back().await,
        }
        sum
    }

    async fn increment_in(
        &self,
        transaction: &Transaction,
        key: &str,
        delta: i64,
    ) -> Result<Option<i64>, Stop> {
        let Statements { set, insert, lock, keep, .. } = &self.statements;
        let stored_key = table::stored(key);
        let key_param = || (&stored_key as &(dyn ToSql + Sync), Type::TEXT);
        let rows = transaction.query(lock, &[key_param()]).await.map_err(Stop::Failed)?;
        let found = rows.first().map(|row| {
            let live: bool = row.try_get(5)?;
            Ok::<_, Error>((self.item(row)?.1.value, live))
        });
        let found = found.transpose().map_err(Stop::Failed)?;
        let current = found.as_ref().filter(|(_, live)| *live).map(|(value, _)| &value[..]);
        let sum = sum(key, current, delta).map_err(Stop::Refused)?;
        // A number is a JSON document.
        let (value, is_binary) = self.encode(&sum.to_string().into(), true);
        let never: Option<i64> = None;
        let params = [key_param(), (&value, value.of_type()), (&is_binary, Type::BOOL), (&never, Type::INT8)];
        let statement = match &found {
            Some((_, true)) => transaction.execute(keep, &params[..3]).await,
            Some((_, false)) => transaction.execute(set, &params).await,
            None => transaction.execute(insert, &params).await,
        };
        Ok((statement.map_err(Stop::Failed)? > 0).then_some(sum))
    }
}

#[async_trait]
impl StateStore for Store {
    fn capabilities(&self) -> &'static [Capability] {
        use Capability::{Actor, Etag, Query, Transactional, Ttl};
        match self.version {
            Version::One => &[Etag, Transactional, Query, Ttl, Actor],
            Version::Two => &[Etag, Transactional, Ttl, Actor],
        }
    }

    fn max_key_bytes(&self) -> usize {
        table::MAX_KEY_BYTES.min(MAX_KEY_BYTES)
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, StateError> {
        let rows = self.database.query(&self.statements.get, &[(&table::stored(key), Type::TEXT)]).await?;
        Ok(rows.first().map(|row| self.item(row)).transpose()?.map(|(_, item)| item))
    }

    async fn get_many(&self, keys: &[String]) -> Vec<Result<Option<Item>, StateError>> {
        let stored: Vec<_> = keys.iter().map(|key| table::stored(key)).collect();
        let rows = self.database.query(&self.statements.get_many, &[(&stored, Type::TEXT_ARRAY)]).await;
        let items =
            rows.and_then(|rows| rows.iter().map(|row| self.item(row)).collect::<Result<HashMap<_, _>, _>>());
        match items {
            Ok(items) => keys.iter().map(|key| Ok(items.get(key).cloned())).collect(),
            Err(error) => keys.iter().map(|_| Err(error.clone().into())).collect(),
        }
    }

    async fn set(&self, set: Set) -> Result<(), StateError> {
        let operation = Operation::Set(set);
        self.apply(&operation, None).await.map_err(|stop| about(stop, operation.key()))
    }

    async fn delete(&self, delete: Delete) -> Result<(), StateError> {
        let operation = Operation::Delete(delete);
        self.apply(&operation, None).await.map_err(|stop| about(stop, operation.key()))
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), StateError> {
        let mut ordered: Vec<&Operation> = operations.iter().collect();
        ordered.sort_by_key(|operation| operation.key());
        let deadline = self.database.deadline();
        match ordered[..] {
            [] => return self.shutdown.check().map_err(|_| closed()),
            [one] => return self.apply(one, None).await.map_err(|stop| about(stop, one.key())),
            _ => {}
        }
        let mut attempt = 1;
        loop {
            match self.apply_all(&ordered, deadline).await {
                Err(Stop::Failed(error)) if error.is_conflict() && attempt < ATTEMPTS => attempt += 1,
                answer => return answer.map_err(|stop| about(stop, "")),
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
        let stored_prefix = table::stored(prefix);
        let end = after_prefix(&stored_prefix);
        let after = after.map(table::stored);
        // One more, to know whether there is one.
        let rows = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let params: Params<'_> =
            &[(&stored_prefix, Type::TEXT), (&end, Type::TEXT), (&after, Type::TEXT), (&rows, Type::INT8)];
        let rows = self.database.query(&self.statements.list, params).await?;
        let keys = rows.iter().map(|row| Ok(table::read(row.try_get(0)?)));
        let mut keys: Vec<String> =
            keys.collect::<Result<_, tokio_postgres::Error>>().map_err(Error::from)?;
        let more = keys.len() > limit;
        keys.truncate(limit);
        Ok(KeyPage { keys, more })
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        let deadline = self.database.deadline();
        for attempt in 1.. {
            match self.increment_once(key, delta, deadline).await {
                Ok(Some(sum)) => return Ok(sum),
                // Rivals for a row that is not there yet: each attempt, one of them succeeds.
                Ok(None) if Instant::now() < deadline => {}
                Ok(None) => return Err(Error::Late.into()),
                Err(Stop::Failed(error)) if error.is_conflict() && attempt < ATTEMPTS => {}
                Err(stop) => return Err(about(stop, key)),
            }
            sleep(Duration::from_millis(fastrand::u64(1..10))).await;
        }
        Err(Error::Late.into())
    }

    async fn query(&self, prefix: &str, query: Query) -> Result<QueryPage, StateError> {
        if self.version == Version::Two {
            return Err(StateError::NotSupported { feature: "queries; use version v1 of the component" });
        }
        let search = query::Search::new(&self.statements.search, prefix, query)?;
        let rows = self.database.query(search.sql(), &search.params()).await?;
        let found = rows.iter().map(|row| self.item(row)).collect::<Result<Vec<_>, _>>()?;
        Ok(search.page(found))
    }

    async fn ping(&self) -> Result<(), StateError> {
        self.database.query("SELECT 1", &[]).await?;
        Ok(())
    }

    async fn close(&self) {
        self.shutdown.shut_down(CLOSE_DEADLINE).await;
        self.database.pool.close();
    }
}

/// What a write's end means for the state under that key.
fn about(stop: Stop, key: &str) -> StateError {
    match stop {
        Stop::Refused(error) => error,
        Stop::Failed(error) => error.about(key),
    }
}

// === impl Stored ===

impl Stored {
    fn of_type(&self) -> Type {
        match self {
            Stored::Text(_) => Type::TEXT,
            Stored::Bytes(_) => Type::BYTEA,
        }
    }
}

impl ToSql for Stored {
    fn to_sql(
        &self,
        of_type: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn error::Error + Sync + Send>> {
        match self {
            Stored::Text(text) => text.to_sql(of_type, out),
            Stored::Bytes(bytes) => (&bytes[..]).to_sql(of_type, out),
        }
    }

    fn accepts(of_type: &Type) -> bool {
        [Type::TEXT, Type::BYTEA].contains(of_type)
    }

    to_sql_checked!();
}
