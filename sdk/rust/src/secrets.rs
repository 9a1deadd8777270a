//! Named secrets.

use crate::wit::secrets as wit;
use crate::{Result, metadata};
use std::collections::BTreeMap;

/// Values of a secret by name. A secret of one value has its own name.
pub type Secret = BTreeMap<String, String>;

/// A secret store.
#[derive(Clone, Debug)]
pub struct Secrets {
    store: String,
}

// === impl Secrets ===

impl Secrets {
    /// The store of this name.
    pub fn open(store: impl Into<String>) -> Secrets {
        Secrets { store: store.into() }
    }

    /// The value of a secret that has one.
    pub fn value(&self, name: &str) -> Result<Option<String>> {
        Ok(self.get(name, &[])?.and_then(|mut secret| secret.remove(name)))
    }

    /// One secret, or `None` of that name.
    pub fn get(&self, name: &str, given: &[(&str, &str)]) -> Result<Option<Secret>> {
        Ok(wit::get(&self.store, name, &metadata(given))?.map(|secret| secret.into_iter().collect()))
    }

    /// All secrets that the app may read, by name.
    pub fn all(&self, given: &[(&str, &str)]) -> Result<BTreeMap<String, Secret>> {
        let secrets = wit::get_all(&self.store, &metadata(given))?.into_iter();
        Ok(secrets.map(|(name, secret)| (name, secret.into_iter().collect())).collect())
    }
}
