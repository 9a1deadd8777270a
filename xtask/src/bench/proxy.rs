//! proxy-wasm: what a filter adds to an app, and Layotto's inventory pair beside the same work as a native program.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Settings;
use super::apps::Folder;
use super::http::{Round, take_turn};
use super::load::Load;
use super::peers::Places;
use super::report::{Finding, Report, Target, Unit, median};
use super::server::{Cores, Server, free_port};

/// Connections at once.
const CONNECTIONS: usize = 16;

/// The most that one filter may add, in microseconds of CPU a request.
const FILTER: f64 = 5.0;

/// The answer of the inventory pair.
const SENTENCE: &str = "There are 100 inventories for book1.";

const HELLO: &str = "Hello, world!\n";

/// The pair's configuration: one store, two functions.
const LAYOTTO: &str = r#"{ "servers": [{ "listeners": [
  { "address": "127.0.0.1:0", "filter_chains": [{ "filters": [{ "type": "grpc", "config": {
    "server_name": "runtime",
    "grpc_config": { "state": { "state_demo": { "type": "redis", "metadata": { "redisHost": "REDIS", "redisPassword": "" } } } }
  } }] }] },
  { "address": "FUNCTIONS", "stream_filters": [{ "type": "Layotto", "config": {
    "client": { "instance_num": 1, "vm_config": { "path": "CLIENT" } },
    "server": { "instance_num": 1, "vm_config": { "path": "SERVER" } }
  } }] }
] }] }"#;

/// One of the servers that are measured in turn.
struct Entry {
    server: Server,
    path: &'static str,
    /// Length of each answer.
    length: usize,
    rounds: Vec<Round>,
}

/// The smallest app with and without a filter that adds a header, in one host; beside it both natively.
pub fn filter(places: &Places, cores: Cores, settings: &Settings, report: &mut Report) -> Result<(), String> {
    let Some(dhow) = &places.dhow else { return Ok(()) };
    let file = |name: &str| places.guest(name).map(|path| path.to_string_lossy().into_owned());
    let mut folder = Folder::new(places, "filter")?;
    folder.app("plain", &file("hello")?, "/plain", &[]);
    folder.app("marked", &file("hello")?, "/marked", &[]);
    folder.filters(&["mark"]);
    folder.app("mark", &file("proxy-mark")?, "/mark", &[]);
    let host = folder.start(dhow, Some(cores.server), "/plain")?.server;

    // One host serves both, so that nothing differs but the filter.
    let mut entries = Vec::new();
    for marks in [false, true] {
        let server = native(places, cores, &[("MARK", "1")][..usize::from(marks)])?;
        entries.push(Entry { server, path: "/", length: HELLO.len(), rounds: Vec::new() });
    }
    let (mut plain, mut marked) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        for (path, rounds) in [("/plain", &mut plain), ("/marked", &mut marked)] {
            let load = Load::connect(host.addr, CONNECTIONS, path, Some(HELLO.len() as u64))?;
            rounds.push(take_turn(&host, load, settings)?);
        }
        turns(&mut entries, settings)?;
    }
    let [native_plain, native_marked] = [&entries[0].rounds, &entries[1].rounds].map(|rounds| cpu(rounds));
    // Round by round: what disturbs the machine disturbs both.
    let added: Vec<f64> =
        plain.iter().zip(&marked).map(|(plain, marked)| marked.cpu_us - plain.cpu_us).collect();
    let row = format!("filter c={CONNECTIONS}");
    report.finding(Finding {
        row: row.clone(),
        measure: "CPU a request, added".to_owned(),
        unit: Unit::Microseconds,
        ours: Some(median(&added)),
        peer: Some(("native".to_owned(), native_marked - native_plain)),
        target: Target::Value(FILTER),
    });
    report.finding(Finding {
        row,
        measure: "CPU a request, app and filter".to_owned(),
        unit: Unit::Microseconds,
        ours: Some(cpu(&marked)),
        peer: Some(("native".to_owned(), native_marked)),
        target: Target::None,
    });
    report.detail(json!({
        "row": "filter", "added_us": added, "plain_us": cpu(&plain), "marked_us": cpu(&marked),
        "native_plain_us": native_plain, "native_marked_us": native_marked,
    }));
    host.stop();
    entries.into_iter().for_each(|entry| entry.server.stop());
    Ok(())
}

/// A request to one function, which asks the other, which reads from Redis.
pub fn inventory(
    places: &Places,
    cores: Cores,
    settings: &Settings,
    report: &mut Report,
) -> Result<(), String> {
    let redis = redis(places)?;
    let address = redis.addr.to_string();
    let path = "/?name=book1";
    let url = format!("redis://{address}");
    let server = native(places, cores, &[("REDIS", &url)])?;
    let length = SENTENCE.len();
    let mut entries = vec![Entry { server, path, length, rounds: Vec::new() }];
    if let Some(dhow) = &places.dhow {
        let folder = Folder::new(places, "inventory")?;
        let addr = free_port()?;
        let mut config = LAYOTTO.replace("REDIS", &address).replace("FUNCTIONS", &addr.to_string());
        for (word, guest) in [("CLIENT", "inventory-client"), ("SERVER", "inventory-server")] {
            let file = places.guests.join(format!("{guest}.wasm"));
            if !file.is_file() {
                return Err(format!("no {}; run `cargo xtask guests inventory`", file.display()));
            }
            config = config.replace(word, &file.to_string_lossy());
        }
        folder.file("config.json", config.as_bytes())?;
        let mut command = Command::new(dhow);
        command.args(["layotto", "start", "-c", "config.json", "--data-dir", "data"]);
        command.env("XDG_CACHE_HOME", &places.code_cache).env_remove("RUST_LOG").current_dir(folder.path());
        let server = Server::start("dhow", command, addr, Some(cores.server), folder.path())?;
        entries.push(Entry { server, path, length, rounds: Vec::new() });
    }
    for entry in &entries {
        until_it_answers(entry)?;
    }
    for _ in 0..settings.rounds {
        turns(&mut entries, settings)?;
    }
    let ours = entries.get(1);
    let mut finding = |measure: &str, of: fn(&[Round]) -> f64| {
        report.finding(Finding {
            row: format!("inventory c={CONNECTIONS}"),
            measure: measure.to_owned(),
            unit: Unit::Microseconds,
            ours: ours.map(|entry| of(&entry.rounds)),
            peer: Some(("native".to_owned(), of(&entries[0].rounds))),
            target: Target::None,
        });
    };
    finding("CPU a request", cpu);
    finding("time a request (1 / rate)", |rounds| 1e6 / rate(rounds));
    for entry in &entries {
        report.detail(json!({
            "row": "inventory", "server": entry.server.name, "cpu_us_per_request": cpu(&entry.rounds),
            "requests_per_second": rate(&entry.rounds),
        }));
    }
    entries.into_iter().for_each(|entry| entry.server.stop());
    redis.stop();
    Ok(())
}

/// One round of each.
fn turns(entries: &mut [Entry], settings: &Settings) -> Result<(), String> {
    for entry in entries {
        let round = take_turn(&entry.server, load(entry, CONNECTIONS)?, settings);
        entry.rounds.push(round.map_err(|e| format!("{}: {e}", entry.server.name))?);
    }
    Ok(())
}

/// The header is Layotto's way to name a function; others do not mind it.
fn load(entry: &Entry, connections: usize) -> Result<Load, String> {
    let load = Load::connect(entry.server.addr, connections, entry.path, Some(entry.length as u64))?;
    Ok(load.with_header("id", "id_1"))
}

/// Functions are compiled while their port answers already.
fn until_it_answers(entry: &Entry) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let answered = load(entry, 1).and_then(|mut load| load.run(Duration::ZERO, 1));
        match answered {
            Ok(_) => return Ok(()),
            Err(e) if began.elapsed() > Duration::from_secs(60) => {
                return Err(format!("{}: {e}\n{}", entry.server.name, entry.server.log_tail()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn native(places: &Places, cores: Cores, env: &[(&str, &str)]) -> Result<Server, String> {
    let addr = free_port()?;
    let mut command = Command::new(places.native("bench/native", "native")?);
    command.env("LISTEN", addr.to_string()).envs(env.iter().copied()).current_dir(&places.scratch);
    let mut server = Server::start("native", command, addr, Some(cores.server), &places.scratch)?;
    server.wait_ready("/?name=book1", Duration::from_secs(10))?;
    Ok(server)
}

/// A Redis with the book, wherever the system puts it.
fn redis(places: &Places) -> Result<Server, String> {
    let addr = free_port()?;
    let mut command = Command::new("redis-server");
    command.args([
        "--bind",
        "127.0.0.1",
        "--port",
        &addr.port().to_string(),
        "--save",
        "",
        "--appendonly",
        "no",
    ]);
    command.current_dir(&places.scratch);
    let server = Server::start("redis-server", command, addr, None, &places.scratch)?;
    let began = Instant::now();
    loop {
        match set_book(addr) {
            Ok(()) => return Ok(server),
            Err(e) if began.elapsed() > Duration::from_secs(10) => {
                return Err(format!("redis-server at {addr}: {e}\n{}", server.log_tail()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn set_book(redis: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(redis)?;
    stream.write_all(b"SET book1 100\r\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    if &answer == b"+OK\r\n" { Ok(()) } else { Err(std::io::Error::other("it refused to set a key")) }
}

fn cpu(rounds: &[Round]) -> f64 {
    median(&rounds.iter().map(|round| round.cpu_us).collect::<Vec<_>>())
}

fn rate(rounds: &[Round]) -> f64 {
    median(&rounds.iter().map(|round| round.rate).collect::<Vec<_>>())
}
