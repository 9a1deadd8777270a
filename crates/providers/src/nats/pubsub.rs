//! `pubsub.nats`: topics are subjects of core NATS, which stores nothing, as wasmCloud's and waSCC's hosts used it.
//!
//! Dapr has no such component; the fields are named as those of `pubsub.jetstream`. `Ok` from publishing means that the
//! server has the message, and that those get it who are listening at that moment: at most once each. What it can do and
//! streams cannot is to ask and wait for an answer. For messages that have to arrive, there is `pubsub.jetstream`.

use super::jetstream::CONTENT_TYPE;
use super::{Connection, is_header};
use crate::deliveries::PARALLEL;
use crate::metadata::ComponentSpec;
use crate::registry::{Open, OpenError, Provider};
use async_nats::HeaderMap;
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Running, value};
use dhow_blocks::pubsub::{Feature, Message, Outgoing, PubSub, REPLY_TO, Subscribe};
use std::sync::Arc;
use std::time::Duration;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "pubsub.nats",
    aliases: &[],
    versions: &["v1"],
    fields: FIELDS,
    open: Open::PubSub(|component, _| {
        Box::pin(async move { Ok(Arc::new(Nats::open(&component).await?) as Arc<dyn PubSub>) })
    }),
};

const FIELDS: &[&str] = super::fields!("queueGroupName", "concurrency", "concurrencyMode");

/// An open component.
struct Nats {
    connection: Connection,
    /// All who receive in the group's name share the messages; each app has its own unless given.
    group: Option<String>,
    /// Handler calls at once.
    limit: usize,
}

// === impl Nats ===

impl Nats {
    async fn open(component: &ComponentSpec) -> Result<Nats, OpenError> {
        let group = component.field(&["queueGroupName"]).map(str::to_owned);
        let limit = if component.is_single(false)? { 1 } else { PARALLEL };
        Ok(Nats { connection: Connection::open(component, "dhow - pubsub.nats").await?, group, limit })
    }
}

#[async_trait]
impl PubSub for Nats {
    fn features(&self) -> &[Feature] {
        &[Feature::SubscribeWildcards, Feature::Requests]
    }

    async fn publish(&self, message: Outgoing) -> Result<(), BlockError> {
        let headers = headers(&message);
        let reply_to = value(&message.metadata, REPLY_TO).filter(|subject| !subject.is_empty());
        self.connection.publish(&message.topic, reply_to, headers, message.data).await
    }

    async fn request(&self, message: Outgoing, limit: Duration) -> Result<Message, BlockError> {
        let headers = headers(&message);
        self.connection.request(&message.topic, headers, message.data, limit).await.map(came)
    }

    async fn subscribe(
        &self,
        subscribe: Subscribe,
        handler: Arc<dyn Handler<Message>>,
    ) -> Result<Box<dyn Running>, BlockError> {
        let Subscribe { topic, consumer, .. } = subscribe;
        if topic.is_empty() {
            return Err(BlockError::invalid("the topic of a subscription must not be empty"));
        }
        let group = self.group.clone().unwrap_or(consumer);
        self.connection.receive(topic, Some(group), self.limit, handler, came).await
    }

    async fn ping(&self) -> Result<(), BlockError> {
        self.connection.check()?;
        self.connection.flush(&self.connection.session()).await
    }

    async fn close(&self) {
        self.connection.close().await;
    }
}

fn headers(message: &Outgoing) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(content_type) = message.content_type.as_deref().filter(|text| is_header(text)) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers
}

fn came(message: async_nats::Message) -> Message {
    let content_type = message.headers.as_ref().and_then(|headers| headers.get(CONTENT_TYPE));
    let reply_to = message.reply.map(|subject| (REPLY_TO.to_owned(), subject.to_string()));
    Message {
        topic: message.subject.to_string(),
        data: message.payload,
        content_type: content_type.map(ToString::to_string),
        metadata: reply_to.into_iter().collect::<Metadata>(),
    }
}
