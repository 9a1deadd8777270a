//! Pooled connections to one app. A connection that is lost is made anew by the next request.

use super::Endpoint;
use dhow_blocks::invoke::{Body, InvokeError, Reply};
use dhow_providers::tls::Tls;
use futures::future::BoxFuture;
use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::task::{Context, Poll};
use std::time::Duration;
use tower_service::Service;

/// A connection that is not up by then is given up.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection without requests is kept for this long.
const IDLE: Duration = Duration::from_secs(60);

/// Connections kept without requests.
const POOL: usize = 64;

/// A connection of HTTP/2 whose peer says nothing for this long is asked whether it is there, and given this
/// long to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Bytes that a stream of HTTP/2 may send unasked. The protocol's own 64 KiB slow down large messages even on a
/// loopback.
const WINDOW: u32 = 1 << 20;

/// Which versions of HTTP an app speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// 1.1, or 2 if TLS finds that the app speaks it.
    Any,
    /// 2 only; without TLS from the first byte on.
    Http2,
}

/// Sends requests to one app.
#[derive(Clone)]
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    scheme: Scheme,
    authority: Authority,
}

/// A request did not reach the app, or its answer did not come back.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreachable(pub(super) String);

// === impl Transport ===

impl Transport {
    /// Nothing is connected yet. The error says what is wrong with the endpoint.
    pub(super) fn new(endpoint: &Endpoint, version: Version) -> Result<Transport, String> {
        let Endpoint { host, port, tls, .. } = endpoint;
        let is_bare_ipv6 = host.contains(':') && !host.starts_with('[');
        let address = if is_bare_ipv6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let authority =
            address.parse().map_err(|error| format!("{address:?} is no address of an app: {error}"))?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        // Every certificate is taken; see [`Endpoint::tls`].
        let config = Tls { insecure: true, ..Tls::default() }.client_config()?;
        let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
        let connector = match version {
            Version::Any => builder.enable_all_versions().wrap_connector(connector),
            Version::Http2 => builder.enable_http2().wrap_connector(connector),
        };
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(POOL)
            .http2_only(version == Version::Http2)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE)
            .http2_initial_stream_window_size(WINDOW)
            .http2_initial_connection_window_size(4 * WINDOW);
        let scheme = if *tls { Scheme::HTTPS } else { Scheme::HTTP };
        Ok(Transport { client: builder.build(connector), scheme, authority })
    }

    /// The app's address, without a path.
    pub(super) fn origin(&self) -> Uri {
        self.at(PathAndQuery::from_static("/"))
    }

    fn at(&self, path: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        // All three parts are there, which is the one thing that could be wrong with them.
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Sends a request to the path that it names and waits for the head of the answer.
    pub(super) async fn send(&self, mut request: http::Request<Body>) -> Result<Reply, Unreachable> {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = self.at(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        // What the client said is the version of another connection.
        *request.version_mut() = http::Version::default();
        let reply = self.client.request(request).await.map_err(|error| self.unreachable(&error))?;
        Ok(reply.map(Body::stream))
    }

    fn unreachable(&self, error: &hyper_util::client::legacy::Error) -> Unreachable {
        let mut reason = format!("{}://{}: {error}", self.scheme, self.authority);
        let mut cause = std::error::Error::source(error);
        while let Some(found) = cause {
            reason.push_str(&format!(": {found}"));
            cause = found.source();
        }
        if error.is_connect() {
            reason.push_str("; is the app up, and does it listen there?");
        }
        Unreachable(reason)
    }
}

/// For the stubs of gRPC.
impl Service<http::Request<tonic::body::Body>> for Transport {
    type Response = http::Response<Incoming>;
    type Error = Unreachable;
    type Future = BoxFuture<'static, Result<Self::Response, Unreachable>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unreachable>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let sent = this.client.request(request.map(Body::stream)).await;
            sent.map_err(|error| this.unreachable(&error))
        })
    }
}

// === impl Unreachable ===

impl Unreachable {
    pub(super) fn of(self, app_id: &str) -> InvokeError {
        InvokeError::Unreachable { app_id: app_id.to_owned(), reason: self.0 }
    }
}
