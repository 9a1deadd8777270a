//! Whole files, as Layotto's users have them.

use super::*;
use crate::component::MetadataValue;
use dhow_blocks::grants::Ask;
use std::collections::BTreeMap;

fn parse(text: &str) -> Layotto {
    Layotto::parse(text, Path::new("config.json")).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A file with one listener of this kind, its filters first.
fn with_functions(items: &str) -> String {
    format!(
        r#"{{"servers": [{{"listeners": [{{"address": "127.0.0.1:0",
"stream_filters": [{{"type": "Layotto", "config": {{
{items}
}}}}]}}]}}]}}"#
    )
}

const WHOLE: &str = r#"{
  "servers": [{
    "default_log_path": "stdout",
    "default_log_level": "DEBUG",
    "graceful_timeout": "30s",
    "routers": [{"router_config_name": "r", "virtual_hosts": []}],
    "listeners": [
      {"name": "grpc", "address": "0.0.0.0:34904", "bind_port": true, "filter_chains": [{"filters": [{
        "type": "grpc",
        "config": {"server_name": "runtime", "grpc_config": {
          "hellos": {"helloworld": {"type": "helloworld", "hello": "greeting"}},
          "rpcs": {"mosn": {"config": {"channel": [{"size": 16, "protocol": "http", "listener": "wasm"}]}}},
          "state": {
            "state_demo": {"type": "redis", "metadata": {"redisHost": "localhost:6379", "redisPassword": "", "db": 3}},
            "shared": {"type": "in-memory", "metadata": {"keyPrefix": "appid"}}
          },
          "sequencer": {"s": {"type": "etcd", "biggerThan": {"k": 7}, "metadata": {"endpoints": "localhost:2379"}}},
          "file": {"f": {"type": "local", "metadata": [{"endpoint": "e", "uid": ["a"]}, {}]}},
          "lock": {"l": {"type": "redis", "secret_ref": [
            {"store_name": "vault", "key": "redis", "sub_key": "password", "inject_as": "redisPassword"}]}},
          "app": {"app_id": "app1", "grpc_callback_port": 9999},
          "extends": {}
        }}}]}]},
      {"name": "wasm", "address": ":2045", "filter_chains": [{"filters": [{"type": "proxy", "config": {}}]}],
       "stream_filters": [{"type": "Layotto", "config": {
         "function1": {"name": "function1", "instance_num": 2, "greeting": "hello", "number": 7,
           "vm_config": {"engine": "wasmtime", "path": "./f1.wasm", "mem": 64, "cpu": 2}},
         "function2": {"vm_config": {"url": "https://example.com/f2.wasm", "md5": "D41D8CD98F00B204E9800998ECF8427E"},
           "instance_num": -1, "grants": {"publish": ["p/t"]}}
       }}, {"type": "flowControlFilter"}]},
      {"address": "127.0.0.1:34998", "stream_filters": [{"type": "wasm_filter"}]},
      {"stream_filters": [{"type": "actuator_filter"}]},
      {"name": "other", "address": "[::1]:80", "filter_chains": [{"filters": [{"type": "tcp_proxy"}]}]}
    ]}],
  "metrics": {"sinks": [{"type": "prometheus", "config": {"port": 34903}}]},
  "tracing": {"enable": true},
  "cluster_manager": {"clusters": []}
}"#;

#[test]
fn a_whole_file_is_read() {
    let layotto = parse(WHOLE);
    let tcp = |text: &str| vec![Address::Tcp(text.parse().unwrap())];
    assert_eq!(layotto.runtime_listeners, tcp("0.0.0.0:34904"));
    assert_eq!(layotto.function_listeners, tcp("0.0.0.0:2045"));
    assert_eq!(layotto.management_listeners, tcp("127.0.0.1:34998"));
    assert_eq!(layotto.actuator_listeners, tcp("127.0.0.1:34999"));
    assert_eq!(layotto.metrics_port, Some(34903));
    let runtime = &layotto.runtime;
    assert_eq!(runtime.app_id.as_deref(), Some("app1"));
    assert_eq!(runtime.callback, Some(Callback { host: "127.0.0.1".to_owned(), port: 9999 }));
    assert_eq!(runtime.hellos["helloworld"], "greeting");

    let found: Vec<String> = layotto
        .components()
        .iter()
        .map(|component| {
            let fields = component.metadata.iter().map(|item| match &item.value {
                MetadataValue::Plain(value) => format!("{}={value}", item.name),
                MetadataValue::SecretRef { name, key } => format!("{}=>{name}/{key}", item.name),
                MetadataValue::EnvRef(name) => format!("{}=${name}", item.name),
            });
            let fields: Vec<String> = fields.collect();
            format!("{} {} {}", component.name, component.component_type, fields.join(" "))
        })
        .collect();
    let expected = [
        "state_demo state.redis redisHost=localhost:6379 redisPassword= redisDB=3 keyPrefix=none",
        "shared state.in-memory keyPrefix=appid",
        "l lock.redis redisPassword=>redis/password",
        "s sequencer.etcd endpoints=localhost:2379 biggerThan={\"k\":7}",
        "f file.local endpoint=e uid=[\"a\"]",
    ];
    assert_eq!(found, expected);
    let lock = layotto.components().iter().find(|component| component.name == "l").unwrap();
    assert_eq!((lock.auth_secret_store.as_deref(), lock.line), (Some("vault"), 19));

    let [one, two] = layotto.functions.as_slice() else { panic!("{:?}", layotto.functions) };
    assert_eq!((one.name.as_str(), one.source.as_str(), one.instances), ("function1", "./f1.wasm", Some(2)));
    assert_eq!((one.memory, one.md5.as_ref(), one.grants.as_ref()), (Some(64 << 20), None, None));
    let vm = r#"{"engine":"wasmtime","path":"./f1.wasm","mem":64,"cpu":2}"#;
    let config = [("greeting", "hello"), ("vm", vm)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(one.config, BTreeMap::from(config));
    assert_eq!((two.source.as_str(), two.instances), ("https://example.com/f2.wasm", None));
    assert_eq!(two.md5.as_deref(), Some("d41d8cd98f00b204e9800998ecf8427e"));
    let grants = two.grants.as_ref().unwrap();
    assert!(grants.check(Ask::Publish { pubsub: "p", topic: "t" }).is_ok());
    assert!(grants.check(Ask::State("state_demo")).is_err());

    let unused: Vec<String> =
        layotto.unused.iter().map(|field| format!("{} {}", field.line, field.name)).collect();
    let expected = [
        "18 servers[0].listeners[0].filter_chains[0].filters[0].config.grpc_config.file.f.metadata[1]",
        "22 servers[0].listeners[0].filter_chains[0].filters[0].config.grpc_config.extends",
        "27 servers[0].listeners[1].stream_filters[0].config.function1.vm_config.cpu",
        "26 servers[0].listeners[1].stream_filters[0].config.function1.number",
        "30 servers[0].listeners[1].stream_filters[1] (flowControlFilter)",
        "33 servers[0].listeners[4].filter_chains[0].filters[0] (tcp_proxy)",
        "33 servers[0].listeners[4]",
        "5 servers[0].graceful_timeout",
        "36 tracing",
    ];
    assert_eq!(unused, expected);
}

#[test]
fn mistakes_are_found_where_they_are() {
    let function = with_functions;
    let cases = [
        ("{}".to_owned(), "config.json:1:1: servers: is missing", ""),
        ("{\"servers\": {}}".to_owned(), "1:13: servers: must be a list of servers, found a map", ""),
        (
            r#"{"servers": [{"listeners": [{"address": "here", "stream_filters": [{"type": "wasm_filter"}]}]}]}"#
                .to_owned(),
            "1:41: servers[0].listeners[0].address: `here` is no address",
            "HOST:PORT",
        ),
        (function("\"f\": {}"), "3:1: servers[0].listeners[0].stream_filters[0].config.f: `vm_config` is missing", ""),
        (function("\"f\": {\"vm_config\": {}}"), "3:20: ", "the path of a module"),
        (function("\"f\": {\"vm_config\": {\"path\": \"http://x/\"}}"), "3:20: ", "URLs belong to `url`"),
        (function("\"f\": {\"vm_config\": {\"url\": \"file:///x\"}}"), "3:20: ", "expected http://"),
        (function("\"f\": {\"vm_config\": {\"path\": \"x\", \"md5\": \"12\"}}"), "3:41: ", "32 hexadecimal digits"),
        (function("\"f\": {\"vm_config\": {\"path\": \"x\", \"mem\": \"much\"}}"), "3:41: ", "`much` is no size"),
        (function("\"f\": {\"from_wasm_plugin\": \"p\"}"), "3:7: ", "of one of wasm_global_plugins"),
        (function("\"f\": {\"instance_num\": \"2\", \"vm_config\": {\"path\": \"x\"}}"), "3:23: ", "must be an integer"),
        (function("\"f\": {\"grants\": {\"stat\": []}, \"vm_config\": {\"path\": \"x\"}}"), "3:18: ", "did you mean `state`?"),
    ];
    for (text, place, hint) in cases {
        let errors = Layotto::parse(&text, Path::new("config.json")).expect_err(&text).to_string();
        assert!(errors.contains(place) && errors.contains(hint), "{text}: {errors}");
    }
}

#[test]
fn functions_name_plugins_that_stand_anywhere() {
    let text = r#"{
        "servers": [{"listeners": [{"stream_filters": [{"type": "Layotto", "config": {
            "f": {"from_wasm_plugin": "one", "greeting": "hello"},
            "g": {"from_wasm_plugin": "one", "instance_num": 7, "vm_config": {"path": "not/this.wasm"}},
            "h": {"from_wasm_plugin": "", "vm_config": {"path": "h.wasm"}}
        }}]}]}],
        "wasm_global_plugins": [
            {"plugin_name": "one", "instance_num": 2, "vm_config": {"engine": "wasmtime", "path": "one.wasm", "mem": 3}}
        ]
    }"#;
    let layotto = parse(text);
    let found: Vec<_> = layotto
        .functions
        .iter()
        .map(|f| (f.name.as_str(), f.source.as_str(), f.instances, f.memory))
        .collect();
    let mib = Some(3 << 20);
    assert_eq!(
        found,
        [("f", "one.wasm", Some(2), mib), ("g", "one.wasm", Some(7), mib), ("h", "h.wasm", None, None)]
    );
    assert_eq!(layotto.functions[0].config["greeting"], "hello");
    assert!(layotto.unused.is_empty(), "{:?}", layotto.unused);
    let wrong = text.replacen("\"one\"", "\"onee\"", 1);
    let error = Layotto::parse(&wrong, Path::new("config.json")).unwrap_err().to_string();
    assert!(error.contains("did you mean `one`?"), "{error}");
}
