//! `state.<name>`: state that another process keeps.
//!
//! The protocol has no listing of keys and no counters: keys cannot be listed, and [`StateStore::increment`] is a read and
//! a write with its etag, repeated while another writer comes between.

use super::proto::state_options::{StateConcurrency, StateConsistency};
use super::proto::state_store_client::StateStoreClient;
use super::proto::transactional_state_operation::Request;
use super::proto::transactional_state_store_client::TransactionalStateStoreClient;
use super::proto::{
    BulkGetRequest, BulkStateItem, DeleteRequest, Etag, FeaturesRequest, GetRequest, GetResponse,
    InitRequest, PingRequest, SetRequest, StateOptions, TransactionalStateOperation,
    TransactionalStateRequest,
};
use super::socket::{Channel, MAX_MESSAGE, Socket, origin, told};
use crate::backoff::Backoff;
use crate::metadata::ANY;
use crate::registry::{Open, Provider};
use async_trait::async_trait;
use bytes::Bytes;
use dhow_blocks::events::{self, Metadata};
use dhow_blocks::state::{
    Capability, Concurrency, Delete, Item, KeyPage, Operation, Set, StateError, StateStore, Ttl,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tonic::{Code, Status};

/// The line in the registry.
pub(super) const PROVIDER: Provider = Provider {
    component_type: "state.*",
    aliases: &[],
    versions: &["v1"],
    fields: ANY,
    open: Open::State(|component, _| {
        Box::pin(async move {
            let socket = Socket::open(&component, |channel, metadata| {
                Box::pin(async move {
                    client(channel).init(InitRequest { metadata: Some(metadata) }).await.map(drop)
                })
            });
            Ok(Arc::new(Store::new(socket.await?).await.map_err(|reason| component.backend(reason))?) as _)
        })
    }),
};

/// What the protocol can carry, of what a store says that it can do.
const CAPABILITIES: [Capability; 4] =
    [Capability::Etag, Capability::Transactional, Capability::Ttl, Capability::Actor];

/// Attempts of an increment between which another writer came.
const ATTEMPTS: usize = 20;

/// Between two of them, at most.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

struct Store {
    socket: Socket,
    capabilities: Vec<Capability>,
}

fn client(channel: Channel) -> StateStoreClient<Channel> {
    StateStoreClient::with_origin(channel, origin()).max_decoding_message_size(MAX_MESSAGE)
}

// === impl Store ===

impl Store {
    async fn new(socket: Socket) -> Result<Store, String> {
        let features = async |channel| client(channel).features(FeaturesRequest {}).await;
        let named = socket.call(features).await.map_err(|status| told(&status))?.feature;
        let can = |capability: &Capability| named.iter().any(|name| name == capability.name());
        let capabilities = CAPABILITIES.into_iter().filter(can).collect();
        Ok(Store { socket, capabilities })
    }
}

#[async_trait]
impl StateStore for Store {
    fn capabilities(&self) -> &[Capability] {
        &self.capabilities
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, StateError> {
        let request = read(key);
        let asked = |channel| {
            let request = request.clone();
            async move { client(channel).get(request).await }
        };
        let GetResponse { data, etag, metadata, .. } =
            self.socket.call(asked).await.map_err(|status| error(&status, key, None))?;
        Ok(item(data, etag, &metadata))
    }

    async fn get_many(&self, keys: &[String]) -> Vec<Result<Option<Item>, StateError>> {
        let items = keys.iter().map(|key| read(key)).collect();
        let request = BulkGetRequest { items, options: None };
        let asked = |channel| {
            let request = request.clone();
            async move { client(channel).bulk_get(request).await }
        };
        match self.socket.call(asked).await {
            Ok(answer) => {
                let found = answer.items.into_iter().map(|item| (item.key.clone(), item));
                let found: HashMap<String, BulkStateItem> = found.collect();
                keys.iter().map(|key| bulk_item(found.get(key))).collect()
            }
            // Optional in the protocol.
            Err(status) if status.code() == Code::Unimplemented => {
                let mut items = Vec::with_capacity(keys.len());
                for key in keys {
                    items.push(self.get(key).await);
                }
                items
            }
            Err(status) => keys.iter().map(|key| Err(error(&status, key, None))).collect(),
        }
    }

    async fn set(&self, set: Set) -> Result<(), StateError> {
        let (key, etag) = (set.key.clone(), set.etag.clone());
        let request = write(set);
        let asked = |channel| {
            let request = request.clone();
            async move { client(channel).set(request).await }
        };
        let written = self.socket.call(asked).await;
        written.map(drop).map_err(|status| error(&status, &key, etag.as_deref()))
    }

    async fn delete(&self, delete: Delete) -> Result<(), StateError> {
        let (key, etag) = (delete.key.clone(), delete.etag.clone());
        let request = removal(delete);
        let asked = |channel| {
            let request = request.clone();
            async move { client(channel).delete(request).await }
        };
        let deleted = self.socket.call(asked).await;
        deleted.map(drop).map_err(|status| error(&status, &key, etag.as_deref()))
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), StateError> {
        if !self.capabilities.contains(&Capability::Transactional) {
            return Err(StateError::NotSupported { feature: "transactions" });
        }
        let key = operations.first().map(|operation| operation.key().to_owned());
        let Some(key) = key else { return Ok(()) };
        let operations = operations.into_iter().map(|operation| TransactionalStateOperation {
            request: Some(match operation {
                Operation::Set(set) => Request::Set(write(set)),
                Operation::Delete(delete) => Request::Delete(removal(delete)),
            }),
        });
        let request =
            TransactionalStateRequest { operations: operations.collect(), metadata: Metadata::default() };
        let asked = |channel| {
            let request = request.clone();
            async move {
                let client = TransactionalStateStoreClient::with_origin(channel, origin());
                client.max_decoding_message_size(MAX_MESSAGE).transact(request).await
            }
        };
        self.socket.call(asked).await.map(drop).map_err(|status| error(&status, &key, None))
    }

    async fn list_keys(&self, _: &str, _: Option<&str>, _: usize) -> Result<KeyPage, StateError> {
        Err(StateError::NotSupported {
            feature: "listing keys (the protocol of pluggable components has none)",
        })
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        if !self.capabilities.contains(&Capability::Etag) {
            return Err(StateError::NotSupported { feature: "counters, for it keeps no etags" });
        }
        let mut backoff = Backoff::between(Duration::from_millis(1), LONGEST_WAIT);
        for _ in 0..ATTEMPTS {
            let found = self.get(key).await?;
            let number = match &found {
                None => 0,
                Some(item) => std::str::from_utf8(&item.value)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| StateError::NotANumber { key: key.to_owned() })?,
            };
            let sum: i64 = i64::checked_add(number, delta)
                .ok_or_else(|| StateError::Overflow { key: key.to_owned() })?;
            let expires_in = found.as_ref().and_then(|item| item.expires_at);
            let expires_in = expires_in.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
            let set = Set {
                key: key.to_owned(),
                value: Bytes::from(sum.to_string()),
                json: true,
                concurrency: Concurrency::FirstWrite,
                etag: found.map(|item| item.etag),
                ttl: expires_in.map_or(Ttl::Forever, Ttl::After),
            };
            match self.set(set).await {
                Err(StateError::EtagMismatch { .. }) => tokio::time::sleep(backoff.wait()).await,
                written => return written.map(|()| sum),
            }
        }
        Err(StateError::Unavailable {
            reason: format!("key {key:?} was changed by others {ATTEMPTS} times in a row"),
        })
    }

    async fn ping(&self) -> Result<(), StateError> {
        match self.socket.call(async |channel| client(channel).ping(PingRequest {}).await).await {
            Err(status) if status.code() != Code::Unimplemented => Err(error(&status, "", None)),
            _ => Ok(()),
        }
    }

    async fn close(&self) {
        self.socket.close().await;
    }
}

fn read(key: &str) -> GetRequest {
    let consistency = StateConsistency::ConsistencyStrong.into();
    GetRequest { key: key.to_owned(), metadata: Metadata::default(), consistency }
}

fn write(set: Set) -> SetRequest {
    let Set { key, value, json, etag, concurrency, ttl } = set;
    let mut metadata = Metadata::default();
    if let Ttl::After(ttl) = ttl {
        // Whole seconds, and never nothing, which would be for ever.
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        metadata.insert("ttlInSeconds".to_owned(), seconds.max(1).to_string());
    }
    let content_type = if json { "application/json" } else { "application/octet-stream" }.to_owned();
    let options = Some(options(etag.is_some() || concurrency == Concurrency::FirstWrite));
    SetRequest { key, value, etag: etag.map(|value| Etag { value }), metadata, options, content_type }
}

fn removal(delete: Delete) -> DeleteRequest {
    let Delete { key, etag } = delete;
    let options = Some(options(etag.is_some()));
    DeleteRequest { key, etag: etag.map(|value| Etag { value }), metadata: Metadata::default(), options }
}

fn options(is_first_write: bool) -> StateOptions {
    let concurrency = match is_first_write {
        true => StateConcurrency::ConcurrencyFirstWrite,
        false => StateConcurrency::ConcurrencyLastWrite,
    };
    StateOptions { concurrency: concurrency.into(), consistency: StateConsistency::ConsistencyStrong.into() }
}

/// Nothing and no etag is no value: the protocol has no other word for an absent key.
fn item(value: Bytes, etag: Option<Etag>, metadata: &Metadata) -> Option<Item> {
    let etag = etag.map(|etag| etag.value).unwrap_or_default();
    if value.is_empty() && etag.is_empty() {
        return None;
    }
    let expires_at = events::value(metadata, "ttlExpireTime");
    let expires_at = expires_at.and_then(|time| time.parse::<jiff::Timestamp>().ok()).map(SystemTime::from);
    Some(Item { value, etag, expires_at })
}

fn bulk_item(found: Option<&BulkStateItem>) -> Result<Option<Item>, StateError> {
    match found {
        None => Ok(None),
        Some(found) if !found.error.is_empty() => Err(StateError::Failed { reason: found.error.clone() }),
        Some(found) => Ok(item(found.data.clone(), found.etag.clone(), &found.metadata)),
    }
}

/// What a status of a component means (Dapr's codes: `FailedPrecondition` for an etag that is another one,
/// `InvalidArgument` for one that cannot be any).
fn error(status: &Status, key: &str, etag: Option<&str>) -> StateError {
    let reason = told(status);
    match (status.code(), etag) {
        (Code::FailedPrecondition, _) => StateError::EtagMismatch { key: key.to_owned() },
        (Code::InvalidArgument, Some(etag)) => StateError::EtagInvalid { etag: etag.to_owned() },
        (Code::Unimplemented, _) => StateError::NotSupported { feature: "this operation" },
        (Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted, _) => {
            StateError::Unavailable { reason }
        }
        _ => StateError::Failed { reason },
    }
}
