//! Policies: in Rego, and of a server elsewhere, at load, at update and at invocations. Whatever is no yes is a no.

use crate::claims::{account, counted, signed};
use crate::support::{Setting, app, eventually, http};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const MANIFEST: &str =
    "[apps.a]\nmodule = \"a.wasm\"\nroutes = [\"/\"]\ngrants = { state = [\"statestore\"] }\n";

fn setting() -> Setting {
    let setting = Setting::with_manifest(MANIFEST);
    signed(&setting, "http-hello", "a.wasm", &["--cap", "dhow:serve", "--version", "1.2.0"]);
    setting
}

#[test]
fn a_policy_decides_what_is_loaded() {
    let setting = setting();
    let issuer = account(&setting, "account");
    for (rule, allowed) in [
        (format!(r#"input.claims.issuer == "{issuer}""#), true),
        (r#"input.grants.state == ["statestore"]"#.to_owned(), true),
        (r#"[_, claims, _] := io.jwt.decode(input.token); claims.wascap.ver == "1.2.0""#.to_owned(), true),
        (r#"input.claims.issuer == "somebody""#.to_owned(), false),
    ] {
        let policy = format!(
            "package dhow\ndefault allow := false\nallow if {{ input.event == \"load\"; {rule} }}\n\
             cause contains \"ask Ada first\" if not allow\n"
        );
        setting.file("policy.rego", policy.as_bytes());
        if allowed {
            let host = setting.up(&["--policy", "policy.rego"]);
            assert_eq!(host.get("/").status, 200, "{rule}");
            assert_eq!(
                counted(&host, "dhow_policy_decisions_total", &["event=\"load\"", "result=\"allow\""]),
                1.0
            );
            host.stop();
        } else {
            let ended = setting.up_fails(&["--policy", "policy.rego"]);
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(ended.err.contains("a.wasm: policy: denied: ask Ada first"), "{ended:?}");
        }
    }
}

#[test]
fn a_policy_that_is_none_allows_nothing() {
    let setting = setting();
    let range = "numbers.range(1, 5000)";
    for (policy, said) in [
        ("package dhow\nallow if {".to_owned(), "policy.rego"),
        ("package other\nallow := true".to_owned(), "package dhow"),
        ("package dhow\nallow := \"yes\"".to_owned(), "no boolean \"allow\""),
        ("package dhow\nother := true".to_owned(), "no rule says anything"),
        (
            format!(
                "package dhow\nallow if count([1 | some x in {range}; some y in {range}; x == y * y]) > 0\n"
            ),
            "did not answer within",
        ),
    ] {
        setting.file("policy.rego", policy.as_bytes());
        let began = Instant::now();
        let ended = setting.up_fails(&["--policy", "policy.rego", "--policy-timeout", "300ms"]);
        assert!(ended.code == Some(1) && ended.err.contains(said), "{policy}: {ended:?}");
        // The interpreter's own words, of a second reading as an older policy.
        assert!(!ended.err.contains("will be treated as"), "{policy}: {ended:?}");
        assert!(began.elapsed() < Duration::from_secs(60), "{policy}");
    }
    let ended = setting.up_fails(&["--policy", "absent.rego"]);
    assert!(ended.code == Some(1) && ended.err.contains("absent.rego"), "{ended:?}");
    let ended = setting.up_fails(&["--policy-per-invocation"]);
    assert!(ended.code == Some(2) && ended.err.contains("--policy or --opa"), "{ended:?}");
}

#[test]
fn what_a_policy_prints_is_in_the_log() {
    let setting = setting();
    let policy = "package dhow\nallow if { print(\"asked about\", input.app_id) }\n";
    setting.file("policy.rego", policy.as_bytes());
    let host = setting.up(&["--policy", "policy.rego"]);
    let said = host.stop();
    let line = said.lines().find(|line| line.contains("asked about a")).unwrap_or_default();
    assert!(line.contains(" INFO policy: "), "{said}");
}

#[test]
fn invocations_and_updates_are_asked_about() {
    let setting = Setting::with_manifest(
        r#"
        [trust]
        policy = "policy.rego"
        policy_per_invocation = "1h"
        [apps.front]
        module = `outbound`
        routes = ["/"]
        grants = { invoke = ["a"] }
        [apps.a]
        module = "a.wasm"
        hosts = ["a.test"]
        "#,
    );
    signed(&setting, "http-hello", "a.wasm", &["--cap", "dhow:serve", "--version", "1.0.0"]);
    setting.file(
        "policy.rego",
        br#"
        package dhow
        default allow := false
        allow if input.event == "load"
        allow if { input.event == "update"; not input.claims.version == "2.0.0" }
        allow if { input.event == "invoke"; input.app_id == "front" }
        allow if { input.event == "invoke"; input.request.caller == "front"; input.request.trigger == "app" }
        allow if { input.event == "invoke"; input.request.method == "HEAD"; input.request.path == "/open" }
        cause contains sprintf("no %v of %v for you", [input.request.method, input.request.path]) if not allow
        cause contains "2.0.0 is bad" if { input.event == "update"; not allow }
        "#,
    );
    let mut host = setting.up(&["--watch"]);
    let ask = |host: &crate::support::Host, method: &str, path: &str| {
        let answer = host.send(method, path, &[("host", "a.test")], b"");
        (answer.status, answer.text())
    };
    let (status, text) = ask(&host, "GET", "/closed");
    assert!(status == 403 && text.contains("no GET of /closed for you"), "{status} {text}");
    assert_eq!(ask(&host, "HEAD", "/open").0, 200);
    let answer = host.get("/dapr/v1.0/invoke/a/method/closed");
    assert_eq!(answer.status, 200, "{answer:?}");
    // An answer is kept: of a hundred equal questions, one was asked.
    let asked = |host: &crate::support::Host, result: &str| {
        counted(host, "dhow_policy_decisions_total", &["event=\"invoke\"", &format!("result=\"{result}\"")])
    };
    let before = asked(&host, "deny");
    for _ in 0..100 {
        assert_eq!(ask(&host, "GET", "/closed").0, 403);
    }
    assert_eq!(asked(&host, "deny"), before);
    // An update is another question.
    signed(&setting, "http-hello", "a.wasm", &["--cap", "dhow:serve", "--version", "2.0.0"]);
    host.line(|line| line.contains("not reloaded") && line.contains("2.0.0 is bad"));
    assert_eq!(ask(&host, "HEAD", "/open").0, 200);
    signed(&setting, "http-hello", "a.wasm", &["--cap", "dhow:serve", "--version", "3.0.0"]);
    host.line(|line| line.contains("reloaded: 1 apps changed"));
    // So is another policy; what was kept of the old one is forgotten.
    setting.file(
        "policy.rego",
        b"package dhow\ndefault allow := true\nallow := false if input.request.path == \"/open\"\n",
    );
    eventually("the new policy", || (ask(&host, "HEAD", "/open").0 == 403).then_some(()));
    assert_eq!(ask(&host, "GET", "/closed").0, 200);
    host.stop();
}

/// Paths and bodies of what was asked.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// A policy server that keeps what it was asked.
fn server(status: u16, answer: &str) -> (SocketAddr, Asked) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (kept, answer) = (Arc::clone(&asked), answer.to_owned());
    let address = app::start(move |call| {
        let body = serde_json::from_slice(&call.body).unwrap_or_default();
        kept.lock().unwrap().push((call.target.clone(), body));
        (status, answer.clone())
    });
    (address, asked)
}

#[test]
fn a_policy_server_is_asked_in_both_forms() {
    let setting = setting();
    let (address, asked) = server(200, r#"{"allow": true, "cause": []}"#);
    let host = setting.up(&["--opa", &format!("http://{address}/")]);
    assert_eq!(host.get("/").status, 200);
    let (target, body) = asked.lock().unwrap()[0].clone();
    assert_eq!(target, "/");
    // Waxosuit's form: the token and nothing else.
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    assert_eq!(body["token"].as_str().unwrap().split('.').count(), 3, "{body}");
    host.stop();

    let (address, asked) = server(200, r#"{"result": {"allow": true}}"#);
    let host = setting.up(&["--opa", &format!("http://{address}/v1/data/dhow?pretty=false")]);
    assert_eq!(host.get("/").status, 200);
    let (target, body) = asked.lock().unwrap()[0].clone();
    assert_eq!(target, "/v1/data/dhow?pretty=false");
    let input = &body["input"];
    assert_eq!((&input["event"], &input["app_id"]), (&"load".into(), &"a".into()), "{body}");
    assert_eq!(input["grants"]["state"][0], "statestore", "{body}");
    assert_eq!(input["claims"]["version"], "1.2.0", "{body}");
    host.stop();

    // As Waxosuit's users set it.
    let (address, asked) = server(200, r#"{"allow": false, "cause": ["not on a Friday", "nor today"]}"#);
    let setting = setting.env("OPA_URL", &format!("http://{address}"));
    let ended = setting.up_fails(&[]);
    assert!(ended.code == Some(1) && ended.err.contains("denied: not on a Friday; nor today"), "{ended:?}");
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[test]
fn a_policy_server_that_gives_no_answer_allows_nothing() {
    let setting = setting();
    // Takes the request, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    thread::spawn(move || {
        let held: Vec<_> = silent.incoming().flatten().collect();
        drop(held);
    });
    // Closes the connection in the middle of its answer.
    let cut = TcpListener::bind("127.0.0.1:0").unwrap();
    let cut_at = cut.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in cut.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"allow\": true");
        }
    });
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (garbage, _) = server(200, "<html>sign in, please</html>");
    let (failing, _) = server(500, r#"{"allow": true}"#);
    let (moved, _) = server(302, r#"{"allow": true}"#);
    let (word, _) = server(200, r#"{"allow": "true"}"#);
    let large = format!("{{\"allow\": true, \"cause\": [\"{}\"]}}", "x".repeat(2 << 20));
    let (endless, _) = server(200, &large);
    for (address, said) in [
        (silent_at, "did not answer within 0.5 s"),
        (cut_at, "broke off"),
        (gone, "cannot be asked"),
        (garbage, "the policy's answer cannot be read"),
        (failing, "its status is 500"),
        (moved, "its status is 302"),
        (word, "no boolean \"allow\""),
        (endless, "more than 1048576 bytes"),
    ] {
        let began = Instant::now();
        let ended = setting.up_fails(&["--opa", &format!("http://{address}/"), "--policy-timeout", "500ms"]);
        assert!(ended.code == Some(1) && ended.err.contains(said), "{said}: {ended:?}");
        assert!(began.elapsed() < Duration::from_secs(60), "{said}");
    }
    for url in ["no url", "ftp://x/", "http://user:secret@127.0.0.1/"] {
        let ended = setting.up_fails(&["--opa", url]);
        assert!(ended.code == Some(1) && ended.err.contains("policy server: "), "{ended:?}");
        assert!(!ended.err.contains("secret"), "{ended:?}");
    }
}

#[test]
fn a_policy_server_that_goes_down_takes_no_request_with_it_but_its_own() {
    let setting = setting();
    let (address, asked) = server(200, r#"{"result": true}"#);
    let url = format!("http://{address}/v1/data/dhow/allow");
    let host = setting.up(&["--opa", &url, "--policy-per-invocation=1h", "--policy-timeout", "500ms"]);
    assert_eq!(host.get("/one").status, 200);
    assert_eq!(host.get("/one").status, 200);
    let asked: Vec<Value> = asked.lock().unwrap().iter().map(|(_, body)| body["input"].clone()).collect();
    let events: Vec<&str> = asked.iter().filter_map(|input| input["event"].as_str()).collect();
    assert_eq!(events, ["load", "invoke"]);
    assert_eq!(asked[1]["request"]["path"], "/one", "{asked:?}");
    // Other questions are asked of the server; many at once are bounded, and each has an answer in time.
    let began = Instant::now();
    let addr = host.addr;
    let threads: Vec<_> =
        (0..64).map(|number| thread::spawn(move || http::get(addr, &format!("/{number}")).status)).collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 200);
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    host.stop();
}
