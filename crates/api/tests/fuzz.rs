//! Random requests to every route of the HTTP API, over the blocks' providers that need no server.
//!
//! Requests are made of the routes' own words, spoiled in every part. Whatever is sent, there is an answer soon,
//! it is not a panic, and a refusal has Dapr's error body. A failure prints the request and its seed;
//! `DHOW_FUZZ_SEED` repeats it, `DHOW_FUZZ_REQUESTS` asks for more than the usual number.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use dhow_api::dapr::{ApiOptions, Dapr, DaprFace};
use dhow_api::server::Face;
use dhow_blocks::invoke::Body;
use dhow_engine::{Engine, EngineOptions};
use dhow_host::{Components, Host, HostOptions};
use fastrand::Rng;
use http::{HeaderValue, Request};
use serde_json::Value;
use std::env;
use std::sync::Arc;
use std::time::Duration;

/// Of one run; some seconds.
const REQUESTS: u64 = 20_000;

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

const RESOURCES: &str = r"
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: store }
spec: { type: state.in-memory, version: v1, metadata: [] }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: broker }
spec: { type: pubsub.in-memory, version: v1, metadata: [] }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: locks }
spec: { type: lock.in-memory, version: v1, metadata: [] }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: vault }
spec:
  type: secretstores.local.file
  version: v1
  metadata: [{ name: secretsFile, value: FOLDER/secrets.json }]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: settings }
spec:
  type: configuration.local.file
  version: v1
  metadata: [{ name: configurationFile, value: FOLDER/settings.json }]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: files }
spec:
  type: bindings.localstorage
  version: v1
  metadata: [{ name: rootPath, value: FOLDER/files }]
";

const METHODS: [&str; 8] = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "QUERY"];

const ROUTES: [&str; 26] = [
    "/v1.0/state/store",
    "/v1.0/state/store/key",
    "/v1.0/state/store/bulk",
    "/v1.0/state/store/transaction",
    "/v1.0-alpha1/state/store/query",
    "/v1.0/publish/broker/topic",
    "/v1.0/publish/bulk/broker/topic",
    "/v1.0/bindings/files",
    "/v1.0/secrets/vault/name",
    "/v1.0/secrets/vault/bulk",
    "/v1.0/configuration/settings",
    "/v1.0/configuration/settings/subscribe",
    "/v1.0/configuration/settings/id/unsubscribe",
    "/v1.0-alpha1/lock/locks",
    "/v1.0-alpha1/unlock/locks",
    "/v1.0/jobs/job",
    "/v1.0-alpha1/jobs/job",
    "/v1.0/invoke/shop/method/path",
    "/v1.0/invoke/absent/method/path",
    "/v1.0/metadata",
    "/v1.0/metadata/key",
    "/v1.0/healthz",
    "/v1.0/healthz/outbound",
    "/v1.0/actors/type/id/method/name",
    "/v1.0-alpha1/crypto/c/encrypt",
    "/",
];

const SEGMENTS: [&str; 18] = [
    "",
    "..",
    ".",
    "%2e%2e",
    "%",
    "%zz",
    "%00",
    "a%7C%7Cb",
    "||",
    "absent",
    "%F0%9F%9A%80",
    "*",
    "a b",
    "%2F",
    "bulk",
    "v1.0",
    "store",
    "broker",
];

const QUERIES: [&str; 10] = [
    "metadata.ttlInSeconds=-1",
    "metadata.ttlInSeconds=99999999999999999999",
    "metadata.rawPayload=perhaps",
    "metadata.cloudevent.id=",
    "metadata.=x",
    "key=color",
    "key=",
    "consistency=maybe&concurrency=never",
    "%zz=%",
    "&&==&",
];

const HEADERS: [(&str, &str); 12] = [
    ("content-type", "application/json"),
    ("content-type", "application/cloudevents+json"),
    ("content-type", "application/octet-stream"),
    ("content-type", ";;;"),
    ("if-match", "1"),
    ("if-match", ""),
    ("dapr-app-id", "shop"),
    ("dapr-app-id", "no/such"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("traceparent", "ff-nonsense"),
    ("authorization", "Basic %%%"),
    ("tracestate", ",,=,"),
];

const BODIES: [&str; 16] = [
    r#"[{"key": "key", "value": {"a": 1}, "etag": "1", "metadata": {"ttlInSeconds": "1"}, "options": {"concurrency": "first-write"}}]"#,
    r#"{"keys": ["key", "other"], "parallelism": 2}"#,
    r#"{"operations": [{"operation": "upsert", "request": {"key": "key", "value": 1}}, {"operation": "delete", "request": {"key": "key"}}]}"#,
    r#"{"filter": {"AND": [{"EQ": {"a": 1}}, {"IN": {"a.b": [1, 2]}}]}, "sort": [{"key": "a", "order": "DESC"}], "page": {"limit": 1, "token": "1"}}"#,
    r#"[{"entryId": "1", "event": "x", "contentType": "text/plain"}, {"entryId": "2", "event": {"a": 1}, "contentType": "application/json"}]"#,
    r#"{"operation": "create", "data": "x", "metadata": {"fileName": "name"}}"#,
    r#"{"operation": "list", "metadata": {"fileName": "../.."}}"#,
    r#"{"resourceId": "door", "lockOwner": "anna", "expiryInSeconds": 1}"#,
    r#"{"schedule": "@every 1h", "repeats": 1, "data": {"@type": "x", "value": "y"}, "overwrite": true}"#,
    r#"{"dueTime": "2099-01-01T00:00:00Z", "failurePolicy": {"constant": {"interval": "1s", "maxRetries": 3}}}"#,
    r#"{"specversion": "1.0", "id": "1", "source": "x", "type": "y", "data": {"a": 1}, "time": "now"}"#,
    "[]",
    "{}",
    "null",
    "\"text\"",
    "",
];

/// What takes the place of a part of a body.
const SPOILERS: [&str; 14] = [
    "null",
    "-1",
    "1e400",
    "99999999999999999999",
    "\"\"",
    "[]",
    "{}",
    "true",
    "\\u0000",
    "\u{1F680}",
    "[[[[[[[[",
    "\"",
    ",",
    "\\ud800",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_gets_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    file("resources.yaml", &RESOURCES.replace("FOLDER", &folder.path().to_string_lossy()));
    file("secrets.json", r#"{"name": "value"}"#);
    file("settings.json", r#"{"color": "blue"}"#);
    let resources = dhow_resources::load::load_dir(folder.path()).unwrap();
    let host = Host::new(HostOptions {
        engine: Engine::new(EngineOptions::default()).unwrap(),
        cache: None,
        components: Components::new(resources, folder.path()),
        keep_loaded: false,
    });
    let host = host.unwrap();
    let scope = host.outside_scope("shop").await.unwrap();
    let face = Arc::new(DaprFace {
        api: Dapr::new(&host, None, ApiOptions::default()),
        scope: Arc::new(scope.into()),
        token: None,
    });

    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, requests) = match number("DHOW_FUZZ_SEED") {
        Some(seed) => (seed, 1),
        None => (fastrand::u64(..u64::MAX / 2), number("DHOW_FUZZ_REQUESTS").unwrap_or(REQUESTS)),
    };
    for seed in first..first + requests {
        let (request, shown) = request(&mut Rng::with_seed(seed));
        let what = || format!("DHOW_FUZZ_SEED={seed}: {shown}");
        let answer = tokio::spawn(Arc::clone(&face).answer(request));
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {}", what()));
        let answer = answer.unwrap_or_else(|error| panic!("{error}: {}", what()));
        let status = answer.status();
        let body =
            answer.into_body().collect(64 << 20).await.unwrap_or_else(|error| panic!("{error}: {}", what()));
        let refused = status.is_client_error() || status.is_server_error();
        assert!(status.as_u16() != 502 && status.as_u16() != 504, "{status} to {}", what());
        if refused {
            let error: Value = serde_json::from_slice(&body).unwrap_or_default();
            let code = error["errorCode"].as_str().unwrap_or_default();
            let partly = error["failedEntries"].is_array();
            assert!(
                partly || (code.contains('_') && error["message"].is_string()),
                "{status} {body:?} to {}",
                what()
            );
        }
    }
    // Nothing was written outside the binding's folder.
    let mut found: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    found.retain(|name| {
        !["resources.yaml", "secrets.json", "settings.json", "files"].iter().any(|known| name == *known)
    });
    found.retain(|name| !name.to_string_lossy().contains(".db"));
    assert!(found.is_empty(), "{found:?}");
}

fn request(rng: &mut Rng) -> (Request<Body>, String) {
    let method = METHODS[if rng.u8(..) < 220 { rng.usize(..4) } else { rng.usize(..METHODS.len()) }];
    let mut segments: Vec<&str> = ROUTES[rng.usize(..ROUTES.len())].split('/').collect();
    for _ in 0..rng.usize(..3).saturating_sub(1) {
        let at = rng.usize(..segments.len());
        let word = SEGMENTS[rng.usize(..SEGMENTS.len())];
        match rng.u8(..3) {
            0 => segments[at] = word,
            1 => segments.insert(at, word),
            _ => drop(segments.remove(at)),
        }
        if segments.is_empty() {
            segments.push("");
        }
    }
    let mut target = segments.join("/").replace(' ', "%20");
    if !target.starts_with('/') {
        target.insert(0, '/');
    }
    for _ in 0..rng.usize(..3) {
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str(QUERIES[rng.usize(..QUERIES.len())]);
    }
    let mut body = BODIES[rng.usize(..BODIES.len())].as_bytes().to_vec();
    for _ in 0..rng.usize(..4).saturating_sub(1) {
        spoil(&mut body, rng);
    }
    let mut request = Request::builder().method(method).uri(&target);
    let mut headers = Vec::new();
    for _ in 0..rng.usize(..4) {
        let (name, value) = HEADERS[rng.usize(..HEADERS.len())];
        headers.push((name, value));
        request = request.header(name, HeaderValue::from_static(value));
    }
    let shown = format!("{method} {target} {headers:?} {}", String::from_utf8_lossy(&body));
    (request.body(Body::from(body)).unwrap_or_else(|error| panic!("{error}: {shown}")), shown)
}

fn spoil(body: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.usize(..=body.len());
    let to = at + rng.usize(..=(body.len() - at).min(12));
    let instead = SPOILERS[rng.usize(..SPOILERS.len())].as_bytes();
    match rng.u8(..4) {
        0 => drop(body.splice(at..to, instead.iter().copied())),
        1 => drop(body.drain(at..to)),
        2 => body.truncate(at),
        _ if at < body.len() => body[at] ^= 1 << rng.u8(..8),
        _ => {}
    }
}
