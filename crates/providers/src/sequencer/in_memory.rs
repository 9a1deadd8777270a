//! `sequencer.in-memory`: ids that grow for as long as this process lives, for tests.

use super::{advance, check};
use crate::registry::{Open, Provider};
use crate::shutdown::closed;
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::sequencer::Sequencer;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "sequencer.in-memory",
    aliases: &[],
    versions: &["v1"],
    fields: &[],
    open: Open::Sequencer(|_, _| Box::pin(async { Ok(Arc::new(InMemory::new()) as Arc<_>) })),
};

/// Ids in the memory of this process.
#[derive(Debug)]
pub struct InMemory {
    /// The last id of each key; `None` once closed.
    last: Mutex<Option<HashMap<String, i64>>>,
}

// === impl InMemory ===

impl InMemory {
    /// Every sequence begins.
    pub fn new() -> InMemory {
        InMemory { last: Mutex::new(Some(HashMap::new())) }
    }
}

impl Default for InMemory {
    fn default() -> InMemory {
        InMemory::new()
    }
}

#[async_trait]
impl Sequencer for InMemory {
    async fn reserve(&self, key: &str, count: u32, floor: i64) -> Result<i64, BlockError> {
        check(count)?;
        let mut last = self.last.lock();
        let last = last.as_mut().ok_or_else(closed)?;
        let reserved = advance(last.get(key).copied().unwrap_or(0), count, floor)?;
        last.insert(key.to_owned(), reserved);
        Ok(reserved - i64::from(count) + 1)
    }

    async fn close(&self) {
        drop(self.last.lock().take());
    }
}
