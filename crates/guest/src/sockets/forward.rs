//! Requests to a program that listens: they go to its port over kept connections, which end with the port.

use super::ports::Ports;
use crate::counted::{Counted, Early, announced};
use crate::failure::Failure;
use dhow_blocks::hops;
use dhow_blocks::invoke::{Body, Invocation, Reply};
use http::header::{HOST, HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::time::Duration;

/// Idle connections that are kept, and how long.
const IDLE_CONNECTIONS: usize = 64;
const IDLE: Duration = Duration::from_secs(30);

/// Connections to the program, made when first used.
#[derive(Default)]
pub(super) struct Forward {
    client: Mutex<Option<Client<HttpConnector, Body>>>,
}

// === impl Ports ===

impl Ports {
    /// Sends a request with at most `limit` bytes of body to the program, which listens there; the answer is there when
    /// its head is.
    pub async fn forward(
        &self,
        address: SocketAddr,
        invocation: Invocation,
        limit: u64,
    ) -> Result<Reply, Failure> {
        let Invocation { mut request, trace, .. } = invocation;
        if announced(request.headers()).is_some_and(|length| length > limit) {
            return Err(Failure::RequestTooLarge(limit));
        }
        hops::strip(request.headers_mut());
        if let Ok(trace) = HeaderValue::try_from(trace.to_string()) {
            request.headers_mut().insert(HeaderName::from_static("traceparent"), trace);
        }
        // The name that the client used is the program's to know; without one it is its address.
        let named = request.uri().authority().and_then(|name| HeaderValue::from_str(name.as_str()).ok());
        if let (false, Some(name)) = (request.headers().contains_key(HOST), named) {
            request.headers_mut().insert(HOST, name);
        }
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = at(request.uri(), address).map_err(|error| Failure::Host(error.to_string()))?;
        let request = request.map(|body| match body {
            Body::Stream(body) => Body::stream(TooLarge(Counted::new(body, limit))),
            body => body,
        });
        let answer = self.forward.client().request(request).await;
        let mut answer = answer.map_err(|error| unreachable(&error))?;
        if answer.status().is_informational() {
            return Err(Failure::informational(answer.status()));
        }
        hops::strip(answer.headers_mut());
        // Whatever the program speaks.
        *answer.version_mut() = Version::HTTP_11;
        Ok(answer.map(Body::stream))
    }
}

fn at(uri: &Uri, address: SocketAddr) -> Result<Uri, http::Error> {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(Authority::try_from(address.to_string())?);
    parts.path_and_query.get_or_insert_with(|| http::uri::PathAndQuery::from_static("/"));
    Ok(Uri::from_parts(parts)?)
}

fn unreachable(error: &hyper_util::client::legacy::Error) -> Failure {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(TooLargeError(limit)) = error.downcast_ref() {
            return Failure::RequestTooLarge(*limit);
        }
        text = format!("{text}: {error}");
        cause = error.source();
    }
    Failure::ErrorAnswer(text)
}

// === impl Forward ===

impl Forward {
    fn client(&self) -> Client<HttpConnector, Body> {
        let mut client = self.client.lock();
        let client = client.get_or_insert_with(|| {
            let mut tcp = HttpConnector::new();
            tcp.set_nodelay(true);
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .build(tcp)
        });
        client.clone()
    }

    /// Lets go of connections that are not in use.
    pub(super) fn close(&self) {
        *self.client.lock() = None;
    }
}

/// A counted body with an error that can be told from others.
struct TooLarge<B>(Counted<B>);

#[derive(Debug, thiserror::Error)]
#[error("the request body has more than the {0} bytes allowed")]
struct TooLargeError(u64);

impl<B> http_body::Body for TooLarge<B>
where
    B: http_body::Body<Data = bytes::Bytes, Error = dhow_blocks::invoke::BodyError> + Unpin,
{
    type Data = bytes::Bytes;
    type Error = dhow_blocks::invoke::BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(cx).map_err(|early| match early {
            Early::TooLarge(limit) => TooLargeError(limit).into(),
            Early::Broken(error) => error,
        })
    }
}
