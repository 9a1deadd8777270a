//! The pub/sub block: publish to a topic, receive from a topic, at least once.
//!
//! A provider moves bytes: the CloudEvents envelope is made and read above it ([`crate::cloud_event`]), and so
//! are dead letters, routing and the choice between retry and drop.

use crate::error::BlockError;
use crate::events::{Handler, Metadata, Running, value};
use crate::scope::is_true;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Largest message that any provider is asked to carry, envelope included, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// The metadata of a message that say where an answer is expected.
pub const REPLY_TO: &str = "replyTo";

/// What a message broker can do beyond publish and subscribe; the names are those of Dapr's metadata API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Messages can expire in the broker (`ttlInSeconds`).
    MessageTtl,
    /// A subscription may name many topics by a pattern.
    SubscribeWildcards,
    /// Several messages are published in one request to the broker.
    BulkPublish,
    /// Messages are answered, by programs that know of no envelopes: none is made unless somebody asks for it.
    Requests,
}

impl Feature {
    /// The name in Dapr's metadata API; the last one is ours.
    pub fn name(self) -> &'static str {
        match self {
            Feature::MessageTtl => "MESSAGE_TTL",
            Feature::SubscribeWildcards => "SUBSCRIBE_WILDCARDS",
            Feature::BulkPublish => "BULK_PUBSUB",
            Feature::Requests => "REQUESTS",
        }
    }
}

/// Whether a message is its bytes alone: `rawPayload` says so, else the broker's usual way.
pub fn is_bare(features: &[Feature], metadata: &Metadata) -> bool {
    match value(metadata, "rawPayload") {
        Some(text) => is_true(text),
        None => features.contains(&Feature::Requests),
    }
}

/// A message on its way to a broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// Topic; not empty.
    pub topic: String,
    /// Bytes, carried unchanged.
    pub data: Bytes,
    /// Media type of the bytes.
    pub content_type: Option<String>,
    /// `ttlInSeconds`, and what else the provider understands.
    pub metadata: Metadata,
}

/// A message that came from a broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The topic it was published to; with wildcards not the topic that was subscribed to.
    pub topic: String,
    /// Bytes as they were published.
    pub data: Bytes,
    /// Media type, where the broker keeps it.
    pub content_type: Option<String>,
    /// What the broker tells about the message; goes to the app as headers.
    pub metadata: Metadata,
}

/// What to receive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscribe {
    /// Topic.
    pub topic: String,
    /// Who receives: every consumer gets each message once, however many hosts receive in its name.
    pub consumer: String,
    /// Metadata of the subscription.
    pub metadata: Metadata,
}

/// A provider of pub/sub.
///
/// `Ok` from publishing means that the message survives whatever the provider promises to survive and will be
/// delivered to every consumer known by then, until one handler call for it answers
/// [`Outcome::Done`](crate::events::Outcome::Done).
#[async_trait]
pub trait PubSub: Send + Sync + 'static {
    /// What this broker can do; constant for the life of the provider.
    fn features(&self) -> &[Feature];

    /// Publishes one message.
    async fn publish(&self, message: Outgoing) -> Result<(), BlockError>;

    /// Publishes several messages of one topic; the answers are in their order. Some may fail alone.
    async fn publish_many(&self, messages: Vec<Outgoing>) -> Vec<Result<(), BlockError>> {
        let mut results = Vec::with_capacity(messages.len());
        for message in messages {
            results.push(self.publish(message).await);
        }
        results
    }

    /// Publishes one message and waits for the first answer to it, at most so long. Brokers that keep messages cannot.
    async fn request(&self, message: Outgoing, limit: Duration) -> Result<Message, BlockError> {
        let _ = (message, limit);
        Err(BlockError::NotSupported { feature: "requests that wait for an answer; pubsub.nats does" })
    }

    /// Begins to receive. Returns once the subscription is in force at the broker; from then on the provider
    /// keeps it alive through losses of the connection.
    async fn subscribe(
        &self,
        subscribe: Subscribe,
        handler: Arc<dyn Handler<Message>>,
    ) -> Result<Box<dyn Running>, BlockError>;

    /// Fails when the broker could not take a message now.
    async fn ping(&self) -> Result<(), BlockError>;

    /// Stops all subscriptions and lets go of connections. Later calls are `Unavailable`.
    async fn close(&self);
}
