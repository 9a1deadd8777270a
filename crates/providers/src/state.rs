//! State stores, and what all of them read the same way.
//!
//! Each of them passes the suite in `dhow_blocks::conformance::state`; `tests/state_conformance.rs` runs it.

pub mod in_memory;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use dhow_blocks::state::StateError;
use std::str;

/// What a closed store answers.
pub(crate) fn closed() -> StateError {
    StateError::Unavailable { reason: "the store is closed, because the host is shutting down".to_owned() }
}

/// Adds to the decimal integer in `value`, or to 0 when there is none.
fn sum(key: &str, value: Option<&[u8]>, delta: i64) -> Result<i64, StateError> {
    let current = match value {
        None => 0,
        Some(value) => str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
            .ok_or_else(|| StateError::NotANumber { key: key.to_owned() })?,
    };
    current.checked_add(delta).ok_or_else(|| StateError::Overflow { key: key.to_owned() })
}
