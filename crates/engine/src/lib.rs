//! Wasmtime, set up for many small apps: compile, cache, pools, limits.
//!
//! This crate knows nothing of blocks, apps or ABIs beyond recognising which ABI a module speaks; its tests
//! run bare modules.
//!
//! | file | subject |
//! |---|---|
//! | [`engine`] | the two configured Wasmtime engines, and the memory they reserve |
//! | [`inspect`] | what a file is: module or component, which ABI, imports and exports |
//! | [`image`] | compiled code, from the cache or fresh |
//! | [`join`] | core modules of a component, linked into one before they are compiled |
//! | [`cache`] | compiled code on disk, shared by all processes of a user |
//! | [`limits`] | memory, tables and instances that one guest may use |
//! | `ticker` | the clock that interrupts running guests |

pub mod cache;
pub mod engine;
pub mod image;
pub mod inspect;
pub mod join;
pub mod limits;
mod ticker;

pub use cache::{Cache, Digest};
pub use engine::{Engine, EngineOptions, Flavor};
pub use image::{Code, CompileError, Image, Program};
pub use inspect::{Abi, Inspection, InvalidModule, Kind};
pub use limits::{Limiter, Limits};
pub use ticker::{Running, TICK};
