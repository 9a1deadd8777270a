//! What components do: `dapr_component_<block>_count` and `…_latencies`.
//!
//! Names and labels: Dapr documentation, "Dapr metrics", section on components. Locks have none in Dapr; here they have
//! those of state.

use super::family::Families;
use super::series::Series;
use dhow_blocks::scope::Meter;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use std::sync::Arc;
use std::time::Duration;

/// The block, and which labels stand behind `app_id`, `component` and `namespace`.
const BLOCKS: [(&str, Kind); 13] = [
    ("configuration", Kind::Operation),
    ("lock", Kind::Operation),
    ("sequencer", Kind::Operation),
    ("blob", Kind::Operation),
    ("cryption", Kind::Operation),
    ("email", Kind::Operation),
    ("secret", Kind::Operation),
    ("state", Kind::Operation),
    ("output_binding", Kind::Binding),
    ("input_binding", Kind::Input),
    ("pubsub_egress", Kind::Egress),
    ("pubsub_egress_bulk", Kind::Egress),
    ("pubsub_ingress", Kind::Ingress),
];

/// What a job's metrics call the operation.
const JOB: &str = "job_trigger_op";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `operation`, `success`: what the block was asked for.
    Operation,
    /// The same, with the binding's own operation.
    Binding,
    /// `success`
    Input,
    /// `success`, `topic`
    Egress,
    /// `process_status`, `status`, `topic`
    Ingress,
}

/// Metrics of all components.
pub(super) struct Components {
    blocks: Vec<(&'static str, Arc<Block>)>,
    job_success: IntCounterVec,
    job_failure: IntCounterVec,
    job_latency: HistogramVec,
    namespace: String,
}

struct Block {
    kind: Kind,
    count: IntCounterVec,
    latency: HistogramVec,
}

/// The numbers of one component as one app uses it.
struct ComponentMeter {
    block: Arc<Block>,
    /// What a bulk of messages is counted as.
    bulk: Option<Arc<Block>>,
    app_id: String,
    component: String,
    namespace: String,
    seen: Series<(&'static str, bool), Counted>,
}

#[derive(Clone)]
struct Counted {
    count: IntCounter,
    latency: Histogram,
}

// === impl Components ===

impl Components {
    pub(super) fn new(families: &Families<'_>, namespace: &str) -> Result<Components, prometheus::Error> {
        let mut blocks = Vec::with_capacity(BLOCKS.len());
        for (block, kind) in BLOCKS {
            let own: &[&str] = match kind {
                Kind::Operation | Kind::Binding => &["operation", "success"],
                Kind::Input => &["success"],
                Kind::Egress => &["success", "topic"],
                Kind::Ingress => &["process_status", "status", "topic"],
            };
            let labels = [&["app_id", "component", "namespace"][..], own].concat();
            let count = format!("dapr_component_{block}_count");
            let count = families.counter(&count, "Operations of components.", &labels)?;
            let latency = format!("dapr_component_{block}_latencies");
            let help = "Milliseconds that operations of components took.";
            let latency = families.latency(&latency, help, &labels)?;
            blocks.push((block, Arc::new(Block { kind, count, latency })));
        }
        let job = &["app_id", "namespace", "operation"];
        let latency = &["app_id", "namespace", "operation", "success"];
        Ok(Components {
            blocks,
            job_success: families.counter(
                "dapr_component_job_success_count",
                "Jobs that were taken.",
                job,
            )?,
            job_failure: families.counter(
                "dapr_component_job_failure_count",
                "Jobs that were not taken.",
                job,
            )?,
            job_latency: families.latency(
                "dapr_component_job_latencies",
                "Milliseconds that apps had jobs for.",
                latency,
            )?,
            namespace: namespace.to_owned(),
        })
    }

    /// Takes the measurements of one component as one app uses it.
    pub(super) fn meter(&self, block: &str, app_id: &str, component: &str) -> Option<Arc<dyn Meter>> {
        let find = |name: &str| {
            let found = self.blocks.iter().find(|(found, _)| *found == name);
            found.map(|(_, block)| Arc::clone(block))
        };
        Some(Arc::new(ComponentMeter {
            block: find(block)?,
            bulk: find(&format!("{block}_bulk")),
            app_id: app_id.to_owned(),
            component: component.to_owned(),
            namespace: self.namespace.clone(),
            seen: Series::new(),
        }))
    }

    pub(super) fn job(&self, app_id: &str, success: bool, elapsed: Duration) {
        let labels = &[app_id, &self.namespace, JOB];
        let count = if success { &self.job_success } else { &self.job_failure };
        count.with_label_values(labels).inc();
        let latency = self.job_latency.with_label_values(&[app_id, &self.namespace, JOB, yes_or_no(success)]);
        latency.observe(elapsed.as_secs_f64() * 1000.0);
    }
}

// === impl ComponentMeter ===

impl ComponentMeter {
    fn counted(&self, operation: &str, object: &str, success: bool) -> Counted {
        let (app_id, component, namespace) =
            (self.app_id.as_str(), self.component.as_str(), self.namespace.as_str());
        let block = match &self.bulk {
            Some(bulk) if operation.starts_with("bulk_") => bulk,
            _ => &self.block,
        };
        let success = yes_or_no(success);
        let own: &[&str] = match block.kind {
            Kind::Operation => &[operation, success],
            Kind::Binding => &[object, success],
            Kind::Input => &[success],
            Kind::Egress => &[success, object],
            Kind::Ingress => &[operation, operation, object],
        };
        let labels = [&[app_id, component, namespace][..], own].concat();
        Counted {
            count: block.count.with_label_values(&labels),
            latency: block.latency.with_label_values(&labels),
        }
    }
}

impl Meter for ComponentMeter {
    fn record(&self, operation: &'static str, object: &str, success: bool, elapsed: Duration) {
        let make = |object: &str| self.counted(operation, object, success);
        self.seen.with(object, &(operation, success), make, |counted| {
            counted.count.inc();
            counted.latency.observe(elapsed.as_secs_f64() * 1000.0);
        });
    }
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "true" } else { "false" }
}
