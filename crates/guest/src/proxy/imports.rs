//! The host functions, for all versions of the ABI at once.
//!
//! | file | functions |
//! |---|---|
//! | `streams` | log, time, ticks, contexts, bodies, local responses |
//! | `maps` | headers and trailers |
//! | `outgoing` | HTTP and gRPC calls |
//! | `sharing` | shared data, queues |
//! | `numbers` | metrics |
//! | `properties` | what a guest may know about a stream |
//! | `blocks` | the building blocks: Layotto's functions, and ours in their style |
//!
//! Older names lead to the same functions. A few names stand for different functions in different versions, or lost
//! a result on the way; there the type that the module imports decides ([`pre`]).

mod blocks;
mod maps;
mod numbers;
mod outgoing;
mod properties;
mod sharing;
mod streams;

use super::abi::{OK, Status};
use super::state::{ProxyState, of};
use wasmtime::{Caller, ExternType, FuncType, InstancePre, Linker, Module, bail};

/// The module name of the imports.
const ENV: &str = "env";

/// The system interface, and the name that it had in 2019.
const WASI: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

/// Functions that are another one under an older name; Layotto's host and drafts of the ABI had them.
const OLDER: [(&str, &str); 8] = [
    ("proxy_cancel_grpc_call", "proxy_grpc_cancel"),
    ("proxy_close_grpc_call", "proxy_grpc_close"),
    ("proxy_dispatch_grpc_call", "proxy_grpc_call"),
    ("proxy_dispatch_http_call", "proxy_http_call"),
    ("proxy_open_grpc_stream", "proxy_grpc_stream"),
    ("proxy_resume_downstream", "proxy_resume_http_response"),
    ("proxy_send_grpc_call_message", "proxy_grpc_send"),
    ("proxy_send_http_response", "proxy_send_local_response"),
];

/// What guests import under [`ENV`].
const FUNCTIONS: [&str; 66] = [
    "abort",
    "emscripten_notify_memory_growth",
    "proxy_add_header_map_value",
    "proxy_call_foreign_function",
    "proxy_cancel_grpc_call",
    "proxy_clear_route_cache",
    "proxy_close_grpc_call",
    "proxy_close_stream",
    "proxy_continue_request",
    "proxy_continue_response",
    "proxy_continue_stream",
    "proxy_define_metric",
    "proxy_delete_state",
    "proxy_dequeue_shared_queue",
    "proxy_dispatch_grpc_call",
    "proxy_dispatch_http_call",
    "proxy_done",
    "proxy_enqueue_shared_queue",
    "proxy_get_buffer_bytes",
    "proxy_get_buffer_status",
    "proxy_get_configuration",
    "proxy_get_current_time_nanoseconds",
    "proxy_get_header_map_pairs",
    "proxy_get_header_map_size",
    "proxy_get_header_map_value",
    "proxy_get_log_level",
    "proxy_get_metric",
    "proxy_get_property",
    "proxy_get_secret",
    "proxy_get_shared_data",
    "proxy_get_state",
    "proxy_get_status",
    "proxy_grpc_call",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
    "proxy_grpc_send",
    "proxy_grpc_stream",
    "proxy_http_call",
    "proxy_increment_metric",
    "proxy_invoke_service",
    "proxy_log",
    "proxy_open_grpc_stream",
    "proxy_publish",
    "proxy_record_metric",
    "proxy_register_shared_queue",
    "proxy_remove_header_map_value",
    "proxy_remove_metric",
    "proxy_remove_shared_queue",
    "proxy_replace_header_map_value",
    "proxy_resolve_shared_queue",
    "proxy_resume_downstream",
    "proxy_resume_http_request",
    "proxy_resume_http_response",
    "proxy_resume_upstream",
    "proxy_send_grpc_call_message",
    "proxy_send_http_response",
    "proxy_send_local_response",
    "proxy_set_buffer_bytes",
    "proxy_set_effective_context",
    "proxy_set_header_map_pairs",
    "proxy_set_property",
    "proxy_set_shared_data",
    "proxy_set_state",
    "proxy_set_tick_period_milliseconds",
    "proxy_try_lock",
    "proxy_unlock",
];

/// Whether a proxy-wasm module gets this import.
pub(crate) fn is_provided(module: &str, function: &str) -> bool {
    if WASI.contains(&module) {
        return !function.starts_with("sock_") || crate::linker::PREVIEW1_SOCKETS.contains(&function);
    }
    module == ENV && FUNCTIONS.contains(&function)
}

pub(crate) fn add_to_linker(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p1::add_to_linker_async(linker, |state: &mut ProxyState| &mut state.wasi)?;
    let [current, older] = WASI;
    linker.alias_module(current, older)?;
    streams::add_to_linker(linker)?;
    maps::add_to_linker(linker)?;
    outgoing::add_to_linker(linker)?;
    sharing::add_to_linker(linker)?;
    numbers::add_to_linker(linker)?;
    properties::add_to_linker(linker)?;
    blocks::add_to_linker(linker)?;
    for (older, current) in OLDER {
        linker.alias(ENV, current, ENV, older)?;
    }
    toolchains(linker)
}

/// What compilers leave in modules: a message before a trap, and news of grown memory.
fn toolchains(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    linker.func_wrap(ENV, "emscripten_notify_memory_growth", |_: u32| {})?;
    linker.func_wrap(
        ENV,
        "abort",
        |mut caller: Caller<'_, ProxyState>,
         message: u32,
         _file: u32,
         line: u32,
         column: u32|
         -> wasmtime::Result<()> {
            let text = assembly_script_text(&mut caller, message).unwrap_or_default();
            bail!("abort: {text:?} at {line}:{column}")
        },
    )?;
    Ok(())
}

/// A string of AssemblyScript: UTF-16, its length in bytes before it.
fn assembly_script_text(caller: &mut Caller<'_, ProxyState>, at: u32) -> Option<String> {
    let (memory, _) = of(caller).ok()?;
    let length = memory.u32(at.checked_sub(4)?).ok()?.min(1024);
    let bytes = memory.bytes((at, length)).ok()?;
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    Some(String::from_utf16_lossy(&units))
}

/// Links a module; names that stand for several functions become those that it imports.
pub(crate) fn pre(linker: &Linker<ProxyState>, module: &Module) -> wasmtime::Result<InstancePre<ProxyState>> {
    let mut own: Option<Linker<ProxyState>> = None;
    for import in module.imports().filter(|import| import.module() == ENV) {
        let ExternType::Func(ty) = import.ty() else { continue };
        if let Some(add) = variant(import.name(), &ty) {
            let own = own.get_or_insert_with(|| linker.clone());
            own.allow_shadowing(true);
            add(own)?;
        }
    }
    own.as_ref().unwrap_or(linker).instantiate_pre(module)
}

type Add = fn(&mut Linker<ProxyState>) -> wasmtime::Result<()>;

/// The function that a name stands for where it has this type, if that is not the usual one.
fn variant(name: &str, ty: &FuncType) -> Option<Add> {
    Some(match (name, ty.params().len(), ty.results().len()) {
        ("proxy_continue_request", 0, 0) => streams::continue_request_without_result,
        ("proxy_continue_response", 0, 0) => streams::continue_response_without_result,
        ("proxy_clear_route_cache", 0, 0) => streams::clear_route_cache_without_result,
        ("proxy_get_configuration", 2, 1) => streams::plugin_configuration,
        ("proxy_resolve_shared_queue", 3, 1) => sharing::resolve_own_queue,
        _ => return None,
    })
}

/// Writes bytes to where the guest makes room for them, and address and length to where it wants them. Nothing is
/// address 0 and length 0: allocators of some guests end them when they are asked for no bytes.
async fn give(
    caller: &mut Caller<'_, ProxyState>,
    bytes: &[u8],
    address_at: u32,
    length_at: u32,
) -> wasmtime::Result<Result<(), Status>> {
    let places = |caller: &mut Caller<'_, ProxyState>| -> Result<(), Status> {
        let (mut memory, state) = of(caller)?;
        for place in [address_at, length_at] {
            memory.write(place, &[0; 4])?;
        }
        match state.allocating {
            true => Err(Status::InvalidMemoryAccess),
            false => Ok(()),
        }
    };
    if let Err(status) = places(caller) {
        return Ok(Err(status));
    }
    if bytes.is_empty() {
        return Ok(Ok(()));
    }
    let (Ok(length), Some(allocate)) = (u32::try_from(bytes.len()), caller.data().allocate.clone()) else {
        return Ok(Err(Status::InvalidMemoryAccess));
    };
    caller.data_mut().allocating = true;
    let address = allocate.call_async(&mut *caller, length).await;
    caller.data_mut().allocating = false;
    let address = address?;
    Ok((|| {
        if address == 0 {
            return Err(Status::InvalidMemoryAccess);
        }
        let (mut memory, _) = of(caller)?;
        memory.write(address, bytes)?;
        memory.write(address_at, &address.to_le_bytes())?;
        Ok(memory.write(length_at, &length.to_le_bytes())?)
    })())
}

/// The same, of a function that may have failed.
async fn give_found(
    caller: &mut Caller<'_, ProxyState>,
    found: Result<impl AsRef<[u8]>, Status>,
    address_at: u32,
    length_at: u32,
) -> wasmtime::Result<u32> {
    match found {
        Ok(bytes) => Ok(super::abi::code(give(caller, bytes.as_ref(), address_at, length_at).await?)),
        Err(status) => Ok(status as u32),
    }
}

/// Writes a number to where the guest wants it.
fn put(caller: &mut Caller<'_, ProxyState>, number: Result<u32, Status>, at: u32) -> u32 {
    let written = number.and_then(|number| Ok(of(caller)?.0.write(at, &number.to_le_bytes())?));
    written.map_or_else(|status| status as u32, |()| OK)
}

/// Whether a number can be written there: before what it is of is done.
fn writable(caller: &mut Caller<'_, ProxyState>, at: u32) -> Result<(), Status> {
    Ok(of(caller)?.0.bytes_mut((at, 4)).map(|_| ())?)
}
