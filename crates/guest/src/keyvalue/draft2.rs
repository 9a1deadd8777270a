//! `wasi:keyvalue@0.2.0-draft2`: cursors are keys, and there is compare-and-swap.

use super::{Bucket, Error, HasKeyValue, KeyValue, view};
use crate::store::GuestState;
use bytes::Bytes;
use dhow_blocks::scope::State;
use dhow_blocks::state::{Concurrency, Set, StateError};
use wasmtime::component::{Linker, Resource};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/keyvalue-draft2",
        world: "wasi:keyvalue/imports",
        imports: { default: async | trappable },
        with: {
            "wasi:keyvalue/store.bucket": super::super::Bucket,
            "wasi:keyvalue/atomics.cas": super::Cas,
        },
        trappable_error_type: { "wasi:keyvalue/store.error" => super::super::Error },
    });
}

use generated::wasi::keyvalue::{atomics, batch, store};

/// A key in the version that was read last. The value itself is not kept: handles are many, and values large.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Cas {
    state: State,
    key: String,
    /// None: the key was absent.
    etag: Option<String>,
}

pub(super) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    store::add_to_linker::<_, HasKeyValue>(linker, view)?;
    atomics::add_to_linker::<_, HasKeyValue>(linker, view)?;
    batch::add_to_linker::<_, HasKeyValue>(linker, view)
}

// === impl Cas ===

impl Cas {
    /// Reads the value, and takes its version.
    async fn read(&mut self) -> Result<Option<Bytes>, StateError> {
        let item = self.state.get(&self.key).await?;
        let (etag, value) = item.map(|item| (item.etag, item.value)).unzip();
        self.etag = etag;
        Ok(value)
    }

    async fn swap(&self, value: Vec<u8>) -> Result<(), StateError> {
        let (key, etag) = (self.key.clone(), self.etag.clone());
        let set =
            Set { key, value: value.into(), etag, concurrency: Concurrency::FirstWrite, ..Set::default() };
        self.state.set(set).await
    }
}

// === impl KeyValue ===

impl store::Host for KeyValue<'_> {
    async fn open(&mut self, identifier: String) -> Result<Resource<Bucket>, Error> {
        self.open_bucket(&identifier)
    }

    fn convert_error(&mut self, error: Error) -> wasmtime::Result<store::Error> {
        Ok(error.into())
    }
}

impl store::HostBucket for KeyValue<'_> {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>, Error> {
        self.bucket(&bucket)?.get(&key).await
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<(), Error> {
        self.bucket(&bucket)?.set(key, value).await
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<(), Error> {
        self.bucket(&bucket)?.delete(key).await
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<bool, Error> {
        self.bucket(&bucket)?.exists(&key).await
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<String>,
    ) -> Result<store::KeyResponse, Error> {
        let page = self.bucket(&bucket)?.keys(cursor.as_deref()).await?;
        let cursor = page.keys.last().filter(|_| page.more).cloned();
        Ok(store::KeyResponse { keys: page.keys, cursor })
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for KeyValue<'_> {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: i64) -> Result<i64, Error> {
        self.bucket(&bucket)?.increment(&key, delta).await
    }

    async fn swap(
        &mut self,
        cas: Resource<Cas>,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), atomics::CasError>> {
        let mut cas = self.table.delete(cas)?;
        let failed = |error: StateError| Ok(Err(atomics::CasError::StoreError(Error::from(error).into())));
        match cas.swap(value).await {
            Ok(()) => Ok(Ok(())),
            Err(StateError::EtagMismatch { .. }) => match cas.read().await {
                Ok(_) => Ok(Err(atomics::CasError::CasFailed(self.table.push(cas)?))),
                Err(error) => failed(error),
            },
            Err(error) => failed(error),
        }
    }
}

impl atomics::HostCas for KeyValue<'_> {
    async fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Resource<Cas>, Error> {
        let state = self.bucket(&bucket)?.state.clone();
        let mut cas = Cas { state, key, etag: None };
        cas.read().await?;
        Ok(self.table.push(cas)?)
    }

    async fn current(&mut self, cas: Resource<Cas>) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.table.get_mut(&cas)?.read().await?.map(Vec::from))
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl batch::Host for KeyValue<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<(String, Option<Vec<u8>>)>, Error> {
        let values = self.bucket(&bucket)?.get_many(&keys).await?;
        Ok(keys.into_iter().zip(values).collect())
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> Result<(), Error> {
        self.bucket(&bucket)?.set_many(pairs).await
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<(), Error> {
        self.bucket(&bucket)?.delete_many(keys).await
    }
}

impl From<Error> for store::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::NoSuchStore => store::Error::NoSuchStore,
            Error::AccessDenied => store::Error::AccessDenied,
            Error::Other(text) => store::Error::Other(text),
        }
    }
}
