//! Where a registry keeps its entries: a folder or a bucket, behind one trait.
//!
//! Keys are words with `/` between them (see [`super::layout`]). An entry appears whole or not at all, and is durable
//! when the call that made it has returned: that is all that the registry builds on. What is here keeps them in a folder;
//! whoever opens a registry may pass something else ([`super::Registry::open_in`]).

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::time::SystemTime;

pub(super) mod folder;

/// A stream of an entry's bytes.
pub type Content = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Bytes that are read or written in one go.
pub(super) const CHUNK: usize = 1 << 20;

/// Keeps entries.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// A small entry, whole. One that is larger than `limit` bytes is an error.
    async fn read(&self, key: &str, limit: u64) -> Result<Option<Bytes>, StorageError>;

    /// The bytes of an entry from `offset` on, to its end.
    async fn open(&self, key: &str, offset: u64) -> Result<Option<Content>, StorageError>;

    /// Makes or replaces a small entry.
    async fn write(&self, key: &str, bytes: Bytes) -> Result<(), StorageError>;

    /// Makes or replaces an entry out of a file that is durable already. The file is gone afterwards.
    async fn adopt(&self, key: &str, file: &Path) -> Result<(), StorageError>;

    /// Removes an entry; whether it was there.
    async fn remove(&self, key: &str) -> Result<bool, StorageError>;

    /// What is known about an entry without reading it.
    async fn stat(&self, key: &str) -> Result<Option<Stat>, StorageError>;

    /// The names of entries and folders in a folder, sorted; none where there is no such folder.
    async fn list(&self, folder: &str) -> Result<Vec<Entry>, StorageError>;
}

/// What is known about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub size: u64,
    /// When it was written.
    pub modified: SystemTime,
}

/// Something in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name in the folder.
    pub name: String,
    /// Whether it is a folder.
    pub is_folder: bool,
}

/// The storage does not do what it should. Clients learn no more than that there is trouble; the log says which.
#[derive(Debug, thiserror::Error)]
#[error("the registry's storage: {key}: {source}")]
pub struct StorageError {
    /// Which entry.
    pub key: String,
    /// What the system says.
    pub source: io::Error,
}

// === impl StorageError ===

impl StorageError {
    /// What the system says about an entry.
    pub fn new(key: &str, source: io::Error) -> StorageError {
        StorageError { key: key.to_owned(), source }
    }
}
