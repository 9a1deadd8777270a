//! `lock.in-memory`: mutual exclusion inside this process, for tests and for a single host.

use crate::registry::{Open, Provider};
use crate::shutdown::closed;
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::lock::{LockStore, Renewal, Unlock};
use parking_lot::Mutex;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "lock.in-memory",
    aliases: &[],
    versions: &["v1"],
    fields: &[],
    open: Open::Lock(|_, _| Box::pin(async { Ok(Arc::new(InMemory::new()) as Arc<_>) })),
};

/// Expired locks that one attempt to lock forgets at most: more than it adds, so that they do not pile up.
const SWEEP: usize = 4;

/// An expiry beyond this is as good as none, and the clock can still tell it.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A lock store in the memory of this process.
#[derive(Debug)]
pub struct InMemory {
    /// `None` once the store is closed.
    locks: Mutex<Option<Locks>>,
}

#[derive(Debug, Default)]
struct Locks {
    held: HashMap<Arc<str>, Held>,
    /// The resources of `held`, soonest expiry first.
    expiring: BTreeSet<(Instant, Arc<str>)>,
}

#[derive(Debug)]
struct Held {
    owner: String,
    until: Instant,
}

// === impl InMemory ===

impl InMemory {
    /// A store in which every lock is free.
    pub fn new() -> InMemory {
        InMemory { locks: Mutex::new(Some(Locks::default())) }
    }
}

impl Default for InMemory {
    fn default() -> InMemory {
        InMemory::new()
    }
}

#[async_trait]
impl LockStore for InMemory {
    async fn try_lock(&self, resource: &str, owner: &str, expiry: Duration) -> Result<bool, BlockError> {
        let mut locks = self.locks.lock();
        let locks = locks.as_mut().ok_or_else(closed)?;
        let now = Instant::now();
        locks.sweep(now);
        locks.release(resource, |held| held.until <= now);
        let resource: Arc<str> = resource.into();
        let until = now + expiry.min(LONGEST);
        match locks.held.entry(Arc::clone(&resource)) {
            Entry::Occupied(_) => Ok(false),
            Entry::Vacant(free) => {
                free.insert(Held { owner: owner.to_owned(), until });
                locks.expiring.insert((until, resource));
                Ok(true)
            }
        }
    }

    async fn unlock(&self, resource: &str, owner: &str) -> Result<Unlock, BlockError> {
        let mut locks = self.locks.lock();
        let locks = locks.as_mut().ok_or_else(closed)?;
        let now = Instant::now();
        Ok(match locks.held.get(resource) {
            Some(held) if held.until <= now => Unlock::NotHeld,
            None => Unlock::NotHeld,
            Some(held) if held.owner != owner => Unlock::HeldByOther,
            Some(_) => {
                locks.release(resource, |_| true);
                Unlock::Released
            }
        })
    }

    async fn renew(&self, resource: &str, owner: &str, expiry: Duration) -> Result<Renewal, BlockError> {
        let mut locks = self.locks.lock();
        let locks = locks.as_mut().ok_or_else(closed)?;
        let now = Instant::now();
        locks.release(resource, |held| held.until <= now);
        Ok(match locks.held.get_mut(resource) {
            None => Renewal::NotHeld,
            Some(held) if held.owner != owner => Renewal::HeldByOther,
            Some(held) => {
                let before = std::mem::replace(&mut held.until, now + expiry.min(LONGEST));
                locks.expiring.remove(&(before, resource.into()));
                locks.expiring.insert((held.until, resource.into()));
                Renewal::Renewed
            }
        })
    }

    async fn close(&self) {
        drop(self.locks.lock().take());
    }
}

// === impl Locks ===

impl Locks {
    fn release(&mut self, resource: &str, condition: impl Fn(&Held) -> bool) {
        if let Some(held) = self.held.get(resource)
            && condition(held)
        {
            self.expiring.remove(&(held.until, resource.into()));
            self.held.remove(resource);
        }
    }

    /// Forgets a few expired locks.
    fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEEP {
            match self.expiring.first() {
                Some((until, resource)) if *until <= now => {
                    let resource = Arc::clone(resource);
                    self.release(&resource, |_| true);
                }
                _ => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Locks that nobody gives back or asks for again do not stay in memory.
    #[tokio::test(start_paused = true)]
    async fn expired_locks_are_forgotten() {
        let store = InMemory::new();
        for number in 0..1000 {
            let expiry = if number == 0 { Duration::MAX } else { Duration::from_secs(1) };
            assert!(store.try_lock(&number.to_string(), "owner", expiry).await.unwrap());
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        for number in 0..1000 {
            store.try_lock(&format!("later {number}"), "owner", Duration::from_secs(1)).await.unwrap();
        }
        let locks = store.locks.lock();
        let locks = locks.as_ref().unwrap();
        assert_eq!((locks.held.len(), locks.expiring.len()), (1001, 1001));
    }
}
