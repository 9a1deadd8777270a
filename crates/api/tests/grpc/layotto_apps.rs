//! Apps that Layotto's API invokes, and apps that serve Layotto's callbacks.

use crate::app::Echo;
use crate::apps::endpoint;
use crate::layotto::{assert_code, client};
use crate::support::{World, header, serve, within};
use bytes::Bytes;
use dhow_api::channel::grpc::GrpcChannel;
use dhow_api::channel::http::HttpChannel;
use dhow_api::grpc::MAX_MESSAGE;
use dhow_api::proto::common::v1::http_extension::Verb;
use dhow_api::proto::common::v1::{HttpExtension, InvokeRequest};
use dhow_api::proto::layotto::runtime::app_callback_server::{AppCallback, AppCallbackServer};
use dhow_api::proto::layotto::runtime::*;
use dhow_api::proto::runtime::v1::{InvokeServiceRequest, PublishEventRequest, TopicEventResponse};
use dhow_api::server::Face;
use dhow_blocks::invoke::{Body, Channel, Reply};
use prost_types::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status};
use tower_service::Service as _;

/// An app with Layotto's callbacks, which tells what reaches it.
#[derive(Clone)]
struct LayottoApp(mpsc::UnboundedSender<TopicEventRequest>);

#[tonic::async_trait]
impl AppCallback for LayottoApp {
    async fn list_topic_subscriptions(
        &self,
        _: Request<()>,
    ) -> Result<Response<ListTopicSubscriptionsResponse>, Status> {
        let subscription = TopicSubscription {
            pubsub_name: "pubsub".to_owned(),
            topic: "orders".to_owned(),
            metadata: BTreeMap::new(),
        };
        Ok(Response::new(ListTopicSubscriptionsResponse { subscriptions: vec![subscription] }))
    }

    async fn on_topic_event(
        &self,
        request: Request<TopicEventRequest>,
    ) -> Result<Response<TopicEventResponse>, Status> {
        let event = request.into_inner();
        let status = if &event.data[..] == b"drop" { 2 } else { 0 };
        let _ = self.0.send(event);
        Ok(Response::new(TopicEventResponse { status }))
    }
}

impl Face for LayottoApp {
    async fn answer(self: Arc<Self>, request: http::Request<Body>) -> Reply {
        // What a generated server does with services that it does not have.
        if !request.uri().path().starts_with("/spec.proto.runtime.v1.AppCallback/") {
            return Status::unimplemented("").into_http();
        }
        AppCallbackServer::from_arc(self).call(request).await.unwrap().map(Body::stream)
    }
}

#[tokio::test]
async fn apps_with_layottos_callbacks_get_their_topics() {
    let world = World::new(None).await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let address = serve(LayottoApp(sender)).await;
    let channel = Arc::new(GrpcChannel::new(endpoint(address), MAX_MESSAGE).unwrap());
    let app = world.host.prepare_native("shop", channel, None).await.unwrap();
    world.host.replace(vec![Arc::clone(&app)]);
    within("the subscriptions", world.host.listen_for(&app)).await;
    let mut client = client(&world);
    for data in ["drop", "first", "second"] {
        let publish = PublishEventRequest {
            pubsub_name: "pubsub".to_owned(),
            topic: "orders".to_owned(),
            data: Bytes::from_static(data.as_bytes()),
            ..PublishEventRequest::default()
        };
        client.publish_event(publish).await.unwrap();
        let event = within("the event", seen.recv()).await.unwrap();
        assert_eq!(&event.data[..], data.as_bytes());
        assert_eq!((event.pubsub_name.as_str(), event.topic.as_str()), ("pubsub", "orders"));
    }
}

#[tokio::test]
async fn apps_are_invoked_by_id() {
    let world = World::new(None).await;
    let address = serve(Echo).await;
    let channel: Arc<dyn Channel> = Arc::new(HttpChannel::new(endpoint(address), false).unwrap());
    let app = world.host.prepare_native("id_1", channel, None).await.unwrap();
    world.host.replace(vec![app]);
    let mut client = client(&world);
    let message = |id: &str, path: &str, verb: Verb| InvokeServiceRequest {
        id: id.to_owned(),
        message: Some(InvokeRequest {
            method: path.to_owned(),
            data: Some(Any { type_url: "ignored".to_owned(), value: b"hello".to_vec() }),
            content_type: "text/plain".to_owned(),
            http_extension: Some(HttpExtension { verb: verb.into(), querystring: "a=1".to_owned() }),
        }),
    };
    let mut request = Request::new(message("id_1", "/orders", Verb::Post));
    request.metadata_mut().insert("x-mine", "kept".parse().unwrap());
    let answer = client.invoke_service(request).await.unwrap();
    for (name, expected) in [("x-path", "/orders?a=1"), ("x-method", "POST"), ("x-mine", "kept")] {
        assert_eq!(header(answer.metadata().as_ref(), name), expected, "{name}");
    }
    let answer = answer.into_inner();
    assert_eq!(answer.data, Some(Any { type_url: String::new(), value: b"hello".to_vec() }));
    let answer = client.invoke_service(message("id_1", "/orders", Verb::None)).await.unwrap();
    assert_eq!(header(answer.metadata().as_ref(), "x-method"), "GET");
    let teapot = client.invoke_service(message("id_1", "/teapot", Verb::Get)).await;
    assert_code(teapot, Code::Unavailable, "an app that fails");
    let mut slow = Request::new(message("id_1", "/hang", Verb::Get));
    slow.metadata_mut().insert("rpc_request_timeout", "50".parse().unwrap());
    assert_code(client.invoke_service(slow).await, Code::DeadlineExceeded, "an app that hangs");
    assert_code(client.invoke_service(message("", "/", Verb::Get)).await, Code::InvalidArgument, "no id");
}
