//! What is counted, logged and recorded of one call of the API.
//!
//! Numbers, log lines and spans are those of Dapr's sidecar: names and attributes of spans as in its HTTP and gRPC
//! servers. A call is over with the last byte of its answer.

use crate::dapr::Dapr;
use crate::watched::{End, grpc_status, watch};
use dhow_blocks::invoke::{Body, Invocation, Reply};
use dhow_blocks::scope::Scope;
use dhow_blocks::trace::TraceContext;
use dhow_host::metrics::calls::{self, GrpcMeter, HttpMeter};
use dhow_host::tracer::{OpenSpan, SpanKind};
use dhow_resources::configuration::telemetry;
use http::header::{HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Uri};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// How calls of the API are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ApiLog {
    enabled: bool,
    /// The API in place of the path, which may hold what is nobody's business.
    obfuscate: bool,
    omit_health_checks: bool,
}

/// A call of the HTTP API under way.
pub(crate) struct HttpCall {
    meter: Option<Arc<HttpMeter>>,
    log: Option<Line>,
    span: Option<Box<OpenSpan>>,
    trace: TraceContext,
    method: Method,
    uri: Uri,
    sent: u64,
    began: Instant,
    /// Status and bytes of the answer; until there is one, that the caller gave up.
    answer: (u16, u64),
}

/// The status of a call whose caller left before the answer, as proxies write it down.
const CALLER_LEFT: u16 = 499;

/// `CANCELLED`: its caller saw no status.
const CANCELLED: i32 = 1;

/// A call of the gRPC API under way.
pub(crate) struct GrpcCall {
    meter: Option<Arc<GrpcMeter>>,
    log: Option<Line>,
    span: Option<Box<OpenSpan>>,
    method: Box<str>,
    /// Counted while the request is read.
    sent: Arc<AtomicU64>,
    began: Instant,
    /// Status and bytes of the answer; until there is one, that the caller gave up.
    answer: (i32, u64),
}

/// What a log line has beside the answer.
struct Line {
    app_id: Arc<str>,
    method: String,
    user_agent: String,
}

// === impl ApiLog ===

impl ApiLog {
    /// What the configuration says; `asked` is what a command line does, and it wins.
    pub(crate) fn new(configuration: &telemetry::ApiLogging, asked: bool) -> ApiLog {
        ApiLog {
            enabled: asked || configuration.enabled.unwrap_or(false),
            obfuscate: configuration.obfuscate_urls,
            omit_health_checks: configuration.omit_health_checks,
        }
    }

    fn http(self, app_id: &Arc<str>, request: &Request<Body>) -> Option<Line> {
        let path = request.uri().path();
        if !self.enabled || (self.omit_health_checks && is_health(path)) {
            return None;
        }
        let path = if self.obfuscate { route(path) } else { path.to_owned() };
        Some(Line {
            app_id: Arc::clone(app_id),
            method: format!("{} {path}", request.method()),
            user_agent: user_agent(request.headers()),
        })
    }
}

fn is_health(path: &str) -> bool {
    path.contains("/healthz")
}

/// The API of a path, without anything that a caller chose.
fn route(path: &str) -> String {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    match (segments.next(), segments.next()) {
        (Some(version), Some(api)) if version.starts_with("v1.0") => format!("/{version}/{api}"),
        _ => "/".to_owned(),
    }
}

fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    agent.unwrap_or_default().chars().take(200).collect()
}

// === impl HttpCall ===

impl HttpCall {
    /// Begins, and decides whether the trace is recorded.
    pub(crate) fn begin(api: &Dapr, scope: &Scope, invocation: &mut Invocation) -> HttpCall {
        let app_id = &scope.app_id;
        let path = invocation.request.uri().path();
        let span = if is_health(path) {
            None
        } else {
            api.tracer.sample(&mut invocation.trace);
            api.tracer.begin(invocation.trace, app_id, SpanKind::Client, || path.to_owned())
        };
        let request = &invocation.request;
        HttpCall {
            meter: api.metrics.http_server(app_id),
            log: api.log.http(app_id, request),
            span,
            trace: invocation.trace,
            method: request.method().clone(),
            uri: request.uri().clone(),
            sent: http_body::Body::size_hint(request.body()).exact().unwrap_or(0),
            began: Instant::now(),
            answer: (CALLER_LEFT, 0),
        }
    }

    /// The head of the answer is there.
    pub(crate) fn answered(mut self, mut reply: Reply) -> Reply {
        if let Some(span) = &mut self.span {
            describe(span, &self.method, self.uri.path());
            span.attribute("dapr.status_code", reply.status().as_u16().to_string());
            if reply.status().as_u16() >= 400 {
                span.failed(reply.status().to_string());
            }
            let headers = reply.headers_mut();
            if let (false, Ok(trace)) =
                (headers.contains_key(&TRACEPARENT), HeaderValue::try_from(self.trace.to_string()))
            {
                headers.insert(TRACEPARENT, trace);
            }
        }
        if self.meter.is_none() && self.log.is_none() && self.span.is_none() {
            return reply;
        }
        let status = reply.status().as_u16();
        reply.map(|body| watch(body, move |end| self.ended(status, end)))
    }

    fn ended(mut self, status: u16, end: End) {
        self.answer = (status, end.bytes);
    }
}

impl Drop for HttpCall {
    fn drop(&mut self) {
        let (elapsed, (status, received)) = (self.began.elapsed(), self.answer);
        if let Some(meter) = &self.meter {
            meter.record(calls::HttpCall {
                method: &self.method,
                path: self.uri.path(),
                status,
                sent: self.sent,
                received,
                elapsed,
            });
        }
        if let Some(Line { app_id, method, user_agent }) = &self.log {
            tracing::info!(
                target: "dapr",
                app_id = &**app_id,
                method,
                code = status,
                duration = elapsed.as_millis() as u64,
                size = received,
                useragent = user_agent,
                "HTTP API Called"
            );
        }
    }
}

/// Attributes by the API that a path is of; for an invocation also another name.
fn describe(span: &mut OpenSpan, method: &Method, path: &str) {
    let call = format!("{method} {path}");
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        [_, block @ ("state" | "secrets" | "bindings"), name, ..] => {
            span.attribute("db.system", *block);
            span.attribute("db.name", *name);
            span.attribute("db.statement", call.as_str());
            span.attribute("db.connection_string", *block);
        }
        [_, "publish", topic @ ..] => {
            let skipped = if topic.first() == Some(&"bulk") { 2 } else { 1 };
            span.attribute("messaging.system", "pubsub");
            span.attribute("messaging.destination", topic.get(skipped..).unwrap_or_default().join("/"));
            span.attribute("messaging.destination_kind", "topic");
        }
        [_, "invoke", app_id, "method", method @ ..] => {
            span.rename(format!("CallLocal/{app_id}/{}", method.join("/")));
            span.attribute("rpc.service", "ServiceInvocation");
            span.attribute("net.peer.name", *app_id);
        }
        _ => {}
    }
    span.attribute("dapr.protocol", "http");
    span.attribute("dapr.api", call);
}

// === impl GrpcCall ===

impl GrpcCall {
    /// Begins, and counts what of the request is read. The trace was decided on.
    pub(crate) fn begin(
        api: &Dapr,
        scope: &Scope,
        request: Request<Body>,
        trace: TraceContext,
    ) -> (GrpcCall, Request<Body>) {
        let app_id = &scope.app_id;
        let path = request.uri().path();
        let log = api.log.enabled.then(|| Line {
            app_id: Arc::clone(app_id),
            method: path.to_owned(),
            user_agent: user_agent(request.headers()),
        });
        let call = GrpcCall {
            meter: api.metrics.grpc_server(app_id),
            log,
            span: api.tracer.begin(trace, app_id, SpanKind::Client, || path.to_owned()),
            method: path.into(),
            sent: Arc::default(),
            began: Instant::now(),
            answer: (CANCELLED, 0),
        };
        let request = match call.meter {
            None => request,
            Some(_) => {
                let sent = Arc::clone(&call.sent);
                request.map(|body| watch(body, move |end| sent.store(end.bytes, Ordering::Relaxed)))
            }
        };
        (call, request)
    }

    /// The head of the answer is there; the status comes with it or after the last message.
    pub(crate) fn answered(self, reply: Reply) -> Reply {
        if self.meter.is_none() && self.log.is_none() && self.span.is_none() {
            return reply;
        }
        let status = grpc_status(reply.headers());
        reply.map(|body| watch(body, move |end| self.ended(status, end)))
    }

    fn ended(mut self, status: Option<i32>, end: End) {
        self.answer = (status.or(end.grpc_status).unwrap_or(CANCELLED), end.bytes);
    }
}

impl Drop for GrpcCall {
    fn drop(&mut self) {
        let (elapsed, (status, received)) = (self.began.elapsed(), self.answer);
        if let Some(meter) = &self.meter {
            meter.record(calls::GrpcCall {
                method: &self.method,
                status,
                sent: self.sent.load(Ordering::Relaxed),
                received,
                elapsed,
            });
        }
        if let Some(span) = &mut self.span {
            span.attribute("dapr.protocol", "grpc");
            span.attribute("dapr.api", &*self.method);
            span.attribute("dapr.status_code", status.to_string());
            let service =
                if self.method.starts_with("/dapr.proto.runtime.") { "Dapr" } else { "ServiceInvocation" };
            span.attribute("rpc.service", service);
            if status != 0 {
                span.failed(calls::grpc_status(status));
            }
        }
        if let Some(Line { app_id, method, user_agent }) = &self.log {
            tracing::info!(
                target: "dapr",
                app_id = &**app_id,
                method,
                code = status,
                duration = elapsed.as_millis() as u64,
                useragent = user_agent,
                "gRPC API Called"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::route;

    #[test]
    fn a_route_holds_nothing_of_the_caller() {
        for (path, expected) in [
            ("/v1.0/state/store/key", "/v1.0/state"),
            ("//v1.0//invoke/app/method/x", "/v1.0/invoke"),
            ("/v1.0-alpha1/state/store/query", "/v1.0-alpha1/state"),
            ("/customers/7", "/"),
            ("/", "/"),
        ] {
            assert_eq!(route(path), expected, "{path}");
        }
    }
}
