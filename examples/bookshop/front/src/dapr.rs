//! Dapr's HTTP API as this app uses it. With dhow these requests never leave the process.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wstd::http::{Body, Client, Method, Request, Response};

use crate::shop::Failure;

const API: &str = "http://localhost:3500/v1.0";
const STORE: &str = "shop";

/// Writes that lost a race before this one is given up.
const ATTEMPTS: usize = 20;

/// Calls another app and gives its JSON answer, or its status as a failure.
pub async fn invoke(app: &str, path: &str) -> Result<Value, Failure> {
    let (status, _, body) = send(Method::GET, &format!("/invoke/{app}/method/{path}"), None).await?;
    match status {
        200 => parse(&body),
        404 => Err(Failure::NotFound(path.to_owned())),
        _ => Err(Failure::Upstream(format!("{app} answered {status}: {}", String::from_utf8_lossy(&body)))),
    }
}

/// A value and its etag; none if there is no such key.
pub async fn read<T: DeserializeOwned>(key: &str) -> Result<Option<(T, String)>, Failure> {
    match send(Method::GET, &format!("/state/{STORE}/{key}"), None).await? {
        (204, ..) => Ok(None),
        (200, etag, body) => Ok(Some((parse(&body)?, etag))),
        (status, _, body) => Err(refused("reading", key, status, &body)),
    }
}

/// Writes a value if the key still has this etag (no etag: if nobody wrote it before); whether it did.
async fn write(key: &str, value: &impl Serialize, etag: Option<&str>) -> Result<bool, Failure> {
    let mut item = json!({"key": key, "value": value, "options": {"concurrency": "first-write"}});
    if let Some(etag) = etag {
        item["etag"] = json!(etag);
    }
    match send(Method::POST, &format!("/state/{STORE}"), Some(json!([item]))).await? {
        (204, ..) => Ok(true),
        (409, ..) => Ok(false),
        (status, _, body) => Err(refused("writing", key, status, &body)),
    }
}

/// Reads, changes and writes a value, again if somebody else wrote it in between.
pub async fn update<T, R>(
    key: &str,
    change: impl Fn(Option<T>) -> Result<(T, R), Failure>,
) -> Result<R, Failure>
where
    T: DeserializeOwned + Serialize,
{
    for _ in 0..ATTEMPTS {
        let (old, etag) = read(key).await?.unzip();
        let (new, result) = change(old)?;
        if write(key, &new, etag.as_deref()).await? {
            return Ok(result);
        }
    }
    Err(Failure::Busy(key.to_owned()))
}

/// Tells everybody who subscribes to the topic.
pub async fn publish(topic: &str, event: &Value) -> Result<(), Failure> {
    match send(Method::POST, &format!("/publish/pubsub/{topic}"), Some(event.clone())).await? {
        (204, ..) => Ok(()),
        (status, _, body) => Err(refused("publishing to", topic, status, &body)),
    }
}

async fn send(method: Method, path: &str, json: Option<Value>) -> Result<(u16, String, Vec<u8>), Failure> {
    let upstream = |e: String| Failure::Upstream(format!("{path}: {e}"));
    let request = Request::builder().method(method).uri(format!("{API}{path}"));
    let (request, body) = match json {
        Some(json) => (request.header("content-type", "application/json"), Body::from(json.to_string())),
        None => (request, Body::empty()),
    };
    let request = request.body(body).map_err(|e| upstream(e.to_string()))?;
    let response: Response<Body> =
        Client::new().send(request).await.map_err(|e| upstream(format!("{e:#}")))?;
    let (head, mut body) = response.into_parts();
    let etag = head.headers.get("etag").and_then(|etag| etag.to_str().ok()).unwrap_or_default().to_owned();
    let body = body.contents().await.map_err(|e| upstream(format!("{e:#}")))?;
    Ok((head.status.as_u16(), etag, body.to_vec()))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|e| Failure::Upstream(e.to_string()))
}

fn refused(doing: &str, key: &str, status: u16, body: &[u8]) -> Failure {
    Failure::Upstream(format!("{doing} {key}: {status} {}", String::from_utf8_lossy(body)))
}
