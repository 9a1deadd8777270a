//! One message on its way to its app: envelope, route, policy, dead letter.
//!
//! What an answer means is Dapr's: 2xx with `{"status": "SUCCESS" | "RETRY" | "DROP"}`, nothing or anything
//! else in it being success; 404 drops; every other code is tried again, first as the inbound policy says, then
//! by the dead-letter topic, and without one by the broker.

use super::subscription::Subscription;
use super::{Taken, Target};
use async_trait::async_trait;
use dhow_blocks::cloud_event::{self, CloudEvent};
use dhow_blocks::events::{Handler, Metadata, Outcome};
use dhow_blocks::invoke::{Body, EventOf, InvokeError, Reply, Trigger};
use dhow_blocks::policy::{Code, Policy, Resilient};
use dhow_blocks::pubsub::{Message, Outgoing, PubSub, is_bare};
use dhow_blocks::scope::Meter;
use dhow_blocks::trace::TraceContext;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Of an app's answer to an event so much is read; the rest cannot matter.
const MAX_ANSWER: usize = 64 << 10;

/// Takes one event of a subscription, with its path.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Hands the event over and says what became of it.
    async fn take(&self, event: TopicEvent) -> Result<(), NotTaken>;
}

/// An event as it goes to an app.
#[derive(Clone, Debug)]
pub struct TopicEvent {
    /// The app's path for it; none on a stream.
    pub path: Option<String>,
    /// What it is of.
    pub of: EventOf,
    /// The envelope in JSON.
    pub envelope: bytes::Bytes,
    /// What the broker told about the message.
    pub metadata: Metadata,
    /// The trace it belongs to.
    pub trace: TraceContext,
}

/// Why an app did not take an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It does not want it.
    Drop,
    /// It could not handle it this time.
    Retry {
        /// What it said.
        reason: String,
        /// Its status code, where it gave one.
        code: Option<Code>,
    },
}

/// Delivers the messages of one subscription.
pub(super) struct Delivery {
    pub(super) target: Target,
    pub(super) subscription: Subscription,
    pub(super) broker: Arc<dyn PubSub>,
    pub(super) policy: Policy,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) meter: Option<Arc<dyn Meter>>,
}

/// Hands events to an app by HTTP.
pub(super) struct ToApp(pub(super) Target);

/// What became of an event, as an app says it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    status: Option<String>,
}

// === impl Delivery ===

#[async_trait]
impl Handler<Message> for Delivery {
    async fn handle(&self, message: Message) -> Outcome {
        let began = Instant::now();
        let (outcome, word) = self.deliver(message).await;
        if let Some(meter) = &self.meter {
            let success = outcome == Outcome::Done && word != "drop";
            meter.record(word, &self.subscription.topic, success, began.elapsed());
        }
        outcome
    }
}

impl Delivery {
    async fn deliver(&self, message: Message) -> (Outcome, &'static str) {
        let (event, path) = match self.open(&message) {
            Ok(opened) => opened,
            Err(Opening::Broken(reason)) => {
                self.warn(&format!("an event cannot be read: {reason}"));
                return self.give_up(&message, Outcome::Again).await;
            }
            Err(Opening::Unwanted(reason)) => {
                self.warn(&format!("an event is dropped: {reason}"));
                return (self.give_up(&message, Outcome::Done).await.0, "drop");
            }
        };
        let event = TopicEvent { path, ..event };
        match self.policy.run(event, |event| self.sink.take(event)).await {
            Ok(()) => (Outcome::Done, "success"),
            Err(NotTaken::Drop) => (self.give_up(&message, Outcome::Done).await.0, "drop"),
            Err(NotTaken::Retry { reason, .. }) => {
                self.warn(&format!("an event was not taken: {reason}"));
                self.give_up(&message, Outcome::Again).await
            }
        }
    }

    fn open(&self, message: &Message) -> Result<(TopicEvent, Option<String>), Opening> {
        let Subscription { pubsub, topic, routes, .. } = &self.subscription;
        let raw = is_bare(self.broker.features(), &self.subscription.metadata);
        let event = if raw {
            cloud_event::wrap_raw(&message.data, pubsub, topic)
        } else {
            CloudEvent::parse(&message.data).map_err(Opening::Broken)?
        };
        if event.is_expired(SystemTime::now()) {
            return Err(Opening::Unwanted("its time to live is over".to_owned()));
        }
        let streams = routes.rules.is_empty() && routes.default.is_none();
        let path = if streams {
            None
        } else {
            let path = routes.path(&event.0).map_err(Opening::Broken)?;
            Some(path.ok_or_else(|| Opening::Unwanted("no route matches it".to_owned()))?.to_owned())
        };
        let trace = event.text("traceparent").or(event.text("traceid")).and_then(TraceContext::parse);
        let trace = trace.map(TraceContext::child).unwrap_or_default();
        // Bytes that came with an envelope go on as they came: numbers keep all their digits.
        let envelope = if raw { event.to_bytes() } else { message.data.clone() };
        let mut metadata = message.metadata.clone();
        metadata.insert("pubsubName".to_owned(), pubsub.clone());
        if let Some(state) = event.text("tracestate").filter(|state| !state.is_empty()) {
            metadata.insert("tracestate".to_owned(), state.to_owned());
        }
        let of = EventOf { component: pubsub.clone(), name: message.topic.clone() };
        Ok((TopicEvent { path: None, of, envelope, metadata, trace }, path))
    }

    /// The last resort: the dead-letter topic, else what the caller says.
    async fn give_up(&self, message: &Message, otherwise: Outcome) -> (Outcome, &'static str) {
        let word = if otherwise == Outcome::Done { "drop" } else { "retry" };
        let Some(topic) = &self.subscription.dead_letter else { return (otherwise, word) };
        if self.target.is_stopping() {
            return (Outcome::Again, "retry");
        }
        let dead = Outgoing {
            topic: topic.clone(),
            data: message.data.clone(),
            content_type: message.content_type.clone(),
            metadata: Metadata::new(),
        };
        match self.broker.publish(dead).await {
            Ok(()) => (Outcome::Done, "drop"),
            Err(error) => {
                self.warn(&format!("an event cannot be put to the dead-letter topic {topic}: {error}"));
                (Outcome::Again, "retry")
            }
        }
    }

    fn warn(&self, what: &str) {
        let Subscription { pubsub, topic, .. } = &self.subscription;
        tracing::warn!(app_id = &*self.target.app_id, pubsub, topic, "{what}");
    }
}

enum Opening {
    Broken(String),
    Unwanted(String),
}

// === impl ToApp ===

#[async_trait]
impl Sink for ToApp {
    async fn take(&self, event: TopicEvent) -> Result<(), NotTaken> {
        let path = event.path.as_deref().unwrap_or("/");
        let mut request = request(path, cloud_event::CONTENT_TYPE, &event.metadata, event.envelope.into())
            .map_err(|reason| NotTaken::Retry { reason, code: None })?;
        request.extensions_mut().insert(event.of);
        let reply = self.0.invoke(request, Trigger::Topic, event.trace).await;
        let reply = reply.map_err(NotTaken::from)?;
        let (status, code) = (reply.status(), Code::of(&reply));
        let body = answer(reply).await;
        match (taken(status), body) {
            (Taken::Yes, Ok(body)) => match serde_json::from_slice::<Answer>(&body) {
                Ok(answer) => answer.verdict(),
                Err(_) => Ok(()),
            },
            (Taken::Yes, Err(reason)) => Err(NotTaken::Retry { reason, code: None }),
            (Taken::Unknown, _) => Err(NotTaken::Drop),
            (Taken::No, _) => {
                Err(NotTaken::Retry { reason: format!("it answered {status}"), code: Some(code) })
            }
        }
    }
}

/// A POST to an app. Metadata that cannot be a header is left out.
pub(super) fn request(
    path: &str,
    content_type: &str,
    metadata: &Metadata,
    body: Body,
) -> Result<Request<Body>, String> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse().map_err(|error| format!("path {path:?}: {error}"))?;
    let headers = request.headers_mut();
    for (name, value) in metadata {
        let hop = ["connection", "content-length", "host", "transfer-encoding", "upgrade"]
            .iter()
            .any(|hop| name.eq_ignore_ascii_case(hop));
        if let (false, Ok(name), Ok(value)) = (hop, HeaderName::try_from(name), HeaderValue::try_from(value))
        {
            headers.insert(name, value);
        }
    }
    if let Ok(content_type) = HeaderValue::try_from(content_type) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    Ok(request)
}

/// The body of an app's answer. One that is too long is as good as none.
pub(super) async fn answer(reply: Reply) -> Result<bytes::Bytes, String> {
    use dhow_blocks::invoke::CollectError;
    match reply.into_body().collect(MAX_ANSWER).await {
        Ok(body) => Ok(body),
        Err(CollectError::TooLarge { .. }) => Ok(bytes::Bytes::new()),
        Err(CollectError::Broken(reason)) => Err(reason),
    }
}

pub(super) fn taken(status: StatusCode) -> Taken {
    match status {
        status if status.is_success() => Taken::Yes,
        StatusCode::NOT_FOUND => Taken::Unknown,
        _ => Taken::No,
    }
}

// === impl Answer ===

impl Answer {
    fn verdict(&self) -> Result<(), NotTaken> {
        match self.status.as_deref() {
            None | Some("" | "SUCCESS") => Ok(()),
            Some("DROP") => Err(NotTaken::Drop),
            Some(other) => {
                Err(NotTaken::Retry { reason: format!("it answered status {other:?}"), code: None })
            }
        }
    }
}

// === impl NotTaken ===

impl From<InvokeError> for NotTaken {
    fn from(error: InvokeError) -> NotTaken {
        NotTaken::Retry { reason: error.to_string(), code: None }
    }
}

impl Resilient for NotTaken {
    fn timed_out(limit: Duration) -> NotTaken {
        NotTaken::Retry { reason: format!("no answer within {limit:?}"), code: None }
    }

    fn circuit_open(breaker: &str) -> NotTaken {
        NotTaken::Retry { reason: format!("circuit breaker {breaker:?} is open"), code: None }
    }

    fn may_pass(&self) -> bool {
        *self != NotTaken::Drop
    }

    fn code(&self) -> Option<Code> {
        match self {
            NotTaken::Retry { code, .. } => *code,
            NotTaken::Drop => None,
        }
    }
}
