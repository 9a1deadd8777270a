//! Values that operators change while apps run.

use crate::wit::configuration as wit;
use crate::{Metadata, Result, metadata};
use std::collections::BTreeMap;

/// A configuration store.
#[derive(Clone, Debug)]
pub struct Configuration {
    store: String,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The value.
    pub value: String,
    /// Empty where the store keeps none.
    pub version: String,
    /// What the store says of it.
    pub metadata: Metadata,
}

// === impl Configuration ===

impl Configuration {
    /// The store of this name.
    pub fn open(store: impl Into<String>) -> Configuration {
        Configuration { store: store.into() }
    }

    /// One value, or `None` of that key.
    pub fn value(&self, key: &str) -> Result<Option<String>> {
        Ok(self.get(&[key], &[])?.remove(key).map(|item| item.value))
    }

    /// The values of these keys, or of all if none is named. Keys that do not exist are left out.
    pub fn get(&self, keys: &[&str], given: &[(&str, &str)]) -> Result<BTreeMap<String, Item>> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let items = wit::get(&self.store, &keys, &metadata(given))?.into_iter();
        Ok(items
            .map(|wit::Item { key, value, version, metadata }| (key, Item { value, version, metadata }))
            .collect())
    }
}
