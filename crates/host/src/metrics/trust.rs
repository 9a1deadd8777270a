//! What apps were denied, and what policies said.

use super::family::Families;
use dhow_claims::policy::Event;
use prometheus::IntCounterVec;

/// All of it.
#[derive(Clone)]
pub(super) struct TrustFamilies {
    denials: IntCounterVec,
    policies: IntCounterVec,
    refusals: IntCounterVec,
}

/// What a policy said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Yes.
    Allow,
    /// No.
    Deny,
    /// Nothing that could be understood in time.
    Error,
}

// === impl TrustFamilies ===

impl TrustFamilies {
    pub(super) fn new(families: &Families<'_>) -> Result<TrustFamilies, prometheus::Error> {
        Ok(TrustFamilies {
            denials: families.counter(
                "dhow_denials_total",
                "What apps wanted and may not, by who does not allow it.",
                &["app_id", "by", "kind"],
            )?,
            policies: families.counter(
                "dhow_policy_decisions_total",
                "What policies said.",
                &["event", "result"],
            )?,
            refusals: families.counter(
                "dhow_modules_refused_total",
                "Modules that were not loaded, by what of them did not hold.",
                &["app_id", "part"],
            )?,
        })
    }

    pub(super) fn denied(&self, app_id: &str, by: &str, kind: &str) {
        self.denials.with_label_values(&[app_id, by, kind]).inc();
    }

    pub(super) fn policy(&self, event: Event, said: Said) {
        let result = match said {
            Said::Allow => "allow",
            Said::Deny => "deny",
            Said::Error => "error",
        };
        self.policies.with_label_values(&[event.as_str(), result]).inc();
    }

    pub(super) fn refused(&self, app_id: &str, part: &str) {
        self.refusals.with_label_values(&[app_id, part]).inc();
    }
}
