//! Numbers of steps for Prometheus, whoever begins them and wherever they run.

use crate::node::{Outcome, Phase};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use std::time::Instant;

/// The end of a step that nobody wants any more; the others are called as Argo calls them.
const CANCELLED: &str = "Cancelled";

/// Upper bounds of durations, in seconds: from what a module in the cache takes to an hour.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0, 300.0, 900.0, 3600.0];

/// Steps under way and steps that ended.
pub struct StepMetrics {
    registry: Registry,
    running: IntGauge,
    ended: IntCounterVec,
    duration: Histogram,
}

/// A step under way; one that is dropped was cancelled.
struct UnderWay<'a> {
    metrics: &'a StepMetrics,
    began: Instant,
    end: &'static str,
}

// === impl StepMetrics ===

impl StepMetrics {
    /// Nothing is counted yet.
    pub fn new() -> Result<StepMetrics, prometheus::Error> {
        let registry = Registry::new();
        let running = IntGauge::new("dhow_steps_running", "Steps under way.")?;
        let ended = IntCounterVec::new(Opts::new("dhow_steps_total", "Steps that ended."), &["phase"])?;
        let options =
            HistogramOpts::new("dhow_step_duration_seconds", "Time from a step's begin to its end.");
        let duration = Histogram::with_opts(options.buckets(BUCKETS.to_vec()))?;
        registry.register(Box::new(running.clone()))?;
        registry.register(Box::new(ended.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        // Before the first one ends, too.
        for phase in [Phase::Succeeded, Phase::Failed, Phase::Error] {
            ended.with_label_values(&[name(phase)]);
        }
        ended.with_label_values(&[CANCELLED]);
        Ok(StepMetrics { registry, running, ended, duration })
    }

    /// Counts a step, and logs one that did not succeed.
    pub async fn observe(&self, workflow: &str, step: &str, run: impl Future<Output = Outcome>) -> Outcome {
        self.running.inc();
        let mut under_way = UnderWay { metrics: self, began: Instant::now(), end: CANCELLED };
        let outcome = run.await;
        under_way.end = name(outcome.phase);
        if outcome.phase != Phase::Succeeded {
            tracing::warn!(step, workflow, "{}: {}", under_way.end, outcome.message);
        }
        outcome
    }

    /// All numbers, as text.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
        _ => "Error",
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.metrics.duration.observe(self.began.elapsed().as_secs_f64());
        self.metrics.ended.with_label_values(&[self.end]).inc();
        self.metrics.running.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn every_step_is_counted_once() {
        let metrics = StepMetrics::new().unwrap();
        metrics.observe("w", "s", async { Outcome::error("x") }).await;
        metrics.observe("w", "s", async { Outcome::failed("x") }).await;
        assert!(metrics.observe("w", "s", std::future::pending()).now_or_never().is_none());
        let mut endless = Box::pin(metrics.observe("w", "s", std::future::pending()));
        assert!((&mut endless).now_or_never().is_none());
        let text = metrics.render();
        for line in [
            "dhow_steps_running 1",
            "dhow_steps_total{phase=\"Succeeded\"} 0",
            "dhow_steps_total{phase=\"Failed\"} 1",
            "dhow_steps_total{phase=\"Error\"} 1",
            "dhow_steps_total{phase=\"Cancelled\"} 1",
            "dhow_step_duration_seconds_count 3",
        ] {
            assert!(text.lines().any(|is| is == line), "{line}: {text}");
        }
    }
}
