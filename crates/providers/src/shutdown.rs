//! The end of a provider, which its background tasks must hear of and which waits for them.

use crate::task::Stop;
use dhow_blocks::error::BlockError;
use std::time::Duration;
use tokio::sync::watch;

/// Held by a provider that is open.
#[derive(Debug)]
pub struct Shutdown(watch::Sender<bool>);

/// Held by a task of the provider for as long as the task runs.
#[derive(Clone, Debug)]
pub struct Alive(watch::Receiver<bool>);

// === impl Shutdown ===

impl Shutdown {
    /// Of a provider that is open.
    pub fn new() -> Shutdown {
        Shutdown(watch::Sender::new(false))
    }

    /// For a new task; an error after the shutdown.
    pub fn alive(&self) -> Result<Alive, BlockError> {
        self.check()?;
        Ok(Alive(self.0.subscribe()))
    }

    /// `Unavailable` after the shutdown.
    pub fn check(&self) -> Result<(), BlockError> {
        if *self.0.borrow() { Err(closed()) } else { Ok(()) }
    }

    /// Tells all tasks, and waits until they have ended, or until the deadline.
    pub async fn shut_down(&self, deadline: Duration) {
        self.0.send_replace(true);
        if tokio::time::timeout(deadline, self.0.closed()).await.is_err() {
            tracing::warn!("a subscription did not end within {deadline:?} of the shutdown");
        }
    }
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown::new()
    }
}

// === impl Alive ===

impl Alive {
    /// Waits for the shutdown.
    pub async fn ended(&mut self) {
        // An error means that the provider was dropped, which is a shutdown as well.
        let _ = self.0.wait_for(|down| *down).await;
    }

    /// Waits for the shutdown of the provider or the stop of this task.
    pub async fn ended_or_stopped(&mut self, stop: &mut Stop) {
        tokio::select! {
            () = self.ended() => {}
            () = stop.stopped() => {}
        }
    }
}

/// What a closed provider answers.
pub fn closed() -> BlockError {
    BlockError::unavailable("the component is closed")
}
