//! `sequencer.etcd`: ids in etcd (3.4 or later), over the JSON form of its API.
//!
//! A sequence is a key with the last id. It is advanced by a transaction that only takes place if nobody was quicker
//! (compare and put); who was slower learns in the same answer how far the other one came.
//!
//! Source: etcd documentation, "Why gRPC gateway" (`/v3/kv/txn`, `/v3/auth/authenticate`).

use super::{advance, check};
use crate::backoff::Backoff;
use crate::http_client::HttpClient;
use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use crate::shutdown::closed;
use crate::tls::Tls;
use async_trait::async_trait;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use dhow_blocks::error::BlockError;
use dhow_blocks::invoke::Body;
use dhow_blocks::sequencer::Sequencer;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "sequencer.etcd",
    aliases: &[],
    versions: &["v1"],
    fields: &[
        "endpoints",
        "dialTimeout",
        "username",
        "password",
        "keyPrefixPath",
        "tlsCa",
        "tlsCert",
        "tlsCertKey",
    ],
    open: Open::Sequencer(|component, _| Box::pin(async move { open(&component).await })),
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// What stands before every key, as in Layotto.
const PREFIX: &str = "/layotto/";

/// An answer is a few hundred bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// Tries of one reservation while others are quicker.
const TRIES: usize = 200;

/// Ids in etcd.
struct Etcd {
    client: HttpClient,
    /// Members of one cluster; another one is asked when one does not answer.
    endpoints: Vec<String>,
    /// The member that answered last.
    current: AtomicUsize,
    prefix: String,
    timeout: Duration,
    login: Option<(String, String)>,
    token: Mutex<Option<HeaderValue>>,
    /// One at a time from here: they would only overtake each other there.
    turn: tokio::sync::Mutex<()>,
    is_closed: AtomicBool,
}

/// A sequence as etcd has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    last: i64,
    /// Changes with every write; 0: there is none.
    revision: i64,
}

async fn open(component: &ComponentSpec) -> Result<Arc<dyn Sequencer>, OpenError> {
    let pem = |field: &str| {
        let read = component.field(&[field]).map(std::fs::read).transpose();
        read.map_err(|error| component.backend(format!("{field}: {error}")))
    };
    let (authorities, certificate, key) = (pem("tlsCa")?, pem("tlsCert")?, pem("tlsCertKey")?);
    let is_secure = authorities.is_some() || certificate.is_some();
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(component.invalid(&["tlsCertKey"], "given together with tlsCert")),
    };
    let expected = "addresses such as localhost:2379, separated by commas";
    let endpoints = component.field(&["endpoints"]).unwrap_or_default().split([',', ';']);
    let endpoints = endpoints.map(str::trim).filter(|endpoint| !endpoint.is_empty()).map(|endpoint| {
        let scheme = if is_secure { "https" } else { "http" };
        let url =
            if endpoint.contains("://") { endpoint.to_owned() } else { format!("{scheme}://{endpoint}") };
        let url = url.trim_end_matches('/').to_owned();
        let is_legal = url.parse::<Uri>().is_ok_and(|uri| uri.authority().is_some() && uri.path() == "/");
        is_legal.then_some(url)
    });
    let endpoints: Option<Vec<String>> = endpoints.collect();
    let endpoints = endpoints.filter(|endpoints| !endpoints.is_empty());
    let endpoints = endpoints.ok_or_else(|| component.invalid(&["endpoints"], expected))?;
    let login = match (component.field(&["username"]), component.field(&["password"])) {
        (Some(user), password) => Some((user.to_owned(), password.unwrap_or_default().to_owned())),
        (None, _) => None,
    };
    let tls = Tls { authorities, identity, insecure: false };
    let timeout =
        component.duration(&["dialTimeout"])?.filter(|timeout| !timeout.is_zero()).unwrap_or(TIMEOUT);
    let etcd = Etcd {
        client: HttpClient::new(&tls).map_err(|reason| component.backend(reason))?,
        endpoints,
        current: AtomicUsize::new(0),
        prefix: component.field(&["keyPrefixPath"]).unwrap_or(PREFIX).to_owned(),
        timeout,
        login,
        token: Mutex::new(None),
        turn: tokio::sync::Mutex::default(),
        is_closed: AtomicBool::new(false),
    };
    // Whether it is there, and lets us read.
    let looked = etcd.ask("/v3/kv/range", &json!({ "key": BASE64_STANDARD.encode(&etcd.prefix) })).await;
    looked.map_err(|error| component.backend(error.to_string()))?;
    Ok(Arc::new(etcd))
}

// === impl Etcd ===

impl Etcd {
    /// Asks the member that answered last, then the others.
    async fn ask(&self, path: &str, question: &Value) -> Result<Value, BlockError> {
        let start = self.current.load(Ordering::Relaxed);
        let mut failure = None;
        for offset in 0..self.endpoints.len() {
            let index = (start + offset) % self.endpoints.len();
            match self.ask_member(&self.endpoints[index], path, question).await {
                // What the member said that was there is told, should none be.
                Err(error @ BlockError::Unavailable { .. }) => {
                    failure.get_or_insert(error);
                }
                answer => {
                    self.current.store(index, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(failure.unwrap_or_else(closed))
    }

    async fn ask_member(&self, endpoint: &str, path: &str, question: &Value) -> Result<Value, BlockError> {
        let Some((name, password)) = &self.login else {
            return self.exchange(endpoint, path, question, None).await.map_err(Into::into);
        };
        let known = self.token.lock().clone();
        if let Some(token) = known {
            match self.exchange(endpoint, path, question, Some(token)).await {
                // The token is too old.
                Err(Refusal { status: StatusCode::UNAUTHORIZED, .. }) => {}
                answer => return answer.map_err(Into::into),
            }
        }
        let login = json!({ "name": name, "password": password });
        let answer = self.exchange(endpoint, "/v3/auth/authenticate", &login, None).await?;
        let token = answer["token"].as_str().and_then(|token| HeaderValue::try_from(token).ok());
        let mut token = token.ok_or_else(|| BlockError::failed("etcd gave no token"))?;
        token.set_sensitive(true);
        *self.token.lock() = Some(token.clone());
        Ok(self.exchange(endpoint, path, question, Some(token)).await?)
    }

    async fn exchange(
        &self,
        endpoint: &str,
        path: &str,
        question: &Value,
        token: Option<HeaderValue>,
    ) -> Result<Value, Refusal> {
        let mut request = Request::new(Body::from(question.to_string()));
        *request.method_mut() = Method::POST;
        let uri = format!("{endpoint}{path}").parse();
        *request.uri_mut() = uri.map_err(|_| BlockError::invalid("endpoints: make no URL"))?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = token {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        let response = self.client.exchange(request, MAX_ANSWER, self.timeout).await?;
        let (status, body) = (response.status(), response.into_body());
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        let text: String = answer["message"].as_str().unwrap_or_default().chars().take(200).collect();
        let reason = format!("etcd answers {}: {text}", status.as_u16());
        let is_passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        let error = if is_passing { BlockError::unavailable(reason) } else { BlockError::failed(reason) };
        Err(Refusal { status, error })
    }

    /// Advances the sequence if it still is what was found; else it is found anew.
    async fn put(&self, key: &str, found: Found, last: i64) -> Result<Option<Found>, BlockError> {
        let transaction = json!({
            "compare": [{ "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": found.revision.to_string() }],
            "success": [{ "request_put": { "key": key, "value": BASE64_STANDARD.encode(last.to_string()) } }],
            "failure": [{ "request_range": { "key": key } }],
        });
        let answer = self.ask("/v3/kv/txn", &transaction).await?;
        if answer["succeeded"] == json!(true) {
            return Ok(None);
        }
        read(&answer["responses"][0]["response_range"]).map(Some)
    }
}

/// What a range found. Numbers of 64 bits are text in etcd's JSON.
fn read(range: &Value) -> Result<Found, BlockError> {
    let Some(pair) = range["kvs"].get(0) else { return Ok(Found::default()) };
    let revision = match &pair["mod_revision"] {
        Value::String(text) => text.parse().ok(),
        number => number.as_i64(),
    };
    let last = pair["value"].as_str().and_then(|value| BASE64_STANDARD.decode(value).ok());
    let last = last.and_then(|value| String::from_utf8(value).ok()?.trim().parse().ok());
    match (last, revision) {
        (Some(last), Some(revision)) => Ok(Found { last, revision }),
        _ => Err(BlockError::failed("the key of the sequence holds no number")),
    }
}

#[async_trait]
impl Sequencer for Etcd {
    async fn reserve(&self, key: &str, count: u32, floor: i64) -> Result<i64, BlockError> {
        check(count)?;
        let key = BASE64_STANDARD.encode(format!("{}{key}", self.prefix));
        let _turn = self.turn.lock().await;
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(closed());
        }
        let mut found = read(&self.ask("/v3/kv/range", &json!({ "key": key })).await?)?;
        let mut backoff = Backoff::new();
        for attempt in 0..TRIES {
            let last = advance(found.last, count, floor)?;
            match self.put(&key, found, last).await? {
                None => return Ok(last - i64::from(count) + 1),
                Some(now) => found = now,
            }
            // Whoever loses again and again steps back.
            if attempt % 16 == 15 {
                tokio::time::sleep(backoff.wait()).await;
            }
        }
        Err(BlockError::unavailable(format!("others were quicker {TRIES} times")))
    }

    async fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        let _turn = self.turn.lock().await;
    }
}

/// Why etcd did not do as it was asked.
struct Refusal {
    status: StatusCode,
    error: BlockError,
}

// === impl Refusal ===

impl From<BlockError> for Refusal {
    fn from(error: BlockError) -> Refusal {
        Refusal { status: StatusCode::SERVICE_UNAVAILABLE, error }
    }
}

impl From<Refusal> for BlockError {
    fn from(refusal: Refusal) -> BlockError {
        refusal.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_read_from_ranges() {
        let value = |text: &str| BASE64_STANDARD.encode(text);
        for (range, expected) in [
            (json!({}), Some((0, 0))),
            (json!({"kvs": []}), Some((0, 0))),
            (json!({"kvs": [{"mod_revision": "7", "value": value("41")}]}), Some((41, 7))),
            (json!({"kvs": [{"mod_revision": 7, "value": value("41")}]}), Some((41, 7))),
            (json!({"kvs": [{"mod_revision": "7", "value": value("x")}]}), None),
            (json!({"kvs": [{"value": value("1")}]}), None),
            (json!({"kvs": [{"mod_revision": "7", "value": "%"}]}), None),
        ] {
            let found = read(&range).ok().map(|found| (found.last, found.revision));
            assert_eq!(found, expected, "{range}");
        }
    }
}
