//! One invocation, for every trigger.
//!
//! Every trigger can be delivered as an HTTP request, and every reply read as an HTTP response: that is
//! the one form in which sockets, topics, schedules, other apps and command lines meet the guest ABIs.

use crate::grants::By;
use crate::trace::TraceContext;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Any error of a body that somebody else produces.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// What started an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A request on a socket.
    Http,
    /// Another app of this host, or a program that speaks to the Dapr API.
    App,
    /// The command line.
    Command,
    /// A message of a topic.
    Topic,
    /// An event of an input binding.
    Binding,
    /// A job that is due.
    Job,
    /// A configuration value that changed.
    Configuration,
    /// The host itself: what the app subscribes to, whether it is well.
    Host,
}

/// What an event is of. It goes with the request of an event as an extension, for guests that take events as calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventOf {
    /// The pub/sub component or the binding; empty for a job.
    pub component: String,
    /// The topic that the message came from, or the job's name; empty for a binding.
    pub name: String,
}

/// The app that makes an invocation of another one. It goes with the request as an extension, put there by the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(pub Arc<str>);

/// A request to an app.
#[derive(Debug)]
pub struct Invocation {
    /// The request. The URI has a path; the authority is in the URI or the `host` header, or absent.
    pub request: http::Request<Body>,
    /// What started it.
    pub trigger: Trigger,
    /// Which trace it belongs to.
    pub trace: TraceContext,
    /// How many apps called each other to come here; bounds recursion between apps.
    pub depth: u8,
}

impl Invocation {
    /// An invocation that begins here: the trace is the caller's when it sent one.
    pub fn new(request: http::Request<Body>, trigger: Trigger) -> Invocation {
        let trace = request
            .headers()
            .get("traceparent")
            .and_then(|header| header.to_str().ok())
            .and_then(TraceContext::parse)
            .map(TraceContext::child)
            .unwrap_or_default();
        Invocation { request, trigger, trace, depth: 0 }
    }
}

/// What an app answered.
pub type Reply = http::Response<Body>;

/// A name as one segment of a path (RFC 3986 section 3.3).
pub fn path_segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => segment.push(byte.into()),
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}

/// The gRPC status of a reply, of an app that speaks gRPC; it goes with the reply as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcStatus(pub u16);

/// Why an app could not be invoked, or did not answer. What the app itself answers, 500 included, is a [`Reply`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum InvokeError {
    /// No app of that name is here.
    #[error("no app {app_id:?} is registered with this host")]
    UnknownApp {
        /// The name asked for.
        app_id: String,
    },
    /// The app is there and cannot run; the text says why.
    #[error("app {app_id:?} cannot be started: {reason}")]
    NotLoadable {
        /// The app.
        app_id: String,
        /// The whole chain of causes.
        reason: String,
    },
    /// All permitted invocations are running and the queue is full.
    #[error("app {app_id:?} is overloaded: {running} invocations running, {queued} waiting")]
    Overloaded {
        /// The app.
        app_id: String,
        /// Permitted concurrent invocations.
        running: usize,
        /// Permitted waiting invocations.
        queued: usize,
    },
    /// All guests that the host may run at once are running, of whatever app.
    #[error("app {app_id:?} cannot run now: {reason}")]
    HostFull {
        /// The app.
        app_id: String,
        /// Which of the engine's limits was reached.
        reason: String,
    },
    /// The invocation did not finish in its time.
    #[error("app {app_id:?} did not answer within {seconds} s")]
    DeadlineExceeded {
        /// The app.
        app_id: String,
        /// The deadline, in seconds.
        seconds: f64,
    },
    /// The guest trapped, exited or broke its contract before it answered.
    #[error("app {app_id:?} failed: {reason}")]
    GuestFailed {
        /// The app.
        app_id: String,
        /// What happened, in words.
        reason: String,
    },
    /// The request is larger than the app's limit.
    #[error("the request to app {app_id:?} has more than the {limit} bytes allowed")]
    RequestTooLarge {
        /// The app.
        app_id: String,
        /// Bytes allowed.
        limit: u64,
    },
    /// The caller may not invoke this app.
    #[error("{}", not_invocable(caller, app_id, *by))]
    Denied {
        /// Who asked.
        caller: String,
        /// The app.
        app_id: String,
        /// Who does not allow it.
        by: By,
    },
    /// The app may not answer: its token does not claim that it is asked in this way or is not valid any more, or a
    /// policy refuses the invocation.
    #[error("app {app_id:?} may not answer: {reason}")]
    Refused {
        /// The app.
        app_id: String,
        /// Which of them, and what to do.
        reason: String,
    },
    /// The callee's access control refuses the call.
    #[error("access control policy has denied access to id: {caller} operation: {operation} verb: {verb}")]
    Forbidden {
        /// Who asked.
        caller: String,
        /// The app.
        app_id: String,
        /// The path that was asked for.
        operation: String,
        /// The HTTP method.
        verb: String,
    },
    /// Apps call each other in a circle, or nearly so.
    #[error(
        "app {app_id:?} was reached through {depth} other apps, more than allowed: do apps call each other in a circle?"
    )]
    TooDeep {
        /// The app.
        app_id: String,
        /// Apps on the way.
        depth: u8,
    },
    /// The target failed lately, and its circuit breaker lets nothing through.
    #[error("circuit breaker {breaker:?} of app {app_id:?} is open: the app failed lately")]
    CircuitOpen {
        /// The app.
        app_id: String,
        /// The circuit breaker's name in its resource.
        breaker: String,
    },
    /// The app is a program outside, or on another host, and could not be reached.
    #[error("app {app_id:?} cannot be reached: {reason}")]
    Unreachable {
        /// The app.
        app_id: String,
        /// What was tried, and what came of it.
        reason: String,
    },
    /// The host is going down.
    #[error("the host is shutting down")]
    ShuttingDown,
}

fn not_invocable(caller: &str, app_id: &str, by: By) -> String {
    match by {
        By::Manifest => format!(
            "app {caller:?} has no grant to invoke app {app_id:?}; add it to `invoke` under [apps.{caller}.grants]"
        ),
        By::Token => format!(
            "the token of app {caller:?} does not claim that it invokes app {app_id:?}; sign its module with \
             --cap dhow:invoke={app_id}"
        ),
    }
}

/// Invokes apps by their id. The host is the provider; a call between two of its apps is a function call.
#[async_trait]
pub trait Invoker: Send + Sync + 'static {
    /// Delivers one invocation and waits for the head of the reply.
    async fn invoke(&self, app_id: &str, invocation: Invocation) -> Result<Reply, InvokeError>;
}

/// The way to an app that runs outside the host.
#[async_trait]
pub trait Channel: Send + Sync + 'static {
    /// Delivers one invocation and waits for the head of the answer.
    async fn invoke(&self, invocation: Invocation) -> Result<Reply, InvokeError>;

    /// Whether the app speaks gRPC, and HTTP only in between.
    fn is_grpc(&self) -> bool {
        false
    }
}

/// Answers HTTP requests that a guest addresses to its own runtime (`localhost:3500` and the like), under
/// the identity of the app, without a socket.
#[async_trait]
pub trait RuntimeApi: Send + Sync + 'static {
    /// Answers one request of the app that `scope` belongs to.
    async fn call(&self, scope: &Arc<crate::scope::Scope>, invocation: Invocation) -> Reply;
}

/// A request or reply body: nothing, one piece, or a stream.
#[derive(Default)]
pub enum Body {
    /// No bytes, no trailers.
    #[default]
    Empty,
    /// All bytes at once, no trailers.
    Full(Bytes),
    /// Frames as they come.
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>),
}

impl Body {
    /// A body out of any other body.
    pub fn stream<B>(body: B) -> Body
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        if body.is_end_stream() {
            return Body::Empty;
        }
        Body::Stream(Box::pin(body.map_err(Into::into)))
    }

    /// The same body, which keeps something alive until it has ended or is given up.
    pub fn until_ended<G: Send + Unpin + 'static>(self, guard: G) -> Body {
        match self {
            // There is nothing left to wait for.
            Body::Empty => Body::Empty,
            Body::Full(bytes) => Body::Full(bytes),
            Body::Stream(stream) => Body::Stream(Box::pin(Guarded { stream, guard: Some(guard) })),
        }
    }

    /// Reads the body to its end, at most `limit` bytes; trailers are dropped.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, CollectError> {
        match &mut self {
            Body::Empty => Ok(Bytes::new()),
            Body::Full(bytes) if bytes.len() > limit => Err(CollectError::TooLarge { limit }),
            Body::Full(bytes) => Ok(std::mem::take(bytes)),
            Body::Stream(stream) => {
                let mut first = Bytes::new();
                let mut rest = BytesMut::new();
                while let Some(frame) = stream.frame().await {
                    let Ok(data) = frame.map_err(|e| CollectError::Broken(e.to_string()))?.into_data() else {
                        continue;
                    };
                    if first.len() + rest.len() + data.len() > limit {
                        return Err(CollectError::TooLarge { limit });
                    }
                    // Most bodies are one frame: that one is not copied.
                    match (first.is_empty(), rest.is_empty()) {
                        (true, true) => first = data,
                        (false, true) => {
                            rest.reserve(first.len() + data.len());
                            rest.extend_from_slice(&std::mem::take(&mut first));
                            rest.extend_from_slice(&data);
                        }
                        (_, false) => rest.extend_from_slice(&data),
                    }
                }
                Ok(if rest.is_empty() { first } else { rest.freeze() })
            }
        }
    }
}

/// A body and what lives as long as it.
struct Guarded<G> {
    stream: Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>,
    guard: Option<G>,
}

impl<G: Send + Unpin> http_body::Body for Guarded<G> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = self.stream.as_mut().poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.guard = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.stream.size_hint()
    }
}

/// Why a body could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// More bytes than allowed.
    #[error("the body has more than the {limit} bytes allowed")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// The sender gave up.
    #[error("the body ended early: {0}")]
    Broken(String),
}

// === impl Body ===

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Body::Empty => f.write_str("Empty"),
            Body::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Body::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Body::Empty } else { Body::Full(bytes) }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Body::Empty => Poll::Ready(None),
            Body::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Body::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Body::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full(bytes) => bytes.is_empty(),
            Body::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty => SizeHint::with_exact(0),
            Body::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Stream(stream) => stream.size_hint(),
        }
    }
}
