//! A client of the Kubernetes API: as much of it as an agent of Argo needs.
//!
//! | file | subject |
//! |---|---|
//! | [`access`] | where the API server is, whom it trusts, who asks |
//! | `kubeconfig` | the same, as kubectl's file says it |
//! | `tls` | connections |
//! | [`watch`] | what changes, as it changes |
//! | [`lease`] | who of several does the work |
//! | `error` | why something could not be had |
//!
//! Objects are JSON. Every answer has a deadline and a largest size, and a token that was refused is read again, since
//! the kubelet replaces the tokens of service accounts every hour.
//!
//! Protocol: <https://kubernetes.io/docs/reference/using-api/api-concepts/>.

pub mod access;
pub(crate) mod connector;
mod error;
mod kubeconfig;
pub mod lease;
pub mod watch;

pub(crate) use error::chain;
pub use error::{KubernetesError, Refusal};

use access::{Access, Token};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// An answer has to be here after this time; the API server itself gives a request 60 seconds.
const PATIENCE: Duration = Duration::from_secs(70);

/// Largest answer, in bytes: a page of task sets, each of which has at most 1.5 MiB.
const MAX_ANSWER: usize = 128 << 20;

/// Largest answer that is a refusal, in bytes.
const MAX_REFUSAL: usize = 256 << 10;

/// Objects of one page of a list.
const PAGE: usize = 50;

/// Requests under way at the same time, watches aside.
const MAX_REQUESTS: usize = 64;

/// A file with a token is read again after this time.
const TOKEN_AGE: Duration = Duration::from_secs(60);

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// One API server.
pub struct Cluster {
    /// Without a slash at its end.
    server: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    token: Token,
    /// What was read last from a file or a program, and when.
    known: Mutex<Option<(HeaderValue, Instant)>>,
    turns: Semaphore,
}

/// Objects, and the version from which to watch them.
#[derive(Debug)]
pub struct List<T> {
    /// The objects.
    pub items: Vec<T>,
    /// The version of the whole list.
    pub version: String,
}

/// A request that may be sent twice.
struct Ask<'a> {
    method: Method,
    path: &'a str,
    body: Option<(&'static str, Bytes)>,
}

// === impl Cluster ===

impl Cluster {
    /// A client; nothing is sent yet. The error says which certificate or address is of no use.
    pub fn new(access: Access) -> Result<Cluster, String> {
        let server = access.server.trim_end_matches('/').to_owned();
        let uri: Uri = server.parse().map_err(|error| format!("{server} is no URL: {error}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.query().is_some() {
            return Err(format!("{server}: expected a URL such as https://127.0.0.1:6443"));
        }
        let connector = connector::connect_with(&access.tls)?;
        let mut client = Client::builder(TokioExecutor::new());
        client.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        Ok(Cluster {
            server,
            client: client.build(connector),
            token: access.token,
            known: Mutex::new(None),
            turns: Semaphore::new(MAX_REQUESTS),
        })
    }

    /// Where it is.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// One object, such as `/api/v1/namespaces/default/secrets/mine`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, KubernetesError> {
        self.call(Ask { method: Method::GET, path, body: None }).await
    }

    /// All objects of a collection; `selector` is one of labels, or empty.
    pub async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        selector: &str,
    ) -> Result<List<T>, KubernetesError> {
        #[derive(serde::Deserialize)]
        struct Page<T> {
            #[serde(default)]
            metadata: PageMetadata,
            #[serde(default = "Vec::new")]
            items: Vec<T>,
        }
        #[derive(serde::Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct PageMetadata {
            resource_version: String,
            #[serde(rename = "continue")]
            next: String,
        }
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let mut query = format!("{path}?limit={PAGE}");
            if !selector.is_empty() {
                query.push_str(&format!("&labelSelector={}", escaped(selector)));
            }
            if !next.is_empty() {
                query.push_str(&format!("&continue={}", escaped(&next)));
            }
            let page: Page<T> = self.get(&query).await?;
            items.extend(page.items);
            next = page.metadata.next;
            if next.is_empty() {
                return Ok(List { items, version: page.metadata.resource_version });
            }
        }
    }

    /// Makes an object.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, KubernetesError> {
        let body = Some((JSON, Bytes::from(object.to_string())));
        self.call(Ask { method: Method::POST, path, body }).await
    }

    /// Replaces an object; a conflict if its `resourceVersion` is no longer that of the server.
    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value, KubernetesError> {
        let body = Some((JSON, Bytes::from(object.to_string())));
        self.call(Ask { method: Method::PUT, path, body }).await
    }

    /// Changes parts of an object (RFC 7386).
    pub async fn merge_patch(&self, path: &str, patch: &Value) -> Result<(), KubernetesError> {
        let body = Some((MERGE_PATCH, Bytes::from(patch.to_string())));
        // What it became is not looked at: it may be large, and the watch tells it, too.
        let _: serde::de::IgnoredAny = self.call(Ask { method: Method::PATCH, path, body }).await?;
        Ok(())
    }

    /// The value of a key of a Secret. It is in no error.
    pub async fn secret(&self, namespace: &str, name: &str, key: &str) -> Result<Vec<u8>, KubernetesError> {
        use base64::Engine;
        let path = format!("/api/v1/namespaces/{}/secrets/{}", escaped(namespace), escaped(name));
        let secret: Value = self.get(&path).await?;
        let what = format!("key {key:?} of Secret {namespace}/{name}");
        let value = secret.get("data").and_then(|data| data.get(key)).and_then(Value::as_str);
        let value = value.ok_or_else(|| KubernetesError::Malformed {
            what: what.clone(),
            reason: "there is no such key".to_owned(),
        })?;
        let decoded = base64::engine::general_purpose::STANDARD.decode(value);
        decoded.map_err(|_| KubernetesError::Malformed { what, reason: "it is no base64".to_owned() })
    }

    /// The `data` of a ConfigMap.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Value, KubernetesError> {
        let path = format!("/api/v1/namespaces/{}/configmaps/{}", escaped(namespace), escaped(name));
        let mut map: Value = self.get(&path).await?;
        Ok(map.get_mut("data").map(Value::take).unwrap_or_default())
    }

    async fn call<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, KubernetesError> {
        let what = || self.shown(ask.path);
        let whole = async {
            // It is closed with the client only.
            let _turn = self.turns.acquire().await;
            let response = self.send(&ask).await?;
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| KubernetesError::Malformed {
                what: what(),
                reason: format!("the answer broke off, or has more than {MAX_ANSWER} bytes: {error}"),
            })?;
            let answer = serde_json::from_slice(&body.to_bytes());
            // The parser's own words could show a secret.
            answer.map_err(|error| KubernetesError::Malformed {
                what: what(),
                reason: format!("the answer is not the JSON that was expected (column {})", error.column()),
            })
        };
        match tokio::time::timeout(PATIENCE, whole).await {
            Ok(answer) => answer,
            Err(_) => Err(KubernetesError::Deadline { what: what(), seconds: PATIENCE.as_secs() }),
        }
    }

    /// Sends a request, with a new token if the one that is known is refused; an answer that is none is an error.
    async fn send(&self, ask: &Ask<'_>) -> Result<Response<Incoming>, KubernetesError> {
        let response = self.send_once(ask, false).await?;
        let response = match response.status() {
            StatusCode::UNAUTHORIZED if self.token.changes() => self.send_once(ask, true).await?,
            _ => response,
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|value| value.parse().ok()).map(Duration::from_secs);
        let body = Limited::new(response.into_body(), MAX_REFUSAL).collect();
        let body = tokio::time::timeout(Duration::from_secs(10), body).await;
        let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        Err(KubernetesError::Refused(Refusal::read(self.shown(ask.path), status, &body, retry_after)))
    }

    async fn send_once(&self, ask: &Ask<'_>, renew: bool) -> Result<Response<Incoming>, KubernetesError> {
        let malformed = |error: &dyn std::fmt::Display| KubernetesError::Malformed {
            what: self.shown(ask.path),
            reason: error.to_string(),
        };
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(format!("{}{}", self.server, ask.path))
            .header(ACCEPT, JSON)
            .header(USER_AGENT, concat!("dhow/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = self.authorization(renew).await? {
            request = request.header(AUTHORIZATION, token);
        }
        let body = match &ask.body {
            Some((kind, body)) => {
                request = request.header(CONTENT_TYPE, *kind);
                body.clone()
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(body)).map_err(|error| malformed(&error))?;
        self.client.request(request).await.map_err(|error| KubernetesError::Unreachable {
            server: self.server.clone(),
            reason: chain(&error),
        })
    }

    async fn authorization(&self, renew: bool) -> Result<Option<HeaderValue>, KubernetesError> {
        if let Some((header, since)) = &*self.known.lock()
            && !renew
            && (!self.token.changes() || since.elapsed() < TOKEN_AGE)
        {
            return Ok(Some(header.clone()));
        }
        let Some(token) = self.token.read().await? else { return Ok(None) };
        let header = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
        let mut header = header.map_err(|_| KubernetesError::Token {
            place: self.token.to_string(),
            reason: "it holds characters that no token has".to_owned(),
        })?;
        header.set_sensitive(true);
        *self.known.lock() = Some((header.clone(), Instant::now()));
        Ok(Some(header))
    }

    /// For messages: without the query, which says nothing to a person.
    fn shown(&self, path: &str) -> String {
        format!("{}{}", self.server, path.split('?').next().unwrap_or_default())
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("server", &self.server).finish_non_exhaustive()
    }
}

/// A part of a path or a query.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Reads a file that a person named.
fn read_file(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// A path as a file names it, which begins in that file's folder.
fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new(".")).join(path)
}
