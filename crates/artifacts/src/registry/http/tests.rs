//! The registry as requests meet it, without sockets: what a disk or a client does that no tool would.

use super::{Body, Face, is_here};
use crate::digest::Digest;
use crate::registry::auth::{Anonymous, Auth};
use crate::registry::{Examination, Examiner, Options, Registry, SignedPolicy};
use ::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::sync::Arc;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const WASM: &[u8] = b"\0asm\x01\0\0\0";

/// Finds no token in anything.
struct Unsigned;

impl Examiner for Unsigned {
    fn examine(&self, _: &[u8]) -> Examination {
        Examination::default()
    }

    fn capability(&self, name: &str) -> String {
        name.to_owned()
    }
}

struct Setting {
    folder: tempfile::TempDir,
    registry: Arc<Registry>,
    face: Face,
}

impl Setting {
    async fn new(change: impl FnOnce(&mut Options)) -> Setting {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(folder.path());
        change(&mut options);
        let auth = Auth::open(folder.path(), None, None, Anonymous::Everything).unwrap();
        let registry = Registry::open(options, auth, Arc::new(Unsigned)).await.unwrap();
        let face = Face::new(Arc::clone(&registry), None, false);
        Setting { folder, registry, face }
    }

    fn request(method: &str, path: &str, body: &[u8]) -> Request<Body> {
        let body = Full::new(Bytes::copy_from_slice(body)).map_err(|never| match never {}).boxed_unsync();
        let request = Request::builder().method(method).uri(path).header("content-type", MANIFEST);
        request.body(body).unwrap()
    }

    async fn ask(&self, method: &str, path: &str, body: &[u8]) -> (StatusCode, Bytes) {
        let answer = self.face.answer(Setting::request(method, path, body)).await;
        let status = answer.status();
        (status, answer.into_body().collect().await.unwrap().to_bytes())
    }

    async fn push(&self, method: &str, path: &str, body: &[u8]) -> u16 {
        self.ask(method, path, body).await.0.as_u16()
    }

    async fn blob(&self, bytes: &[u8]) -> Value {
        let digest = Digest::sha256(bytes);
        self.push("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), bytes).await;
        json!({"mediaType": "application/octet-stream", "digest": digest, "size": bytes.len()})
    }

    async fn manifest(&self, layers: &[&[u8]], more: Value) -> Vec<u8> {
        let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": self.blob(b"{}").await,
            "layers": []});
        for layer in layers {
            let layer = self.blob(layer).await;
            manifest["layers"].as_array_mut().unwrap().push(layer);
        }
        manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::to_vec(&manifest).unwrap()
    }
}

#[tokio::test]
async fn modules_are_examined_wherever_they_are() {
    let setting = Setting::new(|options| options.signed = SignedPolicy::Refuse).await;
    let cases: [(&[&[u8]], u16); 6] = [
        (&[b"text"], 201),
        (&[WASM], 403),
        (&[b"text", WASM], 403),
        (&[b"(module)"], 403),
        (&[b"text", b"(module)"], 201),
        (&[], 201),
    ];
    for (layers, status) in cases {
        let manifest = setting.manifest(layers, json!({})).await;
        assert_eq!(setting.push("PUT", "/v2/a/manifests/v1", &manifest).await, status, "{layers:?}");
    }
}

#[tokio::test]
async fn manifests_count_and_no_pushes_at_once_have_more_than_the_limit() {
    let setting = Setting::new(|options| options.max_repository = Some(2500)).await;
    let blobs: Vec<Vec<u8>> = (0..4).map(|seed| vec![seed; 1000]).collect();
    let paths: Vec<String> =
        blobs.iter().map(|blob| format!("/v2/a/blobs/uploads/?digest={}", Digest::sha256(blob))).collect();
    let pushes = blobs.iter().zip(&paths).map(|(blob, path)| setting.push("POST", path, blob));
    let done = futures::future::join_all(pushes).await;
    assert!(done.iter().filter(|status| **status == 201).count() <= 2, "{done:?}");
    let manifest = setting.manifest(&[], json!({"annotations": {"a": "b".repeat(2500)}})).await;
    assert_eq!(setting.push("PUT", "/v2/a/manifests/v1", &manifest).await, 403);
}

#[tokio::test]
async fn referrers_come_in_pages_and_are_not_too_large() {
    let setting = Setting::new(|_| {}).await;
    let subject = setting.blob(b"subject").await;
    for number in 0..5 {
        let more = json!({"subject": subject, "annotations": {"number": number.to_string()}});
        let manifest = setting.manifest(&[], more).await;
        let path = format!("/v2/a/manifests/{}", Digest::sha256(&manifest));
        assert_eq!(setting.push("PUT", &path, &manifest).await, 201);
    }
    let huge = json!({"subject": subject, "annotations": {"huge": "x".repeat(2 << 20)}});
    let manifest = setting.manifest(&[], huge).await;
    assert_eq!(setting.push("PUT", "/v2/a/manifests/huge", &manifest).await, 400);
    let mut path = format!("/v2/a/referrers/{}?n=2", subject["digest"].as_str().unwrap());
    let mut found = Vec::new();
    loop {
        let answer = setting.face.answer(Setting::request("GET", &path, b"")).await;
        let next = answer.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        let page: Value =
            serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
        let page = page["manifests"].as_array().unwrap();
        assert!(page.len() <= 2);
        found.extend(page.iter().map(|found| found["annotations"]["number"].as_str().unwrap().to_owned()));
        match next {
            None => break,
            Some(next) => path = next[1..next.find('>').unwrap()].to_owned(),
        }
    }
    found.sort_unstable();
    assert_eq!(found, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn what_the_disk_does_to_a_blob_is_found_and_a_push_repairs_it() {
    let setting = Setting::new(|_| {}).await;
    let manifest = setting.manifest(&[b"layer"], json!({})).await;
    assert_eq!(setting.push("PUT", "/v2/a/manifests/v1", &manifest).await, 201);
    let file = |digest: &Digest| {
        setting.folder.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex())
    };
    // A manifest that has grown, and a blob that cannot be read.
    let (digest, layer) = (Digest::sha256(&manifest), Digest::sha256(b"layer"));
    std::fs::write(file(&digest), vec![b' '; 5 << 20]).unwrap();
    std::fs::remove_file(file(&layer)).unwrap();
    std::fs::create_dir(file(&layer)).unwrap();
    assert_eq!(setting.push("GET", "/v2/a/manifests/v1", b"").await, 404);
    assert!(setting.registry.damaged().contains_key(&digest));
    let found = setting.registry.scrub(None).await.unwrap();
    assert_eq!((found.blobs, found.damaged), (3, 2), "{:?}", found.findings);
    assert_eq!(setting.push("HEAD", &format!("/v2/a/blobs/{layer}"), b"").await, 404);
    setting.blob(b"layer").await;
    assert_eq!(setting.push("PUT", "/v2/a/manifests/v1", &manifest).await, 201);
    assert_eq!(setting.ask("GET", &format!("/v2/a/blobs/{layer}"), b"").await.1, "layer");
    assert!(setting.registry.scrub(None).await.unwrap().is_sound());
}

#[tokio::test]
async fn a_change_is_made_to_its_end_without_its_client() {
    let setting = Setting::new(|_| {}).await;
    for polls in 1..200 {
        let manifest = setting.manifest(&[], json!({"annotations": {"polls": polls.to_string()}})).await;
        // The client goes away after so many steps.
        let mut asked =
            Box::pin(setting.face.answer(Setting::request("PUT", "/v2/a/manifests/v1", &manifest)));
        let mut is_done = false;
        for _ in 0..polls {
            is_done = is_done || futures::FutureExt::now_or_never(&mut asked).is_some();
            if is_done {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(asked);
        // Whatever was begun is done when the repository has its turn again.
        let places = super::super::CHANGED_AT_ONCE as u32;
        drop(setting.registry.changing.acquire_many(places).await.unwrap());
        let (status, stored) = setting.ask("GET", "/v2/a/manifests/v1", b"").await;
        let listed = setting.ask("GET", "/v2/a/tags/list", b"").await.0;
        assert_eq!(status, listed, "after {polls} steps");
        let known = setting.registry.catalogue.all_manifests();
        assert_eq!(known.iter().any(|(_, digest)| *digest == Digest::sha256(&stored)), status == 200);
        if is_done {
            return;
        }
    }
}

#[test]
fn names_of_this_machine_are_told_from_others() {
    for name in ["localhost", "LocalHost:5000", "127.0.0.1:5000", "127.8.0.1", "[::1]:5000", "a.localhost:1"]
    {
        assert!(is_here(name), "{name}");
    }
    for name in
        ["evil.example", "127.0.0.1.evil.example:5000", "localhost.evil.example", "10.0.0.1:5000", "null", ""]
    {
        assert!(!is_here(name), "{name}");
    }
}
