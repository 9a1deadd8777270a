//! `bindings.rabbitmq`: puts messages into a queue, and takes them out.

use super::Connection;
use super::consumer::{Consuming, headers};
use super::publisher::{Publisher, Target, confirmed, expiration, priority};
use super::topology::Queue;
use crate::deliveries::PARALLEL;
use crate::metadata::ComponentSpec;
use crate::registry::{Open, OpenError, Provider};
use async_trait::async_trait;
use dhow_blocks::binding::{Binding, BindingEvent, BindingRequest, BindingResponse};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Running, value};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use std::sync::Arc;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "bindings.rabbitmq",
    aliases: &[],
    versions: &["v1"],
    fields: FIELDS,
    open: Open::Binding(|component, _| {
        Box::pin(async move { Ok(Arc::new(RabbitMq::open(&component).await?) as Arc<dyn Binding>) })
    }),
};

const FIELDS: &[&str] = &[
    "host",
    "connectionString",
    "queueName",
    "durable",
    "deleteWhenUnused",
    "ttlInSeconds",
    "prefetchCount",
    "exclusive",
    "maxPriority",
    "contentType",
    "reconnectWaitInSeconds",
    "externalSasl",
    "saslExternal",
    "caCert",
    "clientCert",
    "clientKey",
    "clientName",
    "heartBeat",
    "concurrency",
    "concurrencyMode",
];

/// An open component.
struct RabbitMq {
    connection: Arc<Connection>,
    publisher: Publisher,
    queue: Queue,
    /// Of messages that name none.
    content_type: String,
    limit: usize,
    prefetch: u16,
}

// === impl RabbitMq ===

impl RabbitMq {
    async fn open(component: &ComponentSpec) -> Result<RabbitMq, OpenError> {
        const NUMBER: &str = "a whole number";
        if component.field(&["host", "connectionString"]).is_none() {
            return Err(
                component.invalid(&["host"], "given: an address such as amqp://user:password@localhost:5672")
            );
        }
        let name = component.field(&["queueName"]).filter(|name| name.len() <= 255);
        let name = name.ok_or_else(|| component.invalid(&["queueName"], "a name of at most 255 bytes"))?;
        let mut arguments = Vec::new();
        if let Some(ttl) = component.duration(&["ttlInSeconds"])?.filter(|ttl| !ttl.is_zero()) {
            let milliseconds = u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX);
            arguments.push(("x-message-ttl", AMQPValue::LongLongInt(milliseconds.into())));
        }
        if let Some(priority) = component.number(&["maxPriority"], u64::MAX, NUMBER)? {
            let priority = u8::try_from(priority).unwrap_or(u8::MAX);
            arguments.push(("x-max-priority", AMQPValue::ShortShortUInt(priority)));
        }
        let queue = Queue {
            name: name.to_owned(),
            durable: component.truthy(&["durable"]),
            exclusive: component.truthy(&["exclusive"]),
            auto_delete: component.truthy(&["deleteWhenUnused"]),
            arguments,
            bindings: Vec::new(),
            dead_letters: None,
        };
        // As in Dapr, where the events of a binding come one after another.
        let limit = if component.is_single(true)? { 1 } else { PARALLEL };
        let prefetch = component.number(&["prefetchCount"], u16::MAX.into(), NUMBER)?;
        let prefetch = prefetch.and_then(|count| u16::try_from(count).ok()).filter(|count| *count > 0);
        let content_type = component.field(&["contentType"]).unwrap_or("text/plain").to_owned();
        let connection = Arc::new(Connection::open(component).await?);
        let publisher = Publisher::new(Arc::clone(&connection));
        let prefetch = prefetch.unwrap_or(u16::try_from(limit).unwrap_or(u16::MAX));
        Ok(RabbitMq { connection, publisher, queue, content_type, limit, prefetch })
    }

    fn properties(&self, metadata: &Metadata) -> Result<BasicProperties, BlockError> {
        let mut headers = FieldTable::default();
        for (name, text) in metadata {
            let name = super::short(name, "the metadata field")?;
            headers.insert(name, AMQPValue::LongString(text.as_str().into()));
        }
        let content_type = value(metadata, "contentType").unwrap_or(&self.content_type);
        let mut properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type(super::short(content_type, "the content type")?)
            .with_headers(headers);
        if let Some(expiration) = expiration(metadata, None)? {
            properties = properties.with_expiration(expiration);
        }
        if let Some(priority) = priority(metadata)? {
            properties = properties.with_priority(priority);
        }
        Ok(properties)
    }
}

#[async_trait]
impl Binding for RabbitMq {
    fn operations(&self) -> Vec<&str> {
        vec!["create"]
    }

    fn is_input(&self) -> bool {
        true
    }

    async fn invoke(&self, request: BindingRequest) -> Result<BindingResponse, BlockError> {
        let BindingRequest { operation, data, metadata } = request;
        if operation != "create" {
            return Err(BlockError::invalid(format!("operation {operation:?} is not known; use create")));
        }
        let properties = self.properties(&metadata)?;
        let target = Target::Queue(self.queue.clone());
        let confirm = self.publisher.send(&target, &self.queue.name, &data, properties).await?;
        confirmed(confirm).await?;
        Ok(BindingResponse::default())
    }

    async fn read(&self, handler: Arc<dyn Handler<BindingEvent>>) -> Result<Box<dyn Running>, BlockError> {
        let alive = self.connection.subscriptions.alive()?;
        let consuming = Consuming {
            queue: self.queue.clone(),
            limit: self.limit,
            prefetch: self.prefetch,
            auto_ack: false,
            requeue: true,
        };
        Ok(Box::new(consuming.begin(Arc::clone(&self.connection), handler, Box::new(event), alive).await?))
    }

    async fn ping(&self) -> Result<(), BlockError> {
        let connection = self.connection.get()?;
        super::in_time(connection.create_channel()).await.map(|_| ())
    }

    async fn close(&self) {
        self.connection.close().await;
    }
}

/// Headers are written as in the query of a URL, as Dapr does.
fn event(delivery: &Delivery) -> BindingEvent {
    let escaped = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let headers = headers(&delivery.properties);
    let metadata = headers.iter().map(|(name, text)| (escaped(name), escaped(text))).collect();
    BindingEvent { data: delivery.data.clone().into(), metadata }
}
