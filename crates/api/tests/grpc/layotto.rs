//! Layotto's API beside Dapr's: state, locks, ids, configuration, secrets, and the codes of its errors.

use crate::support::{RESOURCES, Wire};
use crate::support::{World, origin, within};
use bytes::Bytes;
use dhow_api::proto::common::v1::{Etag, StateItem};
use dhow_api::proto::layotto::phone::phone_call_service_client::PhoneCallServiceClient;
use dhow_api::proto::layotto::runtime::lifecycle_client::LifecycleClient;
use dhow_api::proto::layotto::runtime::lock_keep_alive_response::Status as KeptAlive;
use dhow_api::proto::layotto::runtime::runtime_client::RuntimeClient;
use dhow_api::proto::layotto::runtime::sequencer_options::AutoIncrement;
use dhow_api::proto::layotto::runtime::*;
use dhow_api::proto::layotto::sms::sms_service_client::SmsServiceClient;
use dhow_api::proto::runtime::v1::{
    self as dapr, DeleteBulkStateRequest, DeleteStateRequest, ExecuteStateTransactionRequest,
    GetBulkSecretRequest, GetBulkStateRequest, GetSecretRequest, GetStateRequest, GetStateResponse,
    InvokeBindingRequest, PublishEventRequest, SaveStateRequest, SubscribeTopicEventsRequestAlpha1,
    SubscribeTopicEventsRequestInitialAlpha1, SubscribeTopicEventsRequestProcessedAlpha1, TopicEventResponse,
    TransactionalStateOperation, TryLockRequest, UnlockRequest,
};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tonic::{Code, Request, Status};

/// What Layotto has beside Dapr's components.
pub(crate) const MORE: &str = r#"
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: private }
spec:
  type: state.in-memory
  version: v1
  metadata: [{ name: keyPrefix, value: appid }]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: ids }
spec:
  type: sequencer.in-memory
  version: v1
  metadata: [{ name: biggerThan, value: '{"invoice": 1000}' }]
"#;

pub(crate) async fn world() -> World {
    World::with(&format!("{RESOURCES}{MORE}"), tempfile::tempdir().unwrap(), None).await
}

pub(crate) fn client(world: &World) -> RuntimeClient<Wire> {
    RuntimeClient::with_origin(Wire::default(), origin(world.address))
}

fn item(key: &str, value: &'static str) -> StateItem {
    StateItem { key: key.to_owned(), value: Bytes::from_static(value.as_bytes()), ..StateItem::default() }
}

fn save(store: &str, items: Vec<StateItem>) -> SaveStateRequest {
    SaveStateRequest { store_name: store.to_owned(), states: items }
}

fn get(store: &str, key: &str) -> GetStateRequest {
    GetStateRequest { store_name: store.to_owned(), key: key.to_owned(), ..GetStateRequest::default() }
}

fn transaction(store: &str, kind: &str) -> ExecuteStateTransactionRequest {
    ExecuteStateTransactionRequest {
        store_name: store.to_owned(),
        operations: vec![TransactionalStateOperation {
            operation_type: kind.to_owned(),
            request: Some(item("t", "1")),
        }],
        metadata: BTreeMap::new(),
    }
}

#[track_caller]
pub(crate) fn assert_code<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, what: &str) {
    let found = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
    assert_eq!(found, code, "{what}: {answer:?}");
}

#[tokio::test]
async fn state_is_shared_unless_the_component_says_otherwise() {
    let world = world().await;
    let (mut layotto, mut dapr) = (client(&world), world.client());
    for (store, seen_by_dapr) in [("memory", false), ("private", true)] {
        layotto.save_state(save(store, vec![item("book1", "100"), item("book2", "7")])).await.unwrap();
        let found = layotto.get_state(get(store, "book1")).await.unwrap().into_inner();
        assert_eq!((&found.data[..], found.etag.is_empty()), (&b"100"[..], false), "{store}");
        // Dapr's keys have the app in front by default.
        let by_dapr = dapr.get_state(get(store, "book1")).await.unwrap().into_inner();
        assert_eq!(!by_dapr.data.is_empty(), seen_by_dapr, "{store}");
        let keys = GetBulkStateRequest {
            store_name: store.to_owned(),
            keys: ["book1", "nope", "book2"].map(str::to_owned).into(),
            ..GetBulkStateRequest::default()
        };
        let items = layotto.get_bulk_state(keys).await.unwrap().into_inner().items;
        let values: Vec<&[u8]> = items.iter().map(|item| &item.data[..]).collect();
        assert_eq!(values, [&b"100"[..], b"", b"7"], "{store}");
        layotto.execute_state_transaction(transaction(store, "upsert")).await.unwrap();
        let delete = DeleteStateRequest {
            store_name: store.to_owned(),
            key: "t".to_owned(),
            ..DeleteStateRequest::default()
        };
        layotto.delete_state(delete).await.unwrap();
        let states = vec![item("book1", ""), item("book2", "")];
        let delete = DeleteBulkStateRequest { store_name: store.to_owned(), states };
        layotto.delete_bulk_state(delete).await.unwrap();
        let found = layotto.get_state(get(store, "book1")).await.unwrap().into_inner();
        assert_eq!(found, GetStateResponse::default(), "{store}");
    }
}

#[tokio::test]
async fn state_has_layottos_codes() {
    let world = world().await;
    let mut client = client(&world);
    client.save_state(save("memory", vec![item("a", "1")])).await.unwrap();
    let stale = StateItem { etag: Some(Etag { value: "999".to_owned() }), ..item("a", "2") };
    assert_code(client.get_state(get("nope", "a")).await, Code::InvalidArgument, "unknown store");
    assert_code(client.get_state(get("memory", "x||a")).await, Code::InvalidArgument, "a key of another app");
    assert_code(client.save_state(save("memory", vec![stale])).await, Code::Aborted, "stale etag");
    let bulk = GetBulkStateRequest { store_name: "memory".to_owned(), ..GetBulkStateRequest::default() };
    assert_eq!(client.get_bulk_state(bulk).await.unwrap().into_inner().items, []);
    let unknown = client.execute_state_transaction(transaction("memory", "increment")).await;
    assert_code(unknown, Code::Unimplemented, "unknown operation");
}

#[tokio::test]
async fn locks_are_held_for_as_long_as_they_are_kept_alive() {
    let world = world().await;
    let (mut layotto, mut dapr) = (client(&world), world.client());
    let take = |owner: &str| TryLockRequest {
        store_name: "lockstore".to_owned(),
        resource_id: "till".to_owned(),
        lock_owner: owner.to_owned(),
        expiry_in_seconds: 60,
    };
    let keep = |store: &str, resource: &str, owner: &str, expire| LockKeepAliveRequest {
        store_name: store.to_owned(),
        resource_id: resource.to_owned(),
        lock_owner: owner.to_owned(),
        expire,
    };
    for (owner, expected) in [("first", true), ("second", false), ("first", false)] {
        let taken = layotto.try_lock(take(owner)).await.unwrap().into_inner();
        assert_eq!(taken.success, expected, "{owner}");
    }
    // Keys of locks are not Dapr's.
    assert!(dapr.try_lock_alpha1(take("third")).await.unwrap().into_inner().success);
    for (resource, owner, expected) in [
        ("till", "first", KeptAlive::Success),
        ("till", "second", KeptAlive::LockBelongToOthers),
        ("door", "first", KeptAlive::LockUnexist),
    ] {
        let kept = layotto.lock_keep_alive(keep("lockstore", resource, owner, 120)).await.unwrap();
        assert_eq!(kept.into_inner().status(), expected, "{resource} {owner}");
    }
    for (store, resource, owner, expire) in [
        ("nope", "till", "first", 1),
        ("lockstore", "", "first", 1),
        ("lockstore", "till", "", 1),
        ("lockstore", "till", "first", 0),
    ] {
        let what = format!("{store} {resource} {owner} {expire}");
        let kept = layotto.lock_keep_alive(keep(store, resource, owner, expire)).await;
        assert_code(kept, Code::InvalidArgument, &what);
        let request = TryLockRequest {
            store_name: store.to_owned(),
            resource_id: resource.to_owned(),
            lock_owner: owner.to_owned(),
            expiry_in_seconds: expire,
        };
        assert_code(layotto.try_lock(request).await, Code::InvalidArgument, &what);
    }
    let unlock = |owner: &str| UnlockRequest {
        store_name: "lockstore".to_owned(),
        resource_id: "till".to_owned(),
        lock_owner: owner.to_owned(),
    };
    for (owner, status) in [("second", 2), ("first", 0), ("first", 1)] {
        assert_eq!(layotto.unlock(unlock(owner)).await.unwrap().into_inner().status, status, "{owner}");
    }
}

#[tokio::test]
async fn ids_grow() {
    let world = world().await;
    let mut client = client(&world);
    let ask = |store: &str, key: &str, increment: Option<AutoIncrement>| GetNextIdRequest {
        store_name: store.to_owned(),
        key: key.to_owned(),
        options: increment.map(|increment| SequencerOptions { increment: increment.into() }),
        metadata: BTreeMap::new(),
    };
    for (key, increment, expected) in [
        ("order", None, 1),
        ("order", Some(AutoIncrement::Weak), 2),
        // A segment is in hand.
        ("order", Some(AutoIncrement::Strong), 10_001),
        ("order", Some(AutoIncrement::Strong), 10_002),
        ("other", Some(AutoIncrement::Strong), 1),
        ("invoice", Some(AutoIncrement::Strong), 1001),
    ] {
        let id = client.get_next_id(ask("ids", key, increment)).await.unwrap().into_inner().next_id;
        assert_eq!(id, expected, "{key} {increment:?}");
    }
    for (store, key) in [("nope", "order"), ("ids", "")] {
        assert_code(client.get_next_id(ask(store, key, None)).await, Code::InvalidArgument, store);
    }
    let without = World::new(None).await;
    let answer = self::client(&without).get_next_id(ask("ids", "order", None)).await;
    assert_code(answer, Code::FailedPrecondition, "no sequencer");
}

#[tokio::test]
async fn configuration_is_written_and_its_changes_are_told() {
    let world = world().await;
    let mut client = client(&world);
    let value = |key: &str, content: &str, group: &str| ConfigurationItem {
        key: key.to_owned(),
        content: content.to_owned(),
        group: group.to_owned(),
        ..ConfigurationItem::default()
    };
    let save = |items: Vec<ConfigurationItem>| SaveConfigurationRequest {
        store_name: "configstore".to_owned(),
        items,
        ..SaveConfigurationRequest::default()
    };
    let read = |store: &str, group: &str, keys: &[&str]| GetConfigurationRequest {
        store_name: store.to_owned(),
        group: group.to_owned(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..GetConfigurationRequest::default()
    };
    let tags = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
    let tagged = ConfigurationItem { tags: tags.clone(), ..value("greeting", "hello", "") };
    client.save_configuration(save(vec![tagged, value("greeting", "howdy", "west")])).await.unwrap();
    for (group, keys, expected) in
        [("", &["greeting"][..], "hello"), ("default", &[], "hello"), ("west", &["greeting", "x"], "howdy")]
    {
        let items =
            client.get_configuration(read("configstore", group, keys)).await.unwrap().into_inner().items;
        let [found] = &items[..] else { panic!("{group}: {items:?}") };
        assert_eq!((found.key.as_str(), found.content.as_str()), ("greeting", expected));
        assert_eq!(found.tags.is_empty(), group == "west", "{found:?}");
    }
    let unknown = client.get_configuration(read("nope", "", &[])).await;
    assert_code(unknown, Code::Unknown, "unknown store");
    assert_code(
        client.save_configuration(save(vec![value("a||b", "", "")])).await,
        Code::InvalidArgument,
        "||",
    );

    let (up, received) = mpsc::channel(4);
    let requests = futures::stream::unfold(received, |mut received: mpsc::Receiver<_>| async {
        received.recv().await.map(|request| (request, received))
    });
    let subscribe = |group: &str| SubscribeConfigurationRequest {
        store_name: "configstore".to_owned(),
        app_id: "shop".to_owned(),
        group: group.to_owned(),
        keys: vec!["greeting".to_owned()],
        ..SubscribeConfigurationRequest::default()
    };
    let mut changes = client.subscribe_configuration(requests).await.unwrap().into_inner();
    for (group, content) in [("", "good morning"), ("west", "hey")] {
        up.send(subscribe(group)).await.unwrap();
        // The subscription has no answer of its own: it is in force when a change arrives.
        let mut number = 0;
        let change = within("a change", async {
            loop {
                number += 1;
                let item = value("greeting", &format!("{content} {number}"), group);
                client.save_configuration(save(vec![item])).await.unwrap();
                let wait = tokio::time::timeout(std::time::Duration::from_millis(300), changes.message());
                if let Ok(change) = wait.await {
                    break change.unwrap().unwrap();
                }
            }
        })
        .await;
        assert_eq!((change.store_name.as_str(), change.app_id.as_str()), ("configstore", "shop"));
        assert!(change.items[0].content.starts_with(content), "{change:?}");
    }
    let delete = DeleteConfigurationRequest {
        store_name: "configstore".to_owned(),
        keys: vec!["greeting".to_owned()],
        ..DeleteConfigurationRequest::default()
    };
    client.delete_configuration(delete).await.unwrap();
    let left = client.get_configuration(read("configstore", "", &[])).await.unwrap().into_inner().items;
    assert_eq!(left, []);
}

#[tokio::test]
async fn secrets_and_bindings_have_layottos_codes() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secrets.json"), r#"{"db": "hunter2"}"#).unwrap();
    let world = World::with(RESOURCES, folder, None).await;
    let mut client = client(&world);
    let secret = |store: &str, key: &str| GetSecretRequest {
        store_name: store.to_owned(),
        key: key.to_owned(),
        metadata: BTreeMap::new(),
    };
    let found = client.get_secret(secret("secretstore", "db")).await.unwrap().into_inner();
    assert_eq!(found.data["db"], "hunter2");
    let all = GetBulkSecretRequest { store_name: "secretstore".to_owned(), metadata: BTreeMap::new() };
    let found = client.get_bulk_secret(all).await.unwrap().into_inner();
    assert_eq!(found.data["db"].secrets["db"], "hunter2");
    assert_code(client.get_secret(secret("nope", "db")).await, Code::InvalidArgument, "unknown store");
    assert_code(client.get_secret(secret("secretstore", "nope")).await, Code::Internal, "unknown secret");
    let binding = InvokeBindingRequest { name: "nope".to_owned(), ..InvokeBindingRequest::default() };
    assert_code(client.invoke_binding(binding).await, Code::Internal, "unknown binding");
}

#[tokio::test]
async fn what_no_provider_is_for_says_so() {
    let world = world().await;
    let address = origin(world.address);
    let hello = SayHelloRequest {
        service_name: "helloworld".to_owned(),
        name: "quickstart".to_owned(),
        data: Some(prost_types::Any { type_url: "t".to_owned(), value: vec![7] }),
    };
    let answer = client(&world).say_hello(hello.clone()).await.unwrap().into_inner();
    assert_eq!((answer.hello.as_str(), answer.data), ("greeting, quickstart", hello.data));
    let sms = SmsServiceClient::with_origin(Wire::default(), address.clone())
        .send_sms_with_template(dhow_api::proto::layotto::sms::SendSmsWithTemplateRequest::default())
        .await;
    assert!(sms.as_ref().unwrap_err().message().contains("SmsService"), "{sms:?}");
    assert_code(sms, Code::Unimplemented, "sms");
    let voice = PhoneCallServiceClient::with_origin(Wire::default(), address.clone())
        .send_voice_with_template(dhow_api::proto::layotto::phone::SendVoiceWithTemplateRequest::default())
        .await;
    assert_code(voice, Code::Unimplemented, "phone");
    let mut lifecycle = LifecycleClient::with_origin(Wire::default(), address);
    let metadata = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    for (kind, name, metadata, code) in [
        ("", "memory", metadata.clone(), Code::InvalidArgument),
        ("state", "", metadata.clone(), Code::InvalidArgument),
        ("state", "memory", BTreeMap::new(), Code::InvalidArgument),
        ("state", "nope", metadata.clone(), Code::InvalidArgument),
        ("state", "memory", metadata.clone(), Code::Unimplemented),
    ] {
        let component = ComponentConfig { kind: kind.to_owned(), name: name.to_owned(), metadata };
        let request = DynamicConfiguration { component_config: Some(component) };
        assert_code(lifecycle.apply_configuration(request).await, code, &format!("{kind} {name}"));
    }
}

#[tokio::test]
async fn a_token_is_asked_for_here_too() {
    let world = World::new(Some("open sesame")).await;
    for (token, code) in [(None, Code::Unauthenticated), (Some("open sesame"), Code::Ok)] {
        let mut request = Request::new(get("memory", "a"));
        if let Some(token) = token {
            request.metadata_mut().insert("dapr-api-token", token.parse().unwrap());
        }
        assert_code(client(&world).get_state(request).await, code, "token");
    }
}

#[tokio::test]
async fn events_have_layottos_envelope_and_come_down_its_stream() {
    use dapr::subscribe_topic_events_request_alpha1::SubscribeTopicEventsRequestType as Up;
    use subscribe_topic_events_response::SubscribeTopicEventsResponseType as Down;
    let world = world().await;
    let mut client = client(&world);
    let upwards =
        |message| SubscribeTopicEventsRequestAlpha1 { subscribe_topic_events_request_type: Some(message) };
    let (up, received) = mpsc::channel(4);
    let initial = SubscribeTopicEventsRequestInitialAlpha1 {
        pubsub_name: "pubsub".to_owned(),
        topic: "orders".to_owned(),
        ..SubscribeTopicEventsRequestInitialAlpha1::default()
    };
    up.send(upwards(Up::InitialRequest(initial))).await.unwrap();
    let requests = futures::stream::unfold(received, |mut received: mpsc::Receiver<_>| async {
        received.recv().await.map(|request| (request, received))
    });
    let mut down = client.subscribe_topic_events(requests).await.unwrap().into_inner();
    let mut next = async || {
        let message = within("a message", down.message()).await.unwrap().unwrap();
        message.subscribe_topic_events_response_type.unwrap()
    };
    assert!(matches!(next().await, Down::InitialResponse(_)));
    let publish = |pubsub: &str, topic: &str| PublishEventRequest {
        pubsub_name: pubsub.to_owned(),
        topic: topic.to_owned(),
        data: Bytes::from_static(b"{\"n\":1}"),
        data_content_type: "application/json".to_owned(),
        metadata: BTreeMap::new(),
    };
    client.publish_event(publish("pubsub", "orders")).await.unwrap();
    let Down::EventMessage(event) = next().await else { panic!("no event") };
    assert_eq!((event.source.as_str(), event.r#type.as_str()), ("runtime", "com.runtime.event.sent"));
    assert_eq!((&event.data[..], event.topic.as_str()), (&b"{\"n\":1}"[..], "orders"));
    assert!(event.metadata.contains_key("traceparent"), "{event:?}");
    let status = Some(TopicEventResponse { status: 0 });
    let processed = SubscribeTopicEventsRequestProcessedAlpha1 { id: event.id, status };
    up.send(upwards(Up::EventProcessed(processed))).await.unwrap();
    for (pubsub, topic) in [("", "orders"), ("nope", "orders"), ("pubsub", "")] {
        let answer = client.publish_event(publish(pubsub, topic)).await;
        assert_code(answer, Code::InvalidArgument, &format!("{pubsub}/{topic}"));
    }
}
