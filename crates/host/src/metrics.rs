//! Numbers for Prometheus.

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// Upper bounds of the duration histogram's buckets, in seconds: from what a small guest takes to what a
/// deadline allows.
const BUCKETS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// All numbers of a host.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    invocations: IntCounterVec,
    failures: IntCounterVec,
    refused: IntCounterVec,
    running: IntGaugeVec,
    duration: HistogramVec,
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
        Ok(Metrics { registry, invocations, failures, refused, running, duration })
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

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
