//! HTTP requests of guests: to the world, and to the runtime itself.
//!
//! A request to the app's own Dapr endpoint is answered in this process, under the app's identity. Any
//! other goes to the network, if the app's grants name the host.

mod again;

use crate::setup::Setup;
use crate::store::Origin;
use again::Again;
use bytes::Bytes;
use dhow_blocks::grants::{Ask, Denied};
use dhow_blocks::invoke::{Body, Invocation, Trigger};
use dhow_blocks::trace::TraceContext;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// Waits longer than this end a request, whatever the guest asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Idle connections to one host that are kept for the next request.
const IDLE_CONNECTIONS: usize = 64;

/// Body writes of a guest that are queued before it has to wait, and the size of one. Together they bound
/// what one response can hold in memory: 1 MiB.
const QUEUED_WRITES: usize = 16;
const MAX_WRITE: usize = 64 << 10;

type Sent =
    wasmtime_wasi_http::Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>)>;

/// A pooled HTTP/1.1 and HTTP/2 client with the system's certificate authorities; made when first used.
#[derive(Default)]
pub struct HttpClient {
    client: OnceLock<Client<HttpsConnector<HttpConnector>, WasiBody>>,
    /// For gRPC, which is HTTP/2 where nothing was negotiated, too.
    grpc: OnceLock<Client<HttpsConnector<HttpConnector>, WasiBody>>,
}

/// The way out of one guest.
pub(crate) struct Outbound {
    pub(crate) setup: Arc<Setup>,
    pub(crate) origin: Origin,
    /// Made at the first request: most invocations send none.
    slots: Option<Arc<Semaphore>>,
}

/// Why a request has no answer.
enum NoResponse {
    Late(Error),
    Failed(legacy::Error),
}

// === impl Outbound ===

impl Outbound {
    pub(crate) fn new(setup: Arc<Setup>, origin: Origin) -> Outbound {
        Outbound { setup, origin, slots: None }
    }

    fn slot(&mut self) -> Option<OwnedSemaphorePermit> {
        let slots = self.slots.get_or_insert_with(|| Arc::new(Semaphore::new(self.setup.bounds.host_calls)));
        Arc::clone(slots).try_acquire_owned().ok()
    }

    /// Whether a request to that URI may leave, or is for the runtime itself.
    pub(crate) fn may_send(&self, uri: &Uri) -> bool {
        if self.setup.runtime_api.is_some() && self.is_runtime(uri) {
            return true;
        }
        port(uri).is_some() && self.check(uri).is_ok()
    }

    fn check(&self, uri: &Uri) -> Result<(), Denied> {
        let scheme = uri.scheme_str().unwrap_or("https");
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = port(uri).unwrap_or_default();
        self.setup.scope.check(Ask::Http { scheme, host, port })
    }

    fn is_runtime(&self, uri: &Uri) -> bool {
        let Some(host) = uri.host() else { return false };
        let is_secure = uri.scheme() == Some(&Scheme::HTTPS);
        let port = port(uri);
        self.setup.runtime_authorities.iter().any(|known| {
            let known = match known.strip_prefix("https://") {
                Some(known) if is_secure => known,
                None if !is_secure => known,
                _ => return false,
            };
            known.rsplit_once(':').is_some_and(|(known_host, known_port)| {
                known_host.eq_ignore_ascii_case(host) && known_port.parse().ok() == port
            })
        })
    }
}

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
        sent: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        // What becomes of the request body is told by the response.
        drop(sent);
        let Some(slot) = self.slot() else {
            return Box::new(std::future::ready(Err(Error::ConnectionLimitReached)));
        };
        let traceparent = HeaderName::from_static("traceparent");
        let sent = sent_trace(request.headers());
        let trace = sent.unwrap_or(self.origin.trace).child();
        let setup = Arc::clone(&self.setup);
        let RequestOptions { connect_timeout, first_byte_timeout: first_byte, between_bytes_timeout } =
            options.unwrap_or_default();
        let between_bytes = between_bytes_timeout.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
        if let Some(api) = setup.runtime_api.clone().filter(|_| self.is_runtime(request.uri())) {
            let depth = self.origin.depth;
            return Box::new(async move {
                let request = request.map(|body| Body::stream(Accepted(Some(body))));
                let invocation = Invocation { request, trigger: Trigger::App, trace, depth };
                let reply = api.call(&setup.scope, invocation);
                let reply = match first_byte {
                    Some(limit) => timeout(limit, reply).await.map_err(|_| Error::HttpResponseTimeout)?,
                    None => reply.await,
                };
                Ok(done(reply.map(|body| Held::new(body, slot, between_bytes))))
            });
        }
        if sent.is_none()
            && let Ok(value) = HeaderValue::try_from(trace.to_string())
        {
            request.headers_mut().insert(traceparent, value);
        }
        if port(request.uri()).is_none() {
            return Box::new(std::future::ready(Err(Error::HttpRequestUriInvalid)));
        }
        if self.check(request.uri()).is_err() {
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        }
        Box::new(async move {
            let first_byte = first_byte.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
            let (request, again) = Again::prepare(request);
            let begun = Instant::now();
            let mut response = setup.client.send(request, connect_timeout, first_byte).await;
            if let Err(NoResponse::Failed(error)) = &response
                && is_lost(error)
                && let Some(request) = again.and_then(Again::request)
            {
                let left = first_byte.saturating_sub(begun.elapsed());
                response = setup.client.send(request, connect_timeout, left).await;
            }
            let response = response.map_err(|failure| match failure {
                NoResponse::Late(error) => error,
                NoResponse::Failed(error) => client_error(&error),
            })?;
            Ok(done(response.map(|body| Held::new(Body::stream(body), slot, between_bytes))))
        })
    }

    fn set_host_header(&mut self) -> bool {
        // The client sets it, or `:authority` for HTTP/2.
        false
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        QUEUED_WRITES
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        MAX_WRITE
    }
}

/// The port that a request goes to; none if what stands there is no port.
fn port(uri: &Uri) -> Option<u16> {
    let usual = if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
    let authority = uri.authority()?.as_str();
    // Behind the last colon, unless it is within the brackets of an address, or what stands before `@`.
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        // Nothing behind the colon is the usual one, too (RFC 3986, section 3.2.3).
        None | Some((_, "")) => Some(usual),
        Some((_, port)) => port.parse().ok(),
    }
}

/// The trace that a guest sends along: one that records spans of its own names the one that asks.
pub(crate) fn sent_trace(headers: &HeaderMap) -> Option<TraceContext> {
    headers.get("traceparent").and_then(|header| header.to_str().ok()).and_then(TraceContext::parse)
}

fn done(
    response: Response<Held>,
) -> (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>) {
    (response.map(BodyExt::boxed_unsync), Box::new(std::future::ready(Ok(()))))
}

/// The errors in an error, from the outermost to the cause.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        // What an error of the system wraps is not its source.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        wrapped.map(|inner| inner as _).or_else(|| error.source())
    })
}

/// Whether the connection ended before anything came back.
fn is_lost(error: &legacy::Error) -> bool {
    !error.is_connect()
        && causes(error).any(|cause| {
            let is_gone = |error: &hyper::Error| error.is_incomplete_message() || error.is_closed();
            let is_reset = |error: &io::Error| {
                matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
            };
            cause.downcast_ref().is_some_and(is_gone) || cause.downcast_ref().is_some_and(is_reset)
        })
}

fn client_error(error: &legacy::Error) -> Error {
    let mut is_protocol = false;
    for cause in causes(error) {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::ConnectionRefused => return Error::ConnectionRefused,
                io::ErrorKind::TimedOut => return Error::ConnectionTimeout,
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    return Error::ConnectionTerminated;
                }
                _ => {}
            }
        }
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return match error {
                rustls::Error::InvalidCertificate(_) => Error::TlsCertificateError,
                _ => Error::TlsProtocolError,
            };
        }
        is_protocol |= cause
            .downcast_ref::<hyper::Error>()
            .is_some_and(|error| error.is_parse() || error.is_incomplete_message() || error.is_user());
    }
    let text = chain(error);
    match error.is_connect() {
        true if text.contains("dns error") => Error::DnsError { rcode: None, info_code: None },
        true => Error::DestinationUnavailable,
        false if is_protocol => Error::HttpProtocolError,
        false => Error::InternalError(Some(text)),
    }
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

// === impl HttpClient ===

impl HttpClient {
    /// Sends a request, and waits for the head of its answer.
    async fn send(
        &self,
        mut request: Request<WasiBody>,
        connect: Option<Duration>,
        first_byte: Duration,
    ) -> Result<Response<Incoming>, NoResponse> {
        let mut connection = connect.map(|limit| (limit, capture_connection(&mut request)));
        let mut response = self.get(request.version() == http::Version::HTTP_2).request(request);
        let mut early = None;
        if let Some((limit, connection)) = &mut connection {
            tokio::select! {
                // An error: there is no connection then.
                reply = &mut response => early = Some(reply),
                connected = timeout(*limit, connection.wait_for_connection_metadata()) => {
                    connected.map_err(|_| NoResponse::Late(Error::ConnectionTimeout))?;
                }
            }
        }
        let response = match early {
            Some(response) => response,
            None => {
                let late = |_| NoResponse::Late(Error::HttpResponseTimeout);
                timeout(first_byte, response).await.map_err(late)?
            }
        };
        response.map_err(NoResponse::Failed)
    }

    fn get(&self, is_grpc: bool) -> &Client<HttpsConnector<HttpConnector>, WasiBody> {
        let client = if is_grpc { &self.grpc } else { &self.client };
        client.get_or_init(|| {
            let mut tcp = HttpConnector::new();
            tcp.enforce_http(false);
            tcp.set_nodelay(true);
            tcp.set_connect_timeout(Some(Duration::from_secs(30)));
            let builder = hyper_rustls::HttpsConnectorBuilder::new();
            // A machine without certificate authorities of its own gets Mozilla's.
            let builder =
                match builder.with_provider_and_native_roots(rustls::crypto::ring::default_provider()) {
                    Ok(builder) => builder,
                    Err(_) => hyper_rustls::HttpsConnectorBuilder::new().with_webpki_roots(),
                };
            let https = builder.https_or_http().enable_http1().enable_http2().wrap_connector(tcp);
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(Duration::from_secs(30))
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .http2_only(is_grpc)
                .build(https)
        })
    }
}

// === impl Held ===

/// A response body that holds its request's slot until it is read or dropped, and ends when the sender is
/// silent for too long.
struct Held {
    body: Body,
    _slot: OwnedSemaphorePermit,
    patience: Duration,
    alarm: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Held {
    fn new(body: Body, slot: OwnedSemaphorePermit, patience: Duration) -> Held {
        Held { body, _slot: slot, patience, alarm: None }
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.alarm = None;
                Poll::Ready(
                    frame.map(|frame| frame.map_err(|error| Error::InternalError(Some(error.to_string())))),
                )
            }
            Poll::Pending => {
                let patience = this.patience;
                let alarm = this.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                match alarm.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Some(Err(Error::ConnectionReadTimeout))),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Accepted ===

/// A request body that is read to its end even when the answer does not need it. A guest that still writes
/// would otherwise find its stream closed and take the answer for a failure.
struct Accepted(Option<WasiBody>);

impl http_body::Body for Accepted {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.0 = None;
        }
        frame
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        let Some(mut body) = self.0.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // Ends when the guest finishes the body or is gone.
            runtime.spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::port;

    #[test]
    fn what_is_no_port_is_not_the_usual_one() {
        for (uri, expected) in [
            ("http://a/", Some(80)),
            ("https://a/", Some(443)),
            ("http://a:/", Some(80)),
            ("http://a:8080/", Some(8080)),
            ("http://user:1@a/", Some(80)),
            ("http://[::1]/", Some(80)),
            ("https://[::1]:8443/", Some(8443)),
            ("http://a:99999/", None),
            ("http://a:65616/", None),
        ] {
            assert_eq!(port(&uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
