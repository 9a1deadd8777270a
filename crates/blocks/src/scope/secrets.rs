//! Secrets as one app sees them: by its grants and by the configuration's secret scopes.

use super::{Bound, Scope, ScopeError};
use crate::error::BlockError;
use crate::events::Metadata;
use crate::grants::Ask;
use crate::secrets::{Secret, SecretStore};
use std::collections::BTreeMap;

/// A secret store as one app sees it.
#[derive(Clone, Debug)]
pub struct SecretBinding {
    /// The provider.
    pub bound: Bound<dyn SecretStore>,
    /// Which secrets the configuration opens.
    pub access: SecretAccess,
}

/// Which secrets of a store may be read (Dapr's secret scopes).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretAccess {
    /// Secrets that no list names may not be read.
    pub deny_by_default: bool,
    /// Not empty: these and no others.
    pub allowed: Vec<String>,
    /// Not these.
    pub denied: Vec<String>,
}

/// Why a secret was not read.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SecretError {
    /// The store is not there, or not for this app.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The configuration's secret scopes.
    #[error("access denied by policy to get {name:?} from {store:?}")]
    Forbidden {
        /// The store.
        store: String,
        /// The secret.
        name: String,
    },
    /// The store could not answer.
    #[error("{error}")]
    Provider {
        /// What it said.
        error: BlockError,
    },
}

// === impl SecretAccess ===

impl SecretAccess {
    /// Whether a secret may be read.
    pub fn allows(&self, name: &str) -> bool {
        let is_in = |list: &[String]| list.iter().any(|listed| listed == name);
        if !self.allowed.is_empty() {
            return is_in(&self.allowed);
        }
        !is_in(&self.denied) && !self.deny_by_default
    }
}

// === impl Scope ===

impl Scope {
    /// One secret; `None` when there is none of that name.
    pub async fn secret(
        &self,
        store: &str,
        name: &str,
        metadata: &Metadata,
    ) -> Result<Option<Secret>, SecretError> {
        let binding = self.secret_store(store)?;
        self.check(Ask::Secret { store, name }).map_err(ScopeError::from)?;
        if !binding.access.allows(name) {
            return Err(SecretError::Forbidden { store: store.to_owned(), name: name.to_owned() });
        }
        let provider = &binding.bound.provider;
        let secret = binding.bound.call("get", (), |()| provider.get(name, metadata)).await;
        secret.map_err(|error| SecretError::Provider { error })
    }

    /// All secrets of a store that the app may read; others are left out.
    pub async fn secrets(
        &self,
        store: &str,
        metadata: &Metadata,
    ) -> Result<BTreeMap<String, Secret>, SecretError> {
        let binding = self.secret_store(store)?;
        self.check(Ask::Secrets(store)).map_err(ScopeError::from)?;
        let provider = &binding.bound.provider;
        let secrets = binding.bound.call("bulk_get", (), |()| provider.get_all(metadata)).await;
        let mut secrets = secrets.map_err(|error| SecretError::Provider { error })?;
        secrets
            .retain(|name, _| binding.access.allows(name) && self.grants.allows(Ask::Secret { store, name }));
        Ok(secrets)
    }
}

#[cfg(test)]
mod tests {
    use super::SecretAccess;

    #[test]
    fn scopes_open_and_close_secrets() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (deny_by_default, allowed, denied, expected) in [
            (false, &[][..], &[][..], [true, true]),
            (true, &[], &[], [false, false]),
            (true, &["a"], &[], [true, false]),
            (false, &["a"], &[], [true, false]),
            (false, &[], &["a"], [false, true]),
            (false, &["a"], &["a"], [true, false]),
        ] {
            let access = SecretAccess { deny_by_default, allowed: list(allowed), denied: list(denied) };
            assert_eq!([access.allows("a"), access.allows("b")], expected, "{access:?}");
        }
    }
}
