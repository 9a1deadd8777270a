//! Message brokers that need no other program.
//!
//! Each of them passes the suite in `dhow_blocks::conformance::pubsub`; `tests/providers/pubsub_conformance.rs` runs it.

pub mod in_memory;
#[cfg(feature = "sqlite")]
pub mod sqlite;
