//! A host with its gRPC face on a port, and clients of it.

use dhow_api::dapr::{ApiOptions, Dapr};
use dhow_api::grpc::{GrpcFace, MAX_MESSAGE};
use dhow_api::proto::runtime::v1::dapr_client::DaprClient;
use dhow_api::server::{Face, Listener, Stop};
use dhow_blocks::invoke::Body;
use dhow_blocks::scope::Scope;
use dhow_engine::{Engine, EngineOptions};
use dhow_host::{Components, Host, HostOptions};
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower_service::Service;

/// Longer than anything here takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Components of every block that can be had without a server.
pub(crate) const RESOURCES: &str = r"
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: memory }
spec: { type: state.in-memory, version: v1, metadata: [] }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: pubsub }
spec:
  type: pubsub.in-memory
  version: v1
  metadata:
    - { name: protectedTopics, value: secret }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: lockstore }
spec: { type: lock.in-memory, version: v1, metadata: [] }
";

/// A host, and its gRPC API for the app `shop`.
pub(crate) struct World {
    pub(crate) host: Arc<Host>,
    pub(crate) scope: Arc<Scope>,
    pub(crate) address: SocketAddr,
    pub(crate) stop: Stop,
    /// The host's data.
    pub(crate) folder: TempDir,
}

/// A connection for stubs, made by their first call.
#[derive(Clone)]
pub(crate) struct Wire(Client<HttpConnector, Body>);

impl World {
    pub(crate) async fn new(token: Option<&str>) -> World {
        World::with(RESOURCES, tempfile::tempdir().unwrap(), token).await
    }

    pub(crate) async fn with(resources: &str, folder: TempDir, token: Option<&str>) -> World {
        std::fs::write(folder.path().join("resources.yaml"), resources).unwrap();
        let resources = dhow_resources::load::load_dir(folder.path()).unwrap();
        let host = Host::new(HostOptions {
            engine: Engine::new(EngineOptions::default()).unwrap(),
            cache: None,
            components: Components::new(resources, folder.path()),
            keep_loaded: false,
        });
        let host = host.unwrap();
        let (scope, stop) = (host.outside_scope("shop").await.unwrap(), Stop::default());
        let api = Dapr::new(&host, Some(stop.clone()), ApiOptions::default());
        let face = GrpcFace::new(api, Arc::clone(&scope), token.map(str::to_owned), MAX_MESSAGE);
        let address = serve(face).await;
        World { host, scope, address, stop, folder }
    }

    pub(crate) fn client(&self) -> DaprClient<Wire> {
        DaprClient::with_origin(Wire::default(), origin(self.address))
    }
}

/// Serves a face on a port of its own.
pub(crate) async fn serve(face: impl Face) -> SocketAddr {
    let listener = Listener::tcp(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.address().unwrap();
    tokio::spawn(listener.serve(Arc::new(face), Stop::default(), Duration::ZERO));
    address
}

pub(crate) fn origin(address: SocketAddr) -> http::Uri {
    format!("http://{address}").parse().unwrap()
}

/// The header as text; empty if it is not there.
pub(crate) fn header<'a>(headers: &'a http::HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// The error must have this code and this reason.
pub(crate) fn assert_status<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    code: Code,
    reason: &str,
    what: &str,
) -> Status {
    let status = answer.err().unwrap_or_else(|| panic!("{what}: no error"));
    let found = status.get_error_details().error_info().map(|info| info.reason.clone());
    assert_eq!((status.code(), found.as_deref()), (code, Some(reason)), "{what}: {status:?}");
    status
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: took too long"))
}

// === impl Wire ===

impl Default for Wire {
    fn default() -> Wire {
        Wire(Client::builder(TokioExecutor::new()).http2_only(true).build_http())
    }
}

impl Service<http::Request<tonic::body::Body>> for Wire {
    type Response = http::Response<Incoming>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let client = self.0.clone();
        Box::pin(async move { client.request(request.map(Body::stream)).await })
    }
}
