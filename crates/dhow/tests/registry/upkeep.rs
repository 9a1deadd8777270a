//! Garbage collection, scrubbing, quotas: what an owner does, on a registry that runs and on one that does not.

use crate::client::*;
use crate::support::{Ended, Setting, eventually};
use serde_json::{Value, json};
use std::fs;

fn command(registry: &Registry, args: &[&str]) -> Ended {
    registry.setting.run(&[&["registry"], args, &["--data-dir", "registry"]].concat())
}

fn as_json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

over_storages! {
    what_nobody_refers_to_goes_and_everything_else_stays,
    an_index_and_what_refers_to_it_keep_their_manifests,
}

fn what_nobody_refers_to_goes_and_everything_else_stays(registry: Registry) {
    let client = registry.client();
    let kept = client.push("a", "v1", "text/plain", b"kept");
    let replaced = client.push("a", "v2", "text/plain", b"replaced");
    client.push("a", "v2", "text/plain", b"newer");
    let orphan = client.push_blob("a", b"nobody refers to this");
    let deleted = client.push("b", "v1", "text/plain", b"deleted");
    assert_eq!(client.send("DELETE", &format!("/v2/b/manifests/{deleted}"), &[], b"").status, 202);

    // All of it is young.
    let ended = command(&registry, &["gc", "--json"]);
    assert_eq!((ended.code, as_json(&ended)["blobs"].clone()), (Some(0), json!(0)), "{}", ended.err);
    let dry = as_json(&command(&registry, &["gc", "--grace", "0s", "--dry-run", "--json"]));
    assert_eq!(client.get(&format!("/v2/a/blobs/{orphan}")).status, 200);
    let done = as_json(&command(&registry, &["gc", "--grace", "0s", "--json"]));
    assert_eq!(dry, done, "a dry run says what would be done");
    // The orphan, the manifest and the layer of what was deleted; the empty configuration is in use elsewhere.
    assert_eq!(done["blobs"], json!(3), "{done}");
    assert_eq!(client.get(&format!("/v2/a/blobs/{orphan}")).status, 404);
    assert!(!registry.file(&orphan).exists() && !registry.file(&deleted).exists());
    for digest in [&kept, &replaced] {
        assert_eq!(client.get(&format!("/v2/a/manifests/{digest}")).status, 200);
    }
    let done = as_json(&command(&registry, &["gc", "--grace", "0s", "--untagged", "--json"]));
    assert_eq!((done["manifests"].clone(), done["blobs"].clone()), (json!(1), json!(2)), "{done}");
    assert_eq!(client.get(&format!("/v2/a/manifests/{replaced}")).status, 404);
    assert_eq!(client.get("/v2/a/manifests/v2").status, 200);
    assert_eq!(client.get("/v2/a/manifests/v1").status, 200);

    // The same without a process that has it open.
    let Registry { setting, host, .. } = registry;
    Client { addr: host.addr, authorization: None }.push_blob("a", b"another orphan");
    host.stop();
    let ended = setting.run(&["registry", "gc", "--grace", "0s", "--data-dir", "registry"]);
    assert!(ended.out.contains("removed 1 blobs"), "{ended:?}");
    let ended = setting.run(&["registry", "gc", "--data-dir", "nowhere"]);
    assert!(ended.code == Some(1) && ended.err.contains("no folder of a registry"), "{ended:?}");
}

fn an_index_and_what_refers_to_it_keep_their_manifests(registry: Registry) {
    let client = registry.client();
    let child = client.push("a", "child", "text/plain", b"one");
    let size = manifest("text/plain", b"one").len();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests":
        [{"mediaType": MANIFEST, "digest": child, "size": size}]});
    let index = serde_json::to_vec(&index).unwrap();
    assert_eq!(client.put_manifest("a", "all", &index).status, 201);
    client.push_blob("a", b"signature");
    let signature = json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/x-signature",
        "config": descriptor(EMPTY, b"{}"), "layers": [descriptor("text/plain", b"signature")],
        "subject": {"mediaType": INDEX, "digest": digest(&index), "size": index.len()}});
    let signature = serde_json::to_vec(&signature).unwrap();
    assert_eq!(client.put_manifest("a", &digest(&signature), &signature).status, 201);
    assert_eq!(client.send("DELETE", "/v2/a/manifests/child", &[], b"").status, 202);
    let done = as_json(&command(&registry, &["gc", "--grace", "0s", "--untagged", "--json"]));
    assert_eq!((done["manifests"].clone(), done["blobs"].clone()), (json!(0), json!(0)), "{done}");
    assert_eq!(client.send("DELETE", "/v2/a/manifests/all", &[], b"").status, 202);
    let done = as_json(&command(&registry, &["gc", "--grace", "0s", "--untagged", "--json"]));
    assert_eq!(done["manifests"], json!(3), "{done}");
    assert_eq!(client.get("/v2/_catalog").json()["repositories"], json!([]));
}

#[test]
fn pushes_beside_collections_lose_nothing() {
    let registry = Registry::start();
    let client = registry.client();
    let setting = &registry.setting;
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            for _ in 0..8 {
                let ended = setting.run(&["registry", "gc", "--grace", "0s", "--data-dir", "registry"]);
                assert_eq!(ended.code, Some(0), "{}", ended.err);
            }
        });
        let pushers: Vec<_> = (0..3)
            .map(|worker| {
                scope.spawn(move || {
                    let mut pushed = Vec::new();
                    let mut number = 0;
                    // A client whose blob was collected before its manifest came is told so, and pushes again.
                    while number < 40 {
                        let layer = format!("{worker} {number}").into_bytes();
                        client.push_blob("a", b"{}");
                        client.push_blob("a", &layer);
                        let tag = format!("t{worker}-{number}");
                        let answer = client.put_manifest("a", &tag, &manifest("text/plain", &layer));
                        match answer.status {
                            201 => {
                                pushed.push((tag, layer));
                                number += 1;
                            }
                            status => {
                                assert_eq!((status, code(&answer).as_str()), (404, "MANIFEST_BLOB_UNKNOWN"))
                            }
                        }
                    }
                    pushed
                })
            })
            .collect();
        let pushed: Vec<_> = pushers.into_iter().flat_map(|pusher| pusher.join().unwrap()).collect();
        collector.join().unwrap();
        for (tag, layer) in pushed {
            assert_eq!(client.get(&format!("/v2/a/manifests/{tag}")).status, 200, "{tag}");
            assert_eq!(client.get(&format!("/v2/a/blobs/{}", digest(&layer))).body, layer, "{tag}");
        }
    });
}

#[test]
fn damage_is_found_reported_never_given_out_and_repaired_by_a_push() {
    let registry = Registry::with(&["--scrub-every", "0s"]);
    let client = registry.client();
    let (small, large) = (noise(1, 1000), noise(2, 9 << 20));
    for (tag, blob) in [("small", &small), ("large", &large)] {
        client.push("a", tag, "application/octet-stream", blob);
    }
    let manifest = client.push("b", "v1", "text/plain", b"one");
    let ended = command(&registry, &["scrub"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains("0 damaged, 0 missing"), "{}", ended.out);

    // A bit of each turns.
    for digest in [&digest(&small), &digest(&large), &manifest] {
        let mut bytes = fs::read(registry.file(digest)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(registry.file(digest), bytes).unwrap();
    }
    // The small one is refused before its first byte, the large one breaks off, a part of it is refused.
    let answer = client.get(&format!("/v2/a/blobs/{}", digest(&small)));
    assert_eq!((answer.status, code(&answer).as_str()), (404, "BLOB_UNKNOWN"));
    assert!(answer.text().contains("damaged"), "{}", answer.text());
    let at = format!("/v2/a/blobs/{}", digest(&large));
    assert!(client.try_send("GET", &at, &[], b"").is_err(), "a damaged blob came whole");
    assert_eq!(client.send("HEAD", &at, &[], b"").status, 404);
    assert_eq!(client.send("GET", &at, &[("range", "bytes=0-9")], b"").status, 404);
    // Nobody asked for the manifest yet: the scrub finds it.
    let ended = command(&registry, &["scrub", "--json"]);
    assert_eq!(ended.code, Some(1));
    assert_eq!(
        (as_json(&ended)["damaged"].clone(), as_json(&ended)["missing"].clone()),
        (json!(3), json!(0))
    );
    let answer = client.get("/v2/b/manifests/v1");
    assert_eq!((answer.status, code(&answer).as_str()), (404, "MANIFEST_UNKNOWN"));
    assert!(answer.text().contains("damaged"), "{}", answer.text());
    // Who pulls learns that looking for a mistyped name is of no use.
    let (reference, at) = (format!("oci://{}/b:v1", client.addr), client.addr.to_string());
    let pulled = Setting::new().run(&["pull", &reference, "--insecure", &at]);
    assert!(pulled.code == Some(1) && pulled.err.contains("is damaged and not given out"), "{pulled:?}");
    let damaged = client.get("/api/v1/damaged").json();
    assert_eq!(damaged["damaged"].as_array().unwrap().len(), 3, "{damaged}");
    assert!(client.get("/metrics").text().contains("dhow_registry_damaged_blobs 3"));
    assert!(client.get("/").text().contains("3 stored blobs are damaged"));
    // A manifest that refers to it is not taken.
    let refers = crate::client::manifest("application/octet-stream", &small);
    assert_eq!(code(&client.put_manifest("a", "again", &refers)), "MANIFEST_BLOB_UNKNOWN");

    // It is known after a restart, and pushing it again repairs it.
    let registry = registry.kill_and_start(&["--scrub-every", "0s"]);
    let client = registry.client();
    assert_eq!(client.send("HEAD", &at, &[], b"").status, 404);
    for (tag, blob) in [("small", &small), ("large", &large)] {
        client.push("a", tag, "application/octet-stream", blob);
        assert!(client.get(&format!("/v2/a/blobs/{}", digest(blob))).body == *blob);
    }
    client.push("b", "v1", "text/plain", b"one");
    assert_eq!(client.get("/api/v1/damaged").json(), json!({"damaged": []}));
    // What is gone altogether is reported as well.
    fs::remove_file(registry.file(&digest(b"one"))).unwrap();
    let ended = command(&registry, &["scrub"]);
    assert!(ended.code == Some(1) && ended.out.contains("missing: sha256:"), "{}", ended.out);
}

#[test]
fn the_scrubber_goes_round_by_itself() {
    let registry = Registry::with(&["--scrub-every", "1s", "--scrub-pace", "64MiB"]);
    let client = registry.client();
    let blob = noise(5, 100_000);
    client.push("a", "v1", "application/octet-stream", &blob);
    fs::write(registry.file(&digest(&blob)), b"something else").unwrap();
    eventually("the damage to be found", || {
        client.get("/metrics").text().contains("dhow_registry_damaged_blobs 1").then_some(())
    });
    let said = registry.host.stop();
    assert!(said.contains("is damaged"), "{said}");
}

#[test]
fn limits_hold() {
    let registry =
        Registry::with(&["--max-blob", "100KB", "--max-repository", "250KB", "--max-uploads", "3"]);
    let client = registry.client();
    let push = |repository: &str, blob: &[u8]| {
        let target = format!("/v2/{repository}/blobs/uploads/?digest={}", digest(blob));
        client.send("POST", &target, &[], blob)
    };
    let answer = push("a", &noise(1, 100_001));
    assert_eq!((answer.status, code(&answer).as_str()), (413, "SIZE_INVALID"));
    for seed in 0..2 {
        assert_eq!(push("a", &noise(seed, 100_000)).status, 201);
    }
    let answer = push("a", &noise(3, 60_000));
    assert_eq!((answer.status, code(&answer).as_str()), (403, "DENIED"));
    assert_eq!(push("a", &noise(4, 50_000)).status, 201);
    assert_eq!(push("b", &noise(3, 60_000)).status, 201);
    // What goes makes room; what comes from elsewhere counts.
    let mount = |seed: u64, length: usize| {
        let target = format!("/v2/b/blobs/uploads/?mount={}&from=a", digest(&noise(seed, length)));
        client.send("POST", &target, &[], b"").status
    };
    assert_eq!((mount(0, 100_000), mount(1, 100_000)), (201, 403));
    let at = format!("/v2/a/blobs/{}", digest(&noise(0, 100_000)));
    assert_eq!(client.send("DELETE", &at, &[], b"").status, 202);
    assert_eq!(push("a", &noise(3, 60_000)).status, 201);

    let uploads: Vec<String> = (0..3).map(|_| client.begin("a")).collect();
    let answer = client.send("POST", "/v2/a/blobs/uploads/", &[], b"");
    assert_eq!((answer.status, code(&answer).as_str()), (429, "TOOMANYREQUESTS"));
    assert_eq!(client.send("DELETE", &uploads[0], &[], b"").status, 204);
    client.begin("a");
}

#[test]
fn uploads_that_nobody_goes_on_with_expire() {
    let registry = Registry::with(&["--upload-expiry", "1ms"]);
    let client = registry.client();
    let upload = client.begin("a");
    assert_eq!(client.send("PATCH", &upload, &[], b"abc").status, 202);
    eventually("the upload to expire", || {
        let done = as_json(&command(&registry, &["gc", "--json"]));
        (done["uploads"] == json!(1)).then_some(())
    });
    assert_eq!(client.get(&upload).status, 404);
    assert_eq!(fs::read_dir(registry.setting.path().join("registry/uploads")).unwrap().count(), 0);
}
