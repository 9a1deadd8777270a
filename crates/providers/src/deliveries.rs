//! Events on their way through the handler: several at once, bounded, each with what settles it.

use dhow_blocks::events::{Handler, Outcome};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinSet};

/// How many handler calls of one subscription run at once where the component says `parallel`.
pub const PARALLEL: usize = 64;

/// A subscription that is stopped waits this long for its handler calls; later ones are abandoned, and the
/// broker delivers their messages again.
pub const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// Calls of one handler. `T` is what a provider needs in order to settle the event: to acknowledge it, or
/// to give it back.
///
/// Dropping it aborts the calls.
pub struct Deliveries<Event, T> {
    handler: Arc<dyn Handler<Event>>,
    limit: usize,
    calls: JoinSet<Outcome>,
    /// One entry a call in `calls`, so that a handler that panics does not lose its event.
    held: HashMap<Id, T>,
}

// === impl Deliveries ===

impl<Event: Send + 'static, T> Deliveries<Event, T> {
    /// At most `limit` calls at once.
    pub fn new(handler: Arc<dyn Handler<Event>>, limit: usize) -> Deliveries<Event, T> {
        Deliveries { handler, limit, calls: JoinSet::new(), held: HashMap::new() }
    }

    /// How many more events may be handed over now.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.held.len())
    }

    /// Whether no event is being handled.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The events that are being handled.
    pub fn held(&self) -> impl Iterator<Item = &T> {
        self.held.values()
    }

    /// Calls the handler in a task of its own.
    pub fn hand_over(&mut self, event: Event, settle: T) {
        let handler = Arc::clone(&self.handler);
        let call = self.calls.spawn(async move { handler.handle(event).await });
        self.held.insert(call.id(), settle);
    }

    /// Waits for the next outcome; `None` if nothing is being handled. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<(T, Outcome)> {
        let (id, outcome) = match self.calls.join_next_with_id().await? {
            Ok(ended) => ended,
            Err(panic) => {
                tracing::error!("a handler of events panicked; its event will be delivered again");
                (panic.id(), Outcome::Again)
            }
        };
        Some((self.held.remove(&id)?, outcome))
    }

    /// Ends all calls; when it returns, none of them runs any more.
    pub async fn abandon(&mut self) -> Vec<T> {
        self.calls.shutdown().await;
        self.held.drain().map(|(_, settle)| settle).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;

    /// Answers, panics or never ends, as its event says.
    struct Obedient;

    #[async_trait]
    impl Handler<&'static str> for Obedient {
        async fn handle(&self, event: &'static str) -> Outcome {
            match event {
                "done" => Outcome::Done,
                "again" => Outcome::Again,
                "never" => std::future::pending().await,
                _ => panic!("as told"),
            }
        }
    }

    #[tokio::test]
    async fn outcomes_find_their_events() {
        let mut deliveries = Deliveries::new(Arc::new(Obedient), 8);
        for event in ["done", "again", "panic", "never"] {
            deliveries.hand_over(event, event);
        }
        assert_eq!(deliveries.room(), 4);
        let mut outcomes = HashMap::new();
        for _ in 0..3 {
            let (event, outcome) = deliveries.next().await.unwrap();
            outcomes.insert(event, outcome);
        }
        let expected = [("done", Outcome::Done), ("again", Outcome::Again), ("panic", Outcome::Again)];
        assert_eq!(outcomes, HashMap::from(expected));
        assert_eq!(deliveries.held().collect::<Vec<_>>(), [&"never"]);
        assert_eq!(deliveries.abandon().await, ["never"]);
        assert!(deliveries.is_empty() && deliveries.next().await.is_none());
    }
}
