//! `secretstores.<name>`: secrets that another process keeps.

use super::proto::secret_store_client::SecretStoreClient;
use super::proto::{BulkGetSecretRequest, FeaturesRequest, GetSecretRequest, SecretStoreInitRequest};
use super::socket::{Channel, MAX_MESSAGE, Socket, error, origin};
use crate::metadata::ANY;
use crate::registry::{Open, Provider};
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::Metadata;
use dhow_blocks::secrets::{Secret, SecretStore};
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::Code;

/// The line in the registry.
pub(super) const PROVIDER: Provider = Provider {
    component_type: "secretstores.*",
    aliases: &[],
    versions: &["v1"],
    fields: ANY,
    open: Open::Secrets(|component, _| {
        Box::pin(async move {
            let socket = Socket::open(&component, |channel, metadata| {
                Box::pin(async move {
                    let request = SecretStoreInitRequest { metadata: Some(metadata) };
                    client(channel).init(request).await.map(drop)
                })
            });
            Ok(Arc::new(Secrets::new(socket.await?).await.map_err(|reason| component.backend(reason))?) as _)
        })
    }),
};

struct Secrets {
    socket: Socket,
    has_multiple_values: bool,
}

fn client(channel: Channel) -> SecretStoreClient<Channel> {
    SecretStoreClient::with_origin(channel, origin()).max_decoding_message_size(MAX_MESSAGE)
}

// === impl Secrets ===

impl Secrets {
    async fn new(socket: Socket) -> Result<Secrets, String> {
        let features = async |channel| client(channel).features(FeaturesRequest {}).await;
        let features = socket.call(features).await.map_err(|status| error(&status).to_string())?;
        let has_multiple_values =
            features.feature.iter().any(|feature| feature == "MULTIPLE_KEY_VALUES_PER_SECRET");
        Ok(Secrets { socket, has_multiple_values })
    }
}

#[async_trait]
impl SecretStore for Secrets {
    fn has_multiple_values(&self) -> bool {
        self.has_multiple_values
    }

    async fn get(&self, name: &str, metadata: &Metadata) -> Result<Option<Secret>, BlockError> {
        let request = GetSecretRequest { key: name.to_owned(), metadata: metadata.clone() };
        let asked = |channel| {
            let request = request.clone();
            async move { client(channel).get(request).await }
        };
        match self.socket.call(asked).await {
            Ok(found) if found.data.is_empty() => Ok(None),
            Ok(found) => Ok(Some(Secret(found.data))),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(error(&status)),
        }
    }

    async fn get_all(&self, metadata: &Metadata) -> Result<BTreeMap<String, Secret>, BlockError> {
        let request = BulkGetSecretRequest { metadata: metadata.clone() };
        let asked = |channel| {
            let request = request.clone();
            async move { client(channel).bulk_get(request).await }
        };
        let found = self.socket.call(asked).await.map_err(|status| error(&status))?;
        Ok(found.data.into_iter().map(|(name, secret)| (name, Secret(secret.secrets))).collect())
    }

    async fn close(&self) {
        self.socket.close().await;
    }
}
