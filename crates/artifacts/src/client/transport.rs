//! Requests to a registry and answers, before anybody looks at what they mean: deadlines, bounds, redirections.
//!
//! Everything here is written against a registry that means harm. That is why it is hyper and not the crate
//! `oci-client`: that one reads answers of any size into memory (manifests, tokens, errors), has no deadline for a
//! whole answer, takes an error while a token is fetched for "no token needed", and panics on a token that is no
//! header.

use super::error::RegistryError;
use super::{ATTEMPTS, pause};
use crate::access::Access;
use crate::proxy::Proxies;
use crate::tls;
use crate::url::{chain, resolve, without_secrets};
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, LOCATION, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a registry may take to be connected and to begin its answer, and how long it may be silent later.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);

/// How long an answer may take that is read as a whole.
const WHOLE_ANSWER: Duration = Duration::from_secs(60);

/// A body is sent at this many bytes a second or more, else the registry is taken for dead.
const SLOWEST_UPLOAD: u64 = 16 << 10;

const MAX_REDIRECTS: usize = 5;

/// Connections to one registry and to where it sends its clients.
pub(super) struct Transport {
    client: Client<tls::Connector, Full<Bytes>>,
    proxies: Arc<Proxies>,
}

/// A request. It may be sent several times.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

// === impl Ask ===

impl Ask {
    pub(super) fn new(method: Method, uri: &str) -> Result<Ask, RegistryError> {
        let uri = uri.parse().map_err(|error: http::uri::InvalidUri| RegistryError::Malformed {
            what: without_secrets(uri),
            reason: error.to_string(),
        })?;
        Ok(Ask { method, uri, headers: Vec::new(), body: Bytes::new() })
    }

    pub(super) fn get(uri: &str) -> Result<Ask, RegistryError> {
        Ask::new(Method::GET, uri)
    }

    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Result<Ask, RegistryError> {
        let value = HeaderValue::from_str(value).map_err(|_| RegistryError::Malformed {
            what: self.shown(),
            reason: format!("no value of {name}"),
        })?;
        self.headers.push((name, value));
        Ok(self)
    }

    pub(super) fn body(self, body: Bytes) -> Ask {
        Ask { body, ..self }
    }

    /// Whether it changes nothing, and may be sent again.
    fn is_read(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// For messages.
    pub(super) fn shown(&self) -> String {
        without_secrets(&self.uri.to_string())
    }
}

// === impl Transport ===

impl Transport {
    pub(super) fn new(access: &Access) -> Result<Transport, RegistryError> {
        let ours = match &access.ca {
            Some(file) => tls::certificates(file)
                .map_err(|reason| RegistryError::File { path: file.clone(), reason })?,
            None => Vec::new(),
        };
        let proxies = Arc::new(Proxies::of_user());
        let connector = tls::connector(ours, &proxies).map_err(|reason| RegistryError::File {
            path: access.ca.clone().unwrap_or_else(|| "the system's certificates".into()),
            reason,
        })?;
        Ok(Transport { client: Client::builder(TokioExecutor::new()).build(connector), proxies })
    }

    /// Sends a request and follows where a registry keeps its content elsewhere. What says who asks goes to the place
    /// that was asked first, and nowhere else.
    pub(super) async fn send(
        &self,
        ask: &Ask,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut uri = ask.uri.clone();
        for _ in 0..=MAX_REDIRECTS {
            let authorization = authorization.filter(|_| is_same_place(&ask.uri, &uri));
            let response = self.send_once(ask, &uri, authorization).await?;
            if !ask.is_read() || !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location
                .ok_or("it names no place that can be read".to_owned())
                .and_then(|location| resolve(&uri, location));
            uri = next.map_err(|reason| RegistryError::Redirect { url: shown(&uri), reason })?;
        }
        let reason = format!("more than {MAX_REDIRECTS} redirections follow one another");
        Err(RegistryError::Redirect { url: ask.shown(), reason })
    }

    async fn send_once(
        &self,
        ask: &Ask,
        uri: &Uri,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(uri)
            .header(USER_AGENT, concat!("dhow/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(who) = self.proxies.authorization(uri) {
            request = request.header(PROXY_AUTHORIZATION, who);
        }
        let request = request
            .body(Full::new(ask.body.clone()))
            .map_err(|error| RegistryError::Malformed { what: shown(uri), reason: error.to_string() })?;
        let patience = SILENCE + Duration::from_secs(ask.body.len() as u64 / SLOWEST_UPLOAD);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let answer = timeout(patience, self.client.request(request.clone())).await;
            let answer = answer
                .map_err(|_| RegistryError::Timeout { url: shown(uri), seconds: patience.as_secs() })?;
            match answer {
                // The connection was there and broke. A registry that cannot be reached at all is told at once.
                Err(error) if !error.is_connect() && ask.is_read() && attempt < ATTEMPTS => {
                    tracing::debug!("{}: {}", shown(uri), chain(&error));
                    tokio::time::sleep(pause(attempt, None)).await;
                }
                answer => {
                    return answer.map_err(|error| RegistryError::Connect {
                        url: shown(uri),
                        reason: chain(&error),
                        plain: uri.scheme_str() == Some("http"),
                    });
                }
            }
        }
    }
}

/// Reads an answer of at most `limit` bytes.
pub(super) async fn read(
    response: Response<Incoming>,
    what: &str,
    limit: u64,
) -> Result<Bytes, RegistryError> {
    let deadline = Instant::now() + WHOLE_ANSWER;
    let late = |_| RegistryError::Timeout { url: what.to_owned(), seconds: WHOLE_ANSWER.as_secs() };
    let broken =
        |error: hyper::Error| RegistryError::Malformed { what: what.to_owned(), reason: chain(&error) };
    let mut body = response.into_body();
    let mut bytes = BytesMut::new();
    while let Some(frame) = timeout_at(deadline, body.frame()).await.map_err(late)? {
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if (bytes.len() + data.len()) as u64 > limit {
            return Err(RegistryError::Limit { what: what.to_owned(), limit: bytes_of(limit) });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// A number of bytes for messages.
pub(crate) fn bytes_of(count: u64) -> String {
    match count {
        count if count >= 1 << 20 => format!("{} MiB", count >> 20),
        count if count >= 1 << 10 => format!("{} KiB", count >> 10),
        count => format!("{count} bytes"),
    }
}

/// Whether what may be told to the one may be told to the other.
pub(super) fn is_same_place(one: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| {
        uri.port_u16().or(match uri.scheme_str() {
            Some("http") => Some(80),
            Some("https") => Some(443),
            _ => None,
        })
    };
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    one.scheme_str() == other.scheme_str() && host(one) == host(other) && port(one) == port(other)
}

fn shown(uri: &Uri) -> String {
    without_secrets(&uri.to_string())
}

#[cfg(test)]
mod tests {
    use super::is_same_place;

    #[test]
    fn only_the_same_place_is_told_who_asks() {
        let cases = [
            ("https://a.io/x", "https://A.io:443/y", true),
            ("https://a.io/x", "http://a.io/x", false),
            ("https://a.io/x", "https://a.io:8443/x", false),
            ("https://a.io/x", "https://a.io.evil.org/x", false),
            ("http://127.0.0.1:5000/x", "http://127.0.0.1:5000/y", true),
            ("http://127.0.0.1:5000/x", "http://127.0.0.1:5001/x", false),
        ];
        for (one, other, same) in cases {
            assert_eq!(is_same_place(&one.parse().unwrap(), &other.parse().unwrap()), same, "{one} {other}");
        }
    }
}
