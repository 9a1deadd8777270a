//! Apps behind the host: `InvokeService`, proxying, and what an app that speaks gRPC is called with.

use crate::app::{Call, Echo, GrpcApp, Seen, any};
use crate::support::{Wire, World, assert_status, header, origin, serve, within};
use bytes::Bytes;
use dhow_api::channel::Endpoint;
use dhow_api::channel::grpc::GrpcChannel;
use dhow_api::channel::http::HttpChannel;
use dhow_api::grpc::MAX_MESSAGE;
use dhow_api::proto::common::v1::http_extension::Verb;
use dhow_api::proto::common::v1::{HttpExtension, InvokeRequest};
use dhow_api::proto::runtime::v1::app_callback_client::AppCallbackClient;
use dhow_api::proto::runtime::v1::topic_event_bulk_request_entry::Event;
use dhow_api::proto::runtime::v1::*;
use dhow_blocks::invoke::{Body, Channel, Invocation, InvokeError, Reply, Trigger};
use dhow_blocks::jobs::JobData;
use dhow_host::App;
use futures::StreamExt as _;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        app_id: "app".into(),
        host: address.ip().to_string(),
        port: address.port(),
        tls: false,
        token: Some("for the app".to_owned()),
        deadline: Duration::from_secs(10),
    }
}

async fn grpc_app(stable: bool) -> (SocketAddr, mpsc::UnboundedReceiver<Seen>) {
    let (seen, received) = mpsc::unbounded_channel();
    (serve(GrpcApp { seen, stable }).await, received)
}

fn channel(address: SocketAddr) -> GrpcChannel {
    GrpcChannel::new(endpoint(address), MAX_MESSAGE).unwrap()
}

/// Registers apps with the host.
async fn register(world: &World, apps: Vec<(&str, Arc<dyn Channel>)>) -> Vec<Arc<App>> {
    let mut registered = Vec::new();
    for (app_id, channel) in apps {
        registered.push(world.host.prepare_native(app_id, channel, None).await.unwrap());
    }
    world.host.replace(registered.clone());
    registered
}

async fn with_apps() -> (World, mpsc::UnboundedReceiver<Seen>) {
    let world = World::new(None).await;
    let (grpc, seen) = grpc_app(true).await;
    let http = serve(Echo).await;
    let apps: Vec<(&str, Arc<dyn Channel>)> = vec![
        ("grpc", Arc::new(channel(grpc))),
        ("http", Arc::new(HttpChannel::new(endpoint(http), false).unwrap())),
        ("echo", Arc::new(channel(http))),
    ];
    register(&world, apps).await;
    (world, seen)
}

fn invoke(app_id: &str, method: &str, verb: Verb, query: &str) -> InvokeServiceRequest {
    InvokeServiceRequest {
        id: app_id.to_owned(),
        message: Some(InvokeRequest {
            method: method.to_owned(),
            data: Some(any(b"hello")),
            content_type: "text/plain".to_owned(),
            http_extension: Some(HttpExtension { verb: verb.into(), querystring: query.to_owned() }),
        }),
    }
}

#[tokio::test]
async fn apps_are_invoked_with_messages() {
    let (world, mut seen) = with_apps().await;
    let mut client = world.client();
    let mut request = Request::new(invoke("http", "orders/1", Verb::Put, "a=1"));
    request.metadata_mut().insert("x-mine", "kept".parse().unwrap());
    let answer = client.invoke_service(request).await.unwrap();
    for (name, expected) in [
        ("x-path", "/orders/1?a=1"),
        ("x-method", "PUT"),
        ("x-mine", "kept"),
        ("x-token", "for the app"),
        ("dapr-caller-app-id", "shop"),
        ("dapr-callee-app-id", "http"),
        ("dapr-http-status", "200"),
    ] {
        assert_eq!(answer.metadata().get(name).unwrap(), expected, "{name}");
    }
    let answer = answer.into_inner();
    assert_eq!(
        (&answer.data.unwrap().value[..], answer.content_type.as_str()),
        (&b"hello"[..], "text/plain")
    );

    let answer = client.invoke_service(invoke("grpc", "greet", Verb::Get, "a=1")).await.unwrap();
    assert_eq!(answer.metadata().get("x-answered").unwrap(), "yes");
    assert!(answer.metadata().get("dapr-http-status").is_none());
    assert_eq!(answer.into_inner().data, Some(any(b"hello")));
    let (Call::Invoke(call), metadata) = seen.recv().await.unwrap() else { panic!("not invoked") };
    assert_eq!((call.method.as_str(), call.content_type.as_str()), ("greet", "text/plain"));
    let extension = call.http_extension.unwrap();
    assert_eq!((extension.verb(), extension.querystring.as_str()), (Verb::Get, "a=1"));
    assert_eq!(header(&metadata, "dapr-caller-app-id"), "shop");
    assert_eq!(header(&metadata, "dapr-api-token"), "for the app");
}

#[tokio::test]
async fn failed_invocations_have_a_status() {
    let (world, _seen) = with_apps().await;
    let mut client = world.client();
    // Of an HTTP app.
    let status = client.invoke_service(invoke("http", "taken", Verb::Post, "")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.metadata().get("dapr-http-status").unwrap().as_bytes()),
        (Code::AlreadyExists, &b"409"[..])
    );
    let info = status.get_error_details().error_info().cloned().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["http.error_message"].as_str()), ("Conflict", "hello"));
    // Of a gRPC app, as it said it.
    let status = client.invoke_service(invoke("grpc", "fail", Verb::Post, "")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message(), status.details()),
        (Code::AlreadyExists, "taken", &b"\x08\x06"[..])
    );
    // Of nobody.
    for (request, code, reason) in [
        (invoke("nobody", "x", Verb::Post, ""), Code::Internal, "ERR_DIRECT_INVOKE"),
        (
            InvokeServiceRequest { id: "http".to_owned(), message: None },
            Code::InvalidArgument,
            "ERR_MALFORMED_REQUEST",
        ),
    ] {
        let what = format!("{request:?}");
        assert_status(client.invoke_service(request).await, code, reason, &what);
    }
}

#[tokio::test]
async fn other_services_are_proxied() {
    let (world, mut seen) = with_apps().await;
    let mut client = AppCallbackClient::with_origin(Wire::default(), origin(world.address));
    let message = || InvokeRequest { method: "direct".to_owned(), ..InvokeRequest::default() };
    let to = |app_id: &str| {
        let mut request = Request::new(message());
        request.metadata_mut().insert("dapr-app-id", app_id.parse().unwrap());
        request.metadata_mut().insert("x-mine", "kept".parse().unwrap());
        request
    };
    client.on_invoke(to("grpc")).await.unwrap();
    let (call, metadata) = seen.recv().await.unwrap();
    assert_eq!(call, Call::Invoke(message()));
    assert_eq!((header(&metadata, "x-mine"), header(&metadata, "dapr-caller-app-id")), ("kept", "shop"));
    assert!(!metadata.contains_key("dapr-app-id"));
    for (request, code) in [(Request::new(message()), Code::Unimplemented), (to("nobody"), Code::NotFound)] {
        let status = client.on_invoke(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
    }
    // The app's own error, with its message.
    let mut failing = to("grpc");
    failing.get_mut().method = "fail".to_owned();
    let status = client.on_invoke(failing).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::AlreadyExists, "taken"));
}

#[tokio::test]
async fn proxied_streams_flow_both_ways_at_once() {
    let (world, _seen) = with_apps().await;
    let mut client = tonic::client::Grpc::with_origin(Wire::default(), origin(world.address));
    let (up, received) = mpsc::channel::<StringMessage>(1);
    let messages = futures::stream::unfold(received, |mut received| async {
        received.recv().await.map(|message| (message, received))
    });
    let mut request = Request::new(messages);
    request.metadata_mut().insert("dapr-app-id", "echo".parse().unwrap());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<StringMessage, StringMessage>::default();
    let answer = client.streaming(request, "/test.Echo/Talk".parse().unwrap(), codec).await.unwrap();
    assert_eq!(answer.metadata().get("x-path").unwrap(), "/test.Echo/Talk");
    let mut down = answer.into_inner();
    for text in ["one", "two", "three"] {
        let message = StringMessage { value: text.repeat(10_000) };
        up.send(message.clone()).await.unwrap();
        // Before the next one is sent: nothing waits for the end.
        assert_eq!(within("an echo", down.next()).await.unwrap().unwrap(), message);
    }
    drop(up);
    assert!(within("the end", down.next()).await.is_none());
    assert_eq!(down.trailers().await.unwrap().unwrap().get("x-te").unwrap(), "trailers");
}

/// `google.protobuf.StringValue`
#[derive(Clone, PartialEq, prost::Message)]
struct StringMessage {
    #[prost(string, tag = "1")]
    value: String,
}

#[tokio::test]
async fn a_grpc_app_gets_its_topics_and_jobs() {
    let world = World::new(None).await;
    let (address, mut seen) = grpc_app(true).await;
    let apps = register(&world, vec![("app", Arc::new(channel(address)))]).await;
    world.host.listen_for(&apps[0]).await;
    let mut client = world.client();
    let publish = |topic: &str, data: &'static [u8], kind: &str| PublishEventRequest {
        pubsub_name: "pubsub".to_owned(),
        topic: topic.to_owned(),
        data: Bytes::from_static(data),
        data_content_type: "text/plain".to_owned(),
        metadata: [("cloudevent.type".to_owned(), kind.to_owned())].into(),
    };
    for (topic, kind, path) in
        [("orders", "any", ""), ("routed", "special", "special"), ("routed", "any", "other")]
    {
        client.publish_event(publish(topic, b"hi", kind)).await.unwrap();
        let (Call::Topic(event), metadata) = within("an event", seen.recv()).await.unwrap() else { panic!() };
        assert_eq!((event.topic.as_str(), event.path.as_str(), &event.data[..]), (topic, path, &b"hi"[..]));
        assert_eq!((event.pubsub_name.as_str(), event.source.as_str()), ("pubsub", "shop"));
        assert!(metadata.contains_key("traceparent"));
    }
    client.publish_event(publish("bulk", b"hi", "any")).await.unwrap();
    let (Call::Bulk(bulk), _) = within("a bulk", seen.recv()).await.unwrap() else { panic!() };
    let Some(Event::CloudEvent(event)) = &bulk.entries[0].event else { panic!("{bulk:?}") };
    assert_eq!((&event.data[..], bulk.topic.as_str(), bulk.path.as_str()), (&b"hi"[..], "bulk", ""));
}

#[tokio::test]
async fn a_due_job_reaches_its_app_with_its_own_message() {
    let world = World::new(None).await;
    let (address, mut seen) = grpc_app(true).await;
    // The program at the face and the app are one.
    register(&world, vec![("shop", Arc::new(channel(address)))]).await;
    let job = Job {
        name: "soon".to_owned(),
        due_time: Some("50ms".to_owned()),
        data: Some(any(b"\x01")),
        ..Job::default()
    };
    let request = ScheduleJobRequest { job: Some(job), overwrite: false };
    world.client().schedule_job(request).await.unwrap();
    let (Call::Job(job), _) = within("the job", seen.recv()).await.unwrap() else { panic!("no job") };
    assert_eq!((job.name.as_str(), job.method.as_str(), job.data), ("soon", "job/soon", Some(any(b"\x01"))));
}

#[tokio::test]
async fn requests_of_the_host_become_calls() {
    for stable in [true, false] {
        let (address, mut seen) = grpc_app(stable).await;
        let channel = channel(address);
        let envelope = |data: &str| json!({"id": "7", "topic": "orders", "pubsubname": "pubsub", "datacontenttype": "text/plain", "data": data});
        let events = "application/cloudevents+json";
        let health = if stable { 204 } else { 503 };
        let bulk = json!({"id": "b", "entries": [{"entryId": "1", "event": envelope("x")}]});
        for (trigger, method, path, content_type, body, status, expected) in [
            (Trigger::Host, Method::OPTIONS, "/queue", "", String::new(), 204, None),
            (Trigger::Host, Method::OPTIONS, "/other", "", String::new(), 404, None),
            (Trigger::Host, Method::GET, "/healthz", "", String::new(), health, None),
            (Trigger::Host, Method::GET, "/dapr/config", "", String::new(), 404, None),
            (
                Trigger::Topic,
                Method::POST,
                "/",
                events,
                envelope("x").to_string(),
                200,
                Some(json!({"status": "SUCCESS"})),
            ),
            (
                Trigger::Topic,
                Method::POST,
                "/",
                events,
                envelope("drop").to_string(),
                200,
                Some(json!({"status": "DROP"})),
            ),
            (
                Trigger::Topic,
                Method::POST,
                "/",
                events,
                envelope("retry").to_string(),
                200,
                Some(json!({"status": "RETRY"})),
            ),
            (Trigger::Topic, Method::POST, "/", events, envelope("unknown").to_string(), 404, None),
            (Trigger::Topic, Method::POST, "/", events, envelope("fail").to_string(), 500, None),
            // Only an app without a handler has no use for the event.
            (Trigger::Topic, Method::POST, "/", events, envelope("early").to_string(), 500, None),
            (Trigger::Topic, Method::POST, "/", events, "[]".to_owned(), 400, None),
            (
                Trigger::Topic,
                Method::POST,
                "/",
                "application/json",
                bulk.to_string(),
                200,
                Some(json!({"statuses": [{"entryId": "1", "status": "SUCCESS"}]})),
            ),
            (Trigger::Binding, Method::POST, "/queue", "text/plain", "event".to_owned(), 200, None),
            (Trigger::Job, Method::POST, "/job/back%20up", "application/json", "{}".to_owned(), 200, None),
            (Trigger::Job, Method::POST, "/job/unknown", "application/json", "{}".to_owned(), 404, None),
        ] {
            let what = format!("{trigger:?} {method} {path} {body} (stable: {stable})");
            let reply = call(&channel, trigger, method, path, content_type, body).await.unwrap();
            assert_eq!(reply.status().as_u16(), status, "{what}");
            let body: Value = serde_json::from_slice(&collect(reply).await).unwrap_or_default();
            if let Some(expected) = expected {
                assert_eq!(body, expected, "{what}");
            }
        }
        let mut calls = Vec::new();
        while let Ok((call, _)) = seen.try_recv() {
            calls.push(call);
        }
        let Some(Call::Binding(event)) = calls.iter().find(|call| matches!(call, Call::Binding(_))) else {
            panic!("{calls:?}")
        };
        assert_eq!(
            (event.name.as_str(), &event.data[..], event.metadata["x-kept"].as_str()),
            ("queue", &b"event"[..], "1")
        );
        let Some(Call::Job(job)) = calls.iter().find(|call| matches!(call, Call::Job(_))) else {
            panic!("{calls:?}")
        };
        assert_eq!((job.name.as_str(), job.method.as_str()), ("back up", "job/back%20up"));
        assert_eq!(job.data.as_ref().unwrap().type_url, "type.googleapis.com/google.protobuf.Value");
    }
}

#[tokio::test]
async fn a_job_s_message_comes_as_it_was_scheduled() {
    let (address, mut seen) = grpc_app(true).await;
    let mut request = http::Request::post("/job/x").body(Body::Empty).unwrap();
    let data =
        JobData { type_url: "type.googleapis.com/mine".to_owned(), value: Bytes::from_static(b"\x01") };
    request.extensions_mut().insert(data);
    let reply = channel(address).invoke(Invocation::new(request, Trigger::Job)).await.unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
    let Some((Call::Job(job), _)) = seen.recv().await else { panic!() };
    assert_eq!(job.data, Some(any(b"\x01")));
}

#[tokio::test]
async fn an_app_may_come_late_and_hang() {
    // A port that nobody listens on, for now.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let slow = Endpoint { deadline: Duration::from_millis(300), ..endpoint(address) };
    let channel = GrpcChannel::new(slow, MAX_MESSAGE).unwrap();
    let health = || call(&channel, Trigger::Host, Method::GET, "/healthz", "", String::new());
    let error = health().await.unwrap_err();
    assert!(matches!(&error, InvokeError::Unreachable { app_id, .. } if app_id == "app"), "{error}");
    assert!(error.to_string().contains("is the app up"), "{error}");
    let (seen, _received) = mpsc::unbounded_channel();
    let listener = dhow_api::server::Listener::tcp(address).unwrap();
    let stop = dhow_api::server::Stop::default();
    let server =
        tokio::spawn(listener.serve(Arc::new(GrpcApp { seen, stable: true }), stop.clone(), Duration::ZERO));
    assert_eq!(health().await.unwrap().status(), StatusCode::NO_CONTENT);
    let hanging = call(&channel, Trigger::App, Method::POST, "/hang", "text/plain", String::new()).await;
    assert!(matches!(hanging, Err(InvokeError::DeadlineExceeded { .. })), "{hanging:?}");
    // Gone, and back again: the next call makes a new connection.
    stop.stop();
    server.await.unwrap();
    let gone = health().await;
    assert!(gone.is_err(), "{gone:?}");
    let (seen, _received) = mpsc::unbounded_channel();
    let listener = dhow_api::server::Listener::tcp(address).unwrap();
    tokio::spawn(listener.serve(
        Arc::new(GrpcApp { seen, stable: true }),
        Default::default(),
        Duration::ZERO,
    ));
    assert_eq!(health().await.unwrap().status(), StatusCode::NO_CONTENT);
}

pub(crate) async fn call(
    channel: &dyn Channel,
    trigger: Trigger,
    method: Method,
    path: &str,
    content_type: &str,
    body: String,
) -> Result<Reply, InvokeError> {
    let request = http::Request::builder().method(method).uri(path).header("x-kept", "1");
    let request = request.header("content-type", content_type).body(Body::from(body)).unwrap();
    within(path, channel.invoke(Invocation::new(request, trigger))).await
}

pub(crate) async fn collect(reply: Reply) -> Bytes {
    reply.into_body().collect(64 << 20).await.unwrap()
}
