//! Locks that need no other program.
//!
//! Each of them passes the suite in `dhow_blocks::conformance::lock`; `tests/providers/lock_conformance.rs` runs it.

pub mod in_memory;
#[cfg(feature = "sqlite")]
pub mod sqlite;
