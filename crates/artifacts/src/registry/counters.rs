//! What is counted, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

/// All counters of a registry.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Answers by the first digit of their status; the first is of none.
    pub(super) answers: [Counter; 6],
    /// Bytes of blobs that arrived whole.
    pub(super) received: Counter,
    /// Bytes of blobs that were asked for.
    pub(super) sent: Counter,
    /// Modules that policy refused.
    pub(super) untrusted: Counter,
    /// Wrong passwords and tokens.
    pub(super) logins_failed: Counter,
    /// Blobs that a scrub has looked at.
    pub(super) scrubbed: Counter,
    /// Blobs that the garbage collection removed.
    pub(super) collected: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

// === impl Counter ===

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
