//! Guests: one room for each ABI, all over the same blocks and the same grants.
//!
//! | file | subject |
//! |---|---|
//! | [`guest`] | a loaded app: which room it lives in, and the way in |
//! | [`setup`] | what an app is given: scope, arguments, files, limits |
//! | `store` | the state of one running guest |
//! | `linker` | imports, resolved once for all apps |
//! | `run` | one running guest and its deadline |
//! | `http2` | `wasi:http/incoming-handler@0.2` |
//! | `http3` | `wasi:http/handler@0.3` |
//! | `command` | programs with a start and an end: `wasi:cli/run`, WASI preview 1 |
//! | `ending` | how an invocation ends: its reply, and who hears of its failure |
//! | `counted` | bodies that end at a limit |
//! | `api` | `dhow:runtime/api`: the Dapr endpoint for core modules |
//! | `experimental_http` | `wasi_experimental_http`: HTTP requests of core modules |
//! | `cgi` | HTTP requests to programs that only know stdin and stdout (RFC 3875) |
//! | `events` | handlers of messages, jobs and binding events, called instead of an HTTP request |
//! | `outbound` | HTTP requests of guests, to the world and to the runtime itself |
//! | `keyvalue`, `config`, `logging` | the WASI interfaces of the same names |
//! | `messaging` | `wasi:messaging`, `wasmcloud:messaging` |
//! | `runtime` | `dhow:runtime`: every block as plain calls |
//! | `proxy` | proxy-wasm modules, as apps and as filters; Layotto's functions |
//! | `wapc` | waPC modules, and those of Waxosuit and waSCC before |
//! | [`provider`] | `dhow:provider`: components that provide a block, called by the host |
//! | `redirects` | HTTP requests of modules, behind redirects |
//! | [`step`] | steps of workflows as calls |
//! | `sockets` | sockets of core modules: the extension of preview 1 that WasmEdge made |
//! | `output` | what guests print |
//! | [`failure`] | how an invocation can fail |
//!
//! No file here decides what is allowed: that is [`dhow_blocks::scope::Scope`]'s work.

mod api;
mod cgi;
mod command;
mod config;
mod counted;
mod ending;
mod events;
mod experimental_http;
pub mod failure;
pub mod guest;
mod http2;
mod http3;
mod keyvalue;
mod linker;
mod logging;
mod memory;
mod messaging;
mod outbound;
mod output;
pub mod provider;
mod proxy;
mod redirects;
mod run;
mod runtime;
pub mod setup;
mod sockets;
pub mod step;
mod store;
mod wapc;

pub use failure::{Failure, LoadError};
pub use guest::{Guest, Invoked};
pub use linker::{Linkers, is_provided};
pub use outbound::HttpClient;
pub use proxy::shared::{Vm, Vms};
pub use proxy::{Passed, Passing};
pub use setup::{
    Bounds, CapabilityBinding, Directory, Level, MeterError, MeterKind, Meters, Output, Setup, Stdio, Stream,
};
pub use sockets::{Names, Ports};
