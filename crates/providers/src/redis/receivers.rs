//! Who receives in the background: closing a component waits until the last of them has ended.

use super::error::Failure;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The receivers of one component.
pub(super) struct Receivers {
    /// Nothing once closed.
    alive: parking_lot::Mutex<Option<mpsc::Sender<()>>>,
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

/// Held by a receiver until its end.
pub(super) struct Alive(#[expect(dead_code, reason = "its end is what counts")] mpsc::Sender<()>);

// === impl Receivers ===

impl Receivers {
    pub(super) fn new() -> Receivers {
        let (alive, ended) = mpsc::channel(1);
        Receivers { alive: parking_lot::Mutex::new(Some(alive)), ended: tokio::sync::Mutex::new(ended) }
    }

    /// For one more receiver.
    pub(super) fn begin(&self) -> Result<Alive, Failure> {
        self.alive.lock().clone().map(Alive).ok_or(Failure::Closed)
    }

    /// Takes no more of them, and waits for the last one's end, at most this long.
    pub(super) async fn end(&self, patience: Duration) {
        self.alive.lock().take();
        let _ = timeout(patience, async { self.ended.lock().await.recv().await }).await;
    }
}
