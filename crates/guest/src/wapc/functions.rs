//! The host functions that the second Wascap ABI and waPC have in common, and how a module is called through them.
//!
//! ```text
//! __guest_request(operation, payload)     writes what is asked to where the module made room for it
//! __guest_response(address, length)       the module's answer
//! __guest_error(address, length)          what it says of its failure
//! __host_response_len() -> length         of the answer to its last call
//! __host_response(address)                writes that answer
//! __host_error_len(), __host_error(..)    the same for what is said of a failure
//! __console_log(address, length)          a line for the log
//! ```
//!
//! None of them can say no. A place that is not in the module's memory ends the module's call, and nothing else.

use super::state::WapcState;
use crate::memory::{self, BadMemory};
use crate::setup::{Level, Stream};
use bytes::Bytes;
use wasmtime::{Caller, Linker, Store, TypedFunc, bail};

/// Their names, without `__host_call`.
pub(super) const FUNCTIONS: [&str; 8] = [
    "__console_log",
    "__guest_error",
    "__guest_request",
    "__guest_response",
    "__host_error",
    "__host_error_len",
    "__host_response",
    "__host_response_len",
];

/// Lines that one message to the log may have.
const MAX_LINES: usize = 1000;

pub(super) fn add_to_linker(linker: &mut Linker<WapcState>, module: &str) -> wasmtime::Result<()> {
    linker.func_wrap(
        module,
        "__guest_request",
        |mut caller: Caller<'_, WapcState>, operation: u32, payload: u32| -> wasmtime::Result<()> {
            let (mut memory, state) = memory::of(&mut caller)?;
            let places = [(operation, &state.asked.0), (payload, &state.asked.1)];
            // Both places before either is written to; nothing needs no place.
            for (at, bytes) in places {
                if !bytes.is_empty() {
                    memory.bytes_mut((at, u32::try_from(bytes.len()).unwrap_or(u32::MAX)))?;
                }
            }
            for (at, bytes) in places {
                write(&mut memory, at, bytes)?;
            }
            Ok(())
        },
    )?;
    linker.func_wrap(
        module,
        "__guest_response",
        |mut caller: Caller<'_, WapcState>, at: u32, length: u32| -> wasmtime::Result<()> {
            let answer = taken(&mut caller, at, length)?;
            caller.data_mut().response = Some(answer);
            Ok(())
        },
    )?;
    linker.func_wrap(
        module,
        "__guest_error",
        |mut caller: Caller<'_, WapcState>, at: u32, length: u32| -> wasmtime::Result<()> {
            let error = taken(&mut caller, at, length)?;
            caller.data_mut().error = Some(error);
            Ok(())
        },
    )?;
    linker.func_wrap(module, "__host_response_len", |caller: Caller<'_, WapcState>| -> u32 {
        length(&caller.data().host_response)
    })?;
    linker.func_wrap(
        module,
        "__host_response",
        |mut caller: Caller<'_, WapcState>, at: u32| -> wasmtime::Result<()> {
            let (mut memory, state) = memory::of(&mut caller)?;
            Ok(write(&mut memory, at, &state.host_response)?)
        },
    )?;
    linker.func_wrap(module, "__host_error_len", |caller: Caller<'_, WapcState>| -> u32 {
        length(&caller.data().host_error)
    })?;
    linker.func_wrap(
        module,
        "__host_error",
        |mut caller: Caller<'_, WapcState>, at: u32| -> wasmtime::Result<()> {
            let (mut memory, state) = memory::of(&mut caller)?;
            Ok(write(&mut memory, at, &state.host_error)?)
        },
    )?;
    linker.func_wrap(
        module,
        "__console_log",
        |mut caller: Caller<'_, WapcState>, at: u32, length: u32| -> wasmtime::Result<()> {
            let (memory, state) = memory::of(&mut caller)?;
            let text = String::from_utf8_lossy(memory.bytes((at, length))?);
            let setup = &state.room.setup;
            for line in text.lines().take(MAX_LINES) {
                setup.output.line(&setup.scope.app_id, Stream::Log(Level::Info), line);
            }
            Ok(())
        },
    )?;
    Ok(())
}

/// Calls a module with an operation. The inner error is what it says of its failure.
pub(super) async fn call_guest(
    store: &mut Store<WapcState>,
    guest_call: &TypedFunc<(u32, u32), u32>,
    operation: &str,
    payload: Bytes,
) -> wasmtime::Result<Result<Bytes, String>> {
    let lengths = (operation.len(), payload.len());
    let (Ok(operation_length), Ok(payload_length)) = (u32::try_from(lengths.0), u32::try_from(lengths.1))
    else {
        bail!("the request has more bytes than a module can address");
    };
    store.data_mut().asked = (Bytes::copy_from_slice(operation.as_bytes()), payload);
    let answered = guest_call.call_async(&mut *store, (operation_length, payload_length)).await?;
    let state = store.data_mut();
    state.asked = Default::default();
    Ok(match answered {
        0 => {
            let error = state.error.take();
            let text = error.map(|error| String::from_utf8_lossy(&error).into_owned());
            Err(text.unwrap_or_else(|| format!("{operation} failed, and the module does not say why")))
        }
        _ => Ok(state.response.take().unwrap_or_default()),
    })
}

fn write(memory: &mut memory::Memory<'_>, at: u32, bytes: &[u8]) -> Result<(), BadMemory> {
    if bytes.is_empty() { Ok(()) } else { memory.write(at, bytes) }
}

/// Bytes that the module hands over, no more than a response may have.
fn taken(caller: &mut Caller<'_, WapcState>, at: u32, length: u32) -> wasmtime::Result<Bytes> {
    let (memory, state) = memory::of(caller)?;
    let limit = state.room.setup.bounds.response_body;
    if u64::from(length) > limit {
        bail!("its answer has {length} bytes, more than the {limit} allowed");
    }
    if length == 0 {
        return Ok(Bytes::new());
    }
    Ok(Bytes::copy_from_slice(memory.bytes((at, length))?))
}

fn length(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
