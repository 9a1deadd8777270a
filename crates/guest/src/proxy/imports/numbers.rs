//! Host functions for metrics: numbers that a guest keeps, shown with those of the host.

use super::{ENV, put, writable};
use crate::proxy::abi::{Status, code};
use crate::proxy::state::{ProxyState, of};
use crate::setup::{MeterError, MeterKind};
use wasmtime::{Caller, Linker};

/// Bytes of a metric's name.
const MAX_NAME: u32 = 1024;

pub(super) fn add_to_linker(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    linker.func_wrap(
        ENV,
        "proxy_define_metric",
        |mut caller: Caller<'_, ProxyState>, kind: u32, name: u32, name_len: u32, id_at: u32| {
            let define = || -> Result<u32, Status> {
                let kind = match kind {
                    0 => MeterKind::Counter,
                    1 => MeterKind::Gauge,
                    2 => MeterKind::Histogram,
                    _ => return Err(Status::BadArgument),
                };
                writable(&mut caller, id_at)?;
                let (memory, state) = of(&mut caller)?;
                let name = memory.text((name, name_len))?;
                if name.is_empty() || name_len > MAX_NAME {
                    return Err(Status::BadArgument);
                }
                state.setup.meters.define(kind, name).ok_or(Status::BadArgument)
            };
            let id = { define }();
            put(&mut caller, id, id_at)
        },
    )?;
    linker.func_wrap(ENV, "proxy_record_metric", |caller: Caller<'_, ProxyState>, id: u32, value: u64| {
        code(caller.data().setup.meters.record(id, value).map_err(status))
    })?;
    linker.func_wrap(ENV, "proxy_increment_metric", |caller: Caller<'_, ProxyState>, id: u32, by: i64| {
        code(caller.data().setup.meters.increment(id, by).map_err(status))
    })?;
    linker.func_wrap(ENV, "proxy_get_metric", |mut caller: Caller<'_, ProxyState>, id: u32, at: u32| {
        let get = || -> Result<(), Status> {
            let value = caller.data().setup.meters.value(id).map_err(status)?;
            Ok(of(&mut caller)?.0.write(at, &value.to_le_bytes())?)
        };
        code({ get }())
    })?;
    linker.func_wrap(ENV, "proxy_remove_metric", |caller: Caller<'_, ProxyState>, id: u32| {
        // Numbers once shown stay: whoever reads them would take a gap for a restart.
        code(caller.data().setup.meters.value(id).map(|_| ()).or_else(|error| match error {
            MeterError::Unknown => Err(Status::NotFound),
            MeterError::Kind => Ok(()),
        }))
    })?;
    Ok(())
}

fn status(error: MeterError) -> Status {
    match error {
        MeterError::Unknown => Status::NotFound,
        MeterError::Kind => Status::BadArgument,
    }
}
