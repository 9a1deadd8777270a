//! wasi:messaging and wasmcloud:messaging: components that do nothing but take messages, and send some.

use crate::state::component;
use crate::support::{Host, Setting, eventually};
use serde_json::{Value, json};

const MANIFEST: &str = r#"
    [apps.blocks]
    module = `runtime-blocks`
    routes = ["/"]
    grants = { state = ["*"], publish = ["pubsub"], subscribe = ["pubsub/forwarded"] }
    [apps.wasi]
    module = `messaging-wasi`
    hosts = ["wasi.test"]
    grants = { state = ["shared"], publish = ["pubsub/forwarded", "pubsub/wasi"], subscribe = ["pubsub/wasi"] }
    [apps.wasmcloud]
    module = `messaging-wasmcloud`
    grants = { state = ["shared"], publish = ["pubsub/wasi", "pubsub/wasmcloud"], subscribe = ["pubsub/wasmcloud"] }
    [apps.closed]
    module = `messaging-wasi`
    grants = { state = ["shared"] }
"#;

/// The host name of the app of module `runtime-blocks` that has every grant.
pub(crate) const BLOCKS: &str = "blocks.test";

/// A subscription of one app to a topic of the embedded broker, with more lines of its specification.
pub(crate) fn subscription(app_id: &str, topic: &str, more: &str) -> String {
    format!(
        "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata:\n  name: {app_id}-{topic}\nspec:\n  \
         pubsubname: pubsub\n  topic: {topic}\n  routes:\n    default: /{topic}\n{more}scopes: [{app_id}]\n"
    )
}

/// A store that all apps share.
pub(crate) fn shared(setting: &Setting) {
    let memory = component("shared", "state.in-memory", &[("keyPrefix", "none")]);
    setting.file("resources/shared.yaml", memory.as_bytes());
}

/// Calls a function of dhow:runtime in the app of the module `runtime-blocks` that has this host name.
pub(crate) fn call(host: &Host, name: &str, function: &str, arguments: &Value) -> Value {
    let answer = host.send("POST", function, &[("host", name)], arguments.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{function} {arguments}: {answer:?}");
    answer.json()
}

/// What a handler wrote to the shared store, once it has been called so often.
#[track_caller]
pub(crate) fn recorded(host: &Host, name: &str, key: &str, count: i64) -> Value {
    let arguments = json!({"store": "shared", "key": key});
    eventually(key, || {
        let found = call(host, name, "/state/get", &arguments);
        let value: Value = serde_json::from_str(found["ok"]["value"].as_str()?).unwrap();
        assert!(key.ends_with("refusals") || value["count"].as_i64() <= Some(count), "{key}: {value}");
        (value["count"].is_null() || value["count"] == count).then_some(value)
    })
}

/// Publishes until a subscription of that topic is in force: what is published before does not arrive.
fn await_subscription(host: &Host, topic: &str, key: &str) {
    eventually(topic, || {
        send(host, topic, "ready", &json!({"id": "ready"}));
        let key = json!({"store": "shared", "key": key});
        (!call(host, BLOCKS, "/state/get", &key)["ok"].is_null()).then_some(())
    });
}

/// Publishes JSON in an envelope of that id.
fn send(host: &Host, topic: &str, id: &str, data: &Value) -> String {
    let data = data.to_string();
    let message = json!({
        "pubsub": "pubsub", "topic": topic, "data": data, "content-type": "application/json",
        "metadata": {"cloudevent.id": id},
    });
    assert_eq!(call(host, BLOCKS, "/pubsub/publish", &message), json!({"ok": null}));
    data
}

#[test]
fn messages_are_calls() {
    let setting = Setting::with_manifest(MANIFEST);
    shared(&setting);
    for (app_id, topic) in
        [("wasi", "wasi"), ("wasmcloud", "wasmcloud"), ("blocks", "forwarded"), ("closed", "closed")]
    {
        let resource = subscription(app_id, topic, "");
        setting.file(&format!("resources/{app_id}.yaml"), resource.as_bytes());
    }
    let mut host = setting.up(&[]);
    host.line(|line| line.contains("closed") && line.contains("is refused"));
    for (topic, key) in
        [("wasi", "wasi:ready"), ("wasmcloud", "wasmcloud:ready"), ("forwarded", "topic:ready")]
    {
        await_subscription(&host, topic, key);
    }
    // A message comes whole, and once.
    let data = send(&host, "wasi", "e", &json!({"id": "plain", "big": 9_007_199_254_740_993_u64}));
    let got = recorded(&host, BLOCKS, "wasi:plain", 1);
    assert_eq!((&got["topic"], &got["data"]), (&json!("wasi"), &json!(data)), "{got}");
    assert_eq!(got["content-type"], "application/json", "{got}");
    let names: Vec<&str> = got["metadata"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for name in
        ["cloudevent.id", "cloudevent.source", "cloudevent.type", "cloudevent.traceparent", "pubsubname"]
    {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let data = send(&host, "wasmcloud", "e", &json!({"id": "plain"}));
    let got = recorded(&host, BLOCKS, "wasmcloud:plain", 1);
    assert_eq!((&got["subject"], &got["body"]), (&json!("wasmcloud"), &json!(data)), "{got}");

    // One that is not taken comes again, and what the guest said stands in its log.
    for topic in ["wasi", "wasmcloud"] {
        send(&host, topic, "e", &json!({"id": "again", "do": "fail-once"}));
        recorded(&host, BLOCKS, &format!("{topic}:again"), 2);
        host.line(|line| line.contains(&format!("{topic}: message of topic {topic}: not yet")));
    }

    // Messages go out: from wasmCloud's interface to WASI's, and from there to dhow's.
    let last = json!({"id": "last"});
    let second = json!({"id": "second", "do": "forward", "to": "forwarded", "rest": last});
    send(&host, "wasmcloud", "e", &json!({"id": "first", "do": "forward", "to": "wasi", "rest": second}));
    recorded(&host, BLOCKS, "wasi:second", 1);
    let forwarded = eventually("the forwarded message", || {
        let keys = call(
            &host,
            BLOCKS,
            "/state/list-keys",
            &json!({"store": "shared", "prefix": "topic:", "limit": 10}),
        );
        let keys = keys["ok"]["keys"].as_array()?.iter().filter_map(Value::as_str);
        let key = keys.into_iter().find(|key| !key.ends_with("count") && *key != "topic:ready")?.to_owned();
        Some(recorded(&host, BLOCKS, &key, 1))
    });
    assert_eq!(
        (&forwarded["type"], &forwarded["source"]),
        (&json!("forwarded"), &json!("wasi")),
        "{forwarded}"
    );
    assert_eq!(forwarded["data"], last.to_string());

    // What cannot be done is refused by name.
    send(&host, "wasi", "e", &json!({"id": "r", "do": "refusals"}));
    let expected = json!([
        {
            "made": {"topic": null, "metadata": [["two", "2"]]},
            "connect": "connection", "send": "permission-denied", "no topic": "other",
            "request": "permission-denied", "reply": "other",
        },
        "connection",
    ]);
    assert_eq!(recorded(&host, BLOCKS, "wasi:refusals", 1), expected);
    send(&host, "wasmcloud", "e", &json!({"id": "r", "do": "refusals"}));
    let refusals = recorded(&host, BLOCKS, "wasmcloud:refusals", 1);
    for (what, text) in [
        ("request", "publish=pubsub/a"),
        ("unanswered", "support requests"),
        ("publish", "publish=pubsub/forbidden"),
    ] {
        assert!(refusals[what].as_str().unwrap().contains(text), "{what}: {refusals}");
    }

    // HTTP has no business with such an app.
    let answer = host.send("GET", "/", &[("host", "wasi.test")], b"");
    assert_eq!(answer.status, 404, "{answer:?}");
    host.stop();
}

#[test]
fn an_app_of_handlers_is_recognised() {
    let setting = Setting::new();
    for (module, flag, export) in [
        (
            "messaging-wasi",
            "--grant 'subscribe=pubsub/<topic>'",
            "wasi:messaging/incoming-handler@0.2.0-draft",
        ),
        ("messaging-wasmcloud", "--grant 'publish=pubsub/<topic>'", "wasmcloud:messaging/handler@0.2.0"),
    ] {
        let file = crate::support::guest(module);
        let ended = setting.run(&["inspect", &file.to_string_lossy()]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for text in ["event handlers", "to serve it", flag, export] {
            assert!(ended.out.contains(text), "{text}: {}", ended.out);
        }
        assert!(!ended.out.contains("does not provide"), "{}", ended.out);
    }
}
