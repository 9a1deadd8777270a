//! The configuration block: values that operators change while apps run.

use crate::error::BlockError;
use crate::events::{Handler, Metadata, Running};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One configuration value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigurationItem {
    /// The value; empty for a key that was deleted.
    pub value: String,
    /// Version, empty where the store keeps none.
    pub version: String,
    /// What goes with the value.
    pub metadata: Metadata,
}

/// Values by key.
pub type Items = BTreeMap<String, ConfigurationItem>;

/// A provider of configuration.
#[async_trait]
pub trait ConfigurationStore: Send + Sync + 'static {
    /// Reads these keys, or all if none is named. Keys that do not exist are left out.
    async fn get(&self, keys: &[String], metadata: &Metadata) -> Result<Items, BlockError>;

    /// Begins to report changes of these keys, or of all if none is named. What the values are at the start is
    /// not reported.
    async fn subscribe(
        &self,
        keys: &[String],
        metadata: &Metadata,
        handler: Arc<dyn Handler<Items>>,
    ) -> Result<Box<dyn Running>, BlockError>;

    /// Writes these values, where apps may write configuration to the store. A version is the store's to give.
    async fn set(&self, items: Items) -> Result<(), BlockError> {
        let _ = items;
        Err(BlockError::NotSupported { feature: "writing configuration" })
    }

    /// Deletes these keys, where apps may write. A key that does not exist is no error.
    async fn delete(&self, keys: &[String]) -> Result<(), BlockError> {
        let _ = keys;
        Err(BlockError::NotSupported { feature: "writing configuration" })
    }

    /// Stops reporting and lets go of files and connections.
    async fn close(&self) {}
}
