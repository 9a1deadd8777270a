//! `bindings.nats`: requests, messages and events of core NATS, which stores nothing.
//!
//! Dapr has no such binding; the fields are named as those of `pubsub.jetstream`. A message reaches who is
//! listening at that moment, and an event that is not handled is tried again here, a few times. For messages
//! that have to arrive, there is `pubsub.jetstream`.

use super::{Connection, REQUEST_TIMEOUT};
use crate::backoff::Backoff;
use crate::deliveries::{Deliveries, PARALLEL, STOP_DEADLINE};
use crate::metadata::ComponentSpec;
use crate::registry::{Open, OpenError, Provider};
use crate::shutdown::Alive;
use crate::task::{Stop, Task};
use async_nats::{RequestErrorKind, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use dhow_blocks::binding::{Binding, BindingEvent, BindingRequest, BindingResponse};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Outcome, Running, value};
use futures::StreamExt;
use std::sync::Arc;
use tokio::time::Instant;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "bindings.nats",
    aliases: &[],
    versions: &["v1"],
    fields: FIELDS,
    open: Open::Binding(|component, _| {
        Box::pin(async move { Ok(Arc::new(Nats::open(&component).await?) as Arc<dyn Binding>) })
    }),
};

const FIELDS: &[&str] = &[
    "natsURL",
    "url",
    "name",
    "jwt",
    "seedKey",
    "token",
    "tls_client_cert",
    "tls_client_key",
    "clientCert",
    "clientKey",
    "caCert",
    "subject",
    "queueGroupName",
    "concurrency",
    "concurrencyMode",
];

const SUBJECT: &str = "subject";

/// An event is handed over this often before it is given up.
const ATTEMPTS: usize = 5;

/// An open component.
struct Nats {
    connection: Arc<Connection>,
    /// The subject of events, and of messages that name none.
    subject: Option<String>,
    /// All who receive in the group's name share the events.
    group: Option<String>,
    /// Handler calls at once.
    limit: usize,
}

/// Hands an event over again until it is handled.
struct Persistent(Arc<dyn Handler<BindingEvent>>);

// === impl Nats ===

impl Nats {
    async fn open(component: &ComponentSpec) -> Result<Nats, OpenError> {
        let text = |name: &str| component.field(&[name]).map(str::to_owned);
        let (subject, group) = (text(SUBJECT), text("queueGroupName"));
        let limit = if component.is_single(false)? { 1 } else { PARALLEL };
        let connection = Arc::new(Connection::open(component, "dhow - bindings.nats").await?);
        Ok(Nats { connection, subject, group, limit })
    }

    async fn publish(&self, subject: String, data: Bytes) -> Result<BindingResponse, BlockError> {
        let (client, session) = (&self.connection.client, self.connection.session());
        let sent = tokio::time::timeout(REQUEST_TIMEOUT, client.publish(subject, data)).await;
        sent.map_err(|_| super::late())?.map_err(|error| BlockError::invalid(format!("NATS: {error}")))?;
        self.connection.flush(&session).await?;
        Ok(BindingResponse::default())
    }

    async fn request(&self, subject: String, data: Bytes) -> Result<BindingResponse, BlockError> {
        let answer = self.connection.client.request(subject.clone(), data).await;
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => {
                BlockError::unavailable(format!("nobody answers requests on the NATS subject {subject:?}"))
            }
            RequestErrorKind::TimedOut => super::late(),
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                BlockError::invalid(format!("NATS: {error}"))
            }
            RequestErrorKind::Other => BlockError::unavailable(format!("NATS: {error}")),
        })?;
        Ok(BindingResponse { data: Some(answer.payload), metadata: subject_of(&answer.subject) })
    }
}

#[async_trait]
impl Binding for Nats {
    fn operations(&self) -> Vec<&str> {
        vec!["create", "publish", "request"]
    }

    fn is_input(&self) -> bool {
        self.subject.is_some()
    }

    async fn invoke(&self, request: BindingRequest) -> Result<BindingResponse, BlockError> {
        self.connection.check()?;
        let BindingRequest { operation, data, metadata } = request;
        let subject = value(&metadata, SUBJECT).or(self.subject.as_deref()).ok_or_else(|| {
            BlockError::invalid("no subject: give the metadata subject with the request or in the component")
        })?;
        let subject = subject.to_owned();
        match operation.as_str() {
            "create" | "publish" => self.publish(subject, data).await,
            "request" => self.request(subject, data).await,
            _ => Err(BlockError::invalid(format!(
                "operation {operation:?} is not known; use create, publish or request"
            ))),
        }
    }

    async fn read(&self, handler: Arc<dyn Handler<BindingEvent>>) -> Result<Box<dyn Running>, BlockError> {
        let alive = self.connection.shutdown.alive()?;
        self.connection.check()?;
        let subject = self.subject.clone();
        let subject =
            subject.ok_or_else(|| BlockError::invalid("the component names no subject to receive from"))?;
        let (client, session) = (&self.connection.client, self.connection.session());
        let subscriber = match &self.group {
            Some(group) => client.queue_subscribe(subject, group.clone()).await,
            None => client.subscribe(subject).await,
        };
        let subscriber = subscriber.map_err(|error| BlockError::invalid(format!("NATS: {error}")))?;
        self.connection.flush(&session).await?;
        let deliveries = Deliveries::new(Arc::new(Persistent(handler)), self.limit);
        Ok(Box::new(Task::spawn(|stop| receive(subscriber, deliveries, stop, alive))))
    }

    async fn ping(&self) -> Result<(), BlockError> {
        self.connection.check()?;
        self.connection.flush(&self.connection.session()).await
    }

    async fn close(&self) {
        self.connection.close().await;
    }
}

// === impl Persistent ===

#[async_trait]
impl Handler<BindingEvent> for Persistent {
    async fn handle(&self, event: BindingEvent) -> Outcome {
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
async fn receive(
    mut subscriber: Subscriber,
    mut deliveries: Deliveries<BindingEvent, ()>,
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
                let event = BindingEvent { data: message.payload, metadata: subject_of(&message.subject) };
                deliveries.hand_over(event, ());
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
        tracing::warn!("an event of a NATS binding was not handled in {ATTEMPTS} attempts and is given up");
    }
}

fn subject_of(subject: &str) -> Metadata {
    Metadata::from([(SUBJECT.to_owned(), subject.to_owned())])
}
