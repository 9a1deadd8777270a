//! `pubsub.in-memory`: messages that live as long as the process.
//!
//! As with Dapr's component of that name, the handler of a subscription is given one message after the other,
//! in the order in which they were published, and a topic that ends in `*` stands for all topics that begin so.
//! Where Dapr gives a message up after ten attempts, it comes again here until it is done; meanwhile it stands
//! aside and the others pass.
//!
//! Every consumer has a queue for each topic it subscribed to, from its first subscription until the broker is
//! closed. The queue is bounded. When it is full, publishers wait for room and are refused after a while; but
//! while nobody receives in the consumer's name, its oldest messages make room instead, so that a consumer
//! that has gone away stops nobody.

use crate::backoff::Backoff;
use crate::deliveries::{Deliveries, STOP_DEADLINE};
use crate::registry::{Open, Provider};
use crate::shutdown::{Alive, Shutdown};
use crate::task::{Stop, Task};
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Outcome, Running};
use dhow_blocks::pubsub::{Feature, Message, Outgoing, PubSub, Subscribe};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "pubsub.in-memory",
    aliases: &[],
    versions: &["v1"],
    fields: &[],
    open: Open::PubSub(|_, _| Box::pin(async { Ok(Arc::new(InMemory::new()) as Arc<_>) })),
};

/// What one queue holds at most, in units of [`UNIT_BYTES`]; a message counts as one at least.
const QUEUE_UNITS: u32 = 8192;
const UNIT_BYTES: usize = 8 * 1024;

/// How long a publisher waits for room in a queue.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Dapr's promise for this component: a subscription handles one message at a time.
const CONCURRENCY: usize = 1;

/// A message broker in the memory of this process.
pub struct InMemory {
    queues: Mutex<Queues>,
    shutdown: Shutdown,
}

/// One queue for each subscribed topic and each of its consumers.
#[derive(Default)]
struct Queues {
    /// By topic, then by consumer.
    exact: HashMap<String, HashMap<String, Arc<Queue>>>,
    /// By what the topic begins with, then by consumer.
    wildcards: HashMap<String, HashMap<String, Arc<Queue>>>,
}

struct Queue {
    consumer: String,
    waiting: Mutex<Waiting>,
    /// Rung for each message that comes into `ready`.
    ready: Notify,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Waiting {
    ready: VecDeque<Entry>,
    /// Refused ones, by the time at which they are ready again; the number tells two of one instant apart.
    later: BTreeMap<(Instant, u64), Entry>,
    refusals: u64,
    receivers: usize,
}

/// A message in one queue.
struct Entry {
    message: Message,
    attempts: usize,
    /// Gives its room back when the message is done.
    _room: OwnedSemaphorePermit,
}

/// Counts as a receiver of its queue while it lives.
struct Receiver(Arc<Queue>);

// === impl InMemory ===

impl InMemory {
    /// A broker without consumers.
    pub fn new() -> InMemory {
        InMemory { queues: Mutex::default(), shutdown: Shutdown::new() }
    }
}

impl Default for InMemory {
    fn default() -> InMemory {
        InMemory::new()
    }
}

impl std::fmt::Debug for InMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InMemory").finish_non_exhaustive()
    }
}

#[async_trait]
impl PubSub for InMemory {
    fn features(&self) -> &'static [Feature] {
        &[Feature::SubscribeWildcards]
    }

    async fn publish(&self, message: Outgoing) -> Result<(), BlockError> {
        self.shutdown.check()?;
        let queues = self.queues.lock().of(&message.topic);
        let mut entries = Vec::with_capacity(queues.len());
        let deadline = Instant::now() + TIMEOUT;
        // Room in all of them first, so that a refused message is in none.
        for queue in queues {
            let room = queue.reserve(message.data.len(), deadline).await?;
            entries.push((queue, room));
        }
        self.shutdown.check()?;
        let message = Message {
            topic: message.topic,
            // A copy, because the bytes may be a small part of a large request body.
            data: bytes::Bytes::copy_from_slice(&message.data),
            content_type: message.content_type,
            metadata: message.metadata,
        };
        for (queue, room) in entries {
            queue.waiting.lock().ready.push_back(Entry {
                message: message.clone(),
                attempts: 0,
                _room: room,
            });
            queue.ready.notify_one();
        }
        Ok(())
    }

    async fn subscribe(
        &self,
        subscribe: Subscribe,
        handler: Arc<dyn Handler<Message>>,
    ) -> Result<Box<dyn Running>, BlockError> {
        let alive = self.shutdown.alive()?;
        let queue = self.queues.lock().join(&subscribe);
        let receiver = Receiver::new(queue);
        Ok(Box::new(Task::spawn(|stop| receive(receiver, handler, stop, alive))))
    }

    async fn ping(&self) -> Result<(), BlockError> {
        self.shutdown.check()
    }

    async fn close(&self) {
        self.shutdown.shut_down(STOP_DEADLINE + Duration::from_secs(1)).await;
        *self.queues.lock() = Queues::default();
    }
}

// === impl Queues ===

impl Queues {
    /// The queues of a topic.
    fn of(&self, topic: &str) -> Vec<Arc<Queue>> {
        let exact = self.exact.get(topic).into_iter().flat_map(HashMap::values);
        let matching = self.wildcards.iter().filter(|(prefix, _)| topic.starts_with(prefix.as_str()));
        exact.chain(matching.flat_map(|(_, queues)| queues.values())).map(Arc::clone).collect()
    }

    /// The consumer's queue, which exists from now on.
    fn join(&mut self, subscribe: &Subscribe) -> Arc<Queue> {
        let Subscribe { topic, consumer, .. } = subscribe;
        let queues = match topic.strip_suffix('*') {
            Some(prefix) => self.wildcards.entry(prefix.to_owned()).or_default(),
            None => self.exact.entry(topic.clone()).or_default(),
        };
        let queue = queues.entry(consumer.clone()).or_insert_with(|| {
            Arc::new(Queue {
                consumer: consumer.clone(),
                waiting: Mutex::default(),
                ready: Notify::new(),
                room: Arc::new(Semaphore::new(QUEUE_UNITS as usize)),
            })
        });
        Arc::clone(queue)
    }
}

// === impl Queue ===

impl Queue {
    /// Room for a message of that many bytes.
    async fn reserve(&self, bytes: usize, deadline: Instant) -> Result<OwnedSemaphorePermit, BlockError> {
        let units = u32::try_from(1 + bytes / UNIT_BYTES).unwrap_or(u32::MAX).min(QUEUE_UNITS);
        loop {
            if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(units) {
                return Ok(room);
            }
            if !self.drop_oldest() {
                break;
            }
        }
        let room = Arc::clone(&self.room).acquire_many_owned(units);
        match tokio::time::timeout_at(deadline, room).await {
            Ok(Ok(room)) => Ok(room),
            _ => Err(BlockError::unavailable(format!(
                "consumer {:?} does not take its messages: no room in its queue for {TIMEOUT:?}; publish less, \
                 or look why its handler is slow or answers with errors",
                self.consumer
            ))),
        }
    }

    /// Makes room in a queue that nobody receives from; `false` if somebody does, or nothing is left to drop.
    fn drop_oldest(&self) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.receivers > 0 {
            return false;
        }
        let oldest = waiting.ready.pop_front().or_else(|| waiting.later.pop_first().map(|(_, entry)| entry));
        if oldest.is_some() {
            tracing::debug!(consumer = self.consumer, "a message is dropped, because nobody receives");
        }
        oldest.is_some()
    }

    /// The next message that is ready, or when there will be one.
    fn take(&self) -> Result<Entry, Option<Instant>> {
        let mut waiting = self.waiting.lock();
        if waiting.later.first_key_value().is_some_and(|((due, _), _)| *due <= Instant::now())
            && let Some((_, entry)) = waiting.later.pop_first()
        {
            return Ok(entry);
        }
        waiting.ready.pop_front().ok_or_else(|| waiting.later.keys().next().map(|(due, _)| *due))
    }

    /// Takes back a message that was not handled, to be handed over after a wait.
    fn refuse(&self, mut entry: Entry) {
        entry.attempts += 1;
        let due = Instant::now() + Backoff::after(entry.attempts);
        let mut waiting = self.waiting.lock();
        waiting.refusals += 1;
        let number = waiting.refusals;
        waiting.later.insert((due, number), entry);
        // Another receiver of the consumer may have to wake earlier now.
        self.ready.notify_one();
    }
}

// === impl Receiver ===

impl Receiver {
    fn new(queue: Arc<Queue>) -> Receiver {
        queue.waiting.lock().receivers += 1;
        Receiver(queue)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.waiting.lock().receivers -= 1;
        // It may have been woken for a message that it did not take.
        self.0.ready.notify_one();
    }
}

/// Hands messages over until it is told to stop, then waits for what is being handled.
async fn receive(receiver: Receiver, handler: Arc<dyn Handler<Message>>, mut stop: Stop, mut alive: Alive) {
    let queue = &receiver.0;
    let mut calls = Deliveries::new(handler, CONCURRENCY);
    let settle = |(entry, outcome): (Entry, Outcome)| match outcome {
        Outcome::Done => drop(entry),
        Outcome::Again => queue.refuse(entry),
    };
    loop {
        let mut due = None;
        while calls.room() > 0 {
            match queue.take() {
                Ok(entry) => calls.hand_over(entry.message.clone(), entry),
                Err(later) => {
                    due = later;
                    break;
                }
            }
        }
        let full = calls.room() == 0;
        tokio::select! {
            biased;
            () = alive.ended_or_stopped(&mut stop) => break,
            Some(ended) = calls.next(), if !calls.is_empty() => settle(ended),
            () = queue.ready.notified(), if !full => {}
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if !full && due.is_some() => {}
        }
    }
    let deadline = Instant::now() + STOP_DEADLINE;
    while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, calls.next()).await {
        settle(ended);
    }
    calls.abandon().await.into_iter().for_each(|entry| queue.refuse(entry));
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

    /// Tells what it was given; never answers where it hangs.
    struct Inbox {
        seen: UnboundedSender<String>,
        hangs: bool,
    }

    #[async_trait]
    impl Handler<Message> for Inbox {
        async fn handle(&self, message: Message) -> Outcome {
            self.seen.send(format!("{}: {}", message.topic, String::from_utf8_lossy(&message.data))).ok();
            if self.hangs { std::future::pending().await } else { Outcome::Done }
        }
    }

    fn message(topic: &str, data: impl Into<bytes::Bytes>) -> Outgoing {
        Outgoing { topic: topic.to_owned(), data: data.into(), ..Outgoing::default() }
    }

    fn subscription(topic: &str) -> Subscribe {
        Subscribe { topic: topic.to_owned(), consumer: "consumer".to_owned(), ..Subscribe::default() }
    }

    #[tokio::test]
    async fn a_star_stands_for_all_topics_that_begin_so() {
        let broker = InMemory::new();
        let (seen, mut received) = unbounded_channel();
        let handler = Arc::new(Inbox { seen, hangs: false });
        let running = broker.subscribe(subscription("orders/*"), handler).await.unwrap();
        for topic in ["orders", "order/1", "orders/1", "orders/2/paid", "*"] {
            broker.publish(message(topic, topic.to_owned())).await.unwrap();
        }
        for topic in ["orders/1", "orders/2/paid"] {
            assert_eq!(received.recv().await, Some(format!("{topic}: {topic}")));
        }
        running.stop().await;
        assert!(received.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_while_somebody_receives() {
        let broker = InMemory::new();
        let (seen, mut received) = unbounded_channel();
        let handler = Arc::new(Inbox { seen, hangs: true });
        let running = broker.subscribe(subscription("topic"), handler).await.unwrap();
        for _ in 0..QUEUE_UNITS {
            broker.publish(message("topic", "x")).await.unwrap();
        }
        received.recv().await.unwrap();
        let start = Instant::now();
        match broker.publish(message("topic", "x")).await {
            Err(BlockError::Unavailable { reason }) => assert!(reason.contains("consumer"), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(start.elapsed(), TIMEOUT);
        broker.publish(message("other", "x")).await.unwrap();
        running.stop().await;
    }

    #[tokio::test]
    async fn a_queue_that_nobody_receives_from_keeps_the_newest() {
        let broker = InMemory::new();
        let (seen, mut received) = unbounded_channel();
        let handler = Arc::new(Inbox { seen, hangs: false });
        broker.subscribe(subscription("topic"), Arc::clone(&handler) as _).await.unwrap().stop().await;
        // Larger than many small ones, and than the whole queue.
        let large = vec![b'x'; UNIT_BYTES * (QUEUE_UNITS as usize + 10)];
        for number in 0..QUEUE_UNITS + 10 {
            broker.publish(message("topic", number.to_string())).await.unwrap();
        }
        let running = broker.subscribe(subscription("topic"), Arc::clone(&handler) as _).await.unwrap();
        assert_eq!(received.recv().await, Some("topic: 10".to_owned()));
        running.stop().await;
        broker.publish(message("topic", large.clone())).await.unwrap();
        while received.try_recv().is_ok() {}
        let running = broker.subscribe(subscription("topic"), handler).await.unwrap();
        let next = received.recv().await.unwrap();
        assert_eq!(next.len(), "topic: ".len() + large.len());
        running.stop().await;
    }
}
