//! Guests that loop, flood, trap or lie: their callers get an error, and nobody else notices.

use crate::support::{Host, Setting, eventually, http, http::Client};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const MANIFEST: &str = r#"
    [apps.good]
    module = `http-hello`
    routes = ["/good"]
    [apps.bad]
    module = `misbehave`
    routes = ["/"]
    limits = { timeout = "1s", memory = "32MiB", response_body = "4MiB", request_body = "1MiB", host_calls = 64 }
    grants = { http = ["127.0.0.1:*"] }
    [apps.echo]
    module = `http-echo`
    routes = ["/echo", "/count"]
    limits = { request_body = "1MiB" }
    [apps.cgi]
    module = `p1-command`
    routes = ["/cgi"]
    limits = { request_body = "1MiB" }
    [apps.spin]
    module = "spin.wat"
    routes = ["/spin"]
    limits = { timeout = "300ms" }
    [apps.spin-start]
    module = "spin-start.wat"
    routes = ["/start"]
    limits = { timeout = "300ms" }
    [apps.table]
    module = "table.wat"
    routes = ["/table"]
    limits = { timeout = "5s" }
    [apps.stack]
    module = "stack.wat"
    routes = ["/deep"]
    [apps.files]
    module = "files.wat"
    routes = ["/files"]
    dirs = [{ host = "files", guest = "/d" }]
    limits = { handles = 50 }
"#;

/// An answer of the healthy app that takes longer than this is an app that was harmed.
const PROMPT: Duration = Duration::from_secs(2);

fn setting() -> Setting {
    let setting = Setting::with_manifest(MANIFEST);
    setting.file("spin.wat", br#"(module (func (export "_start") (loop (br 0))))"#);
    setting
        .file("spin-start.wat", br#"(module (func $f (loop (br 0))) (start $f) (func (export "_start")))"#);
    setting.file("stack.wat", br#"(module (func $f (export "_start") (call $f)))"#);
    // Grows until it is refused, and counts that as the end of the world.
    let table = r#"
        (module (table $t 1 funcref)
          (func (export "_start")
            (loop (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
            unreachable))"#;
    setting.file("table.wat", table.as_bytes());
    // Opens one file again and again, and is content with 500.
    let files = r#"
        (module
          (import "wasi_snapshot_preview1" "path_open" (func $open
            (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "file")
          (func (export "_start") (local $left i32)
            (local.set $left (i32.const 500))
            (loop
              (if (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 0)
                              (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16))
                (then unreachable))
              (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))"#;
    setting.file("files.wat", files.as_bytes());
    setting.file("files/file", b"");
    setting
}

/// Does something to a host whose healthy app is asked all the while, and answers promptly.
fn while_others_are_served(host: &Host, work: impl FnOnce()) {
    let (ended, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let addr = host.addr;
    thread::scope(|scope| {
        let healthy = scope.spawn(|| {
            let mut client = Client::connect(addr);
            let mut worst = Duration::ZERO;
            while !ended.load(Ordering::Relaxed) {
                let since = Instant::now();
                let answer = client.send("GET", "/good", &[], b"");
                assert_eq!((answer.status, answer.text().as_str()), (200, "hello\n"));
                worst = worst.max(since.elapsed());
                served.fetch_add(1, Ordering::Relaxed);
            }
            worst
        });
        // Whatever happens to the work, the other thread has to end.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let before = served.load(Ordering::Relaxed);
        eventually("requests afterwards", || {
            (healthy.is_finished() || served.load(Ordering::Relaxed) > before + 20).then_some(())
        });
        ended.store(true, Ordering::Relaxed);
        let worst = healthy.join().expect("the healthy app answered every request");
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        assert!(worst < PROMPT, "the healthy app once took {worst:?}");
    });
}

#[test]
fn a_failing_guest_costs_its_caller_an_error() {
    let setting = setting();
    let host = setting.up(&[]);
    // Path, status, what is said.
    let cases = [
        ("/loop", 504, "did not answer within 1 s"),
        ("/hang", 504, "did not answer within 1 s"),
        ("/spin", 504, "did not answer within 0.3 s"),
        ("/start", 504, "did not answer within 0.3 s"),
        ("/memory", 500, "after it reached its memory limit"),
        ("/table", 500, "after it reached its table limit"),
        // Its language keeps a stack of its own in memory, and that one ends first.
        ("/stack", 500, "out of bounds"),
        ("/deep", 500, "call stack exhausted"),
        ("/trap", 500, "unreachable"),
        ("/panic", 500, "unreachable"),
        ("/exit", 500, "exited with code"),
        ("/never", 500, "returned without setting a response"),
        ("/handles", 500, "more handles open than it may"),
        ("/files", 500, "more handles open than it may"),
        ("/ok", 200, "ok\n"),
    ];
    while_others_are_served(&host, || {
        // All at once, three times.
        thread::scope(|scope| {
            for (path, status, said) in cases.iter().cycle().take(cases.len() * 3) {
                let addr = host.addr;
                scope.spawn(move || {
                    let answer = http::get(addr, path);
                    assert_eq!(answer.status, *status, "{path}: {}", answer.text());
                    assert!(answer.text().contains(said), "{path}: {}", answer.text());
                });
            }
        });
        for app in ["bad", "spin", "spin-start", "table", "stack"] {
            eventually("every instance to end", || {
                (host.metric("dhow_invocations_running", app) == 0.0).then_some(())
            });
        }
    });
    let twice = host.get("/twice");
    assert!(matches!((twice.status, twice.text().as_str()), (200, "once\n") | (500, _)), "{twice:?}");
    host.stop();
}

#[test]
fn half_an_answer_does_not_look_like_a_whole_one() {
    let setting = setting();
    let host = setting.up(&[]);
    while_others_are_served(&host, || {
        for (path, begins) in [("/spin-start", "first"), ("/big?bytes=1073741824", "xxxx")] {
            let mut client = host.client();
            client.write(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).unwrap();
            assert_eq!(client.head().unwrap().status, 200, "{path}");
            let mut body = Vec::new();
            let end = loop {
                match client.chunk() {
                    Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                    end => break end,
                }
            };
            assert!(end.is_err(), "{path} ended as if {} bytes were all", body.len());
            assert!(
                body.starts_with(begins.as_bytes()) && body.len() <= 4 << 20,
                "{path}: {} bytes",
                body.len()
            );
        }
        // It may have trapped before anything was on its way.
        let answer = http::try_send(host.addr, "GET", "/trap-mid-response", &[], b"");
        assert!(answer.as_ref().map_or(true, |answer| answer.status == 500), "{answer:?}");
    });
    // A client that goes away in the middle takes nothing with it.
    let mut client = host.client();
    client.write(b"GET /spin-start HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert_eq!(client.chunk_after_head(), b"first");
    drop(client);
    eventually("the guest to end", || (host.metric("dhow_invocations_running", "bad") == 0.0).then_some(()));
    host.stop();
}

#[test]
fn a_failure_is_counted_once_whatever_the_abi_is() {
    let app = |id: &str| {
        let module = if id.ends_with(".wat") { format!("\"{id}\"") } else { format!("`{id}`") };
        let name = id.trim_end_matches(".wat");
        format!(
            "[apps.{name}]\nmodule = {module}\nroutes = [\"/{name}\"]\nlimits = {{ response_body = 5 }}\n"
        )
    };
    let apps = ["http-hello", "p3-http", "p1-command", "quiet.wat"];
    let setting = Setting::with_manifest(&apps.map(app).concat());
    // Does not look whether it could write.
    let quiet = r#"
        (module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "\08\00\00\00\0b\00\00\00hello world")
          (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))))"#;
    setting.file("quiet.wat", quiet.as_bytes());
    let host = setting.up(&[]);
    for app in apps.map(|id| id.trim_end_matches(".wat")) {
        // Of one whose head was on its way when it became too large, the client gets no whole answer.
        let answer = http::try_send(host.addr, "GET", &format!("/{app}"), &[], b"");
        assert!(answer.as_ref().map_or(true, |answer| answer.status == 500), "{app}: {answer:?}");
        for (name, expected) in [
            ("dhow_invocations_running", 0.0),
            ("dhow_invocations_total", 1.0),
            ("dhow_invocation_failures_total", 1.0),
        ] {
            eventually(name, || (host.metric(name, app) == expected).then_some(()));
        }
    }
    host.stop();
}

#[test]
fn half_a_response_of_wasi_0_3_is_no_whole_one() {
    let setting = Setting::with_manifest(
        r#"
        [apps.cut]
        module = `p3-http`
        routes = ["/cut"]
        [apps.hang]
        module = `p3-http`
        routes = ["/hang"]
        limits = { timeout = "1s" }
        "#,
    );
    let host = setting.up(&[]);
    for app in ["cut", "hang"] {
        let mut client = host.client();
        client.write(format!("GET /{app} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).unwrap();
        let answer = client.response("GET");
        assert!(answer.is_err(), "{app}: half a response was told as a whole one: {answer:?}");
        eventually("the failure", || {
            (host.metric("dhow_invocation_failures_total", app) == 1.0).then_some(())
        });
    }
    host.stop();
}

#[test]
fn requests_that_are_too_large_are_refused() {
    let setting = setting();
    let host = setting.up(&[]);
    while_others_are_served(&host, || {
        for path in ["/ok", "/count", "/echo", "/cgi"] {
            // Announced: refused before a byte of it was sent.
            let mut client = host.client();
            client
                .write(
                    format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 1073741824\r\n\r\n")
                        .as_bytes(),
                )
                .unwrap();
            let refused = client.response("POST").unwrap();
            assert_eq!(refused.status, 413, "{path}: {}", refused.text());
            assert!(
                refused.text().contains("more than the 1048576 bytes allowed"),
                "{path}: {}",
                refused.text()
            );
            assert!(client.is_closed(), "{path}: what follows is no request");
        }
        for path in ["/count", "/cgi"] {
            // Not announced: taken up to the limit, and an error then.
            let mut client = host.client();
            client
                .write(
                    format!("POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
                        .as_bytes(),
                )
                .unwrap();
            let piece = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
            let sent = (0..16384).take_while(|_| client.write(&piece).is_ok()).count();
            assert!(sent < 16384, "{path}: all of a gigabyte was taken");
            // The answer may be lost when the connection is closed with bytes under way.
            if let Ok(refused) = client.response("POST") {
                assert_eq!(refused.status, 413, "{path}: {refused:?}");
            }
            // A little more than allowed: what follows is read, so the answer arrives.
            let mut client = host.client();
            let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
            client.write(head.as_bytes()).unwrap();
            (0..17).for_each(|_| client.write(&piece).unwrap());
            client.write(b"0\r\n\r\n").unwrap();
            let refused = client.response("POST").unwrap();
            assert_eq!(refused.status, 413, "{path}: {refused:?}");
        }
    });
    assert!(host.memory() < 1 << 30, "{} bytes", host.memory());
    host.stop();
}

#[test]
fn outgoing_requests_are_bounded() {
    let setting = setting();
    let host = setting.up(&[]);
    // A server that takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    while_others_are_served(&host, || {
        let answer = host.get(&format!("/requests?n=100000&url={url}"));
        assert!(matches!(answer.status, 200 | 500 | 504), "{}", answer.text());
        eventually("the guest to end", || {
            (host.metric("dhow_invocations_running", "bad") == 0.0).then_some(())
        });
    });
    let connections = accepted(&silent);
    assert!(connections <= 64, "{connections} connections at once");
    host.stop();
}

fn accepted(listener: &TcpListener) -> usize {
    listener.set_nonblocking(true).unwrap();
    std::iter::from_fn(|| listener.accept().ok()).count()
}

#[test]
fn more_invocations_than_an_app_takes_are_refused() {
    let setting = Setting::with_manifest(
        "[apps.full]\nmodule = `misbehave`\nroutes = [\"/\"]\nlimits = { concurrency = 1, queue = 1 }\n",
    );
    let host = setting.up(&[]);
    let addr = host.addr;
    let asked: Vec<_> = (0..8).map(|_| thread::spawn(move || http::get(addr, "/hang?ms=2000"))).collect();
    let answers: Vec<_> = asked.into_iter().map(|asked| asked.join().unwrap()).collect();
    let (served, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert!(served.len() >= 2 && refused.len() >= 4, "{} served, {} refused", served.len(), refused.len());
    for answer in &refused {
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")), "{answer:?}");
        assert!(answer.text().contains("overloaded: 1 invocations running, 1 waiting"), "{}", answer.text());
    }
    assert_eq!(host.metric("dhow_invocations_refused_total", "full"), refused.len() as f64);
    assert_eq!(host.get("/ok").status, 200);
    host.stop();
}

#[test]
fn a_guest_that_prints_without_end_fills_no_memory() {
    let setting = Setting::with_manifest(
        "[apps.chatty]\nmodule = `misbehave`\nroutes = [\"/\"]\n[apps.good]\nmodule = `http-hello`\nroutes = [\"/good\"]\n",
    );
    let host = setting.up(&["--log", "warn"]);
    assert_eq!(host.get("/print?bytes=1000").status, 200);
    let before = host.memory();
    while_others_are_served(&host, || {
        let answer = host.get("/print?bytes=100000000");
        assert_eq!((answer.status, answer.text().as_str()), (200, "printed\n"));
    });
    let more = host.memory().saturating_sub(before);
    assert!(more < 64 << 20, "{more} bytes more");
    let logs = setting.run(&["logs", "chatty", "-n", "3"]);
    assert_eq!((logs.code, logs.out.lines().count()), (Some(0), 3), "{logs:?}");
    host.stop();
}
