//! Host functions for what modules share: values and queues.

use super::{ENV, give_found, put, writable};
use crate::proxy::abi::{OK, Status, code};
use crate::proxy::state::{ProxyState, of};
use std::sync::Arc;
use wasmtime::{Caller, Linker};

pub(super) fn add_to_linker(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        ENV,
        "proxy_get_shared_data",
        |mut caller: Caller<'_, ProxyState>,
         (key, key_len, out, out_len, cas_at): (u32, u32, u32, u32, u32)| {
            Box::new(async move {
                let found = (|| {
                    writable(&mut caller, cas_at)?;
                    let (memory, state) = of(&mut caller)?;
                    state.about.vm.get(memory.bytes((key, key_len))?)
                })();
                match put(&mut caller, found.as_ref().map(|(_, cas)| *cas).map_err(|status| *status), cas_at)
                {
                    OK => give_found(&mut caller, found.map(|(value, _)| value), out, out_len).await,
                    status => Ok(status),
                }
            })
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_set_shared_data",
        |mut caller: Caller<'_, ProxyState>, key: u32, key_len: u32, value: u32, value_len: u32, cas: u32| {
            let set = || -> Result<(), Status> {
                let (memory, state) = of(&mut caller)?;
                let (key, value) = (memory.bytes((key, key_len))?, memory.bytes((value, value_len))?);
                said(state.about.vm.set(key, value, cas), state, "shared data")
            };
            code({ set }())
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_register_shared_queue",
        |mut caller: Caller<'_, ProxyState>, name: u32, name_len: u32, id_at: u32| {
            let register = || -> Result<u32, Status> {
                writable(&mut caller, id_at)?;
                let (memory, state) = of(&mut caller)?;
                state.about.vm.register_queue(memory.bytes((name, name_len))?, state.wake.as_ref())
            };
            let id = { register }();
            put(&mut caller, id, id_at)
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_resolve_shared_queue",
        |mut caller: Caller<'_, ProxyState>, vm: u32, vm_len: u32, name: u32, name_len: u32, id_at: u32| {
            let id = resolve(&mut caller, Some((vm, vm_len)), (name, name_len), id_at);
            put(&mut caller, id, id_at)
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_enqueue_shared_queue",
        |mut caller: Caller<'_, ProxyState>, id: u32, at: u32, length: u32| {
            let enqueue = || -> Result<(), Status> {
                let (memory, state) = of(&mut caller)?;
                let scope = &state.setup.scope;
                let put = state.about.vm.enqueue(id, memory.bytes((at, length))?, |vm| scope.may_invoke(vm));
                said(put, state, "shared queues")
            };
            code({ enqueue }())
        },
    )?;
    linker.func_wrap_async(
        ENV,
        "proxy_dequeue_shared_queue",
        |mut caller: Caller<'_, ProxyState>, (id, out, out_len): (u32, u32, u32)| {
            Box::new(async move {
                // A value that cannot be handed over must not be taken out.
                let ready = writable(&mut caller, out).and_then(|()| writable(&mut caller, out_len));
                let state = caller.data();
                let scope = Arc::clone(&state.setup.scope);
                let taken = ready.and_then(|()| state.about.vm.dequeue(id, |vm| scope.may_invoke(vm)));
                give_found(&mut caller, taken, out, out_len).await
            })
        },
    )?;
    linker.func_wrap(ENV, "proxy_remove_shared_queue", |caller: Caller<'_, ProxyState>, id: u32| {
        code(caller.data().about.vm.remove_queue(id))
    })?;
    Ok(())
}

/// Layotto's form, which names no VM.
pub(super) fn resolve_own_queue(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    linker.func_wrap(
        ENV,
        "proxy_resolve_shared_queue",
        |mut caller: Caller<'_, ProxyState>, name: u32, name_len: u32, id_at: u32| {
            let id = resolve(&mut caller, None, (name, name_len), id_at);
            put(&mut caller, id, id_at)
        },
    )?;
    Ok(())
}

fn resolve(
    caller: &mut Caller<'_, ProxyState>,
    vm: Option<(u32, u32)>,
    name: (u32, u32),
    id_at: u32,
) -> Result<u32, Status> {
    writable(caller, id_at)?;
    let (memory, state) = of(caller)?;
    let vm = vm.map_or(Ok(""), |vm| memory.text(vm))?;
    let scope = &state.setup.scope;
    state.about.vm.resolve_queue(vm, memory.bytes(name)?, |vm| scope.may_invoke(vm))
}

/// Says why the guest will be ended by its SDK, which knows no code for a lack of room.
fn said(result: Result<(), Status>, state: &ProxyState, what: &str) -> Result<(), Status> {
    if result == Err(Status::InternalFailure) {
        let app_id = &*state.setup.scope.app_id;
        tracing::warn!(app_id, "the {what} of VM {:?} have no room for more", state.about.vm.id);
    }
    result
}
