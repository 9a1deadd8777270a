//! What an operator sees of workers, plugins and agents; and that they are there before the queue's server is.

use crate::Desk;
use crate::agent::{Plugin, template};
use crate::cluster::ApiServer;
use crate::native::Agent;
use crate::workers::{Worker, url, wait_for};
use dhow_servers::{Process, free_port};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// A port that nobody has.
fn address() -> String {
    format!("127.0.0.1:{}", free_port().unwrap())
}

/// Status and body.
fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn is(address: &str, path: &str, status: u16, said: &str) -> bool {
    get(address, path).is_some_and(|(is, body)| is == status && body.contains(said))
}

/// A server whose address is known, and which is away.
fn away() -> Process {
    let mut nats = dhow_servers::nats().unwrap();
    nats.kill();
    nats
}

#[test]
fn a_worker_waits_for_its_server() {
    let desk = Desk::new();
    let mut nats = away();
    let management = address();
    let mut process = desk.start(&[
        "workflow",
        "worker",
        "--connect",
        &url(&nats),
        "--name",
        "one",
        "--data-dir",
        "one",
        "--management-addr",
        &management,
    ]);
    let mut lines = BufReader::new(process.stderr.as_mut().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("is the server there? Waiting for it")));
    assert!(is(&management, "/healthz", 200, "ok"));
    assert!(is(&management, "/readyz", 503, "waiting for NATS"));
    nats.start().unwrap();
    let _worker = Worker::ready(process, "one");
    assert!(is(&management, "/readyz", 200, "ok"));
    desk.workflow(
        "quick",
        "  entrypoint: m\n  templates:\n  - {name: m, wasm: {image: tool.wasm, args: [args]}}",
    );
    let ended = desk.dhow(&["workflow", "run", "quick.yaml", "--workers", &url(&nats)]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(is(&management, "/metrics", 200, "\ndhow_steps_total{phase=\"Succeeded\"} 1\n"));
    // It comes back as well when it was there before.
    nats.kill();
    wait_for(|| is(&management, "/readyz", 503, "the connection to NATS is lost"));
    nats.start().unwrap();
    wait_for(|| is(&management, "/readyz", 200, "ok"));
    let ended = desk.dhow(&["workflow", "run", "quick.yaml", "--name", "again", "--workers", &url(&nats)]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(is(&management, "/else", 404, "try /healthz"));
}

#[test]
fn a_plugin_takes_steps_before_its_server_is_there() {
    let desk = Desk::new();
    let mut nats = away();
    let management = address();
    let plugin = Plugin::with(&desk, &["--workers", &url(&nats), "--management-addr", &management]);
    assert!(is(&management, "/readyz", 503, "waiting for NATS"));
    std::thread::scope(|scope| {
        let step = scope.spawn(|| plugin.run(&template(&["args", "x"])));
        wait_for(|| is(&management, "/metrics", 200, "\ndhow_steps_running 1\n"));
        // A step that was to be over by now is not handed over.
        let mut late = template(&["args", "late"]);
        late["timeout"] = json!("1s");
        assert_eq!(plugin.run(&late).0["node"]["phase"], "Failed");
        nats.start().unwrap();
        let _worker = Worker::start(&desk, &nats, "one", &[]);
        let (reply, _) = step.join().unwrap();
        assert_eq!(reply["node"]["outputs"]["result"], r#"["args","x"]"#, "{reply}");
    });
    assert!(is(&management, "/readyz", 200, "ok"));
    assert!(is(&management, "/metrics", 200, "\ndhow_steps_total{phase=\"Failed\"} 1\n"));
}

#[test]
fn an_agent_takes_steps_before_its_server_is_there() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let mut nats = away();
    let management = address();
    let flags = ["--no-lease", "--workers", &url(&nats), "--management-addr", &management];
    let _agent = Agent::start(&desk, &server, "one", &flags);
    assert!(is(&management, "/readyz", 503, "waiting for NATS"));
    let task = template(&["args", "x"]);
    server.change(|state| state.put_tasks("wf", "5f0e", json!({"wf-1": task})));
    wait_for(|| is(&management, "/metrics", 200, "\ndhow_steps_running 1\n"));
    nats.start().unwrap();
    let _worker = Worker::start(&desk, &nats, "worker", &["--artifacts", "artifacts"]);
    assert_eq!(server.result("wf", "wf-1")["outputs"]["result"], r#"["args","x"]"#);
    assert!(is(&management, "/healthz", 200, "ok"));
}
