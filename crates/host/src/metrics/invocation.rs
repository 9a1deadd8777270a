//! Calls between apps, and who may make them: `dapr_runtime_service_invocation_*` and `dapr_runtime_acl_*`.

use super::family::Families;
use super::series::Series;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use std::sync::Arc;
use std::time::Duration;

/// Counts the calls that one app makes and gets.
pub struct InvocationMeter {
    app_id: Box<str>,
    families: Arc<InvocationFamilies>,
    sent: Series<bool, IntCounter>,
    answered: Series<(u16, bool), (IntCounter, Histogram)>,
    received: Series<(), IntCounter>,
    replied: Series<u16, IntCounter>,
}

pub(super) struct InvocationFamilies {
    sent: IntCounterVec,
    answered: IntCounterVec,
    latency: HistogramVec,
    received: IntCounterVec,
    replied: IntCounterVec,
}

/// Counts what access control decides.
pub(super) struct Access {
    /// By the caller's own policy, and by the default for all: allowed, blocked.
    app: [IntCounterVec; 2],
    global: [IntCounterVec; 2],
    seen: Series<Decision, IntCounter>,
}

/// What access control decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    /// By a policy for the caller, not by the default for all.
    pub(crate) by_app_policy: bool,
    pub(crate) verb: http::Method,
}

/// Messages that go both ways at once, or one and its answer.
fn kind(streaming: bool) -> &'static str {
    if streaming { "streaming" } else { "unary" }
}

// === impl InvocationMeter ===

impl InvocationMeter {
    pub(super) fn new(families: Arc<InvocationFamilies>, app_id: &str) -> InvocationMeter {
        InvocationMeter {
            app_id: app_id.into(),
            families,
            sent: Series::new(),
            answered: Series::new(),
            received: Series::new(),
            replied: Series::new(),
        }
    }

    /// The app calls another one.
    pub(crate) fn sent(&self, callee: &str, streaming: bool) {
        let make =
            |callee: &str| self.families.sent.with_label_values(&[&*self.app_id, callee, kind(streaming)]);
        self.sent.with(callee, &streaming, make, IntCounter::inc);
    }

    /// The other one answered, or did not.
    pub(crate) fn answered(&self, callee: &str, status: u16, streaming: bool, elapsed: Duration) {
        let make = |callee: &str| {
            let labels = &[&*self.app_id, callee, &status.to_string(), kind(streaming)];
            let families = &self.families;
            (families.answered.with_label_values(labels), families.latency.with_label_values(labels))
        };
        self.answered.with(callee, &(status, streaming), make, |(count, latency)| {
            count.inc();
            latency.observe(elapsed.as_secs_f64() * 1000.0);
        });
    }

    /// The app is called by another one.
    pub(crate) fn received(&self, caller: &str) {
        let make = |caller: &str| self.families.received.with_label_values(&[&*self.app_id, caller]);
        self.received.with(caller, &(), make, IntCounter::inc);
    }

    /// The app answered.
    pub(crate) fn replied(&self, caller: &str, status: u16) {
        let make = |caller: &str| {
            let labels = &[&*self.app_id, caller, &status.to_string()];
            self.families.replied.with_label_values(labels)
        };
        self.replied.with(caller, &status, make, IntCounter::inc);
    }
}

// === impl InvocationFamilies ===

impl InvocationFamilies {
    pub(super) fn new(families: &Families<'_>) -> Result<InvocationFamilies, prometheus::Error> {
        let name = |name: &str| format!("dapr_runtime_service_invocation_{name}");
        let answered = &["app_id", "src_app_id", "status", "type"];
        Ok(InvocationFamilies {
            sent: families.counter(
                &name("req_sent_total"),
                "Calls that apps made to apps.",
                &["app_id", "dst_app_id", "type"],
            )?,
            answered: families.counter(&name("res_recv_total"), "Answers that apps got.", answered)?,
            latency: families.latency(
                &name("res_recv_latency_ms"),
                "Milliseconds from a call to its answer.",
                answered,
            )?,
            received: families.counter(
                &name("req_recv_total"),
                "Calls that apps got from apps.",
                &["app_id", "src_app_id"],
            )?,
            replied: families.counter(
                &name("res_sent_total"),
                "Answers that apps gave.",
                &["app_id", "dst_app_id", "status"],
            )?,
        })
    }
}

// === impl Access ===

impl Access {
    pub(super) fn new(families: &Families<'_>) -> Result<Access, prometheus::Error> {
        let labels = &["app_id", "trustDomain", "namespace", "operation", "method", "policyAction"];
        let counter = |name: &str| {
            let name = format!("dapr_runtime_acl_{name}_total");
            families.counter(&name, "Calls between apps, as access control decided.", labels)
        };
        Ok(Access {
            app: [counter("app_policy_action_allowed")?, counter("app_policy_action_blocked")?],
            global: [counter("global_policy_action_allowed")?, counter("global_policy_action_blocked")?],
            seen: Series::new(),
        })
    }

    pub(super) fn decided(&self, caller: &str, trust_domain: &str, operation: &str, decision: &Decision) {
        let make = |text: &str| {
            let (caller, operation) = text.split_once('\n').unwrap_or_default();
            let families = if decision.by_app_policy { &self.app } else { &self.global };
            let family = &families[usize::from(!decision.allowed)];
            let allowed = if decision.allowed { "true" } else { "false" };
            let verb = decision.verb.as_str();
            family.with_label_values(&[caller, trust_domain, "default", operation, verb, allowed])
        };
        self.seen.with(&format!("{caller}\n{operation}"), decision, make, IntCounter::inc);
    }
}
