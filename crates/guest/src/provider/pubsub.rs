//! A message broker that is a component, and is pulled: who pulls, and when, is above (`dhow_host::sandboxed`).

use super::generated::exports::dhow::provider::pubsub::{self as wit, FeatureSet};
use super::pool::{Broken, Instance, Pool, exported};
use super::{Place, Provider};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::Outcome;
use dhow_blocks::pubsub::{Feature, MAX_MESSAGE_BYTES, Message, Outgoing, Subscribe};
use std::sync::Arc;
use std::time::Duration;

/// A message broker.
pub struct Broker {
    pool: Arc<Pool<wit::Guest>>,
    features: Vec<Feature>,
}

/// One subscription, which has an instance of its own. After an error it is of no use any more.
pub struct Receiver {
    pool: Arc<Pool<wit::Guest>>,
    instance: Instance<wit::Guest>,
}

exported!(wit, "dhow:provider/pubsub@0.1.", |error| BlockError::from(error).to_string());

// === impl Broker ===

impl Broker {
    pub(super) async fn open(place: Place<'_>, provider: Provider) -> Result<Broker, String> {
        let pool: Pool<wit::Guest> = place.pool(provider)?;
        let found = pool.call(|i| Box::pin(i.exports.call_features(&mut i.store))).await?;
        let features = [
            (FeatureSet::MESSAGE_TTL, Feature::MessageTtl),
            (FeatureSet::SUBSCRIBE_WILDCARDS, Feature::SubscribeWildcards),
        ];
        let features = features.into_iter().filter(|(flag, _)| found.contains(*flag));
        Ok(Broker { pool: Arc::new(pool), features: features.map(|(_, feature)| feature).collect() })
    }

    /// The component's name.
    pub fn name(&self) -> &str {
        self.pool.name()
    }

    /// What it can do.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// Publishes one message.
    pub async fn publish(&self, message: Outgoing) -> Result<(), BlockError> {
        let Outgoing { topic, data, content_type, metadata } = message;
        let metadata = metadata.into_iter().collect();
        let message = wit::Outgoing { topic, data: data.into(), content_type, metadata };
        let done =
            self.pool.call(|i| Box::pin(async move { i.exports.call_publish(&mut i.store, &message).await }));
        Ok(done.await??)
    }

    /// Begins to receive.
    pub async fn subscribe(&self, subscribe: &Subscribe) -> Result<Receiver, BlockError> {
        let Subscribe { topic, consumer, metadata } = subscribe.clone();
        let metadata: Vec<(String, String)> = metadata.into_iter().collect();
        let mut instance = self.pool.instance().await?;
        let begun = self.pool.call_in(&mut instance, |i| {
            Box::pin(
                async move { i.exports.call_subscribe(&mut i.store, &topic, &consumer, &metadata).await },
            )
        });
        begun.await??;
        Ok(Receiver { pool: Arc::clone(&self.pool), instance })
    }

    /// Fails when it could not take a message now.
    pub async fn ping(&self) -> Result<(), BlockError> {
        let answer = self.pool.call(|i| Box::pin(i.exports.call_ping(&mut i.store)));
        Ok(answer.await??)
    }

    /// Waits for what is under way; later calls are `Unavailable`.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

// === impl Receiver ===

impl Receiver {
    /// Waits for messages, at most so long; each with what [`Receiver::settle`] names it by.
    pub async fn receive(
        &mut self,
        max: usize,
        timeout: Duration,
    ) -> Result<Vec<(String, Message)>, BlockError> {
        let most = u32::try_from(max).unwrap_or(u32::MAX);
        let timeout = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let received = self.pool.call_in(&mut self.instance, |i| {
            Box::pin(async move { i.exports.call_receive(&mut i.store, most, timeout).await })
        });
        let received = received.await??;
        if received.len() > max || received.iter().any(|message| message.data.len() > MAX_MESSAGE_BYTES) {
            let reason = format!(
                "component {:?}: receive answered more messages, or larger ones, than it may",
                self.pool.name()
            );
            return Err(BlockError::failed(reason));
        }
        let messages = received.into_iter().map(|received| {
            let wit::Message { id, topic, data, content_type, metadata } = received;
            let metadata = metadata.into_iter().collect();
            (id, Message { topic, data: data.into(), content_type, metadata })
        });
        Ok(messages.collect())
    }

    /// Says what became of a message.
    pub async fn settle(&mut self, id: String, outcome: Outcome) -> Result<(), BlockError> {
        let outcome = match outcome {
            Outcome::Done => wit::Outcome::Done,
            Outcome::Again => wit::Outcome::Again,
        };
        let settled = self.pool.call_in(&mut self.instance, |i| {
            Box::pin(async move { i.exports.call_settle(&mut i.store, &id, outcome).await })
        });
        Ok(settled.await??)
    }

    /// Ends the subscription.
    pub async fn end(mut self) -> Result<(), BlockError> {
        let ended =
            self.pool.call_in(&mut self.instance, |i| Box::pin(i.exports.call_unsubscribe(&mut i.store)));
        let ended: Result<Result<(), super::Error>, Broken> = ended.await;
        Ok(ended??)
    }
}
