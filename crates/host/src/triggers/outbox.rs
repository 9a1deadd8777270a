//! What is in the outbox of a state store is published for everybody.

use crate::host::Host;
use async_trait::async_trait;
use dhow_blocks::cloud_event::CloudEvent;
use dhow_blocks::events::{Handler, Outcome};
use dhow_blocks::pubsub::Message;
use dhow_blocks::scope::Outbox;
use dhow_blocks::state::{Delete, StateError};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How long the marker of an event is waited for: its transaction may not be over yet.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first wait for a marker; later ones are twice as long, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// No transaction takes that long: an event of this age without a marker belongs to one that was never done, because
/// its host died.
const STALE: Duration = Duration::from_secs(3600);

/// Receives the inner topic of an app's outboxes; those of several stores may share it.
pub(super) struct Passing {
    pub(super) host: Weak<Host>,
    pub(super) outboxes: Vec<Arc<Outbox>>,
}

/// What became of the transaction of an event.
enum Fate<'a> {
    /// It was done at this store.
    Done(&'a Outbox),
    /// It was not done, and will not be.
    Failed,
    /// There is no marker yet.
    Open,
}

#[async_trait]
impl Handler<Message> for Passing {
    async fn handle(&self, message: Message) -> Outcome {
        let Some(first) = self.outboxes.first() else { return Outcome::Again };
        let app_id = &*first.app_id;
        let event = CloudEvent::parse(&message.data).ok();
        let Some((id, mut event)) = event.and_then(|event| Some((event.text("id")?.to_owned(), event)))
        else {
            tracing::error!(app_id, topic = first.inner_topic, "what is in the outbox is no event; dropped");
            return Outcome::Done;
        };
        let outbox = match self.fate(&id).await {
            Ok(Fate::Done(outbox)) => outbox,
            Ok(Fate::Failed) => return Outcome::Done,
            Ok(Fate::Open) if self.outboxes.iter().all(|outbox| outbox.discard) => return Outcome::Done,
            Ok(Fate::Open) => return Outcome::Again,
            Err(error) => {
                tracing::warn!(app_id, "the outbox cannot be looked at: {error}");
                return Outcome::Again;
            }
        };
        // Dapr's own events name its inner topic.
        event.0.insert("topic".to_owned(), outbox.topic.as_str().into());
        event.0.insert("pubsubname".to_owned(), outbox.outer.component.name.as_str().into());
        let published = outbox.outer.send_event(&outbox.topic, event.to_bytes()).await;
        if let Err(error) = published {
            tracing::warn!(app_id, topic = outbox.topic, "an event stays in the outbox: {error}");
            return Outcome::Again;
        }
        // A marker that stays lets a repetition through; it does no other harm.
        let store = &outbox.store.provider;
        let delete = Delete { key: id, etag: None };
        if let Err(error) = outbox.store.call("delete", delete, |delete| store.delete(delete)).await {
            tracing::warn!(app_id, "a marker stays in the outbox: {error}");
        }
        Outcome::Done
    }
}

impl Passing {
    /// Looks for the marker of an event. One that is just announced is waited for.
    async fn fate(&self, id: &str) -> Result<Fate<'_>, StateError> {
        let age = Outbox::announced_at(id).map(|time| time.elapsed().unwrap_or_default());
        let until = Instant::now() + PATIENCE.saturating_sub(age.unwrap_or_default());
        let mut wait = FIRST_WAIT;
        loop {
            for outbox in &self.outboxes {
                let store = &outbox.store.provider;
                if outbox.store.call("get", (), |()| store.get(id)).await?.is_some() {
                    return Ok(Fate::Done(outbox));
                }
            }
            // Only now: a try that was thought lost may have been the one that did it.
            if self.outboxes.iter().any(|outbox| outbox.was_aborted(id)) {
                return Ok(Fate::Failed);
            }
            if age.is_some_and(|age| age > STALE) {
                tracing::warn!(
                    id,
                    "an event of a transaction that was never done is dropped from the outbox"
                );
                return Ok(Fate::Failed);
            }
            if Instant::now() >= until || self.host.upgrade().is_none_or(|host| host.is_stopping()) {
                return Ok(Fate::Open);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}
