//! How long to wait after something failed: longer each time, and never the same for two agents.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(200);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Pause {
    failures: u32,
}

// === impl Pause ===

impl Pause {
    /// Waits; at least as long as the server wants, if it says so (but not for ever).
    pub(super) async fn wait(&mut self, wanted: Option<Duration>) {
        let pause = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let wanted = wanted.unwrap_or_default().min(LONGEST);
        // Between half of it and all of it.
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0).max(wanted)).await;
    }

    /// How often it failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Something succeeded.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}
