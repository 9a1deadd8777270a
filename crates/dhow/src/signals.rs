//! The signals that tell a process to end: Ctrl-C and `SIGTERM`.

use crate::error::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What tells a process to end.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

// === impl Signals ===

impl Signals {
    /// From now on none of them ends the process by itself. To be called before anybody can know that the process is
    /// there: one that comes earlier ends it without draining.
    pub(crate) fn listen() -> Result<Signals, Error> {
        let failed = |error: std::io::Error| Error::new(format!("cannot listen for signals: {error}"));
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        Ok(Signals { interrupt, terminate })
    }

    /// Waits for one.
    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits for Ctrl-C.
    pub(crate) async fn interrupted(&mut self) {
        self.interrupt.recv().await;
    }
}
