//! What the runtime says about itself, and its end.

use super::Service;
use crate::dapr::error::ApiError;
use crate::dapr::metadata::{Description, rules};
use crate::dapr::{AppConnection, DAPR_VERSION};
use crate::proto::runtime::v1::{
    AppConnectionHealthProperties, AppConnectionProperties, GetMetadataResponse, MetadataResiliency,
    PubsubSubscription, PubsubSubscriptionRule, PubsubSubscriptionRules, PubsubSubscriptionType,
    RegisteredComponents, SetMetadataRequest,
};
use dhow_host::triggers::subscription::{Origin, Subscription};

pub(super) fn get(service: &Service) -> GetMetadataResponse {
    let Description { id, components, extended, subscriptions, resiliencies, connection } =
        service.api.metadata.describe(&service.scope, service.api.host().as_deref());
    let components = components.iter().map(|component| RegisteredComponents {
        name: component.name.clone(),
        r#type: component.component_type.clone(),
        version: component.version.clone(),
        capabilities: component.capabilities.iter().map(|name| (*name).to_owned()).collect(),
    });
    GetMetadataResponse {
        id,
        registered_components: components.collect(),
        extended_metadata: extended,
        subscriptions: subscriptions.iter().map(subscription).collect(),
        runtime_version: DAPR_VERSION.to_owned(),
        resiliencies: resiliencies.into_iter().map(|name| MetadataResiliency { name }).collect(),
        app_connection_properties: connection.map(app_connection),
        ..GetMetadataResponse::default()
    }
}

fn app_connection(connection: AppConnection) -> AppConnectionProperties {
    let health = connection.health.map(|health| AppConnectionHealthProperties {
        health_probe_interval: health.interval_text(),
        health_probe_timeout: health.timeout_text(),
        health_threshold: i32::try_from(health.threshold).unwrap_or(i32::MAX),
        health_check_path: health.path,
    });
    AppConnectionProperties {
        port: connection.port.into(),
        protocol: connection.protocol,
        channel_address: connection.channel_address,
        max_concurrency: i32::try_from(connection.max_concurrency).unwrap_or(i32::MAX),
        health,
    }
}

pub(super) fn set(service: &Service, request: SetMetadataRequest) -> Result<(), ApiError> {
    let SetMetadataRequest { key, value } = request;
    service.api.metadata.set(&service.scope, key, value.as_bytes()).map(|_| ())
}

fn subscription(subscription: &Subscription) -> PubsubSubscription {
    let rules = rules(subscription).map(|(condition, path)| PubsubSubscriptionRule {
        r#match: condition.to_owned(),
        path: path.to_owned(),
    });
    let kind = match subscription.origin {
        Origin::Declarative => PubsubSubscriptionType::Declarative,
        Origin::Programmatic => PubsubSubscriptionType::Programmatic,
        Origin::Streaming => PubsubSubscriptionType::Streaming,
    };
    PubsubSubscription {
        pubsub_name: subscription.pubsub.clone(),
        topic: subscription.topic.clone(),
        metadata: subscription.metadata.clone(),
        rules: Some(PubsubSubscriptionRules { rules: rules.collect() }),
        dead_letter_topic: subscription.dead_letter.clone().unwrap_or_default(),
        r#type: kind.into(),
    }
}
