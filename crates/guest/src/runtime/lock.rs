//! `dhow:runtime/lock` over the lock block.

use super::wit::lock;
use super::{Error, Runtime};
use dhow_blocks::lock::Unlock;
use std::time::Duration;

impl lock::Host for Runtime<'_> {
    async fn try_lock(
        &mut self,
        store: String,
        resource: String,
        owner: String,
        expiry_seconds: u32,
    ) -> Result<bool, Error> {
        required(&resource, &owner)?;
        if expiry_seconds == 0 {
            return Err(Error::invalid("expiry-seconds must be 1 or more"));
        }
        let expiry = Duration::from_secs(expiry_seconds.into());
        Ok(self.setup.scope.try_lock(&store, &resource, &owner, expiry).await?)
    }

    async fn unlock(
        &mut self,
        store: String,
        resource: String,
        owner: String,
    ) -> Result<lock::Unlocked, Error> {
        required(&resource, &owner)?;
        Ok(match self.setup.scope.unlock(&store, &resource, &owner).await? {
            Unlock::Released => lock::Unlocked::Released,
            Unlock::NotHeld => lock::Unlocked::NotHeld,
            Unlock::HeldByOther => lock::Unlocked::HeldByOther,
        })
    }
}

fn required(resource: &str, owner: &str) -> Result<(), Error> {
    match (resource.is_empty(), owner.is_empty()) {
        (true, _) => Err(Error::invalid("resource is empty")),
        (_, true) => Err(Error::invalid("owner is empty")),
        _ => Ok(()),
    }
}
