//! Rows about beginnings: from process start to the first answer, and the first request of an app whose
//! code is compiled and cached but not loaded.

use std::time::Duration;

use serde_json::json;

use super::Settings;
use super::apps::{Folder, route};
use super::client::Client;
use super::peers::{Contender, Places};
use super::report::{Finding, Report, Target, Unit, median};
use super::server::{Cores, Server, free_port};

const PATIENCE: Duration = Duration::from_secs(180);

/// From spawning the process to its first answer, with the code cache warm; no slower than the peer.
pub fn process(
    places: &Places,
    cores: Cores,
    settings: &Settings,
    report: &mut Report,
) -> Result<(), String> {
    let rounds = if settings.quick { 7 } else { 21 };
    for guest in ["hello", "js-hello"] {
        let file = places.guest(guest)?;
        let contenders = [Contender::Dhow, Contender::Serve];
        let mut times = [Vec::new(), Vec::new()];
        // The first round fills the caches and is not counted.
        for round in 0..=rounds {
            for (contender, times) in contenders.iter().zip(&mut times) {
                let addr = free_port()?;
                let Some(command) = contender.command(places, &file, addr, &places.code_cache) else {
                    continue;
                };
                let mut server =
                    Server::start(contender.name(), command, addr, Some(cores.server), &places.scratch)?;
                let time = server.wait_ready("/", PATIENCE)?;
                server.stop();
                if round > 0 {
                    times.push(time.as_secs_f64() * 1e3);
                }
            }
        }
        let [ours, peer] = times;
        report.detail(json!({ "row": "start", "guest": guest, "dhow_ms": ours, "serve_ms": peer }));
        report.finding(Finding {
            row: format!("start {guest}"),
            measure: "process start to first answer, p50".to_owned(),
            unit: Unit::Milliseconds,
            ours: (!ours.is_empty()).then(|| median(&ours)),
            peer: Some(("serve, cached".to_owned(), median(&peer))),
            target: Target::Ratio(1.0),
        });
    }
    Ok(())
}

/// The first request of each of many apps, of which every one has code of its own; at most 2 ms.
pub fn first_request(
    places: &Places,
    cores: Cores,
    settings: &Settings,
    report: &mut Report,
) -> Result<(), String> {
    let Some(dhow) = &places.dhow else { return Ok(()) };
    let count = if settings.quick { 40 } else { 200 };
    let guest = places.guest("hello")?;
    let module = std::fs::read(&guest).map_err(|e| format!("{}: {e}", guest.display()))?;
    let mut folder = Folder::new(places, "first-request")?;
    for number in 0..count {
        let name = format!("app{number:05}.wasm");
        folder.file(&name, &distinct(&module, number))?;
        folder.app(&format!("app{number:05}"), &name, &route(number), &[]);
    }

    // Compiles and caches, on any core.
    let host = folder.start(dhow, None, &route(0))?;
    ask_each(&host.server, count)?;
    host.server.stop();

    let host = folder.start(dhow, Some(cores.server), &route(0))?;
    let first = ask_each(&host.server, count)?;
    let second = ask_each(&host.server, count)?;
    report.detail(json!({ "row": "first-request", "first_ms": first, "second_ms": second }));
    let finding = |measure: &str, times: &[f64], target| Finding {
        row: format!("first-request, {count} apps"),
        measure: measure.to_owned(),
        unit: Unit::Milliseconds,
        ours: Some(median(times)),
        peer: None,
        target,
    };
    report.finding(finding("first answer, code cached but not loaded, p50", &first, Target::Value(2.0)));
    report.finding(finding("second answer, p50", &second, Target::None));
    Ok(())
}

/// Milliseconds of one request to each app but app 0, which has answered when the host was waited for.
fn ask_each(server: &Server, count: usize) -> Result<Vec<f64>, String> {
    let mut client = Client::connect(server.addr)?;
    client.get(&route(0))?;
    (1..count)
        .map(|number| {
            let reply = client.get(&route(number))?;
            match reply.status {
                200 => Ok(reply.time.as_secs_f64() * 1e3),
                status => Err(format!("{} answered with status {status}: {}", route(number), reply.text())),
            }
        })
        .collect()
}

/// The same component with another digest: a custom section at its end (WebAssembly core specification,
/// section 5.5.3; components have them too).
fn distinct(module: &[u8], number: usize) -> Vec<u8> {
    let content = format!("\x05bench{number:08}");
    // Both lengths are below 128, so one byte of LEB128 holds each.
    [module, &[0, content.len() as u8], content.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_modules_differ_in_a_well_formed_custom_section() {
        let module = b"\0asm\x0d\0\x01\0";
        let (one, two) = (distinct(module, 1), distinct(module, 99_999));
        assert_ne!(one, two);
        for made in [one, two] {
            let section = made.strip_prefix(module).unwrap();
            assert_eq!(section[0], 0, "a custom section");
            assert_eq!(usize::from(section[1]), section.len() - 2, "its size");
            assert_eq!(&section[2..8], b"\x05bench", "its name");
        }
    }
}
