//! `cargo xtask bench`: dhow beside its peers on one machine, against the targets the project promises.
//!
//! The server has one core and the load the other; servers are measured in turn, several rounds each, and
//! medians are compared. A ratio between two programs in the same run says more than any absolute figure,
//! and CPU time a request more than a rate.
//!
//! | file | subject |
//! |---|---|
//! | `http` | rows under HTTP load |
//! | `apps` | a host with many apps: its manifest and its process |
//! | `start` | process start and the first request of an app whose code is cached |
//! | `state` | a read of state from inside a guest |
//! | `publish` | publishing from inside a guest |
//! | `proxy` | proxy-wasm: a filter before an app, and two functions that call each other |
//! | `update` | latency while an app's module is replaced |
//! | `sockets` | a program with sockets of its own, beside the same natively |
//! | `sidecar` | a program outside: latency through the real port, memory |
//! | `density` | memory of many registered apps |
//! | `workflow` | steps of workflows, beside the same work natively |
//! | `peers` | dhow and its peers as command lines; where programs and guests are |
//! | `server` | a server process: core, CPU time, memory |
//! | `load`, `client`, `response`, `histogram` | the load generator and its parts |
//! | `report` | the table and the JSON |

mod apps;
mod client;
mod density;
mod histogram;
mod http;
mod load;
mod peers;
mod proxy;
mod publish;
mod report;
mod response;
mod server;
mod sidecar;
mod sockets;
mod start;
mod state;
mod update;
mod workflow;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::env::Env;
use peers::{Choice, Places};
use report::Report;
use server::Cores;

const MIB: f64 = 1024.0 * 1024.0;

const USAGE: &str = "\
usage: cargo xtask bench [OPTIONS]

  --quick         fewer and shorter rounds, 16 connections only, fewer apps
  --only NAME     only rows whose name contains NAME (may be repeated)
  --rounds N      rounds under load (default 5; quick 3)
  --seconds S     length of a round under load (default 2; quick 1)
  --dhow FILE     the dhow program (default: as `cargo xtask install` compiles it)
  --peers-only    leave dhow out
  --strict        a missed target is an error
  --json FILE     a copy of the results, which are written to <target>/bench.json
  --list          the names of the rows";

/// How long and how often is measured.
pub struct Settings {
    dhow: Choice,
    quick: bool,
    rounds: usize,
    time: Duration,
    warm_up: Duration,
    /// Bounds a round beside its time.
    most_requests: u64,
    only: Vec<String>,
    strict: bool,
    copy: Option<PathBuf>,
}

/// One row: its name and how it is measured.
struct Row {
    name: &'static str,
    measure: Measure,
}

enum Measure {
    Http(&'static http::Row),
    Other(fn(&Places, Cores, &Settings, &mut Report) -> Result<(), String>),
}

/// Runs the benchmarks that `args` ask for and prints what they found.
pub fn run(args: &[String], env: &Env) -> Result<(), String> {
    let Some(settings) = parse(args)? else { return Ok(()) };
    let rows: Vec<Row> = rows().into_iter().filter(|row| settings.wants(row.name)).collect();
    if rows.is_empty() {
        return Err(format!("no row is called like {}; --list shows the names", settings.only.join(", ")));
    }
    let mut places = Places::of(env);
    places.prepare(env, &settings.dhow)?;
    let cores = Cores::choose()?;
    if cores.server == cores.load {
        println!("warning: one core only; load and server disturb each other");
    }
    server::pin_to(cores.load).map_err(|e| format!("pinning the load to core {}: {e}", cores.load))?;

    let before = circumstances(&places, cores, &settings);
    let mut report = Report::default();
    for row in rows {
        let measured = match row.measure {
            Measure::Http(http) => http::measure(http, &places, cores, &settings, &mut report),
            Measure::Other(measure) => measure(&places, cores, &settings, &mut report),
        };
        if let Err(reason) = measured {
            report.failure(row.name, reason);
        }
    }
    report.print();
    let own = places.target.join("bench.json");
    for path in [Some(&own), settings.copy.as_ref()].into_iter().flatten() {
        report.write(path, &before)?;
        println!("written: {}", path.display());
    }
    match (report.failed(), report.missed()) {
        (0, missed) if missed == 0 || !settings.strict => Ok(()),
        (failed, missed) => Err(format!("bench: {failed} rows failed, {missed} targets missed")),
    }
}

fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> =
        http::ROWS.iter().map(|row| Row { name: row.name, measure: Measure::Http(row) }).collect();
    rows.extend([
        Row { name: "start", measure: Measure::Other(start::process) },
        Row { name: "first-request", measure: Measure::Other(start::first_request) },
        Row { name: "state", measure: Measure::Other(state::measure) },
        Row { name: "publish", measure: Measure::Other(publish::measure) },
        Row { name: "filter", measure: Measure::Other(proxy::filter) },
        Row { name: "inventory", measure: Measure::Other(proxy::inventory) },
        Row { name: "update", measure: Measure::Other(update::measure) },
        Row { name: "echo", measure: Measure::Other(sockets::measure) },
        Row { name: "sidecar", measure: Measure::Other(sidecar::measure) },
        Row { name: "density", measure: Measure::Other(density::measure) },
        Row { name: "desaturate", measure: Measure::Other(workflow::desaturate) },
        Row { name: "plugin", measure: Measure::Other(workflow::overhead) },
        Row { name: "steps", measure: Measure::Other(workflow::nothing) },
    ]);
    rows
}

impl Settings {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| name.contains(wanted.as_str()))
    }
}

/// None when the arguments only asked for a text.
fn parse(args: &[String]) -> Result<Option<Settings>, String> {
    let quick = args.iter().any(|arg| arg == "--quick");
    let mut settings = Settings {
        dhow: Choice::Installed,
        quick,
        rounds: if quick { 3 } else { 5 },
        time: Duration::from_secs(if quick { 1 } else { 2 }),
        warm_up: Duration::from_millis(if quick { 200 } else { 400 }),
        most_requests: 2_000_000,
        only: Vec::new(),
        strict: false,
        copy: None,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value\n\n{USAGE}"));
        match arg.as_str() {
            "--quick" => {}
            "--only" => settings.only.push(value()?.clone()),
            "--rounds" => {
                let rounds = value()?.parse().ok().filter(|rounds| (1..=1_000).contains(rounds));
                settings.rounds = rounds.ok_or("--rounds needs a number from 1 to 1000")?;
            }
            "--seconds" => {
                let seconds = value()?.parse().ok().filter(|seconds| (0.05..=600.0).contains(seconds));
                settings.time = Duration::from_secs_f64(seconds.ok_or("--seconds needs a number up to 600")?);
            }
            "--dhow" => {
                let path = Path::new(value()?);
                // Servers run in a folder of their own.
                let path =
                    std::path::absolute(path).map_err(|e| format!("--dhow {}: {e}", path.display()))?;
                settings.dhow = Choice::Given(path);
            }
            "--peers-only" => settings.dhow = Choice::None,
            "--strict" => settings.strict = true,
            "--json" => settings.copy = Some(PathBuf::from(value()?)),
            "--list" => {
                for row in rows() {
                    println!("{}", row.name);
                }
                return Ok(None);
            }
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(None);
            }
            other => return Err(format!("unknown argument {other:?}\n\n{USAGE}")),
        }
    }
    Ok(Some(settings))
}

/// What a reader of the figures has to know about the machine.
fn circumstances(places: &Places, cores: Cores, settings: &Settings) -> Value {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let circumstances = json!({
        "cpu": model.map(|(_, name)| name),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_average_before": read("/proc/loadavg").trim(),
        "server_core": cores.server, "load_core": cores.load,
        "dhow": places.dhow.as_deref().and_then(peers::version),
        "wasmtime": peers::version(&places.wasmtime),
        "rounds": settings.rounds, "seconds": settings.time.as_secs_f64(), "quick": settings.quick,
    });
    println!("{circumstances:#}");
    circumstances
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(args: &[&str]) -> Vec<String> {
        args.iter().map(|arg| (*arg).to_owned()).collect()
    }

    #[test]
    fn wrong_arguments_are_refused_with_a_reason() {
        for (args, reason) in [
            (&["--fast"][..], "unknown argument \"--fast\""),
            (&["--only"], "--only needs a value"),
            (&["--rounds", "0"], "from 1 to 1000"),
            (&["--seconds", "-1"], "up to 600"),
        ] {
            let error = parse(&strings(args)).err().unwrap();
            assert!(error.contains(reason), "{args:?}: {error}");
        }
    }

    #[test]
    fn rows_are_chosen_by_a_part_of_their_name() {
        for (args, chosen) in [
            (&["--only", "start"][..], &["start"][..]),
            (&["--only", "java", "--only", "density"], &["javascript", "density"]),
            (&["--only", "nothing"], &[]),
        ] {
            let settings = parse(&strings(args)).unwrap().unwrap();
            let names: Vec<_> =
                rows().iter().map(|row| row.name).filter(|name| settings.wants(name)).collect();
            assert_eq!(names, chosen);
        }
    }
}
