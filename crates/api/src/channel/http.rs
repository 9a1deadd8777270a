//! An app outside that speaks HTTP: the invocation is forwarded as it is, streaming both ways.

use super::transport::{Transport, Version};
use super::{Endpoint, sign};
use async_trait::async_trait;
use dhow_blocks::hops;
use dhow_blocks::invoke::{Channel, Invocation, InvokeError, Reply};
use http::header::{HOST, TE};

/// The way to an app that speaks HTTP/1.1, or HTTP/2 without TLS (`h2c`).
pub struct HttpChannel {
    endpoint: Endpoint,
    transport: Transport,
}

impl HttpChannel {
    /// Nothing is connected yet. `http2` says that the app speaks HTTP/2 also without TLS. The error says what is
    /// wrong with the endpoint.
    pub fn new(endpoint: Endpoint, http2: bool) -> Result<HttpChannel, String> {
        let version = if http2 { Version::Http2 } else { Version::Any };
        Ok(HttpChannel { transport: Transport::new(&endpoint, version)?, endpoint })
    }
}

#[async_trait]
impl Channel for HttpChannel {
    async fn invoke(&self, invocation: Invocation) -> Result<Reply, InvokeError> {
        let Endpoint { app_id, token, deadline, .. } = &self.endpoint;
        let Invocation { mut request, trace, .. } = invocation;
        let headers = request.headers_mut();
        hops::strip(headers);
        // The app is told its own name; the one that the client used stands in `x-forwarded-host`.
        for name in [HOST, TE] {
            headers.remove(name);
        }
        sign(headers, trace, token.as_deref());
        let mut reply = match tokio::time::timeout(*deadline, self.transport.send(request)).await {
            Ok(reply) => reply.map_err(|error| error.of(app_id))?,
            Err(_) => {
                let (app_id, seconds) = (app_id.to_string(), deadline.as_secs_f64());
                return Err(InvokeError::DeadlineExceeded { app_id, seconds });
            }
        };
        hops::strip(reply.headers_mut());
        Ok(reply)
    }
}
