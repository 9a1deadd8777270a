//! Exchanges and queues. What exists already with other properties is used as it is: Dapr, or an older
//! version of the component, may have declared it.

use super::{in_time, is_different, short};
use dhow_blocks::error::BlockError;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

/// An exchange.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) name: String,
    pub(super) kind: ExchangeKind,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
}

/// A queue.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) name: String,
    pub(super) durable: bool,
    pub(super) exclusive: bool,
    pub(super) auto_delete: bool,
    pub(super) arguments: Vec<(&'static str, AMQPValue)>,
    /// Exchanges that it gets messages from, with the routing key.
    pub(super) bindings: Vec<(Exchange, String)>,
    /// Where messages go that are refused; declared before.
    pub(super) dead_letters: Option<Box<Queue>>,
}

// === impl Exchange ===

impl Exchange {
    /// Declares it. The channel may be another one afterwards.
    pub(super) async fn declare(
        &self,
        connection: &Connection,
        channel: &mut Channel,
    ) -> Result<(), BlockError> {
        let Exchange { name, kind, durable, auto_delete } = self;
        let declare = |channel: Channel, passive| {
            let options = ExchangeDeclareOptions {
                passive,
                durable: *durable,
                auto_delete: *auto_delete,
                ..ExchangeDeclareOptions::default()
            };
            let (name, kind) = (short(name, "the name of the exchange"), kind.clone());
            async move { Ok(channel.exchange_declare(name?, kind, options, FieldTable::default()).await) }
        };
        found_or_made(connection, channel, "exchange", name, declare).await
    }
}

// === impl Queue ===

impl Queue {
    /// Declares it with all that belongs to it. The channel may be another one afterwards.
    pub(super) async fn declare(
        &self,
        connection: &Connection,
        channel: &mut Channel,
    ) -> Result<(), BlockError> {
        let declare = |channel: Channel, passive| {
            let options = QueueDeclareOptions {
                passive,
                durable: self.durable,
                exclusive: self.exclusive,
                auto_delete: self.auto_delete,
                ..QueueDeclareOptions::default()
            };
            let mut arguments = FieldTable::default();
            for (name, value) in &self.arguments {
                arguments.insert((*name).into(), value.clone());
            }
            let name = short(&self.name, "the name of the queue");
            async move { Ok(channel.queue_declare(name?, options, arguments).await.map(|_| ())) }
        };
        if let Some(dead_letters) = &self.dead_letters {
            Box::pin(dead_letters.declare(connection, channel)).await?;
        }
        for (exchange, _) in &self.bindings {
            exchange.declare(connection, channel).await?;
        }
        found_or_made(connection, channel, "queue", &self.name, declare).await?;
        for (exchange, key) in &self.bindings {
            let queue = short(&self.name, "the name of the queue")?;
            let (exchange, key) = (short(&exchange.name, "the topic")?, short(key, "the routing key")?);
            let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
            in_time(channel.queue_bind(queue, exchange, key, options, arguments)).await?;
        }
        Ok(())
    }
}

/// Declares; where it exists with other properties, looks only that it exists.
async fn found_or_made<D, F>(
    connection: &Connection,
    channel: &mut Channel,
    what: &str,
    name: &str,
    declare: D,
) -> Result<(), BlockError>
where
    D: Fn(Channel, bool) -> F,
    F: Future<Output = Result<lapin::Result<()>, BlockError>>,
{
    let late = |_| BlockError::unavailable(format!("RabbitMQ did not answer within {:?}", super::TIMEOUT));
    match tokio::time::timeout(super::TIMEOUT, declare(channel.clone(), false)).await.map_err(late)?? {
        Ok(()) => Ok(()),
        Err(error) if is_different(&error) => {
            tracing::warn!(
                "the {what} {name:?} is used as it is, not as the component describes it: {error}"
            );
            // The broker has closed the channel.
            *channel = in_time(connection.create_channel()).await?;
            let found = tokio::time::timeout(super::TIMEOUT, declare(channel.clone(), true));
            found.await.map_err(late)??.map_err(super::failed)
        }
        Err(error) => Err(super::failed(error)),
    }
}
