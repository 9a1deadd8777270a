//! `bindings.http`: requests to one HTTP server.
//!
//! The operation is the method (`create` is POST). A request's metadata `path` is put behind the component's
//! `url`; metadata whose names begin with a capital letter are headers. The answer's metadata are
//! `statusCode`, `status` and the headers. What is not 2xx is an error unless `errorIfNot2XX` says otherwise,
//! in the component or in the request. Redirections are followed, ten at most, as Go's client does for Dapr.
//!
//! Unlike Dapr there is always a deadline (a minute, unless `responseTimeout` says otherwise), and an answer
//! that is longer than `maxResponseBodySize` is an error, not cut off.

use super::unknown_operation;
use crate::http_client::{HttpClient, late};
use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use crate::tls::Tls;
use async_trait::async_trait;
use bytes::Bytes;
use dhow_blocks::binding::{Binding, BindingRequest, BindingResponse};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Metadata, value};
use dhow_blocks::invoke::Body;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use url::Url;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "bindings.http",
    aliases: &[],
    versions: &["v1"],
    fields: &[
        "url",
        "responseTimeout",
        "maxResponseBodySize",
        "MTLSRootCA",
        "MTLSClientCert",
        "MTLSClientKey",
        "MTLSRenegotiation",
        "securityToken",
        "securityTokenHeader",
        "errorIfNot2XX",
    ],
    open: Open::Binding(|component, _| {
        Box::pin(async move {
            let name = component.name.clone();
            // Certificates may be in files.
            let opened = tokio::task::spawn_blocking(move || open(&component));
            opened.await.unwrap_or_else(|error| {
                Err(OpenError::Backend { component: name, reason: error.to_string() })
            })
        })
    }),
};

const OPERATIONS: &[&str] = &["create", "get", "head", "post", "put", "patch", "delete", "options", "trace"];

const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);

const DEFAULT_MAX_BYTES: u64 = 100 * 1024 * 1024;

/// What "no limit" comes to.
const MOST_BYTES: u64 = 1024 * 1024 * 1024;

const MAX_REDIRECTS: usize = 10;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// Headers that belong to the connection or follow from the request; Go's client does not take them from its
/// caller, either.
const NOT_FROM_METADATA: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Metadata that are headers although they do not begin with a capital letter.
const TRACE: &[&str] = &["traceparent", "tracestate", "baggage"];

/// An HTTP server.
pub struct Http {
    url: Url,
    client: HttpClient,
    deadline: Duration,
    max_bytes: u64,
    /// A header that goes with each request.
    token: Option<(HeaderName, HeaderValue)>,
    error_if_not_2xx: bool,
}

fn open(component: &ComponentSpec) -> Result<Arc<dyn Binding>, OpenError> {
    let url = component.field(&["url"]).and_then(|url| Url::parse(url).ok());
    let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) else {
        return Err(component.invalid(&["url"], "given, such as http://host:port/path"));
    };
    let pem = |field: &'static str| match component.field(&[field]) {
        None => Ok(None),
        // As in Dapr: the certificate itself, or the path of its file.
        Some(value) if value.contains("-----BEGIN ") => Ok(Some(value.as_bytes().to_vec())),
        Some(path) => match std::fs::read(path) {
            Ok(pem) => Ok(Some(pem)),
            Err(_) => Err(component.invalid(&[field], "PEM, or the path of a file that can be read")),
        },
    };
    let identity = pem("MTLSClientCert")?.zip(pem("MTLSClientKey")?);
    let tls = Tls { authorities: pem("MTLSRootCA")?, identity, insecure: false };
    let client = HttpClient::new(&tls)
        .map_err(|reason| OpenError::Backend { component: component.name.clone(), reason })?;
    match component.field(&["MTLSRenegotiation"]) {
        // There is no renegotiation in rustls, nor in TLS 1.3.
        None | Some("RenegotiateNever" | "RenegotiateOnceAsClient" | "RenegotiateFreelyAsClient") => {}
        Some(_) => {
            let expected = "RenegotiateNever, RenegotiateOnceAsClient or RenegotiateFreelyAsClient";
            return Err(component.invalid(&["MTLSRenegotiation"], expected));
        }
    }
    let max_bytes = match component.field(&["maxResponseBodySize"]) {
        None => DEFAULT_MAX_BYTES,
        Some(text) => match quantity(text) {
            Some(0) => MOST_BYTES,
            Some(bytes) => bytes.min(MOST_BYTES),
            None => {
                return Err(
                    component.invalid(&["maxResponseBodySize"], "a number of bytes, or such as 100Mi")
                );
            }
        },
    };
    let token = match (component.field(&["securityTokenHeader"]), component.field(&["securityToken"])) {
        (Some(name), Some(token)) => {
            let name = name.parse::<HeaderName>();
            let name =
                name.map_err(|_| component.invalid(&["securityTokenHeader"], "the name of a header"))?;
            let mut token = HeaderValue::from_str(token)
                .map_err(|_| component.invalid(&["securityToken"], "text that can stand in a header"))?;
            token.set_sensitive(true);
            Some((name, token))
        }
        _ => None,
    };
    Ok(Arc::new(Http {
        url,
        client,
        deadline: component.duration(&["responseTimeout"])?.unwrap_or(DEFAULT_DEADLINE),
        max_bytes,
        token,
        error_if_not_2xx: component
            .field(&["errorIfNot2XX"])
            .is_none_or(|_| component.truthy(&["errorIfNot2XX"])),
    }))
}

/// A quantity as Kubernetes writes it, in bytes; 0 for what is not above it.
fn quantity(text: &str) -> Option<u64> {
    if text.strip_prefix('-').is_some_and(|digits| digits.parse::<u64>().is_ok()) {
        return Some(0);
    }
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1000 * 1000,
        "G" => 1000 * 1000 * 1000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The headers that metadata ask for.
fn headers(metadata: &Metadata) -> Result<HeaderMap, BlockError> {
    let mut headers = HeaderMap::new();
    for (name, value) in metadata {
        let is_header = name.starts_with(|first: char| first.is_ascii_uppercase());
        let is_trace = TRACE.contains(&name.as_str()) && !value.is_empty();
        let is_ours = NOT_FROM_METADATA.iter().any(|ours| ours.eq_ignore_ascii_case(name));
        if (is_header || is_trace) && !is_ours {
            let invalid = || BlockError::invalid(format!("metadata {name:?} cannot be a header"));
            let name = name.parse::<HeaderName>().map_err(|_| invalid())?;
            // What Dapr is told of the trace wins over a header of the same name: lower case sorts last.
            headers.insert(name, HeaderValue::from_str(value).map_err(|_| invalid())?);
        }
    }
    Ok(headers)
}

// === impl Http ===

impl Http {
    fn url(&self, path: &str) -> Result<Url, BlockError> {
        if path.is_empty() {
            return Ok(self.url.clone());
        }
        let whole = format!("{}/{}", self.url.as_str().trim_end_matches('/'), path.trim_start_matches('/'));
        let url = Url::parse(&whole).map_err(|error| BlockError::invalid(format!("path: {error}")))?;
        // The path is the app's, what stands before it is the operator's.
        let base = self.url.path().trim_end_matches('/');
        let is_below = url.path().strip_prefix(base).is_some_and(|below| below.starts_with('/'));
        if url.origin() != self.url.origin() || !is_below {
            return Err(BlockError::invalid("path: leads out of the component's url"));
        }
        Ok(url)
    }

    /// Sends the request, and again to where it is sent on to.
    async fn follow(
        &self,
        mut method: Method,
        mut url: Url,
        mut headers: HeaderMap,
        mut body: Bytes,
    ) -> Result<Response<hyper::body::Incoming>, BlockError> {
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(Body::from(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() =
                url.as_str().parse().map_err(|_| BlockError::invalid("path: makes no URL"))?;
            *request.headers_mut() = headers.clone();
            let response = self.client.send(request).await?;
            let status = response.status().as_u16();
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = match location.filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308)) {
                None => return Ok(response),
                Some(location) => url.join(location).ok(),
            };
            let Some(next) = next.filter(|next| matches!(next.scheme(), "http" | "https")) else {
                return Err(BlockError::failed("the server sends on to what is no HTTP URL"));
            };
            if matches!(status, 301..=303) && method != Method::HEAD {
                if method != Method::GET {
                    headers.remove(CONTENT_TYPE);
                }
                (method, body) = (Method::GET, Bytes::new());
            }
            if next.origin() != url.origin() {
                // What was meant for one server is not for another.
                headers.remove(AUTHORIZATION);
                headers.remove(COOKIE);
                if let Some((name, _)) = &self.token {
                    headers.remove(name);
                }
            }
            url = next;
        }
        Err(BlockError::failed(format!("the server sends on more than {MAX_REDIRECTS} times")))
    }
}

#[async_trait]
impl Binding for Http {
    fn operations(&self) -> Vec<&str> {
        OPERATIONS.to_vec()
    }

    async fn invoke(&self, request: BindingRequest) -> Result<BindingResponse, BlockError> {
        let BindingRequest { operation, data, metadata } = request;
        let (method, has_body) = match operation.to_ascii_lowercase().as_str() {
            "create" | "post" => (Method::POST, true),
            "put" => (Method::PUT, true),
            "patch" => (Method::PATCH, true),
            "get" => (Method::GET, false),
            "head" => (Method::HEAD, false),
            "delete" => (Method::DELETE, false),
            "options" => (Method::OPTIONS, false),
            "trace" => (Method::TRACE, false),
            _ => return Err(unknown_operation(&operation, OPERATIONS)),
        };
        let error_if_not_2xx = match value(&metadata, "errorIfNot2XX").filter(|text| !text.is_empty()) {
            None => self.error_if_not_2xx,
            Some(text) => crate::metadata::is_truthy(text),
        };
        let url = self.url(value(&metadata, "path").unwrap_or_default())?;
        let mut sent = HeaderMap::from_iter([(ACCEPT, JSON)]);
        if has_body {
            sent.insert(CONTENT_TYPE, JSON);
        }
        sent.extend(self.token.clone());
        for (name, value) in headers(&metadata)? {
            if let Some(name) = name {
                sent.insert(name, value);
            }
        }
        let body = if has_body { data } else { Bytes::new() };
        let deadline = Instant::now() + self.deadline;
        let exchange = async {
            let response = self.follow(method, url, sent, body).await?;
            crate::http_client::read(response, self.max_bytes).await
        };
        let response = timeout_at(deadline, exchange).await.unwrap_or_else(|_| Err(late(self.deadline)))?;
        let status = response.status();
        if error_if_not_2xx && !status.is_success() {
            return Err(BlockError::failed(format!("received status code {}", status.as_u16())));
        }
        let mut metadata = received(response.headers());
        metadata.insert("statusCode".to_owned(), status.as_u16().to_string());
        let reason = status.canonical_reason().unwrap_or_default();
        metadata.insert("status".to_owned(), format!("{} {reason}", status.as_u16()).trim_end().to_owned());
        Ok(BindingResponse { data: Some(response.into_body()), metadata })
    }
}

/// Headers as metadata: names as Go writes them, several values in one.
fn received(headers: &HeaderMap) -> Metadata {
    let values = |name: &HeaderName| {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        values.collect::<Vec<_>>().join(", ")
    };
    headers.keys().map(|name| (canonical(name.as_str()), values(name))).collect()
}

/// `content-type` as `Content-Type`.
fn canonical(name: &str) -> String {
    let words = name.split('-').map(|word| match word.split_at_checked(1) {
        Some((first, rest)) => format!("{}{rest}", first.to_ascii_uppercase()),
        None => String::new(),
    });
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_become_headers() {
        let metadata = |pairs: &[(&str, &str)]| -> Metadata {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let found = headers(&metadata(&[
            ("Content-Type", "text/plain"),
            ("X-Any", "a b"),
            ("path", "/no"),
            ("x-lower", "no"),
            ("Host", "no"),
            ("Content-Length", "7"),
            ("Transfer-Encoding", "chunked"),
            ("traceparent", "00-1"),
            ("Traceparent", "overridden"),
            ("tracestate", ""),
            ("baggage", "k=v"),
        ]));
        let found = found.unwrap();
        let mut names: Vec<_> = found.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["baggage", "content-type", "traceparent", "x-any"]);
        assert_eq!(found["traceparent"], "00-1");
        for (name, value) in
            [("X-A", "a\r\nX-Evil: b"), ("X A", "a"), ("X\r\n", "a"), ("Xü", "a"), ("X-A", "\0")]
        {
            assert!(
                matches!(headers(&metadata(&[(name, value)])), Err(BlockError::Invalid { .. })),
                "{name:?}"
            );
        }
    }

    #[test]
    fn names_and_quantities() {
        for (name, expected) in
            [("content-type", "Content-Type"), ("etag", "Etag"), ("x--a", "X--A"), ("", "")]
        {
            assert_eq!(canonical(name), expected);
        }
        for (text, expected) in [
            ("100", Some(100)),
            ("1Ki", Some(1024)),
            ("100Mi", Some(104_857_600)),
            ("2k", Some(2000)),
            ("0", Some(0)),
            ("-1", Some(0)),
            ("", None),
            ("Mi", None),
            ("1.5Mi", None),
            ("1mib", None),
            ("99999999999999999999", None),
            ("99999999999Gi", None),
            ("🐪", None),
        ] {
            assert_eq!(quantity(text), expected, "{text}");
        }
    }
}
