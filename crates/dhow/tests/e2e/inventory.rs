//! Functions made for Layotto, with its configuration and its management.

use crate::support::http::{self, Response};
use crate::support::{Host, Setting, eventually, guest};
use dhow_servers::Process;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// What a function declares, without any SDK: its id, and what it answers.
fn declares(id: &str, answer: &str) -> String {
    let text = |text: &str| text.bytes().map(|byte| format!("\\{byte:02x}")).collect::<String>();
    format!(
        r#"(module
  (import "env" "proxy_set_buffer_bytes"
    (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "{}") (data (i32.const 256) "{}")
  (func (export "proxy_abi_version_0_2_0"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_get_id")
    (drop (call $set (i32.const 8) (i32.const 0) (i32.const {id_len}) (i32.const 0) (i32.const {id_len}))))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $set (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 256) (i32.const {len})))
    (i32.const 0)))"#,
        text(id),
        text(answer),
        id_len = id.len(),
        len = answer.len()
    )
}

/// A configuration with these functions, a state store, and all listeners at ports of the system's choice.
fn configuration(functions: &Value, redis: &str) -> String {
    let state =
        json!({ "state_demo": { "type": "redis", "metadata": { "redisHost": redis, "redisPassword": "" } } });
    let runtime = json!({ "server_name": "runtime", "grpc_config": { "state": state } });
    let filters = json!([{ "filters": [{ "type": "grpc", "config": runtime }] }]);
    let at = "127.0.0.1:0";
    json!({ "servers": [{ "default_log_path": "stdout", "listeners": [
        { "name": "grpc", "address": at, "bind_port": true, "filter_chains": filters },
        { "name": "wasm", "address": at, "bind_port": true,
          "stream_filters": [{ "type": "Layotto", "config": functions }] },
        { "name": "management", "address": at, "stream_filters": [{ "type": "wasm_filter" }] },
        { "name": "actuator", "address": at, "stream_filters": [{ "type": "actuator_filter" }] },
    ] }] })
    .to_string()
}

/// The pair of the example, and what it asks.
fn inventory() -> (Setting, Process) {
    let redis = dhow_servers::redis().unwrap();
    let setting = Setting::new();
    for name in ["client", "server"] {
        setting.file(&format!("{name}.wasm"), &fs::read(guest(&format!("inventory-{name}"))).unwrap());
    }
    let function =
        |path: &str| json!({ "instance_num": 1, "vm_config": { "engine": "wasmtime", "path": path } });
    let functions = json!({ "function1": function("client.wasm"), "function2": function("./server.wasm") });
    setting.file("config.json", configuration(&functions, &redis.address()).as_bytes());
    (setting, redis)
}

/// Sends a command as `redis-cli` does.
fn tell(redis: &Process, command: &str) {
    let mut stream = TcpStream::connect(redis.address()).unwrap();
    stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    assert_eq!(answer, "+OK\r\n");
}

fn call(host: &Host, id: &str, target: &str) -> (u16, String) {
    let answer = host.send("GET", target, &[("id", id)], b"");
    (answer.status, answer.text())
}

fn manage(host: &Host, path: &str, body: &Value) -> Response {
    http::send(host.management.unwrap(), "POST", path, &[], body.to_string().as_bytes())
}

fn failure(answer: &Response) -> (u16, String) {
    (answer.status, answer.json()["error"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn the_pair_tells_what_redis_knows() {
    let (setting, redis) = inventory();
    tell(&redis, "set book1 100");
    let host = setting.layotto(&["start", "-c", "config.json"]);
    assert_eq!(call(&host, "id_1", "/?name=book1"), (200, "There are 100 inventories for book1.".into()));
    assert_eq!(call(&host, "id_1", "/?name=nope"), (200, "There are  inventories for nope.".into()));
    // The body is taken before the query.
    let answer = host.send("POST", "/x?name=nope", &[("id", "id_1")], b"name=book1");
    assert_eq!(answer.text(), "There are 100 inventories for book1.");
    let answer = host.send("POST", "/", &[("id", "id_2")], b"book1");
    assert_eq!((answer.status, answer.text().as_str()), (200, "100"));

    // What is no success does not look like one.
    assert_eq!(call(&host, "id_1", "/").0, 400, "the function's own answer");
    assert_eq!(call(&host, "id_9", "/"), (404, "no function has the id \"id_9\"\n".into()));
    assert!(call(&host, "function1", "/").1.contains("no function"), "only ids count");
    let nobody = host.get("/?name=book1");
    assert_eq!(nobody.status, 404);
    assert!(nobody.text().contains("header `id`"), "{}", nobody.text());
    let said = host.stop();
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn functions_are_installed_updated_and_removed() {
    let (setting, redis) = inventory();
    tell(&redis, "set book1 100");
    let host = setting.layotto(&["start", "-c", "config.json"]);
    let answer = "There are 100 inventories for book1.";
    let ask = || call(&host, "id_1", "/?name=book1");
    let install = |name: &str, path: &str| json!({ "name": name, "instance_num": 1, "vm_config": { "engine": "wasmtime", "path": path } });
    for (path, body, error) in [
        ("/wasm/install", install("id_1", "client.wasm"), "id_1 is already registered"),
        ("/wasm/install", json!({ "vm_config": { "path": "client.wasm" } }), "can't get name property"),
        ("/wasm/install", json!({ "name": "id_3" }), "nil vm config"),
        ("/wasm/install", install("id_3", "absent.wasm"), "absent.wasm does not exist"),
        ("/wasm/install", install("id_3", "config.json"), "is not WebAssembly"),
        ("/wasm/install", install("id_3", "client.wasm"), "declares the id \"id_1\", not \"id_3\""),
        ("/wasm/install", install("../x", "client.wasm"), "is no name of a function"),
        ("/wasm/update", json!({ "name": "id_1" }), "can't get instance_num property"),
        (
            "/wasm/update",
            json!({ "name": "id_1", "instance_num": 0 }),
            "instance_num should be greater than 0",
        ),
        ("/wasm/update", json!({ "name": "id_3", "instance_num": 1 }), "id_3 is not registered"),
        ("/wasm/update", json!({ "instance_num": 1 }), "can't get name property"),
        ("/wasm/uninstall", json!({ "name": "id_3" }), "id_3 is not registered"),
        ("/wasm/uninstall", json!({}), "can't get name property"),
        ("/wasm/uninstall", json!("no map"), "can't get name property"),
    ] {
        let (status, text) = failure(&manage(&host, path, &body));
        assert!(status == 500 && text.contains(error), "{path} {body}: {status} {text}");
    }
    assert_eq!(ask(), (200, answer.into()), "nothing of that changed anything");
    assert_eq!(failure(&manage(&host, "/wasm/other", &json!({}))).0, 404);
    assert_eq!(failure(&manage(&host, "/", &json!({}))).0, 404);

    let done = |path: &str, body: Value| {
        let answer = manage(&host, path, &body);
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    };
    done("/wasm/uninstall", json!({ "name": "id_1" }));
    assert_eq!(ask().0, 404);
    done("/wasm/install", install("id_1", "client.wasm"));
    assert_eq!(ask(), (200, answer.into()));
    done("/wasm/update", json!({ "name": "id_1", "instance_num": 2 }));
    assert_eq!(ask(), (200, answer.into()));

    let list = http::get(host.management.unwrap(), "/wasm/list").json();
    let shown: Vec<String> = list["functions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| format!("{} {} {} {}", f["name"], f["id"], f["instance_num"], f["version"]))
        .collect();
    assert_eq!(shown, [r#""function2" "id_2" 1 1"#, r#""id_1" "id_1" 2 1"#]);
    host.stop();
}

#[test]
fn what_was_installed_is_there_after_a_restart() {
    let redis = dhow_servers::redis().unwrap();
    let setting = Setting::new();
    for (id, answer) in [("one", "1"), ("two", "2"), ("three", "3")] {
        setting.file(&format!("{id}.wat"), declares(id, answer).as_bytes());
    }
    let configured = json!({ "function1": { "vm_config": { "path": "one.wat" } } });
    setting.file("config.json", configuration(&configured, &redis.address()).as_bytes());
    let start = || setting.layotto(&["start", "-c", "config.json"]);
    let install = |name: &str| json!({ "name": name, "vm_config": { "path": format!("{name}.wat") } });
    let answers = |host: &Host| ["one", "two", "three"].map(|id| call(host, id, "/").0);
    let host = start();
    for body in [install("two"), install("three")] {
        assert_eq!(manage(&host, "/wasm/install", &body).status, 200);
    }
    assert_eq!(manage(&host, "/wasm/update", &json!({ "name": "two", "instance_num": 7 })).status, 200);
    // Killed, so that nothing can be written at the end.
    host.kill();

    let host = start();
    assert_eq!(answers(&host), [200, 200, 200]);
    let list = http::get(host.management.unwrap(), "/wasm/list").json();
    let two =
        list["functions"].as_array().unwrap().iter().find(|function| function["name"] == "two").unwrap();
    assert_eq!(two["instance_num"], 7);
    assert_eq!(manage(&host, "/wasm/uninstall", &json!({ "name": "three" })).status, 200);
    host.stop();

    // What the configuration has by now is the configuration's; what is not there is waited for.
    let configured = json!({ "function1": { "vm_config": { "path": "one.wat" } }, "two": { "vm_config": { "path": "two.wat" } } });
    setting.file("config.json", configuration(&configured, &redis.address()).as_bytes());
    let host = start();
    assert_eq!(answers(&host), [200, 200, 404]);
    let said = host.stop();
    assert!(said.contains("not installed again: the configuration has it"), "{said}");
}

#[test]
fn modules_are_uploaded() {
    let setting = Setting::new().env("DHOW_FUNCTIONS_TOKEN", "open sesame");
    setting.file(
        "config.json",
        configuration(&json!({}), "127.0.0.1:1").replace("redis\"", "in-memory\"").as_bytes(),
    );
    let host = setting.layotto(&["start", "-c", "config.json"]);
    let management = host.management.unwrap();
    let token = ("authorization", "Bearer open sesame");
    let first = declares("greet", "hello").into_bytes();
    let upload = |name: &str, body: &[u8]| {
        http::send(management, "PUT", &format!("/wasm/upload?name={name}"), &[token], body)
    };

    for headers in [&[][..], &[("authorization", "Bearer open")], &[("authorization", "open sesame")]] {
        let refused = http::send(management, "PUT", "/wasm/upload?name=greet", headers, &first);
        assert_eq!(failure(&refused).0, 401, "{headers:?}");
    }
    let from_a_page =
        http::send(management, "POST", "/wasm/list", &[token, ("origin", "http://evil.test")], b"");
    assert_eq!(failure(&from_a_page).0, 403);
    assert_eq!(failure(&upload("greet", b"no module")).0, 400);
    assert_eq!(failure(&upload("..%2Fgreet", &first)).0, 400);
    assert_eq!(failure(&http::send(management, "PUT", "/wasm/upload", &[token], &first)).0, 400);
    assert_eq!(failure(&upload("greet", &vec![0; (64 << 20) + 1])).0, 413);

    let kept = upload("greet", &first).json();
    assert!(kept["path"].as_str().unwrap().ends_with(".dhow/functions/greet.wasm"), "{kept}");
    let install = json!({ "name": "greet", "vm_config": { "path": kept["path"] } }).to_string();
    assert_eq!(http::send(management, "POST", "/wasm/install", &[token], install.as_bytes()).status, 200);
    assert_eq!(call(&host, "greet", "/"), (200, "hello".into()));
    assert_eq!(upload("greet", declares("greet", "good day").as_bytes()).status, 200);
    eventually("the new version", || (call(&host, "greet", "/").1 == "good day").then_some(()));
    host.stop();
}

#[test]
fn modules_of_one_id_share_its_requests() {
    let setting = Setting::new();
    let function = |name: &str, weight: u32| json!({ "instance_num": weight, "vm_config": { "path": name } });
    setting.file("nine.wat", declares("greet", "nine").as_bytes());
    setting.file("one.wat", declares("greet", "one").as_bytes());
    let functions = json!({ "nine": function("nine.wat", 9), "one": function("one.wat", 1) });
    setting.file("config.json", configuration(&functions, "").replace("redis\"", "in-memory\"").as_bytes());
    let host = setting.layotto(&["start", "-c", "config.json"]);
    let counts = || {
        let answers: Vec<String> = (0..20).map(|_| call(&host, "greet", "/").1).collect();
        ["nine", "one"].map(|name| answers.iter().filter(|answer| *answer == name).count())
    };
    assert_eq!(counts(), [18, 2]);
    // All modules of the id, or the one of that name.
    assert_eq!(manage(&host, "/wasm/update", &json!({ "name": "greet", "instance_num": 3 })).status, 200);
    assert_eq!(counts(), [10, 10]);
    assert_eq!(manage(&host, "/wasm/uninstall", &json!({ "name": "nine" })).status, 200);
    assert_eq!(counts(), [0, 20]);
    assert_eq!(manage(&host, "/wasm/uninstall", &json!({ "name": "greet" })).status, 200);
    assert_eq!(call(&host, "greet", "/").0, 404);
    host.stop();
}

#[test]
fn files_are_followed() {
    let setting = Setting::new();
    let function = |vm: Value| json!({ "vm_config": vm });
    let good = declares("checked", "whole").into_bytes();
    setting.file("checked.wasm", &good);
    setting.file("greet.wat", declares("greet", "one").as_bytes());
    let functions = json!({
        "greet": function(json!({ "path": "greet.wat", "mem": 1, "cpu": 2 })),
        "late": function(json!({ "path": "later/late.wat" })),
        "checked": function(json!({ "path": "checked.wasm", "md5": "00000000000000000000000000000000" })),
    });
    let text = |functions: &Value| configuration(functions, "").replace("redis\"", "in-memory\"");
    setting.file("config.json", text(&functions).as_bytes());
    // A module that is not what it should be is no reason to wait.
    let refused = setting.run(&["layotto", "start", "-c", "config.json"]);
    assert!(refused.code == Some(1) && refused.err.contains("expected 00000000"), "{refused:?}");

    let sum = refused.err.split("its MD5 is ").nth(1).unwrap()[..32].to_owned();
    let mut functions = functions;
    functions["checked"]["vm_config"]["md5"] = json!(sum.to_uppercase());
    setting.file("config.json", text(&functions).as_bytes());
    let mut host = setting.layotto(&["start", "-c", "config.json"]);
    host.line(|line| line.contains("vm_config.cpu is read and has no effect"));
    host.line(|line| line.contains("late: waits for its file"));
    assert_eq!(call(&host, "checked", "/"), (200, "whole".into()));
    assert_eq!(call(&host, "greet", "/"), (200, "one".into()));
    assert_eq!(call(&host, "late", "/").0, 404);

    setting.file("later/late.wat", declares("late", "better than never").as_bytes());
    eventually("the late one", || (call(&host, "late", "/").0 == 200).then_some(()));
    setting.file("greet.wat", declares("greet", "two").as_bytes());
    eventually("the second version", || (call(&host, "greet", "/").1 == "two").then_some(()));
    // What cannot be used leaves what runs in its place.
    setting.file("greet.wat", b"(module");
    host.line(|line| line.contains("greet") && line.contains("not loaded"));
    assert_eq!(call(&host, "greet", "/"), (200, "two".into()));
    let list = http::get(host.management.unwrap(), "/wasm/list").json();
    let greet = list["functions"].as_array().unwrap().iter().find(|f| f["name"] == "greet").unwrap().clone();
    assert!(
        greet["version"] == 2 && greet["error"].as_str().is_some_and(|error| !error.is_empty()),
        "{greet}"
    );
    // A module may change its id.
    setting.file("greet.wat", declares("salute", "three").as_bytes());
    eventually("the third version", || (call(&host, "salute", "/").1 == "three").then_some(()));
    assert_eq!(call(&host, "greet", "/").0, 404);

    // The configuration changes when the host is told.
    functions.as_object_mut().unwrap().remove("greet");
    setting.file("config.json", text(&functions).as_bytes());
    assert_eq!(setting.run(&["layotto", "reload"]).code, Some(0));
    eventually("the reload", || (call(&host, "salute", "/").0 == 404).then_some(()));
    assert_eq!(call(&host, "late", "/").0, 200);
    let stopped = setting.run(&["layotto", "stop"]);
    assert!(stopped.code == Some(0) && stopped.out.starts_with("stopped "), "{stopped:?}");
    assert_eq!(host.wait().code(), Some(0));
    let nobody = setting.run(&["layotto", "stop"]);
    assert!(nobody.code == Some(1) && nobody.err.contains("no host is running"), "{nobody:?}");
}

#[test]
fn functions_read_what_their_vm_is_configured_with() {
    let setting = Setting::new();
    let reads = r#"(module
  (import "env" "proxy_get_buffer_bytes" (func $read (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_0"))
  (func (export "malloc") (param i32) (result i32) (i32.const 4096))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $read (i32.const 6) (i32.const 0) (i32.const 10000) (i32.const 8) (i32.const 12)))
    (drop (call $set (i32.const 1) (i32.const 0) (i32.const 0) (i32.load (i32.const 8)) (i32.load (i32.const 12))))
    (i32.const 0)))"#;
    setting.file("reads.wat", reads.as_bytes());
    let functions = json!({
        "reads": { "vm_config": { "path": "reads.wat", "mem": 1 } },
        "named": { "from_wasm_plugin": "shared", "greeting": "hello" },
    });
    let text = configuration(&functions, "").replace("redis\"", "in-memory\"");
    let mut text: Value = serde_json::from_str(&text).unwrap();
    let plugin =
        json!({ "plugin_name": "shared", "vm_config": { "engine": "wasmtime", "path": "reads.wat" } });
    text["wasm_global_plugins"] = json!([plugin]);
    setting.file("config.json", text.to_string().as_bytes());
    let host = setting.layotto(&["start", "-c", "config.json"]);
    for (id, expected) in [
        ("reads", json!({ "path": "reads.wat", "mem": 1 })),
        ("named", json!({ "engine": "wasmtime", "path": "reads.wat" })),
    ] {
        let (status, text) = call(&host, id, "/");
        let found: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, found), (200, expected));
    }
    host.stop();
}

#[test]
fn levels_of_loggers_change_while_the_host_runs() {
    let setting = Setting::new().env("DHOW_FUNCTIONS_TOKEN", "open sesame");
    let says = r#"(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 0) "a fine detail")
  (func (export "proxy_abi_version_0_2_0"))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $log (i32.const 1) (i32.const 0) (i32.const 13)))
    (i32.const 0)))"#;
    setting.file("says.wat", says.as_bytes());
    let functions = json!({ "says": { "vm_config": { "path": "says.wat" } } });
    setting.file("config.json", configuration(&functions, "").replace("redis\"", "in-memory\"").as_bytes());
    let mut host = setting.layotto(&["start", "-c", "config.json"]);
    let actuator = host.line(|line| line.contains("actuator: http://"));
    let actuator = actuator.split("http://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    let token = ("authorization", "Bearer open sesame");
    let ask = |method: &str, headers: &[(&str, &str)], body: &str| {
        http::send(actuator, method, "/actuator/logger", headers, body.as_bytes())
    };
    let set = |component: &str, level: &str| {
        ask("POST", &[token], &json!({ "component": component, "level": level }).to_string())
    };
    let levels = || {
        let found = ask("GET", &[token], "").json();
        ["root", "guest", "dhow_host"]
            .map(|name| found["loggers"][name].as_str().unwrap_or_default().to_owned())
    };

    call(&host, "says", "/");
    assert_eq!(levels(), ["info", "info", "info"]);
    let done = set("guest", "DEBUG");
    assert_eq!((done.status, done.json()), (200, json!({})));
    assert_eq!(levels(), ["info", "debug", "info"]);
    call(&host, "says", "/");
    host.line(|line| line.contains("a fine detail"));
    // What has a level of its own keeps it.
    assert_eq!(set("", "warn").status, 200);
    assert_eq!(set("dhow_host::functions", "fatal").status, 200);
    assert_eq!(levels(), ["warn", "debug", "warn"]);
    assert_eq!(set("guest", "info").status, 200);
    call(&host, "says", "/");

    for (method, headers, body, status, text) in [
        ("POST", &[token][..], r#"{"component": "gest", "level": "debug"}"#, 400, "did you mean \"guest\"?"),
        ("POST", &[token], r#"{"component": "guest=trace", "level": "debug"}"#, 400, "there is no logger"),
        ("POST", &[token], r#"{"component": "guest", "level": "loud"}"#, 400, "trace, debug, info"),
        ("POST", &[token], r#"{"level": "debug"}"#, 400, "`component` is missing"),
        ("POST", &[token], "{", 400, "no JSON"),
        ("DELETE", &[token], "", 405, "for GET"),
        ("POST", &[], r#"{"component": "guest", "level": "debug"}"#, 401, "Bearer"),
        ("GET", &[("authorization", "Bearer open")], "", 401, "Bearer"),
        ("POST", &[token, ("origin", "http://evil.test")], "{}", 403, "web pages"),
    ] {
        let (found, error) = failure(&ask(method, headers, body));
        assert!(found == status && error.contains(text), "{method} {body}: {found} {error}");
    }
    let said = host.stop();
    assert_eq!(said.matches("a fine detail").count(), 1, "{said}");
}

#[test]
fn failures_are_told() {
    let setting = Setting::new();
    let module = |body: &str| {
        format!(
            r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_0"))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {body}))"#
        )
    };
    setting.file("trap.wat", module("unreachable").as_bytes());
    setting.file("silent.wat", module("(i32.const 0)").as_bytes());
    setting.file("large.wat", declares("large", "").replace("\"memory\") 1", "\"memory\") 100").as_bytes());
    let functions = |more: Value| {
        let mut functions = json!({
            "trap": { "vm_config": { "path": "trap.wat" } },
            "silent": { "vm_config": { "path": "silent.wat" } },
        });
        functions.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        configuration(&functions, "").replace("redis\"", "in-memory\"")
    };
    setting.file("config.json", functions(json!({})).as_bytes());
    let mut host = setting.layotto(&["start", "-c", "config.json"]);
    // A module that declares no id has its own name.
    for _ in 0..3 {
        let (status, text) = call(&host, "trap", "/");
        assert!(status == 500 && text.contains("unreachable"), "{status} {text}");
        assert_eq!(call(&host, "silent", "/").0, 404, "nothing was answered");
    }
    let actuator = host.line(|line| line.contains("actuator: http://"));
    let actuator = actuator.split("http://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    for (path, status, name) in [
        ("/actuator/health/liveness", 200, "status"),
        ("/actuator/health/readiness", 200, "status"),
        ("/actuator/info", 200, "app"),
        ("/actuator/other", 404, "error"),
    ] {
        let answer = http::get(actuator, path);
        assert_eq!((answer.status, answer.json()[name].is_null()), (status, false), "{path}");
    }
    host.stop();

    setting.file(
        "config.json",
        functions(json!({ "large": { "vm_config": { "path": "large.wat", "mem": 2 } } })).as_bytes(),
    );
    let refused = setting.run(&["layotto", "start", "-c", "config.json"]);
    assert!(refused.code == Some(1) && refused.err.contains("large"), "{refused:?}");
    setting.file("config.json", b"{\"servers\": [{\"listeners\": [{\"address\": 1}]}]}");
    let refused = setting.run(&["up", "config.json"]);
    assert!(refused.code == Some(1) && refused.err.contains("config.json:1:41"), "{refused:?}");
}
