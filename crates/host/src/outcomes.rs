//! How the invocations of an app's version end, by which an update decides whether the version stays.

use dhow_blocks::invoke::{InvokeError, Reply};
use std::sync::atomic::{AtomicU64, Ordering};

/// How the invocations of one version of an app ended, since it is there.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    answered: AtomicU64,
    /// Of those, the ones that failed by the app's own fault: a status of 500 or above, a trap, no answer in time.
    failed: AtomicU64,
}

// === impl Outcomes ===

impl Outcomes {
    /// Counts an invocation whose head was answered, or that failed before. Failures of the guest itself are counted
    /// where they are told, since they may also come later.
    pub(crate) fn count(&self, answer: &Result<Reply, InvokeError>) {
        let failed = match answer {
            Ok(reply) => reply.status().is_server_error(),
            Err(InvokeError::NotLoadable { .. }) => true,
            Err(
                InvokeError::GuestFailed { .. }
                | InvokeError::DeadlineExceeded { .. }
                | InvokeError::Unreachable { .. },
            ) => false,
            // The host's doing, or the client's; what the token does not allow is counted where it is asked.
            Err(_) => return,
        };
        self.answered.fetch_add(1, Ordering::Relaxed);
        if failed {
            self.failed();
        }
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an invocation that the app's own token does not allow it.
    pub(crate) fn refused(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.failed();
    }

    /// So many were answered, and of those so many failed.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        (self.answered.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}
