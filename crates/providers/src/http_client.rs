//! The HTTP client of the providers that speak HTTP.
//!
//! Nothing follows redirections by itself, and every wait has a deadline.

use crate::tls::Tls;
use bytes::{Bytes, BytesMut};
use dhow_blocks::error::BlockError;
use dhow_blocks::invoke::Body;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::Duration;

/// A server that does not take a connection within this time is not there.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);

/// Idle connections are kept this long …
const IDLE: Duration = Duration::from_secs(30);

/// … and this many of them for one server.
const IDLE_CONNECTIONS: usize = 32;

/// A client with its pool of connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

// === impl HttpClient ===

impl HttpClient {
    /// Fails when a certificate or key cannot be read. The error shows neither.
    pub fn new(tls: &Tls) -> Result<HttpClient, String> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_DEADLINE));
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls.client_config()?).https_or_http();
        let connector = builder.enable_http1().enable_http2().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Ok(HttpClient { client })
    }

    /// Sends a request and reads the answer's head. The error does not show the URL, which may be secret.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, BlockError> {
        let host = request.uri().authority().map(|authority| authority.host().to_owned()).unwrap_or_default();
        let answer = self.client.request(request).await;
        answer.map_err(|error| BlockError::unavailable(format!("{host}: {}", chain(&error))))
    }

    /// Sends a request and reads the answer, of which the body may have so many bytes.
    pub async fn exchange(
        &self,
        request: Request<Body>,
        limit: u64,
        deadline: Duration,
    ) -> Result<Response<Bytes>, BlockError> {
        let exchange = async { read(self.send(request).await?, limit).await };
        tokio::time::timeout(deadline, exchange).await.unwrap_or_else(|_| Err(late(deadline)))
    }
}

/// What is said when there was no whole answer in time.
pub(crate) fn late(deadline: Duration) -> BlockError {
    BlockError::unavailable(format!("no complete answer within {deadline:?}"))
}

/// Reads a body of at most so many bytes.
pub(crate) async fn read(response: Response<Incoming>, limit: u64) -> Result<Response<Bytes>, BlockError> {
    let (head, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            BlockError::unavailable(format!("the answer was interrupted: {}", chain(&error)))
        })?;
        if let Ok(data) = frame.into_data() {
            if (bytes.len() + data.len()) as u64 > limit {
                return Err(BlockError::failed(format!("the answer is longer than {limit} bytes")));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Response::from_parts(head, bytes.freeze()))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
