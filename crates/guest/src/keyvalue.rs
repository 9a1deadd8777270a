//! `wasi:keyvalue@0.2.0-draft` over the state block.

use crate::store::GuestState;
use bytes::Bytes;
use dhow_blocks::scope::{DEFAULT_STATE_STORE, Scope, ScopeError, State};
use dhow_blocks::state::{Delete, Set, StateError};
use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceTableError};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/keyvalue",
        world: "wasi:keyvalue/imports",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": super::Bucket },
        trappable_error_type: { "wasi:keyvalue/store.error" => super::Error },
    });
}

use generated::wasi::keyvalue::{atomics, batch, store};

/// Keys of one `list-keys` answer.
const PAGE: usize = 1000;

/// An open store.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Bucket {
    state: State,
    /// A cursor is a number for the guest and a key for the store: the number is an index into this list.
    cursors: Vec<String>,
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
    fn view(state: &mut GuestState) -> KeyValue<'_> {
        KeyValue { scope: &state.setup.scope, table: &mut state.table }
    }
    store::add_to_linker::<_, HasKeyValue>(linker, view)?;
    atomics::add_to_linker::<_, HasKeyValue>(linker, view)?;
    batch::add_to_linker::<_, HasKeyValue>(linker, view)
}

impl HasData for HasKeyValue {
    type Data<'a> = KeyValue<'a>;
}

// === impl KeyValue ===

impl KeyValue<'_> {
    fn state(&self, bucket: &Resource<Bucket>) -> Result<&State, Error> {
        Ok(&self.table.get(bucket)?.state)
    }
}

impl store::Host for KeyValue<'_> {
    async fn open(&mut self, identifier: String) -> Result<Resource<Bucket>, Error> {
        // Guests that know no name ask for "" or "default".
        let name = match identifier.as_str() {
            "" | "default" if !self.scope.components.state.contains_key(&identifier) => DEFAULT_STATE_STORE,
            name => name,
        };
        let state = self.scope.state(name)?;
        Ok(self.table.push(Bucket { state, cursors: Vec::new() })?)
    }

    fn convert_error(&mut self, error: Error) -> wasmtime::Result<store::Error> {
        Ok(match error {
            Error::NoSuchStore => store::Error::NoSuchStore,
            Error::AccessDenied => store::Error::AccessDenied,
            Error::Other(text) => store::Error::Other(text),
        })
    }
}

impl store::HostBucket for KeyValue<'_> {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>, Error> {
        let item = self.state(&bucket)?.get(&key).await?;
        Ok(item.map(|item| item.value.into()))
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<(), Error> {
        Ok(self.state(&bucket)?.set(write(key, value)).await?)
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<(), Error> {
        Ok(self.state(&bucket)?.delete(Delete { key, etag: None }).await?)
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<bool, Error> {
        Ok(self.state(&bucket)?.get(&key).await?.is_some())
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> Result<store::KeyResponse, Error> {
        let bucket = self.table.get_mut(&bucket)?;
        let after =
            match cursor {
                None => None,
                Some(cursor) => {
                    let key = usize::try_from(cursor).ok().and_then(|index| bucket.cursors.get(index));
                    Some(key.ok_or_else(|| {
                        Error::Other(format!("cursor {cursor} did not come from this bucket"))
                    })?)
                }
            };
        let page = bucket.state.list_keys("", after.map(String::as_str), PAGE).await?;
        let cursor = match page.keys.last() {
            Some(last) if page.more => {
                bucket.cursors.push(last.clone());
                Some(bucket.cursors.len() as u64 - 1)
            }
            _ => None,
        };
        Ok(store::KeyResponse { keys: page.keys, cursor })
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for KeyValue<'_> {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Result<u64, Error> {
        // The interface counts without sign, the store with one.
        let too_large = || Error::Other("the sum leaves the range of a 63-bit integer".to_owned());
        let delta = i64::try_from(delta).map_err(|_| too_large())?;
        let sum = self.state(&bucket)?.increment(&key, delta).await?;
        u64::try_from(sum).map_err(|_| Error::Other(format!("the value of key {key:?} is negative: {sum}")))
    }
}

impl batch::Host for KeyValue<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>, Error> {
        let items = self.state(&bucket)?.get_many(&keys).await;
        let mut found = Vec::with_capacity(keys.len());
        for (key, item) in keys.into_iter().zip(items) {
            found.push(item?.map(|item| (key, item.value.into())));
        }
        Ok(found)
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> Result<(), Error> {
        let state = self.state(&bucket)?;
        for (key, value) in pairs {
            state.set(write(key, value)).await?;
        }
        Ok(())
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<(), Error> {
        let state = self.state(&bucket)?;
        for key in keys {
            state.delete(Delete { key, etag: None }).await?;
        }
        Ok(())
    }
}

fn write(key: String, value: Vec<u8>) -> Set {
    Set { key, value: Bytes::from(value), ..Set::default() }
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
