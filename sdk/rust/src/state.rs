//! Keys and values.

use crate::wit::state as wit;
use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes that lost a race before [`State::update`] gives up.
const ATTEMPTS: usize = 20;

/// A state store. Its keys are the app's own unless the component's `keyPrefix` says otherwise.
#[derive(Clone, Debug)]
pub struct State {
    store: String,
}

/// A value and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateItem<T> {
    /// The value.
    pub value: T,
    /// Its version; changes with every write.
    pub etag: String,
    /// When it disappears by itself, in seconds since 1970.
    pub expires_at: Option<u64>,
}

/// How to write; the default is over whatever is there, to stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetOptions {
    /// Write only while the stored etag is this one.
    pub etag: Option<String>,
    /// Write only while the key is absent.
    pub first_write: bool,
    /// The value disappears so many seconds after the write.
    pub ttl_seconds: Option<u64>,
}

/// Operations that are carried out together, by [`Transaction::commit`].
#[must_use = "nothing happens before `commit`"]
pub struct Transaction {
    store: String,
    operations: Vec<wit::Operation>,
    failed: Option<Error>,
}

/// One page of keys, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The keys.
    pub keys: Vec<String>,
    /// There are more: ask for those after the last one.
    pub more: bool,
}

/// What a query found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// Keys with their values.
    pub results: Vec<(String, T)>,
    /// Goes into the next query's `page.token`; empty after the last page.
    pub token: String,
}

// === impl State ===

impl State {
    /// The store of this name; whether there is one shows with the first call.
    pub fn open(store: impl Into<String>) -> State {
        State { store: store.into() }
    }

    /// The value out of JSON, or `None` when there is no such key.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        Ok(self.get_item(key)?.map(|item| item.value))
    }

    /// The value out of JSON with its etag.
    pub fn get_item<T: DeserializeOwned>(&self, key: &str) -> Result<Option<StateItem<T>>> {
        let Some(StateItem { value, etag, expires_at }) = self.get_bytes(key)? else { return Ok(None) };
        Ok(Some(StateItem { value: serde_json::from_slice(&value)?, etag, expires_at }))
    }

    /// The value as it is stored.
    pub fn get_bytes(&self, key: &str) -> Result<Option<StateItem<Vec<u8>>>> {
        let item = wit::get(&self.store, key)?;
        Ok(item.map(|wit::Item { value, etag, expires_at }| StateItem { value, etag, expires_at }))
    }

    /// Writes a value as JSON, over whatever is there.
    pub fn set(&self, key: &str, value: &(impl Serialize + ?Sized)) -> Result<()> {
        self.set_with(key, value, SetOptions::default())
    }

    /// Writes a value as JSON; [`Error::Conflict`] when the options do not allow it.
    pub fn set_with(&self, key: &str, value: &(impl Serialize + ?Sized), options: SetOptions) -> Result<()> {
        Ok(wit::set(&self.store, key, &serde_json::to_vec(value)?, &options.wit(true))?)
    }

    /// Writes bytes of any kind.
    pub fn set_bytes(&self, key: &str, value: &[u8], options: SetOptions) -> Result<()> {
        Ok(wit::set(&self.store, key, value, &options.wit(false))?)
    }

    /// Reads, changes and writes a value, again if somebody else wrote it in between; the new value.
    pub fn update<T>(&self, key: &str, mut change: impl FnMut(Option<T>) -> T) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
    {
        let mut attempt = 1;
        loop {
            let (old, options) = match self.get_item(key)? {
                Some(item) => {
                    (Some(item.value), SetOptions { etag: Some(item.etag), ..SetOptions::default() })
                }
                None => (None, SetOptions { first_write: true, ..SetOptions::default() }),
            };
            let new = change(old);
            match self.set_with(key, &new, options) {
                Ok(()) => return Ok(new),
                Err(Error::Conflict(_)) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes a key. One that is not there is no error.
    pub fn delete(&self, key: &str) -> Result<()> {
        Ok(wit::delete(&self.store, key, None)?)
    }

    /// Deletes a key in that version only.
    pub fn delete_version(&self, key: &str, etag: &str) -> Result<()> {
        Ok(wit::delete(&self.store, key, Some(etag))?)
    }

    /// Collects operations to carry out together.
    pub fn transaction(&self) -> Transaction {
        Transaction { store: self.store.clone(), operations: Vec::new(), failed: None }
    }

    /// Keys that begin with `prefix` and come after `after`; at most `limit`, and never more than 1000.
    pub fn keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Keys> {
        let page = wit::list_keys(&self.store, prefix, after, limit)?;
        Ok(Keys { keys: page.keys, more: page.more })
    }

    /// Adds to the number that is stored, which nobody can come between; a missing key counts as 0.
    pub fn increment(&self, key: &str, delta: i64) -> Result<i64> {
        Ok(wit::increment(&self.store, key, delta)?)
    }

    /// Searches values, in the language of Dapr's state API: `{"filter": …, "sort": …, "page": …}`.
    pub fn query<T: DeserializeOwned>(&self, query: &(impl Serialize + ?Sized)) -> Result<Found<T>> {
        let page = wit::query(&self.store, &serde_json::to_string(query)?)?;
        let read = |found: wit::Found| Ok((found.key, serde_json::from_slice(&found.value)?));
        Ok(Found { results: page.results.into_iter().map(read).collect::<Result<_>>()?, token: page.token })
    }
}

// === impl SetOptions ===

impl SetOptions {
    /// Only over this version.
    pub fn etag(etag: impl Into<String>) -> SetOptions {
        SetOptions { etag: Some(etag.into()), ..SetOptions::default() }
    }

    /// Only where there is nothing yet.
    pub fn first_write() -> SetOptions {
        SetOptions { first_write: true, ..SetOptions::default() }
    }

    fn wit(self, json: bool) -> wit::SetOptions {
        let SetOptions { etag, first_write, ttl_seconds } = self;
        let concurrency =
            if first_write { wit::Concurrency::FirstWrite } else { wit::Concurrency::LastWrite };
        wit::SetOptions { etag, concurrency, ttl_seconds, json }
    }
}

// === impl Transaction ===

impl Transaction {
    /// Will write a value as JSON.
    pub fn set(self, key: &str, value: &(impl Serialize + ?Sized)) -> Transaction {
        self.set_with(key, value, SetOptions::default())
    }

    /// Will write a value as JSON if the options allow it.
    pub fn set_with(
        mut self,
        key: &str,
        value: &(impl Serialize + ?Sized),
        options: SetOptions,
    ) -> Transaction {
        match serde_json::to_vec(value) {
            Ok(value) => {
                self.operations.push(wit::Operation::Set((key.to_owned(), value, options.wit(true))));
            }
            Err(error) => self.failed = Some(error.into()),
        }
        self
    }

    /// Will delete a key.
    pub fn delete(mut self, key: &str) -> Transaction {
        self.operations.push(wit::Operation::Delete((key.to_owned(), None)));
        self
    }

    /// Carries out all operations in order, or none.
    pub fn commit(self) -> Result<()> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(wit::transact(&self.store, &self.operations)?),
        }
    }
}
