//! `bindings.nats`: requests, messages and events of core NATS, which stores nothing.
//!
//! Dapr has no such binding; the fields are named as those of `pubsub.jetstream`. For messages that have to arrive, there is
//! `pubsub.jetstream`.

use super::{Connection, REQUEST_TIMEOUT};
use crate::deliveries::PARALLEL;
use crate::metadata::ComponentSpec;
use crate::registry::{Open, OpenError, Provider};
use async_nats::HeaderMap;
use async_trait::async_trait;
use dhow_blocks::binding::{Binding, BindingEvent, BindingRequest, BindingResponse};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Running, value};
use std::sync::Arc;

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

const FIELDS: &[&str] = super::fields!("subject", "queueGroupName", "concurrency", "concurrencyMode");

const SUBJECT: &str = "subject";

/// An open component.
struct Nats {
    connection: Connection,
    /// The subject of events, and of messages that name none.
    subject: Option<String>,
    /// All who receive in the group's name share the events.
    group: Option<String>,
    /// Handler calls at once.
    limit: usize,
}

// === impl Nats ===

impl Nats {
    async fn open(component: &ComponentSpec) -> Result<Nats, OpenError> {
        let text = |name: &str| component.field(&[name]).map(str::to_owned);
        let (subject, group) = (text(SUBJECT), text("queueGroupName"));
        let limit = if component.is_single(false)? { 1 } else { PARALLEL };
        let connection = Connection::open(component, "dhow - bindings.nats").await?;
        Ok(Nats { connection, subject, group, limit })
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
        let BindingRequest { operation, data, metadata } = request;
        let subject = value(&metadata, SUBJECT).or(self.subject.as_deref()).ok_or_else(|| {
            BlockError::invalid("no subject: give the metadata subject with the request or in the component")
        })?;
        match operation.as_str() {
            "create" | "publish" => {
                self.connection.publish(subject, None, HeaderMap::new(), data).await?;
                Ok(BindingResponse::default())
            }
            "request" => {
                let answer =
                    self.connection.request(subject, HeaderMap::new(), data, REQUEST_TIMEOUT).await?;
                Ok(BindingResponse { data: Some(answer.payload), metadata: subject_of(&answer.subject) })
            }
            _ => Err(BlockError::invalid(format!(
                "operation {operation:?} is not known; use create, publish or request"
            ))),
        }
    }

    async fn read(&self, handler: Arc<dyn Handler<BindingEvent>>) -> Result<Box<dyn Running>, BlockError> {
        let subject = self.subject.clone();
        let subject =
            subject.ok_or_else(|| BlockError::invalid("the component names no subject to receive from"))?;
        self.connection.receive(subject, self.group.clone(), self.limit, handler, event).await
    }

    async fn ping(&self) -> Result<(), BlockError> {
        self.connection.check()?;
        self.connection.flush(&self.connection.session()).await
    }

    async fn close(&self) {
        self.connection.close().await;
    }
}

fn event(message: async_nats::Message) -> BindingEvent {
    BindingEvent { metadata: subject_of(&message.subject), data: message.payload }
}

fn subject_of(subject: &str) -> Metadata {
    Metadata::from([(SUBJECT.to_owned(), subject.to_owned())])
}
