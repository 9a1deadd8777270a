//! A broker that is a module: its subscriptions are pulled here, each by a task.

use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Outcome, Running};
use dhow_blocks::pubsub::{Feature, Message, Outgoing, PubSub, Subscribe};
use dhow_guest::provider::{Broker, Receiver};
use dhow_providers::backoff::Backoff;
use dhow_providers::deliveries::{Deliveries, PARALLEL, STOP_DEADLINE};
use dhow_providers::shutdown::{Alive, Shutdown};
use dhow_providers::task::{Stop, Task};
use futures::FutureExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The module is asked to wait so long for messages when none is being handled, and no longer: a subscription that is
/// stopped waits for the end of that call.
const WAIT: Duration = Duration::from_secs(1);

/// While messages are being handled, the module is asked for more only so often: what it is asked meanwhile is what
/// became of them.
const PAUSE: Duration = Duration::from_millis(50);

/// Messages that are asked for at once.
const BATCH: usize = 16;

/// The broker, and its subscriptions.
struct Pulled {
    broker: Arc<Broker>,
    shutdown: Shutdown,
}

pub(super) fn open(broker: Broker) -> Arc<dyn PubSub> {
    Arc::new(Pulled { broker: Arc::new(broker), shutdown: Shutdown::new() })
}

#[async_trait]
impl PubSub for Pulled {
    fn features(&self) -> &[Feature] {
        self.broker.features()
    }

    async fn publish(&self, message: Outgoing) -> Result<(), BlockError> {
        self.shutdown.check()?;
        self.broker.publish(message).await
    }

    async fn subscribe(
        &self,
        subscribe: Subscribe,
        handler: Arc<dyn Handler<Message>>,
    ) -> Result<Box<dyn Running>, BlockError> {
        let alive = self.shutdown.alive()?;
        let receiver = self.broker.subscribe(&subscribe).await?;
        let broker = Arc::clone(&self.broker);
        Ok(Box::new(Task::spawn(move |stop| {
            let subscription = Subscription { broker, subscribe, handler, stop, alive };
            subscription.run(receiver)
        })))
    }

    async fn ping(&self) -> Result<(), BlockError> {
        self.shutdown.check()?;
        self.broker.ping().await
    }

    async fn close(&self) {
        self.shutdown.shut_down(STOP_DEADLINE + 2 * WAIT).await;
        self.broker.close().await;
    }
}

/// One subscription, through all instances that receive for it.
struct Subscription {
    broker: Arc<Broker>,
    subscribe: Subscribe,
    handler: Arc<dyn Handler<Message>>,
    stop: Stop,
    alive: Alive,
}

// === impl Subscription ===

impl Subscription {
    /// Receives until it is stopped; after an error in another instance.
    async fn run(mut self, first: Receiver) {
        let mut backoff = Backoff::new();
        let mut receiver = Some(first);
        loop {
            let began = Instant::now();
            let opened = match receiver.take() {
                Some(receiver) => Ok(receiver),
                None => self.broker.subscribe(&self.subscribe).await,
            };
            let ended = match opened {
                Ok(receiver) => self.receive(receiver).await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(()) => return,
                Err(error) => tracing::warn!("component {}: receiving failed: {error}", self.broker.name()),
            }
            if began.elapsed() > STOP_DEADLINE {
                backoff.reset();
            }
            tokio::select! {
                () = self.alive.ended_or_stopped(&mut self.stop) => return,
                () = tokio::time::sleep(backoff.wait()) => {}
            }
        }
    }

    /// Receives by one instance until it is stopped, which is no error. A call is never broken off, for that would be
    /// the end of the instance.
    async fn receive(&mut self, mut receiver: Receiver) -> Result<(), BlockError> {
        let mut deliveries = Deliveries::new(Arc::clone(&self.handler), PARALLEL);
        let mut is_quiet = false;
        loop {
            if deliveries.room() == 0 || is_quiet && !deliveries.is_empty() {
                tokio::select! {
                    () = self.alive.ended_or_stopped(&mut self.stop) => {}
                    Some((id, outcome)) = deliveries.next() => receiver.settle(id, outcome).await?,
                    () = tokio::time::sleep(PAUSE), if deliveries.room() > 0 => {}
                }
            }
            while let Some(Some((id, outcome))) = deliveries.next().now_or_never() {
                receiver.settle(id, outcome).await?;
            }
            if self.alive.ended_or_stopped(&mut self.stop).now_or_never().is_some() {
                break;
            }
            let room = deliveries.room().min(BATCH);
            if room == 0 {
                continue;
            }
            let wait = if deliveries.is_empty() { WAIT } else { Duration::ZERO };
            let received = receiver.receive(room, wait).await?;
            is_quiet = received.is_empty();
            for (id, message) in received {
                deliveries.hand_over(message, id);
            }
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        while let Ok(Some((id, outcome))) = tokio::time::timeout_at(deadline, deliveries.next()).await {
            receiver.settle(id, outcome).await?;
        }
        for id in deliveries.abandon().await {
            receiver.settle(id, Outcome::Again).await?;
        }
        receiver.end().await
    }
}
