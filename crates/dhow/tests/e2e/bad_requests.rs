//! What the Dapr API says to requests that cannot be served: the status and code of its own documentation, for
//! every block but state, which `dapr_state` has.

use crate::state::component;
use crate::support::{Host, Setting, app, eventually, http};
use serde_json::{Value, json};

/// Every block, and what the app may do with it.
fn setting() -> Setting {
    let setting = Setting::new();
    setting.file("secrets.json", br#"{"open": "yes", "closed": "no"}"#);
    setting.file("settings.json", br#"{"color": "blue"}"#);
    let components = [
        component("store", "state.in-memory", &[]),
        component(
            "broker",
            "pubsub.in-memory",
            &[("publishingScopes", "shop=orders"), ("protectedTopics", "inner")],
        ),
        component("vault", "secretstores.local.file", &[("secretsFile", "secrets.json")]),
        component("settings", "configuration.local.file", &[("configurationFile", "settings.json")]),
        component("locks", "lock.in-memory", &[]),
        component("files", "bindings.localstorage", &[("rootPath", "files")]),
    ];
    setting.file("resources/all.yaml", components.join("---\n").as_bytes());
    let scopes = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata:\n  name: config\nspec:\n  secrets:\n    \
                  scopes:\n    - storeName: vault\n      defaultAccess: deny\n      allowedSecrets: [open]\n";
    setting.file("config.yaml", scopes.as_bytes());
    setting
}

fn sidecar(setting: &Setting) -> Host {
    let app = app::start(|call| {
        if call.target == "/dapr/subscribe" { (404, String::new()) } else { (200, String::new()) }
    });
    setting.sidecar("shop", Some(app), &["--resources-path", "resources", "--config", "config.yaml"])
}

const JSON: http::Headers<'_> = &[("content-type", "application/json")];

#[test]
fn each_block_names_what_is_wrong() {
    let setting = setting();
    let host = sidecar(&setting);
    let bulk = "/v1.0/publish/bulk/broker/orders";
    // Method, path, headers, body, status, code, what the message has.
    let cases: &[(&str, &str, http::Headers<'_>, &str, u16, &str, &str)] = &[
        (
            "POST",
            "/v1.0/publish/absent/orders",
            JSON,
            "{}",
            404,
            "ERR_PUBSUB_NOT_FOUND",
            "pubsub absent is not found",
        ),
        (
            "POST",
            "/v1.0/publish/broker/other",
            JSON,
            "{}",
            403,
            "ERR_PUBSUB_FORBIDDEN",
            "topic other is not allowed for app id shop",
        ),
        (
            "POST",
            "/v1.0/publish/broker/inner",
            JSON,
            "{}",
            403,
            "ERR_PUBSUB_FORBIDDEN",
            "topic inner is not allowed for app id shop",
        ),
        ("POST", "/v1.0/publish/broker/", JSON, "{}", 404, "ERR_TOPIC_NAME_EMPTY", ""),
        ("POST", "/v1.0/publish/broker", JSON, "{}", 404, "", ""),
        ("POST", bulk, JSON, "{}", 400, "ERR_PUBSUB_EVENTS_SER", ""),
        ("POST", bulk, JSON, r#"[{"event": 1}]"#, 400, "ERR_PUBSUB_EVENTS_SER", ""),
        (
            "POST",
            bulk,
            JSON,
            r#"[{"entryId": "1", "event": 1}, {"entryId": "1", "event": 2}]"#,
            400,
            "ERR_PUBSUB_EVENTS_SER",
            "",
        ),
        ("POST", "/v1.0/publish/bulk/absent/orders", JSON, "[]", 404, "ERR_PUBSUB_NOT_FOUND", "absent"),
        (
            "POST",
            "/v1.0/bindings/absent",
            JSON,
            r#"{"operation": "get"}"#,
            500,
            "ERR_INVOKE_OUTPUT_BINDING",
            "absent",
        ),
        ("POST", "/v1.0/bindings/files", JSON, "not JSON", 400, "ERR_MALFORMED_REQUEST", ""),
        (
            "POST",
            "/v1.0/bindings/files",
            JSON,
            r#"{"operation": "dance"}"#,
            500,
            "ERR_INVOKE_OUTPUT_BINDING",
            "dance",
        ),
        ("GET", "/v1.0/secrets/absent/x", &[], "", 401, "ERR_SECRET_STORE_NOT_FOUND", "absent"),
        ("GET", "/v1.0/secrets/vault/closed", &[], "", 403, "ERR_PERMISSION_DENIED", "closed"),
        (
            "GET",
            "/v1.0/configuration/absent?key=a",
            &[],
            "",
            400,
            "ERR_CONFIGURATION_STORE_NOT_FOUND",
            "absent",
        ),
        (
            "POST",
            "/v1.0-alpha1/lock/absent",
            JSON,
            r#"{"resourceId": "r", "lockOwner": "o", "expiryInSeconds": 1}"#,
            400,
            "ERR_LOCK_STORE_NOT_FOUND",
            "absent",
        ),
        (
            "POST",
            "/v1.0-alpha1/lock/locks",
            JSON,
            r#"{"resourceId": "r", "lockOwner": "o"}"#,
            400,
            "ERR_MALFORMED_REQUEST",
            "",
        ),
        (
            "POST",
            "/v1.0-alpha1/lock/locks",
            JSON,
            r#"{"lockOwner": "o", "expiryInSeconds": 1}"#,
            400,
            "ERR_MALFORMED_REQUEST",
            "",
        ),
        (
            "POST",
            "/v1.0-alpha1/lock/locks",
            JSON,
            r#"{"resourceId": "r", "expiryInSeconds": 1}"#,
            400,
            "ERR_MALFORMED_REQUEST",
            "",
        ),
        (
            "POST",
            "/v1.0-alpha1/unlock/locks",
            JSON,
            r#"{"lockOwner": "o"}"#,
            400,
            "ERR_MALFORMED_REQUEST",
            "",
        ),
        (
            "POST",
            "/v1.0/jobs/j",
            JSON,
            r#"{"name": "other", "schedule": "@every 1h"}"#,
            400,
            "DAPR_SCHEDULER_JOB_NAME",
            "",
        ),
        ("POST", "/v1.0/jobs/j", JSON, r#"{"data": 1}"#, 400, "DAPR_SCHEDULER_SCHEDULE_EMPTY", ""),
        ("POST", "/v1.0/jobs/j", JSON, "not JSON", 400, "ERR_MALFORMED_REQUEST", ""),
        (
            "GET",
            "/v1.0/no/such/route",
            &[],
            "",
            404,
            "ERR_DIRECT_INVOKE",
            "failed getting app id either from the URL path or the header dapr-app-id",
        ),
        ("PATCH", "/v1.0/state/store", &[], "", 404, "ERR_DIRECT_INVOKE", ""),
        ("POST", "/v1.0/actors/t/i/method/m", &[], "", 501, "ERR_API_UNIMPLEMENTED", "actors"),
    ];
    for (method, path, headers, body, status, code, message) in cases {
        let answer = host.dapr(method, path, headers, body);
        let error: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        assert_eq!(answer.status, *status, "{method} {path} {body}: {}", answer.text());
        if !code.is_empty() {
            assert_eq!(error["errorCode"], *code, "{method} {path} {body}: {error}");
            assert!(error["message"].as_str().unwrap().contains(message), "{method} {path} {body}: {error}");
        }
    }
    let open = host.dapr("GET", "/v1.0/secrets/vault/bulk", &[], "").json();
    assert_eq!(open, json!({"open": {"open": "yes"}}), "what is denied is left out");
    host.stop();
}

#[test]
fn a_component_that_cannot_open_is_named() {
    let setting = Setting::new();
    let redis = |name: &str, ignore: &str| {
        let yaml =
            component(name, "state.redis", &[("redisHost", "127.0.0.1:1"), ("redisPassword", "hunter2")]);
        yaml.replace("  version: v1\n", &format!("  version: v1\n{ignore}"))
    };
    setting.file("resources/away.yaml", redis("away", "  ignoreErrors: true\n").as_bytes());
    let host = setting.sidecar("shop", None, &["--resources-path", "resources"]);
    let metadata = host.dapr("GET", "/v1.0/metadata", &[], "").json();
    let reason = metadata["extended"]["componentError.away"].as_str().unwrap_or_default();
    assert!(reason.contains("cannot connect to Redis at 127.0.0.1:1"), "{metadata}");
    assert_eq!(
        host.dapr("POST", "/v1.0/state/statestore", JSON, r#"[{"key": "k", "value": 1}]"#).status,
        204
    );
    assert_eq!(host.dapr("GET", "/v1.0/state/away/k", &[], "").status, 400);
    let doctor = setting.run(&["doctor"]);
    let said = format!("{}{}{metadata}{}", doctor.out, doctor.err, host.stop());
    assert!(doctor.out.contains("component \"away\": cannot connect to Redis"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");

    setting.file("resources/needed.yaml", redis("needed", "").as_bytes());
    let ended = setting.run(&["run", "--app-id", "shop", "--resources-path", "resources"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("needed.yaml:1: component \"needed\": cannot connect"), "{ended:?}");
}

#[test]
fn sizes_have_bounds() {
    let setting = setting();
    let host = sidecar(&setting);
    let json = |length: usize| format!(r#"[{{"key": "k", "value": "{}"}}]"#, "x".repeat(length));
    assert_eq!(host.dapr("POST", "/v1.0/state/store", JSON, &json(4 << 20)).status, 413);
    assert_eq!(host.dapr("POST", "/v1.0/state/store", JSON, &json((4 << 20) - 1000)).status, 204);
    let long = "x".repeat(100_000);
    let refused = http::try_send(host.api.unwrap(), "GET", "/v1.0/metadata", &[("x-long", &long)], b"");
    assert!(matches!(refused.map(|answer| answer.status), Ok(431) | Err(_)));
    let refused = http::try_send(host.api.unwrap(), "GET", &format!("/{long}"), &[], b"");
    assert!(matches!(refused.map(|answer| answer.status), Ok(414 | 431) | Err(_)));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for path in ["/v1.0/state/store", "/v1.0/publish/broker/orders", "/v1.0/bindings/files", "/v1.0/jobs/j"] {
        let answer = host.dapr("POST", path, JSON, &deep);
        assert!(answer.status < 500, "{path}: {}: {}", answer.status, answer.text());
    }
    assert_eq!(host.dapr("GET", "/v1.0/healthz/outbound", &[], "").status, 204);
    host.stop();
}

#[test]
fn the_api_is_ready_once_the_app_is() {
    let setting = setting();
    let absent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = absent.local_addr().unwrap();
    drop(absent);
    let host = setting.sidecar("shop", Some(address), &["--resources-path", "resources"]);
    let answer = host.dapr("GET", "/v1.0/healthz", &[], "");
    assert_eq!((answer.status, &answer.json()["errorCode"]), (500, &json!("ERR_HEALTH_NOT_READY")));
    assert_eq!(host.dapr("GET", "/v1.0/healthz/outbound", &[], "").status, 204);
    let app = app::listen(address, |_| (404, String::new()));
    assert_eq!(app, address);
    eventually("the app to be seen", || {
        (host.dapr("GET", "/v1.0/healthz", &[], "").status == 204).then_some(())
    });
    host.stop();
}

#[test]
fn bounds_can_be_moved() {
    let setting = setting();
    let args = ["--resources-path", "resources", "--max-body-size", "1Ki", "--read-buffer-size", "100Ki"];
    let host = setting.sidecar("shop", None, &args);
    let json = |length: usize| format!(r#"[{{"key": "k", "value": "{}"}}]"#, "x".repeat(length));
    assert_eq!(host.dapr("POST", "/v1.0/state/store", JSON, &json(1 << 10)).status, 413);
    assert_eq!(host.dapr("POST", "/v1.0/state/store", JSON, &json(900)).status, 204);
    let long = "x".repeat(90 << 10);
    assert_eq!(host.dapr("GET", "/v1.0/metadata", &[("x-long", &long)], "").status, 200);
    host.stop();
}

#[test]
fn cloud_events_that_are_none_are_refused() {
    let setting = setting();
    let host = sidecar(&setting);
    let event: http::Headers<'_> = &[("content-type", "application/cloudevents+json")];
    for body in ["not JSON", "[]", "17", r#"{"data": 1"#, "\"x\"", ""] {
        let answer = host.dapr("POST", "/v1.0/publish/broker/orders", event, body);
        assert_eq!(
            (answer.status, &answer.json()["errorCode"]),
            (500, &json!("ERR_PUBSUB_CLOUD_EVENTS_SER")),
            "{body}: {}",
            answer.text()
        );
    }
    for body in ["{}", r#"{"id": "1", "data": {"a": [1]}}"#] {
        assert_eq!(host.dapr("POST", "/v1.0/publish/broker/orders", event, body).status, 204, "{body}");
    }
    host.stop();
}
