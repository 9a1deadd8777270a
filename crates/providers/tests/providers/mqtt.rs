//! `pubsub.mqtt3` and `bindings.mqtt3` against a real broker.

use crate::brokers::{
    self, Broker, next, outgoing, request, shows_events, shows_messages, subscribed, subscription, text,
};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::Metadata;
use dhow_blocks::pubsub::Outgoing;
use dhow_providers::registry::OpenError;
use dhow_servers::Process;
use std::collections::BTreeSet;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mqtt() {
    let mut server = tokio::task::block_in_place(dhow_servers::mosquitto).unwrap();
    let url = format!("tcp://{}", server.address());
    let broker = Broker { component_type: "pubsub.mqtt3", metadata: vec![("url", url.clone())] };
    let binding = Broker { component_type: "bindings.mqtt3", metadata: vec![("url", url)] };

    brokers::suite(&broker).await;
    brokers::binding_suite(&binding, &[("topic", "suite"), ("consumerID", "suite")]).await;
    wildcards_and_retained_messages(&broker).await;
    hosts_share_by_groups(&broker).await;
    messages_wait_for_a_host_that_comes_back(&broker).await;
    mistakes_are_named(&broker).await;
    messages_and_events(&binding).await;
    // Killed, Mosquitto forgets what it has acknowledged; what it does remember is tested with a plain end.
    brokers::outage(&broker, &mut server, |server| server.terminate().unwrap()).await;
    brokers::outage_with_loss(&broker, &mut server, Process::kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mqtt_with_tls() {
    let server = tokio::task::block_in_place(dhow_servers::mosquitto_with_tls).unwrap();
    let url = format!("ssl://{}", server.process.address());
    brokers::tls("pubsub.mqtt3", ("url", url), &server.certificates).await;
}

async fn wildcards_and_retained_messages(broker: &Broker) {
    let pubsub = broker.pubsub(&[]).await;
    let (handler, mut seen) = shows_messages();
    let retained = Metadata::from([("retain".to_owned(), "true".to_owned())]);
    pubsub.publish(Outgoing { metadata: retained, ..outgoing("wild/old/é", 0) }).await.unwrap();
    let running = subscribed(&pubsub, "wild/+/#", "one", &handler).await;
    let message = next(&mut seen).await;
    assert_eq!((message.topic.as_str(), message.metadata["retained"].as_str()), ("wild/old/é", "true"));
    pubsub.publish(outgoing("wild/new", 1)).await.unwrap();
    let message = next(&mut seen).await;
    assert_eq!((message.topic.as_str(), message.metadata["retained"].as_str()), ("wild/new", "false"));
    running.stop().await;
    pubsub.close().await;
}

async fn hosts_share_by_groups(broker: &Broker) {
    let (first, second) = (broker.pubsub(&[]).await, broker.pubsub(&[]).await);
    let (handler, mut seen) = shows_messages();
    let one = subscribed(&first, "$share/group/split", "host-1", &handler).await;
    let two = subscribed(&second, "$share/group/split", "host-2", &handler).await;
    for number in 0..20 {
        first.publish(outgoing("split", number)).await.unwrap();
    }
    let mut got = BTreeSet::new();
    for _ in 0..20 {
        assert!(got.insert(text(&mut seen).await));
    }
    one.stop().await;
    two.stop().await;
    assert!(seen.try_recv().is_err());
    first.close().await;
    second.close().await;
}

async fn messages_wait_for_a_host_that_comes_back(broker: &Broker) {
    for (clean, expected) in [("false", "while away"), ("true", "back")] {
        let topic = format!("away/{clean}");
        let more = [("cleanSession", clean)];
        let (handler, mut seen) = shows_messages();
        let before = broker.pubsub(&more).await;
        let _dropped_with_the_host = subscribed(&before, &topic, clean, &handler).await;
        before.close().await;
        let after = broker.pubsub(&more).await;
        after.publish(outgoing(&topic, "while away")).await.unwrap();
        let running = subscribed(&after, &topic, clean, &handler).await;
        after.publish(outgoing(&topic, "back")).await.unwrap();
        assert_eq!(text(&mut seen).await, expected, "cleanSession {clean}");
        running.stop().await;
        after.close().await;
    }
}

async fn mistakes_are_named(broker: &Broker) {
    let pubsub = broker.pubsub(&[]).await;
    let (handler, _seen) = shows_messages();
    for topic in ["", "a/+", "#", "nul\0"] {
        let error = pubsub.publish(outgoing(topic, 1)).await.unwrap_err();
        assert!(matches!(error, BlockError::Invalid { .. }), "{topic:?}: {error:?}");
    }
    for topic in ["", "a#", "$share/x"] {
        let error = pubsub.subscribe(subscription(topic, "one"), Arc::clone(&handler)).await.err();
        assert!(matches!(error, Some(BlockError::Invalid { .. })), "{topic:?}: {error:?}");
    }
    pubsub.close().await;
    for (field, value) in [("qos", "3"), ("backOffMaxRetries", "-2"), ("concurrency", "x")] {
        let error = broker.open(&[(field, value)]).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, OpenError::InvalidMetadata { .. }), "{field}: {error}");
    }
    let nobody =
        Broker { component_type: "pubsub.mqtt3", metadata: vec![("url", "tcp://127.0.0.1:1".to_owned())] };
    let error = nobody.open(&[]).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Backend { .. }), "{error}");
}

async fn messages_and_events(broker: &Broker) {
    let binding = broker.binding(&[("topic", "bound"), ("consumerID", "binding")]).await;
    let (handler, mut seen) = shows_events(1);
    let running = binding.read(handler).await.unwrap();
    binding.invoke(request("create", "first", &[])).await.unwrap();
    for _ in 0..2 {
        let event = next(&mut seen).await;
        assert_eq!((&event.data[..], event.metadata["mqttTopic"].as_str()), (&b"first"[..], "bound"));
    }
    binding.invoke(request("create", "elsewhere", &[("topic", "unbound")])).await.unwrap();
    running.stop().await;
    binding.invoke(request("create", "kept", &[])).await.unwrap();
    assert!(seen.try_recv().is_err());
    let (handler, mut seen) = shows_events(0);
    let running = binding.read(handler).await.unwrap();
    assert_eq!(next(&mut seen).await.data, "kept");
    running.stop().await;
    let error = binding.invoke(request("get", "", &[])).await.unwrap_err();
    assert!(matches!(error, BlockError::Invalid { .. }), "{error:?}");
    binding.close().await;
    let error = binding.invoke(request("create", "", &[])).await.unwrap_err();
    assert!(matches!(error, BlockError::Unavailable { .. }), "{error:?}");
    let error = broker.open(&[]).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::InvalidMetadata { .. }), "{error}");
}
