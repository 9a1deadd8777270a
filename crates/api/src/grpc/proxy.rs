//! Every gRPC service that is not the runtime's own: passed on, frame by frame, to the app in `dapr-app-id`.
//!
//! Nothing is decoded, so all four kinds of methods work, and trailers reach the caller because a reply's body
//! carries them.

use super::{Service, refuse, status};
use crate::dapr::error::ApiError;
use crate::dapr::invoke::address;
use dhow_blocks::invoke::{Body, Invocation, Reply, Trigger};
use dhow_blocks::trace::TraceContext;
use http::Request;
use http::header::{HeaderName, HeaderValue, TE};
use tonic::Status;

const APP_ID: HeaderName = HeaderName::from_static("dapr-app-id");

/// Passes one request on under the identity of the app of `scope`. Without `dapr-app-id` it is answered
/// "unimplemented"; what keeps it from its target is a status, too.
pub(crate) async fn proxy(service: &Service, request: Request<Body>, trace: TraceContext) -> Reply {
    let scope = &*service.scope;
    let Some(app_id) = request.headers().get(APP_ID).and_then(|id| id.to_str().ok()).map(str::to_owned)
    else {
        let path = request.uri().path();
        return refuse(Status::unimplemented(format!(
            "unknown service or method {path}; to reach an app, send its id as the metadata dapr-app-id"
        )));
    };
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let mut invocation = Invocation { request, trigger: Trigger::App, trace, depth: 0 };
    let app_id = match address(scope, &app_id, &path, &mut invocation) {
        Ok(app_id) => app_id,
        Err(error) => return refuse(service.status(&error)),
    };
    // Says that trailers are understood; without it servers of gRPC refuse.
    invocation.request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    match scope.invoke(&app_id, invocation).await {
        Ok(reply) => reply,
        Err(error) => {
            service.api.metrics.error(&scope.app_id, ApiError::invoke(&app_id, &error).code);
            refuse(status::proxied(&app_id, &error))
        }
    }
}
