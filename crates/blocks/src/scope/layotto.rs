//! Keys by Layotto's rules, for apps that speak its API.
//!
//! Dapr keeps the state of an app to itself unless the component says otherwise; Layotto shares it: a key stands in the
//! store as the app wrote it. So that no app gets at what another one keeps to itself, such a key may not contain the
//! `||` that stands behind every prefix. The keys of locks begin otherwise than Dapr's.

use super::{Scope, State};
use std::sync::Arc;

/// What stands before the prefix of a lock's resource, in Dapr and in Layotto.
const LOCK: (&str, &str) = ("lock||", "lock|||");

impl Scope {
    /// The same scope with keys by Layotto's rules.
    pub fn by_layotto(&self) -> Scope {
        let mut components = self.components.clone();
        for state in components.state.values_mut() {
            *state = state.by_layotto();
        }
        for (_, prefix) in components.locks.values_mut() {
            let own = prefix.strip_prefix(LOCK.0).unwrap_or(prefix);
            *prefix = format!("{}{own}", LOCK.1).into();
        }
        Scope {
            app_id: Arc::clone(&self.app_id),
            namespace: Arc::clone(&self.namespace),
            grants: self.grants.clone(),
            audit: Arc::clone(&self.audit),
            components,
            config: self.config.clone(),
            invoker: Arc::clone(&self.invoker),
            updates: self.updates.clone(),
            policies: self.policies.clone(),
        }
    }
}

impl State {
    /// The same store with keys by Layotto's rule: as they are, unless the component names a prefix.
    pub fn by_layotto(&self) -> State {
        let prefix = if self.is_default_prefix { "".into() } else { Arc::clone(&self.prefix) };
        State { prefix, is_shared: true, ..self.clone() }
    }
}
