//! What is the same for all methods: token, limits, reflection, methods that are not there.

use crate::support::{Wire, World, assert_status, origin, within};
use bytes::Bytes;
use dhow_api::proto::common::v1::StateItem;
use dhow_api::proto::runtime::v1::*;
use futures::StreamExt as _;
use tonic::{Code, Request};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

#[tokio::test]
async fn a_token_is_asked_for() {
    let world = World::new(Some("open sesame")).await;
    let mut client = world.client();
    for (token, code) in [
        (None, Code::Unauthenticated),
        (Some("wrong"), Code::Unauthenticated),
        (Some("open sesame"), Code::Ok),
    ] {
        let mut request = Request::new(GetMetadataRequest {});
        if let Some(token) = token {
            request.metadata_mut().insert("dapr-api-token", token.parse().unwrap());
        }
        let answer = client.get_metadata(request).await;
        assert_eq!(answer.map_or_else(|status| status.code(), |_| Code::Ok), code, "{token:?}");
    }
}

#[tokio::test]
async fn requests_from_web_pages_are_refused() {
    let world = World::new(None).await;
    let mut request = Request::new(GetMetadataRequest {});
    request.metadata_mut().insert("origin", "https://example.com".parse().unwrap());
    let status = world.client().get_metadata(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
}

#[tokio::test]
async fn messages_have_a_limit() {
    let world = World::new(None).await;
    let mut client = world.client();
    let save = |bytes: usize| SaveStateRequest {
        store_name: "memory".to_owned(),
        states: vec![StateItem {
            key: "k".to_owned(),
            value: Bytes::from(vec![7; bytes]),
            ..StateItem::default()
        }],
    };
    client.save_state(save((4 << 20) - 100)).await.unwrap();
    let status = client.save_state(save(4 << 20)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
}

#[tokio::test]
async fn later_blocks_are_named() {
    let world = World::new(None).await;
    let mut client = world.client();
    let encrypt = futures::stream::iter([EncryptRequest::default()]);
    let statuses = [
        ("actors", client.invoke_actor(InvokeActorRequest::default()).await.unwrap_err()),
        ("workflows", client.start_workflow_beta1(StartWorkflowRequest::default()).await.unwrap_err()),
        ("conversation", client.converse_alpha2(ConversationRequestAlpha2::default()).await.unwrap_err()),
        ("crypto", client.encrypt_alpha1(encrypt).await.unwrap_err()),
        ("subtlecrypto", client.subtle_sign_alpha1(SubtleSignRequest::default()).await.unwrap_err()),
    ];
    for (block, status) in statuses {
        let named = status.message().contains(&format!("{block:?}"));
        assert!(named, "{status}");
        assert_status(Err::<(), _>(status), Code::Unimplemented, "ERR_API_UNIMPLEMENTED", block);
    }
}

#[tokio::test]
async fn the_service_describes_itself() {
    let world = World::new(None).await;
    let mut client = ServerReflectionClient::with_origin(Wire::default(), origin(world.address));
    let request = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let requests = [
        request(MessageRequest::ListServices(String::new())),
        request(MessageRequest::FileContainingSymbol("dapr.proto.runtime.v1.Dapr.GetState".to_owned())),
    ];
    let answers = client.server_reflection_info(futures::stream::iter(requests)).await.unwrap();
    let answers: Vec<_> = within("reflection", answers.into_inner().collect()).await;
    let [Ok(services), Ok(file)] = &answers[..] else { panic!("{answers:?}") };
    let Some(MessageResponse::ListServicesResponse(services)) = &services.message_response else {
        panic!("{services:?}")
    };
    assert!(services.service.iter().any(|service| service.name == "dapr.proto.runtime.v1.Dapr"));
    assert!(matches!(file.message_response, Some(MessageResponse::FileDescriptorResponse(_))));
}

#[tokio::test]
async fn metadata_can_be_set_and_read() {
    let world = World::new(None).await;
    let mut client = world.client();
    let entry = SetMetadataRequest { key: "team".to_owned(), value: "blue".to_owned() };
    client.set_metadata(entry).await.unwrap();
    let found = client.get_metadata(GetMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!((found.id.as_str(), found.runtime_version.as_str()), ("shop", dhow_api::dapr::DAPR_VERSION));
    assert_eq!(found.extended_metadata["team"], "blue");
    let memory = found.registered_components.iter().find(|component| component.name == "memory").unwrap();
    assert_eq!((memory.r#type.as_str(), memory.version.as_str()), ("state.in-memory", "v1"));
    assert!(memory.capabilities.iter().any(|capability| capability == "ETAG"), "{memory:?}");
}

#[tokio::test]
async fn shutdown_ends_the_host() {
    let world = World::new(None).await;
    world.client().shutdown(ShutdownRequest {}).await.unwrap();
    within("the end", world.stop.stopped()).await;
}
