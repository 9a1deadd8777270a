//! `wasi:http/handler@0.3`: async components.
//!
//! Wasmtime's own `ProxyHandler` runs them: an instance may serve several requests at once when the manifest
//! allows reuse, and takes another one only while all it has are waiting.

use crate::failure::Failure;
use crate::http2::request;
use crate::setup::Setup;
use crate::store::{GuestState, Origin, new_store, service};
use dhow_blocks::invoke::Invocation;
use http_body_util::BodyExt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::Sleep;
use wasmtime::component::{GuestTaskId, InstancePre};
use wasmtime::{Store, StoreContextMut};
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, ProxyHandler, ProxyPre, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
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
}

/// Ends a worker that is idle, or whose youngest request is past the deadline.
struct Expiration {
    deadline: Duration,
    alarm: Option<(Instant, Pin<Box<Sleep>>)>,
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
    pub(crate) async fn invoke(&self, invocation: Invocation) -> Result<http::Response<WasiBody>, Failure> {
        let origin = Origin { trace: invocation.trace, depth: invocation.depth };
        let request = request(invocation, &self.setup)?.map(BodyExt::boxed_unsync);
        let deadline = self.setup.bounds.deadline;
        match tokio::time::timeout(deadline, self.handler.handle(origin, request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Failure::of(&error, None)),
            Err(_) => Err(Failure::Deadline(deadline)),
        }
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
        Ok(Instance {
            store,
            proxy,
            view: GuestState::http,
            expiration: Expiration { deadline, alarm: None },
            state: Worker { setup: Arc::clone(&self.setup) },
        })
    }
}

impl WorkerState for Worker {
    type StoreData = GuestState;
    type RequestData = Origin;

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
        origin: Origin,
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        store.data_mut().serve_again(origin);
        Box::pin(tokio::time::sleep(self.setup.bounds.deadline))
    }

    fn drop(&self, _: Store<GuestState>, result: Result<(), wasmtime::Error>) {
        if let Err(error) = result {
            // Each request in the instance hears of it by itself; this is the whole story, once.
            tracing::debug!(app_id = &*self.setup.scope.app_id, "instance ended: {error:?}");
        }
    }
}

impl WorkerExpiration for Expiration {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        status: WorkerStatus,
        start: Instant,
    ) -> Poll<()> {
        let patience = match status {
            WorkerStatus::Idle => IDLE,
            WorkerStatus::Requests | WorkerStatus::PostReturn => self.deadline,
        };
        let due = start + patience;
        match &mut self.alarm {
            Some((at, alarm)) if *at != due => {
                *at = due;
                alarm.as_mut().reset(due.into());
            }
            Some(_) => {}
            alarm @ None => *alarm = Some((due, Box::pin(tokio::time::sleep_until(due.into())))),
        }
        match &mut self.alarm {
            Some((_, alarm)) => alarm.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}
