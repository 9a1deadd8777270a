//! waPC modules on a host: what the three ABIs differ in, what broken modules do, and host functions with addresses that
//! are none. Modules made with the crates of their time are run by the end-to-end tests.
//!
//! | file | subject |
//! |---|---|
//! | `support` | a host with modules in text form; that of the proxy-wasm tests |
//! | `calls` | a module that calls any host function with any arguments |
//! | `modules` | starts, answers, errors, ends; the ABI of each time |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod calls;
mod modules;
#[allow(dead_code, reason = "part of it is for proxy-wasm")]
#[path = "../proxy_wasm/support.rs"]
mod support;
