//! Requests from outside to Layotto's functions: the header `id` names one.
//!
//! With Layotto an unknown function and one that fails both look like success without a body. Here they are errors, the
//! same as at the [`ingress`] of other apps.

pub mod actuator;
pub mod management;

use crate::server::Face;
use crate::{ingress, text};
use dhow_blocks::invoke::{Body, Invocation, InvokeError, Reply, Trigger};
use dhow_host::Host;
use http::{Request, StatusCode};
use std::sync::Arc;

/// The header that names a function.
const ID: &str = "id";

/// The face that functions are served on.
pub struct FunctionTraffic {
    /// Whose functions.
    pub host: Arc<Host>,
}

impl Face for FunctionTraffic {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Reply {
        let Some(id) = request.headers().get(ID).and_then(|id| id.to_str().ok()) else {
            let message = "the request names no function; send its id in the header `id`";
            return text(StatusCode::NOT_FOUND, message);
        };
        let Some(function) = self.host.function(id) else {
            return text(StatusCode::NOT_FOUND, format_args!("no function has the id {id:?}"));
        };
        if self.host.is_stopping() {
            return ingress::error(&InvokeError::ShuttingDown);
        }
        match function.invoke(Invocation::new(request, Trigger::Http)).await {
            Ok(reply) => reply,
            Err(failed) => ingress::error(&failed),
        }
    }
}
