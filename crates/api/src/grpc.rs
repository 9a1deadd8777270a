//! Dapr's gRPC API, for programs outside and for native apps; Layotto's is served beside it ([`crate::layotto`]).
//!
//! | file | subject |
//! |---|---|
//! | `service` | the methods of `dapr.proto.runtime.v1.Dapr`, each one line |
//! | `status` | errors as gRPC statuses with details, one table |
//! | `state` | state |
//! | `publish` | publish, one by one and in bulk |
//! | `subscribe` | topics on a stream |
//! | `configuration` | configuration, also on a stream |
//! | `job` | jobs |
//! | `metadata` | metadata and shutdown |
//! | `invoke` | invocation with messages (`InvokeService`) |
//! | `proxy` | every other gRPC service: passed on to the app in `dapr-app-id` |
//! | `caller` | what a request tells about its caller: token, trace |
//!
//! What the blocks are asked and how errors look is shared with the HTTP face (`crate::dapr`); here is only the
//! translation of messages. Facts: Dapr's gRPC API reference and `/proto`.

pub(crate) mod caller;
mod configuration;
pub(crate) mod invoke;
mod job;
mod metadata;
mod proxy;
pub(crate) mod publish;
pub(crate) mod service;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod subscribe;

use crate::dapr::Dapr;
use crate::dapr::error::ApiError;
use crate::layotto::{self, Layotto};
use crate::observed::GrpcCall;
use crate::proto::runtime::v1::dapr_server::{DaprServer, SERVICE_NAME};
use crate::server::Face;
use dhow_blocks::invoke::{Body, Reply};
use dhow_blocks::scope::Scope;
use http::Request;
use http::header::{HeaderValue, ORIGIN};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use tonic::Status;
use tower_service::Service as _;

/// Largest message that is accepted, in bytes (Dapr's default).
pub const MAX_MESSAGE: usize = 4 << 20;

/// Everything that an answer needs; one for all requests of a face.
pub(crate) struct Service {
    pub(crate) api: Arc<Dapr>,
    pub(crate) scope: Arc<Scope>,
    /// Largest message, in bytes.
    pub(crate) max_message: usize,
}

/// The gRPC API on a port, for programs outside; they act as one app.
pub struct GrpcFace {
    service: Arc<Service>,
    /// Layotto's services, for the same programs.
    layotto: Arc<Layotto>,
    token: Option<String>,
}

// === impl GrpcFace ===

impl GrpcFace {
    /// The API for programs that are taken for the app of `scope` and have to send `token`, if any, as
    /// `dapr-api-token`. `max_message` is the largest message that is accepted, in bytes; [`MAX_MESSAGE`] by default.
    pub fn new(api: Arc<Dapr>, scope: Arc<Scope>, token: Option<String>, max_message: usize) -> GrpcFace {
        let layotto = Layotto::new(Arc::clone(&api), &scope, max_message);
        let service = Arc::new(Service { api, scope, max_message });
        GrpcFace { service, layotto: Arc::new(layotto), token }
    }
}

impl GrpcFace {
    /// The same face with Layotto's greetings, by the name that `SayHello` asks for. Without any there is one for all
    /// names.
    pub fn with_hellos(mut self, hellos: BTreeMap<String, String>) -> GrpcFace {
        if let Some(layotto) = Arc::get_mut(&mut self.layotto) {
            layotto.greet(hellos);
        }
        self
    }
}

impl Face for GrpcFace {
    async fn answer(self: Arc<Self>, mut request: Request<Body>) -> Reply {
        // Browsers send it, programs do not: a page from anywhere must not reach the state of this machine.
        if request.headers().contains_key(ORIGIN) {
            return refuse(Status::permission_denied("requests from web pages are not answered here"));
        }
        if let Err(refusal) = caller::authenticate(request.headers_mut(), self.token.as_deref()) {
            return refuse(refusal);
        }
        let Service { api, scope, .. } = &*self.service;
        let mut caller = caller::Caller::read(request.headers());
        api.tracer.sample(&mut caller.trace);
        let (call, request) = GrpcCall::begin(api, scope, request, caller.trace);
        call.answered(self.dispatch(request, caller).await)
    }
}

impl GrpcFace {
    async fn dispatch(&self, mut request: Request<Body>, caller: caller::Caller) -> Reply {
        let (service, method) = split(request.uri().path());
        let own = service == SERVICE_NAME || layotto::serves(service);
        if own && !self.service.api.apis.allow_grpc(method) {
            return refuse(Status::unimplemented("requested endpoint is not available"));
        }
        match service {
            SERVICE_NAME => {
                if let Some(block) = missing(method) {
                    return refuse(self.service.status(&ApiError::not_implemented(block)));
                }
                // The status of an invocation is the app's.
                let is_own = method != "InvokeService";
                request.extensions_mut().insert(caller);
                let server = DaprServer::from_arc(Arc::clone(&self.service));
                let mut server = server.max_decoding_message_size(self.service.max_message);
                let reply = adapt(server.call(request)).await;
                if is_own { too_large(reply) } else { reply }
            }
            _ if own => {
                let service = service.to_owned();
                request.extensions_mut().insert(caller);
                too_large(self.layotto.call(&service, request).await)
            }
            "grpc.reflection.v1.ServerReflection" => match reflection().build_v1() {
                Ok(mut server) => adapt(server.call(request)).await,
                Err(error) => refuse(Status::internal(error.to_string())),
            },
            "grpc.reflection.v1alpha.ServerReflection" => match reflection().build_v1alpha() {
                Ok(mut server) => adapt(server.call(request)).await,
                Err(error) => refuse(Status::internal(error.to_string())),
            },
            _ => proxy::proxy(&self.service, request, caller.trace).await,
        }
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(crate::proto::DESCRIPTORS)
}

/// `/package.Service/Method`
fn split(path: &str) -> (&str, &str) {
    path.trim_start_matches('/').rsplit_once('/').unwrap_or_default()
}

/// The building block of a method that this version does not have.
fn missing(method: &str) -> Option<&'static str> {
    let blocks = [
        ("Actor", "actors"),
        ("Workflow", "workflows"),
        ("Subtle", "subtlecrypto"),
        ("Encrypt", "crypto"),
        ("Decrypt", "crypto"),
        ("Converse", "conversation"),
    ];
    blocks.iter().find(|(word, _)| method.contains(word)).map(|(_, block)| *block)
}

pub(crate) async fn adapt(
    answer: impl Future<Output = Result<http::Response<tonic::body::Body>, Infallible>>,
) -> Reply {
    match answer.await {
        Ok(reply) => reply.map(Body::stream),
        Err(never) => match never {},
    }
}

/// A message that is too large is `RESOURCE_EXHAUSTED`, as everywhere in gRPC but in tonic. Nothing else here is
/// out of a range.
fn too_large(mut reply: Reply) -> Reply {
    if reply.headers().get(Status::GRPC_STATUS).is_some_and(|code| code == "11") {
        reply.headers_mut().insert(Status::GRPC_STATUS, HeaderValue::from_static("8"));
    }
    reply
}

/// An answer that is only a status.
pub(crate) fn refuse(status: Status) -> Reply {
    status.into_http()
}

#[cfg(test)]
mod tests {
    use super::{missing, split};

    #[test]
    fn methods_of_later_blocks_are_known() {
        for (path, service, block) in [
            ("/dapr.proto.runtime.v1.Dapr/GetState", "dapr.proto.runtime.v1.Dapr", None),
            ("/dapr.proto.runtime.v1.Dapr/InvokeActor", "dapr.proto.runtime.v1.Dapr", Some("actors")),
            (
                "/dapr.proto.runtime.v1.Dapr/SubtleSignAlpha1",
                "dapr.proto.runtime.v1.Dapr",
                Some("subtlecrypto"),
            ),
            ("/x.Y/Z", "x.Y", None),
            ("/", "", None),
            ("", "", None),
        ] {
            let (found, method) = split(path);
            assert_eq!((found, missing(method)), (service, block), "{path}");
        }
    }
}
