//! Dapr's transactional outbox: what a transaction writes is published if, and only if, it was written.
//!
//! Before the transaction, an event for each written key goes to a topic of the host's own; with the transaction, a
//! marker of the same name is written. Who receives that topic publishes the event for everybody once the marker is
//! there, and removes it. A host that dies in between leaves both to the next one.
//!
//! Source: Dapr's documentation, "Enable the transactional outbox pattern"; the names of topic and marker are Dapr's.

use super::{Bound, is_true};
use crate::cloud_event::{self, CloudEvent, DEFAULT_TYPE, NewEvent};
use crate::error::BlockError;
use crate::events::{Metadata, value};
use crate::pubsub::{Feature, Outgoing, PubSub};
use crate::state::{Operation, Set, StateError, StateStore};
use crate::trace::TraceContext;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

/// One step of a transaction, with what its event is made of.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is done to the state.
    pub operation: Operation,
    /// `outbox.projection`, `cloudevent.*`; the data's `contentType`.
    pub metadata: Metadata,
}

/// The outbox of one app at one state store.
#[derive(Clone, Debug)]
pub struct Outbox {
    /// The app.
    pub app_id: Arc<str>,
    /// Where the markers are.
    pub store: Bound<dyn StateStore>,
    /// The broker of the host's own topic.
    pub inner: Bound<dyn PubSub>,
    /// The host's own topic.
    pub inner_topic: String,
    /// The broker that others receive from.
    pub outer: Bound<dyn PubSub>,
    /// Their topic.
    pub topic: String,
    /// An event without a marker is dropped, rather than tried again.
    pub discard: bool,
    /// Events of transactions that failed, the oldest first. After a restart they are found out by their age.
    pub aborted: Arc<Mutex<VecDeque<String>>>,
}

/// Before the id of each event, which is also the key of its marker.
const MARKER: &str = "outbox-";

/// Failed transactions that are remembered.
const MAX_ABORTED: usize = 1000;

/// An event on its way into the outbox.
pub(super) struct Announcement {
    pub(super) id: String,
    event: Bytes,
}

// === impl Announcement ===

impl Announcement {
    /// What the transaction writes beside its own.
    pub(super) fn marker(&self) -> Operation {
        Operation::Set(Set { key: self.id.clone(), value: Bytes::from_static(b"0"), ..Set::default() })
    }
}

// === impl Step ===

impl From<Operation> for Step {
    fn from(operation: Operation) -> Step {
        Step { operation, metadata: Metadata::new() }
    }
}

impl Step {
    /// Whether it only says what the event of its key is.
    fn is_projection(&self) -> bool {
        value(&self.metadata, "outbox.projection").is_some_and(is_true)
    }
}

// === impl Bound ===

impl Bound<dyn PubSub> {
    /// Publishes an event that is in its envelope already.
    pub async fn send_event(&self, topic: &str, event: Bytes) -> Result<(), BlockError> {
        let message = Outgoing {
            topic: topic.to_owned(),
            data: event,
            content_type: Some(cloud_event::CONTENT_TYPE.to_owned()),
            metadata: Metadata::new(),
        };
        self.call_for("publish", topic, message, |message| self.provider.publish(message)).await
    }
}

// === impl Outbox ===

impl Outbox {
    /// The host's own topic, by Dapr's convention.
    pub fn inner_topic(namespace: &str, app_id: &str, topic: &str) -> String {
        format!("{namespace}{app_id}{topic}outbox")
    }

    /// What a transaction writes, and the events of that. Keys are not scoped yet.
    pub(super) fn plan(
        &self,
        steps: Vec<Step>,
        trace: TraceContext,
        trace_state: &str,
    ) -> Result<(Vec<Operation>, Vec<Announcement>), StateError> {
        let (projections, steps): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(Step::is_projection);
        let projected = |key: &str| {
            projections.iter().find_map(|step| match &step.operation {
                Operation::Set(set) if set.key == key => Some((set, &step.metadata)),
                _ => None,
            })
        };
        let mut events = Vec::new();
        for step in &steps {
            let Operation::Set(set) = &step.operation else { continue };
            let (set, metadata) = projected(&set.key).unwrap_or((set, &step.metadata));
            let id = format!("{MARKER}{}", cloud_event::uuid_of(SystemTime::now()));
            let event = self.event(&id, set, metadata, trace, trace_state)?;
            events.push(Announcement { id, event });
        }
        Ok((steps.into_iter().map(|step| step.operation).collect(), events))
    }

    /// Hands the events of a transaction over that is about to be done.
    pub(super) async fn announce(&self, events: Vec<Announcement>) -> Result<(), StateError> {
        for Announcement { event, .. } in events {
            let published = self.inner.send_event(&self.inner_topic, event).await;
            published.map_err(|error| StateError::Unavailable {
                reason: format!("the event for {:?} could not be put into the outbox: {error}", self.topic),
            })?;
        }
        Ok(())
    }

    /// The transaction of these events was not done, and will not be: nobody has to look for their markers.
    pub(super) fn abort(&self, ids: Vec<String>) {
        let mut aborted = self.aborted.lock();
        aborted.extend(ids);
        let surplus = aborted.len().saturating_sub(MAX_ABORTED);
        aborted.drain(..surplus);
    }

    /// Whether it is known that the transaction of this event was not done.
    pub fn was_aborted(&self, id: &str) -> bool {
        self.aborted.lock().iter().any(|aborted| aborted == id)
    }

    /// When an event was put into the outbox; `None` if its id does not tell.
    pub fn announced_at(id: &str) -> Option<SystemTime> {
        cloud_event::time_of(id.strip_prefix(MARKER)?)
    }

    fn event(
        &self,
        id: &str,
        set: &Set,
        metadata: &Metadata,
        trace: TraceContext,
        trace_state: &str,
    ) -> Result<Bytes, StateError> {
        let content_type = value(metadata, "contentType").map(str::to_owned);
        let content_type = content_type.or_else(|| set.json.then(|| "application/json".to_owned()));
        let event = cloud_event::wrap(&NewEvent {
            data: &set.value,
            content_type: content_type.as_deref(),
            metadata,
            pubsub: &self.outer.component.name,
            topic: &self.topic,
            app_id: &self.app_id,
            event_type: DEFAULT_TYPE,
            trace,
            trace_state,
            expires: !self.outer.provider.features().contains(&Feature::MessageTtl),
            now: SystemTime::now(),
        });
        // Data that are an envelope already have an id of their own.
        let event = event.and_then(|event| CloudEvent::parse(&event)).map(|mut event| {
            event.0.insert("id".to_owned(), id.into());
            event.to_bytes()
        });
        event.map_err(|reason| StateError::Failed {
            reason: format!("no event can be made of {:?}: {reason}", set.key),
        })
    }
}
