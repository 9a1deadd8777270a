//! Calls of the sockets of core modules with any arguments, in any order.
#![no_main]

#[path = "../program.rs"]
mod program;

use dhow_blocks::grants::Grants;
use libfuzzer_sys::fuzz_target;
use program::{Interface, World};
use std::sync::LazyLock;

include!("../socket_functions.rs");

const SOCKETS: Interface = Interface {
    name: "wasi_snapshot_preview1",
    functions: &FUNCTIONS,
    highest: 87,
    // An address structure for 127.0.0.1, and at 80 its bytes.
    data: "\\50\\00\\00\\00\\04\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00\\7f\\00\\00\\01",
};

static WORLD: LazyLock<World> = LazyLock::new(World::new);

fuzz_target!(|input: &[u8]| {
    let grants = Grants {
        listen: vec!["127.0.0.1:0".parse().expect("a pattern")],
        connect: vec!["127.0.0.1".parse().expect("a pattern")],
        ..Grants::default()
    };
    WORLD.run(&SOCKETS, grants, input);
});
