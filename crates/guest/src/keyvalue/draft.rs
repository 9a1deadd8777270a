//! `wasi:keyvalue@0.2.0-draft`.

use super::{Bucket, Error, HasKeyValue, KeyValue, view};
use crate::store::GuestState;
use std::collections::VecDeque;
use wasmtime::component::{Linker, Resource};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/keyvalue",
        world: "wasi:keyvalue/imports",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": super::super::Bucket },
        trappable_error_type: { "wasi:keyvalue/store.error" => super::super::Error },
    });
}

use generated::wasi::keyvalue::{atomics, batch, store};

/// Cursors that a bucket remembers.
const CURSORS: usize = 64;

/// A cursor is a number for the guest and a key for the store: the latest numbers with their keys.
#[derive(Default)]
pub(super) struct Cursors {
    /// The number of the first key.
    first: u64,
    keys: VecDeque<String>,
}

pub(super) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    store::add_to_linker::<_, HasKeyValue>(linker, view)?;
    atomics::add_to_linker::<_, HasKeyValue>(linker, view)?;
    batch::add_to_linker::<_, HasKeyValue>(linker, view)
}

// === impl Cursors ===

impl Cursors {
    fn add(&mut self, key: String) -> u64 {
        if self.keys.len() == CURSORS {
            self.keys.pop_front();
            self.first += 1;
        }
        self.keys.push_back(key);
        self.first + self.keys.len() as u64 - 1
    }

    fn get(&self, cursor: u64) -> Option<&String> {
        self.keys.get(usize::try_from(cursor.checked_sub(self.first)?).ok()?)
    }
}

// === impl KeyValue ===

impl store::Host for KeyValue<'_> {
    async fn open(&mut self, identifier: String) -> Result<Resource<Bucket>, Error> {
        self.open_bucket(&identifier)
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
        cursor: Option<u64>,
    ) -> Result<store::KeyResponse, Error> {
        let bucket = self.table.get_mut(&bucket)?;
        let unknown = |cursor| Error::Other(format!("cursor {cursor} did not come from this bucket lately"));
        let after =
            cursor.map(|cursor| bucket.cursors.get(cursor).ok_or_else(|| unknown(cursor))).transpose()?;
        let page = bucket.keys(after.map(String::as_str)).await?;
        let cursor = match page.keys.last() {
            Some(last) if page.more => Some(bucket.cursors.add(last.clone())),
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
        let sum = self.bucket(&bucket)?.increment(&key, delta).await?;
        u64::try_from(sum).map_err(|_| Error::Other(format!("the value of key {key:?} is negative: {sum}")))
    }
}

impl batch::Host for KeyValue<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>, Error> {
        let values = self.bucket(&bucket)?.get_many(&keys).await?;
        Ok(keys.into_iter().zip(values).map(|(key, value)| Some((key, value?))).collect())
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

#[cfg(test)]
mod tests {
    use super::{CURSORS, Cursors};

    #[test]
    fn a_bucket_remembers_its_latest_cursors() {
        let mut cursors = Cursors::default();
        let numbers: Vec<u64> = (0..CURSORS + 2).map(|key| cursors.add(key.to_string())).collect();
        assert_eq!(numbers, (0..CURSORS as u64 + 2).collect::<Vec<_>>());
        for (cursor, key) in [(0, None), (1, None), (2, Some("2")), (65, Some("65")), (66, None)] {
            assert_eq!(cursors.get(cursor).map(String::as_str), key, "{cursor}");
        }
        assert_eq!(cursors.get(u64::MAX), None);
    }
}
