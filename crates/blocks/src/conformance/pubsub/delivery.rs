//! What arrives, where, how often, in which order.

use super::super::inbox::inbox;
use super::{CaseResult, Context, all, done, ensure, ensure_eq, text, until};
use crate::events::Outcome;
use crate::pubsub::{Feature, Outgoing};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) async fn delivered(context: Context) -> CaseResult {
    let (running, mut inbox) = context.subscribe("topic", "consumer", done).await?;
    context.publish("topic", "hello").await?;
    let message = inbox.next().await?;
    ensure_eq!(
        (message.topic.clone(), text(&message)),
        (context.topic("topic"), "hello".to_owned()),
        "message"
    );
    running.stop().await;
    ensure_eq!(inbox.here().len(), 0, "further deliveries");
    Ok(())
}

pub(super) async fn unchanged(context: Context) -> CaseResult {
    let every_byte: Vec<u8> = (0..=255).collect();
    let megabyte: Vec<u8> =
        (0..1024 * 1024_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let contents: &[(&str, &[u8], Option<&str>)] = &[
        ("empty", b"", None),
        ("text", b"hello", Some("text/plain")),
        ("json", br#"{"b": 1, "a" :2, "b": 3}"#, Some("application/json; charset=utf-8")),
        ("white space", b" \r\n\t ", None),
        ("zero byte", b"a\0b", None),
        ("not utf-8", b"\xff\xfe\x80", Some("application/octet-stream")),
        ("unicode", "Grüße, 世界 🐪".as_bytes(), None),
        ("every byte", &every_byte, None),
        ("a megabyte", &megabyte, None),
    ];
    let (handler, mut inbox) = inbox(context.runtime, |_| Outcome::Done);
    let running = context.broker.subscribe(context.subscription("topic", "consumer"), handler).await?;
    for &(name, data, content_type) in contents {
        let content_type = content_type.map(str::to_owned);
        let message = context.outgoing("topic", data.to_vec());
        context.broker.publish(Outgoing { content_type: content_type.clone(), ..message }).await?;
        let found = inbox.next().await?;
        ensure_eq!(&found.data[..], data, "content {name:?}");
        // Not every broker has a place for it.
        ensure!(
            found.content_type.is_none() || found.content_type == content_type,
            "content type of {name:?} is {:?}, published was {content_type:?}",
            found.content_type
        );
    }
    running.stop().await;
    Ok(())
}

pub(super) async fn topics(context: Context) -> CaseResult {
    let names = ["a", "b", "a-b", "a.b", "A", "a_b"];
    let mut subscriptions = Vec::new();
    for name in names {
        subscriptions.push(context.subscribe(name, "consumer", done).await?);
    }
    // In the other order, so that a message that went astray is there before the one that is waited for.
    for name in names.iter().rev() {
        context.publish(name, &format!("for {name}")).await?;
    }
    for (name, (_, inbox)) in names.iter().zip(&mut subscriptions) {
        let message = inbox.next().await?;
        ensure_eq!(
            (message.topic.clone(), text(&message)),
            (context.topic(name), format!("for {name}")),
            "first message of topic {name:?}"
        );
    }
    for (name, (running, mut inbox)) in names.iter().zip(subscriptions) {
        running.stop().await;
        ensure_eq!(inbox.here().len(), 0, "further messages of topic {name:?}");
    }
    Ok(())
}

pub(super) async fn consumers(context: Context) -> CaseResult {
    let mut subscriptions = Vec::new();
    for consumer in ["one", "two", "three"] {
        subscriptions.push(context.subscribe("topic", consumer, done).await?);
    }
    for number in 0..20 {
        context.publish("topic", &number.to_string()).await?;
    }
    for (_, inbox) in &mut subscriptions {
        all(inbox, (0..20).map(|number| number.to_string())).await?;
    }
    for (running, _) in subscriptions {
        running.stop().await;
    }
    Ok(())
}

pub(super) async fn shared(context: Context) -> CaseResult {
    const MESSAGES: usize = 60;
    // Both tell the same inbox.
    let (handler, mut inbox) = inbox(context.runtime, |_| Outcome::Done);
    let mut running = Vec::new();
    for _ in 0..2 {
        let subscribe = context.subscription("topic", "consumer");
        running.push(context.broker.subscribe(subscribe, Arc::clone(&handler)).await?);
    }
    for number in 0..MESSAGES {
        context.publish("topic", &number.to_string()).await?;
    }
    let mut count = all(&mut inbox, (0..MESSAGES).map(|number| number.to_string())).await?;
    for running in running {
        running.stop().await;
    }
    count += inbox.here().len();
    // At least once may be twice now and then; it is not twice for all.
    ensure!(count < MESSAGES * 3 / 2, "{MESSAGES} messages were delivered {count} times in all");
    Ok(())
}

pub(super) async fn order(context: Context) -> CaseResult {
    const MESSAGES: usize = 200;
    if !context.promises.ordered {
        return Ok(());
    }
    let (running, mut inbox) = context.subscribe("topic", "consumer", done).await?;
    let expected: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    for text in &expected {
        context.publish("topic", text).await?;
    }
    let found = until(&mut inbox, &(MESSAGES - 1).to_string()).await?;
    ensure_eq!(found, expected, "order of messages");
    running.stop().await;
    Ok(())
}

pub(super) async fn many(context: Context) -> CaseResult {
    ensure!(context.broker.publish_many(Vec::new()).await.is_empty(), "publishing nothing answers something");
    let (running, mut inbox) = context.subscribe("topic", "consumer", done).await?;
    for messages in [1, 100] {
        let texts = || (0..messages).map(|number| format!("{number} of {messages}"));
        let outgoing = texts().map(|text| context.outgoing("topic", text)).collect();
        let answers = context.broker.publish_many(outgoing).await;
        ensure_eq!(answers, vec![Ok(()); messages], "answers of publish_many");
        all(&mut inbox, texts()).await?;
    }
    running.stop().await;
    Ok(())
}

pub(super) async fn concurrent(context: Context) -> CaseResult {
    const PUBLISHERS: usize = 16;
    const MESSAGES: usize = 25;
    let (running, mut inbox) = context.subscribe("topic", "consumer", done).await?;
    let mut tasks: Vec<BoxFuture<'static, CaseResult>> = Vec::new();
    for publisher in 0..PUBLISHERS {
        let context = context.clone();
        tasks.push(Box::pin(async move {
            for number in 0..MESSAGES {
                context.publish("topic", &format!("{publisher}/{number}")).await?;
            }
            Ok(())
        }));
    }
    for answer in context.runtime.parallel(tasks).await? {
        answer?;
    }
    let numbers = |publisher| (0..MESSAGES).map(move |number| format!("{publisher}/{number}"));
    all(&mut inbox, (0..PUBLISHERS).flat_map(numbers)).await?;
    running.stop().await;
    Ok(())
}

pub(super) async fn expiry(context: Context) -> CaseResult {
    const TTL: Duration = Duration::from_secs(1);
    if !context.broker.features().contains(&Feature::MessageTtl) || !context.promises.remembers_consumers {
        return Ok(());
    }
    let (running, _) = context.subscribe("topic", "consumer", done).await?;
    running.stop().await;
    for (text, ttl) in [("expires", TTL), ("stays", Duration::from_secs(3600))] {
        let mut message = context.outgoing("topic", Bytes::from(text));
        message.metadata.insert("ttlInSeconds".to_owned(), ttl.as_secs().to_string());
        context.broker.publish(message).await?;
    }
    // Time itself is what is waited for, and some brokers count whole seconds.
    let start = Instant::now();
    while start.elapsed() < TTL * 2 {
        (context.runtime.sleep)(TTL * 2 - start.elapsed().min(TTL * 2)).await;
    }
    context.publish("topic", "last").await?;
    let (running, mut inbox) = context.subscribe("topic", "consumer", done).await?;
    let mut found = vec![text(&inbox.next().await?), text(&inbox.next().await?)];
    running.stop().await;
    found.extend(inbox.here().iter().map(text));
    found.sort();
    ensure_eq!(found, ["last", "stays"], "messages after the expiry of another");
    Ok(())
}
