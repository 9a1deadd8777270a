//! Every message that was acknowledged arrives, however often the host is killed; dead letters, too.
//!
//! A sidecar with a durable broker is killed five times while four publishers send 10,000 messages through it.
//! The app drops some, which have to arrive as dead letters. Messages are handled one at a time here, so that the
//! order of each publisher can be looked at.

use crate::state::component;
use crate::support::{Setting, app, eventually, http::Client};
use dhow_servers::Process;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const MESSAGES: usize = 10_000;
const KILLS: usize = 5;
const PUBLISHERS: usize = 4;

/// A broker with its metadata, and how many messages a kill may put out of order: those that were read and not
/// handled, where the broker hands out later ones meanwhile.
struct Broker {
    component_type: &'static str,
    metadata: Vec<(&'static str, String)>,
    strays: usize,
    _server: Option<Process>,
}

#[test]
fn embedded_queue() {
    let metadata = vec![("connectionString", "queue.db".to_owned()), ("ordered", "true".to_owned())];
    at_least_once(Broker { component_type: "pubsub.sqlite", metadata, strays: 0, _server: None });
}

#[test]
fn redis() {
    let server = dhow_servers::redis().unwrap();
    let metadata = vec![
        ("redisHost", server.address()),
        ("concurrency", "1".to_owned()),
        ("queueDepth", "1".to_owned()),
        ("processingTimeout", "1s".to_owned()),
        ("redeliverInterval", "200ms".to_owned()),
    ];
    at_least_once(Broker { component_type: "pubsub.redis", metadata, strays: 1, _server: Some(server) });
}

#[test]
fn jetstream() {
    let server = dhow_servers::nats().unwrap();
    let metadata = vec![
        ("natsURL", format!("nats://{}", server.address())),
        ("maxAckPending", "1".to_owned()),
        ("ackWait", "1s".to_owned()),
    ];
    at_least_once(Broker { component_type: "pubsub.jetstream", metadata, strays: 0, _server: Some(server) });
}

#[test]
fn mqtt() {
    let server = dhow_servers::mosquitto().unwrap();
    let metadata = vec![
        ("url", format!("tcp://{}", server.address())),
        ("consumerID", "shop".to_owned()),
        ("concurrencyMode", "single".to_owned()),
    ];
    at_least_once(Broker { component_type: "pubsub.mqtt3", metadata, strays: 0, _server: Some(server) });
}

#[test]
fn rabbitmq() {
    let server = dhow_servers::rabbitmq().unwrap();
    let metadata = vec![
        ("connectionString", format!("amqp://guest:guest@{}", server.address())),
        ("prefetchCount", "1".to_owned()),
        ("concurrencyMode", "single".to_owned()),
    ];
    at_least_once(Broker { component_type: "pubsub.rabbitmq", metadata, strays: 0, _server: Some(server) });
}

/// What the app got, each message once, in the order of arrival.
#[derive(Default)]
struct Received {
    orders: Mutex<Arrivals>,
    dead: Mutex<Arrivals>,
}

#[derive(Default)]
struct Arrivals {
    seen: HashSet<(usize, usize)>,
    order: Vec<(usize, usize)>,
}

/// The app refuses these for good.
fn is_dropped(number: usize) -> bool {
    number % 50 == 7
}

fn at_least_once(broker: Broker) {
    let setting = Setting::new();
    let metadata: Vec<_> = broker.metadata.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let yaml = component("broker", broker.component_type, &metadata);
    setting.file("resources/broker.yaml", yaml.as_bytes());
    let received = Arc::new(Received::default());
    let app = app::start({
        let received = Arc::clone(&received);
        move |call| answer(call, &received)
    });
    let start = || setting.sidecar("shop", Some(app), &["--resources-path", "resources"]);

    let host = start();
    // Brokers that keep nothing for nobody have to know the subscriptions first.
    let first = host.api.unwrap();
    for (topic, received) in [("orders", &received.orders), ("dead", &received.dead)] {
        eventually(topic, || {
            publish(&mut Client::connect(first), topic, usize::MAX, 0).ok()?;
            received.lock().unwrap().seen.contains(&(usize::MAX, 0)).then_some(())
        });
    }

    let address = Mutex::new(Some(first));
    let acknowledged: Vec<Mutex<Vec<usize>>> = (0..PUBLISHERS).map(|_| Mutex::default()).collect();
    let count = AtomicUsize::new(0);
    let host = thread::scope(|scope| {
        let mut host = host;
        for (publisher, acknowledged) in acknowledged.iter().enumerate() {
            let (address, count) = (&address, &count);
            scope.spawn(move || publish_all(publisher, address, acknowledged, count));
        }
        for kill in 1..=KILLS {
            eventually("acknowledged messages", || {
                (count.load(Ordering::Relaxed) >= MESSAGES * kill / (KILLS + 1)).then_some(())
            });
            *address.lock().unwrap() = None;
            host.kill();
            host = start();
            *address.lock().unwrap() = host.api;
        }
        host
    });

    for (publisher, acknowledged) in acknowledged.iter().enumerate() {
        let acknowledged = acknowledged.lock().unwrap();
        let mut missing = Vec::new();
        let mut rest = usize::MAX;
        // As long as some come, there is no hurry.
        while rest > 0 {
            eventually("the messages that are left", || {
                missing = missing_of(publisher, &acknowledged, &received);
                (missing.len() < rest).then_some(())
            });
            rest = missing.len();
        }
    }
    host.stop();

    let orders = received.orders.lock().unwrap();
    for publisher in 0..PUBLISHERS {
        let mut newest = 0;
        let mut strays = Vec::new();
        for &(_, number) in orders.order.iter().filter(|(from, _)| *from == publisher) {
            if number < newest {
                strays.push(number);
            }
            newest = newest.max(number);
        }
        assert!(strays.len() <= broker.strays * KILLS, "out of order from publisher {publisher}: {strays:?}");
    }
}

fn missing_of(publisher: usize, acknowledged: &[usize], received: &Received) -> Vec<usize> {
    let (orders, dead) = (received.orders.lock().unwrap(), received.dead.lock().unwrap());
    let arrived = |number: usize| {
        orders.seen.contains(&(publisher, number))
            && (!is_dropped(number) || dead.seen.contains(&(publisher, number)))
    };
    acknowledged.iter().copied().filter(|number| !arrived(*number)).collect()
}

/// Sends numbered messages until all publishers together have enough of them acknowledged.
fn publish_all(
    publisher: usize,
    address: &Mutex<Option<SocketAddr>>,
    acknowledged: &Mutex<Vec<usize>>,
    count: &AtomicUsize,
) {
    let mut number = 0;
    while count.load(Ordering::Relaxed) < MESSAGES {
        let Some(host) = *address.lock().unwrap() else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let Ok(mut client) = Client::try_connect(host) else { continue };
        while count.load(Ordering::Relaxed) < MESSAGES {
            // What a kill breaks off may have arrived or not; its number is not used again.
            number += 1;
            if publish(&mut client, "orders", publisher, number).is_err() {
                break;
            }
            acknowledged.lock().unwrap().push(number);
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn publish(client: &mut Client, topic: &str, publisher: usize, number: usize) -> std::io::Result<()> {
    let data = json!({ "publisher": publisher, "number": number }).to_string();
    let target = format!("/v1.0/publish/broker/{topic}");
    let answer =
        client.try_send("POST", &target, &[("content-type", "application/json")], data.as_bytes())?;
    match answer.status {
        204 => Ok(()),
        // The broker's connection may not be there again: not acknowledged.
        500 => Err(std::io::Error::other(answer.text())),
        status => panic!("{status}: {}", answer.text()),
    }
}

fn answer(call: &app::Call, received: &Received) -> app::Reply {
    let (arrivals, refuses) = match call.target.as_str() {
        "/dapr/subscribe" => {
            let subscriptions = json!([
                {"pubsubname": "broker", "topic": "orders", "route": "/orders", "deadLetterTopic": "dead"},
                {"pubsubname": "broker", "topic": "dead", "route": "/dead"},
            ]);
            return (200, subscriptions.to_string());
        }
        "/orders" => (&received.orders, true),
        "/dead" => (&received.dead, false),
        _ => return (404, String::new()),
    };
    let event: Value = serde_json::from_slice(&call.body).unwrap();
    let field = |name: &str| usize::try_from(event["data"][name].as_u64().unwrap()).unwrap();
    let message = (field("publisher"), field("number"));
    let mut arrivals = arrivals.lock().unwrap();
    if arrivals.seen.insert(message) {
        arrivals.order.push(message);
    }
    let status = if refuses && is_dropped(message.1) { "DROP" } else { "SUCCESS" };
    (200, json!({ "status": status }).to_string())
}
