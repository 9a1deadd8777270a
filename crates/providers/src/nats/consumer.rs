//! A subscription: a durable pull consumer, asked for as many messages as there are free handler calls.
//!
//! Nothing waits here unhandled, so that a host that stops leaves nothing behind that others would have to
//! wait for. While a handler runs longer than the server waits for its acknowledgement, the server is told so.

use super::jetstream::{CONTENT_TYPE, Options, Streams};
use super::{Connection, REQUEST_TIMEOUT, as_name};
use crate::backoff::Backoff;
use crate::deliveries::{Deliveries, STOP_DEADLINE};
use crate::shutdown::Alive;
use crate::task::Stop;
use async_nats::connection::State;
use async_nats::jetstream::consumer::pull::{Batch, Config};
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::jetstream::{self, AckKind, ErrorCode};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Outcome};
use dhow_blocks::pubsub::{Message, Subscribe};
use futures::{FutureExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// How long the server keeps a request for messages; then it is asked again.
const REQUEST_EXPIRES: Duration = Duration::from_secs(30);

/// How long the server waits for an acknowledgement unless the component says otherwise.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// What a subscription needs to begin, and to begin again on a server that forgot it.
#[derive(Clone)]
pub(super) struct Start {
    streams: Streams,
    topic: String,
    /// The durable consumer's name.
    name: String,
}

/// Where messages come from at this moment.
enum Source {
    /// The server is to be asked.
    Idle,
    /// The server is to be asked at this instant; the consumer is to be looked for before.
    Later(Instant),
    Asked(Box<Batch>),
}

/// What comes from a source.
enum Next {
    Message(Box<jetstream::Message>),
    /// The server was asked, and has answered.
    Ended,
    Failed(async_nats::Error),
    /// It is time to look for the consumer.
    Due,
}

// === impl Start ===

impl Start {
    pub(super) fn of(streams: Streams, subscribe: Subscribe) -> Result<Start, BlockError> {
        let Subscribe { topic, consumer, .. } = subscribe;
        if topic.is_empty() {
            return Err(BlockError::invalid("the topic of a subscription must not be empty"));
        }
        let Options { durable, group, .. } = &*streams.options;
        let name = match durable {
            Some(name) => name.clone(),
            None => format!("{}={}", as_name(group.as_ref().unwrap_or(&consumer)), as_name(&topic)),
        };
        Ok(Start { streams, topic, name })
    }

    /// Finds or makes the stream and the consumer.
    pub(super) async fn consumer(&self) -> Result<PullConsumer, BlockError> {
        let Start { streams, topic, name } = self;
        let context = &streams.context;
        let stream = streams.find_or_make(topic).await?;
        let existing = match context.get_consumer_from_stream::<Config, _, _>(name, &stream).await {
            Ok(consumer) => Some(consumer),
            Err(error) => match error.kind() {
                ConsumerErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND =>
                {
                    None
                }
                ConsumerErrorKind::InvalidConsumerType => {
                    return Err(BlockError::failed(format!(
                        "the durable consumer {name:?} of stream {stream:?} is a push consumer; \
                         dhow needs a pull consumer: choose another durableName"
                    )));
                }
                ConsumerErrorKind::InvalidName => {
                    return Err(BlockError::invalid(format!(
                        "{name:?} and {stream:?} cannot be the names of a consumer and its stream: \
                         letters, digits, - and _"
                    )));
                }
                _ => return Err(BlockError::unavailable(format!("JetStream: {error}"))),
            },
        };
        if let Some(existing) = &existing {
            let filter = &existing.cached_info().config.filter_subject;
            if filter != topic {
                return Err(BlockError::failed(format!(
                    "the durable consumer {name:?} of stream {stream:?} receives {filter:?}, not {topic:?}; \
                     durableName serves one topic: leave it out, or use one component a topic"
                )));
            }
        }
        match (context.create_consumer_on_stream(self.config(), &stream).await, existing) {
            (Ok(consumer), _) => Ok(consumer),
            (Err(error), Some(existing)) => {
                tracing::warn!("the consumer {name:?} keeps its configuration: {error}");
                Ok(existing)
            }
            (Err(error), None) => {
                let reason = format!("the consumer {name:?} of stream {stream:?} could not be made: {error}");
                Err(match error.kind() {
                    ConsumerErrorKind::TimedOut | ConsumerErrorKind::Request => {
                        BlockError::unavailable(reason)
                    }
                    _ => BlockError::failed(reason),
                })
            }
        }
    }

    fn config(&self) -> Config {
        let options = &*self.streams.options;
        Config {
            durable_name: Some(self.name.clone()),
            deliver_policy: options.deliver,
            ack_policy: options.ack,
            ack_wait: options.ack_wait.unwrap_or_default(),
            max_deliver: options.max_deliver.unwrap_or_default(),
            filter_subject: self.topic.clone(),
            max_ack_pending: options.max_ack_pending.unwrap_or_default(),
            num_replicas: options.replicas,
            memory_storage: options.memory,
            backoff: options.back_off.clone(),
            ..Config::default()
        }
    }

    /// How often the server is told that a message is still being handled.
    fn progress_interval(&self) -> Duration {
        let options = &*self.streams.options;
        let shortest = options.back_off.iter().copied().chain([options.ack_wait.unwrap_or(ACK_WAIT)]).min();
        (shortest.unwrap_or(ACK_WAIT) / 3).max(Duration::from_millis(10))
    }

    /// How long the server keeps a message that was not handled.
    fn delay(&self, message: &jetstream::Message) -> Duration {
        let delivered = message.info().map_or(1, |info| usize::try_from(info.delivered).unwrap_or(1));
        let Options { back_off, ack_wait, .. } = &*self.streams.options;
        let step = back_off.get(delivered.saturating_sub(1)).or(back_off.last());
        // As Dapr does, a component's ackWait is also its pause before a repetition.
        step.copied().or(*ack_wait).unwrap_or_else(|| Backoff::after(delivered))
    }

    async fn settle(&self, message: &jetstream::Message, outcome: Outcome) {
        if self.streams.options.ack == AckPolicy::None {
            return;
        }
        let kind = match outcome {
            Outcome::Done => AckKind::Ack,
            Outcome::Again => AckKind::Nak(Some(self.delay(message))),
        };
        self.tell(message, kind).await;
    }

    /// What does not reach the server is delivered again: bounded, and without an error.
    async fn tell(&self, message: &jetstream::Message, kind: AckKind) {
        if let Ok(Err(error)) = tokio::time::timeout(REQUEST_TIMEOUT, message.ack_with(kind)).await {
            tracing::debug!("an acknowledgement did not leave: {error}");
        }
    }
}

/// Receives until it is stopped.
pub(super) async fn receive(
    connection: Arc<Connection>,
    start: Start,
    mut consumer: PullConsumer,
    handler: Arc<dyn Handler<Message>>,
    mut stop: Stop,
    mut alive: Alive,
) {
    let mut deliveries = Deliveries::new(handler, start.streams.options.limit);
    let mut source = Source::Idle;
    let mut backoff = Backoff::new();
    let mut connects = connection.connects.clone();
    connects.mark_unchanged();
    let mut progress = tokio::time::interval(start.progress_interval());
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if matches!(source, Source::Idle) && deliveries.room() > 0 {
            source = ask(&connection, &consumer, deliveries.room(), &mut backoff).await;
        }
        tokio::select! {
            biased;
            () = alive.ended_or_stopped(&mut stop) => break,
            Some((message, outcome)) = deliveries.next() => start.settle(&message, outcome).await,
            _ = progress.tick(), if !deliveries.is_empty() => {
                for message in deliveries.held() {
                    start.tell(message, AckKind::Progress).await;
                }
            }
            // What was asked of the former server is forgotten.
            Ok(()) = connects.changed() => source = Source::Idle,
            next = next(&mut source) => source = match next {
                Next::Message(message) => {
                    backoff.reset();
                    deliveries.hand_over(event(&message), *message);
                    continue;
                }
                Next::Ended => Source::Idle,
                Next::Failed(error) => {
                    tracing::debug!("the subscription to {:?} is interrupted: {error}", start.topic);
                    Source::Later(Instant::now() + backoff.wait())
                }
                Next::Due => match tokio::time::timeout(REQUEST_TIMEOUT, start.consumer()).await {
                    Ok(Ok(found)) => {
                        consumer = found;
                        Source::Idle
                    }
                    answer => {
                        if let Ok(Err(error)) = answer {
                            tracing::warn!("the subscription to {:?} waits: {error}", start.topic);
                        }
                        Source::Later(Instant::now() + backoff.wait())
                    }
                },
            },
        }
    }
    give_back(&start, source).await;
    let deadline = Instant::now() + STOP_DEADLINE;
    while !deliveries.is_empty() {
        tokio::select! {
            Some((message, outcome)) = deliveries.next() => start.settle(&message, outcome).await,
            _ = progress.tick() => {
                for message in deliveries.held() {
                    start.tell(message, AckKind::Progress).await;
                }
            }
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    for message in deliveries.abandon().await {
        start.tell(&message, AckKind::Nak(None)).await;
    }
    if connection.client.connection_state() == State::Connected {
        let _ = connection.flush(&connection.session()).await;
    }
}

/// Asks for messages; without a connection, a new one will be the time to ask.
async fn ask(connection: &Connection, consumer: &PullConsumer, room: usize, backoff: &mut Backoff) -> Source {
    if connection.client.connection_state() != State::Connected {
        return Source::Later(Instant::now() + backoff.wait());
    }
    let request = consumer.batch().max_messages(room).expires(REQUEST_EXPIRES).messages();
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(batch)) => Source::Asked(Box::new(batch)),
        Ok(Err(_)) | Err(_) => Source::Later(Instant::now() + backoff.wait()),
    }
}

async fn next(source: &mut Source) -> Next {
    match source {
        Source::Idle => std::future::pending().await,
        Source::Later(instant) => {
            tokio::time::sleep_until(*instant).await;
            Next::Due
        }
        Source::Asked(batch) => match batch.next().await {
            Some(Ok(message)) => Next::Message(Box::new(message)),
            Some(Err(error)) => Next::Failed(error),
            None => Next::Ended,
        },
    }
}

/// Messages that came while the subscription was stopped go back at once.
async fn give_back(start: &Start, source: Source) {
    if let Source::Asked(mut batch) = source {
        while let Some(Some(Ok(message))) = batch.next().now_or_never() {
            start.tell(&message, AckKind::Nak(None)).await;
        }
    }
}

fn event(message: &jetstream::Message) -> Message {
    let content_type = message.headers.as_ref().and_then(|headers| headers.get(CONTENT_TYPE));
    let topic = message.subject.to_string();
    Message {
        metadata: Metadata::from([("Topic".to_owned(), topic.clone())]),
        topic,
        data: message.payload.clone(),
        content_type: content_type.map(|value| value.as_str().to_owned()),
    }
}
