//! Messages to topics. [`on_message!`](crate::on_message) takes them.

use crate::wit::pubsub as wit;
use crate::{Metadata, Result};
use serde::Serialize;

/// A broker.
#[derive(Clone, Debug)]
pub struct PubSub {
    name: String,
}

/// A message. It travels in a CloudEvent unless its metadata say `rawPayload`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What it says.
    pub data: Vec<u8>,
    /// Media type of the data; `None`: `text/plain`.
    pub content_type: Option<String>,
    /// `ttlInSeconds`, `rawPayload`, `cloudevent.<name>`, and what the broker understands.
    pub metadata: Metadata,
}

// === impl PubSub ===

impl PubSub {
    /// The broker of this name; without any configuration there is `pubsub`.
    pub fn open(name: impl Into<String>) -> PubSub {
        PubSub { name: name.into() }
    }

    /// Publishes a value as JSON. Success means that the broker has it.
    pub fn publish(&self, topic: &str, value: &(impl Serialize + ?Sized)) -> Result<()> {
        self.publish_message(topic, Message::json(value)?)
    }

    /// Publishes a message.
    pub fn publish_message(&self, topic: &str, message: Message) -> Result<()> {
        Ok(wit::publish(&self.name, topic, &message.into())?)
    }

    /// Publishes several messages, at most 10 000; each has its own answer, in their order.
    pub fn publish_many(&self, topic: &str, messages: Vec<Message>) -> Result<Vec<Result<()>>> {
        let messages: Vec<wit::Message> = messages.into_iter().map(wit::Message::from).collect();
        let answers = wit::publish_many(&self.name, topic, &messages)?;
        Ok(answers.into_iter().map(|answer| answer.map_err(Into::into)).collect())
    }
}

// === impl Message ===

impl Message {
    /// A value as JSON.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Message> {
        let content_type = Some("application/json".to_owned());
        Ok(Message { data: serde_json::to_vec(value)?, content_type, metadata: Vec::new() })
    }
}

impl From<Message> for wit::Message {
    fn from(message: Message) -> wit::Message {
        let Message { data, content_type, metadata } = message;
        wit::Message { data, content_type, metadata }
    }
}
