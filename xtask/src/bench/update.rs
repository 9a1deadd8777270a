//! Updates under load: the same app asked without a pause, at rest and while its module is replaced a hundred times.
//!
//! Every answer is checked, so a request that an update costs ends the row. The commands that update run on the core of
//! the load, behind it: what they cost is no answer of the host's that is late.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::Settings;
use super::load::Load;
use super::peers::Places;
use super::report::{Finding, Report, Target, Unit, median};
use super::server::{Cores, Server, free_port};

/// Connections at once.
const CONNECTIONS: usize = 16;

const UPDATES: usize = 100;

/// The 99th percentile may be twice that at rest.
const TARGET: f64 = 2.0;

/// Guests that answer anything with 200, and are compiled before anything is measured.
const VERSIONS: [&str; 2] = ["http-counter.wasm", "http-hello.wasm"];

/// Measures both, one after the other.
pub fn measure(
    places: &Places,
    cores: Cores,
    settings: &Settings,
    report: &mut Report,
) -> Result<(), String> {
    let Some(dhow) = &places.dhow else { return Ok(()) };
    let addr = free_port()?;
    let command = || {
        let mut command = Command::new(dhow);
        command.env("XDG_STATE_HOME", places.scratch.join("state")).env("XDG_CACHE_HOME", &places.code_cache);
        command.env_remove("RUST_LOG").current_dir(&places.scratch);
        command
    };
    let mut serve = command();
    serve.arg("run").arg(places.guests.join(VERSIONS[1]));
    serve.args(["--app-id", "updated", "--addr", &addr.to_string()]);
    let mut server = Server::start("dhow", serve, addr, Some(cores.server), &places.scratch)?;
    server.wait_ready("/", Duration::from_secs(60))?;
    let update = |number: usize| {
        let module = places.guests.join(VERSIONS[number % VERSIONS.len()]);
        replace(command(), &module)
    };
    for number in 0..VERSIONS.len() {
        update(number)?;
    }
    let mut load = Load::connect(addr, CONNECTIONS, "/", None)?;
    load.run(settings.warm_up, settings.most_requests)?;
    // The 99th percentile of each round, and how many were answered in all of them.
    let mut rounds = |is_over: &dyn Fn(usize) -> bool| -> Result<(Vec<f64>, u64), String> {
        let (mut times, mut requests) = (Vec::new(), 0);
        while !is_over(times.len()) {
            let sample = load.run(settings.time, settings.most_requests)?;
            times.push(sample.latency.quantile(0.99).as_secs_f64() * 1e6);
            requests += sample.requests;
        }
        Ok((times, requests))
    };
    let (quiet, _) = rounds(&|count| count >= settings.rounds)?;
    let (busy, requests) = thread::scope(|scope| {
        let updating = scope.spawn(|| (0..UPDATES).try_for_each(update));
        let times = rounds(&|count| count > 0 && updating.is_finished());
        let updated = updating.join().map_err(|_| "updating panicked".to_owned());
        updated.and_then(|updated| updated).and(times)
    })?;
    report.finding(Finding {
        row: format!("{UPDATES} updates c={CONNECTIONS}"),
        measure: format!("p99 of {requests} requests, none failed"),
        unit: Unit::Microseconds,
        ours: Some(median(&busy)),
        peer: Some(("at rest".to_owned(), median(&quiet))),
        target: Target::Ratio(TARGET),
    });
    report.detail(json!({ "row": "update", "us_p99_at_rest": quiet, "us_p99_updating": busy, "requests": requests, "failed": 0 }));
    server.stop();
    Ok(())
}

fn replace(mut dhow: Command, module: &Path) -> Result<(), String> {
    let behind = || {
        // SAFETY: setpriority is a system call without memory of ours.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
        Ok(())
    };
    // SAFETY: nothing but that call happens between fork and exec.
    unsafe { dhow.pre_exec(behind) };
    let ended = dhow.args(["update", "updated", "--from"]).arg(module).stdin(Stdio::null()).output();
    let ended = ended.map_err(|error| format!("dhow update: {error}"))?;
    match ended.status.success() {
        true => Ok(()),
        false => Err(format!("dhow update: {}", String::from_utf8_lossy(&ended.stderr))),
    }
}
