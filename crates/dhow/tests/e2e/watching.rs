//! What an operator sees: counts, health, and the story of each failure.

use crate::support::{Setting, eventually, http};
use serde_json::Value;

#[test]
fn counts_health_and_logs_tell_what_happened() {
    let setting = Setting::with_manifest(
        r#"
        [apps.good]
        module = `http-hello`
        routes = ["/good"]
        [apps.bad]
        module = `misbehave`
        routes = ["/"]
        limits = { timeout = "300ms" }
        "#,
    );
    let mut host = setting.up(&["--log-format", "json"]);
    let management = host.management.unwrap();
    for (method, path, status, text) in [
        ("GET", "/healthz", 200, "ok"),
        ("HEAD", "/healthz", 200, ""),
        ("POST", "/healthz", 405, ""),
        ("GET", "/absent", 404, "try /healthz or /metrics"),
    ] {
        let answer = http::send(management, method, path, &[], b"");
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(answer.text().contains(text), "{method} {path}: {}", answer.text());
    }
    let mut client = host.client();
    for _ in 0..25 {
        assert_eq!(client.send("GET", "/good", &[], b"").status, 200);
    }
    let trace_id = "0af7651916cd43dd8448eb211c80319c";
    let traceparent = format!("00-{trace_id}-b7ad6b7169203331-01");
    for (path, status) in [("/ok", 200), ("/trap", 500), ("/never", 500), ("/loop", 504), ("/status", 404)] {
        let answer = host.send("GET", path, &[("traceparent", &traceparent)], b"");
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    let cases = [
        ("dhow_invocations_total", "good", 25.0),
        ("dhow_invocation_failures_total", "good", 0.0),
        ("dhow_invocations_running", "good", 0.0),
        ("dhow_invocation_duration_seconds_count", "good", 25.0),
        ("dhow_invocations_total", "bad", 5.0),
        ("dhow_invocation_failures_total", "bad", 3.0),
        ("dhow_invocations_running", "bad", 0.0),
        ("dhow_invocation_duration_seconds_count", "bad", 5.0),
    ];
    for (name, app, expected) in cases {
        // An invocation is over a moment after its client has the answer.
        eventually(name, || (host.metric(name, app) == expected).then_some(()));
    }
    let metrics = http::get(management, "/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"), "{metrics:?}");

    for reason in ["unreachable", "without setting a response", "did not finish within"] {
        let line = host.line(|line| line.starts_with('{') && line.contains(reason));
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (line["app_id"].as_str(), line["trace_id"].as_str()),
            (Some("bad"), Some(trace_id)),
            "{line}"
        );
        assert_eq!(line["level"], "ERROR", "{line}");
        assert!(line["message"].as_str().unwrap().contains(reason), "{line}");
    }
    host.stop();
}
