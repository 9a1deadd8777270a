//! Core NATS, which stores nothing: what the binding and `pubsub.nats` have in common.
//!
//! A message reaches who is listening at that moment. One that is not handled is tried again here, a few times.

use super::{Connection, REQUEST_TIMEOUT};
use crate::backoff::Backoff;
use crate::deliveries::{Deliveries, STOP_DEADLINE};
use crate::shutdown::Alive;
use crate::task::{Stop, Task};
use async_nats::{HeaderMap, Message, Request, RequestErrorKind, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Outcome, Running};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// A message is handed over this often before it is given up.
const ATTEMPTS: usize = 5;

/// Hands an event over again until it is handled.
struct Persistent<Event>(Arc<dyn Handler<Event>>);

// === impl Connection ===

impl Connection {
    /// Publishes; when it returns, the server has the message.
    pub(super) async fn publish(
        &self,
        subject: &str,
        reply_to: Option<&str>,
        headers: HeaderMap,
        data: Bytes,
    ) -> Result<(), BlockError> {
        self.check()?;
        let (client, session, subject) = (&self.client, self.session(), subject.to_owned());
        let sent = async {
            match (reply_to, headers.is_empty()) {
                (None, true) => client.publish(subject, data).await,
                (None, false) => client.publish_with_headers(subject, headers, data).await,
                (Some(reply_to), true) => client.publish_with_reply(subject, reply_to.to_owned(), data).await,
                (Some(reply_to), false) => {
                    let reply_to = reply_to.to_owned();
                    client.publish_with_reply_and_headers(subject, reply_to, headers, data).await
                }
            }
        };
        let sent = timeout(REQUEST_TIMEOUT, sent).await.map_err(|_| super::late())?;
        sent.map_err(|error| BlockError::invalid(format!("NATS: {error}")))?;
        self.flush(&session).await
    }

    /// Publishes and waits for the first answer.
    pub(super) async fn request(
        &self,
        subject: &str,
        headers: HeaderMap,
        data: Bytes,
        limit: Duration,
    ) -> Result<Message, BlockError> {
        self.check()?;
        let mut request = Request::new().payload(data).timeout(Some(limit));
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        let answer = self.client.send_request(subject.to_owned(), request).await;
        answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => {
                BlockError::unavailable(format!("nobody answers requests on the NATS subject {subject:?}"))
            }
            RequestErrorKind::TimedOut => BlockError::unavailable(format!(
                "nobody answered the request on the NATS subject {subject:?} within {limit:?}"
            )),
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                BlockError::invalid(format!("NATS: {error}"))
            }
            RequestErrorKind::Other => BlockError::unavailable(format!("NATS: {error}")),
        })
    }

    /// Begins to receive; all who do so in the group's name share the messages.
    pub(super) async fn receive<Event: Clone + Send + Sync + 'static>(
        &self,
        subject: String,
        group: Option<String>,
        limit: usize,
        handler: Arc<dyn Handler<Event>>,
        event: fn(Message) -> Event,
    ) -> Result<Box<dyn Running>, BlockError> {
        let alive = self.shutdown.alive()?;
        self.check()?;
        let session = self.session();
        let subscriber = match group {
            Some(group) => self.client.queue_subscribe(subject, group).await,
            None => self.client.subscribe(subject).await,
        };
        let subscriber = subscriber.map_err(|error| BlockError::invalid(format!("NATS: {error}")))?;
        self.flush(&session).await?;
        let deliveries = Deliveries::new(Arc::new(Persistent(handler)), limit);
        Ok(Box::new(Task::spawn(move |stop| receive(subscriber, event, deliveries, stop, alive))))
    }
}

// === impl Persistent ===

#[async_trait]
impl<Event: Clone + Send + Sync + 'static> Handler<Event> for Persistent<Event> {
    async fn handle(&self, event: Event) -> Outcome {
        for attempt in 1..ATTEMPTS {
            if self.0.handle(event.clone()).await == Outcome::Done {
                return Outcome::Done;
            }
            tokio::time::sleep(Backoff::after(attempt)).await;
        }
        self.0.handle(event).await
    }
}

/// Receives until it is stopped.
async fn receive<Event: Send + 'static>(
    mut subscriber: Subscriber,
    event: fn(Message) -> Event,
    mut deliveries: Deliveries<Event, ()>,
    mut stop: Stop,
    mut alive: Alive,
) {
    loop {
        tokio::select! {
            biased;
            () = alive.ended_or_stopped(&mut stop) => break,
            Some(((), outcome)) = deliveries.next() => report(outcome),
            message = subscriber.next(), if deliveries.room() > 0 => {
                let Some(message) = message else { break };
                deliveries.hand_over(event(message), ());
            }
        }
    }
    drop(subscriber);
    let deadline = Instant::now() + STOP_DEADLINE;
    while let Ok(Some(((), outcome))) = tokio::time::timeout_at(deadline, deliveries.next()).await {
        report(outcome);
    }
    deliveries.abandon().await;
}

fn report(outcome: Outcome) {
    if outcome == Outcome::Again {
        tracing::warn!("a message of core NATS was not handled in {ATTEMPTS} attempts and is given up");
    }
}
