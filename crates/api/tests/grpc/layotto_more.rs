//! Encryption, e-mail and messages that are published later.

use crate::layotto::assert_code;
use crate::support::{RESOURCES, Wire, World, origin, within};
use bytes::Bytes;
use dhow_api::proto::layotto::cryption::cryption_service_client::CryptionServiceClient;
use dhow_api::proto::layotto::cryption::{DecryptRequest, EncryptRequest};
use dhow_api::proto::layotto::delay_queue::DelayMessageRequest;
use dhow_api::proto::layotto::delay_queue::delay_queue_client::DelayQueueClient;
use dhow_api::proto::layotto::email::email_service_client::EmailServiceClient;
use dhow_api::proto::layotto::email::{EmailAddress, SendEmailRequest};
use dhow_blocks::events::Running;
use dhow_host::triggers::delivery::{NotTaken, Sink, TopicEvent};
use dhow_host::triggers::subscription::{Origin, Routes, Subscription};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tonic::Code;

const MORE: &str = r#"
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: vault }
spec:
  type: cryption.local
  version: v1
  metadata:
    - { name: keys, value: '{"orders": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}' }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: post }
spec:
  type: email.smtp
  version: v1
  metadata:
    - { name: host, value: 127.0.0.1 }
    - { name: port, value: "1" }
    - { name: security, value: none }
"#;

async fn world() -> World {
    World::with(&format!("{RESOURCES}{MORE}"), tempfile::tempdir().unwrap(), None).await
}

#[tokio::test]
async fn texts_are_encrypted_and_decrypted() {
    let world = world().await;
    let mut client = CryptionServiceClient::with_origin(Wire::default(), origin(world.address));
    let encrypt = |component: &str, key: &str| EncryptRequest {
        component_name: component.to_owned(),
        plain_text: Bytes::from_static(b"secret"),
        key_id: key.to_owned(),
    };
    let encrypted = client.encrypt(encrypt("vault", "orders")).await.unwrap().into_inner();
    assert_eq!((encrypted.key_id.as_str(), encrypted.key_version_id.as_str()), ("orders", "1"));
    let decrypt = |text: Bytes| DecryptRequest { component_name: "vault".to_owned(), cipher_text: text };
    let decrypted = client.decrypt(decrypt(encrypted.cipher_text)).await.unwrap().into_inner();
    assert_eq!(&decrypted.plain_text[..], b"secret");
    assert_code(
        client.decrypt(decrypt(Bytes::from_static(b"x"))).await,
        Code::InvalidArgument,
        "no cipher text",
    );
    assert_code(client.encrypt(encrypt("vault", "nope")).await, Code::InvalidArgument, "unknown key");
    assert_code(client.encrypt(encrypt("nope", "orders")).await, Code::InvalidArgument, "unknown component");
    let without = World::new(None).await;
    let mut client = CryptionServiceClient::with_origin(Wire::default(), origin(without.address));
    assert_code(client.encrypt(encrypt("vault", "orders")).await, Code::FailedPrecondition, "none at all");
}

#[tokio::test]
async fn mail_has_honest_codes() {
    let world = world().await;
    let mut client = EmailServiceClient::with_origin(Wire::default(), origin(world.address));
    let send = |component: &str, to: &[&str]| SendEmailRequest {
        component_name: component.to_owned(),
        subject: "hello".to_owned(),
        address: Some(EmailAddress {
            from: "shop@example.com".to_owned(),
            to: to.iter().map(|to| (*to).to_owned()).collect(),
            cc: Vec::new(),
        }),
        ..SendEmailRequest::default()
    };
    for (what, request, code) in [
        ("nobody to send to", send("post", &[]), Code::InvalidArgument),
        ("no address", send("post", &["nobody"]), Code::InvalidArgument),
        ("unknown component", send("nope", &["a@example.com"]), Code::InvalidArgument),
        ("a server that is away", send("post", &["a@example.com"]), Code::Unavailable),
    ] {
        assert_code(client.send_email(request).await, code, what);
    }
}

/// Tells what comes, and when.
struct Told(mpsc::UnboundedSender<Bytes>);

#[async_trait::async_trait]
impl Sink for Told {
    async fn take(&self, event: TopicEvent) -> Result<(), NotTaken> {
        let _ = self.0.send(event.envelope);
        Ok(())
    }
}

async fn subscribe(world: &World) -> (Box<dyn Running>, mpsc::UnboundedReceiver<Bytes>) {
    let (told, events) = mpsc::unbounded_channel();
    let subscription = Subscription {
        origin: Origin::Streaming,
        pubsub: "pubsub".to_owned(),
        topic: "later".to_owned(),
        metadata: BTreeMap::new(),
        routes: Routes::default(),
        dead_letter: None,
        bulk: None,
    };
    let running =
        world.host.triggers().stream(&world.host, &world.scope, subscription, Arc::new(Told(told))).await;
    (running.unwrap(), events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delayed_messages_are_published_when_they_are_due() {
    let world = world().await;
    let (_running, mut events) = subscribe(&world).await;
    let mut client = DelayQueueClient::with_origin(Wire::default(), origin(world.address));
    let publish = |component: &str, topic: &str, delay| DelayMessageRequest {
        component_name: component.to_owned(),
        topic: topic.to_owned(),
        data: Bytes::from_static(b"{\"n\":1}"),
        data_content_type: "application/json".to_owned(),
        delay_in_seconds: delay,
        metadata: BTreeMap::new(),
    };
    let began = Instant::now();
    let answer = client.publish_delay_message(publish("pubsub", "later", 2)).await.unwrap().into_inner();
    assert!(!answer.message_id.is_empty());
    client.publish_delay_message(publish("pubsub", "later", 0)).await.unwrap();
    for at_least in [Duration::ZERO, Duration::from_millis(1900)] {
        let event = within("the event", events.recv()).await.unwrap();
        let event: serde_json::Value = serde_json::from_slice(&event).unwrap();
        assert_eq!((&event["data"]["n"], &event["source"]), (&1.into(), &"runtime".into()));
        assert!(began.elapsed() >= at_least, "it came after {:?}", began.elapsed());
    }
    // They are no jobs of the app.
    assert_eq!(world.scope.list_jobs().await.unwrap(), []);
    for (component, topic, delay) in
        [("", "later", 1), ("nope", "later", 1), ("pubsub", "", 1), ("pubsub", "later", -1)]
    {
        let answer = client.publish_delay_message(publish(component, topic, delay)).await;
        assert_code(answer, Code::InvalidArgument, &format!("{component}/{topic} in {delay} s"));
    }
}
