//! Properties: what a guest may know about a stream and itself, by the names that proxies use
//! (github.com/proxy-wasm/spec, "Well-known properties"). Numbers have eight bytes, little endian.

use super::{ENV, give_found};
use crate::proxy::abi::{Status, code};
use crate::proxy::headers::{Map, authority, path, scheme};
use crate::proxy::state::{ProxyState, of};
use crate::proxy::stream::HttpStream;
use bytes::Bytes;
use http::HeaderMap;
use std::time::SystemTime;
use wasmtime::{Caller, Linker};

pub(super) fn add_to_linker(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        ENV,
        "proxy_get_property",
        |mut caller: Caller<'_, ProxyState>, (at, length, out, out_len): (u32, u32, u32, u32)| {
            Box::new(async move {
                let found = (|| {
                    let (memory, state) = of(&mut caller)?;
                    let path = memory.bytes((at, length))?;
                    property(state, path).ok_or(Status::NotFound)
                })();
                give_found(&mut caller, found, out, out_len).await
            })
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_set_property",
        |mut caller: Caller<'_, ProxyState>, at: u32, length: u32, value: u32, value_len: u32| {
            let set = || -> Result<(), Status> {
                let (memory, state) = of(&mut caller)?;
                let (path, value) = (memory.bytes((at, length))?, memory.bytes((value, value_len))?);
                match &mut state.stream {
                    Some(stream) => stream.properties.set(path, value),
                    None => state.properties.set(path, value),
                }
            };
            code({ set }())
        },
    )?;
    Ok(())
}

fn property(state: &mut ProxyState, path: &[u8]) -> Option<Bytes> {
    let own = state.stream.as_ref().and_then(|stream| stream.properties.get(path));
    if let Some(own) = own.or_else(|| state.properties.get(path)) {
        return Some(own);
    }
    let text = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
    let mut parts = path.split(|byte| *byte == 0);
    match (parts.next()?, parts.next(), parts.next(), parts.next()) {
        (b"plugin_name", None, ..) => text(&state.setup.scope.app_id),
        (b"plugin_root_id", None, ..) => text(&state.about.root_id),
        (b"plugin_vm_id", None, ..) => text(&state.about.vm.id),
        (b"request", Some(name), rest, None) => request(state.stream.as_mut()?, name, rest),
        (b"response", Some(name), rest, None) => {
            let stream = state.stream.as_mut().filter(|stream| stream.has_response())?;
            response(stream, name, rest)
        }
        _ => None,
    }
}

fn request(stream: &mut HttpStream, name: &[u8], key: Option<&[u8]>) -> Option<Bytes> {
    let head = &stream.request;
    let copied = |bytes: &[u8]| Some(Bytes::copy_from_slice(bytes));
    let header = |name: &str| head.headers.get(name).and_then(|value| copied(value.as_bytes()));
    Some(match (name, key) {
        (b"headers", Some(key)) => {
            return Map::Request(&mut stream.request).get(key).and_then(|value| copied(&value));
        }
        (b"path", None) => return copied(path(head).as_bytes()),
        (b"url_path", None) => return copied(head.uri.path().as_bytes()),
        (b"query", None) => return copied(head.uri.query().unwrap_or_default().as_bytes()),
        (b"host", None) => return copied(authority(head)?),
        (b"scheme", None) => return copied(scheme(head).as_bytes()),
        (b"method", None) => return copied(head.method.as_str().as_bytes()),
        (b"protocol", None) => {
            return copied(match head.version {
                http::Version::HTTP_2 => b"HTTP/2",
                http::Version::HTTP_10 => b"HTTP/1.0",
                _ => b"HTTP/1.1",
            });
        }
        (b"id", None) => return header("x-request-id"),
        (b"referer", None) => return header("referer"),
        (b"useragent", None) => return header("user-agent"),
        (b"time", None) => nanoseconds(stream.began),
        (b"duration", None) => {
            number(u64::try_from(stream.began.elapsed().unwrap_or_default().as_nanos()).unwrap_or(u64::MAX))
        }
        (b"size", None) => number(stream.request_body.bytes.len() as u64),
        (b"total_size", None) => total(&head.headers, &stream.request_body.bytes),
        _ => return None,
    })
}

fn response(stream: &mut HttpStream, name: &[u8], key: Option<&[u8]>) -> Option<Bytes> {
    let head = &stream.response;
    Some(match (name, key) {
        (b"headers", Some(key)) => {
            return Map::Response(&mut stream.response).get(key).map(|value| Bytes::copy_from_slice(&value));
        }
        (b"code", None) => number(head.status.as_u16().into()),
        (b"size", None) => number(stream.response_body.bytes.len() as u64),
        (b"total_size", None) => total(&head.headers, &stream.response_body.bytes),
        _ => return None,
    })
}

/// Bytes of headers and body.
fn total(headers: &HeaderMap, body: &[u8]) -> Bytes {
    let headers = headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    number((headers.sum::<usize>() + body.len()) as u64)
}

fn number(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

fn nanoseconds(time: SystemTime) -> Bytes {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    number(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
