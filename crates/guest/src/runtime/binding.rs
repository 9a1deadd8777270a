//! `dhow:runtime/binding` over the binding block.

use super::wit::binding;
use super::{Error, Runtime, metadata, pairs};
use dhow_blocks::binding::BindingRequest;

impl binding::Host for Runtime<'_> {
    async fn invoke(
        &mut self,
        name: String,
        operation: String,
        data: Vec<u8>,
        given: Vec<(String, String)>,
    ) -> Result<binding::Response, Error> {
        let request = BindingRequest { operation, data: data.into(), metadata: metadata(given) };
        let response = self.setup.scope.call_binding(&name, request).await?;
        Ok(binding::Response { data: response.data.map(Vec::from), metadata: pairs(response.metadata) })
    }
}
