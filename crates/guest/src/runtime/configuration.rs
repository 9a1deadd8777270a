//! `dhow:runtime/configuration` over the configuration block.

use super::wit::configuration;
use super::{Error, Runtime, metadata, pairs};

impl configuration::Host for Runtime<'_> {
    async fn get(
        &mut self,
        store: String,
        keys: Vec<String>,
        given: Vec<(String, String)>,
    ) -> Result<Vec<configuration::Item>, Error> {
        let bound = self.setup.scope.configuration(&store)?;
        let (keys, given, provider) = (&keys, &metadata(given), &bound.provider);
        let items = bound.call("get", (), |()| provider.get(keys, given)).await?;
        let items = items.into_iter().map(|(key, item)| configuration::Item {
            key,
            value: item.value,
            version: item.version,
            metadata: pairs(item.metadata),
        });
        Ok(items.collect())
    }
}
