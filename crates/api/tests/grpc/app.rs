//! Apps that are programs of their own: one that speaks gRPC, one that sends back what it gets.

use bytes::Bytes;
use dhow_api::proto::common::v1::{InvokeRequest, InvokeResponse, StateItem};
use dhow_api::proto::runtime::v1::app_callback_alpha_server::{AppCallbackAlpha, AppCallbackAlphaServer};
use dhow_api::proto::runtime::v1::app_callback_health_check_server::{
    AppCallbackHealthCheck, AppCallbackHealthCheckServer,
};
use dhow_api::proto::runtime::v1::app_callback_server::{AppCallback, AppCallbackServer};
use dhow_api::proto::runtime::v1::topic_event_response::TopicEventResponseStatus as Verdict;
use dhow_api::proto::runtime::v1::*;
use dhow_api::server::Face;
use dhow_blocks::invoke::{Body, Reply};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost_types::Any;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};
use tower_service::Service as _;

/// What reached the app.
#[derive(Debug, PartialEq)]
pub(crate) enum Call {
    Invoke(InvokeRequest),
    Topic(TopicEventRequest),
    Bulk(TopicEventBulkRequest),
    Binding(BindingEventRequest),
    Job(JobEventRequest),
}

/// A call and its metadata.
pub(crate) type Seen = (Call, HeaderMap);

/// An app that speaks gRPC and tells what reaches it.
#[derive(Clone)]
pub(crate) struct GrpcApp {
    pub(crate) seen: mpsc::UnboundedSender<Seen>,
    /// Knows the later names of bulks and jobs, too.
    pub(crate) stable: bool,
}

/// An app that sends each frame back as soon as it comes, and then a status.
pub(crate) struct Echo;

impl GrpcApp {
    fn tell<T>(&self, request: Request<T>, call: impl FnOnce(T) -> Call) {
        let (metadata, _, message) = request.into_parts();
        let _ = self.seen.send((call(message), metadata.into_headers()));
    }
}

#[tonic::async_trait]
impl AppCallback for GrpcApp {
    async fn on_invoke(&self, request: Request<InvokeRequest>) -> Result<Response<InvokeResponse>, Status> {
        let message = request.get_ref().clone();
        self.tell(request, Call::Invoke);
        match message.method.as_str() {
            "hang" => std::future::pending().await,
            "fail" => Err(Status::with_details(
                tonic::Code::AlreadyExists,
                "taken",
                Bytes::from_static(b"\x08\x06"),
            )),
            _ => {
                let mut response =
                    Response::new(InvokeResponse { data: message.data, content_type: message.content_type });
                response.metadata_mut().insert("x-answered", "yes".parse().unwrap());
                Ok(response)
            }
        }
    }

    async fn list_topic_subscriptions(
        &self,
        _: Request<()>,
    ) -> Result<Response<ListTopicSubscriptionsResponse>, Status> {
        let subscription = |topic: &str, rule: Option<TopicRule>| TopicSubscription {
            pubsub_name: "pubsub".to_owned(),
            topic: topic.to_owned(),
            routes: rule.map(|rule| TopicRoutes { rules: vec![rule], default: "other".to_owned() }),
            ..TopicSubscription::default()
        };
        let rule = TopicRule { r#match: "event.type == 'special'".to_owned(), path: "special".to_owned() };
        let bulk = BulkSubscribeConfig { enabled: true, max_messages_count: 2, max_await_duration_ms: 50 };
        let bulk = TopicSubscription { bulk_subscribe: Some(bulk), ..subscription("bulk", None) };
        let subscriptions = vec![subscription("orders", None), subscription("routed", Some(rule)), bulk];
        Ok(Response::new(ListTopicSubscriptionsResponse { subscriptions }))
    }

    async fn on_topic_event(
        &self,
        request: Request<TopicEventRequest>,
    ) -> Result<Response<TopicEventResponse>, Status> {
        let verdict = match &request.get_ref().data[..] {
            b"drop" => Verdict::Drop,
            b"retry" => Verdict::Retry,
            b"fail" => return Err(Status::internal("no")),
            b"unknown" => return Err(Status::unimplemented("never heard of it")),
            b"early" => return Err(Status::not_found("no such order yet")),
            _ => Verdict::Success,
        };
        self.tell(request, Call::Topic);
        Ok(Response::new(TopicEventResponse { status: verdict.into() }))
    }

    async fn list_input_bindings(
        &self,
        _: Request<()>,
    ) -> Result<Response<ListInputBindingsResponse>, Status> {
        Ok(Response::new(ListInputBindingsResponse { bindings: vec!["queue".to_owned()] }))
    }

    async fn on_binding_event(
        &self,
        request: Request<BindingEventRequest>,
    ) -> Result<Response<BindingEventResponse>, Status> {
        self.tell(request, Call::Binding);
        let state =
            StateItem { key: "k".to_owned(), value: Bytes::from_static(b"1"), ..StateItem::default() };
        Ok(Response::new(BindingEventResponse {
            store_name: "memory".to_owned(),
            states: vec![state],
            ..BindingEventResponse::default()
        }))
    }

    async fn on_bulk_topic_event(
        &self,
        request: Request<TopicEventBulkRequest>,
    ) -> Result<Response<TopicEventBulkResponse>, Status> {
        if !self.stable {
            return Err(Status::unimplemented("only alpha"));
        }
        self.on_bulk_topic_event_alpha1(request).await
    }

    async fn on_job_event(
        &self,
        request: Request<JobEventRequest>,
    ) -> Result<Response<JobEventResponse>, Status> {
        if !self.stable {
            return Err(Status::unimplemented("only alpha"));
        }
        self.on_job_event_alpha1(request).await
    }
}

#[tonic::async_trait]
impl AppCallbackAlpha for GrpcApp {
    async fn on_bulk_topic_event_alpha1(
        &self,
        request: Request<TopicEventBulkRequest>,
    ) -> Result<Response<TopicEventBulkResponse>, Status> {
        let ids: Vec<_> = request.get_ref().entries.iter().map(|entry| entry.entry_id.clone()).collect();
        self.tell(request, Call::Bulk);
        let statuses = ids.into_iter().map(|entry_id| TopicEventBulkResponseEntry { entry_id, status: 0 });
        Ok(Response::new(TopicEventBulkResponse { statuses: statuses.collect() }))
    }

    async fn on_job_event_alpha1(
        &self,
        request: Request<JobEventRequest>,
    ) -> Result<Response<JobEventResponse>, Status> {
        let unknown = request.get_ref().name == "unknown";
        self.tell(request, Call::Job);
        if unknown {
            Err(Status::unimplemented("no such job"))
        } else {
            Ok(Response::new(JobEventResponse {}))
        }
    }
}

#[tonic::async_trait]
impl AppCallbackHealthCheck for GrpcApp {
    async fn health_check(&self, _: Request<()>) -> Result<Response<HealthCheckResponse>, Status> {
        if self.stable {
            Ok(Response::new(HealthCheckResponse {}))
        } else {
            Err(Status::unavailable("starting"))
        }
    }
}

impl Face for GrpcApp {
    async fn answer(self: Arc<Self>, request: http::Request<Body>) -> Reply {
        let reply: Result<_, Infallible> = match request.uri().path().rsplit_once('/').unwrap_or_default().0 {
            "/dapr.proto.runtime.v1.AppCallbackAlpha" => {
                AppCallbackAlphaServer::from_arc(self).call(request).await
            }
            "/dapr.proto.runtime.v1.AppCallbackHealthCheck" => {
                AppCallbackHealthCheckServer::from_arc(self).call(request).await
            }
            _ => AppCallbackServer::from_arc(self).call(request).await,
        };
        reply.unwrap().map(Body::stream)
    }
}

impl Face for Echo {
    async fn answer(self: Arc<Self>, request: http::Request<Body>) -> Reply {
        let (head, body) = request.into_parts();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("x-te", head.headers.get("te").cloned().unwrap_or(HeaderValue::from_static("none")));
        let frames = futures::stream::unfold((body, Some(trailers)), |(mut body, mut trailers)| async {
            use http_body_util::BodyExt as _;
            match body.frame().await {
                Some(frame) => Some((frame.map(|frame| frame.map_data(|data| data)), (body, trailers))),
                None => trailers.take().map(|trailers| (Ok(Frame::trailers(trailers)), (body, None))),
            }
        });
        let mut reply = http::Response::new(Body::stream(StreamBody::new(frames)));
        for name in ["content-type", "dapr-caller-app-id", "dapr-callee-app-id", "x-mine"] {
            if let Some(value) = head.headers.get(name) {
                reply.headers_mut().insert(name, value.clone());
            }
        }
        reply.headers_mut().entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"));
        let path = head.uri.path_and_query().map_or("", |path| path.as_str());
        reply.headers_mut().insert("x-path", path.parse().unwrap());
        reply.headers_mut().insert("x-method", head.method.as_str().parse().unwrap());
        for (to, from) in [("x-trace", "traceparent"), ("x-token", "dapr-api-token"), ("x-host", "host")] {
            if let Some(value) = head.headers.get(from) {
                reply.headers_mut().insert(to, value.clone());
            }
        }
        match head.uri.path() {
            "/teapot" => *reply.status_mut() = http::StatusCode::IM_A_TEAPOT,
            "/taken" => *reply.status_mut() = http::StatusCode::CONFLICT,
            "/hang" => std::future::pending().await,
            _ => {}
        }
        reply
    }
}

pub(crate) fn any(bytes: &[u8]) -> Any {
    Any { type_url: "type.googleapis.com/mine".to_owned(), value: bytes.to_vec() }
}
