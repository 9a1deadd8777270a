//! `sequencer.redis`: a sequence is a key with the last id, as Layotto has it.
//!
//! A server that fails over to a replica, or has its data on disk only now and then, may give an id twice: this is as
//! durable as the server is set up to be.

use super::pool::{Pool, Repeat};
use crate::registry::{Open, Provider};
use crate::sequencer::check;
use ::redis::Script;
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::sequencer::{Sequencer, exhausted};
use std::sync::Arc;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "sequencer.redis",
    aliases: &[],
    versions: &["v1"],
    fields: super::fields![],
    open: Open::Sequencer(|component, _| {
        Box::pin(async move {
            let reserve = Script::new(include_str!("scripts/reserve.lua"));
            Ok(Arc::new(RedisSequencer { pool: super::open(&component).await?, reserve }) as Arc<_>)
        })
    }),
};

/// Ids on one Redis server.
struct RedisSequencer {
    pool: Pool,
    reserve: Script,
}

// === impl RedisSequencer ===

#[async_trait]
impl Sequencer for RedisSequencer {
    async fn reserve(&self, key: &str, count: u32, floor: i64) -> Result<i64, BlockError> {
        check(count)?;
        let mut script = self.reserve.key(key);
        script.arg(count).arg(floor.max(0));
        // A repetition after a lost answer would leave a gap.
        let last: Option<String> = self.pool.script(Repeat::Never, &script).await?;
        let last = last.ok_or_else(exhausted)?;
        let last: i64 =
            last.parse().map_err(|_| BlockError::failed(format!("key {key:?} holds no number")))?;
        Ok(last - i64::from(count) + 1)
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
