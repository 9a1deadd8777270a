//! Host functions around header maps.

use super::{ENV, give_found, put};
use crate::proxy::abi::{MapType, Status, code};
use crate::proxy::headers::{parsed, serialized, serialized_size};
use crate::proxy::state::{ProxyState, of};
use wasmtime::{Caller, Linker};

pub(super) fn add_to_linker(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    linker.func_wrap(
        ENV,
        "proxy_get_header_map_size",
        |mut caller: Caller<'_, ProxyState>, map: u32, at: u32| {
            let size = MapType::try_from(map).map(|map| {
                let size = caller.data_mut().map(map).map_or(0, |map| serialized_size(&map.pairs()));
                u32::try_from(size).unwrap_or(u32::MAX)
            });
            put(&mut caller, size, at)
        },
    )?;
    linker.func_wrap_async(
        ENV,
        "proxy_get_header_map_pairs",
        |mut caller: Caller<'_, ProxyState>, (map, out, out_len): (u32, u32, u32)| {
            Box::new(async move {
                // A map that is not there is an empty one: SDKs know no error here.
                let pairs = MapType::try_from(map).map(|map| {
                    caller.data_mut().map(map).map(|map| serialized(&map.pairs())).unwrap_or_default()
                });
                give_found(&mut caller, pairs, out, out_len).await
            })
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_set_header_map_pairs",
        |mut caller: Caller<'_, ProxyState>, map: u32, at: u32, length: u32| {
            let set = || -> Result<(), Status> {
                let map = MapType::try_from(map)?;
                let (memory, state) = of(&mut caller)?;
                let pairs = parsed(memory.bytes((at, length))?)?;
                state.map_mut(map)?.set(&pairs)
            };
            code({ set }())
        },
    )?;
    linker.func_wrap_async(
        ENV,
        "proxy_get_header_map_value",
        |mut caller: Caller<'_, ProxyState>, (map, at, length, out, out_len): (u32, u32, u32, u32, u32)| {
            Box::new(async move {
                let found = value(&mut caller, map, (at, length));
                give_found(&mut caller, found, out, out_len).await
            })
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_add_header_map_value",
        |mut caller: Caller<'_, ProxyState>, map: u32, key: u32, key_len: u32, value: u32, value_len: u32| {
            let add = || -> Result<(), Status> {
                let map = MapType::try_from(map)?;
                let (memory, state) = of(&mut caller)?;
                let (key, value) = (memory.bytes((key, key_len))?, memory.bytes((value, value_len))?);
                state.map_mut(map)?.add(key, value)
            };
            code({ add }())
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_replace_header_map_value",
        |mut caller: Caller<'_, ProxyState>, map: u32, key: u32, key_len: u32, value: u32, value_len: u32| {
            let replace = || -> Result<(), Status> {
                let map = MapType::try_from(map)?;
                let (memory, state) = of(&mut caller)?;
                let (key, value) = (memory.bytes((key, key_len))?, memory.bytes((value, value_len))?);
                state.map_mut(map)?.replace(key, value)
            };
            code({ replace }())
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_remove_header_map_value",
        |mut caller: Caller<'_, ProxyState>, map: u32, key: u32, key_len: u32| {
            let remove = || -> Result<(), Status> {
                let map = MapType::try_from(map)?;
                let (memory, state) = of(&mut caller)?;
                let key = memory.bytes((key, key_len))?;
                // From a map that is not there nothing needs to be removed.
                if let Ok(mut map) = state.map_mut(map) {
                    map.remove(key);
                }
                Ok(())
            };
            code({ remove }())
        },
    )?;
    Ok(())
}

fn value(caller: &mut Caller<'_, ProxyState>, map: u32, key: (u32, u32)) -> Result<Vec<u8>, Status> {
    let map = MapType::try_from(map)?;
    let (memory, state) = of(caller)?;
    let key = memory.bytes(key)?;
    let found = state.map(map).and_then(|map| map.get(key).map(|value| value.into_owned()));
    match found {
        // The first version of the ABI did not tell a missing header from an empty one.
        None if state.about.is_legacy => Ok(Vec::new()),
        found => found.ok_or(Status::NotFound),
    }
}
