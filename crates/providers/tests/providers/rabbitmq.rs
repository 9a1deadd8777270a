//! `pubsub.rabbitmq` and `bindings.rabbitmq` against a real broker.

use crate::brokers::{
    self, Broker, next, outgoing, request, shows_events, shows_messages, subscribed, subscription, text,
};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::Metadata;
use dhow_blocks::pubsub::{Outgoing, Subscribe};
use dhow_providers::registry::OpenError;
use dhow_servers::Process;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rabbitmq() {
    let mut server = tokio::task::block_in_place(dhow_servers::rabbitmq).unwrap();
    let url = format!("amqp://guest:guest@{}", server.address());
    let broker =
        Broker { component_type: "pubsub.rabbitmq", metadata: vec![("connectionString", url.clone())] };
    let binding = Broker { component_type: "bindings.rabbitmq", metadata: vec![("host", url)] };

    brokers::suite(&broker).await;
    brokers::binding_suite(&binding, &[("queueName", "suite")]).await;
    messages_expire(&broker).await;
    topics_with_routing_keys(&broker).await;
    what_is_refused_becomes_a_dead_letter(&broker).await;
    what_exists_is_used(&broker).await;
    properties_arrive(&broker).await;
    mistakes_are_named(&broker).await;
    messages_and_events(&binding).await;
    brokers::outage(&broker, &mut server, Process::kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rabbitmq_with_tls() {
    let server = tokio::task::block_in_place(dhow_servers::rabbitmq_with_tls).unwrap();
    let url = format!("amqps://{}", server.process.address());
    brokers::tls("pubsub.rabbitmq", ("connectionString", url), &server.certificates).await;
}

fn metadata(fields: &[(&str, &str)]) -> Metadata {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn messages_expire(broker: &Broker) {
    let pubsub = broker.pubsub(&[]).await;
    let (handler, mut seen) = shows_messages();
    subscribed(&pubsub, "expiring", "one", &handler).await.stop().await;
    let mortal = Outgoing { metadata: metadata(&[("ttlInSeconds", "1")]), ..outgoing("expiring", "mortal") };
    pubsub.publish(mortal).await.unwrap();
    pubsub.publish(outgoing("expiring", "immortal")).await.unwrap();
    // Nothing tells that a message has expired.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let running = subscribed(&pubsub, "expiring", "one", &handler).await;
    assert_eq!(text(&mut seen).await, "immortal");
    running.stop().await;
    pubsub.close().await;
}

async fn topics_with_routing_keys(broker: &Broker) {
    let pubsub = broker.pubsub(&[("exchangeKind", "topic")]).await;
    let (handler, mut seen) = shows_messages();
    let subscribe =
        Subscribe { metadata: metadata(&[("routingKey", "*.paid,*.sent")]), ..subscription("routed", "one") };
    let running = pubsub.subscribe(subscribe, handler).await.unwrap();
    for key in ["order.new", "order.paid", "order.sent"] {
        let routed = Outgoing { metadata: metadata(&[("routingKey", key)]), ..outgoing("routed", key) };
        pubsub.publish(routed).await.unwrap();
    }
    assert_eq!([text(&mut seen).await, text(&mut seen).await], ["order.paid", "order.sent"]);
    running.stop().await;
    pubsub.close().await;
}

async fn what_is_refused_becomes_a_dead_letter(broker: &Broker) {
    let pubsub = broker.pubsub(&[("enableDeadLetter", "true")]).await;
    let refuses = brokers::refuses_messages();
    let refusing = pubsub.subscribe(subscription("refused", "one"), refuses).await.unwrap();
    pubsub.publish(outgoing("refused", "unloved")).await.unwrap();
    // The queue of dead letters is a queue like any other.
    let letters = Subscribe {
        metadata: metadata(&[("queueName", "dlq-one-refused")]),
        ..subscription("dlx-one-refused", "letters")
    };
    let (handler, mut seen) = shows_messages();
    let plain = broker.pubsub(&[]).await;
    let running = plain.subscribe(letters, handler).await.unwrap();
    let message = next(&mut seen).await;
    assert_eq!(message.data, "unloved");
    refusing.stop().await;
    running.stop().await;
    plain.close().await;
    pubsub.close().await;
}

/// Dapr's own defaults make queues that delete themselves.
async fn what_exists_is_used(broker: &Broker) {
    let theirs = broker.pubsub(&[("deletedWhenUnused", "true")]).await;
    let (handler, mut seen) = shows_messages();
    let first = subscribed(&theirs, "existing", "one", &handler).await;
    let ours = broker.pubsub(&[("maxLen", "7")]).await;
    let second = subscribed(&ours, "existing", "one", &handler).await;
    ours.publish(outgoing("existing", 1)).await.unwrap();
    assert_eq!(text(&mut seen).await, "1");
    first.stop().await;
    ours.publish(outgoing("existing", 2)).await.unwrap();
    assert_eq!(text(&mut seen).await, "2");
    second.stop().await;
    theirs.close().await;
    ours.close().await;
}

async fn properties_arrive(broker: &Broker) {
    let pubsub = broker.pubsub(&[]).await;
    let (handler, mut seen) = shows_messages();
    let running = subscribed(&pubsub, "properties", "one", &handler).await;
    let fields = [("messageId", "m"), ("correlationId", "c"), ("type", "t"), ("priority", "3")];
    let message = Outgoing {
        content_type: Some("application/cloudevents+json".to_owned()),
        metadata: metadata(&fields),
        ..outgoing("properties", "{}")
    };
    pubsub.publish(message).await.unwrap();
    let message = next(&mut seen).await;
    assert_eq!(message.content_type.as_deref(), Some("application/cloudevents+json"));
    for (name, expected) in [("messageid", "m"), ("correlationid", "c"), ("type", "t")] {
        assert_eq!(message.metadata[name], expected);
    }
    running.stop().await;
    pubsub.close().await;
}

async fn mistakes_are_named(broker: &Broker) {
    let pubsub = broker.pubsub(&[]).await;
    let (handler, _seen) = shows_messages();
    for topic in ["", &"x".repeat(256)] {
        let error = pubsub.publish(outgoing(topic, 1)).await.unwrap_err();
        assert!(matches!(error, BlockError::Invalid { .. }), "{topic:?}: {error:?}");
        let error = pubsub.subscribe(subscription(topic, "one"), Arc::clone(&handler)).await.err();
        assert!(matches!(error, Some(BlockError::Invalid { .. })), "{topic:?}: {error:?}");
    }
    // The broker's own exchanges are not for everybody; the next message is fine.
    let error = pubsub.publish(outgoing("amq.mine", 1)).await.unwrap_err();
    assert!(matches!(error, BlockError::Failed { .. }), "{error:?}");
    pubsub.publish(outgoing("fine", 1)).await.unwrap();
    pubsub.close().await;
    for (field, value) in
        [("deliveryMode", "3"), ("exchangeKind", "x"), ("caCert", "x"), ("concurrency", "x")]
    {
        let error = broker.open(&[(field, value)]).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, OpenError::InvalidMetadata { .. }), "{field}: {error}");
    }
    let wrong = [("username", "guest"), ("password", "hunter2")];
    let address = broker.metadata[0].1.rsplit_once('@').unwrap().1.to_owned();
    let wrong_password = Broker { component_type: "pubsub.rabbitmq", metadata: vec![("hostname", address)] };
    let error = wrong_password.open(&wrong).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Backend { .. }) && !error.to_string().contains("hunter2"), "{error}");
}

async fn messages_and_events(broker: &Broker) {
    let binding = broker.binding(&[("queueName", "bound"), ("durable", "true")]).await;
    let (handler, mut seen) = shows_events(1);
    binding.invoke(request("create", "first", &[("trace id", "a b")])).await.unwrap();
    let running = binding.read(handler).await.unwrap();
    for _ in 0..2 {
        let event = next(&mut seen).await;
        assert_eq!((&event.data[..], event.metadata["trace+id"].as_str()), (&b"first"[..], "a+b"));
    }
    running.stop().await;
    binding.invoke(request("create", "mortal", &[("ttlInSeconds", "1")])).await.unwrap();
    binding.invoke(request("create", "kept", &[])).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
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
