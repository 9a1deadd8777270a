//! One app's view of the blocks.
//!
//! A guest interface never sees a provider: it sees the [`Scope`] of its app, which checks the grant,
//! prefixes the key and passes the request on. Whatever has to happen on every use of a block happens here.

use crate::grants::{Ask, Denied, Grants};
use crate::invoke::{Invocation, InvokeError, Invoker, Reply};
use crate::state::{
    Delete, Item, KeyPage, MAX_KEY_BYTES, MAX_VALUE_BYTES, Operation, Set, StateError, StateStore,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The store that a guest gets when it names none (Dapr's usual name).
pub const DEFAULT_STATE_STORE: &str = "statestore";

/// Apps may call each other this many steps deep; more is taken for a circle.
pub const MAX_INVOKE_DEPTH: u8 = 16;

/// Everything outside itself that an app can reach.
pub struct Scope {
    /// The app's identity.
    pub app_id: Arc<str>,
    /// What its manifest allows.
    pub grants: Grants,
    /// State stores of this host that are not closed to this app by the component's own `scopes`.
    pub state: HashMap<String, StateBinding>,
    /// The app's configuration values, from its manifest.
    pub config: BTreeMap<String, String>,
    /// The host, which knows the other apps.
    pub invoker: Arc<dyn Invoker>,
}

/// A state store as one app sees it.
#[derive(Clone)]
pub struct StateBinding {
    /// The provider.
    pub store: Arc<dyn StateStore>,
    /// What stands before every key of this app, e.g. `orders||`; empty when the component shares its keys.
    pub key_prefix: Arc<str>,
    /// The component's type, e.g. `state.sqlite`.
    pub component_type: Arc<str>,
}

/// Why a scope did not hand out a block.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScopeError {
    /// The manifest does not allow it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// There is no component of that name for this app.
    #[error("{block} {name:?} is not found")]
    NotFound {
        /// Dapr's name of the block, e.g. "state store".
        block: &'static str,
        /// The name asked for.
        name: String,
    },
    /// There is no component of this kind at all.
    #[error("{block} is not configured")]
    NotConfigured {
        /// Dapr's name of the block.
        block: &'static str,
    },
}

/// A state store with the app's prefix applied: keys go in and come out as the app knows them.
#[derive(Clone)]
pub struct State {
    store: Arc<dyn StateStore>,
    prefix: Arc<str>,
}

// === impl Scope ===

impl Scope {
    /// The state store of that name.
    pub fn state(&self, name: &str) -> Result<State, ScopeError> {
        if self.state.is_empty() {
            return Err(ScopeError::NotConfigured { block: "state store" });
        }
        let Some(binding) = self.state.get(name) else {
            return Err(ScopeError::NotFound { block: "state store", name: name.to_owned() });
        };
        self.grants.check(Ask::State(name))?;
        Ok(State { store: Arc::clone(&binding.store), prefix: Arc::clone(&binding.key_prefix) })
    }

    /// Allows or refuses an HTTP request to the outside.
    pub fn check_http(&self, scheme: &str, host: &str, port: u16) -> Result<(), Denied> {
        self.grants.check(Ask::Http { scheme, host, port })
    }

    /// Invokes another app of this host, or this one.
    pub async fn invoke(&self, app_id: &str, mut invocation: Invocation) -> Result<Reply, InvokeError> {
        if app_id != &*self.app_id && self.grants.check(Ask::Invoke(app_id)).is_err() {
            return Err(InvokeError::Denied { caller: self.app_id.to_string(), app_id: app_id.to_owned() });
        }
        if invocation.depth >= MAX_INVOKE_DEPTH {
            return Err(InvokeError::TooDeep { app_id: app_id.to_owned(), depth: invocation.depth });
        }
        invocation.depth += 1;
        self.invoker.invoke(app_id, invocation).await
    }
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Configuration values may be secret: names only.
        f.debug_struct("Scope")
            .field("app_id", &self.app_id)
            .field("grants", &self.grants)
            .field("state", &self.state.keys().collect::<Vec<_>>())
            .field("config", &self.config.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

// === impl State ===

impl State {
    /// See [`StateStore::get`].
    pub async fn get(&self, key: &str) -> Result<Option<Item>, StateError> {
        self.store.get(&self.scoped(key)?).await
    }

    /// See [`StateStore::get_many`].
    pub async fn get_many(&self, keys: &[String]) -> Vec<Result<Option<Item>, StateError>> {
        let scoped: Result<Vec<String>, StateError> = keys.iter().map(|key| self.scoped(key)).collect();
        match scoped {
            Ok(scoped) => self.store.get_many(&scoped).await,
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// See [`StateStore::set`].
    pub async fn set(&self, set: Set) -> Result<(), StateError> {
        self.store.set(self.scoped_set(set)?).await
    }

    /// See [`StateStore::delete`].
    pub async fn delete(&self, delete: Delete) -> Result<(), StateError> {
        self.store.delete(self.scoped_delete(delete)?).await
    }

    /// See [`StateStore::transact`].
    pub async fn transact(&self, operations: Vec<Operation>) -> Result<(), StateError> {
        let scoped = operations.into_iter().map(|operation| {
            Ok(match operation {
                Operation::Set(set) => Operation::Set(self.scoped_set(set)?),
                Operation::Delete(delete) => Operation::Delete(self.scoped_delete(delete)?),
            })
        });
        self.store.transact(scoped.collect::<Result<_, StateError>>()?).await
    }

    /// See [`StateStore::list_keys`]; keys come back without the app's prefix.
    pub async fn list_keys(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<KeyPage, StateError> {
        let after = after.map(|key| self.scoped(key)).transpose()?;
        let mut page = self.store.list_keys(&self.scoped(prefix)?, after.as_deref(), limit).await?;
        for key in &mut page.keys {
            key.drain(..self.prefix.len());
        }
        Ok(page)
    }

    /// See [`StateStore::increment`].
    pub async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        self.store.increment(&self.scoped(key)?, delta).await
    }

    /// Whether the store can do this.
    pub fn can(&self, capability: crate::state::Capability) -> bool {
        self.store.capabilities().contains(&capability)
    }

    fn scoped(&self, key: &str) -> Result<String, StateError> {
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
