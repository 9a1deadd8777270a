//! A task that receives in the background, as most providers' subscriptions are one.

use async_trait::async_trait;
use dhow_blocks::events::Running;
use std::future::Future;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A background task that ends when it is told to. Dropping it tells it, without waiting.
#[derive(Debug)]
pub struct Task {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Tells a task that it is to end.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

// === impl Task ===

impl Task {
    /// Starts a task. What it was told by [`Stop`] is its own to obey: it takes nothing new, finishes what it
    /// has, within its own deadlines, and returns.
    pub fn spawn<F>(run: impl FnOnce(Stop) -> F) -> Task
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        Task { stop, task: tokio::spawn(run(Stop(stopped))) }
    }
}

#[async_trait]
impl Running for Task {
    async fn stop(mut self: Box<Self>) {
        self.stop.send_replace(true);
        // Fails only if the task panicked, and then it has ended, too.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

// === impl Stop ===

impl Stop {
    /// Waits until the task is to end. May be waited for again and again.
    pub async fn stopped(&mut self) {
        // An error means that the `Task` is gone, which is a stop as well.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether the task is to end.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}
