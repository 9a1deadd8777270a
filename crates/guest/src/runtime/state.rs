//! `dhow:runtime/state` over the state block.

use super::wit::state;
use super::{Error, Runtime};
use dhow_blocks::state::{Concurrency, Delete, Item, Operation, Query, Set, Ttl};
use serde::de::IgnoredAny;
use std::time::{Duration, UNIX_EPOCH};

/// Most keys of one page.
const MAX_KEYS: u32 = 1000;

impl state::Host for Runtime<'_> {
    async fn get(&mut self, store: String, key: String) -> Result<Option<state::Item>, Error> {
        let item = self.setup.scope.state(&store)?.get(&key).await?;
        Ok(item.map(wit_item))
    }

    async fn get_many(
        &mut self,
        store: String,
        keys: Vec<String>,
    ) -> Result<Vec<Result<Option<state::Item>, state::Error>>, Error> {
        let items = self.setup.scope.state(&store)?.get_many(&keys).await.into_iter();
        Ok(items
            .map(|item| item.map(|item| item.map(wit_item)).map_err(|error| Error::from(error).0))
            .collect())
    }

    async fn set(
        &mut self,
        store: String,
        key: String,
        value: Vec<u8>,
        options: state::SetOptions,
    ) -> Result<(), Error> {
        Ok(self.setup.scope.state(&store)?.set(block_set(key, value, options)?).await?)
    }

    async fn delete(&mut self, store: String, key: String, etag: Option<String>) -> Result<(), Error> {
        Ok(self.setup.scope.state(&store)?.delete(Delete { key, etag }).await?)
    }

    async fn transact(&mut self, store: String, operations: Vec<state::Operation>) -> Result<(), Error> {
        let state = self.setup.scope.state(&store)?;
        let operations = operations.into_iter().map(|operation| match operation {
            state::Operation::Set((key, value, options)) => {
                Ok(Operation::Set(block_set(key, value, options)?))
            }
            state::Operation::Delete((key, etag)) => Ok(Operation::Delete(Delete { key, etag })),
        });
        Ok(state.transact(operations.collect::<Result<_, Error>>()?).await?)
    }

    async fn list_keys(
        &mut self,
        store: String,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<state::KeyPage, Error> {
        let state = self.setup.scope.state(&store)?;
        if limit == 0 {
            return Err(Error::invalid("limit must be 1 or more"));
        }
        let page = state.list_keys(&prefix, after.as_deref(), limit.min(MAX_KEYS) as usize).await?;
        Ok(state::KeyPage { keys: page.keys, more: page.more })
    }

    async fn increment(&mut self, store: String, key: String, delta: i64) -> Result<i64, Error> {
        Ok(self.setup.scope.state(&store)?.increment(&key, delta).await?)
    }

    async fn query(&mut self, store: String, query: String) -> Result<state::QueryPage, Error> {
        let state = self.setup.scope.state(&store)?;
        let page = state.query(Query::parse(query.as_bytes()).map_err(Error::invalid)?).await?;
        let results = page.results.into_iter().map(|found| state::Found {
            key: found.key,
            value: found.value.into(),
            etag: found.etag,
        });
        Ok(state::QueryPage { results: results.collect(), token: page.token })
    }
}

fn wit_item(item: Item) -> state::Item {
    let expires_at = item.expires_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    state::Item { value: item.value.into(), etag: item.etag, expires_at: expires_at.map(|at| at.as_secs()) }
}

fn block_set(key: String, value: Vec<u8>, options: state::SetOptions) -> Result<Set, Error> {
    let state::SetOptions { etag, concurrency, ttl_seconds, json } = options;
    if json && let Err(error) = serde_json::from_slice::<IgnoredAny>(&value) {
        return Err(Error::invalid(format!(
            "the value of key \"{key}\" is said to be JSON and is not: {error}"
        )));
    }
    let ttl = match ttl_seconds {
        None => Ttl::Forever,
        Some(seconds) if (1..=u64::from(u32::MAX)).contains(&seconds) => {
            Ttl::After(Duration::from_secs(seconds))
        }
        Some(seconds) => {
            return Err(Error::invalid(format!(
                "ttl-seconds must be from 1 to {}; found {seconds}",
                u32::MAX
            )));
        }
    };
    let concurrency = match concurrency {
        state::Concurrency::LastWrite => Concurrency::LastWrite,
        state::Concurrency::FirstWrite => Concurrency::FirstWrite,
    };
    Ok(Set { key, value: value.into(), json, etag, concurrency, ttl })
}
