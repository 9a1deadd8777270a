//! Mutual exclusion across apps and hosts, with expiry.

use crate::Result;
use crate::wit::lock as wit;
use std::hash::{BuildHasher, Hasher, RandomState};

/// A lock store.
#[derive(Clone, Debug)]
pub struct Lock {
    store: String,
}

/// A lock that is held until this is dropped, or until it expires.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub struct Held {
    store: String,
    resource: String,
    owner: String,
}

// === impl Lock ===

impl Lock {
    /// The store of this name; without any configuration there is `lockstore`.
    pub fn open(store: impl Into<String>) -> Lock {
        Lock { store: store.into() }
    }

    /// Takes the lock for so many seconds at most; `None` when somebody holds it.
    pub fn try_hold(&self, resource: &str, expiry_seconds: u32) -> Result<Option<Held>> {
        let owner = owner();
        let taken = wit::try_lock(&self.store, resource, &owner, expiry_seconds)?;
        Ok(taken.then(|| Held { store: self.store.clone(), resource: resource.to_owned(), owner }))
    }
}

/// A name that nobody else has: the standard library seeds each state from the system's randomness.
fn owner() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

// === impl Held ===

impl Held {
    /// Gives the lock back; false if it had expired and is not ours any more.
    pub fn unlock(self) -> Result<bool> {
        let unlocked = wit::unlock(&self.store, &self.resource, &self.owner);
        std::mem::forget(self);
        Ok(unlocked? == wit::Unlocked::Released)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Nobody is left to tell, and what is not given back expires.
        let _ = wit::unlock(&self.store, &self.resource, &self.owner);
    }
}
