//! Changes of components while they are open: none of the providers takes any.

use super::Layotto;
use crate::dapr::error::{ApiError, Grpc};
use crate::grpc::service::Answer;
use crate::proto::layotto::runtime::lifecycle_server::Lifecycle;
use crate::proto::layotto::runtime::{ApplyConfigurationResponse, ComponentConfig, DynamicConfiguration};
use dhow_blocks::scope::Scope;
use http::StatusCode;
use tonic::Request;

#[tonic::async_trait]
impl Lifecycle for Layotto {
    async fn apply_configuration(
        &self,
        request: Request<DynamicConfiguration>,
    ) -> Answer<ApplyConfigurationResponse> {
        let component = request.into_inner().component_config.unwrap_or_default();
        self.answer(apply(self.scope(), &component))
    }
}

fn apply(scope: &Scope, component: &ComponentConfig) -> Result<ApplyConfigurationResponse, ApiError> {
    let ComponentConfig { kind, name, metadata } = component;
    for (field, is_empty) in
        [("kind", kind.is_empty()), ("name", name.is_empty()), ("metadata", metadata.is_empty())]
    {
        if is_empty {
            return Err(ApiError::malformed(format!("component_config.{field} is empty")));
        }
    }
    let components = scope.components.list();
    let Some(found) = components.iter().find(|component| component.name == *name) else {
        return Err(ApiError::malformed(format!("there is no component {name:?} of kind {kind:?}")));
    };
    let message = format!(
        "component {name:?} of type {} cannot be changed while it is open; change its file, which reloads it",
        found.component_type
    );
    let status = StatusCode::NOT_IMPLEMENTED;
    Err(ApiError::new(status, Grpc::Unimplemented, "ERR_API_UNIMPLEMENTED", message))
}
