//! Locks with the app's prefix.

use super::{Block, Bound, Scope, ScopeError, UseError, find};
use crate::grants::Ask;
use crate::lock::{LockStore, Renewal, Unlock};
use std::time::Duration;

impl Scope {
    /// Takes a lock for `expiry`; `false` when somebody holds it.
    pub async fn try_lock(
        &self,
        store: &str,
        resource: &str,
        owner: &str,
        expiry: Duration,
    ) -> Result<bool, UseError> {
        let (bound, resource) = self.lock(store, resource)?;
        let (provider, resource) = (&bound.provider, resource.as_str());
        // Not under the policy's retries: a lock that was taken without the answer arriving is not free.
        Ok(bound.call("try_lock", (), |()| provider.try_lock(resource, owner, expiry)).await?)
    }

    /// Gives a lock back.
    pub async fn unlock(&self, store: &str, resource: &str, owner: &str) -> Result<Unlock, UseError> {
        let (bound, resource) = self.lock(store, resource)?;
        let (provider, resource) = (&bound.provider, resource.as_str());
        Ok(bound.call("unlock", (), |()| provider.unlock(resource, owner)).await?)
    }

    /// Holds a lock for `expiry` from now.
    pub async fn renew_lock(
        &self,
        store: &str,
        resource: &str,
        owner: &str,
        expiry: Duration,
    ) -> Result<Renewal, UseError> {
        let (bound, resource) = self.lock(store, resource)?;
        let (provider, resource) = (&bound.provider, resource.as_str());
        Ok(bound.call("renew_lock", (), |()| provider.renew(resource, owner, expiry)).await?)
    }

    fn lock(&self, store: &str, resource: &str) -> Result<(&Bound<dyn LockStore>, String), ScopeError> {
        let (bound, prefix) = find(&self.components.locks, Block::Lock, store)?;
        self.check(Ask::Lock(store))?;
        Ok((bound, format!("{prefix}{resource}")))
    }
}
