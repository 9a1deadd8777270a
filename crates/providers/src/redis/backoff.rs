//! Waits between attempts: doubling, with jitter, so that many clients of one server do not come back at once.

use std::time::Duration;

/// The next wait.
pub(super) struct Backoff {
    first: Duration,
    next: Duration,
    longest: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// For connections: 100 ms, doubling to 30 s.
    pub(super) fn connecting() -> Backoff {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(30))
    }

    pub(super) fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, next: first, longest }
    }

    /// How long to wait now: between half and all of the current step.
    pub(super) fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// An attempt succeeded.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::connecting();
        for _ in 0..2 {
            for step in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
                let (wait, step) = (backoff.wait(), Duration::from_millis(step));
                assert!(wait >= step / 2 && wait <= step, "{wait:?} of {step:?}");
            }
            backoff.reset();
        }
    }
}
