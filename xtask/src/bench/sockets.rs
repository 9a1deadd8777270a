//! A server with an accept loop of its own, in dhow, beside the same program compiled for the machine.
//!
//! The source is that of `examples/http-echo`: hyper and tokio, one thread. What is compared is what the sandbox and the
//! way of its sockets through the host cost.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::Settings;
use super::load::Load;
use super::peers::Places;
use super::report::{Finding, Report, Target, Unit, median};
use super::server::{Cores, Server, free_port};

/// Connections at once.
const CONNECTIONS: usize = 64;

/// At least 40 % of the requests a second, as time a request.
const TARGET: f64 = 1.0 / 0.4;

/// Measures both in turn.
pub fn measure(
    places: &Places,
    cores: Cores,
    settings: &Settings,
    report: &mut Report,
) -> Result<(), String> {
    let mut commands = vec![("native", Command::new(places.native("examples/http-echo/echo", "echo")?))];
    if let Some(dhow) = &places.dhow {
        let guest = places.guests.join("http-echo-echo.wasm");
        if !guest.is_file() {
            return Err(format!("no {}; run `cargo xtask guests http-echo`", guest.display()));
        }
        let mut command = Command::new(dhow);
        command.arg("run").arg(guest).args(["--grant", "listen=127.0.0.1", "-e", "LISTEN"]);
        commands.push(("dhow", command));
    }
    let mut servers = Vec::new();
    for (name, mut command) in commands {
        let addr = free_port()?;
        command.env("LISTEN", addr.to_string()).env("XDG_CACHE_HOME", &places.code_cache);
        command.env_remove("RUST_LOG").current_dir(&places.scratch);
        let mut server = Server::start(name, command, addr, Some(cores.server), &places.scratch)?;
        server.wait_ready("/", Duration::from_secs(60))?;
        servers.push((server, Vec::new()));
    }
    for round in 0..settings.rounds {
        let count = servers.len();
        for turn in 0..count {
            let (server, times) = &mut servers[(round + turn) % count];
            let mut load = Load::connect(server.addr, CONNECTIONS, "/", None)?;
            load.run(settings.warm_up, settings.most_requests)?;
            let sample = load.run(settings.time, settings.most_requests)?;
            times.push(sample.elapsed.as_secs_f64() * 1e6 / sample.requests as f64);
        }
    }
    let of = |name: &str| {
        let found = servers.iter().find(|(server, _)| server.name == name);
        found.map(|(_, times): &(Server, Vec<f64>)| median(times))
    };
    report.finding(Finding {
        row: format!("echo service c={CONNECTIONS}"),
        measure: "time a request (1 / rate)".to_owned(),
        unit: Unit::Microseconds,
        ours: of("dhow"),
        peer: of("native").map(|time| ("the same, native".to_owned(), time)),
        target: Target::Ratio(TARGET),
    });
    for (server, times) in &servers {
        report.detail(json!({ "row": "echo", "server": server.name, "us_per_request": times }));
    }
    servers.into_iter().for_each(|(server, _)| server.stop());
    Ok(())
}
