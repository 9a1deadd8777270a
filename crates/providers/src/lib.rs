//! Implementations of the blocks, one module a backend.
//!
//! A provider knows keys and bytes, never an app: keys arrive already scoped. Which provider serves which
//! component type is written in one table, in [`registry`].
//!
//! | file | subject |
//! |---|---|
//! | [`state`] | state stores: in memory, SQLite |
//! | [`schedule`] | cron expressions, times and durations as Dapr reads them |
//! | `jobs` | work that is due later, in SQLite |
//! | `database` | a small SQLite database that a provider keeps beside the state |
//! | [`task`] | a task that receives in the background |
//! | [`lazy`] | a store that opens when somebody first uses it |
//! | [`registry`] | component types and their constructors |
//! | [`metadata`] | reading a component's metadata as Dapr does |

#[cfg(feature = "sqlite")]
mod database;
#[cfg(feature = "sqlite")]
pub mod jobs;
pub mod lazy;
pub mod metadata;
pub mod registry;
pub mod schedule;
pub mod state;
pub mod task;
