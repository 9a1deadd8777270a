//! Configuration: read, written, and changes on a stream.
//!
//! A value of Layotto's belongs to a group and has a label; the stores here know keys only. A value of the usual group
//! and label has its key in the store; another one has `<group>||<label>||<key>`. Tags are kept with the metadata,
//! as `tag.<name>`, in stores that keep any.

use super::Layotto;
use crate::dapr::configuration::read;
use crate::dapr::error::ApiError;
use crate::grpc::service::Messages;
use crate::proto::layotto::runtime::{
    self as layotto, DeleteConfigurationRequest, GetConfigurationRequest, GetConfigurationResponse,
    SaveConfigurationRequest, SubscribeConfigurationRequest, SubscribeConfigurationResponse,
};
use async_trait::async_trait;
use dhow_blocks::configuration::{ConfigurationItem, Items};
use dhow_blocks::events::{Handler, Metadata, Outcome, Running};
use dhow_blocks::scope::{Scope, ScopeError};
use futures::stream::{self, StreamExt as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// The group and the label of values that name none. `application` is the group's name in one of Layotto's stores.
const USUAL: [&str; 3] = ["", "default", "application"];

/// Between the parts of a key in the store.
const SEPARATOR: &str = "||";

/// What stands before the name of a tag in metadata.
const TAG: &str = "tag.";

/// Changes that wait for a slow client.
const WAITING: usize = 64;

/// A client that takes nothing for this long loses a change, and the provider is told so.
const SEND_DEADLINE: Duration = Duration::from_secs(30);

/// Most subscriptions of one stream.
const MAX_SUBSCRIPTIONS: usize = 100;

type Change = Result<SubscribeConfigurationResponse, Status>;

/// A group and a label, as they stand in keys; empty where they are the usual ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    group: String,
    label: String,
}

/// Puts changes of one subscription on its stream.
struct ToStream {
    store: String,
    app_id: String,
    place: Place,
    changes: mpsc::Sender<Change>,
}

pub(super) async fn get(
    scope: &Scope,
    request: GetConfigurationRequest,
) -> Result<GetConfigurationResponse, ApiError> {
    let GetConfigurationRequest { store_name: store, group, label, keys, metadata, .. } = request;
    known(scope, &store)?;
    let place = Place::new(&group, &label)?;
    let keys = place.keys(&keys)?;
    let found = read(scope, &store, &keys, &metadata).await?;
    Ok(GetConfigurationResponse { items: place.items(found) })
}

pub(super) async fn save(scope: &Scope, request: SaveConfigurationRequest) -> Result<(), ApiError> {
    let SaveConfigurationRequest { store_name: store, items, .. } = request;
    known(scope, &store)?;
    let items = items.into_iter().map(|item| {
        let layotto::ConfigurationItem { key, content, group, label, tags, mut metadata } = item;
        if key.is_empty() {
            return Err(ApiError::malformed("the key of an item is empty"));
        }
        metadata.extend(tags.into_iter().map(|(name, value)| (format!("{TAG}{name}"), value)));
        let key = Place::new(&group, &label)?.key(&key)?;
        Ok((key, ConfigurationItem { value: content, version: String::new(), metadata }))
    });
    let items = items.collect::<Result<Items, ApiError>>()?;
    if items.is_empty() {
        return Ok(());
    }
    let bound = scope.configuration(&store).map_err(|error| ApiError::scope(&error))?;
    let saved = bound.call("set", items, |items| bound.provider.set(items)).await;
    saved.map_err(|error| ApiError::block("ERR_CONFIGURATION_SET", &error))
}

pub(super) async fn delete(scope: &Scope, request: DeleteConfigurationRequest) -> Result<(), ApiError> {
    let DeleteConfigurationRequest { store_name: store, group, label, keys, .. } = request;
    known(scope, &store)?;
    let keys = Place::new(&group, &label)?.keys(&keys)?;
    let bound = scope.configuration(&store).map_err(|error| ApiError::scope(&error))?;
    let deleted = bound.call("delete", (), |()| bound.provider.delete(&keys)).await;
    deleted.map_err(|error| ApiError::block("ERR_CONFIGURATION_DELETE", &error))
}

/// Each message of the client adds a subscription. They end with the stream.
pub(super) fn subscribe(
    service: &Layotto,
    mut requests: Streaming<SubscribeConfigurationRequest>,
) -> Messages<SubscribeConfigurationResponse> {
    let (changes, received) = mpsc::channel(WAITING);
    let scope = Arc::clone(service.scope());
    tokio::spawn(async move {
        let mut running: Vec<Box<dyn Running>> = Vec::new();
        loop {
            let request = tokio::select! {
                request = requests.message() => request,
                () = changes.closed() => break,
            };
            let failure = match request {
                Ok(Some(_)) if running.len() >= MAX_SUBSCRIPTIONS => {
                    Status::resource_exhausted(format!("a stream may have {MAX_SUBSCRIPTIONS} subscriptions"))
                }
                Ok(Some(request)) => match begin(&scope, request, &changes).await {
                    Ok(began) => {
                        running.push(began);
                        continue;
                    }
                    Err(error) => crate::grpc::status::status(&error, &scope.app_id),
                },
                // The client has said all; it goes on listening.
                Ok(None) => {
                    changes.closed().await;
                    break;
                }
                Err(_) => break,
            };
            let _ = changes.send(Err(failure)).await;
            break;
        }
        futures::future::join_all(running.into_iter().map(|running| running.stop())).await;
    });
    stream::unfold(received, |mut received| async { received.recv().await.map(|change| (change, received)) })
        .boxed()
}

async fn begin(
    scope: &Scope,
    request: SubscribeConfigurationRequest,
    changes: &mpsc::Sender<Change>,
) -> Result<Box<dyn Running>, ApiError> {
    let SubscribeConfigurationRequest { store_name: store, app_id, group, label, keys, metadata } = request;
    known(scope, &store)?;
    let place = Place::new(&group, &label)?;
    let keys = place.keys(&keys)?;
    let bound = scope.configuration(&store).map_err(|error| ApiError::scope(&error))?;
    let handler = Arc::new(ToStream { store, app_id, place, changes: changes.clone() });
    let began = bound.provider.subscribe(&keys, &metadata, handler).await;
    began.map_err(|error| ApiError::block("ERR_CONFIGURATION_SUBSCRIBE", &error))
}

/// That a store is not there has no code of its own in Layotto.
fn known(scope: &Scope, store: &str) -> Result<(), ApiError> {
    use crate::dapr::error::Grpc;
    match scope.configuration(store) {
        Err(error @ (ScopeError::NotFound { .. } | ScopeError::NotConfigured { .. })) => {
            Err(ApiError { grpc: Grpc::Unknown, ..ApiError::scope(&error) })
        }
        Err(error) => Err(ApiError::scope(&error)),
        Ok(_) => Ok(()),
    }
}

// === impl Place ===

impl Place {
    fn new(group: &str, label: &str) -> Result<Place, ApiError> {
        let part = |name: &str, text: &str| match text.trim() {
            usual if USUAL.contains(&usual) => Ok(String::new()),
            text if text.contains(SEPARATOR) => {
                Err(ApiError::malformed(format!("the {name} {text:?} contains {SEPARATOR:?}")))
            }
            text => Ok(text.to_owned()),
        };
        Ok(Place { group: part("group", group)?, label: part("label", label)? })
    }

    /// What stands before keys in the store.
    fn prefix(&self) -> String {
        match self {
            Place { group, label } if group.is_empty() && label.is_empty() => String::new(),
            Place { group, label } => format!("{group}{SEPARATOR}{label}{SEPARATOR}"),
        }
    }

    fn key(&self, key: &str) -> Result<String, ApiError> {
        if key.contains(SEPARATOR) {
            return Err(ApiError::malformed(format!("the key {key:?} contains {SEPARATOR:?}")));
        }
        Ok(self.prefix() + key)
    }

    fn keys(&self, keys: &[String]) -> Result<Vec<String>, ApiError> {
        keys.iter().map(|key| self.key(key)).collect()
    }

    /// Those of the items that are here, in messages.
    fn items(&self, items: Items) -> Vec<layotto::ConfigurationItem> {
        let prefix = self.prefix();
        let name = |part: &str| if part.is_empty() { "default" } else { part }.to_owned();
        let mine = items.into_iter().filter_map(|(key, item)| {
            let key = key.strip_prefix(&prefix)?;
            if key.contains(SEPARATOR) {
                return None;
            }
            let ConfigurationItem { value, version, metadata } = item;
            let (mut tags, mut others) = (Metadata::new(), Metadata::new());
            for (name, value) in metadata {
                match name.strip_prefix(TAG) {
                    Some(tag) => tags.insert(tag.to_owned(), value),
                    None => others.insert(name, value),
                };
            }
            if !version.is_empty() {
                others.entry("version".to_owned()).or_insert(version);
            }
            Some(layotto::ConfigurationItem {
                key: key.to_owned(),
                content: value,
                group: name(&self.group),
                label: name(&self.label),
                tags,
                metadata: others,
            })
        });
        mine.collect()
    }
}

// === impl ToStream ===

#[async_trait]
impl Handler<Items> for ToStream {
    async fn handle(&self, changed: Items) -> Outcome {
        let items = self.place.items(changed);
        if items.is_empty() {
            return Outcome::Done;
        }
        let (store_name, app_id) = (self.store.clone(), self.app_id.clone());
        let change = SubscribeConfigurationResponse { store_name, app_id, items };
        match self.changes.send_timeout(Ok(change), SEND_DEADLINE).await {
            Ok(()) => Outcome::Done,
            Err(_) => Outcome::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_labels_stand_before_keys() {
        for (group, label, key, expected) in [
            ("", "", "a", Some("a")),
            (" ", "default", "a", Some("a")),
            ("application", "", "a", Some("a")),
            ("shop", "", "a", Some("shop||||a")),
            ("shop", "prod", "a", Some("shop||prod||a")),
            ("", "prod", "a", Some("||prod||a")),
            ("", "", "x||y||a", None),
            ("x||y", "", "a", None),
        ] {
            let found = Place::new(group, label).and_then(|place| place.key(key));
            assert_eq!(found.ok().as_deref(), expected, "{group:?} {label:?} {key:?}");
        }
    }

    #[test]
    fn items_of_other_groups_are_left_out() {
        let item = |value: &str| ConfigurationItem {
            value: value.to_owned(),
            version: "7".to_owned(),
            metadata: Metadata::from([("tag.team".to_owned(), "blue".to_owned())]),
        };
        let items = Items::from([("a".to_owned(), item("1")), ("shop||prod||b".to_owned(), item("2"))]);
        for (group, label, expected) in [("", "", ("a", "1")), ("shop", "prod", ("b", "2"))] {
            let found = Place::new(group, label).unwrap().items(items.clone());
            let [found] = &found[..] else { panic!("{found:?}") };
            assert_eq!((found.key.as_str(), found.content.as_str()), expected);
            assert_eq!((found.tags["team"].as_str(), found.metadata["version"].as_str()), ("blue", "7"));
        }
    }
}
