//! Configuration: read, and changes on a stream.
//!
//! The first message of a stream holds only the subscription's id; each later one the values that changed. A
//! stream ends when its client goes, or when its id is unsubscribed, over whichever face.

use super::Service;
use crate::dapr::Dapr;
use crate::dapr::configuration::read;
use crate::dapr::error::ApiError;
use crate::proto::common::v1;
use crate::proto::runtime::v1::{
    GetConfigurationRequest, GetConfigurationResponse, SubscribeConfigurationRequest,
    SubscribeConfigurationResponse, UnsubscribeConfigurationRequest, UnsubscribeConfigurationResponse,
};
use async_trait::async_trait;
use dhow_blocks::configuration::{ConfigurationItem, Items};
use dhow_blocks::events::{Handler, Outcome};
use dhow_blocks::scope::Scope;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Status;

/// Changes that wait for a slow client.
const WAITING: usize = 64;

/// A client that takes nothing for this long loses a change, and the provider is told so.
const SEND_DEADLINE: Duration = Duration::from_secs(30);

/// Puts changes on a stream.
struct ToStream {
    id: String,
    changes: mpsc::Sender<SubscribeConfigurationResponse>,
}

/// Ends the subscription when the stream is over.
struct EndWithStream {
    api: Arc<Dapr>,
    scope: Arc<Scope>,
    id: String,
}

pub(super) async fn get(
    scope: &Scope,
    request: GetConfigurationRequest,
) -> Result<GetConfigurationResponse, ApiError> {
    let GetConfigurationRequest { store_name, keys, metadata } = request;
    let found = read(scope, &store_name, &keys, &metadata).await?;
    Ok(GetConfigurationResponse { items: items(found) })
}

pub(super) async fn subscribe(
    service: &Service,
    request: SubscribeConfigurationRequest,
) -> Result<BoxStream<'static, Result<SubscribeConfigurationResponse, Status>>, ApiError> {
    let SubscribeConfigurationRequest { store_name, keys, metadata } = request;
    let (changes, received) = mpsc::channel(WAITING);
    let handler = |id: String| Arc::new(ToStream { id, changes }) as Arc<dyn Handler<Items>>;
    let (scope, subscriptions) = (&service.scope, &service.api.configuration);
    let id = subscriptions.begin(scope, &store_name, &keys, &metadata, handler).await?;
    let first = SubscribeConfigurationResponse { id: id.clone(), items: BTreeMap::new() };
    let end = EndWithStream { api: Arc::clone(&service.api), scope: Arc::clone(scope), id };
    // The sender goes with the subscription, and with it the stream.
    let changes = stream::unfold((received, end), |(mut received, end)| async {
        received.recv().await.map(|change| (Ok(change), (received, end)))
    });
    Ok(stream::iter([Ok(first)]).chain(changes).boxed())
}

pub(super) async fn unsubscribe(
    service: &Service,
    request: UnsubscribeConfigurationRequest,
) -> Result<UnsubscribeConfigurationResponse, ApiError> {
    let UnsubscribeConfigurationRequest { store_name, id } = request;
    service.scope.configuration(&store_name).map_err(|error| ApiError::scope(&error))?;
    let ok = service.api.configuration.end(&service.scope, &id).await;
    let message = if ok { String::new() } else { format!("subscription with id {id} does not exist") };
    Ok(UnsubscribeConfigurationResponse { ok, message })
}

fn items(items: Items) -> BTreeMap<String, v1::ConfigurationItem> {
    let item =
        |ConfigurationItem { value, version, metadata }| v1::ConfigurationItem { value, version, metadata };
    items.into_iter().map(|(key, found)| (key, item(found))).collect()
}

#[async_trait]
impl Handler<Items> for ToStream {
    async fn handle(&self, changed: Items) -> Outcome {
        let change = SubscribeConfigurationResponse { id: self.id.clone(), items: items(changed) };
        match self.changes.send_timeout(change, SEND_DEADLINE).await {
            Ok(()) => Outcome::Done,
            Err(_) => Outcome::Again,
        }
    }
}

impl Drop for EndWithStream {
    fn drop(&mut self) {
        let (api, scope, id) = (Arc::clone(&self.api), Arc::clone(&self.scope), std::mem::take(&mut self.id));
        tokio::spawn(async move { api.configuration.end(&scope, &id).await });
    }
}
