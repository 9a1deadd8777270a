//! `pubsub.<name>`: a message broker behind another process.

use super::proto::pub_sub_client::PubSubClient;
use super::proto::{
    AckMessageError, BulkMessageEntry, BulkPublishRequest, FeaturesRequest, PingRequest, PubSubInitRequest,
    PublishRequest, PullMessagesRequest, PullMessagesResponse, Topic,
};
use super::receiving::Receiving;
use super::socket::{Channel, MAX_MESSAGE, Socket, error, origin};
use crate::deliveries::STOP_DEADLINE;
use crate::metadata::ANY;
use crate::registry::{Open, Provider};
use crate::shutdown::Shutdown;
use crate::task::Task;
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Outcome, Running};
use dhow_blocks::pubsub::{Feature, Message, Outgoing, PubSub, Subscribe};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

/// The line in the registry.
pub(super) const PROVIDER: Provider = Provider {
    component_type: "pubsub.*",
    aliases: &[],
    versions: &["v1"],
    fields: ANY,
    open: Open::PubSub(|component, _| {
        Box::pin(async move {
            let socket = Socket::open(&component, |channel, metadata| {
                Box::pin(async move {
                    client(channel).init(PubSubInitRequest { metadata: Some(metadata) }).await.map(drop)
                })
            });
            Ok(Arc::new(Broker::new(socket.await?).await.map_err(|reason| component.backend(reason))?) as _)
        })
    }),
};

const FEATURES: [Feature; 3] = [Feature::MessageTtl, Feature::SubscribeWildcards, Feature::BulkPublish];

struct Broker {
    socket: Arc<Socket>,
    features: Vec<Feature>,
    shutdown: Shutdown,
}

fn client(channel: Channel) -> PubSubClient<Channel> {
    PubSubClient::with_origin(channel, origin()).max_decoding_message_size(MAX_MESSAGE)
}

// === impl Broker ===

impl Broker {
    async fn new(socket: Socket) -> Result<Broker, String> {
        let features = async |channel| client(channel).features(FeaturesRequest {}).await;
        let named = socket.call(features).await.map_err(|status| error(&status).to_string())?.feature;
        let features = FEATURES.into_iter().filter(|feature| named.iter().any(|name| name == feature.name()));
        let features = features.collect();
        Ok(Broker { socket: Arc::new(socket), features, shutdown: Shutdown::new() })
    }
}

#[async_trait]
impl PubSub for Broker {
    fn features(&self) -> &[Feature] {
        &self.features
    }

    async fn publish(&self, message: Outgoing) -> Result<(), BlockError> {
        let Outgoing { topic, data, content_type, metadata } = message;
        let pubsub_name = self.socket.name.clone();
        let content_type = content_type.unwrap_or_default();
        let request = PublishRequest { data, pubsub_name, topic, metadata, content_type };
        let asked = |channel| {
            let request = request.clone();
            async move { client(channel).publish(request).await }
        };
        self.socket.call(asked).await.map(drop).map_err(|status| error(&status))
    }

    async fn publish_many(&self, messages: Vec<Outgoing>) -> Vec<Result<(), BlockError>> {
        let count = messages.len();
        if !self.features.contains(&Feature::BulkPublish) || count < 2 {
            let mut results = Vec::with_capacity(count);
            for message in messages {
                results.push(self.publish(message).await);
            }
            return results;
        }
        let topic = messages.first().map(|message| message.topic.clone()).unwrap_or_default();
        let entries = messages.into_iter().enumerate().map(|(index, message)| BulkMessageEntry {
            entry_id: index.to_string(),
            event: message.data,
            content_type: message.content_type.unwrap_or_default(),
            metadata: message.metadata,
        });
        let (entries, pubsub_name) = (entries.collect(), self.socket.name.clone());
        let request = BulkPublishRequest { entries, pubsub_name, topic, ..BulkPublishRequest::default() };
        let asked = |channel| {
            let request = request.clone();
            async move { client(channel).bulk_publish(request).await }
        };
        match self.socket.call(asked).await {
            Ok(answer) => {
                let failed = answer.failed_entries.into_iter().map(|failed| (failed.entry_id, failed.error));
                let mut failed: HashMap<String, String> = failed.collect();
                let result = |index: usize| {
                    failed.remove(&index.to_string()).map_or(Ok(()), |reason| Err(BlockError::failed(reason)))
                };
                (0..count).map(result).collect()
            }
            Err(status) => vec![Err(error(&status)); count],
        }
    }

    async fn subscribe(
        &self,
        subscribe: Subscribe,
        handler: Arc<dyn Handler<Message>>,
    ) -> Result<Box<dyn Running>, BlockError> {
        let alive = self.shutdown.alive()?;
        self.ping().await?;
        let Subscribe { topic, consumer, mut metadata } = subscribe;
        metadata.entry("consumerID".to_owned()).or_insert(consumer);
        let topic = Topic { name: topic, metadata };
        let receiving = Receiving {
            open: |channel, acks| {
                Box::pin(async move { Ok(client(channel).pull_messages(acks).await?.into_inner()) })
            },
            first: Some(PullMessagesRequest { topic: Some(topic), ..PullMessagesRequest::default() }),
            event: message,
            ack: |id, outcome| PullMessagesRequest {
                topic: None,
                ack_message_id: id,
                ack_error: (outcome == Outcome::Again)
                    .then(|| AckMessageError { message: "the message was not handled".to_owned() }),
            },
        };
        let socket = Arc::clone(&self.socket);
        Ok(Box::new(Task::spawn(|stop| receiving.run(socket, handler, stop, alive))))
    }

    async fn ping(&self) -> Result<(), BlockError> {
        self.shutdown.check()?;
        match self.socket.call(async |channel| client(channel).ping(PingRequest {}).await).await {
            Err(status) if status.code() != Code::Unimplemented => Err(error(&status)),
            _ => Ok(()),
        }
    }

    async fn close(&self) {
        self.shutdown.shut_down(STOP_DEADLINE + Duration::from_secs(1)).await;
        self.socket.close().await;
    }
}

fn message(received: PullMessagesResponse) -> (Message, String) {
    let PullMessagesResponse { data, topic_name, metadata, content_type, id } = received;
    let content_type = Some(content_type).filter(|content_type| !content_type.is_empty());
    (Message { topic: topic_name, data, content_type, metadata }, id)
}
