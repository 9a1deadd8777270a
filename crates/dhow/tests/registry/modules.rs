//! What the registry knows about modules: whether their tokens hold, what they are, how they are found and shown.

use crate::client::*;
use crate::support::{Setting, guest};
use serde_json::{Value, json};
use std::fs;

const WASM: &str = "application/wasm";

/// A small module, signed by this account; the answer is its bytes.
fn signed(setting: &Setting, name: &str, account: &str, flags: &[&str]) -> Vec<u8> {
    let text = format!(
        "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func (param i32))) (func (export \"_start\")) (func (export \"{name}\")))"
    );
    let file = setting.file(&format!("{name}.wat"), text.as_bytes());
    let output = setting.path().join(format!("{name}.wasm"));
    let args = [
        "sign",
        &file.to_string_lossy(),
        "-o",
        &output.to_string_lossy(),
        "--keys",
        "keys",
        "--account",
        account,
    ];
    let ended = setting.run(&[&args[..], flags].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    fs::read(output).unwrap()
}

fn key(setting: &Setting, account: &str) -> String {
    let ended = setting.run(&["keys", "show", account, "--keys", "keys"]);
    ended.out.split_whitespace().find(|word| word.starts_with('A') && word.len() == 56).unwrap().to_owned()
}

fn search(setting: &Setting, client: &Client<'_>, args: &[&str]) -> Vec<Value> {
    let url = format!("http://{}", client.addr);
    let ended = setting.run(&[&["search", "--registry", &url, "--json"], args].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let found: Value = serde_json::from_str(&ended.out).unwrap();
    found["modules"].as_array().unwrap().clone()
}

#[test]
fn modules_are_found_by_what_their_tokens_and_interfaces_say() {
    let registry = Registry::start();
    let (client, setting) = (registry.client(), &registry.setting);
    let one =
        ["--name", "orders", "--version", "1.2.3", "--rev", "7", "--tag", "shop", "--cap", "wascc:keyvalue"];
    let two = ["--name", "orders", "--version", "2.0.0", "--tag", "shop", "--cap", "wasmcloud:httpserver"];
    client.push("apps/orders", "1.2.3", WASM, &signed(setting, "one", "acme", &one));
    client.push("apps/orders", "2.0.0", WASM, &signed(setting, "two", "acme", &two));
    client.push("apps/other", "latest", WASM, &signed(setting, "three", "other", &["--name", "three"]));
    client.push("plain/hello", "0.3.0", WASM, &fs::read(guest("http-hello")).unwrap());
    client.push("plain/text", "v1", "text/plain", b"no module at all");
    let found = |args: &[&str]| -> Vec<String> {
        let name = |module: &Value| {
            format!("{}:{}", module["repository"].as_str().unwrap(), module["tags"][0].as_str().unwrap())
        };
        let mut names: Vec<String> = search(setting, &client, args).iter().map(name).collect();
        names.sort();
        names
    };
    let (first, second) = ("apps/orders:1.2.3", "apps/orders:2.0.0");
    let (third, hello) = ("apps/other:latest", "plain/hello:0.3.0");
    let issuer = key(setting, "other");
    let cases: [(&[&str], &[&str]); 16] = [
        (&[], &[first, second, third, hello]),
        (&["--name", "orders"], &[first, second]),
        (&["--name", "orders", "--version", "^1.2"], &[first]),
        (&["--version", ">=1, <3"], &[first, second]),
        (&["--version", "0.3"], &[hello]),
        (&["--tag", "shop"], &[first, second]),
        (&["--tag", "sho"], &[]),
        (&["--capability", "wasmcloud:keyvalue"], &[first]),
        (&["--capability", "wascap:keyvalue"], &[first]),
        (&["--capability", "wascc:http_server"], &[second]),
        (&["--issuer", &issuer], &[third]),
        (&["incoming-handler"], &[hello]),
        (&["ORDERS", "shop"], &[first, second]),
        (&["proc_exit"], &[first, second, third]),
        (&["2.0.0"], &[second]),
        (&["nothing-like-it"], &[]),
    ];
    for (args, expected) in cases {
        assert_eq!(found(args), expected, "{args:?}");
    }
    let module = &search(setting, &client, &["--version", "^1.2"])[0];
    assert_eq!(module["holds"], json!(true), "{module}");
    assert_eq!(module["claims"]["issuer"], json!(key(setting, "acme")));
    assert_eq!(module["claims"]["revision"], json!(7));
    assert_eq!(module["imports"], json!(["wasi_snapshot_preview1::proc_exit"]));
    let digest = module["digest"].as_str().unwrap();
    assert_eq!(client.get(&format!("/v2/apps/orders/manifests/{digest}")).status, 200);

    // Programs ask the same, and are told what they got wrong.
    let of = client.get("/api/v1/modules/apps/orders?n=1&page=2").json();
    assert_eq!(
        (&of["total"], &of["pages"], of["modules"].as_array().unwrap().len()),
        (&json!(2), &json!(2), 1)
    );
    assert_eq!(client.get("/api/v1/modules/nowhere").status, 404);
    let answer = client.get("/api/v1/search?versio=1");
    assert!(
        answer.status == 400 && answer.text().contains("did you mean \\\"version\\\""),
        "{}",
        answer.text()
    );
    let url = format!("http://{}", client.addr);
    let ended = setting.run(&["search", "--registry", &url, "--version", "one"]);
    assert!(ended.code == Some(1) && ended.err.contains("is no range such as ^1.2"), "{}", ended.err);
    let ended = setting.run(&["search", "--registry", &url, "orders"]);
    assert!(ended.out.contains("apps/orders:1.2.3") && ended.out.contains("holds"), "{}", ended.out);
    let ended = setting.run(&["search", "--registry", "http://127.0.0.1:1"]);
    assert!(ended.code == Some(1) && ended.err.contains("does the registry run"), "{}", ended.err);

    // All of it follows from the storage: after a kill the same is found.
    let registry = registry.kill_and_start(&[]);
    let client = registry.client();
    assert_eq!(search(&registry.setting, &client, &[]).len(), 4);
    assert_eq!(client.send("DELETE", "/v2/apps/orders/manifests/2.0.0", &[], b"").status, 202);
    let left = search(&registry.setting, &client, &["--name", "orders"]);
    assert_eq!(left.iter().filter(|module| module["tags"] != json!([])).count(), 1);
}

#[test]
fn policy_decides_what_happens_to_tokens_that_do_not_hold() {
    let setting = Setting::new();
    let good = signed(&setting, "good", "acme", &[]);
    let foreign = signed(&setting, "foreign", "somebody", &[]);
    let expired = signed(&setting, "expired", "acme", &["--expires", "1s"]);
    let mut tampered = good.clone();
    let end = tampered.iter().position(|byte| *byte == b'g').unwrap();
    // The name of an export, which stands before the token.
    tampered[end] = b'h';
    let unsigned = fs::read(guest("http-hello")).unwrap();
    setting.file("trust.txt", key(&setting, "acme").as_bytes());
    crate::support::eventually("the token to expire", || {
        let file = setting.path().join("expired.wasm");
        (setting.run(&["verify", &file.to_string_lossy()]).code == Some(1)).then_some(())
    });
    let modules: [(&str, &[u8], Option<&str>); 5] = [
        ("good", &good, None),
        ("foreign", &foreign, Some("trust: no chain leads")),
        ("expired", &expired, Some("validity: the token expired")),
        ("tampered", &tampered, Some("hash: the token is for a module")),
        ("unsigned", &unsigned, Some("the module is not signed")),
    ];
    for policy in ["accept", "mark", "refuse"] {
        let host = setting.registry(&["--signed", policy, "--trust", "trust.txt", "--data-dir", policy]);
        let client = Client { addr: host.addr, authorization: None };
        for (name, module, wrong) in modules {
            client.push_blob(name, b"{}");
            client.push_blob(name, module);
            let answer = client.put_manifest(name, "v1", &manifest(WASM, module));
            let warning = answer.header("warning").unwrap_or_default().to_owned();
            match (policy, wrong) {
                ("refuse", Some(wrong)) => {
                    assert_eq!((answer.status, code(&answer).as_str()), (403, "DENIED"), "{name}");
                    assert!(answer.text().contains(wrong), "{name}: {}", answer.text());
                    assert_eq!(client.get(&format!("/v2/{name}/manifests/v1")).status, 404);
                }
                ("mark", Some(wrong)) => {
                    assert!(answer.status == 201 && warning.contains(wrong), "{name}: {warning}");
                }
                _ => assert_eq!((answer.status, warning.as_str()), (201, ""), "{name}"),
            }
        }
        let expected = if policy == "refuse" { vec![true] } else { vec![false, false, true, false, false] };
        let found = client.get("/api/v1/search").json();
        let holds = |module: &Value| module["holds"].as_bool().unwrap();
        let holds: Vec<bool> = found["modules"].as_array().unwrap().iter().map(holds).collect();
        assert_eq!(holds, expected, "{policy}: {found}");
        if policy != "accept" {
            // Who pushes with dhow is told the same, and not that the password is wrong.
            let (file, at) = (setting.file("again.wasm", modules[3].1), client.addr.to_string());
            let reference = format!("oci://{at}/again:1");
            let pushed = setting.run(&["push", &file.to_string_lossy(), &reference, "--insecure", &at]);
            assert_eq!(pushed.code, Some(i32::from(policy == "refuse")), "{pushed:?}");
            assert!(pushed.err.contains("hash: the token is for a module"), "{pushed:?}");
            assert!(!pushed.err.contains("dhow login"), "{pushed:?}");
        }
        host.stop();
    }
    // Whom to trust has changed: what is there is examined again.
    setting.file("trust.txt", key(&setting, "somebody").as_bytes());
    let ended = setting.run(&["registry", "reindex", "--data-dir", "accept", "--trust", "trust.txt"]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "5 modules examined\n"), "{}", ended.err);
    let host = setting.registry(&["--data-dir", "accept"]);
    let found =
        Client { addr: host.addr, authorization: None }.get("/api/v1/search?repository=foreign").json();
    assert_eq!(found["modules"][0]["holds"], json!(true), "{found}");
}

#[test]
fn what_a_pull_would_run_is_examined_wherever_it_is() {
    let setting = Setting::new();
    let good = signed(&setting, "good", "acme", &[]);
    let unsigned = fs::read(guest("http-hello")).unwrap();
    setting.file("trust.txt", key(&setting, "acme").as_bytes());
    let host = setting.registry(&["--signed", "refuse", "--trust", "trust.txt"]);
    let client = Client { addr: host.addr, authorization: None };
    let push = |config: &Value, layers: &[(&str, &str, &[u8])]| {
        let config = serde_json::to_vec(config).unwrap();
        client.push_blob("a", &config);
        let layer = |(media_type, title, bytes): &(&str, &str, &[u8])| {
            client.push_blob("a", bytes);
            let mut layer = descriptor(media_type, bytes);
            layer["annotations"] = json!({"org.opencontainers.image.title": title});
            layer
        };
        let layers: Vec<Value> = layers.iter().map(layer).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &config),
            "layers": layers});
        client.put_manifest("a", "latest", &serde_json::to_vec(&manifest).unwrap()).status
    };
    let archive = |name: &str, content: &[u8]| {
        setting.file(name, content);
        let packed =
            std::process::Command::new("tar").args(["-cf", "-", name]).current_dir(setting.path()).output();
        packed.unwrap().stdout
    };
    let (any, tar) = ("application/octet-stream", "application/vnd.oci.image.layer.v1.tar");
    let linux = json!({"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/app"]}});
    for (module, status) in [(&good, 201), (&unsigned, 403)] {
        let app = archive("app", module);
        assert_eq!(push(&linux, &[("application/wasm", "", module)]), status);
        assert_eq!(push(&linux, &[(any, "", module)]), status);
        assert_eq!(push(&linux, &[(tar, "hello.wasm", module)]), status);
        assert_eq!(push(&linux, &[(tar, "", &app)]), status);
        assert_eq!(push(&linux, &[(any, "notes", b"hello"), (any, "", module)]), status);
    }
    // Which of two is run, nobody knows; nor what is in a layer that cannot be read, or is text.
    assert_eq!(push(&linux, &[(any, "", &good), (any, "", &unsigned)]), 403);
    assert_eq!(push(&linux, &[(&format!("{tar}+zstd"), "", b"anything")]), 403);
    assert_eq!(push(&linux, &[(any, "", b"(module)")]), 403);
    // What is no module at all is none of its business.
    assert_eq!(push(&linux, &[(tar, "", &archive("app", b"#!/bin/sh"))]), 201);
    assert_eq!(push(&linux, &[("text/plain", "", b"hello")]), 201);
    assert_eq!(push(&linux, &[]), 201);
    host.stop();
}

#[test]
fn the_page_shows_modules_and_nothing_that_was_pushed_is_markup() {
    let registry = Registry::start();
    let (client, setting) = (registry.client(), &registry.setting);
    let answer = client.get("/");
    assert!(answer.status == 200 && answer.text().contains("No modules yet"), "{}", answer.text());
    let evil = "<script>alert(1)</script>\"'&";
    let module = signed(setting, "evil", "acme", &["--name", evil, "--tag", evil, "--cap", "acme:<b>"]);
    client.push("apps/evil", "v1", WASM, &module);
    let page = client.get(&format!("/?q={}", "%3Cscript%3E"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'self'"), "{policy}");
    let text = page.text();
    assert!(text.contains("apps/evil") && text.contains("verified"), "{text}");
    assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;"), "{text}");
    assert!(!text.contains("<script") && !text.contains("<b>"), "{text}");
    assert_eq!(client.get("/style.css").header("content-type"), Some("text/css; charset=utf-8"));
    for number in 0..25 {
        let name = format!("pages/app{number:02}");
        client.push(&name, "v1", WASM, &module);
    }
    let text = client.get("/?page=2").text();
    assert!(
        text.contains("Page 2 of 2") && text.contains("pages/app24") && !text.contains("pages/app00"),
        "{text}"
    );
    assert!(client.get("/?page=x").text().contains("expected a number"));
    assert_eq!(client.get("/?page=18446744073709551615").status, 200);
}

#[test]
fn what_only_looks_like_a_module_does_no_harm() {
    let registry = Registry::start();
    let client = registry.client();
    let (component, noise) = (fs::read(guest("http-hello")).unwrap(), noise(1, 5000));
    let cut = &component[..component.len() / 2];
    for (tag, bytes) in [("noise", &noise[..]), ("cut", cut), ("empty", b""), ("magic", b"\0asm")] {
        client.push("bad", tag, WASM, bytes);
    }
    let found = client.get("/api/v1/search").json();
    assert!(
        found["modules"].as_array().unwrap().iter().all(|module| module["holds"] == json!(false)),
        "{found}"
    );
    assert_eq!(found["total"], json!(4), "{found}");
    // A layer that unpacks to more than its size: what is looked at is bounded.
    let image = |layer: &[u8], media_type: &str| {
        let config = json!({"architecture": "wasm", "os": "wasip1", "config": {"Entrypoint": ["/app.wasm"]}});
        let config = serde_json::to_vec(&config).unwrap();
        client.push_blob("bombs", &config);
        client.push_blob("bombs", layer);
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &config),
            "layers": [descriptor(media_type, layer)]});
        client.put_manifest("bombs", "latest", &serde_json::to_vec(&manifest).unwrap()).status
    };
    let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
    assert_eq!(image(b"\x1f\x8bno gzip at all", tar), 201);
    assert_eq!(image(&noise, tar), 201);
    assert_eq!(image(&bomb(&registry.setting), tar), 201);
    assert!(registry.host.memory() < 600 << 20, "{} bytes", registry.host.memory());
    registry.host.stop();
}

/// 600 MB of zeros in an archive, packed with gzip.
fn bomb(setting: &Setting) -> Vec<u8> {
    let script = "head -c 600000000 /dev/zero > app.wasm && tar -czf bomb.tar.gz app.wasm && rm app.wasm";
    let made = std::process::Command::new("sh").args(["-ec", script]).current_dir(setting.path()).status();
    assert!(made.unwrap().success());
    fs::read(setting.path().join("bomb.tar.gz")).unwrap()
}
