//! A program outside with dhow beside it: what a call through the real port costs more than a direct one, at 1,000
//! requests a second over one connection, and how much memory the host takes.
//!
//! The targets are a quarter of what Dapr publishes for its sidecar (p50 0.91 ms for an invocation, 0.52 ms for
//! state, 0.23 ms for publishing, all with stores in memory). State and messages have no direct call to be compared
//! with: there, all of the time counts as added. The host may use every core, as it would beside a program; on one core
//! its threads would wait for each other.

use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use super::apps::Folder;
use super::client::{Client, Reply};
use super::peers::Places;
use super::report::{Finding, Report, Target, Unit, median};
use super::server::{Cores, Server, free_port};
use super::{MIB, Settings};

/// Between two requests.
const PACE: Duration = Duration::from_millis(1);

/// Most memory of a host with one program, in MiB.
const MEMORY: f64 = 25.0;

const RESOURCES: &str = "\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: memory
spec:
  type: state.in-memory
  version: v1
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: messages
spec:
  type: pubsub.in-memory
  version: v1
";

/// One kind of call, and how many microseconds it may add.
struct Call {
    what: &'static str,
    path: &'static str,
    body: &'static str,
    most: Option<f64>,
}

const CALLS: [Call; 6] = [
    Call { what: "invoke", path: "/v1.0/invoke/bench/method/x", body: "", most: Some(227.0) },
    Call { what: "state set, in memory", path: "/v1.0/state/memory", body: STATE, most: Some(130.0) },
    Call { what: "state get, in memory", path: "/v1.0/state/memory/key", body: "", most: Some(130.0) },
    Call { what: "publish, in memory", path: "/v1.0/publish/messages/orders", body: "{}", most: Some(57.0) },
    Call { what: "state set, SQLite", path: "/v1.0/state/statestore", body: STATE, most: None },
    Call { what: "publish, SQLite", path: "/v1.0/publish/pubsub/orders", body: "{}", most: None },
];

const STATE: &str = r#"[{"key":"key","value":"a value of a usual, short size: 48 bytes of it"}]"#;

/// Measures each call beside a direct one, in turn.
pub fn measure(
    places: &Places,
    _cores: Cores,
    settings: &Settings,
    report: &mut Report,
) -> Result<(), String> {
    let Some(dhow) = &places.dhow else { return Ok(()) };
    let app = start_app()?;
    let folder = Folder::new(places, "sidecar")?;
    folder.file("resources/resources.yaml", RESOURCES.as_bytes())?;
    let [http, grpc, metrics] = [free_port()?, free_port()?, free_port()?];
    let mut command = Command::new(dhow);
    command.args(["run", "--app-id", "bench", "--resources-path", "resources"]).current_dir(folder.path());
    for (flag, address) in [
        ("--app-port", app),
        ("--dapr-http-port", http),
        ("--dapr-grpc-port", grpc),
        ("--metrics-port", metrics),
    ] {
        command.args([flag, &address.port().to_string()]);
    }
    let mut server = Server::start("dhow run", command, http, None, folder.path())?;
    server.wait_ready("/v1.0/metadata", Duration::from_secs(30))?;
    let (mut direct, mut through) = (Client::connect(app)?, Client::connect(http)?);

    let mut times: [Vec<f64>; CALLS.len()] = Default::default();
    let mut directly = Vec::new();
    for _ in 0..settings.rounds {
        directly.push(paced(settings, &mut || direct.get("/x"))?);
        for (call, times) in CALLS.iter().zip(&mut times) {
            times.push(paced(settings, &mut || match call.body {
                "" => through.get(call.path),
                body => through.post_json(call.path, body),
            })?);
        }
    }
    let memory = server.memory()?.resident as f64 / MIB;

    for (call, times) in CALLS.iter().zip(&times) {
        let without = if call.what == "invoke" { median(&directly) } else { 0.0 };
        report.finding(Finding {
            row: "sidecar".to_owned(),
            measure: format!("{}: added, p50", call.what),
            unit: Unit::Microseconds,
            ours: Some(median(times) - without),
            peer: (call.what == "invoke").then(|| ("direct call".to_owned(), without)),
            target: call.most.map_or(Target::None, Target::Value),
        });
    }
    report.finding(Finding {
        row: "sidecar".to_owned(),
        measure: "resident memory with one program".to_owned(),
        unit: Unit::Mebibytes,
        ours: Some(memory),
        peer: None,
        target: Target::Value(MEMORY),
    });
    report.detail(json!({
        "row": "sidecar", "direct_us": directly, "memory_mib": memory,
        "calls_us": CALLS.iter().zip(&times).map(|(call, times)| (call.what, times)).collect::<Vec<_>>(),
    }));
    Ok(())
}

/// The median of one round, in microseconds.
fn paced(settings: &Settings, call: &mut dyn FnMut() -> Result<Reply, String>) -> Result<f64, String> {
    let mut times = Vec::new();
    let start = Instant::now();
    let mut due = start;
    while start.elapsed() < settings.time {
        due += PACE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let reply = call()?;
        if !matches!(reply.status, 200 | 204) {
            return Err(format!("the sidecar answered with status {}: {}", reply.status, reply.text()));
        }
        times.push(reply.time.as_secs_f64() * 1e6);
    }
    Ok(median(&times))
}

/// An app that answers everything with two bytes, a thread a connection.
fn start_app() -> Result<SocketAddr, String> {
    let failed = |error: std::io::Error| format!("the app of the row sidecar: {error}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(address)
}

fn answer(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    loop {
        let mut length = 0;
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            let is_length = |name: &str| name.eq_ignore_ascii_case("content-length");
            if let Some((_, value)) = line.split_once(':').filter(|(name, _)| is_length(name)) {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut (&mut stream).take(length), &mut std::io::sink())?;
        stream
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]")?;
    }
}
