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
use crate::redirects::{self, Asked, Unanswered};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use std::collections::BTreeMap;
use url::Url;
use wasmtime::{Caller, Linker};

/// The module name of the imports.
pub(crate) const NAME: &str = "wasi_experimental_http";

/// The functions that there are.
pub(crate) const FUNCTIONS: [&str; 5] = ["req", "close", "header_get", "headers_get_all", "body_read"];

/// Methods that are meant however they are written: servers take them in capitals only.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH];

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
        let url = Url::parse(url).ok().filter(redirects::is_http).ok_or(Errno::InvalidUrl)?;
        let headers = header_map(headers.as_bytes()).map_err(|_| Errno::InvalidEncoding)?;
        let known = METHODS.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(method));
        let method = match known {
            Some(known) => known,
            // So the ABI's client for AssemblyScript writes it.
            None if method.eq_ignore_ascii_case("DELET") => Method::DELETE,
            None => Method::from_bytes(method.as_bytes()).map_err(|_| Errno::InvalidMethod)?,
        };
        Ok(Asked { url, method, headers, body: Bytes::copy_from_slice(body) })
    }

    /// Sends a request and reads the whole response, behind redirects if there are.
    async fn send(&mut self, asked: Asked) -> Result<(StatusCode, Response), Errno> {
        let room = self.room();
        match redirects::send(&mut self.outbound, asked, room).await {
            Ok((status, headers, body)) => Ok((status, Response { headers, body, read: 0 })),
            Err(Unanswered::InvalidUrl) => Err(Errno::InvalidUrl),
            Err(Unanswered::Denied) => Err(Errno::DestinationNotAllowed),
            Err(Unanswered::TooMany) => Err(Errno::TooManySessions),
            Err(Unanswered::Failed { host, reason }) => {
                self.warn(Some(&host), reason);
                Err(Errno::Request)
            }
        }
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

    fn warn(&self, host: Option<&str>, reason: impl std::fmt::Display) {
        let app_id = &*self.outbound.setup.scope.app_id;
        match host {
            Some(host) => tracing::warn!(app_id, "request to {host} failed: {reason}"),
            None => tracing::warn!(app_id, "request not sent: {reason}"),
        }
    }
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
