//! Numbers for Prometheus: the host's own, and those that Dapr's sidecar has, under its names.
//!
//! | file | subject |
//! |---|---|
//! | [`calls`] | calls of the API and of apps |
//! | `component` | what components do |
//! | `guests` | what guests count themselves |
//! | `invocation` | calls between apps, access control |
//! | `resiliency` | what policies do |
//! | `paths` | which path and method stand in labels |
//! | `series` | labels that are known only when they are seen |
//! | `trust` | denials and policies |
//! | `family` | metrics of all labels, registered under one name |

pub mod calls;
mod component;
mod family;
mod guests;
mod invocation;
mod paths;
mod resiliency;
mod series;
mod trust;

use calls::{GrpcFamilies, GrpcMeter, HttpFamilies, HttpMeter, Side};
use component::Components;
use dhow_blocks::policy::Watch;
use dhow_blocks::scope::Meter;
use dhow_claims::policy::Event;
use dhow_guest::Meters;
use dhow_resources::configuration::telemetry;
use family::Families;
use guests::GuestFamilies;
use invocation::{Access, InvocationFamilies};
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry, TextEncoder,
};
use resiliency::Resiliency;
use std::sync::Arc;
use std::time::Duration;
use trust::TrustFamilies;

pub(crate) use invocation::Decision;
pub use invocation::InvocationMeter;
pub(crate) use paths::known_method;
pub(crate) use resiliency::PolicyOf;
pub(crate) use trust::Said;

/// Upper bounds of the duration histogram's buckets, in seconds: from what a small guest takes to what a
/// deadline allows.
const BUCKETS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// All numbers of a host.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    invocations: IntCounterVec,
    failures: IntCounterVec,
    refused: IntCounterVec,
    running: IntGaugeVec,
    duration: HistogramVec,
    restarts: IntCounterVec,
    services: IntGaugeVec,
    spans: IntCounterVec,
    guests: GuestFamilies,
    trust: TrustFamilies,
    /// None where the configuration switches metrics off.
    dapr: Option<Arc<Dapr>>,
}

/// The numbers that a sidecar of Dapr has.
struct Dapr {
    components: Components,
    http_server: Side<HttpFamilies, HttpMeter>,
    http_client: Side<HttpFamilies, HttpMeter>,
    grpc_server: Side<GrpcFamilies, GrpcMeter>,
    grpc_client: Side<GrpcFamilies, GrpcMeter>,
    invocations: Side<InvocationFamilies, InvocationMeter>,
    access: Access,
    resiliency: Resiliency,
    loaded: IntCounterVec,
    opened: IntCounterVec,
    not_opened: IntCounterVec,
    /// None unless the configuration asks for it.
    errors: Option<IntCounterVec>,
}

/// The numbers of one app; looked up once, then only counted.
#[derive(Clone)]
pub struct AppMetrics {
    /// Invocations that got as far as a guest.
    pub invocations: IntCounter,
    /// Of those, the ones that failed.
    pub failures: IntCounter,
    /// Invocations that were turned away because too many were running or waiting.
    pub refused: IntCounter,
    /// Invocations under way.
    pub running: IntGauge,
    /// Seconds from admission to the end of the response.
    pub duration: Histogram,
    /// What a sidecar counts of its calls to the app; none where metrics are off.
    pub http: Option<Arc<HttpMeter>>,
    /// Calls from and to other apps; none where metrics are off.
    pub calls: Option<Arc<InvocationMeter>>,
}

/// The numbers of one service.
#[derive(Clone)]
pub struct ServiceMetrics {
    /// Times that it ended and was started again.
    pub restarts: IntCounter,
    /// 1 while it runs.
    pub running: IntGauge,
}

/// What became of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanEnd {
    /// A collector has it.
    Sent,
    /// Too many waited to be sent.
    Dropped,
    /// The collector did not take it, or could not be reached.
    Refused,
}

// === impl Metrics ===

impl Metrics {
    /// Everything at zero.
    pub fn new(settings: &telemetry::Metrics, namespace: &str) -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let families = Families::new(&registry, settings);
        let app = &["app_id"];
        let invocations =
            families.counter("dhow_invocations_total", "Invocations that reached a guest.", app)?;
        let failures = families.counter(
            "dhow_invocation_failures_total",
            "Invocations in which the guest trapped, ran out of time or broke its contract.",
            app,
        )?;
        let refused = families.counter(
            "dhow_invocations_refused_total",
            "Invocations refused because the app was overloaded.",
            app,
        )?;
        let running = families.gauge("dhow_invocations_running", "Invocations under way.", app)?;
        let restarts = families.counter(
            "dhow_service_restarts_total",
            "Times that a service was started again.",
            app,
        )?;
        let services = families.gauge("dhow_service_running", "1 while a service runs.", app)?;
        let opts = HistogramOpts::new(
            "dhow_invocation_duration_seconds",
            "Time from admission to the end of the response.",
        );
        let duration = HistogramVec::new(opts.buckets(BUCKETS.to_vec()), app)?;
        registry.register(Box::new(duration.clone()))?;
        let spans = families.counter("dhow_spans_total", "Spans by what became of them.", &["end"])?;
        let guests = GuestFamilies::new(&families)?;
        let trust = TrustFamilies::new(&families)?;
        let dapr = match settings.enabled.unwrap_or(true) {
            true => Some(Arc::new(Dapr::new(&families, settings, namespace)?)),
            false => None,
        };
        Ok(Metrics {
            registry,
            invocations,
            failures,
            refused,
            running,
            duration,
            restarts,
            services,
            spans,
            guests,
            trust,
            dapr,
        })
    }

    /// Whether the configuration lets them be collected and shown.
    pub fn is_enabled(&self) -> bool {
        self.dapr.is_some()
    }

    /// The numbers of this app.
    pub fn app(&self, app_id: &str) -> AppMetrics {
        let app = &[app_id];
        AppMetrics {
            invocations: self.invocations.with_label_values(app),
            failures: self.failures.with_label_values(app),
            refused: self.refused.with_label_values(app),
            running: self.running.with_label_values(app),
            duration: self.duration.with_label_values(app),
            http: self.dapr.as_ref().map(|dapr| dapr.http_client.app(app_id, HttpMeter::new)),
            calls: self.invocations(app_id),
        }
    }

    /// Keeps what this app's guests count themselves.
    pub(crate) fn guests(&self, app_id: &str) -> Arc<dyn Meters> {
        Arc::new(self.guests.app(app_id))
    }

    /// The numbers of this service.
    pub fn service(&self, app_id: &str) -> ServiceMetrics {
        ServiceMetrics {
            restarts: self.restarts.with_label_values(&[app_id]),
            running: self.services.with_label_values(&[app_id]),
        }
    }

    /// Takes the measurements of one component as one app uses it. `block` is its name in Dapr's metrics.
    pub fn component(&self, block: &str, app_id: &str, component: &str) -> Option<Arc<dyn Meter>> {
        self.dapr.as_ref()?.components.meter(block, app_id, component)
    }

    /// Counts the calls that programs and guests make to the HTTP API as this app.
    pub fn http_server(&self, app_id: &str) -> Option<Arc<HttpMeter>> {
        Some(self.dapr.as_ref()?.http_server.app(app_id, HttpMeter::new))
    }

    /// Counts the calls that programs make to the gRPC API as this app.
    pub fn grpc_server(&self, app_id: &str) -> Option<Arc<GrpcMeter>> {
        Some(self.dapr.as_ref()?.grpc_server.app(app_id, GrpcMeter::new))
    }

    /// Counts the calls that an app gets over gRPC.
    pub fn grpc_client(&self, app_id: &str) -> Option<Arc<GrpcMeter>> {
        Some(self.dapr.as_ref()?.grpc_client.app(app_id, GrpcMeter::new))
    }

    /// Counts the calls between this app and others.
    pub fn invocations(&self, app_id: &str) -> Option<Arc<InvocationMeter>> {
        Some(self.dapr.as_ref()?.invocations.app(app_id, InvocationMeter::new))
    }

    /// The API answered an app with an error of this code.
    pub fn error(&self, app_id: &str, code: &str) {
        if let Some(errors) = self.dapr.as_ref().and_then(|dapr| dapr.errors.as_ref()) {
            errors.with_label_values(&[app_id, code, category(code)]).inc();
        }
    }

    /// An app wanted something of this kind, and `by` does not allow it.
    pub(crate) fn denied(&self, app_id: &str, by: &str, kind: &str) {
        self.trust.denied(app_id, by, kind);
    }

    /// A policy was asked.
    pub(crate) fn policy_said(&self, event: Event, said: Said) {
        self.trust.policy(event, said);
    }

    /// A module was not loaded: this part of its token, or a policy.
    pub(crate) fn module_refused(&self, app_id: &str, part: &str) {
        self.trust.refused(app_id, part);
    }

    /// A span was sent, or was lost: because too many waited, or because the collector did not take it.
    pub fn spans(&self, end: SpanEnd, count: u64) {
        let end = match end {
            SpanEnd::Sent => "sent",
            SpanEnd::Dropped => "dropped",
            SpanEnd::Refused => "refused",
        };
        self.spans.with_label_values(&[end]).inc_by(count);
    }

    /// A job was delivered, or not.
    pub fn job(&self, app_id: &str, success: bool, elapsed: Duration) {
        if let Some(dapr) = &self.dapr {
            dapr.components.job(app_id, success, elapsed);
        }
    }

    /// An app got a component of this type, or would have.
    pub(crate) fn component_opened(&self, app_id: &str, component_type: &str, name: &str, success: bool) {
        let Some(dapr) = &self.dapr else { return };
        if success {
            dapr.loaded.with_label_values(&[app_id]).inc();
            dapr.opened.with_label_values(&[app_id, component_type]).inc();
        } else {
            dapr.not_opened.with_label_values(&[app_id, component_type, "init", name]).inc();
        }
    }

    pub(crate) fn access(&self, caller: &str, trust_domain: &str, operation: &str, decision: &Decision) {
        if let Some(dapr) = &self.dapr {
            dapr.access.decided(caller, trust_domain, operation, decision);
        }
    }

    pub(crate) fn policy(&self, of: &PolicyOf<'_>) -> Option<Arc<dyn Watch>> {
        Some(self.dapr.as_ref()?.resiliency.meter(of))
    }

    pub(crate) fn resiliency_loaded(&self, app_id: &str, name: &str) {
        if let Some(dapr) = &self.dapr {
            dapr.resiliency.loaded(app_id, name);
        }
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("enabled", &self.is_enabled()).finish_non_exhaustive()
    }
}

// === impl Dapr ===

impl Dapr {
    fn new(
        families: &Families<'_>,
        settings: &telemetry::Metrics,
        namespace: &str,
    ) -> Result<Dapr, prometheus::Error> {
        let paths = calls::paths(settings);
        let errors = settings.record_error_codes.unwrap_or(false).then(|| {
            let labels = &["app_id", "error_code", "category"];
            families.counter("dapr_error_code_total", "Errors that the API answered.", labels)
        });
        Ok(Dapr {
            components: Components::new(families, namespace)?,
            http_server: Side::new(HttpFamilies::server(families, &paths)?),
            http_client: Side::new(HttpFamilies::client(families, &paths)?),
            grpc_server: Side::new(GrpcFamilies::server(families)?),
            grpc_client: Side::new(GrpcFamilies::client(families)?),
            invocations: Side::new(InvocationFamilies::new(families)?),
            access: Access::new(families)?,
            resiliency: Resiliency::new(families, namespace)?,
            loaded: families.counter(
                "dapr_runtime_component_loaded",
                "Components that an app got.",
                &["app_id"],
            )?,
            opened: families.counter(
                "dapr_runtime_component_init_total",
                "Components that were opened for an app, by type.",
                &["app_id", "component"],
            )?,
            not_opened: families.counter(
                "dapr_runtime_component_init_fail_total",
                "Components that could not be opened.",
                &["app_id", "component", "reason", "component_name"],
            )?,
            errors: errors.transpose()?,
        })
    }
}

/// The kind of error that a code is of (Dapr documentation, "Error codes").
fn category(code: &str) -> &'static str {
    const CATEGORIES: [(&str, &str); 22] = [
        ("ERR_ACTOR", "actor"),
        ("ERR_STATE", "state"),
        ("ERR_NOT_SUPPORTED_STATE", "state"),
        ("ERR_CONFIGURATION", "configuration"),
        ("ERR_CRYPTO", "crypto"),
        ("ERR_SECRET", "secret"),
        ("ERR_PUBSUB", "pubsub"),
        ("ERR_PUBLISH", "pubsub"),
        ("ERR_TOPIC", "pubsub"),
        ("ERR_CONVERSATION", "conversation"),
        ("ERR_DIRECT_INVOKE", "service-invocation"),
        ("ERR_INVOKE_OUTPUT_BINDING", "binding"),
        ("ERR_LOCK", "lock"),
        ("ERR_TRY_LOCK", "lock"),
        ("ERR_UNLOCK", "lock"),
        ("ERR_SEQUENCER", "sequencer"),
        ("ERR_BLOB", "blob"),
        ("ERR_CRYPTION", "cryption"),
        ("ERR_EMAIL", "email"),
        ("ERR_HEALTH", "health"),
        ("ERR_OUTBOUND_HEALTH", "health"),
        ("DAPR_SCHEDULER", "job"),
    ];
    if code.contains("WORKFLOW") || code.starts_with("ERR_INSTANCE_ID") {
        return "workflow";
    }
    let found = CATEGORIES.iter().find(|(prefix, _)| code.starts_with(prefix));
    found.map_or("common", |(_, category)| category)
}
