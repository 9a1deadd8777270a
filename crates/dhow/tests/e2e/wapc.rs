//! waPC modules: an actor of waSCC's kind, one made with Waxosuit's own crates, and one of the first Wascap ABI.

use crate::state::component;
use crate::support::{Host, Setting, eventually, guest};
use serde_json::{Value, json};
use std::io::{BufRead as _, Write as _};

const ACTORS: &str = r#"
    [apps.actor]
    module = `wapc-actor`
    routes = ["/"]
    grants = { state = ["*"], publish = ["pubsub"], subscribe = ["pubsub"], blob = ["files"], http = ["127.0.0.1"], invoke = ["shouter", "echo"] }
    [[apps.actor.bindings]]
    capability = "wascc:keyvalue"
    binding = "audit"
    component = "memory"
    [[apps.actor.bindings]]
    capability = "wascc:messaging"
    values = { SUBSCRIPTION = "orders, replies" }
    [[apps.actor.bindings]]
    capability = "actor"
    binding = "MSHOUTER"
    component = "shouter"

    [apps.shouter]
    module = `wapc-actor`
    routes = ["/shouter"]
    config = { operations = "shout, refuse" }
    grants = { state = ["statestore"] }

    [apps.closed]
    module = `wapc-actor`
    hosts = ["closed.test"]

    [apps.waxosuit]
    module = `wapc-waxosuit`
    hosts = ["waxosuit.test"]
    env = { NATS_SUBSCRIPTION = "orders" }
    grants = { state = ["statestore"], publish = ["pubsub"], subscribe = ["pubsub"] }

    [apps.wascap]
    module = `wapc-wascap`
    hosts = ["wascap.test"]
    env = { NATS_SUBSCRIPTION = "orders" }
    grants = { state = ["statestore"], publish = ["pubsub"], subscribe = ["pubsub"] }

    [apps.echo]
    module = `http-echo`
"#;

fn setting() -> Setting {
    let setting = Setting::with_manifest(ACTORS);
    let memory = component("memory", "state.in-memory", &[]);
    setting.file("resources/memory.yaml", memory.as_bytes());
    let files = setting.path().join("files");
    std::fs::create_dir_all(&files).unwrap();
    let files = component("files", "blob.local", &[("rootPath", files.to_str().unwrap())]);
    setting.file("resources/files.yaml", files.as_bytes());
    setting
}

/// What the actor gets for a call of its host.
fn call(host: &Host, what: &str, payload: &Value) -> Value {
    let answer = host.send("POST", &format!("/call/{what}"), &[], payload.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    answer.json()
}

/// What a module of the old kinds answers.
fn ask(host: &Host, name: &str, target: &str) -> String {
    let answer = host.send("GET", target, &[("host", name)], b"");
    assert_eq!(answer.status, 200, "{name}{target}: {}", answer.text());
    answer.text()
}

#[test]
fn an_actor_uses_every_capability() {
    let setting = setting();
    let host = setting.up(&[]);
    let kv = |operation: &str, payload: Value| call(&host, &format!("wascc:keyvalue/{operation}"), &payload);
    assert_eq!(kv("Get", json!({"key": "k"})), json!({"value": "", "exists": false}));
    assert_eq!(kv("Set", json!({"key": "k", "value": "v", "expires": 0})), json!({"value": "v"}));
    assert_eq!(kv("Get", json!({"key": "k"})), json!({"value": "v", "exists": true}));
    assert_eq!(kv("KeyExists", json!({"key": "k"}))["exists"], true);
    assert_eq!(kv("Del", json!({"key": "k"})), json!({"key": "k"}));
    assert_eq!(kv("KeyExists", json!({"key": "k"}))["exists"], false);
    assert_eq!(kv("Add", json!({"key": "n", "value": 5})), json!({"value": 5}));
    assert_eq!(kv("Add", json!({"key": "n", "value": -7})), json!({"value": -2}));
    for (value, count) in [("a", 1), ("b", 2), ("a", 3)] {
        assert_eq!(kv("Push", json!({"key": "l", "value": value})), json!({"newCount": count}));
    }
    assert_eq!(kv("Range", json!({"key": "l", "start": 0, "stop": -1})), json!({"values": ["a", "b", "a"]}));
    assert_eq!(kv("ListItemDelete", json!({"key": "l", "value": "a"})), json!({"newCount": 2}));
    assert_eq!(kv("Range", json!({"key": "l", "start": 0, "stop": 9})), json!({"values": ["b"]}));
    assert_eq!(kv("Clear", json!({"key": "l"})), json!({"newCount": 0}));
    assert_eq!(kv("KeyExists", json!({"key": "l"}))["exists"], false);
    for (key, value, count) in [("s", "x", 1), ("s", "x", 0), ("s", "y", 1), ("t", "y", 1), ("t", "z", 1)] {
        assert_eq!(
            kv("SetAdd", json!({"key": key, "value": value})),
            json!({"newCount": count}),
            "{key} {value}"
        );
    }
    assert_eq!(kv("SetQuery", json!({"key": "s"})), json!({"values": ["x", "y"]}));
    assert_eq!(kv("SetUnion", json!({"keys": ["s", "t"]})), json!({"values": ["x", "y", "z"]}));
    assert_eq!(kv("SetIntersection", json!({"keys": ["s", "t"]})), json!({"values": ["y"]}));
    assert_eq!(kv("SetRemove", json!({"key": "s", "value": "x"})), json!({"newCount": 1}));
    assert_eq!(kv("SetIntersection", json!({"keys": []})), json!({"values": []}));
    // Every spelling of the namespace; another binding is another store.
    for namespace in ["wascap:keyvalue", "wasmcloud:keyvalue"] {
        assert_eq!(call(&host, &format!("{namespace}/KeyExists"), &json!({"key": "n"}))["exists"], true);
    }
    let audited = call(&host, "wascc:keyvalue/KeyExists/audit", &json!({"key": "n"}));
    assert_eq!(audited["exists"], false);
    call(&host, "wascc:keyvalue/Add/audit", &json!({"key": "n", "value": 1}));
    assert_eq!(kv("Add", json!({"key": "n", "value": 0})), json!({"value": -2}));

    // Objects, in chunks.
    let blob =
        |operation: &str, payload: Value| call(&host, &format!("wasmcloud:blobstore/{operation}"), &payload);
    assert_eq!(blob("CreateContainer", json!({"id": "pictures"})), json!({"id": "pictures"}));
    let chunk = |number: u32, bytes: &[u8]| {
        json!({"sequenceNo": number, "container": "pictures", "id": "one", "totalBytes": 6, "chunkSize": 4,
            "context": null, "chunkBytes": bytes})
    };
    assert!(blob("UploadChunk", chunk(0, b"abcd"))["error"].as_str().unwrap().contains("StartUpload"));
    assert_eq!(blob("StartUpload", chunk(0, b"")), Value::Null);
    assert_eq!(blob("UploadChunk", chunk(0, b"abcd")), Value::Null);
    assert_eq!(blob("UploadChunk", chunk(1, b"ef")), Value::Null);
    let object = json!({"id": "one", "container": "pictures", "byteSize": 6});
    assert_eq!(blob("GetObjectInfo", json!({"id": "one", "container": "pictures", "byteSize": 0})), object);
    assert_eq!(blob("ListObjects", json!({"id": "pictures"})), json!({"blobs": [object]}));
    let download = json!({"id": "one", "container": "pictures", "chunkSize": 4, "context": null});
    assert_eq!(blob("StartDownload", download), Value::Null);
    let chunks = eventually("all chunks", || {
        let chunks = kv("Range", json!({"key": "chunks", "start": 0, "stop": -1}));
        (chunks["values"].as_array()?.len() == 2).then_some(chunks)
    });
    assert_eq!(chunks, json!({"values": ["1:ef", "0:abcd"]}));
    assert_eq!(
        blob("RemoveObject", json!({"id": "one", "container": "pictures", "byteSize": 0})),
        Value::Null
    );
    assert_eq!(blob("ListObjects", json!({"id": "pictures"})), json!({"blobs": []}));
    assert_eq!(blob("RemoveContainer", json!({"id": "pictures"})), Value::Null);

    // Streams of events.
    for n in ["1", "2"] {
        let event = json!({"eventId": "", "stream": "s", "values": {"n": n}});
        let written = call(&host, "wascc:eventstreams/WriteEvent", &event);
        assert!(written["eventId"].as_str().unwrap().contains('-'), "{written}");
    }
    let query = |count: u64, range: Value| {
        let query = json!({"streamId": "s", "count": count, "range": range});
        let found = call(&host, "wascc:eventstreams/QueryStream", &query);
        let events = found["events"].as_array().unwrap().clone();
        events.iter().map(|event| event["values"]["n"].as_str().unwrap().to_owned()).collect::<String>()
    };
    assert_eq!(query(0, Value::Null), "12");
    assert_eq!(query(1, Value::Null), "1");
    assert_eq!(query(0, json!({"minTime": 0, "maxTime": 1000})), "");
    assert_eq!(query(0, json!({"minTime": 1000, "maxTime": u64::MAX})), "12");

    // Numbers, and the log.
    let extras = |operation: &str, min: u32, max: u32| {
        let request = json!({"guid": false, "sequence": false, "random": false, "min": min, "max": max});
        call(&host, &format!("wascc:extras/{operation}"), &request)
    };
    assert_eq!(extras("RequestGuid", 0, 0)["guid"].as_str().unwrap().len(), 36);
    let first = extras("RequestSequence", 0, 0)["sequenceNumber"].as_u64().unwrap();
    assert_eq!(extras("RequestSequence", 0, 0)["sequenceNumber"], first + 1);
    assert_eq!(extras("RequestRandom", 7, 7)["randomNumber"], 7);
    assert!(extras("RequestRandom", 8, 7)["error"].is_string());
    assert_eq!(call(&host, "wascc:logging/WriteLog", &json!({"level": 2, "body": "beware"})), Value::Null);

    // Other servers, and other apps.
    let address = host.addr;
    let request = |path: String| json!({"method": "GET", "path": path, "queryString": "q=1", "header": {"x-one": "1"}, "body": []});
    let answer = call(&host, "wascc:http_client/PerformRequest", &request(format!("http://{address}/there")));
    assert_eq!((&answer["statusCode"], &answer["header"]["x-actor"]), (&json!(200), &json!("yes")));
    let came: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&came["path"], &came["queryString"], &came["header"]["x-one"]),
        (&json!("/there"), &json!("q=1"), &json!("1"))
    );
    let refused = call(&host, "wascc:http_client/PerformRequest", &request("http://example.com/".to_owned()));
    assert!(refused["error"].as_str().unwrap().contains("grant"), "{refused}");
    for name in ["shouter", "MSHOUTER"] {
        assert_eq!(
            call(&host, &format!("{name}/shout"), &json!("loud")),
            json!("\u{a4}LOUD".replace('\u{a4}', "\u{fffd}"))
        );
    }
    assert!(
        call(&host, "shouter/refuse", &Value::Null)["error"].as_str().unwrap().contains("does not want to")
    );
    assert!(call(&host, "shouter/nothing", &Value::Null)["error"].as_str().unwrap().contains("No handler"));
    let said = host.stop();
    assert!(said.contains("beware") && said.contains("ready"), "{said}");
}

#[test]
fn what_cannot_be_answered_is_an_error_of_the_call() {
    let setting = setting();
    let host = setting.up(&[]);
    for (what, payload, expected) in [
        ("wascc:keyvalue/Nothing", json!({}), "has no operation \"Nothing\"; it has Add, Clear"),
        ("wascc:keyvalue/Get/other", json!({"key": "k"}), "no binding \"other\" of keyvalue (audit)"),
        ("wascc:graphdb/Query", json!({}), "is no capability that dhow has"),
        ("nobody/Query", json!({}), "nobody"),
        (
            "wascc:messaging/Request",
            json!({"subject": "s", "body": [], "timeout": 1}),
            "does not support requests",
        ),
        ("wascc:messaging/Publish", json!({"subject": "", "replyTo": "", "body": []}), "topic is empty"),
        ("wascc:http_server/HandleRequest", json!({}), "cannot ask its HTTP server"),
        ("wascc:keyvalue/Push", json!({"key": 5}), "payload is no keyvalue.ListPushRequest"),
        ("wascc:http_client/PerformRequest", json!({"method": "GET", "path": "/x"}), "no URL"),
        ("wascc:http_server/PerformLiveUpdate", json!({"newModule": [0]}), "not granted: update"),
        ("wascc:blobstore/ListObjects", json!({"id": "../.."}), ""),
    ] {
        let error =
            call(&host, what, &payload)["error"].as_str().unwrap_or_else(|| panic!("{what}")).to_owned();
        assert!(error.contains(expected), "{what}: {error}");
    }
    call(&host, "wascc:keyvalue/Set", &json!({"key": "plain", "value": "text", "expires": 0}));
    let error = call(&host, "wascc:keyvalue/Push", &json!({"key": "plain", "value": "x"}));
    assert!(error["error"].as_str().unwrap().contains("no list"), "{error}");

    // Without grants: the same errors as any app, and the module lives.
    let closed = |path: &str, payload: Value| {
        host.send("POST", path, &[("host", "closed.test")], payload.to_string().as_bytes()).json()
    };
    for (path, payload, expected) in [
        ("/call/wascc:keyvalue/Get", json!({"key": "k"}), "not granted: state"),
        (
            "/call/wascc:messaging/Publish",
            json!({"subject": "s", "replyTo": "", "body": []}),
            "not granted: publish",
        ),
        ("/call/wascc:eventstreams/QueryStream", json!({"streamId": "s", "count": 1}), "not granted: state"),
        ("/call/wascc:blobstore/ListObjects", json!({"id": "c"}), "not granted: blob"),
        ("/call/shouter/shout", json!("x"), "no grant to invoke"),
    ] {
        let answer = closed(path, payload);
        assert!(answer["error"].as_str().unwrap().contains(expected), "{path}: {answer}");
    }
    for (path, status) in [("/panic", 500), ("/error", 500), ("/teapot", 418), ("/", 200)] {
        assert_eq!(host.get(path).status, status, "{path}");
    }
    host.stop();
}

#[test]
fn a_capability_is_bound_while_the_host_runs() {
    let setting = setting();
    let host = setting.up(&[]);
    let exists = |binding: &str| {
        let what = format!("wascc:keyvalue/KeyExists{binding}");
        call(&host, &what, &json!({"key": "bound"}))["exists"].as_bool().unwrap()
    };
    let set = json!({"key": "bound", "value": "v", "expires": 0});
    let bound = setting.run(&["bind", "actor", "wascc:keyvalue", "default=memory"]);
    assert_eq!(bound.code, Some(0), "{bound:?}");
    call(&host, "wascc:keyvalue/Set", &set);
    assert!(exists("") && exists("/audit"), "both lead to the memory");
    assert_eq!(setting.run(&["unbind", "actor", "wascc:keyvalue", "default"]).code, Some(0));
    assert!(!exists("") && exists("/audit"));
    host.stop();
}

#[test]
fn requests_come_whole_and_instances_are_kept() {
    let setting = setting();
    let host = setting.up(&[]);
    let answer = host.send("PUT", "/a%20b/c?d=e&f", &[("x-one", "1"), ("X-One", "2")], b"text");
    assert_eq!((answer.status, answer.header("x-actor")), (200, Some("yes")));
    let came = answer.json();
    assert_eq!(came["method"], "PUT");
    assert_eq!((&came["path"], &came["queryString"]), (&json!("/a%20b/c"), &json!("d=e&f")));
    assert_eq!((&came["header"]["x-one"], &came["body"]), (&json!("1, 2"), &json!("text")));
    // One after the other goes to the same instance.
    let first = host.get("/alive").json().as_u64().unwrap();
    assert_eq!(host.get("/alive").json(), first + 1);
    // Operations by HTTP, where the configuration opens them.
    assert_eq!(host.send("POST", "/shouter/shout", &[], b"loud").status, 200);
    let shouter = Setting::new().serve(&guest("wapc-actor"), &[]);
    assert!(shouter.send("POST", "/shout", &[], b"loud").text().contains("\"path\":\"/shout\""));
    shouter.stop();
    host.stop();
}

#[test]
fn modules_of_all_times_take_messages_and_use_one_store() {
    let setting = setting();
    let mut host = setting.up(&[]);
    for (name, kind) in [("waxosuit.test", "waxosuit"), ("wascap.test", "wascap")] {
        let answer = host.send("POST", "/x/y/z?q", &[("host", name)], b"body");
        assert_eq!((answer.text().as_str(), answer.header("x-actor")), ("POST /x/y/z q body", Some(kind)));
        for (target, expected) in [
            ("/get/k", "None"),
            ("/set/k/v", "done"),
            ("/get/k", "Some(\"v\")"),
            ("/add/n/5", "5"),
            ("/add/n/2", "7"),
            ("/push/l/a", "1"),
            ("/push/l/b", "2"),
            ("/range/l", "b,a"),
        ] {
            assert_eq!(ask(&host, name, target), expected, "{name}{target}");
        }
    }
    for (target, expected) in [
        ("/remove/l/a", "1"),
        ("/clear/l", "done"),
        ("/exists/l", "false"),
        ("/set-add/s/x", "1"),
        ("/set-add/t/x", "1"),
        ("/set-add/t/y", "1"),
        ("/members/t", "x,y"),
        ("/union/s/t", "x,y"),
        ("/intersect/s/t", "x"),
        ("/set-remove/t/y", "1"),
        ("/del/k", "done"),
    ] {
        assert_eq!(ask(&host, "waxosuit.test", target), expected, "{target}");
    }
    for (name, target, expected) in [
        ("waxosuit.test", "/raw/wascap:keyvalue~Nothing", "has no operation"),
        ("waxosuit.test", "/raw/wascap:graph~Get", "is no capability"),
        ("waxosuit.test", "/request/s", "does not support requests"),
        ("wascap.test", "/unknown", "is not known"),
    ] {
        let text = ask(&host, name, target);
        assert!(text.starts_with("error: ") && text.contains(expected), "{name}{target}: {text}");
    }
    assert_eq!(host.send("GET", "/throw", &[("host", "wascap.test")], b"").status, 500);
    assert_eq!(ask(&host, "wascap.test", "/get/n"), "Some(\"7\")");

    // A message goes to whoever subscribes, in the form of each.
    eventually("messages", || {
        let sent = call(
            &host,
            "wascc:messaging/Publish",
            &json!({"subject": "orders", "replyTo": "replies", "body": b"one"}),
        );
        assert_eq!(sent, Value::Null);
        let actor = call(&host, "wascc:keyvalue/Range", &json!({"key": "messages", "start": 0, "stop": -1}));
        let mine = actor["values"].as_array()?.iter().any(|text| text == "orders one");
        let answered = actor["values"].as_array()?.iter().any(|text| text == "replies orders one");
        let others = ["waxosuit.test", "wascap.test"].iter();
        let theirs = others.filter(|name| ask(&host, name, "/range/messages").contains("orders one")).count();
        (mine && answered && theirs == 2).then_some(())
    });
    // What one of them refuses comes again.
    let refuse = json!({"subject": "orders", "replyTo": "", "body": b"refuse"});
    call(&host, "wascc:messaging/Publish", &refuse);
    host.line(|line| line.contains("message of orders: refused"));
    host.stop();
}

#[test]
fn plain_values_are_what_others_see_in_redis_and_messages_go_over_nats() {
    let redis = dhow_servers::redis().unwrap();
    let nats = dhow_servers::nats().unwrap();
    let setting = Setting::with_manifest(
        r#"
        [apps.actor]
        module = `wapc-actor`
        routes = ["/"]
        grants = { state = ["redis"], publish = ["nats", "core"], subscribe = ["nats", "core"] }
        [[apps.actor.bindings]]
        capability = "keyvalue"
        component = "redis"
        [[apps.actor.bindings]]
        capability = "messaging"
        component = "nats"
        values = { SUBSCRIPTION = "orders" }
        [[apps.actor.bindings]]
        capability = "messaging"
        binding = "core"
        component = "core"
        values = { SUBSCRIPTION = "asked" }
        "#,
    );
    let store = component("redis", "state.redis", &[("redisHost", &redis.address()), ("keyPrefix", "none")]);
    setting.file("resources/redis.yaml", store.as_bytes());
    let url = format!("nats://{}", nats.address());
    let broker = component("nats", "pubsub.jetstream", &[("natsURL", &url)]);
    setting.file("resources/nats.yaml", broker.as_bytes());
    let broker = component("core", "pubsub.nats", &[("natsURL", &url)]);
    setting.file("resources/core.yaml", broker.as_bytes());
    let host = setting.up(&[]);
    let kv =
        |operation: &str, payload: Value| call(&host, &format!("wasmcloud:keyvalue/{operation}"), &payload);
    kv("Set", json!({"key": "name", "value": "Ada", "expires": 0}));
    kv("Push", json!({"key": "list", "value": "one"}));
    for (key, expected) in [("name", "Ada"), ("list", "[\"one\"]")] {
        let answer = host.dapr("GET", &format!("/v1.0/state/redis/{key}"), &[], "");
        assert_eq!((answer.status, answer.text().as_str()), (200, expected));
    }
    // Many at once: no item is lost.
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let kv = &kv;
            scope.spawn(move || {
                for number in 0..10 {
                    let pushed = kv("Push", json!({"key": "many", "value": format!("{worker}-{number}")}));
                    assert!(pushed["newCount"].is_number(), "{pushed}");
                    kv("Add", json!({"key": "sum", "value": 1}));
                }
            });
        }
    });
    let many = kv("Range", json!({"key": "many", "start": 0, "stop": -1}));
    assert_eq!(many["values"].as_array().unwrap().len(), 40);
    assert_eq!(host.dapr("GET", "/v1.0/state/redis/sum", &[], "").text(), "40");
    eventually("a message", || {
        call(&host, "wascc:messaging/Publish", &json!({"subject": "orders", "replyTo": "", "body": b"hi"}));
        let found = kv("Range", json!({"key": "messages", "start": 0, "stop": 0}));
        (found["values"] == json!(["orders hi"])).then_some(())
    });
    // A program that knows nothing of dhow asks and is asked.
    let mut client = NatsClient::connect(nats.address());
    client.say("SUB time 1\r\n");
    let asked = std::thread::spawn(move || {
        let (reply_to, question) = client.message();
        assert_eq!(question, "when?");
        client.say(&format!("PUB {reply_to} 3\r\nnow\r\nPUB asked answers 2\r\nho\r\n"));
    });
    let answer = eventually("an answer", || {
        let question = json!({"subject": "time", "body": b"when?", "timeout": 5000});
        let answer = call(&host, "wasmcloud:messaging/Request/core", &question);
        answer["body"].is_string().then_some(answer)
    });
    assert_eq!(answer["body"], "now", "{answer}");
    asked.join().unwrap();
    eventually("what was published", || {
        let found = kv("Range", json!({"key": "messages", "start": 0, "stop": 0}));
        (found["values"] == json!(["asked ho"])).then_some(())
    });
    host.stop();
}

/// A client of NATS, as its protocol goes (<https://docs.nats.io/reference/reference-protocols/nats-protocol>).
struct NatsClient(std::io::BufReader<std::net::TcpStream>);

impl NatsClient {
    fn connect(address: impl std::net::ToSocketAddrs) -> NatsClient {
        let stream = std::net::TcpStream::connect(address).unwrap();
        let mut client = NatsClient(std::io::BufReader::new(stream));
        client.say("CONNECT {\"verbose\":false}\r\nPING\r\n");
        while client.line() != "PONG" {}
        client
    }

    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the server went away");
        line.trim_end().to_owned()
    }

    /// The next message with a subject for its answer: that, and the text.
    fn message(&mut self) -> (String, String) {
        loop {
            let line = self.line();
            if let ["MSG", _, _, reply_to, _] = line.split(' ').collect::<Vec<_>>()[..] {
                return (reply_to.to_owned(), self.line());
            }
        }
    }
}

#[test]
fn a_manifest_of_wascc_starts_its_actors() {
    let redis = dhow_servers::redis().unwrap();
    let setting = Setting::new().env("REDIS", &redis.address());
    for name in ["counter", "listener"] {
        std::fs::copy(guest("wapc-actor"), setting.path().join(format!("{name}.wasm"))).unwrap();
    }
    // The key of the actor is the one that its token names.
    let signed =
        setting.run(&["sign", "counter.wasm", "--cap", "wascc:keyvalue", "--cap", "wascc:http_server"]);
    assert_eq!(signed.code, Some(0), "{}", signed.err);
    let said = format!("{}{}", signed.out, signed.err);
    let key = said.split_whitespace().find(|word| word.len() == 56 && word.starts_with('M'));
    let key = key.unwrap_or_else(|| panic!("no key: {said}"));
    let port = dhow_servers::free_port().unwrap();
    let manifest = format!(
        r#"
labels: {{ region: here }}
actors:
    - ./counter.wasm
    - listener.wasm
capabilities:
    - ./examples/.assets/libredis_provider.so
    - path: ./examples/.assets/libwascc_httpsrv.so
      binding_name: default
bindings:
    - actor: "{key}"
      capability: "wascc:keyvalue"
      values:
        URL: redis://${{REDIS:127.0.0.1:6379}}
    - actor: "{key}"
      capability: "wascc:http_server"
      values:
        PORT: "{port}"
    - actor: listener
      capability: "wascc:http_server"
    - actor: listener
      capability: "wascc:keyvalue"
      values: {{ URL: "redis://${{REDIS}}" }}
    - actor: listener
      capability: "wascc:messaging"
      values: {{ SUBSCRIPTION: "orders" }}
"#
    );
    setting.file("host.yaml", manifest.as_bytes());
    let host = setting.up(&["-f", "host.yaml"]);
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    for expected in ["{\"value\":1}", "{\"value\":2}"] {
        assert_eq!(crate::support::http::get(at, "/count").text(), expected);
    }
    // The other one counts in the same database, at the address of all apps.
    assert_eq!(host.get("/count").text(), "{\"value\":3}");
    // Others call an actor by its key.
    assert_eq!(call(&host, &format!("{key}/shout"), &json!(1)), json!("\u{1}"));
    eventually("a message", || {
        call(&host, "wascc:messaging/Publish", &json!({"subject": "orders", "replyTo": "", "body": b"hi"}));
        let found = call(&host, "wascc:keyvalue/Range", &json!({"key": "messages", "start": 0, "stop": 0}));
        (found["values"] == json!(["orders hi"])).then_some(())
    });
    host.stop();
    for (text, expected) in [
        ("actors: [missing.wasm]", "host.yaml:1:10: actors: \"missing.wasm\" is no file"),
        (
            "actors: [counter.wasm]\nbindings: [{actor: MX, capability: wascc:keyvalue}]",
            "there is no actor `MX`",
        ),
        ("actors: [counter.wasm]\nlabel: {}", "did you mean `labels`?"),
    ] {
        setting.file("host.yaml", text.as_bytes());
        let ended = setting.up_fails(&["-f", "host.yaml"]);
        assert!(ended.err.contains(expected) && ended.code != Some(0), "{text}: {}", ended.err);
    }
}
