//! proxy-wasm modules made with the SDK, as apps and as filters.

use crate::support::{Host, Setting, eventually, guest};

const SDK: &str = r#"
    [apps.sdk]
    module = `proxy-sdk`
    routes = ["/"]
    grants = { invoke = ["ticking", "echo"] }
    [apps.ticking]
    module = `proxy-sdk`
    routes = ["/ticking", "/ticks", "/job"]
    config = { plugin = "tick" }
    [apps.echo]
    module = `http-echo`
"#;

#[test]
fn a_module_made_with_the_sdk_answers() {
    let host = Setting::with_manifest(SDK).up(&[]);
    // Twice: by a fresh instance, and by one that was used before.
    for _ in 0..2 {
        for (target, expected) in [
            ("/", "hello"),
            ("/shared", r#"Ok(()) Err(CasMismatch) one"#),
            ("/property?plugin_name", r#"Some("sdk")"#),
            ("/property?request.method", r#"Some("GET")"#),
            ("/property?request.headers.x-one", r#"Some("1")"#),
            ("/property?own", r#"Some("mine")"#),
            ("/property?nothing", "None"),
            ("/foreign", "Err(NotFound)"),
            ("/absent", "0 [true, true] None"),
            ("/call?echo", "true 200 0 "),
            ("/call?sdk", ":path=/headers"),
            ("/call?", "refused"),
            ("/runtime", "true 204 0 "),
            ("/grpc?somewhere", "refused ParseFailure"),
            ("/grpc?127.0.0.1:1", "refused InternalFailure"),
        ] {
            let answer = host.send("GET", target, &[("x-one", "1")], b"");
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            assert!(answer.text().contains(expected), "{target}: {}", answer.text());
        }
    }
    let answer = host.send("PUT", "/headers?q", &[("x-bad", "\u{ff}")], b"");
    for line in [":method=PUT", ":path=/headers?q", ":scheme=http", ":authority=127.0.0.1", "x-bad="] {
        assert!(answer.text().contains(line), "{line}: {}", answer.text());
    }
    assert_eq!(host.send("POST", "/body", &[], b"some text").text(), "9 some text");
    let answer = host.get("/status");
    assert_eq!((answer.status, answer.header("x-one"), answer.text().as_str()), (202, Some("1"), "written"));
    assert!(host.get("/metric").text().starts_with("Ok(2) Err("));
    assert_eq!(host.get("/metric").text().split(' ').next(), Some("Ok(4)"));
    assert_eq!(host.get("/nothing").status, 404);
    for (target, status) in [("/panic", 500), ("/pause", 500), ("/close", 500), ("/", 200)] {
        assert_eq!(host.get(target).status, status, "{target}");
    }
    eventually("a second tick", || host.get("/ticks").text().contains(r"\x02").then_some(()));
    assert_eq!(host.get("/enqueue?ticking").text(), "Ok(())");
    assert_eq!(host.get("/enqueue?elsewhere").text(), "no queue");
    eventually("the job", || host.get("/job").text().contains("work").then_some(()));
    host.stop();
}

#[test]
fn a_module_calls_a_grpc_server() {
    let outside = Setting::new();
    let script = "echo $DAPR_GRPC_PORT > port.new; mv port.new port; exec sleep 1000";
    let server = outside.sidecar("shop", None, &["--", "sh", "-c", script]);
    let port = eventually("the program", || std::fs::read_to_string(outside.path().join("port")).ok());
    let granted = SDK.replace("grants = {", "grants = { http = [\"127.0.0.1\"],");
    let host = Setting::with_manifest(&granted).up(&[]);
    let call = |method: &str| {
        host.get(&format!("/grpc?127.0.0.1:{}&dapr.proto.runtime.v1.Dapr&{method}", port.trim())).text()
    };
    for _ in 0..2 {
        let answer = call("GetMetadata");
        assert!(answer.starts_with("grpc 0 ") && answer.contains("shop"), "{answer}");
        // UNIMPLEMENTED
        assert!(call("Nothing").starts_with("grpc 12"), "{}", call("Nothing"));
    }
    let stream = |method: &str| {
        host.get(&format!("/stream?127.0.0.1:{}&dapr.proto.runtime.v1.Dapr&{method}", port.trim())).text()
    };
    for _ in 0..2 {
        let answer = stream("GetMetadata");
        assert!(answer.starts_with("metadata true message ") && answer.contains("shop"), "{answer}");
        assert!(answer.ends_with("closed 0"), "{answer}");
        assert!(stream("Nothing").ends_with("closed 12"), "{}", stream("Nothing"));
    }
    host.stop();
    server.stop();
}

#[test]
fn a_module_without_a_system_answers() {
    let host = Setting::new().serve(&guest("proxy-core"), &[]);
    let answer = host.get("/some/path");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello\n"));
    assert_eq!(answer.header("x-path"), Some("/some/path"));
    host.stop();
}

#[test]
fn filters_stand_before_an_app_of_another_abi() {
    let setting = Setting::with_manifest(
        r#"
        [apps.echo]
        module = `http-echo`
        routes = ["/"]
        filters = ["one", "two"]
        [apps.one]
        module = `proxy-sdk`
        config = { plugin = "filter one" }
        [apps.two]
        module = `proxy-sdk`
        config = { plugin = "filter two" }
        "#,
    );
    let host = setting.up(&[]);
    let returned = |target: &str, body: &[u8]| {
        let answer = host.send("POST", target, &[], body);
        let marks = answer.headers.iter().filter(|(name, _)| name == "x-returned");
        (answer.status, marks.map(|(_, value)| value.clone()).collect::<Vec<_>>().join(" "), answer.text())
    };
    for _ in 0..3 {
        assert_eq!(returned("/echo", b"text"), (200, "two one".to_owned(), "text".to_owned()));
        assert_eq!(returned("/echo?change", b"text").2, "[CHANGED BY A FILTER]");
        assert_eq!(returned("/denied-by-two", b""), (403, "one".to_owned(), "denied\n".to_owned()));
        assert_eq!(returned("/denied-by-one", b""), (403, String::new(), "denied\n".to_owned()));
        assert_eq!(returned("/teapot", b"").0, 418);
        // Waits for its own request to the runtime before it lets the request through.
        assert_eq!(returned("/echo?ask", b"text").2, "text");
    }
    host.stop();
}

#[test]
fn what_an_app_does_wrong_is_not_its_filters_fault() {
    let setting = Setting::with_manifest(
        r#"
        [apps.bad]
        module = `misbehave`
        routes = ["/"]
        filters = ["one"]
        limits = { timeout = "1s" }
        [apps.one]
        module = `proxy-sdk`
        config = { plugin = "filter one" }
        "#,
    );
    let host = setting.up(&[]);
    // The filter sees whole bodies: nothing of them was sent.
    for (target, status, text) in [
        ("/spin-start", 504, "app \"bad\" did not answer within 1 s"),
        ("/trap-mid-response", 500, "app \"bad\" failed: wasm trap"),
        ("/ok", 200, "ok"),
    ] {
        let answer = host.send("GET", target, &[], b"");
        assert!(answer.status == status && answer.text().contains(text), "{target}: {answer:?}");
    }
    assert_eq!(host.metric("dhow_invocation_failures_total", "bad"), 2.0);
    assert_eq!(host.metric("dhow_invocation_failures_total", "one"), 0.0);
    host.stop();
}

#[test]
fn filters_that_are_none_are_told_with_their_place() {
    let apps = "[apps.echo]\nmodule = `http-echo`\n[apps.b]\nmodule = `http-echo`\nfilters = [FILTERS]\n";
    for (filters, expected) in [
        ("\"ecko\"", "dhow.toml:5:12: apps.b.filters: there is no app `ecko`; did you mean `echo`?"),
        ("\"b\"", "dhow.toml:5:12: apps.b.filters: an app cannot be its own filter"),
        ("\"echo\"", "dhow.toml:5:12: apps.b.filters: app \"echo\" is no filter"),
    ] {
        let ended = Setting::with_manifest(&apps.replace("FILTERS", filters)).up_fails(&[]);
        assert!(ended.err.contains(expected), "{}", ended.err);
        assert_ne!(ended.code, Some(0));
    }
}

/// Says so every 5 ms.
const TICKER: &str = r#"(module
    (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "ticks: NAME")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 1024)
    (func (export "proxy_on_context_create") (param i32 i32))
    (func (export "proxy_on_vm_start") (param i32 i32) (result i32) i32.const 1)
    (func (export "proxy_on_configure") (param i32 i32) (result i32) (call $tick (i32.const 5)) i32.eqz)
    (func (export "proxy_on_tick") (param i32) (drop (call $log (i32.const 4) (i32.const 100) (i32.const 11)))))"#;

#[test]
fn a_filter_that_is_not_trusted_any_more_ticks_no_more() {
    let setting = Setting::with_manifest(
        "[trust]\npolicy = \"policy.rego\"\n[apps.good]\nmodule = \"good.wat\"\n[apps.evil]\nmodule = \"evil.wat\"\n",
    );
    for name in ["good", "evil"] {
        setting.file(&format!("{name}.wat"), TICKER.replace("NAME", name).as_bytes());
    }
    let policy =
        |rule: &str| setting.file("policy.rego", format!("package dhow\nallow := {rule}\n").as_bytes());
    policy("true");
    let mut host = setting.up(&[]);
    let ticks = |host: &Host, name: &str| host.stderr().matches(&format!("ticks: {name}")).count();
    let more = |host: &Host, name: &str| {
        let before = ticks(host, name);
        eventually("more ticks", || (ticks(host, name) > before + 20).then_some(()));
    };
    more(&host, "good");
    more(&host, "evil");
    policy("input.app_id == \"good\"");
    host.signal(libc::SIGHUP);
    host.line(|line| line.contains("it answers nothing from now on: app \"evil\": policy"));
    // What was under way then is over when the other one has ticked for a while.
    more(&host, "good");
    let last = ticks(&host, "evil");
    more(&host, "good");
    more(&host, "good");
    assert_eq!(ticks(&host, "evil"), last);
    // Trusted again, it goes on.
    policy("true");
    host.signal(libc::SIGHUP);
    more(&host, "evil");
    host.stop();
}
