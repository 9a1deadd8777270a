//! A state store with an app's prefix applied.

use super::Bound;
use super::outbox::{Outbox, Step};
use crate::state::{
    Capability, Delete, Item, KeyPage, MAX_KEY_BYTES, MAX_VALUE_BYTES, Operation, Query, QueryPage, Set,
    StateError, StateStore,
};
use crate::trace::TraceContext;
use std::sync::Arc;

/// A state store as one app sees it: keys go in and come out as the app knows them.
#[derive(Clone)]
pub struct State {
    /// The provider.
    pub bound: Bound<dyn StateStore>,
    /// What stands before every key of this app, e.g. `orders||`; empty when the component shares its keys.
    pub prefix: Arc<str>,
    /// Whether the prefix is what an app gets whose component names none.
    pub is_default_prefix: bool,
    /// Whether keys stand in the store beside those of other apps, as in Layotto; see [`State::by_layotto`].
    pub is_shared: bool,
    /// Where events of what transactions write go, if the component says so.
    pub outbox: Option<Arc<Outbox>>,
}

// === impl State ===

impl State {
    /// See [`StateStore::get`].
    pub async fn get(&self, key: &str) -> Result<Option<Item>, StateError> {
        let (key, store) = (self.scoped(key)?, &self.bound.provider);
        let key = key.as_str();
        self.bound.call("get", (), |()| store.get(key)).await
    }

    /// See [`StateStore::get_many`]. Retries do not apply: each key has an answer of its own.
    pub async fn get_many(&self, keys: &[String]) -> Vec<Result<Option<Item>, StateError>> {
        let scoped: Result<Vec<String>, StateError> = keys.iter().map(|key| self.scoped(key)).collect();
        let (scoped, store) = (&scoped, &self.bound.provider);
        let answer = self.bound.call("bulk_get", (), |()| async move {
            let scoped = scoped.as_ref().map_err(Clone::clone)?;
            Ok::<_, StateError>(store.get_many(scoped).await)
        });
        answer.await.unwrap_or_else(|error| keys.iter().map(|_| Err(error.clone())).collect())
    }

    /// See [`StateStore::set`].
    pub async fn set(&self, set: Set) -> Result<(), StateError> {
        let (set, store) = (self.scoped_set(set)?, &self.bound.provider);
        self.bound.call("set", set, |set| store.set(set)).await
    }

    /// See [`StateStore::delete`].
    pub async fn delete(&self, delete: Delete) -> Result<(), StateError> {
        let (delete, store) = (self.scoped_delete(delete)?, &self.bound.provider);
        self.bound.call("delete", delete, |delete| store.delete(delete)).await
    }

    /// See [`StateStore::transact`].
    pub async fn transact(&self, operations: Vec<Operation>) -> Result<(), StateError> {
        let steps = operations.into_iter().map(Step::from).collect();
        self.transact_steps(steps, TraceContext::new(), "").await
    }

    /// The same, with what is known about the events of the written keys.
    pub async fn transact_steps(
        &self,
        steps: Vec<Step>,
        trace: TraceContext,
        trace_state: &str,
    ) -> Result<(), StateError> {
        let (operations, markers) = match &self.outbox {
            Some(outbox) => outbox.announce(steps, trace, trace_state).await?,
            None => (steps.into_iter().map(|step| step.operation).collect(), Vec::new()),
        };
        let scoped = operations.into_iter().map(|operation| {
            Ok(match operation {
                Operation::Set(set) => Operation::Set(self.scoped_set(set)?),
                Operation::Delete(delete) => Operation::Delete(self.scoped_delete(delete)?),
            })
        });
        let store = &self.bound.provider;
        let operations = scoped.chain(markers.into_iter().map(Ok)).collect::<Result<_, StateError>>()?;
        self.bound.call("transaction", operations, |operations| store.transact(operations)).await
    }

    /// See [`StateStore::list_keys`]; keys come back without the app's prefix.
    pub async fn list_keys(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<KeyPage, StateError> {
        self.own_keys("listing keys")?;
        let (prefix, store) = (self.scoped(prefix)?, &self.bound.provider);
        let after = after.map(|key| self.scoped(key)).transpose()?;
        let (prefix, after) = (prefix.as_str(), after.as_deref());
        let mut page = self.bound.call("list_keys", (), |()| store.list_keys(prefix, after, limit)).await?;
        for key in &mut page.keys {
            key.drain(..self.prefix.len());
        }
        Ok(page)
    }

    /// See [`StateStore::increment`]. Not tried again: a lost answer may have counted.
    pub async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        self.bound.provider.increment(&self.scoped(key)?, delta).await
    }

    /// See [`StateStore::query`]; only this app's keys, without its prefix.
    pub async fn query(&self, query: Query) -> Result<QueryPage, StateError> {
        self.own_keys("queries")?;
        let (prefix, store) = (&*self.prefix, &self.bound.provider);
        let mut page = self.bound.call("query", query, |query| store.query(prefix, query)).await?;
        for found in &mut page.results {
            found.key.drain(..self.prefix.len().min(found.key.len()));
        }
        Ok(page)
    }

    /// Whether the store can do this.
    pub fn can(&self, capability: Capability) -> bool {
        self.bound.provider.capabilities().contains(&capability)
    }

    /// Refuses what would show the keys of other apps.
    fn own_keys(&self, feature: &'static str) -> Result<(), StateError> {
        let shows_others = self.is_shared && self.prefix.is_empty();
        if shows_others { Err(StateError::NotSupported { feature }) } else { Ok(()) }
    }

    fn scoped(&self, key: &str) -> Result<String, StateError> {
        if self.is_shared && key.contains("||") {
            return Err(StateError::KeyNotAllowed { key: key.to_owned() });
        }
        let length = self.prefix.len() + key.len();
        if length > MAX_KEY_BYTES {
            return Err(StateError::TooLarge { what: "key", actual: length, limit: MAX_KEY_BYTES });
        }
        let mut scoped = String::with_capacity(length);
        scoped.push_str(&self.prefix);
        scoped.push_str(key);
        Ok(scoped)
    }

    fn scoped_set(&self, set: Set) -> Result<Set, StateError> {
        if set.value.len() > MAX_VALUE_BYTES {
            return Err(StateError::TooLarge {
                what: "value",
                actual: set.value.len(),
                limit: MAX_VALUE_BYTES,
            });
        }
        Ok(Set { key: self.scoped(&set.key)?, ..set })
    }

    fn scoped_delete(&self, delete: Delete) -> Result<Delete, StateError> {
        Ok(Delete { key: self.scoped(&delete.key)?, ..delete })
    }
}
