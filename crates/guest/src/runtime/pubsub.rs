//! `dhow:runtime/pubsub` over the pub/sub block.

use super::wit::pubsub;
use super::{Error, Runtime, metadata};
use crate::messaging::{check_topic, publish};
use dhow_blocks::scope::Event;

/// Most messages of one call.
const MAX_MESSAGES: usize = 10_000;

impl pubsub::Host for Runtime<'_> {
    async fn publish(
        &mut self,
        pubsub: String,
        topic: String,
        message: pubsub::Message,
    ) -> Result<(), Error> {
        Ok(publish(&self.setup.scope, self.origin.trace, &pubsub, &topic, event(message)).await?)
    }

    async fn publish_many(
        &mut self,
        pubsub: String,
        topic: String,
        messages: Vec<pubsub::Message>,
    ) -> Result<Vec<Result<(), pubsub::Error>>, Error> {
        check_topic(&topic)?;
        if messages.len() > MAX_MESSAGES {
            let count = messages.len();
            return Err(Error::invalid(format!("{count} messages are more than the {MAX_MESSAGES} allowed")));
        }
        let events = messages.into_iter().map(event).collect();
        let answers = self.setup.scope.publish_many(&pubsub, &topic, events, self.origin.trace, "").await?;
        Ok(answers.into_iter().map(|answer| answer.map_err(|error| Error::from(error).0)).collect())
    }
}

fn event(message: pubsub::Message) -> Event {
    let pubsub::Message { data, content_type, metadata: pairs } = message;
    Event { data: data.into(), content_type, metadata: metadata(pairs) }
}
