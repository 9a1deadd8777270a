//! State stores, and what all of them read the same way.
//!
//! Each of them passes the suite in `dhow_blocks::conformance::state`; `tests/providers/state_conformance.rs` runs it.

pub mod in_memory;
#[cfg(any(feature = "mysql", feature = "postgresql"))]
pub(crate) mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use dhow_blocks::state::StateError;
use std::str;

/// What a closed store answers.
pub(crate) fn closed() -> StateError {
    StateError::Unavailable { reason: "the store is closed, because the host is shutting down".to_owned() }
}

/// The first text after all those that start with `prefix`; none if there is none.
#[cfg(any(feature = "mysql", feature = "postgresql"))]
pub(crate) fn after_prefix(prefix: &str) -> Option<String> {
    let mut after: Vec<char> = prefix.chars().collect();
    while let Some(last) = after.pop() {
        // A range of characters leaves out what is none.
        if let Some(next) = (last..=char::MAX).nth(1) {
            after.push(next);
            return Some(after.into_iter().collect());
        }
    }
    None
}

/// Adds to the decimal integer in `value`, or to 0 when there is none.
pub(crate) fn sum(key: &str, value: Option<&[u8]>, delta: i64) -> Result<i64, StateError> {
    let current = match value {
        None => 0,
        Some(value) => str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
            .ok_or_else(|| StateError::NotANumber { key: key.to_owned() })?,
    };
    current.checked_add(delta).ok_or_else(|| StateError::Overflow { key: key.to_owned() })
}

#[cfg(all(test, any(feature = "mysql", feature = "postgresql")))]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end() {
        for (prefix, expected) in [
            ("", None),
            ("a", Some("b")),
            ("app||", Some("app|}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("\u{d7ff}", Some("\u{e000}")),
        ] {
            assert_eq!(after_prefix(prefix).as_deref(), expected, "{prefix:?}");
        }
    }
}
