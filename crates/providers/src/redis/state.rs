//! `state.redis`: state as Dapr keeps it, a hash for each key.
//!
//! The hash has the fields `data`, `version` (the etag) and, after a first-write, `first-write`; a time to live is
//! the key's. Every write is one script, so that conditions and all steps of a transaction hold at one instant.
//! A key's version begins at the server's clock and grows by one with each write: Dapr begins at 1, and thereby
//! repeats the etags of a key that was deleted; to its readers both are numbers.
//!
//! Redis has no order of keys: a page of [`StateStore::list_keys`] looks at all keys of the database.

use super::error::Failure;
use super::pool::{Pool, Repeat};
use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use ::redis::{Script, ScriptInvocation};
use async_trait::async_trait;
use bytes::Bytes;
use dhow_blocks::state::{
    Capability, Concurrency, Delete, Item, KeyPage, Operation, Set, StateError, StateStore, Ttl,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "state.redis",
    aliases: &[],
    versions: &["v1"],
    fields: super::fields!["ttlInSeconds", "queryIndexes", "redeliverInterval", "processingTimeout"],
    open: Open::State(|component, _| {
        Box::pin(async move { Ok(Arc::new(RedisState::open(&component).await?) as Arc<_>) })
    }),
};

const CAPABILITIES: &[Capability] =
    &[Capability::Etag, Capability::Transactional, Capability::Ttl, Capability::Actor];

/// Keys that one script reads at most: it holds up the server's other clients meanwhile.
const READ_AT_ONCE: usize = 64;

/// Keys that the server looks at in one step of a listing.
const SCAN_AT_ONCE: usize = 1000;

/// A listing of a huge database gives up after this long.
const LIST_DEADLINE: Duration = Duration::from_secs(60);

/// A longer time to live is for ever: it would not fit into four digits of years.
const LONGEST_TTL: Duration = Duration::from_secs(3000 * 365 * 24 * 3600);

/// A state store on a Redis server.
pub(crate) struct RedisState {
    pool: Pool,
    read: Script,
    write: Script,
    increment: Script,
    /// What lives for ever elsewhere lives this long here: `ttlInSeconds` of the component.
    default_ttl: Option<Duration>,
}

/// What the script `read.lua` says about one key.
type Found = (String, Option<Bytes>, Option<String>, i64);

// === impl RedisState ===

impl RedisState {
    async fn open(component: &ComponentSpec) -> Result<RedisState, OpenError> {
        let expected = "a positive number of seconds, or -1 for none";
        let ttl = super::number(component, &["ttlInSeconds"], -1..=i64::from(i32::MAX), expected)?;
        if component.field(&["queryIndexes"]).is_some() {
            tracing::warn!(
                component = component.name,
                "queryIndexes has no effect: queries are not supported"
            );
        }
        Ok(RedisState {
            pool: super::open(component).await?,
            read: Script::new(include_str!("scripts/read.lua")),
            write: Script::new(include_str!("scripts/write.lua")),
            increment: Script::new(include_str!("scripts/increment.lua")),
            default_ttl: ttl.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0).map(Duration::from_secs),
        })
    }

    async fn read(&self, keys: &[String]) -> Result<Vec<Found>, Failure> {
        let mut script = self.read.prepare_invoke();
        for key in keys {
            script.key(key);
        }
        self.pool.script(Repeat::Harmless, &script).await
    }

    /// Applies all operations, or none.
    async fn write(&self, operations: Vec<Operation>) -> Result<(), StateError> {
        let mut script = self.write.prepare_invoke();
        for operation in &operations {
            self.push(&mut script, operation);
        }
        let refused: usize = self.pool.script(Repeat::Never, &script).await?;
        match refused.checked_sub(1).and_then(|index| operations.get(index)) {
            None => Ok(()),
            Some(operation) => Err(StateError::EtagMismatch { key: operation.key().to_owned() }),
        }
    }

    /// The key of an operation, and its six arguments; `write.lua` says which.
    fn push(&self, script: &mut ScriptInvocation<'_>, operation: &Operation) {
        let condition = |etag: &Option<String>, otherwise| match etag {
            Some(_) => "etag",
            None => otherwise,
        };
        let etag = |etag: &Option<String>| etag.clone().unwrap_or_default();
        script.key(operation.key());
        match operation {
            Operation::Set(set) => {
                let (otherwise, first) = match set.concurrency {
                    Concurrency::LastWrite => ("any", ""),
                    Concurrency::FirstWrite => ("absent", "first"),
                };
                script.arg("set").arg(condition(&set.etag, otherwise)).arg(etag(&set.etag)).arg(first);
                script.arg(&set.value[..]).arg(self.milliseconds(set.ttl));
            }
            Operation::Delete(delete) => {
                script.arg("delete").arg(condition(&delete.etag, "any")).arg(etag(&delete.etag));
                script.arg("").arg("").arg("");
            }
        }
    }

    /// Empty: for ever.
    fn milliseconds(&self, ttl: Ttl) -> String {
        let ttl = match ttl {
            Ttl::After(ttl) => Some(ttl),
            Ttl::Forever => self.default_ttl,
        };
        match ttl.filter(|ttl| *ttl <= LONGEST_TTL) {
            Some(ttl) => ttl.as_millis().to_string(),
            None => String::new(),
        }
    }
}

#[async_trait]
impl StateStore for RedisState {
    fn capabilities(&self) -> &'static [Capability] {
        CAPABILITIES
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, StateError> {
        match self.read(&[key.to_owned()]).await?.pop() {
            Some(found) => item(key, found),
            None => Err(malformed(key)),
        }
    }

    async fn get_many(&self, keys: &[String]) -> Vec<Result<Option<Item>, StateError>> {
        let mut items = Vec::with_capacity(keys.len());
        for keys in keys.chunks(READ_AT_ONCE) {
            match self.read(keys).await {
                Ok(found) if found.len() == keys.len() => {
                    items.extend(keys.iter().zip(found).map(|(key, found)| item(key, found)));
                }
                Ok(_) => items.extend(keys.iter().map(|key| Err(malformed(key)))),
                Err(failure) => {
                    let error = StateError::from(failure);
                    items.extend(keys.iter().map(|_| Err(error.clone())));
                }
            }
        }
        items
    }

    async fn set(&self, set: Set) -> Result<(), StateError> {
        self.write(vec![Operation::Set(set)]).await
    }

    async fn delete(&self, delete: Delete) -> Result<(), StateError> {
        self.write(vec![Operation::Delete(delete)]).await
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), StateError> {
        // An empty one asks nothing of the server, but a closed store is still closed.
        self.write(operations).await
    }

    async fn list_keys(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<KeyPage, StateError> {
        let pattern = format!("{}*", literal(prefix));
        let deadline = Instant::now() + LIST_DEADLINE;
        let wanted = limit.saturating_add(1);
        // The smallest keys so far, one more than the page holds.
        let mut keys: BTreeSet<String> = BTreeSet::new();
        let mut cursor: u64 = 0;
        loop {
            let mut scan = ::redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_AT_ONCE);
            // Locks, configuration and topics live beside state.
            scan.arg("TYPE").arg("hash");
            let (next, found): (u64, Vec<Vec<u8>>) = self.pool.command(Repeat::Harmless, &scan).await?;
            for key in found {
                // A key that is no text is nobody's state.
                let Ok(key) = String::from_utf8(key) else { continue };
                if !key.starts_with(prefix) || after.is_some_and(|after| key.as_str() <= after) {
                    continue;
                }
                keys.insert(key);
                if keys.len() > wanted {
                    keys.pop_last();
                }
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
            if Instant::now() > deadline {
                let reason =
                    format!("listing keys took more than {LIST_DEADLINE:?}: the database is too large");
                return Err(StateError::Unavailable { reason });
            }
        }
        let more = keys.len() > limit;
        Ok(KeyPage { keys: keys.into_iter().take(limit).collect(), more })
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        let mut script = self.increment.key(key);
        script.arg(delta).arg(self.milliseconds(Ttl::Forever));
        let answer: Vec<String> = self.pool.script(Repeat::Never, &script).await?;
        let key = key.to_owned();
        match (answer.first().map(String::as_str), answer.get(1).and_then(|sum| sum.parse().ok())) {
            (Some("sum"), Some(sum)) => Ok(sum),
            (Some("number"), _) => Err(StateError::NotANumber { key }),
            (Some("overflow"), _) => Err(StateError::Overflow { key }),
            _ => Err(malformed(&key)),
        }
    }

    async fn ping(&self) -> Result<(), StateError> {
        let () = self.pool.command(Repeat::Harmless, &::redis::cmd("PING")).await?;
        Ok(())
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

fn item(key: &str, (kind, data, version, expiry): Found) -> Result<Option<Item>, StateError> {
    let expires_at = u64::try_from(expiry).ok().map(Duration::from_millis);
    let expires_at = expires_at.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    match (kind.as_str(), data, version) {
        ("hash", Some(value), Some(etag)) => Ok(Some(Item { value, etag, expires_at })),
        ("hash", None, None) => Ok(None),
        // No etag, and none that a write could match.
        ("text", Some(value), _) => Ok(Some(Item { value, etag: String::new(), expires_at })),
        _ => Err(malformed(key)),
    }
}

fn malformed(key: &str) -> StateError {
    StateError::Failed {
        reason: format!("key {key:?} holds no state in Dapr's form: a hash with the fields data and version"),
    }
}

/// A pattern that matches this text and nothing else.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '^' | '-' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}
