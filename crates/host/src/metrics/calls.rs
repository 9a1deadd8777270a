//! Calls of the API and calls of apps: `dapr_http_server_*`, `dapr_http_client_*`, `dapr_grpc_io_server_*`,
//! `dapr_grpc_io_client_*`.
//!
//! Server is the API, client is what calls the app, as a sidecar sees it. Labels: Dapr documentation, "Configure
//! metrics".

use super::family::Families;
use super::paths::Paths;
use super::series::Series;
use arc_swap::ArcSwap;
use dhow_resources::configuration::telemetry;
use http::Method;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// One side of one protocol: all apps.
pub(super) struct Side<F, M> {
    families: Arc<F>,
    apps: ArcSwap<HashMap<Box<str>, Arc<M>>>,
}

/// One call of HTTP, when it is over.
#[derive(Clone, Copy, Debug)]
pub struct HttpCall<'a> {
    /// Method.
    pub method: &'a Method,
    /// Path, without the query.
    pub path: &'a str,
    /// Status of the answer.
    pub status: u16,
    /// Bytes of the request's body, as far as they are known.
    pub sent: u64,
    /// Bytes of the answer's body, as far as they are known.
    pub received: u64,
    /// From the request to the end of the API's answer, or the head of an app's.
    pub elapsed: Duration,
}

/// One call of gRPC, when it is over.
#[derive(Clone, Copy, Debug)]
pub struct GrpcCall<'a> {
    /// `/package.Service/Method`
    pub method: &'a str,
    /// Status code; see [`grpc_status`].
    pub status: i32,
    /// Bytes of all messages to the server.
    pub sent: u64,
    /// Bytes of all messages from the server.
    pub received: u64,
    /// From the request to the status.
    pub elapsed: Duration,
}

/// Counts the calls of one app over HTTP.
pub struct HttpMeter {
    app_id: Box<str>,
    families: Arc<HttpFamilies>,
    sent: Histogram,
    received: Histogram,
    series: Series<(Method, u16), HttpCounted>,
}

/// Counts the calls of one app over gRPC.
pub struct GrpcMeter {
    app_id: Box<str>,
    families: Arc<GrpcFamilies>,
    series: Series<i32, GrpcCounted>,
}

pub(super) struct HttpFamilies {
    paths: Arc<Paths>,
    count: IntCounterVec,
    /// Only with a series for each path.
    responses: Option<IntCounterVec>,
    latency: HistogramVec,
    sent: HistogramVec,
    received: HistogramVec,
}

pub(super) struct GrpcFamilies {
    count: IntCounterVec,
    latency: HistogramVec,
    sent: HistogramVec,
    received: HistogramVec,
}

#[derive(Clone)]
struct HttpCounted {
    count: IntCounter,
    responses: Option<IntCounter>,
    latency: Histogram,
}

#[derive(Clone)]
struct GrpcCounted {
    count: IntCounter,
    latency: Histogram,
    sent: Histogram,
    received: Histogram,
}

/// A gRPC status code as Dapr's labels have it (<https://grpc.github.io/grpc/core/md_doc_statuscodes.html>, names of
/// Go's package `codes`).
pub fn grpc_status(code: i32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    usize::try_from(code).ok().and_then(|code| NAMES.get(code)).unwrap_or(&"Unknown")
}

// === impl Side ===

impl<F, M> Side<F, M> {
    pub(super) fn new(families: F) -> Side<F, M> {
        Side { families: Arc::new(families), apps: ArcSwap::default() }
    }

    /// The meter of this app, made when it is first asked for. Apps are the host's own, so there are as many as it has.
    pub(super) fn app(&self, app_id: &str, make: impl FnOnce(Arc<F>, &str) -> M) -> Arc<M> {
        if let Some(meter) = self.apps.load().get(app_id) {
            return Arc::clone(meter);
        }
        let made = Arc::new(make(Arc::clone(&self.families), app_id));
        self.apps.rcu(|apps| {
            let mut apps = HashMap::clone(apps);
            apps.entry(app_id.into()).or_insert_with(|| Arc::clone(&made));
            apps
        });
        self.apps.load().get(app_id).map_or(made, Arc::clone)
    }
}

// === impl HttpMeter ===

impl HttpMeter {
    pub(super) fn new(families: Arc<HttpFamilies>, app_id: &str) -> HttpMeter {
        HttpMeter {
            sent: families.sent.with_label_values(&[app_id]),
            received: families.received.with_label_values(&[app_id]),
            app_id: app_id.into(),
            families,
            series: Series::new(),
        }
    }

    /// A call is over.
    pub fn record(&self, call: HttpCall<'_>) {
        self.sent.observe(call.sent as f64);
        self.received.observe(call.received as f64);
        let path = self.families.paths.label(call.path);
        let key = (self.families.paths.method(call.method), call.status);
        let make = |path: &str| self.families.counted(&self.app_id, path, &key);
        self.series.with(&path, &key, make, |counted| {
            counted.count.inc();
            if let Some(responses) = &counted.responses {
                responses.inc();
            }
            counted.latency.observe(call.elapsed.as_secs_f64() * 1000.0);
        });
    }
}

// === impl HttpFamilies ===

impl HttpFamilies {
    pub(super) fn server(
        families: &Families<'_>,
        paths: &Arc<Paths>,
    ) -> Result<HttpFamilies, prometheus::Error> {
        let name = |name: &str| format!("dapr_http_server_{name}");
        let labels = labels(paths);
        let responses = paths
            .by_path()
            .then(|| families.counter(&name("response_count"), "Answers of the HTTP API.", labels));
        Ok(HttpFamilies {
            paths: Arc::clone(paths),
            count: families.counter(&name("request_count"), "Requests to the HTTP API.", labels)?,
            responses: responses.transpose()?,
            latency: families.latency(&name("latency"), "Milliseconds that the HTTP API took.", labels)?,
            sent: families.size(&name("request_bytes"), "Bytes of requests to the HTTP API.", &["app_id"])?,
            received: families.size(
                &name("response_bytes"),
                "Bytes of answers of the HTTP API.",
                &["app_id"],
            )?,
        })
    }

    pub(super) fn client(
        families: &Families<'_>,
        paths: &Arc<Paths>,
    ) -> Result<HttpFamilies, prometheus::Error> {
        let name = |name: &str| format!("dapr_http_client_{name}");
        let labels = labels(paths);
        Ok(HttpFamilies {
            paths: Arc::clone(paths),
            count: families.counter(&name("completed_count"), "Requests to apps.", labels)?,
            responses: None,
            latency: families.latency(&name("roundtrip_latency"), "Milliseconds that apps took.", labels)?,
            sent: families.size(&name("sent_bytes"), "Bytes of requests to apps.", &["app_id"])?,
            received: families.size(&name("received_bytes"), "Bytes of answers of apps.", &["app_id"])?,
        })
    }

    fn counted(&self, app_id: &str, path: &str, (method, status): &(Method, u16)) -> HttpCounted {
        let status = status.to_string();
        // One that no method can be stands for all, where they are not to be told apart.
        let method = if *method == Paths::any_method() { "" } else { method.as_str() };
        let with_path = [app_id, method, path, status.as_str()];
        let without = [app_id, method, status.as_str()];
        let labels: &[&str] = if self.paths.by_path() { &with_path } else { &without };
        HttpCounted {
            count: self.count.with_label_values(labels),
            responses: self.responses.as_ref().map(|responses| responses.with_label_values(labels)),
            latency: self.latency.with_label_values(labels),
        }
    }
}

fn labels(paths: &Paths) -> &'static [&'static str] {
    if paths.by_path() { &["app_id", "method", "path", "status"] } else { &["app_id", "method", "status"] }
}

// === impl GrpcMeter ===

impl GrpcMeter {
    pub(super) fn new(families: Arc<GrpcFamilies>, app_id: &str) -> GrpcMeter {
        GrpcMeter { app_id: app_id.into(), families, series: Series::new() }
    }

    /// A call is over.
    pub fn record(&self, call: GrpcCall<'_>) {
        let make = |method: &str| self.families.counted(&self.app_id, method, call.status);
        self.series.with(call.method, &call.status, make, |counted| {
            counted.count.inc();
            counted.latency.observe(call.elapsed.as_secs_f64() * 1000.0);
            counted.sent.observe(call.sent as f64);
            counted.received.observe(call.received as f64);
        });
    }
}

// === impl GrpcFamilies ===

impl GrpcFamilies {
    pub(super) fn server(families: &Families<'_>) -> Result<GrpcFamilies, prometheus::Error> {
        let method = &["app_id", "grpc_server_method"];
        let both = &["app_id", "grpc_server_method", "grpc_server_status"];
        let name = |name: &str| format!("dapr_grpc_io_server_{name}");
        Ok(GrpcFamilies {
            count: families.counter(&name("completed_rpcs"), "Calls of the gRPC API.", both)?,
            latency: families.latency(
                &name("server_latency"),
                "Milliseconds that the gRPC API took.",
                both,
            )?,
            sent: families.size(&name("received_bytes_per_rpc"), "Bytes of requests.", method)?,
            received: families.size(&name("sent_bytes_per_rpc"), "Bytes of answers.", method)?,
        })
    }

    pub(super) fn client(families: &Families<'_>) -> Result<GrpcFamilies, prometheus::Error> {
        let method = &["app_id", "grpc_client_method"];
        let both = &["app_id", "grpc_client_method", "grpc_client_status"];
        let name = |name: &str| format!("dapr_grpc_io_client_{name}");
        Ok(GrpcFamilies {
            count: families.counter(&name("completed_rpcs"), "Calls of apps over gRPC.", both)?,
            latency: families.latency(&name("roundtrip_latency"), "Milliseconds that apps took.", both)?,
            sent: families.size(&name("sent_bytes_per_rpc"), "Bytes of requests to apps.", method)?,
            received: families.size(&name("received_bytes_per_rpc"), "Bytes of answers of apps.", method)?,
        })
    }

    fn counted(&self, app_id: &str, method: &str, status: i32) -> GrpcCounted {
        let both = &[app_id, method, grpc_status(status)];
        GrpcCounted {
            count: self.count.with_label_values(both),
            latency: self.latency.with_label_values(both),
            sent: self.sent.with_label_values(&[app_id, method]),
            received: self.received.with_label_values(&[app_id, method]),
        }
    }
}

/// The path settings of a configuration.
pub(super) fn paths(settings: &telemetry::Metrics) -> Arc<Paths> {
    Arc::new(Paths::new(settings.http.as_ref()))
}
