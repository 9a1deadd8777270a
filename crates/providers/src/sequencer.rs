//! Sequencers: in memory, SQLite, etcd; and what all have in common.
//!
//! Each of them passes the suite in `dhow_blocks::conformance::sequencer`; `tests/sequencers.rs` runs it. The one in
//! Redis is in `crate::redis`.

#[cfg(feature = "etcd")]
pub mod etcd;
pub mod in_memory;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use dhow_blocks::error::BlockError;
use dhow_blocks::sequencer::{MAX_COUNT, exhausted};

/// The last of `count` ids behind `last` and `floor`.
pub(crate) fn advance(last: i64, count: u32, floor: i64) -> Result<i64, BlockError> {
    last.max(floor).checked_add(count.into()).ok_or_else(exhausted)
}

/// Refuses a count that no provider takes.
pub(crate) fn check(count: u32) -> Result<(), BlockError> {
    if (1..=MAX_COUNT).contains(&count) {
        return Ok(());
    }
    Err(BlockError::invalid(format!("{count} ids at once: expected 1 to {MAX_COUNT}")))
}
