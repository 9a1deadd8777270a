//! Layotto's gRPC API, for programs outside and for native apps.
//!
//! | file | subject |
//! |---|---|
//! | `runtime` | the methods of `spec.proto.runtime.v1.Runtime`, each one line |
//! | `publish` | publish, at once and later, and topics on a stream |
//! | `invoke` | invocation with messages |
//! | `configuration` | configuration, also on a stream |
//! | `lock` | holding locks for longer, and ids |
//! | `file` | files |
//! | `oss` | objects in buckets |
//! | `stream` | contents on streams |
//! | `cryption` | encryption |
//! | `email` | e-mail |
//! | `lifecycle` | changes of open components |
//! | `absent` | services that no provider is for |
//!
//! It is served on every port that Dapr's gRPC API is on, as Layotto's multiple-API program does it, to the same
//! callers with the same token. Messages that both APIs have are one type (`build.rs`), and what is done with them is
//! Dapr's code (`crate::grpc`); only keys differ, which are Layotto's by the scope
//! ([`Scope::by_layotto`]). Facts: Layotto 0.5, `spec/proto` and its handlers' behaviour.

mod absent;
mod configuration;
mod cryption;
mod email;
mod file;
mod invoke;
mod lifecycle;
mod lock;
mod oss;
mod publish;
mod runtime;
mod stream;

pub(crate) use publish::topic_event;

use crate::dapr::Dapr;
use crate::dapr::error::ApiError;
use crate::grpc::{self, adapt, refuse};

use crate::proto::layotto::cryption::cryption_service_server::{self, CryptionServiceServer};
use crate::proto::layotto::delay_queue::delay_queue_server::{self, DelayQueueServer};
use crate::proto::layotto::email::email_service_server::{self, EmailServiceServer};
use crate::proto::layotto::phone::phone_call_service_server::{self, PhoneCallServiceServer};
use crate::proto::layotto::runtime::lifecycle_server::{self, LifecycleServer};
use crate::proto::layotto::runtime::runtime_server::{self, RuntimeServer};
use crate::proto::layotto::s3::object_storage_service_server::{self, ObjectStorageServiceServer};
use crate::proto::layotto::sms::sms_service_server::{self, SmsServiceServer};
use dhow_blocks::invoke::{Body, Reply};
use dhow_blocks::scope::Scope;
use http::Request;
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::{Response, Status};
use tower_service::Service as _;

/// Everything that an answer needs; one for all requests of a face.
pub(crate) struct Layotto {
    /// What Dapr's methods work with, too; its scope has Layotto's keys.
    inner: grpc::Service,
    /// What `SayHello` says, by name; empty: the same to everybody.
    hellos: BTreeMap<String, String>,
}

/// Whether a gRPC service is one of these.
pub(crate) fn serves(service: &str) -> bool {
    [
        runtime_server::SERVICE_NAME,
        object_storage_service_server::SERVICE_NAME,
        lifecycle_server::SERVICE_NAME,
        delay_queue_server::SERVICE_NAME,
        cryption_service_server::SERVICE_NAME,
        email_service_server::SERVICE_NAME,
        phone_call_service_server::SERVICE_NAME,
        sms_service_server::SERVICE_NAME,
    ]
    .contains(&service)
}

/// Answers a request with a generated server of this service.
macro_rules! with {
    ($server:ident, $service:expr, $request:expr) => {{
        let server = $server::from_arc(Arc::clone($service));
        let mut server = server.max_decoding_message_size($service.inner.max_message);
        adapt(server.call($request)).await
    }};
}

// === impl Layotto ===

impl Layotto {
    pub(crate) fn new(api: Arc<Dapr>, scope: &Scope, max_message: usize) -> Layotto {
        // Events may wait from before the host was started.
        if let (Some(host), Ok(runtime)) = (api.host(), tokio::runtime::Handle::try_current()) {
            let app_id = Arc::clone(&scope.app_id);
            runtime.spawn(async move { host.triggers().publish_delayed(&host, &app_id).await });
        }
        let inner = grpc::Service { api, scope: Arc::new(scope.by_layotto()), max_message };
        Layotto { inner, hellos: BTreeMap::new() }
    }

    pub(crate) fn greet(&mut self, hellos: BTreeMap<String, String>) {
        self.hellos = hellos;
    }

    /// Answers a request to one of the services.
    pub(crate) async fn call(self: &Arc<Self>, service: &str, request: Request<Body>) -> Reply {
        match service {
            runtime_server::SERVICE_NAME => with!(RuntimeServer, self, request),
            object_storage_service_server::SERVICE_NAME => with!(ObjectStorageServiceServer, self, request),
            delay_queue_server::SERVICE_NAME => with!(DelayQueueServer, self, request),
            cryption_service_server::SERVICE_NAME => with!(CryptionServiceServer, self, request),
            email_service_server::SERVICE_NAME => with!(EmailServiceServer, self, request),
            lifecycle_server::SERVICE_NAME => with!(LifecycleServer, self, request),
            phone_call_service_server::SERVICE_NAME => with!(PhoneCallServiceServer, self, request),
            sms_service_server::SERVICE_NAME => with!(SmsServiceServer, self, request),
            _ => refuse(Status::unimplemented(format!("unknown service {service}"))),
        }
    }

    fn scope(&self) -> &Arc<Scope> {
        &self.inner.scope
    }

    fn answer<T>(&self, answer: Result<T, ApiError>) -> Result<Response<T>, Status> {
        self.inner.answer(answer)
    }

    fn status(&self, error: &ApiError) -> Status {
        self.inner.status(error)
    }
}
