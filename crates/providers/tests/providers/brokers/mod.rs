//! What every message broker has to do, against a real one: run by `nats.rs`, `mqtt.rs` and `rabbitmq.rs`.

#![allow(dead_code, unreachable_pub, reason = "each of the three files uses its part")]

use async_trait::async_trait;
use dhow_blocks::binding::{Binding, BindingEvent, BindingRequest};
use dhow_blocks::conformance::binding::Trigger;
use dhow_blocks::conformance::{Runtime, binding, pubsub};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Outcome, Running};
use dhow_blocks::pubsub::{Message, Outgoing, PubSub, Subscribe};
use dhow_providers::registry::{ComponentSpec, OpenContext, OpenError, Opened, open};
use dhow_servers::{Certificates, Process};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};

const TOKIO: Runtime = Runtime {
    spawn: |task| drop(tokio::spawn(task)),
    sleep: |duration| Box::pin(tokio::time::sleep(duration)),
};

/// Whatever is waited for comes within this time.
pub const SOON: Duration = Duration::from_secs(15);

/// A request fails within this time when the broker is away.
const FAST: Duration = Duration::from_secs(10);

/// A component type and the metadata by which it finds the server of the test.
pub struct Broker {
    pub component_type: &'static str,
    pub metadata: Vec<(&'static str, String)>,
}

/// How a handler answers.
enum Answer {
    Done,
    /// Not handled, that many times in all.
    Again(Semaphore),
    /// Handled as soon as the semaphore lets it.
    When(Arc<Semaphore>),
}

/// A handler that shows what it got.
struct Shows<Event> {
    seen: mpsc::UnboundedSender<Event>,
    answer: Answer,
}

pub type Seen<Event> = mpsc::UnboundedReceiver<Event>;

// === impl Broker ===

impl Broker {
    pub async fn open(&self, more: &[(&str, &str)]) -> Result<Opened, OpenError> {
        let fixed = self.metadata.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let component = ComponentSpec {
            name: "broker".to_owned(),
            component_type: self.component_type.to_owned(),
            version: "v1".to_owned(),
            metadata: more.chain(fixed).collect(),
        };
        timeout(SOON, open(component, OpenContext::default())).await.expect("opens in time")
    }

    pub async fn pubsub(&self, more: &[(&str, &str)]) -> Arc<dyn PubSub> {
        match self.open(more).await {
            Ok(Opened::PubSub(pubsub)) => pubsub,
            Ok(_) => panic!("{} is no pub/sub", self.component_type),
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn binding(&self, more: &[(&str, &str)]) -> Arc<dyn Binding> {
        match self.open(more).await {
            Ok(Opened::Binding(binding)) => binding,
            Ok(_) => panic!("{} is no binding", self.component_type),
            Err(error) => panic!("{error}"),
        }
    }
}

// === impl Shows ===

#[async_trait]
impl<Event: Send + 'static> Handler<Event> for Shows<Event> {
    async fn handle(&self, event: Event) -> Outcome {
        // Nobody looks any more: the end of a test.
        let _ = self.seen.send(event);
        match &self.answer {
            Answer::Done => Outcome::Done,
            Answer::Again(times) => match times.try_acquire() {
                Ok(permit) => {
                    permit.forget();
                    Outcome::Again
                }
                Err(_) => Outcome::Done,
            },
            Answer::When(allowed) => {
                allowed.acquire().await.expect("never closed").forget();
                Outcome::Done
            }
        }
    }
}

fn shows<Event: Send + 'static>(answer: Answer) -> (Arc<dyn Handler<Event>>, Seen<Event>) {
    let (seen, receiver) = mpsc::unbounded_channel();
    (Arc::new(Shows { seen, answer }), receiver)
}

/// A handler of a binding that does not handle the first `again` events.
pub fn shows_events(again: usize) -> (Arc<dyn Handler<BindingEvent>>, Seen<BindingEvent>) {
    shows(Answer::Again(Semaphore::new(again)))
}

/// A handler of messages that handles all.
pub fn shows_messages() -> (Arc<dyn Handler<Message>>, Seen<Message>) {
    shows(Answer::Done)
}

/// A handler of messages that handles none.
pub fn refuses_messages() -> Arc<dyn Handler<Message>> {
    shows(Answer::Again(Semaphore::new(Semaphore::MAX_PERMITS))).0
}

pub fn outgoing(topic: &str, data: impl ToString) -> Outgoing {
    Outgoing { topic: topic.to_owned(), data: data.to_string().into(), ..Outgoing::default() }
}

pub fn request(operation: &str, data: &'static str, metadata: &[(&str, &str)]) -> BindingRequest {
    let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    BindingRequest { operation: operation.to_owned(), data: data.into(), metadata: metadata.collect() }
}

pub fn subscription(topic: &str, consumer: &str) -> Subscribe {
    Subscribe { topic: topic.to_owned(), consumer: consumer.to_owned(), metadata: Metadata::new() }
}

pub async fn subscribed(
    pubsub: &Arc<dyn PubSub>,
    topic: &str,
    consumer: &str,
    handler: &Arc<dyn Handler<Message>>,
) -> Box<dyn Running> {
    let subscribe = pubsub.subscribe(subscription(topic, consumer), Arc::clone(handler));
    timeout(SOON, subscribe).await.expect("subscribes in time").expect("subscribes")
}

pub async fn next<Event>(seen: &mut Seen<Event>) -> Event {
    timeout(SOON, seen.recv()).await.expect("arrives in time").expect("the handler lives")
}

pub async fn text(seen: &mut Seen<Message>) -> String {
    String::from_utf8(next(seen).await.data.to_vec()).expect("text")
}

/// The next `count` texts.
async fn texts(seen: &mut Seen<Message>, count: usize) -> Vec<String> {
    let mut texts = Vec::with_capacity(count);
    for _ in 0..count {
        texts.push(text(seen).await);
    }
    texts
}

/// What every broker promises, and a handler that runs long.
pub async fn suite(broker: &Broker) {
    for (concurrency, ordered) in [("single", true), ("parallel", false)] {
        let promises = pubsub::Promises { ordered, remembers_consumers: true };
        let name = format!("{}, {concurrency}", broker.component_type);
        let more = [("concurrency", concurrency)];
        let open = || broker.pubsub(&more);
        pubsub::suite(&name, TOKIO, promises, open).await.assert_passed();
    }
    let single = broker.pubsub(&[("concurrency", "single")]).await;
    held(&single, "long").await;
    single.close().await;
}

/// What every binding promises, of one that receives what it sends with `create`.
pub async fn binding_suite(broker: &Broker, more: &[(&str, &str)]) {
    let sender = broker.binding(more).await;
    let create = Arc::clone(&sender);
    let trigger: Trigger = Arc::new(move || {
        let create = Arc::clone(&create);
        Box::pin(async move {
            create.invoke(request("create", "an event", &[])).await.expect("creates an event");
        })
    });
    let traits = binding::Traits { trigger: Some(trigger), ..binding::Traits::default() };
    let open = || broker.binding(more);
    binding::suite(broker.component_type, TOKIO, traits, open).await.assert_passed();
    sender.close().await;
}

/// A handler that runs long gets its message once, and nothing else while it runs: for `concurrency: single`.
pub async fn held(pubsub: &Arc<dyn PubSub>, topic: &str) {
    let allowed = Arc::new(Semaphore::new(0));
    let (handler, mut seen) = shows(Answer::When(Arc::clone(&allowed)));
    let running = subscribed(pubsub, topic, "one", &handler).await;
    pubsub.publish(outgoing(topic, "slow")).await.expect("publishes");
    pubsub.publish(outgoing(topic, "next")).await.expect("publishes");
    assert_eq!(text(&mut seen).await, "slow");
    let early = timeout(Duration::from_millis(1_500), seen.recv()).await;
    assert!(early.is_err(), "{early:?} was delivered while the one before it was being handled");
    allowed.add_permits(2);
    assert_eq!(text(&mut seen).await, "next");
    running.stop().await;
}

/// Ends the server by `end` while messages are published and received, starts it again, and looks that
/// everything that was acknowledged has arrived.
pub async fn outage(broker: &Broker, server: &mut Process, end: fn(&mut Process)) {
    let missing = after_outage(broker, server, end, BTreeSet::is_empty).await;
    assert!(missing.is_empty(), "{} acknowledged messages did not arrive: {missing:?}", missing.len());
}

/// The same with a broker that loses what it acknowledged: publishing and receiving go on.
pub async fn outage_with_loss(broker: &Broker, server: &mut Process, end: fn(&mut Process)) {
    let missing = after_outage(broker, server, end, |missing| !missing.contains("back")).await;
    assert!(!missing.contains("back"), "nothing arrived after the outage");
}

/// Connects by TLS with a certificate, and looks that nobody is trusted who should not be.
pub async fn tls(component_type: &'static str, address: (&'static str, String), certificates: &Certificates) {
    let Certificates { ca, certificate, key } = certificates;
    let broker = Broker { component_type, metadata: vec![address] };
    let all = [("caCert", ca.as_str()), ("clientCert", certificate), ("clientKey", key)];
    let pubsub = broker.pubsub(&all).await;
    let (handler, mut seen) = shows_messages();
    let running = subscribed(&pubsub, "encrypted", "one", &handler).await;
    pubsub.publish(outgoing("encrypted", "secret")).await.expect("publishes");
    assert_eq!(text(&mut seen).await, "secret");
    running.stop().await;
    pubsub.close().await;
    // Nobody vouches for the server; the server does not know the client; half of a pair.
    for fields in [&all[1..], &all[..1], &all[..2]] {
        let error = broker.open(fields).await.map(|_| ()).expect_err("is refused");
        assert!(!error.to_string().contains("PRIVATE"), "{error}");
    }
}

/// Answers with what was acknowledged and has not arrived by the time that it is `enough`.
async fn after_outage(
    broker: &Broker,
    server: &mut Process,
    end: fn(&mut Process),
    enough: fn(&BTreeSet<String>) -> bool,
) -> BTreeSet<String> {
    let pubsub = broker.pubsub(&[("concurrency", "parallel")]).await;
    let (handler, mut seen) = shows_messages();
    let running = subscribed(&pubsub, "outage", "one", &handler).await;
    let finished = Arc::new(AtomicBool::new(false));
    let publisher = tokio::spawn(publish_until(Arc::clone(&pubsub), Arc::clone(&finished)));
    let before = texts(&mut seen, 100).await;

    tokio::task::block_in_place(|| end(server));
    let begun = Instant::now();
    let error = pubsub.publish(outgoing("elsewhere", 0)).await.expect_err("nobody is there");
    assert!(matches!(error, BlockError::Unavailable { .. }), "{error:?}");
    assert!(begun.elapsed() < FAST, "failed after {:?}", begun.elapsed());
    pubsub.ping().await.expect_err("nobody is there");

    tokio::task::block_in_place(|| server.start()).expect("starts again");
    let deadline = Instant::now() + 2 * SOON;
    while pubsub.publish(outgoing("outage", "back")).await.is_err() {
        assert!(Instant::now() < deadline, "publishing did not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    finished.store(true, Ordering::Relaxed);
    let mut missing = timeout(SOON, publisher).await.expect("ends in time").expect("publishes");
    missing.insert("back".to_owned());
    for text in before {
        missing.remove(&text);
    }
    let deadline = Instant::now() + SOON;
    while !enough(&missing) && Instant::now() < deadline {
        // Published again and again: the subscription may come back after the publisher.
        if missing.contains("back") {
            pubsub.publish(outgoing("outage", "back")).await.expect("publishes");
        }
        let wait = deadline.min(Instant::now() + Duration::from_secs(1));
        if let Ok(Some(message)) = tokio::time::timeout_at(wait, seen.recv()).await {
            missing.remove(std::str::from_utf8(&message.data).expect("text"));
        }
    }
    running.stop().await;
    pubsub.close().await;
    missing
}

/// Publishes numbers; answers with those that were acknowledged.
async fn publish_until(pubsub: Arc<dyn PubSub>, finished: Arc<AtomicBool>) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for number in 0.. {
        if finished.load(Ordering::Relaxed) {
            break;
        }
        match pubsub.publish(outgoing("outage", number)).await {
            Ok(()) => {
                acknowledged.insert(number.to_string());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    acknowledged
}
