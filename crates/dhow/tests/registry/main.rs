//! `dhow registry`, as its clients and its owner use it.
//!
//! | module | subject |
//! |---|---|
//! | [`client`] | a client of a few lines, for what no tool would send |
//! | [`protocol`] | the distribution API, end-point by end-point |
//! | [`tools`] | clients that we did not write: skopeo, podman, buildah, containerd, the SDK of ORAS |
//! | [`access`] | who may do what |
//! | [`modules`] | tokens of pushed modules, searching, the page |
//! | [`upkeep`] | garbage collection, scrubbing, quotas |
//! | [`faults`] | kills, races, damage, arbitrary requests |

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    dead_code,
    reason = "all of it is a test, and only a part of what tests share is used here"
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod client;
mod faults;
mod modules;
mod protocol;
mod tools;
mod upkeep;
