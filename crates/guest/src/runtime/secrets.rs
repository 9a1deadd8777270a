//! `dhow:runtime/secrets` over the secrets block.

use super::wit::secrets;
use super::{Error, Runtime, metadata};
use dhow_blocks::secrets::Secret;

impl secrets::Host for Runtime<'_> {
    async fn get(
        &mut self,
        store: String,
        name: String,
        pairs: Vec<(String, String)>,
    ) -> Result<Option<secrets::Secret>, Error> {
        let secret = self.setup.scope.secret(&store, &name, &metadata(pairs)).await?;
        Ok(secret.map(values))
    }

    async fn get_all(
        &mut self,
        store: String,
        pairs: Vec<(String, String)>,
    ) -> Result<Vec<(String, secrets::Secret)>, Error> {
        let secrets = self.setup.scope.secrets(&store, &metadata(pairs)).await?;
        Ok(secrets.into_iter().map(|(name, secret)| (name, values(secret))).collect())
    }
}

fn values(secret: Secret) -> secrets::Secret {
    secret.0.into_iter().collect()
}
