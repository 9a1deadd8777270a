//! The lock block: mutual exclusion across processes, with expiry.

use crate::error::BlockError;
use async_trait::async_trait;
use std::time::Duration;

/// What an unlock found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlock {
    /// The lock was the owner's and is free now.
    Released,
    /// Nobody holds the lock.
    NotHeld,
    /// Somebody else holds it.
    HeldByOther,
}

/// What an attempt to hold a lock for longer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lock is the owner's, and expires later.
    Renewed,
    /// Nobody holds the lock; it was given back, or expired.
    NotHeld,
    /// Somebody else holds it.
    HeldByOther,
}

/// A provider of locks. Resources are already scoped to an app.
#[async_trait]
pub trait LockStore: Send + Sync + 'static {
    /// Takes the lock for `expiry`, if it is free. A lock that the same owner holds is not free.
    async fn try_lock(&self, resource: &str, owner: &str, expiry: Duration) -> Result<bool, BlockError>;

    /// Gives the lock back, if it is this owner's.
    async fn unlock(&self, resource: &str, owner: &str) -> Result<Unlock, BlockError>;

    /// Lets the lock expire `expiry` from now, if it is this owner's.
    async fn renew(&self, resource: &str, owner: &str, expiry: Duration) -> Result<Renewal, BlockError>;

    /// Lets go of files and connections.
    async fn close(&self) {}
}
