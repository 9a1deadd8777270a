//! Components that are modules: the example as its reader runs it, components that come while the host runs, what they
//! are not granted, and what a bad one does to its callers and nobody else.

use crate::claims::{counted, signed};
use crate::state::component;
use crate::support::{Ended, Host, Setting, app, eventually, guest};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Writes a component of this module.
fn write(setting: &Setting, file: &str, kind: &str, module: &str, metadata: &[(&str, &str)]) {
    let module = guest(module).display().to_string();
    let metadata = [&[("module", module.as_str())], metadata].concat();
    let name = Path::new(file).file_stem().unwrap().to_string_lossy().into_owned();
    setting.file(file, component(&name, kind, &metadata).as_bytes());
}

fn save(host: &Host, store: &str, items: &Value) -> u16 {
    host.dapr("POST", &format!("/v1.0/state/{store}"), &[], &items.to_string()).status
}

/// Status and text of a value.
fn value(host: &Host, store: &str, key: &str) -> (u16, String) {
    let answer = host.dapr("GET", &format!("/v1.0/state/{store}/{key}"), &[], "");
    (answer.status, answer.text())
}

#[test]
fn the_example_keeps_state_secrets_and_messages() {
    let (etcd, redis) = (dhow_servers::etcd().unwrap(), dhow_servers::redis().unwrap());
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/wasm-component");
    let setting = Setting::new();
    let resources = fs::read_to_string(example.join("resources/components.yaml")).unwrap();
    let resources =
        resources.replace("127.0.0.1:2379", &etcd.address()).replace("127.0.0.1:6379", &redis.address());
    setting.file("resources/components.yaml", resources.as_bytes());
    setting.file("secrets/passwords.txt", &fs::read(example.join("secrets/passwords.txt")).unwrap());
    for name in ["etcd", "vault", "streams"] {
        let module = fs::read(guest(&format!("wasm-component-{name}"))).unwrap();
        setting.file(&format!("build/{name}.wasm"), &module);
    }
    let received: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
    let app = app::start({
        let received = Arc::clone(&received);
        move |call| {
            if call.target == "/dapr/subscribe" {
                let subscription = json!([{"pubsubname": "messages", "topic": "orders", "route": "/orders"}]);
                return (200, subscription.to_string());
            }
            let event: Value = serde_json::from_slice(&call.body).unwrap_or_default();
            let Some(text) = event["data"].as_str() else { return (200, String::new()) };
            let mut received = received.lock().unwrap();
            match received.iter_mut().find(|(known, _)| known == text) {
                Some((_, times)) => *times += 1,
                None => received.push((text.to_owned(), 1)),
            }
            // One is not handled the first time.
            let is_new =
                received.iter().any(|(known, times)| known == "twice" && known == text && *times == 1);
            (if is_new { 500 } else { 200 }, String::new())
        }
    });
    let host = setting.sidecar("shop", Some(app), &["--resources-path", "resources"]);

    assert_eq!(save(&host, "kv", &json!([{"key": "book", "value": {"stock": 1}}])), 204);
    let found = host.dapr("GET", "/v1.0/state/kv/book", &[], "");
    assert_eq!((found.status, found.text().as_str()), (200, r#"{"stock":1}"#));
    let etag = found.header("etag").unwrap().to_owned();
    assert_eq!(save(&host, "kv", &json!([{"key": "book", "value": 2, "etag": etag}])), 204);
    assert_eq!(save(&host, "kv", &json!([{"key": "book", "value": 3, "etag": etag}])), 409);
    let transaction = json!({"operations": [
        {"operation": "upsert", "request": {"key": "a", "value": 1}},
        {"operation": "delete", "request": {"key": "book"}},
    ]});
    let done = host.dapr("POST", "/v1.0/state/kv/transaction", &[], &transaction.to_string());
    assert_eq!(done.status, 204, "{}", done.text());
    assert_eq!((value(&host, "kv", "a"), value(&host, "kv", "book").0), ((200, "1".to_owned()), 204));
    let secret = host.dapr("GET", "/v1.0/secrets/vault/db", &[], "");
    assert_eq!(secret.json(), json!({"db": "geheim"}));
    let metadata = host.dapr("GET", "/v1.0/metadata", &[], "").json();
    let kv = metadata["components"].as_array().unwrap().iter().find(|found| found["name"] == "kv").unwrap();
    assert_eq!(kv["type"], "state.wasm");
    assert_eq!(kv["capabilities"], json!(["ETAG", "TRANSACTIONAL", "TTL"]));

    for text in ["once", "twice"] {
        let published =
            host.dapr("POST", "/v1.0/publish/messages/orders", &[("content-type", "text/plain")], text);
        assert_eq!(published.status, 204, "{}", published.text());
    }
    eventually("both messages", || {
        let received = received.lock().unwrap();
        let times = |text: &str| received.iter().find(|(known, _)| known == text).map(|(_, times)| *times);
        (times("once") == Some(1) && times("twice") == Some(2)).then_some(())
    });
    host.stop();

    // What etcd has is there for the next host, under the prefix that the secret says.
    let host = setting.sidecar("shop", None, &["--resources-path", "resources"]);
    assert_eq!(value(&host, "kv", "a"), (200, "1".to_owned()));
    host.stop();
}

#[test]
fn a_component_is_added_bound_and_removed_while_the_host_runs() {
    let etcd = dhow_servers::etcd().unwrap();
    let url = format!("http://{}", etcd.address());
    let setting = Setting::with_manifest(
        "[apps.kv]\nmodule = `kv`\nroutes = [\"/\"]\ngrants = { state = [\"statestore\"] }\n[apps.other]\nmodule = `kv`\nhosts = [\"other.test\"]\n\
         grants = { state = [\"*\"] }\n",
    );
    let metadata = [("endpoint", url.as_str()), ("grants.http", url.as_str())];
    write(&setting, "shelf.yaml", "state.wasm", "wasm-component-etcd", &metadata);
    let text = fs::read_to_string(setting.path().join("shelf.yaml")).unwrap();
    setting.file("shelf.yaml", format!("{text}scopes: [kv]\n").as_bytes());
    let host = setting.up(&[]);
    let set = |host: &Host| host.send("POST", "/set?store=shelf&key=k", &[], b"1").status;
    assert_eq!(set(&host), 404);
    let done = |args: &[&str]| {
        let ended = setting.run(args);
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        ended.out
    };
    done(&["provider", "add", "shelf.yaml"]);
    assert_eq!(set(&host), 403, "it is there, and not granted");
    done(&["bind", "kv", "state", "shelf"]);
    assert_eq!(set(&host), 200);
    assert_eq!(host.get("/get?store=shelf&key=k").text().trim_matches('"'), "1");
    let elsewhere = host.send("POST", "/set?store=shelf&key=k", &[("host", "other.test")], b"1");
    assert_eq!(elsewhere.status, 404, "it is scoped: {}", elsewhere.text());
    assert!(done(&["provider", "list"]).contains("state.wasm"));
    assert!(
        counted(&host, "dapr_component_state_count", &["component=\"shelf\"", "success=\"true\""]) >= 2.0
    );
    host.kill();
    let host = setting.up(&[]);
    assert_eq!(set(&host), 200, "it is there after a restart");
    done(&["unbind", "kv", "state", "shelf"]);
    done(&["provider", "remove", "shelf"]);
    assert_eq!(set(&host), 404);
    host.stop();
}

#[test]
fn what_is_not_granted_is_denied_and_what_cannot_be_opened_says_why() {
    let etcd = dhow_servers::etcd().unwrap();
    let url = format!("http://{}", etcd.address());
    let setting = Setting::with_manifest("[apps.kv]\nmodule = `kv`\nroutes = [\"/\"]\n");
    let (etcd, bad, state) = ("wasm-component-etcd", "provider-misbehave", "state.wasm");
    let endpoint = ("endpoint", url.as_str());
    let denied = "add it to grants.http in the component's metadata";
    type Metadata<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, &str, Metadata<'_>, &str); 14] = [
        (state, etcd, &[endpoint], denied),
        (state, etcd, &[endpoint, ("grants.http", "http://127.0.0.1:1")], denied),
        (state, etcd, &[endpoint, ("grants.htp", "*")], "did you mean http?"),
        (state, etcd, &[], "endpoint is missing"),
        (
            "pubsub.wasm",
            "wasm-component-streams",
            &[("address", "127.0.0.1:6379"), ("grants.connect", "127.0.0.1:1")],
            "grants.connect",
        ),
        ("secretstores.wasm", "wasm-component-vault", &[("file", "/etc/passwd")], "/etc/passwd"),
        (
            state,
            "wasm-component-vault",
            &[],
            "exports dhow:provider/secrets@0.1.0, and not dhow:provider/state@0.1.0",
        ),
        (state, "kv", &[], "none of dhow:provider"),
        (state, "p1-command", &[], "none of dhow:provider"),
        (state, bad, &[("init", "trap")], "wasm trap"),
        (state, bad, &[("init", "loop"), ("limits.timeout", "300ms")], "did not finish within 300ms"),
        (state, bad, &[("init", "loop")], "did not start within 5s"),
        (state, bad, &[("init", "refuse")], "it does not want to"),
        (state, bad, &[("limits.concurrency", "0")], "from 1 to 256"),
    ];
    for (number, (kind, module, metadata, _)) in cases.iter().enumerate() {
        write(&setting, &format!("c{number}.yaml"), kind, module, metadata);
    }
    setting.file("absent.yaml", component("absent", state, &[("module", "absent.wasm")]).as_bytes());
    setting.file("none.yaml", component("none", state, &[("endpoint", "x")]).as_bytes());
    let host = setting.up(&[]);
    let refused = |file: &str, said: &str| {
        let ended = setting.run(&["provider", "add", file]);
        let Ended { err, code, .. } = &ended;
        assert!(
            *code == Some(1) && err.contains(said) && !err.contains("panicked"),
            "{file}: {said}: {ended:?}"
        );
    };
    for (number, (.., said)) in cases.iter().enumerate() {
        refused(&format!("c{number}.yaml"), said);
    }
    refused("absent.yaml", "absent.wasm");
    refused("none.yaml", "metadata field module must be the module");
    let denials = counted(&host, "dhow_denials_total", &["app_id=\"component/c0\"", "kind=\"http\""]);
    assert!(denials >= 1.0, "{denials}");
    // None of them is there, and a host with one of them in its files does not start.
    assert!(!setting.run(&["provider", "list"]).out.contains("c1"));
    host.stop();
    fs::create_dir_all(setting.path().join("resources")).unwrap();
    fs::copy(setting.path().join("c0.yaml"), setting.path().join("resources/c0.yaml")).unwrap();
    let ended = setting.up_fails(&[]);
    assert!(
        ended.code == Some(1) && ended.err.contains("c0.yaml:1") && ended.err.contains(denied),
        "{ended:?}"
    );
}

#[test]
fn a_component_that_misbehaves_fails_its_own_calls() {
    let setting = Setting::new();
    let limits = [("limits.timeout", "3s"), ("limits.memory", "160MiB"), ("limits.concurrency", "1")];
    write(&setting, "resources/bad.yaml", "state.wasm", "provider-misbehave", &limits);
    let host = setting.sidecar("shop", None, &["--resources-path", "resources"]);
    let calls = |host: &Host| value(host, "bad", "calls");
    for (key, said) in [
        ("trap", "wasm trap"),
        ("exit", "exited with code"),
        ("loop", "did not finish within 3s"),
        ("recurse", "wasm trap"),
        ("memory", "its memory limit"),
        ("long-error", "long long"),
    ] {
        assert_eq!(save(&host, "bad", &json!([{"key": "kept", "value": 1}])), 204);
        let before: u32 = calls(&host).1.parse().unwrap();
        let (status, text) = value(&host, "bad", key);
        assert!(status == 500 && text.contains(said) && text.len() < 2000, "{key}: {status} {text}");
        if key != "long-error" {
            assert!(text.contains("component \\\"bad\\\""), "{key}: {text}");
        }
        // The next call finds another instance, unless the component only said what it should not.
        let kept = value(&host, "bad", "kept");
        let is_same = key == "long-error";
        assert_eq!(kept.0, if is_same { 200 } else { 204 }, "{key}: {kept:?}");
        let after: u32 = calls(&host).1.parse().unwrap();
        assert_eq!(after, if is_same { before + 3 } else { 2 }, "{key}");
        assert_eq!(save(&host, "statestore", &json!([{"key": "a", "value": 1}])), 204);
    }
    // What it does not have is refused.
    let transaction = json!({"operations": [{"operation": "delete", "request": {"key": "a"}}]});
    let answer = host.dapr("POST", "/v1.0/state/bad/transaction", &[], &transaction.to_string());
    assert!(answer.status >= 400, "{}", answer.text());
    // Callers that wait for their turn are not kept longer than one call may take.
    let since = Instant::now();
    std::thread::scope(|scope| {
        let asked = [(); 4].map(|()| scope.spawn(|| value(&host, "bad", "loop").0));
        for asked in asked {
            assert_eq!(asked.join().unwrap(), 500);
        }
    });
    assert!(since.elapsed() < Duration::from_secs(12), "{:?}", since.elapsed());
    assert_eq!(calls(&host).0, 200);
    host.stop();
}

#[test]
fn a_signed_component_does_what_is_granted_and_claimed() {
    let etcd = dhow_servers::etcd().unwrap();
    let url = format!("http://{}", etcd.address());
    let setting =
        Setting::with_manifest("[apps.kv]\nmodule = `kv`\nroutes = [\"/\"]\ngrants = { state = [\"*\"] }\n");
    let cap = format!("--cap=dhow:http={url}");
    signed(&setting, "wasm-component-etcd", "claimed.wasm", &[&cap]);
    signed(&setting, "wasm-component-etcd", "timid.wasm", &["--cap=dhow:http=https://example.com"]);
    fs::copy(guest("wasm-component-etcd"), setting.path().join("plain.wasm")).unwrap();
    signed(&setting, "kv", "kv.wasm", &["--cap=dhow:serve", "--cap=dhow:state"]);
    for name in ["claimed", "timid", "plain"] {
        let module = format!("{name}.wasm");
        let metadata = [("module", module.as_str()), ("endpoint", &url), ("grants.http", &url)];
        setting.file(&format!("{name}.yaml"), component(name, "state.wasm", &metadata).as_bytes());
    }
    let manifest = |require: bool| {
        let text = format!(
            "[trust]\nrequire_signed = {require}\n[apps.kv]\nmodule = \"kv.wasm\"\nroutes = [\"/\"]\n\
             grants = {{ state = [\"*\"] }}\n"
        );
        setting.manifest(&text);
    };
    manifest(true);
    let mut host = setting.up(&[]);
    let add = |name: &str| setting.run(&["provider", "add", &format!("{name}.yaml")]);
    assert_eq!(add("claimed").code, Some(0));
    let refused = add("plain");
    assert!(refused.code == Some(1) && refused.err.contains("the module is not signed"), "{refused:?}");
    let refused = add("timid");
    assert!(refused.code == Some(1) && refused.err.contains("not claimed: http"), "{refused:?}");
    let set = |host: &Host, store: &str| host.send("POST", &format!("/set?store={store}&key=k"), &[], b"1");
    assert_eq!(set(&host, "claimed").status, 200);
    // One that is not signed may come when that is not asked for any more, and may not go on when it is again.
    manifest(false);
    host.signal(libc::SIGHUP);
    eventually("the other trust", || (add("plain").code == Some(0)).then_some(()));
    assert_eq!(set(&host, "plain").status, 200);
    manifest(true);
    host.signal(libc::SIGHUP);
    host.line(|line| line.contains("component/plain") && line.contains("not signed"));
    let refused = set(&host, "plain");
    assert!(refused.status >= 500, "{}", refused.text());
    assert_eq!(set(&host, "claimed").status, 200);
    host.stop();
}

#[test]
fn a_component_comes_from_a_registry_and_a_policy_may_refuse_it() {
    let (etcd, registry) = (dhow_servers::etcd().unwrap(), dhow_servers::docker_registry().unwrap());
    let url = format!("http://{}", etcd.address());
    let setting = Setting::with_manifest(
        "[trust]\npolicy = \"policy.rego\"\n[apps.kv]\nmodule = `kv`\nroutes = [\"/\"]\n\
         grants = { state = [\"shelf\"] }\n",
    );
    let setting = setting.env("DHOW_INSECURE", &registry.address());
    let reference = |rest: &str| format!("oci://{}/{rest}", registry.address());
    let module = guest("wasm-component-etcd");
    let pushed = setting.run(&["push", &module.to_string_lossy(), &reference("components/etcd:1.2.0")]);
    assert_eq!(pushed.code, Some(0), "{pushed:?}");
    let policy = |cause: &str| {
        let rule = format!(
            "cause contains \"no components\" if {{ input.source == {:?}; {cause} }}",
            reference("components/etcd:^1")
        );
        let text = format!("package dhow\ndefault allow := false\nallow if count(cause) == 0\n{rule}\n");
        setting.file("policy.rego", text.as_bytes());
    };
    policy("input.app_id == \"component/other\"");
    let range = reference("components/etcd:^1");
    for name in ["shelf", "other"] {
        let metadata = [("module", range.as_str()), ("endpoint", &url), ("grants.http", &url)];
        setting.file(&format!("{name}.yaml"), component(name, "state.wasm", &metadata).as_bytes());
    }
    let mut host = setting.up(&[]);
    let add = |name: &str| setting.run(&["provider", "add", &format!("{name}.yaml")]);
    assert_eq!(add("shelf").code, Some(0));
    let refused = add("other");
    assert!(refused.code == Some(1) && refused.err.contains("policy: denied: no components"), "{refused:?}");
    let ask = |host: &Host, method: &str, target: &str| host.send(method, target, &[], b"1").status;
    assert_eq!(ask(&host, "POST", "/set?store=shelf&key=k"), 200);
    assert_eq!(ask(&host, "GET", "/get?store=shelf&key=k"), 200);
    let refusals = ["app_id=\"component/other\"", "part=\"policy\""];
    assert!(counted(&host, "dhow_modules_refused_total", &refusals) >= 1.0);
    // A policy that says no from now on ends it, and a host that starts says so.
    policy("startswith(input.app_id, \"component/\")");
    host.signal(libc::SIGHUP);
    host.line(|line| line.contains("component/shelf") && line.contains("no components"));
    assert!(ask(&host, "GET", "/get?store=shelf&key=k") >= 500);
    host.stop();
    fs::create_dir_all(setting.path().join("resources")).unwrap();
    fs::copy(setting.path().join("other.yaml"), setting.path().join("resources/other.yaml")).unwrap();
    let ended = setting.up_fails(&[]);
    assert!(ended.code == Some(1) && ended.err.contains("policy: denied: no components"), "{ended:?}");
    // What is not in the grants of the app is denied, wherever the component came from.
    policy("false");
    let host = setting.up(&[]);
    assert_eq!(ask(&host, "GET", "/get?store=shelf&key=k"), 200);
    assert_eq!(ask(&host, "GET", "/get?store=other&key=k"), 403);
    host.stop();
}
