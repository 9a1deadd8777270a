//! Metrics of all labels, registered under one name.

use dhow_resources::configuration::telemetry;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

type Result<T> = std::result::Result<T, prometheus::Error>;

/// Upper bounds of latencies in milliseconds, where the configuration says nothing (Dapr's).
const LATENCIES: [u32; 34] = [
    1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400, 500, 650,
    800, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000,
];

/// Upper bounds of sizes in bytes (Dapr's).
const SIZES: [f64; 13] = [
    1024.0,
    2048.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
];

/// Registers metrics.
pub(super) struct Families<'a> {
    registry: &'a Registry,
    latencies: Vec<f64>,
}

// === impl Families ===

impl Families<'_> {
    pub(super) fn new<'a>(registry: &'a Registry, settings: &telemetry::Metrics) -> Families<'a> {
        let latencies = settings.latency_buckets.as_deref().unwrap_or(&LATENCIES);
        Families { registry, latencies: latencies.iter().map(|bound| f64::from(*bound)).collect() }
    }

    pub(super) fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    pub(super) fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    /// In milliseconds.
    pub(super) fn latency(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec> {
        self.histogram(name, help, labels, self.latencies.clone())
    }

    /// In bytes.
    pub(super) fn size(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec> {
        self.histogram(name, help, labels, SIZES.to_vec())
    }

    fn histogram(&self, name: &str, help: &str, labels: &[&str], buckets: Vec<f64>) -> Result<HistogramVec> {
        let histogram = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?;
        self.registry.register(Box::new(histogram.clone()))?;
        Ok(histogram)
    }
}
