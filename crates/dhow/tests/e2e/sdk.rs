//! The SDKs: the same small shop in every language, which uses every block, and the example of each README.

use crate::messaging::{BLOCKS, call, subscription};
use crate::state::component;
use crate::support::http::Response;
use crate::support::{Host, Setting, eventually};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The shop, the same module as the app that it asks for prices, the example of the README, and somebody who may take
/// the shop's locks.
const MANIFEST: &str = r#"
    [apps.shop]
    module = `sdk-LANGUAGE-example`
    routes = ["/"]
    [apps.shop.grants]
    state = ["statestore"]
    publish = ["pubsub/placed"]
    subscribe = ["pubsub/placed"]
    invoke = ["prices"]
    lock = ["lockstore"]
    secrets = ["secretstore/signing-key"]
    configuration = ["settings"]
    bindings = ["receipts"]
    jobs = ["remind-*"]
    [apps.prices]
    module = `sdk-LANGUAGE-example`
    hosts = ["prices.test"]
    [apps.visits]
    module = `sdk-LANGUAGE-quickstart`
    hosts = ["visits.test"]
    grants = { state = ["statestore"], publish = ["pubsub/welcome"] }
    [apps.blocks]
    module = `runtime-blocks`
    hosts = ["blocks.test"]
    grants = { lock = ["lockstore"] }
"#;

/// Each SDK, the program of its README, and whether its guests subscribe in their code.
const SDKS: [(&str, &str, bool); 4] = [
    ("rust", "src/main.rs", false),
    ("js", "app.js", false),
    ("python", "app.py", false),
    ("go", "main.go", true),
];

#[test]
fn an_app_in_rust_uses_every_block() {
    every_block("rust");
}

#[test]
fn an_app_in_javascript_uses_every_block() {
    every_block("js");
}

#[test]
fn an_app_in_python_uses_every_block() {
    every_block("python");
}

#[test]
fn an_app_in_go_uses_every_block() {
    every_block("go");
}

fn every_block(language: &str) {
    let (_, _, subscribes) = SDKS.iter().find(|(name, ..)| *name == language).unwrap();
    let setting = Setting::with_manifest(&MANIFEST.replace("LANGUAGE", language));
    if !subscribes {
        setting.file("resources/placed.yaml", subscription("shop", "placed", "").as_bytes());
    }
    setting.file(".dhow/secrets.json", br#"{"signing-key": "sesame", "other": "never"}"#);
    setting.file("settings.json", br#"{"currency": "EUR"}"#);
    let receipts = setting.path().join("receipts");
    fs::create_dir(&receipts).unwrap();
    let path = |name: &str| setting.path().join(name).to_string_lossy().into_owned();
    for (name, kind, metadata) in [
        ("settings", "configuration.local.file", ("configurationFile", path("settings.json"))),
        ("receipts", "bindings.localstorage", ("rootPath", path("receipts"))),
        ("lockstore", "lock.in-memory", ("keyPrefix", "none".to_owned())),
    ] {
        let text = component(name, kind, &[(metadata.0, &metadata.1)]);
        setting.file(&format!("resources/{name}.yaml"), text.as_bytes());
    }
    let mut host = setting.up(&[]);
    let stock = || -> Value { found(&shop(&host, "GET", "/stock/tea", &Value::Null)) };

    // State, and its etags.
    for (method, target, body, status) in [
        ("GET", "/stock/tea", Value::Null, 404),
        ("PUT", "/stock/tea", json!({"count": 10}), 200),
        ("DELETE", "/stock/tea", Value::Null, 200),
        ("GET", "/stock/tea", Value::Null, 404),
        ("DELETE", "/stock/tea", Value::Null, 200),
        ("PUT", "/stock/tea", json!({"count": 10}), 200),
        ("PUT", "/stock/tea", json!({"count": 9, "etag": "other"}), 409),
    ] {
        let answer = shop(&host, method, target, &body);
        assert_eq!(answer.status, status, "{method} {target} {body}: {answer:?}");
    }
    let before = stock();
    assert_eq!(before["count"], 10, "{before}");
    let with_etag = json!({"count": 250, "etag": before["etag"]});
    assert_eq!(shop(&host, "PUT", "/stock/tea", &with_etag).status, 200);
    assert_eq!(shop(&host, "PUT", "/stock/tea", &with_etag).status, 409, "the etag is of another version");

    // A lock that somebody else holds, and one that is given back.
    let lock = json!({"store": "lockstore", "resource": "stock/tea", "owner": "test", "expiry": 1000});
    assert_eq!(call(&host, BLOCKS, "/lock/try-lock", &lock), json!({"ok": true}));
    assert_eq!(order(&host, "o1", 2).status, 423);
    assert_eq!(call(&host, BLOCKS, "/lock/unlock", &lock), json!({"ok": "Unlocked::Released"}));
    // Invocation (the price), configuration (the currency) and a secret (the length of the key).
    let placed = found(&order(&host, "o1", 2));
    let expected = json!({"id": "o1", "item": "tea", "quantity": 2, "total": "5 EUR", "signed": 6});
    assert_eq!(placed, expected);
    assert_eq!(call(&host, BLOCKS, "/lock/try-lock", &lock), json!({"ok": true}), "it was given back");
    assert_eq!(call(&host, BLOCKS, "/lock/unlock", &lock), json!({"ok": "Unlocked::Released"}));
    assert_eq!(stock()["count"], 248);
    assert_eq!(order(&host, "o2", 1000).status, 410);

    // A transaction: the order is there already, so the stock stays, too.
    assert_eq!(order(&host, "o1", 2).status, 409);
    assert_eq!(stock()["count"], 248);

    // A binding.
    let receipt: Value = serde_json::from_slice(&fs::read(receipts.join("o1")).unwrap()).unwrap();
    assert_eq!(receipt, expected);

    // A job that became due.
    let look = |id: &str| found(&shop(&host, "GET", &format!("/orders/{id}"), &Value::Null));
    eventually("the job", || (look("o1")["reminded"] == "remind-o1").then_some(()));
    // A message. One that was published before the subscription was in force did not arrive.
    let mut count = 0;
    eventually("a message", || {
        count += 1;
        found(&order(&host, &format!("m{count}"), 1));
        (1..=count).any(|n| look(&format!("m{n}"))["shipped"] == "placed").then_some(())
    });
    // One that the handler is done with for ever.
    assert_eq!(shop(&host, "PUT", "/stock/tea", &json!({"count": 500})).status, 200);
    found(&order(&host, "big", 101));
    host.line(|line| line.contains("nobody ships 101 at once"));
    let big = found(&shop(&host, "GET", "/orders/big", &Value::Null));
    assert!(!big["shipped"].is_string(), "{big}");

    // Nothing without a grant.
    let denied = host.send("PUT", "/stock/tea", &[("host", "prices.test")], br#"{"count": 1}"#);
    assert_eq!((denied.status, denied.json()), (403, json!({"error": "denied"})));

    // The example of the README.
    for visits in 1..=2 {
        let answer = host.send("GET", "/ann", &[("host", "visits.test")], b"");
        assert_eq!((answer.status, answer.json()), (200, json!({"name": "ann", "visits": visits})));
    }
    let said = host.stop();
    assert!(!said.contains("sesame"), "{said}");
}

fn shop(host: &Host, method: &str, target: &str, body: &Value) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    host.send(method, target, &[("host", "shop.test")], body.as_bytes())
}

fn order(host: &Host, id: &str, quantity: u64) -> Response {
    shop(host, "PUT", &format!("/orders/{id}"), &json!({"item": "tea", "quantity": quantity}))
}

#[track_caller]
fn found(answer: &Response) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// What a module may get wrong with the two functions that the SDK for Go is built on; what it then gets.
#[test]
fn a_module_that_asks_wrongly_harms_only_itself() {
    let module = |body: &str| {
        format!(
            r#"(module
                (import "dhow:runtime/api@0.1.0" "request" (func $request (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
                (import "dhow:runtime/api@0.1.0" "answer" (func $answer (param i32 i32 i32) (result i32)))
                (memory (export "memory") 1)
                (data (i32.const 0) "GET")
                (data (i32.const 8) "/v1.0/state/statestore/a")
                (data (i32.const 40) "no header")
                (func (export "_start") (if (i32.ne {body}) (then unreachable))))"#
        )
    };
    let request = |method: &str, target: &str, header: &str| {
        let at = |place: &str| place.replace(' ', ") (i32.const ");
        let (method, target, header) = (at(method), at(target), at(header));
        format!(
            "(call $request (i32.const {method}) (i32.const {target}) (i32.const {header}) (i32.const 0) (i32.const 0))"
        )
    };
    let (get, key, none) = ("0 3", "8 24", "0 0");
    // Name, what is called and what it gives, whether the module goes on.
    let cases = [
        ("right", format!("{} (i32.const 403)", request(get, key, none)), true),
        ("method", format!("{} (i32.const -1)", request(none, key, none)), true),
        ("target", format!("{} (i32.const -1)", request(get, none, none)), true),
        ("header", format!("{} (i32.const -1)", request(get, key, "40 9")), true),
        (
            "unasked",
            "(call $answer (i32.const 1) (i32.const 0) (i32.const 0)) (i32.const 0)".to_owned(),
            true,
        ),
        ("end", format!("{} (i32.const -1)", request(get, "65530 7", none)), false),
        ("outside", format!("{} (i32.const -1)", request("-1 -1", key, none)), false),
        ("part", "(call $answer (i32.const 2) (i32.const 0) (i32.const 0)) (i32.const 0)".to_owned(), false),
        (
            "buffer",
            "(call $answer (i32.const 1) (i32.const -1) (i32.const 9)) (i32.const 0)".to_owned(),
            false,
        ),
    ];
    let setting = Setting::new();
    let mut manifest = String::new();
    for (name, body, _) in &cases {
        setting.file(&format!("{name}.wat"), module(body).as_bytes());
        manifest.push_str(&format!("[apps.{name}]\nmodule = \"{name}.wat\"\nhosts = [\"{name}.test\"]\n"));
    }
    setting.manifest(&manifest);
    let host = setting.up(&[]);
    for (name, body, goes_on) in &cases {
        let answer = host.send("GET", "/", &[("host", &format!("{name}.test"))], b"");
        assert_eq!(answer.status == 200, *goes_on, "{name} {body}: {answer:?}");
    }
    host.stop();
}

#[test]
fn the_readmes_show_what_is_tested() {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk");
    for (language, program, _) in SDKS {
        let text = fs::read_to_string(sdk.join(language).join("quickstart").join(program)).unwrap();
        let readme = fs::read_to_string(sdk.join(language).join("README.md")).unwrap();
        assert!(readme.contains(&format!("\n{text}```\n")), "sdk/{language}/README.md lacks {program}");
    }
}
