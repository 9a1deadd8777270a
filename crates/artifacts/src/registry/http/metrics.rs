//! What is counted, in Prometheus' text format. No names of repositories or users are in it.

use super::answer::{self, Answer};
use crate::registry::Registry;
use ::http::StatusCode;
use std::fmt::Write;

pub(super) fn answer(registry: &Registry) -> Answer {
    let counters = &registry.counters;
    let [repositories, manifests, modules] = registry.catalogue.counts();
    let mut text = String::new();
    let mut metric = |kind: &str, name: &str, help: &str, value: u64| {
        let _ = writeln!(
            text,
            "# HELP dhow_registry_{name} {help}\n# TYPE dhow_registry_{name} {kind}\ndhow_registry_{name} {value}"
        );
    };
    metric("gauge", "repositories", "Repositories that have a manifest.", repositories);
    metric("gauge", "manifests", "Manifests and indexes.", manifests);
    metric("gauge", "modules", "Manifests that have a module.", modules);
    metric("gauge", "uploads", "Uploads under way.", registry.uploads.count() as u64);
    metric("gauge", "damaged_blobs", "Blobs that are known to be damaged.", registry.damaged().len() as u64);
    metric("counter", "received_bytes_total", "Bytes of blobs that were pushed.", counters.received.get());
    metric("counter", "sent_bytes_total", "Bytes of blobs that were asked for.", counters.sent.get());
    metric("counter", "modules_refused_total", "Modules that policy refused.", counters.untrusted.get());
    metric("counter", "logins_failed_total", "Wrong names and passwords.", counters.logins_failed.get());
    metric("counter", "scrubbed_blobs_total", "Blobs that were verified by scrubs.", counters.scrubbed.get());
    metric(
        "counter",
        "collected_blobs_total",
        "Blobs that garbage collections removed.",
        counters.collected.get(),
    );
    text.push_str("# HELP dhow_registry_requests_total Requests by the class of their status.\n");
    text.push_str("# TYPE dhow_registry_requests_total counter\n");
    for (class, counter) in counters.answers.iter().enumerate().skip(2) {
        let _ = writeln!(text, "dhow_registry_requests_total{{status=\"{class}xx\"}} {}", counter.get());
    }
    answer::text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}
