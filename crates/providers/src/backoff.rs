//! Waits between attempts to reach a backend that is away.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// Waits of 100 ms, doubling to 30 s, each shortened by chance by up to a half so that many hosts do not
/// come back in one instant.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    next: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::new()
    }
}

// === impl Backoff ===

impl Backoff {
    /// The usual bounds.
    pub fn new() -> Backoff {
        Backoff::between(FIRST, LONGEST)
    }

    /// The same with other bounds.
    pub fn between(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, next: first, longest }
    }

    /// The wait after that many failures in a row, the first being 1.
    pub fn after(failures: usize) -> Duration {
        let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        shortened(FIRST.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST))
    }

    /// The wait before the next attempt.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        shortened(wait)
    }

    /// An attempt succeeded: the next wait is the shortest one again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

fn shortened(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::new();
        for (failures, expected) in
            [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000].iter().enumerate()
        {
            let range = Duration::from_millis(expected / 2)..=Duration::from_millis(*expected);
            let wait = backoff.wait();
            assert!(range.contains(&wait), "{failures}: {wait:?}");
            let wait = Backoff::after(failures + 1);
            assert!(range.contains(&wait), "after {}: {wait:?}", failures + 1);
        }
        assert!(Backoff::after(usize::MAX) <= LONGEST && Backoff::after(0) <= FIRST);
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }
}
