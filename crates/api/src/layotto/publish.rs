//! Publishing, and topics on a stream.

use super::Layotto;
use crate::dapr::error::{ApiError, Grpc};
use crate::grpc;
use crate::grpc::caller::Caller;
use crate::grpc::service::{Answer, Messages};
use crate::proto::layotto::delay_queue::delay_queue_server::DelayQueue;
use crate::proto::layotto::delay_queue::{DelayMessageRequest, DelayMessageResponse};
use crate::proto::layotto::runtime::subscribe_topic_events_response::SubscribeTopicEventsResponseType as Down;
use crate::proto::layotto::runtime::{
    SubscribeTopicEventsResponse, SubscribeTopicEventsResponseInitial, TopicEventRequest,
};
use crate::proto::runtime::v1::subscribe_topic_events_response_alpha1::SubscribeTopicEventsResponseType as DaprDown;
use crate::proto::runtime::v1::{
    self as dapr, PublishEventRequest, SubscribeTopicEventsRequestAlpha1, SubscribeTopicEventsResponseAlpha1,
};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Metadata, value};
use dhow_blocks::scope::{Event, PublishError, Scope, ScopeError};
use futures::StreamExt as _;
use prost_types::value::Kind;
use std::time::Duration;
use tonic::{Request, Response, Streaming};

/// What an envelope says where the publisher says nothing.
const DEFAULTS: [(&str, &str); 2] =
    [("cloudevent.source", "runtime"), ("cloudevent.type", "com.runtime.event.sent")];

pub(super) async fn publish(
    scope: &Scope,
    caller: &Caller,
    request: PublishEventRequest,
) -> Result<(), ApiError> {
    check(scope, &request.pubsub_name)?;
    let request = PublishEventRequest { metadata: with_defaults(request.metadata), ..request };
    grpc::publish::publish(scope, caller, request).await
}

/// To Layotto a component that is not there is a wrong name, also where there is none at all.
pub(super) fn check(scope: &Scope, pubsub: &str) -> Result<(), ApiError> {
    match scope.pubsub(pubsub) {
        Err(error @ ScopeError::NotConfigured { .. }) => {
            Err(ApiError { grpc: Grpc::InvalidArgument, ..ApiError::scope(&error) })
        }
        _ => Ok(()),
    }
}

pub(super) fn with_defaults(mut metadata: Metadata) -> Metadata {
    for (name, default) in DEFAULTS {
        if value(&metadata, name).is_none() {
            metadata.insert(name.to_owned(), default.to_owned());
        }
    }
    metadata
}

#[tonic::async_trait]
impl DelayQueue for Layotto {
    async fn publish_delay_message(
        &self,
        request: Request<DelayMessageRequest>,
    ) -> Answer<DelayMessageResponse> {
        let request = request.into_inner();
        let published = publish_later(self, request).await;
        self.answer(published.map(|message_id| DelayMessageResponse { message_id }))
    }
}

async fn publish_later(service: &Layotto, request: DelayMessageRequest) -> Result<String, ApiError> {
    let DelayMessageRequest { component_name, topic, data, data_content_type, delay_in_seconds, metadata } =
        request;
    let scope = service.scope();
    check(scope, &component_name)?;
    if component_name.is_empty() || topic.is_empty() {
        return Err(ApiError::publish_name(&component_name));
    }
    let delay = u64::try_from(delay_in_seconds)
        .map_err(|_| ApiError::malformed(format!("delay_in_seconds {delay_in_seconds} is negative")))?;
    let content_type = Some(data_content_type).filter(|content_type| !content_type.is_empty());
    let event = Event { data, content_type, metadata: with_defaults(metadata) };
    let id = scope.publish_later(&component_name, &topic, event, Duration::from_secs(delay)).await;
    let id = id.map_err(|error| match &error {
        PublishError::Provider { error: BlockError::Invalid { reason } } => ApiError::malformed(reason),
        error => ApiError::publish(&component_name, &topic, error),
    })?;
    // From now on at the latest somebody has to look when it is due.
    if let Some(host) = service.inner.api.host() {
        host.triggers().publish_delayed(&host, &scope.app_id).await;
    }
    Ok(id)
}

/// The same stream as Dapr's, with events in Layotto's message.
pub(super) async fn subscribe(
    service: &Layotto,
    requests: Streaming<SubscribeTopicEventsRequestAlpha1>,
) -> Answer<Messages<SubscribeTopicEventsResponse>> {
    let messages = grpc::subscribe::subscribe(&service.inner, requests).await?;
    let messages = messages.map(|message| {
        let SubscribeTopicEventsResponseAlpha1 { subscribe_topic_events_response_type: kind } = message?;
        let kind = kind.map(|kind| match kind {
            DaprDown::InitialResponse(_) => Down::InitialResponse(SubscribeTopicEventsResponseInitial {}),
            DaprDown::EventMessage(event) => Down::EventMessage(topic_event(event)),
        });
        Ok(SubscribeTopicEventsResponse { subscribe_topic_events_response_type: kind })
    });
    Ok(Response::new(messages.boxed()))
}

/// An event in Layotto's message, which has text in place of structured extensions and no path.
pub(crate) fn topic_event(event: dapr::TopicEventRequest) -> TopicEventRequest {
    let dapr::TopicEventRequest {
        id,
        source,
        r#type,
        spec_version,
        data_content_type,
        data,
        topic,
        pubsub_name,
        extensions,
        ..
    } = event;
    let extensions = extensions.unwrap_or_default().fields.into_iter();
    let metadata = extensions.filter_map(|(name, value)| match value.kind? {
        Kind::StringValue(text) => Some((name, text)),
        Kind::NumberValue(number) => Some((name, number.to_string())),
        Kind::BoolValue(value) => Some((name, value.to_string())),
        Kind::NullValue(_) | Kind::StructValue(_) | Kind::ListValue(_) => None,
    });
    let metadata = metadata.collect();
    TopicEventRequest {
        id,
        source,
        r#type,
        spec_version,
        data_content_type,
        data,
        topic,
        pubsub_name,
        metadata,
    }
}
