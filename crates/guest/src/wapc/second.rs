//! The second Wascap ABI (September 2019), and the first waPC: one name says capability and operation.
//!
//! `wascap:keyvalue!Get` is an operation with a protobuf message, the same names of `wascc:` too. Where a name has no
//! exclamation mark the module takes the operation's plain name, and its payloads are what the module's own are.

use super::operations::{Asked, host_call, text};
use super::state::WapcState;
use wasmtime::{Caller, Linker};

/// Parameters of `__host_call`.
pub(super) const PARAMETERS: usize = 4;

pub(super) fn add_to_linker(linker: &mut Linker<WapcState>, module: &str) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        module,
        "__host_call",
        |mut caller: Caller<'_, WapcState>, (o, o_len, p, p_len): (u32, u32, u32, u32)| {
            Box::new(async move {
                let format = caller.data().room.dialect.format;
                host_call(&mut caller, (p, p_len), |memory| {
                    let name = text(memory, "operation", (o, o_len))?;
                    let (namespace, operation) = match name.rsplit_once('!') {
                        Some((namespace, operation)) => (namespace.to_owned(), operation.to_owned()),
                        None => (String::new(), name),
                    };
                    Ok(Asked { binding: String::new(), namespace, operation, format })
                })
                .await
            })
        },
    )?;
    Ok(())
}
