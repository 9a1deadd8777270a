//! An app outside that speaks gRPC: the invocation becomes a call of `AppCallback`.
//!
//! | trigger | request | call |
//! |---|---|---|
//! | any | content type `application/grpc` | none: forwarded as it is, frame by frame |
//! | host | `GET /dapr/subscribe` | `ListTopicSubscriptions` |
//! | host | `OPTIONS /<binding>` | `ListInputBindings` |
//! | host | another `GET` | `AppCallbackHealthCheck.HealthCheck` |
//! | topic | one event | `OnTopicEvent` |
//! | topic | a bulk | `OnBulkTopicEvent`, else `OnBulkTopicEventAlpha1` |
//! | binding | `POST /<binding>` | `OnBindingEvent` |
//! | job | `POST /job/<name>` | `OnJobEvent`, else `OnJobEventAlpha1` |
//! | app, socket | anything else | `OnInvoke` |
//!
//! An app that serves Layotto's `AppCallback` and not Dapr's is told topics by that; it is found out when it is asked
//! what it subscribes to.
//!
//! A call that the app does not implement is answered 404, as by an HTTP app that has no such route.

use super::transport::{Transport, Unreachable, Version};
use super::{AppStatus, Endpoint, TypeUrl, sign};
use crate::callback;
use crate::dapr::path::decode;
use crate::grpc::caller::trace_bin;
use crate::grpc::status::to_http;
use crate::layotto::topic_event as layotto_event;
use crate::proto::common::v1::http_extension::Verb;
use crate::proto::common::v1::{HttpExtension, InvokeRequest};
use crate::proto::layotto::runtime as layotto;
use crate::proto::layotto::runtime::app_callback_client::AppCallbackClient as LayottoAppCallbackClient;
use crate::proto::runtime::v1::app_callback_alpha_client::AppCallbackAlphaClient;
use crate::proto::runtime::v1::app_callback_client::AppCallbackClient;
use crate::proto::runtime::v1::app_callback_health_check_client::AppCallbackHealthCheckClient;
use crate::proto::runtime::v1::{BindingEventRequest, JobEventRequest, TopicSubscription};
use crate::reply;
use async_trait::async_trait;
use bytes::Bytes;
use dhow_blocks::cloud_event::is_cloud_event;
use dhow_blocks::events::Metadata;
use dhow_blocks::hops;
use dhow_blocks::invoke::{Body, Channel, CollectError, GrpcStatus, Invocation, InvokeError, Reply, Trigger};
use dhow_blocks::jobs::JobData;
use dhow_blocks::trace::TraceContext;
use dhow_host::metrics::calls::{GrpcCall, GrpcMeter};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::Body as _;
use parking_lot::RwLock;
use prost_types::Any;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

/// Largest message of an app, in bytes; a bulk of events answers in one.
const MAX_ANSWER: usize = 64 << 20;

/// The way to an app that speaks gRPC.
pub struct GrpcChannel {
    endpoint: Endpoint,
    transport: Transport,
    /// Largest message to the app, in bytes.
    max_message: usize,
    /// What the app itself calls the paths of its subscriptions, by component, topic and the path they have here.
    paths: RwLock<HashMap<(String, String, String), String>>,
    /// Whether the app serves Layotto's callbacks and not Dapr's.
    speaks_layotto: AtomicBool,
    /// Counts the calls; none where nobody asks for it.
    meter: Option<Arc<GrpcMeter>>,
}

/// Why an exchange gave no reply.
enum Failure {
    /// The app, or the way to it.
    Status(Status),
    /// The app, of an event that it has a handler for.
    Event(Status),
    /// What was to be said to the app.
    Request(StatusCode, String),
}

type Answer = Result<Reply, Failure>;

// === impl GrpcChannel ===

impl GrpcChannel {
    /// Nothing is connected yet. `max_message` is the largest message to the app, in bytes. The error says what is
    /// wrong with the endpoint.
    pub fn new(endpoint: Endpoint, max_message: usize) -> Result<GrpcChannel, String> {
        let transport = Transport::new(&endpoint, Version::Http2)?;
        Ok(GrpcChannel {
            endpoint,
            transport,
            max_message,
            paths: RwLock::default(),
            speaks_layotto: AtomicBool::new(false),
            meter: None,
        })
    }

    /// The same, with its calls counted.
    pub fn counted(self, meter: Option<Arc<GrpcMeter>>) -> GrpcChannel {
        GrpcChannel { meter, ..self }
    }

    /// Frame by frame, both ways, for as long as both ends want.
    async fn forward(&self, invocation: Invocation) -> Result<Reply, InvokeError> {
        let Invocation { mut request, trace, .. } = invocation;
        let headers = request.headers_mut();
        hops::strip(headers);
        headers.remove(HOST);
        headers.insert(TE, HeaderValue::from_static("trailers"));
        sign(headers, trace, self.endpoint.token.as_deref());
        sign_bin(headers, trace);
        self.transport.send(request).await.map_err(|error| error.of(&self.endpoint.app_id))
    }

    async fn call(&self, invocation: Invocation) -> Answer {
        let Invocation { request, trigger, trace, .. } = invocation;
        let (head, body) = request.into_parts();
        let body = body.collect(self.max_message).await.map_err(|error| match error {
            CollectError::TooLarge { .. } => {
                Failure::Request(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
            }
            CollectError::Broken(_) => Failure::Request(StatusCode::BAD_REQUEST, error.to_string()),
        })?;
        match (trigger, &head.method, head.uri.path()) {
            (Trigger::Host, &Method::GET, "/dapr/subscribe") => self.subscriptions(&head, trace).await,
            // Only apps that speak HTTP host actors by being asked.
            (Trigger::Host, &Method::GET, "/dapr/config") => Ok(crate::empty(StatusCode::NOT_FOUND)),
            (Trigger::Host, &Method::OPTIONS, _) => self.wants_binding(&head, trace).await,
            (Trigger::Host, _, _) => self.health(&head, trace).await,
            (Trigger::Topic, _, _) if is_bulk(&head.headers) => {
                self.bulk_topic_event(&head, trace, &body).await
            }
            (Trigger::Topic, _, _) => self.topic_event(&head, trace, &body).await,
            (Trigger::Binding, _, _) => self.binding_event(&head, trace, body).await,
            (Trigger::Job, _, _) => self.job_event(head, trace, body).await,
            _ => self.invoke_method(head, trace, body).await,
        }
    }

    async fn subscriptions(&self, head: &Parts, trace: TraceContext) -> Answer {
        let listed = self.client().list_topic_subscriptions(self.request(&head.headers, trace, ())).await;
        let subscriptions = match listed {
            Err(status) if status.code() == Code::Unimplemented => {
                self.layotto_subscriptions(head, trace).await?
            }
            listed => listed?.into_inner().subscriptions,
        };
        let mut paths = HashMap::new();
        for TopicSubscription { pubsub_name, topic, routes, .. } in &subscriptions {
            let routes = routes.clone().unwrap_or_default();
            for path in routes.rules.into_iter().map(|rule| rule.path).chain([routes.default]) {
                paths.insert((pubsub_name.clone(), topic.clone(), callback::absolute(&path)), path);
            }
        }
        *self.paths.write() = paths;
        Ok(json_reply(&callback::subscriptions(&subscriptions)))
    }

    /// What an app subscribes to that serves Layotto's callbacks.
    async fn layotto_subscriptions(
        &self,
        head: &Parts,
        trace: TraceContext,
    ) -> Result<Vec<TopicSubscription>, Failure> {
        let request = self.request(&head.headers, trace, ());
        let listed = self.layotto_client().list_topic_subscriptions(request).await?;
        self.speaks_layotto.store(true, Ordering::Relaxed);
        let subscriptions = listed.into_inner().subscriptions.into_iter();
        let subscriptions =
            subscriptions.map(|layotto::TopicSubscription { pubsub_name, topic, metadata }| {
                TopicSubscription { pubsub_name, topic, metadata, ..TopicSubscription::default() }
            });
        Ok(subscriptions.collect())
    }

    async fn wants_binding(&self, head: &Parts, trace: TraceContext) -> Answer {
        let bindings = self.client().list_input_bindings(self.request(&head.headers, trace, ())).await?;
        let name = decode(head.uri.path().trim_start_matches('/'));
        let wanted = bindings.into_inner().bindings.contains(&name);
        Ok(crate::empty(if wanted { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }))
    }

    async fn health(&self, head: &Parts, trace: TraceContext) -> Answer {
        let client =
            AppCallbackHealthCheckClient::with_origin(self.transport.clone(), self.transport.origin());
        { client }.health_check(self.request(&head.headers, trace, ())).await?;
        Ok(crate::empty(StatusCode::NO_CONTENT))
    }

    async fn topic_event(&self, head: &Parts, trace: TraceContext, body: &[u8]) -> Answer {
        let mut event = callback::topic_event(body, head.extensions.get()).map_err(unreadable)?;
        if self.speaks_layotto.load(Ordering::Relaxed) {
            let request = self.request(&head.headers, trace, layotto_event(event));
            let answer = self.layotto_client().on_topic_event(request).await?;
            return Ok(json_reply(&json!({ "status": callback::verdict(answer.into_inner().status) })));
        }
        event.path = self.path(&event.pubsub_name, &event.topic, head.uri.path());
        let answer = self.client().on_topic_event(self.request(&head.headers, trace, event)).await;
        let answer = answer.map_err(Failure::of_event)?;
        Ok(json_reply(&json!({ "status": callback::verdict(answer.into_inner().status) })))
    }

    async fn bulk_topic_event(&self, head: &Parts, trace: TraceContext, body: &[u8]) -> Answer {
        let mut bulk = callback::bulk_topic_event(body).map_err(unreadable)?;
        bulk.path = self.path(&bulk.pubsub_name, &bulk.topic, head.uri.path());
        let request = || self.request(&head.headers, trace, bulk.clone());
        let (mut client, mut alpha) = (self.client(), self.alpha_client());
        let answer =
            or_alpha(client.on_bulk_topic_event(request()), || alpha.on_bulk_topic_event_alpha1(request()));
        let answer = answer.await.map_err(Failure::of_event)?;
        Ok(json_reply(&callback::bulk_verdicts(&answer.into_inner())))
    }

    async fn binding_event(&self, head: &Parts, trace: TraceContext, data: Bytes) -> Answer {
        let name = decode(head.uri.path().trim_start_matches('/'));
        let metadata = head.headers.iter().filter(|(name, _)| is_metadata(name.as_str()));
        let metadata: Metadata = metadata
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect();
        let event = BindingEventRequest { name, data, metadata };
        let answer = self.client().on_binding_event(self.request(&head.headers, trace, event)).await?;
        Ok(json_reply(&callback::binding_answer(&answer.into_inner())))
    }

    async fn job_event(&self, mut head: Parts, trace: TraceContext, body: Bytes) -> Answer {
        let path = head.uri.path();
        let name = decode(path.rsplit('/').next().unwrap_or_default());
        // The message as it was scheduled, where the trigger kept it; else what became of it.
        let data = match head.extensions.remove::<JobData>() {
            Some(JobData { type_url, value }) => Some(Any { type_url, value: value.into() }),
            None if body.is_empty() => None,
            None => Some(match serde_json::from_slice::<Value>(&body) {
                Ok(json) => {
                    let JobData { type_url, value } = JobData::json(&json);
                    Any { type_url, value: value.into() }
                }
                Err(_) => Any { type_url: String::new(), value: body.into() },
            }),
        };
        let event = JobEventRequest {
            method: path.trim_start_matches('/').to_owned(),
            name,
            data,
            content_type: content_type(&head.headers),
            http_extension: Some(HttpExtension { verb: Verb::Post.into(), querystring: String::new() }),
        };
        let request = || self.request(&head.headers, trace, event.clone());
        let (mut client, mut alpha) = (self.client(), self.alpha_client());
        or_alpha(client.on_job_event(request()), || alpha.on_job_event_alpha1(request())).await?;
        Ok(crate::empty(StatusCode::OK))
    }

    async fn invoke_method(&self, mut head: Parts, trace: TraceContext, body: Bytes) -> Answer {
        let type_url = head.extensions.remove::<TypeUrl>().map(|TypeUrl(url)| url).unwrap_or_default();
        let message = InvokeRequest {
            method: head.uri.path().trim_start_matches('/').to_owned(),
            data: Some(Any { type_url, value: body.into() }),
            content_type: content_type(&head.headers),
            http_extension: Some(HttpExtension {
                verb: Verb::from_str_name(head.method.as_str()).unwrap_or_default().into(),
                querystring: head.uri.query().unwrap_or_default().to_owned(),
            }),
        };
        let answer = self.client().on_invoke(self.request(&head.headers, trace, message)).await;
        let (metadata, message, _) = match answer {
            Ok(answer) => answer.into_parts(),
            // Of a method, not of all methods: the app says so itself.
            Err(status) if status.code() == Code::Unimplemented => {
                return Ok(status_reply(to_http(status.code()), status));
            }
            Err(status) => return Err(status.into()),
        };
        let Any { type_url, value } = message.data.unwrap_or_default();
        let mut reply = Response::new(Body::from(value));
        let headers = reply.headers_mut();
        *headers = metadata.into_headers();
        headers.retain_metadata();
        if let Ok(content_type) = HeaderValue::try_from(message.content_type)
            && !content_type.is_empty()
        {
            headers.insert(CONTENT_TYPE, content_type);
        }
        reply.extensions_mut().insert(TypeUrl(type_url));
        Ok(reply)
    }

    fn client(&self) -> AppCallbackClient<Transport> {
        AppCallbackClient::with_origin(self.transport.clone(), self.transport.origin())
            .max_decoding_message_size(MAX_ANSWER)
    }

    fn layotto_client(&self) -> LayottoAppCallbackClient<Transport> {
        LayottoAppCallbackClient::with_origin(self.transport.clone(), self.transport.origin())
            .max_decoding_message_size(MAX_ANSWER)
    }

    fn alpha_client(&self) -> AppCallbackAlphaClient<Transport> {
        AppCallbackAlphaClient::with_origin(self.transport.clone(), self.transport.origin())
            .max_decoding_message_size(MAX_ANSWER)
    }

    /// A message with the headers of the invocation as its metadata.
    fn request<T>(&self, headers: &HeaderMap, trace: TraceContext, message: T) -> Request<T> {
        let mut metadata = headers.clone();
        metadata.retain_metadata();
        sign(&mut metadata, trace, self.endpoint.token.as_deref());
        sign_bin(&mut metadata, trace);
        let mut request = Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(metadata);
        request.set_timeout(self.endpoint.deadline);
        request
    }

    /// What the app itself calls a path.
    fn path(&self, pubsub: &str, topic: &str, path: &str) -> String {
        let key = (pubsub.to_owned(), topic.to_owned(), path.to_owned());
        self.paths.read().get(&key).cloned().unwrap_or(key.2)
    }

    fn answer(&self, failure: Failure) -> Result<Reply, InvokeError> {
        let app_id = &self.endpoint.app_id;
        match failure {
            // To whoever reads HTTP, "not found" is the answer of an app without a handler.
            Failure::Event(status) => Ok(status_reply(StatusCode::INTERNAL_SERVER_ERROR, status)),
            Failure::Request(code, message) => Ok(reply(code, "application/json", error_body(&message))),
            Failure::Status(status) => match std::error::Error::source(&status)
                .and_then(|source| source.downcast_ref::<Unreachable>())
            {
                Some(unreachable) => Err(unreachable.clone().of(app_id)),
                None if status.code() == Code::Unimplemented => Ok(crate::empty(StatusCode::NOT_FOUND)),
                None => Ok(status_reply(to_http(status.code()), status)),
            },
        }
    }
}

#[async_trait]
impl Channel for GrpcChannel {
    async fn invoke(&self, invocation: Invocation) -> Result<Reply, InvokeError> {
        let Some(meter) = self.meter.as_ref().filter(|_| invocation.trigger != Trigger::Host) else {
            return self.deliver(invocation).await;
        };
        let (began, method) = (Instant::now(), method(&invocation));
        let sent = invocation.request.body().size_hint().exact().unwrap_or(0);
        let answer = self.deliver(invocation).await;
        let (status, received) = match &answer {
            Ok(reply) => (status_of(reply), reply.body().size_hint().exact().unwrap_or(0)),
            Err(InvokeError::DeadlineExceeded { .. }) => (Code::DeadlineExceeded as i32, 0),
            Err(_) => (Code::Unavailable as i32, 0),
        };
        meter.record(GrpcCall { method: &method, status, sent, received, elapsed: began.elapsed() });
        answer
    }

    fn is_grpc(&self) -> bool {
        true
    }
}

/// The call that an invocation becomes.
fn method(invocation: &Invocation) -> Cow<'static, str> {
    if content_type(invocation.request.headers()).starts_with("application/grpc") {
        return Cow::Owned(invocation.request.uri().path().to_owned());
    }
    Cow::Borrowed(match invocation.trigger {
        Trigger::Topic if is_bulk(invocation.request.headers()) => {
            "/dapr.proto.runtime.v1.AppCallback/OnBulkTopicEvent"
        }
        Trigger::Topic => "/dapr.proto.runtime.v1.AppCallback/OnTopicEvent",
        Trigger::Binding => "/dapr.proto.runtime.v1.AppCallback/OnBindingEvent",
        Trigger::Job => "/dapr.proto.runtime.v1.AppCallback/OnJobEvent",
        _ => "/dapr.proto.runtime.v1.AppCallback/OnInvoke",
    })
}

/// The gRPC status of a reply, as far as it is known at its head.
fn status_of(reply: &Reply) -> i32 {
    let status = reply.extensions().get::<AppStatus>().map(|AppStatus(status)| status.code() as i32);
    let status = status.or_else(|| crate::watched::grpc_status(reply.headers()));
    status.unwrap_or(match reply.status().is_success() {
        true => Code::Ok as i32,
        false if reply.status() == StatusCode::NOT_FOUND => Code::Unimplemented as i32,
        false => Code::Unknown as i32,
    })
}

impl GrpcChannel {
    async fn deliver(&self, invocation: Invocation) -> Result<Reply, InvokeError> {
        if content_type(invocation.request.headers()).starts_with("application/grpc") {
            return self.forward(invocation).await;
        }
        let Endpoint { app_id, deadline, .. } = &self.endpoint;
        match tokio::time::timeout(*deadline, self.call(invocation)).await {
            Ok(answer) => answer.or_else(|failure| self.answer(failure)),
            Err(_) => {
                let (app_id, seconds) = (app_id.to_string(), deadline.as_secs_f64());
                Err(InvokeError::DeadlineExceeded { app_id, seconds })
            }
        }
    }
}

/// Adds the trace in the form that gRPC had first.
fn sign_bin(headers: &mut HeaderMap, trace: TraceContext) {
    if let Ok(trace) = HeaderValue::try_from(trace_bin(trace)) {
        headers.insert(HeaderName::from_static("grpc-trace-bin"), trace);
    }
}

/// The second call if the app does not implement the first.
async fn or_alpha<T, F>(
    stable: impl Future<Output = Result<T, Status>>,
    alpha: impl FnOnce() -> F,
) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    match stable.await {
        Err(status) if status.code() == Code::Unimplemented => alpha().await,
        answer => answer,
    }
}

/// Headers that may be metadata.
trait Metadatas {
    /// Takes off what is of the protocol, or of one connection.
    fn retain_metadata(&mut self);
}

impl Metadatas for HeaderMap {
    fn retain_metadata(&mut self) {
        hops::strip(self);
        let others: Vec<HeaderName> =
            self.keys().filter(|name| !is_metadata(name.as_str())).cloned().collect();
        for name in others {
            self.remove(name);
        }
    }
}

fn is_metadata(name: &str) -> bool {
    let of_protocol = [CONTENT_TYPE, CONTENT_LENGTH, HOST, TE, USER_AGENT].iter().any(|own| own == name);
    !of_protocol && !hops::is_hop(name) && !name.starts_with("grpc-")
}

fn is_bulk(headers: &HeaderMap) -> bool {
    !is_cloud_event(&content_type(headers))
}

fn content_type(headers: &HeaderMap) -> String {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn unreadable(reason: String) -> Failure {
    Failure::Request(StatusCode::BAD_REQUEST, reason)
}

fn json_reply(json: &Value) -> Reply {
    reply(StatusCode::OK, "application/json", json.to_string())
}

fn error_body(message: &str) -> String {
    json!({ "errorCode": "ERR_DIRECT_INVOKE", "message": message }).to_string()
}

/// A status in the form of HTTP, with itself beside it.
fn status_reply(http: StatusCode, status: Status) -> Reply {
    let mut reply = reply(http, "application/json", error_body(status.message()));
    reply.extensions_mut().insert(GrpcStatus(status.code() as u16));
    reply.extensions_mut().insert(AppStatus(status));
    reply
}

// === impl Failure ===

impl Failure {
    /// Of a call that hands over an event. Only an app without a handler says `UNIMPLEMENTED`.
    fn of_event(status: Status) -> Failure {
        match status.code() {
            Code::NotFound => Failure::Event(status),
            _ => Failure::Status(status),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure::Status(status)
    }
}
