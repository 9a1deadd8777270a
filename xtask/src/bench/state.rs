//! A guest's read of state: through wasi:keyvalue and through Dapr's API in process, beside the same read
//! over the real loopback port. The loops of the first two run inside the guest.

use serde_json::{Value, json};

use super::Settings;
use super::apps::{Folder, Host};
use super::client::Client;
use super::load::Load;
use super::peers::{Contender, Places};
use super::report::{Finding, Report, Target, Unit, median};
use super::server::{Cores, Server, free_port};

/// A store: the name of its component, what it is, and the most microseconds a read may take.
const STORES: &[(&str, &str, f64)] = &[("memory", "in-memory", 2.0), ("statestore", "SQLite", 10.0)];

/// The in-memory store; `statestore` needs no configuration.
const MEMORY: &str = "\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: memory
spec:
  type: state.in-memory
  version: v1
  metadata: []
";

/// Reads of one request through wasi:keyvalue.
const READS: usize = 20_000;
/// Reads of one request, or of one run from outside, through Dapr's API.
const DAPR_READS: usize = 2_000;

/// Microseconds a read, one figure a round.
#[derive(Default)]
struct Ways {
    key_value: Vec<f64>,
    dapr: Vec<f64>,
    loopback: Vec<f64>,
}

/// Measures reads from both embedded stores.
pub fn measure(
    places: &Places,
    cores: Cores,
    settings: &Settings,
    report: &mut Report,
) -> Result<(), String> {
    let guest = places.guest("state")?;
    peer(places, cores, settings, report)?;
    let Some(dhow) = &places.dhow else { return Ok(()) };
    let module = guest.to_str().ok_or_else(|| format!("{} is not UTF-8", guest.display()))?;
    let mut folder = Folder::new(places, "state")?;
    let names: Vec<&str> = STORES.iter().map(|(name, ..)| *name).collect();
    folder.app("reader", module, "/", &names);
    folder.file("resources/memory.yaml", MEMORY.as_bytes())?;
    let host = folder.start(dhow, Some(cores.server), "/")?;

    let mut client = Client::connect(host.server.addr)?;
    let mut measured: Vec<Ways> = STORES.iter().map(|_| Ways::default()).collect();
    for _ in 0..settings.rounds {
        for ((store, ..), ways) in STORES.iter().zip(&mut measured) {
            ways.key_value.push(ask(&mut client, &format!("/kv?store={store}&n={READS}"))?);
            ways.dapr.push(ask(&mut client, &format!("/dapr?store={store}&n={DAPR_READS}"))?);
            ways.loopback.push(loopback(&host, store, settings)?);
        }
    }
    for ((_, kind, most), ways) in STORES.iter().zip(&measured) {
        let outside = ("Dapr port, loopback".to_owned(), median(&ways.loopback));
        let finding = |measure: &str, times: &[f64], target| Finding {
            row: format!("state {kind}"),
            measure: measure.to_owned(),
            unit: Unit::Microseconds,
            ours: Some(median(times)),
            peer: Some(outside.clone()),
            target,
        };
        report.finding(finding("read by wasi:keyvalue, p50", &ways.key_value, Target::Value(*most)));
        report.finding(finding("read by Dapr's API in process, p50", &ways.dapr, Target::None));
        report.detail(json!({
            "row": "state", "store": kind, "keyvalue_us": ways.key_value, "dapr_us": ways.dapr,
            "loopback_us": ways.loopback,
        }));
    }
    Ok(())
}

/// The same guest on `wasmtime serve`, whose key-value store is a map inside each instance.
fn peer(places: &Places, cores: Cores, settings: &Settings, report: &mut Report) -> Result<(), String> {
    let addr = free_port()?;
    let Some(mut command) =
        Contender::Serve.command(places, &places.guest("state")?, addr, &places.code_cache)
    else {
        return Ok(());
    };
    command.args(["-S", "keyvalue"]);
    let mut server = Server::start("serve, keyvalue", command, addr, Some(cores.server), &places.scratch)?;
    server.wait_ready("/", std::time::Duration::from_secs(60))?;
    let mut client = Client::connect(addr)?;
    let times: Result<Vec<f64>, String> =
        (0..settings.rounds).map(|_| ask(&mut client, &format!("/kv?store=&n={READS}"))).collect();
    report.finding(Finding {
        row: "state in the instance".to_owned(),
        measure: "read by wasi:keyvalue, p50".to_owned(),
        unit: Unit::Microseconds,
        ours: None,
        peer: Some(("serve".to_owned(), median(&times?))),
        target: Target::None,
    });
    Ok(())
}

/// Microseconds a call, as the guest measured them.
pub(super) fn ask(client: &mut Client, path: &str) -> Result<f64, String> {
    let reply = client.get(path)?;
    if reply.status != 200 {
        return Err(format!("GET {path} answered with status {}: {}", reply.status, reply.text()));
    }
    let figures: Value = serde_json::from_slice(&reply.body).map_err(|e| format!("GET {path}: {e}"))?;
    let p50 = figures["p50_ns"].as_f64().ok_or_else(|| format!("GET {path}: no p50_ns in {figures}"))?;
    Ok(p50 / 1e3)
}

/// Microseconds a read for a program outside, over the real port.
fn loopback(host: &Host, store: &str, settings: &Settings) -> Result<f64, String> {
    let mut client = Client::connect(host.api)?;
    let path = format!("/v1.0/state/{store}");
    let saved = client.post_json(
        &path,
        r#"[{"key":"bench-key","value":"a value of a usual, short size: 48 bytes of it"}]"#,
    )?;
    if !matches!(saved.status, 200 | 201 | 204) {
        return Err(format!("POST {path} answered with status {}: {}", saved.status, saved.text()));
    }
    let path = format!("{path}/bench-key");
    let length = client.get(&path)?.body.len() as u64;
    let mut load = Load::connect(host.api, 1, &path, Some(length))?;
    load.run(settings.warm_up, DAPR_READS as u64)?;
    let sample = load.run(settings.time, DAPR_READS as u64)?;
    Ok(sample.latency.quantile(0.5).as_secs_f64() * 1e6)
}
