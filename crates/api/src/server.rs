//! Sockets and connections: limits, deadlines, draining; the same for all faces.

use crate::head;
use dhow_blocks::invoke::{Body, Reply};
use http::header::CONTENT_LENGTH;
use http::{Method, Request, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::{Semaphore, watch};

/// A client has this long for the head of a request, also for the next one on a connection that is kept.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// A client that takes nothing of what is sent is given up after this long.
const SEND_DEADLINE: Duration = Duration::from_secs(30);

/// Connections of one face; more wait in the system's queue.
const CONNECTIONS: usize = 10_000;

/// Bytes of a request's head at most, where a face does not say otherwise.
pub const HEAD_BYTES: usize = 64 << 10;

/// Less than this, hyper does not read at once.
const LEAST_HEAD_BYTES: usize = 8 << 10;

/// Streams of one HTTP/2 connection.
const HTTP2_STREAMS: u32 = 250;

/// Answers requests of one face.
pub trait Face: Send + Sync + 'static {
    /// Bytes of a request's head at most; not less than 8 KiB.
    fn max_head(&self) -> usize {
        HEAD_BYTES
    }

    /// Answers one request.
    fn answer(self: Arc<Self>, request: Request<Body>) -> impl Future<Output = Reply> + Send;
}

/// Tells all servers to finish; nothing stops yet where it is made.
#[derive(Clone, Debug, Default)]
pub struct Stop(watch::Sender<bool>);

/// Where a face listens.
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

// === impl Stop ===

impl Stop {
    /// Ends all servers: no new connections, requests under way are finished.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Waits until [`Stop::stop`] is called.
    pub async fn stopped(&self) {
        let mut stop = self.0.subscribe();
        // The sender is `self`, so this cannot fail.
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

// === impl Listener ===

impl Listener {
    /// Listens on a TCP address. The error says which address and, when it is taken, what to do.
    pub fn tcp(address: SocketAddr) -> io::Result<Listener> {
        let bound = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(4096)
        };
        bound().map(Listener::Tcp).map_err(|error: io::Error| {
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => ": another program listens there; choose another port",
                io::ErrorKind::PermissionDenied => ": ports below 1024 need privileges; choose another port",
                io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
                _ => "",
            };
            io::Error::new(error.kind(), format!("cannot listen on {address}{advice} ({error})"))
        })
    }

    /// The address of a TCP listener, with the port that the system chose.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }

    /// Serves a face until `stop`, then drains: connections that are idle are closed, requests under way
    /// are finished, for at most `grace`.
    pub async fn serve<F: Face>(self, face: Arc<F>, stop: Stop, grace: Duration) {
        let max_head = face.max_head().max(LEAST_HEAD_BYTES);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // No `pipeline_flush`: it takes the bound off what is buffered of a response that its client does not read.
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(max_head);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(HEAD_DEADLINE))
            // What is beyond is refused without an answer that clients understand; less than it is answered.
            .max_header_list_size(u32::try_from(max_head.saturating_mul(4)).unwrap_or(u32::MAX))
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
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    // Out of file descriptors, mostly: others have to finish first.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let face = Arc::clone(&face);
            let builder = Arc::clone(&builder);
            let watcher = graceful.watcher();
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let face = Arc::clone(&face);
                    let is_http2 = request.version() == Version::HTTP_2;
                    let is_head = request.method() == Method::HEAD;
                    async move {
                        let reply = match head::refusal(&request, max_head) {
                            Some(refusal) => refusal,
                            None => face.answer(request.map(Body::stream)).await,
                        };
                        Ok::<_, Infallible>(if is_http2 { with_body_if_any(reply, is_head) } else { reply })
                    }
                });
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                // Clients that go away, and responses that a guest broke off, end a connection; both are told
                // where they happen.
                if let Err(error) = watcher.watch(connection.into_owned()).await {
                    tracing::debug!("connection ended: {error}");
                }
                drop(slot);
            });
        }
        drop(self);
        let _ = tokio::time::timeout(grace, graceful.shutdown()).await;
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                give_up_sending(&stream);
                Ok(Box::new(stream))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// The reply over HTTP/2, where hyper sends a body also to `HEAD`, and with statuses that have none.
fn with_body_if_any(reply: Reply, is_head: bool) -> Reply {
    if !is_head && !matches!(reply.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return reply;
    }
    let (mut head, body) = reply.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|length| is_head && *length > 0) {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    Reply::from_parts(head, Body::Empty)
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Lets the system end a connection whose peer acknowledges nothing for [`SEND_DEADLINE`].
fn give_up_sending(stream: &impl AsRawFd) {
    let millis = SEND_DEADLINE.as_millis() as libc::c_uint;
    // SAFETY: the descriptor is open while `stream` is borrowed, and the option's value is an unsigned int
    // that lives through the call.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_USER_TIMEOUT,
            (&raw const millis).cast(),
            size_of::<libc::c_uint>() as libc::socklen_t,
        )
    };
    if result != 0 {
        tracing::debug!("cannot set a send deadline: {}", io::Error::last_os_error());
    }
}
