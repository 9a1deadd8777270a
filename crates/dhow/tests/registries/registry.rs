//! Docker's registry: what is pushed is pulled and run, by tag, digest and range; a second start needs nothing.

use crate::hostile::{Content, Hostile};
use crate::support::{Setting, guest};
use crate::{PROGRAM, Shop, refused, succeeded, tool};
use serde_json::Value;
use std::fs;
use std::sync::Barrier;

#[test]
fn what_is_pushed_is_pulled_and_run() {
    let shop = Shop::new();
    let file = guest(PROGRAM);
    let reference = shop.reference("tools/hello:1.0.0");
    let pinned = shop.push(PROGRAM, "tools/hello:1.0.0");
    assert!(pinned.starts_with(&shop.reference("tools/hello@sha256:")), "{pinned}");
    assert_eq!(shop.dhow(&["pull", &reference]).trim(), pinned);
    let digest = shop.dhow(&["pull", &reference, "--print-digest"]);
    assert_eq!(pinned.split('@').nth(1), Some(digest.trim()));
    let copy = shop.setting.path().join("copy.wasm");
    shop.dhow(&["pull", &pinned, "--output", "copy.wasm"]);
    assert_eq!(fs::read(copy).unwrap(), fs::read(&file).unwrap());
    let by_file = shop.setting.run(&["run", &file.to_string_lossy(), "--", "a", "b"]);
    for reference in [&reference, &pinned] {
        let by_reference = shop.setting.run(&["run", reference, "--", "a", "b"]);
        assert_eq!(
            (by_reference.out, by_reference.code),
            (by_file.out.clone(), by_file.code),
            "{}",
            by_reference.err
        );
    }
    let inspected: Value = serde_json::from_str(&shop.dhow(&["inspect", &reference, "--json"])).unwrap();
    assert_eq!(inspected["source"], reference.as_str());
    assert!(shop.refused(&["verify", &reference]).contains("is not signed"), "a module without a token");
}

#[test]
fn an_artifact_says_what_the_module_imports_and_exports() {
    let shop = Shop::new();
    let file = guest("http-hello");
    let reference = shop.reference("hello:1.2.3");
    let pushed: Value = serde_json::from_str(
        &succeeded(
            Setting::new()
                .env("DHOW_INSECURE", &shop.registry.address())
                .env("SOURCE_DATE_EPOCH", "1700000000")
                .run(&[
                    "push",
                    &file.to_string_lossy(),
                    &reference,
                    "--tag",
                    "1.2",
                    "--tag",
                    "latest",
                    "--annotation",
                    "org.example.team=shop",
                    "--revision",
                    "abc",
                    "--author",
                    "me",
                    "--json",
                ]),
        )
        .out,
    )
    .unwrap();
    assert_eq!(pushed["references"].as_array().unwrap().len(), 3);
    let get = |path: &str| -> Value {
        let address = shop.registry.address().parse().unwrap();
        let accept = [("accept", "application/vnd.oci.image.manifest.v1+json")];
        let answer = crate::support::http::send(address, "GET", path, &accept, b"");
        serde_json::from_str(&answer.text()).unwrap()
    };
    let manifest = get("/v2/hello/manifests/1.2");
    let config = get(&format!("/v2/hello/blobs/{}", manifest["config"]["digest"].as_str().unwrap()));
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    assert_eq!(manifest["layers"][0]["annotations"]["org.opencontainers.image.title"], "http-hello.wasm");
    assert_eq!(manifest["annotations"]["org.example.team"], "shop");
    assert_eq!(manifest["annotations"]["org.opencontainers.image.revision"], "abc");
    assert_eq!(manifest["annotations"]["org.opencontainers.image.created"], "2023-11-14T22:13:20Z");
    assert_eq!((&config["architecture"], &config["os"]), (&Value::from("wasm"), &Value::from("wasip2")));
    assert_eq!(config["layerDigests"][0], manifest["layers"][0]["digest"]);
    assert_eq!(config["author"], "me");
    let exports = config["component"]["exports"].as_array().unwrap();
    assert!(
        exports.iter().any(|name| name.as_str().unwrap().starts_with("wasi:http/incoming-handler")),
        "{config}"
    );
    assert!(!config["component"]["imports"].as_array().unwrap().is_empty());
}

#[test]
fn a_range_takes_the_highest_version_and_says_which() {
    let shop = Shop::new();
    for tag in ["1.1.0", "1.2.0", "1.10.0", "2.0.0-rc.1", "2.0.0"] {
        shop.push(PROGRAM, &format!("orders:{tag}"));
    }
    for (range, tag) in [("^1.2", "1.10.0"), ("~1.1", "1.1.0"), ("*", "2.0.0"), (">=1.2, <1.5", "1.2.0")] {
        let reference = shop.reference(&format!("orders:{range}"));
        let pulled: Value = serde_json::from_str(&shop.dhow(&["pull", &reference, "--json"])).unwrap();
        assert_eq!(pulled["tag"], tag, "{range}");
        let ended = succeeded(shop.setting.run(&["run", &reference, "--log", "info"]));
        assert!(ended.err.contains(&format!("is {tag}")), "{range}: {}", ended.err);
    }
    let error = shop.refused(&["run", &shop.reference("orders:^3")]);
    assert!(error.contains("no tag of") && error.contains("2.0.0"), "{error}");
    // Without a network, what a range led to last is known.
    let known = shop.reference("orders:^1.2");
    let setting = shop.setting;
    drop(shop.registry);
    succeeded(setting.run(&["run", &known, "--offline"]));
}

#[test]
fn a_second_start_downloads_and_compiles_nothing() {
    let shop = Shop::new();
    let reference = shop.reference("hello:1");
    let pinned = shop.push(PROGRAM, "hello:1");
    let compiled = shop.setting.path().join("compiled");
    let start = |args: &[&str]| {
        let mut command = shop.setting.dhow(&[&["run", &reference], args].concat());
        let output = command.env("DHOW_CACHE_DIR", &compiled).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let code = || {
        let mut files: Vec<_> = fs::read_dir(&compiled)
            .unwrap()
            .map(|entry| (entry.as_ref().unwrap().file_name(), entry.unwrap().metadata().unwrap().len()))
            .collect();
        files.sort();
        files
    };
    start(&[]);
    let before = code();
    assert_eq!(before.len(), 1);
    // With the registry's content gone, only what leads from the tag to the digest can be asked for.
    let blobs = shop.registry.folder().join("content/docker/registry/v2/blobs/sha256");
    let layer = fs::read(guest(PROGRAM)).unwrap();
    let hex = dhow_artifacts::digest::Digest::sha256(&layer).hex().to_owned();
    fs::remove_dir_all(blobs.join(&hex[..2]).join(&hex)).unwrap();
    start(&[]);
    start(&["--offline"]);
    assert_eq!(code(), before);
    let setting = shop.setting;
    drop(shop.registry);
    succeeded(setting.run(&["run", &pinned, "--offline"]));
    succeeded(setting.run(&["run", &pinned]));
    let error = refused(setting.run(&["run", &reference]));
    assert!(error.contains("no answer from"), "{error}");
}

#[test]
fn what_is_damaged_on_disk_is_downloaded_again() {
    let shop = Shop::new();
    let reference = shop.reference("hello:1");
    shop.push(PROGRAM, "hello:1");
    shop.dhow(&["pull", &reference]);
    let layer = fs::read(guest(PROGRAM)).unwrap();
    let digest = dhow_artifacts::digest::Digest::sha256(&layer);
    let path = shop.setting.path().join(".cache/dhow/artifacts/blobs/sha256").join(digest.hex());
    fs::write(&path, b"\0asm damaged").unwrap();
    for _ in 0..2 {
        let error = shop.refused(&["run", &reference, "--offline"]);
        let said = format!("{}: what was downloaded before is damaged", path.display());
        assert!(error.contains(&said) && error.contains("without --offline"), "{error}");
    }
    shop.dhow(&["run", &reference]);
    assert_eq!(fs::read(&path).unwrap(), layer);
}

#[test]
fn a_manifest_names_modules_in_registries() {
    let shop = Shop::new();
    shop.push("http-hello", "hello:1.0.0");
    let module = shop.reference("hello:^1");
    shop.setting.file("dhow.toml", format!("[apps.hello]\nmodule = {module:?}\nroute = \"/\"\n").as_bytes());
    let host = shop.setting.up(&[]);
    let first = host.get("/").text();
    assert!(!first.is_empty());
    host.stop();
    let setting = shop.setting;
    drop(shop.registry);
    let host = setting.up(&["--offline"]);
    assert_eq!(host.get("/").text(), first);
    host.stop();
}

#[test]
fn a_module_of_a_registry_is_gone_back_to_also_when_its_tag_leads_elsewhere() {
    let shop = Shop::new();
    shop.push("http-hello", "app:stable");
    let module = shop.reference("app:stable");
    shop.setting.file("dhow.toml", format!("[apps.app]\nmodule = {module:?}\nroute = \"/\"\n").as_bytes());
    let host = shop.setting.up(&[]);
    let counter = guest("http-counter");
    shop.dhow(&["update", "app", "--from", &counter.to_string_lossy()]);
    host.stop();
    shop.push("http-echo", "app:stable");
    let log = ["--log", "info"];
    let host = shop.setting.up(&log);
    assert_eq!(host.get("/").text(), "1\n");
    assert!(host.stderr().contains("an updated version runs in the place of"), "{}", host.stderr());
    shop.dhow(&["rollback", "app"]);
    assert_eq!(host.get("/").text(), "hello\n");
    host.stop();
    // It is what the manifest named once, and no update.
    let host = shop.setting.up(&log);
    assert_eq!(host.get("/").text(), "hello\n");
    let said = host.stop();
    assert!(said.contains("an earlier module of") && !said.contains("an updated version"), "{said}");
}

#[test]
fn actors_of_a_manifest_of_wascc_are_pulled() {
    let shop = Shop::new();
    let registry = shop.registry.address();
    fs::copy(guest("wapc-actor"), shop.setting.path().join("counter.wasm")).unwrap();
    let caps = ["--cap", "wascc:keyvalue", "--cap", "wascc:http_server"];
    let signed = succeeded(shop.setting.run(&[&["sign", "counter.wasm"], &caps[..]].concat()));
    let said = format!("{}{}", signed.out, signed.err);
    let is_key = |word: &&str| word.len() == 56 && word.starts_with('M');
    let key = said.split_whitespace().find(is_key).unwrap_or_else(|| panic!("no key: {said}"));
    shop.dhow(&["push", "counter.wasm", &shop.reference("shop/counter:1.0.0")]);
    shop.push("wapc-actor", "other:1.2.0");
    let manifest = |counter: &str| {
        format!(
            "actors: [\"{counter}\", \"{}\"]\n\
             bindings:\n- {{ actor: {key}, capability: wascc:keyvalue }}\n\
             - {{ actor: {counter}, capability: wascc:keyvalue, binding: mine }}\n\
             - {{ actor: other, capability: wascc:http_server }}\n\
             - {{ actor: other, capability: wascc:keyvalue }}\n",
            shop.reference("other:^1")
        )
    };
    let file = |text: &str| shop.setting.file("host.yaml", text.as_bytes());
    file(&manifest(&format!("{registry}/shop/counter:1.0.0")));
    let host = shop.setting.up(&["-f", "host.yaml"]);
    assert_eq!(host.get("/count").text(), "{\"value\":1}");
    for name in [key, "counter"] {
        let shouted = host.send("POST", &format!("/call/{name}/shout"), &[], b"1");
        assert_eq!(shouted.json(), Value::from("\u{1}"), "{name}");
    }
    host.stop();
    for (text, expected) in [
        (manifest(&format!("{registry}/shop/counter:9")), "shop/counter:9 is not in the registry"),
        (manifest("missing.d/counter.wasm"), "is no file, and no reference to a registry"),
        (manifest("oci://counter:1"), "names no registry"),
        (format!("actors: [{registry}/other:1.2.0, {}]", shop.reference("other:^1")), "a second actor"),
    ] {
        file(&text);
        let error = refused(shop.setting.up_fails(&["-f", "host.yaml"]));
        assert!(error.contains("host.yaml:1:") && error.contains(expected), "{text}: {error}");
    }
    // Over plain HTTP only where it is allowed, and without a network what was pulled before.
    file(&manifest(&format!("{registry}/shop/counter:1.0.0")));
    let mut strict = shop.setting.dhow(&["up", "-f", "host.yaml", "--addr", "127.0.0.1:0"]);
    let strict = strict.env_remove("DHOW_INSECURE").output().unwrap();
    let said = String::from_utf8_lossy(&strict.stderr);
    assert!(!strict.status.success() && said.contains("--insecure"), "{said}");
    let setting = shop.setting;
    drop(shop.registry);
    let host = setting.up(&["-f", "host.yaml", "--offline"]);
    assert_eq!(host.get("/count").text(), "{\"value\":2}");
    host.stop();
}

#[test]
fn what_is_not_there_is_said_with_advice() {
    let shop = Shop::new();
    let plain = Setting::new();
    let missing = shop.reference("nothing:1");
    let cases = [
        (shop.setting.run(&["run", &missing]), "is not in the registry"),
        (shop.setting.run(&["pull", &shop.reference("nothing:^1")]), "is not in the registry"),
        (plain.run(&["run", &missing]), "--insecure 127.0.0.1:"),
        (plain.run(&["run", &missing, "--offline"]), "was not downloaded before"),
        (plain.run(&["run", "oci://orders:1"]), "names no registry, and there is no default one"),
        (plain.run(&["pull", "oci://acme/orders"]), "no default one"),
        (plain.run(&["run", "x.wasm", "--cosign-key", "k"]), "--cosign-key is for modules in a registry"),
        (plain.run(&["push", "oci://r.io/a", "x.wasm"]), "the module comes first"),
        (plain.run(&["push", "missing.wasm", "oci://r.io/a"]), "does not exist"),
        (plain.run(&["run", &missing, "--ca", "missing.pem"]), "missing.pem cannot be used"),
    ];
    for (ended, part) in cases {
        let error = refused(ended);
        assert!(error.contains(part), "{part}: {error}");
    }
    let pinned = shop.push(PROGRAM, "hello:1");
    let error = shop.refused(&["push", &guest(PROGRAM).to_string_lossy(), &pinned]);
    assert!(error.contains("gets a tag"), "{error}");
}

#[test]
fn layers_are_downloaded_side_by_side() {
    let setting = Setting::new();
    let mut content = Content::default();
    fs::copy(guest(PROGRAM), setting.path().join("app.wasm")).unwrap();
    let mut layer = |file: &str| {
        tool(setting.path(), "tar", &["-cf", "layer.tar", file], &[]);
        content.blob("a", &fs::read(setting.path().join("layer.tar")).unwrap())
    };
    let app = layer("app.wasm");
    setting.file("data", b"more");
    let data = layer("data");
    let config = content.blob("a", br#"{"config": {"Entrypoint": ["/app.wasm"]}}"#);
    let tar = "application/vnd.oci.image.layer.v1.tar";
    let manifest = format!(
        r#"{{"schemaVersion": 2, "config": {{"mediaType": "application/vnd.oci.image.config.v1+json", {config}}},
        "layers": [{{"mediaType": "{tar}", {app}}}, {{"mediaType": "{tar}", {data}}}]}}"#
    );
    content.manifest("a", "1", manifest.as_bytes());
    // Neither layer is answered before both are asked for.
    let both = Barrier::new(2);
    let config = config.split('"').nth(3).unwrap().to_owned();
    let registry = Hostile::start(move |request, _| {
        if request.is_blob() && !request.target.ends_with(&config) {
            both.wait();
        }
        content.answer(request)
    });
    let reference = registry.reference("a:1");
    succeeded(setting.run(&["run", &reference, "--insecure", &registry.addr.to_string()]));
}
