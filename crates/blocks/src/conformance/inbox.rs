//! A handler that tells its case what it was given.

use super::{Failure, Runtime};
use crate::events::{Handler, Outcome};
use async_trait::async_trait;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{FutureExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;

/// An event that has not come after this long is lost. Less than the deadline of a case, so that the case can
/// say which event it is.
const PATIENCE: Duration = Duration::from_secs(45);

/// The events that a handler was given, in the order in which it was.
pub(super) struct Inbox<Event> {
    events: UnboundedReceiver<Event>,
    runtime: Runtime,
}

struct Probe<Event, Answer> {
    events: UnboundedSender<Event>,
    answer: Answer,
}

/// A handler that answers what `answer` says.
pub(super) fn inbox<Event: Clone + Send + 'static>(
    runtime: Runtime,
    answer: impl Fn(&Event) -> Outcome + Send + Sync + 'static,
) -> (Arc<dyn Handler<Event>>, Inbox<Event>) {
    let (sender, events) = unbounded();
    (Arc::new(Probe { events: sender, answer }), Inbox { events, runtime })
}

// === impl Inbox ===

impl<Event> Inbox<Event> {
    /// The next event.
    #[track_caller]
    pub(super) fn next(&mut self) -> impl Future<Output = Result<Event, Failure>> {
        let lost = Failure::new(format!("no event came for {PATIENCE:?}"));
        async move { self.runtime.within(PATIENCE, self.events.next()).await.flatten().ok_or(lost) }
    }

    /// The events that are here, without waiting.
    pub(super) fn here(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.next().now_or_never().flatten()).collect()
    }
}

// === impl Probe ===

#[async_trait]
impl<Event, Answer> Handler<Event> for Probe<Event, Answer>
where
    Event: Clone + Send + 'static,
    Answer: Fn(&Event) -> Outcome + Send + Sync + 'static,
{
    async fn handle(&self, event: Event) -> Outcome {
        let outcome = (self.answer)(&event);
        // A case that has seen enough drops its inbox.
        self.events.unbounded_send(event).ok();
        outcome
    }
}
