//! The building blocks: what a guest may ask for, and what a provider answers.
//!
//! Guest interfaces (floor 4) ask, providers (floor 2) answer, and both meet here, at a small set of
//! traits. This crate performs no I/O and names no backend.
//!
//! | file | subject |
//! |---|---|
//! | [`state`] | key-value state: the trait, its types and its errors |
//! | [`invoke`] | one invocation, its body and its reply, for every trigger |
//! | [`trace`] | W3C trace context of an invocation |
//! | [`grants`] | what a manifest allows an app; the one permission check |
//! | [`scope`] | one app's view of the blocks: grants and key prefixes applied |
//! | `conformance` | the tests that every provider of a block passes (feature `conformance`) |

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod grants;
pub mod invoke;
pub mod scope;
pub mod state;
pub mod trace;
