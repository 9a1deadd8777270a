//! What is in the outbox of a state store is published for everybody.

use async_trait::async_trait;
use dhow_blocks::cloud_event::CloudEvent;
use dhow_blocks::events::{Handler, Outcome};
use dhow_blocks::pubsub::Message;
use dhow_blocks::scope::Outbox;
use dhow_blocks::state::{Delete, StateError};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the marker of an event is waited for: its transaction may not be over yet.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first wait for a marker; later ones are twice as long, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Receives the inner topic of an outbox.
pub(super) struct Passing(pub(super) Arc<Outbox>);

#[async_trait]
impl Handler<Message> for Passing {
    async fn handle(&self, message: Message) -> Outcome {
        let outbox = &*self.0;
        let event = CloudEvent::parse(&message.data).ok();
        let Some((id, mut event)) = event.and_then(|event| Some((event.text("id")?.to_owned(), event)))
        else {
            tracing::error!(
                app_id = &*outbox.app_id,
                topic = outbox.inner_topic,
                "what is in the outbox is no event; dropped"
            );
            return Outcome::Done;
        };
        match was_done(outbox, &id).await {
            Ok(true) => {}
            Ok(false) if outbox.discard => return Outcome::Done,
            Ok(false) => return Outcome::Again,
            Err(error) => {
                tracing::warn!(app_id = &*outbox.app_id, "the outbox cannot be looked at: {error}");
                return Outcome::Again;
            }
        }
        // Dapr's own events name its inner topic.
        event.0.insert("topic".to_owned(), outbox.topic.as_str().into());
        event.0.insert("pubsubname".to_owned(), outbox.outer.component.name.as_str().into());
        let published = outbox.outer.send_event(&outbox.topic, event.to_bytes()).await;
        if let Err(error) = published {
            tracing::warn!(
                app_id = &*outbox.app_id,
                topic = outbox.topic,
                "an event stays in the outbox: {error}"
            );
            return Outcome::Again;
        }
        // A marker that stays lets a repetition through; it does no other harm.
        let store = &outbox.store.provider;
        let delete = Delete { key: id, etag: None };
        if let Err(error) = outbox.store.call("delete", delete, |delete| store.delete(delete)).await {
            tracing::warn!(app_id = &*outbox.app_id, "a marker stays in the outbox: {error}");
        }
        Outcome::Done
    }
}

async fn was_done(outbox: &Outbox, id: &str) -> Result<bool, StateError> {
    let store = &outbox.store.provider;
    let deadline = Instant::now() + PATIENCE;
    let mut wait = FIRST_WAIT;
    loop {
        if outbox.store.call("get", (), |()| store.get(id)).await?.is_some() {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
