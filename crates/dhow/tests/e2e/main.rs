//! End-to-end tests: the built program, started as a user starts it, with guests of several languages.
//!
//! | module | subject |
//! |---|---|
//! | [`serving`] | HTTP components: requests, streams, protocols, languages |
//! | [`programs`] | commands: arguments, files, exit codes, deadlines; CGI |
//! | [`experimental_http`] | wasi_experimental_http, in AssemblyScript and Rust |
//! | [`inventory`] | functions made for Layotto, with its configuration and management |
//! | [`sockets`] | sockets of core modules: every function, grants, bad arguments |
//! | [`services`] | programs that listen, from their start to their last connection |
//! | [`state`] | wasi:keyvalue, wasi:config, wasi:logging; grants, components, separation |
//! | [`runtime`] | dhow:runtime: every function, and what arrives as calls |
//! | [`messaging`] | wasi:messaging, wasmcloud:messaging |
//! | [`sdk`] | the SDKs: one app in four languages that uses every block |
//! | [`dapr_state`], [`dapr_invoke`] | Dapr's HTTP API, on its port and inside guests |
//! | [`claims`], [`policies`] | signed modules, and what policies say |
//! | [`outbox`] | events of what transactions write |
//! | [`proxy_wasm`] | proxy-wasm modules, as apps and as filters |
//! | [`mixed`] | apps of every ABI call apps of every other, and stand behind filters |
//! | [`wapc`] | waPC modules and those of the Wascap ABIs: every capability, messages, errors |
//! | [`up`], [`reload`], [`stopping`] | a host with many apps, through its life |
//! | [`live`] | versions: updated, tried, watched, taken back |
//! | [`components`] | components and bindings that change while the host runs |
//! | [`sandboxed`] | components that are modules themselves |
//! | [`bad_files`] | modules, manifests and resources that cannot be used |
//! | [`bad_guests`], [`bad_clients`] | everything that must not harm anybody else |
//! | [`watching`] | metrics, health, logs |
//! | [`at_least_once`] | messages survive a kill, with every durable broker |
//! | [`sidecars`] | programs outside: what they share, how they end, their health |
//! | [`server_loss`] | Redis, NATS and PostgreSQL go away under load, and come back |
//! | [`bad_requests`] | what the Dapr API says to requests that cannot be served |
//! | [`durability`] | what was acknowledged survives a kill |
//! | [`reuse`] | instances that serve more than once |

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "all of it is a test, also what stands outside of #[test] functions"
)]

#[path = "../support/mod.rs"]
mod support;

mod at_least_once;
mod bad_clients;
mod bad_files;
mod bad_guests;
mod bad_requests;
mod claims;
mod components;
mod dapr_invoke;
mod dapr_state;
mod durability;
mod experimental_http;
mod inventory;
mod live;
mod messaging;
mod mixed;
mod outbox;
mod policies;
mod programs;
mod proxy_wasm;
mod reload;
mod reuse;
mod runtime;
mod sandboxed;
mod sdk;
mod server_loss;
mod services;
mod serving;
mod sidecars;
mod sockets;
mod state;
mod stopping;
mod up;
mod wapc;
mod watching;
