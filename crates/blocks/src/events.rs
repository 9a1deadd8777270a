//! What arrives by itself: messages, binding events, configuration updates, jobs.
//!
//! A provider that receives runs until its [`Running`] is stopped, and hands every event to the one
//! [`Handler`] it was given. The handler's [`Outcome`] decides whether the event is over.

use async_trait::async_trait;
use std::collections::BTreeMap;

/// Names and values that go with a request, a message or an answer. Names are compared without regard to case.
pub type Metadata = BTreeMap<String, String>;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is over: acknowledge it.
    Done,
    /// It was not handled: deliver it again, later.
    Again,
}

/// Takes events of one kind.
#[async_trait]
pub trait Handler<Event>: Send + Sync + 'static {
    /// Handles one event. May be called for several events at once; a provider with ordered delivery waits
    /// for the outcome of one event before it hands over the next one of the same order.
    async fn handle(&self, event: Event) -> Outcome;
}

/// Something that receives events in the background. Dropping it stops it, too, without waiting.
#[async_trait]
pub trait Running: Send + Sync + 'static {
    /// Takes no further event, waits for those that are being handled, and acknowledges what they did. When
    /// it returns, the handler is not called any more. Bounded by the provider's own deadlines.
    async fn stop(self: Box<Self>);
}

/// The value of that name, upper and lower case being the same.
pub fn value<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a str> {
    let exact = metadata.get(name);
    let found = exact.or_else(|| {
        metadata.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    });
    found.map(String::as_str)
}
