//! Requests to the registry, mostly of uploads: any method, path, header and body, in any order.
//!
//! The input is lines, one request each: `METHOD TARGET|CONTENT-RANGE|RANGE|BODY`. In a target `$U` stands for the last
//! upload that began, and `$D` for the digest of the body. No request may be answered with 500 or more, and whatever a
//! blob's digest finds has that digest.
#![no_main]

use bytes::Bytes;
use dhow_artifacts::digest::Digest;
use dhow_artifacts::registry::auth::{Anonymous, Auth};
use dhow_artifacts::registry::http::{Body, Face};
use dhow_artifacts::registry::{Examination, Examiner, Options, Registry};
use http::Request;
use http_body_util::{BodyExt, Full};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Knows nothing: modules are fuzzed elsewhere.
struct Nothing;

impl Examiner for Nothing {
    fn examine(&self, _: &[u8]) -> Examination {
        Examination::default()
    }

    fn capability(&self, name: &str) -> String {
        name.to_owned()
    }
}

struct World {
    runtime: Runtime,
    face: Face,
    _folder: TempDir,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = Runtime::new().expect("a runtime");
    let folder = TempDir::new().expect("a folder");
    let options = Options { max_uploads: 100_000, max_blob: 1 << 20, ..Options::new(folder.path()) };
    let auth = Auth::open(folder.path(), None, None, Anonymous::Everything).expect("no files");
    let registry = runtime.block_on(Registry::open(options, auth, Arc::new(Nothing))).expect("a registry");
    World { runtime, face: Face::new(registry, None, false), _folder: folder }
});

fuzz_target!(|input: &[u8]| {
    let mut upload = String::new();
    for line in input.split(|byte| *byte == b'\n').take(20) {
        WORLD.runtime.block_on(ask(line, &mut upload));
    }
});

async fn ask(line: &[u8], upload: &mut String) {
    let mut parts = line.splitn(4, |byte| *byte == b'|');
    let mut part = || parts.next().unwrap_or_default();
    let (first, content_range, range, body) = (part(), part(), part(), part());
    let first = String::from_utf8_lossy(first);
    let (method, target) = first.split_once(' ').unwrap_or((&first, "/v2/"));
    let digest = Digest::sha256(body).to_string();
    let target = target.replace("$U", upload).replace("$D", &digest);
    let mut request = Request::builder().method(method).uri(&target);
    for (name, value) in [("content-range", content_range), ("range", range)] {
        if !value.is_empty() {
            request = request.header(name, value);
        }
    }
    let sent: Body = Full::new(Bytes::copy_from_slice(body)).map_err(|never| match never {}).boxed_unsync();
    let Ok(request) = request.body(sent) else { return };
    let path = request.uri().path();
    let is_blob = method == "GET" && path.starts_with("/v2/") && path.contains("/blobs/sha256:") && range.is_empty();
    let answer = WORLD.face.answer(request).await;
    assert!(answer.status().as_u16() < 500, "{method} {target}: {}", answer.status());
    if answer.status() == 202
        && let Some(location) = answer.headers().get("location").and_then(|location| location.to_str().ok())
    {
        *upload = location.to_owned();
    }
    let is_found = answer.status() == 200;
    let said = answer.headers().get("docker-content-digest").cloned();
    let received = answer.into_body().collect().await.map(|body| body.to_bytes());
    if let (true, true, Ok(received)) = (is_blob, is_found, received) {
        assert_eq!(said.expect("a digest"), Digest::sha256(&received).to_string().as_str(), "{target}");
    }
}
