//! The building blocks: what a guest may ask for, and what a provider answers.
//!
//! Guest interfaces (floor 4) ask, providers (floor 2) answer, and both meet here, at a small set of
//! traits. This crate performs no I/O and names no backend.
//!
//! | file | subject |
//! |---|---|
//! | [`state`] | key-value state: the trait, its types and its errors |
//! | [`pubsub`] | topics: publish, receive at least once |
//! | [`binding`] | operations of outside systems, and their events |
//! | [`secrets`] | named secrets |
//! | [`configuration`] | values that operators change while apps run |
//! | [`lock`] | mutual exclusion with expiry |
//! | [`sequencer`] | ids that only grow |
//! | [`blob`] | files and objects, streamed |
//! | [`cryption`] | encryption with keys that stay with the provider |
//! | [`email`] | e-mail |
//! | [`jobs`] | work that is due later |
//! | [`events`] | what arrives by itself, and who handles it |
//! | [`error`] | why a block other than state failed |
//! | [`cloud_event`] | the envelope of messages |
//! | [`resolve`] | where apps are that are on other hosts |
//! | [`policy`] | timeouts, retries, circuit breakers |
//! | [`invoke`] | one invocation, its body and its reply, for every trigger |
//! | [`trace`] | W3C trace context of an invocation |
//! | [`grants`] | what a manifest allows an app; the one permission check |
//! | [`update`] | apps that replace modules |
//! | [`scope`] | one app's view of the blocks: grants and key prefixes applied |
//! | `conformance` | the tests that every provider of a block passes (feature `conformance`) |

pub mod binding;
pub mod blob;
pub mod cloud_event;
pub mod configuration;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod cryption;
pub mod email;
pub mod error;
pub mod events;
pub mod grants;
pub mod hops;
pub mod invoke;
pub mod jobs;
pub mod lock;
pub mod policy;
pub mod pubsub;
pub mod resolve;
pub mod scope;
pub mod secrets;
pub mod sequencer;
pub mod state;
pub mod trace;
pub mod update;
