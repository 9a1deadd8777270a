//! A secret store that is a component.

use super::generated::exports::dhow::provider::secrets::{self as wit, FeatureSet};
use super::pool::{Pool, exported};
use super::{Place, Provider};
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::Metadata;
use dhow_blocks::secrets::{Secret, SecretStore};
use std::collections::BTreeMap;

/// A secret store.
pub(super) struct Store {
    pool: Pool<wit::Guest>,
    has_multiple_values: bool,
}

exported!(wit, "dhow:provider/secrets@0.1.", |error| BlockError::from(error).to_string());

// === impl Store ===

impl Store {
    pub(super) async fn open(place: Place<'_>, provider: Provider) -> Result<Store, String> {
        let pool: Pool<wit::Guest> = place.pool(provider)?;
        let found = pool.call(|i| Box::pin(i.exports.call_features(&mut i.store))).await?;
        Ok(Store { pool, has_multiple_values: found.contains(FeatureSet::MULTIPLE_VALUES) })
    }
}

#[async_trait]
impl SecretStore for Store {
    fn has_multiple_values(&self) -> bool {
        self.has_multiple_values
    }

    async fn get(&self, name: &str, metadata: &Metadata) -> Result<Option<Secret>, BlockError> {
        let (name, metadata) = (name.to_owned(), pairs(metadata));
        let found = self
            .pool
            .call(|i| Box::pin(async move { i.exports.call_get(&mut i.store, &name, &metadata).await }));
        Ok(found.await??.map(secret))
    }

    async fn get_all(&self, metadata: &Metadata) -> Result<BTreeMap<String, Secret>, BlockError> {
        let metadata = pairs(metadata);
        let found = self
            .pool
            .call(|i| Box::pin(async move { i.exports.call_get_all(&mut i.store, &metadata).await }));
        Ok(found.await??.into_iter().map(|(name, found)| (name, secret(found))).collect())
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

fn pairs(metadata: &Metadata) -> Vec<(String, String)> {
    metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn secret(values: Vec<(String, String)>) -> Secret {
    Secret(values.into_iter().collect())
}
