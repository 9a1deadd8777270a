//! `wasi:keyvalue` over the state block, in two drafts.
//!
//! What both have in common is here; a draft is a thin file of bindings.
//!
//! | file | version |
//! |---|---|
//! | `draft` | 0.2.0-draft: wasmCloud, Wasmtime |
//! | `draft2` | 0.2.0-draft2: Spin |

mod draft;
mod draft2;

use crate::store::GuestState;
use bytes::Bytes;
use dhow_blocks::scope::{DEFAULT_STATE_STORE, Scope, ScopeError, State};
use dhow_blocks::state::{Delete, KeyPage, Set, StateError};
use futures::{TryStreamExt, stream};
use std::collections::HashMap;
use std::future::Future;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceTableError};

/// Keys of one `list-keys` answer.
const PAGE: usize = 1000;

/// An open store.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Bucket {
    state: State,
    /// Of the first draft only.
    cursors: draft::Cursors,
}

/// An error on its way to the guest.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub enum Error {
    /// `no-such-store`
    NoSuchStore,
    /// `access-denied`
    AccessDenied,
    /// `other`
    Other(String),
}

pub(crate) struct KeyValue<'a> {
    scope: &'a Scope,
    table: &'a mut ResourceTable,
}

struct HasKeyValue;

pub(crate) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    draft::add_to_linker(linker)?;
    draft2::add_to_linker(linker)
}

fn view(state: &mut GuestState) -> KeyValue<'_> {
    KeyValue { scope: &state.setup.scope, table: &mut state.table }
}

impl HasData for HasKeyValue {
    type Data<'a> = KeyValue<'a>;
}

// === impl KeyValue ===

impl KeyValue<'_> {
    fn open_bucket(&mut self, identifier: &str) -> Result<Resource<Bucket>, Error> {
        // Guests that know no name ask for "" or "default".
        let name = match identifier {
            "" | "default" if !self.scope.components.state.contains_key(identifier) => DEFAULT_STATE_STORE,
            name => name,
        };
        let state = self.scope.state(name)?;
        Ok(self.table.push(Bucket { state, cursors: draft::Cursors::default() })?)
    }

    fn bucket(&self, bucket: &Resource<Bucket>) -> Result<&Bucket, Error> {
        Ok(self.table.get(bucket)?)
    }
}

// === impl Bucket ===

impl Bucket {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.state.get(key).await?.map(|item| item.value.into()))
    }

    async fn set(&self, key: String, value: Vec<u8>) -> Result<(), Error> {
        Ok(self.state.set(Set { key, value: Bytes::from(value), ..Set::default() }).await?)
    }

    async fn delete(&self, key: String) -> Result<(), Error> {
        Ok(self.state.delete(Delete { key, etag: None }).await?)
    }

    async fn exists(&self, key: &str) -> Result<bool, Error> {
        Ok(self.state.get(key).await?.is_some())
    }

    async fn keys(&self, after: Option<&str>) -> Result<KeyPage, Error> {
        Ok(self.state.list_keys("", after, PAGE).await?)
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        Ok(self.state.increment(key, delta).await?)
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let items = self.state.get_many(keys).await.into_iter();
        items.map(|item| Ok(item?.map(|item| item.value.into()))).collect()
    }

    async fn set_many(&self, pairs: Vec<(String, Vec<u8>)>) -> Result<(), Error> {
        // Of one key, the last value counts.
        let last: HashMap<String, Vec<u8>> = pairs.into_iter().collect();
        at_once(last, |(key, value)| self.set(key, value)).await
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), Error> {
        at_once(keys, |key| self.delete(key)).await
    }
}

/// Writes of one batch that are under way at once: a store can make one commit of them.
const AT_ONCE: usize = 100;

/// Does something with each of these, until one fails.
async fn at_once<T, F>(all: impl IntoIterator<Item = T>, work: impl Fn(T) -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    stream::iter(all.into_iter().map(Ok)).try_for_each_concurrent(AT_ONCE, work).await
}

// === impl Error ===

impl From<ScopeError> for Error {
    fn from(error: ScopeError) -> Self {
        match error {
            ScopeError::Denied(_) => Error::AccessDenied,
            ScopeError::NotFound { .. } | ScopeError::NotConfigured { .. } => Error::NoSuchStore,
        }
    }
}

impl From<StateError> for Error {
    fn from(error: StateError) -> Self {
        Error::Other(error.to_string())
    }
}

impl From<ResourceTableError> for Error {
    fn from(error: ResourceTableError) -> Self {
        Error::Other(error.to_string())
    }
}
