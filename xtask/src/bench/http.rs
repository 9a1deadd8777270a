//! Rows under HTTP load: CPU time a request, rate, latency and memory, dhow against `wasmtime serve`.
//!
//! All servers of a row run from its beginning to its end, and the load goes round them, a few seconds
//! each, several times: what disturbs the machine disturbs them all. CPU time a request is the figure to
//! trust on a busy machine; rate and latency suffer from whatever else runs.

use std::time::Duration;

use serde_json::json;

use super::load::Load;
use super::peers::{Contender, Places};
use super::report::{Finding, Report, Target, Unit, median, print_table};
use super::server::{Cores, Memory, Server, free_port};
use super::{MIB, Settings};

/// A component under load.
pub struct Row {
    /// Name, for `--only`.
    pub name: &'static str,
    guest: &'static str,
    body_length: u64,
    concurrency: &'static [usize],
    contenders: &'static [Contender],
    checks: &'static [Check],
}

/// dhow's CPU time a request is at most `cpu` times the peer's, and its p99 no worse.
struct Check {
    ours: Contender,
    peer: Contender,
    cpu: f64,
}

use Contender::{Dhow, DhowReuse, Serve, ServeReuse, ServeTuned};

/// The rows, in the order they run.
pub const ROWS: &[Row] = &[
    Row {
        name: "hello",
        guest: "hello",
        body_length: 14,
        concurrency: &[1, 16, 64, 256],
        contenders: &[Dhow, DhowReuse, Serve, ServeTuned, ServeReuse],
        checks: &[
            Check { ours: Dhow, peer: Serve, cpu: 1.0 / 2.0 },
            Check { ours: Dhow, peer: ServeTuned, cpu: 2.0 / 3.0 },
            Check { ours: DhowReuse, peer: ServeReuse, cpu: 5.0 / 6.0 },
        ],
    },
    Row {
        name: "chunky",
        guest: "chunky",
        body_length: 4_000,
        concurrency: &[1, 16, 64],
        contenders: &[Dhow, Serve],
        checks: &[Check { ours: Dhow, peer: Serve, cpu: 1.0 / 3.0 }],
    },
    Row {
        name: "javascript",
        guest: "js-hello",
        body_length: 14,
        concurrency: &[1, 16, 64],
        contenders: &[Dhow, Serve, ServeTuned],
        checks: &[Check { ours: Dhow, peer: Serve, cpu: 1.0 / 2.0 }],
    },
    Row {
        name: "python",
        guest: "py-hello",
        body_length: 14,
        concurrency: &[1, 16, 64],
        contenders: &[Dhow, Serve, ServeTuned],
        checks: &[Check { ours: Dhow, peer: Serve, cpu: 1.0 / 2.0 }],
    },
];

/// The load generator and not the server was the limit.
const LOAD_BOUND: &str = "load-bound";
/// Other programs used the cores.
const DISTURBED: &str = "disturbed";

/// A server of the row and what its rounds measured.
struct Entry {
    contender: Contender,
    server: Server,
    rounds: Vec<Round>,
}

/// One turn under load.
pub(super) struct Round {
    /// Of the server, a request.
    pub(super) cpu_us: f64,
    user_share: Option<f64>,
    /// Requests a second.
    pub(super) rate: f64,
    p50_us: f64,
    p99_us: f64,
    /// Shares of their cores that server and load used.
    server_busy: f64,
    load_busy: f64,
}

/// Medians of the rounds.
struct Summary {
    cpu_us: f64,
    user_share: f64,
    rate: f64,
    p50_us: f64,
    p99_us: f64,
    server_busy: f64,
    load_busy: f64,
    memory: Memory,
}

impl Summary {
    /// What a reader must know before trusting rate and latency; empty when there is nothing.
    fn note(&self, connections: usize) -> &'static str {
        match (self.server_busy > 0.9, self.load_busy > 0.9) {
            (false, true) => LOAD_BOUND,
            // With many connections one of the two always has work, so another program had the cores.
            (false, false) if connections >= 16 => DISTURBED,
            _ => "",
        }
    }
}

/// Measures one row.
pub fn measure(
    row: &Row,
    places: &Places,
    cores: Cores,
    settings: &Settings,
    report: &mut Report,
) -> Result<(), String> {
    let guest = places.guest(row.guest)?;
    let mut entries = Vec::new();
    for contender in row.contenders {
        let addr = free_port()?;
        let Some(command) = contender.command(places, &guest, addr, &places.code_cache) else { continue };
        let mut server = Server::start(contender.name(), command, addr, Some(cores.server), &places.scratch)?;
        // Compiling JavaScript or Python takes ten seconds and more when it is not cached yet.
        server.wait_ready("/", Duration::from_secs(180))?;
        entries.push(Entry { contender: *contender, server, rounds: Vec::new() });
    }
    let concurrency = if settings.quick { &[16][..] } else { row.concurrency };
    for connections in concurrency {
        for entry in &mut entries {
            entry.rounds.clear();
        }
        let count = entries.len();
        for round in 0..settings.rounds {
            // Another one goes first each time, so that nobody always follows the same neighbour.
            for turn in 0..count {
                let entry = &mut entries[(round + turn) % count];
                let server = &entry.server;
                let measured = Load::connect(server.addr, *connections, "/", Some(row.body_length))
                    .and_then(|load| take_turn(server, load, settings));
                entry
                    .rounds
                    .push(measured.map_err(|e| format!("{}, c={connections}: {e}", entry.server.name))?);
            }
        }
        let summaries = entries
            .iter()
            .map(|entry| Ok((entry.contender, summarise(entry)?)))
            .collect::<Result<Vec<_>, String>>()?;
        print(row, *connections, &summaries);
        record(row, *connections, &summaries, report);
    }
    Ok(())
}

/// Puts a server under load for as long as the settings say.
pub(super) fn take_turn(server: &Server, mut load: Load, settings: &Settings) -> Result<Round, String> {
    load.run(settings.warm_up, settings.most_requests)?;
    let before = server.cpu()?;
    let sample = load.run(settings.time, settings.most_requests)?;
    let cpu = server.cpu()?.since(before);
    let elapsed = sample.elapsed.as_secs_f64();
    Ok(Round {
        cpu_us: cpu.total.as_secs_f64() * 1e6 / sample.requests as f64,
        user_share: cpu.user_share(),
        rate: sample.requests as f64 / elapsed,
        p50_us: sample.latency.quantile(0.50).as_secs_f64() * 1e6,
        p99_us: sample.latency.quantile(0.99).as_secs_f64() * 1e6,
        server_busy: cpu.total.as_secs_f64() / elapsed,
        load_busy: sample.load_cpu.as_secs_f64() / elapsed,
    })
}

fn summarise(entry: &Entry) -> Result<Summary, String> {
    let of = |figure: fn(&Round) -> f64| median(&entry.rounds.iter().map(figure).collect::<Vec<_>>());
    let shares: Vec<f64> = entry.rounds.iter().filter_map(|round| round.user_share).collect();
    Ok(Summary {
        cpu_us: of(|round| round.cpu_us),
        user_share: median(&shares),
        rate: of(|round| round.rate),
        p50_us: of(|round| round.p50_us),
        p99_us: of(|round| round.p99_us),
        server_busy: of(|round| round.server_busy),
        load_busy: of(|round| round.load_busy),
        memory: entry.server.memory()?,
    })
}

fn print(row: &Row, connections: usize, summaries: &[(Contender, Summary)]) {
    let header =
        ["", "CPU µs/req", "user+sys", "req/s", "p50 µs", "p99 µs", "RSS MiB", "peak", "server", "load", ""];
    let mut table = vec![header.map(str::to_owned)];
    table[0][0] = format!("{} c={connections}", row.name);
    for (contender, summary) in summaries {
        let user = summary.cpu_us * summary.user_share;
        table.push([
            format!("  {}", contender.name()),
            format!("{:.1}", summary.cpu_us),
            format!("{user:.0}+{:.0}", summary.cpu_us - user),
            format!("{:.0}", summary.rate),
            format!("{:.0}", summary.p50_us),
            format!("{:.0}", summary.p99_us),
            format!("{:.0}", summary.memory.resident as f64 / MIB),
            format!("{:.0}", summary.memory.peak as f64 / MIB),
            format!("{:.0} %", summary.server_busy * 100.0),
            format!("{:.0} %", summary.load_busy * 100.0),
            summary.note(connections).to_owned(),
        ]);
    }
    println!();
    print_table(&table);
}

fn record(row: &Row, connections: usize, summaries: &[(Contender, Summary)], report: &mut Report) {
    let find =
        |wanted: Contender| summaries.iter().find(|(contender, _)| *contender == wanted).map(|(_, s)| s);
    let name = format!("{} c={connections}", row.name);
    for check in row.checks {
        let (ours, Some(peer)) = (find(check.ours), find(check.peer)) else { continue };
        let peer_name = || check.peer.name().to_owned();
        let mode = if check.ours == DhowReuse { ", reuse" } else { "" };
        report.finding(Finding {
            row: name.clone(),
            measure: format!("CPU a request{mode}"),
            unit: Unit::Microseconds,
            ours: ours.map(|ours| ours.cpu_us),
            peer: Some((peer_name(), peer.cpu_us)),
            target: Target::Ratio(check.cpu),
        });
        report.finding(Finding {
            row: name.clone(),
            measure: format!("p99{mode}"),
            unit: Unit::Microseconds,
            ours: ours.map(|ours| ours.p99_us),
            peer: Some((peer_name(), peer.p99_us)),
            target: Target::Ratio(1.0),
        });
    }
    for (contender, summary) in summaries {
        let note = summary.note(connections);
        if note == DISTURBED {
            report.disturbed();
        }
        report.detail(json!({
            "row": row.name, "connections": connections, "server": contender.name(),
            "cpu_us_per_request": summary.cpu_us, "user_share": summary.user_share,
            "requests_per_second": summary.rate, "p50_us": summary.p50_us, "p99_us": summary.p99_us,
            "resident_bytes": summary.memory.resident, "peak_bytes": summary.memory.peak,
            "server_busy": summary.server_busy, "load_busy": summary.load_busy, "note": note,
        }));
    }
}
