//! A state store that is a component.

use super::generated::exports::dhow::provider::state::{self as wit, FeatureSet};
use super::pool::{Pool, exported};
use super::{Place, Provider, brief};
use async_trait::async_trait;
use dhow_blocks::state::{
    Capability, Concurrency, Delete, Item, KeyPage, MAX_VALUE_BYTES, Operation, Set, StateError, StateStore,
    Ttl,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// A state store.
pub(super) struct Store {
    pool: Pool<wit::Guest>,
    capabilities: Vec<Capability>,
    /// It has no `get-many`.
    singly: AtomicBool,
}

exported!(wit, "dhow:provider/state@0.1.", |error| StateError::from(Error { error, key: "" }).to_string());

// === impl Store ===

impl Store {
    pub(super) async fn open(place: Place<'_>, provider: Provider) -> Result<Store, String> {
        let pool: Pool<wit::Guest> = place.pool(provider)?;
        let found = pool.call(|i| Box::pin(i.exports.call_features(&mut i.store))).await?;
        let capabilities = [
            (FeatureSet::ETAG, Capability::Etag),
            (FeatureSet::TRANSACTIONAL, Capability::Transactional),
            (FeatureSet::TTL, Capability::Ttl),
        ];
        let capabilities = capabilities.into_iter().filter(|(flag, _)| found.contains(*flag));
        let capabilities = capabilities.map(|(_, capability)| capability).collect();
        Ok(Store { pool, capabilities, singly: AtomicBool::new(false) })
    }

    fn strange(&self, what: &str) -> StateError {
        StateError::Failed { reason: format!("component {:?}: {what}", self.pool.name()) }
    }

    fn item(&self, found: Option<wit::Item>) -> Result<Option<Item>, StateError> {
        let Some(wit::Item { value, etag, expires_at }) = found else { return Ok(None) };
        if value.len() > MAX_VALUE_BYTES {
            return Err(self.strange("its value is larger than a value may be"));
        }
        let expires_at =
            expires_at.and_then(|at| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(at)));
        Ok(Some(Item { value: value.into(), etag, expires_at }))
    }
}

#[async_trait]
impl StateStore for Store {
    fn capabilities(&self) -> &[Capability] {
        &self.capabilities
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, StateError> {
        let asked = key.to_owned();
        let found =
            self.pool.call(|i| Box::pin(async move { i.exports.call_get(&mut i.store, &asked).await }));
        self.item(found.await?.map_err(|error| Error { error, key })?)
    }

    async fn get_many(&self, keys: &[String]) -> Vec<Result<Option<Item>, StateError>> {
        if !self.singly.load(Ordering::Relaxed) {
            let asked = keys.to_vec();
            let found = self
                .pool
                .call(|i| Box::pin(async move { i.exports.call_get_many(&mut i.store, &asked).await }));
            let failed = match found.await {
                Ok(Ok(found)) if found.len() == keys.len() => {
                    return found.into_iter().map(|item| self.item(item)).collect();
                }
                Ok(Ok(_)) => {
                    Some(self.strange("get-many answered another number of values than was asked for"))
                }
                Ok(Err(wit::Error::Unsupported)) => None,
                Ok(Err(error)) => Some(Error { error, key: "" }.into()),
                Err(broken) => Some(broken.into()),
            };
            if let Some(error) = failed {
                return vec![Err(error); keys.len()];
            }
            self.singly.store(true, Ordering::Relaxed);
        }
        let mut items = Vec::with_capacity(keys.len());
        for key in keys {
            items.push(self.get(key).await);
        }
        items
    }

    async fn set(&self, set: Set) -> Result<(), StateError> {
        if matches!(set.ttl, Ttl::After(_)) && !self.capabilities.contains(&Capability::Ttl) {
            return Err(StateError::NotSupported { feature: "a time to live" });
        }
        let (key, write) = (set.key.clone(), write(set));
        let done =
            self.pool.call(|i| Box::pin(async move { i.exports.call_set(&mut i.store, &write).await }));
        Ok(done.await?.map_err(|error| Error { error, key: &key })?)
    }

    async fn delete(&self, delete: Delete) -> Result<(), StateError> {
        let (key, removal) = (delete.key.clone(), removal(delete));
        let done =
            self.pool.call(|i| Box::pin(async move { i.exports.call_delete(&mut i.store, &removal).await }));
        Ok(done.await?.map_err(|error| Error { error, key: &key })?)
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), StateError> {
        if !self.capabilities.contains(&Capability::Transactional) {
            return Err(StateError::NotSupported { feature: "transactions" });
        }
        if operations.is_empty() {
            return Ok(());
        }
        let operations = operations.into_iter().map(|operation| match operation {
            Operation::Set(set) => wit::Operation::Set(write(set)),
            Operation::Delete(delete) => wit::Operation::Delete(removal(delete)),
        });
        let operations: Vec<wit::Operation> = operations.collect();
        let done = self
            .pool
            .call(|i| Box::pin(async move { i.exports.call_transact(&mut i.store, &operations).await }));
        Ok(done.await?.map_err(|error| Error { error, key: "" })?)
    }

    async fn list_keys(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<KeyPage, StateError> {
        let (asked, after) = (prefix.to_owned(), after.map(str::to_owned));
        let most = u32::try_from(limit).unwrap_or(u32::MAX);
        let found = self.pool.call(|i| {
            Box::pin(
                async move { i.exports.call_list_keys(&mut i.store, &asked, after.as_deref(), most).await },
            )
        });
        let wit::KeyPage { keys, more } = found.await?.map_err(|error| Error { error, key: prefix })?;
        if keys.len() > limit || keys.iter().any(|key| !key.starts_with(prefix)) {
            return Err(self.strange("list-keys answered keys that it was not asked for"));
        }
        Ok(KeyPage { keys, more })
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        let asked = key.to_owned();
        let sum = self
            .pool
            .call(|i| Box::pin(async move { i.exports.call_increment(&mut i.store, &asked, delta).await }));
        Ok(sum.await?.map_err(|error| Error { error, key })?)
    }

    async fn ping(&self) -> Result<(), StateError> {
        let answer = self.pool.call(|i| Box::pin(i.exports.call_ping(&mut i.store)));
        Ok(answer.await?.map_err(|error| Error { error, key: "" })?)
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

fn write(set: Set) -> wit::Write {
    let Set { key, value, json, etag, concurrency, ttl } = set;
    let ttl = match ttl {
        Ttl::Forever => None,
        Ttl::After(ttl) => Some(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
    };
    let first_write = etag.is_none() && concurrency == Concurrency::FirstWrite;
    wit::Write { key, value: value.into(), json, etag, first_write, ttl }
}

fn removal(delete: Delete) -> wit::Removal {
    wit::Removal { key: delete.key, etag: delete.etag }
}

/// What a component says of an operation on a key.
struct Error<'a> {
    error: wit::Error,
    key: &'a str,
}

impl From<Error<'_>> for StateError {
    fn from(Error { error, key }: Error<'_>) -> StateError {
        let key = key.to_owned();
        match error {
            wit::Error::EtagMismatch(key) => StateError::EtagMismatch { key: brief(key) },
            wit::Error::EtagInvalid(etag) => StateError::EtagInvalid { etag },
            wit::Error::NotANumber => StateError::NotANumber { key },
            wit::Error::Overflow => StateError::Overflow { key },
            wit::Error::Unsupported => StateError::NotSupported { feature: "this operation" },
            wit::Error::Unavailable(reason) => StateError::Unavailable { reason: brief(reason) },
            wit::Error::Failed(reason) => StateError::Failed { reason: brief(reason) },
        }
    }
}
