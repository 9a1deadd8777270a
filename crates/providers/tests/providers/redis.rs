//! The Redis providers against a real server, which is started once, killed in the middle of work and started again.
//!
//! A second client, without any of our code, plays Dapr: what it writes has to be readable, and what it reads has to
//! have Dapr's form.

use async_trait::async_trait;
use bytes::Bytes;
use dhow_blocks::binding::{Binding, BindingRequest};
use dhow_blocks::configuration::{ConfigurationItem, ConfigurationStore, Items};
use dhow_blocks::conformance::{Runtime, binding, configuration, lock, pubsub, sequencer, state};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Outcome};
use dhow_blocks::lock::{LockStore, Unlock};
use dhow_blocks::pubsub::{Message, Outgoing, PubSub, Subscribe};
use dhow_blocks::sequencer::Sequencer;
use dhow_blocks::state::{Concurrency, Delete, Operation, Set, StateError, StateStore, Ttl};
use dhow_providers::registry::{ComponentSpec, OpenContext, OpenError, Opened, open};
use dhow_servers::Process;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, cmd};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::timeout;

/// Entries of a stream as Redis answers them: ids, each with names and values.
type Entries = Vec<(String, Vec<Bytes>)>;

/// What should happen happens long before; what should not is looked for at its own place.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request without a server has to be over by then: `dialTimeout` and `readTimeout` of [`Server::open`].
const FAIL_FAST: Duration = Duration::from_secs(4);

const TOKIO: Runtime = Runtime {
    spawn: |task| drop(tokio::spawn(task)),
    sleep: |duration| Box::pin(tokio::time::sleep(duration)),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis() {
    let mut server = Server { process: dhow_servers::redis().unwrap() };
    conformance(&server).await;
    state_has_daprs_form(&server).await;
    state_with_a_default_ttl(&server).await;
    locks(&server).await;
    bindings(&server).await;
    changes_of_configuration(&server).await;
    messages_have_daprs_form(&server).await;
    every_group_gets_each_message_once(&server).await;
    refused_messages_come_again(&server).await;
    redelivery_can_be_off(&server).await;
    entries_of_dead_consumers_are_taken_over(&server).await;
    a_long_call_is_not_repeated(&server).await;
    stopping_finishes_what_was_begun(&server).await;
    a_lost_group_is_made_again(&server).await;
    passwords(&server).await;
    mistakes(&server).await;
    tls().await;
    a_silent_server(&server).await;
    a_killed_server(&mut server).await;
}

// === state ===

async fn conformance(server: &Server) {
    let open = || async { server.state(&[]).await };
    state::suite("state.redis", TOKIO, open).await.assert_passed();

    let open = || async { server.lock().await };
    lock::suite("lock.redis", TOKIO, open).await.assert_passed();

    let open = || async { server.sequencer().await };
    sequencer::suite("sequencer.redis", TOKIO, open).await.assert_passed();

    let traits = binding::Traits { key_field: Some("key"), ..binding::Traits::default() };
    let open = || async { server.binding().await };
    binding::suite("bindings.redis", TOKIO, traits, open).await.assert_passed();

    let promises = pubsub::Promises { ordered: false, remembers_consumers: true };
    let quick = [("processingTimeout", "500ms"), ("redeliverInterval", "100ms")];
    let open = || async { server.pubsub(&quick).await };
    pubsub::suite("pubsub.redis", TOKIO, promises, open).await.assert_passed();
    // One after the other.
    let promises = pubsub::Promises { ordered: true, ..promises };
    let one = [quick[0], quick[1], ("concurrency", "1")];
    let open = || async { server.pubsub(&one).await };
    pubsub::suite("pubsub.redis, one at a time", TOKIO, promises, open).await.assert_passed();

    let client = server.client().await;
    let write: configuration::Write = Arc::new(move |changes| {
        let mut client = client.clone();
        Box::pin(async move {
            for (key, value) in changes {
                match value {
                    Some(value) => send(&mut client, &["SET", &key, &value]).await,
                    None => send(&mut client, &["DEL", &key]).await,
                };
            }
        })
    });
    let open = || async { server.configuration(&[]).await };
    configuration::suite("configuration.redis", TOKIO, write, open).await.assert_passed();
    let write = super::operator_files::written_by(server.configuration(&[]).await);
    configuration::suite("configuration.redis, written", TOKIO, write, open).await.assert_passed();
}

async fn state_has_daprs_form(server: &Server) {
    let (store, mut dapr) = (server.state(&[]).await, server.client().await);
    let mut ask = async |words: &[&str]| -> redis::Value { send(&mut dapr, words).await };

    // What Dapr wrote, we read and change.
    ask(&["HSET", "app||cart", "data", "{\"books\":2}", "version", "5"]).await;
    ask(&["PEXPIRE", "app||cart", "3600000"]).await;
    let item = store.get("app||cart").await.unwrap().unwrap();
    assert_eq!((&item.value[..], item.etag.as_str()), (&b"{\"books\":2}"[..], "5"));
    let left = item.expires_at.unwrap().duration_since(SystemTime::now()).unwrap();
    assert!(left > Duration::from_secs(3500) && left <= Duration::from_secs(3600), "{left:?}");
    let set = |key: &str, value: &'static str| Set {
        key: key.to_owned(),
        value: Bytes::from_static(value.as_bytes()),
        ..Set::default()
    };
    store.set(Set { etag: Some("5".to_owned()), ..set("app||cart", "3") }).await.unwrap();
    assert_eq!(fields(ask(&["HGETALL", "app||cart"]).await), "data=3 version=6");
    assert_eq!(i64::from_redis_value(ask(&["PTTL", "app||cart"]).await).unwrap(), -1);
    assert_eq!(store.increment("app||cart", 4).await, Ok(7));
    assert_eq!(fields(ask(&["HGETALL", "app||cart"]).await), "data=7 version=7");

    // What we write has Dapr's fields; its version is a number that counts on.
    store.set(set("app||new", "a")).await.unwrap();
    let found = fields(ask(&["HGETALL", "app||new"]).await);
    let version: i64 =
        found.strip_prefix("data=a version=").and_then(|text| text.parse().ok()).expect(&found);
    ask(&["HINCRBY", "app||new", "version", "1"]).await;
    assert_eq!(store.get("app||new").await.unwrap().unwrap().etag, (version + 1).to_string());
    let first = Set { concurrency: Concurrency::FirstWrite, ..set("app||first", "a") };
    store.set(first).await.unwrap();
    let found = fields(ask(&["HGETALL", "app||first"]).await);
    assert!(found.starts_with("data=a first-write=0 version="), "{found}");
    store
        .transact(vec![Operation::Set(Set {
            ttl: Ttl::After(Duration::from_secs(100)),
            ..set("app||t", "1")
        })])
        .await
        .unwrap();
    let left = i64::from_redis_value(ask(&["TTL", "app||t"]).await).unwrap();
    assert!((98..=100).contains(&left), "{left}");

    // Other things under a key.
    ask(&["SET", "app||text", "old"]).await;
    assert_eq!(store.get("app||text").await.unwrap().unwrap().value, "old");
    let guarded = Set { etag: Some("1".to_owned()), ..set("app||text", "new") };
    assert!(matches!(store.set(guarded).await, Err(StateError::EtagMismatch { .. })));
    store.set(set("app||text", "new")).await.unwrap();
    assert_eq!(store.get("app||text").await.unwrap().unwrap().value, "new");
    ask(&["SADD", "app||set", "x"]).await;
    assert!(matches!(store.get("app||set").await, Err(StateError::Failed { .. })));
    let many = store.get_many(&["app||set".to_owned(), "app||cart".to_owned()]).await;
    assert!(many[0].is_err() && many[1].as_ref().is_ok_and(Option::is_some), "{many:?}");
    let listed = store.list_keys("app||", None, 100).await.unwrap().keys;
    assert_eq!(listed, ["app||cart", "app||first", "app||new", "app||t", "app||text"]);

    // Numbers in other spellings than Redis' own.
    for (text, sum) in [("007", 8), ("+5", 6), ("-0", 1), ("-007", -6), ("0", 1)] {
        store.set(set("app||n", text)).await.unwrap();
        assert_eq!(store.increment("app||n", 1).await, Ok(sum), "{text}");
    }
    // A script cache that is emptied, as by a restart, is filled again.
    ask(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(store.increment("app||n", 1).await, Ok(2));
    store.delete(Delete { key: "app||n".to_owned(), etag: None }).await.unwrap();
    assert_eq!(ask(&["EXISTS", "app||n"]).await, redis::Value::Int(0));
    store.close().await;
}

async fn state_with_a_default_ttl(server: &Server) {
    let store = server.state(&[("ttlInSeconds", "100"), ("redisDB", "2")]).await;
    let key = "expiring".to_owned();
    store.set(Set { key: key.clone(), ..Set::default() }).await.unwrap();
    assert!(store.get(&key).await.unwrap().unwrap().expires_at.is_some());
    store
        .set(Set { key: key.clone(), ttl: Ttl::After(Duration::from_secs(9000)), ..Set::default() })
        .await
        .unwrap();
    let mut client = server.client().await;
    send(&mut client, &["SELECT", "2"]).await;
    let left: i64 = from(send(&mut client, &["TTL", "expiring"]).await);
    assert!(left > 8000, "{left}");
    store.increment("counter", 1).await.unwrap();
    assert!(store.get("counter").await.unwrap().unwrap().expires_at.is_some());
    store.close().await;
}

// === locks, bindings, configuration ===

async fn locks(server: &Server) {
    let store = server.lock().await;
    let mut client = server.client().await;
    let (resource, minute) = ("lock||app||door", Duration::from_secs(60));
    assert_eq!(store.unlock(resource, "anna").await, Ok(Unlock::NotHeld));
    assert_eq!(store.try_lock(resource, "anna", minute).await, Ok(true));
    for owner in ["anna", "ben"] {
        assert_eq!(store.try_lock(resource, owner, minute).await, Ok(false), "{owner}");
    }
    assert_eq!(from::<String>(send(&mut client, &["GET", resource]).await), "anna");
    let left: i64 = from(send(&mut client, &["PTTL", resource]).await);
    assert!((50_000..=60_000).contains(&left), "{left}");
    assert_eq!(store.unlock(resource, "ben").await, Ok(Unlock::HeldByOther));
    assert_eq!(store.unlock(resource, "anna").await, Ok(Unlock::Released));
    assert_eq!(store.try_lock(resource, "ben", Duration::from_millis(50)).await, Ok(true));
    eventually("the lock expires", async || store.try_lock(resource, "anna", minute).await.unwrap()).await;
    // A lock that a Dapr took.
    send(&mut client, &["SET", "lock||app||gate", "dapr", "NX", "EX", "60"]).await;
    assert_eq!(store.try_lock("lock||app||gate", "anna", minute).await, Ok(false));
    assert_eq!(store.unlock("lock||app||gate", "dapr").await, Ok(Unlock::Released));
    let none = store.try_lock(resource, "anna", Duration::ZERO).await;
    assert!(matches!(none, Err(BlockError::Invalid { .. })), "{none:?}");
    let rivals: Vec<_> = (0..16)
        .map(|rival| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.try_lock("rivals", &rival.to_string(), minute).await.unwrap() })
        })
        .collect();
    let mut winners = 0;
    for rival in rivals {
        winners += usize::from(rival.await.unwrap());
    }
    assert_eq!(winners, 1);
    store.close().await;
    assert!(matches!(store.unlock(resource, "anna").await, Err(BlockError::Unavailable { .. })));
}

async fn bindings(server: &Server) {
    let binding = server.binding().await;
    let mut client = server.client().await;
    let invoke = async |operation: &str, data: &'static str, metadata: &[(&str, &str)]| {
        let request = BindingRequest {
            operation: operation.to_owned(),
            data: Bytes::from_static(data.as_bytes()),
            metadata: metadata
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        binding.invoke(request).await.map(|response| response.data)
    };
    let key = ("key", "b||k");
    assert_eq!(binding.operations(), ["create", "delete", "get", "increment"]);
    assert_eq!(invoke("get", "", &[key]).await, Ok(None));
    assert_eq!(invoke("create", "hello", &[key]).await, Ok(None));
    assert_eq!(invoke("get", "", &[("KEY", "b||k")]).await, Ok(Some(Bytes::from_static(b"hello"))));
    assert_eq!(from::<String>(send(&mut client, &["GET", "b||k"]).await), "hello");
    assert_eq!(invoke("create", "short", &[key, ("ttlInSeconds", "90")]).await, Ok(None));
    let left: i64 = from(send(&mut client, &["TTL", "b||k"]).await);
    assert!((80..=90).contains(&left), "{left}");
    assert_eq!(invoke("get", "", &[key, ("delete", "true")]).await, Ok(Some(Bytes::from_static(b"short"))));
    assert_eq!(invoke("get", "", &[key]).await, Ok(None));
    assert_eq!(invoke("increment", "", &[key]).await, Ok(None));
    assert_eq!(invoke("increment", "", &[key, ("ttlInSeconds", "90")]).await, Ok(None));
    assert_eq!(from::<String>(send(&mut client, &["GET", "b||k"]).await), "2");
    assert!(from::<i64>(send(&mut client, &["TTL", "b||k"]).await) > 0);
    assert_eq!(invoke("delete", "", &[key]).await, Ok(None));
    assert_eq!(invoke("get", "", &[key]).await, Ok(None));
    for (operation, metadata) in [
        ("create", &[][..]),
        ("create", &[("key", "")][..]),
        ("create", &[key, ("ttlInSeconds", "soon")][..]),
        ("create", &[key, ("ttlInSeconds", "0")][..]),
        ("list", &[key][..]),
    ] {
        let answer = invoke(operation, "", metadata).await;
        assert!(matches!(answer, Err(BlockError::Invalid { .. })), "{operation} {metadata:?}: {answer:?}");
    }
    invoke("create", "text", &[key]).await.unwrap();
    assert!(matches!(invoke("increment", "", &[key]).await, Err(BlockError::Failed { .. })));
    assert_eq!(binding.ping().await, Ok(()));
    binding.close().await;
    assert!(binding.ping().await.is_err());
}

async fn changes_of_configuration(server: &Server) {
    // A database of its own: "all keys" means all.
    let store = server.configuration(&[("redisDB", "1")]).await;
    let mut client = server.client().await;
    send(&mut client, &["SELECT", "1"]).await;
    for (key, value) in [("color", "red||1"), ("size", "7"), ("odd", "a||2||b")] {
        send(&mut client, &["SET", key, value]).await;
    }
    send(&mut client, &["SADD", "list", "x"]).await;
    let none = Metadata::new();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
    let all = [("color", "red", "1"), ("odd", "a", "2"), ("size", "7", "")];
    assert_eq!(store.get(&[], &none).await, Ok(items(&all)));
    let found = store.get(&names(&["size", "absent", "list", "color"]), &none).await;
    assert_eq!(found, Ok(items(&[("color", "red", "1"), ("size", "7", "")])));

    let (one, mut changes) = Collect::new(Outcome::Done);
    let some = store.subscribe(&names(&["color", "later"]), &none, one).await.unwrap();
    let (any, mut all_changes) = Collect::new(Outcome::Done);
    let everything = store.subscribe(&[], &none, any).await.unwrap();
    send(&mut client, &["SET", "size", "8||2"]).await;
    send(&mut client, &["SET", "color", "blue||2"]).await;
    assert_eq!(next(&mut changes).await, items(&[("color", "blue", "2")]));
    send(&mut client, &["SET", "later", "here"]).await;
    assert_eq!(next(&mut changes).await, items(&[("later", "here", "")]));
    send(&mut client, &["DEL", "color"]).await;
    assert_eq!(next(&mut changes).await, items(&[("color", "", "")]));
    let mut seen = Items::new();
    while seen.len() < 3 || seen["color"] != ConfigurationItem::default() {
        seen.extend(next(&mut all_changes).await);
    }
    assert_eq!(seen, items(&[("color", "", ""), ("later", "here", ""), ("size", "8", "2")]));
    // Expiry is a change, too.
    send(&mut client, &["PEXPIRE", "later", "1"]).await;
    assert_eq!(next(&mut changes).await, items(&[("later", "", "")]));
    some.stop().await;
    send(&mut client, &["SET", "color", "green"]).await;
    let color = next(&mut all_changes).await;
    assert!(color.contains_key("later") || color.contains_key("color"), "{color:?}");
    assert!(changes.recv().await.is_none(), "a stopped subscription reported a change");
    // What others had switched on stays on.
    let flags: Vec<String> = from(send(&mut client, &["CONFIG", "GET", "notify-keyspace-events"]).await);
    assert!("Kgx$e".chars().all(|flag| flags[1].contains(flag)), "{flags:?}");
    store.close().await;
    everything.stop().await;
    assert!(matches!(store.get(&[], &none).await, Err(BlockError::Unavailable { .. })));
}

// === pub/sub ===

async fn messages_have_daprs_form(server: &Server) {
    let pubsub = server.pubsub(&[]).await;
    let mut client = server.client().await;
    assert!(pubsub.features().is_empty());
    let metadata = Metadata::from([("ttlInSeconds".to_owned(), "60".to_owned())]);
    let binary = Bytes::from_static(b"\0\xff\r\n");
    let message =
        |data: &Bytes| Outgoing { topic: "form".to_owned(), data: data.clone(), ..Outgoing::default() };
    pubsub.publish(Outgoing { metadata: metadata.clone(), ..message(&binary) }).await.unwrap();
    let entries: Entries = from(send(&mut client, &["XRANGE", "form", "-", "+"]).await);
    let expected: [&[u8]; 4] = [b"data", b"\0\xff\r\n", b"metadata", br#"{"ttlInSeconds":"60"}"#];
    assert_eq!(entries[0].1, expected);

    // Published before anybody subscribed, by us and by a Dapr of any age.
    send(&mut client, &["XADD", "form", "*", "data", "old"]).await;
    send(&mut client, &["XADD", "form", "*", "metadata", "null", "data", "null"]).await;
    send(&mut client, &["XADD", "form", "*", "data", "broken", "metadata", "{"]).await;
    send(&mut client, &["XADD", "form", "*", "other", "x"]).await;
    let (handler, mut messages) = Collect::new(Outcome::Done);
    let running = pubsub.subscribe(subscription("form", "app"), handler).await.unwrap();
    let mut seen = BTreeMap::new();
    for _ in 0..5 {
        let Message { topic, data, content_type, metadata } = next(&mut messages).await;
        assert_eq!((topic.as_str(), content_type), ("form", None));
        seen.insert(data, metadata);
    }
    let plain = Metadata::new();
    let expected = [
        (binary.clone(), metadata),
        (Bytes::from_static(b"old"), plain.clone()),
        (Bytes::from_static(b"null"), plain.clone()),
        (Bytes::from_static(b"broken"), plain.clone()),
        (Bytes::new(), plain),
    ];
    assert_eq!(seen, BTreeMap::from(expected));
    eventually("all is acknowledged", async || server.pending("form", "app").await == 0).await;
    running.stop().await;

    // Many at once; one that is refused does not take the others with it.
    send(&mut client, &["SET", "no stream", "x"]).await;
    let batch = ["many", "", "no stream", "many"]
        .map(|topic| Outgoing { topic: topic.to_owned(), ..message(&binary) });
    let results = pubsub.publish_many(batch.into()).await;
    assert!(results[0].is_ok() && results[3].is_ok(), "{results:?}");
    assert!(matches!(results[1], Err(BlockError::Invalid { .. })), "{results:?}");
    assert!(matches!(results[2], Err(BlockError::Failed { .. })), "{results:?}");
    assert_eq!(send(&mut client, &["XLEN", "many"]).await, redis::Value::Int(2));
    assert!(pubsub.publish_many(Vec::new()).await.is_empty());
    let (handler, _messages) = Collect::new(Outcome::Done);
    assert!(pubsub.subscribe(subscription("no stream", "app"), handler).await.is_err());
    pubsub.close().await;
    assert!(matches!(pubsub.publish(message(&binary)).await, Err(BlockError::Unavailable { .. })));

    // Bounded streams.
    for (bound, least, most) in [(("maxLenApprox", "100"), 100, 400), (("streamTTL", "1ms"), 0, 300)] {
        let pubsub = server.pubsub(&[bound]).await;
        let topic = format!("bounded by {}", bound.0);
        let batch = || vec![Outgoing { topic: topic.clone(), ..message(&binary) }; 1000];
        for _ in 0..2 {
            assert!(pubsub.publish_many(batch()).await.iter().all(Result::is_ok));
        }
        let length: i64 = from(send(&mut client, &["XLEN", &topic]).await);
        assert!((least..=most).contains(&length) || bound.0 == "streamTTL" && length < 2000, "{length}");
        pubsub.close().await;
    }
}

async fn every_group_gets_each_message_once(server: &Server) {
    const MESSAGES: usize = 500;
    let pubsub = server.pubsub(&[("concurrency", "3")]).await;
    let mut receivers = Vec::new();
    let mut running = Vec::new();
    for group in ["a", "a", "b"] {
        let (handler, messages) = Collect::new(Outcome::Done);
        running.push(pubsub.subscribe(subscription("shared", group), handler).await.unwrap());
        receivers.push(messages);
    }
    let publishers: Vec<_> = (0..5)
        .map(|publisher| {
            let pubsub = Arc::clone(&pubsub);
            tokio::spawn(async move {
                for number in 0..MESSAGES / 5 {
                    pubsub.publish(outgoing("shared", &format!("{publisher}-{number}"))).await.unwrap();
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    for group in ["a", "b"] {
        eventually("a group is done", async || {
            server.pending("shared", group).await == 0 && server.lag("shared", group).await == 0
        })
        .await;
    }
    for running in running {
        running.stop().await;
    }
    let mut counts = Vec::new();
    for messages in &mut receivers {
        let mut seen = Vec::new();
        while let Some(message) = messages.recv().await {
            seen.push(message.data);
        }
        counts.push(seen);
    }
    let together: BTreeSet<&Bytes> = counts[0].iter().chain(&counts[1]).collect();
    assert_eq!((counts[0].len() + counts[1].len(), together.len()), (MESSAGES, MESSAGES));
    assert_eq!(counts[2].len(), MESSAGES);
    pubsub.close().await;
}

async fn refused_messages_come_again(server: &Server) {
    let pubsub = server.pubsub(&[("processingTimeout", "200ms"), ("redeliverInterval", "50")]).await;
    let (handler, mut messages) = Collect::<Message>::new(Outcome::Again);
    let running = pubsub.subscribe(subscription("refused", "app"), Arc::clone(&handler) as _).await.unwrap();
    let start = Instant::now();
    pubsub.publish(outgoing("refused", "1")).await.unwrap();
    for attempt in 0..3 {
        assert_eq!(next(&mut messages).await.data, "1", "attempt {attempt}");
    }
    assert!(start.elapsed() >= Duration::from_millis(400), "refused messages came again too soon");
    assert_eq!(server.pending("refused", "app").await, 1);
    handler.refuses.store(false, Ordering::SeqCst);
    assert_eq!(next(&mut messages).await.data, "1");
    eventually("it is acknowledged", async || server.pending("refused", "app").await == 0).await;
    running.stop().await;
    pubsub.close().await;

    // With ackOnError a refusal is the end of it.
    let pubsub = server.pubsub(&[("processingTimeout", "200ms"), ("ackOnError", "true")]).await;
    let (handler, mut messages) = Collect::new(Outcome::Again);
    let running = pubsub.subscribe(subscription("acknowledged", "app"), handler).await.unwrap();
    pubsub.publish(outgoing("acknowledged", "1")).await.unwrap();
    next(&mut messages).await;
    eventually("it is acknowledged", async || server.pending("acknowledged", "app").await == 0).await;
    running.stop().await;
    pubsub.close().await;
}

async fn redelivery_can_be_off(server: &Server) {
    let pubsub = server.pubsub(&[("processingTimeout", "0"), ("redeliverInterval", "1")]).await;
    let (handler, mut messages) = Collect::<Message>::new(Outcome::Again);
    let running = pubsub.subscribe(subscription("off", "app"), handler).await.unwrap();
    for number in ["1", "2", "3"] {
        pubsub.publish(outgoing("off", number)).await.unwrap();
        assert_eq!(next(&mut messages).await.data, number);
    }
    assert_eq!(server.pending("off", "app").await, 3);
    running.stop().await;
    assert!(messages.recv().await.is_none(), "a refused message came again");
    pubsub.close().await;
}

async fn entries_of_dead_consumers_are_taken_over(server: &Server) {
    let mut client = server.client().await;
    send(&mut client, &["XGROUP", "CREATE", "dead", "app", "0", "MKSTREAM"]).await;
    for number in 0..250 {
        send(&mut client, &["XADD", "dead", "*", "data", &number.to_string()]).await;
    }
    // Somebody took them all and was never heard of again; some were deleted since.
    let taken: Vec<(String, Entries)> =
        from(send(&mut client, &["XREADGROUP", "GROUP", "app", "app", "STREAMS", "dead", ">"]).await);
    for (id, _) in &taken[0].1[10..20] {
        send(&mut client, &["XDEL", "dead", id]).await;
    }
    assert_eq!(server.pending("dead", "app").await, 250);
    let pubsub = server.pubsub(&[("processingTimeout", "100"), ("redeliverInterval", "50")]).await;
    let (handler, mut messages) = Collect::new(Outcome::Done);
    let running = pubsub.subscribe(subscription("dead", "app"), handler).await.unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < 240 {
        seen.insert(next(&mut messages).await.data);
    }
    eventually("none is pending", async || server.pending("dead", "app").await == 0).await;
    running.stop().await;
    assert!(messages.recv().await.is_none(), "a message was delivered twice");
    let consumers: Vec<BTreeMap<String, redis::Value>> =
        from(send(&mut client, &["XINFO", "CONSUMERS", "dead", "app"]).await);
    assert_eq!(consumers.len(), 1, "a stopped consumer leaves nothing behind: {consumers:?}");
    pubsub.close().await;
}

async fn a_long_call_is_not_repeated(server: &Server) {
    let fields = [("processingTimeout", "200ms"), ("redeliverInterval", "20ms"), ("concurrency", "2")];
    // Two hosts of one group.
    let hosts = [server.pubsub(&fields).await, server.pubsub(&fields).await];
    let gate = Arc::new(Gate { calls: AtomicUsize::new(0), open: Semaphore::new(0) });
    let mut running = Vec::new();
    for host in &hosts {
        running.push(host.subscribe(subscription("long", "app"), Arc::clone(&gate) as _).await.unwrap());
    }
    for number in 0..3 {
        hosts[0].publish(outgoing("long", &number.to_string())).await.unwrap();
    }
    eventually("all are in hand", async || gate.calls.load(Ordering::SeqCst) == 3).await;
    // Five times processingTimeout, as the server's clock tells by expiry.
    let mut client = server.client().await;
    send(&mut client, &["SET", "clock", "x", "PX", "1000"]).await;
    eventually("time passes", async || {
        from::<i64>(send(&mut server.client().await, &["EXISTS", "clock"]).await) == 0
    })
    .await;
    assert_eq!(gate.calls.load(Ordering::SeqCst), 3, "a message in hand was delivered again");
    gate.open.add_permits(3);
    eventually("all are acknowledged", async || server.pending("long", "app").await == 0).await;
    for running in running {
        running.stop().await;
    }
    assert_eq!(gate.calls.load(Ordering::SeqCst), 3);
    for host in hosts {
        host.close().await;
    }
}

async fn stopping_finishes_what_was_begun(server: &Server) {
    let pubsub = server.pubsub(&[("concurrency", "2"), ("processingTimeout", "5s")]).await;
    let gate = Arc::new(Gate { calls: AtomicUsize::new(0), open: Semaphore::new(0) });
    let running = pubsub.subscribe(subscription("stop", "app"), Arc::clone(&gate) as _).await.unwrap();
    for number in 0..4 {
        pubsub.publish(outgoing("stop", &number.to_string())).await.unwrap();
    }
    eventually("two are in hand", async || gate.calls.load(Ordering::SeqCst) == 2).await;
    let stopping = tokio::spawn(running.stop());
    gate.open.add_permits(2);
    timeout(PATIENCE, stopping).await.unwrap().unwrap();
    assert_eq!(gate.calls.load(Ordering::SeqCst), 2, "a stopped subscription took another message");
    assert_eq!(server.pending("stop", "app").await, 0, "what was handled is acknowledged");
    // The others are there for the next one, and closing stops it as well.
    let (handler, mut messages) = Collect::new(Outcome::Done);
    let running = pubsub.subscribe(subscription("stop", "app"), handler).await.unwrap();
    let rest: BTreeSet<Bytes> = [next(&mut messages).await.data, next(&mut messages).await.data].into();
    assert_eq!(rest, BTreeSet::from(["2", "3"].map(Bytes::from)));
    timeout(PATIENCE, pubsub.close()).await.unwrap();
    assert!(messages.recv().await.is_none());
    assert_eq!(server.pending("stop", "app").await, 0);
    running.stop().await;

    // Dropped, it stops as well, and a handler that never ends holds up nobody for long.
    let pubsub = server.pubsub(&[("processingTimeout", "300ms")]).await;
    let gate = Arc::new(Gate { calls: AtomicUsize::new(0), open: Semaphore::new(0) });
    drop(pubsub.subscribe(subscription("dropped", "app"), Arc::clone(&gate) as _).await.unwrap());
    let running = pubsub.subscribe(subscription("stuck", "app"), Arc::clone(&gate) as _).await.unwrap();
    pubsub.publish(outgoing("stuck", "1")).await.unwrap();
    eventually("it is in hand", async || gate.calls.load(Ordering::SeqCst) == 1).await;
    timeout(Duration::from_secs(5), running.stop()).await.unwrap();
    assert_eq!(server.pending("stuck", "app").await, 1, "it waits for another consumer");
    timeout(PATIENCE, pubsub.close()).await.unwrap();
}

async fn a_lost_group_is_made_again(server: &Server) {
    let pubsub = server.pubsub(&[]).await;
    let (handler, mut messages) = Collect::new(Outcome::Done);
    let running = pubsub.subscribe(subscription("lost", "app"), handler).await.unwrap();
    pubsub.publish(outgoing("lost", "before")).await.unwrap();
    assert_eq!(next(&mut messages).await.data, "before");
    send(&mut server.client().await, &["FLUSHALL"]).await;
    pubsub.publish(outgoing("lost", "after")).await.unwrap();
    assert_eq!(next(&mut messages).await.data, "after");
    running.stop().await;
    pubsub.close().await;
}

// === mistakes and faults ===

async fn passwords(server: &Server) {
    let mut client = server.client().await;
    send(&mut client, &["ACL", "SETUSER", "anna", "on", ">s3cret", "~*", "&*", "+@all"]).await;
    let anna = ("redisUsername", "anna");
    let store = server.state(&[anna, ("redisPassword", "s3cret")]).await;
    assert_eq!(store.ping().await, Ok(()));
    store.close().await;
    match server.open("state.redis", &[anna, ("redisPassword", "hunter2")]).await {
        Err(error @ OpenError::Backend { .. }) => {
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        _ => panic!("a wrong password was accepted"),
    }
}

async fn mistakes(server: &Server) {
    for component_type in
        ["state.redis", "pubsub.redis", "lock.redis", "configuration.redis", "bindings.redis"]
    {
        for field in [("redisType", "cluster"), ("dialTimeout", "soon"), ("enableTLS", "true")] {
            assert!(server.open(component_type, &[field]).await.is_err(), "{component_type} {field:?}");
        }
        let nowhere = spec(component_type, &[("redisHost", "127.0.0.1:1"), ("dialTimeout", "2s")]);
        let error = open(nowhere, OpenContext::default()).await.err().unwrap();
        assert!(matches!(error, OpenError::Backend { .. }), "{error}");
    }
    for (component_type, field) in [
        ("pubsub.redis", ("processingTimeout", "soon")),
        ("pubsub.redis", ("concurrency", "0")),
        ("pubsub.redis", ("queueDepth", "many")),
        ("pubsub.redis", ("streamTTL", "soon")),
        ("state.redis", ("ttlInSeconds", "soon")),
    ] {
        let error = server.open(component_type, &[field]).await.err().unwrap();
        let expected = matches!(&error, OpenError::InvalidMetadata { field: named, .. } if named == field.0);
        assert!(expected, "{field:?}: {error}");
    }
}

/// The server takes requests and does not answer.
async fn a_silent_server(server: &Server) {
    let timeouts = [("readTimeout", "200ms"), ("dialTimeout", "200ms"), ("redisMaxRetries", "1")];
    let store = server.state(&timeouts).await;
    let mut client = server.client().await;
    send(&mut client, &["CLIENT", "PAUSE", "1500", "ALL"]).await;
    let start = Instant::now();
    for _ in 0..2 {
        assert!(matches!(store.get("a").await, Err(StateError::Unavailable { .. })));
        let set = Set { key: "a".to_owned(), ..Set::default() };
        assert!(matches!(store.set(set).await, Err(StateError::Unavailable { .. })));
    }
    assert!(start.elapsed() < Duration::from_millis(1400), "four requests took {:?}", start.elapsed());
    eventually("the server answers again", async || store.ping().await.is_ok()).await;
    store.close().await;
}

/// A server that asks for a client's certificate.
async fn tls() {
    let server = tokio::task::block_in_place(dhow_servers::redis_with_tls).unwrap();
    let address = server.process.address();
    let client = [("clientCert", server.certificate.as_str()), ("clientKey", server.key.as_str())];
    let try_open = async |metadata: &[(&str, &str)]| {
        let metadata = [&[("redisHost", address.as_str()), ("dialTimeout", "2s")], metadata].concat();
        match open(spec("state.redis", &metadata), OpenContext::default()).await {
            Ok(opened) => {
                let Opened::State(store) = &opened else { panic!() };
                store.set(Set { key: "a".to_owned(), ..Set::default() }).await.unwrap();
                opened.close().await;
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    };
    let (on, insecure) = (("enableTLS", "true"), ("insecureSkipTLSVerify", "true"));
    assert_eq!(try_open(&[on, insecure, client[0], client[1]]).await, Ok(()));
    for (metadata, reason) in [
        (&[][..], ""),
        // Nobody vouches for this server.
        (&[on, client[0], client[1]][..], "certificate"),
        // The server does not know this client.
        (&[on, insecure][..], ""),
        (&[on, insecure, ("caCert", "s3cret")][..], "caCert"),
        (&[on, insecure, client[0]][..], "clientKey"),
        (&[on, insecure, client[0], ("clientKey", "s3cret")][..], "clientKey"),
        (&[on, insecure, ("clientCert", "s3cret"), client[1]][..], "clientCert"),
    ] {
        let error = try_open(metadata).await.unwrap_err();
        assert!(error.contains(reason) && !error.contains("s3cret"), "{error}");
    }
}

/// The server dies under load and comes back. Everything that was acknowledged is there, nobody waited long, and
/// nobody had to be restarted.
async fn a_killed_server(server: &mut Server) {
    let store = server.state(&[]).await;
    let pubsub = server.pubsub(&[("processingTimeout", "1s"), ("redeliverInterval", "200ms")]).await;
    let settings = server.configuration(&[("redisDB", "1")]).await;
    let (handler, mut changes) = Collect::new(Outcome::Done);
    let watching = settings.subscribe(&["mode".to_owned()], &Metadata::new(), handler).await.unwrap();
    let (handler, mut messages) = Collect::new(Outcome::Done);
    let running = pubsub.subscribe(subscription("load", "app"), handler).await.unwrap();

    let (down, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (acknowledged, failed) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicUsize::new(0)));
    let mut writers = Vec::new();
    for writer in 0..6 {
        let (store, pubsub) = (Arc::clone(&store), Arc::clone(&pubsub));
        let (down, over) = (Arc::clone(&down), Arc::clone(&over));
        let (acknowledged, failed) = (Arc::clone(&acknowledged), Arc::clone(&failed));
        writers.push(tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            for number in 0.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let name = format!("{writer}-{number}");
                let start = Instant::now();
                let set = Set { key: format!("load||{name}"), value: name.clone().into(), ..Set::default() };
                let written = store.set(set).await;
                let published = pubsub.publish(outgoing("load", &name)).await;
                slowest = slowest.max(start.elapsed() / 2);
                if let Err(error) = &written {
                    assert!(matches!(error, StateError::Unavailable { .. }), "{error}");
                }
                if let Err(error) = &published {
                    assert!(matches!(error, BlockError::Unavailable { .. }), "{error}");
                }
                if written.is_ok() && published.is_ok() {
                    acknowledged.lock().await.insert(name);
                } else if down.load(Ordering::SeqCst) {
                    failed.fetch_add(1, Ordering::SeqCst);
                    // Not a busy loop: the server is away.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            slowest
        }));
    }
    eventually("load flows", async || acknowledged.lock().await.len() > 200).await;
    down.store(true, Ordering::SeqCst);
    server.process.kill();
    let before = acknowledged.lock().await.len();
    eventually("requests fail", async || failed.load(Ordering::SeqCst) > 50).await;
    let start = Instant::now();
    assert!(matches!(store.get("load||0-0").await, Err(StateError::Unavailable { .. })));
    assert!(matches!(store.ping().await, Err(StateError::Unavailable { .. })));
    assert!(matches!(pubsub.ping().await, Err(BlockError::Unavailable { .. })));
    assert!(settings.get(&[], &Metadata::new()).await.is_err());
    assert!(start.elapsed() < FAIL_FAST, "four requests took {:?}", start.elapsed());

    tokio::task::block_in_place(|| server.process.start()).unwrap();
    send(&mut server.client_in_time().await, &["SELECT", "1"]).await;
    down.store(false, Ordering::SeqCst);
    eventually("load flows again", async || acknowledged.lock().await.len() > before + 200).await;
    over.store(true, Ordering::SeqCst);
    let mut slowest = Duration::ZERO;
    for writer in writers {
        slowest = slowest.max(writer.await.unwrap());
    }
    assert!(slowest < FAIL_FAST, "the slowest request took {slowest:?}");

    let acknowledged = acknowledged.lock().await.clone();
    let mut missing = acknowledged.clone();
    while !missing.is_empty() {
        missing.remove(std::str::from_utf8(&next(&mut messages).await.data).unwrap());
    }
    for name in &acknowledged {
        assert!(store.get(&format!("load||{name}")).await.unwrap().is_some(), "state {name} is lost");
    }
    eventually("all is acknowledged", async || {
        server.pending("load", "app").await == 0 && server.lag("load", "app").await == 0
    })
    .await;
    // Either while nobody was listening or after: it is noticed.
    let mut client = server.client().await;
    send(&mut client, &["SELECT", "1"]).await;
    send(&mut client, &["SET", "mode", "night||1"]).await;
    assert_eq!(next(&mut changes).await, items(&[("mode", "night", "1")]));
    watching.stop().await;
    running.stop().await;
    for provider in [Opened::State(store), Opened::PubSub(pubsub), Opened::Configuration(settings)] {
        timeout(PATIENCE, provider.close()).await.unwrap();
    }
}

// === the server, and a client that is not ours ===

struct Server {
    process: Process,
}

impl Server {
    async fn open(&self, component_type: &str, metadata: &[(&str, &str)]) -> Result<Opened, OpenError> {
        let address = self.process.address();
        let usual = [("redisHost", address.as_str()), ("dialTimeout", "1s"), ("readTimeout", "2s")];
        // A field that is given twice counts as it is given first.
        open(spec(component_type, &[metadata, &usual].concat()), OpenContext::default()).await
    }

    async fn state(&self, metadata: &[(&str, &str)]) -> Arc<dyn StateStore> {
        match self.open("state.redis", metadata).await.unwrap() {
            Opened::State(store) => store,
            _ => panic!("no state store"),
        }
    }

    async fn pubsub(&self, metadata: &[(&str, &str)]) -> Arc<dyn PubSub> {
        match self.open("pubsub.redis", metadata).await.unwrap() {
            Opened::PubSub(pubsub) => pubsub,
            _ => panic!("no pub/sub"),
        }
    }

    async fn configuration(&self, metadata: &[(&str, &str)]) -> Arc<dyn ConfigurationStore> {
        match self.open("configuration.redis", metadata).await.unwrap() {
            Opened::Configuration(store) => store,
            _ => panic!("no configuration store"),
        }
    }

    async fn lock(&self) -> Arc<dyn LockStore> {
        match self.open("lock.redis", &[]).await.unwrap() {
            Opened::Lock(store) => store,
            _ => panic!("no lock store"),
        }
    }

    async fn sequencer(&self) -> Arc<dyn Sequencer> {
        match self.open("sequencer.redis", &[]).await.unwrap() {
            Opened::Sequencer(sequencer) => sequencer,
            _ => panic!("no sequencer"),
        }
    }

    async fn binding(&self) -> Arc<dyn Binding> {
        match self.open("bindings.redis", &[]).await.unwrap() {
            Opened::Binding(binding) => binding,
            _ => panic!("no binding"),
        }
    }

    async fn client(&self) -> MultiplexedConnection {
        let client = redis::Client::open(format!("redis://{}", self.process.address())).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// A server that has just started may still be loading.
    async fn client_in_time(&self) -> MultiplexedConnection {
        eventually("the server is loaded", async || {
            let pong: Result<(), _> = cmd("PING").query_async(&mut self.client().await).await;
            pong.is_ok()
        })
        .await;
        self.client().await
    }

    /// Entries that a group has taken and not acknowledged.
    async fn pending(&self, topic: &str, group: &str) -> i64 {
        let summary: Vec<redis::Value> =
            from(send(&mut self.client().await, &["XPENDING", topic, group]).await);
        from(summary[0].clone())
    }

    /// Entries that a group has not taken yet.
    async fn lag(&self, topic: &str, group: &str) -> i64 {
        let groups: Vec<BTreeMap<String, redis::Value>> =
            from(send(&mut self.client().await, &["XINFO", "GROUPS", topic]).await);
        let group = groups.into_iter().find(|found| from::<String>(found["name"].clone()) == group).unwrap();
        from(group["lag"].clone())
    }
}

fn spec(component_type: &str, metadata: &[(&str, &str)]) -> ComponentSpec {
    ComponentSpec {
        name: "redis".to_owned(),
        component_type: component_type.to_owned(),
        version: "v1".to_owned(),
        metadata: metadata.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect(),
    }
}

async fn send(client: &mut MultiplexedConnection, words: &[&str]) -> redis::Value {
    let mut command = cmd(words[0]);
    for word in &words[1..] {
        command.arg(word);
    }
    command.query_async(client).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn from<T: FromRedisValue>(value: redis::Value) -> T {
    T::from_redis_value(value).unwrap()
}

/// The fields of a hash, sorted: `data=1 version=2`.
fn fields(value: redis::Value) -> String {
    let fields = from::<BTreeMap<String, String>>(value);
    fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

// === handlers ===

/// Hands on what it gets, and answers always the same.
struct Collect<Event> {
    events: mpsc::UnboundedSender<Event>,
    refuses: AtomicBool,
}

impl<Event> Collect<Event> {
    fn new(outcome: Outcome) -> (Arc<Collect<Event>>, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Arc::new(Collect { events, refuses: AtomicBool::new(outcome == Outcome::Again) }), receiver)
    }
}

#[async_trait]
impl<Event: Send + 'static> Handler<Event> for Collect<Event> {
    async fn handle(&self, event: Event) -> Outcome {
        let refuses = self.refuses.load(Ordering::SeqCst);
        let _ = self.events.send(event);
        if refuses { Outcome::Again } else { Outcome::Done }
    }
}

/// Holds every message until it is let through.
struct Gate {
    calls: AtomicUsize,
    open: Semaphore,
}

#[async_trait]
impl Handler<Message> for Gate {
    async fn handle(&self, _message: Message) -> Outcome {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.open.acquire().await.unwrap().forget();
        Outcome::Done
    }
}

fn subscription(topic: &str, consumer: &str) -> Subscribe {
    Subscribe { topic: topic.to_owned(), consumer: consumer.to_owned(), metadata: Metadata::new() }
}

fn outgoing(topic: &str, data: &str) -> Outgoing {
    Outgoing { topic: topic.to_owned(), data: Bytes::copy_from_slice(data.as_bytes()), ..Outgoing::default() }
}

fn items(items: &[(&str, &str, &str)]) -> Items {
    let item = |value: &str, version: &str| ConfigurationItem {
        value: value.to_owned(),
        version: version.to_owned(),
        ..ConfigurationItem::default()
    };
    items.iter().map(|(key, value, version)| ((*key).to_owned(), item(value, version))).collect()
}

async fn next<T>(events: &mut mpsc::UnboundedReceiver<T>) -> T {
    timeout(PATIENCE, events.recv()).await.expect("no event came").expect("the handler is gone")
}

/// Looks again and again: the server tells nobody when this becomes true.
async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "it takes too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
