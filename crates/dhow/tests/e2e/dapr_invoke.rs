//! Dapr's service invocation between apps of one host, its metadata and health, and who may call it.

use crate::support::{Setting, eventually, http};
use serde_json::{Value, json};

const MANIFEST: &str = r#"
    [apps.caller]
    module = `outbound`
    routes = ["/"]
    grants = { invoke = ["callee", "mis*", "circle", "absent"] }
    [apps.stranger]
    module = `outbound`
    routes = ["/"]
    hosts = ["stranger.test"]
    [apps.circle]
    module = `outbound`
    grants = { invoke = ["circle"] }
    [apps.alone]
    module = `outbound`
    routes = ["/"]
    hosts = ["alone.test"]
    limits = { concurrency = 1, queue = 1, timeout = "1s" }
    [apps.callee]
    module = `http-echo`
    [apps.misbehave]
    module = `misbehave`
    limits = { timeout = "500ms" }
"#;

const INVOKE: &str = "/v1.0/invoke/callee/method";

#[test]
fn invocations_pass_everything_on() {
    let setting = Setting::with_manifest(MANIFEST);
    let host = setting.up(&[]);
    // YWJj… is dapr-app-id:callee.
    let basic = ("authorization", "Basic ZGFwci1hcHAtaWQ6Y2FsbGVl");
    // Path and headers on the port, path at the callee.
    let cases: [(&str, http::Headers<'_>, &str); 8] = [
        ("/v1.0/invoke/callee/method/a/b", &[], "/a/b"),
        ("/v1.0/invoke/callee/method/", &[], "/"),
        ("/v1.0/invoke/callee/method", &[], "/"),
        ("/v1.0/invoke/callee.default/method/a", &[], "/a"),
        ("/v1.0/invoke/callee/method/a%2Fb/%20", &[], "/a%2Fb/%20"),
        ("//v1.0//invoke//callee/method/a", &[], "/a"),
        ("/a/b", &[("dapr-app-id", "callee")], "/a/b"),
        ("/a/b", &[basic], "/a/b"),
    ];
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
        for (path, headers, expected) in cases {
            let all =
                [headers, &[("x-mine", "1"), ("content-type", "text/x"), ("dapr-api-token", "t")]].concat();
            let answer = host.dapr(method, &format!("{path}?q=%2F&r"), &all, "12345");
            assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
            let seen = answer.json();
            assert_eq!(
                (&seen["method"], &seen["path"]),
                (&json!(method), &json!(expected)),
                "{path}: {seen}"
            );
            assert_eq!(
                (&seen["query"], &seen["bodyLength"]),
                (&json!("q=%2F&r"), &json!(5)),
                "{path}: {seen}"
            );
            let headers = &seen["headers"];
            for (name, value) in
                [("x-mine", "1"), ("content-type", "text/x"), ("dapr-callee-app-id", "callee")]
            {
                assert_eq!(headers[name], json!([value]), "{path}: {seen}");
            }
            for name in ["dapr-app-id", "dapr-api-token"] {
                assert_eq!(headers[name], Value::Null, "{path}: {seen}");
            }
            assert!(headers["dapr-caller-app-id"].is_array(), "{path}: {seen}");
        }
    }
    for status in [201, 302, 400, 404, 409, 500, 503] {
        let answer = host.dapr("GET", &format!("{INVOKE}/status/{status}"), &[], "");
        assert_eq!((answer.status, answer.body.len()), (status, 0), "the callee's own answer, unchanged");
    }
    host.stop();
}

#[test]
fn bodies_stream_through_an_invocation() {
    let setting = Setting::with_manifest(MANIFEST);
    let host = setting.up(&[]);
    let mut client = http::Client::connect(host.api.unwrap());
    client
        .write(
            format!("POST {INVOKE}/echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
                .as_bytes(),
        )
        .unwrap();
    client.write(b"5\r\nfirst\r\n").unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    assert_eq!(client.chunk().unwrap().as_deref(), Some(&b"first"[..]));
    client.write(b"4\r\nlast\r\n0\r\n\r\n").unwrap();
    assert_eq!(client.chunk().unwrap().as_deref(), Some(&b"last"[..]));
    assert_eq!(client.chunk().unwrap(), None);
    host.stop();
}

#[test]
fn apps_invoke_each_other_inside_the_host() {
    let setting = Setting::with_manifest(MANIFEST);
    let host = setting.up(&[]);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let seen = host.send("POST", &format!("/dapr{INVOKE}/x?y"), &[("traceparent", trace)], b"123").json();
    assert_eq!(
        (&seen["path"], &seen["query"], &seen["bodyLength"]),
        (&json!("/x"), &json!("y"), &json!(3)),
        "{seen}"
    );
    assert_eq!(seen["headers"]["dapr-caller-app-id"], json!(["caller"]), "{seen}");
    let traceparent = seen["headers"]["traceparent"][0].as_str().unwrap();
    assert!(traceparent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "the same trace: {seen}");

    // Host name, path, status, error code, message.
    let denied = "has no grant to invoke app \"callee\"";
    let cases = [
        ("any.test", "/dapr/v1.0/invoke/callee/method/status/404", 404, "", ""),
        (
            "any.test",
            "/dapr/v1.0/invoke/absent/method/x",
            500,
            "ERR_DIRECT_INVOKE",
            "failed to invoke, id: absent, err: ",
        ),
        ("any.test", "/dapr/v1.0/invoke/misbehave/method/trap", 500, "ERR_DIRECT_INVOKE", "unreachable"),
        (
            "any.test",
            "/dapr/v1.0/invoke/misbehave/method/never",
            500,
            "ERR_DIRECT_INVOKE",
            "without setting a response",
        ),
        (
            "any.test",
            "/dapr/v1.0/invoke/misbehave/method/loop",
            500,
            "ERR_DIRECT_INVOKE",
            "did not answer within 0.5 s",
        ),
        ("any.test", "/dapr/v1.0/invoke/misbehave/method/ok", 200, "", ""),
        ("stranger.test", "/dapr/v1.0/invoke/callee/method/x", 403, "ERR_PERMISSION_DENIED", denied),
        ("stranger.test", "/dapr/v1.0/invoke/stranger/method/absent", 404, "", ""),
    ];
    for (name, path, status, code, message) in cases {
        let answer = host.send("GET", path, &[("host", name)], b"");
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        if !code.is_empty() {
            let error = answer.json();
            assert_eq!(error["errorCode"], code, "{path}: {error}");
            assert!(error["message"].as_str().unwrap().contains(message), "{path}: {error}");
        }
    }
    let unknown = host.dapr("GET", "/v1.0/invoke/absent/method/x", &[], "");
    assert_eq!((unknown.status, &unknown.json()["errorCode"]), (500, &json!("ERR_DIRECT_INVOKE")));
    host.stop();
}

#[test]
fn apps_that_call_in_a_circle_are_stopped() {
    let setting = Setting::with_manifest(MANIFEST);
    let host = setting.up(&[]);
    let step = "/dapr/v1.0/invoke/circle/method";
    let fits = host.get(&format!("{}/none", step.repeat(5)));
    assert_eq!(fits.status, 404, "{}", fits.text());
    let refused = host.get(&format!("{}/none", step.repeat(100)));
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert!(refused.text().contains("do apps call each other in a circle?"), "{}", refused.text());

    // One turn for all, and the app that has it waits for another: its deadline ends that.
    let stuck = host.send("GET", "/dapr/v1.0/invoke/alone/method/x", &[("host", "alone.test")], b"");
    assert!(matches!(stuck.status, 500 | 504), "{}", stuck.text());
    eventually("the turn to come back", || {
        (host.send("GET", "/none", &[("host", "alone.test")], b"").status == 404).then_some(())
    });
    host.stop();
}

#[test]
fn metadata_and_health_tell_about_the_caller() {
    let setting = Setting::with_manifest(MANIFEST);
    let host = setting.up(&[]);
    for (path, status) in [
        ("/v1.0/healthz", 204),
        ("/v1.0/healthz/", 204),
        ("/v1.0/healthz/outbound", 204),
        ("/v1.0/healthz?appid=caller", 204),
        ("/v1.0/healthz?appid=other", 500),
    ] {
        let answer = host.get(&format!("/dapr{path}"));
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        if status == 500 {
            let expected =
                json!({"errorCode": "ERR_HEALTH_APPID_NOT_MATCH", "message": "dapr app-id does not match"});
            assert_eq!(answer.json(), expected);
        }
    }
    assert_eq!(host.send("PUT", "/dapr/v1.0/metadata/color", &[], b"blue").status, 204);
    let metadata = host.get("/dapr/v1.0/metadata").json();
    assert_eq!(
        (&metadata["id"], &metadata["extended"]["color"]),
        (&json!("caller"), &json!("blue")),
        "{metadata}"
    );
    let components = metadata["components"].as_array().unwrap();
    let store = components.iter().find(|component| component["name"] == "statestore").unwrap();
    assert_eq!((&store["type"], &store["version"]), (&json!("state.sqlite"), &json!("v1")));
    for capability in ["ETAG", "TRANSACTIONAL", "TTL"] {
        assert!(store["capabilities"].as_array().unwrap().contains(&json!(capability)), "{store}");
    }
    let outside = host.dapr("GET", "/v1.0/metadata", &[], "").json();
    assert_eq!(
        outside["extended"]["color"],
        Value::Null,
        "what one app says about itself is not said by another"
    );
    host.stop();
}

#[test]
fn blocks_that_are_not_there_say_so() {
    let setting = Setting::with_manifest(MANIFEST);
    let host = setting.up(&[]);
    for (method, path, block) in [
        ("POST", "/v1.0/actors/t/i/method/m", "actors"),
        ("PUT", "/v1.0-alpha1/crypto/c/encrypt", "crypto"),
        ("POST", "/v1.0/workflows/w/n/start", "workflows"),
        ("POST", "/v1.0-alpha2/conversation/llm/converse", "conversation"),
    ] {
        let answer = host.dapr(method, path, &[], "{}");
        let error = answer.json();
        assert_eq!(
            (answer.status, &error["errorCode"]),
            (501, &json!("ERR_API_UNIMPLEMENTED")),
            "{path}: {error}"
        );
        assert!(error["message"].as_str().unwrap().contains(&format!("{block:?}")), "{path}: {error}");
    }
    host.stop();
}

#[test]
fn the_token_is_asked_for_where_it_is_set() {
    let setting = Setting::with_manifest(MANIFEST).env("DAPR_API_TOKEN", "s3cret");
    let host = setting.up(&["--log", "debug"]);
    let cases: [(&str, http::Headers<'_>, u16); 10] = [
        ("/v1.0/metadata", &[], 401),
        ("/v1.0/metadata", &[("dapr-api-token", "wrong!")], 401),
        ("/v1.0/metadata", &[("dapr-api-token", "")], 401),
        ("/v1.0/metadata", &[("dapr-api-token", "s3cret")], 200),
        ("/v1.0/healthz", &[], 204),
        ("/v1.0/healthz/", &[], 204),
        ("/v1.0/healthz/x", &[("dapr-app-id", "callee")], 401),
        ("/v1.0/healthz-x", &[("dapr-app-id", "callee")], 401),
        ("/v1.0/invoke/callee/method/x", &[], 401),
        ("/v1.0/invoke/callee/method/x", &[("dapr-api-token", "s3cret")], 200),
    ];
    for (path, headers, status) in cases {
        let answer = host.dapr("GET", path, headers, "");
        assert_eq!(answer.status, status, "{path} {headers:?}: {}", answer.text());
        if status == 401 {
            assert_eq!(answer.text().trim_end(), "invalid api token");
            assert!(answer.header("content-type").unwrap().starts_with("text/plain"), "{answer:?}");
        }
        assert!(!answer.text().contains("s3cret"), "the callee does not get the token: {}", answer.text());
    }
    // Guests are inside: they are known by their app-id.
    assert_eq!(host.get("/dapr/v1.0/metadata").status, 200);
    let said = host.stop();
    assert!(!said.contains("s3cret"), "{said}");
}
