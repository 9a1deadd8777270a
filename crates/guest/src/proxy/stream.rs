//! One request on its way through a guest: what its stream context sees and changes.

use super::abi::{Direction, MapType, Status};
use super::buffer::Buffer;
use super::headers::Map;
use crate::failure::Failure;
use bytes::Bytes;
use dhow_blocks::invoke::{Body, BodyError, Reply};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Response, StatusCode, request, response};
use http_body_util::{BodyExt, Full};
use std::collections::BTreeMap;
use std::future::ready;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;

/// Properties that a guest may set on one context, and the bytes of one.
const MAX_PROPERTIES: usize = 64;
const MAX_PROPERTY: usize = 64 << 10;

/// A request and its response.
pub(super) struct HttpStream {
    /// The context's number.
    pub(super) id: u32,
    /// What the guest is asked about now.
    pub(super) direction: Direction,
    /// The guest is the app itself, so that the response is its to write from the beginning.
    pub(super) is_app: bool,
    pub(super) request: request::Parts,
    pub(super) request_body: Buffer,
    pub(super) request_trailers: HeaderMap,
    pub(super) response: response::Parts,
    pub(super) response_body: Buffer,
    pub(super) response_trailers: HeaderMap,
    /// What the guest answers itself.
    pub(super) local: Option<Reply>,
    /// The guest wants to go on after it paused.
    pub(super) continued: bool,
    /// The guest wants no answer to be sent.
    pub(super) closed: bool,
    /// `proxy_done` was called.
    pub(super) done: bool,
    pub(super) properties: Properties,
    pub(super) began: SystemTime,
}

/// What a guest has set itself.
#[derive(Default)]
pub(super) struct Properties(BTreeMap<Vec<u8>, Bytes>);

/// What a guest says to answer with.
pub(super) struct LocalResponse<'a> {
    pub(super) status: u32,
    pub(super) headers: Vec<(&'a [u8], &'a [u8])>,
    pub(super) body: &'a [u8],
    /// All bits set: this is no gRPC.
    pub(super) grpc_status: u32,
}

// === impl HttpStream ===

impl HttpStream {
    pub(super) fn new(id: u32, is_app: bool, request: request::Parts) -> HttpStream {
        HttpStream {
            id,
            direction: Direction::Request,
            is_app,
            request,
            request_body: Buffer::default(),
            request_trailers: HeaderMap::new(),
            response: Response::new(()).into_parts().0,
            response_body: Buffer::default(),
            response_trailers: HeaderMap::new(),
            local: None,
            continued: false,
            closed: false,
            done: false,
            properties: Properties::default(),
            began: SystemTime::now(),
        }
    }

    /// A response is there once it came, and for an app always.
    pub(super) fn has_response(&self) -> bool {
        self.is_app || self.direction == Direction::Response
    }

    /// One of its own maps, if it is there now.
    pub(super) fn map(&mut self, map: MapType) -> Option<Map<'_>> {
        let has_response = self.has_response();
        match map {
            MapType::RequestHeaders => Some(Map::Request(&mut self.request)),
            MapType::RequestTrailers => Some(Map::Plain(&mut self.request_trailers)),
            MapType::ResponseHeaders if has_response => Some(Map::Response(&mut self.response)),
            MapType::ResponseTrailers if has_response => Some(Map::Plain(&mut self.response_trailers)),
            _ => None,
        }
    }

    /// Nothing more is asked of the guest about this stream.
    pub(super) fn is_over(&self) -> bool {
        self.local.is_some() || self.closed
    }

    /// The guest has written a response, or its head.
    pub(super) fn is_written(&self) -> bool {
        let head = &self.response;
        self.response_body.written || head.status != StatusCode::OK || !head.headers.is_empty()
    }

    /// The guest answers itself; the first answer counts, as in other hosts of the ABI.
    pub(super) fn answer(&mut self, local: &LocalResponse<'_>) -> Result<(), Status> {
        let status = u16::try_from(local.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let mut reply = Response::new(Body::Empty);
        *reply.status_mut() = status.ok_or(Status::BadArgument)?;
        let (mut head, _) = reply.into_parts();
        let mut map = Map::Response(&mut head);
        for (name, value) in &local.headers {
            map.add(name, value)?;
        }
        let asked = self.request.headers.get(CONTENT_TYPE);
        let is_grpc = asked.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        let body = if is_grpc && local.grpc_status != u32::MAX {
            // The trailers-only form (grpc/PROTOCOL-HTTP2.md).
            head.status = StatusCode::OK;
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            head.headers.insert("grpc-status", local.grpc_status.into());
            if let Ok(message) = HeaderValue::from_str(&escaped(local.body)) {
                head.headers.insert("grpc-message", message);
            }
            Body::Empty
        } else {
            Bytes::copy_from_slice(local.body).into()
        };
        unframed(&mut head.headers);
        if self.local.is_none() {
            self.local = Some(Response::from_parts(head, body));
        }
        Ok(())
    }

    /// What the guest answered itself, if it did. From here on it is the response that callbacks find.
    pub(super) fn take_answer(&mut self) -> Option<Reply> {
        let (head, body) = self.local.take()?.into_parts();
        self.response = head.clone();
        self.direction = Direction::Response;
        Some(Response::from_parts(head, body))
    }
}

// === impl Properties ===

impl Properties {
    pub(super) fn get(&self, path: &[u8]) -> Option<Bytes> {
        self.0.get(path).cloned()
    }

    pub(super) fn set(&mut self, path: &[u8], value: &[u8]) -> Result<(), Status> {
        let is_new = !self.0.contains_key(path);
        if path.len() + value.len() > MAX_PROPERTY || is_new && self.0.len() >= MAX_PROPERTIES {
            return Err(Status::InternalFailure);
        }
        self.0.insert(path.to_vec(), Bytes::copy_from_slice(value));
        Ok(())
    }
}

/// Percent-encodes what a gRPC message cannot hold as it is.
fn escaped(message: &[u8]) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message {
        match byte {
            b' '..=b'~' if *byte != b'%' => text.push(char::from(*byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// The body decides the framing.
pub(crate) fn unframed(headers: &mut HeaderMap) {
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION] {
        headers.remove(name);
    }
}

/// Why a body could not be read.
pub(super) enum Unread {
    TooLarge,
    Broken(BodyError),
}

/// Reads a body of at most `limit` bytes to its end, trailers included, as long as something of it comes within `patience`.
pub(super) async fn collected(
    body: Body,
    limit: u64,
    patience: Duration,
) -> Result<(Bytes, HeaderMap), Unread> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut stream = match body {
        Body::Empty => return Ok((Bytes::new(), HeaderMap::new())),
        Body::Full(bytes) if bytes.len() > limit => return Err(Unread::TooLarge),
        Body::Full(bytes) => return Ok((bytes, HeaderMap::new())),
        Body::Stream(stream) => stream,
    };
    let (mut bytes, mut trailers) = (Buffer::default(), HeaderMap::new());
    loop {
        let frame = timeout(patience, stream.frame()).await;
        let Some(frame) = frame.map_err(|_| Unread::Broken(Failure::Deadline(patience).into()))? else {
            break;
        };
        match frame.map_err(Unread::Broken)?.into_data() {
            Ok(data) if bytes.bytes.is_empty() && data.len() <= limit => bytes.bytes = data,
            Ok(data) => {
                let end = (u32::MAX, 0);
                let appended = bytes.write(super::buffer::Rules::Spec, end, &data, limit as u64);
                appended.map_err(|_| Unread::TooLarge)?;
            }
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok((bytes.bytes, trailers))
}

/// A body of these bytes and trailers.
pub(super) fn body(bytes: Bytes, trailers: HeaderMap) -> Body {
    if trailers.is_empty() {
        return bytes.into();
    }
    Body::stream(Full::new(bytes).with_trailers(ready(Some(Ok(trailers)))))
}
