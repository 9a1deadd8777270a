//! Numbers of steps for Prometheus, whoever begins them and wherever they run.
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use crate::node::{Outcome, Phase};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// How a step ends, by the names that Argo has for it; the last one is the end of a step that nobody wants any more.
const ENDS: [&str; 4] = ["Succeeded", "Failed", "Error", "Cancelled"];

/// Steps under way and steps that ended.
#[derive(Default)]
pub struct StepMetrics {
    running: AtomicU64,
    ended: [AtomicU64; 4],
    /// Of all that ended.
    microseconds: AtomicU64,
}

/// A step under way; one that is dropped was cancelled.
struct UnderWay<'a> {
    metrics: &'a StepMetrics,
    began: Instant,
    end: usize,
}

// === impl StepMetrics ===

impl StepMetrics {
    /// Counts a step.
    pub async fn observe(&self, step: impl Future<Output = Outcome>) -> Outcome {
        self.running.fetch_add(1, Ordering::Relaxed);
        let mut under_way = UnderWay { metrics: self, began: Instant::now(), end: 3 };
        let outcome = step.await;
        under_way.end = match outcome.phase {
            Phase::Succeeded => 0,
            Phase::Failed => 1,
            _ => 2,
        };
        outcome
    }

    /// All numbers, as text.
    pub fn render(&self) -> String {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let ended: u64 = self.ended.iter().map(of).sum();
        let seconds = std::time::Duration::from_micros(of(&self.microseconds)).as_secs_f64();
        let mut text = format!(
            "# HELP dhow_steps_running Steps under way.\n# TYPE dhow_steps_running gauge\n\
             dhow_steps_running {}\n\
             # HELP dhow_steps_total Steps that ended.\n# TYPE dhow_steps_total counter\n",
            of(&self.running)
        );
        for (name, number) in ENDS.iter().zip(&self.ended) {
            text += &format!("dhow_steps_total{{phase=\"{name}\"}} {}\n", of(number));
        }
        text += &format!(
            "# HELP dhow_step_duration_seconds Time from a step's begin to its end.\n\
             # TYPE dhow_step_duration_seconds summary\n\
             dhow_step_duration_seconds_sum {seconds}\ndhow_step_duration_seconds_count {ended}\n"
        );
        text
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let took = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.metrics.microseconds.fetch_add(took, Ordering::Relaxed);
        if let Some(number) = self.metrics.ended.get(self.end) {
            number.fetch_add(1, Ordering::Relaxed);
        }
        self.metrics.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn every_step_is_counted_once() {
        let metrics = StepMetrics::default();
        metrics.observe(async { Outcome::error("x") }).await;
        metrics.observe(async { Outcome::failed("x") }).await;
        assert!(metrics.observe(std::future::pending()).now_or_never().is_none());
        let mut endless = Box::pin(metrics.observe(std::future::pending()));
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
