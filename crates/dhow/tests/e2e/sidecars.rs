//! Programs outside, each with a host beside it: what they share, what ends them, how they are asked for their health.

use crate::state::component;
use crate::support::{Setting, app, eventually, http};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

#[test]
fn apps_of_one_file_share_the_embedded_broker_and_not_their_state() {
    let setting = Setting::new();
    let (sender, received) = channel();
    let subscriber = app::start(move |call| match call.target.as_str() {
        "/dapr/subscribe" => {
            (200, r#"[{"pubsubname": "pubsub", "topic": "orders", "route": "/orders"}]"#.to_owned())
        }
        "/orders" => {
            sender.send(String::from_utf8_lossy(&call.body).into_owned()).unwrap();
            (200, String::new())
        }
        _ => (404, String::new()),
    });
    for folder in ["one", "two"] {
        fs::create_dir(setting.path().join(folder)).unwrap();
    }
    let file = format!(
        "version: 1\napps:\n- appID: one\n  appDirPath: ./one\n- appID: two\n  appDirPath: ./two\n  appPort: {}\n",
        subscriber.port()
    );
    setting.file("dapr.yaml", file.as_bytes());
    for (args, folder) in [(&[][..], ".dhow"), (&["--data-dir", "elsewhere"], "elsewhere")] {
        let mut host = setting.sidecars(args);
        let (one, two) = (host.api_of("one"), host.api_of("two"));
        host.line(|line| line.contains("app two listens on port"));
        let published = http::send(one, "POST", "/v1.0/publish/pubsub/orders", &[], folder.as_bytes());
        assert_eq!(published.status, 204, "{}", published.text());
        let event = received.recv().unwrap();
        assert!(event.contains(folder), "{event}");
        let saved = http::send(one, "POST", "/v1.0/state/statestore", &[], br#"[{"key": "a", "value": 1}]"#);
        assert_eq!(saved.status, 204, "{}", saved.text());
        for (api, status) in [(one, 200), (two, 204)] {
            assert_eq!(http::send(api, "GET", "/v1.0/state/statestore/a", &[], b"").status, status);
        }
        assert!(setting.path().join(folder).join("state.db").is_file());
        host.stop();
    }
    for folder in ["one", "two"] {
        assert!(!setting.path().join(folder).join(".dhow").exists(), "{folder}");
    }
}

#[test]
fn a_program_ends_with_all_that_it_started() {
    let setting = Setting::new();
    let script = "sleep 1000 & echo $! > pid.new; mv pid.new pid; wait";
    for ended_by_itself in [false, true] {
        let script = if ended_by_itself { script.replace("wait", "exit 0") } else { script.to_owned() };
        let mut host = setting.sidecar("shop", None, &["--", "sh", "-c", &script]);
        let pid = eventually("the program", || fs::read_to_string(setting.path().join("pid")).ok());
        let stat = format!("/proc/{}/stat", pid.trim());
        // Nobody may be there to ask for the exit code of what has no parent any more.
        let runs = || fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        if ended_by_itself {
            assert_eq!(host.wait().code(), Some(0));
        } else {
            assert!(runs());
            host.stop();
        }
        assert!(!runs(), "it still runs; the program ended by itself: {ended_by_itself}");
        fs::remove_file(setting.path().join("pid")).unwrap();
    }
}

#[test]
fn health_is_asked_for_beside_the_requests() {
    let setting = Setting::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let count = Arc::clone(&asked);
    let shop = app::start(move |call| {
        match call.target.as_str() {
            "/healthz" => drop(count.fetch_add(1, Ordering::Relaxed)),
            "/slow" => drop(released.lock().unwrap().recv()),
            _ => return (404, String::new()),
        }
        (200, String::new())
    });
    let checks =
        ["--enable-app-health-check", "--app-health-probe-interval", "1", "--app-health-threshold", "1"];
    let args = [&checks[..], &["--app-max-concurrency", "1"]].concat();
    let host = setting.sidecar("shop", Some(shop), &args);
    let api = host.api.unwrap();
    thread::scope(|scope| {
        let slow = scope.spawn(move || http::send(api, "GET", "/v1.0/invoke/shop/method/slow", &[], b""));
        eventually("questions meanwhile", || (asked.load(Ordering::Relaxed) >= 3).then_some(()));
        release.send(()).unwrap();
        assert_eq!(slow.join().unwrap().status, 200);
    });
    let said = host.stop();
    assert!(!said.contains("is not well"), "{said}");
}

#[test]
fn what_is_denied_or_unknown_is_named_for_modules_and_programs() {
    let setting = Setting::new();
    setting.file("fine.wat", br#"(module (func (export "_start")))"#);
    setting.file("resources/a.yaml", component("denied", "state.in-memory", &[]).as_bytes());
    setting.file("resources/b.yaml", component("later", "middleware.http.uppercase", &[]).as_bytes());
    let config = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata:\n  name: config\n\
                  spec:\n  components:\n    deny: [state.in-memory]\n";
    setting.file("config.yaml", config.as_bytes());
    for what in [&["fine.wat"][..], &["--", "true"]] {
        let ended = setting.run(&[&["run", "--config", "config.yaml"], what].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for said in [
            "\"denied\" of type \"state.in-memory\" is denied",
            "\"middleware.http.uppercase\" is not part of",
        ] {
            assert!(ended.err.contains(said), "{said}: {ended:?}");
        }
    }
}
