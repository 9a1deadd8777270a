//! The distribution API, end-point by end-point
//! (<https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md>).

use crate::client::*;
use dhow_artifacts::digest::Algorithm;
use serde_json::{Value, json};

over_storages! {
    a_blob_arrives_in_every_way_that_the_specification_has,
    sha512_and_nothing_are_content_too,
    parts_of_a_blob_are_given_out,
    manifests_are_named_by_tags_and_digests,
    a_manifest_may_refer_only_to_what_is_there,
    what_refers_to_a_manifest_is_found,
    lists_come_in_pages,
    what_cannot_be_is_refused_with_the_codes_of_the_specification,
}

fn a_blob_arrives_in_every_way_that_the_specification_has(registry: Registry) {
    let client = registry.client();
    assert_eq!(client.get("/v2/").status, 200);
    let blob = noise(1, 3 << 20);
    let digest = digest(&blob);
    let at = format!("/v2/shop/front/blobs/{digest}");
    assert_eq!(client.send("HEAD", &at, &[], b"").status, 404);

    // Whole, after it was begun.
    let upload = client.begin("shop/front");
    let answer = client.send("PUT", &format!("{upload}?digest={digest}"), &[], &blob);
    assert_eq!((answer.status, answer.header("location")), (201, Some(at.as_str())));
    let answer = client.get(&at);
    assert_eq!((answer.status, &answer.body), (200, &blob));
    assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
    let head = client.send("HEAD", &at, &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("3145728")));

    // In chunks, one of them twice, one at the wrong place, and asked how far it came.
    let upload = client.begin("chunks");
    let chunks: Vec<&[u8]> = blob.chunks(1 << 20).collect();
    let range = |first: usize, chunk: &[u8]| format!("{first}-{}", first + chunk.len() - 1);
    let patch = |first: usize, chunk: &[u8]| {
        client.send("PATCH", &upload, &[("content-range", &range(first, chunk))], chunk)
    };
    let answer = patch(0, chunks[0]);
    assert_eq!((answer.status, answer.header("range")), (202, Some("0-1048575")), "{}", answer.text());
    let answer = patch(2 << 20, chunks[2]);
    assert_eq!((answer.status, answer.header("range")), (416, Some("0-1048575")));
    assert_eq!(answer.header("location"), Some(upload.as_str()));
    assert_eq!(patch(0, chunks[0]).status, 416);
    let answer = client.get(&upload);
    assert_eq!((answer.status, answer.header("range")), (204, Some("0-1048575")));
    assert_eq!(patch(1 << 20, chunks[1]).status, 202);
    let answer = client.send("PUT", &format!("{upload}?digest={digest}"), &[], chunks[2]);
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(client.get(&format!("/v2/chunks/blobs/{digest}")).body, blob);
    assert_eq!(client.get(&upload).status, 404, "an upload ends with its blob");

    // Mounted from another repository; from one that does not have it, an upload begins.
    let mount = |from: &str| {
        let target = format!("/v2/mounted/blobs/uploads/?mount={digest}&from={from}");
        client.send("POST", &target, &[], b"")
    };
    assert_eq!(mount("nowhere").status, 202);
    assert_eq!(mount("shop/front").status, 201);
    assert_eq!(client.get(&format!("/v2/mounted/blobs/{digest}")).body, blob);

    // A repository has what was pushed to it, and nothing else.
    assert_eq!(client.get(&format!("/v2/elsewhere/blobs/{digest}")).status, 404);
    let answer = client.send("DELETE", &at, &[], b"");
    assert_eq!(answer.status, 202);
    assert_eq!(client.get(&at).status, 404);
    assert_eq!(client.get(&format!("/v2/mounted/blobs/{digest}")).status, 200);
    registry.host.stop();
}

fn sha512_and_nothing_are_content_too(registry: Registry) {
    let client = registry.client();
    let blob = noise(2, 100_000);
    let mut hasher = Algorithm::Sha512.hasher();
    hasher.update(&blob);
    let digest = hasher.finish();
    let upload = client.begin("a");
    assert_eq!(client.send("PATCH", &upload, &[], &blob).status, 202);
    assert_eq!(client.send("PUT", &format!("{upload}?digest={digest}"), &[], b"").status, 201);
    assert_eq!(client.get(&format!("/v2/a/blobs/{digest}")).body, blob);
    let nothing = client.push_blob("a", b"");
    let answer = client.get(&format!("/v2/a/blobs/{nothing}"));
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

fn parts_of_a_blob_are_given_out(registry: Registry) {
    let client = registry.client();
    // Larger than what is hashed before its first byte is sent.
    let blob = noise(3, 9 << 20);
    let digest = client.push_blob("a", &blob);
    let at = format!("/v2/a/blobs/{digest}");
    assert_eq!(client.get(&at).body, blob);
    let cases = [
        ("bytes=0-9", Some((0, 10))),
        ("bytes=5000000-6999999", Some((5_000_000, 2_000_000))),
        ("bytes=9437000-", Some((9_437_000, 184))),
        ("bytes=-100", Some(((9 << 20) - 100, 100))),
        ("bytes=9437184-", None),
    ];
    for (range, part) in cases {
        let answer = client.send("GET", &at, &[("range", range)], b"");
        match part {
            None => {
                assert_eq!(answer.status, 416, "{range}");
                assert_eq!(answer.header("content-range"), Some("bytes */9437184"));
            }
            Some((begin, length)) => {
                assert_eq!(answer.status, 206, "{range}");
                assert!(answer.body == blob[begin..begin + length], "{range}");
                let expected = format!("bytes {begin}-{}/9437184", begin + length - 1);
                assert_eq!(answer.header("content-range"), Some(expected.as_str()));
            }
        }
    }
    let whole = client.send("GET", &at, &[("range", "bytes=0-1,4-5")], b"");
    assert_eq!((whole.status, whole.body.len()), (200, 9 << 20));

    // Whoever has it already, or has begun with something else.
    let etag = client.send("HEAD", &at, &[], b"").header("etag").unwrap().to_owned();
    assert_eq!(etag, format!("\"{digest}\""));
    let (weak, other) = (format!("W/{etag}"), format!("\"sha256:{}\"", "0".repeat(64)));
    let several = format!("{other}, {weak}");
    for (method, tags, status) in [
        ("GET", etag.as_str(), 304),
        ("HEAD", &etag, 304),
        ("GET", &several, 304),
        ("GET", "*", 304),
        ("GET", &other, 200),
    ] {
        let answer = client.send(method, &at, &[("if-none-match", tags)], b"");
        assert_eq!((answer.status, answer.header("etag")), (status, Some(etag.as_str())), "{method} {tags}");
        assert_eq!(answer.body.is_empty(), status == 304);
    }
    let missing = format!("/v2/a/blobs/{}", crate::client::digest(b"missing"));
    assert_eq!(client.send("GET", &missing, &[("if-none-match", "*")], b"").status, 404);
    for (condition, status) in [(&etag, 206), (&other, 200), (&weak, 200)] {
        let answer = client.send("GET", &at, &[("range", "bytes=4-7"), ("if-range", condition)], b"");
        assert_eq!(answer.status, status, "{condition}");
    }
}

fn manifests_are_named_by_tags_and_digests(registry: Registry) {
    let client = registry.client();
    client.push("a", "v1", "text/plain", b"one");
    let first = manifest("text/plain", b"one");
    let digest = digest(&first);
    for reference in ["v1", &digest] {
        let answer = client.get(&format!("/v2/a/manifests/{reference}"));
        assert_eq!((answer.status, &answer.body), (200, &first));
        assert_eq!(answer.header("content-type"), Some(MANIFEST));
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
        let head = client.send("HEAD", &format!("/v2/a/manifests/{reference}"), &[], b"");
        assert_eq!((head.status, head.header("content-length")), (200, Some(&*first.len().to_string())));
    }
    let etag = format!("\"{digest}\"");
    assert_eq!(client.send("GET", "/v2/a/manifests/v1", &[("if-none-match", &etag)], b"").status, 304);

    // A tag moves; what it named stays, by its digest.
    client.push("a", "v1", "text/plain", b"two");
    assert_ne!(client.get("/v2/a/manifests/v1").body, first);
    assert_eq!(client.get(&format!("/v2/a/manifests/{digest}")).body, first);

    // Whoever expects another manifest does not move it.
    let third = manifest("text/plain", b"one");
    let put = |tag: &str, headers: &[(&str, &str)]| {
        let headers = [headers, &[("content-type", MANIFEST)]].concat();
        client.send("PUT", &format!("/v2/a/manifests/{tag}"), &headers, &third).status
    };
    let second = client.get("/v2/a/manifests/v1").header("etag").unwrap().to_owned();
    assert_eq!(put("v1", &[("if-match", &etag)]), 412);
    assert_eq!(put("v1", &[("if-none-match", "*")]), 412);
    assert_eq!(put("new", &[("if-match", "*")]), 412);
    assert_eq!(put("new", &[("if-none-match", "*")]), 201);
    assert_eq!(put("v1", &[("if-match", &second)]), 201);

    // Deleted by tag, the manifest stays; by digest, its tags go.
    assert_eq!(client.send("DELETE", "/v2/a/manifests/new", &[], b"").status, 202);
    assert_eq!(client.get("/v2/a/manifests/new").status, 404);
    assert_eq!(client.get("/v2/a/manifests/v1").status, 200);
    assert_eq!(client.send("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"").status, 202);
    for reference in ["v1", &digest] {
        let answer = client.get(&format!("/v2/a/manifests/{reference}"));
        assert_eq!((answer.status, code(&answer).as_str()), (404, "MANIFEST_UNKNOWN"));
    }
}

fn a_manifest_may_refer_only_to_what_is_there(registry: Registry) {
    let client = registry.client();
    let missing = manifest("text/plain", b"one");
    let answer = client.put_manifest("a", "v1", &missing);
    assert_eq!((answer.status, code(&answer).as_str()), (404, "MANIFEST_BLOB_UNKNOWN"));
    client.push_blob("a", b"{}");
    client.push_blob("elsewhere", b"one");
    assert_eq!(
        client.put_manifest("a", "v1", &missing).status,
        404,
        "another repository's blob is not its own"
    );
    client.push_blob("a", b"one");
    let lie = String::from_utf8(missing.clone()).unwrap().replace("\"size\":3", "\"size\":4");
    let answer = client.put_manifest("a", "v1", lie.as_bytes());
    assert_eq!((answer.status, code(&answer).as_str()), (400, "SIZE_INVALID"));
    assert_eq!(client.put_manifest("a", "v1", &missing).status, 201);

    let zeros = format!("sha256:{}", "0".repeat(64));
    let answer = client.put_manifest("a", &zeros, &missing);
    assert_eq!((answer.status, code(&answer).as_str()), (400, "DIGEST_INVALID"));
    for bad in ["", "{}", "[]", "null", "\"x\"", "{\"schemaVersion\": 2, \"mediaType\": \"text/html\"}"] {
        let answer = client.put_manifest("a", "bad", bad.as_bytes());
        assert_eq!((answer.status, code(&answer).as_str()), (400, "MANIFEST_INVALID"), "{bad}");
    }
    let large = vec![b' '; (4 << 20) + 1];
    assert_eq!(client.put_manifest("a", "large", &large).status, 413);
    assert_eq!(client.get("/v2/a/tags/list").json()["tags"], json!(["v1"]));

    // An index, of what is there and of what is not.
    let index = |digest: &str, size: usize| {
        let child = json!({"mediaType": MANIFEST, "digest": digest, "size": size});
        serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]})).unwrap()
    };
    let answer = client.put_manifest("a", "all", &index(&zeros, 10));
    assert_eq!((answer.status, code(&answer).as_str()), (404, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(client.put_manifest("a", "all", &index(&digest(&missing), missing.len())).status, 201);
    assert_eq!(client.get("/v2/a/manifests/all").header("content-type"), Some(INDEX));
}

fn what_refers_to_a_manifest_is_found(registry: Registry) {
    let client = registry.client();
    let subject = client.push("a", "v1", "text/plain", b"one");
    let referrers = |query: &str| client.get(&format!("/v2/a/referrers/{subject}{query}"));
    let none = referrers("");
    assert_eq!((none.status, none.header("content-type")), (200, Some(INDEX)));
    assert_eq!(none.json()["manifests"], json!([]));

    let refer = |kind: &str| {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
            "config": descriptor(EMPTY, b"{}"), "layers": [descriptor("text/plain", b"one")],
            "subject": {"mediaType": MANIFEST, "digest": subject, "size": manifest("text/plain", b"one").len()},
            "annotations": {"kind": kind},
        });
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let answer = client.put_manifest("a", &digest(&bytes), &bytes);
        assert_eq!((answer.status, answer.header("oci-subject")), (201, Some(subject.as_str())));
        digest(&bytes)
    };
    let signature = refer("application/x-signature");
    let report = refer("application/x-report");
    let all = referrers("").json();
    assert_eq!(all["manifests"].as_array().unwrap().len(), 2);
    let filtered = referrers("?artifactType=application/x-report");
    assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    let found = &filtered.json()["manifests"];
    assert_eq!(found[0]["digest"], json!(report));
    assert_eq!(found[0]["annotations"], json!({"kind": "application/x-report"}));
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(client.send("DELETE", &format!("/v2/a/manifests/{report}"), &[], b"").status, 202);
    assert_eq!(referrers("").json()["manifests"][0]["digest"], json!(signature));

    // The subject may come later, or never.
    let zeros = format!("sha256:{}", "0".repeat(64));
    assert_eq!(client.get(&format!("/v2/nowhere/referrers/{zeros}")).json()["manifests"], json!([]));
    assert_eq!(client.get("/v2/a/referrers/sha256:0").status, 400);
}

fn lists_come_in_pages(registry: Registry) {
    let client = registry.client();
    let mut expected = Vec::new();
    for number in 0..5 {
        let name = format!("team/app{number}");
        client.push(&name, "v1", "text/plain", b"one");
        expected.push(name);
    }
    for tag in ["a", "B", "c.1", "_d"] {
        client.push("team/app0", tag, "text/plain", b"one");
    }
    // Follows `Link` from page to page.
    let collect = |first: &str, field: &str| {
        let mut found: Vec<Value> = Vec::new();
        let mut target = first.to_owned();
        loop {
            let answer = client.get(&target);
            let page = answer.json()[field].as_array().unwrap().clone();
            assert!(page.len() <= 2);
            found.extend(page);
            match answer.header("link") {
                None => return found,
                Some(link) => {
                    let next = link.strip_prefix('<').unwrap().split_once(">; rel=\"next\"").unwrap().0;
                    target = next.to_owned();
                }
            }
        }
    };
    assert_eq!(json!(collect("/v2/_catalog?n=2", "repositories")), json!(expected));
    let tags = json!(["_d", "a", "B", "c.1", "v1"]);
    assert_eq!(json!(collect("/v2/team/app0/tags/list?n=2", "tags")), tags);
    assert_eq!(client.get("/v2/team/app0/tags/list").json(), json!({"name": "team/app0", "tags": tags}));
    assert_eq!(client.get("/v2/team/app0/tags/list?n=0").json()["tags"], json!([]));
    let answer = client.get("/v2/team/app0/tags/list?n=many");
    assert_eq!((answer.status, code(&answer).as_str()), (400, "PAGINATION_NUMBER_INVALID"));
    let answer = client.get("/v2/team/tags/list");
    assert_eq!((answer.status, code(&answer).as_str()), (404, "NAME_UNKNOWN"));
}

fn what_cannot_be_is_refused_with_the_codes_of_the_specification(registry: Registry) {
    let client = registry.client();
    let zeros = format!("sha256:{}", "0".repeat(64));
    let upload = client.begin("a");
    let cases: [(&str, String, u16, &str); 17] = [
        ("GET", "/v2/Upper/tags/list".into(), 400, "NAME_INVALID"),
        ("GET", "/v2/a/../b/tags/list".into(), 400, "NAME_INVALID"),
        ("GET", "/v2/a/_tags/tags/list".into(), 400, "NAME_INVALID"),
        ("GET", "/v2/a/manifests/.x".into(), 400, "NAME_INVALID"),
        ("GET", "/v2/a/manifests/none".into(), 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/a/blobs/sha256:abc".into(), 400, "DIGEST_INVALID"),
        ("GET", "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e".into(), 400, "DIGEST_INVALID"),
        ("GET", format!("/v2/a/blobs/{zeros}"), 404, "BLOB_UNKNOWN"),
        ("DELETE", format!("/v2/a/blobs/{zeros}"), 404, "BLOB_UNKNOWN"),
        ("DELETE", "/v2/a/manifests/none".into(), 404, "MANIFEST_UNKNOWN"),
        ("POST", format!("/v2/a/blobs/{zeros}"), 405, "UNSUPPORTED"),
        ("GET", "/v2/a/blobs/uploads/no-such-upload".into(), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", upload.replace("/a/", "/b/"), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PUT", upload.clone(), 400, "DIGEST_INVALID"),
        ("PUT", format!("{upload}?digest=sha256:zz"), 400, "DIGEST_INVALID"),
        ("POST", format!("/v2/a/blobs/uploads/?digest={zeros}"), 400, "DIGEST_INVALID"),
        ("GET", "/v1/search".into(), 404, "UNSUPPORTED"),
    ];
    for (method, target, status, expected) in cases {
        let answer = client.send(method, &target, &[], b"");
        assert_eq!((answer.status, code(&answer).as_str()), (status, expected), "{method} {target}");
        assert!(!answer.json()["errors"][0]["message"].as_str().unwrap().is_empty());
    }
    // A wrong digest ends the upload: it can never be right.
    assert_eq!(client.send("PATCH", &upload, &[], b"abc").status, 202);
    let answer = client.send("PUT", &format!("{upload}?digest={zeros}"), &[], b"");
    assert_eq!((answer.status, code(&answer).as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(client.get(&upload).status, 404);
    let upload = client.begin("a");
    assert_eq!(client.send("DELETE", &upload, &[], b"").status, 204);
    assert_eq!(client.send("DELETE", &upload, &[], b"").status, 404);
}
