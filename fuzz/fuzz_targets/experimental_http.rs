//! Calls of `wasi_experimental_http` with any arguments, in any order. The requests that come out well formed go to the
//! app's own Dapr endpoint, which this host has not got, and to no network.
#![no_main]

#[path = "../program.rs"]
mod program;

use dhow_blocks::grants::Grants;
use libfuzzer_sys::fuzz_target;
use program::{Interface, World};
use std::sync::LazyLock;

const EXPERIMENTAL_HTTP: Interface = Interface {
    name: "wasi_experimental_http",
    functions: &[("req", 10), ("close", 1), ("header_get", 6), ("headers_get_all", 4), ("body_read", 4)],
    highest: 13,
    // A URL of 48 bytes, and from 112 on a method and headers.
    data: "http://localhost:3500/v1.0/state/statestore/bookGETPOST\\00\\00\\00\\00\\00\\00\\00\\00content-type:text/plain\\0aa:b",
};

static WORLD: LazyLock<World> = LazyLock::new(World::new);

fuzz_target!(|input: &[u8]| WORLD.run(&EXPERIMENTAL_HTTP, Grants::default(), input));
