//! Apps of every ABI beside each other: each calls each, and each stands behind a filter.

use crate::support::{Host, Setting};
use serde_json::json;

/// An app to be called: its name, its entry in the manifest, and what it answers at its root.
const CALLED: [(&str, &str, &str); 9] = [
    ("component", "module = `http-hello`", "hello\n"),
    ("component3", "module = `p3-http`", "hello from WASI 0.3, /"),
    ("javascript", "module = `js-hello`", "hello from JavaScript\n"),
    ("program", "module = `p1-command`\nargs = [\"args\", \"one\"]", r#"["args","one"]"#),
    ("program2", "module = `p2-command`\nargs = [\"args\", \"two\"]", r#"["args","two"]"#),
    ("proxy", "module = `proxy-core`", "hello\n"),
    ("actor", "module = `wapc-actor`", r#""path":"/""#),
    (
        "service",
        "module = `http-echo-echo`\nenv = { LISTEN = \"127.0.0.1:0\" }\ngrants = { listen = [\"127.0.0.1:0\"] }",
        "POST something to /echo",
    ),
    (
        "service2",
        "module = `p2-service`\nenv = { LISTEN = \"127.0.0.1:0\" }\ngrants = { listen = [\"127.0.0.1:0\"] }",
        "a component\n",
    ),
];

/// How an app calls another one: through Dapr's API in its own process, or by its name.
const CALLERS: [&str; 5] = ["wasi:http", "proxy-wasm", "wasi_experimental_http", "sockets", "waPC"];

fn dapr(called: &str) -> String {
    format!("http://localhost:3500/v1.0/invoke/{called}/method/")
}

fn manifest() -> String {
    let called = CALLED.iter().map(|(name, entry, _)| format!("[apps.{name}]\n{entry}\n"));
    let mut manifest: String = called.collect();
    let names: Vec<&str> = CALLED.iter().map(|(name, ..)| *name).collect();
    let grants = format!("grants = {{ invoke = {names:?} }}");
    for (name, module) in [("asks", "outbound"), ("asks-proxy", "proxy-sdk"), ("asks-actor", "wapc-actor")] {
        manifest += &format!("[apps.{name}]\nmodule = `{module}`\nhosts = [\"{name}.test\"]\n{grants}\n");
    }
    // Programs are told in their arguments whom to call.
    for name in names {
        let url = dapr(name);
        for (kind, module, args) in [
            ("http", "p1-experimental-http", format!("[\"send\", \"GET\", {url:?}, \"\", \"\"]")),
            ("socket", "sock-client", format!("[{url:?}]")),
        ] {
            manifest += &format!(
                "[apps.{kind}-{name}]\nmodule = `{module}`\nargs = {args}\nhosts = [\"{kind}-{name}.test\"]\n{grants}\n"
            );
        }
    }
    manifest
}

/// What the app that speaks so is told by the app that it calls.
fn asked(host: &Host, caller: &str, called: &str) -> String {
    let get = |name: &str, target: &str| host.send("GET", target, &[("host", name)], b"").text();
    match caller {
        "wasi:http" => get("asks.test", &format!("/dapr/v1.0/invoke/{called}/method/")),
        "proxy-wasm" => get("asks-proxy.test", &format!("/call?{called}&/")),
        "wasi_experimental_http" => get(&format!("http-{called}.test"), "/"),
        "sockets" => get(&format!("socket-{called}.test"), "/"),
        _ => {
            let request =
                json!({ "method": "GET", "path": dapr(called), "queryString": "", "header": {}, "body": [] });
            let target = "/call/wascc:http_client/PerformRequest";
            let headers = [("host", "asks-actor.test")];
            let answer = host.send("POST", target, &headers, request.to_string().as_bytes());
            match answer.status {
                200 => answer.json()["body"].as_str().map_or_else(|| answer.text(), str::to_owned),
                _ => answer.text(),
            }
        }
    }
}

#[test]
fn an_app_of_each_abi_calls_one_of_each() {
    let host = Setting::with_manifest(&manifest()).up(&[]);
    let mut wrong = Vec::new();
    for caller in CALLERS {
        for (called, _, expected) in CALLED {
            let answer = asked(&host, caller, called);
            if !answer.contains(expected) {
                wrong.push(format!("{caller} calls {called}: {answer:?}, expected {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    host.stop();
}

#[test]
fn an_app_of_each_abi_stands_behind_a_filter() {
    let mut manifest = String::new();
    for (name, entry, _) in CALLED {
        manifest +=
            &format!("[apps.{name}]\n{entry}\nhosts = [\"{name}.test\"]\nfilters = [\"one\", \"two\"]\n");
    }
    for name in ["one", "two"] {
        manifest +=
            &format!("[apps.{name}]\nmodule = `proxy-sdk`\nconfig = {{ plugin = \"filter {name}\" }}\n");
    }
    let host = Setting::with_manifest(&manifest).up(&[]);
    for (name, _, expected) in CALLED {
        for _ in 0..2 {
            let answer = host.send("GET", "/", &[("host", &format!("{name}.test"))], b"");
            let marks: Vec<_> = answer
                .headers
                .iter()
                .filter(|(name, _)| name == "x-returned")
                .map(|(_, mark)| mark.as_str())
                .collect();
            assert_eq!(
                (answer.status, marks.as_slice()),
                (200, &["two", "one"][..]),
                "{name}: {}",
                answer.text()
            );
            assert!(answer.text().contains(expected), "{name}: {}", answer.text());
        }
        let denied = host.send("GET", "/denied-by-two", &[("host", &format!("{name}.test"))], b"");
        assert_eq!((denied.status, denied.text().as_str()), (403, "denied\n"), "{name}");
    }
    host.stop();
}
