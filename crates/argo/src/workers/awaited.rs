//! A queue whose server is not there yet: steps that are begun meanwhile wait for it.
//!
//! Whoever is asked for steps from outside can so be there before the server is: Argo's agent gives up a plugin that
//! answers nothing for a quarter of a minute.

use super::connection::{Connection, Queue, WorkersError};
use super::submit::{LATE, Remote, RemoteOptions};
use crate::controller::{Identity, Start};
use crate::node::{Outcome, Time};
use crate::run::now;
use crate::runner::{StepRunner, Watched};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Hands steps to workers as soon as it can.
pub struct Awaited {
    /// What does it, or why nothing ever will.
    remote: watch::Receiver<Option<Result<Arc<Remote>, String>>>,
    /// Waits for the server.
    waiting: AbortHandle,
}

// === impl Awaited ===

impl Awaited {
    /// Begins to wait, within a runtime. An error is one that waiting does not mend.
    pub async fn begin(queue: Queue, name: &str, options: RemoteOptions) -> Result<Awaited, WorkersError> {
        let (sender, remote) = watch::channel(None);
        let with = |connection| {
            Remote::new(Arc::new(connection), options).map(Arc::new).map_err(|error| error.to_string())
        };
        let first = match Connection::open(&queue, name).await {
            Err(error) if error.is_passing() => None,
            opened => Some(opened?),
        };
        let name = name.to_owned();
        let waiting = tokio::spawn(async move {
            let connection = match first {
                Some(connection) => Ok(connection),
                None => Connection::wait(&queue, &name, Duration::MAX).await,
            };
            if let Err(error) = &connection {
                tracing::error!("steps have nowhere to go: {error}");
            }
            sender.send_replace(Some(connection.map_err(|error| error.to_string()).and_then(with)));
        });
        Ok(Awaited { remote, waiting: waiting.abort_handle() })
    }

    async fn remote(&self) -> Result<Arc<Remote>, String> {
        let mut remote = self.remote.clone();
        let found = remote.wait_for(Option::is_some).await;
        let found = found.map_err(|_| "nobody waits for the queue any more".to_owned())?;
        found.clone().unwrap_or_else(|| Err("there is no queue".to_owned()))
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.waiting.abort();
    }
}

#[async_trait]
impl StepRunner for Awaited {
    async fn run(&self, workflow: &Identity, start: &Start, begun: Time) -> Outcome {
        let left = |deadline: Time| u64::try_from(deadline.saturating_sub(begun)).unwrap_or(0);
        let limit = start.deadline.map(|deadline| Duration::from_millis(left(deadline)));
        let remote = match limit {
            Some(limit) => tokio::time::timeout(limit, self.remote()).await,
            None => Ok(self.remote().await),
        };
        match remote {
            Ok(Ok(remote)) => remote.run(workflow, start, now()).await,
            Ok(Err(error)) => Outcome::error(error),
            Err(_) => Outcome::failed(LATE),
        }
    }

    /// A step that waits here is in no queue.
    async fn cancel(&self, workflow: &Identity, step: &str) {
        let remote = self.remote.borrow().clone();
        if let Some(Ok(remote)) = remote {
            remote.cancel(workflow, step).await;
        }
    }
}

impl Watched for Awaited {
    fn readiness(&self) -> Result<(), String> {
        match &*self.remote.borrow() {
            Some(Ok(remote)) => remote.readiness(),
            Some(Err(error)) => Err(error.clone()),
            None => Err("waiting for NATS".to_owned()),
        }
    }
}
