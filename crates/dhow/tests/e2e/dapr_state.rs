//! Dapr's state API, row by row, on its port and from inside a guest.

use crate::support::{Host, Setting, eventually};
use serde_json::{Value, json};

const MANIFEST: &str = r#"
    [apps.inside]
    module = `outbound`
    routes = ["/"]
    grants = { state = ["statestore", "gone"] }
    [apps.denied]
    module = `outbound`
    routes = ["/"]
    hosts = ["denied.test"]
"#;

/// What an answer must hold.
enum Is {
    /// No body.
    Empty,
    /// This JSON.
    Json(Value),
    /// An error with this code, and this in its message.
    Error(&'static str, &'static str),
}

use Is::{Empty, Error, Json};

const STORE: &str = "/v1.0/state/statestore";

#[test]
fn requests_are_answered_as_dapr_answers_them() {
    let setting = Setting::with_manifest(MANIFEST);
    let host = setting.up(&[]);
    let etag = |key: &str| -> String {
        let answer = host.dapr("GET", &format!("{STORE}/{key}"), &[], "");
        answer.header("etag").unwrap_or_else(|| panic!("no etag: {answer:?}")).to_owned()
    };
    let malformed = || Error("ERR_MALFORMED_REQUEST", "");
    // Method, path below the store (or a whole path), body, status, answer.
    let cases: Vec<(&str, &str, &str, u16, Is)> = vec![
        // Saving and reading.
        (
            "POST",
            "",
            r#"[{"key":"a","value":1},{"key":"b","value":{"x":["y",null]}},{"key":"s","value":"text"}]"#,
            204,
            Empty,
        ),
        ("GET", "/a", "", 200, Json(json!(1))),
        ("GET", "/b", "", 200, Json(json!({"x": ["y", null]}))),
        ("GET", "/s", "", 200, Json(json!("text"))),
        ("PUT", "", r#"[{"key":"a","value":2}]"#, 204, Empty),
        ("GET", "/a", "", 200, Json(json!(2))),
        ("GET", "/a?consistency=strong", "", 200, Json(json!(2))),
        ("GET", "/absent", "", 204, Empty),
        ("POST", "", "[]", 204, Empty),
        ("POST", "", r#"[{"key":"null","value":null}]"#, 204, Empty),
        ("GET", "/null", "", 200, Json(Value::Null)),
        // What cannot be read.
        ("POST", "", "", 400, malformed()),
        ("POST", "", "[{", 400, malformed()),
        ("POST", "", r#"{"key":"a","value":1}"#, 400, malformed()),
        ("POST", "", r#"[{"value":1}]"#, 400, malformed()),
        ("POST", "", r#"[{"key":"","value":1}]"#, 400, malformed()),
        ("POST", "", r#"[{"key":"a","value":1,"etag":7}]"#, 400, malformed()),
        (
            "POST",
            "",
            r#"[{"key":"a||b","value":1}]"#,
            400,
            Error("ERR_MALFORMED_REQUEST", "can't contain '||'"),
        ),
        ("GET", "/a%7C%7Cb", "", 400, Error("ERR_MALFORMED_REQUEST", "can't contain '||'")),
        ("DELETE", "/a||b", "", 400, Error("ERR_MALFORMED_REQUEST", "can't contain '||'")),
        // Deleting.
        ("DELETE", "/b", "", 204, Empty),
        ("GET", "/b", "", 204, Empty),
        ("DELETE", "/b", "", 204, Empty),
        // Keys and paths that need care.
        ("POST", "", r#"[{"key":"a/b c?d#é","value":"odd"}]"#, 204, Empty),
        ("GET", "/a%2Fb%20c%3Fd%23%C3%A9", "", 200, Json(json!("odd"))),
        ("GET", "//v1.0//state/statestore///a//", "", 200, Json(json!(2))),
        ("GET", "/a/", "", 200, Json(json!(2))),
        ("DELETE", "/a%2Fb%20c%3Fd%23%C3%A9", "", 204, Empty),
        // Options.
        (
            "POST",
            "",
            r#"[{"key":"first","value":1,"options":{"concurrency":"first-write","consistency":"strong"}}]"#,
            204,
            Empty,
        ),
        (
            "POST",
            "",
            r#"[{"key":"first","value":2,"options":{"concurrency":"first-write"}}]"#,
            409,
            Error("ERR_STATE_SAVE", "possible etag mismatch. error from state store"),
        ),
        ("GET", "/first", "", 200, Json(json!(1))),
        ("POST", "", r#"[{"key":"first","value":3,"options":{"concurrency":"last-write"}}]"#, 204, Empty),
        (
            "POST",
            "",
            r#"[{"key":"first","value":3,"options":{"concurrency":"odd"}}]"#,
            500,
            Error("ERR_STATE_SAVE", "unrecognized concurrency value 'odd'"),
        ),
        (
            "POST",
            "",
            r#"[{"key":"first","value":3,"options":{"consistency":"odd"}}]"#,
            500,
            Error("ERR_STATE_SAVE", "unrecognized consistency value 'odd'"),
        ),
        (
            "DELETE",
            "/first?concurrency=odd",
            "",
            500,
            Error(
                "ERR_STATE_DELETE",
                "failed deleting state with key first: unrecognized concurrency value 'odd'",
            ),
        ),
        (
            "DELETE",
            "/first?consistency=odd",
            "",
            500,
            Error("ERR_STATE_DELETE", "unrecognized consistency value 'odd'"),
        ),
        ("DELETE", "/absent?concurrency=first-write&consistency=strong", "", 204, Empty),
        (
            "POST",
            "",
            r#"[{"key":"t","value":1,"metadata":{"ttlInSeconds":"soon"}}]"#,
            500,
            Error("ERR_STATE_SAVE", "ttlInSeconds"),
        ),
        (
            "POST",
            "",
            r#"[{"key":"t","value":1,"metadata":{"ttlInSeconds":"0"}}]"#,
            500,
            Error("ERR_STATE_SAVE", "ttlInSeconds"),
        ),
        // Many at once.
        (
            "POST",
            "/bulk",
            r#"{"keys":["a","absent"],"parallelism":10}"#,
            200,
            Json(json!([{"key": "a", "data": 2}, {"key": "absent"}])),
        ),
        ("PUT", "/bulk", r#"{"keys":[]}"#, 200, Json(json!([]))),
        ("POST", "/bulk", "[", 400, malformed()),
        ("POST", "/bulk", r#"{"keys":["a||b"]}"#, 400, malformed()),
        // Transactions.
        (
            "POST",
            "/transaction",
            r#"{"operations":[{"operation":"upsert","request":{"key":"x","value":1}},{"operation":"upsert","request":{"key":"y","value":2}},{"operation":"delete","request":{"key":"x"}}]}"#,
            204,
            Empty,
        ),
        ("GET", "/x", "", 204, Empty),
        ("GET", "/y", "", 200, Json(json!(2))),
        ("PUT", "/transaction", r#"{"operations":[]}"#, 204, Empty),
        (
            "POST",
            "/transaction",
            r#"{"operations":[{"operation":"upsert","request":{"key":"y","value":9}},{"operation":"move","request":{"key":"y"}}]}"#,
            400,
            Error("ERR_NOT_SUPPORTED_STATE_OPERATION", "move"),
        ),
        (
            "POST",
            "/transaction",
            r#"{"operations":[{"operation":"upsert","request":{"key":"y","value":9}},{"operation":"upsert","request":{"key":"z","value":9,"etag":"77"}}]}"#,
            500,
            Error("ERR_STATE_TRANSACTION", ""),
        ),
        ("GET", "/y", "", 200, Json(json!(2))),
        ("POST", "/transaction", "{", 400, malformed()),
        // Stores and operations that are not there.
        (
            "GET",
            "/v1.0/state/absent/a",
            "",
            400,
            Error("ERR_STATE_STORE_NOT_FOUND", "state store absent is not found"),
        ),
        (
            "POST",
            "/v1.0/state/absent",
            "[]",
            400,
            Error("ERR_STATE_STORE_NOT_FOUND", "state store absent is not found"),
        ),
        (
            "POST",
            "/v1.0-alpha1/state/statestore/query",
            "{}",
            500,
            Error("ERR_STATE_STORE_NOT_SUPPORTED", "doesn't support querying"),
        ),
        (
            "PATCH",
            "/a",
            "",
            404,
            Error(
                "ERR_DIRECT_INVOKE",
                "failed getting app id either from the URL path or the header dapr-app-id",
            ),
        ),
        (
            "GET",
            "/v1.0/nothing",
            "",
            404,
            Error(
                "ERR_DIRECT_INVOKE",
                "failed getting app id either from the URL path or the header dapr-app-id",
            ),
        ),
        ("GET", "/", "", 404, Error("ERR_DIRECT_INVOKE", "")),
    ];
    for (method, path, body, status, expected) in cases {
        let path = if path.starts_with("/v1.0") || path == "/" || path.starts_with("//") {
            path.to_owned()
        } else {
            format!("{STORE}{path}")
        };
        // A guest sees the same; its client takes no double slashes at the beginning and no raw bar.
        let inside = (!path.starts_with("//") && !path.contains('|') && path != "/")
            .then(|| host.send(method, &format!("/dapr{path}"), &[], body.as_bytes()));
        let outside = host.dapr(method, &path, &[], body);
        for (place, answer) in [("inside", inside), ("outside", Some(outside))] {
            let Some(answer) = answer else { continue };
            let shown = format!("{place}: {method} {path} {body}: {} {}", answer.status, answer.text());
            assert_eq!(answer.status, status, "{shown}");
            match &expected {
                Empty => assert!(answer.body.is_empty(), "{shown}"),
                Json(expected) => {
                    assert_eq!(answer.header("content-type"), Some("application/json"), "{shown}");
                    let mut found = answer.json();
                    // Etags are opaque.
                    for entry in found.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
                        let etag = entry.remove("etag");
                        assert_eq!(etag.is_some(), entry.contains_key("data"), "{shown}");
                    }
                    assert_eq!(found, *expected, "{shown}");
                }
                Error(code, message) => {
                    let found = answer.json();
                    assert_eq!(found["errorCode"], *code, "{shown}");
                    assert!(
                        found["message"].as_str().is_some_and(|found| found.contains(message)),
                        "{shown}"
                    );
                }
            }
        }
    }
    assert_ne!(etag("a"), etag("y"));
    host.stop();
}

#[test]
fn newer_errors_have_details() {
    let setting = Setting::with_manifest(MANIFEST);
    let host = setting.up(&[]);
    let kinds = |details: &Value| -> Vec<String> {
        let kind = |detail: &Value| detail["@type"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
        details.as_array().unwrap().iter().map(kind).collect()
    };
    let cases = [
        ("GET", "/v1.0/state/absent/a", "DAPR_STATE_NOT_FOUND", vec!["ErrorInfo", "ResourceInfo"]),
        (
            "GET",
            "/v1.0/state/statestore/a%7C%7Cb",
            "DAPR_STATE_ILLEGAL_KEY",
            vec!["ErrorInfo", "ResourceInfo", "BadRequest"],
        ),
        (
            "PUT",
            "/v1.0-alpha1/state/statestore/query",
            "DAPR_STATE_QUERYING_NOT_SUPPORTED",
            vec!["ErrorInfo", "ResourceInfo"],
        ),
    ];
    for (method, path, reason, expected) in cases {
        let error = host.dapr(method, path, &[], "").json();
        assert_eq!(kinds(&error["details"]), expected, "{error}");
        let info = &error["details"][0];
        assert_eq!((&info["reason"], &info["domain"]), (&json!(reason), &json!("dapr.io")), "{error}");
        assert!(info["metadata"]["appID"].is_string(), "{error}");
    }
    host.stop();
}

#[test]
fn etags_guard_against_lost_updates() {
    let setting = Setting::with_manifest(MANIFEST);
    let host = setting.up(&[]);
    let save = |value: u32, etag: &str| {
        host.dapr("POST", STORE, &[], &json!([{"key": "k", "value": value, "etag": etag}]).to_string())
    };
    let read = || host.dapr("GET", &format!("{STORE}/k"), &[], "");
    let delete = |etag: &str| host.dapr("DELETE", &format!("{STORE}/k"), &[("if-match", etag)], "");
    assert_eq!(host.dapr("POST", STORE, &[], r#"[{"key":"k","value":1}]"#).status, 204);
    let old = read().header("etag").unwrap().to_owned();
    assert_eq!(save(2, &old).status, 204);
    let new = read().header("etag").unwrap().to_owned();
    assert_ne!(old, new);
    let cases = [
        (save(3, &old), "ERR_STATE_SAVE"),
        (delete(&old), "ERR_STATE_DELETE"),
        (save(3, "never given"), "ERR_STATE_SAVE"),
        (delete("never given"), "ERR_STATE_DELETE"),
    ];
    for (refused, code) in cases {
        let error = refused.json();
        assert_eq!((refused.status, &error["errorCode"]), (409, &json!(code)), "{error}");
        assert!(
            error["message"].as_str().unwrap().contains("possible etag mismatch. error from state store"),
            "{error}"
        );
    }
    assert_eq!(read().json(), json!(2));
    assert_eq!(delete(&new).status, 204);
    assert_eq!(read().status, 204);
    // The key is gone, and with it every etag.
    assert_eq!(save(4, &new).status, 409);
    host.stop();
}

#[test]
fn values_expire() {
    let setting = Setting::with_manifest(MANIFEST);
    let host = setting.up(&[]);
    let read = |key: &str| host.dapr("GET", &format!("{STORE}/{key}"), &[], "");
    let body = json!([
        {"key": "body", "value": 1, "metadata": {"ttlInSeconds": "1"}},
        {"key": "long", "value": 1, "metadata": {"ttlInSeconds": "1000"}},
        {"key": "never", "value": 1},
    ]);
    assert_eq!(host.dapr("POST", STORE, &[], &body.to_string()).status, 204);
    assert_eq!(
        host.dapr(
            "POST",
            &format!("{STORE}?metadata.ttlInSeconds=1"),
            &[],
            r#"[{"key":"query","value":1,"metadata":{"ttlInSeconds":"1000"}}]"#
        )
        .status,
        204
    );
    let transaction = json!({"operations": [{"operation": "upsert", "request": {"key": "transaction", "value": 1, "metadata": {"ttlInSeconds": "1"}}}]});
    assert_eq!(host.dapr("POST", &format!("{STORE}/transaction"), &[], &transaction.to_string()).status, 204);
    let expires = read("long").header("metadata.ttlexpiretime").map(str::to_owned);
    assert!(expires.is_some_and(|time| time.starts_with("20") && time.ends_with('Z')));
    assert_eq!(read("never").header("metadata.ttlexpiretime"), None);
    for key in ["body", "query", "transaction"] {
        eventually("the value to expire", || (read(key).status == 204).then_some(()));
    }
    // -1 takes the time to live away.
    assert_eq!(
        host.dapr("POST", STORE, &[], r#"[{"key":"long","value":2,"metadata":{"ttlInSeconds":"-1"}}]"#)
            .status,
        204
    );
    assert_eq!(read("long").header("metadata.ttlexpiretime"), None);
    for (key, value) in [("long", 2), ("never", 1)] {
        assert_eq!((read(key).status, read(key).json()), (200, json!(value)));
    }
    host.stop();
}

#[test]
fn a_guest_without_a_grant_is_refused() {
    let setting = Setting::with_manifest(MANIFEST);
    let host = setting.up(&[]);
    for (method, path, body) in [
        ("GET", "/dapr/v1.0/state/statestore/k", ""),
        ("POST", "/dapr/v1.0/state/statestore", "[]"),
        ("DELETE", "/dapr/v1.0/state/statestore/k", ""),
        ("POST", "/dapr/v1.0/state/statestore/bulk", r#"{"keys":["k"]}"#),
        ("POST", "/dapr/v1.0/state/statestore/transaction", r#"{"operations":[]}"#),
    ] {
        let refused = host.send(method, path, &[("host", "denied.test")], body.as_bytes());
        let error = refused.json();
        assert_eq!(
            (refused.status, &error["errorCode"]),
            (403, &json!("ERR_PERMISSION_DENIED")),
            "{method} {path}"
        );
        assert!(error["message"].as_str().unwrap().contains("--grant state=statestore"), "{error}");
    }
    host.stop();
}

/// Keys of the apps inside and of programs outside do not meet.
#[test]
fn programs_outside_have_keys_of_their_own() {
    let setting = Setting::with_manifest(MANIFEST);
    let host: Host = setting.up(&[]);
    assert_eq!(host.dapr("POST", STORE, &[], r#"[{"key":"k","value":"outside"}]"#).status, 204);
    assert_eq!(host.get(&format!("/dapr{STORE}/k")).status, 204);
    host.stop();
}
