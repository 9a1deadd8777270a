//! What policies do: `dapr_resiliency_*`.

use super::family::Families;
use dhow_blocks::policy::{Circuit, Part, Watch};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use std::sync::Arc;

/// The states of a circuit breaker, as labels.
const STATES: [&str; 4] = ["closed", "half-open", "open", "unknown"];

pub(super) struct Resiliency {
    loaded: IntCounterVec,
    count: IntCounterVec,
    activations: IntCounterVec,
    circuit: IntGaugeVec,
    namespace: String,
}

/// Which policy is meant.
pub(crate) struct PolicyOf<'a> {
    /// Whose calls, or whose events.
    pub(crate) app_id: &'a str,
    /// The resource that each part is from.
    pub(crate) names: [&'a str; 3],
    /// `inbound` or `outbound`.
    pub(crate) direction: &'a str,
    /// Dapr's word for the target, such as `app_orders`.
    pub(crate) target: &'a str,
}

/// Counts what one policy does.
#[derive(Debug)]
struct PolicyMeter {
    timeout: Counted,
    retry: Counted,
    /// By [`STATES`].
    circuits: Vec<(Counted, IntGauge)>,
}

#[derive(Debug)]
struct Counted {
    count: IntCounter,
    activations: IntCounter,
}

// === impl Resiliency ===

impl Resiliency {
    pub(super) fn new(families: &Families<'_>, namespace: &str) -> Result<Resiliency, prometheus::Error> {
        let labels = &["app_id", "name", "policy", "namespace", "flow_direction", "target", "status"];
        Ok(Resiliency {
            loaded: families.counter(
                "dapr_resiliency_loaded",
                "Resiliency resources that an app has.",
                &["app_id", "name", "namespace"],
            )?,
            count: families.counter("dapr_resiliency_count", "Calls under a policy.", labels)?,
            activations: families.counter(
                "dapr_resiliency_activations_total",
                "Times that a policy did something: a retry, a timeout, a circuit that opened or closed.",
                labels,
            )?,
            circuit: families.gauge(
                "dapr_resiliency_cb_state",
                "1 for the state that a circuit breaker is in.",
                labels,
            )?,
            namespace: namespace.to_owned(),
        })
    }

    pub(super) fn loaded(&self, app_id: &str, name: &str) {
        self.loaded.with_label_values(&[app_id, name, &self.namespace]).inc();
    }

    pub(super) fn meter(&self, of: &PolicyOf<'_>) -> Arc<dyn Watch> {
        let [timeout, retry, breaker] = of.names;
        let counted = |name: &str, policy: &str, status: &str| {
            let labels = &[of.app_id, name, policy, &self.namespace, of.direction, of.target, status];
            Counted {
                count: self.count.with_label_values(labels),
                activations: self.activations.with_label_values(labels),
            }
        };
        let circuits = STATES.iter().filter(|_| !breaker.is_empty()).map(|status| {
            let policy = "circuitbreaker";
            let labels = &[of.app_id, breaker, policy, &self.namespace, of.direction, of.target, status];
            (counted(breaker, policy, status), self.circuit.with_label_values(labels))
        });
        Arc::new(PolicyMeter {
            circuits: circuits.collect(),
            timeout: counted(timeout, "timeout", ""),
            retry: counted(retry, "retry", ""),
        })
    }
}

// === impl PolicyMeter ===

impl PolicyMeter {
    fn counted(&self, part: Part) -> Option<&Counted> {
        match part {
            Part::Timeout => Some(&self.timeout),
            Part::Retry => Some(&self.retry),
            Part::Breaker(circuit) => {
                let at = index(circuit);
                for (number, (_, state)) in self.circuits.iter().enumerate() {
                    state.set(i64::from(number == at));
                }
                self.circuits.get(at).map(|(counted, _)| counted)
            }
        }
    }
}

fn index(circuit: Circuit) -> usize {
    match circuit {
        Circuit::Closed => 0,
        Circuit::HalfOpen => 1,
        Circuit::Open => 2,
    }
}

impl Watch for PolicyMeter {
    fn applied(&self, part: Part) {
        if let Some(counted) = self.counted(part) {
            counted.count.inc();
        }
    }

    fn activated(&self, part: Part) {
        if let Some(counted) = self.counted(part) {
            counted.activations.inc();
        }
    }
}
