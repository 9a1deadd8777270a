//! From a session to a handler: calls it, and again after a while if it did not handle a message.
//!
//! MQTT knows no refusal, so repetitions happen here, with the message unacknowledged; the broker repeats it
//! only if the connection or the host is lost meanwhile.

use super::session::{Arrival, Control, MOST_HELD, Receipt};
use crate::backoff::Backoff;
use crate::deliveries::{Deliveries, STOP_DEADLINE};
use crate::shutdown::Alive;
use crate::task::{Stop, Task};
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Outcome};
use rumqttc::mqttbytes::v4::Publish;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How to receive.
pub(super) struct Subscribing {
    /// Handler calls at once.
    pub(super) limit: usize,
    /// How often a message is tried again; without a limit if nothing. Then it stays unacknowledged.
    pub(super) retries: Option<usize>,
    /// Whether the broker forgets the subscription at its end.
    pub(super) unsubscribe: bool,
}

/// Calls a handler until it has handled the event, the retries are used up, or the subscription stops.
struct Patient<Event> {
    handler: Arc<dyn Handler<Event>>,
    retries: Option<usize>,
    stopping: watch::Receiver<bool>,
}

// === impl Subscribing ===

impl Subscribing {
    /// Begins to receive; `event` makes an event of a message.
    pub(super) async fn begin<Event: Clone + Send + Sync + 'static>(
        self,
        control: Control,
        handler: Arc<dyn Handler<Event>>,
        event: fn(&Publish) -> Event,
        mut alive: Alive,
    ) -> Result<Task, BlockError> {
        let Subscribing { limit, retries, unsubscribe } = self;
        // Twice: messages that need no acknowledgement are not counted.
        let (deliver, mut arrivals) = mpsc::channel(2 * MOST_HELD);
        let id = control.join(deliver).await?;
        Ok(Task::spawn(move |mut stop| async move {
            let (stopping, stops) = watch::channel(false);
            let patient = Patient { handler, retries, stopping: stops };
            let mut deliveries = Deliveries::new(Arc::new(patient), limit);
            receive(&mut arrivals, &control, &mut deliveries, event, &mut stop, &mut alive).await;
            control.leave(id);
            stopping.send_replace(true);
            let deadline = Instant::now() + STOP_DEADLINE;
            while let Ok(Some((receipt, outcome))) =
                tokio::time::timeout_at(deadline, deliveries.next()).await
            {
                settle(&control, receipt, outcome);
            }
            deliveries.abandon().await;
            control.gone(id, unsubscribe).await;
        }))
    }
}

async fn receive<Event: Send + 'static>(
    arrivals: &mut mpsc::Receiver<Arrival>,
    control: &Control,
    deliveries: &mut Deliveries<Event, Option<Receipt>>,
    event: fn(&Publish) -> Event,
    stop: &mut Stop,
    alive: &mut Alive,
) {
    loop {
        tokio::select! {
            biased;
            () = alive.ended_or_stopped(stop) => return,
            Some((receipt, outcome)) = deliveries.next() => settle(control, receipt, outcome),
            arrival = arrivals.recv(), if deliveries.room() > 0 => {
                let Some(Arrival { publish, receipt }) = arrival else { return };
                deliveries.hand_over(event(&publish), receipt);
            }
        }
    }
}

fn settle(control: &Control, receipt: Option<Receipt>, outcome: Outcome) {
    if let (Some(receipt), Outcome::Done) = (receipt, outcome) {
        control.settled(receipt);
    }
}

// === impl Patient ===

#[async_trait]
impl<Event: Clone + Send + Sync + 'static> Handler<Event> for Patient<Event> {
    async fn handle(&self, event: Event) -> Outcome {
        let mut stopping = self.stopping.clone();
        let mut failures = 0;
        loop {
            // In a task of its own, so that a panic is a failure like any other.
            let (handler, event) = (Arc::clone(&self.handler), event.clone());
            let call = AbortOnDrop(tokio::spawn(async move { handler.handle(event).await }));
            if call.outcome().await == Outcome::Done {
                return Outcome::Done;
            }
            failures += 1;
            if self.retries.is_some_and(|retries| failures > retries) {
                tracing::warn!(
                    "an MQTT message was not handled in {failures} attempts; it stays unacknowledged"
                );
                return Outcome::Again;
            }
            tokio::select! {
                () = tokio::time::sleep(Backoff::after(failures)) => {}
                // An error means that the subscription is gone.
                _ = stopping.wait_for(|stopping| *stopping) => return Outcome::Again,
            }
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<Outcome>);

impl AbortOnDrop {
    async fn outcome(mut self) -> Outcome {
        (&mut self.0).await.unwrap_or(Outcome::Again)
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
