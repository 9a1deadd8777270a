//! Apps that are not on this host: on another host of dhow, or services that speak plain HTTP.
//!
//! A host that is asked for an app it does not have looks it up, and passes the invocation on, as HTTP/2 without
//! TLS, to the internal port of the host that has it. The resolver knows a secret of each
//! host; without it an internal port answers nothing. Services outside are named by an `HTTPEndpoint` resource, or by their URL.

use crate::channel::Endpoint;
use crate::channel::http::HttpChannel;
use crate::https;
use crate::server::Face;
use crate::text;
use async_trait::async_trait;
use dhow_blocks::hops;
use dhow_blocks::invoke::{Body, Channel, Invocation, InvokeError, Invoker, Reply, Trigger};
use dhow_blocks::resolve::{NameResolver, Place};
use dhow_host::Host;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{Request, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Between hosts: who is meant, the shared secret, how many apps called each other to come here.
const TARGET: HeaderName = HeaderName::from_static("dhow-target-app");
const SECRET: HeaderName = HeaderName::from_static("dhow-host-secret");
const DEPTH: HeaderName = HeaderName::from_static("dhow-depth");

/// From a request to the head of the answer of another host.
const ANSWER: Duration = Duration::from_secs(3600);

/// From a request to the head of the answer of a service outside.
const SERVICE_ANSWER: Duration = Duration::from_secs(60);

/// Tries to reach a host beside the first one, and the time between (Dapr's built-in service retries).
const RETRIES: usize = 3;
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Largest body that is kept to be sent again, in bytes.
const MAX_REPEATED_BODY: u64 = 4 << 20;

/// Hosts whose connections are kept.
const MAX_CHANNELS: usize = 1000;

/// A service outside, as an `HTTPEndpoint` resource describes it, with secrets resolved.
#[derive(Clone)]
pub struct Service {
    /// `http(s)://host[:port][/path]`
    pub base: Uri,
    /// Sent with every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// The way to apps that are elsewhere.
pub struct Neighbours {
    resolver: Option<Arc<dyn NameResolver>>,
    services: HashMap<String, Service>,
    /// By address.
    channels: Mutex<HashMap<String, Arc<HttpChannel>>>,
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

/// The internal port: invocations from other hosts.
pub struct Internal {
    /// Whose apps.
    pub host: Arc<Host>,
    /// What the other host has to know.
    pub secret: String,
}

// === impl Neighbours ===

impl Neighbours {
    /// Apps that the resolver knows, and these services.
    pub fn new(resolver: Option<Arc<dyn NameResolver>>, services: HashMap<String, Service>) -> Neighbours {
        let connector = https::builder().https_or_http().enable_all_versions().build();
        let mut client = Client::builder(TokioExecutor::new());
        client.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        Neighbours { resolver, services, channels: Mutex::default(), client: client.build(connector) }
    }

    async fn to_host(&self, app_id: &str, invocation: Invocation) -> Result<Reply, InvokeError> {
        let unreachable = |reason: String| InvokeError::Unreachable { app_id: app_id.to_owned(), reason };
        let unknown = || InvokeError::UnknownApp { app_id: app_id.to_owned() };
        let Some(resolver) = &self.resolver else { return Err(unknown()) };
        let Invocation { request, trigger, trace, depth } = invocation;
        let (mut head, body) = request.into_parts();
        let target = HeaderValue::try_from(app_id).map_err(|error| unreachable(error.to_string()))?;
        head.headers.insert(TARGET, target);
        head.headers.insert(DEPTH, HeaderValue::from(u16::from(depth)));
        // What is short and whole can be sent again; a stream goes once.
        let short = http_body::Body::size_hint(&body).upper().is_some_and(|size| size <= MAX_REPEATED_BODY);
        let mut stream = None;
        let mut bytes = bytes::Bytes::new();
        if short {
            let collected = body.collect(MAX_REPEATED_BODY as usize).await;
            bytes = collected.map_err(|error| unreachable(error.to_string()))?;
        } else {
            stream = Some(body);
        }
        let mut tries = 0;
        loop {
            let place = resolver.resolve(app_id).await.map_err(|error| unreachable(error.to_string()))?;
            let Some(Place { address, token }) = place else { return Err(unknown()) };
            if token.is_empty() {
                let reason = "it is beside a sidecar of Dapr, whose internal protocol is not spoken here";
                return Err(unreachable(reason.to_owned()));
            }
            let mut secret = HeaderValue::try_from(token).map_err(|error| unreachable(error.to_string()))?;
            secret.set_sensitive(true);
            head.headers.insert(SECRET, secret);
            let channel = self.channel(app_id, &address).map_err(unreachable)?;
            let body = stream.take().unwrap_or_else(|| Body::from(bytes.clone()));
            let request = Request::from_parts(head.clone(), body);
            match channel.invoke(Invocation { request, trigger, trace, depth }).await {
                // Nobody there: perhaps the host is just starting, or the app has moved. As with Dapr, a connection
                // that broke counts as well; the request may have arrived.
                Err(InvokeError::Unreachable { .. }) if short && tries < RETRIES => {
                    tries += 1;
                    resolver.forget(app_id);
                    tokio::time::sleep(RETRY_DELAY).await;
                }
                answer => return answer,
            }
        }
    }

    fn channel(&self, app_id: &str, address: &str) -> Result<Arc<HttpChannel>, String> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(Arc::clone(channel));
        }
        let (host, port) = address.rsplit_once(':').ok_or_else(|| format!("{address:?} is not host:port"))?;
        let endpoint = Endpoint {
            app_id: app_id.into(),
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: port.parse().map_err(|_| format!("{address:?} has no port"))?,
            tls: false,
            token: None,
            deadline: ANSWER,
        };
        let channel = Arc::new(HttpChannel::new(endpoint, true)?);
        if channels.len() >= MAX_CHANNELS {
            channels.clear();
        }
        channels.insert(address.to_owned(), Arc::clone(&channel));
        Ok(channel)
    }

    async fn to_service(
        &self,
        name: &str,
        service: &Service,
        invocation: Invocation,
    ) -> Result<Reply, InvokeError> {
        let unreachable = |reason: String| InvokeError::Unreachable { app_id: name.to_owned(), reason };
        let mut request = invocation.request;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let base = service.base.to_string();
        let uri = format!("{}{path}", base.trim_end_matches('/'));
        *request.uri_mut() = uri.parse().map_err(|error| unreachable(format!("{uri:?}: {error}")))?;
        *request.version_mut() = http::Version::default();
        let headers = request.headers_mut();
        hops::strip(headers);
        headers.remove(HOST);
        for (name, value) in &service.headers {
            headers.insert(name, value.clone());
        }
        if let Ok(trace) = HeaderValue::try_from(invocation.trace.to_string()) {
            headers.insert(HeaderName::from_static("traceparent"), trace);
        }
        match tokio::time::timeout(SERVICE_ANSWER, self.client.request(request)).await {
            Ok(Ok(mut reply)) => {
                hops::strip(reply.headers_mut());
                Ok(reply.map(Body::stream))
            }
            Ok(Err(error)) => Err(unreachable(chain(&error))),
            Err(_) => Err(InvokeError::DeadlineExceeded {
                app_id: name.to_owned(),
                seconds: SERVICE_ANSWER.as_secs_f64(),
            }),
        }
    }
}

#[async_trait]
impl Invoker for Neighbours {
    async fn invoke(&self, app_id: &str, invocation: Invocation) -> Result<Reply, InvokeError> {
        if let Some(service) = self.services.get(app_id) {
            return self.to_service(app_id, service, invocation).await;
        }
        if app_id.starts_with("http://") || app_id.starts_with("https://") {
            let base = app_id.parse().map_err(|error| InvokeError::Unreachable {
                app_id: app_id.to_owned(),
                reason: format!("it is no URL: {error}"),
            })?;
            let service = Service { base, headers: Vec::new() };
            return self.to_service(app_id, &service, invocation).await;
        }
        self.to_host(app_id, invocation).await
    }
}

/// An error and its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(found) = cause {
        text.push_str(&format!(": {found}"));
        cause = found.source();
    }
    text
}

// === impl Internal ===

impl Face for Internal {
    async fn answer(self: Arc<Self>, mut request: Request<Body>) -> Reply {
        let headers = request.headers_mut();
        let secret = headers.remove(SECRET);
        if !secret.is_some_and(|secret| crate::dapr::same(secret.as_bytes(), self.secret.as_bytes())) {
            return text(StatusCode::UNAUTHORIZED, "this port is for other hosts of the same user");
        }
        let target = headers.remove(TARGET).and_then(|target| target.to_str().ok().map(str::to_owned));
        let depth = headers.remove(DEPTH).and_then(|depth| depth.to_str().ok()?.parse::<u8>().ok());
        let (Some(target), Some(depth)) = (target, depth) else {
            return text(StatusCode::BAD_REQUEST, "the request says no app");
        };
        if self.host.app(&target).is_none() {
            return text(
                StatusCode::NOT_FOUND,
                format_args!("no app {target:?} is registered with this host"),
            );
        }
        let caller = request.headers().get("dapr-caller-app-id").and_then(|caller| caller.to_str().ok());
        let caller = caller.unwrap_or_default().to_owned();
        let mut invocation = Invocation::new(request, Trigger::App);
        invocation.depth = depth;
        match self.host.invoke_for(&caller, &target, invocation).await {
            Ok(reply) => reply,
            Err(error) => crate::ingress::error(&error),
        }
    }
}
