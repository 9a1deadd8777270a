//! A channel with confirmations, opened again when it is lost.

use super::topology::{Exchange, Queue};
use super::{Connection, in_time, lost, short};
use bytes::Bytes;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Metadata, value};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Exchanges that are known to exist; more are declared again and again.
const MOST_DECLARED: usize = 10_000;

/// Publishes on one channel.
pub(super) struct Publisher {
    connection: Arc<Connection>,
    open: Mutex<Option<Open>>,
}

/// A channel that confirms.
struct Open {
    channel: Channel,
    /// Names of exchanges and queues that were declared on this connection.
    declared: HashSet<String>,
}

/// What has to exist before a message can go to it.
pub(super) enum Target {
    Exchange(Exchange),
    /// By way of the exchange without a name.
    Queue(Queue),
}

// === impl Publisher ===

impl Publisher {
    pub(super) fn new(connection: Arc<Connection>) -> Publisher {
        Publisher { connection, open: Mutex::new(None) }
    }

    /// Sends a message; the confirmation is yet to come.
    pub(super) async fn send(
        &self,
        target: &Target,
        routing_key: &str,
        data: &Bytes,
        properties: BasicProperties,
    ) -> Result<PublisherConfirm, BlockError> {
        let routing_key = short(routing_key, "the routing key")?;
        let channel = self.channel(target).await?;
        let exchange = match target {
            Target::Exchange(exchange) => short(&exchange.name, "the topic")?,
            Target::Queue(_) => ShortString::default(),
        };
        in_time(channel.basic_publish(
            exchange,
            routing_key,
            BasicPublishOptions::default(),
            data,
            properties,
        ))
        .await
    }

    /// A channel on a connection on which the target was declared.
    async fn channel(&self, target: &Target) -> Result<Channel, BlockError> {
        let connection = self.connection.get()?;
        let waits = tokio::time::timeout(super::TIMEOUT, self.open.lock()).await;
        let mut guard = waits.map_err(|_| lost())?;
        if guard.as_ref().is_some_and(|open| !open.channel.status().connected()) {
            *guard = None;
        }
        let open = match &mut *guard {
            Some(open) => open,
            None => {
                let channel = confirming(&connection).await?;
                guard.insert(Open { channel, declared: HashSet::new() })
            }
        };
        let name = target.name();
        if !open.declared.contains(name) {
            let mut channel = in_time(connection.create_channel()).await?;
            target.declare(&connection, &mut channel).await?;
            let _ = in_time(channel.close(200, ShortString::default())).await;
            if open.declared.len() < MOST_DECLARED {
                open.declared.insert(name.to_owned());
            }
        }
        Ok(open.channel.clone())
    }

    /// Forgets what was declared: it may have been deleted.
    pub(super) async fn forget(&self) {
        if let Ok(mut open) = tokio::time::timeout(super::TIMEOUT, self.open.lock()).await {
            *open = None;
        }
    }
}

/// Waits for the confirmation.
pub(super) async fn confirmed(confirm: PublisherConfirm) -> Result<(), BlockError> {
    match in_time(confirm).await? {
        Confirmation::Ack(_) | Confirmation::NotRequested => Ok(()),
        Confirmation::Nack(_) => {
            Err(BlockError::unavailable("RabbitMQ did not take the message; perhaps a queue is full"))
        }
    }
}

/// The message's own time to live (`ttlInSeconds`), as AMQP writes it: milliseconds.
pub(super) fn expiration(
    metadata: &Metadata,
    default: Option<Duration>,
) -> Result<Option<ShortString>, BlockError> {
    let given = match value(metadata, "ttlInSeconds").map(str::trim).filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => match text.parse::<u32>() {
            Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds.into())),
            _ => {
                return Err(BlockError::invalid(
                    "the metadata field ttlInSeconds must be a whole number above 0",
                ));
            }
        },
    };
    Ok(given.or(default).map(|ttl| ttl.as_millis().min(u32::MAX.into()).to_string().into()))
}

/// The message's priority (`priority`), 0 to 255; larger numbers are 255, as in Dapr.
pub(super) fn priority(metadata: &Metadata) -> Result<Option<u8>, BlockError> {
    match value(metadata, "priority").map(str::trim).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(priority) => Ok(Some(u8::try_from(priority).unwrap_or(u8::MAX))),
            Err(_) => {
                Err(BlockError::invalid("the metadata field priority must be a whole number, 0 to 255"))
            }
        },
    }
}

async fn confirming(connection: &lapin::Connection) -> Result<Channel, BlockError> {
    let channel = in_time(connection.create_channel()).await?;
    in_time(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

// === impl Target ===

impl Target {
    fn name(&self) -> &str {
        match self {
            Target::Exchange(exchange) => &exchange.name,
            Target::Queue(queue) => &queue.name,
        }
    }

    async fn declare(&self, connection: &lapin::Connection, channel: &mut Channel) -> Result<(), BlockError> {
        match self {
            Target::Exchange(exchange) => exchange.declare(connection, channel).await,
            Target::Queue(queue) => queue.declare(connection, channel).await,
        }
    }
}
