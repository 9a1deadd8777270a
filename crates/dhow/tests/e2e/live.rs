//! Versions that are updated, tried, watched and taken back while requests are under way; what is left of it after a
//! restart and a kill; who may do it; and what is refused.

use crate::support::{Ended, Host, Setting, eventually, guest, http, http::Client};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

const MANIFEST: &str = r#"
    [apps.app]
    module = "app.wasm"
    routes = ["/"]
"#;

/// A setting with the app in this version.
fn with(name: &str) -> Setting {
    let setting = Setting::with_manifest(MANIFEST);
    setting.file("app.wasm", &fs::read(guest(name)).unwrap());
    setting
}

fn update(setting: &Setting, name: &str, more: &[&str]) -> Ended {
    let from = guest(name);
    setting.run(&[&["update", "app", "--from", from.to_str().unwrap()], more].concat())
}

#[track_caller]
fn updated(setting: &Setting, name: &str, more: &[&str]) -> Ended {
    let ended = update(setting, name, more);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

fn history(setting: &Setting) -> Vec<Value> {
    let ended = setting.run(&["history", "app", "--json"]);
    let history: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
    history["history"].as_array().unwrap().clone()
}

/// Actions, versions and outcomes of the history.
fn story(setting: &Setting) -> Vec<String> {
    let told = |entry: &Value| {
        let text = |name: &str| entry[name].as_str().unwrap().to_owned();
        format!("{} {} {}", text("action"), entry["version"], text("outcome"))
    };
    history(setting).iter().map(told).collect()
}

/// What wrk measured.
struct Measured {
    requests: u64,
    p99: f64,
}

/// Asks as fast as 16 connections can until `work` is done; no request may fail.
fn under_load(addr: SocketAddr, work: impl FnOnce()) -> Measured {
    let url = format!("http://{addr}/");
    let load = Command::new("wrk")
        .args(["-t1", "-c16", "-d300s", "--timeout", "30s", "--latency", &url])
        .stdout(Stdio::piped())
        .spawn();
    let mut load = load.expect("wrk is installed: cargo xtask setup");
    // Interrupted before it listens for that, it says nothing.
    eventually("wrk to catch signals", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", load.id())).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        (caught & 1 << (libc::SIGINT - 1) != 0).then_some(())
    });
    work();
    let pid = libc::pid_t::try_from(load.id()).unwrap();
    // SAFETY: `kill` takes plain numbers, and the child is not reaped before `wait`, so its id is its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
    let mut said = String::new();
    load.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    load.wait().unwrap();
    // wrk tells of failures only where there are some.
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let line = |mark: &str| said.lines().find(|line| line.contains(mark)).unwrap_or_else(|| panic!("{said}"));
    let requests = line("requests in").split_whitespace().next().unwrap().parse().unwrap();
    let p99 = line("99%").split_whitespace().last().unwrap();
    let unit = p99.find(char::is_alphabetic).unwrap();
    let scale = match &p99[unit..] {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1000.0,
        unit => panic!("{unit}"),
    };
    Measured { requests, p99: p99[..unit].parse::<f64>().unwrap() * scale }
}

#[test]
fn a_hundred_updates_under_full_load_lose_no_request() {
    let setting = with("http-hello");
    let host = setting.up(&[]);
    // Both are compiled before anything is measured.
    updated(&setting, "http-counter", &[]);
    updated(&setting, "http-hello", &[]);
    let ask = |count: usize| {
        let mut client = host.client();
        for _ in 0..count {
            assert_eq!(client.send("GET", "/", &[], b"").status, 200);
        }
    };
    let quiet = under_load(host.addr, || ask(200));
    let busy = under_load(host.addr, || {
        for number in 0..50 {
            updated(&setting, "http-counter", &[]);
            updated(&setting, "http-hello", &[]);
            assert_eq!(host.get("/").text(), "hello\n", "{number}");
        }
    });
    assert!(quiet.requests > 200 && busy.requests > 1000, "{} {}", quiet.requests, busy.requests);
    eprintln!(
        "100 updates: {} requests, none failed; p99 {:.2} ms, without updates {:.2} ms",
        busy.requests, busy.p99, quiet.p99
    );
    assert_eq!(history(&setting).len(), 103);
    host.stop();
}

#[test]
fn requests_under_way_end_on_the_version_that_they_began_on() {
    let setting = with("misbehave");
    let host = setting.up(&[]);
    let mut slow = host.client();
    slow.write(b"GET /hang?ms=1500 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    eventually("the request", || (running(&setting) == 1).then_some(()));
    updated(&setting, "http-hello", &[]);
    assert_eq!(host.get("/ok").text(), "hello\n");
    assert_eq!(slow.response("GET").unwrap().text(), "woke up\n");
    host.stop();
}

fn running(setting: &Setting) -> i64 {
    let listed: Value = serde_json::from_str(&setting.run(&["ps", "--json"]).out).unwrap();
    listed["hosts"][0]["underWay"].as_i64().unwrap()
}

#[test]
fn a_version_is_tried_by_weight_and_header_then_promoted_or_taken_back() {
    let setting = with("http-hello");
    let host = setting.up(&[]);
    let count = |headers: http::Headers<'_>| {
        let mut client = host.client();
        let answers = (0..200).map(|_| client.send("GET", "/", headers, b"").text());
        answers.filter(|answer| answer == "1\n").count()
    };
    let canary: http::Headers<'_> = &[("x-canary", "1")];
    updated(&setting, "http-counter", &["--weight", "10%", "--header", "x-canary=1"]);
    assert_eq!((count(&[]), count(canary), count(&[("x-canary", "2")])), (20, 200, 20));
    // Another one has to wait for a decision.
    let second = update(&setting, "p3-http", &[]);
    assert!(second.code == Some(1) && second.err.contains("dhow promote app"), "{second:?}");
    assert_eq!(setting.run(&["rollback", "app"]).code, Some(0));
    assert_eq!((count(&[]), count(canary)), (0, 0));

    updated(&setting, "http-counter", &["--header", "x-canary=1"]);
    assert_eq!((count(&[]), count(canary)), (0, 200));
    assert_eq!(setting.run(&["promote", "app"]).code, Some(0));
    assert_eq!((count(&[]), count(canary)), (200, 200));
    let again = setting.run(&["promote", "app"]);
    assert!(again.code == Some(1) && again.err.contains("no second version"), "{again:?}");

    assert_eq!(setting.run(&["rollback", "app"]).code, Some(0));
    assert_eq!(count(&[]), 0, "back to what ran, not to what was only tried");
    let none = setting.run(&["rollback", "app"]);
    assert!(none.code == Some(1) && none.err.contains("no version to go back to"), "{none:?}");
    assert_eq!(
        story(&setting),
        [
            "manifest 1 done",
            "split 2 done",
            "rollback 1 done",
            "split 3 done",
            "promote 3 done",
            "rollback 1 done"
        ]
    );
    host.stop();
}

#[test]
fn a_version_that_fails_is_taken_back_by_itself() {
    let setting = with("http-hello");
    let host = setting.up(&[]);
    let ask = |path: &str| host.get(path).status;
    let watching = setting
        .dhow(&["update", "app", "--from", guest("misbehave").to_str().unwrap(), "--window", "60s"])
        .spawn()
        .unwrap();
    eventually("the new version", || (host.get("/ok").text() == "ok\n").then_some(()));
    eventually("the old version", || (ask("/trap") == 200).then_some(()));
    let ended = watching.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.code() == Some(1) && said.contains("was rolled back: "), "{said}");
    let story = story(&setting);
    assert_eq!(story, ["manifest 1 done", "update 2 rolled-back", "rollback 1 done"]);
    let entries = history(&setting);
    assert_eq!(entries[2]["who"], "dhow");
    assert!(entries[1]["note"].as_str().unwrap().contains("invocations failed"), "{entries:?}");

    // One that does well stays, and one without a window fails as it likes.
    updated(&setting, "http-counter", &["--window", "1s", "--max-errors", "0%"]);
    assert_eq!(history(&setting).last().unwrap()["outcome"], "done");
    updated(&setting, "misbehave", &[]);
    assert_eq!((0..30).filter(|_| ask("/trap") == 500).count(), 30);
    host.stop();
}

#[test]
fn what_a_guest_is_denied_is_no_failure_and_what_its_token_denies_everybody_is() {
    let setting = Setting::with_manifest(MANIFEST);
    let caps =
        [("app.wasm", "--cap=dhow:state"), ("kv.wasm", "--version=2"), ("mute.wasm", "--cap=dhow:state")];
    for (file, more) in caps {
        let serve = if file == "mute.wasm" { "--version=3" } else { "--cap=dhow:serve" };
        crate::claims::signed(&setting, "kv", file, &[serve, more]);
    }
    let host = setting.up(&[]);
    let get = |status: u16| {
        let answer = host.get("/get?key=a");
        assert_eq!(answer.status, status, "{}", answer.text());
        answer.text()
    };
    // The manifest grants no store: the guest answers so itself.
    assert!(get(403).contains("access-denied"));
    let update = |file: &str, window: &str| {
        let watched = ["--any-signer", "--window", window, "--max-errors", "0%", "--detach"];
        let ended = setting.run(&[&["update", "app", "--from", file], &watched[..]].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
    };
    let last = || history(&setting).into_iter().rev().find(|entry| entry["action"] == "update").unwrap();
    update("kv.wasm", "2s");
    for _ in 0..30 {
        get(403);
    }
    let settled =
        eventually("the end of the window", || Some(last()).filter(|last| last["outcome"] != "watched"));
    let note = settled["note"].as_str().unwrap();
    assert!(
        settled["outcome"] == "done" && note.starts_with("0 of ") && !note.starts_with("0 of 0 "),
        "{note}"
    );
    // Neither does this version claim what is granted now; the one before did.
    assert_eq!(setting.run(&["bind", "app", "state", "statestore"]).code, Some(0));
    get(403);
    assert_eq!(setting.run(&["rollback", "app"]).code, Some(0));
    get(200);

    update("mute.wasm", "300s");
    eventually("the old version", || (host.get("/get?key=a").status == 200).then_some(()));
    let last = last();
    let note = last["note"].as_str().unwrap();
    assert!(last["outcome"] == "rolled-back" && note.contains("invocations failed"), "{last}");
    host.stop();
}

#[test]
fn a_version_that_fails_while_somebody_changes_the_app_is_taken_back_afterwards() {
    let setting = with("http-hello");
    let mut host = setting.up(&[]);
    let (url, asked, go) = slow_module(b"no module".to_vec());
    updated(&setting, "misbehave", &["--window", "300s", "--detach"]);
    let other = setting.dhow(&["update", "app", "--from", &url]).spawn().unwrap();
    asked.recv().unwrap();
    for _ in 0..30 {
        assert_eq!(host.get("/trap").status, 500);
    }
    let line = host.line(|line| line.contains("is rolled back as soon as it can be"));
    assert!(line.contains("30 of 30 invocations failed") && line.contains("an update by"), "{line}");
    assert_eq!(host.get("/ok").text(), "ok\n");
    go.send(()).unwrap();
    let other = other.wait_with_output().unwrap();
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    eventually("the old version", || (host.get("/trap").status == 200).then_some(()));
    assert_eq!(
        story(&setting),
        ["manifest 1 done", "update 2 rolled-back", "update 0 refused", "rollback 1 done"]
    );
    assert_eq!(host.stderr().matches("as soon as it can be").count(), 1);
    host.stop();
}

#[test]
fn a_window_goes_on_while_the_app_is_bound_anew() {
    let setting = with("http-hello");
    let host = setting.up(&[]);
    updated(&setting, "misbehave", &["--window", "60s", "--detach"]);
    let bound = setting.run(&["bind", "app", "state", "statestore"]);
    assert_eq!(bound.code, Some(0), "{bound:?}");
    eventually("the old version", || (host.get("/trap").status == 200).then_some(()));
    assert_eq!(story(&setting), ["manifest 1 done", "update 2 rolled-back", "rollback 1 done"]);
    host.stop();
}

#[test]
fn a_kept_module_that_is_lost_keeps_no_host_from_starting() {
    let setting = with("http-hello");
    let host = setting.up(&[]);
    updated(&setting, "http-counter", &[]);
    host.stop();
    fs::remove_dir_all(setting.path().join(".dhow/live/modules")).unwrap();
    let mut host = setting.up(&[]);
    assert_eq!(host.get("/").text(), "hello\n");
    host.line(|line| line.contains("is lost"));
    host.stop();
}

#[test]
fn an_unhealthy_version_does_not_take_over() {
    let setting = Setting::with_manifest(&MANIFEST.replace("routes", "health = \"/trap\"\nroutes"));
    setting.file("app.wasm", &fs::read(guest("http-hello")).unwrap());
    let host = setting.up(&[]);
    let refused = update(&setting, "misbehave", &[]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("not well: /trap"), "{refused:?}");
    assert_eq!(host.get("/").text(), "hello\n");
    updated(&setting, "p3-http", &[]);
    host.stop();
}

#[test]
fn what_was_updated_runs_again_until_the_manifest_s_module_changes() {
    let setting = with("http-hello");
    let text = |host: &Host| host.get("/").text();
    let host = setting.up(&[]);
    updated(&setting, "http-counter", &[]);
    host.stop();
    let host = setting.up(&[]);
    assert_eq!(text(&host), "1\n");
    // A reload says nothing new about the module.
    host.signal(libc::SIGHUP);
    updated(&setting, "p3-http", &["--weight", "100%"]);
    assert_eq!(text(&host), "hello from WASI 0.3, /\n");
    host.kill();
    let host = setting.up(&[]);
    assert_eq!(text(&host), "hello from WASI 0.3, /\n", "the split is there again");
    assert_eq!(setting.run(&["rollback", "app"]).code, Some(0));
    assert_eq!(text(&host), "1\n");
    host.stop();
    // The file that the manifest names is another one: that is what is to run.
    setting.file("app.wasm", &fs::read(guest("misbehave")).unwrap());
    let mut host = setting.up(&[]);
    assert_eq!(host.get("/ok").text(), "ok\n");
    let last = history(&setting).last().unwrap().clone();
    assert_eq!((&last["action"], &last["version"]), (&json!("manifest"), &json!(4)));
    // Back to what ran before, although its file is gone; also after a restart.
    assert_eq!(setting.run(&["rollback", "app", "--to", "2"]).code, Some(0));
    assert_eq!(text(&host), "1\n");
    host.signal(libc::SIGTERM);
    host.wait();
    let host = setting.up(&[]);
    assert_eq!(text(&host), "1\n");
    host.stop();

    let state = setting.path().join(".dhow/live/state.json");
    fs::write(&state, "{").unwrap();
    let ended = setting.up_fails(&[]);
    assert!(ended.code == Some(1) && ended.err.contains("move the file away"), "{ended:?}");
}

/// A server that says when it is asked for a module, and sends it when it is told to.
fn slow_module(module: Vec<u8>) -> (String, Receiver<()>, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/app.wasm", listener.local_addr().unwrap());
    let ((asked, is_asked), (go, goes)) = (channel(), channel::<()>());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = asked.send(());
            if goes.recv().is_err() {
                return;
            }
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", module.len());
            let _ = stream.write_all(&[head.as_bytes(), &module].concat());
        }
    });
    (url, is_asked, go)
}

#[test]
fn of_two_updates_at_once_one_wins_and_a_kill_in_the_middle_leaves_the_old_version() {
    let setting = with("http-hello");
    let host = setting.up(&[]);
    let (url, asked, go) = slow_module(fs::read(guest("http-counter")).unwrap());
    let first = setting.dhow(&["update", "app", "--from", &url]).spawn().unwrap();
    asked.recv().unwrap();
    let second = update(&setting, "p3-http", &[]);
    assert!(second.code == Some(1) && second.err.contains("is being changed already"), "{second:?}");
    let back = setting.run(&["rollback", "app"]);
    assert!(back.code == Some(1) && back.err.contains("is being changed already"), "{back:?}");
    assert_eq!(host.get("/").text(), "hello\n");
    go.send(()).unwrap();
    assert_eq!(first.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(host.get("/").text(), "1\n");

    let mut third = setting.dhow(&["update", "app", "--from", &url]).spawn().unwrap();
    asked.recv().unwrap();
    host.kill();
    assert_eq!(third.wait().unwrap().code(), Some(1));
    let host = setting.up(&[]);
    assert_eq!(host.get("/").text(), "1\n");
    assert_eq!(story(&setting), ["manifest 1 done", "update 2 done"]);
    host.stop();
}

#[test]
fn what_cannot_run_is_refused_and_nothing_changes() {
    let traps = br#"(component
        (core module $m (func $f unreachable) (start $f) (func (export "run") (result i32) i32.const 0))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $r (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $r)))"#;
    let imports = br#"(module (import "env" "f" (func)) (func (export "_start")))"#;
    let setting = with("http-hello");
    let host = setting.up(&[]);
    let file = |name: &str, bytes: &[u8]| setting.file(name, bytes).to_string_lossy().into_owned();
    let (text, broken) = (file("text.wasm", b"hello"), file("broken.wasm", b"\0asm\x01\0\0\0broken"));
    let (traps, imports) = (file("traps.wat", traps), file("imports.wat", imports));
    let program = guest("p2-command").to_string_lossy().into_owned();
    let gone = setting.path().join("gone.wasm").to_string_lossy().into_owned();
    for (args, code, said) in [
        (&["app", "--from", &text][..], 1, "not WebAssembly"),
        (&["app", "--from", &broken], 1, "damaged or truncated"),
        (&["app", "--from", &gone], 1, "gone.wasm"),
        (&["app", "--from", &program], 1, "--any-interface"),
        (&["app", "--from", &traps, "--any-interface"], 1, "cannot be started"),
        (&["app", "--from", &imports, "--any-interface"], 1, "env::f"),
        (&["app", "--from", "http://127.0.0.1:1/x.wasm"], 1, "127.0.0.1:1"),
        (&["ap", "--from", &program], 1, "did you mean \"app\"?"),
        (&["app", "--from", &program, "--weight", "101%"], 2, "expected 0% to 100%"),
        (&["app", "--from", &program, "--header", "x"], 2, "expected NAME=VALUE"),
        (&["app", "--from", &program, "--window", "soon"], 2, "window=soon"),
        (&["app", "--from", &program, "--max-errors", "1%"], 2, "--window"),
        (&["app"], 2, "--from"),
    ] {
        let ended = setting.run(&[&["update"], args].concat());
        assert!(ended.code == Some(code) && ended.err.contains(said), "{args:?}: {ended:?}");
        assert_eq!(host.get("/").text(), "hello\n");
    }
    let refused = history(&setting);
    assert!(refused.iter().skip(1).all(|entry| entry["outcome"] == "refused"), "{refused:?}");
    assert_eq!(refused.len(), 8);
    let same = updated(&setting, "http-hello", &[]);
    assert!(same.out.contains("runs this module already"), "{same:?}");
    let input =
        setting.run_with_input(&["update", "app", "--from", "-"], &fs::read(guest("http-counter")).unwrap());
    assert_eq!((input.code, host.get("/").text().as_str()), (Some(0), "1\n"), "{input:?}");
    host.stop();
}

#[test]
fn changes_over_the_network_need_the_token() {
    let setting = with("http-hello").env("DHOW_MANAGEMENT_TOKEN", "s3cret");
    let host = setting.up(&[]);
    let at = host.management.unwrap();
    let module = fs::read(guest("http-counter")).unwrap();
    let token: http::Headers<'_> = &[("authorization", "Bearer s3cret")];
    let send =
        |path: &str, headers: http::Headers<'_>, body: &[u8]| http::send(at, "POST", path, headers, body);
    for (headers, status) in [
        (&[][..], 401),
        (&[("authorization", "Bearer wrong!")], 401),
        (&[("authorization", "Bearer s3cret"), ("origin", "http://evil")], 403),
    ] {
        for path in ["/v1/apps/app/update", "/liveupdate", "/v1/apps/app/rollback"] {
            assert_eq!(send(path, headers, &module).status, status, "{path} {headers:?}");
        }
    }
    assert_eq!(host.get("/").text(), "hello\n");
    let path = format!("/v1/apps/app/update?from={}", guest("http-counter").display());
    assert_eq!(send(&path, token, b"").status, 403, "paths of the host are not theirs to name");
    assert_eq!(send("/v1/apps/app/update?wieght=1", token, &module).status, 400);
    assert_eq!(send("/v1/apps/none/update", token, &module).status, 404);
    assert_eq!(send("/v1/apps/app/update", token, b"no module").status, 422);
    let done = send("/v1/apps/app/update", token, &module);
    assert_eq!((done.status, &done.json()["version"]), (200, &json!(2)), "{}", done.text());
    assert_eq!(host.get("/").text(), "1\n");
    assert_eq!(send("/v1/apps/app/rollback", token, b"").status, 200);
    assert_eq!(host.get("/").text(), "hello\n");

    // Waxosuit's way: a form.
    let head = b"--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wasm\"\r\n\r\n";
    let form = [&head[..], &module, b"\r\n--x--\r\n"].concat();
    let headers: http::Headers<'_> =
        &[("authorization", "Bearer s3cret"), ("content-type", "multipart/form-data; boundary=x")];
    assert_eq!(send("/liveupdate", headers, &form).status, 200);
    assert_eq!(host.get("/").text(), "1\n");
    assert_eq!(http::get(at, "/healthz").status, 200);
    host.stop();

    let host = setting.env("DHOW_MANAGEMENT_TOKEN", "").up(&[]);
    let refused = http::send(host.management.unwrap(), "POST", "/liveupdate", token, &module);
    assert!(refused.status == 403 && refused.text().contains("DHOW_MANAGEMENT_TOKEN"), "{}", refused.text());
    host.stop();
}

const ECHO: &str = r#"
    [apps.app]
    module = "app.wasm"
    routes = ["/"]
    env = { LISTEN = "127.0.0.1:0" }
    grants = { listen = ["127.0.0.1:0"] }
"#;

/// The same module under another digest.
fn another(name: &str, mark: u8) -> Vec<u8> {
    let mut module = fs::read(guest(name)).unwrap();
    module.extend([0, 3, 1, b'v', mark]);
    module
}

#[test]
fn a_service_passes_its_port_on() {
    let setting = Setting::with_manifest(ECHO);
    setting.file("app.wasm", &another("http-echo-echo", 0));
    let host = setting.up(&[]);
    let address = || -> SocketAddr {
        eventually("the port", || {
            let listed: Value = serde_json::from_str(&setting.run(&["ps", "--json"]).out).unwrap();
            listed["hosts"][0]["apps"][0]["service"]["address"].as_str()?.parse().ok()
        })
    };
    let port = address();
    let mut kept = Client::connect(port);
    assert_eq!(kept.send("POST", "/echo", &[], b"a").text(), "a");
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        // Each asks on connections of its own, at the port and through the router.
        let clients = [port, host.addr].map(|addr| {
            let stop = &stop;
            scope.spawn(move || {
                let mut count = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let answer = http::send(addr, "POST", "/echo", &[], b"b");
                    assert_eq!((answer.status, answer.text().as_str()), (200, "b"));
                    count += 1;
                }
                count
            })
        });
        for mark in 1..6 {
            let file = setting.file("new.wasm", &another("http-echo-echo", mark));
            let ended = setting.run(&["update", "app", "--from", file.to_str().unwrap()]);
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert_eq!(address(), port, "the port stays");
            if mark == 1 {
                assert_eq!(kept.send("POST", "/echo", &[], b"c").text(), "c", "an old connection goes on");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for client in clients {
            assert!(client.join().expect("no request failed") > 5);
        }
    });
    // One that does not listen is refused, and the one that does goes on.
    let ended = update(&setting, "p1-command", &[]);
    assert!(ended.code == Some(1) && ended.err.contains("not well"), "{ended:?}");
    assert_eq!(http::send(port, "POST", "/echo", &[], b"d").text(), "d");
    assert_eq!(setting.run(&["rollback", "app"]).code, Some(0));
    assert_eq!(http::send(port, "POST", "/echo", &[], b"e").text(), "e");
    drop(kept);
    host.stop();
    assert!(TcpStream::connect(port).is_err());
}
