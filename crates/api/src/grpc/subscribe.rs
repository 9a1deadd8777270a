//! Topics on a stream (`SubscribeTopicEventsAlpha1`): a program subscribes without a port of its own.
//!
//! The client's first message names the topic; then each event goes down the stream, and its verdict comes up,
//! in any order. An event whose verdict does not come, because the client goes or takes too long, is delivered
//! again. What a message goes through before it comes here is the same as for every subscription
//! ([`dhow_host::triggers`]).

use super::Service;
use crate::callback;
use crate::dapr::error::{ApiError, Grpc};
use crate::proto::runtime::v1::subscribe_topic_events_request_alpha1::SubscribeTopicEventsRequestType as Up;
use crate::proto::runtime::v1::subscribe_topic_events_response_alpha1::SubscribeTopicEventsResponseType as Down;
use crate::proto::runtime::v1::topic_event_response::TopicEventResponseStatus as Verdict;
use crate::proto::runtime::v1::{
    SubscribeTopicEventsRequestAlpha1, SubscribeTopicEventsRequestInitialAlpha1,
    SubscribeTopicEventsRequestProcessedAlpha1, SubscribeTopicEventsResponseAlpha1,
    SubscribeTopicEventsResponseInitialAlpha1,
};
use async_trait::async_trait;
use dhow_blocks::events::Running;
use dhow_blocks::scope::{PublishError, Scope};
use dhow_host::Host;
use dhow_host::triggers::SubscribeError;
use dhow_host::triggers::delivery::{NotTaken, Sink, TopicEvent};
use dhow_host::triggers::subscription::{Origin, Routes, Subscription};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use http::StatusCode;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::{Status, Streaming};

/// Events of one stream without a verdict; more wait at the broker.
const IN_FLIGHT: usize = 1000;

/// A client has this long to say what it subscribes to.
pub(crate) const FIRST_MESSAGE: Duration = Duration::from_secs(30);

/// A client has this long for the verdict on an event.
const VERDICT: Duration = Duration::from_secs(300);

type Message = Result<SubscribeTopicEventsResponseAlpha1, Status>;
type Requests = Streaming<SubscribeTopicEventsRequestAlpha1>;

/// Puts events on a stream and waits for their verdicts.
struct ToStream {
    events: mpsc::Sender<Message>,
    in_flight: Arc<InFlight>,
}

/// Events without a verdict. Shared by the sink, which adds, and the reader of the stream, which removes.
struct InFlight {
    places: Semaphore,
    /// By id; an event that was delivered again has the id of its first delivery.
    waiting: Mutex<HashMap<String, Vec<oneshot::Sender<Verdict>>>>,
}

/// An event that waits for its verdict; not any longer when this is dropped.
struct Awaited<'a> {
    in_flight: &'a InFlight,
    id: String,
    answer: oneshot::Receiver<Verdict>,
}

/// Everything that ends with a stream.
struct Session {
    host: Weak<Host>,
    scope: Arc<Scope>,
    pubsub: String,
    topic: String,
    in_flight: Arc<InFlight>,
    running: Box<dyn Running>,
}

/// Begins a stream; its first message says that the subscription is in force.
pub(crate) async fn subscribe(
    service: &Service,
    mut requests: Requests,
) -> Result<BoxStream<'static, Message>, Status> {
    let first = tokio::time::timeout(FIRST_MESSAGE, requests.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no initial_request came in time"))??;
    let Some(Up::InitialRequest(request)) = first.and_then(|first| first.subscribe_topic_events_request_type)
    else {
        return Err(Status::invalid_argument("the first message of the stream must be an initial_request"));
    };
    let SubscribeTopicEventsRequestInitialAlpha1 { pubsub_name: pubsub, topic, metadata, dead_letter_topic } =
        request;
    if pubsub.is_empty() || topic.is_empty() {
        return Err(service.status(&ApiError::publish_name(&pubsub)));
    }
    let (events, received) = mpsc::channel(IN_FLIGHT);
    let in_flight = Arc::new(InFlight { places: Semaphore::new(IN_FLIGHT), waiting: Mutex::default() });
    let initial = Down::InitialResponse(SubscribeTopicEventsResponseInitialAlpha1 {});
    // There is room: nothing was sent yet.
    let _ = events.try_send(Ok(message(initial)));
    let sink = Arc::new(ToStream { events, in_flight: Arc::clone(&in_flight) });
    let subscription = Subscription {
        origin: Origin::Streaming,
        pubsub: pubsub.clone(),
        topic: topic.clone(),
        metadata,
        routes: Routes::default(),
        dead_letter: dead_letter_topic.filter(|topic| !topic.is_empty()),
        bulk: None,
    };
    let host = service.api.host().ok_or_else(|| Status::unavailable("the host is shutting down"))?;
    let running = host.triggers().stream(&host, &service.scope, subscription, sink).await;
    let running = running.map_err(|error| service.status(&refused(&pubsub, &topic, error)))?;
    let scope = Arc::clone(&service.scope);
    let session = Session { host: Arc::downgrade(&host), scope, pubsub, topic, in_flight, running };
    // Dropped with the stream, whoever ends it.
    let (open, gone) = oneshot::channel::<()>();
    tokio::spawn(session.run(requests, gone));
    let events = stream::unfold((received, open), |(mut received, open)| async {
        received.recv().await.map(|event| (event, (received, open)))
    });
    Ok(events.boxed())
}

fn message(kind: Down) -> SubscribeTopicEventsResponseAlpha1 {
    SubscribeTopicEventsResponseAlpha1 { subscribe_topic_events_response_type: Some(kind) }
}

fn refused(pubsub: &str, topic: &str, error: SubscribeError) -> ApiError {
    match error {
        SubscribeError::Scope(error) => ApiError::scope(&error),
        SubscribeError::Forbidden { topic: of, app_id } => {
            ApiError::publish(pubsub, topic, &PublishError::Forbidden { topic: of, app_id })
        }
        SubscribeError::Provider(error) => {
            let message = format!("failed to subscribe to topic {topic} in pubsub {pubsub}: {error}");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            ApiError::new(status, Grpc::Internal, "ERR_PUBSUB_SUBSCRIBE", message)
        }
    }
}

// === impl Session ===

impl Session {
    /// Takes verdicts until the client or the broker ends the stream, then ends the subscription.
    async fn run(self, mut requests: Requests, mut gone: oneshot::Receiver<()>) {
        loop {
            let request = tokio::select! {
                request = requests.message() => request,
                _ = &mut gone => break,
            };
            match request.map(|request| request.and_then(|found| found.subscribe_topic_events_request_type)) {
                Ok(Some(Up::EventProcessed(processed))) => self.in_flight.settle(processed),
                // The end, in order or not, or a second beginning.
                Ok(None | Some(Up::InitialRequest(_))) | Err(_) => break,
            }
        }
        // Handlers that wait answer now, or stopping would wait for them.
        self.in_flight.places.close();
        self.in_flight.waiting.lock().clear();
        self.running.stop().await;
        if let Some(host) = self.host.upgrade() {
            host.triggers().stream_ended(&self.scope.app_id, &self.pubsub, &self.topic);
        }
    }
}

// === impl InFlight ===

impl InFlight {
    fn settle(&self, processed: SubscribeTopicEventsRequestProcessedAlpha1) {
        let SubscribeTopicEventsRequestProcessedAlpha1 { id, status } = processed;
        // A number that this version does not know is no success.
        let verdict = Verdict::try_from(status.unwrap_or_default().status).unwrap_or(Verdict::Retry);
        let mut waiting = self.waiting.lock();
        let Some(of_id) = waiting.get_mut(&id) else { return };
        if !of_id.is_empty() {
            let _ = of_id.remove(0).send(verdict);
        }
        if of_id.is_empty() {
            waiting.remove(&id);
        }
    }

    /// `None` when the stream has ended.
    fn wait_for(&self, id: &str) -> Option<Awaited<'_>> {
        let (verdict, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        // Looked at under the lock, which the end of the stream takes after closing.
        if self.places.is_closed() {
            return None;
        }
        waiting.entry(id.to_owned()).or_default().push(verdict);
        Some(Awaited { in_flight: self, id: id.to_owned(), answer })
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.answer.close();
        let mut waiting = self.in_flight.waiting.lock();
        if let Some(of_id) = waiting.get_mut(&self.id) {
            of_id.retain(|verdict| !verdict.is_closed());
            if of_id.is_empty() {
                waiting.remove(&self.id);
            }
        }
    }
}

// === impl ToStream ===

#[async_trait]
impl Sink for ToStream {
    async fn take(&self, event: TopicEvent) -> Result<(), NotTaken> {
        let retry = |reason: &str| NotTaken::Retry { reason: reason.to_owned(), code: None };
        let ended = || retry("the stream ended");
        let request =
            callback::topic_event(&event.envelope, Some(&event.of)).map_err(|reason| retry(&reason))?;
        let exchange = async {
            let _place = self.in_flight.places.acquire().await.map_err(|_| ended())?;
            let mut awaited = self.in_flight.wait_for(&request.id).ok_or_else(ended)?;
            self.events.send(Ok(message(Down::EventMessage(request)))).await.map_err(|_| ended())?;
            match (&mut awaited.answer).await {
                Ok(Verdict::Success) => Ok(()),
                Ok(Verdict::Drop) => Err(NotTaken::Drop),
                Ok(Verdict::Retry) => Err(retry("it answered status RETRY")),
                Err(_) => Err(ended()),
            }
        };
        let verdict = tokio::time::timeout(VERDICT, exchange).await;
        verdict.unwrap_or_else(|_| Err(retry(&format!("no verdict came within {VERDICT:?}"))))
    }
}
