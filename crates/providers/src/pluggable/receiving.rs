//! What comes over a stream of a component: handed over, acknowledged, and the stream opened again when it ends.

use super::socket::{Channel, Socket, told};
use crate::backoff::Backoff;
use crate::deliveries::{Deliveries, PARALLEL, STOP_DEADLINE};
use crate::shutdown::Alive;
use crate::task::Stop;
use dhow_blocks::events::{Handler, Outcome};
use futures::Stream;
use futures::future::BoxFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Status, Streaming};

/// How one kind of event comes over its stream.
pub(super) struct Receiving<Event, Received, Ack> {
    /// Opens the stream; the acknowledgements go the other way.
    pub(super) open: fn(Channel, Acks<Ack>) -> Opening<Received>,
    /// What is said first, if anything.
    pub(super) first: Option<Ack>,
    /// The event, and the number to acknowledge it by.
    pub(super) event: fn(Received) -> (Event, String),
    /// Says what became of an event.
    pub(super) ack: fn(String, Outcome) -> Ack,
}

/// The acknowledgements on their way to a component.
pub(super) struct Acks<Ack>(mpsc::Receiver<Ack>);

impl<Ack> Stream for Acks<Ack> {
    type Item = Ack;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Ack>> {
        self.0.poll_recv(context)
    }
}

pub(super) type Opening<Received> = BoxFuture<'static, Result<Streaming<Received>, Status>>;

impl<Event, Received, Ack> Receiving<Event, Received, Ack>
where
    Event: Send + 'static,
    Received: Send + 'static,
    Ack: Clone + Send + 'static,
{
    /// Receives until it is stopped. What is being handled when a stream ends is delivered again by the component.
    pub(super) async fn run(
        self,
        socket: Arc<Socket>,
        handler: Arc<dyn Handler<Event>>,
        mut stop: Stop,
        mut alive: Alive,
    ) {
        let mut backoff = Backoff::new();
        loop {
            let began = Instant::now();
            let deliveries = Deliveries::new(Arc::clone(&handler), PARALLEL);
            match self.stream(&socket, deliveries, &mut stop, &mut alive).await {
                Ok(()) => return,
                Err(status) => {
                    tracing::warn!("component {}: receiving failed: {}", socket.name, told(&status));
                }
            }
            if began.elapsed() > STOP_DEADLINE {
                backoff.reset();
            }
            tokio::select! {
                () = alive.ended_or_stopped(&mut stop) => return,
                () = tokio::time::sleep(backoff.wait()) => {}
            }
        }
    }

    /// One stream, until it ends or this is stopped, which is no error.
    async fn stream(
        &self,
        socket: &Socket,
        mut deliveries: Deliveries<Event, String>,
        stop: &mut Stop,
        alive: &mut Alive,
    ) -> Result<(), Status> {
        // Room for the first and for one of each call that may run.
        let (acks, sent) = mpsc::channel(PARALLEL + 1);
        if let Some(first) = self.first.clone() {
            let _ = acks.try_send(first);
        }
        let opened = async { (self.open)(socket.channel().await?, Acks(sent)).await };
        // A component may answer no sooner than it has something to say.
        let mut stream = tokio::select! {
            () = alive.ended_or_stopped(stop) => return Ok(()),
            opened = opened => opened?,
        };
        loop {
            tokio::select! {
                () = alive.ended_or_stopped(stop) => break,
                Some((id, outcome)) = deliveries.next() => {
                    if acks.send((self.ack)(id, outcome)).await.is_err() {
                        return Err(Status::unavailable("the component closed the stream"));
                    }
                }
                received = stream.message(), if deliveries.room() > 0 => match received? {
                    Some(received) => {
                        let (event, id) = (self.event)(received);
                        deliveries.hand_over(event, id);
                    }
                    None => return Err(Status::unavailable("the component ended the stream")),
                },
            }
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        while let Ok(Some((id, outcome))) = tokio::time::timeout_at(deadline, deliveries.next()).await {
            if acks.send((self.ack)(id, outcome)).await.is_err() {
                break;
            }
        }
        deliveries.abandon().await;
        // The end of our side: the component reads what is still on its way, and ends its own.
        drop(acks);
        let _ =
            tokio::time::timeout_at(deadline, async { while let Ok(Some(_)) = stream.message().await {} })
                .await;
        Ok(())
    }
}
