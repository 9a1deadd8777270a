//! Sockets for core modules: the extension of `wasi_snapshot_preview1` that WasmEdge made, in both its generations.
//!
//! Preview 1 can use a socket that somebody else opened, and no more. WasmEdge added opening, binding, connecting,
//! names and options under the same module name; its functions without `_v2` may come in the form of either
//! generation, told apart by their parameters (see `linker`).
//!
//! | file | subject |
//! |---|---|
//! | `table` | the open sockets of a module, by descriptor |
//! | `socket` | one socket: try, and wait where it waits |
//! | `ports` | what listens, as the host sees it |
//! | `calls` | opening, binding, connecting, accepting |
//! | `transfer` | sending and receiving |
//! | `option` | options |
//! | `names` | names, and what they led to |
//! | `resolve` | names for modules |
//! | `lookup` | names for components |
//! | `poll` | waiting for several things |
//! | `files` | calls of preview 1 that take any descriptor |
//! | `component` | what the sockets of components, which are Wasmtime's, do not do by themselves |
//! | `runtime` | connections to the app's own Dapr endpoint, which never leave the process |
//! | `forward` | requests to a program that listens |
//! | `address`, `errno`, `os` | addresses, error codes, system calls |
//!
//! A socket of the system never waits; waiting is the task's. What may be reached is asked of the scope.

mod address;
mod calls;
mod component;
mod errno;
mod files;
mod forward;
mod lookup;
mod names;
mod option;
mod os;
mod poll;
mod ports;
mod resolve;
mod runtime;
mod socket;
mod table;
mod transfer;

pub(crate) use component::{ComponentSockets, add_to_linker as add_to_component_linker};
pub(crate) use lookup::{
    add_to_concurrent_linker as add_names_to_concurrent_linker, add_to_linker as add_names_to_linker,
};
pub use names::Names;
pub use ports::Ports;
pub(crate) use table::Sockets;

use crate::command::ModuleState;
use crate::memory::{self, Memory};
use errno::Errno;
use wasmtime::{Caller, Linker};

/// The module name of the imports.
const NAME: &str = "wasi_snapshot_preview1";

/// Where the linker has the forms of functions that are not those of the standard's, or of most programs.
const OTHER: &str = "wasi_snapshot_preview1, the other form";

/// Functions of two forms, with the number of parameters of the other one.
const FORMS: [(&str, usize); 4] =
    [("sock_accept", 2), ("sock_recv_from", 7), ("sock_getlocaladdr", 3), ("sock_getpeeraddr", 3)];

/// Functions beyond those of the standard.
pub(crate) const FUNCTIONS: [&str; 27] = [
    "epoll_oneoff",
    "sock_accept_v2",
    "sock_bind",
    "sock_bind_v2",
    "sock_connect",
    "sock_connect_v2",
    "sock_getaddrinfo",
    "sock_getlocaladdr",
    "sock_getlocaladdr_v2",
    "sock_getpeeraddr",
    "sock_getpeeraddr_v2",
    "sock_getsockopt",
    "sock_listen",
    "sock_listen_v2",
    "sock_open",
    "sock_open_v2",
    "sock_recv_from",
    "sock_recv_from_v2",
    "sock_recv_v2",
    "sock_send_to",
    "sock_send_to_v2",
    "sock_send_v2",
    "sock_setsockopt",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

/// Adds all functions, over those of the standard that are there already.
pub(crate) fn add_to_linker(linker: &mut Linker<ModuleState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    calls::add_to_linker(linker)?;
    transfer::add_to_linker(linker)?;
    option::add_to_linker(linker)?;
    resolve::add_to_linker(linker)?;
    poll::add_to_linker(linker)?;
    files::add_to_linker(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Under which module name the linker has the form of a function that takes so many parameters.
pub(crate) fn form_of<'a>(module: &'a str, function: &str, parameters: usize) -> &'a str {
    if module == NAME && FORMS.contains(&(function, parameters)) { OTHER } else { module }
}

/// The memory of the module that calls, and its sockets.
fn parts<'a>(caller: &'a mut Caller<'_, ModuleState>) -> Result<(Memory<'a>, &'a mut Sockets), Errno> {
    let (memory, state) = memory::of(caller)?;
    Ok((memory, &mut state.sockets))
}
