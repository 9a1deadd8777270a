//! Components that come and go while the host runs, and apps that are bound to them.

use crate::messaging::{BLOCKS, call, recorded, shared, subscription};
use crate::state::component;
use crate::support::{Host, Setting, eventually, http};
use serde_json::{Value, json};
use std::thread;

const MANIFEST: &str = r#"
    [apps.kv]
    module = `kv`
    routes = ["/set", "/get"]
    grants = { state = ["statestore"] }

    [apps.slow]
    module = `misbehave`
    routes = ["/hang"]
    grants = { state = ["*"] }
"#;

fn write(setting: &Setting, file: &str, name: &str, kind: &str, metadata: &[(&str, &str)]) {
    setting.file(file, component(name, kind, metadata).as_bytes());
}

fn set(host: &Host, store: &str, value: &str) -> u16 {
    host.send("POST", &format!("/set?store={store}&key=k"), &[], value.as_bytes()).status
}

/// The value, which the guest writes as JSON.
fn get(host: &Host, store: &str) -> String {
    host.get(&format!("/get?store={store}&key=k")).text().trim_matches('"').to_owned()
}

#[track_caller]
fn done(setting: &Setting, args: &[&str]) {
    let ended = setting.run(args);
    assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
}

#[test]
fn apps_are_bound_to_components_that_come_and_go() {
    let setting = Setting::with_manifest(MANIFEST);
    write(&setting, "one.yaml", "one", "state.in-memory", &[]);
    write(&setting, "two.yaml", "two", "state.sqlite", &[]);
    let host = setting.up(&[]);
    assert_eq!(set(&host, "one", "1"), 404);
    done(&setting, &["provider", "add", "one.yaml"]);
    assert_eq!(set(&host, "one", "1"), 403, "it is there, and not granted");
    done(&setting, &["bind", "kv", "state", "one"]);
    assert_eq!((set(&host, "one", "1"), get(&host, "one").as_str()), (200, "1"));
    // Programs outside see it as well.
    let saved = host.dapr("POST", "/v1.0/state/one", &[], r#"[{"key": "out", "value": 1}]"#);
    assert_eq!(saved.status, 204, "{}", saved.text());
    done(&setting, &["provider", "add", "two.yaml"]);
    done(&setting, &["bind", "kv", "wascc:keyvalue", "statestore=two", "one=two"]);
    assert_eq!((set(&host, "statestore", "2"), get(&host, "one").as_str()), (200, "2"));
    let used = setting.run(&["provider", "remove", "two"]);
    assert!(
        used.code == Some(1)
            && used.err.contains("`dhow unbind kv state statestore`, `dhow unbind kv state one`"),
        "{used:?}"
    );
    assert_eq!(get(&host, "one"), "2");

    // All of it is there again.
    host.kill();
    let host = setting.up(&[]);
    assert_eq!((get(&host, "statestore").as_str(), get(&host, "one").as_str()), ("2", "2"));
    done(&setting, &["unbind", "kv", "state", "one"]);
    assert_eq!(set(&host, "one", "1"), 403);
    // Also what the manifest grants can be taken away, and given back.
    done(&setting, &["unbind", "kv", "state", "statestore"]);
    assert_eq!(set(&host, "statestore", "1"), 404);
    done(&setting, &["bind", "kv", "state", "statestore"]);
    assert_eq!(get(&host, "statestore"), "null");
    done(&setting, &["provider", "remove", "two"]);
    let listed: Value = serde_json::from_str(&setting.run(&["provider", "list", "--json"]).out).unwrap();
    let names: Vec<&Value> = listed["providers"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
    assert_eq!(names, [&json!("one")]);
    host.stop();
}

#[test]
fn a_component_is_closed_when_nobody_uses_it_any_more() {
    let setting = Setting::with_manifest(MANIFEST);
    write(&setting, "resources/one.yaml", "one", "state.in-memory", &[]);
    let host = setting.up(&[]);
    let mut slow = host.client();
    slow.write(b"GET /hang?ms=1500 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    eventually("the request", || {
        let listed: Value = serde_json::from_str(&setting.run(&["ps", "--json"]).out).unwrap();
        (listed["hosts"][0]["underWay"] == 1).then_some(())
    });
    thread::scope(|scope| {
        let removing = scope.spawn(|| setting.run(&["provider", "remove", "one"]));
        assert_eq!(slow.response("GET").unwrap().text(), "woke up\n");
        assert_eq!(removing.join().unwrap().code, Some(0));
    });
    // What a file declares stays away after a restart, until it is brought back.
    host.stop();
    let host = setting.up(&[]);
    assert!(host.stderr().contains("was removed while the host ran"), "{}", host.stderr());
    let outside = |host: &Host| host.dapr("GET", "/v1.0/state/one/k", &[], "").status;
    assert!(outside(&host) >= 400);
    done(&setting, &["provider", "add", "resources/one.yaml"]);
    assert_eq!(outside(&host), 204);
    host.stop();
}

#[test]
fn what_cannot_be_added_or_bound_changes_nothing() {
    let setting = Setting::with_manifest(MANIFEST);
    write(&setting, "resources/one.yaml", "one", "state.in-memory", &[]);
    write(&setting, "redis.yaml", "away", "state.redis", &[("redisHost", "127.0.0.1:1")]);
    write(&setting, "type.yaml", "strange", "state.nothing", &[]);
    write(&setting, "block.yaml", "strange", "workflow.nothing", &[]);
    write(&setting, "one.yaml", "one", "state.in-memory", &[]);
    let scoped = component("closed", "state.in-memory", &[]) + "scopes: [other]\n";
    setting.file("closed.yaml", scoped.as_bytes());
    setting.file("broken.yaml", b"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {nam: x}\n");
    setting.file(
        "kind.yaml",
        b"apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec: {}\n",
    );
    setting.file("empty.yaml", b"");
    let host = setting.up(&[]);
    done(&setting, &["provider", "add", "closed.yaml"]);
    for (args, code, said) in [
        (&["provider", "add", "redis.yaml"][..], 1, "away"),
        (&["provider", "add", "type.yaml"], 1, "state.nothing"),
        (&["provider", "add", "block.yaml"], 2, "workflow.nothing"),
        (&["provider", "add", "one.yaml"], 1, "--replace"),
        (&["provider", "add", "broken.yaml"], 2, "broken.yaml:3"),
        (&["provider", "add", "kind.yaml"], 2, "Configuration"),
        (&["provider", "add", "empty.yaml"], 2, "no component"),
        (&["provider", "add", "gone.yaml"], 1, "gone.yaml"),
        (&["provider", "remove", "on"], 1, "did you mean \"one\"?"),
        (&["bind", "kv", "state", "two"], 1, "it sees one, statestore"),
        (&["bind", "kv", "state", "closed"], 1, "has no component \"closed\""),
        (&["bind", "kv", "stat", "one"], 2, "there are state, pubsub"),
        (&["bind", "vk", "state", "one"], 1, "there are: kv, slow"),
        (&["bind", "kv", "state", "=one"], 2, "[NAME=]COMPONENT"),
        (&["unbind", "kv", "state", "two"], 1, "is not bound to \"two\""),
    ] {
        let ended = setting.run(args);
        assert!(ended.code == Some(code) && ended.err.contains(said), "{args:?}: {ended:?}");
        assert_eq!(set(&host, "statestore", "1"), 200);
    }
    done(&setting, &["provider", "add", "one.yaml", "--replace"]);
    let listed = setting.run(&["provider", "list"]).out;
    assert!(listed.contains("closed") && listed.contains("other") && !listed.contains("away"), "{listed}");
    host.stop();
}

#[test]
fn a_subscription_that_is_added_is_received() {
    let manifest = r#"
        [apps.blocks]
        module = `runtime-blocks`
        routes = ["/"]
        grants = { state = ["*"], publish = ["*"] }
        [apps.wasi]
        module = `messaging-wasi`
        grants = { state = ["shared"], publish = ["*"], subscribe = ["events/wasi"] }
    "#;
    let setting = Setting::with_manifest(manifest);
    shared(&setting);
    let declared = subscription("wasi", "wasi", "").replace("pubsubname: pubsub", "pubsubname: events");
    let text = format!("{}---\n{declared}", component("events", "pubsub.in-memory", &[]));
    setting.file("events.yaml", text.as_bytes());
    let host = setting.up(&[]);
    done(&setting, &["provider", "add", "events.yaml"]);
    let message = json!({
        "pubsub": "events", "topic": "wasi", "data": "{\"id\": \"1\"}", "content-type": "application/json", "metadata": {},
    });
    assert_eq!(call(&host, BLOCKS, "/pubsub/publish", &message), json!({"ok": null}));
    recorded(&host, BLOCKS, "wasi:1", 1);
    done(&setting, &["provider", "remove", "events"]);
    let gone = host.send("POST", "/pubsub/publish", &[("host", BLOCKS)], message.to_string().as_bytes());
    assert!(gone.text().contains("not"), "{}", gone.text());
    assert_eq!(http::get(host.management.unwrap(), "/healthz").status, 200);
    host.stop();
}
