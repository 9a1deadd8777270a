//! dhow:runtime: every function of every interface, happy and not, and what arrives as calls.

use crate::messaging::{BLOCKS, call, recorded, shared, subscription};
use crate::state::component;
use crate::support::{Host, Setting, eventually};
use serde_json::{Value, json};

const MANIFEST: &str = r#"
    [apps.blocks]
    module = `runtime-blocks`
    routes = ["/"]
    [apps.blocks.grants]
    state = ["*"]
    publish = ["pubsub"]
    subscribe = ["pubsub"]
    invoke = ["callee", "absent"]
    lock = ["*"]
    secrets = ["secretstore/open", "absent"]
    configuration = ["*"]
    bindings = ["files", "tick", "absent"]
    jobs = ["*"]
    [apps.callee]
    module = `runtime-blocks`
    hosts = ["callee.test"]
    [apps.none]
    module = `runtime-blocks`
    routes = ["/"]
    hosts = ["none.test"]
"#;

fn setting() -> Setting {
    let setting = Setting::with_manifest(MANIFEST);
    shared(&setting);
    setting.file("resources/memory.yaml", component("memory", "state.in-memory", &[]).as_bytes());
    setting.file(".dhow/secrets.json", br#"{"open": "sesame", "closed": "never"}"#);
    setting.file("settings.json", br#"{"greeting": "hello", "limit": {"value": "10", "version": "v2"}}"#);
    let settings = setting.path().join("settings.json");
    let settings = component(
        "settings",
        "configuration.local.file",
        &[("configurationFile", &settings.to_string_lossy())],
    );
    setting.file("resources/settings.yaml", settings.as_bytes());
    let files = setting.path().join("files");
    std::fs::create_dir(&files).unwrap();
    let files = component("files", "bindings.localstorage", &[("rootPath", &files.to_string_lossy())]);
    setting.file("resources/files.yaml", files.as_bytes());
    setting
}

#[test]
fn every_function_works() {
    let setting = setting();
    let host = setting.up(&[]);
    let ok = |function: &str, arguments: Value| -> Value {
        let answer = call(&host, BLOCKS, function, &arguments);
        answer.get("ok").unwrap_or_else(|| panic!("{function} {arguments}: {answer}")).clone()
    };
    for store in ["statestore", "memory"] {
        let with = |mut arguments: Value| {
            arguments["store"] = store.into();
            arguments
        };
        // Function, arguments, answer.
        let steps = [
            ("get", json!({"key": "a"}), Value::Null),
            ("set", json!({"key": "a", "value": "1"}), Value::Null),
            ("increment", json!({"key": "a", "delta": -3}), json!(-2)),
            ("set", json!({"key": "first", "value": "1", "first-write": true}), Value::Null),
            (
                "transact",
                json!({"operations": [{"key": "b", "value": "2"}, {"key": "first"}, {"key": "c", "value": "3"}]}),
                Value::Null,
            ),
            ("list-keys", json!({"limit": 2}), json!({"keys": ["a", "b"], "more": true})),
            ("list-keys", json!({"limit": 9, "after": "b"}), json!({"keys": ["c"], "more": false})),
            ("list-keys", json!({"limit": 9, "prefix": "b"}), json!({"keys": ["b"], "more": false})),
            ("delete", json!({"key": "c"}), Value::Null),
            ("delete", json!({"key": "c"}), Value::Null),
        ];
        for (function, arguments, expected) in steps {
            let answer = ok(&format!("/state/{function}"), with(arguments.clone()));
            assert_eq!(answer, expected, "{store} {function} {arguments}");
        }
        // Etags.
        let found = ok("/state/get", with(json!({"key": "b"})));
        assert_eq!((&found["value"], &found["expires"]), (&json!("2"), &json!(false)), "{store}");
        let etag = found["etag"].clone();
        assert_eq!(ok("/state/set", with(json!({"key": "b", "value": "4", "etag": etag}))), Value::Null);
        for (function, arguments) in [
            ("set", json!({"key": "b", "value": "5", "etag": etag})),
            ("set", json!({"key": "b", "value": "5", "first-write": true})),
            ("delete", json!({"key": "b", "etag": etag})),
            ("transact", json!({"operations": [{"key": "x", "value": "1"}, {"key": "b", "etag": etag}]})),
        ] {
            let answer = call(&host, BLOCKS, &format!("/state/{function}"), &with(arguments));
            assert_eq!(answer["error"], "conflict", "{store} {function}: {answer}");
        }
        let many = ok("/state/get-many", with(json!({"keys": ["b", "x"]})));
        assert_eq!((&many[0]["value"], &many[1]), (&json!("4"), &Value::Null), "{store}: {many}");
        // Time to live.
        ok("/state/set", with(json!({"key": "t", "value": "1", "ttl": 1000})));
        assert_eq!(ok("/state/get", with(json!({"key": "t"})))["expires"], true, "{store}");
    }
    let request = json!({
        "app": "callee", "method": "PUT", "path": "/echo?x=1", "headers": {"x-a": "b"}, "body": r#"{"n":1}"#,
    });
    let answer = ok("/invoke/call", request);
    assert_eq!(answer["status"], 200, "{answer}");
    let echo: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(echo, json!({"method": "PUT", "caller": "blocks", "body": {"n": 1}}));

    let take = |owner: &str| json!({"store": "lockstore", "resource": "r", "owner": owner, "expiry": 1000});
    assert_eq!(ok("/lock/try-lock", take("me")), true);
    assert_eq!(ok("/lock/try-lock", take("you")), false);
    for (owner, found) in
        [("you", "Unlocked::HeldByOther"), ("me", "Unlocked::Released"), ("me", "Unlocked::NotHeld")]
    {
        assert_eq!(ok("/lock/unlock", take(owner)), found, "{owner}");
    }

    assert_eq!(
        ok("/secrets/get", json!({"store": "secretstore", "name": "open"})),
        json!([["open", "sesame"]])
    );
    assert_eq!(
        ok("/secrets/get-all", json!({"store": "secretstore"})),
        json!([["open", [["open", "sesame"]]]])
    );

    let items = json!([["greeting", "hello", ""], ["limit", "10", "v2"]]);
    assert_eq!(ok("/configuration/get", json!({"store": "settings"})), items);
    let one = ok("/configuration/get", json!({"store": "settings", "keys": ["limit", "absent"]}));
    assert_eq!(one, json!([["limit", "10", "v2"]]));

    let file = |operation: &str| json!({"name": "files", "operation": operation, "data": "text!", "metadata": {"fileName": "f"}});
    ok("/binding/invoke", file("create"));
    assert_eq!(ok("/binding/invoke", file("get"))["data"], "text!");

    let job = json!({
        "name": "j", "schedule": "@daily", "due-time": "24h", "repeats": 3, "ttl": "48h", "data": r#"{"a":1}"#, "retries": 2,
    });
    assert_eq!(ok("/jobs/schedule", job.clone()), Value::Null);
    let found = ok("/jobs/get", json!({"name": "j"}));
    for field in ["name", "schedule", "due-time", "repeats", "ttl", "data"] {
        assert_eq!(found[field], job[field], "{field}: {found}");
    }
    assert_eq!(found["failure-policy"], json!([10, 2]), "{found}");
    assert_eq!(call(&host, BLOCKS, "/jobs/schedule", &job)["error"], "conflict");
    let mut over = job.clone();
    over["overwrite"] = true.into();
    assert_eq!(ok("/jobs/schedule", over), Value::Null);
    assert_eq!(ok("/jobs/delete", json!({"name": "j"})), Value::Null);
    assert_eq!(call(&host, BLOCKS, "/jobs/get", &json!({"name": "j"}))["error"], "not-found");
    host.stop();
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let setting = setting();
    let host = setting.up(&[]);
    // Host name of the app, function, arguments, error.
    let cases = [
        // Not granted.
        ("none.test", "/state/get", json!({"store": "statestore"}), "denied"),
        ("none.test", "/state/query", json!({"store": "statestore", "query": "{}"}), "denied"),
        ("none.test", "/pubsub/publish", json!({"pubsub": "pubsub", "topic": "t"}), "denied"),
        ("none.test", "/pubsub/publish-many", json!({"pubsub": "pubsub", "topic": "t"}), "denied"),
        ("none.test", "/invoke/call", json!({"app": "callee", "method": "GET", "path": "/"}), "denied"),
        (
            "none.test",
            "/lock/try-lock",
            json!({"store": "lockstore", "resource": "r", "owner": "o", "expiry": 1}),
            "denied",
        ),
        ("none.test", "/lock/unlock", json!({"store": "lockstore", "resource": "r", "owner": "o"}), "denied"),
        ("none.test", "/secrets/get", json!({"store": "secretstore", "name": "open"}), "denied"),
        ("none.test", "/secrets/get-all", json!({"store": "secretstore"}), "denied"),
        (BLOCKS, "/secrets/get", json!({"store": "secretstore", "name": "closed"}), "denied"),
        ("none.test", "/configuration/get", json!({"store": "settings"}), "denied"),
        ("none.test", "/binding/invoke", json!({"name": "files", "operation": "list"}), "denied"),
        ("none.test", "/jobs/schedule", json!({"name": "j", "due-time": "1h"}), "denied"),
        ("none.test", "/jobs/get", json!({"name": "j"}), "denied"),
        ("none.test", "/jobs/delete", json!({"name": "j"}), "denied"),
        // Not there.
        (BLOCKS, "/state/set", json!({"store": "absent", "key": "k"}), "not-found"),
        (BLOCKS, "/pubsub/publish", json!({"pubsub": "absent", "topic": "t"}), "not-found"),
        (BLOCKS, "/invoke/call", json!({"app": "absent", "method": "GET", "path": "/"}), "not-found"),
        (BLOCKS, "/lock/unlock", json!({"store": "absent", "resource": "r", "owner": "o"}), "not-found"),
        (BLOCKS, "/secrets/get", json!({"store": "absent", "name": "n"}), "not-found"),
        (BLOCKS, "/configuration/get", json!({"store": "absent"}), "not-found"),
        (BLOCKS, "/binding/invoke", json!({"name": "absent", "operation": "list"}), "not-found"),
        (BLOCKS, "/jobs/get", json!({"name": "absent"}), "not-found"),
        // Not possible: neither of these stores searches values.
        (BLOCKS, "/state/query", json!({"store": "statestore", "query": "{}"}), "unsupported"),
        (BLOCKS, "/state/query", json!({"store": "memory", "query": "{}"}), "unsupported"),
        // Not sensible.
        (BLOCKS, "/state/set", json!({"store": "memory", "key": "k", "ttl": 0}), "invalid"),
        (BLOCKS, "/state/set", json!({"store": "memory", "key": "k".repeat(5000)}), "invalid"),
        (BLOCKS, "/state/list-keys", json!({"store": "memory", "limit": 0}), "invalid"),
        (BLOCKS, "/state/query", json!({"store": "memory", "query": "no"}), "invalid"),
        (BLOCKS, "/pubsub/publish", json!({"pubsub": "pubsub", "topic": ""}), "invalid"),
        (
            BLOCKS,
            "/pubsub/publish",
            json!({"pubsub": "pubsub", "topic": "t", "metadata": {"ttlInSeconds": "x"}}),
            "invalid",
        ),
        (BLOCKS, "/invoke/call", json!({"app": "callee", "method": "GET", "path": "no"}), "invalid"),
        (BLOCKS, "/lock/try-lock", json!({"store": "lockstore", "resource": "r", "owner": "o"}), "invalid"),
        (BLOCKS, "/lock/try-lock", json!({"store": "lockstore", "resource": "r", "expiry": 1}), "invalid"),
        (BLOCKS, "/binding/invoke", json!({"name": "files", "operation": "fly"}), "invalid"),
        (BLOCKS, "/jobs/schedule", json!({"name": "j"}), "invalid"),
        (BLOCKS, "/jobs/schedule", json!({"name": "j", "due-time": "soon"}), "invalid"),
        (BLOCKS, "/jobs/schedule", json!({"name": "j", "due-time": "1h", "data": "{"}), "invalid"),
    ];
    for (name, function, arguments, error) in cases {
        let answer = call(&host, name, function, &arguments);
        assert_eq!(answer["error"], error, "{name} {function} {arguments}: {answer}");
        let text = answer["text"].as_str().unwrap();
        assert!(error != "denied" || text.contains("grant"), "{function}: {text}");
        assert!(!text.contains("never") && !text.contains("sesame"), "{text}");
    }
    host.stop();
}

fn publish(host: &Host, topic: &str, id: &str, data: &str) {
    let message = json!({
        "pubsub": "pubsub", "topic": topic, "data": data, "content-type": "application/json",
        "metadata": {"cloudevent.id": id},
    });
    assert_eq!(call(host, BLOCKS, "/pubsub/publish", &message), json!({"ok": null}));
}

#[test]
fn messages_jobs_and_binding_events_are_calls() {
    let setting = setting();
    for (topic, more) in [
        ("orders", "  deadLetterTopic: dead\n"),
        ("dead", ""),
        (
            "bulk",
            "  bulkSubscribe:\n    enabled: true\n    maxMessagesCount: 3\n    maxAwaitDurationMs: 200\n",
        ),
    ] {
        let resource = subscription("blocks", topic, more);
        setting.file(&format!("resources/{topic}.yaml"), resource.as_bytes());
    }
    let tick = component("tick", "bindings.cron", &[("schedule", "@every 1s"), ("direction", "input")]);
    setting.file("resources/tick.yaml", tick.as_bytes());
    let mut host = setting.up(&[]);
    for topic in ["orders", "dead", "bulk"] {
        eventually(topic, || {
            publish(&host, topic, &format!("ready-{topic}"), "0");
            let key = json!({"store": "shared", "key": format!("topic:ready-{topic}")});
            (!call(&host, BLOCKS, "/state/get", &key)["ok"].is_null()).then_some(())
        });
    }

    // A message, with all its attributes.
    publish(&host, "orders", "plain", r#"{"n": 12345678901234567890.5}"#);
    let got = recorded(&host, BLOCKS, "topic:plain", 1);
    for (field, value) in [
        ("type", "com.dapr.event.sent"),
        ("source", "blocks"),
        ("pubsub", "pubsub"),
        ("topic", "orders"),
        ("path", "/orders"),
        ("content-type", "application/json"),
        ("data", r#"{"n": 12345678901234567890.5}"#),
    ] {
        assert_eq!(got[field], value, "{field}: {got}");
    }
    assert!(got["attributes"].as_array().unwrap().contains(&json!("traceparent")), "{got}");

    // Not now, and not at all: the one comes by the dead-letter topic, because nothing else repeats it; the
    // other, too, because it is over.
    for (id, what) in [("again", "retry-once"), ("over", "drop"), ("broken", "trap")] {
        publish(&host, "orders", id, &json!({"do": what}).to_string());
        let got = recorded(&host, BLOCKS, &format!("topic:{id}"), 2);
        assert_eq!((&got["path"], &got["topic"]), (&json!("/dead"), &json!("orders")), "{id}: {got}");
    }
    host.line(|line| line.contains("message of topic orders: not yet"));
    host.line(|line| line.contains("message of topic orders: never"));

    // Several in one call; each has its own verdict.
    let messages: Vec<Value> = ["one", "two", "three"]
        .iter()
        .map(|id| {
            let data = json!({"do": if *id == "two" { "retry-once" } else { "" }}).to_string();
            let metadata = json!({"cloudevent.id": format!("bulk-{id}")});
            json!({"data": data, "content-type": "application/json", "metadata": metadata})
        })
        .collect();
    let bulk = json!({"pubsub": "pubsub", "topic": "bulk", "messages": messages});
    assert_eq!(call(&host, BLOCKS, "/pubsub/publish-many", &bulk), json!({"ok": [null, null, null]}));
    for (id, count) in [("one", 1), ("two", 2), ("three", 1)] {
        let got = recorded(&host, BLOCKS, &format!("topic:bulk-{id}"), count);
        assert_eq!(got["path"], "/bulk", "{got}");
    }

    // A job, which fails once.
    let data = json!({"do": "fail-once", "n": 1}).to_string();
    let job = json!({"name": "soon/now", "due-time": "1ms", "data": data, "retries": 3});
    assert_eq!(call(&host, BLOCKS, "/jobs/schedule", &job), json!({"ok": null}));
    let got = recorded(&host, BLOCKS, "job:soon/now", 2);
    let found: Value = serde_json::from_str(got["data"].as_str().unwrap()).unwrap();
    assert_eq!(
        (found, &got["content-type"]),
        (json!({"do": "fail-once", "n": 1}), &json!("application/json"))
    );
    host.line(|line| line.contains("job soon/now: not yet"));

    // The clock.
    eventually("a tick", || {
        let key = json!({"store": "shared", "key": "binding:tick"});
        (!call(&host, BLOCKS, "/state/get", &key)["ok"].is_null()).then_some(())
    });
    host.stop();
}
