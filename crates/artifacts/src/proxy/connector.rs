//! Connections to servers, through a proxy where there is one for them.

use super::{Proxies, Proxy};
use crate::url::chain;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

/// How long a proxy may take until there is a connection through it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest answer to CONNECT, in bytes.
const MAX_ANSWER: usize = 16 << 10;

/// Connects to servers, through a proxy where there is one for them.
#[derive(Clone)]
pub(crate) struct ProxyConnector {
    tcp: HttpConnector,
    /// To proxies, which may speak TLS themselves.
    to_proxy: HttpsConnector<HttpConnector>,
    proxies: Arc<Proxies>,
}

/// A connection to a server, or to the proxy that asks it.
pub(crate) struct Link {
    stream: MaybeHttpsStream<TokioIo<TcpStream>>,
    /// Whether at the other end is a proxy that wants whole URLs.
    asks_proxy: bool,
}

// === impl ProxyConnector ===

impl ProxyConnector {
    /// `to_proxy` connects to proxies.
    pub(crate) fn new(proxies: Arc<Proxies>, to_proxy: HttpsConnector<HttpConnector>) -> ProxyConnector {
        let mut tcp = HttpConnector::new();
        // TLS is the business of whoever wraps this.
        tcp.enforce_http(false);
        ProxyConnector { tcp, to_proxy, proxies }
    }

    async fn connect(mut self, uri: Uri) -> Result<Link, io::Error> {
        let Some(proxy) = self.proxies.of(&uri).map_err(io::Error::other)? else {
            let stream = self.tcp.call(uri).await.map_err(io::Error::other)?;
            return Ok(Link { stream: MaybeHttpsStream::Http(stream), asks_proxy: false });
        };
        let named = |reason: String| {
            let proxy = proxy.uri.to_string();
            io::Error::other(format!("proxy {}: {reason}", proxy.trim_end_matches('/')))
        };
        let opened = async {
            let stream =
                self.to_proxy.call(proxy.uri.clone()).await.map_err(|error| named(chain(&*error)))?;
            match uri.scheme_str() {
                Some("https") => {
                    let stream = proxy.tunnel(stream, &uri).await;
                    let stream = stream.map_err(|error| named(error.to_string()))?;
                    Ok(Link { stream, asks_proxy: false })
                }
                _ => Ok(Link { stream, asks_proxy: true }),
            }
        };
        let late = |_| named(format!("there was no connection through it within {} s", PATIENCE.as_secs()));
        timeout(PATIENCE, opened).await.map_err(late)?
    }
}

impl Service<Uri> for ProxyConnector {
    type Response = Link;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Link, io::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        self.tcp.poll_ready(cx).map_err(io::Error::other)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

// === impl Link ===

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.asks_proxy)
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
}

// === impl Proxy ===

impl Proxy {
    /// Has the proxy connect to the server behind this URL, and hands over the connection.
    async fn tunnel<S>(&self, stream: S, to: &Uri) -> Result<S, io::Error>
    where
        S: Read + Write + Unpin,
    {
        let host = to.host().unwrap_or_default();
        let port = to.port_u16().unwrap_or(443);
        let mut ask = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
        if let Some(authorization) = &self.authorization {
            ask.extend_from_slice(b"Proxy-Authorization: ");
            ask.extend_from_slice(authorization.as_bytes());
            ask.extend_from_slice(b"\r\n");
        }
        ask.extend_from_slice(b"\r\n");
        let mut stream = TokioIo::new(stream);
        stream.write_all(&ask).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        let end = |answer: &[u8]| answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let more = loop {
            if let Some(end) = end(&answer) {
                break answer.split_off(end + 4);
            }
            if answer.len() >= MAX_ANSWER {
                return Err(io::Error::other("its answer has no end"));
            }
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::Error::other("it closed the connection"));
            }
        };
        let status = std::str::from_utf8(&answer).ok().and_then(|answer| {
            let (version, rest) = answer.split_once(' ')?;
            let status = rest.get(..3)?.parse::<u16>().ok()?;
            version.starts_with("HTTP/1.").then_some(status)
        });
        match status {
            // The server behind it says nothing before it is spoken to.
            Some(200..=299) if !more.is_empty() => Err(io::Error::other("it says more than a proxy does")),
            Some(200..=299) => Ok(stream.into_inner()),
            Some(407) => Err(io::Error::other(match self.authorization {
                Some(_) => "it does not know this user and password (status 407)",
                None => "it wants to know who asks (status 407); write http://USER:PASSWORD@HOST:PORT",
            })),
            Some(status) => {
                Err(io::Error::other(format!("it did not connect to {host}:{port} (status {status})")))
            }
            None => Err(io::Error::other("it does not answer as a proxy does")),
        }
    }
}
