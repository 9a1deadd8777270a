//! Connections to the app's own Dapr endpoint. They never leave the process: the other end of the guest's socket is
//! served here, under the app's own identity.

use super::Sockets;
use super::errno::Errno;
use crate::outbound::sent_trace;
use crate::setup::Setup;
use crate::store::Origin;
use dhow_blocks::invoke::{Body, Invocation, RuntimeApi, Trigger};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Type};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

// === impl Setup ===

impl Setup {
    /// Whether the app knows its Dapr endpoint under this name.
    pub(super) fn is_runtime_name(&self, name: &str) -> bool {
        let mut known = self.runtime_authorities.iter().filter_map(|known| split(known));
        self.runtime_api.is_some() && known.any(|(host, _)| host.eq_ignore_ascii_case(name))
    }
}

// === impl Sockets ===

impl Sockets {
    /// Whether the app's own Dapr endpoint is there.
    pub(super) fn is_runtime(&self, address: SocketAddr) -> bool {
        is_endpoint(&self.setup, address)
    }

    pub(super) fn connect_runtime(&mut self, fd: u32, address: SocketAddr) -> Result<(), Errno> {
        let (guest, host) = socket2::Socket::pair(Domain::UNIX, Type::STREAM, None)?;
        host.set_nonblocking(true)?;
        let host =
            UnixStream::from_std(std::os::unix::net::UnixStream::from(std::os::fd::OwnedFd::from(host)))?;
        self.get_mut(fd)?.become_connected(guest, address)?;
        // Ends when the guest closes its end, which it does when it ends itself.
        spawn(host, &self.setup, self.origin);
        Ok(())
    }
}

/// Whether this is the app's own Dapr endpoint, and there is one.
pub(super) fn is_endpoint(setup: &Setup, address: SocketAddr) -> bool {
    if setup.runtime_api.is_none() {
        return false;
    }
    let ip = address.ip().to_canonical();
    setup.runtime_authorities.iter().filter_map(|known| split(known)).any(|(host, port)| {
        port == address.port()
            && match host.parse::<IpAddr>() {
                Ok(known) => known == ip,
                Err(_) if host.eq_ignore_ascii_case("localhost") => ip.is_loopback(),
                Err(_) => setup.names.of(ip).iter().any(|name| name.eq_ignore_ascii_case(host)),
            }
    })
}

/// Answers at the other end of the guest's connection, until the guest ends it.
pub(super) fn spawn(
    host: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    setup: &Arc<Setup>,
    origin: Origin,
) {
    if let Some(api) = setup.runtime_api.clone() {
        tokio::spawn(serve(host, api, Arc::clone(setup), origin));
    }
}

/// Host and port of an authority; port 80 if it names none.
fn split(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (authority, 80),
    };
    Some((host.trim_start_matches('[').trim_end_matches(']'), port))
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    api: Arc<dyn RuntimeApi>,
    setup: Arc<Setup>,
    origin: Origin,
) {
    let answer = |request: Request<Incoming>| {
        let (api, setup) = (Arc::clone(&api), Arc::clone(&setup));
        async move {
            let trace = sent_trace(request.headers()).unwrap_or(origin.trace).child();
            let request = request.map(Body::stream);
            let invocation = Invocation { request, trigger: Trigger::App, trace, depth: origin.depth };
            Ok::<_, Infallible>(api.call(&setup.scope, invocation).await)
        }
    };
    let mut server = http1::Builder::new();
    server.half_close(true);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await {
        let app_id = &*setup.scope.app_id;
        tracing::debug!(app_id, "a connection to the Dapr endpoint ended early: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn authorities() {
        for (authority, host, port) in [
            ("localhost:3500", "localhost", 3500),
            ("[::1]:3500", "::1", 3500),
            ("dapr.example", "dapr.example", 80),
            ("[::1]", "::1", 80),
        ] {
            assert_eq!(split(authority), Some((host, port)), "{authority}");
        }
        assert_eq!(split("localhost:http"), None);
    }
}
