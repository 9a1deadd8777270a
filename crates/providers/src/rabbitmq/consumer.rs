//! From a queue to a handler, on a channel of its own.

use super::topology::Queue;
use super::{Connection, TIMEOUT, in_time, short};
use crate::backoff::Backoff;
use crate::deliveries::{Deliveries, STOP_DEADLINE};
use crate::shutdown::Alive;
use crate::task::{Stop, Task};
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Outcome};
use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Acker, BasicProperties, Channel};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A message that was not handled goes back after this time, so that it does not come again in the same instant.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The same for a message that came for more than the first time.
const LATER_PAUSE: Duration = Duration::from_secs(1);

/// What to receive, and how.
#[derive(Clone)]
pub(super) struct Consuming {
    pub(super) queue: Queue,
    /// Handler calls at once.
    pub(super) limit: usize,
    /// Messages that the broker sends without having an acknowledgement of the one before.
    pub(super) prefetch: u16,
    /// Whether messages are acknowledged before they are handled.
    pub(super) auto_ack: bool,
    /// Whether a message that was not handled goes back into the queue; else to the dead letters.
    pub(super) requeue: bool,
}

/// A channel on which messages arrive.
struct Source {
    channel: Channel,
    consumer: lapin::Consumer,
}

/// An event with what is known of its delivery.
struct Delivered<Event> {
    event: Event,
    redelivered: bool,
}

/// Calls a handler, and pauses after a failure.
struct Pausing<Event> {
    handler: Arc<dyn Handler<Event>>,
    stopping: watch::Receiver<bool>,
}

type Make<Event> = Box<dyn Fn(&Delivery) -> Event + Send + Sync>;

// === impl Consuming ===

impl Consuming {
    /// Begins to receive; `make` makes an event of a message.
    pub(super) async fn begin<Event: Send + 'static>(
        self,
        connection: Arc<Connection>,
        handler: Arc<dyn Handler<Event>>,
        make: Make<Event>,
        alive: Alive,
    ) -> Result<Task, BlockError> {
        let source = self.consume(&connection).await?;
        Ok(Task::spawn(|stop| self.receive(connection, source, handler, make, stop, alive)))
    }

    async fn consume(&self, connection: &Connection) -> Result<Source, BlockError> {
        let connection = connection.get()?;
        let mut channel = in_time(connection.create_channel()).await?;
        self.queue.declare(&connection, &mut channel).await?;
        in_time(channel.basic_qos(self.prefetch, BasicQosOptions::default())).await?;
        let queue = short(&self.queue.name, "the name of the queue")?;
        // The broker makes up a tag.
        let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
        let consumer = in_time(channel.basic_consume(queue, tag, options, FieldTable::default())).await?;
        Ok(Source { channel, consumer })
    }

    async fn receive<Event: Send + 'static>(
        self,
        connection: Arc<Connection>,
        source: Source,
        handler: Arc<dyn Handler<Event>>,
        make: Make<Event>,
        mut stop: Stop,
        mut alive: Alive,
    ) {
        let (stopping, stops) = watch::channel(false);
        let mut deliveries = Deliveries::new(Arc::new(Pausing { handler, stopping: stops }), self.limit);
        let mut source = Some(source);
        let mut backoff = Backoff::new();
        let mut again = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = alive.ended_or_stopped(&mut stop) => break,
                Some((acker, outcome)) = deliveries.next() => self.settle(&acker, outcome).await,
                found = self.consume_at(&connection, again), if source.is_none() => match found {
                    Ok(found) => {
                        source = Some(found);
                        backoff.reset();
                    }
                    Err(error) => {
                        if !matches!(error, BlockError::Unavailable { .. }) {
                            tracing::warn!("the subscription to {:?} waits: {error}", self.queue.name);
                        }
                        again = Instant::now() + backoff.wait();
                    }
                },
                delivery = next(&mut source), if deliveries.room() > 0 => match delivery {
                    Some(Delivery { acker, .. }) if !acker.usable() => {}
                    Some(delivery) => {
                        if self.auto_ack {
                            self.tell(&delivery.acker, Outcome::Done).await;
                        }
                        let event = Delivered { event: make(&delivery), redelivered: delivery.redelivered };
                        deliveries.hand_over(event, delivery.acker);
                    }
                    None => {
                        source = None;
                        again = Instant::now() + backoff.wait();
                    }
                },
            }
        }
        stopping.send_replace(true);
        if let Some(Source { channel, consumer }) = &source {
            // From now on the broker sends nothing more.
            let _ = in_time(channel.basic_cancel(consumer.tag(), BasicCancelOptions::default())).await;
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        while let Ok(Some((acker, outcome))) = tokio::time::timeout_at(deadline, deliveries.next()).await {
            self.settle(&acker, outcome).await;
        }
        deliveries.abandon().await;
        if let Some(Source { channel, consumer }) = source {
            // What was not acknowledged goes back into the queue when the channel closes.
            let _ = in_time(channel.close(200, ShortString::default())).await;
            drop(consumer);
        }
    }

    async fn consume_at(&self, connection: &Connection, instant: Instant) -> Result<Source, BlockError> {
        tokio::time::sleep_until(instant).await;
        self.consume(connection).await
    }

    async fn settle(&self, acker: &Acker, outcome: Outcome) {
        if !self.auto_ack {
            self.tell(acker, outcome).await;
        }
    }

    /// What does not reach the broker is delivered again: without an error.
    async fn tell(&self, acker: &Acker, outcome: Outcome) {
        let told = async {
            match outcome {
                Outcome::Done => acker.ack(BasicAckOptions::default()).await,
                Outcome::Again => {
                    acker.nack(BasicNackOptions { multiple: false, requeue: self.requeue }).await
                }
            }
        };
        if let Err(error) = tokio::time::timeout(TIMEOUT, told).await.unwrap_or(Ok(false)) {
            tracing::debug!("an acknowledgement did not leave: {error}");
        }
    }
}

/// The next message; nothing once the channel or the queue is gone.
async fn next(source: &mut Option<Source>) -> Option<Delivery> {
    match source {
        Some(Source { consumer, .. }) => consumer.next().await?.ok(),
        None => std::future::pending().await,
    }
}

/// What the broker tells about a message, under the names that Dapr gives it.
pub(super) fn told(properties: &BasicProperties) -> Metadata {
    let mut metadata = headers(properties);
    let text =
        |text: &Option<ShortString>| text.as_ref().map(ToString::to_string).filter(|text| !text.is_empty());
    for (name, value) in [
        ("messageid", text(properties.message_id())),
        ("correlationid", text(properties.correlation_id())),
        ("type", text(properties.kind())),
        ("contenttype", text(properties.content_type())),
    ] {
        if let Some(value) = value {
            metadata.insert(name.to_owned(), value);
        }
    }
    metadata
}

/// The headers of a message that can be written as text.
pub(super) fn headers(properties: &BasicProperties) -> Metadata {
    let headers = properties.headers().as_ref();
    let headers = headers.into_iter().flat_map(|headers| headers.inner());
    headers.filter_map(|(name, value)| Some((name.to_string(), as_text(value)?))).collect()
}

fn as_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        AMQPValue::Boolean(value) => Some(value.to_string()),
        AMQPValue::ShortShortInt(value) => Some(value.to_string()),
        AMQPValue::ShortShortUInt(value) => Some(value.to_string()),
        AMQPValue::ShortInt(value) => Some(value.to_string()),
        AMQPValue::ShortUInt(value) => Some(value.to_string()),
        AMQPValue::LongInt(value) => Some(value.to_string()),
        AMQPValue::LongUInt(value) => Some(value.to_string()),
        AMQPValue::LongLongInt(value) => Some(value.to_string()),
        AMQPValue::Timestamp(value) => Some(value.to_string()),
        _ => None,
    }
}

// === impl Pausing ===

#[async_trait]
impl<Event: Send + 'static> Handler<Delivered<Event>> for Pausing<Event> {
    async fn handle(&self, Delivered { event, redelivered }: Delivered<Event>) -> Outcome {
        let outcome = self.handler.handle(event).await;
        if outcome == Outcome::Again {
            let mut stopping = self.stopping.clone();
            let pause = if redelivered { LATER_PAUSE } else { FIRST_PAUSE };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // An error means that the subscription is gone.
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        }
        outcome
    }
}
