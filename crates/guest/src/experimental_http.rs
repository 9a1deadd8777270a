//! `wasi_experimental_http`: HTTP requests of core modules, as programs written for that host of 2021 make them.
//!
//! Five functions, with addresses and lengths in the module's memory; each returns a number, 0 for success:
//!
//! ```text
//! req(url, length, method, length, headers, length, body, length, status, handle) -> error
//! close(handle) -> error
//! header_get(handle, name, length, buffer, length, written) -> error
//! headers_get_all(handle, buffer, length, written) -> error
//! body_read(handle, buffer, length, written) -> error
//! ```
//!
//! Headers are lines `name:value`. `req` follows redirects and waits for the whole response, which is open until `close`
//! and read in pieces; at its end `body_read` writes nothing. The status is written as two bytes, all else as four.
//!
//! Which hosts may be asked is decided where it is for all guests ([`Outbound`]), and again for each redirect; requests
//! to the app's own Dapr endpoint never leave the process. A module has at most as many responses open as it may have
//! requests under way, and their bodies together are no larger than one response may be.

use crate::api::{MAX_HEAD, header_map};
use crate::command::ModuleState;
use crate::memory::{self, BadMemory, Memory, Place};
use crate::outbound::Outbound;
use bytes::Bytes;
use dhow_blocks::invoke::Body;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HeaderName, LOCATION, PROXY_AUTHORIZATION,
};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use std::collections::BTreeMap;
use url::Url;
use wasmtime::{Caller, Linker};
use wasmtime_wasi_http::{Error, WasiHttpHooks};

/// The module name of the imports.
pub(crate) const NAME: &str = "wasi_experimental_http";

/// The functions that there are.
pub(crate) const FUNCTIONS: [&str; 5] = ["req", "close", "header_get", "headers_get_all", "body_read"];

/// Redirects that one request follows.
const MAX_REDIRECTS: usize = 10;

/// Headers that speak of a body, and those that are not for another server.
const OF_BODY: [HeaderName; 2] = [CONTENT_TYPE, CONTENT_ENCODING];
const OF_SERVER: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// The open responses of one running module, and its way out.
pub(crate) struct Responses {
    outbound: Outbound,
    open: BTreeMap<u32, Response>,
    /// The next handle, if it is free.
    next: u32,
}

struct Response {
    headers: HeaderMap,
    body: Bytes,
    /// Bytes of the body that were read.
    read: usize,
}

/// What a module is told when a call fails; the numbers are the ABI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errno {
    InvalidHandle = 1,
    MemoryNotFound = 2,
    MemoryAccess = 3,
    BufferTooSmall = 4,
    HeaderNotFound = 5,
    Utf8 = 6,
    DestinationNotAllowed = 7,
    InvalidMethod = 8,
    InvalidEncoding = 9,
    InvalidUrl = 10,
    Request = 11,
    TooManySessions = 13,
}

/// A request as it was read out of the module's memory.
struct Asked {
    url: Url,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

pub(crate) fn add_to_linker(linker: &mut Linker<ModuleState>) -> wasmtime::Result<()> {
    let [req, close, header_get, headers_get_all, body_read] = FUNCTIONS;
    linker.func_wrap_async(
        NAME,
        req,
        |mut caller: Caller<'_, ModuleState>,
         (u, u_len, m, m_len, h, h_len, b, b_len, status, handle): (
            u32,
            u32,
            u32,
            u32,
            u32,
            u32,
            u32,
            u32,
            u32,
            u32,
        )| {
            let places = [(u, u_len), (m, m_len), (h, h_len), (b, b_len)].map(Place::from);
            Box::new(async move { code(request(&mut caller, places, status, handle).await) })
        },
    )?;
    linker.func_wrap(NAME, close, |mut caller: Caller<'_, ModuleState>, handle: u32| {
        caller.data_mut().responses.open.remove(&handle);
        0_u32
    })?;
    linker.func_wrap(
        NAME,
        header_get,
        |mut caller: Caller<'_, ModuleState>,
         handle: u32,
         n: u32,
         n_len: u32,
         b: u32,
         room: u32,
         written: u32| {
            code(with(&mut caller, |mut memory, responses| {
                let response = responses.open.get(&handle).ok_or(Errno::InvalidHandle)?;
                let value = response.headers.get(memory.text((n, n_len))?).ok_or(Errno::HeaderNotFound)?;
                let value = String::from_utf8_lossy(value.as_bytes());
                give(&mut memory, value.as_bytes(), (b, room), written)
            }))
        },
    )?;
    linker.func_wrap(
        NAME,
        headers_get_all,
        |mut caller: Caller<'_, ModuleState>, handle: u32, b: u32, room: u32, written: u32| {
            code(with(&mut caller, |mut memory, responses| {
                let response = responses.open.get(&handle).ok_or(Errno::InvalidHandle)?;
                let mut lines = String::new();
                for (name, value) in &response.headers {
                    let value = String::from_utf8_lossy(value.as_bytes());
                    lines.extend([name.as_str(), ":", &value, "\n"]);
                }
                give(&mut memory, lines.as_bytes(), (b, room), written)
            }))
        },
    )?;
    linker.func_wrap(
        NAME,
        body_read,
        |mut caller: Caller<'_, ModuleState>, handle: u32, b: u32, room: u32, written: u32| {
            code(with(&mut caller, |mut memory, responses| {
                let response = responses.open.get_mut(&handle).ok_or(Errno::InvalidHandle)?;
                let rest = response.body.get(response.read..).unwrap_or_default();
                let piece = &rest[..rest.len().min(room as usize)];
                give(&mut memory, piece, (b, room), written)?;
                response.read += piece.len();
                Ok(())
            }))
        },
    )?;
    Ok(())
}

fn code(result: Result<(), Errno>) -> u32 {
    result.map_or_else(|errno| errno as u32, |()| 0)
}

fn with(
    caller: &mut Caller<'_, ModuleState>,
    call: impl FnOnce(Memory<'_>, &mut Responses) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let (memory, state) = memory::of(caller)?;
    call(memory, &mut state.responses)
}

/// Writes bytes to a buffer that has room for all of them, and how many they are. All places are checked before
/// anything is written.
fn give(memory: &mut Memory<'_>, bytes: &[u8], buffer: (u32, u32), written: u32) -> Result<(), Errno> {
    memory.bytes(buffer)?;
    memory.u32(written)?;
    let length = u32::try_from(bytes.len()).map_err(|_| Errno::BufferTooSmall)?;
    if length > buffer.1 {
        return Err(Errno::BufferTooSmall);
    }
    memory.write(buffer.0, bytes)?;
    memory.write(written, &length.to_le_bytes())?;
    Ok(())
}

async fn request(
    caller: &mut Caller<'_, ModuleState>,
    places: [Place; 4],
    status: u32,
    handle: u32,
) -> Result<(), Errno> {
    let (memory, state) = memory::of(caller)?;
    // Before it is sent: a request whose answer cannot be handed over must not do anything.
    memory.bytes((status, 2))?;
    memory.u32(handle)?;
    let asked = state.responses.read(&memory, places)?;
    let (code, response) = state.responses.send(asked).await?;
    let opened = state.responses.keep(response);
    let (mut memory, _) = memory::of(caller)?;
    memory.write(status, &code.as_u16().to_le_bytes())?;
    memory.write(handle, &opened.to_le_bytes())?;
    Ok(())
}

// === impl Responses ===

impl Responses {
    pub(crate) fn new(outbound: Outbound) -> Responses {
        Responses { outbound, open: BTreeMap::new(), next: 0 }
    }

    fn read(&self, memory: &Memory<'_>, [url, method, headers, body]: [Place; 4]) -> Result<Asked, Errno> {
        let bounds = &self.outbound.setup.bounds;
        if self.open.len() >= bounds.host_calls {
            return Err(Errno::TooManySessions);
        }
        let (url, method) = (memory.text(url)?, memory.text(method)?);
        let (headers, body) = (memory.text(headers)?, memory.bytes(body)?);
        if url.len() + method.len() + headers.len() > MAX_HEAD || body.len() as u64 > bounds.request_body {
            self.warn(None, "the request is larger than allowed");
            return Err(Errno::Request);
        }
        let url = Url::parse(url).map_err(|_| Errno::InvalidUrl)?;
        if !is_http(&url) {
            return Err(Errno::InvalidUrl);
        }
        let headers = header_map(headers.as_bytes()).map_err(|_| Errno::InvalidEncoding)?;
        let method = match method {
            // So the ABI's client for AssemblyScript writes it.
            "DELET" => Method::DELETE,
            method => Method::from_bytes(method.as_bytes()).map_err(|_| Errno::InvalidMethod)?,
        };
        Ok(Asked { url, method, headers, body: Bytes::copy_from_slice(body) })
    }

    /// Sends a request and reads the whole response, behind redirects if there are.
    async fn send(&mut self, mut asked: Asked) -> Result<(StatusCode, Response), Errno> {
        for _ in 0..=MAX_REDIRECTS {
            let body = Full::new(asked.body.clone()).map_err(|never| match never {}).boxed_unsync();
            let mut request = Request::new(body);
            *request.method_mut() = asked.method.clone();
            // Not all that a URL may hold is allowed in a request.
            *request.uri_mut() = Uri::try_from(asked.url.as_str()).map_err(|_| Errno::InvalidUrl)?;
            *request.headers_mut() = asked.headers.clone();
            // What becomes of the request's body is told by the response.
            let sent = self.outbound.send_request(request, None, Box::new(std::future::ready(Ok(()))));
            let (response, _) = Box::into_pin(sent).await.map_err(|error| match error {
                Error::HttpRequestDenied => Errno::DestinationNotAllowed,
                Error::ConnectionLimitReached => Errno::TooManySessions,
                error => self.failed(&asked.url, &error),
            })?;
            let (head, body) = response.into_parts();
            if let Some(location) = asked.redirect(head.status, &head.headers) {
                asked.follow(head.status, location.map_err(|error| self.failed(&asked.url, &error))?);
                continue;
            }
            let body = Body::stream(body).collect(self.room()).await;
            let body = body.map_err(|error| self.failed(&asked.url, &error))?;
            return Ok((head.status, Response { headers: head.headers, body, read: 0 }));
        }
        Err(self.failed(&asked.url, &"more redirects than are followed"))
    }

    fn keep(&mut self, response: Response) -> u32 {
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let handle = self.next;
        self.open.insert(handle, response);
        self.next = handle.wrapping_add(1);
        handle
    }

    /// Bytes that the next body may have.
    fn room(&self) -> usize {
        let limit = usize::try_from(self.outbound.setup.bounds.response_body).unwrap_or(usize::MAX);
        limit.saturating_sub(self.open.values().map(|response| response.body.len()).sum())
    }

    /// The module only gets a number.
    fn failed(&self, url: &Url, reason: &dyn std::fmt::Display) -> Errno {
        self.warn(url.host_str(), reason);
        Errno::Request
    }

    fn warn(&self, host: Option<&str>, reason: impl std::fmt::Display) {
        let app_id = &*self.outbound.setup.scope.app_id;
        match host {
            Some(host) => tracing::warn!(app_id, "request to {host} failed: {reason}"),
            None => tracing::warn!(app_id, "request not sent: {reason}"),
        }
    }
}

// === impl Asked ===

impl Asked {
    /// Where a response leads to, if it is a redirect.
    fn redirect(&self, status: StatusCode, headers: &HeaderMap) -> Option<Result<Url, &'static str>> {
        let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let location = headers.get(LOCATION).filter(|_| is_redirect)?;
        let location = location.to_str().ok().and_then(|location| self.url.join(location).ok());
        Some(location.filter(is_http).ok_or("it redirects to what is no URL"))
    }

    /// Turns to another place, as browsers and other clients do.
    fn follow(&mut self, status: StatusCode, location: Url) {
        let keeps_method = matches!(status.as_u16(), 307 | 308);
        if !keeps_method && self.method != Method::GET && self.method != Method::HEAD {
            self.method = Method::GET;
            self.body = Bytes::new();
            OF_BODY.iter().for_each(|name| drop(self.headers.remove(name)));
        }
        if self.url.origin() != location.origin() {
            OF_SERVER.iter().for_each(|name| drop(self.headers.remove(name)));
        }
        self.url = location;
    }
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

// === impl Errno ===

impl From<BadMemory> for Errno {
    fn from(bad: BadMemory) -> Errno {
        match bad {
            BadMemory::Missing => Errno::MemoryNotFound,
            BadMemory::NotText(_) => Errno::Utf8,
            BadMemory::Outside(_) | BadMemory::TooManyVectors(_) => Errno::MemoryAccess,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: Method) -> Asked {
        let headers = header_map(b"content-type: a/b\nauthorization: secret\nx-one: 1").unwrap();
        Asked { url: Url::parse("http://a.test/x/y").unwrap(), method, headers, body: "body".into() }
    }

    #[test]
    fn redirects_are_followed_as_other_clients_do() {
        // Status, location, then method, URL, length of the body, names of headers.
        let cases = [
            (301, "/z", Method::GET, "http://a.test/z", 0, "authorization x-one"),
            (303, "z", Method::GET, "http://a.test/x/z", 0, "authorization x-one"),
            (302, "http://b.test/", Method::GET, "http://b.test/", 0, "x-one"),
            (307, "z", Method::POST, "http://a.test/x/z", 4, "authorization content-type x-one"),
            (308, "https://a.test/", Method::POST, "https://a.test/", 4, "content-type x-one"),
        ];
        for (status, location, method, url, body, names) in cases {
            let mut asked = asked(Method::POST);
            let status = StatusCode::from_u16(status).unwrap();
            let headers = HeaderMap::from_iter([(LOCATION, location.parse().unwrap())]);
            let next = asked.redirect(status, &headers).unwrap().unwrap();
            asked.follow(status, next);
            let mut found: Vec<&str> = asked.headers.keys().map(HeaderName::as_str).collect();
            found.sort_unstable();
            assert_eq!((asked.method, asked.url.as_str(), asked.body.len()), (method, url, body), "{status}");
            assert_eq!(found.join(" "), names, "{status} {location}");
        }
    }

    #[test]
    fn what_is_no_redirect_is_an_answer() {
        let to = |location: &str| HeaderMap::from_iter([(LOCATION, location.parse().unwrap())]);
        let asked = asked(Method::GET);
        assert!(asked.redirect(StatusCode::CREATED, &to("/z")).is_none());
        assert!(asked.redirect(StatusCode::FOUND, &HeaderMap::new()).is_none());
        assert!(asked.redirect(StatusCode::NOT_MODIFIED, &to("/z")).is_none());
        for bad in ["file:///etc/passwd", "http://"] {
            assert!(asked.redirect(StatusCode::FOUND, &to(bad)).unwrap().is_err(), "{bad}");
        }
    }
}
