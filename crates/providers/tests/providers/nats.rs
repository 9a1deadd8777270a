//! `pubsub.jetstream`, `pubsub.nats` and `bindings.nats` against a real server.

use crate::brokers::{
    self, Broker, SOON, next, outgoing, request, shows_events, shows_messages, subscribed, subscription, text,
};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::Metadata;
use dhow_blocks::pubsub::{Outgoing, PubSub, REPLY_TO};
use dhow_providers::registry::OpenError;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nats() {
    let mut server = tokio::task::block_in_place(dhow_servers::nats).unwrap();
    let url = format!("nats://{}", server.address());
    let broker = Broker { component_type: "pubsub.jetstream", metadata: vec![("natsURL", url.clone())] };
    let core = Broker { component_type: "pubsub.nats", metadata: vec![("natsURL", url.clone())] };
    let binding = Broker { component_type: "bindings.nats", metadata: vec![("natsURL", url)] };

    brokers::suite(&broker).await;
    brokers::binding_suite(&binding, &[("subject", "suite")]).await;
    wildcards(&broker).await;
    one_event_published_twice_is_one(&broker).await;
    long_handlers_outlive_the_servers_patience(&broker).await;
    a_late_consumer_reads_from_where_it_is_told(&broker).await;
    mistakes_are_named(&broker).await;
    messages_requests_and_events(&binding).await;
    answers_come_back(&core).await;
    groups_share_what_they_hear(&core).await;
    brokers::outage(&broker, &mut server, dhow_servers::Process::kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nats_with_tls() {
    let server = tokio::task::block_in_place(dhow_servers::nats_with_tls).unwrap();
    let url = format!("tls://{}", server.process.address());
    brokers::tls("pubsub.jetstream", ("natsURL", url), &server.certificates).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_ask_for_answers_publishes_without_delay() {
    let server = tokio::task::block_in_place(dhow_servers::nats_with_narrow_user).unwrap();
    let binding_of = async |login: &str| {
        let url = format!("nats://{login}{}", server.address());
        let binding = Broker { component_type: "bindings.nats", metadata: vec![("natsURL", url)] };
        binding.binding(&[("subject", "open.letters")]).await
    };
    let (reader, writer) = (binding_of("").await, binding_of("narrow:secret@").await);
    let (handler, mut seen) = shows_events(0);
    let running = reader.read(handler).await.unwrap();
    let start = Instant::now();
    for letter in ["first", "second"] {
        writer.invoke(request("create", letter, &[])).await.unwrap();
        assert_eq!(next(&mut seen).await.data, letter);
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    running.stop().await;
    reader.close().await;
    writer.close().await;
}

/// One who hears is asked, and answers by publishing to the subject that came with the message.
async fn answers_come_back(broker: &Broker) {
    let pubsub = broker.pubsub(&[]).await;
    let (handler, mut seen) = shows_messages();
    let running = subscribed(&pubsub, "ask.*", "one", &handler).await;
    let asking = Arc::clone(&pubsub);
    let asked = tokio::spawn(async move {
        let question =
            Outgoing { content_type: Some("text/plain".to_owned()), ..outgoing("ask.time", "when?") };
        asking.request(question, SOON).await
    });
    let question = next(&mut seen).await;
    assert_eq!((question.topic.as_str(), &question.data[..]), ("ask.time", &b"when?"[..]));
    assert_eq!(question.content_type.as_deref(), Some("text/plain"));
    pubsub.publish(outgoing(&question.metadata[REPLY_TO], "now")).await.unwrap();
    assert_eq!(asked.await.unwrap().unwrap().data, "now");
    // Whom a message without a request is to be answered to.
    let metadata = Metadata::from([(REPLY_TO.to_owned(), "answers".to_owned())]);
    pubsub.publish(Outgoing { metadata, ..outgoing("ask.later", 1) }).await.unwrap();
    assert_eq!(next(&mut seen).await.metadata[REPLY_TO], "answers");
    for (topic, expected) in [("nobody", "nobody answers requests"), ("ask.silence", "nobody answered")] {
        let error = pubsub.request(outgoing(topic, 1), Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(error, BlockError::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{topic}: {error}");
    }
    running.stop().await;
    pubsub.close().await;
    let error = pubsub.request(outgoing("ask.time", 1), SOON).await.unwrap_err();
    assert!(matches!(error, BlockError::Unavailable { .. }), "{error:?}");
}

async fn groups_share_what_they_hear(broker: &Broker) {
    let pubsub = broker.pubsub(&[]).await;
    let (handler, mut seen) = shows_messages();
    let mut running = Vec::new();
    for consumer in ["one", "one", "two"] {
        running.push(subscribed(&pubsub, "shared", consumer, &handler).await);
    }
    pubsub.publish(outgoing("shared", "a")).await.unwrap();
    pubsub.publish(outgoing("other", "b")).await.unwrap();
    assert_eq!((text(&mut seen).await, text(&mut seen).await), ("a".to_owned(), "a".to_owned()));
    for running in running {
        running.stop().await;
    }
    assert!(seen.try_recv().is_err(), "each group hears a message once");
    pubsub.close().await;
}

async fn wildcards(broker: &Broker) {
    let pubsub = broker.pubsub(&[]).await;
    let (handler, mut seen) = shows_messages();
    let running = subscribed(&pubsub, "wild.*.new", "one", &handler).await;
    pubsub.publish(outgoing("wild.order.new", 1)).await.unwrap();
    let message = next(&mut seen).await;
    assert_eq!((message.topic.as_str(), &message.data[..]), ("wild.order.new", &b"1"[..]));
    assert_eq!(message.metadata["Topic"], "wild.order.new");
    running.stop().await;
    pubsub.close().await;
}

async fn one_event_published_twice_is_one(broker: &Broker) {
    let pubsub = broker.pubsub(&[]).await;
    let (handler, mut seen) = shows_messages();
    let running = subscribed(&pubsub, "twice", "one", &handler).await;
    let event = r#"{"specversion": "1.0", "id": "7", "type": "t", "source": "s", "data": 1}"#;
    for data in [event, event, "end"] {
        pubsub.publish(outgoing("twice", data)).await.unwrap();
    }
    assert_eq!(text(&mut seen).await, event);
    assert_eq!(text(&mut seen).await, "end");
    running.stop().await;
    pubsub.close().await;
}

async fn long_handlers_outlive_the_servers_patience(broker: &Broker) {
    // The suite holds a message for 1.5 s; here the server would deliver it again after 300 ms.
    let pubsub = broker.pubsub(&[("ackWait", "300ms")]).await;
    brokers::held(&pubsub, "patience").await;
    pubsub.close().await;
}

async fn a_late_consumer_reads_from_where_it_is_told(broker: &Broker) {
    let pubsub = broker.pubsub(&[]).await;
    for number in 0..3 {
        pubsub.publish(outgoing("late", number)).await.unwrap();
    }
    pubsub.close().await;
    for (policy, expected) in [("all", "0"), ("last", "2"), ("new", "3")] {
        let pubsub = broker.pubsub(&[("deliverPolicy", policy)]).await;
        let (handler, mut seen) = shows_messages();
        let running = subscribed(&pubsub, "late", policy, &handler).await;
        if policy == "new" {
            pubsub.publish(outgoing("late", 3)).await.unwrap();
        }
        assert_eq!(text(&mut seen).await, expected, "{policy}");
        running.stop().await;
        pubsub.close().await;
    }
}

async fn mistakes_are_named(broker: &Broker) {
    let pubsub: Arc<dyn PubSub> = broker.pubsub(&[("durableName", "durable")]).await;
    let (handler, _seen) = shows_messages();
    let _first = subscribed(&pubsub, "mistakes.first", "one", &handler).await;
    let other_topic = pubsub.subscribe(subscription("mistakes.second", "one"), Arc::clone(&handler)).await;
    // Another stream, so the same name is another consumer there.
    assert!(other_topic.is_ok());
    for topic in ["", "two words", "a..b"] {
        let error = pubsub.publish(outgoing(topic, 1)).await.unwrap_err();
        assert!(!matches!(error, BlockError::Unavailable { .. }), "{topic:?}: {error:?}");
        let error = pubsub.subscribe(subscription(topic, "one"), Arc::clone(&handler)).await.err();
        assert!(matches!(error, Some(BlockError::Invalid { .. })), "{topic:?}: {error:?}");
    }
    pubsub.close().await;
    let secret = "nats://user:hunter2@[";
    let spec = Broker { component_type: "pubsub.jetstream", metadata: vec![("natsURL", secret.to_owned())] };
    let error = spec.open(&[]).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::InvalidMetadata { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    for (field, value) in [("jwt", "x"), ("seedKey", "x"), ("tls_client_cert", "/nowhere"), ("ackWait", "x")]
    {
        let error = broker.open(&[(field, value)]).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, OpenError::InvalidMetadata { .. }), "{field}: {error}");
    }
}

async fn messages_requests_and_events(broker: &Broker) {
    let binding = broker.binding(&[("subject", "events"), ("queueGroupName", "group")]).await;
    assert!(binding.is_input());
    let (handler, mut seen) = shows_events(2);
    let running = binding.read(handler).await.unwrap();
    binding.invoke(request("create", "first", &[])).await.unwrap();
    for _ in 0..3 {
        let event = next(&mut seen).await;
        assert_eq!((&event.data[..], event.metadata["subject"].as_str()), (&b"first"[..], "events"));
    }
    binding.invoke(request("publish", "second", &[("subject", "events")])).await.unwrap();
    assert_eq!(next(&mut seen).await.data, "second");
    running.stop().await;
    binding.invoke(request("create", "third", &[])).await.unwrap();
    assert!(seen.try_recv().is_err());
    let error = binding.invoke(request("request", "?", &[("subject", "nobody")])).await.unwrap_err();
    assert!(matches!(error, BlockError::Unavailable { .. }), "{error:?}");
    let error = binding.invoke(request("delete", "", &[])).await.unwrap_err();
    assert!(matches!(error, BlockError::Invalid { .. }), "{error:?}");
    let error = broker.binding(&[]).await.invoke(request("create", "", &[])).await.unwrap_err();
    assert!(matches!(error, BlockError::Invalid { .. }), "{error:?}");
    let answer = binding.invoke(request("request", "", &[("subject", "$JS.API.INFO")])).await.unwrap();
    assert!(answer.data.unwrap().starts_with(b"{"));
    binding.close().await;
    let error = binding.invoke(request("create", "", &[])).await.unwrap_err();
    assert!(matches!(error, BlockError::Unavailable { .. }), "{error:?}");
}
