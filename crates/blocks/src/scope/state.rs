//! A state store with an app's prefix applied.

use super::Bound;
use super::outbox::{Announcement, Outbox, Step};
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

/// Keys that are read at once.
const MAX_KEYS_AT_ONCE: usize = 10_000;

/// Bytes of values after which no more are read at once.
const MAX_BYTES_AT_ONCE: usize = 256 << 20;

/// Keys that a store is asked for in one go: at first, when nothing is known of their values, and at most.
const FIRST_PART: usize = 32;
const MAX_PART: usize = 1000;

// === impl State ===

impl State {
    /// See [`StateStore::get`].
    pub async fn get(&self, key: &str) -> Result<Option<Item>, StateError> {
        let (key, store) = (self.scoped(key)?, &self.bound.provider);
        let key = key.as_str();
        self.bound.call("get", (), |()| store.get(key)).await
    }

    /// See [`StateStore::get_many`]. Retries do not apply: each key has an answer of its own. What is beyond
    /// 10 000 keys or 256 MiB of values is an error: a short list of keys must not fill the host's memory.
    pub async fn get_many(&self, keys: &[String]) -> Vec<Result<Option<Item>, StateError>> {
        let mut found = Vec::with_capacity(keys.len());
        let (mut room, mut largest, mut part) = (MAX_BYTES_AT_ONCE, 1, FIRST_PART);
        let mut rest = &keys[..keys.len().min(MAX_KEYS_AT_ONCE)];
        while !rest.is_empty() && room > 0 {
            let (now, later) = rest.split_at(part.min(rest.len()));
            for answer in self.get_part(now).await {
                let size = answer.iter().flatten().map(|item| item.value.len()).sum::<usize>();
                (room, largest) = (room.saturating_sub(size), largest.max(size));
                found.push(answer);
            }
            // As many as there is room for, if the others are no larger than these.
            (rest, part) = (later, (room / largest).clamp(1, MAX_PART));
        }
        let surplus = StateError::Unavailable {
            reason: format!(
                "too much at once; at most {MAX_KEYS_AT_ONCE} keys and {MAX_BYTES_AT_ONCE} bytes are read"
            ),
        };
        found.resize_with(keys.len(), || Err(surplus.clone()));
        found
    }

    async fn get_part(&self, keys: &[String]) -> Vec<Result<Option<Item>, StateError>> {
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
        let (operations, events) = match &self.outbox {
            Some(outbox) => outbox.plan(steps, trace, trace_state)?,
            None => (steps.into_iter().map(|step| step.operation).collect(), Vec::new()),
        };
        let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
        let markers: Vec<Operation> = events.iter().map(Announcement::marker).collect();
        let scoped = operations.into_iter().map(|operation| {
            Ok(match operation {
                Operation::Set(set) => Operation::Set(self.scoped_set(set)?),
                Operation::Delete(delete) => Operation::Delete(self.scoped_delete(delete)?),
            })
        });
        let store = &self.bound.provider;
        let operations = scoped.chain(markers.into_iter().map(Ok)).collect::<Result<_, StateError>>()?;
        let Some(outbox) = &self.outbox else {
            return self.bound.call("transaction", operations, |operations| store.transact(operations)).await;
        };
        if let Err(error) = outbox.announce(events).await {
            outbox.abort(ids);
            return Err(error);
        }
        let done = self.bound.call("transaction", operations, |operations| store.transact(operations)).await;
        // After any other error it may have been done.
        let failed = matches!(
            done,
            Err(StateError::EtagMismatch { .. }
                | StateError::EtagInvalid { .. }
                | StateError::TooLarge { .. }
                | StateError::NotSupported { .. })
        );
        if failed {
            outbox.abort(ids);
        }
        done
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
