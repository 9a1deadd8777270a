//! Name resolution: on which host an app is that is not on this one.

use crate::error::BlockError;
use async_trait::async_trait;
use std::fmt;

/// Where an app is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// `host:port`
    pub address: String,
    /// What callers have to show there; may be empty. Not shown by `Debug`.
    pub token: String,
}

/// Knows where apps are.
#[async_trait]
pub trait NameResolver: Send + Sync + 'static {
    /// Tells others that an app is here, until it is taken back or the process ends.
    async fn register(&self, app_id: &str, here: &Place) -> Result<(), BlockError>;

    /// Takes a registration back.
    async fn unregister(&self, app_id: &str) -> Result<(), BlockError>;

    /// Where an app is; `None` when nobody knows it. Where several hosts have it, they take turns.
    async fn resolve(&self, app_id: &str) -> Result<Option<Place>, BlockError>;

    /// Forgets what was found for an app: for who has called there in vain.
    fn forget(&self, app_id: &str);

    /// Takes back all registrations of this host.
    async fn close(&self);
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("address", &self.address).finish_non_exhaustive()
    }
}
