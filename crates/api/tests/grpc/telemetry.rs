//! What a configuration says about the API: what is counted, recorded, switched off and refused.

use crate::support::{PATIENCE, World, header, serve};
use dhow_api::channel::Endpoint;
use dhow_api::channel::http::HttpChannel;
use dhow_api::dapr::{ApiOptions, Dapr, DaprFace};
use dhow_api::proto::common::v1::StateItem;
use dhow_api::proto::runtime::v1::*;
use dhow_api::server::Face;
use dhow_blocks::invoke::{Body, Channel, Reply};
use dhow_blocks::trace::TraceContext;
use dhow_host::tracer::{Span, SpanKind};
use http::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc::Receiver;
use tonic::Code;

const CONFIGURATION: &str = r#"
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: memory }
spec: { type: state.in-memory, version: v1, metadata: [] }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: pubsub }
spec: { type: pubsub.in-memory, version: v1, metadata: [] }
---
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: { name: telemetry }
spec:
  tracing: { samplingRate: "1", stdout: true }
  metrics: { recordErrorCodes: true }
  api:
    denied:
      - { name: shutdown, version: v1.0, protocol: http }
      - { name: secrets, version: v1, protocol: grpc }
  accessControl:
    defaultAction: deny
    trustDomain: public
    policies:
      - appId: shop
        trustDomain: public
        namespace: default
        operations:
          - { name: /orders/*, httpVerb: [GET], action: allow }
"#;

/// An app that answers with the trace that it was called with.
struct Orders;

impl Face for Orders {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Reply {
        let trace = header(request.headers(), "traceparent").to_owned();
        let state = header(request.headers(), "tracestate").to_owned();
        Response::new(Body::from(format!("{trace} {state}")))
    }
}

/// A host with the app `orders`, and its HTTP API for the app `shop`.
struct Shop {
    world: World,
    address: SocketAddr,
    client: Client<HttpConnector, Body>,
    spans: Receiver<Span>,
}

impl Shop {
    async fn new() -> Shop {
        let world = World::with(CONFIGURATION, tempfile::tempdir().unwrap(), None).await;
        let app = serve(Orders).await;
        let endpoint = Endpoint {
            app_id: "orders".into(),
            host: app.ip().to_string(),
            port: app.port(),
            tls: false,
            token: None,
            deadline: PATIENCE,
        };
        let channel = Arc::new(HttpChannel::new(endpoint, false).unwrap()) as Arc<dyn Channel>;
        let app = world.host.prepare_native("orders", channel, None).await.unwrap();
        world.host.replace(vec![app]);
        let face = DaprFace {
            api: Dapr::new(&world.host, None, ApiOptions::default()),
            scope: Arc::new(Arc::clone(&world.scope).into()),
            token: None,
        };
        let address = serve(face).await;
        let spans = world.host.tracer().spans().unwrap();
        Shop { world, address, client: Client::builder(TokioExecutor::new()).build_http(), spans }
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> (StatusCode, String, String) {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reply = self.client.request(request.body(Body::from(body)).unwrap()).await.unwrap();
        let (head, body) = reply.into_parts();
        let body = Body::stream(body).collect(1 << 20).await.unwrap();
        let trace = header(&head.headers, "traceparent").to_owned();
        (head.status, String::from_utf8(body.to_vec()).unwrap(), trace)
    }

    fn numbers(&self) -> String {
        String::from_utf8(self.world.host.metrics().render().unwrap()).unwrap()
    }

    async fn span(&mut self) -> Span {
        tokio::time::timeout(PATIENCE, self.spans.recv()).await.expect("a span").unwrap()
    }
}

fn attribute<'a>(span: &'a Span, name: &str) -> &'a str {
    span.attributes.iter().find(|(found, _)| *found == name).map_or("", |(_, value)| value)
}

#[tokio::test]
async fn a_trace_goes_through_the_api_to_the_app() {
    let mut shop = Shop::new().await;
    let caller = TraceContext { sampled: true, ..TraceContext::new() };
    let headers = [("traceparent", &*caller.to_string()), ("tracestate", "vendor=1")];
    let (status, body, answered) =
        shop.call("GET", "/v1.0/invoke/orders/method/orders/7", &headers, "").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (arrived, state) = body.split_once(' ').unwrap();
    assert_eq!(state, "vendor=1");
    // The span of the app ends first.
    let (mut app, mut api) = (shop.span().await, shop.span().await);
    if app.kind == SpanKind::Client {
        std::mem::swap(&mut app, &mut api);
    }
    assert_eq!(
        (&*app.name, &*app.app_id, app.kind),
        ("CallLocal/orders/orders/7", "orders", SpanKind::Server)
    );
    assert_eq!((&*api.name, &*api.app_id, api.kind), ("CallLocal/orders/orders/7", "shop", SpanKind::Client));
    assert_eq!((app.trace.parent_id, api.trace.parent_id), (api.trace.span_id, caller.span_id));
    assert_eq!((arrived, &*answered), (&*app.trace.to_string(), &*api.trace.to_string()));
    assert_eq!(attribute(&api, "dapr.api"), "GET /v1.0/invoke/orders/method/orders/7");
    assert_eq!((attribute(&api, "dapr.status_code"), attribute(&api, "net.peer.name")), ("200", "orders"));

    let state = r#"[{"key":"k","value":1}]"#;
    let (status, _, _) = shop.call("POST", "/v1.0/state/memory", &[], state).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let span = shop.span().await;
    assert_eq!((&*span.name, span.trace.parent_id), ("/v1.0/state/memory", 0));
    assert_eq!((attribute(&span, "db.system"), attribute(&span, "db.name")), ("state", "memory"));

    let mut client = shop.world.client();
    client.get_metadata(GetMetadataRequest {}).await.unwrap();
    let span = shop.span().await;
    assert_eq!(span.name, "/dapr.proto.runtime.v1.Dapr/GetMetadata");
    assert_eq!(attribute(&span, "dapr.protocol"), "grpc");
}

#[tokio::test]
async fn calls_are_counted_under_dapr_s_names() {
    let mut shop = Shop::new().await;
    shop.call("POST", "/v1.0/state/memory", &[], r#"[{"key":"k","value":1}]"#).await;
    shop.call("GET", "/v1.0/state/memory/k", &[], "").await;
    shop.call("GET", "/v1.0/state/nowhere/k", &[], "").await;
    shop.call("POST", "/v1.0/publish/pubsub/news", &[("content-type", "text/plain")], "hello").await;
    shop.call("GET", "/v1.0/invoke/orders/method/orders/7", &[], "").await;
    let states = vec![StateItem { key: "k".to_owned(), ..StateItem::default() }];
    let save = SaveStateRequest { store_name: "nowhere".to_owned(), states };
    let status = shop.world.client().save_state(save).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    // A call is counted before its span is over: six of the API, one of the app.
    for _ in 0..7 {
        shop.span().await;
    }
    let numbers = shop.numbers();
    for line in [
        r#"dapr_http_server_request_count{app_id="shop",method="GET",path="/v1.0/state/memory",status="200"} 1"#,
        r#"dapr_http_server_response_count{app_id="shop",method="POST",path="/v1.0/publish/pubsub/news",status="204"} 1"#,
        r#"dapr_http_server_latency_count{app_id="shop",method="POST",path="/v1.0/state/memory",status="204"} 1"#,
        r#"dapr_http_server_request_bytes_count{app_id="shop"} 5"#,
        r#"dapr_http_server_response_bytes_count{app_id="shop"} 5"#,
        r#"dapr_http_client_completed_count{app_id="orders",method="GET",path="/orders/7",status="200"} 1"#,
        r#"dapr_http_client_sent_bytes_count{app_id="orders"} 1"#,
        r#"dapr_grpc_io_server_completed_rpcs{app_id="shop",grpc_server_method="/dapr.proto.runtime.v1.Dapr/SaveState",grpc_server_status="InvalidArgument"} 1"#,
        r#"dapr_component_state_count{app_id="shop",component="memory",namespace="default",operation="get",success="true"} 1"#,
        r#"dapr_component_state_latencies_count{app_id="shop",component="memory",namespace="default",operation="set",success="true"} 1"#,
        r#"dapr_component_pubsub_egress_count{app_id="shop",component="pubsub",namespace="default",success="true",topic="news"} 1"#,
        r#"dapr_error_code_total{app_id="shop",category="state",error_code="ERR_STATE_STORE_NOT_FOUND"} 2"#,
        r#"dapr_runtime_component_loaded{app_id="shop"} 2"#,
        r#"dapr_runtime_component_init_total{app_id="shop",component="state.in-memory"} 1"#,
        r#"dapr_runtime_service_invocation_req_sent_total{app_id="shop",dst_app_id="orders",type="unary"} 1"#,
        r#"dapr_runtime_service_invocation_req_recv_total{app_id="orders",src_app_id="shop"} 1"#,
        r#"dapr_runtime_service_invocation_res_sent_total{app_id="orders",dst_app_id="shop",status="200"} 1"#,
        r#"dapr_runtime_service_invocation_res_recv_total{app_id="shop",src_app_id="orders",status="200",type="unary"} 1"#,
    ] {
        assert!(numbers.contains(line), "{line}\n{numbers}");
    }
}

#[tokio::test]
async fn what_is_switched_off_is_not_there() {
    let shop = Shop::new().await;
    let (status, body, _) = shop.call("POST", "/v1.0/shutdown", &[], "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body.contains("ERR_DIRECT_INVOKE"), "{body}");
    let (status, _, _) = shop.call("GET", "/v1.0/healthz", &[], "").await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let mut client = shop.world.client();
    let status = client.get_secret(GetSecretRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
    client.get_metadata(GetMetadataRequest {}).await.unwrap();
}

#[tokio::test]
async fn access_control_stands_before_the_app() {
    let shop = Shop::new().await;
    for (method, path, expected) in [
        ("GET", "/v1.0/invoke/orders/method/orders/7", StatusCode::OK),
        ("POST", "/v1.0/invoke/orders/method/orders/7", StatusCode::FORBIDDEN),
        ("GET", "/v1.0/invoke/orders/method/other", StatusCode::FORBIDDEN),
    ] {
        let (status, body, _) = shop.call(method, path, &[], "").await;
        assert_eq!(status, expected, "{method} {path}: {body}");
        if expected == StatusCode::FORBIDDEN {
            assert!(body.contains("access control policy has denied access to id: shop"), "{body}");
        }
    }
    let request = InvokeServiceRequest { id: "orders".to_owned(), message: Some(Default::default()) };
    let status = shop.world.client().invoke_service(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
}
