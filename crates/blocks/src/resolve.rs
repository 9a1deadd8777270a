//! Name resolution: on which host an app is that is not on this one.

use crate::error::BlockError;
use crate::events::Running;
use async_trait::async_trait;

/// Knows where apps are.
#[async_trait]
pub trait NameResolver: Send + Sync + 'static {
    /// Tells others that these apps are at this `host:port`, until what is returned is stopped or the process
    /// ends.
    async fn register(&self, app_ids: &[String], address: &str) -> Result<Box<dyn Running>, BlockError>;

    /// The `host:port` of a host that has the app; `None` when nobody knows it. Where several have it, they
    /// take turns.
    async fn resolve(&self, app_id: &str) -> Result<Option<String>, BlockError>;
}
