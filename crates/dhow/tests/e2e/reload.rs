//! New versions of apps while requests are under way: none is lost, none is answered by half an update.

use crate::support::{Setting, eventually, guest, http::Client};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

const MANIFEST: &str = r#"
    [apps.app]
    module = "app.wasm"
    routes = ["/"]
"#;

/// Guests that tell themselves apart, and how.
const VERSIONS: [(&str, &str); 4] = [
    ("http-hello", "hello\n"),
    ("http-counter", "1\n"),
    ("p3-http", "hello from WASI 0.3, /\n"),
    ("http-hello", "hello\n"),
];

fn install(setting: &Setting, name: &str) {
    setting.file("app.wasm", &fs::read(guest(name)).unwrap());
}

/// Installs version after version while clients ask without a pause, and checks each of their answers.
fn reload_under_load(args: &[&str], reload: impl Fn(&crate::support::Host)) {
    let setting = Setting::with_manifest(MANIFEST);
    install(&setting, VERSIONS[0].0);
    let mut host = setting.up(args);
    let (ended, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let addr = host.addr;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(addr);
                    while !ended.load(Ordering::Relaxed) {
                        let answer = client.send("GET", "/", &[], b"");
                        let text = answer.text();
                        assert!(
                            answer.status == 200 && VERSIONS.iter().any(|(_, known)| *known == text),
                            "{answer:?}"
                        );
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for (name, expected) in &VERSIONS[1..] {
            let before = answered.load(Ordering::Relaxed);
            install(&setting, name);
            reload(&host);
            eventually("the new version", || (host.get("/").text() == *expected).then_some(()));
            eventually("more requests", || (answered.load(Ordering::Relaxed) > before + 100).then_some(()));
        }

        // A version that cannot run leaves the one that does.
        let broken: [(&[u8], &str); 3] = [
            (b"\0asm\x01\0\0\0broken", "damaged or truncated"),
            (b"", "not WebAssembly"),
            (br#"(module (import "env" "f" (func)) (func (export "_start")))"#, "env::f"),
        ];
        for (bytes, said) in broken {
            let errors = |host: &crate::support::Host| host.stderr().matches("not reloaded").count();
            let before = errors(&host);
            setting.file("app.wasm", bytes);
            reload(&host);
            eventually("the refusal", || (errors(&host) > before).then_some(()));
            assert!(host.stderr().contains(said), "{}", host.stderr());
            assert_eq!(host.get("/").text(), "hello\n");
        }
        ended.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("no request failed");
        }
    });
    let answered = answered.load(Ordering::Relaxed);
    assert!(answered >= 300, "{answered} requests");
    host.line(|line| line.contains("reloaded"));
    host.stop();
}

#[test]
fn watched_modules_are_replaced_without_losing_a_request() {
    reload_under_load(&["--watch"], |_| {});
}

#[test]
fn a_hangup_reloads_without_losing_a_request() {
    reload_under_load(&[], |host| host.signal(libc::SIGHUP));
}

#[test]
fn a_module_of_its_own_is_watched_too() {
    let setting = Setting::new();
    install(&setting, "http-hello");
    let host = setting.serve(&setting.path().join("app.wasm"), &["--watch"]);
    assert_eq!(host.get("/").text(), "hello\n");
    setting.file("app.wasm", b"broken");
    eventually("the refusal", || host.stderr().contains("keeping the version that runs").then_some(()));
    assert_eq!(host.get("/").text(), "hello\n");
    install(&setting, "http-counter");
    eventually("the new version", || (host.get("/").text() == "1\n").then_some(()));
    host.stop();
}

#[test]
fn a_manifest_that_is_empty_for_a_moment_takes_no_app_away() {
    let setting = Setting::with_manifest(MANIFEST);
    install(&setting, "http-hello");
    let mut host = setting.up(&["--watch"]);
    setting.manifest("# soon\n\n");
    host.line(|line| line.contains("there is nothing in it"));
    assert_eq!(host.get("/").text(), "hello\n");
    setting.manifest(MANIFEST);
    host.line(|line| line.contains("reloaded: 0 apps changed"));
    setting.manifest(&format!("[host]\naddr = \"127.0.0.1:1\"\n{MANIFEST}"));
    host.line(|line| line.contains("[host]") && line.contains("started anew"));
    assert_eq!(host.get("/").text(), "hello\n");
    host.stop();
}

#[test]
fn apps_come_and_go_with_the_manifest() {
    let one = "[apps.one]\nmodule = `http-hello`\nroutes = [\"/one\"]\n";
    let two = "[apps.two]\nmodule = `http-counter`\nroutes = [\"/two\"]\n";
    let setting = Setting::with_manifest(one);
    let host = setting.up(&["--watch"]);
    let status = |path: &str| host.get(path).status;
    assert_eq!((status("/one"), status("/two")), (200, 404));
    setting.manifest(&[one, two].concat());
    eventually("the new app", || (status("/two") == 200).then_some(()));
    assert_eq!(status("/one"), 200);
    // A manifest that is wrong changes nothing.
    setting.manifest(&[one, "[apps.bad]\nmodul = \"x.wasm\"\n"].concat());
    eventually("the refusal", || host.stderr().contains("not reloaded").then_some(()));
    assert!(host.stderr().contains("dhow.toml:5"), "{}", host.stderr());
    assert_eq!((status("/one"), status("/two")), (200, 200));
    setting.manifest(two);
    eventually("the app to go", || (status("/one") == 404).then_some(()));
    assert_eq!(status("/two"), 200);
    host.stop();
}
