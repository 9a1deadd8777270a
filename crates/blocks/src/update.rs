//! An app that replaces the module of an app, itself or another one, while it runs.

use async_trait::async_trait;
use bytes::Bytes;

/// Changes apps of a host.
#[async_trait]
pub trait LiveUpdate: Send + Sync {
    /// Makes a module the new version of an app; returns when it has taken over. What began on the old version ends
    /// there, also the caller. The error says why nothing changed.
    async fn update(&self, caller: &str, app_id: &str, module: Bytes) -> Result<(), String>;
}
