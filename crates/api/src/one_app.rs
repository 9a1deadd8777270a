//! Requests from outside to one app, whatever their path and host: the app has the port for itself.

use crate::ingress;
use crate::server::Face;
use dhow_blocks::invoke::{Body, Invocation, InvokeError, Invoker, Reply, Trigger};
use dhow_host::Host;
use http::Request;
use std::sync::Arc;

/// The face of a port that is one app's.
pub struct OneApp {
    /// Whose app.
    pub host: Arc<Host>,
    /// The app; a later version of it takes its place.
    pub app_id: String,
}

impl Face for OneApp {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Reply {
        if self.host.is_stopping() {
            return ingress::error(&InvokeError::ShuttingDown);
        }
        match self.host.invoke(&self.app_id, Invocation::new(request, Trigger::Http)).await {
            Ok(reply) => reply,
            Err(failed) => ingress::error(&failed),
        }
    }
}
