//! Sockets and connections of a registry: limits, deadlines, TLS, draining.

use super::http::{Body, Face};
use super::uploads::BodyError;
use crate::tls::certificates;
use ::http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// A client has this long for the head of a request, also for the next one on a connection that is kept, and for TLS.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// A client that takes nothing of what is sent is given up after this long.
const SEND_DEADLINE: Duration = Duration::from_secs(60);

/// Connections at once; more wait in the system's queue.
const CONNECTIONS: usize = 2000;

/// Bytes of a request's head at most.
const HEAD_BYTES: usize = 64 << 10;

/// Streams of one HTTP/2 connection.
const HTTP2_STREAMS: u32 = 100;

/// Requests under way have this long when the registry goes down.
pub const GRACE: Duration = Duration::from_secs(30);

/// Tells servers and their work to finish.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<watch::Sender<bool>>);

/// Where a registry listens.
pub struct Listener(Kind);

enum Kind {
    Tcp(TcpListener, Option<TlsAcceptor>),
    Unix(UnixListener),
}

// === impl Stop ===

impl Stop {
    /// No new connections from here on.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Waits for [`Stop::stop`].
    pub async fn stopped(&self) {
        let mut stop = self.0.subscribe();
        // The sender is `self`, so this cannot fail.
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

// === impl Listener ===

impl Listener {
    /// Listens on a TCP address, with TLS if there are a certificate chain and a key (both PEM).
    pub fn tcp(address: SocketAddr, tls: Option<(&Path, &Path)>) -> io::Result<Listener> {
        let acceptor = tls.map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
        let bound = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(1024)
        };
        let listener = bound().map_err(|error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("cannot listen on {address}: {error}; choose another --addr"),
            )
        })?;
        Ok(Listener(Kind::Tcp(listener, acceptor)))
    }

    /// Takes a Unix socket that listens already.
    pub(super) fn unix(listener: UnixListener) -> Listener {
        Listener(Kind::Unix(listener))
    }

    /// The address, with the port that the system chose.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Tcp(listener, _) => listener.local_addr().ok(),
            Kind::Unix(_) => None,
        }
    }

    /// Serves the registry until `stop`, then finishes what is under way, for at most [`GRACE`].
    pub async fn serve(self, face: Face, stop: Stop) {
        self.serve_with(stop, move |request| {
            let face = face.clone();
            async move { face.answer(request.map(boxed)).await }
        })
        .await;
    }

    /// The same with other answers.
    pub(super) async fn serve_with<F, A>(self, stop: Stop, answer: F)
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(HEAD_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(HEAD_DEADLINE))
            .max_header_list_size(HEAD_BYTES as u32)
            .max_concurrent_streams(HTTP2_STREAMS);
        let builder = Arc::new(builder);
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let mut stopped = std::pin::pin!(stop.stopped());
        loop {
            let slot = tokio::select! {
                slot = Arc::clone(&slots).acquire_owned() => slot,
                () = &mut stopped => break,
            };
            let Ok(slot) = slot else { break };
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = &mut stopped => break,
            };
            let accepted = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, mostly: others have to finish first.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let builder = Arc::clone(&builder);
            let watcher = graceful.watcher();
            let answer = answer.clone();
            tokio::spawn(async move {
                let stream = match tokio::time::timeout(HEAD_DEADLINE, accepted.secured()).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return tracing::debug!("no TLS: {error}"),
                    Err(_) => return tracing::debug!("no TLS in time"),
                };
                let service = service_fn(move |request: Request<Incoming>| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                if let Err(error) = watcher.watch(connection.into_owned()).await {
                    tracing::debug!("connection ended: {error}");
                }
                drop(slot);
            });
        }
        drop(self);
        let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match &self.0 {
            Kind::Tcp(listener, acceptor) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(SEND_DEADLINE))?;
                Ok(match acceptor {
                    None => Accepted::Plain(Box::new(stream)),
                    Some(acceptor) => Accepted::Tls(stream, acceptor.clone()),
                })
            }
            Kind::Unix(listener) => Ok(Accepted::Plain(Box::new(listener.accept().await?.0))),
        }
    }
}

fn boxed(body: Incoming) -> Body {
    body.map_err(|error| -> BodyError { Box::new(error) }).boxed_unsync()
}

/// A connection before it is clear that its client speaks TLS.
enum Accepted {
    Plain(Box<dyn Stream>),
    Tls(TcpStream, TlsAcceptor),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

// === impl Accepted ===

impl Accepted {
    async fn secured(self) -> io::Result<Box<dyn Stream>> {
        match self {
            Accepted::Plain(stream) => Ok(stream),
            Accepted::Tls(stream, acceptor) => Ok(Box::new(acceptor.accept(stream).await?)),
        }
    }
}

fn acceptor(certificate: &Path, key: &Path) -> io::Result<TlsAcceptor> {
    let invalid = |path: &Path, reason: String| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {reason}", path.display()))
    };
    let chain = certificates(certificate).map_err(|reason| invalid(certificate, reason))?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| invalid(key, format!("no private key in PEM: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| {
            invalid(key, format!("the key does not go with {}: {error}", certificate.display()))
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
