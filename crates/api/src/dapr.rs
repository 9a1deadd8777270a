//! Dapr's HTTP API, for guests in process and for programs outside.
//!
//! | file | subject |
//! |---|---|
//! | `apis` | which APIs are switched on |
//! | [`path`] | how Dapr splits and unescapes paths |
//! | `error` | the error bodies, one table |
//! | `state` | `/v1.0/state` |
//! | `publish` | `/v1.0/publish` |
//! | `binding` | `/v1.0/bindings` |
//! | `secret` | `/v1.0/secrets` |
//! | `configuration` | `/v1.0/configuration` |
//! | `lock` | `/v1.0-alpha1/lock` and `unlock` |
//! | `job` | `/v1.0/jobs` |
//! | `invoke` | `/v1.0/invoke` and the `dapr-app-id` header |
//! | `metadata` | `/v1.0/metadata` and `/v1.0/healthz` |
//!
//! Facts: Dapr's HTTP API reference for 1.18. Routes of building blocks that this version does not have
//! answer 501 with the name of the block.

pub(crate) mod apis;
mod binding;
pub(crate) mod configuration;
pub(crate) mod error;
pub(crate) mod invoke;
pub(crate) mod job;
pub(crate) mod lock;
pub(crate) mod metadata;
pub mod path;
pub(crate) mod publish;
pub(crate) mod secret;
pub(crate) mod state;

use crate::observed::{ApiLog, HttpCall};
use crate::server::{Face, HEAD_BYTES, Stop};
use crate::text;
use apis::Apis;
use async_trait::async_trait;
use dhow_blocks::invoke::{Body, CollectError, Invocation, Reply, RuntimeApi, Trigger};
use dhow_blocks::scope::Scope;
use dhow_host::metrics::Metrics as Numbers;
use dhow_host::tracer::Tracer;
use dhow_host::{Host, OutsideScope};
use error::{ApiError, Grpc};
use http::header::{HeaderMap, ORIGIN};
use http::{HeaderName, Method, Request, StatusCode};
use metadata::Metadata;
pub use metadata::{AppConnection, AppHealth};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// The version of Dapr's API that is spoken here.
pub const DAPR_VERSION: &str = "1.18.3";

/// What the command line says about the API.
#[derive(Clone, Copy, Debug)]
pub struct ApiOptions {
    /// Every call is logged, whatever the configuration says.
    pub log: bool,
    /// Largest request body of the API itself, in bytes; invocations pass theirs on and have the app's limit.
    pub max_body: usize,
    /// Largest head of a request on the API's port, in bytes.
    pub max_head: usize,
}

/// The API, for all apps of a host.
pub struct Dapr {
    host: Weak<Host>,
    options: ApiOptions,
    pub(crate) metadata: Metadata,
    pub(crate) configuration: configuration::Subscriptions,
    /// Which of it is switched on.
    pub(crate) apis: Apis,
    pub(crate) log: ApiLog,
    pub(crate) metrics: Numbers,
    pub(crate) tracer: Arc<Tracer>,
    /// Ends the host when a program outside asks for it.
    stop: Option<Stop>,
    /// Whether apps can be called, too.
    ready: AtomicBool,
}

/// The API on a port, for programs outside; they act as one app.
pub struct DaprFace {
    /// The API.
    pub api: Arc<Dapr>,
    /// Who the programs outside are taken for.
    pub scope: Arc<OutsideScope>,
    /// What they have to send as `dapr-api-token`, if anything.
    pub token: Option<String>,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A guest of this host.
    Guest,
    /// A program that reached the port.
    Outside,
}

impl Face for DaprFace {
    fn max_head(&self) -> usize {
        self.api.options.max_head
    }

    async fn answer(self: Arc<Self>, mut request: Request<Body>) -> Reply {
        // Browsers send it, programs do not: a page from anywhere must not reach the state of this machine.
        if request.headers().contains_key(ORIGIN) {
            return text(StatusCode::FORBIDDEN, "requests from web pages are not answered here");
        }
        if let Some(token) = &self.token {
            let sent = request.headers_mut().remove(HeaderName::from_static("dapr-api-token"));
            if !is_health_check(&request) && !sent.is_some_and(|sent| same(sent.as_bytes(), token.as_bytes()))
            {
                return text(StatusCode::UNAUTHORIZED, "invalid api token");
            }
        }
        let invocation = Invocation::new(request, Trigger::App);
        self.api.answer(&self.scope.load(), invocation, Caller::Outside).await
    }
}

#[async_trait]
impl RuntimeApi for Dapr {
    async fn call(&self, scope: &Arc<Scope>, invocation: Invocation) -> Reply {
        self.answer(scope, invocation, Caller::Guest).await
    }
}

impl Default for ApiOptions {
    fn default() -> ApiOptions {
        ApiOptions { log: false, max_body: 4 << 20, max_head: HEAD_BYTES }
    }
}

impl Dapr {
    /// The API of a host, as its configuration says. `stop` is what a program outside may use to end it.
    pub fn new(host: &Arc<Host>, stop: Option<Stop>, options: ApiOptions) -> Arc<Dapr> {
        let configuration = host.components().configuration();
        Arc::new(Dapr {
            host: Arc::downgrade(host),
            options,
            apis: Apis::new(configuration),
            log: ApiLog::new(&configuration.api_logging, options.log),
            metrics: host.metrics().clone(),
            tracer: Arc::clone(host.tracer()),
            metadata: Metadata::default(),
            configuration: configuration::Subscriptions::default(),
            stop,
            ready: AtomicBool::new(true),
        })
    }

    /// Says whether the app outside is there; until then `/v1.0/healthz` says no, and all else works.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Says how an app outside is reached, for the metadata API to tell.
    pub fn connect(&self, app_id: &str, connection: AppConnection) {
        self.metadata.connect(app_id, connection);
    }

    /// Answers one request, counts and records it.
    async fn answer(&self, scope: &Arc<Scope>, mut invocation: Invocation, caller: Caller) -> Reply {
        let call = HttpCall::begin(self, scope, &mut invocation);
        let answer = self.route(scope, invocation, caller).await;
        call.answered(answer.unwrap_or_else(|error| {
            self.metrics.error(&scope.app_id, error.code);
            error.reply(&scope.app_id)
        }))
    }

    async fn route(
        &self,
        scope: &Arc<Scope>,
        invocation: Invocation,
        caller: Caller,
    ) -> Result<Reply, ApiError> {
        let uri = invocation.request.uri().clone();
        let segments = path::segments(uri.path());
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        if !self.apis.allow_http(&segments) {
            return Err(invoke::no_target());
        }
        let query = path::Query::parse(uri.query());
        let method = invocation.request.method().clone();
        let trace = invocation.trace;
        let limit = self.options.max_body;
        let write = method == Method::POST || method == Method::PUT;
        match (method.as_str(), segments.as_slice()) {
            (_, ["v1.0", "state", store]) if write => {
                state::save(scope, store, &query, body(invocation, limit).await?).await
            }
            (_, ["v1.0", "state", store, "bulk"]) if write => {
                state::bulk(scope, store, body(invocation, limit).await?).await
            }
            (_, ["v1.0", "state", store, "transaction"]) if write => {
                let (headers, body) = head_and_body(invocation, limit).await?;
                state::transaction(scope, store, &query, (&headers, trace), body).await
            }
            ("GET", ["v1.0", "state", store, key]) => state::get(scope, store, key).await,
            ("DELETE", ["v1.0", "state", store, key]) => {
                state::delete(scope, store, key, &query, invocation.request.headers()).await
            }
            (_, ["v1.0-alpha1", "state", store, "query"]) if write => {
                state::query(scope, store, body(invocation, limit).await?).await
            }
            (_, ["v1.0" | "v1.0-alpha1", "publish", "bulk", pubsub, topic @ ..])
                if write && !topic.is_empty() =>
            {
                let (headers, body) = head_and_body(invocation, limit).await?;
                publish::bulk(scope, pubsub, &topic.join("/"), &query, (&headers, trace), body).await
            }
            (_, ["v1.0", "publish", name @ ..]) if write => {
                let (pubsub, topic) =
                    name.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
                let (headers, body) = head_and_body(invocation, limit).await?;
                publish::publish(scope, pubsub, &topic.join("/"), &query, (&headers, trace), body).await
            }
            (_, ["v1.0", "bindings", name]) if write => {
                binding::invoke(scope, name, trace, body(invocation, limit).await?).await
            }
            ("GET", ["v1.0", "secrets", store, "bulk"]) => secret::bulk(scope, store, &query).await,
            ("GET", ["v1.0", "secrets", store, name]) => secret::get(scope, store, name, &query).await,
            ("GET", ["v1.0" | "v1.0-alpha1", "configuration", store]) => {
                configuration::get(scope, store, &query).await
            }
            ("GET", ["v1.0" | "v1.0-alpha1", "configuration", store, "subscribe"]) => {
                self.configuration.subscribe(scope, store, &query).await
            }
            ("GET", ["v1.0" | "v1.0-alpha1", "configuration", store, id, "unsubscribe"]) => {
                self.configuration.unsubscribe(scope, store, id).await
            }
            ("POST", ["v1.0-alpha1", "lock", store]) => {
                lock::lock(scope, store, &body(invocation, limit).await?).await
            }
            ("POST", ["v1.0-alpha1", "unlock", store]) => {
                lock::unlock(scope, store, &body(invocation, limit).await?).await
            }
            (_, ["v1.0" | "v1.0-alpha1", "jobs", name]) if write => {
                job::schedule(scope, name, &body(invocation, limit).await?).await
            }
            ("GET", ["v1.0" | "v1.0-alpha1", "jobs", name]) => job::get(scope, name).await,
            ("DELETE", ["v1.0" | "v1.0-alpha1", "jobs", name]) => job::delete(scope, name).await,
            (_, ["v1.0", "invoke", ..]) => invoke::by_path(scope, invocation).await,
            ("GET", ["v1.0", "metadata"]) => Ok(self.metadata.get(scope, self.host.upgrade().as_deref())),
            ("PUT", ["v1.0", "metadata", key]) => {
                let key = (*key).to_owned();
                self.metadata.set(scope, key, &body(invocation, limit).await?)
            }
            ("GET", ["v1.0", "healthz"]) => {
                metadata::healthz(scope, query.get("appid"), self.ready.load(Ordering::Relaxed))
            }
            ("GET", ["v1.0", "healthz", "outbound"]) => Ok(crate::empty(StatusCode::NO_CONTENT)),
            ("POST", ["v1.0", "shutdown"]) => self.shut_down(caller),
            (_, ["v1.0" | "v1.0-alpha1" | "v1.0-alpha2" | "v1.0-beta1", block, ..]) if is_later(block) => {
                Err(ApiError::not_implemented(block))
            }
            // Whatever API a path looks like: this is an invocation.
            _ if !self.apis.allow_http(&["v1.0", "invoke"]) => Err(invoke::no_target()),
            _ => invoke::by_header(scope, invocation).await,
        }
    }

    /// The host, while it lives.
    pub(crate) fn host(&self) -> Option<Arc<Host>> {
        self.host.upgrade()
    }

    /// Ends the host, if it is the asker's to end.
    pub(crate) fn shut_down(&self, caller: Caller) -> Result<Reply, ApiError> {
        match &self.stop {
            Some(stop) if caller == Caller::Outside => {
                stop.stop();
                Ok(crate::empty(StatusCode::NO_CONTENT))
            }
            _ => Err(ApiError::denied("an app may not end the host that it shares with others")),
        }
    }
}

/// Whether this asks for the host's health and nothing else, which needs no token.
fn is_health_check(request: &Request<Body>) -> bool {
    let segments = path::segments(request.uri().path());
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    request.method() == Method::GET
        && matches!(segments.as_slice(), ["v1.0", "healthz"] | ["v1.0", "healthz", "outbound"])
}

/// Building blocks of Dapr that this version answers with "not implemented".
fn is_later(name: &str) -> bool {
    matches!(name, "actors" | "conversation" | "crypto" | "subtlecrypto" | "workflows")
}

/// The `tracestate` of a request.
pub(crate) fn trace_state(headers: &HeaderMap) -> &str {
    headers.get("tracestate").and_then(|state| state.to_str().ok()).unwrap_or_default()
}

async fn head_and_body(invocation: Invocation, limit: usize) -> Result<(HeaderMap, bytes::Bytes), ApiError> {
    let headers = invocation.request.headers().clone();
    Ok((headers, body(invocation, limit).await?))
}

async fn body(invocation: Invocation, limit: usize) -> Result<bytes::Bytes, ApiError> {
    invocation.request.into_body().collect(limit).await.map_err(|error| {
        let (status, reason) = match error {
            CollectError::TooLarge { limit } => {
                (StatusCode::PAYLOAD_TOO_LARGE, format!("it has more than {limit} bytes"))
            }
            CollectError::Broken(reason) => (StatusCode::BAD_REQUEST, reason),
        };
        let message = format!("failed to read request body: {reason}");
        ApiError::new(status, Grpc::InvalidArgument, "ERR_BODY_READ", message)
    })
}

/// Compares without telling by the time it takes where the first difference is.
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}
