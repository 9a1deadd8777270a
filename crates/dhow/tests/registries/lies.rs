//! A registry that lies, breaks off, sends its clients elsewhere, and never ends: each is an error that says what
//! happened, and nothing of it is kept.

use crate::hostile::{Answer, Content, Hostile, Request};
use crate::support::{Ended, Setting, guest};
use crate::{PROGRAM, refused, succeeded};
use std::fs;
use std::sync::Arc;

fn module() -> Vec<u8> {
    fs::read(guest(PROGRAM)).unwrap()
}

/// A registry that is honest but for what `lie` says of some requests.
fn registry(lie: impl Fn(&Request, usize, Answer) -> Answer + Send + Sync + 'static) -> Hostile {
    let content = Content::artifact("a", "1", &module());
    Hostile::start(move |request, number| lie(request, number, content.answer(request)))
}

fn pull(registry: &Hostile, setting: &Setting) -> Ended {
    let insecure = registry.addr.to_string();
    setting.run(&["pull", &registry.reference("a:1"), "--insecure", &insecure, "--output", "got.wasm"])
}

/// Pulls, which must fail with this, and leave nothing behind.
#[track_caller]
fn fails(registry: &Hostile, part: &str) -> String {
    let setting = Setting::new();
    let error = refused(pull(registry, &setting));
    assert!(error.contains(part), "{part}: {error}");
    assert!(!setting.path().join("got.wasm").exists());
    let layer = dhow_artifacts::digest::Digest::sha256(&module());
    let kept = setting.path().join(".cache/dhow/artifacts/blobs/sha256").join(layer.hex());
    assert!(!kept.exists(), "{part}: it was kept");
    error
}

/// Pulls, which must succeed all the same.
#[track_caller]
fn succeeds(registry: &Hostile) {
    let setting = Setting::new();
    succeeded(pull(registry, &setting));
    assert_eq!(fs::read(setting.path().join("got.wasm")).unwrap(), module());
}

#[test]
fn content_that_is_not_what_its_digest_says_is_refused() {
    let flipped = registry(|request, _, answer| match request.is_blob() {
        true => {
            let mut bytes = answer.body().to_vec();
            bytes[100] ^= 1;
            Answer::new(200, bytes)
        }
        false => answer,
    });
    fails(&flipped, "is not what was asked for: its digest is");
    let longer = registry(|request, _, answer| match request.is_blob() {
        true => Answer::new(200, [answer.body(), b"more"].concat()),
        false => answer,
    });
    fails(&longer, "bytes, not");
    let other_manifest = registry(|request, _, answer| match request.target.ends_with("manifests/1") {
        true => Answer::new(200, answer.body())
            .header("docker-content-digest", format!("sha256:{}", "0".repeat(64))),
        false => answer,
    });
    fails(&other_manifest, "is not what was asked for: its digest is");
    let no_digest = registry(|request, _, answer| match request.target.ends_with("manifests/1") {
        true => Answer::new(200, answer.body()).header("docker-content-digest", "../../etc/passwd"),
        false => answer,
    });
    fails(&no_digest, "is no digest");
    // What is pinned is that, whatever the registry says of it.
    let content = Content::artifact("a", "1", &module());
    let pinned = Hostile::start(move |request, _| match request.target.contains("/manifests/sha256:") {
        true => Answer::new(200, r#"{"schemaVersion": 2, "config": {}, "layers": []}"#),
        false => content.answer(request),
    });
    let setting = Setting::new();
    let reference = pinned.reference(&format!("a@sha256:{}", "0".repeat(64)));
    let error = refused(setting.run(&["pull", &reference, "--insecure", &pinned.addr.to_string()]));
    assert!(error.contains("is not what was asked for"), "{error}");
}

#[test]
fn a_download_that_breaks_off_goes_on_from_there() {
    let half = module().len() / 2;
    let resumes =
        registry(move |request, number, answer| match (request.is_blob(), number, request.range()) {
            (true, 1, None) => answer.cut(half),
            (true, _, Some(begin)) => answer.from(begin),
            _ => answer,
        });
    succeeds(&resumes);
    let ranges: Vec<usize> = resumes.seen().iter().filter_map(Request::range).collect();
    assert_eq!(ranges, [half]);
    let starts_over = registry(move |request, number, answer| match (request.is_blob(), number) {
        (true, 1) => answer.cut(half),
        _ => answer,
    });
    succeeds(&starts_over);
    let elsewhere = registry(move |request, number, answer| match (request.is_blob(), number) {
        (true, 1) => answer.cut(half),
        (true, 2) => answer.from(3),
        _ => answer,
    });
    succeeds(&elsewhere);
    let busy = registry(|request, number, answer| match (request.is_blob(), number) {
        (true, 1 | 2) => Answer::new(503, ""),
        _ => answer,
    });
    succeeds(&busy);
    let limits = registry(|request, number, answer| match (request.is_blob(), number) {
        (true, 1) => Answer::new(429, "").header("retry-after", "1"),
        _ => answer,
    });
    let waited = succeeded(pull(&limits, &Setting::new()));
    let said = format!("{} asks to wait; trying again in 1s", limits.addr);
    assert!(waited.err.contains(&said), "{waited:?}");
    let nervous = registry(|request, number, answer| match (request.is_blob(), number) {
        (false, 1) => Answer::silence(),
        _ => answer,
    });
    succeeds(&nervous);
}

#[test]
fn another_process_goes_on_where_one_gave_up() {
    let half = module().len() / 2;
    let content = Arc::new(Content::artifact("a", "1", &module()));
    let gone = {
        let content = Arc::clone(&content);
        Hostile::start(move |request, number| match (request.is_blob(), number) {
            (true, 1) => content.answer(request).cut(half),
            (true, _) => content.answer(request).from(request.range().unwrap_or(0)).cut(0),
            _ => content.answer(request),
        })
    };
    let setting = Setting::new();
    let error = refused(pull(&gone, &setting));
    assert!(error.contains(&format!("broke off after {half} of {} bytes", module().len())), "{error}");
    assert!(error.contains("try again, it goes on from there"), "{error}");
    let back = Hostile::start(move |request, _| match request.range() {
        Some(begin) => content.answer(request).from(begin),
        None => content.answer(request),
    });
    succeeded(pull(&back, &setting));
    assert_eq!(fs::read(setting.path().join("got.wasm")).unwrap(), module());
    let ranges: Vec<usize> = back.seen().iter().filter_map(Request::range).collect();
    assert_eq!(ranges, [half]);
}

#[test]
fn where_a_registry_sends_its_clients_nobody_is_told_who_asks() {
    let module = module();
    let storage = {
        let module = module.clone();
        Hostile::start(move |_, _| Answer::new(200, module.clone()))
    };
    let place = format!("http://localhost:{}/content?signature=secret", storage.addr.port());
    let content = Content::artifact("a", "1", &module);
    let sends =
        Hostile::start(move |request, _| match (request.header("authorization"), request.is_blob()) {
            (None, _) => Answer::new(401, "{}").header("www-authenticate", "Basic realm=\"x\""),
            (Some(_), true) => Answer::new(307, "").header("location", place.clone()),
            (Some(_), false) => content.answer(request),
        });
    let setting = Setting::new();
    // me:secret
    let auths = format!(r#"{{"auths": {{"{}": {{"auth": "bWU6c2VjcmV0"}}}}}}"#, sends.addr);
    setting.file(".docker/config.json", auths.as_bytes());
    succeeded(pull(&sends, &setting));
    assert_eq!(fs::read(setting.path().join("got.wasm")).unwrap(), module);
    let seen = storage.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), None);
    // A circle ends, and a scheme that is none is not followed.
    let circle = registry(|request, _, answer| match request.is_blob() {
        true => Answer::new(302, "").header("location", request.target.clone()),
        false => answer,
    });
    fails(&circle, "redirections follow one another");
    let file = registry(|request, _, answer| match request.is_blob() {
        true => Answer::new(302, "").header("location", "file:///etc/passwd"),
        false => answer,
    });
    fails(&file, "the redirection is not followed");
}

#[test]
fn credentials_go_to_token_servers_that_may_have_them() {
    let thief = Hostile::start(|_, _| Answer::new(200, r#"{"token": "t"}"#));
    let realm = format!("http://localhost:{}/token", thief.addr.port());
    let challenge = |realm: String| {
        Hostile::start(move |request, _| match request.target.starts_with("/token") {
            true => Answer::new(200, "{\"token\": \"a\\nb\"}"),
            false => Answer::new(401, r#"{"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]}"#)
                .header("www-authenticate", format!("Bearer realm=\"{realm}\",service=\"x\"")),
        })
    };
    let pull_with_password = |registry: &Hostile| {
        let setting = Setting::new();
        let auths = format!(r#"{{"auths": {{"{}": {{"auth": "bWU6c2VjcmV0"}}}}}}"#, registry.addr);
        setting.file(".docker/config.json", auths.as_bytes());
        let error = refused(pull(registry, &setting));
        assert!(!error.contains("secret"), "{error}");
        error
    };
    let error = pull_with_password(&challenge(realm));
    assert!(error.contains("credentials to be sent over plain HTTP to another place"), "{error}");
    assert_eq!(thief.seen().len(), 0);
    // A token that is none, from the registry itself.
    let own = Hostile::start(|request, _| match request.target.starts_with("/token") {
        true => Answer::new(200, "{\"token\": \"a\\nb\"}"),
        false => Answer::new(401, "{}").header(
            "www-authenticate",
            format!("Bearer realm=\"http://{}/token\"", request.header("host").unwrap()),
        ),
    });
    let error = pull_with_password(&own);
    assert!(error.contains("characters that no header may have"), "{error}");
    let endless = Hostile::start(|request, _| match request.target.starts_with("/token") {
        true => Answer::new(200, vec![b' '; 1 << 20]),
        false => Answer::new(401, "{}").header(
            "www-authenticate",
            format!("Bearer realm=\"http://{}/token\"", request.header("host").unwrap()),
        ),
    });
    let error = pull_with_password(&endless);
    assert!(error.contains("256 KiB"), "{error}");
    let error = refused(pull(&challenge("https://127.0.0.1:1/token".to_owned()), &Setting::new()));
    assert!(error.contains("no answer from https://127.0.0.1:1/token"), "{error}");
}

/// A registry with one manifest.
fn with_manifest(manifest: impl Into<Vec<u8>>) -> Hostile {
    let mut content = Content::default();
    content.manifest("a", "1", &manifest.into());
    content.blob("a", b"{}");
    Hostile::start(move |request, _| content.answer(request))
}

#[test]
fn what_is_too_large_is_not_downloaded() {
    let digest = dhow_artifacts::digest::Digest::sha256(b"{}");
    let manifest = |config: u64, layers: &str| {
        format!(
            r#"{{"schemaVersion": 2, "config": {{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "{digest}", "size": {config}}}, "layers": [{layers}]}}"#
        )
    };
    let layer =
        |kind: &str, size: u64| format!(r#"{{"mediaType": "{kind}", "digest": "{digest}", "size": {size}}}"#);
    let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
    let many = vec![layer(tar, 1); 300].join(",");
    let half = layer(tar, 300 << 20);
    let cases = [
        (manifest(2, &layer("application/wasm", 1 << 40)), "512 MiB"),
        (manifest(2, &layer(tar, u64::MAX)), "512 MiB"),
        (manifest(2, &format!("{half},{half}")), "512 MiB"),
        (manifest(5 << 20, &layer(tar, 2)), "4 MiB"),
        (manifest(2, &many), "300 layers"),
        (format!("{}{}", manifest(2, ""), " ".repeat(5 << 20)), "4 MiB"),
        (manifest(2, &layer("application/wasm", 7)), "it has 2 bytes, not 7"),
    ];
    for (manifest, part) in cases {
        let registry = with_manifest(manifest);
        if part == "it has 2 bytes, not 7" {
            fails(&registry, "broke off after 2 of 7 bytes");
        } else {
            fails(&registry, part);
            assert!(!registry.seen().iter().any(Request::is_blob), "{part}: content was asked for");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let digest = dhow_artifacts::digest::Digest::sha256(b"{}");
    let entry = |os: &str, architecture: &str| {
        format!(
            r#"{{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "{digest}", "size": 2, "platform": {{"os": "{os}", "architecture": "{architecture}"}}}}"#
        )
    };
    let index = format!(
        r#"{{"schemaVersion": 2, "manifests": [{}, {}]}}"#,
        entry("linux", "amd64"),
        entry("linux", "arm64")
    );
    let config = format!(r#""config": {{"mediaType": "x", "digest": "{digest}", "size": 2}}"#);
    let wasm = format!(r#"{{"mediaType": "application/wasm", "digest": "{digest}", "size": 2}}"#);
    let cases = [
        ("<html>".to_owned(), "makes no sense"),
        (r#"{"schemaVersion": 1}"#.to_owned(), "only 2 is read"),
        (format!(r#"{{"schemaVersion": 2, {config}, "layers": [], "manifests": []}}"#), "at the same time"),
        (index, "it has linux/amd64, linux/arm64"),
        (r#"{"schemaVersion": 2, "manifests": []}"#.to_owned(), "it has none"),
        (
            format!(r#"{{"schemaVersion": 2, {config}, "layers": []}}"#),
            "neither a Wasm artifact nor an image",
        ),
        (format!(r#"{{"schemaVersion": 2, {config}, "layers": [{wasm}, {wasm}]}}"#), "2 modules"),
        (format!(r#"{{"schemaVersion": 2, {config}, "layers": [{wasm}]}}"#), "is not WebAssembly"),
    ];
    for (manifest, part) in cases {
        fails(&with_manifest(manifest), part);
    }
}

#[test]
fn lists_without_end_and_messages_of_any_kind_are_bounded() {
    let endless = Hostile::start(|request, _| {
        Answer::new(200, r#"{"tags": ["x"]}"#).header("link", format!("<{}>; rel=\"next\"", request.target))
    });
    let setting = Setting::new();
    let insecure = endless.addr.to_string();
    let error = refused(setting.run(&["pull", &endless.reference("a:^1"), "--insecure", &insecure]));
    assert!(error.contains("1000 pages"), "{error}");
    let away = Hostile::start(|_, _| {
        Answer::new(200, r#"{"tags": ["1.0.0"]}"#)
            .header("link", "<http://localhost:1/v2/a/tags/list>; rel=\"next\"")
    });
    let error =
        refused(setting.run(&["pull", &away.reference("a:^1"), "--insecure", &away.addr.to_string()]));
    assert!(error.contains("its next page is on another host"), "{error}");
    let loud = registry(|_, _, _| {
        Answer::new(
            418,
            format!(r#"{{"errors": [{{"code": "X", "message": "\u001b[2J{}"}}]}}"#, "y".repeat(50_000)),
        )
    });
    let error = fails(&loud, "the registry answered 418");
    assert!(error.len() < 1000 && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn a_bomb_in_a_layer_does_not_go_off() {
    // A file of 3 GiB of nothing, which is a few MiB packed: the head of its archive, and 64 MiB of zeros again and
    // again. And the same as a sparse file, which is nothing but a head.
    let setting = Setting::new();
    let script = "truncate -s 3G a.wasm && tar --sparse -cf small.tar a.wasm && \
                  tar -c a.wasm | head -c 512 | gzip > bomb.tar.gz && head -c 67108864 /dev/zero | gzip > zeros && \
                  for i in $(seq 48); do cat zeros; done >> bomb.tar.gz && rm a.wasm";
    crate::tool(setting.path(), "sh", &["-c", script], &[]);
    for (file, part) in [("bomb.tar.gz", "2048 MiB"), ("small.tar", "no .wasm file")] {
        let bomb = fs::read(setting.path().join(file)).unwrap();
        let mut content = Content::default();
        let (config, layer) = (content.blob("a", b"{}"), content.blob("a", &bomb));
        let manifest = format!(
            r#"{{"schemaVersion": 2, "config": {{"mediaType": "application/vnd.oci.image.config.v1+json", {config}}},
            "layers": [{{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", {layer}}}]}}"#
        );
        content.manifest("a", "1", manifest.as_bytes());
        let registry = Hostile::start(move |request, _| content.answer(request));
        fails(&registry, part);
    }
}
