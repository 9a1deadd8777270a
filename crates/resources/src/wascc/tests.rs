//! What a waSCC manifest means, and what each mistake in it is answered with.

use super::*;
use crate::component::MetadataValue;
use crate::manifest::ModuleSource;
use dhow_blocks::grants::Ask;

/// A manifest as the old hosts had them.
const KVCOUNTER: &str = r#"# counts requests
---
labels:
  region: here
actors:
  - ./kvcounter.wasm
  - other.wasm
capabilities:
  - ./libredis_provider.so
  - path: ./libwascc_httpsrv.so
    binding_name: default
bindings:
  - actor: "MKEY"
    capability: "wascc:keyvalue"
    values:
      URL: redis://:secret@${HOST:localhost}/2
  - actor: ./kvcounter.wasm
    capability: "wascc:http_server"
    values:
      PORT: 8081
  - actor: other
    capability: wasmcloud:messaging
    binding: orders
    values: { URL: "nats://127.0.0.1:4222", SUBSCRIPTION: "orders" }
  - actor: other
    capability: wascc:blobstore
    values: { ROOT: "/tmp/x" }
"#;

fn actors() -> Vec<Actor> {
    vec![
        Actor {
            app_id: "kvcounter".to_owned(),
            key: Some("MKEY".to_owned()),
            module: ModuleSource::Path("site/kvcounter.wasm".into()),
        },
        Actor { app_id: "other".to_owned(), key: None, module: ModuleSource::Path("site/other.wasm".into()) },
    ]
}

fn parse(text: &str) -> Result<Wascc, ResourceErrors> {
    Wascc::parse(text, Path::new("site/host.yaml"), |name| (name == "SET").then(|| "value".to_owned()))
}

#[test]
fn a_manifest_of_old_becomes_apps_components_and_ports() {
    assert!(is_manifest(KVCOUNTER));
    let plan = parse(KVCOUNTER).unwrap().plan(&actors()).unwrap();
    let counter = &plan.manifest.apps["kvcounter"];
    let [actor, keyvalue, server] = counter.bindings.as_slice() else { panic!("{:?}", counter.bindings) };
    assert_eq!((actor.capability.as_str(), actor.component.as_deref()), ("actor", Some("kvcounter")));
    assert_eq!(keyvalue.component.as_deref(), Some("kvcounter-keyvalue-default"));
    assert_eq!(
        (server.capability.as_str(), &plan.ports[..]),
        ("httpserver", &[(8081, "kvcounter".to_owned())][..])
    );
    let other = &plan.manifest.apps["other"];
    assert_eq!(other.bindings[1].values["RAW"], "true");
    assert!(other.grants.check(Ask::Publish { pubsub: "other-messaging-orders", topic: "x" }).is_ok());
    assert!(other.grants.check(Ask::State("kvcounter-keyvalue-default")).is_err());
    assert!(counter.grants.check(Ask::State("kvcounter-keyvalue-default")).is_ok());
    assert!(counter.grants.check(Ask::Invoke("other")).is_ok());
    let redis = &plan.components[0];
    let field = |name: &str| match redis.metadata_value(name) {
        Some(MetadataValue::Plain(text)) => text.clone(),
        _ => String::new(),
    };
    assert_eq!(
        (redis.component_type.as_str(), &redis.scopes[..]),
        ("state.redis", &["kvcounter".to_owned()][..])
    );
    assert_eq!(
        (field("redisHost"), field("redisPassword"), field("redisDB")),
        ("localhost:6379".into(), "secret".into(), "2".into())
    );
    let kinds: Vec<&str> =
        plan.components.iter().map(|component| component.component_type.as_str()).collect();
    assert_eq!(kinds, ["state.redis", "pubsub.nats", "blob.local"]);
}

#[test]
fn variables_have_defaults() {
    for (text, expected) in [
        ("${SET} ${SET:x}", "value value"),
        ("${UNSET} ${UNSET:} ${UNSET:/a:b}", "${UNSET}  /a:b"),
        ("$SET ${ ${SET", "$SET ${ ${SET"),
        ("a ${\n} ${SET}", "a ${\n} value"),
    ] {
        assert_eq!(expand(text, |name| (name == "SET").then(|| "value".to_owned())).0, expected, "{text}");
    }
    assert!(parse("actors: [a.wasm] # ${UNSET}\n#${UNSET}\n").is_ok());
    let error = parse("actors: [a.wasm]\nlabels:\n  a: ${UNSET}\n").unwrap_err().to_string();
    assert!(
        error.contains("site/host.yaml:3:6: the environment has no variable `UNSET`")
            && error.contains("${NAME:default}"),
        "{error}"
    );
}

#[test]
fn mistakes_are_told_with_their_place() {
    let start = "actors: [a.wasm, b.wasm]\n";
    for (rest, expected) in [
        (
            "bindings:\n- {actor: kvcounter, capability: wascc:keyvalu}",
            "3:34: bindings[0].capability: `wascc:keyvalu` is no capability; did you mean `keyvalue`?",
        ),
        ("bindings:\n- {capability: wascc:keyvalue}", "`actor` is missing"),
        (
            "bindings:\n- {actor: nobody, capability: wascc:keyvalue}",
            "3:11: bindings: there is no actor `nobody`",
        ),
        (
            "bindings:\n- {actor: other, capability: wascc:keyvalue, values: {URI: x}}",
            "the value `URI` of keyvalue is not known; did you mean `URL`?",
        ),
        (
            "bindings:\n- {actor: other, capability: wascc:keyvalue, values: {URL: 'http://x'}}",
            "the URL is not one of Redis",
        ),
        (
            "bindings:\n- {actor: other, capability: wascc:http_server, values: {PORT: 0}}",
            "the PORT is no port",
        ),
        (
            "bindings:\n- {actor: other, capability: wascc:http_server, values: {PORT: 81}}\n- {actor: kvcounter, capability: wascc:http_server, values: {PORT: 81}}",
            "port 81 is that of actor `other`",
        ),
        ("bindings:\n- {actor: other, capability: wascc:blobstore}", "a blobstore needs a place"),
        (
            "bindings:\n- {actor: other, capability: wascc:extras}\n- {actor: other, capability: wascap:extras}",
            "given twice",
        ),
        ("binding: []", "unknown field `binding`"),
        ("bindings: {}", "bindings: must be a list"),
    ] {
        let text = format!("{start}{rest}");
        let errors = parse(&text).and_then(|wascc| wascc.plan(&actors()).map(|_| ()));
        let errors = errors.expect_err(rest).to_string();
        assert!(errors.starts_with("site/host.yaml:") && errors.contains(expected), "{rest}: {errors}");
    }
    for text in ["", "actors: []", "actors: x", "- a", "capabilities: []"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn other_files_are_told_apart_and_values_are_not_shown() {
    assert!(is_manifest("{\"actors\": []}") && is_manifest("actors : []"));
    assert!(is_manifest("{\n  \"labels\": {},\n  \"actors\": [\n    \"a.wasm\"\n  ]\n}\n"));
    for text in [
        "apps:\n- appID: a\n",
        "version: 1\napps:\n  - actors: x\n",
        "# actors:\n",
        "",
        "actorsx: 1",
        "{\n  \"apps\": {\n    \"actors\": []\n  }\n}",
    ] {
        assert!(!is_manifest(text), "{text}");
    }
    let shown = format!("{:?}", parse(KVCOUNTER).unwrap());
    assert!(shown.contains("URL") && !shown.contains("secret"), "{shown}");
}
