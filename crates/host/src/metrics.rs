//! Numbers for Prometheus.

use dhow_blocks::scope::Meter;
use parking_lot::RwLock;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Upper bounds of the duration histogram's buckets, in seconds: from what a small guest takes to what a
/// deadline allows.
const BUCKETS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// The blocks whose components are measured, as Dapr's metrics name them.
const BLOCKS: [&str; 9] = [
    "configuration",
    "input_binding",
    "job",
    "lock",
    "output_binding",
    "pubsub_egress",
    "pubsub_ingress",
    "secret",
    "state",
];

/// All numbers of a host.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    invocations: IntCounterVec,
    failures: IntCounterVec,
    refused: IntCounterVec,
    running: IntGaugeVec,
    duration: HistogramVec,
    /// Dapr's `dapr_component_<block>_count` and `…_latencies`, by block.
    components: Arc<BTreeMap<&'static str, (IntCounterVec, HistogramVec)>>,
}

/// The numbers of one component as one app uses it. Looked up when an operation is first seen, then only counted.
struct ComponentMeter {
    metrics: Metrics,
    block: &'static str,
    app_id: String,
    component: String,
    seen: RwLock<Vec<(&'static str, bool, Counted)>>,
}

#[derive(Clone)]
struct Counted {
    count: IntCounter,
    latency: Histogram,
}

/// The numbers of one app; looked up once, then only counted.
#[derive(Clone, Debug)]
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
}

// === impl Metrics ===

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let app = &["app_id"];
        let counter = |name: &str, help: &str| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), app)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let invocations = counter("dhow_invocations_total", "Invocations that reached a guest.")?;
        let failures = counter(
            "dhow_invocation_failures_total",
            "Invocations in which the guest trapped, ran out of time or broke its contract.",
        )?;
        let refused =
            counter("dhow_invocations_refused_total", "Invocations refused because the app was overloaded.")?;
        let running = IntGaugeVec::new(Opts::new("dhow_invocations_running", "Invocations under way."), app)?;
        let opts = HistogramOpts::new(
            "dhow_invocation_duration_seconds",
            "Time from admission to the end of the response.",
        );
        let duration = HistogramVec::new(opts.buckets(BUCKETS.to_vec()), app)?;
        registry.register(Box::new(running.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        let mut components = BTreeMap::new();
        for block in BLOCKS {
            let labels = &["app_id", "component", "operation", "success"];
            let opts = Opts::new(format!("dapr_component_{block}_count"), "Operations of components.");
            let count = IntCounterVec::new(opts, labels)?;
            let opts = HistogramOpts::new(
                format!("dapr_component_{block}_latencies"),
                "Milliseconds that operations of components took.",
            );
            let buckets = BUCKETS.iter().map(|seconds| seconds * 1000.0).collect();
            let latency = HistogramVec::new(opts.buckets(buckets), labels)?;
            registry.register(Box::new(count.clone()))?;
            registry.register(Box::new(latency.clone()))?;
            components.insert(block, (count, latency));
        }
        let components = Arc::new(components);
        Ok(Metrics { registry, invocations, failures, refused, running, duration, components })
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
        }
    }

    /// Takes the measurements of one component as one app uses it. `block` is its name in Dapr's metrics.
    pub fn component(&self, block: &'static str, app_id: &str, component: &str) -> Arc<dyn Meter> {
        Arc::new(ComponentMeter {
            metrics: self.clone(),
            block,
            app_id: app_id.to_owned(),
            component: component.to_owned(),
            seen: RwLock::default(),
        })
    }

    /// A job was delivered, or not.
    pub fn job(&self, app_id: &str, success: bool, elapsed: Duration) {
        if let Some(counted) = self.counted(["job", app_id, "jobs"], "trigger", success) {
            counted.record(elapsed);
        }
    }

    fn counted(&self, meter: [&str; 3], operation: &str, success: bool) -> Option<Counted> {
        let [block, app_id, component] = meter;
        let labels = &[app_id, component, operation, if success { "true" } else { "false" }];
        let (count, latency) = self.components.get(block)?;
        Some(Counted { count: count.with_label_values(labels), latency: latency.with_label_values(labels) })
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

// === impl ComponentMeter ===

impl Meter for ComponentMeter {
    fn record(&self, operation: &'static str, success: bool, elapsed: Duration) {
        let is_it = |seen: &&(&'static str, bool, Counted)| seen.0 == operation && seen.1 == success;
        if let Some((_, _, counted)) = self.seen.read().iter().find(is_it) {
            counted.record(elapsed);
            return;
        }
        let meter = [self.block, &self.app_id, &self.component];
        if let Some(counted) = self.metrics.counted(meter, operation, success) {
            counted.record(elapsed);
            self.seen.write().push((operation, success, counted));
        }
    }
}

// === impl Counted ===

impl Counted {
    fn record(&self, elapsed: Duration) {
        self.count.inc();
        self.latency.observe(elapsed.as_secs_f64() * 1000.0);
    }
}
