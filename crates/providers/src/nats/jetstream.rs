//! `pubsub.jetstream`: topics are subjects, kept by a stream.
//!
//! As in Dapr, the stream is the one that covers the subject, or the one that `streamName` names. Unlike in
//! Dapr, a missing stream is made: of the name `streamName`, or of the topic's own, for this subject alone,
//! without a limit, in files (`memoryStorage`: in memory), with `replicas` copies.

use super::consumer::{self, Start};
use super::{Connection, REQUEST_TIMEOUT, as_name, is_header, late};
use crate::deliveries::PARALLEL;
use crate::metadata::ComponentSpec;
use crate::registry::{Open, OpenError, Provider};
use crate::task::Task;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::context::{
    Context, ContextBuilder, CreateStreamErrorKind, GetStreamByNameErrorKind, PublishAckFuture, PublishError,
    PublishErrorKind,
};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config as StreamConfig, StorageType};
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Running, value};
use dhow_blocks::pubsub::{Feature, Message, Outgoing, PubSub, Subscribe};
use std::sync::Arc;
use std::time::Duration;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "pubsub.jetstream",
    aliases: &[],
    versions: &["v1"],
    fields: FIELDS,
    open: Open::PubSub(|component, _| {
        Box::pin(async move { Ok(Arc::new(JetStream::open(&component).await?) as Arc<dyn PubSub>) })
    }),
};

const FIELDS: &[&str] = super::fields!(
    "streamName",
    "durableName",
    "queueGroupName",
    "startSequence",
    "startTime",
    "deliverPolicy",
    "flowControl",
    "ackWait",
    "maxDeliver",
    "backOff",
    "maxAckPending",
    "replicas",
    "memoryStorage",
    "rateLimit",
    "heartbeat",
    "ackPolicy",
    "domain",
    "apiPrefix",
    "concurrency",
    "concurrencyMode"
);

/// The message's identity, by which the server drops a repetition (<https://docs.nats.io>, "Message Deduplication").
const MESSAGE_ID: &str = "Nats-Msg-Id";
pub(super) const CONTENT_TYPE: &str = "Content-Type";

/// Receiving begins, with all that it needs on the server, within this time.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(20);

/// What a component says about its subscriptions and streams.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) stream: Option<String>,
    pub(super) durable: Option<String>,
    pub(super) group: Option<String>,
    pub(super) deliver: DeliverPolicy,
    pub(super) ack: AckPolicy,
    /// The server's own (30 s) unless given.
    pub(super) ack_wait: Option<Duration>,
    /// Deliveries of one message; no limit unless given.
    pub(super) max_deliver: Option<i64>,
    pub(super) back_off: Vec<Duration>,
    pub(super) max_ack_pending: Option<i64>,
    pub(super) replicas: usize,
    pub(super) memory: bool,
    /// Handler calls at once.
    pub(super) limit: usize,
}

/// An open component.
struct JetStream {
    connection: Arc<Connection>,
    streams: Streams,
}

/// The streams of a server, found or made.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) context: Context,
    pub(super) options: Arc<Options>,
}

// === impl Options ===

impl Options {
    fn of(component: &ComponentSpec) -> Result<Options, OpenError> {
        let text = |name: &str| component.field(&[name]).map(str::to_owned);
        let number = |name, largest| component.number(&[name], largest, "a whole number");
        for field in ["flowControl", "heartbeat", "rateLimit", "startSequence", "startTime"] {
            let used = match field {
                "startSequence" => text("deliverPolicy").as_deref() == Some("sequence"),
                "startTime" => text("deliverPolicy").as_deref() == Some("time"),
                _ => false,
            };
            if component.field(&[field]).is_some_and(|value| value != "false" && value != "0") && !used {
                tracing::warn!(
                    component = component.name,
                    "metadata field {field} has no effect: dhow asks the server for as many messages as it handles"
                );
            }
        }
        let deliver = match text("deliverPolicy").as_deref() {
            None | Some("all") => DeliverPolicy::All,
            Some("last") => DeliverPolicy::Last,
            Some("new") => DeliverPolicy::New,
            Some("sequence") => DeliverPolicy::ByStartSequence {
                start_sequence: number("startSequence", u64::MAX)?.ok_or_else(|| {
                    component.invalid(&["startSequence"], "given with deliverPolicy sequence")
                })?,
            },
            Some("time") => {
                let expected = "seconds since 1970, with deliverPolicy time";
                // The year 9999, beyond which no date can be written.
                let seconds = component.number(&["startTime"], 253_402_300_799, expected)?;
                let nanoseconds = seconds.map(|seconds| i128::from(seconds) * 1_000_000_000);
                let time = nanoseconds.and_then(|time| async_nats::datetime::from_nanos(time).ok());
                let start_time = time.ok_or_else(|| component.invalid(&["startTime"], expected))?;
                DeliverPolicy::ByStartTime { start_time }
            }
            Some(_) => {
                return Err(component.invalid(&["deliverPolicy"], "one of all, last, new, sequence, time"));
            }
        };
        let ack = match text("ackPolicy").as_deref() {
            Some("all") => AckPolicy::All,
            Some("none") => AckPolicy::None,
            _ => AckPolicy::Explicit,
        };
        let single = component.is_single(true)?;
        let largest = i64::MAX.unsigned_abs();
        let count =
            |name| number(name, largest).map(|number| number.and_then(|number| i64::try_from(number).ok()));
        Ok(Options {
            stream: text("streamName"),
            durable: text("durableName"),
            group: text("queueGroupName"),
            deliver,
            ack,
            ack_wait: component.duration(&["ackWait"])?.filter(|wait| !wait.is_zero()),
            max_deliver: count("maxDeliver")?.filter(|count| *count > 0),
            back_off: back_off(component)?,
            max_ack_pending: count("maxAckPending")?.filter(|count| *count > 0),
            replicas: number("replicas", 5)?.and_then(|replicas| usize::try_from(replicas).ok()).unwrap_or(0),
            memory: component.truthy(&["memoryStorage"]),
            limit: if single { 1 } else { PARALLEL },
        })
    }
}

/// `1s, 5s, 1m`, perhaps in brackets.
fn back_off(component: &ComponentSpec) -> Result<Vec<Duration>, OpenError> {
    let text = component.field(&["backOff"]).unwrap_or_default();
    let text = text.trim().trim_start_matches('[').trim_end_matches(']');
    let mut waits = Vec::new();
    for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
        let wait = crate::metadata::parse_duration(part);
        waits.push(wait.ok_or_else(|| component.invalid(&["backOff"], "durations such as 1s, 5s, 1m"))?);
    }
    Ok(waits)
}

// === impl JetStream ===

impl JetStream {
    async fn open(component: &ComponentSpec) -> Result<JetStream, OpenError> {
        let options = Options::of(component)?;
        let connection = Connection::open(component, "dapr.io - pubsub.jetstream").await?;
        let builder = ContextBuilder::new().timeout(REQUEST_TIMEOUT).ack_timeout(REQUEST_TIMEOUT);
        let client = connection.client.clone();
        let context = match (component.field(&["apiPrefix"]), component.field(&["domain"])) {
            (Some(prefix), _) => builder.api_prefix(prefix).build(client),
            (None, Some(domain)) => builder.domain(domain).build(client),
            (None, None) => builder.build(client),
        };
        let streams = Streams { context, options: Arc::new(options) };
        Ok(JetStream { connection: Arc::new(connection), streams })
    }

    /// Sends a message; the answer is yet to come.
    async fn send(&self, message: &Outgoing) -> Result<PublishAckFuture, BlockError> {
        self.connection.check()?;
        let mut publish = PublishMessage::build().payload(message.data.clone());
        let given = value(&message.metadata, MESSAGE_ID).map(str::to_owned);
        if let Some(id) = given.or_else(|| cloud_event_id(&message.data)).filter(|id| is_header(id)) {
            publish = publish.message_id(id);
        }
        if let Some(content_type) = message.content_type.as_deref().filter(|text| is_header(text)) {
            publish = publish.header(CONTENT_TYPE, content_type);
        }
        self.streams.context.send_publish(message.topic.clone(), publish).await.map_err(failed)
    }

    /// Waits for the answer; where no stream takes the topic, makes one and sends again.
    async fn confirmed(&self, message: &Outgoing, answer: PublishAckFuture) -> Result<(), BlockError> {
        match answer.await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == PublishErrorKind::StreamNotFound => {
                self.streams.find_or_make(&message.topic).await?;
                self.send(message).await?.await.map(|_| ()).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

#[async_trait]
impl PubSub for JetStream {
    fn features(&self) -> &'static [Feature] {
        &[Feature::SubscribeWildcards, Feature::BulkPublish]
    }

    async fn publish(&self, message: Outgoing) -> Result<(), BlockError> {
        let answer = self.send(&message).await?;
        self.confirmed(&message, answer).await
    }

    async fn publish_many(&self, messages: Vec<Outgoing>) -> Vec<Result<(), BlockError>> {
        let mut answers = Vec::with_capacity(messages.len());
        for message in &messages {
            answers.push(self.send(message).await);
        }
        let confirmed = messages
            .iter()
            .zip(answers)
            .map(|(message, answer)| async move { self.confirmed(message, answer?).await });
        futures::future::join_all(confirmed).await
    }

    async fn subscribe(
        &self,
        subscribe: Subscribe,
        handler: Arc<dyn Handler<Message>>,
    ) -> Result<Box<dyn Running>, BlockError> {
        let alive = self.connection.shutdown.alive()?;
        self.connection.check()?;
        let start = Start::of(self.streams.clone(), subscribe)?;
        let consumer =
            tokio::time::timeout(SUBSCRIBE_TIMEOUT, start.consumer()).await.map_err(|_| late())??;
        let connection = Arc::clone(&self.connection);
        Ok(Box::new(Task::spawn(|stop| consumer::receive(connection, start, consumer, handler, stop, alive))))
    }

    async fn ping(&self) -> Result<(), BlockError> {
        self.connection.check()?;
        // Any answer will do: servers differ in what they tell about an account.
        let answer = self.streams.context.request::<_, _, serde_json::Value>("INFO", &()).await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) => Err(BlockError::unavailable(format!("JetStream: {error}"))),
        }
    }

    async fn close(&self) {
        self.connection.close().await;
    }
}

// === impl Streams ===

impl Streams {
    /// The name of the stream that keeps the topic.
    pub(super) async fn find_or_make(&self, topic: &str) -> Result<String, BlockError> {
        if let Some(name) = &self.options.stream
            && self.context.get_stream(name).await.is_ok()
        {
            return Ok(name.clone());
        }
        let found = match &self.options.stream {
            Some(_) => None,
            None => self.find(topic).await?,
        };
        match found {
            Some(name) => Ok(name),
            None => self.make(topic).await,
        }
    }

    async fn find(&self, topic: &str) -> Result<Option<String>, BlockError> {
        match self.context.stream_by_subject(topic).await {
            Ok(name) => Ok(Some(name)),
            Err(error) => match error.kind() {
                GetStreamByNameErrorKind::NotFound => Ok(None),
                GetStreamByNameErrorKind::InvalidSubject => Err(invalid_topic(topic)),
                _ => Err(BlockError::unavailable(format!(
                    "JetStream: {error}; is it enabled (nats-server --jetstream)?"
                ))),
            },
        }
    }

    async fn make(&self, topic: &str) -> Result<String, BlockError> {
        let name = self.options.stream.clone().unwrap_or_else(|| as_name(topic));
        let config = StreamConfig {
            name: name.clone(),
            subjects: vec![topic.to_owned()],
            storage: if self.options.memory { StorageType::Memory } else { StorageType::File },
            num_replicas: self.options.replicas.max(1),
            description: Some("made by dhow for a topic that no stream covered".to_owned()),
            ..StreamConfig::default()
        };
        match self.context.create_stream(config).await {
            Ok(_) => {
                tracing::info!("made the JetStream stream {name:?} for the topic {topic:?}");
                Ok(name)
            }
            Err(error) => {
                // Another host was faster.
                if let Ok(Some(found)) = self.find(topic).await {
                    return Ok(found);
                }
                let reason =
                    format!("the stream {name:?} for the topic {topic:?} could not be made: {error}");
                Err(match error.kind() {
                    CreateStreamErrorKind::TimedOut | CreateStreamErrorKind::Response => {
                        BlockError::unavailable(reason)
                    }
                    _ => BlockError::failed(reason),
                })
            }
        }
    }
}

/// The `id` of a CloudEvent in JSON. Dapr takes the `id` of any JSON object, and with it makes two raw
/// messages about one order into one; here it has to be an event.
fn cloud_event_id(data: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Event {
        specversion: String,
        id: String,
    }
    let event: Event = serde_json::from_slice(data).ok()?;
    (!event.specversion.is_empty() && !event.id.is_empty()).then_some(event.id)
}

fn invalid_topic(topic: &str) -> BlockError {
    BlockError::invalid(format!(
        "topic {topic:?} is not a NATS subject: words of no space, with dots between"
    ))
}

fn failed(error: PublishError) -> BlockError {
    let reason = format!("JetStream: {error}");
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => {
            BlockError::invalid(format!("{reason}; raise max_payload in the server's configuration"))
        }
        PublishErrorKind::TimedOut => late(),
        PublishErrorKind::BrokenPipe | PublishErrorKind::MaxAckPending | PublishErrorKind::StreamNotFound => {
            BlockError::unavailable(reason)
        }
        PublishErrorKind::WrongLastMessageId | PublishErrorKind::WrongLastSequence => {
            BlockError::failed(reason)
        }
        PublishErrorKind::Other => BlockError::failed(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(metadata: &[(&str, &str)]) -> ComponentSpec {
        let metadata =
            metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ComponentSpec { metadata, ..ComponentSpec::default() }
    }

    #[test]
    fn fields_have_daprs_defaults_and_meaning() {
        let options = Options::of(&component(&[])).unwrap();
        assert_eq!(
            (options.deliver, options.ack, options.limit),
            (DeliverPolicy::All, AckPolicy::Explicit, 1)
        );
        let options = Options::of(&component(&[
            ("deliverPolicy", "sequence"),
            ("startSequence", "7"),
            ("ackPolicy", "none"),
            ("backOff", "[50ms, 1s, 1m]"),
            ("concurrency", "parallel"),
            ("ackWait", "2s"),
        ]))
        .unwrap();
        assert_eq!(options.deliver, DeliverPolicy::ByStartSequence { start_sequence: 7 });
        assert_eq!((options.ack, options.limit), (AckPolicy::None, PARALLEL));
        assert_eq!(options.back_off, [50, 1_000, 60_000].map(Duration::from_millis));
        assert_eq!(options.ack_wait, Some(Duration::from_secs(2)));
        let time =
            Options::of(&component(&[("deliverPolicy", "time"), ("startTime", "1700000000")])).unwrap();
        assert!(matches!(time.deliver, DeliverPolicy::ByStartTime { .. }));
        for (field, value) in [
            ("deliverPolicy", "newest"),
            ("deliverPolicy", "sequence"),
            ("deliverPolicy", "time"),
            ("ackWait", "soon"),
            ("backOff", "1s, soon"),
            ("maxDeliver", "-1"),
            ("replicas", "99"),
            ("concurrency", "two"),
        ] {
            assert!(Options::of(&component(&[(field, value)])).is_err(), "{field}: {value}");
        }
    }

    #[test]
    fn only_events_have_an_identity() {
        for (data, expected) in [
            (r#"{"specversion": "1.0", "id": "7", "data": {}}"#, Some("7")),
            (r#"{"id": "7", "state": "paid"}"#, None),
            (r#"{"specversion": "1.0", "id": 7}"#, None),
            (r#"{"specversion": "1.0", "id": ""}"#, None),
            ("7", None),
            ("", None),
        ] {
            assert_eq!(cloud_event_id(data.as_bytes()).as_deref(), expected, "{data}");
        }
    }
}
