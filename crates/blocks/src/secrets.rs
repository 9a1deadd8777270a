//! The secrets block: named secrets, each one value or several.

use crate::error::BlockError;
use crate::events::Metadata;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::fmt;

/// One secret: its values by key. A secret of one value has its own name as the key. `Debug` shows keys only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub BTreeMap<String, String>);

/// A provider of secrets.
#[async_trait]
pub trait SecretStore: Send + Sync + 'static {
    /// Whether a secret can have several values (Dapr's `MULTIPLE_KEY_VALUES_PER_SECRET`).
    fn has_multiple_values(&self) -> bool {
        false
    }

    /// Reads one secret; `None` when there is none of that name.
    async fn get(&self, name: &str, metadata: &Metadata) -> Result<Option<Secret>, BlockError>;

    /// Reads all secrets.
    async fn get_all(&self, metadata: &Metadata) -> Result<BTreeMap<String, Secret>, BlockError>;

    /// Lets go of files and connections.
    async fn close(&self) {}
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secret").field(&self.0.keys().collect::<Vec<_>>()).finish()
    }
}
