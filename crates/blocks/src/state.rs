//! The state block: keys, values, etags, time to live, transactions.
//!
//! Semantics are those that Dapr's state API promises, so that one provider serves every guest
//! interface: a write without an etag is last-write-wins; with [`Concurrency::FirstWrite`] a write without
//! an etag succeeds only while the key is absent; a write with an etag succeeds only while the stored etag
//! is the same. Keys are opaque and already scoped to an app: no provider ever learns an app-id.

mod query;

pub use query::{Comparison, Filter, Found, MAX_LIMIT, Query, QueryPage, Sort};

use async_trait::async_trait;
use bytes::Bytes;
use std::time::{Duration, SystemTime};

/// Longest key that any provider is asked to store, in bytes, prefix included.
pub const MAX_KEY_BYTES: usize = 4096;

/// Largest value that any provider is asked to store, in bytes.
pub const MAX_VALUE_BYTES: usize = 64 * 1024 * 1024;

/// A value as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The bytes that were written, unchanged; of [`Set::json`] perhaps another spelling.
    pub value: Bytes,
    /// Opaque version of the value; changes with every write.
    pub etag: String,
    /// When the value disappears by itself.
    pub expires_at: Option<SystemTime>,
}

/// How two writers of one key are kept apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// The later write stays.
    #[default]
    LastWrite,
    /// Without an etag: succeeds only while the key is absent.
    FirstWrite,
}

/// What a write does to the key's time to live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// The value does not expire; a time to live from an earlier write is removed.
    #[default]
    Forever,
    /// The value expires this long after the write.
    After(Duration),
}

/// One write.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// Key, already scoped.
    pub key: String,
    /// Value, stored unchanged.
    pub value: Bytes,
    /// The value is a JSON document rather than bytes. A store that keeps documents as such may give it back in
    /// another spelling (spaces, the order of names), and only such values can be searched there.
    pub json: bool,
    /// Write only while the stored etag is this one.
    pub etag: Option<String>,
    /// What happens between concurrent writers when there is no etag.
    pub concurrency: Concurrency,
    /// Time to live.
    pub ttl: Ttl,
}

/// One deletion. Deleting an absent key without an etag succeeds.
#[derive(Clone, Debug, Default)]
pub struct Delete {
    /// Key, already scoped.
    pub key: String,
    /// Delete only while the stored etag is this one; an absent key is then a mismatch.
    pub etag: Option<String>,
}

/// One step of a transaction.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Insert or replace.
    Set(Set),
    /// Remove.
    Delete(Delete),
}

impl Operation {
    /// The key that the step touches.
    pub fn key(&self) -> &str {
        match self {
            Operation::Set(set) => &set.key,
            Operation::Delete(delete) => &delete.key,
        }
    }
}

/// One page of keys, in ascending byte order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// Keys, prefix included.
    pub keys: Vec<String>,
    /// There are more keys after the last one.
    pub more: bool,
}

/// What a store can do beyond get, set and delete; the names are those of Dapr's metadata API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Etags are kept and compared.
    Etag,
    /// Several writes succeed or fail together.
    Transactional,
    /// Values can expire.
    Ttl,
    /// All keys with a prefix can be deleted at once.
    DeleteWithPrefix,
    /// Actors may keep their state here.
    Actor,
    /// Values can be searched by their fields.
    Query,
}

impl Capability {
    /// The name in Dapr's metadata API.
    pub fn name(self) -> &'static str {
        match self {
            Capability::Etag => "ETAG",
            Capability::Transactional => "TRANSACTIONAL",
            Capability::Ttl => "TTL",
            Capability::DeleteWithPrefix => "DELETE_WITH_PREFIX",
            Capability::Actor => "ACTOR",
            Capability::Query => "QUERY_API",
        }
    }
}

/// Why a state operation failed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StateError {
    /// The stored etag is not the given one, or a first write found the key taken.
    #[error("the etag does not match: key {key:?} was changed by another writer")]
    EtagMismatch {
        /// The key as the provider knows it.
        key: String,
    },
    /// The etag cannot be one that this store ever returned.
    #[error("invalid etag {etag:?}: use the etag that a read of the key returned")]
    EtagInvalid {
        /// The etag as given.
        etag: String,
    },
    /// `increment` found a value that is not a decimal integer.
    #[error("the value of key {key:?} is not an integer")]
    NotANumber {
        /// The key as the provider knows it.
        key: String,
    },
    /// `increment` would leave the range of a signed 64-bit integer.
    #[error("incrementing key {key:?} overflows a 64-bit integer")]
    Overflow {
        /// The key as the provider knows it.
        key: String,
    },
    /// The key contains `||`, where that would name the key of another app.
    #[error("the key {key:?} contains \"||\", which separates prefixes from keys")]
    KeyNotAllowed {
        /// The key as the app gave it.
        key: String,
    },
    /// Key or value beyond [`MAX_KEY_BYTES`] or [`MAX_VALUE_BYTES`].
    #[error("{what} has {actual} bytes, more than the {limit} allowed")]
    TooLarge {
        /// "key" or "value".
        what: &'static str,
        /// Bytes found.
        actual: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The store is not able to do this at all.
    #[error("this state store does not support {feature}")]
    NotSupported {
        /// The missing feature.
        feature: &'static str,
    },
    /// The store cannot be reached, is full, read-only or shutting down; a later attempt may succeed.
    #[error("state store unavailable: {reason}")]
    Unavailable {
        /// What the backend said, and what to do about it.
        reason: String,
    },
    /// The backend failed in a way that a repetition will not mend.
    #[error("state store failed: {reason}")]
    Failed {
        /// What the backend said.
        reason: String,
    },
}

/// A provider of state.
///
/// `Ok` from a writing method means that the write survives whatever the provider promises to survive; for
/// durable providers that is the death of the process at any instant after the reply.
#[async_trait]
pub trait StateStore: Send + Sync + 'static {
    /// What this store can do; constant for the life of the store.
    fn capabilities(&self) -> &[Capability];

    /// The longest key, in bytes, that this store takes for certain; [`MAX_KEY_BYTES`] or less. A longer one may
    /// be refused with [`StateError::TooLarge`].
    fn max_key_bytes(&self) -> usize {
        MAX_KEY_BYTES
    }

    /// Reads one key; `None` when it is absent or expired.
    async fn get(&self, key: &str) -> Result<Option<Item>, StateError>;

    /// Reads several keys; the answers are in the order of the keys.
    async fn get_many(&self, keys: &[String]) -> Vec<Result<Option<Item>, StateError>> {
        let mut items = Vec::with_capacity(keys.len());
        for key in keys {
            items.push(self.get(key).await);
        }
        items
    }

    /// Writes one key.
    async fn set(&self, set: Set) -> Result<(), StateError>;

    /// Deletes one key.
    async fn delete(&self, delete: Delete) -> Result<(), StateError>;

    /// Applies all operations in order, or none of them. An empty list succeeds.
    async fn transact(&self, operations: Vec<Operation>) -> Result<(), StateError>;

    /// Keys that start with `prefix` and sort after `after`, ascending, at most `limit`.
    async fn list_keys(&self, prefix: &str, after: Option<&str>, limit: usize)
    -> Result<KeyPage, StateError>;

    /// Adds `delta` to the decimal integer stored at `key` (absent counts as 0), atomically; returns the sum.
    async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError>;

    /// Searches the values of keys that start with `prefix`.
    async fn query(&self, _prefix: &str, _query: Query) -> Result<QueryPage, StateError> {
        Err(StateError::NotSupported { feature: "queries" })
    }

    /// Fails when the store could not answer a request now.
    async fn ping(&self) -> Result<(), StateError>;

    /// Finishes what was accepted and lets go of files and connections. Later calls are `Unavailable`.
    async fn close(&self);
}
