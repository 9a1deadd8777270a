//! gRPC calls and streams of a guest: messages in frames over HTTP/2 (grpc/PROTOCOL-HTTP2.md).

use super::abi::Status;
use super::calls::{Target, Way, What, patience, send};
use super::headers::header;
use super::state::ProxyState;
use bytes::{Bytes, BytesMut};
use dhow_blocks::invoke::Body;
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::Frame;
use percent_encoding::percent_decode_str;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio::time::Sleep;

/// Messages that a guest may have written and nobody has taken yet.
const QUEUED: usize = 64;

/// Codes of grpc/statuscodes.md.
const UNKNOWN: u32 = 2;
const DEADLINE_EXCEEDED: u32 = 4;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNAVAILABLE: u32 = 14;

/// What a guest asks for.
pub(super) struct Ask<'a> {
    pub(super) upstream: &'a str,
    pub(super) service: &'a str,
    pub(super) method: &'a str,
    pub(super) metadata: &'a [(&'a [u8], &'a [u8])],
}

/// One call or stream.
pub(super) struct Grpc {
    /// One message and one answer.
    unary: bool,
    stage: Stage,
    /// Read and not yet told.
    buffered: BytesMut,
    /// Most bytes of one message.
    limit: usize,
    alarm: Option<Pin<Box<Sleep>>>,
    /// Where the guest's messages go; gone when it has said its last.
    outgoing: Option<mpsc::Sender<Bytes>>,
}

enum Stage {
    Sent(Pin<Box<dyn Future<Output = Option<Response<Body>>> + Send>>),
    Open(Body),
    /// Trailers have been told, the status not yet.
    Ended(HeaderMap),
}

/// A request body whose messages come from a guest.
struct Messages(mpsc::Receiver<Bytes>);

// === impl Grpc ===

impl Grpc {
    pub(super) fn is_unary(&self) -> bool {
        self.unary
    }

    /// Sends one more message.
    pub(super) fn send(&mut self, message: &[u8], is_last: bool) -> Result<(), Status> {
        let outgoing = self.outgoing.as_ref().ok_or(Status::BadArgument)?;
        let sent = outgoing.try_send(framed(message)).map_err(|_| Status::BadArgument);
        if is_last {
            self.outgoing = None;
        }
        sent
    }

    /// Says that no message will come any more.
    pub(super) fn close(&mut self) {
        self.outgoing = None;
    }

    /// The next thing that comes. Of a unary call it is the only one: its answer, or its status.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<What> {
        if let Some(alarm) = &mut self.alarm
            && alarm.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(closed(DEADLINE_EXCEEDED, "the call took too long"));
        }
        loop {
            match &mut self.stage {
                Stage::Sent(response) => match response.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => {
                        return Poll::Ready(closed(UNAVAILABLE, "the upstream cannot be reached"));
                    }
                    Poll::Ready(Some(response)) => {
                        let (head, body) = response.into_parts();
                        if head.headers.contains_key("grpc-status") {
                            // The trailers-only form: nothing else comes.
                            self.stage = Stage::Ended(head.headers);
                            continue;
                        }
                        if head.status != 200 {
                            let text = format!("the upstream answered with HTTP status {}", head.status);
                            return Poll::Ready(closed(of_http(head.status.as_u16()), &text));
                        }
                        self.stage = Stage::Open(body);
                        if !self.unary {
                            return Poll::Ready(What::Metadata(head.headers));
                        }
                    }
                },
                Stage::Open(body) => {
                    match message(&mut self.buffered, self.limit) {
                        Ok(Some(message)) => return Poll::Ready(What::Message(message)),
                        Ok(None) => {}
                        Err(reason) => return Poll::Ready(closed(RESOURCE_EXHAUSTED, reason)),
                    }
                    match http_body::Body::poll_frame(Pin::new(body), cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                            Ok(data) => self.buffered.extend_from_slice(&data),
                            Err(frame) => {
                                let trailers = frame.into_trailers().unwrap_or_default();
                                self.stage = Stage::Ended(trailers.clone());
                                if !self.unary {
                                    return Poll::Ready(What::Trailers(trailers));
                                }
                            }
                        },
                        Poll::Ready(Some(Err(error))) => {
                            return Poll::Ready(closed(UNAVAILABLE, &error.to_string()));
                        }
                        Poll::Ready(None) => self.stage = Stage::Ended(HeaderMap::new()),
                    }
                }
                Stage::Ended(trailers) => {
                    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
                    let status = text("grpc-status").and_then(|status| status.parse().ok());
                    // Encoded as in paths (grpc/PROTOCOL-HTTP2.md).
                    let message = percent_decode_str(text("grpc-message").unwrap_or_default());
                    return Poll::Ready(closed(status.unwrap_or(UNKNOWN), &message.decode_utf8_lossy()));
                }
            }
        }
    }
}

fn closed(status: u32, message: &str) -> What {
    What::Closed { status, message: message.to_owned() }
}

/// What stands for a status of HTTP where no gRPC status came (grpc/http-grpc-status-mapping.md).
fn of_http(status: u16) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// Length and bytes; never compressed.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.extend_from_slice(&[0]);
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(message);
    frame.freeze()
}

/// Takes one whole message out of what was read.
fn message(buffered: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, &'static str> {
    let Some([compressed, length @ ..]) = buffered.first_chunk::<5>().copied() else { return Ok(None) };
    let length = u32::from_be_bytes(length) as usize;
    if compressed != 0 {
        return Err("the upstream compresses its messages, which nobody asked for");
    }
    if length > limit {
        return Err("a message is larger than the limit of response bodies");
    }
    if buffered.len() < 5 + length {
        return Ok(None);
    }
    Ok(Some(buffered.split_to(5 + length).freeze().slice(5..)))
}

/// Sends a message and waits for one answer.
pub(super) fn call(
    state: &mut ProxyState,
    ask: &Ask<'_>,
    message: &[u8],
    timeout: u32,
) -> Result<u32, Status> {
    let alarm = tokio::time::sleep(patience(&state.setup, timeout));
    begin(state, ask, Body::from(framed(message)), None, Some(Box::pin(alarm)))
}

/// Opens a stream in both directions.
pub(super) fn stream(state: &mut ProxyState, ask: &Ask<'_>) -> Result<u32, Status> {
    let (outgoing, messages) = mpsc::channel(QUEUED);
    begin(state, ask, Body::stream(Messages(messages)), Some(outgoing), None)
}

fn begin(
    state: &mut ProxyState,
    ask: &Ask<'_>,
    body: Body,
    outgoing: Option<mpsc::Sender<Bytes>>,
    alarm: Option<Pin<Box<Sleep>>>,
) -> Result<u32, Status> {
    let target = Target::of(&state.setup, ask.upstream, "http", None).ok_or(Status::ParseFailure)?;
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    let path = format!("/{}/{}", ask.service, ask.method);
    *request.uri_mut() = path.parse::<Uri>().map_err(|_| Status::ParseFailure)?;
    *request.version_mut() = http::Version::HTTP_2;
    for (name, value) in ask.metadata.iter().filter(|(name, _)| !name.starts_with(b":")) {
        let (name, value) = header(name, value).map_err(|_| Status::ParseFailure)?;
        request.headers_mut().try_append(name, value).map_err(|_| Status::ParseFailure)?;
    }
    super::stream::unframed(request.headers_mut());
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    let sent = send(state, target, request).map_err(|_| Status::InternalFailure)?;
    let limit = usize::try_from(state.setup.bounds.response_body).unwrap_or(usize::MAX);
    let unary = outgoing.is_none();
    let grpc = Grpc { unary, stage: Stage::Sent(sent), buffered: BytesMut::new(), limit, alarm, outgoing };
    let (context, most) = (state.effective, state.setup.bounds.host_calls);
    state.calls.begin(context, most, Way::Grpc(grpc)).ok_or(Status::InternalFailure)
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|message| message.map(|message| Ok(Frame::data(message))))
    }
}

#[cfg(test)]
mod tests {
    use super::{framed, message};
    use bytes::BytesMut;

    #[test]
    fn messages_come_out_whole() {
        let mut buffered = BytesMut::new();
        let mut found = Vec::new();
        for byte in [framed(b"one"), framed(b""), framed(b"three")].concat() {
            buffered.extend_from_slice(&[byte]);
            found.extend(message(&mut buffered, 5).unwrap());
        }
        assert_eq!(found, ["one", "", "three"]);
        for bad in [&framed(b"too long")[..], &[1, 0, 0, 0, 0], &[0, 255, 255, 255, 255]] {
            assert!(message(&mut BytesMut::from(bad), 5).is_err());
        }
    }
}
