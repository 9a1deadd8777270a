//! `wasi:http/handler@0.3`: async components.
//!
//! Wasmtime's own `ProxyHandler` runs them: an instance may serve several requests at once when the manifest
//! allows reuse, and takes another one only while all it has are waiting.
//!
//! A response is told from one that was cut off by how its instance ended, which each request hears of: Wasmtime ends
//! the body of both alike.

use crate::counted::Overrun;
use crate::failure::Failure;
use crate::http2::request;
use crate::setup::Setup;
use crate::store::{GuestState, Origin, new_store, service};
use bytes::Bytes;
use dhow_blocks::invoke::Invocation;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::Sleep;
use wasmtime::component::{GuestTaskId, InstancePre};
use wasmtime::{Store, StoreContextMut};
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, InstantiationError, ProxyHandler, ProxyPre, ShouldAccept, WorkerExpiration,
    WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::{WasiBody, WasiHttpView};

/// Requests that one instance serves at the same time, where reuse is allowed.
const CONCURRENT: usize = 16;

/// An instance without work is let go after this long.
const IDLE: Duration = Duration::from_secs(1);

/// An app that exports `wasi:http/handler@0.3`.
pub(crate) struct Http3 {
    handler: ProxyHandler<Service>,
    service: Service,
    setup: Arc<Setup>,
}

#[derive(Clone)]
struct Service {
    pre: Arc<ProxyPre<GuestState>>,
    wasmtime: wasmtime::Engine,
    setup: Arc<Setup>,
}

struct Worker {
    setup: Arc<Setup>,
    /// The requests that hear how the instance ended.
    requests: Mutex<Vec<oneshot::Sender<Failure>>>,
    is_late: Arc<AtomicBool>,
}

/// Ends a worker that is idle, or whose youngest request is past the deadline.
struct Expiration {
    deadline: Duration,
    alarm: Option<(Instant, Pin<Box<Sleep>>)>,
    /// When the youngest request was accepted, as far as it was seen.
    accepted: Option<Instant>,
    is_late: Arc<AtomicBool>,
}

/// What a request brings along: where it comes from, and who is told if its instance fails.
type Accompanied = (Origin, oneshot::Sender<Failure>);

/// A response body that ends with an error if its instance failed before it was whole.
pub(crate) struct Watched {
    body: WasiBody,
    failed: oneshot::Receiver<Failure>,
    over: bool,
}

// === impl Http3 ===

impl Http3 {
    pub(crate) fn new(pre: InstancePre<GuestState>, setup: Arc<Setup>) -> wasmtime::Result<Http3> {
        let wasmtime = pre.engine().clone();
        let pre = Arc::new(ProxyPre::P3(ServicePre::new(pre)?));
        let service = Service { pre, wasmtime, setup: Arc::clone(&setup) };
        Ok(Http3 { handler: ProxyHandler::new(service.clone()), service, setup })
    }

    /// Makes an instance that serves nobody.
    pub(crate) async fn probe(&self) -> Result<(), Failure> {
        self.service.instantiate().await.map(drop).map_err(|error| Failure::of(&error, None))
    }

    /// Delivers one invocation; the instance works in a task of its own.
    pub(crate) async fn invoke(&self, invocation: Invocation) -> Result<http::Response<Watched>, Failure> {
        let origin = Origin { trace: invocation.trace, depth: invocation.depth };
        let overrun = Overrun::of(&invocation.request);
        let request = request(invocation, &self.setup, overrun.clone())?.map(BodyExt::boxed_unsync);
        let deadline = self.setup.bounds.deadline;
        let (sender, failed) = oneshot::channel();
        let handled = async {
            match self.handler.handle((origin, sender), request).await {
                Ok(response) => Ok(response.map(|body| Watched { body, failed, over: false })),
                Err(error) => {
                    let told = match error.downcast_ref::<InstantiationError<Accompanied>>() {
                        Some(error) => Failure::of(&error.error, None),
                        None => Failure::of(&error, None),
                    };
                    // It may hold the other end of the channel.
                    drop(error);
                    Err(failed.await.unwrap_or(told))
                }
            }
        };
        let handled =
            tokio::time::timeout(deadline, handled).await.unwrap_or(Err(Failure::Deadline(deadline)));
        handled.map_err(|failure| overrun.or(failure, self.setup.bounds.request_body))
    }
}

impl HandlerState for Service {
    type StoreData = GuestState;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<GuestState, Expiration, Worker>> {
        let wasi = service(&self.setup)?;
        let mut store = new_store(&self.wasmtime, &self.setup, wasi, Origin::default());
        let deadline = self.setup.bounds.deadline;
        let proxy = tokio::time::timeout(deadline, self.pre.instantiate_async(&mut store)).await??;
        let is_late = Arc::new(AtomicBool::new(false));
        Ok(Instance {
            store,
            proxy,
            view: GuestState::http,
            expiration: Expiration { deadline, alarm: None, accepted: None, is_late: Arc::clone(&is_late) },
            state: Worker { setup: Arc::clone(&self.setup), requests: Mutex::default(), is_late },
        })
    }
}

impl WorkerState for Worker {
    type StoreData = GuestState;
    type RequestData = Accompanied;

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        if total >= self.setup.reuse.unwrap_or(1) as usize {
            ShouldAccept::Never
        } else if concurrent < CONCURRENT {
            ShouldAccept::Yes
        } else {
            ShouldAccept::No
        }
    }

    fn on_request_start(
        &self,
        mut store: StoreContextMut<'_, GuestState>,
        (origin, sender): Accompanied,
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        let mut requests = self.requests.lock();
        requests.retain(|request| !request.is_closed());
        requests.push(sender);
        drop(requests);
        store.data_mut().serve_again(origin);
        Box::pin(tokio::time::sleep(self.setup.bounds.deadline))
    }

    fn drop(&self, store: Store<GuestState>, result: Result<(), wasmtime::Error>) {
        let Err(error) = result else { return };
        // Each request in the instance hears of it by itself; this is the whole story, once.
        tracing::debug!(app_id = &*self.setup.scope.app_id, "instance ended: {error:?}");
        let failure = match self.is_late.load(Ordering::Relaxed) {
            true => Failure::Deadline(self.setup.bounds.deadline),
            false => Failure::of(&error, store.data().limiter.refused()),
        };
        for request in self.requests.lock().drain(..) {
            let _ = request.send(failure.clone());
        }
        // Only now: this ends the bodies.
        drop(store);
    }
}

impl WorkerExpiration for Expiration {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        status: WorkerStatus,
        start: Instant,
    ) -> Poll<()> {
        let due = match status {
            WorkerStatus::Idle => start + IDLE,
            WorkerStatus::Requests => {
                self.accepted = Some(start);
                start + self.deadline
            }
            // A response is on its way, which counts from when its request came.
            WorkerStatus::PostReturn => self.accepted.unwrap_or(start) + self.deadline,
        };
        match &mut self.alarm {
            Some((at, alarm)) if *at != due => {
                *at = due;
                alarm.as_mut().reset(due.into());
            }
            Some(_) => {}
            alarm @ None => *alarm = Some((due, Box::pin(tokio::time::sleep_until(due.into())))),
        }
        let Some((_, alarm)) = &mut self.alarm else { return Poll::Pending };
        let is_due = alarm.as_mut().poll(cx);
        if is_due.is_ready() && status != WorkerStatus::Idle {
            self.is_late.store(true, Ordering::Relaxed);
        }
        is_due
    }
}

// === impl Watched ===

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.over = !matches!(&frame, Some(Ok(frame)) if frame.is_data());
        Poll::Ready(match (frame, self.over.then(|| self.failed.try_recv())) {
            (Some(Ok(frame)), _) => Some(Ok(frame)),
            (_, Some(Ok(failure))) => Some(Err(failure)),
            (Some(Err(error)), _) => Some(Err(error.into())),
            (None, _) => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
