//! What every message broker promises, as cases against [`PubSub`].
//!
//! Each case has topics and consumers of its own, so that the suite also runs against a broker that cannot be
//! emptied. That something does *not* arrive is shown by a later message that does.
//!
//! | file | subject |
//! |---|---|
//! | `delivery` | what arrives, where, how often, in which order |
//! | `redelivery` | what was not handled comes again |
//! | `stopping` | the end of a subscription, and of the broker |

mod delivery;
mod redelivery;
mod stopping;

use super::inbox::{Inbox, inbox};
use super::{Case, CaseResult, Failure, Report, Runtime, cases, ensure, ensure_eq};
use crate::error::BlockError;
use crate::events::{Outcome, Running};
use crate::pubsub::{Message, Outgoing, PubSub, Subscribe};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a broker promises beyond the trait.
#[derive(Clone, Copy, Debug, Default)]
pub struct Promises {
    /// The handler is given the messages of a topic in the order in which one publisher published them, the
    /// next one when the one before is done.
    pub ordered: bool,
    /// A consumer that was known once is given what is published while nobody receives in its name, and so is
    /// what it left unhandled.
    pub remembers_consumers: bool,
}

/// What a case works with.
#[derive(Clone)]
struct Context {
    broker: Arc<dyn PubSub>,
    prefix: String,
    promises: Promises,
    runtime: Runtime,
}

const CASES: &[Case<Context>] = cases! {
    "a message is delivered" => delivery::delivered,
    "content comes back unchanged" => delivery::unchanged,
    "topics are kept apart" => delivery::topics,
    "every consumer gets each message" => delivery::consumers,
    "subscribers of one consumer share" => delivery::shared,
    "messages arrive in order, where that is promised" => delivery::order,
    "many messages are published at once" => delivery::many,
    "concurrent publishers lose nothing" => delivery::concurrent,
    "an expired message is not delivered" => delivery::expiry,
    "an unhandled message comes again until it is done" => redelivery::until_done,
    "an unhandled message comes to the next subscriber" => redelivery::next_subscriber,
    "messages wait for a consumer that is known" => redelivery::waiting,
    "what was handled before a stop does not come again" => redelivery::not_again,
    "nothing is delivered after a stop" => stopping::silent,
    "a stop waits for the handler" => stopping::waits,
    "one stop leaves other subscriptions alone" => stopping::others,
    "a broker's features are constant" => constant_features,
    "a closed broker is unavailable" => stopping::closed,
};

/// Runs every case, each on a broker of its own from `open`, and reports which promises are kept.
///
/// `open` may return the same backend each time; it has to be reachable for as long as the suite runs, and has
/// to deliver a message again within 30 seconds of an [`Outcome::Again`].
pub async fn suite<F, S>(provider: &str, runtime: Runtime, promises: Promises, open: F) -> Report
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn PubSub>>,
{
    let open = |prefix| {
        let opening = open();
        async move { Context { broker: opening.await, prefix, promises, runtime } }
    };
    let close = |context: Context| Box::pin(async move { context.broker.close().await }) as _;
    runtime.run(provider, CASES, open, close).await
}

async fn constant_features(context: Context) -> CaseResult {
    let before = context.broker.features();
    context.broker.ping().await?;
    context.publish("topic", "1").await?;
    ensure_eq!(context.broker.features(), before, "features after use");
    Ok(())
}

// === impl Context ===

impl Context {
    fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn outgoing(&self, topic: &str, data: impl Into<Bytes>) -> Outgoing {
        Outgoing { topic: self.topic(topic), data: data.into(), ..Outgoing::default() }
    }

    async fn publish(&self, topic: &str, text: &str) -> Result<(), BlockError> {
        self.broker.publish(self.outgoing(topic, text.to_owned())).await
    }

    /// Receives, answering what `answer` says about a message's text.
    async fn subscribe(
        &self,
        topic: &str,
        consumer: &str,
        answer: impl Fn(&str) -> Outcome + Send + Sync + 'static,
    ) -> Result<(Box<dyn Running>, Inbox<Message>), BlockError> {
        let (handler, inbox) = inbox(self.runtime, move |message| answer(&text(message)));
        let running = self.broker.subscribe(self.subscription(topic, consumer), handler).await?;
        Ok((running, inbox))
    }

    fn subscription(&self, topic: &str, consumer: &str) -> Subscribe {
        let consumer = format!("{}-{consumer}", self.prefix);
        Subscribe { topic: self.topic(topic), consumer, ..Subscribe::default() }
    }
}

fn done(_: &str) -> Outcome {
    Outcome::Done
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.data).into_owned()
}

/// Waits until a message of this text comes; answers all texts, that one last.
async fn until(inbox: &mut Inbox<Message>, last: &str) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    while texts.last().map(String::as_str) != Some(last) {
        texts.push(text(&inbox.next().await?));
    }
    Ok(texts)
}

/// Waits until all these texts have come, in any order; a broker may deliver one twice. Answers how many came.
async fn all(
    inbox: &mut Inbox<Message>,
    expected: impl IntoIterator<Item = String>,
) -> Result<usize, Failure> {
    let expected: BTreeSet<String> = expected.into_iter().collect();
    let mut missing = expected.clone();
    let mut count = 0;
    while !missing.is_empty() {
        let next = text(&inbox.next().await.map_err(|failure| Failure {
            message: format!("{failure}; missing: {}", super::brief(&missing)),
            ..failure
        })?);
        ensure!(expected.contains(&next), "{next:?} was delivered, which was not published here");
        missing.remove(&next);
        count += 1;
    }
    Ok(count)
}
