//! wasi:keyvalue, wasi:config and wasi:logging, and how apps are kept apart.

use crate::support::{Host, Setting, eventually};
use serde_json::{Value, json};

const MANIFEST: &str = r#"
    [apps.one]
    module = `kv`
    routes = ["/"]
    hosts = ["one.test"]
    config = { color = "blue", empty = "" }
    grants = { state = ["*"] }
    [apps.two]
    module = `kv`
    routes = ["/"]
    hosts = ["two.test"]
    grants = { state = ["*"] }
    [apps.none]
    module = `kv`
    routes = ["/"]
    hosts = ["none.test"]
    [apps.some]
    module = `kv`
    routes = ["/"]
    hosts = ["some.test"]
    grants = { state = ["mem*"] }
    [apps.later]
    module = `kv-draft2`
    routes = ["/"]
    hosts = ["later.test"]
    config = { color = "blue" }
    grants = { state = ["*"] }
    [apps.later-none]
    module = `kv-draft2`
    routes = ["/"]
    hosts = ["later-none.test"]
"#;

/// A component of a state store, with these lines of metadata.
pub(crate) fn component(name: &str, kind: &str, metadata: &[(&str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: {name}\nspec:\n  type: {kind}\n  version: v1\n  metadata:\n"
    );
    for (name, value) in metadata {
        text.push_str(&format!("  - name: {name}\n    value: {value:?}\n"));
    }
    text
}

fn setting() -> Setting {
    let setting = Setting::with_manifest(MANIFEST);
    setting.file("resources/memory.yaml", component("memory", "state.in-memory", &[]).as_bytes());
    setting.file(
        "resources/memshared.yaml",
        component("memshared", "state.in-memory", &[("keyPrefix", "none")]).as_bytes(),
    );
    let file = setting.path().join("own.db");
    let sqlite = component("own", "state.sqlite", &[("connectionString", &file.to_string_lossy())]);
    setting.file("resources/own.yaml", sqlite.as_bytes());
    setting
}

fn ask(host: &Host, app: &str, target: &str, body: &str) -> (u16, Value) {
    let answer = host.send("POST", target, &[("host", &format!("{app}.test"))], body.as_bytes());
    (answer.status, answer.json())
}

#[test]
fn every_function_of_keyvalue_works_on_every_store() {
    let setting = setting();
    let host = setting.up(&[]);
    for store in ["statestore", "memory", "own"] {
        // Route and query, body, answer.
        let steps: [(&str, &str, Value); 17] = [
            ("/open?", "", Value::Null),
            ("/get?key=a", "", Value::Null),
            ("/exists?key=a", "", json!(false)),
            ("/set?key=a", "value of a", Value::Null),
            ("/get?key=a", "", json!("value of a")),
            ("/exists?key=a", "", json!(true)),
            ("/set?key=a", "", Value::Null),
            ("/get?key=a", "", json!("")),
            ("/increment?key=n&delta=5", "", json!(5)),
            ("/increment?key=n&delta=37", "", json!(42)),
            ("/get?key=n", "", json!("42")),
            ("/set-many?", r#"{"x": "1", "y": "2"}"#, Value::Null),
            ("/get-many?keys=x,absent,y", "", json!([["x", "1"], null, ["y", "2"]])),
            ("/keys?", "", json!({"keys": ["a", "n", "x", "y"], "pages": 1})),
            ("/delete-many?keys=x,y,absent", "", Value::Null),
            ("/delete?key=a", "", Value::Null),
            ("/keys?", "", json!({"keys": ["n"], "pages": 1})),
        ];
        for (target, body, expected) in steps {
            let answer = ask(&host, "one", &format!("{target}&store={store}"), body);
            assert_eq!(answer, (200, expected), "{store} {target}");
        }
        let (status, error) = ask(&host, "one", &format!("/set?key=word&store={store}"), "word");
        assert_eq!((status, error), (200, Value::Null));
        let (status, error) = ask(&host, "one", &format!("/increment?key=word&store={store}"), "");
        assert_eq!((status, &error["error"]), (500, &json!("other")), "{error}");
        assert!(error["text"].as_str().unwrap().contains("not an integer"), "{error}");

        let many: serde_json::Map<String, Value> =
            (0..2500).map(|n| (format!("k{n:04}"), json!("v"))).collect();
        assert_eq!(
            ask(&host, "two", &format!("/set-many?store={store}"), &Value::Object(many).to_string()).0,
            200
        );
        let (_, listed) = ask(&host, "two", &format!("/keys?store={store}"), "");
        assert_eq!(
            (listed["keys"].as_array().unwrap().len(), &listed["pages"]),
            (2500, &json!(3)),
            "{store}"
        );
    }
    host.stop();
}

#[test]
fn the_later_draft_of_keyvalue_works_on_every_store() {
    let setting = setting();
    let host = setting.up(&[]);
    for store in ["statestore", "memory", "own"] {
        // Route and query, body, answer.
        let steps: [(&str, &str, Value); 19] = [
            ("/open?", "", Value::Null),
            ("/get?key=a", "", Value::Null),
            ("/set?key=a", "1", Value::Null),
            ("/get?key=a", "", json!("1")),
            ("/exists?key=a", "", json!(true)),
            ("/increment?key=a&delta=-3", "", json!(-2)),
            ("/delete?key=a", "", Value::Null),
            ("/exists?key=a", "", json!(false)),
            ("/set-many?", r#"{"x": "1", "y": "2"}"#, Value::Null),
            ("/get-many?keys=x,absent,y", "", json!([["x", "1"], ["absent", null], ["y", "2"]])),
            ("/delete-many?keys=x,absent", "", Value::Null),
            ("/keys?", "", json!({"keys": ["y"], "pages": 1})),
            // Nobody comes between: of an absent key, and of one that is there.
            ("/swap?key=c", "first", json!({"current": null, "swapped": 1})),
            ("/swap?key=c", "second", json!({"current": "first", "swapped": 1})),
            // Somebody does, and the second try begins with what is there now.
            (
                "/swap?key=c&between=other",
                "third",
                json!({"current": "second", "newer": "other", "swapped": 2}),
            ),
            ("/get?key=c", "", json!("third")),
            ("/swap?key=new&between=other", "mine", json!({"current": null, "newer": "other", "swapped": 2})),
            ("/get?key=new", "", json!("mine")),
            ("/delete-many?keys=c,new,y", "", Value::Null),
        ];
        for (target, body, expected) in steps {
            let answer = ask(&host, "later", &format!("{target}&store={store}"), body);
            assert_eq!(answer, (200, expected), "{store} {target}");
        }
        let many: serde_json::Map<String, Value> =
            (0..2500).map(|n| (format!("k{n:04}"), json!("v"))).collect();
        let many = Value::Object(many).to_string();
        assert_eq!(ask(&host, "later", &format!("/set-many?store={store}"), &many).0, 200);
        let (_, listed) = ask(&host, "later", &format!("/keys?store={store}"), "");
        let count = listed["keys"].as_array().unwrap().len();
        assert_eq!((count, &listed["pages"]), (2500, &json!(3)), "{store}");
    }
    for (app, store, status, error) in [
        ("later-none", "statestore", 403, "access-denied"),
        ("later-none", "absent", 404, "no-such-store"),
        ("later", "absent", 404, "no-such-store"),
    ] {
        let (found, answer) = ask(&host, app, &format!("/swap?key=a&store={store}"), "");
        assert_eq!((found, &answer["error"]), (status, &json!(error)), "{app} {store}");
    }
    host.stop();
}

#[test]
fn configuration_has_every_name_that_it_ever_had() {
    let setting = setting();
    let host = setting.up(&[]);
    let all = json!([["color", "blue"]]);
    let expected = json!({"draft": "blue", "runtime": "blue", "dated": "blue", "all": [&all, &all, &all]});
    assert_eq!(ask(&host, "later", "/config?key=color", ""), (200, expected));
    let nothing = json!({"draft": null, "runtime": null, "dated": null, "all": [[], [], []]});
    assert_eq!(ask(&host, "later-none", "/config?key=color", ""), (200, nothing));
    host.stop();
}

#[test]
fn apps_are_kept_apart_unless_a_component_says_otherwise() {
    let setting = setting();
    let host = setting.up(&[]);
    for store in ["statestore", "memory", "own"] {
        assert_eq!(ask(&host, "one", &format!("/set?key=k&store={store}"), "of one").0, 200);
        assert_eq!(
            ask(&host, "two", &format!("/get?key=k&store={store}"), ""),
            (200, Value::Null),
            "{store}"
        );
        assert_eq!(ask(&host, "two", &format!("/set?key=k&store={store}"), "of two").0, 200);
        assert_eq!(
            ask(&host, "one", &format!("/get?key=k&store={store}"), ""),
            (200, json!("of one")),
            "{store}"
        );
        let keys = ask(&host, "two", &format!("/keys?store={store}"), "");
        assert_eq!(keys, (200, json!({"keys": ["k"], "pages": 1})), "{store}");
        // Nor does a key that imitates the prefix of the other app.
        assert_eq!(
            ask(&host, "two", &format!("/get?key=one||k&store={store}"), ""),
            (200, Value::Null),
            "{store}"
        );
    }
    // keyPrefix: none
    assert_eq!(ask(&host, "one", "/set?key=k&store=memshared", "for all").0, 200);
    assert_eq!(ask(&host, "two", "/get?key=k&store=memshared", ""), (200, json!("for all")));
    host.stop();
}

#[test]
fn what_is_not_granted_is_denied() {
    let setting = setting();
    let host = setting.up(&[]);
    // App, store, status, error.
    let cases = [
        ("none", "statestore", 403, json!("access-denied")),
        ("none", "memory", 403, json!("access-denied")),
        ("some", "statestore", 403, json!("access-denied")),
        ("some", "memory", 200, Value::Null),
        ("some", "memabsent", 404, json!("no-such-store")),
        ("one", "absent", 404, json!("no-such-store")),
        ("one", "default", 200, Value::Null),
    ];
    for (app, store, status, error) in cases {
        let (found, answer) = ask(&host, app, &format!("/open?store={store}"), "");
        assert_eq!((found, &answer["error"]), (status, &error), "{app} {store}");
    }
    host.stop();
}

#[test]
fn data_survive_a_restart_where_the_store_promises_it() {
    let setting = setting();
    let host = setting.up(&[]);
    for store in ["statestore", "own", "memory"] {
        assert_eq!(ask(&host, "one", &format!("/set?key=k&store={store}"), "kept").0, 200);
    }
    host.stop();
    assert!(setting.path().join(".dhow").is_dir() && setting.path().join("own.db").is_file());
    let host = setting.up(&[]);
    for (store, expected) in [("statestore", json!("kept")), ("own", json!("kept")), ("memory", Value::Null)]
    {
        assert_eq!(ask(&host, "one", &format!("/get?key=k&store={store}"), ""), (200, expected), "{store}");
    }
    host.stop();
}

#[test]
fn configuration_and_logging_reach_the_guest_and_the_operator() {
    let setting = setting();
    let mut host = setting.up(&["--log", "debug"]);
    let cases = [
        ("one", "/config?key=color", json!("blue")),
        ("one", "/config?key=empty", json!("")),
        ("one", "/config?key=absent", Value::Null),
        ("one", "/config-all", json!({"color": "blue", "empty": ""})),
        ("two", "/config?key=color", Value::Null),
        ("two", "/config-all", json!({})),
    ];
    for (app, target, expected) in cases {
        assert_eq!(ask(&host, app, target, ""), (200, expected), "{app} {target}");
    }
    for (level, shown) in
        [("debug", "DEBUG"), ("info", "INFO"), ("warn", "WARN"), ("error", "ERROR"), ("critical", "ERROR")]
    {
        assert_eq!(ask(&host, "two", &format!("/log?level={level}&message=said-{level}"), "").0, 200);
        host.line(|line| line.contains(&format!("{shown} two:")) && line.contains(&format!("said-{level}")));
    }
    let logs = eventually("the log", || {
        let logs = setting.run(&["logs", "two", "--json"]);
        (logs.out.lines().count() == 5).then_some(logs.out)
    });
    let first: Value = serde_json::from_str(logs.lines().next().unwrap()).unwrap();
    assert_eq!((&first["appId"], &first["stream"]), (&json!("two"), &json!("debug")), "{first}");
    host.stop();
}
