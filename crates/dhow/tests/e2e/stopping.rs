//! The end of a host, and hosts that cannot begin.

use crate::support::{Setting, eventually, guest, http};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::thread;

const SLOW: &str = "[apps.slow]\nmodule = `misbehave`\nroutes = [\"/\"]\n";

#[test]
fn requests_under_way_are_finished_and_no_new_ones_begun() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let setting = Setting::with_manifest(SLOW);
        let mut host = setting.up(&[]);
        let mut idle = host.client();
        assert_eq!(idle.send("GET", "/ok", &[], b"").status, 200);
        let addr = host.addr;
        let slow = thread::spawn(move || http::try_send(addr, "GET", "/hang?ms=1500", &[], b""));
        eventually("the request to run", || {
            (host.metric("dhow_invocations_running", "slow") == 1.0).then_some(())
        });
        host.signal(signal);
        eventually("the port to close", || TcpStream::connect(addr).is_err().then_some(()));
        let health = http::get(host.management.unwrap(), "/healthz");
        assert_eq!((health.status, health.text().trim()), (503, "shutting down"));
        let hosts = setting.run(&["ps"]);
        assert!(hosts.out.contains("slow") && !hosts.out.contains("no answer"), "{hosts:?}");
        assert!(!slow.is_finished(), "the slow request is still under way");
        assert!(idle.is_closed(), "connections without a request are closed");
        let answer = slow.join().unwrap().expect("a whole answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "woke up\n"));
        assert_eq!(host.wait().code(), Some(0), "{}", host.stderr());
    }
}

#[test]
fn a_service_of_one_module_drains_when_its_terminal_is_closed() {
    let setting = Setting::new();
    let mut host = setting.serve(&guest("misbehave"), &[]);
    let addr = host.addr;
    let slow = thread::spawn(move || http::try_send(addr, "GET", "/hang?ms=1500", &[], b""));
    eventually("the request to run", || {
        setting.run(&["ps", "--json"]).out.contains("\"running\": 1").then_some(())
    });
    host.signal(libc::SIGHUP);
    assert_eq!(slow.join().unwrap().expect("a whole answer").text(), "woke up\n");
    assert_eq!(host.wait().code(), Some(0), "{}", host.stderr());
}

#[test]
fn a_second_signal_ends_the_host_at_once() {
    let setting = Setting::with_manifest(SLOW);
    let mut host = setting.up(&[]);
    let addr = host.addr;
    let hangs = thread::spawn(move || http::try_send(addr, "GET", "/hang", &[], b""));
    eventually("the request to run", || {
        (host.metric("dhow_invocations_running", "slow") == 1.0).then_some(())
    });
    host.signal(libc::SIGTERM);
    host.line(|line| line.contains("1 invocations under way"));
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait().code(), Some(0), "{}", host.stderr());
    assert!(hangs.join().unwrap().is_err(), "the client sees that its request was cut off");
}

#[test]
fn a_log_that_is_followed_ends_with_its_host() {
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let setting = Setting::with_manifest(
            "[apps.talks]\nmodule = `p1-command`\nargs = [\"stderr\", \"said aloud\"]\nroutes = [\"/\"]\n",
        );
        let mut host = setting.up(&[]);
        assert_eq!(host.get("/").status, 200);
        let mut logs = setting.dhow(&["logs", "-f", "talks"]).spawn().unwrap();
        let mut out = BufReader::new(logs.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.contains("talks stderr: said aloud"), "{line}");
        host.signal(signal);
        host.wait();
        eventually("the end of the log", || logs.try_wait().unwrap());
        let ended = logs.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(0), "signal {signal}: {said}");
        assert!(said.ends_with(&format!("({}) has stopped\n", host.pid())), "signal {signal}: {said}");
    }
}

#[test]
fn a_host_that_starts_is_seen_and_can_be_stopped() {
    // Whoever fetches the module waits for it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/app.wasm", silent.local_addr().unwrap());
    let setting = Setting::with_manifest(&format!("[apps.app]\nmodule = {url:?}\nroutes = [\"/\"]\n"));
    let ports = ["--addr", "127.0.0.1:0", "--api-addr", "off", "--management-addr", "off"];
    for command in [Some("stop"), None] {
        let mut host = setting.dhow(&[&["up"], &ports[..]].concat()).spawn().unwrap();
        eventually("it to be listed", || setting.run(&["ps"]).out.contains("starting").then_some(()));
        match command {
            Some(command) => assert_eq!(setting.run(&[command]).code, Some(0)),
            // SAFETY: it is our child and was not waited for.
            None => assert_eq!(unsafe { libc::kill(host.id().cast_signed(), libc::SIGINT) }, 0),
        }
        let ended = eventually("its end", || host.try_wait().unwrap());
        assert_eq!(ended.code(), Some(0), "{command:?}");
        assert!(setting.run(&["ps"]).out.contains("No host is running"));
    }
}

#[test]
fn hosts_that_cannot_start_say_why() {
    let setting = Setting::with_manifest(SLOW);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    setting.file("a-file", b"");
    let off = ["--api-addr", "off", "--management-addr", "off"];
    let free = "127.0.0.1:0";
    let host = setting.up(&[]);
    let cases: [(Vec<&str>, &str); 7] = [
        (vec!["up", "--addr", free], "another host (process "),
        (
            vec!["up", "--addr", &taken, "--data-dir", "other"],
            "another program listens there; choose another port",
        ),
        (
            vec!["up", "--addr", free, "--api-addr", &taken, "--data-dir", "other"],
            "another program listens there",
        ),
        (vec!["up", "--addr", free, "--data-dir", "a-file/data"], "choose another one with --data-dir"),
        (vec!["up", "absent.toml", "--addr", free], "absent.toml"),
        (vec!["up", "--addr", "127.0.0.1"], "--addr"),
        (vec!["up", "--addr", "192.0.2.1:0", "--data-dir", "other"], "this machine has no such address"),
    ];
    for (args, said) in cases {
        let args = if args.contains(&"--api-addr") { args } else { [&args[..], &off[..]].concat() };
        let ended = setting.run(&args);
        assert!(matches!(ended.code, Some(1 | 2)), "{args:?}: {ended:?}");
        assert!(ended.err.contains(said), "{args:?}: {ended:?}");
    }
    // The host that was there first was not disturbed.
    assert_eq!(host.get("/ok").status, 200);
    host.stop();
    let again = setting.up(&[]);
    assert_eq!(again.get("/ok").status, 200);
    again.stop();

    let module = guest("http-hello");
    let ended = setting.run(&["run", &module.to_string_lossy(), "--addr", &taken]);
    assert!(ended.code == Some(125) && ended.err.contains("another program listens there"), "{ended:?}");
}
