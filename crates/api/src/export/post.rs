//! One request to a collector.

use crate::https;
use bytes::Bytes;
use dhow_blocks::invoke::Body;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::Duration;

/// Of a collector's answer so much is read; what matters is its status.
const MAX_ANSWER: usize = 64 << 10;

/// A collector that is not connected by then is taken for away.
const CONNECT: Duration = Duration::from_secs(5);

/// Sends requests to one collector.
#[derive(Debug)]
pub(super) struct Post {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    uri: Uri,
    headers: HeaderMap,
    timeout: Duration,
}

/// What a collector answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Headers, and trailers if there were any.
    pub(super) headers: HeaderMap,
}

/// A batch that a collector did not take.
#[derive(Debug)]
pub(super) struct Refused {
    /// What was tried, and what came of it.
    pub(super) reason: String,
    /// Whether another try may help.
    pub(super) again: bool,
    /// When the collector wants to be tried again.
    pub(super) after: Option<Duration>,
}

// === impl Post ===

impl Post {
    /// Nothing is connected yet. `http2` says that the collector speaks HTTP/2 also without TLS.
    pub(super) fn new(uri: Uri, headers: HeaderMap, timeout: Duration, http2: bool) -> Post {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let builder = https::builder().https_or_http();
        let connector = match http2 {
            true => builder.enable_http2().wrap_connector(tcp),
            false => builder.enable_all_versions().wrap_connector(tcp),
        };
        let mut client = Client::builder(TokioExecutor::new());
        client.timer(TokioTimer::new()).pool_timer(TokioTimer::new()).http2_only(http2);
        Post { client: client.build(connector), uri, headers, timeout }
    }

    /// Sends a body, and waits for the end of the answer.
    pub(super) async fn send(&self, body: Bytes) -> Result<Answer, Refused> {
        let mut request = Request::post(self.uri.clone()).body(Body::from(body)).map_err(|error| {
            Refused { reason: format!("{}: {error}", self.place()), again: false, after: None }
        })?;
        request.headers_mut().extend(self.headers.clone());
        let exchange = async {
            let reply = self.client.request(request).await.map_err(|error| chain(&error))?;
            let (head, body) = reply.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
            let mut headers = head.headers;
            headers.extend(body.trailers().cloned().unwrap_or_default());
            Ok(Answer { status: head.status, headers })
        };
        let answer = tokio::time::timeout(self.timeout, exchange).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.timeout)));
        answer.map_err(|reason: String| Refused {
            reason: format!("the collector at {} cannot be reached: {reason}", self.place()),
            again: true,
            after: None,
        })
    }

    /// The same, for collectors that say by the status whether they took it.
    pub(super) async fn send_http(&self, body: Bytes) -> Result<(), Refused> {
        let Answer { status, headers } = self.send(body).await?;
        if status.is_success() {
            return Ok(());
        }
        Err(Refused {
            reason: format!("the collector at {} answered {status}", self.place()),
            // Those of OTLP, and of every gateway before a collector.
            again: matches!(status.as_u16(), 429 | 502 | 503 | 504),
            after: retry_after(&headers),
        })
    }

    /// Where it is, without anything that may be secret: user, password, query.
    pub(super) fn place(&self) -> String {
        let part = |part: Option<&str>| part.unwrap_or_default().to_owned();
        let port = self.uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}{}", part(self.uri.scheme_str()), part(self.uri.host()), self.uri.path())
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Headers out of names and values; the values are secret.
pub(super) fn headers(pairs: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let wrong = |what: &str| format!("header {name:?}: {what}");
        let key = HeaderName::try_from(name.as_str()).map_err(|_| wrong("its name is not valid"))?;
        let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| wrong("its value is not valid"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(found) = cause {
        text.push_str(&format!(": {found}"));
        cause = found.source();
    }
    text
}
