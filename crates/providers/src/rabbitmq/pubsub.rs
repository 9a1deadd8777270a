//! `pubsub.rabbitmq`: a topic is an exchange, a consumer's messages wait in the queue `<consumer>-<topic>`.
//!
//! Two defaults are not Dapr's, because there they lose messages: queues are not deleted when nobody listens
//! (`deletedWhenUnused`), and messages are kept on disk (`deliveryMode` 2). Publishing is always confirmed. A
//! message that is not handled goes back into the queue, or to the dead letters if there are any.

use super::Connection;
use super::consumer::{Consuming, told};
use super::publisher::{Publisher, Target, confirmed, expiration, priority};
use super::topology::{Exchange, Queue};
use crate::deliveries::PARALLEL;
use crate::metadata::ComponentSpec;
use crate::registry::{Open, OpenError, Provider};
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Running, value};
use dhow_blocks::pubsub::{Feature, Message, Outgoing, PubSub, Subscribe};
use lapin::message::Delivery;
use lapin::types::AMQPValue;
use lapin::{BasicProperties, ExchangeKind, PublisherConfirm};
use std::sync::Arc;
use std::time::Duration;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "pubsub.rabbitmq",
    aliases: &[],
    versions: &["v1"],
    fields: FIELDS,
    open: Open::PubSub(|component, _| {
        Box::pin(async move { Ok(Arc::new(RabbitMq::open(&component).await?) as Arc<dyn PubSub>) })
    }),
};

const FIELDS: &[&str] = &[
    "connectionString",
    "host",
    "protocol",
    "hostname",
    "username",
    "password",
    "durable",
    "deletedWhenUnused",
    "autoAck",
    "deliveryMode",
    "requeueInFailure",
    "prefetchCount",
    "reconnectWait",
    "reconnectWaitSeconds",
    "concurrency",
    "concurrencyMode",
    "publisherConfirm",
    "enableDeadLetter",
    "maxLen",
    "maxLenBytes",
    "exchangeKind",
    "ttlInSeconds",
    "saslExternal",
    "caCert",
    "clientCert",
    "clientKey",
    "clientName",
    "heartBeat",
    "queueType",
];

const PERSISTENT: u8 = 2;
const NUMBER: &str = "a whole number";

/// What a component says about its exchanges, queues and messages.
#[derive(Clone, Debug)]
struct Options {
    durable: bool,
    auto_delete: bool,
    auto_ack: bool,
    requeue: bool,
    dead_letters: bool,
    delivery_mode: u8,
    kind: ExchangeKind,
    prefetch: u16,
    limit: usize,
    ttl: Option<Duration>,
    max_len: Option<i64>,
    max_bytes: Option<i64>,
    queue_type: Option<String>,
}

/// An open component.
struct RabbitMq {
    connection: Arc<Connection>,
    publisher: Publisher,
    options: Options,
}

// === impl Options ===

impl Options {
    fn of(component: &ComponentSpec) -> Result<Options, OpenError> {
        let kind = match component.field(&["exchangeKind"]) {
            None | Some("fanout") => ExchangeKind::Fanout,
            Some("topic") => ExchangeKind::Topic,
            Some("direct") => ExchangeKind::Direct,
            Some("headers") => ExchangeKind::Headers,
            Some(_) => return Err(component.invalid(&["exchangeKind"], "fanout, topic, direct or headers")),
        };
        let mode =
            component.number(&["deliveryMode"], 2, "2 for messages that are kept on disk, else 0 or 1")?;
        let limit = if component.is_single(false)? { 1 } else { PARALLEL };
        let prefetch = component.number(&["prefetchCount"], u16::MAX.into(), NUMBER)?;
        let prefetch = prefetch.and_then(|count| u16::try_from(count).ok()).filter(|count| *count > 0);
        let largest = i64::MAX.unsigned_abs();
        let count = |name| {
            let number = component.number(&[name], largest, NUMBER);
            number.map(|number| {
                number.and_then(|number| i64::try_from(number).ok()).filter(|number| *number > 0)
            })
        };
        let dead_letters = component.truthy(&["enableDeadLetter"]);
        Ok(Options {
            durable: component.flag(&["durable"], true),
            auto_delete: component.truthy(&["deletedWhenUnused"]),
            auto_ack: component.truthy(&["autoAck"]),
            requeue: component.truthy(&["requeueInFailure"]) || !dead_letters,
            dead_letters,
            delivery_mode: mode.and_then(|mode| u8::try_from(mode).ok()).unwrap_or(PERSISTENT),
            kind,
            // Without a limit, the broker would send whatever it has.
            prefetch: prefetch.unwrap_or(u16::try_from(limit).unwrap_or(u16::MAX)),
            limit,
            ttl: component.duration(&["ttlInSeconds"])?.filter(|ttl| !ttl.is_zero()),
            max_len: count("maxLen")?,
            max_bytes: count("maxLenBytes")?,
            queue_type: component.field(&["queueType"]).map(str::to_owned),
        })
    }

    fn exchange(&self, topic: &str) -> Exchange {
        let Options { kind, durable, auto_delete, .. } = self;
        Exchange { name: topic.to_owned(), kind: kind.clone(), durable: *durable, auto_delete: *auto_delete }
    }

    /// The queue of a subscription, whose metadata decide before the component's.
    fn queue(&self, Subscribe { topic, consumer, metadata }: &Subscribe) -> Result<Queue, BlockError> {
        let given = |name: &str| value(metadata, name).filter(|text| !text.is_empty());
        let number = |name: &str| match given(name).map(str::parse::<u32>) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(i64::from(number))),
            Some(Err(_)) => {
                Err(BlockError::invalid(format!("the metadata field {name} must be a whole number")))
            }
        };
        let name = match given("queueName") {
            Some(name) => name.to_owned(),
            None if consumer.is_empty() => {
                return Err(BlockError::invalid(
                    "a subscription needs a consumerID or the metadata queueName",
                ));
            }
            None => format!("{consumer}-{topic}"),
        };
        let kind = given("queueType").or(self.queue_type.as_deref()).unwrap_or("classic");
        if !matches!(kind, "classic" | "quorum") {
            return Err(BlockError::invalid(format!(
                "the queue type {kind:?} is not known; use classic or quorum"
            )));
        }
        let (max_len, max_bytes) =
            (number("maxLen")?.or(self.max_len), number("maxLenBytes")?.or(self.max_bytes));
        let mut arguments = vec![("x-queue-type", AMQPValue::LongString(kind.into()))];
        let mut limits = Vec::new();
        limits.extend(max_len.map(|number| ("x-max-length", AMQPValue::LongLongInt(number))));
        limits.extend(max_bytes.map(|number| ("x-max-length-bytes", AMQPValue::LongLongInt(number))));
        arguments.extend(limits.clone());
        if let Some(priority) = number("maxPriority")? {
            let priority = u8::try_from(priority).unwrap_or(u8::MAX);
            arguments.push(("x-max-priority", AMQPValue::ShortShortUInt(priority)));
        }
        if given("singleActiveConsumer").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            arguments.push(("x-single-active-consumer", AMQPValue::Boolean(true)));
        }
        let dead_letters = self.dead_letters.then(|| {
            let exchange = format!("dlx-{name}");
            arguments.push(("x-dead-letter-exchange", AMQPValue::LongString(exchange.as_str().into())));
            limits.push(("x-queue-mode", AMQPValue::LongString("lazy".into())));
            let auto_delete = self.auto_delete;
            let exchange =
                Exchange { name: exchange, kind: ExchangeKind::Fanout, durable: true, auto_delete };
            Box::new(Queue {
                name: format!("dlq-{name}"),
                durable: true,
                exclusive: false,
                auto_delete,
                arguments: limits,
                bindings: vec![(exchange, String::new())],
                dead_letters: None,
            })
        });
        let keys = given("routingKey").unwrap_or_default().split(',');
        Ok(Queue {
            name,
            durable: self.durable,
            exclusive: false,
            auto_delete: self.auto_delete,
            arguments,
            bindings: keys.map(|key| (self.exchange(topic), key.to_owned())).collect(),
            dead_letters,
        })
    }

    fn properties(&self, message: &Outgoing) -> Result<BasicProperties, BlockError> {
        let metadata = &message.metadata;
        let text = |name: &str| {
            let text = value(metadata, name).filter(|text| !text.is_empty());
            text.map(|text| super::short(text, name)).transpose()
        };
        let given = match text("contentType")? {
            Some(content_type) => Some(content_type),
            None => message
                .content_type
                .as_deref()
                .map(|text| super::short(text, "the content type"))
                .transpose()?,
        };
        let mut properties = BasicProperties::default().with_delivery_mode(self.delivery_mode);
        if let Some(content_type) = given {
            properties = properties.with_content_type(content_type);
        }
        if let Some(expiration) = expiration(metadata, self.ttl)? {
            properties = properties.with_expiration(expiration);
        }
        if let Some(priority) = priority(metadata)? {
            properties = properties.with_priority(priority);
        }
        if let Some(id) = text("messageId")? {
            properties = properties.with_message_id(id);
        }
        if let Some(id) = text("correlationId")? {
            properties = properties.with_correlation_id(id);
        }
        if let Some(kind) = text("type")? {
            properties = properties.with_type(kind);
        }
        Ok(properties)
    }
}

// === impl RabbitMq ===

impl RabbitMq {
    async fn open(component: &ComponentSpec) -> Result<RabbitMq, OpenError> {
        let options = Options::of(component)?;
        let connection = Arc::new(Connection::open(component).await?);
        let publisher = Publisher::new(Arc::clone(&connection));
        Ok(RabbitMq { connection, publisher, options })
    }

    async fn send(&self, message: &Outgoing) -> Result<PublisherConfirm, BlockError> {
        if message.topic.is_empty() {
            return Err(BlockError::invalid("the topic must not be empty"));
        }
        let target = Target::Exchange(self.options.exchange(&message.topic));
        let key = value(&message.metadata, "routingKey").unwrap_or_default();
        self.publisher.send(&target, key, &message.data, self.options.properties(message)?).await
    }

    async fn confirmed(&self, confirm: PublisherConfirm) -> Result<(), BlockError> {
        let result = confirmed(confirm).await;
        if matches!(result, Err(BlockError::Failed { .. })) {
            // Perhaps somebody deleted the exchange: the next message declares it.
            self.publisher.forget().await;
        }
        result
    }
}

#[async_trait]
impl PubSub for RabbitMq {
    fn features(&self) -> &'static [Feature] {
        &[Feature::MessageTtl]
    }

    async fn publish(&self, message: Outgoing) -> Result<(), BlockError> {
        let confirm = self.send(&message).await?;
        self.confirmed(confirm).await
    }

    async fn publish_many(&self, messages: Vec<Outgoing>) -> Vec<Result<(), BlockError>> {
        let mut sent = Vec::with_capacity(messages.len());
        for message in &messages {
            sent.push(self.send(message).await);
        }
        futures::future::join_all(sent.into_iter().map(|sent| async move { self.confirmed(sent?).await }))
            .await
    }

    async fn subscribe(
        &self,
        subscribe: Subscribe,
        handler: Arc<dyn Handler<Message>>,
    ) -> Result<Box<dyn Running>, BlockError> {
        let alive = self.connection.subscriptions.alive()?;
        if subscribe.topic.is_empty() {
            return Err(BlockError::invalid("the topic of a subscription must not be empty"));
        }
        let Options { limit, prefetch, auto_ack, requeue, .. } = self.options;
        let queue = self.options.queue(&subscribe)?;
        let consuming = Consuming { queue, limit, prefetch, auto_ack, requeue };
        let topic = subscribe.topic;
        let make = move |delivery: &Delivery| message(&topic, delivery);
        Ok(Box::new(consuming.begin(Arc::clone(&self.connection), handler, Box::new(make), alive).await?))
    }

    async fn ping(&self) -> Result<(), BlockError> {
        let connection = self.connection.get()?;
        super::in_time(connection.create_channel()).await.map(|_| ())
    }

    async fn close(&self) {
        self.connection.close().await;
    }
}

fn message(topic: &str, delivery: &Delivery) -> Message {
    let metadata: Metadata = told(&delivery.properties);
    Message {
        topic: topic.to_owned(),
        data: delivery.data.clone().into(),
        content_type: metadata.get("contenttype").cloned(),
        metadata,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(metadata: &[(&str, &str)]) -> Result<Options, OpenError> {
        let metadata =
            metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Options::of(&ComponentSpec { metadata, ..ComponentSpec::default() })
    }

    fn subscribe(metadata: &[(&str, &str)]) -> Subscribe {
        let metadata =
            metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Subscribe { topic: "orders".to_owned(), consumer: "shop".to_owned(), metadata }
    }

    #[test]
    fn queues_are_daprs() {
        let queue = options(&[]).unwrap().queue(&subscribe(&[])).unwrap();
        assert_eq!((queue.name.as_str(), queue.durable, queue.auto_delete), ("shop-orders", true, false));
        assert_eq!(queue.arguments, [("x-queue-type", AMQPValue::LongString("classic".into()))]);
        let [(exchange, key)] = &queue.bindings[..] else { panic!("{queue:?}") };
        assert_eq!(
            (exchange.name.as_str(), &exchange.kind, key.as_str()),
            ("orders", &ExchangeKind::Fanout, "")
        );

        let options =
            options(&[("enableDeadLetter", "true"), ("maxLen", "10"), ("exchangeKind", "topic")]).unwrap();
        let metadata = [("routingKey", "a.*,b"), ("queueType", "quorum"), ("queueName", "mine")];
        let queue = options.queue(&subscribe(&metadata)).unwrap();
        let dead_letters = queue.dead_letters.unwrap();
        assert_eq!((queue.name.as_str(), dead_letters.name.as_str()), ("mine", "dlq-mine"));
        assert_eq!(dead_letters.bindings[0].0.name, "dlx-mine");
        let keys: Vec<_> = queue.bindings.iter().map(|(_, key)| key.as_str()).collect();
        assert_eq!(keys, ["a.*", "b"]);
        for argument in ["x-queue-type", "x-max-length", "x-dead-letter-exchange"] {
            assert!(queue.arguments.iter().any(|(name, _)| *name == argument), "{argument}");
        }
        for (field, value) in [("queueType", "stream"), ("maxLen", "many"), ("maxPriority", "-1")] {
            assert!(options.queue(&subscribe(&[(field, value)])).is_err(), "{field}: {value}");
        }
    }

    #[test]
    fn what_is_not_handled_is_not_lost() {
        for (metadata, expected) in [
            (&[][..], true),
            (&[("requeueInFailure", "false")], true),
            (&[("enableDeadLetter", "true")], false),
            (&[("enableDeadLetter", "true"), ("requeueInFailure", "true")], true),
        ] {
            assert_eq!(options(metadata).unwrap().requeue, expected, "{metadata:?}");
        }
    }

    #[test]
    fn properties_come_from_the_message() {
        let options = options(&[("ttlInSeconds", "5")]).unwrap();
        let message = |metadata: &[(&str, &str)]| Outgoing {
            content_type: Some("application/json".to_owned()),
            metadata: subscribe(metadata).metadata,
            ..Outgoing::default()
        };
        let properties = options.properties(&message(&[])).unwrap();
        assert_eq!(*properties.delivery_mode(), Some(PERSISTENT));
        assert_eq!(*properties.expiration(), Some("5000".into()));
        assert_eq!(*properties.content_type(), Some("application/json".into()));
        let metadata =
            [("ttlInSeconds", "1"), ("priority", "999"), ("messageId", "m"), ("contentType", "a/b")];
        let properties = options.properties(&message(&metadata)).unwrap();
        assert_eq!(*properties.expiration(), Some("1000".into()));
        assert_eq!((*properties.priority(), properties.message_id()), (Some(255), &Some("m".into())));
        assert_eq!(*properties.content_type(), Some("a/b".into()));
        let long = "x".repeat(300);
        for (field, value) in
            [("ttlInSeconds", "0"), ("ttlInSeconds", "x"), ("priority", "-1"), ("type", &long)]
        {
            assert!(options.properties(&message(&[(field, value)])).is_err(), "{field}");
        }
    }
}
