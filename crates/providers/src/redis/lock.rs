//! `lock.redis`: a lock is a key with its owner's name, which expires.

use super::pool::{Pool, Repeat};
use crate::registry::{Open, Provider};
use ::redis::Script;
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::lock::{LockStore, Renewal, Unlock};
use std::sync::Arc;
use std::time::Duration;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "lock.redis",
    aliases: &[],
    versions: &["v1"],
    fields: super::fields!["redeliverInterval", "processingTimeout"],
    open: Open::Lock(|component, _| {
        Box::pin(async move {
            let unlock = Script::new(include_str!("scripts/unlock.lua"));
            let renew = Script::new(include_str!("scripts/renew.lua"));
            Ok(Arc::new(RedisLock { pool: super::open(&component).await?, unlock, renew }) as Arc<_>)
        })
    }),
};

/// Locks on one Redis server. A server that fails over to a replica may forget a lock.
struct RedisLock {
    pool: Pool,
    unlock: Script,
    renew: Script,
}

/// Redis counts milliseconds, and an expiry of none would be none at all.
fn milliseconds(expiry: Duration) -> Result<u64, BlockError> {
    match u64::try_from(expiry.as_millis()).unwrap_or(u64::MAX).min(i64::MAX as u64 / 2) {
        0 => Err(BlockError::invalid("a lock needs an expiry of at least a millisecond")),
        milliseconds => Ok(milliseconds),
    }
}

// === impl RedisLock ===

#[async_trait]
impl LockStore for RedisLock {
    async fn try_lock(&self, resource: &str, owner: &str, expiry: Duration) -> Result<bool, BlockError> {
        let milliseconds = milliseconds(expiry)?;
        let mut set = ::redis::cmd("SET");
        set.arg(resource).arg(owner).arg("NX").arg("PX").arg(milliseconds);
        let taken: Option<String> = self.pool.command(Repeat::Never, &set).await?;
        Ok(taken.is_some())
    }

    async fn unlock(&self, resource: &str, owner: &str) -> Result<Unlock, BlockError> {
        let mut script = self.unlock.key(resource);
        script.arg(owner);
        let found: i64 = self.pool.script(Repeat::Never, &script).await?;
        Ok(match found {
            -1 => Unlock::NotHeld,
            -2 => Unlock::HeldByOther,
            _ => Unlock::Released,
        })
    }

    async fn renew(&self, resource: &str, owner: &str, expiry: Duration) -> Result<Renewal, BlockError> {
        let mut script = self.renew.key(resource);
        script.arg(owner).arg(milliseconds(expiry)?);
        let found: i64 = self.pool.script(Repeat::Harmless, &script).await?;
        Ok(match found {
            -1 => Renewal::NotHeld,
            -2 => Renewal::HeldByOther,
            _ => Renewal::Renewed,
        })
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
