//! proxy-wasm guests on a host: what the ABI's versions differ in, what broken guests do, and every host function with
//! addresses that are none. Guests made with an SDK are run by the end-to-end tests.
//!
//! | file | subject |
//! |---|---|
//! | `support` | a host with guests in text form |
//! | `guests` | versions, allocators, callbacks, pauses, traps, Layotto's functions |
//! | `contexts` | which context is in effect, when a stream is let go, what comes late |
//! | `filters` | guests before other apps |
//! | `calls` | a guest that calls any host function with any arguments |
//! | `places` | every host function with places that are not in memory |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod calls;
mod contexts;
mod filters;
mod guests;
mod places;
mod support;
