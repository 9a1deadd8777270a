//! `state.in-memory`: state that lives as long as the process.
//!
//! Keys are spread over shards, each behind its own lock, so that writers of different keys seldom meet. A
//! shard keeps a hash map for point reads and writes, which are nearly all of the traffic, and beside it an
//! ordered set of the same keys for listing; the set changes only when a key appears or disappears, and the
//! key's text is shared by both. Expired entries are invisible at once; their memory is taken back by later
//! writes to the shard, a few entries each, so no background task is needed.
//!
//! Whoever locks several shards locks them in ascending order.

use super::{closed, sum};
use crate::registry::{Open, Provider};
use async_trait::async_trait;
use bytes::Bytes;
use dhow_blocks::state::{
    Capability, Concurrency, Delete, Item, KeyPage, Operation, Set, StateError, StateStore, Ttl,
};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "state.in-memory",
    aliases: &[],
    versions: &["v1"],
    fields: &[],
    open: Open::State(|_, _| Box::pin(async { Ok(Arc::new(InMemory::new()) as Arc<_>) })),
};

/// A power of two well above the number of threads that write at once.
const SHARDS: usize = 32;

/// Expired entries that one write removes at most: more than it adds, so that a shard does not grow.
const SWEEP: usize = 4;

/// What such a store can do.
pub const CAPABILITIES: &[Capability] =
    &[Capability::Etag, Capability::Transactional, Capability::Ttl, Capability::Actor];

/// A state store in the memory of this process.
pub struct InMemory {
    shards: [RwLock<Shard>; SHARDS],
    /// Chooses the shard of a key; seeded, so that a guest cannot crowd one shard on purpose.
    hasher: RandomState,
    /// The next etag. Starts at random, so that an etag of an earlier process fits nothing here.
    next_etag: AtomicU64,
    closed: AtomicBool,
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Arc<str>, Entry>,
    /// The keys of `entries`, for listing.
    order: BTreeSet<Arc<str>>,
    /// The keys of `entries` that expire, soonest first.
    expiring: BTreeSet<(SystemTime, Arc<str>)>,
}

#[derive(Clone)]
struct Entry {
    value: Bytes,
    etag: u64,
    expires_at: Option<SystemTime>,
}

// === impl InMemory ===

impl InMemory {
    /// An empty store.
    pub fn new() -> InMemory {
        InMemory {
            shards: std::array::from_fn(|_| RwLock::default()),
            hasher: RandomState::new(),
            // Room for 2^63 writes before the counter wraps.
            next_etag: AtomicU64::new(fastrand::u64(1..1 << 63)),
            closed: AtomicBool::new(false),
        }
    }

    fn index(&self, key: &str) -> usize {
        self.hasher.hash_one(key) as usize % SHARDS
    }

    fn read(&self, key: &str) -> Result<RwLockReadGuard<'_, Shard>, StateError> {
        let shard = self.shards[self.index(key)].read();
        self.check_open()?;
        Ok(shard)
    }

    fn write(&self, key: &str) -> Result<RwLockWriteGuard<'_, Shard>, StateError> {
        let shard = self.shards[self.index(key)].write();
        self.check_open()?;
        Ok(shard)
    }

    /// Checked under the shard's lock: `close` empties every shard after it raised the flag.
    fn check_open(&self) -> Result<(), StateError> {
        if self.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }

    fn apply(&self, shard: &mut Shard, operation: Operation, now: SystemTime) -> Result<(), StateError> {
        match operation {
            Operation::Set(set) => {
                let first = set.concurrency == Concurrency::FirstWrite;
                shard.check(&set.key, set.etag.as_deref(), first, now)?;
                let entry = Entry {
                    // A copy, because the bytes may be a small part of a large request body.
                    value: Bytes::copy_from_slice(&set.value),
                    etag: self.etag(),
                    expires_at: expires_at(set.ttl, now),
                };
                shard.insert(&set.key, entry);
            }
            Operation::Delete(delete) => {
                shard.check(&delete.key, delete.etag.as_deref(), false, now)?;
                shard.remove(&delete.key);
            }
        }
        Ok(())
    }

    fn etag(&self) -> u64 {
        self.next_etag.fetch_add(1, Ordering::Relaxed)
    }
}

impl Default for InMemory {
    fn default() -> InMemory {
        InMemory::new()
    }
}

impl std::fmt::Debug for InMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InMemory").finish_non_exhaustive()
    }
}

#[async_trait]
impl StateStore for InMemory {
    fn capabilities(&self) -> &'static [Capability] {
        CAPABILITIES
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, StateError> {
        Ok(self.read(key)?.live(key, None).map(Entry::item))
    }

    async fn set(&self, set: Set) -> Result<(), StateError> {
        let mut shard = self.write(&set.key)?;
        let now = SystemTime::now();
        shard.sweep(now);
        self.apply(&mut shard, Operation::Set(set), now)
    }

    async fn delete(&self, delete: Delete) -> Result<(), StateError> {
        let mut shard = self.write(&delete.key)?;
        let now = SystemTime::now();
        shard.sweep(now);
        self.apply(&mut shard, Operation::Delete(delete), now)
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), StateError> {
        let mut guards: [Option<RwLockWriteGuard<'_, Shard>>; SHARDS] = std::array::from_fn(|_| None);
        let mut touched = [false; SHARDS];
        for operation in &operations {
            touched[self.index(operation.key())] = true;
        }
        for (index, _) in touched.iter().enumerate().filter(|(_, touched)| **touched) {
            guards[index] = Some(self.shards[index].write());
        }
        self.check_open()?;
        let now = SystemTime::now();
        guards.iter_mut().flatten().for_each(|shard| shard.sweep(now));
        let mut undo: Vec<(usize, String, Option<Entry>)> = Vec::with_capacity(operations.len());
        let mut result = Ok(());
        for operation in operations {
            let index = self.index(operation.key());
            let Some(shard) = &mut guards[index] else { continue };
            undo.push((index, operation.key().to_owned(), shard.entries.get(operation.key()).cloned()));
            result = self.apply(shard, operation, now);
            if result.is_err() {
                break;
            }
        }
        if result.is_err() {
            for (index, key, entry) in undo.into_iter().rev() {
                let Some(shard) = &mut guards[index] else { continue };
                match entry {
                    Some(entry) => shard.insert(&key, entry),
                    None => shard.remove(&key),
                }
            }
        }
        result
    }

    async fn list_keys(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<KeyPage, StateError> {
        let shards: Vec<RwLockReadGuard<'_, Shard>> = self.shards.iter().map(RwLock::read).collect();
        self.check_open()?;
        let now = SystemTime::now();
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut ranges: Vec<_> = shards
            .iter()
            .map(|shard| {
                let keys = shard.order.range::<str, _>((start, Bound::Unbounded));
                keys.take_while(|key| key.starts_with(prefix))
                    .filter(|key| shard.live(key, Some(now)).is_some())
            })
            .collect();
        // The smallest key of each shard that was not listed yet; the smallest of these is the next one.
        let mut heads: BinaryHeap<Reverse<(&Arc<str>, usize)>> = BinaryHeap::with_capacity(SHARDS);
        for (index, range) in ranges.iter_mut().enumerate() {
            heads.extend(range.next().map(|key| Reverse((key, index))));
        }
        let mut keys = Vec::new();
        while keys.len() < limit {
            let Some(Reverse((key, index))) = heads.pop() else { break };
            keys.push(key.to_string());
            heads.extend(ranges[index].next().map(|key| Reverse((key, index))));
        }
        Ok(KeyPage { keys, more: !heads.is_empty() })
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        let mut shard = self.write(key)?;
        let now = SystemTime::now();
        shard.sweep(now);
        let current = shard.live(key, Some(now));
        let sum = sum(key, current.map(|entry| &entry.value[..]), delta)?;
        let expires_at = current.and_then(|entry| entry.expires_at);
        shard.insert(key, Entry { value: sum.to_string().into(), etag: self.etag(), expires_at });
        Ok(sum)
    }

    async fn ping(&self) -> Result<(), StateError> {
        self.check_open()
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for shard in &self.shards {
            *shard.write() = Shard::default();
        }
    }
}

// === impl Shard ===

impl Shard {
    /// The entry, unless it is expired; the clock is read only when the entry expires and `now` is unknown.
    fn live(&self, key: &str, now: Option<SystemTime>) -> Option<&Entry> {
        let entry = self.entries.get(key)?;
        match entry.expires_at {
            Some(expires_at) if expires_at <= now.unwrap_or_else(SystemTime::now) => None,
            _ => Some(entry),
        }
    }

    /// Whether a write with this etag, or a first write, may go ahead.
    fn check(&self, key: &str, etag: Option<&str>, first: bool, now: SystemTime) -> Result<(), StateError> {
        let allowed = match (etag, self.live(key, Some(now))) {
            (None, current) => !first || current.is_none(),
            // Compared as text: "07" is not an etag of this store.
            (Some(etag), Some(current)) => current.etag.to_string() == etag,
            (Some(_), None) => false,
        };
        if allowed { Ok(()) } else { Err(StateError::EtagMismatch { key: key.to_owned() }) }
    }

    fn insert(&mut self, key: &str, entry: Entry) {
        let new = entry.expires_at;
        let (key, old) = match self.entries.get_key_value(key) {
            Some((key, old)) => (Arc::clone(key), old.expires_at),
            None => {
                let key: Arc<str> = key.into();
                self.order.insert(Arc::clone(&key));
                (key, None)
            }
        };
        if old != new {
            if let Some(old) = old {
                self.expiring.remove(&(old, Arc::clone(&key)));
            }
            if let Some(new) = new {
                self.expiring.insert((new, Arc::clone(&key)));
            }
        }
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &str) {
        if let Some((key, entry)) = self.entries.remove_entry(key) {
            self.order.remove(&key);
            if let Some(expires_at) = entry.expires_at {
                self.expiring.remove(&(expires_at, key));
            }
        }
    }

    /// Takes back the memory of a few expired entries.
    fn sweep(&mut self, now: SystemTime) {
        for _ in 0..SWEEP {
            match self.expiring.first() {
                Some((expires_at, key)) if *expires_at <= now => {
                    let key = Arc::clone(key);
                    self.remove(&key);
                }
                _ => break,
            }
        }
    }
}

// === impl Entry ===

impl Entry {
    fn item(&self) -> Item {
        Item { value: self.value.clone(), etag: self.etag.to_string(), expires_at: self.expires_at }
    }
}

/// `None` also for a time beyond what the clock can tell: such a value never expires.
fn expires_at(ttl: Ttl, now: SystemTime) -> Option<SystemTime> {
    match ttl {
        Ttl::Forever => None,
        Ttl::After(duration) => now.checked_add(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// The memory of expired entries comes back without anybody asking for their keys.
    #[tokio::test]
    async fn later_writes_sweep_expired_entries() {
        let store = InMemory::new();
        for number in 0..1000 {
            let ttl = Ttl::After(Duration::ZERO);
            store.set(Set { key: format!("expired-{number}"), ttl, ..Set::default() }).await.unwrap();
        }
        for number in 0..500 {
            store.set(Set { key: format!("kept-{number}"), ..Set::default() }).await.unwrap();
        }
        for _ in 0..1000 {
            store.increment(&format!("kept-{}", fastrand::u32(..)), 0).await.unwrap();
        }
        let expired: usize = store.shards.iter().map(|shard| shard.read().expiring.len()).sum();
        // Every shard saw far more writes than it needs, whatever the hash seed.
        assert_eq!(expired, 0);
        for shard in &store.shards {
            let shard = shard.read();
            assert_eq!(shard.entries.len(), shard.order.len());
            assert!(shard.order.iter().all(|key| key.starts_with("kept")));
        }
    }

    /// A refused transaction leaves the three indexes of each shard in step.
    #[tokio::test]
    async fn a_refused_transaction_restores_every_index() {
        let store = InMemory::new();
        let hour = Ttl::After(Duration::from_secs(3600));
        for number in 0..50 {
            store.set(Set { key: format!("k{number}"), ttl: hour, ..Set::default() }).await.unwrap();
        }
        let mut operations: Vec<Operation> = Vec::new();
        for number in 0..100 {
            operations.push(Operation::Set(Set { key: format!("k{number}"), ..Set::default() }));
            operations.push(Operation::Delete(Delete { key: format!("k{number}"), etag: None }));
        }
        let stale = Some("stale".to_owned());
        operations.push(Operation::Delete(Delete { key: "k0".to_owned(), etag: stale }));
        let answer = store.transact(operations).await;
        assert_eq!(answer, Err(StateError::EtagMismatch { key: "k0".to_owned() }));
        for shard in &store.shards {
            let shard = shard.read();
            assert!(shard.order.iter().all(|key| shard.entries.contains_key(key)));
            assert_eq!(shard.order.len(), shard.entries.len());
            assert_eq!(shard.expiring.len(), shard.entries.len());
        }
        assert_eq!(store.list_keys("k", None, 100).await.unwrap().keys.len(), 50);
    }
}
