//! `wasi:http/incoming-handler@0.2`: one call for each request.
//!
//! The hot path of the whole runtime. A request costs one store, one instance out of the pool, and no task:
//! the guest runs inside the task of the connection.

use crate::counted::{Counted, Early, Overrun, announced};
use crate::failure::Failure;
use crate::guest::Invoked;
use crate::run::{InFlight, Run};
use crate::setup::Setup;
use crate::store::{GuestState, Origin, new_store, service, undisturbed};
use bytes::Bytes;
use dhow_blocks::invoke::Invocation;
use http::header::HOST;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
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

/// An app that exports `wasi:http/incoming-handler@0.2`.
pub(crate) struct Http2 {
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
    pub(crate) fn new(pre: InstancePre<GuestState>, setup: Arc<Setup>) -> wasmtime::Result<Http2> {
        Ok(Http2 { pre: ProxyPre::new(pre)?, setup, idle: Mutex::new(Vec::new()) })
    }

    /// Delivers one invocation; the guest is on its way in `flight` from then on.
    pub(crate) async fn invoke<W: Invoked>(
        self: &Arc<Self>,
        invocation: Invocation,
        flight: &mut InFlight<W>,
    ) -> Result<http::Response<HyperOutgoingBody>, Failure> {
        let (sender, mut receiver) = oneshot::channel();
        let overrun = Overrun::of(&invocation.request);
        let execution = Box::pin(Arc::clone(self).serve(invocation, sender, overrun.clone()));
        flight.start(Run::new(execution, self.setup.bounds.deadline));
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
        let response = match (head, ended) {
            // The guest failed before anything was sent: what it had prepared is not sent either.
            (_, Some(Err(failure))) => Err(failure),
            (None, _) => Err(Failure::NoAnswer),
            (Some(Err(code)), _) => Err(Failure::ErrorAnswer(format!("{code:?}"))),
            (Some(Ok(response)), _) => Ok(response),
        };
        response.map_err(|failure| overrun.or(failure, self.setup.bounds.request_body))
    }

    /// Makes an instance that serves nobody.
    pub(crate) async fn probe(&self) -> Result<(), Failure> {
        self.instance(Origin::default()).await.map(drop)
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
        overrun: Overrun,
    ) -> Result<(), Failure> {
        let origin = Origin { trace: invocation.trace, depth: invocation.depth };
        let request = request(invocation, &self.setup, overrun)?;
        let mut instance = self.instance(origin).await?;
        let store = &mut instance.store;
        let called = async {
            let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
            let outparam = store.data_mut().http().new_response_outparam(sender)?;
            instance.proxy.wasi_http_incoming_handler().call_handle(&mut *store, request, outparam).await
        };
        called.await.map_err(|error| Failure::of(&error, store.data().limiter.refused()))?;
        instance.served += 1;
        if instance.served < self.setup.reuse.unwrap_or(1) {
            instance.idle_since = Instant::now();
            self.idle.lock().push(instance);
        }
        Ok(())
    }

    async fn instance(&self, origin: Origin) -> Result<Instance, Failure> {
        if self.setup.reuse.unwrap_or(1) > 1
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
    overrun: Overrun,
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
    let app_id = Arc::clone(&setup.scope.app_id);
    Ok(request.map(|body| {
        Counted::new(body, limit).map_err(move |early| match early {
            Early::TooLarge(limit) => {
                // What becomes of it is the guest's to say, which may not say a word of it.
                overrun.tell();
                tracing::warn!(app_id = &*app_id, "a request body has more than the {limit} bytes allowed");
                HttpError::HttpRequestBodySize(Some(limit))
            }
            Early::Broken(error) => HttpError::InternalError(Some(error.to_string())),
        })
    }))
}
