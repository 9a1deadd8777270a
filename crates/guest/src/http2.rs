//! `wasi:http/incoming-handler@0.2`: one call for each request.
//!
//! The hot path of the whole runtime. A request costs one store, one instance out of the pool, and no task:
//! the guest runs inside the task of the connection. Its body writes are gathered until it waits for
//! something or ends; a guest that ends before the head of the response is sent has its whole response
//! written at once, with a content length.

use crate::counted::{Counted, Early};
use crate::failure::Failure;
use crate::guest::Invoked;
use crate::run::{InFlight, Run};
use crate::setup::Setup;
use crate::store::{GuestState, Origin, new_store, service, undisturbed};
use bytes::{Bytes, BytesMut};
use dhow_blocks::invoke::{Body, BodyError, Invocation, Reply};
use dhow_engine::Engine;
use http::header::{CONTENT_LENGTH, HOST};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::InstancePre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{Error as HttpError, WasiHttpView};

/// An instance kept for reuse is let go after this long without work.
const IDLE: Duration = Duration::from_secs(10);

/// Writes of the guest are gathered up to about this size before they are sent.
const GATHER: usize = 64 << 10;

/// An app that exports `wasi:http/incoming-handler@0.2`.
pub(crate) struct Http2 {
    engine: Engine,
    pre: ProxyPre<GuestState>,
    setup: Arc<Setup>,
    /// Instances that have served and may serve again; the last one is the warmest. Empty without reuse.
    idle: Mutex<Vec<Instance>>,
}

struct Instance {
    store: Store<GuestState>,
    proxy: Proxy,
    served: u32,
    idle_since: Instant,
}

type Head = Result<http::Response<HyperOutgoingBody>, ErrorCode>;

// === impl Http2 ===

impl Http2 {
    pub(crate) fn new(
        engine: Engine,
        pre: InstancePre<GuestState>,
        setup: Arc<Setup>,
    ) -> wasmtime::Result<Http2> {
        Ok(Http2 { engine, pre: ProxyPre::new(pre)?, setup, idle: Mutex::new(Vec::new()) })
    }

    pub(crate) async fn invoke<W: Invoked>(
        self: &Arc<Self>,
        invocation: Invocation,
        watch: W,
    ) -> Result<Reply, Failure> {
        let (sender, mut receiver) = oneshot::channel();
        let execution = Box::pin(Arc::clone(self).serve(invocation, sender));
        let run = Run::new(execution, self.setup.bounds.deadline, self.engine.running());
        let mut flight = InFlight::new(run, watch);
        let mut ended = None;
        let head = poll_fn(|cx| {
            if ended.is_none()
                && let Poll::Ready(result) = flight.poll(cx)
            {
                ended = Some(result);
            }
            match (Pin::new(&mut receiver).poll(cx), &ended) {
                (Poll::Ready(Ok(head)), _) => Poll::Ready(Some(head)),
                (Poll::Ready(Err(_)), Some(_)) | (Poll::Pending, Some(_)) => Poll::Ready(None),
                // The guest threw the outparam away and still runs: its end decides what it was.
                (_, None) => Poll::Pending,
            }
        })
        .await;
        let answer = match (head, ended) {
            // The guest failed before anything was sent: what it had prepared is not sent either.
            (_, Some(Err(failure))) => Err(failure),
            (None, _) => Err(Failure::NoAnswer),
            (Some(Err(code)), _) => Err(Failure::ErrorAnswer(format!("{code:?}"))),
            (Some(Ok(head)), _) => Ok(head),
        };
        match answer {
            Ok(head) => {
                let (parts, body) = head.into_parts();
                let body = GuestBody::new(flight, body, self.setup.bounds.response_body);
                Ok(Reply::from_parts(parts, body.settle()))
            }
            Err(failure) => {
                flight.fail(&failure);
                Err(failure)
            }
        }
    }

    pub(crate) fn sweep(&self) {
        let gone: Vec<Instance> = {
            let mut idle = self.idle.lock();
            idle.extract_if(.., |instance| instance.idle_since.elapsed() > IDLE).collect()
        };
        drop(gone);
    }

    async fn serve(
        self: Arc<Self>,
        invocation: Invocation,
        sender: oneshot::Sender<Head>,
    ) -> Result<(), Failure> {
        let origin = Origin { trace: invocation.trace, depth: invocation.depth };
        let request = request(invocation, &self.setup)?;
        let mut instance = self.instance(origin).await?;
        let store = &mut instance.store;
        let called = async {
            let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
            let outparam = store.data_mut().http().new_response_outparam(sender)?;
            instance.proxy.wasi_http_incoming_handler().call_handle(&mut *store, request, outparam).await
        };
        called.await.map_err(|error| Failure::of(&error, store.data().limiter.refused()))?;
        instance.served += 1;
        if instance.served < self.setup.reuse {
            instance.idle_since = Instant::now();
            self.idle.lock().push(instance);
        }
        Ok(())
    }

    async fn instance(&self, origin: Origin) -> Result<Instance, Failure> {
        if self.setup.reuse > 1
            && let Some(mut instance) = self.idle.lock().pop()
        {
            instance.store.data_mut().serve_again(origin);
            undisturbed(&mut instance.store);
            return Ok(instance);
        }
        let wasi = service(&self.setup).map_err(|error| Failure::Host(format!("{error:#}")))?;
        let mut store = new_store(self.pre.engine(), &self.setup, wasi, origin);
        match self.pre.instantiate_async(&mut store).await {
            Ok(proxy) => Ok(Instance { store, proxy, served: 0, idle_since: Instant::now() }),
            Err(error) => Err(Failure::of(&error, store.data().limiter.refused())),
        }
    }
}

/// Checks the request against the app's limits and gives it the form that `wasi:http` wants.
pub(crate) fn request(
    invocation: Invocation,
    setup: &Setup,
) -> Result<http::Request<impl http_body::Body<Data = Bytes, Error = HttpError> + use<>>, Failure> {
    let limit = setup.bounds.request_body;
    let mut request = invocation.request;
    if announced(request.headers()).is_some_and(|length| length > limit) {
        return Err(Failure::RequestTooLarge(limit));
    }
    if request.uri().authority().is_none() && request.headers().get(HOST).is_none_or(|name| name.is_empty()) {
        // Between apps there need not be a host name, and a client may send an empty one; wasi:http wants one.
        let name = http::HeaderValue::from_str(&setup.scope.app_id)
            .map_err(|_| Failure::Host("the app-id cannot be a host name".to_owned()))?;
        request.headers_mut().insert(HOST, name);
    }
    Ok(request.map(|body| {
        Counted::new(body, limit).map_err(|early| match early {
            Early::TooLarge(limit) => HttpError::HttpRequestBodySize(Some(limit)),
            Early::Broken(error) => HttpError::InternalError(Some(error.to_string())),
        })
    }))
}

/// The length that a request says its body has.
pub(crate) fn announced(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

// === impl GuestBody ===

/// What a body yields when it is ready: a frame, an error, or its end.
type Item = Option<Result<Frame<Bytes>, BodyError>>;

/// A response body whose guest is still running; polling it runs the guest.
struct GuestBody<W: Invoked> {
    flight: InFlight<W>,
    body: Counted<HyperOutgoingBody>,
    /// Ready to be sent as it is, in order.
    ready: VecDeque<Item>,
    /// What ended a run of data: trailers, or an error. The body tells it only once.
    ahead: Option<Result<Frame<Bytes>, BodyError>>,
    over: bool,
}

impl<W: Invoked> GuestBody<W> {
    fn new(flight: InFlight<W>, body: HyperOutgoingBody, limit: u64) -> GuestBody<W> {
        let body = Counted::new(body, limit);
        GuestBody { flight, body, ready: VecDeque::new(), ahead: None, over: false }
    }

    /// A plain body if the guest has ended and all of it is there, without trailers; else a stream.
    fn settle(mut self) -> Body {
        if !self.flight.has_ended() {
            return Body::Stream(Box::pin(self));
        }
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(first) = self.gather(&mut cx) else { return Body::Stream(Box::pin(self)) };
        let Some(Ok(frame)) = first else {
            return match first {
                None => Body::Empty,
                first => self.replayed([first]),
            };
        };
        match (frame.into_data(), self.gather(&mut cx)) {
            (Ok(data), Poll::Ready(None)) => data.into(),
            (data, second) => {
                let first = Some(Ok(data.map_or_else(|trailers| trailers, Frame::data)));
                match second {
                    Poll::Ready(second) => self.replayed([first, second]),
                    Poll::Pending => self.replayed([first]),
                }
            }
        }
    }

    /// A stream that begins with what was already taken out of it.
    fn replayed<const N: usize>(mut self, taken: [Item; N]) -> Body {
        self.ready.extend(taken);
        Body::Stream(Box::pin(self))
    }

    /// The next frame; data that is already there is gathered into one.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<Item> {
        let mut first = Bytes::new();
        let mut more = BytesMut::new();
        loop {
            let gathered = first.len() + more.len();
            let frame = match self.ahead.take() {
                Some(frame) => Poll::Ready(Some(frame)),
                None if gathered >= GATHER => Poll::Pending,
                None => Pin::new(&mut self.body).poll_frame(cx).map_err(|early| match early {
                    Early::TooLarge(limit) => {
                        let failure = Failure::ResponseTooLarge(limit);
                        self.flight.fail(&failure);
                        BodyError::from(failure)
                    }
                    Early::Broken(error) => BodyError::from(error),
                }),
            };
            match frame {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if gathered == 0 => first = data,
                    Ok(data) => {
                        if more.is_empty() {
                            more.reserve(GATHER);
                            more.extend_from_slice(&std::mem::take(&mut first));
                        }
                        more.extend_from_slice(&data);
                    }
                    Err(trailers) if gathered == 0 => return Poll::Ready(Some(Ok(trailers))),
                    Err(trailers) => self.ahead = Some(Ok(trailers)),
                },
                Poll::Ready(Some(Err(error))) if gathered == 0 => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Err(error))) => self.ahead = Some(Err(error)),
                Poll::Ready(None) if gathered == 0 => return Poll::Ready(None),
                Poll::Pending if gathered == 0 => return Poll::Pending,
                // The end comes again at the next call.
                _ => {}
            }
            let settled = self.ahead.is_some() || gathered >= GATHER || gathered == first.len() + more.len();
            if settled && first.len() + more.len() > 0 {
                let data = if more.is_empty() { first } else { more.freeze() };
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }
}

impl<W: Invoked> http_body::Body for GuestBody<W> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(item) = this.ready.pop_front() {
            return Poll::Ready(item);
        }
        if this.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(Err(failure)) = this.flight.poll(cx) {
            // The connection is broken off, so that the client cannot take half a response for a whole one.
            this.over = true;
            this.flight.fail(&failure);
            return Poll::Ready(Some(Err(Box::new(failure))));
        }
        this.gather(cx)
    }
}
