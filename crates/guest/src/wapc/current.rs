//! waPC as it is today: the host call that names binding, namespace and operation.
//!
//! Source: the waPC protocol (wapc.io), as the crate wapc-guest imports it.

use super::format::Format;
use super::operations::{Asked, host_call, text};
use super::state::WapcState;
use wasmtime::{Caller, Linker};

/// Parameters of `__host_call`.
pub(super) const PARAMETERS: usize = 8;

pub(super) fn add_to_linker(linker: &mut Linker<WapcState>, module: &str) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        module,
        "__host_call",
        |mut caller: Caller<'_, WapcState>,
         (b, b_len, n, n_len, o, o_len, p, p_len): (u32, u32, u32, u32, u32, u32, u32, u32)| {
            Box::new(async move {
                host_call(&mut caller, (p, p_len), |memory| {
                    Ok(Asked {
                        binding: text(memory, "binding", (b, b_len))?,
                        namespace: text(memory, "namespace", (n, n_len))?,
                        operation: text(memory, "operation", (o, o_len))?,
                        format: Format::MessagePack,
                    })
                })
                .await
            })
        },
    )?;
    Ok(())
}
