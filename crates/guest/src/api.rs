//! `dhow:runtime/api@0.1.0`: Dapr's HTTP API for core modules, which have neither components' calls nor sockets of
//! their own.
//!
//! Two functions, with addresses and lengths in the module's memory:
//!
//! ```text
//! request(method, length, target, length, headers, length, body, length) -> i32
//! answer(part, buffer, length) -> i32
//! ```
//!
//! `request` asks the app's own Dapr endpoint and waits for the whole answer. The target is path and query, the
//! headers are lines `name: value`. The result is the status, or -1 when there is no answer; then the body says why.
//! `answer` tells the length of one part of the last answer, 0 its headers and 1 its body, and writes it to the buffer
//! if it has room for all of it. A module that names memory it does not have is ended.
//!
//! What the app may do is decided where it is for all guests: behind the endpoint, by its grants.

use crate::command::ModuleState;
use crate::memory::{self, Place};
use crate::setup::Setup;
use crate::store::Origin;
use bytes::Bytes;
use dhow_blocks::invoke::{Body, Invocation, Trigger};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri};
use std::sync::Arc;
use wasmtime::{Caller, Linker, bail};

/// The module name of the imports.
pub(crate) const NAME: &str = "dhow:runtime/api@0.1.0";

/// The functions that there are.
pub(crate) const FUNCTIONS: [&str; 2] = ["request", "answer"];

/// Bytes of a request's method, target and headers, all together.
pub(crate) const MAX_HEAD: usize = 64 << 10;

/// Headers that belong to a connection, which there is none, and those that only the host sets.
const NOT_TAKEN: [HeaderName; 5] = [
    http::header::CONNECTION,
    http::header::CONTENT_LENGTH,
    http::header::HOST,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
];

/// The way of one running module to its Dapr endpoint.
pub(crate) struct Api {
    setup: Arc<Setup>,
    origin: Origin,
    /// Of the last request.
    answer: Answer,
}

#[derive(Default)]
struct Answer {
    headers: Bytes,
    body: Bytes,
}

pub(crate) fn add_to_linker(linker: &mut Linker<ModuleState>) -> wasmtime::Result<()> {
    let [request, answer] = FUNCTIONS;
    linker.func_wrap_async(
        NAME,
        request,
        |mut caller: Caller<'_, ModuleState>,
         (m, m_len, t, t_len, h, h_len, b, b_len): (u32, u32, u32, u32, u32, u32, u32, u32)| {
            Box::new(async move {
                let places = [(m, m_len), (t, t_len), (h, h_len), (b, b_len)].map(Place::from);
                let request = read(&mut caller, places)?;
                let (setup, origin) = (Arc::clone(&caller.data().api.setup), caller.data().api.origin);
                let (status, answer) = match request {
                    Ok(request) => ask(&setup, origin, request).await,
                    Err(reason) => Err(reason),
                }
                .unwrap_or_else(|reason| (-1, Answer { headers: Bytes::new(), body: reason.into() }));
                caller.data_mut().api.answer = answer;
                wasmtime::Result::Ok(status)
            })
        },
    )?;
    linker.func_wrap(
        NAME,
        answer,
        |mut caller: Caller<'_, ModuleState>, part: u32, at: u32, room: u32| {
            let answer = &caller.data().api.answer;
            let part = match part {
                0 => answer.headers.clone(),
                1 => answer.body.clone(),
                other => bail!("an answer has parts 0 and 1, not {other}"),
            };
            if part.len() <= room as usize {
                memory::of(&mut caller)?.0.write(at, &part)?;
            }
            i32::try_from(part.len()).map_err(wasmtime::Error::from)
        },
    )?;
    Ok(())
}

/// Takes a request out of the module's memory; the inner error is the module's to read.
fn read(
    caller: &mut Caller<'_, ModuleState>,
    [method, target, headers, body]: [Place; 4],
) -> wasmtime::Result<Result<Request<Body>, String>> {
    let (memory, state) = memory::of(caller)?;
    let (method, target) = (memory.bytes(method)?, memory.bytes(target)?);
    let (headers, body) = (memory.bytes(headers)?, memory.bytes(body)?);
    let limit = state.api.setup.bounds.request_body;
    if body.len() as u64 > limit {
        return Ok(Err(format!("the request body has {} bytes; allowed are {limit}", body.len())));
    }
    Ok(http_request(method, target, headers).map(|request| {
        let body = Bytes::copy_from_slice(body);
        request.map(|()| Body::from(body))
    }))
}

fn http_request(method: &[u8], target: &[u8], headers: &[u8]) -> Result<Request<()>, String> {
    if method.len() + target.len() + headers.len() > MAX_HEAD {
        return Err(format!("method, target and headers have more than {MAX_HEAD} bytes"));
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method).map_err(|error| format!("method: {error}"))?;
    if target.first() != Some(&b'/') {
        return Err("the target must begin with a slash".to_owned());
    }
    *request.uri_mut() = Uri::try_from(target).map_err(|error| format!("target: {error}"))?;
    *request.headers_mut() = header_map(headers)?;
    Ok(request)
}

/// Reads lines `name: value`, without the headers that a guest cannot set.
pub(crate) fn header_map(lines: &[u8]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for line in std::str::from_utf8(lines).map_err(|error| format!("headers: {error}"))?.lines() {
        let (name, value) = line.split_once(':').ok_or("a header is a line `name: value`")?;
        let name = HeaderName::try_from(name.trim()).map_err(|error| format!("a header's name: {error}"))?;
        let value = HeaderValue::try_from(value.trim()).map_err(|error| format!("header {name}: {error}"))?;
        if !NOT_TAKEN.contains(&name) {
            headers.try_append(name, value).map_err(|error| format!("headers: {error}"))?;
        }
    }
    Ok(headers)
}

async fn ask(setup: &Setup, origin: Origin, mut request: Request<Body>) -> Result<(i32, Answer), String> {
    let api = setup.runtime_api.as_ref().ok_or("this app has no Dapr endpoint")?;
    let (trace, depth) = (origin.trace, origin.depth);
    if !request.headers().contains_key("traceparent")
        && let Ok(value) = HeaderValue::try_from(trace.child().to_string())
    {
        request.headers_mut().insert("traceparent", value);
    }
    let invocation = Invocation { request, trigger: Trigger::App, trace, depth };
    let (head, body) = api.call(&setup.scope, invocation).await.into_parts();
    let limit = usize::try_from(setup.bounds.response_body).unwrap_or(usize::MAX).min(i32::MAX as usize);
    let body = body.collect(limit).await.map_err(|error| format!("the answer: {error}"))?;
    Ok((i32::from(head.status.as_u16()), Answer { headers: lines(&head.headers), body }))
}

fn lines(headers: &HeaderMap) -> Bytes {
    let mut text = Vec::new();
    for (name, value) in headers {
        for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"] {
            text.extend_from_slice(piece);
        }
    }
    text.into()
}

// === impl Api ===

impl Api {
    pub(crate) fn new(setup: Arc<Setup>, origin: Origin) -> Api {
        Api { setup, origin, answer: Answer::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_a_request() {
        let headers = b"content-type: a/b\nX-One:1\nx-one: 2\nHost: evil\ncontent-length: 7\n";
        let request = http_request(b"PUT", b"/v1.0/state/s?a=b", headers).unwrap();
        assert_eq!((request.method(), request.uri().path()), (&Method::PUT, "/v1.0/state/s"));
        assert_eq!(lines(request.headers()), "content-type: a/b\nx-one: 1\nx-one: 2\n");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let long = vec![b'a'; MAX_HEAD];
        for (method, target, headers) in [
            (&b""[..], &b"/"[..], &b""[..]),
            (b"GET /", b"/", b""),
            (b"GET", b"", b""),
            (b"GET", b"http://elsewhere/", b""),
            (b"GET", b"/a b", b""),
            (b"GET", b"/", b"no colon"),
            (b"GET", b"/", b"a b: c"),
            (b"GET", b"/", b"a: \x01"),
            (b"GET", b"/", b"a: \xff"),
            (b"GET", b"/", &long),
        ] {
            assert!(http_request(method, target, headers).is_err(), "{}", target.escape_ascii());
        }
    }
}
