//! What an app was denied: counted, and written to the log under the target `audit`.
//!
//! A guest decides how often it asks for what it may not have. So every denial is counted, and only some are written:
//! a number at once, and then one in a while, which says how many were left out.

use crate::metrics::Metrics;
use dhow_blocks::grants::Denied;
use dhow_blocks::scope::Audit;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Lines of one app that are written at once.
const BURST: u32 = 20;

/// After that, one line in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// Characters of a name that are written: it is the guest's.
const MAX_NAME: usize = 200;

/// Hears of the denials of one app.
pub(crate) struct Auditor {
    metrics: Metrics,
    /// Public keys of who signed the module, and of the module; empty for one that is not signed.
    signer: Option<Signer>,
    pace: Mutex<Pace>,
}

/// Who made a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signer {
    /// Public key of who signed it.
    pub(crate) issuer: String,
    /// Public key of the module.
    pub(crate) subject: String,
}

/// How many lines may be written now.
struct Pace {
    left: u32,
    since: Instant,
    /// Denials that were not written since the last one that was.
    omitted: u64,
}

// === impl Auditor ===

impl Auditor {
    /// Who signed the module; none for one that is not signed.
    pub(crate) fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    pub(crate) fn new(metrics: Metrics, signer: Option<Signer>) -> Auditor {
        Auditor { metrics, signer, pace: Mutex::new(Pace::new(Instant::now())) }
    }

    /// The app was not allowed to answer: its token, or a policy.
    pub(crate) fn refused(&self, app_id: &str, by: &'static str, reason: &str) {
        self.tell(app_id, by, ("invocation", ""), &reason);
    }

    /// Counts a denial, and writes it down unless there were too many. The message is for whoever can allow it.
    pub(crate) fn tell(
        &self,
        app_id: &str,
        by: &'static str,
        (kind, name): (&str, &str),
        message: &dyn std::fmt::Display,
    ) {
        self.metrics.denied(app_id, by, kind);
        let Some(omitted) = self.pace.lock().line(Instant::now()) else { return };
        let (issuer, subject) =
            self.signer.as_ref().map_or(("", ""), |signer| (signer.issuer.as_str(), signer.subject.as_str()));
        let name: String = name.chars().take(MAX_NAME).collect();
        let message: String = message.to_string().chars().take(2 * MAX_NAME).collect();
        tracing::warn!(target: "audit", app_id, by, kind, name, issuer, subject, omitted, "{message}");
    }
}

impl Audit for Auditor {
    fn denied(&self, app_id: &str, denied: &Denied) {
        self.tell(app_id, denied.by.as_str(), (denied.kind, &denied.name), denied);
    }
}

// === impl Pace ===

impl Pace {
    fn new(now: Instant) -> Pace {
        Pace { left: BURST, since: now, omitted: 0 }
    }

    /// Whether a line may be written, and how many were not before it.
    fn line(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.since).as_nanos() / INTERVAL.as_nanos();
        if passed > 0 {
            self.left = self.left.saturating_add(u32::try_from(passed).unwrap_or(BURST)).min(BURST);
            self.since = now;
        }
        if self.left == 0 {
            self.omitted += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.omitted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_written() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let written = (0..10_000).filter(|_| pace.line(start).is_some()).count();
        assert_eq!(written, BURST as usize);
        assert_eq!(pace.line(start + INTERVAL), Some(10_000 - u64::from(BURST)));
        assert_eq!(pace.line(start + INTERVAL), None);
        let later = start + INTERVAL * 1000;
        assert_eq!((0..10_000).filter(|_| pace.line(later).is_some()).count(), BURST as usize);
    }
}
