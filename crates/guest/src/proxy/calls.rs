//! HTTP requests that a guest sends and does not wait for: their answers come as callbacks.
//!
//! A request is on its way from the moment it is made, whatever the guest does then; its answer is heard when the guest
//! waits for something, or has ended its stream. The plugin hears of what an ended stream has asked for, as in other hosts
//! of the ABI; only streams of gRPC, which nothing would end, are given up with it.

use super::abi::Status;
use super::grpc::Grpc;
use super::headers::{Map, authority, header};
use super::state::{ProxyState, ROOT};
use super::stream::collected;
use crate::setup::Setup;
use crate::store::Origin;
use bytes::Bytes;
use dhow_blocks::invoke::{Body, Invocation, Trigger};
use http::{HeaderMap, Request, Uri, response};
use http_body_util::BodyExt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::JoinSet;
use tracing::Instrument;
use wasmtime_wasi_http::{Error, WasiHttpHooks};

/// What a guest has asked for and not yet heard of.
#[derive(Default)]
pub(super) struct Calls {
    last_id: u32,
    under_way: Vec<Call>,
    /// What a callback is about, for its time.
    pub(super) received: Received,
}

/// One request on its way.
pub(super) struct Call {
    pub(super) id: u32,
    /// The context that asked.
    pub(super) context: u32,
    pub(super) way: Way,
}

pub(super) enum Way {
    Http(Pin<Box<dyn Future<Output = Option<Answer>> + Send>>),
    Grpc(Grpc),
}

/// The answer to a request, whole.
pub(super) struct Answer {
    pub(super) head: response::Parts,
    pub(super) body: Bytes,
    pub(super) trailers: HeaderMap,
}

/// What has come for a guest.
pub(super) struct Event {
    pub(super) id: u32,
    pub(super) context: u32,
    pub(super) what: What,
}

pub(super) enum What {
    /// None: it failed, or took too long.
    Answer(Option<Box<Answer>>),
    Metadata(HeaderMap),
    Message(Bytes),
    Trailers(HeaderMap),
    Closed {
        status: u32,
        message: String,
    },
}

/// What the callback under way may read.
#[derive(Default)]
pub(super) struct Received {
    pub(super) head: Option<response::Parts>,
    pub(super) body: Option<Bytes>,
    pub(super) trailers: HeaderMap,
    pub(super) metadata: HeaderMap,
    pub(super) message: Option<Bytes>,
    /// Of the last gRPC call that ended.
    pub(super) status: (u32, String),
}

/// Where a request goes.
pub(super) enum Target {
    App(String),
    /// Scheme and authority.
    Server(&'static str, String),
}

// === impl Calls ===

impl Calls {
    /// Takes a request on its way; `None` when as many as allowed are.
    pub(super) fn begin(&mut self, context: u32, most: usize, way: Way) -> Option<u32> {
        if self.under_way.len() >= most {
            return None;
        }
        // Zero is no number of a call.
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.under_way.push(Call { id: self.last_id, context, way });
        Some(self.last_id)
    }

    /// The next thing that comes; `Ready(None)` when nothing will.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.under_way.is_empty() {
            return Poll::Ready(None);
        }
        for index in 0..self.under_way.len() {
            let call = &mut self.under_way[index];
            let (id, context) = (call.id, call.context);
            let (what, is_last) = match &mut call.way {
                Way::Http(answer) => match answer.as_mut().poll(cx) {
                    Poll::Ready(answer) => (What::Answer(answer.map(Box::new)), true),
                    Poll::Pending => continue,
                },
                Way::Grpc(grpc) => match grpc.poll(cx) {
                    Poll::Ready(what) => {
                        // A call with one answer ends with it, a stream with its status.
                        let is_last = matches!(what, What::Closed { .. }) || grpc.is_unary();
                        (what, is_last)
                    }
                    Poll::Pending => continue,
                },
            };
            if is_last {
                self.under_way.swap_remove(index);
            }
            return Poll::Ready(Some(Event { id, context, what }));
        }
        Poll::Pending
    }

    pub(super) fn grpc(&mut self, id: u32) -> Option<&mut Grpc> {
        let call = self.under_way.iter_mut().find(|call| call.id == id)?;
        match &mut call.way {
            Way::Grpc(grpc) => Some(grpc),
            Way::Http(_) => None,
        }
    }

    /// Gives up a gRPC call.
    pub(super) fn cancel_grpc(&mut self, id: u32) -> bool {
        let found = self.grpc(id).is_some();
        if found {
            self.under_way.retain(|call| call.id != id);
        }
        found
    }

    /// Leaves what this context has asked for to the plugin, but for what does not end by itself: that is given up.
    pub(super) fn release(&mut self, context: u32) {
        self.under_way.retain_mut(|call| {
            let is_its = call.context == context;
            if is_its {
                call.context = ROOT;
            }
            !is_its || call.will_end()
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Whether there is one that ends by itself.
    pub(super) fn will_end(&self) -> bool {
        self.under_way.iter().any(Call::will_end)
    }
}

// === impl Call ===

impl Call {
    fn will_end(&self) -> bool {
        match &self.way {
            Way::Http(_) => true,
            Way::Grpc(grpc) => grpc.is_unary(),
        }
    }
}

// === impl Target ===

impl Target {
    /// Reads the name of an upstream: an app that may be invoked, an address, a URL, a cluster as Istio names them. A
    /// name that is none of these says nothing here, and `fallback` decides.
    pub(super) fn of(setup: &Setup, upstream: &str, scheme: &str, fallback: Option<&str>) -> Option<Target> {
        let scheme =
            |port: Option<u16>| if scheme == "https" || port == Some(443) { "https" } else { "http" };
        let server = |authority: &str| {
            let authority = authority.parse::<http::uri::Authority>().ok()?;
            Some(Target::Server(scheme(authority.port_u16()), authority.as_str().to_owned()))
        };
        // No app-id has a colon.
        if !upstream.is_empty() && !upstream.contains(':') && setup.scope.may_invoke(upstream) {
            return Some(Target::App(upstream.to_owned()));
        }
        if let Some((given, rest)) = upstream.split_once("://") {
            let scheme = if given == "https" { "https" } else { "http" };
            let authority = rest.split('/').next().unwrap_or_default();
            let authority = authority.parse::<http::uri::Authority>().ok()?;
            return Some(Target::Server(scheme, authority.as_str().to_owned()));
        }
        if let Some([_, port, _, host]) = upstream
            .split('|')
            .collect::<Vec<_>>()
            .first_chunk::<4>()
            .filter(|_| upstream.starts_with("outbound|"))
        {
            return server(&format!("{host}:{port}"));
        }
        if upstream.contains(['.', ':']) || upstream == "localhost" {
            return server(upstream);
        }
        server(fallback?)
    }
}

/// Sends a request; `pairs` are its headers, pseudo-headers among them. The answer is the number of the call.
pub(super) fn http_call(
    state: &mut ProxyState,
    upstream: &str,
    pairs: &[(&[u8], &[u8])],
    body: Bytes,
    trailers: HeaderMap,
    timeout: u32,
) -> Result<u32, Status> {
    let has = |wanted: &[u8]| pairs.iter().any(|(name, _)| *name == wanted);
    if ![&b":method"[..], b":path", b":authority"].into_iter().all(has) {
        return Err(Status::BadArgument);
    }
    let scheme = pairs.iter().find(|(name, _)| *name == b":scheme").map_or(&b"http"[..], |(_, value)| value);
    let scheme = if scheme == b"https" { "https" } else { "http" };
    let (mut head, ()) = Request::new(()).into_parts();
    let mut map = Map::Request(&mut head);
    for (name, value) in pairs.iter().filter(|(name, _)| *name != b":scheme") {
        map.add(name, value)?;
    }
    super::stream::unframed(&mut head.headers);
    let host = authority(&head).and_then(|host| std::str::from_utf8(host).ok()).map(str::to_owned);
    let target = Target::of(&state.setup, upstream, scheme, host.as_deref()).ok_or(Status::BadArgument)?;
    let request = Request::from_parts(head, super::stream::body(body, trailers));
    let sent = send(state, target, request)?;
    let (limit, patience) = (state.setup.bounds.response_body, patience(&state.setup, timeout));
    let answer = async move {
        let (head, body) = sent.await?.into_parts();
        let (body, trailers) = collected(body, limit, patience).await.ok()?;
        Some(Answer { head, body, trailers })
    };
    let way = Way::Http(Box::pin(async move { tokio::time::timeout(patience, answer).await.ok().flatten() }));
    let (context, most) = (state.effective, state.setup.bounds.host_calls);
    state.calls.begin(context, most, way).ok_or(Status::InternalFailure)
}

/// How long a guest waits: what it says in milliseconds, at most its deadline.
pub(super) fn patience(setup: &Setup, milliseconds: u32) -> Duration {
    match milliseconds {
        0 => setup.bounds.deadline,
        milliseconds => Duration::from_millis(milliseconds.into()).min(setup.bounds.deadline),
    }
}

type Sent = Pin<Box<dyn Future<Output = Option<http::Response<Body>>> + Send>>;

/// Sends a request to an app, in this process, or to a server, by grant.
pub(super) fn send(
    state: &mut ProxyState,
    target: Target,
    mut request: Request<Body>,
) -> Result<Sent, Status> {
    match target {
        Target::App(name) => {
            request.headers_mut().remove(http::header::HOST);
            Ok(at_once(invoke(Arc::clone(&state.setup), state.outbound.origin, name, request)))
        }
        Target::Server(scheme, authority) => {
            let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            let uri = format!("{scheme}://{authority}{path}").parse::<Uri>();
            *request.uri_mut() = uri.map_err(|_| Status::BadArgument)?;
            if !state.outbound.may_send(request.uri()) {
                return Err(Status::InternalFailure);
            }
            let request = request.map(|body| {
                body.map_err(|error| Error::InternalError(Some(error.to_string()))).boxed_unsync()
            });
            let app_id = Arc::clone(&state.setup.scope.app_id);
            let sent = Box::into_pin(state.outbound.send_request(
                request,
                None,
                Box::new(std::future::ready(Ok(()))),
            ));
            Ok(at_once(async move {
                match sent.await {
                    Ok((response, _)) => Some(response.map(Body::stream)),
                    Err(error) => {
                        tracing::warn!(app_id = &*app_id, "a request to {authority} failed: {error}");
                        None
                    }
                }
            }))
        }
    }
}

/// Begins now, while the guest goes on; given up when nobody waits for it any more.
fn at_once(sent: impl Future<Output = Option<http::Response<Body>>> + Send + 'static) -> Sent {
    let mut task = JoinSet::new();
    task.spawn(sent.in_current_span());
    Box::pin(async move { task.join_next().await?.ok()? })
}

async fn invoke(
    setup: Arc<Setup>,
    origin: Origin,
    name: String,
    mut request: Request<Body>,
) -> Option<http::Response<Body>> {
    let (trace, depth) = (origin.trace.child(), origin.depth);
    for (header_name, value) in
        [("dapr-caller-app-id", &*setup.scope.app_id), ("dapr-callee-app-id", name.as_str())]
    {
        if let Ok((header_name, value)) = header(header_name.as_bytes(), value.as_bytes()) {
            request.headers_mut().insert(header_name, value);
        }
    }
    let invocation = Invocation { request, trigger: Trigger::App, trace, depth };
    match setup.scope.invoke(&name, invocation).await {
        Ok(reply) => Some(reply),
        Err(error) => {
            tracing::warn!(app_id = &*setup.scope.app_id, "{error}");
            None
        }
    }
}
