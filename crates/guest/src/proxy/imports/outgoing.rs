//! Host functions that send requests: HTTP calls, gRPC calls and streams.

use super::{ENV, put, writable};
use crate::proxy::abi::{Status, code};
use crate::proxy::calls::http_call;
use crate::proxy::grpc::{self, Ask};
use crate::proxy::headers::{Map, parsed};
use crate::proxy::state::{ProxyState, of};
use bytes::Bytes;
use http::HeaderMap;
use wasmtime::{Caller, Linker};

pub(super) fn add_to_linker(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    linker.func_wrap(
        ENV,
        "proxy_http_call",
        |mut caller: Caller<'_, ProxyState>,
         upstream: u32,
         upstream_len: u32,
         headers: u32,
         headers_len: u32,
         body: u32,
         body_len: u32,
         trailers: u32,
         trailers_len: u32,
         timeout: u32,
         id_at: u32| {
            let call = || -> Result<u32, Status> {
                writable(&mut caller, id_at)?;
                let (memory, state) = of(&mut caller)?;
                // All of them before any is understood: a wrong address is told as one.
                let (upstream, headers) =
                    (memory.bytes((upstream, upstream_len))?, memory.bytes((headers, headers_len))?);
                let (body, trailers) =
                    (memory.bytes((body, body_len))?, memory.bytes((trailers, trailers_len))?);
                let (upstream, pairs) = (text(upstream)?, parsed(headers)?);
                let mut trailing = HeaderMap::new();
                for (name, value) in parsed(trailers)? {
                    Map::Plain(&mut trailing).add(name, value)?;
                }
                if body.len() as u64 > state.setup.bounds.request_body {
                    return Err(Status::BadArgument);
                }
                http_call(state, upstream, &pairs, Bytes::copy_from_slice(body), trailing, timeout)
            };
            let id = { call }();
            put(&mut caller, id, id_at)
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_grpc_call",
        |mut caller: Caller<'_, ProxyState>,
         upstream: u32,
         upstream_len: u32,
         service: u32,
         service_len: u32,
         method: u32,
         method_len: u32,
         metadata: u32,
         metadata_len: u32,
         message: u32,
         message_len: u32,
         timeout: u32,
         id_at: u32| {
            let asked = [
                (upstream, upstream_len),
                (service, service_len),
                (method, method_len),
                (metadata, metadata_len),
            ];
            let id = ask(&mut caller, asked, Some((message, message_len)), timeout, id_at);
            put(&mut caller, id, id_at)
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_grpc_stream",
        |mut caller: Caller<'_, ProxyState>,
         upstream: u32,
         upstream_len: u32,
         service: u32,
         service_len: u32,
         method: u32,
         method_len: u32,
         metadata: u32,
         metadata_len: u32,
         id_at: u32| {
            let asked = [
                (upstream, upstream_len),
                (service, service_len),
                (method, method_len),
                (metadata, metadata_len),
            ];
            let id = ask(&mut caller, asked, None, 0, id_at);
            put(&mut caller, id, id_at)
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_grpc_send",
        |mut caller: Caller<'_, ProxyState>, id: u32, at: u32, length: u32, is_last: u32| {
            let send = || -> Result<(), Status> {
                let (memory, state) = of(&mut caller)?;
                let message = memory.bytes((at, length))?;
                let limit = state.setup.bounds.request_body;
                let grpc = state.calls.grpc(id).ok_or(Status::NotFound)?;
                match message.len() as u64 > limit {
                    true => Err(Status::BadArgument),
                    // Only the end, without a message.
                    false if at == 0 && length == 0 && is_last != 0 => {
                        grpc.close();
                        Ok(())
                    }
                    false => grpc.send(message, is_last != 0),
                }
            };
            code({ send }())
        },
    )?;
    linker.func_wrap(ENV, "proxy_grpc_cancel", |mut caller: Caller<'_, ProxyState>, id: u32| {
        code(caller.data_mut().calls.cancel_grpc(id).then_some(()).ok_or(Status::NotFound))
    })?;
    linker.func_wrap(ENV, "proxy_grpc_close", |mut caller: Caller<'_, ProxyState>, id: u32| {
        code(caller.data_mut().calls.grpc(id).map(grpc::Grpc::close).ok_or(Status::NotFound))
    })?;
    Ok(())
}

fn ask(
    caller: &mut Caller<'_, ProxyState>,
    asked: [(u32, u32); 4],
    message: Option<(u32, u32)>,
    timeout: u32,
    id_at: u32,
) -> Result<u32, Status> {
    writable(caller, id_at)?;
    let (memory, state) = of(caller)?;
    let mut pieces = [&[][..]; 4];
    for (piece, place) in pieces.iter_mut().zip(asked) {
        *piece = memory.bytes(place)?;
    }
    let message = message.map(|message| memory.bytes(message)).transpose()?;
    let [upstream, service, method, metadata] = pieces;
    let unparsed = |_| Status::ParseFailure;
    let metadata = parsed(metadata).map_err(unparsed)?;
    let ask = Ask {
        upstream: text(upstream).map_err(unparsed)?,
        service: text(service).map_err(unparsed)?,
        method: text(method).map_err(unparsed)?,
        metadata: &metadata,
    };
    match message {
        None => grpc::stream(state, &ask),
        Some(message) => {
            if message.len() as u64 > state.setup.bounds.request_body {
                return Err(Status::InternalFailure);
            }
            grpc::call(state, &ask, message, timeout)
        }
    }
}

fn text(bytes: &[u8]) -> Result<&str, Status> {
    std::str::from_utf8(bytes).map_err(|_| Status::BadArgument)
}
